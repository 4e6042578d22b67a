"""What a search shows while it runs: a line for each trial, and on a terminal a bar; always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pellucid.errors import ParameterError

if TYPE_CHECKING:
    from pellucid.tune.study import Study, Trial

_ENDED_ELSEWHERE = ("running", "waiting")


class Shown:
    """Says what has ended since the last look.

    Arguments:
        study: that is searched.
        trials: how many there will be; None where only the time is bounded.
        progress: ``"auto"``: lines, and a bar on a terminal; False: nothing.
    """

    def __init__(self, study: Study, trials: int | None, progress: bool | str) -> None:
        if progress not in ("auto", True, False):
            raise ParameterError(
                "cannot be used as progress", where="tune", expected="'auto' or False", got=repr(progress)
            )
        self._study, self._trials, self._quiet = study, trials, progress is False
        self._seen = {each.number for each in study.trials if each.state not in _ENDED_ELSEWHERE}
        self._bar: Any = None
        self._write: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Shown:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            console = Console(stderr=True)
            self._bar = Progress(
                TextColumn("trials"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("best {task.fields[best]}"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._trials, completed=len(self._seen), best="…")
            self._write = lambda text: console.print(text, highlight=False, markup=False)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def look(self) -> None:
        """Say what is new."""
        if self._quiet:
            return
        trials = self._study.trials
        done = [each for each in trials if each.state not in _ENDED_ELSEWHERE]
        searched = [each for each in done if each.loss is not None and each.confirms is None]
        best = min(searched, key=lambda e: e.loss or 0.0, default=None)
        for each in done:
            if each.number not in self._seen and each.state not in ("repeat", "not needed"):
                self._write(line(each, self._trials, best))
            self._seen.add(each.number)
        if self._bar:
            counted = sum(each.counts for each in done)
            self._bar.update(self._task, completed=counted, best="…" if best is None else f"{best.loss:.4f}")


def line(trial: Trial, trials: int | None, best: Trial | None) -> str:
    """A trial as one line: ``trial 12  3.1 s  loss 0.1042  lowest yet``."""
    width = len(str(trials)) if trials else 3
    parts = [f"trial {trial.number:>{width}}"]
    parts += [] if trial.seconds is None else [f"{trial.seconds:6.1f} s"]
    parts.append(f"loss {trial.loss:.4f}" if trial.loss is not None else trial.state)
    if trial.state not in ("complete", "confirmed", "pruned") and trial.reason:
        parts[-1] += f": {trial.reason}"
    if trial.confirms is not None:
        return "  ".join([*parts, f"trial {trial.confirms} again, with fresh draws and seeds"])
    if best is not None and trial.loss is not None:
        parts.append("lowest yet" if trial.number == best.number else f"lowest {best.loss:.4f} (trial {best.number})")
    if trial.baseline:
        parts.append("the recipe as it stands")
    return "  ".join(parts)
