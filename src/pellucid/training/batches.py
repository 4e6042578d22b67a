"""From examples first, as people's data is, to examples last, as networks compute: the one place where they cross."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.network.base import Network

CHECKED_AT_ONCE = 1 << 16  # examples: bounds the memory of the check for finite values


class Rows(Protocol):
    """Data that is fetched as it is needed: a data set, a file, a table larger than memory."""

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
        y: class indices (m,) or values (m, …); by name for several outputs; None to predict.
        sample_weight: how much each example counts (m,); scaled to mean 1.
        where: what to call the data in messages.

    Raises:
        DataError, ShapeError: data that cannot be used; the message names the example.
    """

    def __init__(self, net: Network, x: Any, y: Any = None, *, sample_weight: Any = None, where: str = "") -> None:
        self.net, self.where = net, where
        self.rows: Rows | None = x if is_rows(x) else None
        self.targets: dict[str, np.ndarray] = {}
        if self.rows is not None:
            self.count = len(self.rows)
        else:
            self.inputs = {name: self._checked(name, value) for name, value in net.named(x, net.inputs, "x").items()}
            if y is not None:
                self.targets = self._checked_targets(y)
            self.count = self._common_count()
        if self.count == 0:
            raise DataError("there are no examples", where=where or "x", got="m = 0")
        self.weight = None if sample_weight is None else self._checked_weight(sample_weight)

    def __len__(self) -> int:
        return self.count

    def labels(self) -> np.ndarray | None:
        """Class indices (m,) where the only target is one class of several; what a split is stratified by."""
        if self.rows is not None or len(self.targets) != 1:
            return None
        (name,) = self.targets
        Y = self.targets[name]
        if not self.net.losses[name].of_classes or Y.size != self.count:
            return None
        return np.rint(Y.reshape(-1)).astype(np.int64)

    def batch(self, indices: np.ndarray) -> Batch:
        """The examples at ``indices``, on the engine, examples last."""
        weight = None if self.weight is None else self._on_engine(self.weight[indices])
        if self.rows is not None:
            x, y = self.rows.take(indices)
            fetched = Source(self.net, x, y, where=self.where or "data")
            return fetched.batch(np.arange(len(indices)))._replace(weight=weight)
        inputs = {
            name: self._on_engine(np.ascontiguousarray(np.moveaxis(x[indices], 0, -1), dtype=self.net.dtype))
            for name, x in self.inputs.items()
        }
        targets = {name: self._on_engine(Y[..., indices]) for name, Y in self.targets.items()}
        return Batch(inputs, targets, weight)

    def _on_engine(self, values: np.ndarray) -> Array:
        return self.net.ops.asarray(values)

    def _place(self, what: str, name: str) -> str:
        place = what if self.net.single else f"{what}[{name!r}]"
        return f"{self.where} {place}".strip()

    def _checked(self, name: str, x: Any) -> np.ndarray:
        where, shape = self._place("x", name), self.net.inputs[name]
        x = x if isinstance(x, np.ndarray) else np.asarray(x)
        if x.dtype.kind not in "fiub":
            raise DataError("not numbers", where=where, expected="numbers", got=f"dtype {x.dtype}")
        if x.ndim == 1 and shape == (1,):
            x = x[:, None]
        if x.shape[1:] != shape:
            raise ShapeError(
                "the examples do not fit the network's input",
                where=where,
                expected=f"(m, {', '.join(map(str, shape))})",
                got=x.shape,
                hint=_swapped(x.shape, shape),
            )
        if x.dtype.kind == "f":
            for start in range(0, len(x), CHECKED_AT_ONCE):
                finite = np.isfinite(x[start : start + CHECKED_AT_ONCE])
                if not finite.all():
                    bad = tuple(int(i) for i in np.argwhere(~finite)[0])
                    place = f"{where}, example {start + bad[0]}" + (f", feature {bad[1]}" if len(bad) == 2 else "")
                    value = x[start + bad[0]][bad[1:]]
                    hint = "impute or drop missing values first" if np.isnan(value) else None
                    raise DataError("a value that is not finite", where=place, got=value, hint=hint)
        return x

    def _checked_targets(self, y: Any) -> dict[str, np.ndarray]:
        if not self.net.losses:
            raise ParameterError("the network has no loss", hint="make it with loss='softmax_cross_entropy', say")
        targets = {}
        for name, value in self.net.named(y, self.net.outputs, "y").items():
            Y = np.moveaxis(np.asarray(value), 0, -1) if np.ndim(value) > 1 else np.asarray(value)
            loss, shape = self.net.losses[name], self.net.outputs[name]
            targets[name] = loss.targets(Y, shape, np.dtype(self.net.dtype), where=self._place("y", name))
        return targets

    def _checked_weight(self, sample_weight: Any) -> np.ndarray:
        weight = np.asarray(sample_weight, dtype=np.float64)
        if weight.shape != (self.count,):
            raise ShapeError("one weight per example", where="sample_weight", expected=(self.count,), got=weight.shape)
        if not np.isfinite(weight).all() or weight.min() < 0 or weight.sum() == 0:
            raise DataError("weights must be ≥ 0, finite and not all 0", where="sample_weight")
        return (weight * (self.count / weight.sum())).astype(self.net.dtype)

    def _common_count(self) -> int:
        counts = {self._place("x", name): len(x) for name, x in self.inputs.items()}
        counts |= {self._place("y", name): Y.shape[-1] for name, Y in self.targets.items()}
        if len(set(counts.values())) > 1:
            got = ", ".join(f"{name}: {m}" for name, m in counts.items())
            raise ShapeError("different numbers of examples m", where=self.where or None, got=got)
        return next(iter(counts.values()))


def is_rows(x: Any) -> bool:
    """Whether ``x`` is fetched as needed (`Rows`) and no array or table of arrays."""
    return hasattr(x, "take") and not hasattr(x, "__array__")


class Subset:
    """Some examples of a source, by index; copies nothing."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: np.ndarray) -> Batch:
        """The examples at ``indices`` of this subset."""
        return self.source.batch(self.indices[indices])


def order(m: int, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order of the examples in an epoch: a function of its arguments, so that a resumed run draws the same."""
    return np.random.default_rng([seed, epoch]).permutation(m) if shuffle else np.arange(m)


def consecutive(source: Source | Subset, batch_size: int) -> Iterator[Batch]:
    """All examples in order, ``batch_size`` at a time."""
    for start in range(0, len(source), batch_size):
        yield source.batch(np.arange(start, min(start + batch_size, len(source))))


def _swapped(got: tuple[int, ...], shape: tuple[int, ...]) -> str | None:
    if got == shape:
        return "one example is a batch of one: x[None]"
    if got[:-1] == shape:
        return "examples come first here: np.moveaxis(x, -1, 0), or x.T for a table"
    if len(got) == 4 and len(shape) == 3 and (got[3], got[1], got[2]) == shape:
        return "the channel axis comes before height and width: np.moveaxis(x, -1, 1)"
    if len(shape) == 1 and len(got) > 2 and int(np.prod(got[1:])) == shape[0]:
        return "flatten each example: x.reshape(len(x), -1), or begin the network with pl.Flatten()"
    if len(shape) == 3 and len(got) == 3 and shape == (1, *got[1:]):
        return "add the channel axis: x[:, None]"
    return None
