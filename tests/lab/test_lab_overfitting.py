"""The overfitting experiment: the ensemble against sub-networks run one by one, the data's parts, the remedies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pellucid.lab import overfitting
from pellucid.lab.overfitting import Extent, Score


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return overfitting.run(tmp_path_factory.mktemp("lab"), seed=1, quick=True)


def test_theory_holds(result):
    assert [each["agrees"] for each in result.document()["findings"]] == [True] * 3
    assert result.picture.stat().st_size > 50_000


@pytest.mark.parametrize("seed", [13, 15])
def test_the_small_run_is_long_enough_to_learn_every_example(seed):
    data = overfitting.draw_data(100, seed)
    net, _ = overfitting.train(overfitting.QUICK.units[-1], data, overfitting.QUICK.epochs, seed)
    assert net.evaluate(data.x, data.y)["accuracy"] == 1


def test_capacity_and_data_pay(result):
    loss = {row[1]: row[3] for row in result.rows}
    assert loss["128 units"] < loss["2 units"] - 0.5
    assert loss["100 examples"] < loss["25 examples"] - 0.1
    assert {row[0] for row in result.rows} == {"capacity", "data", "remedy", "dropout"}


def test_every_subnetwork_is_there_once():
    data = overfitting.draw_data(25, 0)
    net, _ = overfitting.train(overfitting.SMALL, data, 1, 0, dropout=0.5)
    x = data.x[:3]
    Z, A = overfitting.every_subnetwork(net, x)
    assert Z.shape == (4096, 10, 3)
    W, b = net.parameters["dense_2"]["W"], net.parameters["dense_2"]["b"]
    expected = [W @ (A * (2.0 * np.array(mask))[:, None]) + b for mask in itertools.product((0, 1), repeat=12)]
    order = np.argsort(np.stack(expected)[:, 0, 0]), np.argsort(Z[:, 0, 0])
    assert Z[order[1], 0, 0] == pytest.approx(np.stack(expected)[order[0], 0, 0], abs=1e-12)
    assert Z.mean(axis=0) == pytest.approx(net.forward(np.moveaxis(x, 0, -1))[0], abs=1e-12)


def test_the_mean_of_sampled_networks_is_no_worse_than_theirs():
    data = overfitting.draw_data(100, 0)
    net, _ = overfitting.train(32, data, 20, 0, dropout=0.5)
    ensemble, single = overfitting.sampled(net, *data.held, 10)
    assert ensemble.shape == single.shape == (10, 2)
    assert ensemble[0] == pytest.approx(single[0])
    assert ensemble[-1, 0] < single[:, 0].mean()  # Jensen: -log is convex


def test_the_parts_are_apart():
    data = overfitting.draw_data(100, 3)
    parts = [{each.tobytes() for each in x} for x in (data.x, data.validation[0], data.held[0])]
    assert [len(x) for x in (data.x, data.validation[0], data.held[0])] == [100, 200, 1000]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_validation_chooses_the_setting(monkeypatch):
    extent = Extent((), (), 30, 1, 0, 0)
    monkeypatch.setitem(overfitting.REMEDIES, "L2", ({"l2": 1e-4}, {"l2": 10.0}))
    assert overfitting.chosen("L2", extent, 0) == {"l2": 1e-4}
    assert overfitting.called("early stopping", {"patience": 5}) == "early stopping, patience 5"


def test_remedies_are_compared_seed_by_seed():
    none = [Score(0, loss, 0, 0) for loss in (0.1, 0.5, 0.9)]
    less = [Score(0, loss, 0, 0) for loss in (0.0, 0.4, 0.8)]
    mean, half = overfitting.against(less, none)
    assert mean == pytest.approx(-0.1)
    assert half == pytest.approx(0, abs=1e-9)
