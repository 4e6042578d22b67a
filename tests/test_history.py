from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import DataError, ParameterError
from pellucid.history import History, smaller_is_better


def record(epoch, loss, validation_loss=None, **more):
    made = {"epoch": epoch, "step": 10 * epoch, "seconds": 0.5, "learning_rate": 0.1, "train": {"loss": loss}}
    return made | ({} if validation_loss is None else {"validation": {"loss": validation_loss}}) | more


@pytest.fixture
def history():
    return History([record(1, 1.0, 1.2), record(2, 0.5, 0.8), record(3, 0.2, 0.8), record(4, 0.1, 0.9)])


def test_metrics_by_name(history):
    assert history["loss"] == [1.0, 0.5, 0.2, 0.1]
    assert history["validation_loss"] == [1.2, 0.8, 0.8, 0.9]
    assert history["learning_rate"] == [0.1] * 4
    assert history.epochs == history["epoch"] == [1, 2, 3, 4]
    assert history["step"] == [10, 20, 30, 40]
    assert len(history) == 4
    assert [each["epoch"] for each in history] == [1, 2, 3, 4]
    assert "validation_loss" in history
    assert "accuracy" not in history


def test_unknown_name_lists_the_known_and_the_nearest(history):
    with pytest.raises(ParameterError, match=r"(?s)unknown metric 'val_loss'.*learning_rate.*loss.*'validation_loss'"):
        history["val_loss"]


def test_absent_values_are_nan():
    history = History([record(1, 1.0), record(2, 0.5, 0.8), record(3, 0.2)])
    assert np.array_equal(history["validation_loss"], [math.nan, 0.8, math.nan], equal_nan=True)


def test_best_is_the_earliest_of_equals_and_knows_the_direction(history):
    assert history.best()["epoch"] == 2
    assert history.best("loss")["epoch"] == 4
    assert history.best("loss", mode="max")["epoch"] == 1
    accuracies = History([record(i, 1.0, validation={"accuracy": a}) for i, a in enumerate([0.5, 0.9, 0.7], 1)])
    assert accuracies.best("validation_accuracy")["epoch"] == 2
    assert accuracies.best()["epoch"] == 1
    with pytest.raises(ParameterError, match=r"unknown mode 'least'"):
        history.best(mode="least")


def test_best_is_never_nan():
    history = History([record(1, math.nan), record(2, 0.5), record(3, math.inf)])
    assert history.best()["epoch"] == 2
    with pytest.raises(DataError, match=r"(?s)no epoch has a finite loss.*smaller learning rate"):
        History([record(1, math.nan)]).best()


@pytest.mark.parametrize(
    ("name", "smaller"),
    [("validation_loss", True), ("mean_squared_error", True), ("mae", True), ("accuracy", False), ("r2", False)],
)
def test_direction_by_name(name, smaller):
    assert smaller_is_better(name) is smaller


def test_layers():
    layers = [
        {"dense_1": {"gradient_norm": 2.0}},
        None,
        {"dense_1": {"gradient_norm": 1.0}, "dense_2": {"gradient_norm": 3.0}},
    ]
    history = History(record(i, 1.0, layers=each) for i, each in enumerate(layers, 1))
    got = history.layers("gradient_norm")
    assert list(got) == ["dense_1", "dense_2"]
    assert np.array_equal(got["dense_1"], [2.0, math.nan, 1.0], equal_nan=True)
    assert np.array_equal(got["dense_2"], [math.nan, math.nan, 3.0], equal_nan=True)
    with pytest.raises(ParameterError, match=r"(?s)unknown layer quantity 'gradient'.*did you mean 'gradient_norm'"):
        history.layers("gradient")


def test_append_copies_and_makes_numbers_plain():
    train = {"loss": np.float32(0.1), "accuracy": np.float64(0.5)}
    history = History()
    history.append({"epoch": np.int64(1), "train": train})
    train["loss"] = 7.0
    assert history["loss"] == [float(np.float32(0.1))]
    assert type(history.records[0]["epoch"]) is int
    json.dumps(history.to_document())


@pytest.mark.parametrize("bad", [{}, {"epoch": 0}, {"epoch": "1"}, {"epoch": True}, {"epoch": 1.5}, 3])
def test_what_is_no_record_is_refused(bad):
    with pytest.raises(ParameterError, match=r"(?s)history: this is no record of an epoch.*got"):
        History().append(bad)


def test_append_wants_order_and_construction_lets_the_last_count(history):
    with pytest.raises(ParameterError, match=r"(?s)epochs are recorded in order.*after 4.*got:\s+4"):
        history.append(record(4, 0.1))
    resumed = History([record(1, 1.0), record(2, 0.9), record(3, 0.8), record(2, 0.7), record(3, 0.6)])
    assert resumed["loss"] == [1.0, 0.7, 0.6]


floats = st.floats(width=64) | st.integers(-5, 5).map(float)


@given(st.lists(st.dictionaries(st.sampled_from(["loss", "accuracy", "x"]), floats), max_size=5))
def test_document_round_trip_is_exact(metrics):
    history = History({"epoch": i, "train": each} for i, each in enumerate(metrics, 1))
    back = History.from_document(json.loads(json.dumps(history.to_document())))
    assert back.metrics == history.metrics
    for name in history.metrics:
        assert np.array_equal(np.array(back[name]), np.array(history[name]), equal_nan=True)


def test_what_is_no_document_is_refused():
    for bad in ({}, {"records": 3}, {"records": [{"epoch": 0}]}, [1]):
        with pytest.raises(DataError, match=r"this is no history"):
            History.from_document(bad)


def test_a_small_table(history):
    lines = repr(history).splitlines()
    assert lines[0].split() == ["epoch", "seconds", "learning_rate", "loss", "validation_loss"]
    assert lines[2].split() == ["2", "0.5", "0.1", "0.5", "0.8", "best"]
    assert sum("best" in line for line in lines) == 1
    assert len({len(line.removesuffix("  best")) for line in lines}) == 1
    history.stopped = "no better validation loss for 2 epochs"
    assert repr(history).splitlines()[-1] == "stopped: no better validation loss for 2 epochs"
    assert History.from_document(history.to_document()).stopped == history.stopped
    assert repr(History()) == "History: no epochs"
    long = repr(History(record(i, 1 / i) for i in range(1, 101))).splitlines()
    assert len(long) == 13
    assert long[-1].split()[0] == "100"
    assert "best" not in repr(History([record(1, math.nan)]))
