from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import CheckpointError, DataError, ParameterError, VaultError
from pellucid.files import locked
from pellucid.runs import Run
from pellucid.training.split import Split, TestVault, split_indices

sizes = st.floats(0, 0.45) | st.integers(0, 20)


def same(left: Split, right: Split) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@given(m=st.integers(45, 400), validation=sizes, test=sizes, seed=st.integers(0, 2**32))
def test_parts_are_disjoint_and_cover_everything(m, validation, test, seed):
    split = split_indices(m, validation=validation, test=test, seed=seed)
    assert sorted(np.concatenate(split)) == list(range(m))
    for part, size in ((split.validation, validation), (split.test, test)):
        assert len(part) == size if isinstance(size, int) else abs(len(part) - size * m) <= 1
        assert np.all(np.diff(part) > 0)


def test_shares_and_counts():
    assert [len(part) for part in split_indices(1797)] == [1437, 180, 180]
    assert [len(part) for part in split_indices(50, validation=7, test=0)] == [43, 7, 0]
    assert [len(part) for part in split_indices(3, validation=0.1, test=0.1)] == [1, 1, 1]
    assert [len(part) for part in split_indices(1, validation=0, test=0.0)] == [1, 0, 0]


def test_the_seed_decides_and_nothing_else():
    assert same(split_indices(100, seed=3), split_indices(100, seed=3))
    assert not same(split_indices(100, seed=3), split_indices(100, seed=4))
    np.random.seed(1)  # noqa: NPY002
    labels = np.arange(100) % 3
    assert same(split_indices(100, labels=labels), split_indices(100, labels=labels))


