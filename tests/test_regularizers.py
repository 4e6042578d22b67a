from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import regularizers
from pellucid.errors import ParameterError
from pellucid.registry import config
from pellucid.regularizers import L1, L2, Elastic, MaxNorm

EVERY = [L1(0.3), L2(0.7), Elastic(0.2, 0.5), MaxNorm(1.5)]


def weights(shape=(4, 3), dtype=np.float64, seed=0):
    W = np.random.default_rng(seed).standard_normal(shape)
    return (W + 0.1 * np.sign(W)).astype(dtype)  # away from the kink of |w|


def test_every_regularizer_is_tested_here():
    assert {each.registered_name for each in EVERY} == set(regularizers.regularizers)


@pytest.mark.parametrize("regularizer", EVERY, ids=repr)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2), (5,)])
def test_the_gradient_is_the_derivative_of_the_penalty(regularizer, shape):
    W, step = weights(shape), 1e-6
    numerical = np.empty(shape)
    for index in np.ndindex(shape):
        ahead, behind = W.copy(), W.copy()
        ahead[index] += step
        behind[index] -= step
        numerical[index] = (regularizer.penalty(np, ahead) - regularizer.penalty(np, behind)) / (2 * step)
    np.testing.assert_allclose(regularizer.gradient(np, W), numerical, rtol=1e-7, atol=1e-8)


def test_values_by_hand():
    W = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert L1(0.5).penalty(np, W) == 3.0
    assert L2(0.5).penalty(np, W) == 3.5
    assert Elastic(l1=0.5, l2=1.0).penalty(np, W) == 10.0
    assert MaxNorm(1).penalty(np, W) == 0
    np.testing.assert_array_equal(L1(0.5).gradient(np, W), [[0.5, -0.5], [0, 0.5]])
    np.testing.assert_array_equal(L2(0.5).gradient(np, W), 0.5 * W)
    np.testing.assert_array_equal(Elastic(0.5, 1.0).gradient(np, W), [[1.5, -2.5], [0, 3.5]])


@pytest.mark.parametrize("regularizer", EVERY, ids=repr)
def test_float32_stays_and_the_weights_are_not_changed(regularizer):
    W = weights(dtype=np.float32)
    before = W.copy()
    results = regularizer.penalty(np, W), regularizer.gradient(np, W), regularizer.project(np, W)
    assert {each.dtype for each in results} == {np.dtype(np.float32)}
    assert [each.shape for each in results] == [(), W.shape, W.shape]
    np.testing.assert_array_equal(W, before)


@pytest.mark.parametrize("regularizer", EVERY[:3], ids=repr)
def test_penalties_project_nothing(regularizer):
    W = weights()
    np.testing.assert_array_equal(regularizer.project(np, W), W)


def test_max_norm_by_hand():
    W = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(MaxNorm(1.0).project(np, W), [[0.6, 0.8], [0.3, 0.4], [0, 0]], rtol=1e-15)


@given(st.floats(0.01, 10), st.sampled_from([(4, 3), (3, 2, 2, 2), (5, 1), (6,)]), st.integers(0, 99))
def test_max_norm_is_the_nearest_point_of_the_ball(limit, shape, seed):
    W = weights(shape, seed=seed)
    projected = MaxNorm(limit).project(np, W)
    for before, after in zip(W.reshape(shape[0], -1), projected.reshape(shape[0], -1), strict=True):
        norm = np.linalg.norm(before)
        np.testing.assert_allclose(after, before * min(1, limit / norm), rtol=1e-13)
        if norm <= limit * (1 - 1e-12):
            np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(MaxNorm(limit).project(np, projected), projected, rtol=1e-13)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0.01, 10))
def test_round_trip(first, second, limit):
    for regularizer in (L1(first), L2(second), Elastic(first, second), MaxNorm(limit)):
        assert regularizers.get(json.loads(json.dumps(config(regularizer)))) == regularizer


def test_names():
    assert regularizers.get("l2(1e-4)") == regularizers.get("ridge(rate=1e-4)") == L2(1e-4)
    assert regularizers.get("l1_l2(0.1, 0.2)") == regularizers.get("ElasticNet(0.1, 0.2)") == Elastic(0.1, 0.2)
    assert regularizers.get(MaxNorm) == regularizers.get("max-norm") == MaxNorm(3.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L1(-1), "L1: rate is out of range"),
        (lambda: L2(math.inf), "L2: rate"),
        (lambda: Elastic(l1=-1), "Elastic: l1"),
        (lambda: Elastic(l2="much"), "Elastic: l2"),
        (lambda: MaxNorm(0), r"MaxNorm: limit is out of range\n  expected: a number in \(0, inf\)\n  got:      0"),
        (lambda: regularizers.get("l3", where="dense_1"), "dense_1: unknown regularizer 'l3'"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ParameterError, match=message):
        make()
