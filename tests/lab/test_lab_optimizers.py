"""The optimizers' experiment: its rates against NumPy's eigenvalues, its paths, its trainings."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.lab import optimizers
from pellucid.lab.base import digits
from pellucid.optimizers import Adam, GradientDescent, Momentum, Nesterov


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return optimizers.run(tmp_path_factory.mktemp("lab"), seed=3, quick=True)


def test_theory_holds(result):
    assert [each.agrees for each in result.findings] == [True] * 7
    assert [set(row) for row in result.document()["table"]] == [set(result.head)] * len(result.rows)
    assert result.picture.stat().st_size > 50_000


@pytest.mark.parametrize("mu", [0.5, 0.9])
def test_convergence_is_the_largest_eigenvalue(mu):
    alpha = 0.03
    for kind, matrix in (
        (Momentum, lambda c: [[1 + mu - alpha * c, -mu], [1, 0]]),
        (Nesterov, lambda c: [[(1 + mu) * (1 - alpha * c), -mu * (1 - alpha * c)], [1, 0]]),
    ):
        largest = max(np.abs(np.linalg.eigvals(matrix(c))).max() for c in optimizers.CURVATURE)
        assert optimizers.convergence(kind(alpha, mu)) == pytest.approx(largest, rel=3e-3)


@pytest.mark.parametrize("slope", [optimizers.BOWL, optimizers.VALLEY], ids=["bowl", "valley"])
def test_the_gradient_is_that_of_what_is_drawn(slope):
    w, step = np.array([-0.7, 0.4]), 1e-6
    slopes = [(slope.height(*(w + d)) - slope.height(*(w - d))) / (2 * step) for d in step * np.eye(2)]
    assert slope.gradient(w) == pytest.approx(slopes, rel=1e-6)
    assert slope.gradient(np.array(slope.goal)) == pytest.approx([0, 0])


def test_no_learning_rate_beats_polyaks_momentum():
    slope = optimizers.BOWL
    best = optimizers.descend(optimizers.best_momentum(), slope.gradient, slope.start, 60)
    assert np.linalg.norm(best[-1]) < 1e-2 * np.linalg.norm(optimizers.best_path(Momentum, slope, 60)[-1])


def test_a_drawn_path_stays_in_the_frame():
    low, high = np.array(optimizers.VALLEY.frame).T
    free, inside = (optimizers.best_path(Momentum, optimizers.VALLEY, 30, inside=each) for each in (False, True))
    assert ((inside >= low) & (inside <= high)).all()
    assert np.linalg.norm(free[-1] - 1) <= np.linalg.norm(inside[-1] - 1) < np.linalg.norm(inside[0] - 1)


def test_training_learns_and_starts_alike():
    data = digits(0.2, seed=0)
    runs = [optimizers.train(each, data, 3, 5) for each in (GradientDescent(0.1), Adam(1e-2))]
    assert runs[0].losses[0] == runs[1].losses[0] == pytest.approx(np.log(10), abs=0.4)
    assert all(each.losses[-1] < 0.5 * each.losses[0] and each.accuracy > 0.8 for each in runs)
    assert all((np.diff(each.seconds) > 0).all() for each in runs)
    assert runs[0].updates.tolist() == list(range(0, 61, 10))


def test_a_divergence_is_an_infinite_loss():
    assert optimizers.train(GradientDescent(1e6), digits(0.2, seed=0), 2, 0).losses[-1] == np.inf


def test_the_best_rate_has_the_least_loss(result):
    table = {row[0]: row[1:] for row in result.rows}
    assert set(table) == set(optimizers.OPTIMIZERS)
    assert table["Adam"][1] < table["gradient descent"][1] < np.log(10)
