from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import metrics
from pellucid.errors import DataError, EngineError, ParameterError, ShapeError
from pellucid.metrics import (
    F1,
    R2,
    ROCAUC,
    Accuracy,
    BalancedAccuracy,
    LogLoss,
    MeanAbsoluteError,
    MeanSquaredError,
    Precision,
    Recall,
    RootMeanSquaredError,
    TopKAccuracy,
    confusion_matrix,
    predicted_classes,
    render_confusion,
)
from pellucid.registry import config

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn holds the definitions")

CLASSIFICATION = [Accuracy(), TopKAccuracy(2), LogLoss(), Precision(), Recall(), F1(), BalancedAccuracy(), ROCAUC()]
REGRESSION = [MeanAbsoluteError(), MeanSquaredError(), RootMeanSquaredError(), R2()]
EVERY = CLASSIFICATION + REGRESSION
THEIRS = {
    "mean_absolute_error": sklearn.mean_absolute_error,
    "mean_squared_error": sklearn.mean_squared_error,
    "root_mean_squared_error": sklearn.root_mean_squared_error,
    "r2": sklearn.r2_score,
}


def scores(m, k, seed, dtype=np.float64):
    """Probabilities (m, k) with ties, and targets in which every class occurs."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, 9, (m, k)).astype(dtype)
    targets = rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, m - k)]))
    return raw / raw.sum(axis=1, keepdims=True), targets, rng.integers(1, 5, m) * 0.5


def test_every_metric_is_tested_here():
    assert {each.registered_name for each in EVERY} == set(metrics.metrics)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 3, 7])
def test_many_columns_equal_scikit_learn(k, dtype, weighted, seed):
    P, y, weight = scores(60, k, seed, dtype)
    weight = weight if weighted else None
    called, labels = P.argmax(axis=1), np.arange(k)
    average = "binary" if k == 2 else "macro"
    expected = {
        Accuracy(): sklearn.accuracy_score(y, called, sample_weight=weight),
        LogLoss(): sklearn.log_loss(y, P, labels=labels, sample_weight=weight),
        Precision(): sklearn.precision_score(y, called, average=average, sample_weight=weight),
        Recall(): sklearn.recall_score(y, called, average=average, sample_weight=weight),
        F1(): sklearn.f1_score(y, called, average=average, sample_weight=weight),
        F1("micro"): sklearn.f1_score(y, called, average="micro", sample_weight=weight),
        Recall("weighted"): sklearn.recall_score(y, called, average="weighted", sample_weight=weight),
        Precision("macro"): sklearn.precision_score(y, called, average="macro", sample_weight=weight),
        BalancedAccuracy(): sklearn.balanced_accuracy_score(y, called, sample_weight=weight),
        ROCAUC(): sklearn.roc_auc_score(y, P[:, 1], sample_weight=weight)
        if k == 2
        else sklearn.roc_auc_score(y, P, multi_class="ovr", sample_weight=weight),
    }
    if k > 2:
        for n in (1, 2, k - 1):
            expected[TopKAccuracy(n)] = sklearn.top_k_accuracy_score(y, P, k=n, labels=labels, sample_weight=weight)
    for metric, value in expected.items():
        assert metric.compute(P, y, weight) == pytest.approx(value, rel=1e-6 if dtype == np.float32 else 1e-12), metric
        assert metric.undefined(P, y, weight) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_column_equals_scikit_learn(shape, seed):
    P, y, weight = scores(40, 2, seed)
    p = P[:, 1]
    called = p > 0.5
    expected = {
        Accuracy(): sklearn.accuracy_score(y, called, sample_weight=weight),
        TopKAccuracy(1): sklearn.top_k_accuracy_score(y, p, k=1, sample_weight=weight),
        LogLoss(): sklearn.log_loss(y, p, sample_weight=weight),
        Precision(): sklearn.precision_score(y, called, sample_weight=weight),
        Recall(): sklearn.recall_score(y, called, sample_weight=weight),
        F1(): sklearn.f1_score(y, called, sample_weight=weight),
        BalancedAccuracy(): sklearn.balanced_accuracy_score(y, called, sample_weight=weight),
        ROCAUC(): sklearn.roc_auc_score(y, p, sample_weight=weight),
    }
    if (p == 0.5).any():
        del expected[TopKAccuracy(1)]  # of equal classes the higher counts for top-k, the lower as the prediction
    for metric, value in expected.items():
        assert metric.compute(p.reshape(shape), y.reshape(shape), weight) == pytest.approx(value, rel=1e-12), metric


def test_class_indices_are_predictions_too():
    y, called = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 2, 2, 2, 1, 1])
    assert Accuracy().compute(called, y) == pytest.approx(4 / 6)
    assert F1().compute(called, y) == pytest.approx(sklearn.f1_score(y, called, average="macro"))
    assert Recall().compute([1, 0, 1], [1, 1, 0]) == sklearn.recall_score([1, 1, 0], [1, 0, 1])


def test_log_loss_of_certainty_that_is_wrong_is_finite_as_in_scikit_learn():
    P, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1])
    assert LogLoss().compute(P, y) == pytest.approx(sklearn.log_loss(y, P, labels=[0, 1]))
    assert LogLoss().compute(P.astype(np.float32), y) == pytest.approx(
        -math.log(np.finfo(np.float32).eps) / 2, rel=1e-6
    )


@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 999), st.booleans())
def test_regression_equals_scikit_learn(m, outputs, seed, weighted):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((m, outputs))
    predictions = y + rng.standard_normal((m, outputs))
    weight = rng.random(m) + 0.1 if weighted else None
    for metric in REGRESSION:
        value = THEIRS[metric.name](y, predictions, sample_weight=weight)
        assert metric.compute(predictions, y, weight) == pytest.approx(value, rel=1e-9)
        if outputs == 1:
            assert metric.compute(predictions, y[:, 0], weight) == pytest.approx(value, rel=1e-9)


def test_r2_of_targets_that_are_all_alike():
    y = np.full(7, 0.1)
    assert R2().compute(y, y) == 1.0
    assert R2().compute(y + 1, y) == 0.0
    both = np.stack([y, np.arange(7)], axis=1)
    assert R2().compute(both + np.array([1, 0]), both) == 0.5


def test_weights_of_zero_leave_examples_out():
    P, y, _ = scores(30, 3, 0)
    kept = np.arange(30) < 20
    for metric in CLASSIFICATION:
        assert metric.compute(P, y, kept) == pytest.approx(metric.compute(P[kept], y[kept]), rel=1e-12), metric
    for metric in REGRESSION:
        assert metric.compute(P[:, 0], y, kept) == pytest.approx(metric.compute(P[kept, 0], y[kept]), rel=1e-12)


def test_a_class_whose_examples_weigh_nothing_is_absent():
    P, y, weight = np.eye(3)[[0, 1, 1, 0]], np.array([0, 1, 2, 2]), [1, 1, 0, 0]
    assert BalancedAccuracy().compute(P, y, weight) == 1.0
    assert ROCAUC().undefined(P, y, weight) == "no example is of class 2"


def test_the_best_value_is_where_it_is_said_to_be():
    P, y, _ = scores(30, 3, 1)
    right = np.eye(3)[y]
    for metric in (Accuracy(), TopKAccuracy(1), LogLoss(), Precision(), Recall(), F1(), BalancedAccuracy(), ROCAUC()):
        better, worse = metric.compute(right, y), metric.compute(P, y)
        assert (better > worse) == metric.greater_is_better
    for metric in REGRESSION:
        assert (metric.compute(y, y) > metric.compute(P[:, 0], y)) == metric.greater_is_better


# --- where a metric has no value


def test_one_class_only():
    p, y = np.array([0.1, 0.7]), np.array([1, 1])
    assert math.isnan(ROCAUC().compute(p, y))
    assert ROCAUC().undefined(p, y) == "no example is of class 0"
    assert ROCAUC().undefined(np.full((2, 4), 0.25), y) == "no example is of class 0, 2, 3"
    assert BalancedAccuracy().compute(p, y) == 0.5
    assert Accuracy().compute(p, y) == 0.5
    for metric in (Precision(), Recall(), F1()):
        assert metric.compute([0.1, 0.2], [0, 0]) == 0.0


def test_r2_of_one_example():
    assert math.isnan(R2().compute([1.0], [2.0]))
    assert R2().undefined([1.0], [2.0]) == "R² needs two examples or more"


@pytest.mark.parametrize(
    ("metric", "bad"),
    [(metric, math.nan) for metric in EVERY] + [(metric, math.inf) for metric in EVERY if metric != LogLoss()],
    ids=lambda value: getattr(value, "name", str(value)),
)  # infinity is refused by log loss as no probability
def test_predictions_that_are_not_finite_have_no_value(metric, bad):
    P, y, _ = scores(10, 3, 0)
    P[4, 1] = bad
    if metric.task == "regression":
        P, y = P[:, 1], y * 1.0
    assert math.isnan(metric.compute(P, y))
    assert metric.undefined(P, y) == "the predictions are not finite"


def test_no_warning_leaks():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        P = np.array([[0.2, 0.8, 0.0], [0.9, 0.1, 0.0]])
        for metric in (*CLASSIFICATION, TopKAccuracy(9)):
            metric.compute(P, [0, 0])
        assert TopKAccuracy(9).compute(P, [0, 0]) == 1.0


# --- names


@pytest.mark.parametrize("metric", [*EVERY, F1("micro"), TopKAccuracy()], ids=repr)
def test_round_trip_through_json(metric):
    assert metrics.get(json.loads(json.dumps(config(metric)))) == metric


def test_names():
    assert [each.name for each in (Accuracy(), TopKAccuracy(3), F1(), F1("micro"))] == [
        "accuracy",
        "top_3_accuracy",
        "f1",
        "f1_micro",
    ]
    assert metrics.get("top_k_accuracy(3)") == metrics.get("top_k(k=3)") == TopKAccuracy(3)
    assert metrics.get("mae") == MeanAbsoluteError()
    assert metrics.get("auc") == ROCAUC()


def test_defaults():
    assert metrics.default_for("classification") == (Accuracy(),)
    assert metrics.default_for("regression") == (MeanAbsoluteError(), R2())


# --- bad input


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: metrics.get("acuracy"), ParameterError, "unknown metric 'acuracy'(.|\n)*did you mean 'accuracy'"),
        (lambda: metrics.default_for("ranking"), ParameterError, "unknown task 'ranking'"),
        (lambda: TopKAccuracy(0), ParameterError, "TopKAccuracy: k is out of range"),
        (lambda: F1("mean"), ParameterError, "F1: unknown average 'mean'"),
        (lambda: F1("binary").compute(np.eye(3), [0, 1, 2]), ParameterError, "F1: there are more than two classes"),
        (lambda: Accuracy().compute(np.eye(3), [0, 1]), ShapeError, r"got:      predictions \(3, 3\), targets \(2,\)"),
        (lambda: Accuracy().compute(0.5, 1), ShapeError, "examples first"),
        (lambda: Accuracy().compute([], []), DataError, "Accuracy: there are no examples"),
        (lambda: R2().compute([], []), DataError, "R2: there are no examples"),
        (lambda: Accuracy().compute(np.eye(3), np.eye(3)), ShapeError, "hint:     one-hot(.|\n)*argmax"),
        (lambda: Accuracy().compute(np.zeros((2, 0)), [0, 1]), ShapeError, "class by class"),
        (
            lambda: Accuracy().compute(np.eye(2), [0, 2]),
            DataError,
            "1: target is not a class\n  expected: 0 to 1\n  got:      2",
        ),
        (lambda: Accuracy().compute([0.5, 0.5], [0, -1]), DataError, "example 1: target is not a class"),
        (lambda: Accuracy().compute([0, -2], [0, 1]), DataError, "example 1: prediction is not a class"),
        (lambda: Accuracy().compute(np.eye(2), [0, 0.5]), DataError, "example 1: targets are not class (.|\n)*0.5"),
        (lambda: Accuracy().compute(np.eye(2), [0, math.nan]), DataError, "example 1: targets are not class indices"),
        (lambda: Accuracy().compute(np.eye(2), ["cat", "dog"]), DataError, "targets are not class indices"),
        (lambda: Accuracy().compute(["cat", "dog"], [0, 1]), DataError, "predictions are not numbers"),
        (lambda: Accuracy().compute([0.5, 3.0], [0, 1]), DataError, "example 1: predictions are not prob(.|\n)*logits"),
        (lambda: LogLoss().compute([[1.0, -1.0]], [0]), DataError, "LogLoss, example 0: predictions are not prob"),
        (lambda: ROCAUC().compute([0, 1], [0, 1]), DataError, "ROCAUC: class indices given"),
        (lambda: MeanSquaredError().compute(np.zeros((3, 2)), np.zeros(3)), ShapeError, r"do not match(.|\n)*\(3,\)"),
        (lambda: MeanSquaredError().compute([1.0], [math.nan]), DataError, "targets are not finite(.|\n)*1 NaN"),
        (lambda: MeanSquaredError().compute([1.0], ["x"]), DataError, "only numbers can be compared"),
        (lambda: Accuracy().compute([0.5], [0], [1, 2]), ShapeError, "one weight for each example"),
        (lambda: Accuracy().compute([0.5], [0], [-1]), DataError, "weights cannot be used"),
        (lambda: Accuracy().compute([0.5], [0], [0]), DataError, "not all 0"),
        (lambda: Accuracy().compute([0.5], [0], [math.nan]), DataError, "finite"),
        (lambda: confusion_matrix([0, 3], [0, 1], 3), DataError, "example 1: prediction is not a class"),
        (lambda: confusion_matrix([0, 1], [0, 3], 3), DataError, "confusion_matrix, example 1: target is not a class"),
        (lambda: confusion_matrix([0.5, math.nan], [0, 1], 2), DataError, "predictions are not finite"),
        (lambda: render_confusion(np.ones((2, 3))), ShapeError, "not square"),
        (lambda: render_confusion(np.eye(2), ["a"]), ShapeError, "wrong number of names"),
    ],
)
def test_messages(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    assert Accuracy().compute(np.eye(2), [0, 1]) == 1.0
    with pytest.raises(
        EngineError, match=r"sklearn.metrics is not installed\n  hint:     pip install 'pellucid\[sklearn\]'"
    ):
        F1().compute(np.eye(2), [0, 1])


def test_the_rules_cost_no_more_than_numpy_to_import():
    modules = "initializers metrics optimizers regularizers schedules"
    code = f"import sys; from pellucid import {', '.join(modules.split())}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pellucid.metrics" in loaded
    assert not {"sklearn", "scipy", "matplotlib", "rich", "jax", "torch"} & set(loaded)


# --- the confusion matrix


@pytest.mark.parametrize("seed", range(3))
def test_confusion_matrix_equals_scikit_learn(seed):
    P, y, _ = scores(50, 4, seed)
    theirs = sklearn.confusion_matrix(y, P.argmax(axis=1), labels=range(6))
    np.testing.assert_array_equal(confusion_matrix(np.pad(P, ((0, 0), (0, 2))), y, 6), theirs)
    np.testing.assert_array_equal(confusion_matrix(P.argmax(axis=1), y, 6), theirs)


def test_predicted_classes():
    np.testing.assert_array_equal(predicted_classes([[0.2, 0.8], [0.5, 0.5]]), [1, 0])
    np.testing.assert_array_equal(predicted_classes([[0.2], [0.8]]), [0, 1])
    np.testing.assert_array_equal(predicted_classes([0.5, 0.51]), [0, 1])
    np.testing.assert_array_equal(predicted_classes([3, 1]), [3, 1])


def test_the_table_with_short_names():
    assert render_confusion([[50, 2, 0], [0, 7, 1], [0, 0, 0]], ["cat", "dog", "cow"]).split("\n") == [
        r"true \ predicted  cat dog cow   recall",
        "cat                50   2   ·   96.2 %",
        "dog                 ·   7   1   87.5 %",
        "cow                 ·   ·   ·        –",
    ]


def test_the_table_with_long_names_numbers_its_columns():
    assert render_confusion([[5, 1], [0, 12345]], ["aeroplane", "a name that is far too long"]).split("\n") == [
        r"true \ predicted        0     1   recall",
        "0 aeroplane             5     1   83.3 %",
        "1 a name that is …      · 12345  100.0 %",
    ]


def test_many_classes_show_the_pairs_confused_most():
    counts = np.diag(np.full(26, 90))
    counts[3, 14], counts[8, 11] = 10, 30
    assert render_confusion(counts, [chr(ord("a") + i) * 3 for i in range(26)]) == (
        "26 classes, 2340 of 2380 right (98.3 %)\n"
        "confused most:\n"
        "true   predicted  count  of the true class\n"
        "iii  → lll           30   25.0 %\n"
        "ddd  → ooo           10   10.0 %"
    )
    assert render_confusion(np.diag(np.full(26, 2))) == "26 classes, 52 of 52 right (100.0 %)"


@given(st.integers(1, 20), st.integers(0, 99))
def test_a_table_is_rectangular_and_holds_every_count(k, seed):
    counts = np.random.default_rng(seed).integers(0, 2000, (k, k))
    lines = render_confusion(counts, [f"class number {i}" for i in range(k)]).split("\n")
    assert len({len(line) for line in lines}) == 1
    for row, line in zip(counts, lines[1:], strict=True):
        cells = line.split()[4 : 4 + k]
        assert [0 if cell == "·" else int(cell) for cell in cells] == list(row)
