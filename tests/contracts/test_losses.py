"""The contract every loss keeps, on every engine and in both float types. A new loss is a row of `TABLE`."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from typing import Any, NamedTuple

import numpy as np
import pytest

import pellucid as pl
from contracts import STEPWISE
from contracts.gradients import assert_gradient
from pellucid import engines, losses
from pellucid.registry import config


class Row(NamedTuple):
    loss: Any
    output_shape: tuple[int, ...]
    outputs: str  # "values", "logits", "probabilities", "softmax" or "penalties"
    targets: str  # "values", "yes-no", "soft", "signs", "index", "index row" or "distribution"


WEIGHTS = (0.5, 2.0, 1.5)
TABLE = [
    *(
        Row(loss, shape, "values", "values")
        for loss in (pl.SquaredError(), pl.MeanSquaredError(), pl.AbsoluteError(), pl.Huber(), pl.Huber(0.3))
        for shape in [(1,), (3,), (4, 3), (2, 3, 2)]
    ),
    *(
        Row(loss(**options), shape, outputs, targets)
        for loss, outputs in ((pl.BinaryCrossEntropy, "probabilities"), (pl.SigmoidCrossEntropy, "logits"))
        for shape in [(1,), (3,), (4, 3)]
        for targets in ("yes-no", "soft")
        for options in (
            {},
            {"class_weight": {1: 3.0}},
            {"label_smoothing": 0.2},
            {"class_weight": [0.5, 2.0], "label_smoothing": 0.1},
        )
    ),
    *(
        Row(loss(**options), shape, outputs, targets)
        for loss, outputs, smooth in (
            (pl.SoftmaxCrossEntropy, "logits", True),
            (pl.CrossEntropy, "softmax", False),
            (pl.Hinge, "logits", False),
        )
        for shape in [(3,), (4, 3)]
        for targets in ("index", "index row", "one-hot", *(() if loss is pl.Hinge else ("distribution",)))
        for options in (
            {},
            {"class_weight": WEIGHTS},
            *(({"label_smoothing": 0.2}, {"class_weight": {2: 3.0}, "label_smoothing": 0.3}) if smooth else ()),
        )
    ),
    *(
        Row(loss(**options), shape, "penalties", targets)
        for loss in (pl.CodeDistance, pl.MaximumAPosteriori)
        for shape in [(3,), (4, 3)]
        for targets in ("index", "one-hot", "distribution")
        for options in ({}, {"class_weight": WEIGHTS}, *([{"rubbish": 1.5}] if loss is pl.MaximumAPosteriori else []))
    ),
    Row(pl.SoftmaxCrossEntropy(), (2,), "logits", "index"),
    *(
        Row(pl.Hinge(class_weight=weight), shape, "logits", targets)
        for weight in (None, {1: 3.0})
        for shape in [(1,), (4, 1)]
        for targets in ("signs", "yes-no")
    ),
]
IDS = [f"{index}-{row.loss!r}-{row.output_shape}-{row.targets}".replace(" ", "") for index, row in enumerate(TABLE)]
rows = pytest.mark.parametrize("row", TABLE, ids=IDS)
counts = pytest.mark.parametrize("m", [17, 1], ids=lambda m: f"m={m}")


@pytest.fixture(params=STEPWISE)
def ops(request):
    return engines.get(request.param)


def outputs_and_targets(row: Row, m: int, rng: np.random.Generator, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the kind the loss reads and targets as a user gives them, clear of the losses' kinks."""
    shape, n = (*row.output_shape, m), row.output_shape[-1]
    A = rng.normal(size=shape)
    if row.outputs == "probabilities":
        A = rng.uniform(0.05, 0.95, shape)
    elif row.outputs == "softmax":
        A = np.exp(A) / np.exp(A).sum(axis=-2, keepdims=True)
    elif row.outputs == "penalties":
        A = np.square(A)
    index = rng.integers(n, size=(*row.output_shape[:-1], m))
    one_hot = np.moveaxis(np.eye(n)[index], -1, -2)
    Y = {
        "values": lambda: A + rng.choice([-1.0, 1.0], shape) * rng.choice([0.1, 0.2, 0.5, 1.5], shape),
        "yes-no": lambda: rng.integers(0, 2, shape),
        "soft": lambda: rng.random(shape),
        "signs": lambda: rng.choice([-1, 1], shape),
        "index": lambda: index,
        "index row": lambda: index[..., None, :],
        "one-hot": lambda: one_hot,
        "distribution": lambda: 0.7 * one_hot + 0.3 / n,
    }[row.targets]()
    return A.astype(dtype), Y


class Bench:
    def __init__(self, row: Row, ops, m: int, rng, dtype: str = "float64") -> None:
        self.loss, self.ops, self.dtype = row.loss, ops, dtype
        self.A, self.Y_given = outputs_and_targets(row, m, rng, dtype)
        self.Y = row.loss.targets(self.Y_given, row.output_shape, np.dtype(dtype))

    def forward(self):
        each, cache = self.loss.forward(self.ops, self.ops.asarray(self.A, self.dtype), self.ops.asarray(self.Y))
        return self.ops.to_numpy(each), cache

    def gradient(self):
        return self.ops.to_numpy(self.loss.backward(self.ops, self.forward()[1]))


