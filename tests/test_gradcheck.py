"""The gradient check itself: what is right passes, what is wrong is caught and located, a kink is told from a bug."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid.errors import ParameterError, ShapeError
from pellucid.trees import leaves


class Faulty(pl.Layer):
    """An affine layer whose backward block is wrong in a chosen way."""

    def __init__(self, fault=None):
        super().__init__()
        self.fault = fault

    def build(self, input_shape):
        self.w = self.add_weight(shape=(3, input_shape[0]))
        self.b = self.add_weight(shape=(3, 1))

    def call(self, inputs):
        return self.w @ inputs + self.b

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        m = dA.shape[-1]
        dw, db, dA_prev = dA @ cache.A_prev.T / m, dA.mean(axis=1, keepdims=True), params["w"].T @ dA
        if self.fault == "no 1/m":
            dw = dw * m
        if self.fault == "1/m twice":
            dw = dw / m
        if self.fault == "transposed":
            db = db.T
        if self.fault == "sign":
            dA_prev = -dA_prev
        if self.fault == "one entry":
            dw[2, 1] += 1e-3
        if self.fault == "one column":
            dA_prev[1, -1] *= 1.01
        if self.fault == "zero":
            dw = 0 * dw
        if self.fault == "factor":
            dA_prev = 0.5 * dA_prev
        if self.fault == "missing":
            return dA_prev, {"w": dw}
        if self.fault == "nothing":
            return dA_prev, {}
        return dA_prev, {"w": dw, "b": db}


def checked(fault, *, n=5, **options):
    rng = np.random.default_rng(0)
    net = pl.Sequential(pl.Dense(4, "tanh"), Faulty(fault), pl.Dense(2), input_shape=n, loss="squared_error")
    return pl.check_gradients(net, rng.normal(size=(n, 6)), rng.normal(size=(2, 6)), **options)


def test_right_gradients_pass():
    report = checked(None)
    report.assert_passed()
    assert report.passed
    assert report.blame == []
    assert report.worst.error < 1e-7
    assert {each.path for each in report.entries} == {
        "dense_1/W", "dense_1/b", "faulty_1/w", "faulty_1/b", "dense_2/W", "dense_2/b", "X",
    }  # fmt: skip
    assert sum(each.index is not None for each in report.entries if each.path == "dense_1/W") == 20
    assert "all gradients agree" in str(report)
    assert "on a copy of the float32 network" in str(report)
    for each in report.entries:
        assert each.numeric == pytest.approx(each.analytic, abs=1e-8)


@pytest.mark.parametrize(
    ("fault", "wrong", "blame"),
    [
        ("no 1/m", {"faulty_1/w"}, "faulty_1: dw is m = 6 times too large: is 1/m missing?"),
        ("1/m twice", {"faulty_1/w"}, "faulty_1: dw is m = 6 times too small: is 1/m there twice?"),
        ("zero", {"faulty_1/w"}, "faulty_1: dw is zero"),
        ("sign", {"dense_1/W", "dense_1/b", "X"}, "faulty_1: dA_prev has the wrong sign"),
        ("factor", {"dense_1/W", "dense_1/b", "X"}, "faulty_1: dA_prev is 0.5 times what it should be"),
    ],
)
def test_a_wrong_backward_block_is_caught_and_named(fault, wrong, blame):
    report = checked(fault)
    assert not report.passed
    assert {each.path for each in report.wrong} == wrong
    assert report.blame == [blame]
    assert report.worst.path in wrong
    with pytest.raises(AssertionError, match="WRONG"):
        report.assert_passed()
    with pytest.raises(AssertionError) as caught:
        report.assert_passed()
    assert blame in str(caught.value)


def test_a_gradient_of_another_shape_never_gets_as_far():
    with pytest.raises(ShapeError, match=r"(?s)faulty_1: .*parameter b.*\(3, 1\).*\(1, 3\).*transpose it"):
        checked("transposed")


def test_one_wrong_entry_is_found_even_when_not_drawn():
    report = checked("one entry", entries=1, seed=3)
    assert (report.worst.path, report.worst.index) == ("faulty_1/w", (2, 1))
    assert report.worst.analytic - report.worst.numeric == pytest.approx(1e-3, rel=1e-4)
    assert len(report.blame) == 1
    assert report.blame[0].startswith("faulty_1: dw, relative error")
    row = next(line for line in str(report).splitlines() if line.lstrip().startswith("faulty_1/w"))
    assert "[2, 1]" in row
    assert row.endswith("WRONG")


def test_an_error_for_one_example_is_found_in_X():
    report = checked("one column", entries=200)
    assert {each.index[1] for each in report.wrong if each.path == "X" and each.index} == {5}
    assert report.blame[0].startswith("faulty_1: dA_prev, relative error")


@pytest.mark.parametrize(("fault", "got"), [("nothing", "none"), ("missing", "w")])
def test_a_gradient_that_is_not_there_is_refused(fault, got):
    with pytest.raises(ParameterError, match=rf"faulty_1: backward returned[\s\S]*expected: w, b\n  got:      {got}\n"):
        checked(fault)


def test_a_wrong_loss_is_named():
    from dataclasses import dataclass

    from pellucid.losses import SquaredError

    @dataclass(frozen=True)
    class DoubledError(SquaredError):
        def backward(self, ops, cache):
            return 2.0 * super().backward(ops, cache)

    net = pl.Sequential(pl.Dense(2), input_shape=3, loss=DoubledError())
    report = pl.check_gradients(net, np.ones((3, 3)), np.zeros((2, 3)))
    assert report.blame == ["the loss DoubledError: dA is 2 times what it should be"]


def relu_at_its_kink(backward=None):
    layer = pl.ReLU()
    net = pl.Sequential(layer, pl.Dense(1, use_bias=False), input_shape=2, loss="squared_error", dtype="float64")
    net.parameters = {"dense_1": {"W": np.array([[2.0, -1.0]])}}
    return net


@pytest.mark.parametrize("distance", [0.0, 1e-8, -1e-8, 1e-7, 3.3e-7, -4e-7, 7e-7])
def test_a_kink_is_told_from_a_bug(distance):
    net = relu_at_its_kink()
    X = np.array([[distance, 1.0], [0.5, 0.7]])
    report = pl.check_gradients(net, X, np.array([[3.0, -1.0]]), directions=0)
    verdicts = {each.index: each.verdict for each in report.entries if each.path == "X"}
    assert verdicts == {(0, 0): "kink", (0, 1): "ok", (1, 0): "ok", (1, 1): "ok"}
    assert report.passed
    assert "away from kinks" in str(report)
    assert "1 of 4 at a kink" in str(report)


@pytest.mark.parametrize("distance", [0.0, 1e-8, 3e-7])
def test_a_bug_at_a_kink_is_still_a_bug(distance):
    class WrongReLU(pl.Layer):
        def call(self, inputs):
            return np.maximum(inputs, 0.0)

        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            return -3.0 * dA * (cache.A_prev > 0) - 50.0, {}

    net = pl.Sequential(WrongReLU(), pl.Dense(1), input_shape=2, loss="squared_error")
    X = np.array([[distance, 1.0], [0.5, 0.7]])
    report = pl.check_gradients(net, X, np.array([[3.0, -1.0]]), directions=0)
    assert all(each.verdict == "WRONG" for each in report.entries if each.path == "X")
    assert report.blame[0].startswith("wrong_relu_1: dA_prev")


def test_a_curved_smooth_function_is_no_kink():
    class Steep(pl.Layer):
        def call(self, inputs):
            return np.sin(300.0 * inputs)

        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            return dA * 300.0 * np.cos(300.0 * cache.A_prev) * 1.0001, {}

    net = pl.Sequential(Steep(), input_shape=2, loss="squared_error")
    X = np.random.default_rng(0).normal(size=(2, 5))
    report = pl.check_gradients(net, X, np.zeros((2, 5)), directions=0)
    assert not any(each.kink for each in report.entries)
    assert len(report.wrong) == 10


@pytest.mark.parametrize("train", [True, False])
def test_dropout_batch_norm_weights_and_penalties_pass(train):
    rng = np.random.default_rng(1)
    a, b = pl.Input(4), pl.Input((1, 2, 2))
    shared = pl.Dense(4, "gelu")
    h = pl.Concat()(shared(a), pl.BatchNorm()(shared(pl.Flatten()(b))))
    p, q = pl.Split(2)(h)
    s = pl.Dropout(0.3)(pl.LayerNorm()(pl.Multiply()(p, q)))
    net = pl.Graph(
        inputs={"a": a, "b": b},
        outputs={"kind": pl.Dense(3)(s), "size": pl.Dense(1)(h)},
        loss={"kind": "softmax_cross_entropy", "size": "huber"},
        loss_weights={"size": 0.3},
        regularizer="l2(0.1)",
    )
    before = {path: leaf.copy() for path, leaf in [*leaves(net.parameters), *leaves(net.state)]}
    X = {"a": rng.normal(size=(4, 7)), "b": rng.normal(size=(1, 2, 2, 7))}
    Y = {"kind": rng.integers(0, 3, 7), "size": rng.normal(size=7)}
    report = pl.check_gradients(net, X, Y, sample_weight=rng.random(7), train=train, update=4)
    report.assert_passed()
    assert {"X[a]", "X[b]"} < {each.path for each in report.entries}
    assert not any(each.kink for each in report.entries)
    assert np.isclose(report.cost, net.gradients(X, Y, sample_weight=rng.random(7), train=train)[0], rtol=1.0)
    for path, leaf in [*leaves(net.parameters), *leaves(net.state)]:
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, before[path])


def test_inputs_that_cannot_be_moved_are_said_to_be_unchecked():
    net = pl.Sequential(pl.Embedding(5, 3), pl.Flatten(), pl.Dense(2), input_shape=1, loss="squared_error")
    report = pl.check_gradients(net, np.array([[0, 3, 3, 1]]), np.ones((2, 4)))
    report.assert_passed()
    assert {each.verdict for each in report.entries if each.path == "X"} == {"not checked"}
    assert "not checked" in str(report)


def test_bad_arguments_are_refused():
    net = pl.Sequential(pl.Dense(2), input_shape=3, loss="squared_error")
    X, Y = np.ones((3, 2)), np.ones((2, 2))
    with pytest.raises(ParameterError, match=r"epsilon is out of range\n  expected: 0 < epsilon < 1\n  got:      0"):
        pl.check_gradients(net, X, Y, epsilon=0)
    with pytest.raises(ParameterError, match="nothing to check"):
        pl.check_gradients(net, X, Y, entries=0, directions=0)
    with pytest.raises(ShapeError, match=r"A\[0\]"):
        pl.check_gradients(net, X.T, Y)
    with pytest.raises(ParameterError, match="has no loss"):
        pl.check_gradients(pl.Sequential(pl.Dense(2), input_shape=3), X, Y)
