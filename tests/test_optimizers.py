from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import engines, optimizers
from pellucid.errors import ParameterError
from pellucid.optimizers import (
    Adadelta,
    AdaGrad,
    Adam,
    AdamW,
    GradientDescent,
    Lion,
    Momentum,
    Nesterov,
    RMSprop,
    clip_by_norm,
    clip_by_value,
    global_norm,
)
from pellucid.registry import config
from pellucid.schedules import Constant, Cosine, WarmUp
from pellucid.trees import flatten, leaves, tree_map

EVERY = [GradientDescent, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW, Adadelta, Lion]
BY_HAND = {  # W = 2 after dW = 0.5 and then dW = -1, with α = 0.1
    GradientDescent(0.1): 2 - 0.1 * 0.5 + 0.1,
    Momentum(0.1, momentum=0.5): 2 - 0.05 + (0.5 * -0.05 + 0.1),
    Nesterov(0.1, momentum=0.5): (2 + 0.5 * -0.05 - 0.05) + 0.5 * (0.5 * -0.05 + 0.1) + 0.1,
    AdaGrad(0.1, initial_accumulator=0.11): 2 - 0.05 / 0.6 + 0.1 / math.sqrt(1.36),
    RMSprop(0.1, decay=0.5): 2 - 0.05 / math.sqrt(0.125) + 0.1 / math.sqrt(0.5625),
    Adam(0.1, beta1=0.5, beta2=0.5): 2 - 0.1 + 0.1 * (0.375 / 0.75) / math.sqrt(0.5625 / 0.75),
    AdamW(0.1, beta1=0.5, beta2=0.5, weight_decay=0.2): (1.96 - 0.1) * 0.98
    + 0.1 * (0.375 / 0.75) / math.sqrt(0.5625 / 0.75),
    Lion(0.1, beta1=0.5, beta2=0.25, weight_decay=0.2): (2 - 0.1 * (1 + 0.4)) * 0.98 + 0.1,
}


class Engine:
    """The few lines of an engine that an optimizer asks for."""

    xp = np

    def update(self, rule, params, grads, slots, *, learning_rate, t):
        def one(W, dW, *remembered):
            given = dict(zip(slots, remembered, strict=True))
            return rule(np, W, dW, given, learning_rate=learning_rate, t=t)

        both = tree_map(one, params, grads, *slots.values())
        return tree_map(lambda pair: pair[0], both), {
            slot: tree_map(lambda pair, slot=slot: pair[1][slot], both) for slot in slots
        }


