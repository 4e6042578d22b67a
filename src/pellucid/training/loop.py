"""The one training loop: forward, loss, backward, update; epoch by epoch, resumable to the bit."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from operator import add
from typing import Any, NamedTuple

import numpy as np

from pellucid import files, optimizers
from pellucid.engines.mesh import Mesh
from pellucid.errors import CheckpointError, DataError, EngineError, ParameterError, ShapeError, TrainingError
from pellucid.history import History
from pellucid.layers.base import Mode
from pellucid.network import parameters
from pellucid.network.base import Network
from pellucid.network.saving import gather
from pellucid.registry import config, own
from pellucid.runs import Run, Watched, peak_memory
from pellucid.schedules import Schedule
from pellucid.training.augment import Augmenter
from pellucid.training.batches import Batch, Source, ahead, is_rows, order, whole_number
from pellucid.training.callbacks import Callback
from pellucid.training.measuring import Seen, judged, layer_norms, measured, metrics_of, seen
from pellucid.training.progress import shown
from pellucid.training.resident import Resident
from pellucid.training.split import split_indices
from pellucid.trees import Tree, flatten, leaves, tree_map, unflatten

CHECKED_EVERY = 20  # updates: how often the cost is looked at, which on some engines waits for the device
LATEST, PREVIOUS = "latest", "previous"  # checkpoints of a run


def fit(
    net: Network,
    x: Any,
    y: Any = None,
    *,
    epochs: int = 10,
    batch_size: int | None = 32,
    optimizer: Any = "adam",
    validation: Any = None,
    sample_weight: Any = None,
    metrics: Any = "auto",
    callbacks: Iterable[Callback] = (),
    augment: Any = (),
    shuffle: bool = True,
    truncate: int | tuple[int, int] | None = None,
    seed: int | None = None,
    layer_statistics: bool = False,
    progress: bool | str = "auto",
    run: Run | str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    resume: bool = False,
    mesh: Any = None,
) -> History:
    """Train a network.

        for every epoch, for every batch:   forward → loss → backward → W := W - α dW, as the optimizer has it

    Arguments:
        net: the network; its parameters change.
        x: examples first, (m, …); by name for several inputs; or an object with ``take`` and ``len``, see `Rows`.
        y: class indices (m,) or values (m, …); by name for several outputs.
        epochs: how often every example is seen, counted from the start of the run also when resumed.
        batch_size: examples per update. 1 is stochastic descent; None is all of them, batch descent.
        optimizer: by name, as ``"adam(1e-3)"``, or as an object.
        validation: a share (0, 1) or number of the examples to hold out, stratified by class; or ``(x, y)`` or
            ``(x, y, sample_weight)``.
        sample_weight: how much each example counts, (m,); scaled to mean 1.
        metrics: by name; a dictionary of names by output; ``"auto"`` is accuracy for classes, mean absolute error and
            R² for values. They keep the outputs of an epoch in memory; () is none and keeps nothing.
        callbacks: such as `EarlyStopping`.
        augment: changes of the training images, such as ``["shift(2)", "horizontal_flip"]``, applied in this order;
            see `pellucid.training.augment`. Validation examples are never changed.
        shuffle: False keeps the examples in their order, as stateful layers need it.
        truncate: (k1, k2) or k for (k, k): truncated back-propagation through time. An update after every k1 steps of
            the sequences, its gradient going back through the last k2 of them, the state being carried on; for
            networks with an output at every step. Each step's loss counts once, and as much as in the loss of the
            whole sequence. None goes back through all the steps (Williams and Peng 1990).
        seed: of shuffling, of the split and of dropout; None is the network's.
        layer_statistics: True records every layer's gradient norm, weight norm and update-to-weight ratio.
        progress: ``"auto"``: a bar on a terminal, lines elsewhere; False: nothing.
        run: a run, to keep records and checkpoints in. A path is opened here, and closed with how it ended; a `Run`
            stays open.
        checkpoint_seconds: the least time between checkpoints within an epoch. One is written after each epoch that
            took a second, and at the end.
        resume: True goes on from the run's last checkpoint, to the bit as if never interrupted.
        mesh: devices to train on, with ``engine="jax"``: ``"data=4"`` splits every batch over four of them,
            ``"data=2,model=2"`` the units of dense layers and convolutions too, ``"data=4,sharded"`` also the memory
            for parameters and slots; or a `Mesh`. The result is one device's to rounding, and a run can be resumed on
            another mesh. None is where the network was made: on one device, or on its own ``mesh``.

    Returns:
        What happened in each epoch.

    Raises:
        DataError, ShapeError: data that cannot be trained on.
        ParameterError: a setting that cannot be used.
        TrainingError: the cost is no longer finite.
        EngineError: there are not so many devices, their memory is full, or another process of the job was lost.
        CheckpointError: a checkpoint cannot be written, or read to resume.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after the checkpoint is written; the network keeps what it
            has learned.
    """
    directory = Run.open(run) if isinstance(run, (str, os.PathLike)) else run
    training = Training(
        net,
        Source(net, x, y, sample_weight=sample_weight),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        validation=validation,
        metrics=metrics,
        callbacks=[*checked_callbacks(callbacks), *shown(progress)],
        augment=augment,
        shuffle=shuffle,
        truncate=truncate,
        seed=seed,
        layer_statistics=layer_statistics,
        run=directory,
        checkpoint_seconds=checkpoint_seconds,
        mesh=mesh,
    )
    directory = training.directory
    _check_several_classes(training.source)
    if resume:
        training.resume()
    elif directory is not None and directory.checkpoint_path(LATEST).exists():
        raise ParameterError(
            "this run was trained before", where=f"run {directory.name}", hint="resume=True to go on, or a new run"
        )
    with directory if directory is not None and not isinstance(run, Run) else contextlib.nullcontext():
        return training.run()


class Progress(NamedTuple):
    """What a training remembers beside its network: where it stands and the optimizer's memory.

    Attributes:
        epoch, t: epochs and updates done.
        slots, schedule_state: the optimizer's.
        history: the records so far.
    """

    epoch: int
    t: int
    slots: Tree
    schedule_state: dict[str, Any]
    history: History


class Training:
    """A training at one moment. `fit` makes one; callbacks are shown it.

    Attributes:
        params, state, slots: parameters, layers' state and optimizer's slots now.
        epoch: epochs done.
        batch: batches done in the present epoch.
        t: updates done in all.
        batches_per_epoch: how many batches the examples make; each is an update, or with truncated back-propagation
            several.
        history: the epochs' records, and why the training was stopped if it was.
        validation: the examples held out, or None.
    """

    def __init__(
        self,
        net: Network,
        source: Source,
        *,
        epochs: int,
        batch_size: int | None,
        optimizer: Any,
        validation: Any,
        metrics: Any,
        callbacks: Sequence[Callback],
        shuffle: bool,
        seed: int | None,
        layer_statistics: bool,
        run: Run | None,
        checkpoint_seconds: float,
        augment: Any = (),
        truncate: int | tuple[int, int] | None = None,
        mesh: Any = None,
    ) -> None:
        self.net, self.ops = net, net.ops
        self.placement = net.placement if mesh is None else net.ops.placement(Mesh.of(mesh))
        self.seed = net.seed if seed is None else whole_number("seed", seed, least=0)
        self.optimizer = optimizers.get(optimizer)
        self.source, self.validation = _held_out(net, source, validation, self.seed)
        self.epochs = whole_number("epochs", epochs)
        self.batch_size = len(self.source) if batch_size is None else whole_number("batch_size", batch_size)
        self.batches_per_epoch = math.ceil(len(self.source) / self.batch_size)
        self.truncate = _checked_truncation(net, truncate)
        self.metrics = metrics_of(net, metrics)
        self.augmenter = Augmenter(augment, net, self.source, self.seed)
        self.callbacks, self.shuffle, self.layer_statistics = list(callbacks), shuffle, layer_statistics
        self.directory = Watched(run.path) if run is not None and not self.placement.first else run
        self.checkpoint_seconds = checkpoint_seconds
        if not checkpoint_seconds >= 0:
            raise ParameterError("checkpoint_seconds must be ≥ 0", where="fit", got=repr(checkpoint_seconds))
        _check_batches(net, len(self.source), self.batch_size)
        self.placement.check(self.batch_size)
        if net.stateful and isinstance(validation, (int, float, np.number)) and validation != 0:
            raise ParameterError(
                "stateful layers go on where the batch before ended, and a share is drawn from amid the sequences",
                where="validation",
                expected="(x, y)",
                got=validation,
            )
        if net.stateful and shuffle:
            raise ParameterError(
                "stateful layers go on where the batch before ended, and shuffling mixes the sequences",
                where="fit",
                expected="shuffle=False",
                got=", ".join(sorted(net.stateful)),
            )
        counts = [len(self.source), *([] if self.validation is None else [len(self.validation)])]
        for count in counts if net.stateful else ():
            if count > self.batch_size and count % self.batch_size:
                raise ParameterError(
                    "stateful layers need batches of one size",
                    where="fit",
                    expected=f"a batch_size that divides {count}",
                    got=f"batch_size={self.batch_size}",
                )

        spread = self.placement.spread
        self.params, self.state = spread(net.parameters), spread(net.state)
        self.slots = self.optimizer.init(self.params, self.placement.full)
        self._schedule = self.optimizer, self.optimizer.schedule
        self.schedule_state = self.schedule.initial_state()
        self.history = History()
        self.epoch = self.batch = self.t = 0
        self._latest = 0  # the number of the latest batch, counted from the start
        self._tally = _Tally()
        self._step: Any = None  # while it runs; both know the training, and would keep its memory after it
        self._read: tuple[Any, ...] = ()  # by the step, beside its arguments
        self._resident: Resident | None = None
        self._adopted = False  # whether the network has the same arrays

    # --- the loop -----------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """Where it stands between epochs. Set on a training of the same network on other examples, that one goes on."""
        return Progress(self.epoch, self.t, self.slots, self.schedule_state, self.history)

    @progress.setter
    def progress(self, progress: Progress) -> None:
        self.epoch, self.t, self.slots, self.schedule_state, self.history = progress
        self._latest = max(0, self.epoch * self.batches_per_epoch - 1)
        self.history.stopped = self.history.restored_epoch = None

    def run(self, *, until: int | None = None) -> History:
        """Train until the last epoch, until epoch ``until`` or until a stop; the network gets what was learned."""
        latest = None if self.directory is None else self.directory.checkpoint_path(LATEST)
        position = {"epochs": self.epochs, "position": (self.epoch, self.batch, self.t), "mesh": self.placement.mesh}
        self.placement.begin(lambda: {**self.settings, **position}, latest)
        last = self.epochs if until is None else min(until, self.epochs)
        if self._adopted:  # after the run before; this one gives its own away
            self.params, self.state = parameters.copied(self.params), parameters.copied(self.state)
            self._adopted = False
        with self.placement.active():
            # Of several processes all or none take the loop.
            stepwise = self.placement.agreed(not Resident.fits(self), 0)
            self._resident = None if stepwise else Resident(self)
        try:
            return self._run(last)
        finally:
            self._step = self._resident = None

    def _run(self, last: int) -> History:
        self._begin()
        try:
            quiet = np.errstate(over="ignore", invalid="ignore")  # see _check_finite
            with _Interruption() as interruption, quiet, self.placement.active():
                while self.epoch < last and not self.history.stopped:
                    self._run_epoch(interruption)
                    self._stop_if_asked(interruption)
        except (TrainingError, EngineError):
            self._finish(adopt=False)
            raise
        except BaseException:
            self._finish()
            raise
        self._finish()
        return self.history

    def _begin(self) -> None:
        if self.directory is not None:
            self.directory.claim()
            recorded = self.directory.history().epochs
            for record in self.history:
                if record["epoch"] not in recorded:
                    self.directory.log(record)
        self._saved = time.monotonic()
        self.ops.peak_bytes(reset=True)
        self._call("on_start")

    def _finish(self, *, adopt: bool = True) -> None:
        with contextlib.ExitStack() as last:  # whatever a callback raises, the others end too
            if adopt:
                last.callback(self._hand_over)
            for callback in reversed(self.callbacks):
                last.callback(callback.on_end, self)

    def _hand_over(self) -> None:
        """The network gets what was learned: spread where it was made so, else on one device."""
        bring = self.placement.home
        if self.net.placement.mesh is not None:
            bring = partial(tree_map, self.net.placement.placed)
        self.net.adopt(bring(self.params), bring(self.state))
        self._adopted = True

    def _stop_if_asked(self, interruption: _Interruption, since: int = -1) -> None:
        if self.placement.agreed(bool(interruption.wanted), self.batch, since):
            self.save()
            interruption.carry_out()

    def _run_epoch(self, interruption: _Interruption) -> None:
        started = time.monotonic() - self._tally.seconds
        if not self.batch:
            m = min(self.batch_size, len(self.source))
            self.state = {**self.state, **self.net.fresh_state(m)}
        for run in self._calls():
            since = self.batch
            run()
            now = time.monotonic()
            self._tally.seconds = now - started
            self._call("on_update")
            self._stop_if_asked(interruption, since)
            due = now - self._saved >= self.checkpoint_seconds
            if self.directory and self.placement.agreed(due, self.batch, since):
                self.save()
        self._finish_epoch(started)

    def _calls(self) -> Iterator[Callable[[], None]]:
        """What is left of the epoch: calls that run one batch, or as many as the engine's loop takes at a time."""
        loop = self._resident
        if loop and self.batch < loop.calls * loop.updates:
            begun = -self.batch % loop.updates  # of a call: a checkpoint may be from elsewhere than between two
            for batch in itertools.islice(self.batches(self.epoch, self.batch), begun):
                yield partial(self._run_batch, batch)
            examples = order(len(self.source), seed=self.seed, epoch=self.epoch, shuffle=self.shuffle)
            for call in range(self.batch // loop.updates, loop.calls):
                yield partial(loop.run, call, examples)
        for batch in ahead(self.batches(self.epoch, self.batch), self.ops.batches_ahead):
            yield partial(self._run_batch, batch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """What an epoch trains on, from its batch ``first`` on: in its order, augmented; the same whenever asked."""
        examples = order(len(self.source), seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        for index in range(first, self.batches_per_epoch):
            chosen = examples[index * self.batch_size : (index + 1) * self.batch_size]
            change = self.augmenter.at(epoch, index) if self.augmenter.given else None
            yield self.source.batch(chosen, change, self.placement)

    def _run_batch(self, batch: Batch) -> None:
        count = next(iter(batch.inputs.values())).shape[-1]
        self._latest = self.epoch * self.batches_per_epoch + self.batch
        if self.truncate:
            cost, loss, layers = self._run_truncated(batch, *self.truncate)
        else:
            cost, loss, layers, _ = self._run_update(batch, self.net.masks(batch.masks))
        self.note(count, cost, loss, layers)

    def rate_of(self, batch: int) -> float:
        """α of the epoch's batch of that number."""
        self._latest = self.epoch * self.batches_per_epoch + batch
        return self.learning_rate

    def note(self, count: int, cost: Any, loss: Any, layers: dict[str, Any], *, check: bool | None = None) -> None:
        """A batch of so many examples is done; its cost and loss, and the statistics of its layers.

        Whether what is new is finite is looked at now and then, or as ``check`` says.
        """
        self.batch += 1
        self._tally.add(count, cost, loss, layers)
        if self.batch % CHECKED_EVERY == 0 if check is None else check:
            self._check_finite()

    def _run_update(self, batch: Batch, masks: Tree, carry: Tree | None = None, keep: int | None = None) -> Any:
        """One update on a batch, or on a part of it that starts from ``carry``; cost, loss, layers and what it carries.

        With ``carry`` what the layers with memory carry comes back too, after ``keep`` steps of the part.
        """
        net = self.net
        read = self.optimizer, self.layer_statistics, *net.losses.values(), *net.penalties, *net.loss_weights.values()
        if self._step is None or self._read != read:  # a callback may change them
            self._read = read
            parts = type(self), type(net), net.names, net.losses, net.penalties, self.optimizer
            self._step = self.ops.compile(
                self.update, given_away=("params", "state", "slots"), static=("keep",), own=own(parts)
            )
        key = self.ops.random_key(self.seed, self.t)
        self.t += 1
        state = self.state if carry is None else {**self.state, **carry}
        self.params, state, self.slots, cost, loss, outputs, layers, carried = self._step(
            self.params, state, self.slots, *batch[:3], masks, key, self.learning_rate, self.t, keep
        )
        self.state = {name: state[name] for name in self.state}
        if self.metrics:
            self.see(seen(self.net, batch, outputs, masks))
        return cost, loss, layers, carried

    def see(self, batch: Seen) -> None:
        """What the epoch's metrics are computed from, of a batch or several."""
        self._tally.seen.append(batch)

    def update(self, params, state, slots, inputs, targets, weight, masks, key, learning_rate, t, keep=None):
        """One iteration and its update: pure, but for the trees that are given away to the engine."""
        mode = Mode(True, key, mask=masks)
        done = self.net.iteration(params, state, inputs, targets, weight=weight, mode=mode)
        before = parameters.copied(params) if self.layer_statistics else None
        kept = self.placement.kept
        grads = kept(done.grads)
        params, slots = self.optimizer.update(self.ops, params, grads, slots, learning_rate=learning_rate, t=t)
        params, slots = kept(self.net.projected(params)), kept(slots)
        layers = layer_norms(self.ops.xp, before, params, grads) if before else {}
        loss = done.losses.mean() if self.net.penalties else done.cost
        carried = None if keep is None else self.net.carried(done.caches, keep)
        return params, kept(done.state), slots, done.cost, loss, done.outputs, layers, carried

    def _run_truncated(self, batch: Batch, k1: int, k2: int) -> tuple[Any, Any, dict[str, Any]]:
        """Truncated back-propagation through time: updates on windows of k2 steps, k1 further each time.

        Each counts the losses of its last k1 steps, those that no window before it has counted.
        """
        T = _common_steps(batch)
        shares = {}
        whole = self.net.masks(batch.masks)
        for name, loss in self.net.losses.items():
            mask = self.net.loss_mask(whole, name)
            if mask is None:
                mask = self.ops.xp.ones((T, batch.targets[name].shape[-1]), bool)
            shares[name] = loss.shares(mask, self.net.dtype)
        carry = {**self.net.start(), **{name: self.state[name] for name in self.net.stateful}}
        total_loss: Any = 0.0
        penalty: Any = 0.0
        layers: dict[str, Any] = {}
        begin = 0
        windows = range(0, T, k1)
        for counted in windows:
            end = min(counted + k1, T)
            window = batch.steps(begin, end)
            new = self.ops.xp.arange(begin, end)[:, None] >= counted
            own = (
                {f"loss/{name}": share[begin:end] * new for name, share in shares.items()} if end - counted < T else {}
            )
            masks = {**self.net.masks(window.masks), **own}
            following = min(end, max(0, min(end + k1, T) - k2))
            cost, loss, own_layers, carry = self._run_update(window, masks, carry, following - begin)
            layers = tree_map(add, layers, own_layers) if layers else own_layers
            total_loss, penalty, begin = total_loss + loss, cost - loss, following
        return total_loss + penalty, total_loss, tree_map(lambda total: total / len(windows), layers)

    def _finish_epoch(self, started: float) -> None:
        self._check_finite()
        train = self._tally.averages(with_cost=bool(self.net.penalties))
        train |= judged(self.net, self.metrics, [self.placement.home(each) for each in self._tally.seen])
        record: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "step": self.t,
            "seconds": 0.0,
            "learning_rate": self.learning_rate,
            "train": train,
        }
        if self.validation is not None:
            # A stateful layer goes on from batch to batch, which hence must hold the same streams as those of training.
            at_once = self.batch_size if self.net.stateful else self.placement.divisible(max(self.batch_size, 256))
            record["validation"] = measured(
                self.net,
                self.validation,
                self.metrics,
                at_once,
                params=self.params,
                state=self.state,
                placement=self.placement,
            )
        if self._tally.layers:
            record["layers"] = self._tally.layer_averages()
        memory = {"process": peak_memory(), "engine": self.ops.peak_bytes()}
        record["memory"] = {of: most for of, most in memory.items() if most is not None}
        record["seconds"] = time.monotonic() - started
        watched = record.get("validation", train)["loss"]
        self.schedule_state = self.schedule.observe(self.schedule_state, watched)
        self.history.append(record)
        self.epoch, self.batch, self._tally = self.epoch + 1, 0, _Tally()
        self._call("on_epoch", record)
        if self.directory:
            self.directory.log(record)
            at_end = self.epoch == self.epochs or self.history.stopped
            due = at_end or time.monotonic() - self._saved >= min(1.0, self.checkpoint_seconds)
            if self.placement.agreed(bool(due), 0):
                self.save()

    @property
    def schedule(self) -> Schedule:
        """The optimizer's, made once: a callback may put another optimizer in its place."""
        if self._schedule[0] is not self.optimizer:
            self._schedule = self.optimizer, self.optimizer.schedule
        return self._schedule[1]

    @property
    def learning_rate(self) -> float:
        """α of the latest update, by the schedule."""
        return float(self.schedule.rate(self._latest / self.batches_per_epoch, self.epochs, self.schedule_state))

    def stop(self, reason: str) -> None:
        """Ask the training to end after this epoch."""
        self.history.stopped = reason

    def last_loss(self) -> float:
        """The mean loss of the latest batch."""
        return float(self._tally.losses[-1]) if self._tally.losses else math.nan

    def _call(self, what: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, what)(self, *arguments)

    def _check_finite(self) -> None:
        """Refuse to go on with a cost, or with parameters made of a gradient, that is not finite."""
        tally, before = self._tally, self._tally.checked
        costs = [float(cost) for cost in tally.costs[before:]]
        tally.checked += len(costs)
        first = next((i for i, cost in enumerate(costs) if not math.isfinite(cost)), None)
        finite = self.ops.xp.isfinite
        if first is not None:
            problem = f"the cost became {costs[first]}"
        elif all(bool(finite(leaf).all()) for _, leaf in leaves(self.params)):
            return
        else:
            problem, first = "the parameters are no longer finite", len(costs) - 1
        earlier = float(tally.costs[before + first - 1]) if before + first else None
        unit, number = "update", self.t - len(costs) + first + 1
        if self.truncate:  # a batch makes several updates
            unit, number = "batch", before + first + 1
        raise TrainingError(
            f"{problem} at {unit} {number} (epoch {self.epoch + 1})",
            where="fit",
            got=f"a cost of {earlier:.4g} one {unit} earlier, at learning rate {self.learning_rate:g}"
            if earlier is not None
            else f"learning rate {self.learning_rate:g}",
            hint="a smaller learning rate, clip_norm=1.0 in the optimizer, or standardised inputs; "
            "the network is as it was before",
        )

    # --- checkpoints --------------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to be continued."""
        return {
            "network": self.net.config(),
            "optimizer": config(self.optimizer),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "truncate": self.truncate,
            "augment": [config(each) for each in self.augmenter.given] or None,
            "engine": self.ops.name,
            "layer_statistics": self.layer_statistics,
            "metrics": {name: [config(each) for each in chosen] for name, chosen in self.metrics.items()},
            "validation data": None if self.validation is None else self.validation.fingerprint(),
            "data": self.source.fingerprint(),
        }

    def save(self) -> None:
        """Write the checkpoint ``latest`` of the run, when there is a run; the one before becomes ``previous``.

        Raises:
            CheckpointError: it cannot be written; the one before is still ``latest``.
            TrainingError: there is nothing finite to save.
        """
        if self.directory is None:
            return
        self._check_finite()
        trees = {"parameters": self.params, "state": self.state, "slots": self.slots, "tally": self._tally.tree()}
        arrays = flatten(trees)
        remembered = []
        for index, callback in enumerate(self.callbacks):
            arrays |= {f"callbacks/{index}/{path}": leaf for path, leaf in callback.arrays().items()}
            remembered.append({"type": type(callback).__name__, "document": callback.document()})
        if not self.placement.first:
            gather(self.ops, arrays)
            self._saved = time.monotonic()
            return
        latest, previous = map(self.directory.checkpoint_path, (LATEST, PREVIOUS))
        with contextlib.suppress(OSError):  # a disk without hard links keeps one checkpoint only
            previous.unlink(missing_ok=True)
            os.link(latest, previous)
        files.write_arrays(
            latest,
            arrays,
            {
                "config": self.net.config(),
                "preprocessing": self.net.preprocessing,
                "settings": self.settings,
                "mesh": None if self.placement.mesh is None else str(self.placement.mesh),
                "position": {"epoch": self.epoch, "batch": self.batch, "t": self.t, "seconds": self._tally.seconds},
                "schedule": self.schedule_state,
                "history": self.history.to_document(),
                "callbacks": remembered,
            },
            self.ops.to_numpy,
        )
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Go back to the run's checkpoint ``latest``; where there is none yet, start at the beginning.

        Raises:
            ParameterError: there is no run, or it was made with other settings.
            CheckpointError: the checkpoint cannot be read.
        """
        if self.directory is None:
            raise ParameterError("nothing to resume", where="fit", expected="run=…, a run directory", got="run=None")
        latest, previous = map(self.directory.checkpoint_path, (LATEST, PREVIOUS))
        path = latest if latest.exists() else previous
        if not path.exists():
            return
        try:
            arrays, document = files.read_arrays(path, mapped=True)
        except CheckpointError as broken:
            hint = "start a new run"
            if path == latest and previous.exists():
                hint = f"delete it: the run then goes on from {previous.name}, the checkpoint before it"
            raise CheckpointError(
                broken.problem, where=broken.where, expected=broken.expected, got=broken.got, hint=hint
            ) from broken
        if "settings" not in document:
            raise CheckpointError("a saved network, but not a checkpoint of a training", where=str(path))
        _check_settings(document["settings"], self.settings, str(path))
        self.history, self.schedule_state = History.from_document(document["history"]), document["schedule"]
        position = document["position"]
        self.epoch, self.batch, self.t = position["epoch"], position["batch"], position["t"]
        self._latest = max(0, self.epoch * self.batches_per_epoch + self.batch - 1)
        trees = {"parameters": {}, "state": {}, "slots": {}, "tally": {}, "callbacks": {}, **unflatten(arrays)}
        placed, self.slots = self.placement.placed, {}  # let go before the others come
        self.params = parameters.fitted(trees["parameters"], self.params, placed)
        self.state, self.slots = (
            tree_map(lambda leaf: placed(leaf.copy()), trees[each]) for each in ("state", "slots")
        )
        self._tally = _Tally.from_tree(parameters.copied(trees["tally"]), position["seconds"])
        remembered = iter(enumerate(document["callbacks"]))
        for callback in self.callbacks:
            match = next(((i, each) for i, each in remembered if each["type"] == type(callback).__name__), None)
            if match is not None:
                own = parameters.copied(trees["callbacks"].get(str(match[0]), {}))
                callback.restore(match[1]["document"], flatten(own))


class _Tally:
    """What an epoch adds up as it goes."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.costs: list[Any] = []
        self.losses: list[Any] = []
        self.layers: dict[str, dict[str, Any]] = {}
        self.seen: list[Seen] = []
        self.seconds = 0.0
        self.checked = 0  # how many of the costs were found finite

    def add(self, count: int, cost: Any, loss: Any, layers: dict[str, Any]) -> None:
        self.counts.append(count)
        self.costs.append(cost)
        self.losses.append(loss)
        self.layers = tree_map(add, self.layers, layers) if self.layers else layers

    def averages(self, *, with_cost: bool) -> dict[str, float]:
        quantities = {"loss": self.losses, **({"cost": self.costs} if with_cost else {})}
        values = {name: [float(each) for each in batches] for name, batches in quantities.items()}
        return {name: float(np.average(each, weights=self.counts)) for name, each in values.items()}

    def layer_averages(self) -> dict[str, dict[str, float]]:
        return tree_map(lambda total: float(total) / len(self.counts), self.layers)

    def tree(self) -> Tree:
        tree: Tree = {"layers": self.layers}
        for name in ("counts", "costs", "losses"):
            tree[name] = np.array([float(each) for each in getattr(self, name)], dtype=np.float64)
        if self.seen:
            tree["seen"] = {str(index): _known(each._asdict()) for index, each in enumerate(self.seen)}
        return tree

    @classmethod
    def from_tree(cls, tree: Tree, seconds: float) -> _Tally:
        tally = cls()
        tally.layers, tally.seconds = tree.get("layers", {}), seconds
        tally.counts = [int(each) for each in tree.get("counts", ())]
        tally.costs, tally.losses = list(tree.get("costs", ())), list(tree.get("losses", ()))
        tally.checked = len(tally.costs)
        for index in range(len(tree.get("seen", ()))):
            tally.seen.append(Seen(**{"weight": None, "masks": {}, **tree["seen"][str(index)]}))
        return tally


def _known(tree: Tree) -> Tree:
    """The tree without what is None or empty."""
    known = {name: _known(leaf) if isinstance(leaf, dict) else leaf for name, leaf in tree.items()}
    return {
        name: leaf for name, leaf in known.items() if leaf is not None and not (isinstance(leaf, dict) and not leaf)
    }


class _Interruption:
    """Ctrl-C and SIGTERM, noted while the loop is between safe places; a second Ctrl-C is immediate."""

    def __init__(self) -> None:
        self.wanted: int | None = None

    def __enter__(self) -> _Interruption:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM):
                self._before[each] = signal.signal(each, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.wanted is not None:
            self.carry_out()
        self.wanted = number

    def carry_out(self) -> None:
        if self.wanted == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + int(self.wanted or signal.SIGTERM))  # or another process of the job was told to

    def __exit__(self, failure: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.wanted is not None and failure is None:
            self.carry_out()


# --- what is asked for, checked -------------------------------------------------------------------------------------


def checked_callbacks(given: Any) -> list[Callback]:
    """Callbacks, or the one given, as a list.

    Raises:
        ParameterError: something else among them.
    """
    callbacks = [given] if isinstance(given, Callback) else list(given)
    for each in callbacks:
        if not isinstance(each, Callback):
            hint = "write pl.EarlyStopping(), not pl.EarlyStopping" if isinstance(each, type) else None
            raise ParameterError(
                "not a callback", where="fit", expected="objects of pl.Callback", got=repr(each), hint=hint
            )
    return callbacks


def _held_out(net: Network, source: Source, validation: Any, seed: int) -> tuple[Source, Source | None]:
    if validation is None or (isinstance(validation, (int, float)) and validation == 0):
        return source, None
    if isinstance(validation, (int, float, np.number)):
        parts = split_indices(len(source), validation=validation, test=0, labels=source.labels(), seed=seed)
        return source.part(parts.train), source.part(parts.validation)
    if is_rows(validation):
        return source, Source(net, validation, where="validation")
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        x, y, *weight = validation
        return source, Source(net, x, y, sample_weight=weight[0] if weight else None, where="validation")
    raise ParameterError(
        "cannot be used as validation",
        where="fit",
        expected="a share, a number, or (x, y)",
        got=type(validation).__name__,
    )


def _checked_truncation(net: Network, truncate: Any) -> tuple[int, int] | None:
    if truncate is None:
        return None
    k1, k2 = truncate if isinstance(truncate, (tuple, list)) and len(truncate) == 2 else (truncate, truncate)
    k1, k2 = whole_number("truncate", k1), whole_number("truncate", k2)
    if k2 < k1:
        raise ParameterError(
            "k2, the steps that an update goes back through, are fewer than the k1 steps between updates",
            where="truncate",
            expected="(k1, k2) with k1 ≤ k2",
            got=(k1, k2),
        )
    for step in net.steps:
        if not (step.layer.any_length and step.layer.causal):
            raise ParameterError(
                f"{step.label} needs the whole sequence",
                where="truncate",
                expected="layers that go from step to step, such as SimpleRNN, LSTM, GRU and TimeDistributed",
                got=repr(step.layer),
            )
        if step.layer.start() and len(step.sources) > 1:
            raise ParameterError(
                f"{step.label} is given the state that it starts from, and a window starts from that of the one before",
                where="truncate",
                expected="recurrent layers of one input",
                got=", ".join(step.sources),
            )
        if step.layer.start() and step.label != step.name:
            raise ParameterError(
                "a layer with memory at two places cannot be run in parts", where="truncate", got=step.label
            )
    for name, shape in net.outputs.items():
        if len(shape) < 2:
            raise ParameterError(
                "truncated back-propagation needs an output at every step",
                where=f"truncate, {name}",
                expected="(T, n)",
                got=shape,
                hint="return_sequences=True in the last recurrent layer, and pl.TimeDistributed(pl.Dense(…)) behind it",
            )
    return k1, k2


def _common_steps(batch: Batch) -> int:
    """T of a batch, the same in all its inputs and targets."""
    steps = {name: len(A) for tree in (batch.inputs, batch.targets) for name, A in tree.items()}
    if len(set(steps.values())) > 1:
        raise ShapeError(
            "truncated back-propagation goes through inputs and targets step by step",
            where="truncate",
            expected="one number of steps",
            got=", ".join(f"{name}: {T}" for name, T in steps.items()),
        )
    return next(iter(steps.values()))


def _check_several_classes(source: Source) -> None:
    labels = source.labels()
    if labels is not None and len(labels) > 1 and (labels == labels[0]).all():
        raise DataError(
            f"all {len(labels)} training examples are of class {labels[0]}: there is nothing to tell apart",
            where="y",
            expected="two classes or more",
            hint="check the target column, and how the examples were split",
        )


def _check_batches(net: Network, m: int, batch_size: int) -> None:
    smallest = m % batch_size or min(batch_size, m)
    for layer, name in net.names.items():
        if layer.needs_batch and smallest == 1 and net.input_shapes[layer][1:] == ():
            raise ParameterError(
                f"{name} normalises over the batch, and a batch would hold a single example",
                where="fit",
                got=f"{m} examples in batches of {batch_size}",
                hint="another batch_size, or pl.LayerNorm()",
            )


def _check_settings(then: dict[str, Any], now: dict[str, Any], where: str) -> None:
    now = json.loads(files.to_json(now))
    for name, value in now.items():
        if then.get(name) != value:
            raise ParameterError(
                f"the run was made with another {name}",
                where=where,
                expected=then.get(name),
                got=value,
                hint="resume with the same settings and data, or start a new run",
            )
