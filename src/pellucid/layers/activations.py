"""Activations: A = g(Z), each with its derivative beside it. As layers, or as another layer's ``activation``.

An elementwise activation names what its derivative is cheapest from: ``keeps = "A"`` or ``keeps = "Z"``. That array is
all its cache holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array, Ops, Window
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import PREDICT, Layer, Mode, positive_integer
from pellucid.registry import Registry
from pellucid.schedules import number
from pellucid.sequences import check_vectors

activations: Registry[Activation] = Registry("activation")


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Layer):
    """Base of the activations. An elementwise one gives `g` and `derivative`, and `keeps`.

    forward   A = g(Z)
    backward  dZ = dA * g'(Z)
    """

    keeps: ClassVar[str] = "A"
    any_length: ClassVar[bool] = True

    class Cache(NamedTuple):
        """The one array that g' is computed from."""

        kept: Array  # Z or A, as `keeps` says, Z's shape

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        activations.register(*kwargs.get("names", (cls.__name__,)))(cls)

    def g(self, ops: Ops, Z: Array) -> Array:
        """A = g(Z)."""
        raise NotImplementedError

    def derivative(self, ops: Ops, kept: Array) -> Array:
        """g'(Z), from Z or from A as `keeps` says."""
        raise NotImplementedError

    def output_shape(self, input_shape):
        return input_shape

    def init(self, rng, input_shape, dtype=np.float32):
        return {}

    def init_state(self, input_shape, dtype=np.float32):
        return {}

    def forward(self, ops, params, A_prev, *, mode: Mode = PREDICT, in_place: bool = False):
        A = ops.activation(self, A_prev, in_place=in_place and self.keeps == "A")
        return A, Activation.Cache(A if self.keeps == "A" else A_prev)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return ops.activation_backward(self, dA, cache.kept) if input_gradient else None, {}

    def equations(self, *, train=True):
        name = self.registered_name
        return {"A": f"{name}(A_prev)", "dA_prev": f"dA * {name}'(A_prev)"}

    def equations_of_Z(self) -> dict[str, str]:
        """`equations` as those of another layer's activation, whose input is Z."""
        of_Z = {name: formula.replace("A_prev", "Z") for name, formula in self.equations().items()}
        return {"dZ": of_Z.pop("dA_prev"), **of_Z}


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Activation, names=("identity", "linear")):
    """A = Z."""

    def g(self, ops, Z):
        return Z

    def derivative(self, ops, A):
        return ops.xp.ones_like(A)

    def forward(self, ops, params, A_prev, *, mode=PREDICT, in_place=False):
        return A_prev, Activation.Cache(None)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return dA if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": "A_prev", "dA_prev": "dA"}


@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(Activation, names=("sigmoid", "logistic")):
    """The logistic function, A = 1 / (1 + e^-Z), with g' = A (1 - A) ≤ 1/4."""

    def g(self, ops, Z):
        return ops.sigmoid(Z)

    def derivative(self, ops, A):
        return A * (1.0 - A)


@dataclass(frozen=True, eq=False, repr=False)
class Tanh(Activation, names=("tanh",)):
    """A = tanh Z, with g' = 1 - A²."""

    def g(self, ops, Z):
        return ops.xp.tanh(Z)

    def derivative(self, ops, A):
        return 1.0 - A * A


@dataclass(frozen=True, eq=False, repr=False)
class ScaledTanh(Activation, names=("scaled_tanh",)):
    """LeNet-5's squashing, A = 1.7159 tanh(⅔ Z): ±1 maps to ±1, where its curvature is largest.

    Source: LeCun et al. 1998, appendix A.
    """

    amplitude: ClassVar[float] = 1.7159
    slope: ClassVar[float] = 2.0 / 3.0

    def g(self, ops, Z):
        return self.amplitude * ops.xp.tanh(self.slope * Z)

    def derivative(self, ops, A):
        return self.slope * self.amplitude - A * A * (self.slope / self.amplitude)


@dataclass(frozen=True, eq=False, repr=False)
class ReLU(Activation, names=("relu",)):
    """A = max(0, Z), with g' = 1 where Z > 0 and 0 elsewhere (0 at the kink).

    Source: Nair and Hinton 2010.
    """

    def g(self, ops, Z):
        return ops.xp.maximum(Z, 0.0)

    def derivative(self, ops, A):
        return A > 0.0


@dataclass(frozen=True, eq=False, repr=False)
class LeakyReLU(Activation, names=("leaky_relu",)):
    """A = Z where Z > 0, slope · Z elsewhere.

    Arguments:
        slope: of the negative side, > 0.

    Source: Maas, Hannun and Ng 2013.
    """

    slope: float = number("(0, inf)", 0.01)

    def g(self, ops, Z):
        return ops.xp.where(Z > 0.0, Z, self.slope * Z)

    def derivative(self, ops, A):
        one = ops.xp.ones_like(A)
        return ops.xp.where(A > 0.0, one, self.slope * one)


