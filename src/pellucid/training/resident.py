"""Examples that stay on the device, and many updates there in one compiled loop.

A call for every update costs a small network more than its arithmetic does, and so does sending every batch. On a mesh
every device has all examples, and takes its share of each batch from them.
"""

from __future__ import annotations

import math
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.sequences import Sequences, steps_as_examples
from pellucid.training.callbacks import Callback
from pellucid.training.measuring import Seen
from pellucid.trees import leaves, tree_map

if TYPE_CHECKING:
    from pellucid.training.batches import Source
    from pellucid.training.loop import Training

MOST = 256  # updates in one call: between calls checkpoints are written and Ctrl-C is answered


class Resident:
    """The loop over a training's examples on its device.

    Attributes:
        updates: how many updates a call makes.
        calls: how many calls an epoch makes; what is left of its batches is for single updates.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        net, source, everywhere = training.net, training.source, training.placement.everywhere
        rows = slice(None) if source.indices is None else source.indices
        self.data: dict[str, Any] = {
            "inputs": {name: everywhere(_narrow(x[rows], net.dtype)) for name, x in source.inputs.items()},
            "targets": {name: everywhere(Y[..., rows]) for name, Y in source.targets.items()},
            "weight": None if source.weight is None else everywhere(source.weight),
        }
        whole = len(source) // training.batch_size
        self.calls = math.ceil(whole / MOST)
        self.updates = whole // self.calls
        self._loop = training.ops.looped(partial(Resident._update, weakref.proxy(self)))  # no circle: freed at once

    @staticmethod
    def fits(training: Training) -> bool:
        """Whether a training can run so: an engine that compiles, examples that fit and are used as they are, at least
        two batches, and no callback that has to see every update."""
        source = training.source
        arrays = [*source.inputs.values(), *source.targets.values()]
        return (
            source.rows is None
            and bool(
                limit := training.ops.resident_bytes(convolutions=any(W.ndim > 2 for _, W in leaves(training.params)))
            )
            and not any(isinstance(each, Sequences) for each in arrays)
            and _size(source, training.net.dtype) <= limit
            and len(source) >= 2 * training.batch_size
            and not (training.augmenter.given or training.truncate or training.net.stateful)
            and not any(
                each.every_update and type(each).on_update is not Callback.on_update for each in training.callbacks
            )
        )

    def run(self, call: int, examples: np.ndarray) -> None:
        """The updates of the epoch's call number ``call`` on the examples (m,) in their order."""
        training, size = self.training, self.training.batch_size
        first = call * self.updates
        rows = examples[first * size : (first + self.updates) * size].reshape(self.updates, size)
        each = {
            "rows": rows,
            "key": training.ops.random_key(training.seed, np.arange(training.t, training.t + self.updates)),
            "learning_rate": np.array([training.rate_of(first + i) for i in range(self.updates)], training.net.dtype),
            "t": np.arange(training.t + 1, training.t + 1 + self.updates).astype(training.net.dtype),
        }
        carry = training.params, training.state, training.slots
        (training.params, training.state, training.slots), made = self._loop(carry, self.data, each)
        costs, losses = (training.ops.to_numpy(each) for each in made[:2])
        outputs, layers = (tree_map(training.ops.to_numpy, each) for each in made[2:])
        for i in range(self.updates):
            training.t += 1
            training.rate_of(first + i)
            own = tree_map(lambda values, i=i: values[i], layers)
            training.note(size, costs[i], losses[i], own, check=i + 1 == self.updates)  # the parameters are the last's
        if training.metrics:
            chosen = rows.reshape(-1)
            indices = chosen if training.source.indices is None else training.source.indices[chosen]
            training.see(
                Seen(
                    {name: steps_as_examples(np, A) for name, A in outputs.items()},
                    {name: Y[..., indices] for name, Y in training.source.targets.items()},
                    None if training.source.weight is None else training.source.weight[chosen],
                    {},
                )
            )

    def _update(self, carry: Any, data: Any, each: Any) -> Any:
        training, own = self.training, self.training.placement.examples
        xp, dtype, rows = training.ops.xp, training.net.dtype, own(each["rows"])
        inputs = {name: own(xp.moveaxis(x[rows], 0, -1).astype(dtype)) for name, x in data["inputs"].items()}
        targets = {name: own(Y[..., rows]) for name, Y in data["targets"].items()}
        weight = None if data["weight"] is None else own(data["weight"][rows])
        params, state, slots = carry
        params, state, slots, cost, loss, outputs, layers, _ = training.update(
            params, state, slots, inputs, targets, weight, {}, each["key"], each["learning_rate"], each["t"]
        )
        return (params, state, slots), (cost, loss, outputs if training.metrics else {}, layers)


def _size(source: Source, dtype: str) -> int:
    """Bytes of a source's examples as they would be kept."""
    most = np.dtype(dtype).itemsize
    one = sum(x[:1].size * min(x.dtype.itemsize, most) for x in source.inputs.values())
    one += sum(Y[..., :1].nbytes for Y in source.targets.values())
    return len(source) * one + (0 if source.weight is None else source.weight.nbytes)


def _narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    """x in the network's float type, or as it is where that takes less memory, as bytes of pictures do."""
    return x if x.dtype.itemsize < np.dtype(dtype).itemsize else x.astype(dtype, copy=False)
