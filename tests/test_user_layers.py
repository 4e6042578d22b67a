"""Layers and activations of a user's own: by build / add_weight / call as in the notes, or by the full contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

import pellucid as pl
from contracts.gradients import assert_network_gradients
from pellucid import engines
from pellucid.engines.base import Array
from pellucid.errors import EngineError, ParameterError, ShapeError
from pellucid.layers import PREDICT, layers


class LinearBuild(pl.Layer):
    """The notes' y = w.x + b (S1)."""

    def __init__(self, units=32):
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(self.units, input_shape[-1]), initializer="random_normal", trainable=True)
        self.b = self.add_weight(shape=(self.units, 1), initializer="random_normal", trainable=True)

    def call(self, inputs, **kwargs):
        return self.w @ inputs + self.b

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        m = dA.shape[-1]
        grads = {"w": dA @ cache.A_prev.T / m, "b": dA.mean(axis=1, keepdims=True)}
        return params["w"].T @ dA if input_gradient else None, grads


@dataclass(frozen=True, eq=False, repr=False)
class Power(pl.Layer):
    """A = |A_prev|^p with one trained p, written by the full contract."""

    start: float = 2.0

    class Cache(NamedTuple):
        A_prev: Array

    def output_shape(self, input_shape):
        return input_shape

    def init(self, rng, input_shape, dtype=np.float32):
        return {"p": np.full((1, 1), self.start, dtype)}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        return abs(A_prev) ** params["p"], Power.Cache(A_prev)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        p, size = params["p"], abs(cache.A_prev)
        dp = (dA * size**p * np.log(size)).sum(keepdims=True) / dA.shape[-1]
        return dA * p * size ** (p - 1) * np.sign(cache.A_prev), {"p": dp}


@dataclass(frozen=True, eq=False, repr=False)
class Square(pl.Activation):
    """A = Z²."""

    keeps = "Z"

    def g(self, ops, Z):
        return Z * Z

    def derivative(self, ops, Z):
        return 2 * Z


class Counting(pl.Layer):
    """Keeps state without a gradient."""

    def build(self, input_shape):
        self.times = self.add_weight(shape=(1, 1), initializer="zeros", trainable=False)

    def call(self, inputs):
        return inputs + self.times

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return dA, {}

    def next_state(self, ops, state, cache):
        return {"times": state["times"] + 1}


def test_the_notes_layer_is_a_dense_layer(rng):
    own = pl.Sequential(LinearBuild(4), pl.Tanh(), LinearBuild(2), input_shape=3, loss="mse", dtype="float64")
    dense = pl.Sequential(pl.Dense(4, "tanh"), pl.Dense(2), input_shape=3, loss="mse", dtype="float64")
    assert {name: set(tree) for name, tree in own.parameters.items()} == {
        "linear_build_1": {"w", "b"},
        "linear_build_2": {"w", "b"},
    }
    one, two = own.parameters.values()
    assert one["w"].shape == (4, 3)
    assert one["w"].std() > 0.01
    dense.parameters = {f"dense_{i}": {"W": p["w"], "b": p["b"]} for i, p in ((1, one), (2, two))}
    X, Y = rng.normal(size=(3, 6)), rng.normal(size=(2, 6))
    (J, grads), (J_dense, grads_dense) = own.gradients(X, Y), dense.gradients(X, Y)
    assert pytest.approx(J_dense, rel=1e-12) == J
    for i in (1, 2):
        np.testing.assert_allclose(grads[f"linear_build_{i}"]["w"], grads_dense[f"dense_{i}"]["W"], rtol=1e-10)
        np.testing.assert_allclose(grads[f"linear_build_{i}"]["b"], grads_dense[f"dense_{i}"]["b"], rtol=1e-10)


def test_gradients(rng):
    net = pl.Sequential(
        LinearBuild(4),
        Square(),
        pl.Dense(3, Square()),
        Power(),
        LinearBuild(2),
        input_shape=3,
        loss="mse",
        dtype="float64",
    )
    assert_network_gradients(net, rng.normal(size=(3, 6)), rng.normal(size=(2, 6)), rng)


def test_an_activation_of_ones_own_is_known_by_name(rng):
    net = pl.Sequential(pl.Dense(3, "square"), input_shape=3)
    assert isinstance(net.layers[0].activation, Square)
    assert pl.from_config(net.config()).config() == net.config()


def test_one_object_at_two_places_keeps_its_weights_apart_from_other_objects(rng):
    shared = LinearBuild(3)
    net = pl.Sequential(shared, pl.Tanh(), shared, LinearBuild(3), input_shape=3, loss="mse", dtype="float64")
    assert list(net.parameters) == ["linear_build_1", "linear_build_2"]
    assert not np.array_equal(net.parameters["linear_build_1"]["w"], net.parameters["linear_build_2"]["w"])
    assert_network_gradients(net, rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), rng)
    assert not hasattr(shared, "w") or not isinstance(shared.w, np.ndarray), "a layer holds no arrays"


def test_one_layer_serves_two_networks():
    layer = LinearBuild(2)
    narrow = pl.Sequential(layer, input_shape=3)
    wide = pl.Sequential(layer, input_shape=5)
    assert narrow.forward(np.ones((3, 1)))[0].shape == wide.forward(np.ones((5, 1)))[0].shape == (2, 1)
    assert narrow.parameters["linear_build_1"]["w"].shape == (2, 3)


def test_state_without_gradients(rng):
    net = pl.Sequential(Counting(), input_shape=2, loss="mse")
    assert net.parameters == {}
    X = rng.normal(size=(2, 4))
    done = net.checked_iteration(X, X)
    assert done.cost == 0
    net.state = done.state
    np.testing.assert_allclose(net.forward(X)[0], X + 1, rtol=1e-6)


