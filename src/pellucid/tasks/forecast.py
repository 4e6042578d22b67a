"""Forecasts: from some steps of a time series those that follow, held against forecasts that need no learning."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import data, losses
from pellucid.data.reading import read_column
from pellucid.data.series import Series, Windows, fill_gaps, windows
from pellucid.errors import DataError, ParameterError, counted, unknown
from pellucid.inspect.pictures import new_figure, save
from pellucid.network.base import Network
from pellucid.tasks.base import PARTS, Finding, Said, Task

SERIES = ("co2", "sunspots", "sf-temps", "seattle-weather")
AT_ONCE = 4096  # windows forecast at a time


class Changes:
    """Windows seen from their last known value: x - v, y - v with v = x[length - 1].

    A level that training never saw, as of a series that grows, is then nothing new. What `fit` takes as ``x``.

    Arguments:
        windows: of the series.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """x (k, length, n) and y (k, horizon · targets) float32."""
        x, y = self.windows.take(indices)
        y = y.reshape(len(y), self.windows.horizon, -1) - x[:, -1:, self.windows.targets]
        return x - x[:, -1:], y.reshape(len(y), -1)

    def forecasts(self, net: Network, indices: np.ndarray) -> np.ndarray:
        """What the network says follows (k, horizon, targets), in the unit of the series."""
        made = []
        for start in range(0, len(indices), AT_ONCE):
            x, _ = self.windows.take(indices[start : start + AT_ONCE])
            change = net.predict(x - x[:, -1:]).reshape(len(x), self.windows.horizon, -1)
            made.append(self._in_units(change + x[:, -1:, self.windows.targets]))
        return np.concatenate(made)

    def truth(self, indices: np.ndarray) -> np.ndarray:
        """What followed (k, horizon, targets), in the unit of the series."""
        y = self.windows.take(indices)[1]
        return self._in_units(y.reshape(len(y), self.windows.horizon, -1))

    def naive(self, indices: np.ndarray, season: int = 1, *, growing: bool = False) -> np.ndarray:
        """What was there a season ago (k, horizon, targets); ``growing`` adds what the last season added to it."""
        w = self.windows
        made = self._in_units(w.naive(indices, season).reshape(len(indices), w.horizon, -1))
        if growing:
            x = self._in_units(w.take(indices)[0][..., w.targets])
            seasons = 1 + np.arange(w.horizon) // season
            made += (x[:, -1] - x[:, -1 - season])[:, None] * seasons[:, None]
        return made

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        w = self.windows
        return np.asarray(values, np.float64) * w.scale[w.targets] + w.mean[w.targets]


