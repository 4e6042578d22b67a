"""Several devices: how many there are along which axis, and where the arrays of a training lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import ParameterError
from pellucid.trees import Tree, tree_map

if TYPE_CHECKING:
    from pellucid.engines.base import Array, Ops

_EXPECTED = "'data=4', 'model=2', 'data=2,model=2' or 'data=4,sharded'"


@dataclass(frozen=True)
class Mesh:
    """The devices of a training, as a table of ``data`` rows and ``model`` columns.

    Arguments:
        data: parts that every batch is split into; each row of devices has one.
        model: parts that the units of dense layers and convolutions are split into; each column has one.
        sharded: True splits large parameters and their slots over the rows too, each device keeping a part and fetching
            the others where they are used: less memory, more exchanged.

    Source: Rajbhandari et al. 2020, ZeRO, section 5, for ``sharded``; Krizhevsky 2014, section 3, for the two axes.
    """

    data: int = 1
    model: int = 1
    sharded: bool = False

    def __post_init__(self) -> None:
        for axis in ("data", "model"):
            n = getattr(self, axis)
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise ParameterError(
                    f"{axis} is a number of devices", where="mesh", expected="a whole number from 1", got=repr(n)
                )

        if not isinstance(self.sharded, bool):
            raise ParameterError("sharded is True or False", where="mesh", got=repr(self.sharded))

    @property
    def size(self) -> int:
        """How many devices there are."""
        return self.data * self.model

    @classmethod
    def of(cls, given: Any) -> Mesh | None:
        """The mesh that was asked for: one, its text such as ``"data=2,model=2"``, or None for one device.

        Raises:
            ParameterError: it is none of these.
        """
        if given is None or isinstance(given, cls):
            return given
        parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else []
        matched = [re.fullmatch(r"(data|model)\s*=\s*(\d+)|(sharded)", part) for part in parts]
        names = [each[1] or each[3] for each in matched if each]
        if not parts or None in matched or len(set(names)) < len(names):
            raise ParameterError("not a mesh of devices", where="mesh", expected=_EXPECTED, got=repr(given))
        sizes = {each[1]: int(each[2]) for each in matched if each and each[1]}
        return cls(sizes.get("data", 1), sizes.get("model", 1), "sharded" in names)

    def __str__(self) -> str:
        axes = [f"{axis}={getattr(self, axis)}" for axis in ("data", "model") if getattr(self, axis) > 1]
        return ",".join([*(axes or ["data=1"]), *(["sharded"] if self.sharded else [])])


class Placement:
    """Where the arrays of a training lie, and which process does what: here all on one device, in one process.

    Arguments:
        ops: the engine.

    Attributes:
        mesh: the devices; None is one.
        first: whether this process writes and speaks for all.
    """

    mesh: Mesh | None = None
    first: bool = True

    def __init__(self, ops: Ops) -> None:
        self.ops = ops

    def placed(self, leaf: Any, dtype: Any = None) -> Array:
        """A parameter, a leaf of the state or a slot where it belongs."""
        return self.ops.asarray(leaf, dtype)

    def spread(self, tree: Tree) -> Tree:
        """A tree of parameters, state or slots, copied to where they belong."""
        return tree_map(lambda leaf: self.placed(leaf).copy(), tree)

    def full(self, shape: tuple[int, ...], value: float, dtype: Any) -> Array:
        """A slot of an optimizer where it belongs, all of one value; nowhere is more of it made than lies there."""
        return self.ops.asarray(np.full(shape, value, dtype))

    def kept(self, tree: Tree) -> Tree:
        """The same within a compiled step: what it returns stays where it belongs, and gradients go where they do."""
        return tree

    def everywhere(self, values: Any) -> Array:
        """An array that every device is to have whole."""
        return self.ops.asarray(values)

    def examples(self, A: Array) -> Array:
        """Within a compiled step, an array (…, m) of which each device computes its own examples."""
        return A

    def home(self, tree: Any) -> Any:
        """The whole of a tree, or of a named tuple of trees, on one device of this process again."""
        return tree

    def share(self, m: int) -> slice:
        """Which of a batch's m examples this process gathers."""
        return slice(0, m)

    def batch(self, share: Any, m: int) -> Array:
        """An array (…, m), the examples last, of which this process has gathered its ``share``."""
        return self.ops.asarray(share)

    def check(self, batch_size: int) -> None:
        """Refuse batches that cannot be split.

        Raises:
            ParameterError: it says which sizes can.
        """

    def divisible(self, m: int) -> int:
        """The next number of examples from m on that can be split."""
        return m if self.mesh is None else -(-m // self.mesh.data) * self.mesh.data

    def agreed(self, wanted: bool, at: int, since: int = -1) -> bool:
        """Whether any process wants it; several processes ask each other only now and then: where one of the updates
        after ``since`` up to ``at`` is such a one."""
        return wanted

    def begin(self, settings: Callable[[], Mapping[str, Any]], checkpoint: Path | None) -> None:
        """Wait for the other processes that train too.

        Arguments:
            settings: says what must be the same in all of them.
            checkpoint: the one to go on from, should one of them be lost; None where nothing is kept.

        Raises:
            ParameterError: a process would train otherwise.
            EngineError: a process does not come.
        """

    def active(self) -> AbstractContextManager[Any]:
        """Within, what is computed is split as the arrays are, and a process that is lost is named.

        Raises:
            EngineError: another process was lost.
        """
        return nullcontext()