@rows
@counts
def test_backward_is_the_gradient_of_the_summed_losses(row, ops, m, rng):
    bench = Bench(row, ops, m, rng)
    assert_gradient(lambda: bench.forward()[0].sum(), bench.A, bench.gradient(), rng, step=1e-4)


@rows
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@counts
def test_shapes_and_float_type_are_kept(row, ops, dtype, m, rng):
    bench = Bench(row, ops, m, rng, dtype)
    before = copy.deepcopy((bench.A, bench.Y))
    each, _ = bench.forward()
    dA = bench.gradient()
    assert (each.shape, each.dtype) == ((m,), dtype)
    assert (dA.shape, dA.dtype) == (bench.A.shape, dtype)
    for now, then in zip((bench.A, bench.Y), before, strict=True):
        np.testing.assert_array_equal(now, then)
    predicted = ops.to_numpy(row.loss.predict(ops, ops.asarray(bench.A, dtype)))
    assert (predicted.shape, predicted.dtype) == (bench.A.shape, dtype)


@rows
def test_each_example_has_its_own_loss_and_gradient(row, ops, rng):
    """Losses and dA of a batch are those of its examples one by one: 1/m is not in them."""
    bench = Bench(row, ops, 5, rng)
    losses_, dA = bench.forward()[0], bench.gradient()
    A, Y = bench.A, bench.Y
    for i in range(5):
        bench.A, bench.Y = A[..., [i]], Y[..., [i]]
        np.testing.assert_allclose(bench.forward()[0], losses_[[i]], rtol=1e-13)
        np.testing.assert_allclose(bench.gradient(), dA[..., [i]], rtol=1e-13)


@rows
def test_any_memory_layout_gives_the_same(row, ops, rng):
    bench = Bench(row, ops, 6, rng)
    losses_, dA = bench.forward()[0], bench.gradient()
    A = bench.A
    for layout in (np.asfortranarray, lambda A: np.repeat(A, 2, axis=-1)[..., ::2]):
        bench.A = layout(A)
        bench.A.flags.writeable = False
        np.testing.assert_allclose(bench.forward()[0], losses_, rtol=1e-13)
        np.testing.assert_allclose(bench.gradient(), dA, rtol=1e-13)


@rows
def test_config_rebuilds_the_loss(row):
    rebuilt = losses.get(config(row.loss))
    assert rebuilt == row.loss
    assert config(rebuilt) == config(row.loss)


LOGITS = [row for row in TABLE if row.outputs == "logits"]


@pytest.mark.parametrize("row", LOGITS)
@pytest.mark.parametrize("size", [1e4, 30.0, 1e-30])
def test_extreme_logits_stay_finite(row, ops, size, rng):
    bench = Bench(row, ops, 9, rng, "float32")
    bench.A = (size * np.sign(bench.A)).astype("float32")
    each, dA = bench.forward()[0], bench.gradient()
    assert np.isfinite(each).all()
    assert np.isfinite(dA).all()
    if size == 1e4 and not isinstance(row.loss, pl.Hinge):
        plain = type(row.loss)()
        np.testing.assert_array_less(np.abs(ops.to_numpy(plain.predict(ops, ops.asarray(bench.A)))), 1 + 1e-6)
        assert each.max() > 1e3, "a confident mistake costs its logit, not the log of the smallest float"


@pytest.mark.parametrize("loss", [pl.BinaryCrossEntropy(), pl.CrossEntropy()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_of_zero_and_one_stay_finite(loss, ops, dtype):
    A = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]], dtype)
    Y = loss.targets(np.array([[0, 0, 1, 1], [1, 1, 0, 0]]), (2,), np.dtype(dtype))
    each, cache = loss.forward(ops, ops.asarray(A), ops.asarray(Y))
    each, dA = ops.to_numpy(each), ops.to_numpy(loss.backward(ops, cache))
    assert np.isfinite(each).all()
    assert np.isfinite(dA).all()
    np.testing.assert_allclose(each[[0, 3]], 0, atol=1e-5)
    assert (each[[1, 2]] > 15).all()
    assert (dA[:, 1] * (A[:, 1] - Y[:, 1]) > 0).any(), "the mistake is still felt"


def test_cache_says_what_each_field_holds():
    source = textwrap.dedent(inspect.getsource(losses.Cache))
    fields = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]
    assert [node.target.id for node in fields] == list(losses.Cache._fields)
    assert all("# " in source.splitlines()[node.lineno - 1] for node in fields)


def test_every_loss_of_pellucid_is_in_the_table():
    known = {losses.losses.find(name) for name in losses.losses}
    own = {cls for cls in known if cls.__module__.partition(".")[0] == "pellucid"}
    assert own - {type(row.loss) for row in TABLE} == set()


