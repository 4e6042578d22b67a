"""Networks to files and back, exactly; and files and descriptions that are refused, saying why."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pellucid as pl
from pellucid import files
from pellucid.errors import CheckpointError, ParameterError, ShapeError
from pellucid.trees import leaves
from test_graph import GRAPHS


class Doubling(pl.Layer):
    """A layer of a user's own, whose constructor takes no name."""

    def __init__(self, units=3):
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(self.units, input_shape[0]), initializer="random_normal")
        self.seen = self.add_weight(shape=(1,), initializer="zeros", trainable=False)

    def call(self, inputs):
        return 2 * self.w @ inputs

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return 2 * params["w"].T @ dA, {"w": 2 * dA @ cache.A_prev.T / dA.shape[-1]}


class Passing(Doubling):
    """As people write them: further options handed on."""

    def __init__(self, units=3, **kwargs):
        super(Doubling, self).__init__(**kwargs)
        self.units = units


def chain(dtype="float32", **options):
    shared = pl.Dense(5, "prelu", name="shared")
    return pl.Sequential(
        shared,
        pl.BatchNorm(momentum=0.7),
        shared,
        Doubling(5),
        Passing(4, name="own"),
        pl.Dense(3, pl.ELU(0.5), initializer="normal(0.3)", regularizer="l1(0.01)"),
        input_shape=5,
        loss=pl.SoftmaxCrossEntropy(class_weight={1: 2.0}, label_smoothing=0.1),
        loss_weights={"output": 0.5},
        seed=3,
        dtype=dtype,
        regularizer="l2(0.1)",
        **options,
    )


def assert_equal_networks(one, other):
    assert other.config() == one.config()
    for tree, tree_again in ((one.parameters, other.parameters), (one.state, other.state)):
        for (name, leaf), (name_again, leaf_again) in zip(leaves(tree), leaves(tree_again), strict=True):
            assert name == name_again
            assert leaf.dtype == leaf_again.dtype
            np.testing.assert_array_equal(leaf, leaf_again)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_chain_comes_back_exactly(tmp_path, dtype, rng):
    net = chain(dtype)
    X, Y = rng.normal(size=(5, 8)), rng.integers(3, size=8)
    net.state = net.checked_iteration(X, Y).state
    net.preprocessing = {"mean": [1.0, 2.0], "kind": "standardised"}
    net.save(tmp_path / "net.pellucid")
    again = pl.load(tmp_path / "net.pellucid")
    assert_equal_networks(net, again)
    assert again.preprocessing == net.preprocessing
    assert isinstance(again, pl.Sequential)
    assert again.layers[0] is again.layers[2]
    assert "own" in again.parameters
    assert again.cost(X, Y) == net.cost(X, Y)
    assert again.gradients(X, Y, update=5)[0] == net.gradients(X, Y, update=5)[0]
    np.testing.assert_array_equal(again.forward(X)[0], net.forward(X)[0])


@pytest.mark.parametrize("make", GRAPHS, ids=lambda make: make.__name__)
def test_a_graph_comes_back_exactly(tmp_path, make, rng):
    net, data = make()
    X, Y = data(rng)
    net.state = net.checked_iteration(X, Y).state
    net.save(tmp_path / "net.pellucid")
    again = pl.load(tmp_path / "net.pellucid")
    assert_equal_networks(net, again)
    assert again.cost(X, Y) == net.cost(X, Y)


def test_a_users_layer_comes_back_in_a_graph(tmp_path, rng):
    x = pl.Input(5)
    net = pl.Graph(inputs=x, outputs=Passing(2, name="own")(Doubling(4)(x)), loss="mse", dtype="float64")
    net.save(tmp_path / "net.pellucid")
    again = pl.load(tmp_path / "net.pellucid")
    assert_equal_networks(net, again)
    X = rng.normal(size=(5, 8))
    np.testing.assert_array_equal(again.forward(X)[0], net.forward(X)[0])


def test_config_is_plain_json():
    document = json.loads(json.dumps(chain().config()))
    assert pl.from_config(document).config() == chain().config()


def test_defaults_and_changes():
    net = pl.from_config({"input_shape": 3, "layers": ["relu", {"type": "Dense", "units": 2}, "Dense(4)"]})
    assert isinstance(net, pl.Sequential)
    assert net.outputs == {"output": (4,)}
    changed = pl.from_config(net.config(), seed=9, dtype="float64")
    assert (changed.seed, changed.dtype) == (9, "float64")
    with pytest.raises(ParameterError, match="unknown key 'sead'"):
        pl.from_config(net.config(), sead=9)


def test_toml(tmp_path):
    (tmp_path / "net.toml").write_text(
        """
        input_shape = [4]
        loss = "softmax_cross_entropy"
        [[layers]]
        type = "Dense"
        units = 8
        activation = "leaky_relu(0.2)"
        [[layers]]
        type = "Dense"
        units = 3
        """
    )
    net = pl.from_config(pl.network.saving.read_toml(tmp_path / "net.toml"))
    assert repr(net.layers[0].activation) == "LeakyReLU(slope=0.2)"
    (tmp_path / "bad.toml").write_text("input_shape = [4")
    with pytest.raises(ParameterError, match="not a TOML file") as caught:
        pl.network.saving.read_toml(tmp_path / "bad.toml")
    assert "bad.toml" in str(caught.value)
    with pytest.raises(ParameterError, match="no such network file"):
        pl.network.saving.read_toml(tmp_path / "missing.toml")


