"""Callbacks observe a training and may ask it to stop; they never change what is computed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pellucid.errors import ParameterError, unknown
from pellucid.history import flat, smaller_is_better
from pellucid.layers.base import Mode
from pellucid.layers.norm import BatchNorm
from pellucid.layers.recompute import Recompute
from pellucid.network.base import Observer
from pellucid.network.parameters import copied
from pellucid.trees import flatten, tree_map, unflatten

if TYPE_CHECKING:
    from pellucid.training.loop import Training


class Callback:
    """Base of the callbacks: every method does nothing until overridden.

    A callback whose own memory matters after an interruption gives it by `document` and `arrays`; they are kept in the
    checkpoints and come back by `restore`.

    Attributes:
        every_update: False where `on_update` may be called once for several updates that an engine made in one call.
    """

    every_update: ClassVar[bool] = True

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
        if not isinstance(patience, (int, np.integer)) or isinstance(patience, bool) or patience < 1:
            raise ParameterError(
                "patience counts epochs", where="EarlyStopping", expected="1, 2, …", got=repr(patience)
            )
        if not (math.isfinite(min_delta) and min_delta >= 0):
            raise ParameterError("min_delta must be ≥ 0", where="EarlyStopping", got=repr(min_delta))
        self.patience, self.monitor = int(patience), monitor
        self.min_delta, self.restore_best = float(min_delta), restore_best
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
        values = flat(training.history.records[-1])
        if self.monitor not in values:
            raise unknown("metric", self.monitor, values, where="EarlyStopping")
        value = values[self.monitor]
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


class WeightAveraging(Callback):
    """Ends the training with an average of its parameters: flatter minima, better on new data.

        stochastic weight averaging   W̄ := (1/n) Σ W, over the ends of the epochs after ``start``
        exponential average           W̄ := decay W̄ + (1 - decay) W, after every update from ``start`` on

    When the training is over the network gets W̄, and the running averages of `BatchNorm`, which belong to other
    parameters, are made anew: means over the batches of one more epoch. Until then, and after an interruption, nothing
    is changed; what is measured during training is W.

    Arguments:
        start: when averaging begins: a share [0, 1) of the epochs, or a number of epochs.
        decay: None is stochastic weight averaging; a number in (0, 1), such as 0.999, the exponential average.

    Source: Izmailov et al. 2018, section 3 and algorithm 1; Polyak and Juditsky 1992.
    """

    def __init__(self, start: float = 0.75, decay: float | None = None) -> None:
        whole = isinstance(start, int) and not isinstance(start, bool) and start >= 0
        if not (whole or (isinstance(start, float) and 0 <= start < 1)):
            expected = "a share [0, 1) of the epochs, or a number of epochs 0, 1, …"
            raise ParameterError("start says when", where="WeightAveraging", expected=expected, got=repr(start))
        if decay is not None and not (isinstance(decay, float) and 0 < decay < 1):
            raise ParameterError("decay is out of range", where="WeightAveraging", expected="(0, 1)", got=repr(decay))
        self.start, self.decay = start, decay
        self.every_update = decay is not None  # type: ignore[misc]
        self.count = 0
        self._mean: dict[str, Any] = {}

    def on_start(self, training: Training) -> None:
        if training.t == 0:
            self.count, self._mean = 0, {}
        if any(isinstance(each, EarlyStopping) and each.restore_best for each in training.callbacks):
            raise ParameterError(
                "the network cannot end with both the best and the average parameters",
                where="WeightAveraging",
                hint="EarlyStopping(restore_best=False), or no early stopping",
            )
        if self._first(training) >= training.epochs:
            epochs = f"{training.epochs} epochs"
            raise ParameterError("averaging never begins", where="WeightAveraging", got=f"start={self.start}, {epochs}")

    def on_update(self, training: Training) -> None:
        if self.decay is not None and training.epoch >= self._first(training):
            self._add(training, 1.0 - self.decay)

    def on_epoch(self, training: Training, record: dict[str, Any]) -> None:
        if self.decay is None and training.epoch > self._first(training):
            self._add(training, 1.0 / (self.count + 1))

    def _first(self, training: Training) -> int:
        return self.start if isinstance(self.start, int) else math.floor(self.start * training.epochs)

    def _add(self, training: Training, share: float) -> None:
        self.count += 1
        if self._mean:
            self._mean = tree_map(lambda mean, W: mean + share * (W - mean), self._mean, training.params)
        else:
            self._mean = copied(training.params)

    def on_end(self, training: Training) -> None:
        over = training.epoch == training.epochs or training.history.stopped
        if self._mean and over:
            training.params = copied(self._mean)
            training.state = _statistics(training)

    def document(self) -> dict[str, Any]:
        return {"count": self.count}

    def arrays(self) -> dict[str, Any]:
        return flatten(self._mean)

    def restore(self, document: dict[str, Any], arrays: dict[str, Any]) -> None:
        self.count, self._mean = document["count"], unflatten(arrays)


def _statistics(training: Training) -> dict[str, Any]:
    """The state with the running averages of batch normalisation as means over the batches of an epoch."""
    net, state = training.net, dict(training.state)
    seen: Counter[str] = Counter()

    class Statistics(Observer):
        def forward(self, index: int, A_prev: Any, A: Any, cache: Any) -> None:
            name = net.steps[index].name
            if name in state:
                state[name] = averaged(net.steps[index].layer, name, state[name], cache)

    def averaged(layer: Any, name: str, own: Any, cache: Any) -> Any:
        if isinstance(layer, Recompute):
            members, states = layer.members, cache.states
            return {each: averaged(members[each], f"{name}/{each}", own[each], states.get(each)) for each in own}
        if not isinstance(layer, BatchNorm):
            return own
        before = seen[name]
        seen[name] += cache.values
        # the running average whose momentum is the share of what was seen before is the mean
        return replace(layer, momentum=before / seen[name]).next_state(net.ops, own, cache)

    if any(layer.needs_batch for layer in net.names):
        for index, batch in enumerate(training.batches(training.epoch)):
            mode = Mode(True, net.ops.random_key(training.seed, training.t + index), mask=net.masks(batch.masks))
            net.forward_pass(training.params, training.state, batch.inputs, mode, observer=Statistics())
    return state
