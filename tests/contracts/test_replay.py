"""A step of the native engine that was written down computes what the step does, to the bit, whatever it is given.

Each row of the tables is run three times on other numbers: while it is written down, and twice from what was.
"""

from __future__ import annotations

import numpy as np
import pytest

from contracts import test_layers, test_losses, test_masks
from contracts.test_layers import run
from pellucid import engines
from pellucid.engines.native import replay
from pellucid.trees import tree_map

pytestmark = pytest.mark.skipif("native" not in engines.available(), reason="the native engine is not built")

M = 6


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Steps are written down the first time they run."""
    monkeypatch.setattr(replay, "AFTER", 0)


def turned(tree, turn, factor=1.0):
    """The same with the examples in another order, and times a factor."""
    return tree_map(lambda A: np.roll(A, turn, axis=-1) * np.asarray(factor, A.dtype), tree)


def fuller(mask, turn):
    """Where the mask is True, and where it is so some examples before: another number of steps that count."""
    if isinstance(mask, tuple):
        return tuple(fuller(each, turn) for each in mask)
    return mask if mask is None else mask | np.roll(mask, turn, axis=-1)


def same(ours, theirs):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = tuple(ours.values()), tuple(theirs.values())
    if isinstance(ours, tuple):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif ours is not None or theirs is not None:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def check(step, given):
    """``given(turn)`` makes arguments of one kind; returns whether the step was written down."""
    replayed = engines.get("native").compile(step, own=True)
    for turn in range(3):
        same(replayed(*given(turn)), step(*given(turn)))
    ((how,),) = (each.steps.values() for each in replayed.structures)
    return how is not step


def check_layer(bench, row):
    def step(params, state, inputs, dA, mask, key):
        mode = bench.mode()._replace(key=key if bench.train else None, state=state, mask=mask)
        return run(bench.ops, row.layer, mode, params, inputs, dA)

    def given(turn):
        arrays = turned({str(i): A for i, A in enumerate((*bench.inputs, *bench.dA))}, turn)
        inputs, dA = tuple(arrays.values())[: len(bench.inputs)], tuple(arrays.values())[len(bench.inputs) :]
        params, state = turned(bench.params, 0, 1 + turn / 8), turned(bench.state, turn)
        return params, state, inputs, dA, fuller(bench.mode().mask, turn), bench.ops.random_key(3, turn)

    return check(step, given)


@pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])
@test_layers.rows
def test_a_layer(row, train):
    drawn = train and "StochasticPool" in repr(row.layer)  # by NumPy's generator, which is made of known numbers
    assert check_layer(test_layers.Bench(row, "native", "float32", M, train=train), row) != drawn


@test_masks.rows
def test_a_layer_of_masked_sequences(row, rng):
    counted = "BatchNorm" in repr(row.layer)  # it is given as many steps as the mask has True
    assert check_layer(test_masks.Masked(row, "native", test_masks.masks_of(row, rng), train=True), row) != counted


@test_losses.rows
def test_a_loss(row, rng):
    ops, loss = engines.get("native"), row.loss
    A, Y = test_losses.outputs_and_targets(row, M, rng, "float32")
    Y = loss.targets(Y, row.output_shape, A.dtype)

    def step(A, Y):
        losses, cache = loss.forward(ops, A, Y)
        return losses, loss.backward(ops, cache)

    written = check(step, lambda turn: (np.roll(A, turn, axis=-1), np.ascontiguousarray(np.roll(Y, turn, axis=-1))))
    assert written