CHAIN = {"input_shape": [4], "layers": [{"type": "Dense", "units": 3}]}
GRAPH = {"inputs": {"x": [4]}, "layers": [{"type": "Dense", "units": 3, "inputs": ["x"]}], "outputs": {"y": "layer_1"}}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({**CHAIN, "los": "mse"}, ("unknown key 'los'", "did you mean 'loss'", "regularizer")),
        ({"input_shape": [4]}, ("'layers' is missing", "input_shape, layers")),
        ({"layers": CHAIN["layers"]}, ("'input_shape' is missing",)),
        ({"inputs": {"x": [4]}, "layers": []}, ("'outputs' is missing",)),
        ({**GRAPH, "outputs": {}}, ("Graph", "needs an output")),
        ({**CHAIN, "layers": []}, ("Sequential", "needs a layer")),
        ({**CHAIN, "network": "Chain"}, ("unknown network 'Chain'", "Graph, Sequential")),
        (
            {**CHAIN, "layers": [{"type": "Dens", "units": 3}]},
            ("layer 1", "unknown layer 'Dens'", "'Dense'", "Dropout"),
        ),
        ({**CHAIN, "layers": ["relu", {"type": "Dense"}]}, ("layer 2", "missing a required argument: 'units'")),
        ({**CHAIN, "layers": [{"type": "Dense", "unit": 3}]}, ("layer 1", "unit", "units")),
        ({**CHAIN, "layers": [{"units": 3}]}, ("layer 1", "no 'type'")),
        ({**CHAIN, "layers": [3]}, ("layer 1", "cannot be used as layer", "3")),
        ({**CHAIN, "layers": [{"shared": "one"}]}, ("layer 1", "unknown layer 'one'")),
        ({**CHAIN, "input_shape": [4, 0]}, ("input_shape", "positive integers", "[4, 0]")),
        ({**CHAIN, "loss": "entropy"}, ("output 'output'", "unknown loss 'entropy'", "cross_entropy")),
        ({**CHAIN, "dtype": "float16"}, ("unknown dtype", "float32 or float64", "'float16'")),
        ({**CHAIN, "regularizer": "l3"}, ("unknown regularizer 'l3'",)),
        ({**GRAPH, "layers": [{"type": "Dense", "units": 3, "inputs": ["z"]}]}, ("layer 1", "unknown node 'z'")),
        ({**GRAPH, "layers": [{"type": "Dense", "units": 3}]}, ("layer 1", "needs inputs", "['x']")),
        ({**GRAPH, "outputs": {"y": "layer_2"}}, ("output 'y'", "unknown node 'layer_2'", "'layer_1'")),
        ([], ("described by a table", "list")),
    ],
)
def test_descriptions_that_are_refused(document, words):
    with pytest.raises((ParameterError, ShapeError)) as caught:
        pl.from_config(document)
    for word in words:
        assert word in str(caught.value)


def test_a_graph_described_by_hand(rng):
    net = pl.from_config(GRAPH)
    assert net.forward({"x": rng.normal(size=(4, 2))})[0]["y"].shape == (3, 2)


def test_corrupt_files_are_refused(tmp_path):
    path = tmp_path / "net.pellucid"
    with pytest.raises(CheckpointError, match=r"net\.pellucid"):
        pl.load(path)
    chain().save(path)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[-5] ^= 1
    for bad in (b"", good[:20], good[: len(good) // 2], good[:-1], bytes(flipped), b"\0" * 100, b"not a network" * 9):
        path.write_bytes(bad)
        with pytest.raises(CheckpointError) as caught:
            pl.load(path)
        assert "net.pellucid" in str(caught.value)


def test_another_networks_arrays_are_refused():
    net, other = chain(), pl.Sequential(pl.Dense(2), input_shape=3)
    arrays, document = pl.network.saving.contents(other)
    with pytest.raises(ShapeError, match="shared/W is missing"):
        pl.network.saving.fill(net, arrays, where="here")
    with pytest.raises(CheckpointError, match="no network in this file"):
        pl.network.saving.restored(arrays, {})
    narrow = {**arrays, "parameters/dense_1/W": np.zeros((2, 9))}
    with pytest.raises(ShapeError, match="dense_1/W has another shape") as caught:
        pl.network.saving.restored(narrow, document, where="here")
    assert "(2, 3)" in str(caught.value)
    assert "(2, 9)" in str(caught.value)


def test_a_layer_that_does_not_keep_its_argument_cannot_be_saved(tmp_path):
    class Forgetful(Doubling):
        def __init__(self, width):
            super().__init__(width)

    net = pl.Sequential(Forgetful(2), input_shape=3)
    assert "Forgetful" in repr(net)
    with pytest.raises(ParameterError, match="does not keep its argument 'width'") as caught:
        net.save(tmp_path / "net.pellucid")
    assert "self.width = width" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_of_another_module_is_asked_for(tmp_path):
    path = tmp_path / "own.pellucid"
    net = pl.Sequential([pl.Dense(2)], input_shape=(3,), loss="mean_squared_error")
    net.save(path)
    arrays, document = files.read_arrays(path)
    document["config"]["layers"][0]["type"] = "Stretched"
    files.write_arrays(path, arrays, document)
    with pytest.raises(ParameterError, match=r"import the module that defines 'Stretched' first"):
        pl.load(path)


def test_parameters_of_unknown_names_are_listed():
    net = pl.Sequential([pl.Dense(2)], input_shape=(3,), loss="mean_squared_error")
    with pytest.raises(ShapeError, match=r"W is missing(.|\n)*unknown: dense_9/W"):
        net.parameters = {"dense_9": {"W": np.zeros((2, 3))}}
