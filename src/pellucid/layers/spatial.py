"""Layers that change an image's borders or its size: ZeroPad2D, Crop2D, Upsample2D."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import PREDICT, Layer, Shape, set_field
from pellucid.layers.windows import Pads, check_spatial, checked_padding, per_axis


class _Sides(NamedTuple):
    """The input's shape."""

    shape: tuple[int, ...]  # of A_prev


@dataclass(frozen=True, eq=False, repr=False)
class ZeroPad2D(Layer):
    """Zeros around an image; dA_prev is dA without its border.

    Arguments:
        padding: a number for all sides, (vertical, horizontal), or ((top, bottom), (left, right)), in pixels.
    """

    padding: Any = 1
    _padding: Pads = field(init=False)  # of each axis

    Cache = _Sides  # type: ignore[assignment]

    def __post_init__(self):
        set_field(self, "_padding", _numbers(self.padding, "ZeroPad2D"))

    def output_shape(self, input_shape):
        check_spatial(input_shape, 2)
        return (input_shape[0], *(n + sum(pad) for n, pad in zip(input_shape[1:], self._padding, strict=True)))

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        return ops.xp.pad(A_prev, ((0, 0), *self._padding, (0, 0))), _Sides(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return dA[_inside(self._padding, cache.shape[1:-1])] if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": "A_prev with zeros around it", "dA_prev": "dA without its border"}


@dataclass(frozen=True, eq=False, repr=False)
class Crop2D(Layer):
    """An image without its border; dA_prev is dA with zeros around it.

    Arguments:
        border: pixels cut off, given as `ZeroPad2D`'s padding.
    """

    border: Any = 1
    _border: Pads = field(init=False)  # of each axis

    Cache = _Sides  # type: ignore[assignment]

    def __post_init__(self):
        set_field(self, "_border", _numbers(self.border, "Crop2D"))

    def output_shape(self, input_shape):
        check_spatial(input_shape, 2)
        sizes = tuple(n - sum(cut) for n, cut in zip(input_shape[1:], self._border, strict=True))
        if min(sizes) < 1:
            raise ShapeError("nothing is left of the image", expected=f"larger than {self.border}", got=input_shape)
        return (input_shape[0], *sizes)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        sizes = self.output_shape(A_prev.shape[:-1])[1:]
        return A_prev[_inside(self._border, sizes)], _Sides(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return ops.xp.pad(dA, ((0, 0), *self._border, (0, 0))) if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": "A_prev without its border", "dA_prev": "dA with zeros around it"}


@dataclass(frozen=True, eq=False, repr=False)
class Upsample2D(Layer):
    """Each pixel repeated: (C, H, W, m) → (C, H s, W s, m); dA_prev is the sum of dA over each repeated block.

    Arguments:
        scale: s, how often; one number or (down, across).
    """

    scale: Any = 2
    _scale: Shape = field(init=False)  # of each axis

    Cache = _Sides  # type: ignore[assignment]

    def __post_init__(self):
        set_field(self, "_scale", per_axis(self.scale, 2, "scale", "Upsample2D"))

    def output_shape(self, input_shape):
        check_spatial(input_shape, 2)
        C, H, W = input_shape
        return (C, H * self._scale[0], W * self._scale[1])

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        down, across = self._scale
        return ops.xp.repeat(ops.xp.repeat(A_prev, down, axis=1), across, axis=2), _Sides(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        C, H, W, m = cache.shape
        down, across = self._scale
        return dA.reshape(C, H, down, W, across, m).sum(axis=(2, 4)), {}

    def equations(self, *, train=True):
        return {"A": "each pixel of A_prev repeated", "dA_prev": "Σ dA over each repeated block"}


def _numbers(padding: Any, where: str) -> Pads:
    sides = checked_padding(padding, 2, where)
    if isinstance(sides, str):
        raise ParameterError("takes numbers of pixels", where=where, got=repr(padding))
    return sides


def _inside(sides: Pads, sizes: Shape) -> tuple[slice, ...]:
    return (slice(None), *(slice(before, before + n) for (before, _), n in zip(sides, sizes, strict=True)))