# --- values against definitions written out ------------------------------------------------------------------------


A3 = np.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 3.0]])  # three outputs, two examples


def value(loss, A, Y, ops):
    Y = loss.targets(Y, A.shape[:-1], A.dtype)
    return ops.to_numpy(loss.forward(ops, ops.asarray(A), ops.asarray(Y))[0])


def test_values(ops):
    Y = np.zeros((3, 2))
    np.testing.assert_allclose(value(pl.SquaredError(), A3, Y, ops), [2.625, 5.0])
    np.testing.assert_allclose(value(pl.MeanSquaredError(), A3, Y, ops), [5.25 / 3, 10 / 3])
    np.testing.assert_allclose(value(pl.AbsoluteError(), A3, Y, ops), [3.5 / 3, 4 / 3])
    # errors 2, 0.5, 1 and 1, 0, 3 with δ = 1: 1.5 + 0.125 + 0.5 and 0.5 + 0 + 2.5
    np.testing.assert_allclose(value(pl.Huber(), A3, Y, ops), [2.125 / 3, 1.0])


def test_values_for_classes(ops):
    P = np.exp(A3) / np.exp(A3).sum(axis=0)
    Y = np.array([1, 2])
    np.testing.assert_allclose(value(pl.SoftmaxCrossEntropy(), A3, Y, ops), -np.log(P[Y, [0, 1]]))
    np.testing.assert_allclose(value(pl.CrossEntropy(), P, Y, ops), -np.log(P[Y, [0, 1]]))
    weighted = pl.SoftmaxCrossEntropy(class_weight=[1, 3, 5])
    np.testing.assert_allclose(value(weighted, A3, Y, ops), [-3 * np.log(P[1, 0]), -5 * np.log(P[2, 1])])
    q = np.array([[0.1, 0.1], [0.8, 0.1], [0.1, 0.8]])  # ε = 0.3: 0.7 + 0.1 and 0.1
    smooth = pl.SoftmaxCrossEntropy(label_smoothing=0.3)
    np.testing.assert_allclose(value(smooth, A3, Y, ops), -(q * np.log(P)).sum(axis=0))
    # margins of class 1 in the first example: 1 + 2 - 0.5 and 1 - 1 - 0.5; of class 2 in the second none
    np.testing.assert_allclose(value(pl.Hinge(), A3, Y, ops), [2.5, 0.0])


def test_values_for_penalties(ops):
    A, Y = np.array([[2.0, 0.5], [0.5, 40.0], [1.0, 3.0]]), np.array([1, 1])
    np.testing.assert_allclose(value(pl.CodeDistance(), A, Y, ops), [0.5, 40.0])
    expected = A[Y, [0, 1]] + np.log(np.exp(-3.0) + np.exp(-A).sum(axis=0))
    loss = pl.MaximumAPosteriori(rubbish=3.0)
    np.testing.assert_allclose(value(loss, A, Y, ops), expected)
    P = ops.to_numpy(loss.predict(ops, ops.asarray(A)))
    np.testing.assert_array_equal(P.argmax(axis=0), A.argmin(axis=0), "the smallest penalty is the likeliest class")
    # Far beyond j a wrong class is pushed no further, and nothing overflows.
    far = np.array([[0.0], [1e4], [1e4]])
    _, cache = loss.forward(ops, ops.asarray(far), ops.asarray(np.array([0])))
    np.testing.assert_allclose(ops.to_numpy(loss.backward(ops, cache))[1:], 0, atol=1e-12)
    worst = value(loss, np.array([[1e4], [0.0], [1e4]]), np.array([0]), ops)
    np.testing.assert_allclose(worst, 1e4 + np.log(1 + np.exp(-3.0)))


def test_values_for_yes_or_no(ops):
    Z, Y = np.array([[2.0, -1.0, 0.5]]), np.array([1, 1, 0])
    P = 1 / (1 + np.exp(-Z))
    expected = -(Y * np.log(P) + (1 - Y) * np.log(1 - P))[0]
    np.testing.assert_allclose(value(pl.SigmoidCrossEntropy(), Z, Y, ops), expected)
    np.testing.assert_allclose(value(pl.BinaryCrossEntropy(), P, Y, ops), expected)
    weights = {0: 2.0, 1: 5.0}
    for loss, A in ((pl.SigmoidCrossEntropy, Z), (pl.BinaryCrossEntropy, P)):
        np.testing.assert_allclose(value(loss(class_weight=weights), A, Y, ops), expected * [5, 5, 2])
        q = np.array([0.9, 0.9, 0.1])
        smooth = -(q * np.log(P) + (1 - q) * np.log(1 - P))[0]
        np.testing.assert_allclose(value(loss(label_smoothing=0.2), A, Y, ops), smooth)
    np.testing.assert_allclose(value(pl.Hinge(), Z, Y, ops), [0.0, 2.0, 1.5])
    np.testing.assert_allclose(value(pl.Hinge(), Z, 2 * Y - 1, ops), [0.0, 2.0, 1.5])
