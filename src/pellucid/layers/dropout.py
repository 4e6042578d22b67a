"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pellucid.engines.base import Array
from pellucid.layers.base import PREDICT, Layer
from pellucid.schedules import number


@dataclass(frozen=True, eq=False, repr=False)
class Dropout(Layer):
    """Drops each unit with probability ``rate`` in training; does nothing in prediction.

        forward    D ~ Bernoulli(1 - rate)      A  = A_prev * D / (1 - rate)
        backward                          dA_prev  = dA * D / (1 - rate)

    The division keeps the mean of A what it is in prediction (inverted dropout). Each update trains another thinned
    network; prediction with all units approximates their average.

    Arguments:
        rate: the probability of dropping, 0 ≤ rate < 1.

    Source: Srivastava et al. 2014, sections 4 and 10.
    """

    rate: float = number("[0, 1)")

    any_length: ClassVar[bool] = True

    class Cache(NamedTuple):
        """Which units were kept."""

        D: Array | None  # 0 or 1, A's shape; None in prediction

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        if not mode.train or self.rate == 0:
            return A_prev, Dropout.Cache(None)
        A, D = ops.dropout(mode.key, A_prev, self.rate)
        return A, Dropout.Cache(D)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if cache.D is None or not input_gradient:
            return dA if input_gradient else None, {}
        return ops.dropout_backward(dA, cache.D, self.rate), {}

    def equations(self, *, train=True):
        if not train or self.rate == 0:
            return {"A": "A_prev", "dA_prev": "dA"}
        kept = f"{1 - self.rate:g}"
        return {
            "D": f"1 with probability {kept}, else 0",
            "A": f"A_prev * D / {kept}",
            "dA_prev": f"dA * D / {kept}",
        }

    def intermediates(self, ops, params, cache, dA):
        return {} if cache.D is None else {"D": cache.D}
