"""What an experiment of the lab is: a question, and what was predicted and measured for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