@dataclass(frozen=True, eq=False, repr=False)
class PReLU(Activation, names=("prelu",)):
    """A = Z where Z > 0, a · Z elsewhere, with one trained slope a for each unit or channel (the first axis).

    backward  dZ = dA * (1 where Z > 0, a elsewhere)      da = (1/m) Σ dA * min(Z, 0)

    Arguments:
        slope: a at the start.

    Source: He et al. 2015, equations 1 and 9.
    """

    slope: float = number("(-inf, inf)", 0.25)
    keeps: ClassVar[str] = "Z"
    any_length: ClassVar[bool] = False

    def init(self, rng, input_shape, dtype=np.float32):
        return {"a": np.full((input_shape[0],) + (1,) * len(input_shape), self.slope, dtype)}

    def forward(self, ops, params, A_prev, *, mode=PREDICT, in_place=False):
        return ops.prelu(params["a"], A_prev), Activation.Cache(A_prev)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        dZ, da = ops.prelu_backward(params["a"], dA, cache.kept)
        return dZ if input_gradient else None, {"a": da}

    def equations(self, *, train=True):
        return {
            "A": "A_prev where A_prev > 0, a A_prev elsewhere",
            "dA_prev": "dA where A_prev > 0, a dA elsewhere",
            "da": "(1/m) Σ dA * min(A_prev, 0)",
        }


@dataclass(frozen=True, eq=False, repr=False)
class ELU(Activation, names=("elu",)):
    """A = Z where Z > 0, alpha (e^Z - 1) elsewhere; there g' = A + alpha.

    Source: Clevert, Unterthiner and Hochreiter 2016, equation 1.
    """

    alpha: float = number("(0, inf)", 1.0)

    def g(self, ops, Z):
        return ops.xp.where(Z > 0.0, Z, self.alpha * ops.xp.expm1(ops.xp.minimum(Z, 0.0)))

    def derivative(self, ops, A):
        return ops.xp.where(A > 0.0, ops.xp.ones_like(A), A + self.alpha)


@dataclass(frozen=True, eq=False, repr=False)
class SELU(Activation, names=("selu",)):
    """A = λ Z where Z > 0, λ α (e^Z - 1) elsewhere, with λ and α that keep mean 0 and variance 1.

    Source: Klambauer et al. 2017, equation 2.
    """

    scale: ClassVar[float] = 1.0507009873554804934193349852946
    alpha: ClassVar[float] = 1.6732632423543772848170429916717

    def g(self, ops, Z):
        return self.scale * ops.xp.where(Z > 0.0, Z, self.alpha * ops.xp.expm1(ops.xp.minimum(Z, 0.0)))

    def derivative(self, ops, A):
        return ops.xp.where(A > 0.0, self.scale * ops.xp.ones_like(A), A + self.scale * self.alpha)


@dataclass(frozen=True, eq=False, repr=False)
class GELU(Activation, names=("gelu",)):
    """A = Z Φ(Z), Φ the standard normal distribution; g' = Φ(Z) + Z φ(Z).

    Arguments:
        approximate: ``"none"``, or ``"tanh"`` for ½ Z (1 + tanh(√(2/π) (Z + 0.044715 Z³))).

    Source: Hendrycks and Gimpel 2016, section 2.
    """

    approximate: str = "none"
    keeps: ClassVar[str] = "Z"

    def __post_init__(self):
        if self.approximate not in ("none", "tanh"):
            raise ParameterError(
                "unknown approximation", where="GELU", expected="'none' or 'tanh'", got=repr(self.approximate)
            )

    def g(self, ops, Z):
        if self.approximate == "tanh":
            return 0.5 * Z * (1.0 + ops.xp.tanh(self._inner(Z)))
        return Z * self._phi(ops, Z)

    def derivative(self, ops, Z):
        if self.approximate == "tanh":
            T = ops.xp.tanh(self._inner(Z))
            slope = math.sqrt(2.0 / math.pi) * (1.0 + 3 * 0.044715 * Z * Z)
            return 0.5 * (1.0 + T) + 0.5 * Z * (1.0 - T * T) * slope
        return self._phi(ops, Z) + Z * ops.xp.exp(-0.5 * Z * Z) * (1.0 / math.sqrt(2.0 * math.pi))

    @staticmethod
    def _phi(ops, Z):
        return 0.5 * (1.0 + ops.erf(Z * math.sqrt(0.5)))

    @staticmethod
    def _inner(Z):
        return math.sqrt(2.0 / math.pi) * (Z + 0.044715 * Z * Z * Z)


@dataclass(frozen=True, eq=False, repr=False)
class SiLU(Activation, names=("silu", "swish")):
    """A = Z σ(Z); with S = σ(Z), g' = S (1 + Z (1 - S)).

    Source: Elfwing, Uchibe and Doya 2018, equation 2; Ramachandran, Zoph and Le 2017.
    """

    keeps: ClassVar[str] = "Z"

    def g(self, ops, Z):
        return Z * ops.sigmoid(Z)

    def derivative(self, ops, Z):
        S = ops.sigmoid(Z)
        return S * (1.0 + Z * (1.0 - S))


