"""The normalization experiment: its limits against eigenvalues, its invariance, its data."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.lab import normalization


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return normalization.run(tmp_path_factory.mktemp("lab"), seed=1, quick=True)


@pytest.fixture(scope="module")
def data():
    return {standardised: normalization.prepared(standardised, 0) for standardised in (False, True)}


def test_theory_holds(result):
    assert [each.what for each in result.findings if not each.agrees] == []
    assert len(result.findings) == 9
    assert [set(row) for row in result.document()["table"]] == [set(result.head)] * len(result.rows)
    assert result.picture.stat().st_size > 50_000


def test_batch_normalisation_learns_where_raw_pixels_do_not(result):
    loss = {row[0]: row[4] for row in result.rows}
    assert set(loss) == set(normalization.KINDS)
    assert loss["batch"] < loss["raw pixels"] - 0.3


def test_only_training_examples_standardise(data):
    x, _, x_held, _ = data[True]
    assert np.abs(x.mean(axis=0)).max() < 1e-5
    assert np.unique(np.round(x.std(axis=0), 3)).tolist() in ([0.0, 1.0], [1.0])
    assert np.abs(x_held.mean(axis=0)).max() > 1e-3
    raw = data[False][0]
    assert (raw.min(), raw.max()) == (0, 16)


def test_descent_of_the_linear_layer_stops_growing_at_the_limit(data):
    limit = normalization.limit(data[True])
    below, above = (normalization.linear_descent(data[True], factor * limit, 200) for factor in (0.97, 1.03))
    assert below[-1] < 0.1 * below[0]
    assert above[-1] > 2 * above[150]
    assert above[-1] / above[-2] == pytest.approx(1.06, rel=1e-3)  # α λ - 1 = 2 · 1.03 - 1


def test_only_normalised_weights_are_free_of_scale(data):
    for name, free in (("standardised", False), ("batch", True), ("layer", True), ("local response", False)):
        norms, cosine = normalization.gradients_by_scale(name, data, 0)
        follows = np.allclose(norms * normalization.SCALES, norms[2], rtol=0.03)
        assert (follows, abs(cosine) < 1e-4) == (free, free), name


def test_a_divergence_is_an_infinite_loss(data):
    trained = normalization.train("raw pixels", 1e4, data[False], 1, 0)
    assert trained.loss == np.inf
    assert len(trained.losses) == 23
