"""Pictures of a study: how the loss fell, what mattered, each hyperparameter alone, and all together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.inspect.pictures import new_figure, save

if TYPE_CHECKING:
    from pellucid.tune.space import Dimension
    from pellucid.tune.study import Study, Trial

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#B0B0B0"
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 11, "fontweight": "bold"}


def draw(study: Study, importances: dict[str, float], folder: Path) -> list[Path]:
    """Draw a study into its folder.

    Arguments:
        study: with a complete trial or more.
        importances: of `Study.importances`.
        folder: where the pictures go.

    Returns:
        ``history.png``, and, where anything was searched, ``importances.png``, ``slices.png`` and ``parallel.png``.

    Raises:
        EngineError: matplotlib is not installed.
    """
    drawn = [history(study, folder / "history.png")]
    if importances:
        drawn.append(important(importances, folder / "importances.png"))
    trials = [each for each in study.complete if each.settings]
    if trials and study.space.searched:
        drawn.append(slices(study, trials, folder / "slices.png"))
        drawn.append(parallel(study, trials, folder / "parallel.png"))
    return drawn


def history(study: Study, path: Path) -> Path:
    """The validation loss of each trial over the seconds that all had taken when it ended, and the lowest so far."""
    figure = new_figure(7.5, 4)
    axes = figure.subplots()
    done = [each for each in study.counted if each.seconds is not None]
    spent = np.cumsum([each.seconds for each in done]) if done else np.zeros(0)
    ends = {each.number: float(at) for each, at in zip(done, spent, strict=True)}
    complete = sorted(study.complete, key=lambda each: each.number)
    losses = [each.loss or 0.0 for each in complete]
    x = [ends[each.number] for each in complete]
    axes.scatter(x, losses, s=16, color=_GREY, label="a trial")
    early = [
        ends[each.number] for each in done if each.state not in ("complete", "confirmed")
    ]  # of some draws or epochs: no loss to compare
    if early:
        foot = axes.get_xaxis_transform()
        axes.plot(
            early, [0.0] * len(early), "|", color=_GREY, transform=foot, clip_on=False, label="one that ended early"
        )
    axes.step(x, np.minimum.accumulate(losses), where="post", color=_BLUE, label="lowest so far")
    if study.baseline is not None:
        axes.axhline(study.baseline.loss, color=_ORANGE, linewidth=1, linestyle="--", label="the recipe as it stands")
    _loss_axis(axes.yaxis, [value for value in losses if value])
    axes.set_xlabel("seconds of training, all trials together")
    axes.set_ylabel("validation loss")
    axes.set_title("Search", **_TITLE)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def important(importances: dict[str, float], path: Path) -> Path:
    """How much of the loss's variation each hyperparameter explains."""
    figure = new_figure(6.5, 0.9 + 0.3 * len(importances))
    axes = figure.subplots()
    names = list(importances)[::-1]
    bars = axes.barh([_spoken(name) for name in names], [importances[name] for name in names], color=_BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_xlim(0, 1.12 * max(importances.values()))
    axes.set_xlabel("share of the variation of the loss's rank")
    axes.set_title("What mattered", **_TITLE)
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def slices(study: Study, trials: Sequence[Trial], path: Path) -> Path:
    """Each hyperparameter against the loss; the later, the darker; the best with a ring; the recipe's loss dashed."""
    names = [name for name in study.space.searched if any(name in each.settings for each in trials)]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(2.6 * columns + 0.6, 2.3 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, name in zip(grid.flat, names, strict=False):
        having = [each for each in trials if name in each.settings]
        dimension = study.space.dimensions[name]
        x = [_place(dimension, each.settings[name]) for each in having]
        losses = [each.loss for each in having]
        axes.scatter(x, losses, c=[each.number for each in having], cmap="Blues", vmin=-20, s=14)
        if name in study.best.settings:
            at = (_place(dimension, study.best.settings[name]), study.best.loss)
            axes.scatter(*at, s=70, facecolors="none", edgecolors=_ORANGE, linewidths=1.5)
        if study.baseline is not None:
            axes.axhline(study.baseline.loss, color=_ORANGE, linewidth=1, linestyle="--")
        _value_axis(axes, dimension)
        axes.set_title(_spoken(name), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    known = [*trials, *([study.baseline] if study.baseline else [])]
    _loss_axis(grid[0, 0].yaxis, [each.loss for each in known if each.loss])
    figure.supxlabel("the later the trial, the darker; ring: the best; dashed: the recipe as it stands", fontsize=7)
    figure.supylabel("validation loss", fontsize=9)
    return save(figure, path)


def parallel(study: Study, trials: Sequence[Trial], path: Path) -> Path:
    """A line for each trial through its hyperparameters, dotted past those that it has not."""
    names = [name for name in study.space.searched if any(name in each.settings for each in trials)]
    figure = new_figure(max(6.0, 1.05 * len(names) + 1.5), 4)
    axes = figure.subplots()
    good, best = max(1, len(trials) // 10), study.best.number
    for rank, trial in reversed(list(enumerate(trials))):
        y = [
            study.space.dimensions[name].share(trial.settings[name]) if name in trial.settings else math.nan
            for name in names
        ]
        there = [place for place, share in enumerate(y) if not math.isnan(share)]
        color = _ORANGE if trial.number == best else _BLUE if rank < good else _GREY
        width = 2.0 if trial.number == best else 1.2 if rank < good else 0.5
        options = {"color": color, "alpha": 1.0 if rank < good else 0.5, "zorder": len(trials) - rank}
        axes.plot(range(len(names)), y, linewidth=width, **options)
        axes.plot(there, [y[place] for place in there], linewidth=width / 2, linestyle=":", **options)
    for place, name in enumerate(names):
        dimension = study.space.dimensions[name]
        axes.axvline(place, color="black", linewidth=0.6)
        values = dimension.choices or (dimension.low, dimension.high)
        for value in values:
            share = dimension.share(value)
            axes.annotate(
                _text(value), (place, share), xytext=(3, 0), textcoords="offset points", fontsize=6.5, va="center",
                zorder=10_000, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
            )  # fmt: skip
    axes.set_xticks(range(len(names)), [_spoken(name) for name in names], rotation=30, ha="right", fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(names) - 0.3)
    axes.spines[:].set_visible(False)
    drawn = best in [each.number for each in trials]
    said = "Complete trials: the best in orange" if drawn else "The recipe is best and not drawn"
    axes.set_title(f"{said}; the best tenth in blue", **_TITLE)
    return save(figure, path)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _place(dimension: Dimension, value: Any) -> float:
    return float(dimension.choices.index(value)) if dimension.choices else float(value)


def _value_axis(axes: Any, dimension: Dimension) -> None:
    if dimension.choices:
        labels = [_text(each) for each in dimension.choices]
        axes.set_xticks(range(len(labels)), labels, rotation=30 if max(map(len, labels)) > 3 else 0, ha="right")
        axes.set_xlim(-0.5, len(labels) - 0.5)
        return
    low, high = dimension.low, dimension.high
    if dimension.log:
        axes.set_xscale("log")
        axes.set_xlim(low * 0.8, high * 1.25)
        axes.minorticks_off()
        if high < 100 * low:  # hardly a power of ten within
            axes.set_xticks([low, high], [_text(low), _text(high)])
    else:
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        axes.locator_params(axis="x", nbins=4, integer=dimension.whole)


def _loss_axis(axis: Any, losses: Sequence[float]) -> None:
    """A logarithmic scale where the losses are far apart."""
    if losses and min(losses) > 0 and max(losses) > 4 * min(losses):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axis.axes.set_yscale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
