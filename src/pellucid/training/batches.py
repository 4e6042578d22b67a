"""From examples first, as people's data is, to examples last, as networks compute: the one place where they cross."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.network.base import Network

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
        """The examples at ``indices``: x (k, …) as floats, and y (k,) class indices or (k, …) values."""
        ...


class Batch(NamedTuple):
    """Some examples, last on every array."""

    inputs: dict[str, Array]
    targets: dict[str, Array]
    weight: Array | None  # (k,)


class Source:
    """Examples to draw batches from.

    Arguments:
        net: the network they are for.
        x: (m, …), examples first; by name for several inputs; or `Rows`, with ``y`` None.
        y: class indices (m,) or values (m, …); by name for several outputs.
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
        self.inputs: dict[str, np.ndarray] = {}
        self.targets: dict[str, np.ndarray] = {}
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
        if not self.net.losses[name].of_classes or Y.size != Y.shape[-1]:
            return None
        return np.rint(Y.reshape(-1)[self._absolute(np.arange(self.count))]).astype(np.int64)

    def batch(self, chosen: np.ndarray, change: Callable[[Batch], Batch] | None = None) -> Batch:
        """The examples at the indices ``chosen``, on the engine, examples last; ``change`` is made before, in NumPy."""
        batch = self._gathered(chosen)
        inputs, targets, weight = change(batch) if change else batch
        on_engine = self.net.ops.asarray
        return Batch(
            {name: on_engine(X) for name, X in inputs.items()},
            {name: on_engine(Y) for name, Y in targets.items()},
            None if weight is None else on_engine(weight),
        )

    def sample(self) -> Batch:
        """Examples evenly spaced, few enough to be cheap whatever the size, as NumPy arrays."""
        numbers = sum(map(math.prod, self.net.inputs.values()))
        wanted = min(1024, max(16, CHECKED_AT_ONCE // max(1, numbers)))
        return self._gathered(np.unique(np.linspace(0, self.count - 1, wanted).astype(np.int64)))

    def fingerprint(self) -> str:
        """Tells this data from other data by a `sample`."""
        inputs, targets, weight = self.sample()
        digest = hashlib.sha256(str(self.count).encode())
        for values in [*inputs.values(), *targets.values(), *([] if weight is None else [weight])]:
            digest.update(values.tobytes())
        return digest.hexdigest()[:16]

    def _gathered(self, chosen: np.ndarray) -> Batch:
        weight = None if self.weight is None else self.weight[chosen]
        indices = self._absolute(chosen)
        if self.rows is not None:
            return self._fetched(indices)._replace(weight=weight)
        inputs = {name: self.net.ops.examples_last(x, indices, self.net.dtype) for name, x in self.inputs.items()}
        return Batch(inputs, {name: Y[..., indices] for name, Y in self.targets.items()}, weight)

    def _absolute(self, chosen: np.ndarray) -> np.ndarray:
        return chosen if self.indices is None else self.indices[chosen]

    def _fetched(self, indices: np.ndarray) -> Batch:
        assert self.rows is not None
        x, y = self.rows.take(indices)
        where = f"{self.where} rows fetched from {indices[0]} on:".lstrip()
        fetched = Source(self.net, x, y, where=where, predicting=self.predicting)
        if len(fetched) != len(indices):
            raise ShapeError("another number of examples", where=where, expected=len(indices), got=len(fetched))
        return fetched._gathered(np.arange(len(indices)))

    def _place(self, what: str, name: str | None = None) -> str:
        place = what if self.net.single or name is None else f"{what}[{name!r}]"
        return f"{self.where} {place}".strip()

    def _checked(self, name: str, values: Any) -> np.ndarray:
        where, shape = self._place("x", name), self.net.inputs[name]
        x = _as_numbers(values, where)
        if x.ndim == 1 and shape == (1,):
            x = x[:, None]
        if x.ndim == 0 or x.shape[1:] != shape:
            raise ShapeError(
                "the examples do not fit the network's input",
                where=where,
                expected=_with_m(shape),
                got=x.shape,
                hint=_swapped(x.shape, shape),
            )
        largest = np.finfo(self.net.dtype).max
        at_once = max(1, CHECKED_AT_ONCE // max(1, math.prod(shape)))
        for start in range(0, len(x) if x.dtype.kind == "f" else 0, at_once):
            fits = np.abs(x[start : start + at_once]) <= largest
            if not fits.all():
                bad = tuple(int(i) for i in np.argwhere(~fits)[0])
                raise _unfit(x[start + bad[0]][bad[1:]], where, start + bad[0], bad[1:], values)
        return x

    def _checked_targets(self, y: Any) -> dict[str, np.ndarray]:
        if y is None:
            raise DataError("there are no targets", where=self._place("y"), expected="class indices or values")
        targets = {}
        for name, values in self.net.named(y, self.net.outputs, "y").items():
            loss, shape, where = self.net.losses[name], self.net.outputs[name], self._place("y", name)
            Y = _as_numbers(values, where, labels=loss.of_classes)
            try:
                targets[name] = loss.targets(
                    np.moveaxis(Y, 0, -1) if Y.ndim > 1 else Y, shape, np.dtype(self.net.dtype), where=where
                )
            except ShapeError as problem:
                if problem.where != where:
                    raise
                of_classes = loss.of_classes and shape[-1] > 1  # a loss speaks of examples last, a user of them first
                expected = f"class indices {_with_m(shape[:-1])}" if of_classes else _with_m(shape)
                hint = _swapped(Y.shape, shape)
                raise ShapeError(problem.problem, where=where, expected=expected, got=Y.shape, hint=hint) from None
        return targets

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
        counts |= {self._place("y", name): Y.shape[-1] for name, Y in self.targets.items()}
        if len(set(counts.values())) > 1:
            got = ", ".join(f"{place}: m = {m}" for place, m in counts.items())
            raise ShapeError("different numbers of examples", where=self.where or None, got=got)
        return next(iter(counts.values()))


def is_rows(x: Any) -> bool:
    """Whether ``x`` is fetched as needed (`Rows`) and no array or table of arrays."""
    return hasattr(x, "take") and not hasattr(x, "__array__")


def order(m: int, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order of the examples in an epoch: a function of its arguments, so that a resumed run draws the same."""
    return np.random.default_rng([seed, epoch, _SHUFFLE]).permutation(m) if shuffle else np.arange(m)


def consecutive(source: Source, batch_size: int) -> Iterator[Batch]:
    """All examples in order, ``batch_size`` at a time."""
    for start in range(0, len(source), batch_size):
        yield source.batch(np.arange(start, min(start + batch_size, len(source))))


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
            "not a rectangular array", where=where, expected="examples of one shape", got=str(ragged)
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


def _with_m(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, ('m', *shape)))}{'' if shape else ','})"


def _swapped(got: tuple[int, ...], shape: tuple[int, ...]) -> str | None:
    if got == shape:
        return "one example is a batch of one: x[None]"
    if got[:-1] == shape:
        return "examples come first here: np.moveaxis(…, -1, 0), or .T for a table"
    if len(got) == 4 and len(shape) == 3 and (got[3], got[1], got[2]) == shape:
        return "the channel axis comes before height and width: np.moveaxis(x, -1, 1)"
    if len(shape) == 1 and len(got) > 2 and int(np.prod(got[1:])) == shape[0]:
        return "flatten each example: x.reshape(len(x), -1), or begin the network with pl.Flatten()"
    if len(shape) == 3 and len(got) == 3 and shape == (1, *got[1:]):
        return "add the channel axis: x[:, None]"
    return None
