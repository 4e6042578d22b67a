"""The fully connected layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid import initializers
from pellucid.engines.base import Array
from pellucid.layers.activations import Activation, activations
from pellucid.layers.base import (
    PREDICT,
    Layer,
    Params,
    Shape,
    check_width,
    find_rules,
    positive_integer,
    set_field,
    vector_length,
)


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Layer):
    """A fully connected layer of ``units`` neurons.

        forward    Z[l]  = W[l] A[l-1] + b[l]           A[l]    = g[l](Z[l])
        backward   dZ[l] = dA[l] * g[l]'(Z[l])          dW[l]   = (1/m) dZ[l] A[l-1]ᵀ
                   db[l] = (1/m) Σ_columns dZ[l]        dA[l-1] = W[l]ᵀ dZ[l]

    Shapes: A_prev, dA_prev (n_prev, m) · W, dW (n, n_prev) · b, db (n, 1) · Z, A, dZ, dA (n, m)

    Arguments:
        units: n, the number of neurons.
        activation: g, by name or as a layer.
        use_bias: False for Z = W A_prev.
        initializer: how W starts; by default He's for the ReLU family, LeCun's for SELU, Xavier's for the others.
        bias_initializer: how b starts.
        regularizer: of W; None takes the network's.

    Source: the notes' S1 and S4.
    """

    units: int
    activation: Any = "identity"
    use_bias: bool = field(default=True, kw_only=True)
    initializer: Any = field(default=None, kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)
    regularizer: Any = field(default=None, kw_only=True)

    regularized: ClassVar[tuple[str, ...]] = ("W",)

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_prev: Array  # (n_prev, m)
        g: Any  # the activation's own cache: Z (n, m), or A where g' can be had from A

    def __post_init__(self):
        positive_integer(self.units, "units", self)
        set_field(self, "activation", activations.get(self.activation, where="Dense"))
        find_rules(self)

    def output_shape(self, input_shape):
        vector_length(input_shape, self)
        return self.activation.output_shape((self.units,))

    def init(self, rng, input_shape, dtype=np.float32):
        n, n_prev = self.units, input_shape[0]
        fans = {"fan_in": n_prev, "fan_out": n, "dtype": dtype}
        return start(self, rng, W=(n, n_prev), b=(n, 1), Z=(n,), **fans)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        W, b = params["W"], params.get("b")
        check_width(self, A_prev, W.shape[1])

        Z = ops.affine(W, A_prev, b)
        A, g = self.activation.forward(ops, params.get("g"), Z, mode=mode, in_place=True)
        return A, Dense.Cache(A_prev, g)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        W, A_prev = params["W"], cache.A_prev

        dZ, dg = self.activation.backward(ops, params.get("g"), cache.g, dA)
        grads = {"W": ops.affine_dW(dZ, A_prev)}
        if self.use_bias:
            grads["b"] = ops.affine_db(dZ)
        dA_prev = ops.affine_dA(W, dZ) if input_gradient else None
        return dA_prev, {**grads, "g": dg} if dg else grads

    def equations(self, *, train=True):
        with_bias = {"db": "(1/m) Σ_columns dZ"} if self.use_bias else {}
        return {
            "Z": "W A_prev + b" if self.use_bias else "W A_prev",
            "dW": "(1/m) dZ A_prevᵀ",
            **with_bias,
            "dA_prev": "Wᵀ dZ",
            **self.activation.equations_of_Z(),
        }

    def intermediates(self, ops, params, cache, dA):
        Z = ops.affine(params["W"], cache.A_prev, params.get("b"))
        dZ, _ = self.activation.backward(ops, params.get("g"), cache.g, dA)
        return {"Z": Z, "dZ": dZ}

    def multiply_adds(self, input_shape):
        return self.units * math.prod(input_shape)


def start(
    layer: Any, rng: np.random.Generator, *, W: Shape, b: Shape, Z: Shape, fan_in: int, fan_out: int, dtype: Any
) -> Params:
    """The parameters of an affine layer or a convolution, from the shapes of W and b, and of Z for the activation's."""
    fans = {"fan_in": fan_in, "fan_out": fan_out, "dtype": dtype}
    initializer = layer.initializer or initializers.get(fitting_initializer(layer.activation))
    params = {"W": initializer(rng, W, **fans)}
    if layer.use_bias:
        params["b"] = layer.bias_initializer(rng, b, **fans)
    g = layer.activation.init(rng, Z, dtype)
    return {**params, "g": g} if g else params


def fitting_initializer(g: Activation) -> str:
    """The initialisation whose derivation assumed this activation.

    Source: He et al. 2015, section 2.2 (ReLU family); Klambauer et al. 2017 (SELU); Glorot and Bengio 2010 (others).
    """
    if g.registered_name in ("relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "maxout", "softplus"):
        return "he_normal"
    return "lecun_normal" if g.registered_name == "selu" else "xavier_uniform"
