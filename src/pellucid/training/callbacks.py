"""Callbacks observe a training and may ask it to stop; they never change what is computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pellucid.errors import ParameterError
from pellucid.network.parameters import copied
from pellucid.trees import flatten, unflatten

if TYPE_CHECKING:
    from pellucid.training.loop import Training


class Callback:
    """Base of the callbacks: every method does nothing until overridden.

    A callback whose own memory matters after an interruption gives it by `document` and `arrays`; they are kept in the
    checkpoints and come back by `restore`.
    """

    def on_start(self, training: Training) -> None:
        """Before the first update, and again when a run is resumed."""

    def on_update(self, training: Training) -> None:
        """After an update of the parameters."""

    def on_epoch(self, training: Training, record: dict[str, Any]) -> None:
        """After an epoch; ``record`` is what the history got."""

    def on_end(self, training: Training) -> None:
        """After the last epoch, or after a stop."""

    def document(self) -> dict[str, Any]:
        """Plain values to keep in a checkpoint."""
        return {}

    def arrays(self) -> dict[str, Any]:
        """Arrays to keep in a checkpoint, by name."""
        return {}

    def restore(self, document: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Take back what `document` and `arrays` gave."""


class EarlyStopping(Callback):
    """Stops when the validation loss has not fallen for some epochs, and goes back to the best parameters.

    Arguments:
        patience: how many epochs without a better value end the training.
        monitor: what is watched, a name that `History` knows: ``"validation_loss"``, ``"validation_accuracy"``, …
        min_delta: the least change that counts as better.
        restore_best: False to keep the last parameters.

    Source: the notes' S2; Prechelt 1998.
    """

    def __init__(
        self,
        patience: int = 5,
        *,
        monitor: str = "validation_loss",
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise ParameterError(
                "patience counts epochs", where="EarlyStopping", expected="1, 2, …", got=repr(patience)
            )
        if not (math.isfinite(min_delta) and min_delta >= 0):
            raise ParameterError("min_delta must be ≥ 0", where="EarlyStopping", got=repr(min_delta))
        self.patience, self.monitor, self.min_delta, self.restore_best = patience, monitor, min_delta, restore_best
        self.best_epoch = 0
        self.best_value = math.nan
        self._best: dict[str, Any] = {}

    def on_start(self, training: Training) -> None:
        if training.epoch == 0:
            self.best_epoch, self.best_value, self._best = 0, math.nan, {}
        if training.validation is None and self.monitor.startswith("validation_"):
            raise ParameterError(
                f"early stopping watches {self.monitor}, and there are no validation examples",
                where="EarlyStopping",
                hint="fit(…, validation=0.1), or monitor='loss'",
            )

    def on_epoch(self, training: Training, record: dict[str, Any]) -> None:
        from pellucid.training.history import smaller_is_better

        value = training.history[self.monitor][-1]
        gain = self.best_value - value if smaller_is_better(self.monitor) else value - self.best_value
        if math.isnan(self.best_value) or gain > self.min_delta:
            self.best_epoch, self.best_value = record["epoch"], value
            if self.restore_best:
                self._best = {"parameters": copied(training.params), "state": copied(training.state)}
        elif record["epoch"] - self.best_epoch >= self.patience:
            training.stop(f"{self.monitor} has not improved since epoch {self.best_epoch}")

    def on_end(self, training: Training) -> None:
        if self._best and self.best_epoch < training.epoch:
            training.params, training.state = self._best["parameters"], self._best["state"]
            training.history.restored_epoch = self.best_epoch

    def document(self) -> dict[str, Any]:
        return {"best_epoch": self.best_epoch, "best_value": self.best_value}

    def arrays(self) -> dict[str, Any]:
        return flatten(self._best)

    def restore(self, document: dict[str, Any], arrays: dict[str, Any]) -> None:
        self.best_epoch, self.best_value = document["best_epoch"], document["best_value"]
        self._best = {"parameters": {}, "state": {}, **unflatten(arrays)} if arrays else {}
