"""Layers that join branches: Concat, Add, Multiply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import add, mul
from typing import ClassVar, NamedTuple

from pellucid.engines.base import Array
from pellucid.errors import ShapeError
from pellucid.layers.base import PREDICT, Layer
from pellucid.layers.shape import joined_axis


@dataclass(frozen=True, eq=False, repr=False)
class Concat(Layer):
    """The inputs one after the other along an axis.

    backward  each input's dA_prev is its own part of dA

    Arguments:
        axis: of the arrays without the example axis; 0 joins vectors end to end and images channel by channel.
    """

    axis: int = 0
    several_inputs: ClassVar[bool | None] = True

    @property
    def any_length(self) -> bool:  # type: ignore[override]
        """Along the first axis, that of the steps, padding would come to lie between them."""
        return self.axis > 0 or self.axis == -1

    class Cache(NamedTuple):
        """Where each input lies in A."""

        sizes: tuple[int, ...]  # along the axis

    def output_shape(self, input_shape):
        axis = joined_axis(self, self.axis, input_shape[0])
        for shape in input_shape[1:]:
            if len(shape) != len(input_shape[0]) or any(
                a != b for i, (a, b) in enumerate(zip(shape, input_shape[0], strict=True)) if i != axis
            ):
                raise ShapeError(f"the inputs differ beside axis {axis}", got=" and ".join(map(str, input_shape)))
        return tuple(sum(s[i] for s in input_shape) if i == axis else n for i, n in enumerate(input_shape[0]))

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        axis = joined_axis(self, self.axis, A_prev[0].shape[:-1])
        _check_same([(*each.shape[:axis], *each.shape[axis + 1 :]) for each in A_prev], self)
        sizes = tuple(each.shape[axis] for each in A_prev)
        return ops.xp.concatenate(A_prev, axis=axis), Concat.Cache(sizes)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return (None,) * len(cache.sizes), {}
        axis = joined_axis(self, self.axis, dA.shape[:-1])
        parts, start = [], 0
        for n in cache.sizes:
            parts.append(dA[(slice(None),) * axis + (slice(start, start + n),)])
            start += n
        return tuple(parts), {}

    def equations(self, *, train=True):
        return {"A": "concat(A_prev)", "dA_prev": "each input's part of dA"}


@dataclass(frozen=True, eq=False, repr=False)
class Add(Layer):
    """A = Σ inputs, all of one shape. Every input's dA_prev is dA."""

    several_inputs: ClassVar[bool | None] = True
    any_length: ClassVar[bool] = True

    class Cache(NamedTuple):
        """What the backward block reads."""

        inputs: int  # how many there were

    def output_shape(self, input_shape):
        return _same(input_shape)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        _check_same([each.shape for each in A_prev], self)
        return reduce(add, A_prev), Add.Cache(len(A_prev))

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return (dA if input_gradient else None,) * cache.inputs, {}

    def equations(self, *, train=True):
        return {"A": "sum(A_prev)", "dA_prev": "dA"}


@dataclass(frozen=True, eq=False, repr=False)
class Multiply(Layer):
    """A = Π inputs elementwise, all of one shape. An input's dA_prev is dA times the product of the others."""

    several_inputs: ClassVar[bool | None] = True
    any_length: ClassVar[bool] = True

    class Cache(NamedTuple):
        """The inputs."""

        A_prev: tuple[Array, ...]  # each of A's shape

    def output_shape(self, input_shape):
        return _same(input_shape)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        _check_same([each.shape for each in A_prev], self)
        return reduce(mul, A_prev), Multiply.Cache(tuple(A_prev))

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return (None,) * len(cache.A_prev), {}
        others = (cache.A_prev[:i] + cache.A_prev[i + 1 :] for i in range(len(cache.A_prev)))
        return tuple(reduce(mul, each, dA) for each in others), {}

    def equations(self, *, train=True):
        return {"A": "product(A_prev)", "dA_prev": "dA * product of the other inputs"}

    def multiply_adds(self, input_shape):
        return (len(input_shape) - 1) * math.prod(input_shape[0])


def _same(shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    if len(set(shapes)) != 1:
        raise ShapeError("the inputs must have one shape", got=" and ".join(map(str, shapes)))
    return shapes[0]


def _check_same(shapes: list[tuple[int, ...]], layer: Layer) -> None:
    """Refuse sequences of different numbers of steps, which only the arrays themselves have."""
    if any(shape != shapes[0] for shape in shapes):
        raise ShapeError("the inputs differ in their shapes", where=repr(layer), got=" and ".join(map(str, shapes)))