class Forecast(Task):
    """The steps that follow. Arguments as in `Task`; of the split the last steps of the series are held out."""

    kind = "forecast"
    title = "what follows in a time series"
    net = "lstm"
    options = {"length": None, "horizon": None, "season": None}  # noqa: RUF012

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
        self.series, targets, self.fingerprint = read_series(*self.reading(described, target=None, delimiter=None))
        self.name, self.report = self.series.name, list(self.series.report)
        source = described["data"]["source"]
        self.given = shlex.quote(os.path.relpath(source) if Path(source).is_file() else source)
        if self.settings["season"] is None and self.series.season == 1:
            self.report.append("no --season is given: --length and --horizon say how many steps are read and forecast")
        season = self.settings["season"] or self.series.season
        usual = {"season": season, "horizon": season, "length": 2 * season}
        self.settings = {name: self.settings[name] or value for name, value in usual.items()}
        split = described["split"]
        parts = windows(
            self.series,
            self.settings["length"],
            self.settings["horizon"],
            validation=_share(split["validation"], "validation"),
            test=_share(split["test"], "test"),
            targets=targets,
        )
        self.parts = {name: Changes(part) for name, part in zip(PARTS, parts, strict=True)}
        self.sizes = {name: len(part) for name, part in self.parts.items()}
        self.input_shape = (self.settings["length"], parts.train.scale.size)
        self.targets = [self.series.columns[column] for column in parts.train.targets]
        first, last = (self.series.times[parts.test.part[0]], self.series.times[parts.test.part[1] - 1])
        self.report.append(f"the parts follow one another in time; the test part is {first} to {last}")

    @classmethod
    def takes(cls, source: str) -> bool:
        return source in SERIES and not Path(source).is_file()

    def rows(self, part: str) -> Changes:
        return self.parts[part]

    def preprocessing(self) -> dict[str, Any]:
        w = self.parts["train"].windows
        return {
            "task": {"kind": self.kind},
            **self.settings,
            "targets": w.targets,
            "columns": list(self.series.columns),
            "mean": w.mean.tolist(),
            "scale": w.scale.tolist(),
        }

    def described(self) -> str:
        length, horizon, step = self.settings["length"], self.settings["horizon"], self.series.step
        return f"windows of {_steps(length, step)}, to each the {horizon} that follow"

    def loss(self, named: Any) -> losses.Loss:
        loss = losses.get(named or "mean_squared_error", where="--loss")
        if loss.of_classes:
            fit = [each for each in losses.losses if not losses.losses.find(each).of_classes]
            raise ParameterError(
                f"{loss.registered_name} does not fit a forecast", where="--loss", expected=", ".join(fit)
            )
        return loss

    def outputs(self, loss: losses.Loss) -> int:
        return self.settings["horizon"] * len(self.targets)

    # --- what comes of it ---------------------------------------------------------------------------------------

    def measure(self, net: Network, rows: Changes, names: Sequence[str]) -> Finding:
        self.metrics(names)
        every = np.arange(len(rows))
        forecasts, truth = rows.forecasts(net, every), rows.truth(every)
        x, y = rows.take(every)
        values = {**net.evaluate(x, y, metrics=()), **_errors(forecasts, truth)}
        if rows is not self.parts["test"]:
            return Finding(values)
        baselines = {name: _errors(made, truth) for name, made in self._baselines(rows, every).items()}
        own = values["mean_absolute_error"]
        best = min(baselines, key=lambda name: baselines[name]["mean_absolute_error"])
        theirs = baselines[best]["mean_absolute_error"]
        share = f"{100 * abs(1 - own / theirs):.1f} %" if theirs else "much"
        verdict = (
            f"the network's forecasts are {share} nearer than the best of the others, {best}"
            if own < theirs
            else f"the network loses: {best} is nearer, its mean absolute error {theirs:.4g} against {own:.4g}"
        )
        unit = ", ".join(self.targets)
        return Finding(
            values,
            {"baselines": baselines, "better_than_baselines": bool(own < theirs)},
            f"Forecasts of {_steps(self.settings['horizon'], self.series.step)}: mean absolute error",
            _listed({"the network": values} | baselines),
            f"{verdict}\nthe loss is of standardised changes; all else is in the unit of {unit}",
            {"forecast.png": lambda path: self._draw(rows, forecasts, path)},
        )

    def _baselines(self, rows: Changes, every: np.ndarray) -> dict[str, np.ndarray]:
        """Forecasts that need no learning, where there is a season before the first window."""
        season, length = self.settings["season"], self.settings["length"]
        made = {"naive (the last value)": rows.naive(every)}
        if rows.windows.first + length >= season > 1:
            made[f"seasonal naive (a season of {season} ago)"] = rows.naive(every, season)
        if length > season > 1:
            made["seasonal naive, and what the last season added"] = rows.naive(every, season, growing=True)
        return made

    def _draw(self, rows: Changes, forecasts: np.ndarray, path: Path) -> str:
        """One forecast after the other over the test part, none looking into the steps that it forecasts."""
        w, times = rows.windows, self.series.times
        chosen = np.arange(0, len(rows), w.horizon)
        forecasts = forecasts[chosen]
        baselines = self._baselines(rows, chosen)
        name = list(baselines)[min(1, len(baselines) - 1)]
        figure = new_figure(9, 3 * len(self.targets))
        begin = max(0, w.part[0] - w.length)
        for row, (column, target) in enumerate(zip(w.targets, self.targets, strict=True)):
            axes = figure.add_subplot(len(self.targets), 1, row + 1)
            values = np.asarray(self.series.values[begin:], np.float64).reshape(len(times) - begin, -1)[:, column]
            axes.plot(times[begin:], values, color="black", linewidth=1, label="truth")
            for made, style, label in (
                (baselines[name], {"color": "#999999", "linewidth": 1, "linestyle": "--"}, name.partition(" (")[0]),
                (forecasts, {"color": "#D55E00", "linewidth": 1.2}, "network"),
            ):
                if w.horizon == 1:  # points, which are seen as a line only together
                    axes.plot(times[chosen + w.first + w.length], made[:, 0, row], label=label, **style)
                    continue
                for i, start in enumerate(chosen):
                    steps = times[w.first + start + w.length :][: w.horizon]
                    axes.plot(steps, made[i, :, row], label=None if i else label, **style)
            if w.horizon > 1:
                for start in chosen:
                    axes.axvline(times[w.first + start + w.length], color="#dddddd", linewidth=0.5, zorder=0)
            axes.set_ylabel(target)
            if not row:
                axes.set_title(
                    f"{self.name}: forecasts of {_steps(w.horizon, self.series.step)}, each made at a grey line"
                    if w.horizon > 1
                    else f"{self.name}: forecasts of the next {self.series.step}",
                    loc="left",
                    fontsize=11,
                    fontweight="bold",
                )
                axes.legend(frameon=False, fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        save(figure, path)
        return ""

    @classmethod
    def evaluate(cls, net: Network, source: str, names: Sequence[str] | None, **reading: Any) -> tuple[Finding, int]:
        cls.refuse(**reading, metrics=names)
        said, series = _read_again(net, source)
        rows = Changes(_windows_of(said, series.values))
        every = np.arange(len(rows))
        return Finding(_errors(rows.forecasts(net, every), rows.truth(every))), len(rows)

    @classmethod
    def predict(cls, net: Network, source: str, *, probabilities: bool = False, **reading: Any) -> Said:
        if probabilities:
            raise ParameterError("a forecast has no probabilities", where="--probabilities")
        cls.refuse(**reading)
        said, series = _read_again(net, source)
        length, horizon = said["length"], said["horizon"]
        values = np.asarray(series.values[-length:], np.float64).reshape(-1, len(said["mean"]))
        if len(values) < length:
            raise DataError(
                "the series is too short", where=source, expected=f"{length} steps or more", got=len(values)
            )
        ahead = np.concatenate([values, np.repeat(values[-1:], horizon, axis=0)])  # of what follows nothing is read
        made = Changes(_windows_of(said, ahead)).forecasts(net, np.array([0]))[0]
        every = series.times[-1] - series.times[-2]
        times = [str(series.times[-1] + every * (step + 1)) for step in range(horizon)]
        columns = {said["columns"][column]: made[:, i].tolist() for i, column in enumerate(said["targets"])}
        return Said({"time": times, **columns}, {"times": times, "forecasts": columns}, series.report)

    def next_steps(self, run: Path) -> list[tuple[str, str]]:
        return [
            (f"pellucid predict {run} {self.given}", "what follows the end of the series"),
            (f"pellucid show {run}", "layers, hyperparameters, parameters"),
            (f"pellucid step {run} --example 0", "one iteration, every value laid open"),
        ]


def read_series(source: str, target: Any = None, delimiter: str | None = None) -> tuple[Series, list[int] | None, str]:
    """A series, the columns to forecast (None: all), and the fingerprint of its values.

    Arguments:
        source: a name of `SERIES`; a file of numbers, ``.npy``, which is not read into memory, (T,) or (T, n); or a
            table, whose column ``target`` is taken in the order of its rows.
        target: the column to forecast; of a set of the catalog the beginning of its name will do.
        delimiter: between the columns of a table.

    Raises:
        DataError: no series, or values that are missing.
        ParameterError: a column that is not there.
    """
    path = Path(source)
    report: list[str] = []
    if not path.is_file():
        if source not in SERIES:
            raise DataError(
                "there is no such series", where=source, expected=f"a table, an .npy file, or {', '.join(SERIES)}"
            )
        series = data.time_series(source)
        found = [i for i, name in enumerate(series.columns) if target and name.startswith(str(target))]
        if target and not found:
            raise unknown("column", str(target), series.columns, where="--target")
        return series, found or None, _fingerprint(series.values)
    if path.suffix == ".npy":
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as failure:
            raise DataError(
                "no array of numbers", where=source, expected="numbers in an .npy file", got=failure
            ) from None
        if values.ndim not in (1, 2) or values.dtype.kind not in "fiu":
            raise DataError(
                "no series", where=source, expected="numbers (T,) or (T, n)", got=f"{values.dtype} {values.shape}"
            )
        names = ["value"] if values.ndim == 1 else [str(i) for i in range(values.shape[1])]
        columns = None if target is None else [names.index(str(target))] if str(target) in names else []
        if columns == []:
            raise unknown("column", str(target), names, where="--target")
    else:
        name, values, report = read_column(path, target, delimiter)
        names, columns = [name], None
        if gaps := int(np.isnan(values).sum()):
            values = fill_gaps(values)
            report = [*report, f"{counted(gaps, 'gap is', 'gaps are')} filled with the last value measured"]
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    series = Series(path.stem, values, np.arange(len(values)), "step", 1, names, report)
    return series, columns, _fingerprint(values)


def _fingerprint(values: np.ndarray) -> str:
    digest = hashlib.sha256(str(values.shape).encode())
    for start in range(0, len(values), 1 << 20):
        digest.update(np.ascontiguousarray(values[start : start + (1 << 20)]).tobytes())
    return digest.hexdigest()


def _read_again(net: Network, source: str) -> tuple[dict[str, Any], Series]:
    """The preprocessing of a network, and a series that fits it."""
    said = dict(net.preprocessing or {})
    path = Path(source)
    target = said["columns"][0] if path.is_file() and path.suffix != ".npy" else None
    series, _, _ = read_series(source, target)
    width = 1 if series.values.ndim == 1 else series.values.shape[1]
    if width != len(said["mean"]):
        raise DataError(
            "another number of columns than in training", where=source, expected=len(said["mean"]), got=width
        )
    return said, series


def _windows_of(said: Mapping[str, Any], values: np.ndarray) -> Windows:
    own = {name: said[name] for name in ("targets", "mean", "scale")}
    return Windows(values, said["length"], said["horizon"], **own)


def _errors(forecasts: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    off = forecasts - truth
    return {
        "mean_absolute_error": float(np.abs(off).mean()),
        "root_mean_squared_error": float(np.sqrt(np.square(off).mean())),
    }


def _steps(number: int, step: str) -> str:
    return counted(number, step, f"{step}s")


def _listed(errors: Mapping[str, Mapping[str, float]]) -> str:
    width = max(map(len, errors))
    return "\n".join(f"{name:<{width}}  {each['mean_absolute_error']:.4g}" for name, each in errors.items())


def _share(given: Any, part: str) -> float:
    if isinstance(given, float) and 0 < given < 1:
        return given
    raise ParameterError(
        "of a series a share is held out", where=f"--{part}", expected="above 0 and below 1, such as 0.1", got=given
    )


TASK = Forecast