def test_without_backward_it_runs_forward_and_says_what_backward_needs(rng):
    class ForwardOnly(LinearBuild):
        backward = pl.Layer.backward

    net = pl.Sequential(ForwardOnly(2), input_shape=3, loss="mse", engine="numpy")
    X, Y = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    assert net.cost(X, Y) > 0
    with pytest.raises(EngineError, match="ForwardOnly has no backward, and the numpy engine") as caught:
        net.gradients(X, Y)
    assert "write backward(self, ops, params, cache, dA" in str(caught.value)


def test_gradients_that_do_not_match_the_parameters_are_refused(rng):
    class Half(LinearBuild):
        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            dA_prev, grads = super().backward(ops, params, cache, dA)
            return dA_prev, {"w": grads["w"]}

    class Nothing(LinearBuild):
        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            return dA, {}

    X, Y = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    for cls, got in ((Half, "got:      w"), (Nothing, "got:      none")):
        net = pl.Sequential(cls(2), input_shape=3, loss="mse", engine="numpy")
        with pytest.raises(ParameterError, match="other gradients than the layer has parameters") as caught:
            net.gradients(X, Y)
        assert "expected: w, b" in str(caught.value)
        assert got in str(caught.value)
        assert "return dA_prev, {'w': …, 'b': …}" in str(caught.value)


def test_an_input_that_call_cannot_take_names_the_layer():
    class Fixed(LinearBuild):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(2, 3))
            self.b = self.add_weight(shape=(2, 1))

    with pytest.raises(ShapeError, match=r"layer 2 \(fixed_1\): call cannot take such an input") as caught:
        pl.Sequential(pl.Dense(4), Fixed(), input_shape=3)
    assert "input (3,) → dense_1 (4,)" in str(caught.value)


def test_neither_forward_nor_call():
    class Empty(pl.Layer):
        pass

    with pytest.raises(NotImplementedError, match="Empty needs either forward and backward, or call"):
        pl.Sequential(Empty(), input_shape=3)


def test_unknown_initializer_of_a_weight():
    class Misspelt(LinearBuild):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(2, 3), initializer="randm_normal")

    with pytest.raises(ParameterError, match="unknown initializer 'randm_normal'"):
        pl.Sequential(Misspelt(), input_shape=3)


def test_names_of_pellucid_are_not_taken_over():
    with pytest.raises(ParameterError, match="Dense is the name of a layer of pellucid"):
        type("Dense", (pl.Layer,), {})
    assert layers.find("dense") is pl.Dense


def test_defining_a_class_again_replaces_it(rng):
    """As in a notebook whose cell is run twice."""

    def define(factor):
        class Again(pl.Layer):
            def call(self, inputs):
                return factor * inputs

        return Again

    define(2)
    later = define(3)
    assert layers.find("Again") is later
    net = pl.Sequential(later(), input_shape=1)
    assert pl.from_config(net.config()).forward(np.ones((1, 1)))[0] == 3


class Slip(pl.Layer):
    """W A_prev, with one slip in its backward block."""

    def __init__(self, units=3, slip=""):
        super().__init__()
        self.units, self.slip = units, slip

    def build(self, input_shape):
        self.w = self.add_weight(shape=(self.units, input_shape[0]))

    def call(self, inputs):
        return (self.w @ inputs) * np.float64(1) + np.zeros((1, 1))  # float64, whatever comes in

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        dW = (dA @ cache.A_prev.T / dA.shape[-1]).astype(np.float64)
        slips = {
            "transposed": (params["w"].T @ dA, {"w": dW.T}),
            "summed": (params["w"].T @ dA, {"w": dW.mean(axis=1, keepdims=True)}),
            "nothing": None,
            "no dA_prev": (None, {"w": dW}),
        }
        return slips.get(self.slip, (params["w"].T @ dA, {"w": dW}))


@pytest.mark.parametrize("engine", engines.available())
@pytest.mark.parametrize(
    ("slip", "error", "said"),
    [
        ("transposed", ShapeError, r"(?s)slip_1: .*shape than its parameter w.*\(3, 4\).*\(4, 3\).*transpose it"),
        ("summed", ShapeError, r"(?s)another shape than its parameter w.*\(3, 1\).*mean over the examples alone"),
        ("nothing", ParameterError, r"(?s)Slip.backward: must return two things.*NoneType"),
        ("no dA_prev", ParameterError, r"(?s)returned no dA_prev.*layers before it need one"),
    ],
)
def test_a_slip_in_a_backward_is_named_on_every_engine(engine, slip, error, said, rng):
    layers_ = pl.Dense(4), Slip(3, slip)
    net = pl.Sequential(*layers_, input_shape=5, loss="softmax_cross_entropy", engine=engine)
    with pytest.raises(error, match=said):
        net.fit(rng.normal(size=(20, 5)), np.arange(20) % 3, epochs=1, progress=False)


@pytest.mark.parametrize("engine", engines.available())
def test_what_a_layer_of_ones_own_returns_takes_the_networks_float_type(engine, rng):
    net = pl.Sequential(pl.Dense(4), Slip(3), input_shape=5, loss="softmax_cross_entropy", engine=engine)
    A, _ = net.forward(rng.normal(size=(5, 2)).astype(np.float32))
    _, grads = net.gradients(rng.normal(size=(5, 6)).astype(np.float32), np.arange(6) % 3)
    assert {A.dtype, grads["slip_1"]["w"].dtype, grads["dense_1"]["W"].dtype} == {np.dtype("float32")}
