"""From raw examples to what a network takes: fitted on training rows, stored with the model, used again on new data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pellucid.data.dataset import Dataset
from pellucid.data.text import SPECIALS, Vocabulary
from pellucid.errors import DataError, ParameterError
from pellucid.sequences import Sequences

FORMAT = 1
CHUNK_VALUES = 2**19
CATEGORICAL = ("one-hot", "embedding")
IMPUTATIONS = ("mean", "median", "most_frequent")


@dataclass
class Preprocessor:
    """Turns raw examples into float32 inputs and targets, with numbers taken from the training rows alone.

    Numbers: ``(x - mean) / scale``, per column of a table, per channel of an image, per feature over all steps of all
    sequences, per element of any other array. Whole numbers one by one are ids, and stay as they are.
    Texts: the ids of a `Vocabulary` of the training texts.
    Categories: one column of 0 and 1 for each level (``"one-hot"``; a level that training never saw is refused), or
    one column of whole numbers for each category (``"embedding"``; a level that training never saw is
    ``len(levels)``, an index of its own). Levels that stand in the file but in no training row are known: they are
    all zeros in one-hot. The numeric columns come first, the categories after them.

    Arguments:
        kind: ``"table"``, ``"image"``, ``"sequence"``, ``"text"`` or ``"array"``.
        task: ``"classification"``, ``"regression"``, or None without targets.
        input_shape: shape of one input, without the example axis; (None, …) for sequences of different lengths.
        mean, scale: float64, of the numeric columns (n,), the channels (C,), the features of a step, or the elements.
        fill: what replaces a missing number, shaped like ``mean``; None when nothing may be missing.
        columns: names of the numeric columns of a table, in order; of the column of texts.
        levels: the levels of each categorical column, by name.
        unseen: levels that only rows outside training have.
        fill_level: what replaces a missing category, by name.
        categorical: ``"one-hot"`` or ``"embedding"``.
        ignored: columns that new data may have and that are not used: the target, and what was dropped.
        labels: the label of each class as it stands in the source.
        classes: the name of each class.
        target_mean, target_scale: float64 (targets,), of regression targets.
        target_names: columns that hold the targets.
        symbols, unit: of the vocabulary of texts.
        report: sentences on what was found.
    """

    kind: str
    task: str | None
    input_shape: tuple[Any, ...]
    mean: np.ndarray
    scale: np.ndarray
    fill: np.ndarray | None = None
    columns: list[str] = field(default_factory=list)
    levels: dict[str, list[str]] = field(default_factory=dict)
    unseen: dict[str, list[str]] = field(default_factory=dict)
    fill_level: dict[str, str] = field(default_factory=dict)
    categorical: str = "one-hot"
    ignored: list[str] = field(default_factory=list)
    labels: list[str] | None = None
    classes: list[str] | None = None
    target_mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    target_scale: np.ndarray = field(default_factory=lambda: np.ones(1))
    target_names: list[str] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    unit: str = "word"
    report: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._class_of = {name: i for names in (self.classes, self.labels) for i, name in enumerate(names or ())}

    @classmethod
    def fit(
        cls,
        ds: Dataset,
        rows: Any = None,
        *,
        standardize: bool = True,
        categorical: str = "one-hot",
        missing: str | None = None,
        unit: str = "word",
        least: int = 2,
    ) -> Preprocessor:
        """Take mean, spread, imputations, levels and vocabulary from some rows, in pieces, in float64.

        Arguments:
            ds: the data.
            rows: (k,) the training rows; all when None.
            standardize: whether numbers and regression targets get mean 0 and standard deviation 1; else numbers
                stay as they are and pixels become 0 … 1.
            categorical: ``"one-hot"`` or ``"embedding"``.
            missing: ``"mean"``, ``"median"`` or ``"most_frequent"``; categories take the most frequent level with
                each of them, pixels the mean of their channel. What ``ds`` was read with when None.
            unit: of which symbols texts consist: see `Vocabulary`.
            least: how often a symbol must occur in the training texts to be known; below, it is as unknown as those
                that new texts bring, so that the network learns what to make of these.

        Raises:
            ParameterError: an unknown option, no rows.
            DataError: a column without a single value.
        """
        if categorical not in CATEGORICAL:
            raise ParameterError("unknown categorical=", expected=" or ".join(CATEGORICAL), got=repr(categorical))
        missing = missing or ds.missing
        if missing is not None and missing not in IMPUTATIONS:
            raise ParameterError("unknown missing=", expected=" or ".join(IMPUTATIONS), got=repr(missing))
        rows = np.arange(len(ds)) if rows is None else np.asarray(rows, np.int64)
        if not len(rows):
            raise ParameterError("there are no training rows to fit on", where=ds.name, expected="at least one row")
        report: list[str] = []
        levels, fill_level, unseen = _levels(ds, rows, missing, report) if ds.kind == "table" else ({}, {}, {})
        columns = []
        if ds.kind in ("table", "text"):
            columns = [name for name in ds.feature_names or () if name not in levels]
        symbols: list[str] = []
        mean, scale = np.zeros(()), np.ones(())
        shape: tuple[int, ...] = ()
        if ds.kind == "text":
            vocabulary = Vocabulary.build(ds.take(rows)[0], unit, least=least)
            symbols = vocabulary.symbols[len(SPECIALS) :]
            report.append(f"{len(vocabulary):,} different {unit}s are known from the training texts")
        else:
            mean, scale, shape = _moments(_blocks(ds, rows, columns), ds.kind, ds.name, columns)
        fill = None
        if missing == "mean" or (missing is not None and ds.kind == "image"):
            fill = mean.copy()
        elif missing is not None:
            fill = _fill(ds, rows, columns, shape, np.median if missing == "median" else _mode)
        constant = np.asarray(scale == 0)
        if constant.any():
            which = (
                ", ".join(repr(name) for name, same in zip(columns, constant.tolist(), strict=True) if same)
                if columns
                else ""
            )
            what = f"column {which} has" if which else f"{int(constant.sum())} of {constant.size} inputs have"
            report.append(
                f"{what} one value in all training rows: standardised to 0, there is nothing to learn from it"
            )
        scale = np.where(constant, 1.0, scale)
        if not standardize or (ds.kind == "sequence" and _are_ids(ds.take(slice(0, 1))[0])):
            mean, scale = (
                np.zeros_like(mean),
                np.full_like(scale, 255.0 if ds.kind == "image" and _is_bytes(ds) else 1.0),
            )
        width = len(columns) + (sum(map(len, levels.values())) if categorical == "one-hot" else len(levels))
        target_mean, target_scale, targets = np.zeros(1), np.ones(1), ds.y
        if ds.task == "regression" and targets is not None and standardize:
            target_mean, target_scale, _ = _moments(
                lambda: (_two_d(targets[part]) for part in _parts(rows, 1)), "target", ds.name, ds.target_names or ["y"]
            )
            if (target_scale == 0).any():
                report.append("the target has one value in all training rows: there is nothing to learn")
            target_scale[target_scale == 0] = 1.0
        elif ds.task == "regression" and ds.y is not None:
            target_mean, target_scale = np.zeros(_two_d(ds.y).shape[1]), np.ones(_two_d(ds.y).shape[1])
        return cls(
            kind=ds.kind,
            task=ds.task,
            input_shape=(width,)
            if ds.kind == "table"
            else ds.example_shape
            if ds.kind in ("sequence", "text")
            else shape,
            mean=mean,
            scale=scale,
            fill=fill,
            columns=columns,
            levels=levels,
            unseen=unseen,
            fill_level=fill_level,
            categorical=categorical,
            ignored=list(ds.ignored),
            labels=None if ds.labels is None else [str(label) for label in ds.labels],
            classes=ds.classes,
            target_mean=target_mean,
            target_scale=target_scale,
            target_names=list(ds.target_names),
            symbols=symbols,
            unit=unit,
            report=report,
        )

    @property
    def feature_names(self) -> list[str] | None:
        """A name for each input of a table: the column, ``column=level`` in one-hot; None for arrays and images."""
        if self.kind != "table":
            return None
        if self.categorical == "embedding":
            return [*self.columns, *self.levels]
        return [*self.columns, *(f"{name}={level}" for name, levels in self.levels.items() for level in levels)]

    @property
    def embedding_sizes(self) -> dict[str, int]:
        """For ``"embedding"``: how many indices each categorical column needs, the unknown level included; for texts
        the size of their vocabulary."""
        if self.kind == "text":
            return {"text": len(self.vocabulary)}
        return {name: len(levels) + 1 for name, levels in self.levels.items()}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the ids of texts stand for."""
        return Vocabulary(self.symbols, self.unit)

    def x(self, raw_x: Any) -> Any:
        """Inputs for the network.

        Arguments:
            raw_x: what `Dataset.take` gives: (k, …) array, dictionary from column name to (k,) values, or `Sequences`.

        Returns:
            float32 (k, *input_shape); `Sequences` of such steps for sequences of different lengths.

        Raises:
            DataError: another shape or kind, a column missing or too many, an unknown level, values missing or
                infinite.
        """
        if self.kind == "table":
            return self._table(raw_x)
        if self.kind == "text":
            if isinstance(raw_x, str) or not all(isinstance(text, str) for text in raw_x):
                raise DataError(
                    "the network was trained on texts", where="x", expected="a list of texts", hint="[text]"
                )
            ids = self.vocabulary.encode_all(raw_x)
            return ids.replaced(ids.values.astype(np.float32))
        if self.kind == "sequence" and self.input_shape[0] is None:
            return self._sequences(raw_x if isinstance(raw_x, Sequences) else Sequences(raw_x))
        raw_x = np.asarray(raw_x)
        if raw_x.shape[1:] != self.input_shape:
            raise DataError(
                "the examples have another shape than in training",
                where="x",
                expected=f"(m, {', '.join(map(str, self.input_shape))})",
                got=f"{raw_x.shape}",
                hint="only files of images are brought to the size of training; resize arrays before"
                if self.kind == "image"
                else None,
            )
        if raw_x.dtype.kind == "f":
            raw_x = self._filled(raw_x, [])
        if self.kind == "image":
            X = raw_x.astype(np.float32)
            X -= self.mean.astype(np.float32)[:, None, None]
            X *= (1 / self.scale).astype(np.float32)[:, None, None]
            return X
        return _float32((raw_x - self.mean) / self.scale, "x")

    def _sequences(self, raw_x: Sequences) -> Sequences:
        steps = raw_x.values
        if steps.shape[1:] != self.input_shape[1:]:
            raise DataError(
                "the steps have another shape than in training",
                where="x",
                expected=f"(T, {', '.join(map(str, self.input_shape[1:]))})",
                got=f"(T, {', '.join(map(str, steps.shape[1:]))})",
            )
        if steps.dtype.kind == "f":
            steps = self._filled(steps, [])
        return raw_x.replaced(_float32((steps - self.mean) / self.scale, "x, all steps in a row, "))

    def _table(self, raw_x: Any) -> np.ndarray:
        if not isinstance(raw_x, Mapping):
            raise DataError(
                "the network was trained on named columns",
                where="x",
                expected="a table with columns " + ", ".join(map(repr, [*self.columns, *self.levels])),
                got=type(raw_x).__name__,
            )
        wanted = [*self.columns, *self.levels]
        absent = [name for name in wanted if name not in raw_x]
        if absent:
            raise DataError(
                f"column {', '.join(map(repr, absent))} is missing",
                where="x",
                expected=", ".join(map(repr, wanted)),
                got=", ".join(map(repr, raw_x)),
            )
        extra = [name for name in raw_x if name not in wanted and name not in self.ignored]
        if extra:
            raise DataError(
                f"column {', '.join(map(repr, extra))} was not there in training",
                where="x",
                expected=", ".join(map(repr, wanted)),
                got=", ".join(map(repr, raw_x)),
                hint=f"drop={extra}",
            )
        count = len(raw_x[wanted[0]])
        X = np.zeros((count, *self.input_shape), np.float32)
        at = len(self.columns)
        if self.columns:
            for name in self.columns:
                if np.asarray(raw_x[name]).dtype.kind not in "fiub":
                    raise DataError(
                        f"column {name!r} held numbers in training",
                        where="x",
                        expected="numbers",
                        got=repr(str(raw_x[name][0])),
                    )
            numbers = self._filled(
                np.stack([np.asarray(raw_x[name], np.float64) for name in self.columns], 1), self.columns
            )
            X[:, :at] = _float32((numbers - self.mean) / self.scale, "x")
        for name, levels in self.levels.items():
            codes = self._codes(name, np.asarray(raw_x[name]))
            if self.categorical == "embedding":
                X[:, at] = codes
                at += 1
            else:
                known = np.flatnonzero(codes < len(levels))
                X[known, at + codes[known]] = 1
                at += len(levels)
        return X

    def _codes(self, name: str, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind in "fiub":
            values = np.array([f"{value:.15g}" for value in values.tolist()])
        index = {level: i for i, level in enumerate(self.levels[name])}
        distinct, inverse = np.unique(values, return_inverse=True)
        codes = np.empty(len(distinct), np.int64)
        for i, level in enumerate(distinct.tolist()):
            if level == "" and name in self.fill_level:
                level = self.fill_level[name]
            if level == "":
                raise DataError(
                    f"column {name!r} has a missing value",
                    where=f"x, row {int(np.argmax(inverse == i))}",
                    expected="a category: the network was trained without missing values",
                    hint="missing='most_frequent' in training fills them in",
                )
            codes[i] = index.get(level, len(index))
            if level not in index and level not in self.unseen.get(name, ()) and self.categorical == "one-hot":
                raise DataError(
                    f"column {name!r} holds a category that was not there in training",
                    where=f"x, row {int(np.argmax(inverse == i))}",
                    expected=", ".join(map(repr, index)),
                    got=repr(level),
                    hint="categorical='embedding' in training gives unknown categories an index of their own",
                )
        return codes[inverse]

    def _filled(self, values: np.ndarray, names: Sequence[str]) -> np.ndarray:
        bad = ~np.isfinite(values)
        if not bad.any():
            return values
        if np.isinf(values).any() or self.fill is None:
            row, *place = np.argwhere(np.isinf(values) if np.isinf(values).any() else bad)[0].tolist()
            infinite = np.isinf(values[(row, *place)])
            raise DataError(
                "a value is infinite" if infinite else "a value is missing",
                where=f"x, row {row}, {f'column {names[place[0]]!r}' if names else f'at {place}'}",
                expected="finite numbers",
                hint=None if infinite else "missing='median' in training fills such values in",
            )
        fill = self.fill if self.kind != "image" else self.fill[:, None, None]
        return np.where(bad, fill, values)

    def y(self, raw_y: Any) -> np.ndarray:
        """Targets for the network.

        Arguments:
            raw_y: (k,) labels, or (k,) or (k, targets) numbers.

        Returns:
            int64 (k,) class indices, or float32 (k, targets) standardised as in training.

        Raises:
            DataError: a label that was not there in training, targets that are not finite or too few.
        """
        raw_y = np.asarray(raw_y)
        if self.task == "classification":
            distinct, inverse = np.unique(raw_y, return_inverse=True)
            if distinct.dtype.kind == "f" and (distinct == np.floor(distinct)).all():
                distinct = distinct.astype(np.int64)
            unknown = [str(label) for label in distinct if str(label) not in self._class_of]
            if unknown:
                raise DataError(
                    f"label {', '.join(map(repr, unknown[:5]))} was not there in training",
                    where="y",
                    expected=f"one of {', '.join(map(repr, (self.labels or [])[:20]))}",
                    got=repr(unknown[0]),
                )
            return np.array([self._class_of[str(label)] for label in distinct], np.int64)[inverse.reshape(-1)]
        values = _two_d(raw_y).astype(np.float64)
        if values.shape[1] != len(self.target_mean) or not np.isfinite(values).all():
            raise DataError(
                "these targets cannot be used",
                where="y",
                expected=f"finite numbers of shape (m, {len(self.target_mean)})",
                got=f"shape {raw_y.shape}{'' if np.isfinite(values).all() else ' with NaN or infinity'}",
            )
        return _float32((values - self.target_mean) / self.target_scale, "y")

    def inverse_y(self, Y: np.ndarray) -> np.ndarray:
        """Predicted regression targets (k, targets) in the units of the source, float64."""
        return np.asarray(Y, np.float64) * self.target_scale + self.target_mean

    def document(self) -> dict[str, Any]:
        """All of it as values that JSON holds exactly; `from_document` is the inverse."""
        values = {
            key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in asdict(self).items()
        }
        return {"format": FORMAT, **values, "input_shape": list(self.input_shape)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Preprocessor:
        """The preprocessor that wrote ``document``.

        Raises:
            DataError: another format, or an entry that is missing or unknown.
        """
        values = {"symbols": [], "unit": "word", **document}  # documents from before there were texts have neither
        if values.pop("format", None) != FORMAT or set(values) != set(cls.__dataclass_fields__):
            odd = sorted(set(values) ^ set(cls.__dataclass_fields__))
            raise DataError(
                "this preprocessor was written by another version of pellucid, or is damaged",
                expected=f"format {FORMAT}",
                got=f"format {document.get('format')!r}, entries that differ: {odd}",
            )
        for key in ("mean", "scale", "fill", "target_mean", "target_scale"):
            values[key] = None if values[key] is None else np.array(values[key], np.float64)
        return cls(**{**values, "input_shape": tuple(values["input_shape"])})


def _float32(values: np.ndarray, where: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        X = values.astype(np.float32)
    if not np.isfinite(X).all():
        place = np.argwhere(~np.isfinite(X))[0].tolist()
        raise DataError(
            "a number is too large for float32",
            where=f"{where}{place}",
            expected=f"at most {np.finfo(np.float32).max:.1e}, after standardisation",
            got=f"{values[tuple(place)]:.3g}",
        )
    return X


def _two_d(y: Any) -> np.ndarray:
    y = np.asarray(y)
    return y if y.ndim == 2 else y.reshape(len(y), -1)


def _are_ids(x: Any) -> bool:
    return x.dtype.kind in "iu" and (x.values.ndim == 1 if isinstance(x, Sequences) else x.ndim == 2)


def _is_bytes(ds: Dataset) -> bool:
    return ds.take(slice(0, 1))[0].dtype == np.uint8


def _parts(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    step = max(1, CHUNK_VALUES // max(1, width))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _blocks(ds: Dataset, rows: np.ndarray, columns: Sequence[str]) -> Callable[[], Iterator[np.ndarray]]:
    """A function that walks over the numbers of the rows: (k, columns), (k, C, H·W), (steps, …) or (k, …)."""

    def walk() -> Iterator[np.ndarray]:
        width = len(ds.feature_names or ()) if ds.kind == "table" else ds.numbers
        for part in _parts(np.sort(rows), width):
            x = ds.take(part)[0]
            if ds.kind == "table":
                yield np.stack([x[name] for name in columns], axis=1) if columns else np.empty((len(part), 0))
            elif ds.kind == "sequence":
                yield x.values if isinstance(x, Sequences) else x.reshape(-1, *x.shape[2:])
            else:
                yield x

    return walk


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused below
def _moments(
    blocks: Callable[[], Iterator[np.ndarray]], kind: str, where: str, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Mean and standard deviation over the examples (and pixels, for images), missing values left out.

    Source: Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    count: Any = 0
    mean: Any = 0.0
    squares: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf
    tallies: Any = 0  # (C, 256): of bytes the tally of each value says all, exactly
    shape: tuple[int, ...] = ()
    for block in blocks():
        shape = block.shape[1:]
        if block.dtype == np.uint8 and kind == "image":
            tallies = tallies + np.array(
                [np.bincount(channel.reshape(-1), minlength=256) for channel in block.swapaxes(0, 1)]
            )
            continue
        axes = (0, 2, 3) if kind == "image" else (0,)
        block = block.astype(np.float64)
        here = ~np.isnan(block)
        n = here.sum(axes)
        block_mean = np.where(here, block, 0).sum(axes) / np.maximum(n, 1)
        spread = block - (block_mean[:, None, None] if kind == "image" else block_mean)
        block_squares = np.where(here, spread * spread, 0).sum(axes)
        total = np.maximum(count + n, 1)
        delta = block_mean - mean
        squares = squares + block_squares + delta * delta * count * n / total
        mean = mean + delta * n / total
        count = count + n
        low = np.minimum(low, np.where(here, block, np.inf).min(axes, initial=np.inf))
        high = np.maximum(high, np.where(here, block, -np.inf).max(axes, initial=-np.inf))
    if np.ndim(tallies):
        value = np.arange(256)
        count = tallies.sum(1)
        mean = (tallies * value).sum(1) / count
        return mean, np.sqrt((tallies * (value - mean[:, None]) ** 2).sum(1) / count), shape
    if (np.asarray(count) == 0).any():
        empty = np.flatnonzero(np.asarray(count) == 0)
        raise DataError(
            "there is not a single value in the training rows",
            where=f"{where}, column {names[empty[0]]!r}" if len(names) > empty[0] else f"{where}, input {empty[0]}",
            expected="at least one value",
            hint="leave the column out with drop=",
        )
    if not np.isfinite(squares).all():
        worst = int(np.argmin(np.isfinite(squares)))
        name = names[worst] if len(names) > worst else None
        mend = "rescale the column" + (f", or drop=[{name!r}] leaves it out" if kind == "table" else "")
        raise DataError(
            "numbers are too large to be standardised",
            where=f"{where}, column {name!r}" if name is not None else f"{where}, input {worst}",
            expected="numbers whose squares float64 holds",
            got=f"up to {np.max(np.abs([low, high])):.3g}",
            hint=mend if name is not None else None,
        )
    scale = np.sqrt(squares / np.maximum(count, 1))
    # rounding leaves a constant column a spread that is not quite zero
    return np.asarray(mean), np.where(low == high, 0.0, scale), shape


def _mode(values: np.ndarray) -> float:
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()])


def _fill(
    ds: Dataset,
    rows: np.ndarray,
    columns: Sequence[str],
    shape: tuple[int, ...],
    statistic: Callable[[np.ndarray], Any],
) -> np.ndarray:
    """One statistic of every column, a group of columns at a time so that memory holds no more than the group."""
    width = int(np.prod(shape, dtype=np.int64))
    group = max(1, CHUNK_VALUES // len(rows))
    fill = np.zeros(width)
    for start in range(0, width, group):
        part = slice(start, start + group)
        values = np.concatenate([block.reshape(len(block), -1)[:, part] for block in _blocks(ds, rows, columns)()])
        for i, column in enumerate(values.T, start):
            fill[i] = statistic(column[~np.isnan(column)])
    return fill.reshape(shape)


def _levels(
    ds: Dataset, rows: np.ndarray, missing: str | None, report: list[str]
) -> tuple[dict[str, list[str]], dict[str, str], dict[str, list[str]]]:
    """Of each categorical column: the levels in training, the most frequent one, and those of other rows only."""
    names = ds.feature_names or []
    counts: dict[str, dict[str, int]] = {}
    for part in _parts(np.sort(rows), len(names)):
        for name, values in ds.take(part)[0].items():
            if values.dtype.kind == "U":
                column = counts.setdefault(name, {})
                for level, count in zip(*np.unique(values, return_counts=True), strict=True):
                    column[str(level)] = column.get(str(level), 0) + int(count)
    levels = {name: sorted(level for level in column if level) for name, column in counts.items()}
    unseen = {}
    for name, known in levels.items():
        if not known:
            raise DataError(
                "there is not a single value in the training rows",
                where=f"{ds.name}, column {name!r}",
                expected="at least one category",
                hint="leave the column out with drop=",
            )
        if len(counts[name]) == 1:
            report.append(f"column {name!r} has one value in all training rows: there is nothing to learn from it")
        others = sorted(set(ds.levels(name)) - set(known))
        if others:
            unseen[name] = others
            report.append(f"column {name!r}: no training row has {', '.join(map(repr, others))}")
    if missing is None:
        return levels, {}, unseen
    return levels, {name: max(levels[name], key=counts[name].__getitem__) for name in levels}, unseen
