from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pellucid import initializers
from pellucid.errors import ParameterError, ShapeError
from pellucid.initializers import (
    Constant,
    FanInUniform,
    HeNormal,
    HeUniform,
    Identity,
    LeCunNormal,
    LeCunUniform,
    Normal,
    Ones,
    Orthogonal,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from pellucid.registry import config

FAN_IN, FAN_OUT, SHAPE = 500, 300, (300, 500)
RANDOM = {  # standard deviation, and the bound of the uniform ones
    Normal(): (0.05, None),
    Normal(0.2): (0.2, None),
    Uniform(): (0.05 / math.sqrt(3), 0.05),
    XavierNormal(): (math.sqrt(2 / 800), None),
    XavierUniform(): (math.sqrt(2 / 800), math.sqrt(6 / 800)),
    XavierUniform(gain=2): (2 * math.sqrt(2 / 800), 2 * math.sqrt(6 / 800)),
    HeNormal(): (math.sqrt(2 / 500), None),
    HeUniform(): (math.sqrt(2 / 500), math.sqrt(6 / 500)),
    LeCunNormal(): (math.sqrt(1 / 500), None),
    LeCunUniform(): (math.sqrt(1 / 500), math.sqrt(3 / 500)),
    FanInUniform(2.4): (2.4 / 500 / math.sqrt(3), 2.4 / 500),
}
EVERY = [*RANDOM, Constant(0.5), Zeros(), Ones(), Orthogonal(1.5), Identity(0.5)]


def draw(initializer, seed=0, shape=SHAPE, dtype=np.float32):
    return initializer(np.random.default_rng(seed), shape, fan_in=FAN_IN, fan_out=FAN_OUT, dtype=dtype)


def test_every_initializer_is_tested_here():
    assert {each.registered_name for each in EVERY} == set(initializers.initializers)


@pytest.mark.parametrize(("initializer", "moments"), RANDOM.items(), ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments(initializer, moments, dtype):
    std, bound = moments
    W, n = draw(initializer, dtype=dtype).astype(np.float64), math.prod(SHAPE)
    fourth = 3 if bound is None else 1.8  # kurtosis: normal 3, uniform 9/5
    assert abs(W.mean()) < 4.5 * std / math.sqrt(n)
    assert abs(W.var() / std**2 - 1) < 4.5 * math.sqrt((fourth - 1) / n)
    assert abs(np.mean(W**4) / std**4 - fourth) < 0.1
    if bound is not None:
        assert bound * 0.999 < np.abs(W).max() <= bound * (1 + 1e-6)
    else:
        assert np.abs(W).max() > 4 * std


def test_where_the_mass_lies():
    assert draw(Normal(0.01, mean=3.0)).mean() == pytest.approx(3, abs=1e-3)
    W = draw(Uniform(1.0, 5.0))
    assert W.min() >= 1
    assert W.max() < 5
    assert W.mean() == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize("initializer", EVERY, ids=repr)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_type_is_the_one_asked_for(initializer, dtype):
    W = draw(initializer, shape=(7, 5), dtype=dtype)
    assert W.dtype == dtype
    assert W.shape == (7, 5)
    assert W.flags.c_contiguous


@pytest.mark.parametrize("initializer", [*RANDOM, Orthogonal()], ids=repr)
def test_the_generator_alone_decides(initializer):
    np.testing.assert_array_equal(draw(initializer, seed=5), draw(initializer, seed=5))
    assert (draw(initializer, seed=5) != draw(initializer, seed=6)).mean() > 0.99
    rng = np.random.default_rng(5)
    first, second = (initializer(rng, (9, 9), fan_in=9, fan_out=9) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float32_is_drawn_as_float32(dtype):
    np.testing.assert_array_equal(
        draw(Normal(1.0), dtype=dtype), np.random.default_rng(0).standard_normal(SHAPE, dtype)
    )


def test_fixed_values():
    np.testing.assert_array_equal(draw(Zeros(), shape=(2, 1)), [[0], [0]])
    np.testing.assert_array_equal(draw(Ones(), shape=(2,)), [1, 1])
    np.testing.assert_array_equal(draw(Constant(-0.25), shape=(2,)), [-0.25, -0.25])
    np.testing.assert_array_equal(draw(Identity(2), shape=(2, 3)), [[2, 0, 0], [0, 2, 0]])


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (5, 3, 2, 2), (30, 2, 3, 3), (1, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_orthogonal_rows_or_columns(shape, dtype, tolerance):
    W = draw(Orthogonal(gain=3.0), shape=shape, dtype=dtype).reshape(shape[0], -1)
    gram = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
    np.testing.assert_allclose(gram / 9, np.eye(len(gram)), atol=tolerance)


def test_orthogonal_is_uniform_over_the_haar_measure():
    draws = np.stack([draw(Orthogonal(), seed=seed, shape=(3, 3), dtype=np.float64) for seed in range(4000)])
    # Haar: every entry is uniform on [-1, 1] in three dimensions (Archimedes), and the trace of the square has mean 1.
    assert np.abs(draws.mean(axis=0)).max() < 4.5 * math.sqrt(1 / 3 / 4000)
    assert np.abs((draws**2).mean(axis=0) - 1 / 3).max() < 4.5 * math.sqrt((1 / 5 - 1 / 9) / 4000)
    assert np.einsum("nij,nji->n", draws, draws).mean() == pytest.approx(1, abs=0.15)
    assert np.einsum("nii->n", draws).var() == pytest.approx(1, abs=0.15)
    assert (np.linalg.det(draws) > 0).mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("initializer", EVERY, ids=repr)
def test_round_trip_through_json(initializer):
    assert initializers.get(json.loads(json.dumps(config(initializer)))) == initializer


def test_names():
    assert initializers.get("normal") == initializers.get("random_normal") == Normal(std=0.05)
    assert initializers.get("glorot_uniform") == initializers.get("XavierUniform") == XavierUniform()
    assert initializers.get("glorot_normal(2.0)") == XavierNormal(gain=2)
    assert initializers.get("constant(0.1)") == Constant(0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: initializers.get("he"), ParameterError, "unknown initializer 'he'(.|\n)*he_normal"),
        (lambda: initializers.get("constant"), ParameterError, "missing a required argument: 'value'"),
        (lambda: Constant(math.inf), ParameterError, "Constant: value"),
        (lambda: Normal(-1), ParameterError, "Normal: std"),
        (lambda: Normal(1, mean="x"), ParameterError, "Normal: mean"),
        (lambda: Uniform(math.nan), ParameterError, "Uniform: low"),
        (lambda: Uniform(1, 1), ParameterError, "Uniform: low is not below high"),
        (lambda: XavierNormal(0), ParameterError, "XavierNormal: gain"),
        (lambda: Orthogonal(0), ParameterError, "Orthogonal: gain"),
        (lambda: Identity(None), ParameterError, "Identity: gain"),
        (lambda: draw(Orthogonal(), shape=(3,)), ShapeError, r"no rows to be orthogonal(.|\n)*got:      \(3,\)"),
        (lambda: draw(Identity(), shape=(3, 3, 3)), ShapeError, "only a matrix can be the identity"),
        (
            lambda: HeNormal()(np.random.default_rng(0), (3, 0), fan_in=0, fan_out=3),
            ParameterError,
            "HeNormal: cannot scale(.|\n)*fan_in=0",
        ),
    ],
)
def test_messages(make, error, message):
    with pytest.raises(error, match=message):
        make()
