"""Normalisation: over the batch, and over the features of one example."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import ShapeError
from pellucid.layers.base import PREDICT, Layer
from pellucid.schedules import number
from pellucid.sequences import check_vectors


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(Layer):
    """Normalises each unit, or each channel of an image, over the batch; then scales and shifts it.

        forward    μ, σ² = mean, variance over all axes but the first      A_hat = (A_prev - μ) / √(σ² + ε)
                   A = γ A_hat + β
        backward   dγ = (1/m) Σ dA * A_hat        dβ = (1/m) Σ dA          dA_hat = γ dA
                   dA_prev = (dA_hat - mean(dA_hat) - A_hat * mean(dA_hat * A_hat)) / √(σ² + ε)

    In prediction μ and σ² are the running averages: running := momentum · running + (1 - momentum) · batch, with the
    unbiased batch variance. The sums run over the columns, and over the pixels of a channel.

    Shapes: A_prev, A (n, …, m) · γ, β, μ, σ² (n, 1, …, 1)

    Arguments:
        momentum: how much of the running average stays at each update.
        epsilon: ε, added to the variance.

    Source: Ioffe and Szegedy 2015, algorithms 1 and 2.
    """

    momentum: float = number("[0, 1)", 0.9)
    epsilon: float = number("(0, inf)", 1e-5)

    needs_batch: ClassVar[bool] = True
    takes_example_mask: ClassVar[bool] = True

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_hat: Array  # A_prev's shape
        variance: Array  # (n, 1, …, 1): of the batch, or the running one in prediction
        batch_mean: Array | None  # (n, 1, …, 1), for the running average; None in prediction
        values: Any  # how many each mean was taken over
        mask: Array | None = None  # (m,): the examples it was taken over; None is all

    def output_shape(self, input_shape):
        _check_features(input_shape)
        return input_shape

    def init(self, rng, input_shape, dtype=np.float32):
        column = _column(input_shape)
        return {"gamma": np.ones(column, dtype), "beta": np.zeros(column, dtype)}

    def init_state(self, input_shape, dtype=np.float32):
        column = _column(input_shape)
        return {"mean": np.zeros(column, dtype), "variance": np.ones(column, dtype)}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        axes = tuple(range(1, A_prev.ndim))
        if mode.train and mode.mask is not None:
            values = mode.mask.sum() * math.prod(A_prev.shape[1:-1])
            mean = (A_prev * mode.mask).sum(axis=axes, keepdims=True) / values
            centred = (A_prev - mean) * mode.mask
            variance = (centred * centred).sum(axis=axes, keepdims=True) / values
            A_hat = centred * (1.0 / ops.xp.sqrt(variance + self.epsilon))
            cache = BatchNorm.Cache(A_hat, variance, mean, values, mode.mask)
        elif mode.train:
            A_hat, mean, variance = ops.normalize(A_prev, axes, self.epsilon)
            cache = BatchNorm.Cache(A_hat, variance, mean, math.prod(A_prev.shape[1:]))
        else:
            mean, variance = mode.state["mean"], mode.state["variance"]
            A_hat = (A_prev - mean) * (1.0 / ops.xp.sqrt(variance + self.epsilon))
            cache = BatchNorm.Cache(A_hat, variance, None, 1)
        return ops.scale(params["gamma"], A_hat, params["beta"]), cache

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if cache.mask is not None:
            dA = dA * cache.mask
        dA_hat, dgamma, dbeta = ops.scale_backward(params["gamma"], dA, cache.A_hat)
        grads = {"gamma": dgamma, "beta": dbeta}
        if not input_gradient:
            return None, grads
        if cache.batch_mean is None:
            return dA_hat * (1.0 / ops.xp.sqrt(cache.variance + self.epsilon)), grads
        axes = tuple(range(1, dA.ndim))
        if cache.mask is not None:  # outside of it A_hat is 0
            mean, along = (each.sum(axis=axes, keepdims=True) / cache.values for each in (dA_hat, dA_hat * cache.A_hat))
            shared = (mean + cache.A_hat * along) * cache.mask
            return (dA_hat - shared) * (1.0 / ops.xp.sqrt(cache.variance + self.epsilon)), grads
        return ops.normalize_backward(dA_hat, cache.A_hat, cache.variance, axes, self.epsilon), grads

    def next_state(self, ops, state, cache):
        if cache.batch_mean is None:
            return state
        fewer = cache.values - 1
        unbiased = cache.variance * (cache.values / (max(fewer, 1) if cache.mask is None else ops.xp.maximum(fewer, 1)))
        keep = self.momentum
        return {
            "mean": keep * state["mean"] + (1.0 - keep) * cache.batch_mean,
            "variance": keep * state["variance"] + (1.0 - keep) * unbiased,
        }

    def state_cache(self, cache):
        return cache._replace(A_hat=None)

    def equations(self, *, train=True):
        return _EQUATIONS if train else {**_EQUATIONS, "dA_prev": "dA_hat / √(σ² + ε)"}

    def intermediates(self, ops, params, cache, dA):
        mean = {} if cache.batch_mean is None else {"mean": cache.batch_mean}
        return {**mean, "variance": cache.variance, "A_hat": cache.A_hat, "dA_hat": params["gamma"] * dA}

    def multiply_adds(self, input_shape):
        return math.prod(input_shape)


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Layer):
    """Normalises the features of each example; then scales and shifts each; the same in training and prediction.

        forward    μ, σ² = mean, variance over the last feature axes        A_hat = (A_prev - μ) / √(σ² + ε)
                   A = γ * A_hat + β
        backward   dγ = (1/m) Σ_columns dA * A_hat      dβ = (1/m) Σ_columns dA          dA_hat = γ * dA
                   dA_prev = (dA_hat - mean(dA_hat) - A_hat * mean(dA_hat * A_hat)) / √(σ² + ε)

    Shapes: A_prev, A (n, …, m) · γ, β (n, …, 1) over the normalised axes

    Arguments:
        axes: how many trailing feature axes are normalised together; None for all. For sequences (T, n, m) use 1.
        epsilon: ε, added to the variance.

    Source: Ba, Kiros and Hinton 2016, equation 3.
    """

    axes: int | None = number("[1, inf)", None, whole=True)
    epsilon: float = number("(0, inf)", 1e-5)

    @property
    def any_length(self) -> bool:  # type: ignore[override]
        """The vectors of each step by themselves; not where the steps are normalised together."""
        return self.axes == 1

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_hat: Array  # A_prev's shape
        variance: Array  # A_prev's shape with 1 along the normalised axes

    def output_shape(self, input_shape):
        _check_features(input_shape)
        if self.axes is not None and self.axes > len(input_shape):
            raise ShapeError("fewer axes than are to be normalised", expected=f"{self.axes} or more", got=input_shape)
        if None in input_shape:
            check_vectors(input_shape, repr(self))
        return input_shape

    def init(self, rng, input_shape, dtype=np.float32):
        shape = (*input_shape[len(input_shape) - self._count(len(input_shape)) :], 1)
        return {"gamma": np.ones(shape, dtype), "beta": np.zeros(shape, dtype)}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        if mode.mask is not None:
            check_vectors(A_prev.shape[:-1], repr(self))
        A_hat, _, variance = ops.normalize(A_prev, self._axes(A_prev.ndim), self.epsilon)
        return ops.scale(params["gamma"], A_hat, params["beta"]), LayerNorm.Cache(A_hat, variance)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        dA_hat, dgamma, dbeta = ops.scale_backward(params["gamma"], dA, cache.A_hat)
        grads = {"gamma": dgamma, "beta": dbeta}
        if not input_gradient:
            return None, grads
        axes = self._axes(dA.ndim)
        return ops.normalize_backward(dA_hat, cache.A_hat, cache.variance, axes, self.epsilon), grads

    def _count(self, feature_axes: int) -> int:
        return feature_axes if self.axes is None else self.axes

    def _axes(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(ndim - 1 - self._count(ndim - 1), ndim - 1))

    def equations(self, *, train=True):
        return {name: formula.replace("γ ", "γ * ") for name, formula in _EQUATIONS.items()}

    def intermediates(self, ops, params, cache, dA):
        return {"variance": cache.variance, "A_hat": cache.A_hat, "dA_hat": params["gamma"] * dA}

    def multiply_adds(self, input_shape):
        return math.prod(input_shape)


@dataclass(frozen=True, eq=False, repr=False)
class LocalResponseNorm(Layer):
    """Divides each activity by that of its neighbouring channels at the same place: units compete.

        forward    S[c] = k + α Σ_{c' within n/2 of c} A_prev[c']²            A[c] = A_prev[c] S[c]^-β
        backward   dA_prev[c] = dA[c] S[c]^-β - 2 α β A_prev[c] Σ_{c' within n/2 of c} dA[c'] A_prev[c'] S[c']^(-β-1)

    ReLU units grow without bound; this bounds their sum. The published α is not divided by n; Caffe and PyTorch divide.

    Shapes: A_prev, A, S (C, …, m)

    Arguments:
        n: channels that are summed over, the unit's own in the middle.
        alpha: α.
        beta: β.
        k: the constant that keeps S from zero.
        alpha_over_n: True divides α by n, the convention of Caffe and PyTorch.
        groups: the channels are cut into so many groups, as for a convolution; each is normalised by itself.

    Source: Krizhevsky, Sutskever and Hinton 2012, section 3.3.
    """

    n: int = number("[1, inf)", 5, whole=True)
    alpha: float = number("[0, inf)", 1e-4)
    beta: float = number("[0, inf)", 0.75)
    k: float = number("(0, inf)", 2.0)
    alpha_over_n: bool = field(default=False, kw_only=True)
    groups: int = number("[1, inf)", 1, whole=True, kw_only=True)

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_prev: Array  # (C, …, m)
        S: Array  # (C, …, m)

    def output_shape(self, input_shape):
        _check_features(input_shape)
        if input_shape[0] % self.groups:
            raise ShapeError(
                "the channels do not divide into groups",
                expected=f"a multiple of {self.groups} channels",
                got=input_shape,
            )
        return input_shape

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        A, S = ops.local_response(self._apart(A_prev), *self._neighbours, self._alpha, self.beta, self.k)
        return self._together(A), LocalResponseNorm.Cache(A_prev, self._together(S))

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        dA, A_prev, S = (self._apart(each) for each in (dA, *cache))
        dA_prev = ops.local_response_backward(dA, A_prev, S, *self._neighbours, self._alpha, self.beta)
        return self._together(dA_prev), {}

    def _apart(self, A):
        """(C, …, m) as (C / groups, groups, …, m): every group an image of its own."""
        return A if self.groups == 1 else A.reshape(self.groups, -1, *A.shape[1:]).swapaxes(0, 1)

    def _together(self, A):
        return A if self.groups == 1 else A.swapaxes(0, 1).reshape(-1, *A.shape[2:])

    @property
    def _alpha(self) -> float:
        return self.alpha / self.n if self.alpha_over_n else self.alpha

    @property
    def _neighbours(self) -> tuple[int, int]:
        """How many channels before and after each it is summed with."""
        return self.n // 2, self.n - 1 - self.n // 2

    def equations(self, *, train=True):
        return {
            "S": "k + α Σ_neighbours A_prev²",
            "A": "A_prev S^-β",
            "dA_prev": "dA S^-β - 2 α β A_prev Σ_neighbours dA A_prev S^(-β-1)",
        }

    def intermediates(self, ops, params, cache, dA):
        return {"S": cache.S}

    def multiply_adds(self, input_shape):
        return math.prod(input_shape) * (self.n + 1)


_EQUATIONS = {
    "A_hat": "(A_prev - μ) / √(σ² + ε)",
    "A": "γ A_hat + β",
    "dgamma": "(1/m) Σ dA * A_hat",
    "dbeta": "(1/m) Σ dA",
    "dA_hat": "γ dA",
    "dA_prev": "(dA_hat - mean(dA_hat) - A_hat * mean(dA_hat * A_hat)) / √(σ² + ε)",
}


def _column(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    return (input_shape[0],) + (1,) * len(input_shape)


def _check_features(input_shape: tuple[int, ...]) -> None:
    if not input_shape:
        raise ShapeError("normalises features, and the input has none", expected="(n, …)", got=input_shape)
