"""Time series, in the order of time, and the windows that cut a series into examples."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.data import catalog, delimited
from pellucid.data.storage import FileRows, row_bytes, row_chunks
from pellucid.errors import DataError, ParameterError, counted, unknown

GAPS = ("carry", "interpolate")


@dataclass(frozen=True)
class Series:
    """Values in the order of time, one step apart.

    Arguments:
        name: what to call it.
        values: (T,) or (T, n) float64, nothing missing.
        times: (T,) datetime64 of each step.
        step: what one step is: ``"week"``.
        season: after how many steps it comes round again, about.
        columns: name of each column, with its unit.
        report: sentences on what was decided in reading it.
    """

    name: str
    values: np.ndarray
    times: np.ndarray
    step: str
    season: int
    columns: Sequence[str]
    report: Sequence[str] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<Series {self.name}: {len(self):,} {self.step}s from {self.times[0]} to {self.times[-1]}>"


def fill_gaps(values: np.ndarray, gaps: str = "carry") -> np.ndarray:
    """The values with every NaN replaced.

    Arguments:
        values: (T,) float, NaN where nothing was measured.
        gaps: ``"carry"`` repeats the last measured value, which knows nothing of what comes; ``"interpolate"`` draws
            a line between its neighbours, of which one lies in the future.

    Raises:
        ParameterError: another name.
        DataError: nothing is measured before a gap.
    """
    if gaps not in GAPS:
        raise ParameterError("unknown gaps=", expected=" or ".join(GAPS), got=repr(gaps))
    here = ~np.isnan(values)
    if not here.any() or not here[0] or (gaps == "interpolate" and not here[-1]):
        raise DataError("a gap has nothing beside it to be filled from", expected="a measured value at the ends")
    steps = np.arange(len(values))
    if gaps == "interpolate":
        return np.interp(steps, steps[here], values[here])
    return values[np.maximum.accumulate(np.where(here, steps, 0))]


def time_series(name: str, path: str | os.PathLike[str] | None = None, *, gaps: str = "carry") -> Series:
    """A series of the catalog, in the order of time and without gaps.

    Arguments:
        name: ``"co2"``, ``"sunspots"``, ``"sf-temps"`` or ``"seattle-weather"``.
        path: the file; that of the set when None.
        gaps: how steps that were not measured are filled in: see `fill_gaps`.

    Raises:
        ParameterError: another name.
        DataError: the set is not on this machine, or the file cannot be read.
    """
    if name not in _SERIES:
        raise unknown("series", name, _SERIES)
    kind = _SERIES[name]
    file = Path(path) if path is not None else catalog.file_of(name)
    with delimited.open_text(file, "utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        times = np.array([kind.time(row) for row in rows], "datetime64[h]").astype(f"datetime64[{kind.unit}]")
        measured = np.array([[float(row[key] or "nan") for key in kind.columns] for row in rows])
    except (KeyError, ValueError) as problem:
        raise DataError("this is not the file of the series", where=str(file), got=str(problem)) from None
    steps = (times - times[0]) // np.timedelta64(kind.every, kind.unit)
    values = np.full((steps[-1] + 1, measured.shape[1]), np.nan)
    values[steps] = measured
    missing = int(np.isnan(values).any(1).sum())
    values = np.stack([fill_gaps(column, gaps) for column in values.T], axis=1)
    how = "the last value is carried" if gaps == "carry" else "on a line between the neighbours"
    said = f"{counted(missing, kind.step, kind.step + 's')} of {len(values):,} without a measurement: {how}"
    return Series(
        name,
        values[:, 0] if len(kind.columns) == 1 else values,
        times[0] + np.timedelta64(kind.every, kind.unit) * np.arange(len(values)),
        kind.step,
        kind.season,
        list(kind.columns.values()),
        [said] if missing else [],
    )


@dataclass(frozen=True)
class _Kind:
    """How the file of a series is written."""

    step: str
    every: int
    unit: Any
    season: int
    columns: dict[str, str]
    time: Callable[[dict[str, str]], str]


_SERIES = {
    "co2": _Kind(
        "week",
        7,
        "D",
        52,
        {"co2": "CO₂ in the air, ppmv"},
        lambda row: f"{row['date'][:4]}-{row['date'][4:6]}-{row['date'][6:]}",
    ),
    "sunspots": _Kind("year", 1, "Y", 11, {"SUNACTIVITY": "sunspot number"}, lambda row: row["YEAR"]),
    "sf-temps": _Kind(
        "hour",
        1,
        "h",
        24,
        {"temp": "temperature, °F"},
        lambda row: row["date"].replace("/", "-").replace(" ", "T")[:13],
    ),
    "seattle-weather": _Kind(
        "day",
        1,
        "D",
        365,
        {
            "precipitation": "precipitation, mm",
            "temp_max": "highest temperature, °C",
            "temp_min": "lowest temperature, °C",
            "wind": "wind, m/s",
        },
        lambda row: row["date"].replace("/", "-"),
    ),
}


class Windows:
    """Examples cut from a series when they are asked for: some steps, and those that follow.

        x[i] = v[s], …, v[s + length - 1]     s = first + stride · i
        y[i] = v[s + length], …, v[s + length + horizon - 1]
        y[i] = v[s + horizon], …, v[s + horizon + length - 1]           every_step=True: for each step what follows it

    What `fit`, `evaluate` and `predict` take as ``x``. The series can be longer than memory holds: `FileRows`, or an
    array of ``np.load(path, mmap_mode="r")``.

    Arguments:
        values: (T,) or (T, n); whole numbers are ids and stay as they are.
        length: steps of x.
        horizon: how many steps are to be forecast; with ``every_step`` how far ahead each lies.
        every_step: whether there is a target for each step of x.
        targets: which columns of (T, n) are to be forecast; all when None.
        part: steps (from, to) in which all the targets of an example lie; x may reach before it.
        stride: steps from one example to the next.
        mean, scale: (n,) what ``(v - mean) / scale`` uses.

    Raises:
        ParameterError: a length, horizon or stride below 1, a column that is not there.
        DataError: too few steps for a single example.
    """

    def __init__(
        self,
        values: np.ndarray | FileRows,
        length: int,
        horizon: int = 1,
        *,
        every_step: bool = False,
        targets: Sequence[int] | None = None,
        part: tuple[int, int] | None = None,
        stride: int = 1,
        mean: Any = 0.0,
        scale: Any = 1.0,
    ) -> None:
        for what, number in (("length", length), ("horizon", horizon), ("stride", stride)):
            if not isinstance(number, (int, np.integer)) or number < 1:
                raise ParameterError(f"{what} is a whole number from 1", where="Windows", got=repr(number))
        self.values, self.length, self.horizon, self.stride = values, length, horizon, stride
        self.every_step, self.part = every_step, part or (0, len(values))
        width = 1 if values.ndim == 1 else values.shape[1]
        self.targets = list(range(width)) if targets is None else list(targets)
        if not self.targets or not all(0 <= column < width for column in self.targets):
            raise ParameterError("no such column", where="targets", expected=f"0 … {width - 1}", got=self.targets)
        self.mean, self.scale = (np.broadcast_to(np.asarray(each, np.float64), width) for each in (mean, scale))
        self.first = max(0, self.part[0] - (horizon if every_step else length))
        last = min(self.part[1], len(values)) - length - horizon
        self.count = (last - self.first) // stride + 1
        if last < self.first:
            raise DataError(
                "there are too few steps for a single example",
                where=f"steps {self.part[0]:,} to {self.part[1]:,}",
                expected=f"length={length} and horizon={horizon} to fit in",
                hint="a smaller length, or a larger share",
            )

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<{len(self):,} windows of {self.length} steps, {self.horizon} ahead>"

    def take(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """The examples at ``indices``.

        Returns:
            x (k, length, n) float32; y (k, horizon) float32, or (k, horizon, targets) for several targets; with
            ``every_step`` y (k, length, targets). Of ids x (k, length) and y (k, horizon) or (k, length), as they are.
        """
        starts = self._starts(indices)[:, None]
        ahead, steps = (self.horizon, self.length) if self.every_step else (self.length, self.horizon)
        return self._read(starts + np.arange(self.length)), self._wanted(starts + ahead + np.arange(steps))

    def inverse(self, y: Any) -> np.ndarray:
        """Forecasts shaped like y, in the unit of the series."""
        mean, scale = self.mean[self.targets], self.scale[self.targets]
        single = len(self.targets) == 1
        return np.asarray(y, np.float64) * (scale[0] if single else scale) + (mean[0] if single else mean)

    def naive(self, indices: Any = slice(None), season: int = 1) -> np.ndarray:
        """The forecast that needs no learning: what was there a season ago, at the same place in it.

        Arguments:
            indices: of the examples.
            season: in steps; 1 repeats the last value known.

        Returns:
            like y of `take`.

        Raises:
            ParameterError: a season that begins before the series, or a target for every step.

        Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, section 5.2.
        """
        starts = self._starts(indices)
        if self.every_step or season < 1 or starts.min(initial=self.first) + self.length < season:
            raise ParameterError(
                "there is no season before these examples",
                where="naive",
                expected=f"1 … {self.first + self.length} steps, and every_step=False",
                got=f"season={season}, every_step={self.every_step}",
            )
        back = np.arange(self.horizon) % season - season
        return self._wanted(starts[:, None] + self.length + back)

    @property
    def _ids(self) -> bool:
        return self.values.dtype.kind in "iu" and self.values.ndim == 1

    def _starts(self, indices: Any) -> np.ndarray:
        return self.first + self.stride * np.arange(self.count)[indices]

    def _read(self, steps: np.ndarray) -> np.ndarray:
        values = self.values[steps]
        if self._ids:
            return values
        values = values[..., None] if values.ndim == 2 else values
        return ((values - self.mean) / self.scale).astype(np.float32)

    def _wanted(self, steps: np.ndarray) -> np.ndarray:
        y = self._read(steps)
        if self._ids:
            return y
        y = y[..., self.targets]
        return y[..., 0] if len(self.targets) == 1 and not self.every_step else y


class Parts(NamedTuple):
    """The windows of each part of a series."""

    train: Windows
    validation: Windows
    test: Windows


def windows(
    series: Series | np.ndarray | FileRows,
    length: int,
    horizon: int = 1,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    standardize: bool = True,
    **options: Any,
) -> Parts:
    """Training, validation and test windows of a series, in this order of time.

    No target of a part is ever seen by one before it, as input or as target; inputs may reach back into the part
    before, as they do when one forecasts. Mean and scale are those of the training steps.

    Arguments:
        series: a `Series`; or (T,) or (T, n).
        length, horizon: steps of x and y: see `Windows`.
        validation, test: share of the steps, above 0, together below 1.
        standardize: whether numbers get mean 0 and standard deviation 1; ids never do.
        options: ``every_step``, ``targets``, ``stride`` of `Windows`.

    Raises:
        ParameterError: shares that leave nothing.
        DataError: too few steps for a part, values that are not finite.
    """
    values = series.values if isinstance(series, Series) else series
    if min(validation, test) <= 0 or validation + test >= 1:
        raise ParameterError(
            "each part needs a share of the steps",
            where="windows",
            expected="above 0, together below 1",
            got=f"validation={validation}, test={test}",
        )
    count = len(values)
    edges = [0, count - round(count * validation) - round(count * test), count - round(count * test), count]
    if standardize and not (values.dtype.kind in "iu" and values.ndim == 1):
        mean, scale = _moments(values, edges[1])
        options |= {"mean": mean, "scale": scale}
    return Parts(*(Windows(values, length, horizon, part=part, **options) for part in pairwise(edges)))


def _moments(values: np.ndarray | FileRows, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the first ``count`` steps, in pieces; two passes, for what is far from 0."""

    def total(of: Any) -> Any:
        return sum(of(np.asarray(values[chunk], np.float64)) for chunk in row_chunks(count, row_bytes(values)))

    mean = total(lambda block: block.sum(0)) / count
    scale = np.sqrt(total(lambda block: ((block - mean) ** 2).sum(0)) / count)
    if not np.isfinite(scale).all():
        raise DataError("a value of the series is not finite", where="windows", hint="fill_gaps(values)")
    return mean, np.where(scale > 0, scale, 1.0)
