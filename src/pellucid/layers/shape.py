"""Layers that only rearrange: Flatten, Reshape, Split. The example axis is last, so they are free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import PREDICT, Layer, as_shape, positive_integer, set_field


class _ShapeCache(NamedTuple):
    """The shape to go back to."""

    shape: tuple[int, ...]  # of A_prev, with m


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(Layer):
    """One vector per example: (d₁, d₂, …, m) → (d₁ d₂ …, m), a view."""

    Cache = _ShapeCache  # type: ignore[assignment]

    def output_shape(self, input_shape):
        return (math.prod(input_shape),)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        return A_prev.reshape(math.prod(A_prev.shape[:-1]), A_prev.shape[-1]), _ShapeCache(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return dA.reshape(cache.shape) if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": "A_prev, one column per example", "dA_prev": "dA in A_prev's shape"}


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(Layer):
    """Each example in another shape: (…, m) → (*shape, m), a view.

    Arguments:
        shape: without the example axis; one entry may be -1 for what is left.
    """

    shape: Sequence[int]

    Cache = _ShapeCache  # type: ignore[assignment]

    def __post_init__(self):
        sizes = tuple(self.shape) if isinstance(self.shape, Iterable) else (self.shape,)
        if sizes.count(-1) > 1:
            raise ParameterError("only one size can be left open", where="Reshape", got=sizes)
        as_shape([1 if n == -1 else n for n in sizes], "Reshape")
        set_field(self, "shape", sizes)

    def output_shape(self, input_shape):
        values, known = math.prod(input_shape), math.prod(n for n in self.shape if n != -1)
        if values % known or (-1 not in self.shape and values != known):
            raise ShapeError("the values do not fill the new shape", expected=f"{known} values", got=f"{values} values")
        return tuple(values // known if n == -1 else n for n in self.shape)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        shape = self.output_shape(A_prev.shape[:-1])
        return A_prev.reshape(*shape, A_prev.shape[-1]), _ShapeCache(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return dA.reshape(cache.shape) if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": f"A_prev as {tuple(self.shape)}", "dA_prev": "dA in A_prev's shape"}


@dataclass(frozen=True, eq=False, repr=False)
class Split(Layer):
    """Cuts an axis into parts, each an output of its own in a graph: ``a, b = pl.Split(2)(h)``.

    backward  dA_prev = the parts' dA, joined again

    Arguments:
        parts: a number of equal parts, or the sizes of the parts; 2 or more.
        axis: of the array without the example axis.
    """

    parts: Any
    axis: int = 0

    class Cache(NamedTuple):
        """Nothing: the parts' own shapes say how to join them."""

    def __post_init__(self):
        if isinstance(self.parts, (list, tuple)):
            set_field(self, "parts", as_shape(self.parts, "Split"))
        else:
            positive_integer(self.parts, "parts", self)
        if (len(self.parts) if isinstance(self.parts, tuple) else self.parts) < 2:
            raise ParameterError("a split makes 2 or more parts", where="Split", got=repr(self.parts))

    def _sizes(self, n: int) -> tuple[int, ...]:
        if isinstance(self.parts, tuple):
            if sum(self.parts) != n:
                raise ShapeError("the parts do not add up", expected=f"sizes that sum to {n}", got=self.parts)
            return self.parts
        if n % self.parts:
            raise ShapeError("the axis does not divide", expected=f"a multiple of {self.parts}", got=n)
        return (n // self.parts,) * self.parts

    def output_shape(self, input_shape):
        axis = joined_axis(self, self.axis, input_shape)
        return tuple((*input_shape[:axis], n, *input_shape[axis + 1 :]) for n in self._sizes(input_shape[axis]))

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        axis = joined_axis(self, self.axis, A_prev.shape[:-1])
        parts, start = [], 0
        for n in self._sizes(A_prev.shape[axis]):
            parts.append(A_prev[(slice(None),) * axis + (slice(start, start + n),)])
            start += n
        return tuple(parts), Split.Cache()

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        axis = joined_axis(self, self.axis, dA[0].shape[:-1])
        return ops.xp.concatenate(dA, axis=axis) if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": "the parts of A_prev", "dA_prev": "concat(dA)"}


def joined_axis(layer: Layer, axis: int, shape: tuple[int, ...]) -> int:
    """``axis`` counted from the front.

    Raises:
        ShapeError: the shape has no such axis.
    """
    if not -len(shape) <= axis < len(shape):
        raise ShapeError("there is no such axis", where=repr(layer), expected=f"an axis of {shape}", got=f"axis {axis}")
    return axis % len(shape)
