"""Embedding: a vector of its own for every level of a category, or for every token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import DataError
from pellucid.layers.base import PREDICT, Layer, find_rules, positive_integer, vector_length


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer):
    """Looks up a trained column for each id: a dense layer on one-hot vectors, without the multiplication by zeros.

        forward    A[t, :, i] = W[:, id[t, i]]
        backward   dW[:, k] = (1/m) Σ dA[t, :, i] where id[t, i] = k       an id has no gradient: dA_prev = 0

    Shapes: A_prev (T, m) whole numbers 0 … levels-1 · W, dW (units, levels) · A, dA (T, units, m)

    Arguments:
        levels: how many ids there are.
        units: n, the length of each vector.
        initializer: how W starts.
        regularizer: of W; None takes the network's.

    Raises:
        DataError: an id outside 0 … levels-1, or not whole (in `forward`).

    Source: Bengio et al. 2003, section 2.
    """

    levels: int
    units: int
    initializer: Any = field(default="normal", kw_only=True)
    regularizer: Any = field(default=None, kw_only=True)

    any_length: ClassVar[bool] = True
    regularized: ClassVar[tuple[str, ...]] = ("W",)

    class Cache(NamedTuple):
        """What the backward block reads."""

        ids: Array  # (T, m), integer

    def __post_init__(self):
        positive_integer(self.levels, "levels", self)
        positive_integer(self.units, "units", self)
        find_rules(self)

    def output_shape(self, input_shape):
        return (vector_length(input_shape, self), self.units)

    def init(self, rng, input_shape, dtype=np.float32):
        shape = (self.units, self.levels)
        return {"W": self.initializer(rng, shape, fan_in=self.levels, fan_out=self.units, dtype=dtype)}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        ids = A_prev.astype("int32")
        ops.look(self._check, A_prev, ids)
        return ops.embedding(params["W"], ids), Embedding.Cache(ids)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        dA_prev = ops.xp.zeros(cache.ids.shape, dA.dtype) if input_gradient else None
        return dA_prev, {"W": ops.embedding_dW(dA, cache.ids, self.levels)}

    def equations(self, *, train=True):
        return {"A": "the columns W[:, id]", "dW": "(1/m) Σ dA where the id was looked up", "dA_prev": "0"}

    def _check(self, A_prev: np.ndarray, ids: np.ndarray) -> None:
        wrong = (ids < 0) | (ids >= self.levels) | (ids != A_prev)
        if wrong.any():
            t, i = (int(each) for each in np.argwhere(wrong)[0])
            raise DataError(
                "an id that has no vector",
                where=f"{self!r}, example {i}, position {t}",
                expected=f"a whole number 0 … {self.levels - 1}",
                got=f"{A_prev[t, i]:g}",
            )
