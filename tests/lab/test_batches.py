"""Batches: the sampling theory against enumeration, the measurements against a network done by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import pellucid as pl
from pellucid.lab import batches
from pellucid.lab.base import Result


def test_the_noise_foretold_is_that_of_all_batches():
    """Every batch of B of 7 vectors, enumerated."""
    vectors = np.random.default_rng(0).normal(1.0, 2.0, (7, 5))
    full = vectors.mean(axis=0)
    spread = batches.Spread(float(full @ full), float(((vectors - full) ** 2).sum(axis=1).mean()), 7)
    for B in range(1, 8):
        means = [vectors[list(chosen)].mean(axis=0) for chosen in itertools.combinations(range(7), B)]
        noise = np.mean([np.sum((mean - full) ** 2) for mean in means]) / (full @ full)
        assert spread.noise(B) == pytest.approx(noise, abs=1e-12)
    assert spread.cosine(7) == 1.0
    assert batches.Spread(1.0, 6.0, 7).cosine(2) == pytest.approx(1 / math.sqrt(1 + 6 / 2 * 5 / 6))


def test_the_gradient_is_that_of_softmax_regression():
    net = pl.Sequential(pl.Dense(10), input_shape=64, loss="softmax_cross_entropy", dtype="float64")
    x, y = batches.standardised_digits(20)
    P = net.predict(x)
    dW = (P - np.eye(10)[y]).T @ x / 20
    db = (P - np.eye(10)[y]).mean(axis=0)
    assert batches.gradient(net, x, y) == pytest.approx(np.concatenate([dW.ravel(), db]), abs=1e-12)


def test_an_epoch_sees_each_example_once():
    x, y = np.arange(12.0).reshape(12, 1), np.arange(12)
    parts = batches.epoch(x, y, 4, seed=3)
    assert [part.shape for part, _ in parts] == [(4, 1)] * 3
    seen = np.concatenate([labels for _, labels in parts])
    assert sorted(seen) == list(range(12))
    assert list(seen) != list(range(12))
    assert all(np.array_equal(part[:, 0], labels) for part, labels in parts)


def test_what_is_compared():
    """A network with one weight and squared inputs: gradients of single examples are known numbers."""
    net = pl.Sequential(pl.Dense(1, use_bias=False), input_shape=1, loss="squared_error", dtype="float64")
    net.parameters = {"dense_1": {"W": np.array([[0.0]])}}
    x, y = np.array([[1.0], [1.0], [1.0], [1.0]]), np.array([-3.0, -1.0, 1.0, -5.0])  # gradients 3, 1, -1, 5
    full = batches.gradient(net, x, y)
    assert full == pytest.approx([2.0])
    rng = np.random.default_rng(0)
    noise, cosine = batches.compared(net, x, y, full, 1, 4000, rng)
    assert noise == pytest.approx((1 + 1 + 9 + 9) / 4 / 4, rel=0.05)
    assert cosine == pytest.approx(0.5, abs=0.05)  # three to one
    assert batches.compared(net, x, y, full, 4, 3, rng) == pytest.approx((0.0, 1.0))


def test_the_losses_watched_are_those_of_all_examples():
    x, y = batches.standardised_digits(64)
    net, watch = batches.network(0), batches.Losses(x, y)
    before = net.cost(x.T, y)
    net.fit(x, y, epochs=2, callbacks=[watch], **batches._options(32, 0.1))
    assert watch.updates == [1, 2, 3, 4]
    assert watch.values[-1] == pytest.approx(net.cost(x.T, y), rel=1e-5)
    assert before > watch.values[0] > watch.values[-1]


def test_a_descent_takes_the_rate_that_is_fastest():
    x, y = batches.standardised_digits(128)
    descent = batches.descend(x, y, 128, 30, seed=0, seeds=2)
    assert descent.per_epoch == 1
    assert list(descent.updates) == list(range(1, 31))
    by_rate = {}
    for rate in batches.RATES:
        watch = batches.Losses(x, y)
        batches.network(2).fit(x, y, epochs=30, callbacks=[watch], **batches._options(128, rate))
        reached = np.flatnonzero(np.array(watch.values) <= batches.GOAL)
        by_rate[rate] = reached[0] if len(reached) else math.inf
    assert by_rate[descent.rate] == min(by_rate.values()) < 30


def test_the_way_to_the_goal():
    descent = batches.Descent(0.1, np.array([7, 14, 21]), np.array([0.5, 0.09, 0.11]), 7)
    assert descent.to_goal() == 14
    assert batches.price(descent, 0.25) == (0.1, 14, 2.0, 3.5)
    never = batches.Descent(0.1, np.array([7]), np.array([0.5]), 7)
    assert never.to_goal() is None
    assert batches.price(never, 0.25) == (0.1, None, None, None)
    assert batches.price(None, 0.25) == (None, None, None, None)


def test_a_rate_that_diverges_is_not_chosen(monkeypatch):
    x, y = batches.standardised_digits(64)
    monkeypatch.setattr(batches, "RATES", (1e30, 0.1))
    assert batches.descend(x, y, 64, 3, seed=0, seeds=1).rate == 0.1


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Result:
    return batches.run(tmp_path_factory.mktemp("lab"), seed=5, quick=True)


def test_theory_and_measurement_agree(result):
    assert [each.what for each in result.findings if not each.agrees] == []
    rows = [dict(zip(result.head, row, strict=True)) for row in result.rows]
    assert [row["batch"] for row in rows] == [1, 16, 128, 256]
    for moment in batches.MOMENTS:
        noises, cosines = ([row[f"{what}, {moment}"] for row in rows] for what in ("noise", "cosine"))
        assert noises == sorted(noises, reverse=True)
        assert cosines == sorted(cosines)
        assert (noises[-1], rows[-1][f"foretold, {moment}"], cosines[-1]) == (0.0, 0.0, 1.0)
    assert rows[0]["noise, trained"] > rows[0]["noise, start"]  # the signal shrinks faster than the noise
    assert all(row["ms an update"] > 0 for row in rows)
    assert rows[0]["epochs"] < rows[-1]["epochs"]
    assert rows[0]["updates"] > rows[-1]["updates"]


def test_the_same_seed_is_the_same():
    x, y = batches.standardised_digits(64)
    first, again = (batches.descend(x, y, 16, 2, seed=4, seeds=1) for _ in range(2))
    assert np.array_equal(first.loss, again.loss)
    net = batches.network(4, "float64")
    full = batches.gradient(net, x, y)
    draws = [batches.compared(net, x, y, full, 4, 5, np.random.default_rng(each)) for each in (4, 4, 5)]
    assert draws[0] == draws[1] != draws[2]


def test_the_picture(result):
    from PIL import Image

    with Image.open(result.picture) as picture:
        assert picture.size == (1950, 1110)
        colors = picture.convert("RGB").getcolors(1 << 20)
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= {color for _, color in colors}
