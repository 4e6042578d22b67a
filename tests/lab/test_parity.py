"""Parity: the constructions on every input, what is counted, and what the measurements of learning mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

import pellucid as pl
from pellucid.errors import ParameterError
from pellucid.lab import parity
from pellucid.lab.base import Result


@pytest.mark.parametrize("name", parity.CONSTRUCTIONS)
@pytest.mark.parametrize("n", range(2, 11))
def test_a_construction_is_exact_on_every_input(name, n):
    net = parity.network(parity.CONSTRUCTIONS[name](n))
    x = np.array([[int(digit) for digit in f"{number:0{n}b}"] for number in range(2**n)])
    expected = np.bitwise_xor.reduce(x, axis=1)
    assert np.array_equal(net.forward(x.T)[0][0], expected)
    assert parity.wrong_outputs(net, n) == 0
    units = sum(step.output_shape[0] for step in net.steps[:-1])
    assert units == parity.FORETOLD[name][1](n)


def test_sizes():
    def layers(weights):
        return [len(W) for W, _ in weights[:-1]]

    assert layers(parity.xor_tree(8)) == [8, 4, 2]
    assert layers(parity.xor_tree(11)) == [11, 6, 3, 2]  # 5 pairs and one passed on, 3 pairs, 1 and one, 1
    assert layers(parity.minterms(5)) == [16]
    assert layers(parity.counter(5)) == [5]
    assert layers(parity.counter(100, 6)) == [2] * 7
    assert layers(parity.counter(9, 1)) == [2, 6]
    assert all(len(parity.xor_tree(n)) - 1 == parity.levels(n) for n in range(2, 40))


def test_every_weight_of_the_tree_is_a_gate():
    for n in (2, 7, 16):
        weights = parity.xor_tree(n)
        assert all(np.isin(W, (-1, 0, 1)).all() and not b.any() for W, b in weights)
        assert all((W != 0).sum(axis=1).max() <= (2 if level == 0 else 4) for level, (W, _) in enumerate(weights))


def test_no_and_can_be_left_out():
    (W, b), (V, c) = parity.minterms(5)
    for unit in range(len(W)):
        rest = np.delete(np.arange(len(W)), unit)
        assert parity.wrong_outputs(parity.network([(W[rest], b[rest]), (V[:, rest], c)]), 5) == 1


def test_wrong_outputs_are_counted():
    (W, b), (V, c) = parity.counter(6)
    assert parity.wrong_outputs(parity.network([(W, b), (-V, c)]), 6) == 32
    assert parity.wrong_outputs(parity.network([(W, b), (V, c + 1e-3)]), 6) == 64


@pytest.mark.parametrize("n", [1, 0, -2, 2.5, "8"])
def test_no_such_number_of_bits(n):
    for construct in parity.CONSTRUCTIONS.values():
        with pytest.raises(ParameterError, match="no such number of bits"):
            construct(n)
    with pytest.raises(ParameterError, match=r"no such number of bits[^$]*2, 3, …[^$]*got: *"):
        parity.xor_tree(n)


@pytest.mark.parametrize(("right", "of"), [(0, 20), (7, 20), (20, 20), (1, 3)])
def test_wilsons_interval(right, of):
    low, high = parity.wilson(right, of)
    expected = binomtest(right, of).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=2e-5)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_learners_have_equal_size(depth):
    for size in (50, 400, 1000):
        net = parity.learner(8, size, depth, seed=3)
        counted = net.summary().parameters
        assert len(net.layers) == depth + 1
        width = net.layers[0].units
        assert {layer.units for layer in net.layers[:-1]} == {width}
        for other in (width - 1, width + 1):
            neighbour = pl.Sequential(*(pl.Dense(other) for _ in range(depth)), pl.Dense(1),
                                      input_shape=8)  # fmt: skip
            assert abs(counted - size) <= abs(neighbour.summary().parameters - size)
        assert net.seed == 3


def test_learning_ends_when_all_are_right():
    net = parity.learner(4, 300, 1, seed=0)
    assert parity.learns_all(net, 4, 3000)
    assert net.evaluate(2 * parity.inputs(4) - 1, parity.parity(parity.inputs(4)))["accuracy"] == 1.0
    hopeless = parity.learner(4, 12, 1, seed=0)  # of one or two units
    assert not parity.learns_all(hopeless, 4, 300)


def test_the_mean_loss_that_ends_learning_allows_no_mistake():
    stopped = []

    class Training:
        source = range(10)
        stop = stopped.append

    callback = parity.AllRight()
    callback.on_epoch(Training, {"train": {"loss": np.log(2) / 10 * 1.001}})  # one mistake and nine certain ones
    assert stopped == []
    callback.on_epoch(Training, {"train": {"loss": np.log(2) / 10 * 0.999}})
    assert len(stopped) == 1


def test_unseen_inputs_are_unseen(monkeypatch):
    sets = []
    monkeypatch.setattr(parity, "learn", lambda net, x, updates: sets.append(x))
    monkeypatch.setattr(parity, "right", lambda net, x: sets.append(x) or 0.25)
    assert parity.right_on_unseen(parity.learner(10, 50, 1, 0), 10, 100, 10) == 0.25
    seen, judged = ({tuple(row) for row in each} for each in sets)
    assert (len(seen), len(judged)) == (100, 924)
    assert not seen & judged


def test_the_signal_of_a_linear_unit_is_known():
    """Ŷ = w x + b has ∂Ŷ = (x, 1): correlated with a parity of one bit or of none, and with no other."""
    net = pl.Sequential(pl.Dense(1), input_shape=4, dtype="float64")
    x = parity.inputs(4)
    assert parity.signal(net, x, 1 - 2 * x[:, 2]) == pytest.approx(1.0)
    assert parity.signal(net, x, np.ones(16)) == pytest.approx(1.0)
    assert parity.signal(net, x, (1 - 2 * x[:, 0]) * (1 - 2 * x[:, 3])) == pytest.approx(0.0, abs=1e-15)
    assert parity.mean_square(net, x) == pytest.approx(5.0)
    assert parity.parseval(net, 4) == pytest.approx((5 / 16, 5 / 16))
    assert parity.full_parity_signal(net, 4) == pytest.approx(0.0, abs=1e-15)


def test_the_signal_is_the_part_of_the_gradient_that_the_target_decides():
    net = parity.learner(5, 200, 2, seed=1, dtype="float64")
    judge = pl.Sequential(*(pl.Dense(layer.units, layer.activation) for layer in net.layers), input_shape=5,
                          loss="squared_error", dtype="float64")  # fmt: skip
    judge.parameters = net.parameters
    x = parity.inputs(5)
    chi = 1 - 2 * parity.parity(x)
    asked, opposite = (judge.gradients(2 * x.T - 1, sign * chi[None])[1] for sign in (1, -1))
    halves = [(asked[name][p] - opposite[name][p]) / 2 for name in asked for p in asked[name]]
    norm = np.sqrt(sum(np.sum(each**2) for each in halves))
    assert parity.signal(net, x, chi) == pytest.approx(norm, rel=1e-12)


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Result:
    return parity.run(tmp_path_factory.mktemp("lab"), seed=1, quick=True)


def test_theory_and_measurement_agree(result):
    assert [each.what for each in result.findings if not each.agrees] == []
    table = {row[0]: row[1:] for row in result.rows}
    assert table["XOR tree"][:3] == (8, 3, 14)
    assert table["one layer of ANDs"][:4] == (8, 1, 128, 128 * 9 + 129)
    assert table["folds"][:4] == (8, 3, 6, 18 + 6 + 6 + 3)
    assert {row[5] for row in result.rows[:4]} == {"yes"}


def test_a_wrong_construction_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(
        parity.CONSTRUCTIONS, "folds", lambda n: [*parity.counter(n)[:-1], (np.ones((1, n)), np.zeros((1, 1)))]
    )
    result = parity.run(tmp_path, quick=True)
    failed = [each.what for each in result.findings if not each.agrees]
    assert len(failed) == 2
    assert "folds" in failed[0]
    assert failed[1].startswith("wrong outputs")
    assert {row[0]: row[5] for row in result.rows}["folds"] == "no"


def test_the_picture(result):
    from PIL import Image

    with Image.open(result.picture) as picture:
        assert picture.size == (1950, 1230)
        colors = picture.convert("RGB").getcolors(1 << 20)
    drawn = {color for _, color in colors}
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)} <= drawn
