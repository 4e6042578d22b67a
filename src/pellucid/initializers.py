"""Initializers: how the parameters are drawn before training, by a NumPy Generator on every engine.

The first axis of a weight array is its units, W (n, n_prev) or (C, C_prev, height, width). ``fan_in`` is the number of
inputs that one unit sums over, ``fan_out`` the number of units that one input feeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from pellucid.errors import ParameterError, ShapeError
from pellucid.registry import Registry
from pellucid.schedules import check_numbers, number

initializers: Registry[Initializer] = Registry("initializer")


def get(value: str | dict | type | Initializer, where: str | None = None) -> Initializer:
    """The initializer that ``value`` describes, such as ``"normal(0.01)"`` or the dictionary of its `config`.

    Arguments:
        value: a name or call, an initializer or its class, or a dictionary.
        where: the place to name in an error.

    Returns:
        The initializer.

    Raises:
        ParameterError: an unknown name, or arguments out of range.
    """
    return initializers.get(value, where=where)


@dataclass(frozen=True)
class Initializer:
    """Base of the initializers."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def __call__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        *,
        fan_in: int,
        fan_out: int,
        dtype: DTypeLike = np.float32,
    ) -> np.ndarray:
        """A new array.

        Arguments:
            rng: where the random numbers come from.
            shape: of the array, units first.
            fan_in: inputs that one unit sums over.
            fan_out: units that one input feeds.
            dtype: of the array; float32 and float64 are drawn in their own precision, others in float32.

        Raises:
            ShapeError: a shape that this initializer cannot fill.
            ParameterError: a fan below 1 where it sets the scale.
        """
        raise NotImplementedError


@initializers.register("constant")
@dataclass(frozen=True)
class Constant(Initializer):
    """Every entry is ``value``.

    Arguments:
        value: of every entry.
    """

    value: float = number("(-inf, inf)")

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        return np.full(shape, self.value, dtype)


@initializers.register("zeros")
@dataclass(frozen=True)
class Zeros(Initializer):
    """Every entry is 0. Right for biases; weights that start equal stay equal."""

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        return np.zeros(shape, dtype)


@initializers.register("ones")
@dataclass(frozen=True)
class Ones(Initializer):
    """Every entry is 1."""

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        return np.ones(shape, dtype)


@initializers.register("normal", "random_normal")
@dataclass(frozen=True)
class Normal(Initializer):
    """Every entry from N(mean, std²).

    Arguments:
        std: standard deviation, ≥ 0.
        mean: the mean.
    """

    std: float = number("[0, inf)", 0.05)
    mean: float = number("(-inf, inf)", 0.0)

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        return _normal(rng, shape, self.std, dtype, self.mean)


@initializers.register("uniform", "random_uniform")
@dataclass(frozen=True)
class Uniform(Initializer):
    """Every entry from U[low, high).

    Arguments:
        low: lower end.
        high: upper end, above ``low``.
    """

    low: float = number("(-inf, inf)", -0.05)
    high: float = number("(-inf, inf)", 0.05)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ParameterError("low is not below high", where="Uniform", got=f"low={self.low}, high={self.high}")

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        return _uniform(rng, shape, self.low, self.high, dtype)


@dataclass(frozen=True)
class _Scaled(Initializer):
    """Zero mean, and the variance that keeps a signal's size from layer to layer."""

    uniform: ClassVar[bool]

    def variance(self, fan_in: int, fan_out: int) -> float:
        """Of one entry."""
        raise NotImplementedError

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        if fan_in < 1 or fan_out < 1:
            raise ParameterError(
                "cannot scale weights that have no inputs or no outputs",
                where=type(self).__name__,
                expected="fan_in and fan_out of at least 1",
                got=f"fan_in={fan_in}, fan_out={fan_out}",
            )
        std = math.sqrt(self.variance(fan_in, fan_out))
        if self.uniform:
            return _uniform(rng, shape, -math.sqrt(3) * std, math.sqrt(3) * std, dtype)
        return _normal(rng, shape, std, dtype)


@dataclass(frozen=True)
class _Xavier(_Scaled):
    gain: float = number("(0, inf)", 1.0)

    def variance(self, fan_in: int, fan_out: int) -> float:
        return self.gain**2 * 2 / (fan_in + fan_out)


