"""From examples first, as people's data is, to examples last, as networks compute: the one place where they cross."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from pellucid.engines.base import Array
from pellucid.engines.mesh import Placement
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.network.base import Network
from pellucid.sequences import Sequences, fits, written

CHECKED_AT_ONCE = 1 << 22  # numbers: bounds the memory of the check for finite values
_SHUFFLE = 0x5EED  # sets the stream of the orders apart from the one that layers draw their parameters from


class Rows(Protocol):
    """Data that is fetched as it is needed: a data set, a file, a table larger than memory.

    The same indices must always give the same examples, or a resumed run is not the one that was interrupted.
    """

    def __len__(self) -> int:
        """The number of examples m."""
        ...

    def take(self, indices: np.ndarray) -> tuple[Any, Any]:
        """The examples at ``indices``: x (k, …) as floats, and y (k,) class indices or (k, …) values.

        On the jax engine it is called from another thread, which fetches ahead of the training.
        """
        ...


class Batch(NamedTuple):
    """Some examples, last on every array."""

    inputs: dict[str, Array]
    targets: dict[str, Array]
    weight: Array | None  # (k,)
    masks: dict[str, Array] = {}  # noqa: RUF012  (T, k) by input: which steps count, of sequences of different lengths

    def steps(self, begin: int, end: int) -> Batch:
        """The steps from ``begin`` to before ``end`` of every sequence."""
        inputs, targets, masks = (
            {name: A[begin:end] for name, A in tree.items()} for tree in (self.inputs, self.targets, self.masks)
        )
        return Batch(inputs, targets, self.weight, masks)

    def part(self, examples: slice | np.ndarray) -> Batch:
        """Some of the examples."""
        inputs, targets, masks = (
            {name: A[..., examples] for name, A in tree.items()} for tree in (self.inputs, self.targets, self.masks)
        )
        return Batch(inputs, targets, None if self.weight is None else self.weight[examples], masks)


class Change(Protocol):
    """What is made of a batch before it is put on the engine, in NumPy: see `pellucid.training.augment.Augmenter`."""

    def needed(self, places: np.ndarray, m: int) -> np.ndarray:
        """Which of the batch's m examples, in order, are needed to make those at ``places``."""
        ...

    def __call__(self, batch: Batch, *, places: np.ndarray, m: int) -> Batch:
        """The changed batch, of the examples at ``places`` of m."""
        ...


