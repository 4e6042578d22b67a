"""A data set: examples in any order, what they mean, and every decision that was taken in reading them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pellucid.data.storage import FileRows, Rows, row_bytes, row_chunks
from pellucid.errors import DataError, ParameterError, counted
from pellucid.sequences import Sequences

TASKS = ("classification", "regression")
FEW_CLASSES = 20


@dataclass
class Table:
    """Columns of numbers and of text, stored row by row so that reading an example is one read.

    Arguments:
        numeric: (m, numbers) floats, NaN where missing.
        codes: (m, texts) int32 positions in the levels, -1 where missing.
        numeric_names: name of each column of ``numeric``.
        levels: the distinct texts of each column of ``codes``, by name.
        order: every column's name, in the order of the source.
    """

    numeric: Rows
    codes: Rows
    numeric_names: list[str]
    levels: dict[str, list[str]]
    order: list[str]

    def __post_init__(self) -> None:
        self._numeric_at = {name: i for i, name in enumerate(self.numeric_names)}
        self._codes_at = {name: i for i, name in enumerate(self.levels)}
        self._texts = {name: np.array([*levels, ""]) for name, levels in self.levels.items()}

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, rows: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The columns ``names`` at ``rows``: float64 arrays, or arrays of text with ``""`` where missing."""
        numeric = self.numeric[rows]
        codes = self.codes[rows]
        return {
            name: numeric[..., self._numeric_at[name]].astype(np.float64)
            if name in self._numeric_at
            else self._texts[name][codes[..., self._codes_at[name]]]
            for name in names
        }

    def column(self, name: str) -> np.ndarray:
        """One whole column: float64 numbers, or int64 codes into ``levels[name]``."""
        rows, at, dtype = (
            (self.numeric, self._numeric_at[name], np.float64)
            if name in self._numeric_at
            else (self.codes, self._codes_at[name], np.int64)
        )
        column = np.empty(len(rows), dtype)
        for chunk in row_chunks(len(rows), row_bytes(rows)):
            column[chunk] = rows[chunk][:, at]
        return column