@dataclass(frozen=True, eq=False, repr=False)
class Softplus(Activation, names=("softplus",)):
    """A = log(1 + e^Z); g' = σ(Z) = 1 - e^-A.

    Source: Dugas et al. 2001.
    """

    def g(self, ops, Z):
        xp = ops.xp
        return xp.maximum(Z, 0.0) + xp.log1p(xp.exp(-xp.abs(Z)))

    def derivative(self, ops, A):
        return -ops.xp.expm1(-A)


@dataclass(frozen=True, eq=False, repr=False)
class HardSigmoid(Activation, names=("hard_sigmoid",)):
    """A = min(1, max(0, Z/6 + 1/2)); g' = 1/6 inside, 0 outside.

    Source: Courbariaux, Bengio and David 2015, with the slope of 1/6 of Howard et al. 2019.
    """

    def g(self, ops, Z):
        return ops.xp.clip(Z * (1.0 / 6.0) + 0.5, 0.0, 1.0)

    def derivative(self, ops, A):
        return ((A > 0.0) & (A < 1.0)) * ops.xp.full_like(A, 1.0 / 6.0)


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Activation, names=("softmax",)):
    """A = e^Z / Σ e^Z along an axis.

    backward  dZ = A * (dA - Σ dA * A): the Jacobian diag(A) - A Aᵀ applied to dA

    With a cross-entropy loss prefer logits and ``loss="softmax_cross_entropy"``: the pair is exact where softmax
    alone underflows.

    Arguments:
        axis: of the array without the example axis, 0 for vectors and channels.
    """

    axis: int = 0

    @property
    def any_length(self) -> bool:  # type: ignore[override]
        """Along the first axis, that of the steps, padding would get a share."""
        return self.axis > 0 or self.axis == -1

    def output_shape(self, input_shape):
        _axis_within(self, self.axis, input_shape)
        if None in input_shape:
            check_vectors(input_shape, repr(self))
        return input_shape

    def forward(self, ops, params, A_prev, *, mode=PREDICT, in_place=False):
        if mode.mask is not None:
            check_vectors(A_prev.shape[:-1], repr(self))
        A = ops.softmax(A_prev, self.axis if self.axis >= 0 else self.axis - 1)
        return A, Activation.Cache(A)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        return ops.softmax_backward(dA, cache.kept, self.axis if self.axis >= 0 else self.axis - 1), {}

    def equations(self, *, train=True):
        return {"A": "softmax(A_prev)", "dA_prev": "A * (dA - Σ dA * A)"}


@dataclass(frozen=True, eq=False, repr=False)
class Maxout(Activation, names=("maxout",)):
    """A_i = max of the i-th group of ``pieces`` neighbouring units of Z: (pieces · n, m) → (n, m).

    backward  dZ is dA at the unit that was largest (the first of equals), 0 at the others

    ``Dense(20, "maxout(2)")`` is 10 units, each the larger of 2 affine functions.

    Arguments:
        pieces: units in a group; must divide the number of units (the first axis).

    Source: Goodfellow et al. 2013, section 3.
    """

    pieces: int = 2
    any_length: ClassVar[bool] = False

    class Cache(NamedTuple):
        """Which unit of each group was largest."""

        taps: Array  # integer, (n, 1, …·m): A's values

    def __post_init__(self):
        positive_integer(self.pieces, "pieces", self)

    def output_shape(self, input_shape):
        n = input_shape[0]
        if n % self.pieces:
            raise ShapeError(
                "the units do not divide into groups",
                expected=f"a multiple of pieces = {self.pieces} along the first axis",
                got=input_shape,
            )
        return (n // self.pieces, *input_shape[1:])

    def forward(self, ops, params, A_prev, *, mode=PREDICT, in_place=False):
        n, *others = self.output_shape(A_prev.shape)
        A, taps = ops.max_pool(A_prev.reshape(n, self.pieces, -1), self._window, (1,))
        return A.reshape(n, *others), Maxout.Cache(taps)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        n, _, others = cache.taps.shape
        shape = (n, self.pieces, others)
        dZ = ops.max_pool_backward(dA.reshape(cache.taps.shape), cache.taps, shape, self._window)
        return dZ.reshape(-1, *dA.shape[1:]), {}

    @property
    def _window(self) -> Window:
        """A group as an image of one axis, under one window."""
        return Window((self.pieces,), (self.pieces,), ((0, 0),), (1,))

    def equations(self, *, train=True):
        pieces = f"each {self.pieces} neighbouring units"
        return {"A": f"max(A_prev) of {pieces}", "dA_prev": f"dA at the largest of {pieces}, 0 elsewhere"}


def _axis_within(layer: Layer, axis: int, shape: tuple[int, ...]) -> None:
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(
            "there is no such axis",
            where=repr(layer),
            expected=f"an axis of {shape}: {-len(shape)} … {len(shape) - 1}",
            got=axis,
        )
