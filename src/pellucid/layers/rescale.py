"""A fixed change of scale: what stands between the pixels as they are and the range a network was made for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from pellucid.layers.base import PREDICT, Layer
from pellucid.schedules import number


@dataclass(frozen=True, eq=False, repr=False)
class Rescale(Layer):
    """A = scale · A_prev + offset, the same for every value and never trained; dA_prev = scale · dA.

    Arguments:
        scale: factor.
        offset: added to it.
    """

    scale: float = number("(-inf, inf)", 1.0)
    offset: float = number("(-inf, inf)", 0.0)

    any_length: ClassVar[bool] = True

    class Cache(NamedTuple):
        """What the backward block reads: nothing."""

    def output_shape(self, input_shape):
        return input_shape

    def init(self, rng, input_shape, dtype=np.float32):
        return {}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        return self.scale * A_prev + self.offset, Rescale.Cache()

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return self.scale * dA if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": f"{self.scale:g} A_prev + {self.offset:g}", "dA_prev": f"{self.scale:g} dA"}

    def multiply_adds(self, input_shape):
        return math.prod(input_shape)