class Dataset:
    """Examples with random access, and what is known about them.

    Arguments:
        x: (m, …) array or `FileRows`, or a `Table`; images are (m, H, W), (m, H, W, C) or (m, C, H, W); sequences are
            `Sequences`, or (m, T, …) where all have one length; texts are a list of them.
        y: (m,) labels of any type, or (m,) or (m, targets) numbers; None where nothing is known.
        name: what to call it.
        task: ``"classification"`` or ``"regression"``; inferred from ``y`` when None.
        classes: names of the classes, in the order of the sorted labels.
        labels: the texts that ``y`` holds positions of, when it does not hold the labels themselves.
        feature_names: names of the inputs; of the columns to use when ``x`` is a table.
        target_names: names of the columns that ``y`` holds.
        test_rows: rows of an official test set, or None.
        images: whether ``x`` holds images, or their layout ``"HW"``, ``"HWC"`` or ``"CHW"``; inferred when None.
        sequences: True where an array holds sequences (m, T, …), whose steps have one mean and spread.
        missing: imputation asked for, which `Preprocessor` fits: ``"mean"``, ``"median"``, ``"most_frequent"`` or None.
        report: sentences on what was decided.
        rows: rows of ``x`` and ``y`` that count, when not all do.
        ignored: columns of the source that are not used.
        fingerprint: computes the SHA-256 of the source; of the values themselves when None.
        need_classes: whether fewer than two classes are refused, as training needs.

    Raises:
        DataError: nothing in it, x and y of different length, one class only, values that are not finite.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        name: str = "data",
        task: str | None = None,
        classes: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] = (),
        test_rows: np.ndarray | None = None,
        images: bool | str | None = None,
        sequences: bool = False,
        missing: str | None = None,
        report: Sequence[str] = (),
        rows: np.ndarray | None = None,
        ignored: Sequence[str] = (),
        fingerprint: Callable[[], str] | None = None,
        need_classes: bool = True,
    ) -> None:
        if task is not None and task not in TASKS:
            raise ParameterError("unknown task", where=name, expected=" or ".join(TASKS), got=repr(task))
        self.name, self.missing, self.report, self.ignored = name, missing, list(report), list(ignored)
        self.target_names = list(target_names)
        self._x: Any = x if isinstance(x, (Table, FileRows, Sequences, np.ndarray)) else np.asarray(x)
        if isinstance(self._x, np.ndarray) and self._x.dtype.kind in "UO" and self._x.ndim == 1:
            self._x = np.array(self._x.tolist(), object)  # so that a short text takes no more room than it needs
        self._rows, self._fingerprint = rows, fingerprint
        self._length = len(self._x) if rows is None else len(rows)
        if not self._length:
            raise DataError("there is not a single example", where=name, expected="at least one row")
        if y is not None and len(y) != self._length:
            raise DataError(
                "inputs and targets differ in number",
                where=name,
                expected=f"{self._length:,} targets, one for each example",
                got=f"{len(y):,}",
            )
        self.feature_names: list[str] | None
        if isinstance(self._x, Table):
            self.kind, self._axes = "table", None
            self.feature_names = list(feature_names if feature_names is not None else self._x.order)
        else:
            self.kind, self._axes = self._layout(images, sequences)
            self.feature_names = list(feature_names) if feature_names is not None else None
            _check_finite(self._x, name, missing)
        self.test_rows = None if test_rows is None else np.asarray(test_rows, np.int64)
        self._set_targets(y, task, classes, labels, need_classes)

    def _layout(self, images: bool | str | None, sequences: bool) -> tuple[str, tuple[int, ...] | None]:
        if isinstance(self._x, Sequences):
            return "sequence", None
        shape = self._x.shape
        if self._x.dtype.kind == "O" and len(shape) == 1 and all(isinstance(text, str) for text in self._x):
            return "text", None
        if self._x.dtype.kind not in "fiub":
            raise DataError(
                "the inputs are not numbers", where=self.name, expected="a numeric array", got=str(self._x.dtype)
            )
        if sequences:
            if len(shape) < 2:
                raise DataError("these are no sequences", where=self.name, expected="(m, T, …)", got=f"shape {shape}")
            return "sequence", None
        layouts = _layouts(shape)
        if images is None:
            images = bool(layouts) and (self._x.dtype == np.uint8 or len(shape) == 4)
        if images is False:
            return "array", None
        wanted = layouts if images is True else [layout for layout in layouts if layout == images]
        if len(wanted) != 1:
            raise DataError(
                "these arrays can be read as images in more than one way"
                if wanted
                else "these arrays cannot be read as images",
                where=self.name,
                expected="(m, H, W), (m, H, W, C) or (m, C, H, W) with 1, 3 or 4 channels",
                got=f"shape {shape}",
                hint="images='HWC' or 'CHW' says where the channels are, images=False takes plain numbers",
            )
        return "image", _AXES[wanted[0]]

    def _set_targets(
        self,
        y: Any,
        task: str | None,
        classes: Sequence[str] | None,
        labels: Sequence[str] | None,
        need_classes: bool,
    ) -> None:
        self.y: np.ndarray | None = None
        self.labels: np.ndarray | None = None
        self.classes: list[str] | None = None
        self.task = task
        if y is None:
            return
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        one_hot = y.ndim == 2 and task != "regression" and _is_one_hot(y)
        if one_hot:
            self.report.append(f"the targets are one-hot with {y.shape[1]} columns: read as classes")
            y = y.argmax(axis=1)
            task = "classification"
        self.task = task or self._infer_task(y, named=classes is not None or labels is not None)
        if self.task == "regression":
            if labels is not None:
                y = np.asarray(labels)[y]
            self.y = self._numbers(y)
            return
        if y.ndim != 1:
            raise DataError(
                "each example needs one class", where=self.name, expected="labels of shape (m,)", got=f"{y.shape}"
            )
        if labels is not None:
            self.labels, self.y = np.asarray(labels), y.astype(np.int64)
        else:
            if y.dtype.kind == "f" and (self._numbers(y) == np.floor(y)).all():
                y = y.astype(np.int64)
            elif y.dtype.kind in "OSb":
                y = y.astype(str)
            self.labels, self.y = np.unique(y, return_inverse=True)
        if need_classes and len(classes if classes is not None else self.labels) < 2:
            raise DataError(
                "one class only: there is nothing to tell apart",
                where=self.name,
                expected="at least two classes",
                got=f"every example is {str(self.labels[0])!r}",
                hint="is this the target? target= chooses another column",
            )
        if need_classes and len(self.labels) == len(y) > FEW_CLASSES:
            raise DataError(
                "every example has a class of its own: nothing can be learned from that",
                where=self.name,
                expected="several examples of each class",
                got=f"{len(y):,} examples, {len(self.labels):,} classes",
                hint="choose another target, or task='regression' when the targets are quantities",
            )
        self.classes = [str(label) for label in self.labels]
        if classes is not None:
            self._name_classes(list(classes))

    def _name_classes(self, classes: list[str]) -> None:
        """Labels that count from 0 index the given names, also where some class has no example here."""
        assert self.labels is not None
        if self.labels.dtype.kind in "iu" and self.labels.min() >= 0:
            if self.labels.max() >= len(classes):
                raise DataError(
                    "a label is out of range",
                    where=self.name,
                    expected=f"0 … {len(classes) - 1} for {len(classes)} class names",
                    got=int(self.labels.max()),
                )
            self.y = self.labels.astype(np.int64)[self.y]
            self.labels = np.arange(len(classes))
        elif len(classes) != len(self.labels):
            raise DataError(
                "class names and classes differ in number",
                where=self.name,
                expected=f"{len(self.labels)} names",
                got=len(classes),
            )
        self.classes = classes

    def _infer_task(self, y: np.ndarray, named: bool) -> str:
        if named or y.dtype.kind in "OSUb":
            self.report.append("the targets are names: classification")
            return "classification"
        if y.ndim == 1 and len(y):
            values = np.unique(y)
            whole = bool(np.isfinite(values).all() and (values == np.floor(values)).all())
            if whole and (len(values) <= 2 or (len(values) <= FEW_CLASSES and 5 * len(values) <= len(y))):
                self.report.append(
                    f"the targets are {len(values)} whole numbers: classification (task='regression' overrules)"
                )
                return "classification"
        self.report.append("the targets are numbers with many values: regression (task='classification' overrules)")
        return "regression"

    def _numbers(self, y: np.ndarray) -> np.ndarray:
        try:
            y = y.astype(np.float64)
        except ValueError:
            raise DataError(
                "the targets are not numbers",
                where=self.name,
                expected="numbers for task='regression'",
                got=repr(str(y.flat[0])),
                hint="task='classification' takes them as names",
            ) from None
        bad = np.argwhere(~np.isfinite(y))
        if len(bad):
            raise DataError(
                f"{counted(len(bad), 'target is', 'targets are')} not finite",
                where=f"{self.name}, row {bad[0][0]}",
                got=y[tuple(bad[0])],
            )
        return y

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<Dataset {self.name}: {len(self):,} examples, {self.task}>"

    @property
    def example_shape(self) -> tuple[Any, ...]:
        """Shape of one raw example: (C, H, W) for images, () beside its columns for a table, (None, …) where the
        number of steps differs, (None,) for texts."""
        if self.kind == "text":
            return (None,)
        if self.kind == "table":
            return ()
        if isinstance(self._x, Sequences):
            return (None, *self._x.values.shape[1:])
        return tuple(self._x.shape[1:]) if self._axes is None else self.take([0])[0].shape[1:]

    @property
    def numbers(self) -> int:
        """How many numbers an example holds; the mean, rounded up, where the lengths differ."""
        if self.kind == "text":
            return -(-sum(map(len, self._x)) // len(self._x))
        if isinstance(self._x, Sequences):
            return -(-self._x.values.size // len(self._x))
        return math.prod(each or 1 for each in self.example_shape)

    def levels(self, name: str) -> list[str]:
        """The distinct texts of a categorical column of a table."""
        return self._x.levels[name]

    def take(self, indices: Any) -> tuple[Any, np.ndarray | None]:
        """Some examples, in the order asked for; only these rows are read.

        Arguments:
            indices: (k,) row numbers, or a slice.

        Returns:
            raw x: a (k, …) array, images as (k, C, H, W), a table as a dictionary from column name to (k,) values,
            `Sequences` where the lengths differ; (k,) texts.
            raw y: (k,) labels as they stand in the source, or (k,) or (k, targets) float64; None without targets.
        """
        indices = indices if isinstance(indices, slice) else np.asarray(indices, np.int64)
        rows = indices if self._rows is None else self._rows[indices]
        if self.kind == "table":
            x: Any = self._x.take(rows, self.feature_names)
        else:
            x = self._x[rows]
            if self._axes is not None:
                x = x[:, None] if len(self._axes) == 3 else x.transpose(self._axes)
        if self.y is None:
            return x, None
        return x, self.y[indices] if self.labels is None else self.labels[self.y[indices]]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the source's content; of names, shapes and values when the data came as arrays."""
        if self._fingerprint is not None:
            return self._fingerprint()
        digest = hashlib.sha256()
        step = 4096
        for start in range(0, len(self), step):
            x, y = self.take(np.arange(start, min(start + step, len(self))))
            if isinstance(x, Sequences):
                x = {"lengths": x.lengths, "steps": x.values}
            for part in (*(x.values() if isinstance(x, dict) else (x,)), y):
                if self.kind == "text" and part is x:
                    part = np.array(x.tolist())
                if part is not None:
                    part = np.ascontiguousarray(part)
                    digest.update(f"{part.dtype.str}{part.shape[1:]}".encode() + part.tobytes())
        return digest.hexdigest()


