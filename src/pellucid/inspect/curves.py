"""A run's curves, in the terminal and as a picture; a confusion matrix as a picture."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import DataError, ShapeError, need, unknown
from pellucid.inspect.pictures import new_figure, save

if TYPE_CHECKING:
    from pellucid.history import History

# Okabe and Ito's colours, which stay apart for colour-blind readers: training, validation, then further runs.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_TERMINAL_COLORS = {"train": "\033[38;5;33m", "validation": "\033[38;5;208m"}
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # dot of a 4 × 2 cell, by row and column
_NOT_METRICS = ("epoch", "step", "seconds", "learning_rate")
_LOG_RATIO = 50.0  # a curve that falls further than this is unreadable on a linear scale
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 11, "fontweight": "bold"}
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")


def terminal(
    history: History,
    width: int = 80,
    height: int = 12,
    color: bool | None = None,
    *,
    metric: str = "loss",
    ascii: bool | None = None,
) -> str:
    """One metric's curves as text: training as a line, validation dashed, each named at its end.

    Arguments:
        history: of the run.
        width: columns, at least 40.
        height: lines, at least 6.
        color: None is yes on a terminal unless ``NO_COLOR`` is set.
        metric: the name, without ``validation_``.
        ascii: draw with ASCII characters only; None is where standard output is not UTF-8.

    Returns:
        The drawing, without a newline at its end.

    Raises:
        ParameterError: an unknown metric.
    """
    width, height = max(width, 40), max(height, 6)
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if ascii is None:
        ascii = "utf" not in (getattr(sys.stdout, "encoding", None) or "").lower()
    parts = _parts(history, metric)
    if not parts and len(history):
        known = {name.removeprefix("validation_") for name in history.metrics}
        raise unknown("metric", metric, known, where="curves")
    curves = {part: points for part, name in parts.items() if (points := _finite(history, name))[0].size}
    if not curves:
        return f"{_label(metric)}: nothing to draw{_gap_note(history, metric)}"
    ends = {part: f" {part} {y[-1]:.3g}" for part, (_, y) in curves.items()}
    all_y = np.concatenate([y for _, y in curves.values()])
    logarithmic = _is_logarithmic(all_y)
    scale = np.log10 if logarithmic else np.asarray
    low, high = float(scale(all_y.min())), float(scale(all_y.max()))
    rows = height - 3
    ticks = {0: high, rows // 2: high + (low - high) * (rows // 2) / (rows - 1), rows - 1: low}
    names = {row: f"{10**value if logarithmic else value:.3g}" for row, value in ticks.items()}
    margin = max(map(len, names.values()))
    columns = width - margin - 3 - max(map(len, ends.values()))
    first, last = history.epochs[0], history.epochs[-1]

    down, across = (1, 1) if ascii else (4, 2)
    cells: dict[tuple[int, int], tuple[int, str]] = {}  # (row, column) -> braille dots, the part on top
    end_rows: dict[int, str] = {}
    for part, (x, y) in curves.items():
        dots_x = (x - first) / max(last - first, 1) * (columns * across - 1)
        dots_y = (high - scale(y)) / ((high - low) or 1) * (rows * down - 1)
        for i, (dot_x, dot_y) in enumerate(_line(dots_x, dots_y)):
            if part == "validation" and len(x) > 1 and i % (3 * across) >= 2 * across:
                continue
            place = dot_y // down, dot_x // across
            dots = cells.get(place, (0, part))[0] | _BRAILLE[dot_y % down][dot_x % across]
            cells[place] = dots, part
        row = round(float(dots_y[-1])) // down
        if row in end_rows:  # the two ends share a line: the lower curve's name moves down, or the upper one's up
            lower = part if y[-1] < curves[end_rows[row]][1][-1] else end_rows[row]
            upper = part if lower != part else end_rows[row]
            end_rows |= {row: upper, row + 1: lower} if row + 1 < rows else {row - 1: upper, row: lower}
        else:
            end_rows[row] = part

    def paint(text: str, part: str) -> str:
        return f"{_TERMINAL_COLORS[part]}{text}\033[0m" if color else text

    tick, side, corner, bar = "+|+-" if ascii else "┤│└─"
    lines = [_label(metric) + (" (logarithmic)" if logarithmic else "") + _gap_note(history, metric)]
    for row in range(rows):
        drawn = "".join(
            paint({"train": "*", "validation": "o"}[cell[1]] if ascii else chr(0x2800 + cell[0]), cell[1])
            if (cell := cells.get((row, column)))
            else " "
            for column in range(columns)
        )
        end = paint(ends[end_rows[row]], end_rows[row]) if row in end_rows else ""
        lines.append(f"{names.get(row, ''):>{margin}} {tick if row in names else side}{drawn}{end}".rstrip())
    lines.append(" " * (margin + 1) + corner + bar * columns)
    axis = f"{first}{f'epoch {last}'.rjust(columns - len(str(first))) if last > first else ''}"
    lines.append(" " * (margin + 2) + axis)
    return "\n".join(lines)


def png(history: History | Mapping[str, History], path: str | os.PathLike) -> Path:
    """The curves as a picture: loss, every other metric, the learning rate if it varies, gradient norms if recorded.

    Arguments:
        history: of one run, or of several by name, which are laid over one another.
        path: the picture; its ending says the format: ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        ``path``.

    Raises:
        DataError: nothing was measured.
        ParameterError: another ending.
        EngineError: matplotlib is not installed.
        CheckpointError: the file cannot be written.
    """
    runs = dict(history) if isinstance(history, Mapping) else {"": history}
    names = dict.fromkeys(name.removeprefix("validation_") for each in runs.values() for name in each.metrics)
    metrics = [name for name in names if name not in _NOT_METRICS]
    draws: list[Any] = [lambda axes, metric=metric: _draw_metric(axes, runs, metric) for metric in metrics]
    if any(len(set(_finite(each, "learning_rate")[1])) > 1 for each in runs.values() if "learning_rate" in each):
        draws.append(lambda axes: _draw_learning_rate(axes, runs))
    alone = next(iter(runs.values())) if len(runs) == 1 else None
    if alone is not None and any(
        "gradient_norm" in each for record in alone for each in (record.get("layers") or {}).values()
    ):
        draws.append(lambda axes: _draw_gradient_norms(axes, alone))

    if not draws:
        raise DataError("there is no curve to draw: nothing was measured", where=str(path))
    across = min(len(draws), 2)
    down = math.ceil(len(draws) / across)
    figure = new_figure(5.4 * across, 3.5 * down + 0.3)
    for i, draw in enumerate(draws):
        # the last of an odd number takes the whole row
        last_alone = i == len(draws) - 1 and len(draws) % across
        axes = figure.add_subplot(down, across, (i + 1, i + 2) if last_alone else i + 1)
        draw(axes)
        _tidy(axes)
    return save(figure, path)


def confusion_png(matrix: Any, class_names: Sequence[Any], path: str | os.PathLike) -> Path:
    """A confusion matrix as a picture: counts, shaded by their share of the true class.

    Where no font here holds all letters of the names, the classes are drawn as numbers, from 0.

    Arguments:
        matrix: (classes, classes); row: the true class, column: the predicted one, as scikit-learn has it.
        class_names: of each class.
        path: the picture; its ending says the format: ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        ``path``.

    Raises:
        ShapeError: the matrix is not square, or does not fit the names.
        DataError: a count that is negative or not finite.
        EngineError: matplotlib is not installed.
        CheckpointError: the file cannot be written.
    """
    matrix = np.asarray(matrix)
    classes = len(class_names)
    if matrix.shape != (classes, classes) or not classes:
        raise ShapeError(
            "a confusion matrix has a row and a column for each class",
            expected=(classes, classes) if classes else "at least one class",
            got=matrix.shape,
        )
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise DataError("a confusion matrix holds counts", expected="finite numbers, not negative")
    need("matplotlib", extra="plot")
    from matplotlib.colors import PowerNorm

    lacking = missing_letters(class_names)
    names = [str(i) if lacking else _plain_text(name) for i, name in enumerate(class_names)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-300)
    correct = np.trace(matrix) / max(float(matrix.sum()), 1e-300)
    side = float(np.clip(0.52 * classes, 3.0, 14.0))
    longest = 0.08 * min(max(map(len, names)), 24)
    figure = new_figure(side + longest + 1.6, side + longest + 1.1)
    axes = figure.add_subplot()
    # Errors are a few percent of a class: a square-root scale lets them be seen beside the diagonal.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    if classes <= 30:
        size = min(
            90 * side / classes / max(len(f"{matrix.max():g}"), 2), 11
        )  # points: the longest fills 2/3 of a cell
        for (i, j), count in np.ndenumerate(matrix):
            if count:
                ink = "white" if shares[i, j] > 0.4 else "#222222"
                weight = "bold" if i == j else "normal"
                axes.text(j, i, f"{count:g}", ha="center", va="center", color=ink, fontsize=size, fontweight=weight)
    step = math.ceil(classes / 40)
    shown = range(0, classes, step)
    long = max(map(len, names)) > 3
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90 if long else 0, fontfamily=_fonts())
    axes.set_yticks(shown, [names[i] for i in shown], fontfamily=_fonts())
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    recall = axes.secondary_yaxis("right")
    recall.set_yticks(
        shown, [f"{shares[i, i]:.1%}" if matrix[i].any() else "–" for i in shown], fontsize=9, color="#666666"
    )
    recall.set_ylabel("recall", color="#666666")
    for each in (axes, recall):
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    if classes <= 40:
        axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.set_title(f"{correct:.2%} of {matrix.sum():,g} correct", loc="left", fontsize=11, color="#444444")
    if lacking:
        note = "classes by number, from 0:\nno font here has the letters of their names"
        figure.supxlabel(note, fontsize=8, color="#444444")
    return save(figure, path)


def missing_letters(names: Sequence[Any]) -> str:
    """The letters of ``names`` that no font used here holds, each once.

    Raises:
        EngineError: matplotlib is not installed.
    """
    need("matplotlib", extra="plot")
    from matplotlib.font_manager import findfont, get_font

    fonts = [get_font(findfont(name)) for name in _fonts()]
    letters = sorted({letter for name in names for letter in str(name) if not letter.isspace()})
    return "".join(letter for letter in letters if not any(font.get_char_index(ord(letter)) for font in fonts))


def _draw_metric(axes: Any, runs: dict[str, History], metric: str) -> None:
    alone, values, validated = "" in runs, [], False
    for color, (run, history) in zip(_cycle(len(runs)), runs.items(), strict=True):
        parts = _parts(history, metric)
        for part, name in parts.items():
            x, y = _finite(history, name)
            values.append(y)
            main = part == list(parts)[-1]
            validated |= part == "validation"
            best = _best(history, name) if main else None
            axes.plot(
                x,
                y,
                color=_COLORS[part == "validation"] if alone else color,
                linewidth=2.0 if main else 1.4,
                linestyle="-" if main or alone else "--",
                alpha=1.0 if main or alone else 0.6,
                label=(part if alone else _plain_text(run) if main else "")
                + (f" (best {best[1]:.4g}, epoch {best[0]})" if best else ""),
                # a line needs two points, and the best one is a ring
                marker="o" if best or len(x) == 1 else None,
                markevery=[list(x).index(best[0])] if best else None,
                markersize=8 if alone else 6,
                markerfacecolor="white" if best else None,
                markeredgewidth=1.8,
            )
            if best and alone:
                axes.axvline(best[0], color="#999999", linewidth=0.8, linestyle=":", zorder=0)
    if _is_logarithmic(np.concatenate(values)):
        axes.set_yscale("log")
    axes.set_title(_label(metric) + (_gap_note(runs[""], metric) if alone else ""), **_TITLE)
    note = "solid: validation, dashed: training" if validated and not alone else None
    axes.legend(framealpha=0.85, edgecolor="none", prop={"family": _fonts(), "size": 9}, title=note, title_fontsize=8)


def _best(history: History, name: str) -> tuple[int, float] | None:
    try:
        record = history.best(name)
    except DataError:
        return None
    return record["epoch"], history[name][history.epochs.index(record["epoch"])]


def _draw_learning_rate(axes: Any, runs: dict[str, History]) -> None:
    for color, (name, history) in zip(_cycle(len(runs)), runs.items(), strict=True):
        if "learning_rate" in history:
            axes.plot(*_finite(history, "learning_rate"), color=color if name else "#555555", linewidth=1.6)
    axes.set_title("learning rate", **_TITLE)


def _draw_gradient_norms(axes: Any, history: History) -> None:
    from matplotlib import colormaps

    norms = history.layers("gradient_norm")
    for i, (layer, values) in enumerate(norms.items()):
        y = np.array(values)
        drawn = np.isfinite(y) & (y > 0)
        label = _plain_text(layer) if len(norms) <= 10 or i in (0, len(norms) - 1) else None
        shade = colormaps["viridis"](0.9 * i / max(len(norms) - 1, 1))
        marker = "o" if drawn.sum() < 2 else None
        axes.plot(np.array(history.epochs)[drawn], y[drawn], color=shade, linewidth=1.6, label=label, marker=marker)
    axes.set_yscale("log")
    axes.set_title("gradient norm of each layer", **_TITLE)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _tidy(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch", color="#444444")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(which="both", color="#999999", labelcolor="#444444", labelsize=9)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.03, y=0.1)


def _fonts() -> list[str]:
    """The fonts that are there, of those that between them hold Latin and Korean letters."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return [name for name in _FONTS if name in there]