class Source:
    """Examples to draw batches from.

    Arguments:
        net: the network they are for.
        x: (m, …), examples first, or `Sequences`; by name for several inputs; or `Rows`, with ``y`` None.
        y: class indices (m,) or values (m, …), or `Sequences` of them for each step; by name for several outputs.
        sample_weight: how much each example counts (m,); scaled to mean 1.
        where: what to call the data in messages.
        predicting: True where targets are not needed, and not looked at.

    Raises:
        DataError, ShapeError: data that cannot be used; the message names the example.
        ParameterError: targets for a network without a loss.
    """

    def __init__(
        self,
        net: Network,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        where: str = "",
        predicting: bool = False,
    ) -> None:
        self.net, self.where, self.predicting = net, where, predicting
        if not (predicting or net.losses):
            raise ParameterError("the network has no loss", hint="make it with loss='softmax_cross_entropy', say")
        self.rows: Rows | None = x if is_rows(x) else None
        self.inputs: Mapping[str, np.ndarray | Sequences] = {}
        self.targets: Mapping[str, np.ndarray | Sequences] = {}
        self.indices: np.ndarray | None = None  # which examples this is a part of; None is all
        if self.rows is not None:
            if y is not None:
                raise ParameterError("rows bring their own targets", where=self._place("y"), expected="y=None")
            self.count = len(self.rows)
        else:
            self.inputs = {name: self._checked(name, value) for name, value in net.named(x, net.inputs, "x").items()}
            if not predicting:
                self.targets = self._checked_targets(y)
            self.count = self._common_count()
        if self.count == 0:
            raise DataError("there are no examples", where=self._place("x"), got="m = 0")
        self.weight = None if sample_weight is None else _with_mean_1(self._checked_weight(sample_weight))

    def __len__(self) -> int:
        return self.count

    def part(self, indices: np.ndarray) -> Source:
        """The examples at ``indices`` as a source of their own, with weights of mean 1; copies no examples."""
        part = copy.copy(self)
        part.indices, part.count = self._absolute(indices), len(indices)
        if self.weight is not None:
            part.weight = _with_mean_1(self.weight[indices])
        return part

    def labels(self) -> np.ndarray | None:
        """Class indices (m,) where the only target is one class of several; what a split is stratified by."""
        if len(self.targets) != 1:
            return None
        ((name, Y),) = self.targets.items()
        if isinstance(Y, Sequences) or not self.net.losses[name].of_classes or Y.size != Y.shape[-1]:
            return None
        return np.rint(Y.reshape(-1)[self._absolute(np.arange(self.count))]).astype(np.int64)

    def batch(
        self,
        chosen: np.ndarray,
        change: Change | None = None,
        placement: Placement | None = None,
    ) -> Batch:
        """The examples at the indices ``chosen``, on the engine, examples last; ``change`` is made before, in NumPy.

        Arguments:
            placement: on which devices; where several processes share them, each gathers its own share of the examples,
                and what else a ``change`` of them needs.
        """
        m = len(chosen)
        lies = placement or self.net.placement
        share = lies.share(m)
        if change is None:
            batch = self._gathered(chosen, share)
        else:
            own = np.arange(m)[share]
            places = change.needed(own, m)
            batch = change(self._gathered(chosen, slice(None) if len(places) == m else places), places=places, m=m)
            if len(places) > len(own):
                batch = batch.part(np.searchsorted(places, own))

        def on_engine(values: np.ndarray) -> Array:
            return lies.batch(values, m)

        inputs, targets, weight, masks = batch
        return Batch(
            {name: on_engine(X) for name, X in inputs.items()},
            {name: on_engine(Y) for name, Y in targets.items()},
            None if weight is None else on_engine(weight),
            {name: on_engine(mask) for name, mask in masks.items()},
        )

    def sample(self) -> Batch:
        """Examples evenly spaced, few enough to be cheap whatever the size, as NumPy arrays."""
        numbers = sum(math.prod(n or 64 for n in shape) for shape in self.net.inputs.values())
        wanted = min(1024, max(16, CHECKED_AT_ONCE // max(1, numbers)))
        return self._gathered(np.unique(np.linspace(0, self.count - 1, wanted).astype(np.int64)))

    def fingerprint(self) -> str:
        """Tells this data from other data by a `sample`."""
        inputs, targets, weight, masks = self.sample()
        digest = hashlib.sha256(str(self.count).encode())
        for values in [
            *inputs.values(),
            *targets.values(),
            *([] if weight is None else [weight]),
            *masks.values(),
        ]:
            digest.update(values.tobytes())
        return digest.hexdigest()[:16]

    def _gathered(self, chosen: np.ndarray, share: slice | np.ndarray = slice(None)) -> Batch:
        """The examples, or a share of them; sequences as long as all of them need."""
        whole = self._absolute(chosen)
        chosen = chosen[share]
        weight = None if self.weight is None else self.weight[chosen]
        if self.rows is not None:
            return self._fetched(whole, share)._replace(weight=weight)
        indices = self._absolute(chosen)
        inputs, masks = {}, {}
        for name, x in self.inputs.items():
            if isinstance(x, Sequences):
                X, mask = x.batch(indices, steps=self._steps(x, whole))
                if mask is None and not self._one_length(x, whole):
                    mask = np.ones((len(X), X.shape[-1]), bool)
                inputs[name] = X.astype(self.net.dtype, copy=False)
                if mask is not None:
                    masks[name] = mask
            else:
                inputs[name] = self.net.ops.examples_last(x, indices, self.net.dtype)
        targets = {
            name: Y.batch(indices, steps=self._steps(Y, whole))[0] if isinstance(Y, Sequences) else Y[..., indices]
            for name, Y in self.targets.items()
        }
        return Batch(inputs, targets, weight, masks)

    def _steps(self, x: Sequences, indices: np.ndarray) -> int:
        """How many steps sequences get in a batch: what the longest has, or a number that more batches share."""
        lengths = x.lengths[indices]
        longest = int(lengths.max())
        return longest if self._one_length(x, indices) else self.net.ops.padded_steps(longest)

    @staticmethod
    def _one_length(x: Sequences, indices: np.ndarray) -> bool:
        lengths = x.lengths[indices]
        return bool((lengths == lengths[0]).all())

    def _absolute(self, chosen: np.ndarray) -> np.ndarray:
        return chosen if self.indices is None else self.indices[chosen]

    def _fetched(self, whole: np.ndarray, share: slice | np.ndarray) -> Batch:
        assert self.rows is not None
        indices = whole[share]
        x, y = self.rows.take(indices)
        if len(indices) < len(whole) and isinstance(x, Sequences):  # how long they get, only all of them say
            return self._fetched(whole, slice(None)).part(share)
        where = f"{self.where} rows fetched from {indices[0]} on:".lstrip()
        fetched = Source(self.net, x, y, where=where, predicting=self.predicting)
        if len(fetched) != len(indices):
            raise ShapeError("another number of examples", where=where, expected=len(indices), got=len(fetched))
        return fetched._gathered(np.arange(len(indices)))

    def _place(self, what: str, name: str | None = None) -> str:
        place = what if self.net.single or name is None else f"{what}[{name!r}]"
        return f"{self.where} {place}".strip()

    def _checked(self, name: str, values: Any) -> np.ndarray | Sequences:
        where, shape = self._place("x", name), self.net.inputs[name]
        if isinstance(values, Sequences):
            return self._checked_sequences(values, shape, where)
        x = _as_numbers(values, where)
        if x.ndim == 1 and shape == (1,):
            x = x[:, None]
        if x.ndim == 0 or not fits(x.shape[1:], shape):
            raise ShapeError(
                "the examples do not fit the network's input",
                where=where,
                expected=written("m", *shape),
                got=x.shape,
                hint=_swapped(x.shape, shape),
            )
        for bad in self._unfit(x):
            raise _unfit(x[bad], where, bad[0], bad[1:], values)
        return x

    def _checked_sequences(self, x: Sequences, shape: tuple[int | None, ...], where: str) -> Sequences:
        if len(x) and not fits(x.values.shape[1:], shape[1:]):
            raise ShapeError(
                "the steps of the sequences do not fit the network's input",
                where=where,
                expected=f"sequences {written(*shape)}",
                got=f"sequences {written(None, *x.values.shape[1:])}",
            )
        wrong = np.flatnonzero(x.lengths != shape[0]) if shape[0] is not None else np.zeros(0, int)
        if wrong.size:
            raise ShapeError(
                "sequences of other lengths than the network's input",
                where=f"{where}, example {wrong[0]}",
                expected=f"{shape[0]} steps",
                got=f"{x.lengths[wrong[0]]} steps",
                hint=f"a network of any length: input_shape={(None, *shape[1:])}",
            )
        for bad in self._unfit(x.values):
            example = int(np.searchsorted(np.cumsum(x.lengths), bad[0], side="right"))
            step = int(bad[0] - x.lengths[:example].sum())
            raise _unfit(x.values[bad], where, example, (step, *bad[1:]), None)
        return x

    def _unfit(self, values: np.ndarray) -> Iterator[tuple[int, ...]]:
        """Where the values cannot be the network's numbers, if anywhere."""
        largest = np.finfo(self.net.dtype).max
        at_once = max(1, CHECKED_AT_ONCE // max(1, math.prod(values.shape[1:])))
        for start in range(0, len(values) if values.dtype.kind == "f" else 0, at_once):
            fitting = np.abs(values[start : start + at_once]) <= largest
            if not fitting.all():
                first, *rest = (int(i) for i in np.argwhere(~fitting)[0])
                yield (start + first, *rest)
                return

    def _checked_targets(self, y: Any) -> dict[str, np.ndarray | Sequences]:
        if y is None:
            raise DataError("there are no targets", where=self._place("y"), expected="class indices or values")
        targets: dict[str, np.ndarray | Sequences] = {}
        for name, values in self.net.named(y, self.net.outputs, "y").items():
            loss, shape, where = self.net.losses[name], self.net.outputs[name], self._place("y", name)
            if isinstance(values, Sequences):
                targets[name] = self._checked_step_targets(name, values, shape, where)
                continue
            Y = _as_numbers(values, where, labels=loss.of_classes)
            try:
                targets[name] = loss.targets(
                    np.moveaxis(Y, 0, -1) if Y.ndim > 1 else Y, shape, np.dtype(self.net.dtype), where=where
                )
            except ShapeError as problem:
                if problem.where != where:
                    raise
                of_classes = loss.of_classes and shape[-1] > 1  # a loss speaks of examples last, a user of them first
                expected = f"class indices {written('m', *shape[:-1])}" if of_classes else written("m", *shape)
                hint = _swapped(Y.shape, shape)
                raise ShapeError(problem.problem, where=where, expected=expected, got=Y.shape, hint=hint) from None
            if shape[0] is None:
                self._check_lengths(name, np.full(len(Y), Y.shape[1]), where)
        return targets

    def _checked_step_targets(self, name: str, y: Sequences, shape: Any, where: str) -> Sequences:
        """Targets of every step: all the steps checked as those of one long sequence."""
        loss = self.net.losses[name]
        if len(shape) < 2:
            raise ShapeError(
                "a target for every step, and the network has one output for a whole sequence",
                where=where,
                expected=written("m", *shape),
                got=repr(y),
                hint="return_sequences=True in the last recurrent layer, and pl.TimeDistributed(pl.Dense(…)) behind it",
            )
        self._check_lengths(name, y.lengths, where)
        try:
            Y = loss.targets(y.values[..., None], (len(y.values), *shape[1:]), np.dtype(self.net.dtype), where=where)
        except DataError as problem:
            place = f"{where}, a step"
            raise DataError(problem.problem, where=place, expected=problem.expected, got=problem.got) from None
        except ShapeError as problem:
            of_classes = loss.of_classes and shape[-1] > 1
            expected = f"sequences {written(*(shape[:-1] if of_classes else shape))}"
            got = f"sequences {written(None, *y.values.shape[1:])}"
            raise ShapeError(problem.problem, where=where, expected=expected, got=got) from None
        return y.replaced(Y[..., 0])

    def _check_lengths(self, output: str, steps: np.ndarray, where: str) -> None:
        """Refuse targets of other numbers of steps (m,) than every input has whose steps the output's are."""
        differing = {}
        for name, x in self._followed(output).items():
            lengths = x.lengths if isinstance(x, Sequences) else np.full(len(x), x.shape[1] if x.ndim > 1 else 0)
            differing[name] = lengths != steps if len(lengths) == len(steps) else np.zeros(1, bool)
        if all(each.any() for each in differing.values()):
            name, differs = next(iter(differing.items()))
            wrong, x = int(np.argmax(differs)), self.inputs[name]
            raise ShapeError(
                "inputs and targets of different lengths",
                where=f"{where}, example {wrong}",
                expected=f"{len(x[wrong])} steps, as {self._place('x', name)} has",
                got=f"{steps[wrong]} steps",
                hint="pl.Sequences.padded(y, x.lengths) cuts padding off" if isinstance(x, Sequences) else None,
            )

    def _followed(self, output: str) -> Mapping[str, np.ndarray | Sequences]:
        """The inputs whose mask is the output's too; all, where that cannot be told."""
        found = {}
        for name, x in self.inputs.items():
            try:
                if self.net.loss_mask(self.net.masks({name: np.ones((1, 1), bool)}), output) is not None:
                    found[name] = x
            except ShapeError:  # a layer that takes no mask: all its sequences are of one length
                return self.inputs
        return found or self.inputs

    def _checked_weight(self, sample_weight: Any) -> np.ndarray:
        where = self._place("sample_weight")
        weight = _as_numbers(sample_weight, where)
        if weight.shape != (self.count,):
            raise ShapeError("one weight per example", where=where, expected=f"({self.count},)", got=weight.shape)
        bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
        if bad.size:
            raise DataError("a weight must be finite and ≥ 0", where=f"{where}, example {bad[0]}", got=weight[bad[0]])
        return weight.astype(self.net.dtype)

    def _common_count(self) -> int:
        counts = {self._place("x", name): len(x) for name, x in self.inputs.items()}
        counts |= {
            self._place("y", name): len(Y) if isinstance(Y, Sequences) else Y.shape[-1]
            for name, Y in self.targets.items()
        }
        if len(set(counts.values())) > 1:
            got = ", ".join(f"{place}: m = {m}" for place, m in counts.items())
            raise ShapeError("different numbers of examples", where=self.where or None, got=got)
        return next(iter(counts.values()))


def is_rows(x: Any) -> bool:
    """Whether ``x`` is fetched as needed (`Rows`) and no array or table of arrays."""
    return hasattr(x, "take") and not hasattr(x, "__array__") and not isinstance(x, Sequences)


def order(m: int, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order of the examples in an epoch: a function of its arguments, so that a resumed run draws the same."""
    return np.random.default_rng([seed, epoch, _SHUFFLE]).permutation(m) if shuffle else np.arange(m)


def consecutive(source: Source, batch_size: int, placement: Placement | None = None) -> Iterator[Batch]:
    """All examples in order, ``batch_size`` at a time."""
    for start in range(0, len(source), batch_size):
        yield source.batch(np.arange(start, min(start + batch_size, len(source))), placement=placement)


def ahead(batches: Iterator[Batch], most: int) -> Iterator[Batch]:
    """The same batches, up to ``most`` of them made by another thread while the engine works; 0 makes none ahead."""
    if not most:
        yield from batches
        return
    made: queue.Queue[Any] = queue.Queue(most)
    wanted = True

    def make() -> None:
        last: Any = None  # nothing more, or the failure
        try:
            for batch in batches:
                made.put(batch)
                if not wanted:
                    return
        except BaseException as failure:
            last = failure
        made.put(last)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while isinstance(batch := made.get(), Batch):
            yield batch
        if batch is not None:
            raise batch
    finally:
        wanted = False
        while thread.is_alive():  # it may be waiting for room
            with contextlib.suppress(queue.Empty):
                made.get(timeout=0.01)


def whole_number(what: str, value: Any, *, least: int = 1) -> int:
    """``value`` as a plain whole number from ``least``.

    Raises:
        ParameterError: it is not one.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        expected = f"{least}, {least + 1}, …"
        raise ParameterError(f"{what} must be a whole number", where="fit", expected=expected, got=repr(value))
    return int(value)


def _as_numbers(values: Any, where: str, *, labels: bool = False) -> np.ndarray:
    """``values`` as an array of numbers, not copied where they are one."""
    try:
        array = np.asarray(values)
    except ValueError as ragged:
        raise DataError(
            "not a rectangular array",
            where=where,
            expected="examples of one shape",
            got=str(ragged),
            hint="sequences of different lengths: pl.Sequences(…)",
        ) from None
    if array.dtype.kind not in "fiub":
        hint = "make each column numbers first; a sparse matrix: x.toarray()"
        if labels:
            hint = "number the classes first: names, y = np.unique(y, return_inverse=True)"
        elif array.dtype.kind in "US":
            hint = "text that stands for numbers: x.astype(float); categories: a column of 0 and 1 for each"
        raise DataError("not numbers", where=where, expected="numbers", got=f"dtype {array.dtype}", hint=hint)
    return array


def _unfit(value: Any, where: str, example: int, place: tuple[int, ...], values: Any) -> DataError:
    if len(place) == 1:
        names = getattr(values, "columns", None)  # of a data frame
        named = "" if names is None else f" ({names[place[0]]!r})"
        at = f", feature {place[0]}{named}"
    else:
        at = f", at {place}" if place else ""
    problem, hint = "a value that is not finite", "impute missing values, or drop the examples that have one"
    if np.isfinite(value):
        problem, hint = "a value too large for the network's numbers", "standardise the feature, or dtype='float64'"
    return DataError(problem, where=f"{where}, example {example}{at}", got=value, hint=hint)


def _with_mean_1(weight: np.ndarray) -> np.ndarray:
    mean = weight.mean(dtype=np.float64)
    if mean == 0:
        raise DataError("the weights are all 0", where="sample_weight", hint="nothing would count")
    return (weight / mean).astype(weight.dtype)


def _swapped(got: tuple[int, ...], shape: tuple[int, ...]) -> str | None:
    if got == shape:
        return "one example is a batch of one: x[None]"
    if got[:-1] == shape:
        return "examples come first here: np.moveaxis(…, -1, 0), or .T for a table"
    if len(got) == 4 and len(shape) == 3 and (got[3], got[1], got[2]) == shape:
        return "the channel axis comes before height and width: np.moveaxis(x, -1, 1)"
    if None in shape:
        return "a sequence of length 0 has nothing to go through; give it 1 step or more" if 0 in got else None
    if len(shape) == 1 and len(got) > 2 and int(np.prod(got[1:])) == shape[0]:
        return "flatten each example: x.reshape(len(x), -1), or begin the network with pl.Flatten()"
    if len(shape) == 3 and len(got) == 3 and shape == (1, *got[1:]):
        return "add the channel axis: x[:, None]"
    return None
