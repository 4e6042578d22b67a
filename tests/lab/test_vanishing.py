"""Vanishing gradients: theory against closed forms, measurements against the chain rule by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

import pellucid as pl
from pellucid.lab import vanishing
from pellucid.lab.base import Result
from pellucid.lab.vanishing import BATCH, FITTING, LAYER, NAIVE


@pytest.mark.parametrize(
    ("g", "function", "slope"),
    [
        ("sigmoid", expit, lambda z: expit(z) * expit(-z)),
        ("tanh", np.tanh, lambda z: 1 / np.cosh(z) ** 2),
        ("relu", lambda z: max(z, 0.0), lambda z: float(z > 0)),
        ("gelu", lambda z: z * norm.cdf(z), lambda z: norm.cdf(z) + z * norm.pdf(z)),
    ],
)
def test_moments(g, function, slope):
    q = np.array([0.25, 1.0, 4.0])
    for index, deviation in enumerate(np.sqrt(q)):
        integrands = function, lambda z: function(z) ** 2, lambda z: slope(z) ** 2
        expected = [
            quad(lambda z, f=f, s=deviation: f(s * z) * norm.pdf(z), -9, 9, points=[0.0], limit=200)[0]
            for f in integrands
        ]
        assert [each[index] for each in vanishing.moments(g, q)] == pytest.approx(expected, abs=2e-6)


def factors(start: str, g: str, depth: int = 6, width: int = 400) -> np.ndarray:
    X, _ = vanishing.traced_digits()
    relative = vanishing.mean_field(vanishing.network(start, g, depth, width, 0), start, g, X)
    assert relative[-1] == 1.0
    return relative[:-1] / relative[1:]


def test_what_the_theory_says_of_relu():
    assert factors(NAIVE, "relu") == pytest.approx(np.full(5, math.sqrt(1 / 6)), rel=5e-3)
    assert factors(FITTING, "relu") == pytest.approx(np.ones(5), rel=5e-3)
    assert factors(BATCH, "relu")[1:] == pytest.approx(np.full(4, math.sqrt(math.pi / (math.pi - 1))), rel=1e-5)
    assert factors(LAYER, "relu")[1:] == pytest.approx(np.ones(4), rel=1e-5)


def test_what_the_theory_says_of_the_logistic_function():
    assert (factors(FITTING, "sigmoid") < 0.25).all()
    assert (factors(FITTING, "sigmoid") > 0.22).all()
    assert factors(NAIVE, "sigmoid")[0] < 0.25 / math.sqrt(3)
    assert (factors(BATCH, "sigmoid")[1:] > 1).all()  # Poincaré: E g'² ≥ Var g
    assert (factors(LAYER, "sigmoid")[1:] < 0.4).all()


def test_batch_norm_never_shrinks():
    for g in vanishing.ACTIVATIONS:
        mean, square, slope = (each[0] for each in vanishing.moments(g, np.ones(1)))
        assert slope > square - mean**2


def test_the_digits():
    x, y = vanishing.standardised_digits()
    assert x.shape == (1797, 64)
    assert (x.mean(), x.std()) == pytest.approx((0, 1), abs=1e-5)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_starts():
    naive = vanishing.network(NAIVE, "relu", 3, 100, 0)
    W = [params["W"] for params in naive.parameters.values()]
    assert [each.shape for each in W] == [(100, 64), (100, 100), (100, 100), (10, 100)]
    for each, n_prev in zip(W, (64, 100, 100), strict=False):
        assert 0.99 * n_prev**-0.5 < np.abs(each).max() <= n_prev**-0.5
    fitting = vanishing.network(FITTING, "relu", 2, 400, 0).parameters["dense_2"]["W"]
    assert fitting.std() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    kinds = [type(layer) for layer in vanishing.network(BATCH, "tanh", 1, 8, 0).layers]
    assert kinds == [pl.Dense, pl.BatchNorm, pl.Tanh, pl.Dense]


def test_what_is_measured_is_the_chain_rule():
    X, Y = vanishing.traced_digits()
    net = vanishing.network(FITTING, "sigmoid", 3, 12, 0)
    t = pl.trace(net, X, Y)
    # by hand: dZ[l] = W[l+1]ᵀ dZ[l+1] * σ'(Z[l])
    A, outputs, parameters = X, [], list(net.parameters.values())
    for params in parameters:
        A = params["W"] @ A + params["b"]
        outputs.append(A)
        A = expit(A)
    P = np.exp(outputs[-1]) / np.exp(outputs[-1]).sum(axis=0)
    dZ = [P - np.eye(10)[Y].T]
    for params, Z in zip(parameters[:0:-1], outputs[-2::-1], strict=True):
        dZ.insert(0, params["W"].T @ dZ[0] * expit(Z) * expit(-Z))
    sizes = [np.sqrt((each**2).sum() / 256) for each in dZ[:-1]]
    assert [each.dA for each in vanishing.hidden_norms(t)] == pytest.approx(sizes, rel=1e-9)

    shrunk = vanishing.shrinkage(t, 0.25)
    assert shrunk.typical == pytest.approx([sizes[0] / sizes[1], sizes[1] / sizes[2]], rel=1e-9)
    largest = [np.linalg.svd(params["W"])[1][0] for params in parameters[1:3]]
    assert shrunk.bound == pytest.approx(0.25 * np.array(largest), rel=1e-9)
    assert shrunk.above == 0
    assert vanishing.shrinkage(t, 0.01).above == 512  # 2 steps of 256 examples
    dW = dZ[0] @ X.T / 256
    assert vanishing.first_gradient(FITTING, "sigmoid", 3, 12, 0) == pytest.approx(np.linalg.norm(dW), rel=1e-9)


def test_a_training_that_diverges_is_no_result(monkeypatch):
    assert vanishing.learned(FITTING, "tanh", 1, vanishing.QUICK, 0) > 0.5
    monkeypatch.setattr(vanishing, "Momentum", lambda rate: pl.Momentum(1e30))
    assert math.isnan(vanishing.learned(FITTING, "relu", 2, vanishing.QUICK, 0))


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Result:
    return vanishing.run(tmp_path_factory.mktemp("lab"), seed=3, quick=True)


def test_theory_and_measurement_agree(result):
    assert [each.what for each in result.findings if not each.agrees] == []
    rows = {row[:2]: row[2:] for row in result.rows}
    assert len(rows) == 12
    assert rows[NAIVE, "sigmoid"][0] < 0.15 < 0.2 < rows[FITTING, "sigmoid"][0] < 0.25
    for per_layer, _, _, whole, _, right in rows.values():
        assert whole == pytest.approx(per_layer**7, rel=0.1)
        assert 0 <= right <= 1


def test_the_picture(result):
    from PIL import Image

    with Image.open(result.picture) as picture:
        assert picture.size == (1950, 1110)
        colors = picture.convert("RGB").getcolors(1 << 20)
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= {color for _, color in colors}  # the three activations
