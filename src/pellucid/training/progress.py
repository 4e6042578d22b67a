"""What a training shows while it runs: a bar on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from pellucid.errors import ParameterError
from pellucid.training.callbacks import Callback

if TYPE_CHECKING:
    from pellucid.training.loop import Training


COMPILING = "compiling the step; the next run of it finds it compiled"


class Lines(Callback):
    """One plain line for each epoch."""

    def on_start(self, training: Training) -> None:
        if training.ops.compiles:
            print(COMPILING, file=sys.stderr, flush=True)

    def on_epoch(self, training: Training, record: dict[str, Any]) -> None:
        print(line(record, training.epochs), file=sys.stderr, flush=True)

    def on_end(self, training: Training) -> None:
        if training.history.stopped:
            print(f"stopped: {training.history.stopped}", file=sys.stderr, flush=True)


class Bar(Callback):
    """A bar over the run's updates, and a line for each epoch above it."""

    every_update = False

    def on_start(self, training: Training) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        total = training.epochs * training.batches_per_epoch
        self._task = self._bar.add_task(
            "",
            total=total,
            completed=training.epoch * training.batches_per_epoch + training.batch,
            epoch=training.epoch + 1,
            epochs=training.epochs,
            loss="…",
        )
        self._drawn = 0.0
        if training.ops.compiles:
            self._console.print(COMPILING, style="dim")
        self._bar.start()

    def on_update(self, training: Training) -> None:
        now = time.monotonic()
        if now - self._drawn > 0.1:
            self._drawn = now
            loss = f"{training.last_loss():.4f}"
            self._bar.update(
                self._task,
                completed=training.epoch * training.batches_per_epoch + training.batch,
                epoch=training.epoch + 1,
                loss=loss,
            )

    def on_epoch(self, training: Training, record: dict[str, Any]) -> None:
        self._console.print(line(record, training.epochs), highlight=False)

    def on_end(self, training: Training) -> None:
        self._bar.stop()
        if training.history.stopped:
            self._console.print(f"stopped: {training.history.stopped}", highlight=False)


def line(record: dict[str, Any], epochs: int) -> str:
    """An epoch as one line: ``epoch  3/10  1.2 s  train loss 0.31 accuracy 0.91 · validation loss …``."""
    parts = [f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  {record['seconds']:.1f} s"]
    for part in ("train", "validation"):
        if part in record:
            values = " ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in record[part].items())
            parts.append(f"{part}  {values}")
    return "   ".join(parts)


def shown(progress: bool | str) -> list[Callback]:
    """The callback that ``progress`` asks for: ``"auto"`` is a bar on a terminal and lines elsewhere, False nothing."""
    if progress not in ("auto", True, False):
        raise ParameterError("cannot be used as progress", where="fit", expected="'auto' or False", got=repr(progress))
    if progress is False:
        return []
    return [Bar() if sys.stderr.isatty() else Lines()]