_AXES = {"HW": (0, 1, 2), "HWC": (0, 3, 1, 2), "CHW": (0, 1, 2, 3)}


def _layouts(shape: tuple[int, ...]) -> list[str]:
    """The ways in which an array of this shape holds images."""
    channels = {1, 3, 4}
    if len(shape) == 3:
        return ["HW"]
    if len(shape) != 4:
        return []
    return [layout for layout, axis in (("HWC", 3), ("CHW", 1)) if shape[axis] in channels]


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(y.dtype.kind in "iufb" and y.shape[1] > 1 and (((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()))


def _check_finite(x: Rows | Sequences, name: str, missing: str | None) -> None:
    if x.dtype.kind != "f":
        return
    of, x = (x, x.values) if isinstance(x, Sequences) else (None, x)
    nan_count = infinite_count = 0
    nan_at: tuple[int, ...] | None = None
    infinite_at: tuple[int, ...] | None = None
    for chunk in row_chunks(len(x), row_bytes(x)):
        block = x[chunk]
        bad = ~np.isfinite(block)
        if not bad.any():
            continue
        places = np.argwhere(bad)
        is_nan = np.isnan(block[bad])
        nan_count += int(is_nan.sum())
        infinite_count += int((~is_nan).sum())
        for where, nan in zip(places, is_nan, strict=True):
            at = (int(where[0]) + chunk.start, *map(int, where[1:]))
            if nan and nan_at is None:
                nan_at = at
            elif not nan and infinite_at is None:
                infinite_at = at
            if nan_at and infinite_at:
                break

    def place(at: tuple[int, ...] | None) -> str:
        step, *rest = at or (0,)
        if of is None:
            return f"{name}, first at x{[step, *rest]}"
        ends = np.cumsum(of.lengths)
        example = int(np.searchsorted(ends, step, side="right"))
        return f"{name}, first in sequence {example} at {[step - int(ends[example] - of.lengths[example]), *rest]}"

    if infinite_count:
        raise DataError(
            f"{counted(infinite_count, 'value is', 'values are')} infinite",
            where=place(infinite_at),
            expected="finite numbers",
        )
    if nan_count and missing is None:
        raise DataError(
            f"{counted(nan_count, 'value is', 'values are')} NaN",
            where=place(nan_at),
            expected="finite numbers",
            hint="missing='mean', 'median' or 'most_frequent' fills them in from the training rows",
        )