def _cycle(count: int) -> list[str]:
    return [_COLORS[i % len(_COLORS)] for i in range(count)]


def _plain_text(name: Any) -> str:
    return str(name).replace("$", r"\$")  # matplotlib would typeset what stands between dollars


def _label(metric: str) -> str:
    return metric.replace("_", " ")


def _parts(history: History, metric: str) -> dict[str, str]:
    """``{"train": name, "validation": name}`` of the metric, those that were recorded."""
    names = {"train": metric, "validation": f"validation_{metric}"}
    return {part: name for part, name in names.items() if name in history}


def _finite(history: History, name: str) -> tuple[np.ndarray, np.ndarray]:
    epochs, values = np.array(history.epochs), np.array(history[name], dtype=float)
    return epochs[np.isfinite(values)], values[np.isfinite(values)]


def _gap_note(history: History, metric: str) -> str:
    gaps = [each["epoch"] for each in history if not math.isfinite(each.get("train", {}).get(metric, 0))]
    return f" (not finite at epoch {gaps[0]}{' and others' if len(gaps) > 1 else ''})" if gaps else ""


def _is_logarithmic(values: np.ndarray) -> bool:
    return bool(values.size and values.min() > 0 and values.max() / values.min() > _LOG_RATIO)


def _line(x: np.ndarray, y: np.ndarray) -> list[tuple[int, int]]:
    """The dots on the straight lines from point to point, each once, in order."""
    dots = [(round(float(x[0])), round(float(y[0])))]
    for i in range(len(x) - 1):
        steps = max(1, math.ceil(max(abs(x[i + 1] - x[i]), abs(y[i + 1] - y[i]))))
        for t in np.arange(1, steps + 1) / steps:
            dot = round(float(x[i] + t * (x[i + 1] - x[i]))), round(float(y[i] + t * (y[i + 1] - y[i])))
            if dot != dots[-1]:
                dots.append(dot)
    return dots
