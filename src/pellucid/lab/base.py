"""What an experiment of the lab is: a question, and what was predicted and measured for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data import load
from pellucid.training.split import split_indices

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
# Student's t: 97.5 % quantile by degrees of freedom, from 1; beyond them, that of the normal distribution and a little.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Finding:
    """One thing that theory foretells, beside what came out.

    Arguments:
        what: the quantity, with its unit.
        predicted: its value by theory.
        measured: its value in this run.
        tolerance: the largest relative difference between the two that theory allows here.
    """

    what: str
    predicted: float
    measured: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether they differ by no more than the tolerance, relative to the prediction; absolutely where that is 0."""
        return abs(self.measured - self.predicted) <= self.tolerance * (abs(self.predicted) or 1.0)


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Arguments:
        head: the columns of the table.
        rows: its rows.
        findings: predictions and measurements.
        picture: the picture drawn.
        notes: what the reader should know of data and method.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    findings: tuple[Finding, ...]
    picture: Path
    notes: tuple[str, ...] = field(default=())

    @property
    def agrees(self) -> bool:
        """Whether everything came out as theory foretells."""
        return all(each.agrees for each in self.findings)

    def document(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "table": [dict(zip(self.head, row, strict=True)) for row in self.rows],
            "findings": [{**vars(each), "agrees": each.agrees} for each in self.findings],
            "picture": str(self.picture),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Experiment:
    """An experiment of the lab.

    Arguments:
        name: as in ``pellucid lab name``.
        title: one line.
        question: what it answers.
        run: ``run(out, *, seed, quick) -> Result``; writes its picture into the folder ``out``; ``quick`` makes it
            small enough for a test.
    """

    name: str
    title: str
    question: str
    run: Callable[..., Result]


def digits(held_out: float, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The embedded handwritten digits: x, y to learn from, and x, y held out; pixels (m, 1, 8, 8) from 0 to 1.

    Arguments:
        held_out: their share or number, the classes in proportion.
        seed: of who is held out.
    """
    whole = load("digits")
    x, y = whole.take(slice(None))
    labels = np.asarray(y, dtype=np.int64)
    split = split_indices(len(labels), validation=held_out, test=0, labels=labels, seed=seed)
    x = x.astype(np.float32) / 16
    return x[split.train], labels[split.train], x[split.validation], labels[split.validation]


def standardised_digits(m: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first m of the digits, or all: x (m, 64) with mean 0 and deviation 1 over all pixels, and classes."""
    whole = load("digits")
    taken, classes = whole.take(slice(m))
    x = np.reshape(taken, (len(taken), -1))
    return (x - x.mean()) / x.std(), np.asarray(classes)


def mean_and_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean, and the half width of its 95 % confidence interval: t · s / √n, by Student's t of n - 1 degrees.

    Arguments:
        values: n of them, one for each seed; of one alone, or with one that is not finite, the interval is NaN.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return float(np.mean(values)), float("nan")
    t = _STUDENT[n - 2] if n - 2 < len(_STUDENT) else 1.96 + 2.5 / (n - 1)
    return float(np.mean(values)), float(t * np.std(values, ddof=1) / np.sqrt(n))


def tidy(axes: Any, title: str, x: str = "", y: str = "") -> None:
    """One panel of a picture as all of the lab's look: a title at the left, light lines, labels in grey.

    Arguments:
        axes: matplotlib's.
        title: what the panel shows.
        x, y: labels of the axes, with units.
    """
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(x, color="#444444", fontsize=9)
    axes.set_ylabel(y, color="#444444", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(which="both", color="#999999", labelcolor="#444444", labelsize=8)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
