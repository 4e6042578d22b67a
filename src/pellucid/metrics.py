"""Metrics: how good predictions are, by scikit-learn's definitions. Examples come first here, as in the user's data.

Predictions of a class are probabilities (m, k), or (m, 1) or (m,) for two classes; or the predicted class indices
themselves, integers (m,). Where a metric has no value, it is NaN, and `Metric.undefined` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from pellucid.errors import DataError, ParameterError, ShapeError, need, unknown
from pellucid.registry import Registry
from pellucid.schedules import check_numbers, number

metrics: Registry[Metric] = Registry("metric")


def get(value: str | dict | type | Metric, where: str | None = None) -> Metric:
    """The metric that ``value`` describes, such as ``"top_k_accuracy(3)"`` or the dictionary of its `config`.

    Arguments:
        value: a name or call, a metric or its class, or a dictionary.
        where: the place to name in an error.

    Returns:
        The metric.

    Raises:
        ParameterError: an unknown name, or arguments out of range.
    """
    return metrics.get(value, where=where)


def default_for(task: str) -> tuple[Metric, ...]:
    """The metrics a task is judged by when nobody says: accuracy, or mean absolute error and R².

    Arguments:
        task: ``"classification"`` or ``"regression"``.

    Raises:
        ParameterError: another task.
    """
    defaults: dict[str, tuple[Metric, ...]] = {
        "classification": (Accuracy(),),
        "regression": (MeanAbsoluteError(), R2()),
    }
    if task not in defaults:
        raise unknown("task", task, defaults)
    return defaults[task]


@dataclass(frozen=True)
class Metric:
    """Base of the metrics."""

    task: ClassVar[str]
    greater_is_better: ClassVar[bool] = True
    registered_name: ClassVar[str]

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def name(self) -> str:
        """The key in a history or a report."""
        return self.registered_name

    def compute(self, predictions: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The value of the metric, NaN where it has none.

        Arguments:
            predictions: probabilities (m, k), (m, 1) or (m,), or class indices (m,); for regression values (m, …).
            targets: class indices (m,), or values shaped like the predictions.
            sample_weight: how much each example counts (m,), ≥ 0; None counts all alike.

        Raises:
            ShapeError: not the same number of examples.
            DataError: no examples, targets that are no class, predictions that are no probabilities, bad weights.
        """
        checked = self._checked(np.asarray(predictions), np.asarray(targets), sample_weight)
        return float("nan") if self._undefined(*checked) else float(self._value(*checked))

    def undefined(
        self, predictions: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> str | None:
        """Why `compute` answers NaN for these arguments, or None where it does not."""
        return self._undefined(*self._checked(np.asarray(predictions), np.asarray(targets), sample_weight))

    def _checked(self, predictions: np.ndarray, targets: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, ...]:
        where = type(self).__name__
        check = _classes_checked if self.task == "classification" else _values_checked
        predictions, targets = check(predictions, targets, where)
        return predictions, targets, _weights_checked(sample_weight, len(targets), where)

    def _undefined(self, predictions: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> str | None:
        return None if np.isfinite(predictions).all() else "the predictions are not finite"

    def _value(self, predictions: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> Any:
        raise NotImplementedError


class _Classification(Metric):
    task = "classification"


class _Probabilistic(_Classification):
    """A metric of the probabilities, not only of the most probable class."""

    def _checked(self, predictions: np.ndarray, targets: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, ...]:
        if np.issubdtype(predictions.dtype, np.integer):
            raise DataError("class indices given", where=type(self).__name__, expected="probabilities")
        predictions, targets, weight = super()._checked(predictions, targets, sample_weight)
        return _columns(predictions), targets, weight


class _Regression(Metric):
    task = "regression"


@metrics.register("accuracy")
@dataclass(frozen=True)
class Accuracy(_Classification):
    """The part of the examples whose most probable class is the right one."""

    def _value(self, predictions, targets, weight):
        return np.average(predicted_classes(predictions) == targets, weights=weight)


@metrics.register("top_k_accuracy", "top_k")
@dataclass(frozen=True)
class TopKAccuracy(_Probabilistic):
    """The part of the examples whose class is among the k most probable; of equal ones the higher index is more.

    Arguments:
        k: how many classes may be named, ≥ 1.
    """

    k: int = number("[1, inf)", 5, whole=True)

    @property
    def name(self) -> str:
        return f"top_{self.k}_accuracy"

    def _value(self, predictions, targets, weight):
        right = np.take_along_axis(predictions, targets[:, None], axis=1)
        after = np.arange(predictions.shape[1]) > targets[:, None]
        ahead = (predictions > right) | ((predictions == right) & after)
        return np.average(ahead.sum(axis=1) < self.k, weights=weight)


@metrics.register("log_loss")
@dataclass(frozen=True)
class LogLoss(_Probabilistic):
    """The mean of -log p, p the probability of the right class, kept away from 0 by its type's machine epsilon."""

    greater_is_better = False

    def _checked(self, predictions: np.ndarray, targets: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, ...]:
        checked = super()._checked(predictions, targets, sample_weight)
        _refuse_improbable(checked[0], type(self).__name__)
        return checked

    def _value(self, predictions, targets, weight):
        right = np.take_along_axis(predictions, targets[:, None], axis=1)[:, 0]
        epsilon = np.finfo(right.dtype).eps
        return np.average(-np.log(np.clip(right, epsilon, 1 - epsilon), dtype=np.float64), weights=weight)


@dataclass(frozen=True)
class _Averaged(_Classification):
    average: Literal["auto", "binary", "macro", "micro", "weighted"] = "auto"
    function: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("auto", "binary", "macro", "micro", "weighted")
        if self.average not in known:
            raise unknown("average", self.average, known, where=type(self).__name__)

    @property
    def name(self) -> str:
        return self.registered_name if self.average == "auto" else f"{self.registered_name}_{self.average}"

    def _value(self, predictions, targets, weight):
        predicted = predicted_classes(predictions)
        two = _class_count(predictions, targets) <= 2
        if self.average == "binary" and not two:
            raise ParameterError(
                "there are more than two classes",
                where=type(self).__name__,
                expected="average of macro, micro, weighted or auto",
                got="average='binary'",
            )
        average = ("binary" if two else "macro") if self.average == "auto" else self.average
        function = getattr(need("sklearn.metrics", extra="sklearn"), self.function)
        return function(targets, predicted, average=average, sample_weight=weight, zero_division=0)


_AVERAGE = """

    Arguments:
        average: ``"binary"`` asks of class 1 alone; ``"macro"`` is the mean over classes, ``"weighted"`` by their size,
            ``"micro"`` counts all classes' cases together; ``"auto"`` is binary for two classes and macro for more.
    """


@metrics.register("precision")
@dataclass(frozen=True)
class Precision(_Averaged):
    __doc__ = "Of the examples called a class, the part that is of it; 0 where none is called it." + _AVERAGE

    function = "precision_score"


@metrics.register("recall")
@dataclass(frozen=True)
class Recall(_Averaged):
    __doc__ = "Of the examples of a class, the part that is called it; 0 where there are none." + _AVERAGE

    function = "recall_score"


@metrics.register("f1")
@dataclass(frozen=True)
class F1(_Averaged):
    __doc__ = "The harmonic mean of precision and recall: 2 P R / (P + R); 0 where both are." + _AVERAGE

    function = "f1_score"


@metrics.register("balanced_accuracy")
@dataclass(frozen=True)
class BalancedAccuracy(_Classification):
    """The mean recall over the classes that occur in the targets."""

    def _value(self, predictions, targets, weight):
        sklearn = need("sklearn.metrics", extra="sklearn")
        present = np.unique(targets[weight > 0])
        return sklearn.recall_score(
            targets,
            predicted_classes(predictions),
            labels=present,
            average="macro",
            sample_weight=weight,
            zero_division=0,
        )


@metrics.register("roc_auc", "auc")
@dataclass(frozen=True)
class ROCAUC(_Probabilistic):
    """Area under the receiver operating characteristic: how often a member of a class is ranked above a non-member.

    Of class 1 for two classes; for more the mean over classes, each one against the rest. It has no value while a class
    is absent from the targets.
    """

    def _undefined(self, predictions, targets, weight):
        present = np.zeros(predictions.shape[1], bool)
        present[targets[weight > 0]] = True
        if not present.all():
            absent = ", ".join(map(str, np.flatnonzero(~present)))
            return super()._undefined(predictions, targets, weight) or f"no example is of class {absent}"
        return super()._undefined(predictions, targets, weight)

    def _value(self, predictions, targets, weight):
        sklearn = need("sklearn.metrics", extra="sklearn")
        classes = (1,) if predictions.shape[1] == 2 else range(predictions.shape[1])
        return np.mean([sklearn.roc_auc_score(targets == c, predictions[:, c], sample_weight=weight) for c in classes])


@metrics.register("mean_absolute_error", "mae")
@dataclass(frozen=True)
class MeanAbsoluteError(_Regression):
    """The mean of |ŷ - y|, over several outputs too."""

    greater_is_better = False

    def _value(self, predictions, targets, weight):
        return np.average(np.abs(predictions - targets), axis=0, weights=weight).mean()


@metrics.register("mean_squared_error", "mse")
@dataclass(frozen=True)
class MeanSquaredError(_Regression):
    """The mean of (ŷ - y)², over several outputs too."""

    greater_is_better = False

    def _value(self, predictions, targets, weight):
        return np.average(np.square(predictions - targets), axis=0, weights=weight).mean()


@metrics.register("root_mean_squared_error", "rmse")
@dataclass(frozen=True)
class RootMeanSquaredError(_Regression):
    """The root of the mean squared error of each output, then the mean over outputs."""

    greater_is_better = False

    def _value(self, predictions, targets, weight):
        return np.sqrt(np.average(np.square(predictions - targets), axis=0, weights=weight)).mean()


@metrics.register("r2", "r_squared")
@dataclass(frozen=True)
class R2(_Regression):
    """The part of the variance that is explained: 1 - Σ(ŷ - y)² / Σ(y - ȳ)², then the mean over outputs.

    Where the targets are all alike it is 1 for perfect predictions and 0 for others; for one example it has no value.
    """

    def _undefined(self, predictions, targets, weight):
        reason = "R² needs two examples or more" if len(targets) < 2 else None
        return super()._undefined(predictions, targets, weight) or reason

    def _value(self, predictions, targets, weight):
        centred = targets - np.average(targets, axis=0, weights=weight)
        unexplained = weight @ np.square(predictions - targets)
        varies = np.ptp(targets, axis=0) > 0  # rounding leaves the centred values of equal targets a hair off 0
        total = np.where(varies, weight @ np.square(centred), 0)
        ratio = np.divide(unexplained, total, out=(unexplained > 0).astype(float), where=total > 0)
        return np.mean(1 - ratio)


def predicted_classes(predictions: ArrayLike) -> np.ndarray:
    """The most probable class of each example (m,); of equal ones the first.

    Arguments:
        predictions: probabilities (m, k), or of class 1 alone (m, 1) or (m,), above 0.5 means 1; or class indices (m,).
    """
    predictions = np.asarray(predictions)
    if predictions.ndim == 2 and predictions.shape[1] > 1:
        return predictions.argmax(axis=1)
    flat = predictions.reshape(len(predictions))
    return flat if np.issubdtype(flat.dtype, np.integer) else (flat > 0.5).astype(np.int64)


def confusion_matrix(predictions: ArrayLike, targets: ArrayLike, classes: int) -> np.ndarray:
    """How many examples of each class (row) were called each class (column): counts (classes, classes).

    Arguments:
        predictions: probabilities (m, k), (m, 1) or (m,), or class indices (m,).
        targets: class indices (m,).
        classes: how many classes there are.

    Raises:
        ShapeError: not the same number of examples.
        DataError: nothing to count, or a class that is not below ``classes``.
    """
    where = "confusion_matrix"
    probabilities, true = _classes_checked(np.asarray(predictions), np.asarray(targets), where)
    if not np.isfinite(probabilities).all():
        raise DataError("the predictions are not finite", where=where)
    predicted = predicted_classes(probabilities)
    for what, indices in (("target", true), ("prediction", predicted)):
        _refuse_beyond(indices, classes, what, where)
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def render_confusion(matrix: ArrayLike, class_names: Sequence[str] | None = None, widest: int = 20) -> str:
    """A confusion matrix as plain text: a row for each true class with its recall, ``·`` for none.

    With more classes than ``widest`` the pairs that are confused most, instead of the table.

    Arguments:
        matrix: counts (classes, classes), row the true class.
        class_names: a name for each class; None names them by index.
        widest: the most classes shown as a table.

    Raises:
        ShapeError: a matrix that is not square, or another number of names.
    """
    counts = np.asarray(matrix)
    k = len(counts) if counts.ndim else 0
    if counts.shape != (k, k):
        raise ShapeError("not square", where="render_confusion", expected="(classes, classes)", got=counts.shape)
    names = [str(i) for i in range(k)] if class_names is None else [_shortened(str(name)) for name in class_names]
    if len(names) != k:
        raise ShapeError("wrong number of names", where="render_confusion", expected=k, got=len(names))
    sizes = counts.sum(axis=1)
    return _confused_pairs(counts, sizes, names) if k > widest else _confusion_table(counts, sizes, names)


def _confusion_table(counts: np.ndarray, sizes: np.ndarray, names: list[str]) -> str:
    k = len(counts)
    digits = max(3, *(len(str(count)) for count in counts.flat)) if k else 3
    if max(map(len, names), default=0) <= max(digits, 5):
        heads, labels = names, names
    else:  # the columns carry the numbers, the rows the numbers and names
        heads = [str(i) for i in range(k)]
        labels = [f"{i:>{len(str(k - 1))}} {name}" for i, name in enumerate(names)]
    width = max([digits, *map(len, heads)]) + 1
    corner = r"true \ predicted"
    left = max([len(corner), *map(len, labels)])
    lines = [corner.ljust(left) + " " + "".join(head.rjust(width) for head in heads) + "   recall"]
    for label, row, size, right in zip(labels, counts, sizes, counts.diagonal(), strict=True):
        cells = "".join((str(count) if count else "·").rjust(width) for count in row)
        lines.append(f"{label.ljust(left)} {cells} {_percent(right, size):>8}")
    return "\n".join(lines)


def _confused_pairs(counts: np.ndarray, sizes: np.ndarray, names: list[str], most: int = 10) -> str:
    mistakes = counts - np.diag(counts.diagonal())
    worst = [divmod(int(i), len(counts)) for i in np.argsort(-mistakes, axis=None, kind="stable")[:most]]
    worst = [(true, called) for true, called in worst if mistakes[true, called]]
    right, total = counts.trace(), counts.sum()
    lines = [f"{len(counts)} classes, {right} of {total} right ({_percent(right, total).strip()})"]
    if not worst:
        return lines[0]
    left = max(4, *(len(names[true]) for true, _ in worst))
    middle = max(9, *(len(names[called]) for _, called in worst))
    lines += ["confused most:", f"{'true':<{left}}   {'predicted':<{middle}}  count  of the true class"]
    lines += [
        f"{names[true]:<{left}} → {names[called]:<{middle}} {mistakes[true, called]:>6} "
        f"{_percent(mistakes[true, called], sizes[true]):>8}"
        for true, called in worst
    ]
    return "\n".join(lines)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _shortened(name: str, longest: int = 16) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _same_length(predictions: np.ndarray, targets: np.ndarray, where: str) -> None:
    if predictions.ndim == 0 or targets.ndim == 0 or len(predictions) != len(targets):
        raise ShapeError(
            "predictions and targets are not of the same examples",
            where=where,
            expected=f"examples first, {targets.shape[:1] or '(m,)'} of them",
            got=f"predictions {predictions.shape}, targets {targets.shape}",
        )
    if len(targets) == 0:
        raise DataError("there are no examples", where=where)


def _classes_checked(predictions: np.ndarray, targets: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (m, k) or (m,) or class indices (m,), and class indices (m,)."""
    _same_length(predictions, targets, where)
    if predictions.ndim == 2 and predictions.shape[1] == 1:
        predictions = predictions[:, 0]
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if predictions.ndim > 2 or targets.ndim != 1 or predictions.size == 0:
        raise ShapeError(
            "cannot be compared class by class",
            where=where,
            expected="predictions (m, classes) or (m,), targets (m,)",
            got=f"predictions {predictions.shape}, targets {targets.shape}",
            hint="one-hot targets become indices by targets.argmax(axis=1)" if targets.ndim == 2 else None,
        )
    if not np.issubdtype(targets.dtype, np.integer):
        targets = _as_indices(targets, where)
    if predictions.ndim == 1 and np.issubdtype(predictions.dtype, np.integer):
        _refuse_beyond(predictions, None, "prediction", where)
        _refuse_beyond(targets, None, "target", where)
        return predictions.astype(np.int64), targets.astype(np.int64)
    if predictions.dtype.kind not in "fiub":
        raise DataError("predictions are not numbers", where=where, got=predictions.dtype)
    if predictions.dtype.kind != "f":
        predictions = predictions.astype(np.float64)
    if predictions.ndim == 1:
        _refuse_improbable(predictions, where)
    _refuse_beyond(targets, predictions.shape[1] if predictions.ndim == 2 else 2, "target", where)
    return predictions, targets.astype(np.int64)


def _as_indices(targets: np.ndarray, where: str) -> np.ndarray:
    if targets.dtype.kind not in "fb":
        raise DataError("targets are not class indices", where=where, expected="whole numbers", got=targets.dtype)
    with np.errstate(invalid="ignore"):
        indices = targets.astype(np.int64)
    wrong = indices != targets
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            "targets are not class indices",
            where=f"{where}, example {first}",
            expected="a whole number",
            got=targets[first],
        )
    return indices


def _refuse_beyond(indices: np.ndarray, classes: int | None, what: str, where: str) -> None:
    wrong = (indices < 0) | (indices >= (np.inf if classes is None else classes))
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{what} is not a class",
            where=f"{where}, example {first}",
            expected="0, 1, …" if classes is None else f"0 to {classes - 1}",
            got=indices[first],
        )


def _refuse_improbable(predictions: np.ndarray, where: str) -> None:
    outside = (predictions < 0) | (predictions > 1)
    if outside.any():
        first = np.unravel_index(int(outside.argmax()), outside.shape)
        raise DataError(
            "predictions are not probabilities",
            where=f"{where}, example {first[0]}",
            expected="a number from 0 to 1",
            got=predictions[first],
            hint="pass logits through the logistic function or softmax first",
        )


def _values_checked(predictions: np.ndarray, targets: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Both float64 (m, outputs): sums over many examples lose digits in float32."""
    _same_length(predictions, targets, where)
    if predictions.dtype.kind not in "fiub" or targets.dtype.kind not in "fiub":
        raise DataError(
            "only numbers can be compared", where=where, got=f"predictions {predictions.dtype}, targets {targets.dtype}"
        )
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (predictions, targets)]
    if flat[0].shape != flat[1].shape:
        raise ShapeError(
            "predictions and targets do not match",
            where=where,
            expected=f"predictions {targets.shape}",
            got=predictions.shape,
        )
    if not np.isfinite(flat[1]).all():
        raise DataError("targets are not finite", where=where, got=f"{np.sum(~np.isfinite(flat[1]))} NaN or infinite")
    return flat[0], flat[1]


def _weights_checked(sample_weight: ArrayLike | None, m: int, where: str) -> np.ndarray:
    if sample_weight is None:
        return np.ones(m)
    weight = np.asarray(sample_weight, np.float64)
    if weight.shape != (m,):
        raise ShapeError("one weight for each example is needed", where=where, expected=(m,), got=weight.shape)
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise DataError("weights cannot be used", where=where, expected="finite, none below 0, not all 0")
    return weight


def _columns(predictions: np.ndarray) -> np.ndarray:
    """Probabilities (m, k), with both columns where only class 1's came."""
    return np.stack([1 - predictions, predictions], axis=1) if predictions.ndim == 1 else predictions


def _class_count(predictions: np.ndarray, targets: np.ndarray) -> int:
    if predictions.ndim == 2:
        return predictions.shape[1]
    if np.issubdtype(predictions.dtype, np.integer):
        return int(max(predictions.max(), targets.max())) + 1
    return 2
