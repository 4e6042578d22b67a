"""Predictions of a few examples by one recorded call: to the bit what running the layers gives, or not recorded."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.layers import activations
from pellucid.network.recording import FEW
from pellucid.training.measuring import predict

pytestmark = pytest.mark.skipif(
    engines.known().get("native") is not None, reason=f"native engine: {engines.known().get('native')}"
)

DENSE = (pl.Dense(7, "relu"), pl.Dense(3))


def made(*layers, input_shape=5, loss="softmax_cross_entropy", **options):
    """A network with biases that are not zero."""
    net = pl.Sequential(*layers, input_shape=input_shape, loss=loss, **{"engine": "native", "seed": 3, **options})
    rng = np.random.default_rng(1)
    for params in net.parameters.values():
        if "b" in params:
            params["b"][...] = rng.normal(size=params["b"].shape)
    return net


def images(first="relu", **options):
    return made(
        pl.Conv2D(6, 3, first, padding=1),
        pl.MaxPool2D(2),
        pl.Conv2D(8, 3, "tanh", groups=2, stride=2, dilation=1),
        pl.MaxPool2D(2, stride=1, padding=1, ceil=True),
        pl.Dropout(0.5),
        pl.Flatten(),
        pl.Dense(4),
        input_shape=(2, 11, 9),
        **options,
    )


def examples(net, m, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, *net.inputs["input"])).astype(net.dtype)


def recorded(net):
    """Whether a prediction of the network is recorded."""
    net.predict(examples(net, 1))
    return net._recording.program is not None


def branches():
    a = pl.Input((5,))
    h = pl.Dense(6, "sigmoid")(a)
    return pl.Graph(inputs=a, outputs=pl.Dense(2)(pl.Dense(4, "elu")(h)), loss="squared_error", engine="native", seed=2)


NETWORKS = {
    "dense": lambda: made(*DENSE),
    "float64": lambda: made(*DENSE, dtype="float64"),
    "no loss": lambda: made(*DENSE, loss=None),
    "activation first": lambda: made(pl.ReLU(), pl.Tanh(), *DENSE),
    "yes or no": lambda: made(pl.Dense(6, "gelu"), pl.Dense(1), loss="sigmoid_cross_entropy"),
    "softmax layer": lambda: made(pl.Dense(6), pl.Softmax(), loss="cross_entropy"),
    "shared layer": lambda: made(*[pl.Dense(5, "tanh")] * 2, pl.Dense(2)),
    "no bias": lambda: made(pl.Dense(6, "leaky_relu", use_bias=False), pl.Dense(2)),
    "reshaped": lambda: made(pl.Dense(12, "selu"), pl.Reshape((2, 3, -1)), pl.Conv2D(3, 2), pl.Flatten()),
    "images": images,
    "images, float64": lambda: images(dtype="float64"),
    "signal": lambda: made(
        pl.Conv1D(4, 3, "relu", padding="causal"), pl.MaxPool1D(2), pl.Flatten(), pl.Dense(2), input_shape=(2, 9)
    ),
    "steps": lambda: made(pl.TimeDistributed(pl.Dense(4, "relu")), pl.Flatten(), pl.Dense(2), input_shape=(3, 5)),
    "graph": branches,
    "recomputed": lambda: made(pl.Recompute(pl.Dense(6, "relu"), pl.Dropout(0.5)), pl.Dense(2)),
}


@pytest.mark.parametrize("m", [1, 2, 15, 17, FEW])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_record_is_the_layers_to_the_bit(make, m):
    net = make()
    assert recorded(net)
    x = examples(net, m, seed=m)
    before = x.copy()
    A = net.predict(x)
    expected = predict(net, x)
    assert A.dtype == expected.dtype
    assert A.flags.c_contiguous
    np.testing.assert_array_equal(A, expected)
    np.testing.assert_array_equal(x, before)
    net.ops = engines.get("numpy")
    np.testing.assert_allclose(A, net.predict(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(activations))
def test_every_activation_recorded_or_not_is_right(name):
    net = made(pl.Dense(6, name), pl.Dense(2))
    x = examples(net, 3)
    np.testing.assert_array_equal(net.predict(x), predict(net, x))


class RunsCounted(pl.Layer):
    """Counts how often it runs."""

    runs = 0

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, ops, params, A_prev, *, mode=None):
        RunsCounted.runs += 1
        return ops.affine(2 * np.eye(len(A_prev), dtype=A_prev.dtype), A_prev, None), ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: made(RunsCounted(), *DENSE),
        lambda: made(pl.TimeDistributed(RunsCounted()), pl.Flatten(), *DENSE, input_shape=(3, 5)),
        lambda: made(pl.Recompute(pl.ReLU(), RunsCounted()), *DENSE),
        lambda: made(pl.SimpleRNN(4), *DENSE, input_shape=(3, 5)),
        lambda: made(pl.SimpleRNN(4), *DENSE, input_shape=(None, 5)),
        lambda: made(pl.BatchNorm(), *DENSE),
        lambda: made(pl.Dense(6, "prelu"), pl.Dense(2)),
        lambda: made(*DENSE, precision="bfloat16"),
    ],
    ids=[
        "own layer",
        "own layer inside",
        "own layer in a chain",
        "recurrent",
        "any length",
        "arithmetic",
        "numpy",
        "bfloat16",
    ],
)
def test_what_does_more_than_call_primitives_is_not_recorded(make):
    net = make()
    x = np.random.default_rng(0).normal(size=(1, *(n or 4 for n in net.inputs["input"]))).astype(np.float32)
    runs = RunsCounted.runs
    for _ in range(3):
        np.testing.assert_array_equal(net.predict(x), predict(net, x))
    assert net._recording.program is None
    assert RunsCounted.runs in (runs, runs + 6)


def test_batches_named_inputs_and_other_engines_are_not_recorded():
    a, b = pl.Input((3,)), pl.Input((2,))
    graph = pl.Graph(inputs={"a": a, "b": b}, outputs=pl.Dense(2)(pl.Concat()(a, b)), engine="native")
    x = {"a": np.ones((1, 3), np.float32), "b": np.ones((1, 2), np.float32)}
    np.testing.assert_array_equal(graph.predict(x)["output"], predict(graph, x)["output"])
    assert graph._recording.program is None
    reference = made(*DENSE, engine="numpy")
    assert not recorded(reference)
    net = made(*DENSE)
    assert recorded(net)
    for m, batch_size in [(FEW + 1, 1024), (5, 4), (5, np.int64(5))]:
        x = examples(net, m)
        np.testing.assert_array_equal(net.predict(x, batch_size=batch_size), predict(net, x, batch_size=batch_size))
    np.testing.assert_array_equal(net.predict({"input": x}), predict(net, x))


def replaced(net):
    net.parameters["dense_1"]["W"] = net.parameters["dense_1"]["W"] * 2


def within(net):
    net.parameters["dense_1"]["W"][0] += 1


def whole(net):
    net.parameters = {name: {key: W + 1 for key, W in tree.items()} for name, tree in net.parameters.items()}


def turned(net):
    net.parameters["dense_1"]["W"] = np.asfortranarray(net.parameters["dense_1"]["W"] * 3)


def trained(net):
    net.fit(examples(net, 20), np.arange(20) % 3, epochs=1, progress=False)


CHANGES = {
    "an array within": within,
    "an array": replaced,
    "an array in another order": turned,
    "all": whole,
    "drawn anew": lambda net: net.initialize(seed=9),
    "trained": trained,
    "another loss": lambda net: net.losses.update(output=pl.losses.get("squared_error")),
    "no loss": lambda net: setattr(net, "losses", {}),
    "a layer's parameters": lambda net: net.parameters.update(
        dense_2={k: W * 2 for k, W in net.parameters["dense_2"].items()}
    ),
    "another engine": lambda net: setattr(net, "ops", engines.get("numpy")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_record_follows_every_change(change):
    net = made(*DENSE)
    x = examples(net, 2)
    before = net.predict(x)
    change(net)
    after = net.predict(x)
    np.testing.assert_array_equal(after, predict(net, x))
    assert np.abs(after - before).max() > 1e-7 or change is CHANGES["another engine"]


def test_a_loaded_network_predicts_what_the_saved_one_did(tmp_path):
    net = made(*DENSE)
    x = examples(net, 1)
    expected = net.predict(x)
    net.save(tmp_path / "net.pellucid")
    np.testing.assert_array_equal(pl.load(tmp_path / "net.pellucid", engine="native").predict(x), expected)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_has_a_record_of_its_own(again):
    net = made(*DENSE)
    x = examples(net, 1)
    expected = net.predict(x)
    other = again(net)
    np.testing.assert_array_equal(other.predict(x), expected)
    other.parameters = {name: {key: W + 1 for key, W in tree.items()} for name, tree in net.parameters.items()}
    np.testing.assert_array_equal(other.predict(x), predict(other, x))
    np.testing.assert_array_equal(net.predict(x), expected)


def strided(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 7, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def misplaced(x):
    memory = bytearray(x.nbytes + 1)
    moved = np.frombuffer(memory, x.dtype, x.size, offset=1).reshape(x.shape)
    moved[...] = x
    return moved


FORMS = {
    "as it is": np.copy,
    "read-only": read_only,
    "strided": strided,
    "fortran": np.asfortranarray,
    "misaligned": misplaced,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "float64": lambda x: x.astype(np.float64),
    "integers": lambda x: np.rint(4 * x).astype(np.int64),
    "bytes": lambda x: np.rint(np.abs(4 * x)).astype(np.uint8),
    "list": lambda x: x.tolist(),
    "by name": lambda x: {"input": x},
}


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_examples_in_any_form(form, m):
    net = made(*DENSE)
    assert recorded(net)
    x = form(examples(net, m))
    values = np.array(x["input"] if isinstance(x, dict) else x, np.float32)
    np.testing.assert_array_equal(net.predict(x), predict(net, values))


def test_refused_in_the_words_of_the_long_way():
    net = images()
    assert recorded(net)
    x = examples(net, 2)
    bad = [x[0], x[:, 0], x[:0], np.moveaxis(x, 0, -1), x[..., :-1], np.array(1.0, np.float32), "text", None]
    for value in (np.nan, np.inf, -np.inf):
        for place in ((0, 0, 0, 0), (1, 1, 10, 8)):
            wrong = x.copy()
            wrong[place] = value
            bad.append(wrong)
    bad.append(np.full(x.shape, 1e39))
    for each in bad:
        with pytest.raises((ShapeError, DataError)) as long:
            predict(net, each)
        with pytest.raises(type(long.value)) as short:
            net.predict(each)
        assert str(short.value) == str(long.value)
    for batch_size in (0, -1, 2.0, True, None, "many"):
        with pytest.raises(ParameterError, match="batch_size must be a whole number"):
            net.predict(x, batch_size=batch_size)


def test_several_threads_share_one_record():
    net = images()
    xs = [examples(net, m, seed=m) for m in (1, 2, 3, 9)]
    expected = [predict(net, x) for x in xs]
    wrong = []

    def many(own):
        for i in range(200):
            which = (i + own) % len(xs)
            if not np.array_equal(net.predict(xs[which]), expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=many, args=(own,)) for own in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


def test_a_record_keeps_nothing_alive_that_the_network_does_not():
    net = made(*DENSE)
    x = examples(net, 1)
    net.predict(x)
    W = weakref.ref(net.parameters["dense_1"]["W"])
    gc.disable()  # what only the collector finds stays for long
    try:
        whole(net)
        assert W() is None
        net.predict(x)
        alive = weakref.ref(net)
        del net
        assert alive() is None
    finally:
        gc.enable()


def test_a_program_refuses_what_does_not_fit():
    kernels = engines.get("native").kernels
    program = kernels.Program_float32((2, 4), np.dtype("float32"))
    W = np.ones((3, 4), np.float32)
    window = ((2,), (1,), ((0, 0),), (1,))
    for wrong in (
        lambda: program.affine(0, (8,), W, None),
        lambda: program.affine(0, (2, 5), W, None),
        lambda: program.affine(1, (2, 4), W, None),
        lambda: program.affine(0, (2, 4), W, np.ones(2, np.float32)),
        lambda: program.convolution(0, (2, 4), np.ones((3, 1, 2), np.float32), None, window, 1),
        lambda: program.max_pool(0, (2, 4), window, (9,)),
        lambda: program.activation(0, (2, 4), 99, 0.0, False),
        lambda: program.softmax(0, (2, 4), 2),
        lambda: program.end(0, (2, 4)),
        lambda: program.end(7, (2, 4)),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(TypeError):
        program.affine(0, (2, 4), W.astype(np.float64), None)
    assert program(np.ones((1, 2, 4), np.float32), 1) is None  # it has no end yet
    number, shape = program.affine(0, (2, 4), W, None)
    program.end(number, shape)
    np.testing.assert_array_equal(program(np.ones((1, 2, 4), np.float32), 1), np.full((1, 2, 3), 4, np.float32))
    assert program(np.ones((2, 2, 4), np.float32), 1) is None
    assert program(np.ones((1, 2, 4)), 1) is None
