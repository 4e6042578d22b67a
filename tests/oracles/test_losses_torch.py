"""Every loss that PyTorch has too: each example's loss, and the gradient that starts the backward pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from contracts import STEPWISE
from pellucid import engines

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here, and it is not installed")
F = torch.nn.functional

WEIGHTS = (0.5, 2.0, 1.5, 1.0)
seeds = st.integers(0, 2**32 - 1)
every_engine = pytest.mark.parametrize("engine", STEPWISE)


def as_torch(A, **options):
    return torch.tensor(np.array(A), dtype=torch.float64, **options)


def compare(engine, loss, A, Y, oracle):
    """``oracle(A)`` gives each example's loss (m,) from examples-last outputs."""
    ops = engines.get(engine)
    targets = loss.targets(Y, A.shape[:-1], np.dtype("float64"))
    each, cache = loss.forward(ops, ops.asarray(A, "float64"), ops.asarray(targets))
    dA = loss.backward(ops, cache)
    A_torch = as_torch(A, requires_grad=True)
    expected = oracle(A_torch)
    expected.sum().backward()
    np.testing.assert_allclose(ops.to_numpy(each), expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ops.to_numpy(dA), A_torch.grad.numpy(), rtol=1e-9, atol=1e-12)


VALUES = {
    "squared_error": (pl.SquaredError(), lambda A, Y: 0.5 * F.mse_loss(A, Y, reduction="none").sum(0)),
    "mean_squared_error": (pl.MeanSquaredError(), lambda A, Y: F.mse_loss(A, Y, reduction="none").mean(0)),
    "absolute_error": (pl.AbsoluteError(), lambda A, Y: F.l1_loss(A, Y, reduction="none").mean(0)),
    "huber": (pl.Huber(0.7), lambda A, Y: F.huber_loss(A, Y, reduction="none", delta=0.7).mean(0)),
}


@every_engine
@pytest.mark.parametrize("name", VALUES)
@given(n=st.integers(1, 5), m=st.integers(1, 6), seed=seeds)
def test_values(engine, name, n, m, seed):
    rng = np.random.default_rng(seed)
    loss, oracle = VALUES[name]
    A, Y = rng.normal(size=(n, m)), rng.normal(size=(n, m))
    compare(engine, loss, A, Y, lambda A: oracle(A, as_torch(Y)))


@every_engine
@given(n=st.integers(1, 5), m=st.integers(1, 6), seed=seeds, weight=st.sampled_from([None, 3.0]))
def test_yes_or_no(engine, n, m, seed, weight):
    rng = np.random.default_rng(seed)
    Z, Y = 3 * rng.normal(size=(n, m)), rng.integers(0, 2, size=(n, m))
    P = rng.uniform(0.01, 0.99, size=(n, m))
    options = {} if weight is None else {"class_weight": {1: weight}}
    of_logits = {"reduction": "none", "pos_weight": None if weight is None else as_torch(weight)}
    compare(
        engine,
        pl.SigmoidCrossEntropy(**options),
        Z,
        Y,
        lambda Z: F.binary_cross_entropy_with_logits(Z, as_torch(Y), **of_logits).sum(0),
    )
    of_each = None if weight is None else as_torch(np.where(Y == 1, weight, 1.0))
    compare(
        engine,
        pl.BinaryCrossEntropy(**options),
        P,
        Y,
        lambda P: F.binary_cross_entropy(P, as_torch(Y), weight=of_each, reduction="none").sum(0),
    )


@every_engine
@given(
    n=st.integers(2, 4),
    m=st.integers(1, 6),
    T=st.integers(0, 3),
    seed=seeds,
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.2]),
    distribution=st.booleans(),
)
def test_softmax_cross_entropy(engine, n, m, T, seed, weighted, smoothing, distribution):
    rng = np.random.default_rng(seed)
    Z = 3 * rng.normal(size=(T, n, m) if T else (n, m))
    Y = rng.integers(n, size=(T, m) if T else (m,))
    q = np.moveaxis(rng.dirichlet(np.ones(n), size=Y.shape), -1, -2)
    weights = WEIGHTS[:n] if weighted and not (smoothing or distribution) else None  # PyTorch weighs each entry of q

    def oracle(Z):
        logits = Z.movedim(-2, -1).reshape(-1, n)
        target = as_torch(np.moveaxis(q, -2, -1).reshape(-1, n)) if distribution else torch.tensor(Y.reshape(-1))
        each = F.cross_entropy(
            logits,
            target,
            weight=None if weights is None else as_torch(weights),
            reduction="none",
            label_smoothing=smoothing,
        )
        return each.reshape(Y.shape).sum(0) if T else each

    loss = pl.SoftmaxCrossEntropy(class_weight=weights, label_smoothing=smoothing)
    compare(engine, loss, Z, q if distribution else Y, oracle)


@every_engine
@given(n=st.integers(2, 4), m=st.integers(1, 6), seed=seeds, weighted=st.booleans())
def test_cross_entropy(engine, n, m, seed, weighted):
    rng = np.random.default_rng(seed)
    P, Y = rng.dirichlet(np.ones(n), size=m).T + 1e-3, rng.integers(n, size=m)
    weights = WEIGHTS[:n] if weighted else None
    compare(
        engine,
        pl.CrossEntropy(class_weight=weights),
        P,
        Y,
        lambda P: F.nll_loss(
            torch.log(P).T, torch.tensor(Y), weight=as_torch(weights) if weighted else None, reduction="none"
        ),
    )


@every_engine
@given(n=st.integers(2, 4), m=st.integers(1, 6), seed=seeds, weighted=st.booleans())
def test_hinge(engine, n, m, seed, weighted):
    rng = np.random.default_rng(seed)
    A, Y = 2 * rng.normal(size=(n, m)), rng.integers(n, size=m)
    weights = WEIGHTS[:n] if weighted else None
    compare(
        engine,
        pl.Hinge(class_weight=weights),
        A,
        Y,
        lambda A: (
            n  # PyTorch divides the sum over the classes by their number
            * F.multi_margin_loss(
                A.T, torch.tensor(Y), weight=as_torch(weights) if weighted else None, reduction="none"
            )
        ),
    )


@every_engine
@given(m=st.integers(1, 6), seed=seeds)
def test_hinge_of_one_output(engine, m, seed):
    rng = np.random.default_rng(seed)
    A, t = 2 * rng.normal(size=(1, m)), rng.choice([-1, 1], size=(1, m))
    compare(engine, pl.Hinge(), A, t, lambda A: F.relu(1 - as_torch(t) * A).sum(0))