def random_tree(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {
        "dense_1": {"W": rng.standard_normal((3, 4)).astype(dtype), "b": rng.standard_normal((3, 1)).astype(dtype)},
        "scale": rng.standard_normal(2).astype(dtype),
    }


def test_every_optimizer_is_tested_here():
    assert {each.registered_name for each in EVERY} == set(optimizers.optimizers)


@pytest.mark.parametrize(("optimizer", "expected"), BY_HAND.items(), ids=lambda value: type(value).__name__)
def test_two_updates_by_hand(optimizer, expected):
    params = {"W": np.array([2.0])}
    slots = optimizer.init(params)
    for t, dW in ((1, 0.5), (2, -1.0)):
        params, slots = optimizer.update(
            Engine(), params, {"W": np.array([dW])}, slots, learning_rate=optimizer.schedule.rate(0, 1, {}), t=t
        )
    assert params["W"][0] == pytest.approx(expected, rel=1e-7)


def test_adadelta_by_hand():
    optimizer = Adadelta(decay=0.5, epsilon=0.5)
    W, slots = optimizer.rule(np, 2.0, 0.5, {"s": 0.0, "u": 0.0}, learning_rate=1.0, t=1)
    step = -math.sqrt(0.5) / math.sqrt(0.125 + 0.5) * 0.5
    np.testing.assert_allclose(W, 2 + step, rtol=1e-14)
    assert slots == {"s": pytest.approx(0.125), "u": pytest.approx(0.5 * step**2)}
    W2, _ = optimizer.rule(np, W, 1.0, slots, learning_rate=1.0, t=2)
    expected = W - math.sqrt(0.5 * step**2 + 0.5) / math.sqrt(0.0625 + 0.5 + 0.5)
    np.testing.assert_allclose(W2, expected, rtol=1e-14)


@pytest.mark.parametrize("kind", EVERY)
def test_float32_stays_and_nothing_given_is_changed(kind):
    optimizer = kind(clip_norm=1.0, clip_value=0.5)
    params, grads = random_tree(dtype=np.float32), random_tree(1, np.float32)
    slots = optimizer.init(params)
    given = copy.deepcopy((params, grads, slots))
    after, slots_after = optimizer.update(Engine(), params, grads, slots, learning_rate=0.01, t=3)
    for before, now in zip(given, (params, grads, slots), strict=True):
        for path, leaf in leaves(before):
            np.testing.assert_array_equal(leaf, flatten(now)[path])
    assert {leaf.dtype for _, leaf in [*leaves(after), *leaves(slots_after)]} == {np.dtype(np.float32)}
    assert set(slots) == set(slots_after) == set(kind.slots)
    assert all(np.any(leaf != flatten(params)[path]) for path, leaf in leaves(after))


@pytest.mark.parametrize("kind", EVERY)
def test_slots_start_at_zero_in_the_parameters_own_type(kind):
    slots = kind().init(random_tree(dtype=np.float32))
    assert tuple(slots) == kind.slots
    for tree in slots.values():
        for path, leaf in leaves(tree):
            assert leaf.shape == flatten(random_tree())[path].shape
            assert leaf.dtype == np.float32
            assert not leaf.any()


def test_adagrad_starts_where_it_is_told():
    slots = AdaGrad(initial_accumulator=0.25).init(random_tree())
    assert all((leaf == 0.25).all() for _, leaf in leaves(slots))


@pytest.mark.parametrize("kind", EVERY)
def test_the_reference_engine_updates_as_the_rule_says(kind):
    optimizer = kind(clip_norm=1.0)
    rule_only, on_engine = ((random_tree(), optimizer.init(random_tree())) for _ in range(2))
    for t in (1, 2, 3):
        grads = random_tree(t)
        rule_only = optimizer.update(Engine(), rule_only[0], grads, rule_only[1], learning_rate=0.1, t=t)
        on_engine = optimizer.update(engines.get("numpy"), on_engine[0], grads, on_engine[1], learning_rate=0.1, t=t)
    for ours, theirs in zip(rule_only, on_engine, strict=True):
        for path, leaf in leaves(ours):
            np.testing.assert_allclose(flatten(theirs)[path], leaf, rtol=1e-13)


class Traced(np.ndarray):
    """Stands for a number inside ``jax.jit``: arithmetic is allowed, asking whether it is true is not."""

    def __bool__(self):
        raise AssertionError("a rule must not branch on a traced value")


@pytest.mark.parametrize("kind", EVERY)
def test_rate_and_time_may_be_traced(kind):
    optimizer, rng = kind(), np.random.default_rng(0)
    W, dW = rng.standard_normal((2, 3, 2))
    slots = {name: rng.random((3, 2)) for name in kind.slots}
    expected, expected_slots = optimizer.rule(np, W, dW, slots, learning_rate=0.1, t=4)
    traced = optimizer.rule(np, W, dW, slots, learning_rate=np.array(0.1).view(Traced), t=np.array(4).view(Traced))
    np.testing.assert_array_equal(np.asarray(traced[0]), expected)
    for name, slot in expected_slots.items():
        np.testing.assert_array_equal(np.asarray(traced[1][name]), slot)


@pytest.mark.parametrize("kind", EVERY)
def test_every_optimizer_goes_downhill(kind):
    optimizer = kind(1.0 if kind is Adadelta else 0.05)
    params = {"W": np.array([1.0, -2.0])}
    slots = optimizer.init(params)
    for t in range(1, 401):
        params, slots = optimizer.update(
            Engine(),
            params,
            {"W": params["W"] * [1.0, 3.0]},
            slots,
            learning_rate=optimizer.schedule.rate(0, 1, {}),
            t=t,
        )
    assert np.abs(params["W"]).max() < (1.9 if kind is Adadelta else 0.9)


@pytest.mark.parametrize("kind", EVERY)
def test_round_trip_through_json(kind):
    for optimizer in (kind(), kind(0.3, clip_norm=1), kind(WarmUp(1, Cosine(0.1)), clip_value=0.1)):
        assert optimizers.get(json.loads(json.dumps(config(optimizer)))) == optimizer


@given(
    rate=st.floats(0, 1),
    betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    clip=st.none() | st.floats(1e-3, 1e3),
)
def test_round_trip_of_random_adams(rate, betas, clip):
    optimizer = Adam(rate, *betas, clip_norm=clip)
    assert optimizers.get(config(optimizer)) == optimizer


def test_ways_to_say_the_same():
    expected = Adam(learning_rate=Constant(1e-3), beta1=0.8)
    assert optimizers.get("adam(1e-3, beta1=0.8)") == expected
    assert optimizers.get({"type": "Adam", "learning_rate": 0.001, "beta1": 0.8}) == expected
    assert optimizers.get(expected) is expected
    assert optimizers.get(Adam) == optimizers.get("adam") == Adam()
    assert optimizers.get("sgd(cosine(0.1))") == optimizers.get("gd('cosine(0.1)')") == GradientDescent(Cosine(0.1))
    assert Adam(np.float64(0.5)).learning_rate == Constant(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.get("adm"), "unknown optimizer 'adm'(.|\n)*hint:     did you mean 'adam'"),
        (lambda: optimizers.get("adam(beta3=1)", where="fit"), "fit: optimizer Adam: unknown argument 'beta3'"),
        (lambda: Adam(-0.1), "Constant: value is out of range"),
        (lambda: Adam("cosin(1)"), "Adam, learning_rate: unknown schedule"),
        (lambda: Adam(None), "Adam, learning_rate: cannot be used as schedule"),
        (lambda: Adam(beta1=1), r"Adam: beta1 is out of range\n  expected: a number in \[0, 1\)\n  got:      1"),
        (lambda: AdamW(beta2=-0.1), "AdamW: beta2"),
        (lambda: AdamW(weight_decay=-0.1), "AdamW: weight_decay"),
        (lambda: Adam(epsilon=0), "Adam: epsilon"),
        (lambda: Momentum(momentum=1.0), "Momentum: momentum"),
        (lambda: Nesterov(momentum=math.nan), "Nesterov: momentum"),
        (lambda: RMSprop(decay=2), "RMSprop: decay"),
        (lambda: Adadelta(decay=1), "Adadelta: decay"),
        (lambda: AdaGrad(initial_accumulator=-1), "AdaGrad: initial_accumulator"),
        (lambda: Lion(beta2=None), "Lion: beta2"),
        (
            lambda: GradientDescent(clip_norm=0),
            r"clip_norm is out of range\n  expected: a number in \(0, inf\) or None",
        ),
        (lambda: GradientDescent(clip_value=math.inf), "clip_value"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_clipping_is_keyword_only():
    with pytest.raises(TypeError):
        GradientDescent(0.1, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_global_norm_is_that_of_one_long_vector(dtype):
    tree = random_tree(dtype=dtype)
    whole = np.concatenate([leaf.ravel() for _, leaf in leaves(tree)]).astype(np.float64)
    norm = global_norm(np, tree)
    assert norm.dtype == dtype
    assert norm == pytest.approx(np.linalg.norm(whole), rel=1e-6 if dtype == np.float32 else 1e-14)


def test_the_norm_of_nothing_and_of_zeros_is_zero():
    assert global_norm(np, {}) == 0
    assert global_norm(np, {"a": np.zeros(3), "b": {"c": np.zeros((0, 2))}}) == 0


def test_a_gradient_whose_square_overflows_is_clipped_all_the_same():
    grads, norm = clip_by_norm(np, {"W": np.array([3e30, -4e30], np.float32)}, 1.0)
    assert norm == pytest.approx(5e30)
    np.testing.assert_allclose(grads["W"], [0.6, -0.8], rtol=1e-6)


@given(st.floats(0.01, 20))
def test_clipped_gradients_keep_their_direction(limit):
    grads = random_tree()
    clipped, norm = clip_by_norm(np, grads, limit)
    factor = min(1.0, limit / norm)
    for path, leaf in leaves(clipped):
        np.testing.assert_allclose(leaf, flatten(grads)[path] * factor, rtol=1e-12)
        if norm <= limit:
            np.testing.assert_array_equal(leaf, flatten(grads)[path])
    assert global_norm(np, clipped) == pytest.approx(min(norm, limit))


def test_clip_by_value():
    grads = {"a": np.array([-3.0, 0.2]), "b": {"c": np.array([[0.5, 9.0]])}}
    clipped = clip_by_value(np, grads, 0.5)
    np.testing.assert_array_equal(clipped["a"], [-0.5, 0.2])
    np.testing.assert_array_equal(clipped["b"]["c"], [[0.5, 0.5]])


def test_values_are_clipped_before_the_norm():
    optimizer = GradientDescent(1.0, clip_value=3.0, clip_norm=1.0)
    params, _ = optimizer.update(Engine(), {"W": np.zeros(2)}, {"W": np.array([30.0, 4.0])}, {}, learning_rate=1.0, t=1)
    np.testing.assert_allclose(params["W"], -np.array([3.0, 3.0]) / math.sqrt(18))