def test_the_draw_is_random_and_not_the_first_or_last_rows():
    test = np.concatenate([split_indices(100, seed=seed).test for seed in range(200)])
    drawn = np.bincount(test, minlength=100)
    assert drawn.sum() == 2000
    assert drawn.min() >= 4
    assert drawn.max() <= 40


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_each_share_of_each_class_is_off_by_less_than_one(data):
    counts = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    m = sum(counts)
    validation, test = data.draw(st.integers(0, m // 3)), data.draw(st.integers(0, m // 3))
    labels = np.random.default_rng(m).permutation(np.repeat(np.arange(len(counts)), counts))
    split = split_indices(m, validation=validation, test=test, labels=labels)
    assert sorted(np.concatenate(split)) == list(range(m))
    assert [len(part) for part in split] == [m - validation - test, validation, test]
    table = np.array([np.bincount(labels[part], minlength=len(counts)) for part in split]).T
    assert table[:, 0].min() >= 1
    rare = np.array(counts) * len(split.train) < m
    rest, totals = np.array(counts) - rare, [len(split.train) - rare.sum(), validation, test]
    for c in range(len(counts)):
        for p in range(3):
            ideal = Fraction(int(rest[c]) * int(totals[p]), max(int(rest.sum()), 1))
            assert abs(int(table[c, p]) - (rare[c] if p == 0 else 0) - ideal) < 1


def test_where_rounding_part_by_part_goes_wrong():
    """Ten classes whose test shares all round up and whose validation cannot: largest remainders have no answer."""
    counts = [11] * 10 + [1] * 60
    labels = np.repeat(np.arange(70), counts)
    split = split_indices(len(labels), validation=3, test=14, labels=labels)
    table = np.array([np.bincount(labels[part], minlength=70) for part in split]).T
    np.testing.assert_array_equal(table[10:], [[1, 0, 0]] * 60)
    assert table[:10, 2].sum() == 14
    assert set(table[:10, 2]) == {1, 2}
    assert set(table[:10, 1]) == {0, 1}


def test_labels_of_any_kind_and_even_classes_exactly():
    labels = np.array(["cat", "dog"] * 50)
    split = split_indices(100, labels=labels, validation=0.2, test=0.1)
    for part, each in zip(split, (35, 10, 5), strict=True):
        assert np.unique_counts(labels[part]).counts.tolist() == [each, each]


def test_rows_of_one_class_are_drawn_at_random():
    labels = np.arange(100) % 2
    drawn = np.bincount(
        np.concatenate([split_indices(100, labels=labels, seed=s).test for s in range(200)]), minlength=100
    )
    assert drawn.min() >= 4
    assert drawn.max() <= 40


def test_groups_stay_whole():
    groups = np.random.default_rng(0).integers(0, 20, 300)
    split = split_indices(300, groups=groups, validation=0.2, test=5)
    parts = [set(groups[part]) for part in split]
    assert [len(part) for part in parts] == [11, 4, 5]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert sorted(np.concatenate(split)) == list(range(300))


def test_bad_sizes_are_refused():
    with pytest.raises(DataError, match=r"nothing is left to train on: 10 examples, validation 5, test 5"):
        split_indices(10, validation=5, test=0.5)
    with pytest.raises(DataError, match=r"0 examples"):
        split_indices(0)
    for bad in (1.0, -0.1, -1, float("nan"), True, "0.1", None):
        with pytest.raises(ParameterError, match=r"(?s)split, test: not a size.*share in \[0, 1\) or a number.*got"):
            split_indices(10, test=bad)
    with pytest.raises(DataError, match=r"(?s)labels must hold one value for each example.*\(10,\).*\(9,\)"):
        split_indices(10, labels=np.zeros(9))
    with pytest.raises(ParameterError, match=r"by labels or by groups"):
        split_indices(10, labels=np.zeros(10), groups=np.zeros(10))


def test_classes_too_rare_are_named():
    with pytest.raises(
        DataError, match=r"(?s)too few examples.*2 training examples; class \(examples\): 0 \(1\), 1 \(1\)"
    ):
        split_indices(6, validation=2, test=2, labels=[0, 1, 2, 3, 4, 5])


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.toml").touch()
    return Run(tmp_path)


def test_vault_opens_once_in_memory():
    rows = np.arange(5)
    vault = TestVault(rows)
    assert vault.open() is rows
    vault.record({"accuracy": 0.97096774})
    with pytest.raises(VaultError, match=r"(?s)already opened once.*'evaluate'.*accuracy 0\.971\n.*force=True opens"):
        vault.open()
    assert vault.open(force=True, reason="again") is rows
    assert [each["repeat"] for each in vault.openings] == [False, True]
    with pytest.raises(VaultError, match=r"opened 2 times.*'again'(?s:.*)nothing recorded"):
        vault.open()


def test_vault_remembers_across_processes(run):
    TestVault([1, 2], run).open(reason="train")
    again = TestVault([1, 2], run)
    with pytest.raises(VaultError, match=rf"run {run.path.name}: the test set was already opened once.*'train'"):
        again.open()
    with pytest.raises(VaultError, match=r"still closed"):
        again.record({"accuracy": 1.0})
    assert again.open(force=True) == [1, 2]
    again.record({"accuracy": np.float32(0.5)})
    openings = json.loads((run.path / "vault.json").read_text())["openings"]
    assert [(each["reason"], each["repeat"], each["metrics"]) for each in openings] == [
        ("train", False, None),
        ("evaluate", True, {"accuracy": 0.5}),
    ]
    assert openings == again.openings


def test_a_first_opening_that_was_forced_is_no_repeat(run):
    TestVault([1], run).open(force=True)
    assert [each["repeat"] for each in TestVault([1], run).openings] == [False]


def test_of_many_processes_one_gets_in(run):
    program = (
        "import sys; from pathlib import Path; from pellucid.runs import Run\n"
        "from pellucid.training.split import TestVault\n"
        "sys.stdin.read(); TestVault([1], Run(Path(sys.argv[1]))).open()"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, run.path], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for racer in racers:
        racer.stdin.close()
    errors = [racer.stderr.read() for racer in racers]
    assert sorted(racer.wait() for racer in racers) == [0, 1, 1, 1]
    assert sum("VaultError" in each for each in errors) == 3
    for racer in racers:
        racer.stderr.close()


def test_an_opening_waits_for_one_that_is_being_recorded(run):
    with ThreadPoolExecutor() as pool:
        with locked(run.path / "config.toml"):
            other = pool.submit(TestVault([1], run).open)
            with pytest.raises(TimeoutError):
                other.result(timeout=0.1)
            opening = {"when": "2026-11-21", "reason": "first", "repeat": False, "metrics": None}
            (run.path / "vault.json").write_text(json.dumps({"openings": [opening]}))
        with pytest.raises(VaultError, match=r"on 2026-11-21 for 'first'"):
            other.result(timeout=10)


def test_a_damaged_record_opens_nothing(run):
    (run.path / "vault.json").write_text('{"openings": [')
    with pytest.raises(CheckpointError, match=r"(?s)vault\.json: the record of test-set openings is damaged.*new run"):
        TestVault([1], run).open(force=True)
