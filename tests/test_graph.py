"""Graphs: several inputs, outputs and losses, paths that part and meet, layers used twice."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from contracts.gradients import assert_network_gradients
from pellucid.errors import ParameterError, ShapeError
from pellucid.trees import leaves

M = 9
options = {"dtype": "float64"}


def two_by_two():
    """Two inputs, two outputs, shared layers, a diamond, Split, an output that is an inner node too."""
    a, b = pl.Input(4), pl.Input((1, 3, 3))
    shared = pl.Dense(6, "tanh")
    h = pl.Concat()(shared(a), pl.Dense(6, "relu")(pl.Flatten()(b)))
    p, q = pl.Split(2)(h)
    s = pl.Add()(shared(a), pl.Multiply()(p, q), pl.Dropout(0.2)(p))
    net = pl.Graph(
        inputs={"a": a, "b": b},
        outputs={"kind": pl.Dense(3)(pl.BatchNorm()(s)), "size": pl.Dense(1)(h), "inner": s},
        loss={"kind": "softmax_cross_entropy", "size": "squared_error", "inner": "mse"},
        loss_weights={"size": 0.3, "inner": 2},
        regularizer="l2(0.1)",
        **options,
    )

    def data(rng):
        return {"a": rng.normal(size=(4, M)), "b": rng.normal(size=(1, 3, 3, M))}, {
            "kind": rng.integers(3, size=M),
            "size": rng.normal(size=M),
            "inner": rng.normal(size=(6, M)),
        }

    return net, data


def diamond():
    x = pl.Input(3)
    top = pl.Dense(4, "tanh")(x)
    left, right = pl.Dense(4, "sigmoid")(top), pl.Dense(4, "elu")(top)
    net = pl.Graph(inputs=x, outputs=pl.Add()(left, right, top), loss="mse", **options)
    return net, lambda rng: (rng.normal(size=(3, M)), rng.normal(size=(4, M)))


def shared_on_two_inputs():
    """The same weights on two inputs, compared: a siamese pair."""
    one, other = pl.Input(3), pl.Input(3)
    shared, norm = pl.Dense(4, "tanh", name="twin"), pl.LayerNorm()
    joined = pl.Multiply()(norm(shared(one)), norm(shared(other)))
    net = pl.Graph(inputs={"one": one, "other": other}, outputs={"y": pl.Dense(1)(joined)}, loss="logistic", **options)
    return net, lambda rng: (
        {"one": rng.normal(size=(3, M)), "other": rng.normal(size=(3, M))},
        {"y": rng.integers(0, 2, M)},
    )


def unused_part():
    x = pl.Input(6)
    first, _, third = pl.Split([1, 2, 3])(pl.Dense(6, "tanh")(x))
    net = pl.Graph(inputs=x, outputs=pl.Concat()(third, first), loss="mse", **options)
    return net, lambda rng: (rng.normal(size=(6, M)), rng.normal(size=(4, M)))


def same_node_twice():
    x = pl.Input(3)
    h = pl.Dense(4, "tanh")(x)
    net = pl.Graph(
        inputs={"x": x},
        outputs={"u": pl.Multiply()(h, h, h), "v": pl.Concat()(h, h), "h": h, "again": h},
        loss=dict.fromkeys(["u", "v", "h", "again"], "mse"),
        **options,
    )

    def data(rng):
        sizes = {"u": 4, "v": 8, "h": 4, "again": 4}
        return {"x": rng.normal(size=(3, M))}, {name: rng.normal(size=(n, M)) for name, n in sizes.items()}

    return net, data


def input_as_output():
    x, y = pl.Input(3), pl.Input(2)
    net = pl.Graph(
        inputs={"x": x, "y": y},
        outputs={"same": x, "made": pl.Dense(2)(y)},
        loss={"same": "squared_error", "made": "squared_error"},
        **options,
    )
    return net, lambda rng: (
        {"x": rng.normal(size=(3, M)), "y": rng.normal(size=(2, M))},
        {"same": rng.normal(size=(3, M)), "made": rng.normal(size=(2, M))},
    )


def nothing_to_train():
    x = pl.Input(3)
    net = pl.Graph(inputs=x, outputs=x, loss="mse", **options)
    return net, lambda rng: (rng.normal(size=(3, M)), rng.normal(size=(3, M)))


GRAPHS = (two_by_two, diamond, shared_on_two_inputs, unused_part, same_node_twice, input_as_output, nothing_to_train)
graphs = pytest.mark.parametrize("make", GRAPHS, ids=lambda make: make.__name__)


@graphs
@pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])
def test_gradients(make, train, rng):
    net, data = make()
    assert_network_gradients(net, *data(rng), rng, train=train)


@graphs
def test_config_rebuilds_the_graph(make, rng):
    net, data = make()
    again = pl.from_config(net.config())
    assert again.config() == net.config()
    X, Y = data(rng)
    one, other = net.checked_iteration(X, Y), again.checked_iteration(X, Y)
    assert one.cost == other.cost
    for (name, dW), (name_again, dW_again) in zip(leaves(one.grads), leaves(other.grads), strict=True):
        assert name == name_again
        np.testing.assert_array_equal(dW, dW_again)


def test_a_graph_that_is_a_chain_is_the_chain(rng):
    layers = [pl.Dense(4, "tanh"), pl.BatchNorm(), pl.Dropout(0.3), pl.Dense(3)]
    chain = pl.Sequential(*layers, input_shape=5, loss="softmax_cross_entropy", **options)
    node = x = pl.Input(5)
    for layer in layers:
        node = layer(node)
    graph = pl.Graph(inputs=x, outputs=node, loss="softmax_cross_entropy", **options)
    X, Y = rng.normal(size=(5, M)), rng.integers(3, size=M)
    one = chain.checked_iteration(X, Y, update=3, input_gradient=True)
    other = graph.checked_iteration(X, Y, update=3, input_gradient=True)
    assert one.cost == other.cost
    np.testing.assert_array_equal(one.d_inputs["input"], other.d_inputs["input"])
    for (name, a), (name_b, b) in zip(leaves(one.grads), leaves(other.grads), strict=True):
        assert name == name_b
        np.testing.assert_array_equal(a, b)


def test_cost_is_the_weighted_sum_of_the_losses(rng):
    net, data = two_by_two()
    X, Y = data(rng)
    outputs, _ = net.forward(X)
    parts = {}
    for name, loss in net.losses.items():
        targets = loss.targets(Y[name], net.outputs[name], np.float64)
        parts[name] = loss.forward(net.ops, outputs[name], targets)[0].mean()
    penalty = sum(0.05 * (net.parameters[f"dense_{i}"]["W"] ** 2).sum() for i in (1, 2, 3, 4))
    expected = parts["kind"] + 0.3 * parts["size"] + 2 * parts["inner"] + penalty
    assert net.cost(X, Y) == pytest.approx(expected, rel=1e-12)


def test_backward_by_name(rng):
    net, data = shared_on_two_inputs()
    X, _ = data(rng)
    _, caches = net.forward(X)
    dX, grads = net.backward(caches, {"y": np.ones((1, M))})
    assert {name: d.shape for name, d in dX.items()} == {"one": (3, M), "other": (3, M)}
    assert set(grads) == set(net.parameters) == {"twin", "layer_norm_1", "dense_2"}
    dX, again = net.backward(caches, {"y": np.ones((1, M))}, input_gradient=False)
    assert dX == {"one": None, "other": None}
    for (_, one), (_, other) in zip(leaves(grads), leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_join_lists_of_nodes_too():
    x = pl.Input(3)
    assert pl.Add()([x, x]).shape == pl.Add()(x, x).shape == (3,)


def refused(error, *words, **graph):
    with pytest.raises(error) as caught:
        pl.Graph(**graph)
    for word in words:
        assert word in str(caught.value)


def test_what_a_graph_refuses():
    x, y = pl.Input(3), pl.Input(4)
    h = pl.Dense(2)(x)
    refused(ParameterError, "no output depends on input 'y'", "leave it out", inputs={"x": x, "y": y}, outputs={"h": h})
    refused(
        ParameterError, "an Input (3,) that is not among the inputs", "y", inputs={"y": y}, outputs={"h": h, "y": y}
    )
    refused(ParameterError, "inputs are made by pl.Input", "input 'h'", inputs={"h": h}, outputs={"h": h})
    refused(ParameterError, "not a node of a graph", "'h'", "Dense", inputs={"x": x}, outputs={"h": pl.Dense(2)})
    refused(
        ParameterError,
        "each output needs a loss",
        "['h', 'x']",
        "['h']",
        inputs={"x": x},
        outputs={"h": h, "x": x},
        loss={"h": "mse"},
    )
    refused(ParameterError, "one loss for several outputs", "h", inputs={"x": x}, outputs={"h": h, "x": x}, loss="mse")
    refused(
        ParameterError,
        "loss_weights names no output",
        "expected: h",
        "got:      wide",
        inputs=x,
        outputs={"h": h},
        loss="mse",
        loss_weights={"wide": 2.0},
    )
    for bad in (-1.0, float("nan"), "2", None):
        refused(
            ParameterError,
            "loss_weights, 'h'",
            "≥ 0",
            repr(bad),
            inputs=x,
            outputs={"h": h},
            loss="mse",
            loss_weights={"h": bad},
        )
    refused(
        ParameterError, "name of its own", "'x'", inputs={"x": x}, outputs={"h": pl.Dense(2, name="x")(x)}, loss="mse"
    )
    twice = pl.Dense(2)
    refused(
        ShapeError,
        "dense_1",
        "one layer at two places with inputs of different shapes",
        "(3,)",
        "(4,)",
        inputs={"x": x, "y": y},
        outputs={"u": twice(x), "v": twice(y)},
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, y: pl.Add()(x, y), ("Add()", "must have one shape", "(3,) and (4,)", "Input (3,) and Input (4,)")),
        (lambda x, y: pl.Dense(2)(x, y), ("Dense(2)", "takes one input", "2 inputs", "pl.Concat()")),
        (lambda x, y: pl.Split(2)(pl.Dense(5)(x)), ("Split(2)", "does not divide", "Input (3,) → Dense (5,)")),
        (lambda x, y: pl.Split([1, 1])(x), ("the parts do not add up", "sum to 3", "(1, 1)")),
        (lambda x, y: pl.Split(2, axis=1)(x), ("no such axis", "axis 1")),
        (lambda x, y: pl.Concat(axis=2)(x, y), ("no such axis", "axis 2")),
        (lambda x, y: pl.Concat()(x, pl.Reshape((2, 2))(y)), ("differ beside axis 0", "(3,) and (2, 2)")),
    ],
)
def test_layers_that_do_not_fit_say_so_where_they_are_called(call, words):
    with pytest.raises(ShapeError) as caught:
        call(pl.Input(3), pl.Input(4))
    for word in words:
        assert word in str(caught.value)


def test_calling_a_layer_on_an_array_says_what_to_do():
    with pytest.raises(ParameterError, match=r"net\.forward") as caught:
        pl.Dense(3)(np.zeros((4, 2)))
    assert "Dense(3)" in str(caught.value)
    assert "ndarray" in str(caught.value)