@dataclass(frozen=True)
class _He(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / fan_in


@dataclass(frozen=True)
class _LeCun(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 1 / fan_in


@initializers.register("xavier_normal", "glorot_normal")
@dataclass(frozen=True)
class XavierNormal(_Xavier):
    """N(0, gain² · 2 / (fan_in + fan_out)), for tanh and the logistic function.

    Arguments:
        gain: factor on the standard deviation, > 0.

    Source:
        Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", equation 12.
    """

    uniform = False


@initializers.register("xavier_uniform", "glorot_uniform")
@dataclass(frozen=True)
class XavierUniform(_Xavier):
    """U[-r, r) with r = gain · √(6 / (fan_in + fan_out)), for tanh and the logistic function.

    Arguments:
        gain: factor on r, > 0.

    Source:
        Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", equation 16.
    """

    uniform = True


@initializers.register("he_normal", "kaiming_normal")
@dataclass(frozen=True)
class HeNormal(_He):
    """N(0, 2 / fan_in), for ReLU and its family.

    Source:
        He et al. 2015, "Delving Deep into Rectifiers", equation 10.
    """

    uniform = False


@initializers.register("he_uniform", "kaiming_uniform")
@dataclass(frozen=True)
class HeUniform(_He):
    """U[-r, r) with r = √(6 / fan_in), the variance of `HeNormal`.

    Source:
        He et al. 2015, "Delving Deep into Rectifiers", equation 10.
    """

    uniform = True


@initializers.register("lecun_normal")
@dataclass(frozen=True)
class LeCunNormal(_LeCun):
    """N(0, 1 / fan_in), for SELU and linear units.

    Source:
        LeCun, Bottou, Orr & Müller 1998, "Efficient BackProp", section 4.6, equation 16.
    """

    uniform = False


@initializers.register("lecun_uniform")
@dataclass(frozen=True)
class LeCunUniform(_LeCun):
    """U[-r, r) with r = √(3 / fan_in), the variance of `LeCunNormal`.

    Source:
        LeCun, Bottou, Orr & Müller 1998, "Efficient BackProp", section 4.6, equation 16.
    """

    uniform = True


@initializers.register("fan_in_uniform")
@dataclass(frozen=True)
class FanInUniform(Initializer):
    """U[-r, r) with r = bound / fan_in: LeNet-5's start.

    Arguments:
        bound: r times the number of inputs, > 0.

    Source:
        LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", appendix A.
    """

    bound: float = number("(0, inf)", 2.4)

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        return _uniform(rng, shape, -self.bound / fan_in, self.bound / fan_in, dtype)


@initializers.register("orthogonal")
@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A matrix with orthonormal rows (or columns, whichever are fewer) times ``gain``, uniform over all such matrices.

    An array of more axes is filled as the matrix (units, everything else).

    Arguments:
        gain: every singular value, > 0.

    Source:
        Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
        networks"; the signs that make it uniform: Mezzadri 2007, "How to generate random matrices from the classical
        compact groups", section 5.
    """

    gain: float = number("(0, inf)", 1.0)

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        if len(shape) < 2:
            raise ShapeError("no rows to be orthogonal", where="Orthogonal", expected="two axes or more", got=shape)
        rows, columns = shape[0], math.prod(shape[1:])
        tall = _normal(rng, (max(rows, columns), min(rows, columns)), 1.0, _drawn_in(dtype))
        Q, R = np.linalg.qr(tall)
        Q *= np.where(np.diagonal(R) < 0, -self.gain, self.gain).astype(Q.dtype)
        return np.ascontiguousarray(Q if rows >= columns else Q.T).reshape(shape).astype(dtype, copy=False)


@initializers.register("identity")
@dataclass(frozen=True)
class Identity(Initializer):
    """``gain`` on the diagonal, 0 elsewhere: a recurrent layer that starts by remembering.

    Arguments:
        gain: of the diagonal.

    Source:
        Le, Jaitly & Hinton 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", section 2.
    """

    gain: float = number("(-inf, inf)", 1.0)

    def __call__(self, rng, shape, *, fan_in, fan_out, dtype=np.float32):
        if len(shape) != 2:
            raise ShapeError("only a matrix can be the identity", where="Identity", expected="two axes", got=shape)
        return np.eye(*shape, dtype=dtype) * np.asarray(self.gain, dtype)


def _drawn_in(dtype: DTypeLike) -> Any:
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32  # what a Generator can draw


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float, dtype: DTypeLike, mean: float = 0.0):
    drawn = rng.standard_normal(shape, _drawn_in(dtype))
    drawn *= std
    drawn += mean
    return drawn.astype(dtype, copy=False)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float, dtype: DTypeLike):
    drawn = rng.random(shape, _drawn_in(dtype))
    drawn *= high - low
    drawn += low
    return drawn.astype(dtype, copy=False)
