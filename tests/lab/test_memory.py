"""Memory: the tasks are what they are said to be, and the gradient's way back is measured right."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid.lab import memory


def test_the_adding_problem_marks_one_number_in_each_half(rng):
    x, y = memory.adding(rng, 200, 11)
    assert (x[:, :5, 1].sum(axis=1) == 1).all()
    assert (x[:, 5:, 1].sum(axis=1) == 1).all()
    assert np.allclose(y[:, 0], (x[..., 0] * x[..., 1]).sum(axis=1))
    assert len(np.unique(x[..., 1].argmax(axis=1))) == 5  # anywhere in its half


def test_the_best_without_memory_is_what_the_conditional_mean_leaves(rng):
    x, y = memory.adding(rng, 400_000, 8)
    marked = x[:, -1, 1] == 1
    best = np.where(marked, 0.5 + x[:, -1, 0], 1.0)
    error = (y[:, 0] - best) ** 2
    assert np.mean(error) == pytest.approx(memory.blind(8), rel=0.01)
    assert np.std(error) / np.mean(error) == pytest.approx(memory.scatter(8, 1), rel=0.01)
    assert memory.scatter(8, 400) == pytest.approx(memory.scatter(8, 1) / 20)
    apart = [each.mean() / memory.blind(8) - 1 for each in np.split(error, 1000)]
    assert np.std(apart) == pytest.approx(memory.scatter(8, 400), rel=0.1)


def test_the_parity_is_of_past_bits_only(rng):
    x, y = memory.delayed_parity(rng, 50, 20)
    bits = (x[..., 0] > 0).astype(int)
    for t in range(memory.DELAY + 1, 20):
        assert (y[:, t, 0] == (bits[:, t - memory.DELAY] != bits[:, t - memory.DELAY - 1])).all()
    again, other = memory.delayed_parity(np.random.default_rng(1), 2000, 20)[1], y
    assert 0.4 < again.mean() < 0.6
    assert 0.3 < other.mean() < 0.7


def test_the_gradient_shrinks_by_the_slope():
    for slope in (0.8, 1.0, 1.2):
        assert memory.constant(slope, 0) == pytest.approx(slope, rel=1e-4)


def test_norms_are_of_the_gradient_by_every_state():
    layer = pl.SimpleRNN(3)
    norms = memory.norms_back_in_time(layer, 6, seed=0)
    x, y = memory.adding(np.random.default_rng([0, 3]), 64, 6)
    net = pl.Sequential(layer, pl.Dense(1), input_shape=(6, 2), loss="squared_error", seed=0, dtype="float64")
    p = {name: np.array(W) for name, W in net.parameters["simple_rnn_1"].items()}
    v, c = (np.array(net.parameters["dense_1"][name]) for name in ("W", "b"))

    def end(h, t):
        for X in np.moveaxis(x, 0, -1)[t + 1 :]:
            h = np.tanh(p["W"] @ X + p["U"] @ h + p["b"])
        return 0.5 * (((v @ h + c) - y.T) ** 2).sum()

    h = np.zeros((3, 64))
    for t, X in enumerate(np.moveaxis(x, 0, -1)):
        h = np.tanh(p["W"] @ X + p["U"] @ h + p["b"])
        slopes = np.zeros_like(h)
        for index in np.ndindex(h.shape) if t == 2 else ():
            step = np.zeros_like(h)
            step[index] = 1e-6
            slopes[index] = (end(h + step, t) - end(h - step, t)) / 2e-6
        if t == 2:
            assert norms[t] == pytest.approx(np.linalg.norm(slopes), rel=1e-6)


def test_an_exploding_gradient_ends_the_training_and_clipping_does_not():
    unclipped, clipped = (memory.explode(clip, 100, 64, 500, 0) for clip in (None, 0.1))
    assert unclipped[-1] is None
    assert len(unclipped) < 30
    assert len(clipped) == 30
    assert None not in clipped


def test_a_small_run(tmp_path):
    pytest.importorskip("matplotlib")
    result = memory.run(tmp_path, quick=True)
    assert result.picture.stat().st_size > 20_000
    assert result.agrees, [each for each in result.findings if not each.agrees]
    rows = {(row[0], row[1]): row[2] for row in result.rows}
    assert rows["GRU", "adding, T = 12"] < 0.5 * memory.blind(12)
    assert rows["no memory", "adding, T = 12"] > 0.9 * memory.blind(12)
    parity = f"parity {memory.DELAY} steps ago"
    assert rows["SimpleRNN, tanh", parity] > 0.8
    assert rows["no memory", parity] < 0.55
