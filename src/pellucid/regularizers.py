"""Regularizers: what large weights cost, and the gradient of that cost.

A regularizer adds ``penalty`` to the cost J, so ``gradient`` to dW; it is a term of J itself, not divided by m.
``project`` acts on W after each update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pellucid.registry import Registry
from pellucid.schedules import check_numbers, number

Array = Any

regularizers: Registry[Regularizer] = Registry("regularizer")


def get(value: str | dict | type | Regularizer, where: str | None = None) -> Regularizer:
    """The regularizer that ``value`` describes, such as ``"l2(1e-4)"`` or the dictionary of its `config`.

    Arguments:
        value: a name or call, a regularizer or its class, or a dictionary.
        where: the place to name in an error.

    Returns:
        The regularizer.

    Raises:
        ParameterError: an unknown name, or arguments out of range.
    """
    return regularizers.get(value, where=where)


@dataclass(frozen=True)
class Regularizer:
    """Base of the regularizers: costs nothing and changes nothing."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def penalty(self, xp: Any, W: Array) -> Array:
        """What W adds to the cost J, a scalar.

        Arguments:
            xp: ``numpy`` or ``jax.numpy``.
            W: a parameter, any shape.
        """
        return xp.zeros((), W.dtype)

    def gradient(self, xp: Any, W: Array) -> Array:
        """The derivative of `penalty` by W, shaped like W.

        Arguments:
            xp: ``numpy`` or ``jax.numpy``.
            W: a parameter, any shape.
        """
        return xp.zeros_like(W)

    def project(self, xp: Any, W: Array) -> Array:
        """The nearest allowed W, taken after each update.

        Arguments:
            xp: ``numpy`` or ``jax.numpy``.
            W: a parameter, units first.
        """
        return W


@regularizers.register("l1", "lasso")
@dataclass(frozen=True)
class L1(Regularizer):
    """J gains rate · Σ|W|, dW gains rate · sign(W), 0 where W is 0.

    Arguments:
        rate: λ, ≥ 0.
    """

    rate: float = number("[0, inf)", 0.01)

    def penalty(self, xp: Any, W: Array) -> Array:
        return self.rate * xp.sum(xp.abs(W))

    def gradient(self, xp: Any, W: Array) -> Array:
        return self.rate * xp.sign(W)


@regularizers.register("l2", "ridge")
@dataclass(frozen=True)
class L2(Regularizer):
    """J gains rate / 2 · ΣW², dW gains rate · W. The half is in the cost so that none is in the gradient.

    Keras's ``l2(rate)`` has no half: its rate is half of this one.

    Arguments:
        rate: λ, ≥ 0.
    """

    rate: float = number("[0, inf)", 0.01)

    def penalty(self, xp: Any, W: Array) -> Array:
        return self.rate / 2 * xp.sum(xp.square(W))

    def gradient(self, xp: Any, W: Array) -> Array:
        return self.rate * W


@regularizers.register("elastic", "elastic_net", "l1_l2")
@dataclass(frozen=True)
class Elastic(Regularizer):
    """Both: J gains l1 · Σ|W| + l2 / 2 · ΣW², dW gains l1 · sign(W) + l2 · W.

    Arguments:
        l1: the rate of `L1`, ≥ 0.
        l2: the rate of `L2`, ≥ 0.

    Source:
        Zou & Hastie 2005, "Regularization and variable selection via the elastic net", equation 3.
    """

    l1: float = number("[0, inf)", 0.01)
    l2: float = number("[0, inf)", 0.01)

    def penalty(self, xp: Any, W: Array) -> Array:
        return L1(self.l1).penalty(xp, W) + L2(self.l2).penalty(xp, W)

    def gradient(self, xp: Any, W: Array) -> Array:
        return L1(self.l1).gradient(xp, W) + L2(self.l2).gradient(xp, W)


@regularizers.register("max_norm")
@dataclass(frozen=True)
class MaxNorm(Regularizer):
    """No cost; after each update every unit's incoming weights w are brought back to ‖w‖ ≤ limit.

    w is one row of W (n, n_prev), in general everything at one place of the first axis.

    Arguments:
        limit: the largest Euclidean norm of one unit's weights, > 0.

    Source:
        Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", section 5.1.
    """

    limit: float = number("(0, inf)", 3.0)

    def project(self, xp: Any, W: Array) -> Array:
        norms = xp.sqrt(xp.sum(xp.square(W), axis=tuple(range(1, W.ndim)), keepdims=True))
        return W * (self.limit / xp.maximum(norms, self.limit))
