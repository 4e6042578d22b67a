"""The initialization experiment: theory's recursion against draws of its own, symmetry, and the finding of rates."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import initializers
from pellucid.lab import initialization
from pellucid.lab.base import digits


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return initialization.run(tmp_path_factory.mktemp("lab"), seed=1, quick=True)


def test_theory_holds(result):
    assert [each.what for each in result.findings if not each.agrees] == []
    assert len(result.findings) == 11
    assert [set(row) for row in result.document()["table"]] == [set(result.head)] * len(result.rows)
    assert result.picture.stat().st_size > 50_000


def test_only_random_starts_of_the_right_size_learn(result):
    loss = {row[:2]: row[5] for row in result.rows}
    assert loss["relu", "He"] < loss["relu", "too small"] - 0.1
    assert loss["relu", "zeros"] == pytest.approx(np.log(10), abs=0.01)


@pytest.mark.parametrize(("g", "function"), [("relu", lambda z: np.maximum(z, 0)), ("tanh", np.tanh)])
@pytest.mark.parametrize("q", [0.05, 1.0, 20.0])
def test_what_an_activation_leaves(g, function, q):
    z = np.sqrt(q) * np.random.default_rng(0).normal(size=400_000)
    assert initialization.passed(g, q) == pytest.approx(np.mean(function(z) ** 2), rel=0.01)


def test_the_variances_are_those_of_the_initializers():
    rng = np.random.default_rng(0)
    for name, (text, variance) in initialization.START.items():
        if variance is None:
            continue
        for gain in initialization.GAIN.values():
            initializer = initializers.get(text.format(gain=gain))
            W = initializer(rng, (200, 64), fan_in=64, fan_out=200)
            assert np.mean(W**2) == pytest.approx(variance(64, 200, gain), rel=0.05), name


def test_units_that_start_equal_stay_equal_and_others_part():
    data = digits(0.2, seed=0)
    apart = {start: initialization.spread(start, data, 6, 0) for start in initialization.SPREAD.values()}
    assert (apart["zeros"] == 0).all()
    assert apart["constant(0.05)"].max() < 1e-6
    nearly = apart["normal(1e-6, mean=0.05)"]
    assert nearly[-1] > 3 * nearly[0] > 0


def test_a_divergence_is_an_infinite_loss():
    net = initialization.network("relu", "too large", 0)
    assert initialization.train(net, 1.0, digits(0.2, seed=0), 1)[1] == np.inf
