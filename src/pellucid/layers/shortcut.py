"""The shortcut of a residual network past a block that halves the image and doubles the channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pellucid.errors import ShapeError
from pellucid.layers.base import PREDICT, Layer, positive_integer
from pellucid.layers.windows import check_spatial


@dataclass(frozen=True, eq=False, repr=False)
class Shortcut2D(Layer):
    """Every stride-th pixel of an image, with channels of zeros added: the identity where sizes differ, no parameters.

        forward    A[c] = A_prev[c, ::stride, ::stride] for c < C_prev, 0 for the others
        backward   dA_prev[c, ::stride, ::stride] = dA[c], 0 elsewhere

    Shapes: A_prev (C_prev, H, W, m) · A (units, ⌈H / stride⌉, ⌈W / stride⌉, m)

    Arguments:
        units: channels of A, at least those of A_prev.
        stride: pixels between two that are kept.

    Source: He, Zhang, Ren and Sun 2015, "Deep Residual Learning", section 3.3, option A.
    """

    units: int
    stride: int = 1

    class Cache(NamedTuple):
        """What the backward block reads."""

        shape: tuple[int, ...]  # of A_prev

    def __post_init__(self):
        positive_integer(self.units, "units", self)
        positive_integer(self.stride, "stride", self)

    def output_shape(self, input_shape):
        check_spatial(input_shape, 2)
        if input_shape[0] > self.units:
            raise ShapeError("a shortcut only adds channels", expected=f"at most {self.units}", got=input_shape)
        return (self.units, *(-(-n // self.stride) for n in input_shape[1:]))

    def init(self, rng, input_shape, dtype=np.float32):
        return {}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        added = ((0, self.units - A_prev.shape[0]), *((0, 0),) * 3)
        kept = A_prev[:, :: self.stride, :: self.stride]
        return ops.xp.pad(kept, added), Shortcut2D.Cache(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        channels, *sizes, _ = cache.shape
        rows, columns = (np.arange(n) % self.stride == 0 for n in sizes)
        kept = rows[:, None, None] & columns[:, None]
        spread = dA[:channels].repeat(self.stride, axis=1).repeat(self.stride, axis=2)
        return ops.xp.where(kept, spread[:, : sizes[0], : sizes[1]], 0.0).astype(dA.dtype), {}

    def equations(self, *, train=True):
        return {"A": "every stride-th pixel of A_prev, zeros for new channels", "dA_prev": "dA at those pixels"}
