"""Layers for the steps of a sequence (T, …, m): the same layer at every step, a mean over them, one vector repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.activations import Activation
from pellucid.layers.base import PREDICT, Layer, layers, positive_integer, set_field
from pellucid.layers.dense import Dense
from pellucid.sequences import examples_as_steps, steps_as_examples
from pellucid.trees import tree_map


@dataclass(frozen=True, eq=False, repr=False)
class TimeDistributed(Layer):
    """One layer at every step of a sequence, with the same parameters: A[t] = layer(A_prev[t]).

        pl.TimeDistributed(pl.Dense(10))                   # an answer at every step
        pl.TimeDistributed(pl.Conv2D(8, 3, "relu"))        # every frame of a video

    The steps are examples of their own to the layer; its gradients are sums over the steps: dW = (1/m) Σ_t of step t.

    Shapes: A_prev (T, …, m), the layer taking (…, m) · A (T, …, m)

    Arguments:
        layer: of one input and one output.
    """

    layer: Any

    any_length: ClassVar[bool] = True

    class Cache(NamedTuple):
        """What the backward block reads."""

        layer: Any  # the layer's own cache
        steps: int  # T
        mask: Array | None  # (T, m), where the layer saw the True ones only

    def __post_init__(self):
        layer = layers.get(self.layer, where="TimeDistributed")
        if layer.several_inputs is not False:
            raise ParameterError(
                "runs a layer of one input, without memory, at every step", where="TimeDistributed", got=repr(layer)
            )
        set_field(self, "layer", layer)

    def penalized(self):
        return self.layer.penalized()

    def output_shape(self, input_shape):
        if len(input_shape) < 2:
            raise ShapeError("takes a sequence", expected="(T, …)", got=input_shape)
        shape = self.layer.output_shape(tuple(input_shape[1:]))
        if shape and isinstance(shape[0], tuple):
            raise ShapeError("runs a layer of one output", expected="one output", got=f"{len(shape)} of them")
        return (input_shape[0], *shape)

    def init(self, rng, input_shape, dtype=np.float32):
        return self.layer.init(rng, tuple(input_shape[1:]), dtype)

    def init_state(self, input_shape, dtype=np.float32):
        return self.layer.init_state(tuple(input_shape[1:]), dtype)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        T, inner = len(A_prev), mode._replace(mask=None)
        if self._takes_steps:
            A, cache = self.layer.forward(ops, params, A_prev, mode=inner)
            return A, TimeDistributed.Cache(cache, T, None)
        # Statistics over the examples must not see padding; to other layers it is harmless.
        mask = mode.mask if self.layer.needs_batch and mode.train else None
        if mask is not None and self.layer.takes_example_mask and not ops.known(mask):
            # How many are chosen is not known when a step is compiled: all of them go in, with a mask.
            inner, mask = mode._replace(mask=mask.reshape(-1).astype(A_prev.dtype)), None
        A, cache = self.layer.forward(ops, params, steps_as_examples(ops.xp, A_prev, mask), mode=inner)
        return examples_as_steps(ops.xp, A, T, mask), TimeDistributed.Cache(cache, T, mask)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        own, T, mask = cache
        if self._takes_steps:
            return self.layer.backward(ops, params, own, dA, input_gradient=input_gradient)
        folded, m = steps_as_examples(ops.xp, dA, mask), dA.shape[-1]
        dA_prev, grads = self.layer.backward(ops, params, own, folded, input_gradient=input_gradient)
        share = folded.shape[-1] / m  # the layer's mean is over the steps too
        grads = tree_map(lambda gradient: gradient * share, grads)
        return None if dA_prev is None else examples_as_steps(ops.xp, dA_prev, T, mask), grads

    def next_state(self, ops, state, cache):
        return self.layer.next_state(ops, state, cache.layer)

    def state_cache(self, cache):
        own = self.layer.state_cache(cache.layer)
        return None if own is None else cache._replace(layer=own, mask=None)

    @property
    def _takes_steps(self) -> bool:
        """Whether the layer's own arithmetic goes over leading axes as it is."""
        g = self.layer.activation if isinstance(self.layer, Dense) else self.layer
        elementwise = isinstance(g, Activation) and type(g).g is not Activation.g
        return elementwise and not g.init(np.random.default_rng(0), (2,))

    def equations(self, *, train=True):
        def sums(name, formula):
            formula = formula.replace("(1/m) ", "(1/m) Σ_t ") if name.startswith("d") else formula
            return formula.replace("A_prev", "A_prev[t]").replace("dZ", "dZ[t]")

        return {name: sums(name, formula) for name, formula in self.layer.equations(train=train).items()}

    def intermediates(self, ops, params, cache, dA):
        own, T, mask = cache
        if self._takes_steps:
            return self.layer.intermediates(ops, params, own, dA)
        found = self.layer.intermediates(ops, params, own, steps_as_examples(ops.xp, dA, mask))
        width = dA.shape[-1] * T if mask is None else int(mask.sum())
        return {
            name: examples_as_steps(ops.xp, value, T, mask) if value.shape[-1] == width else value
            for name, value in found.items()
        }

    def multiply_adds(self, input_shape):
        return input_shape[0] * self.layer.multiply_adds(tuple(input_shape[1:]))


@dataclass(frozen=True, eq=False, repr=False)
class MeanOverTime(Layer):
    """The mean of the steps: A = (1/T) Σ_t A_prev[t], of each example's own steps where their number differs.

    backward  dA_prev[t] = dA / T

    Shapes: A_prev (T, …, m) · A (…, m)
    """

    any_length: ClassVar[bool] = True
    causal: ClassVar[bool] = False

    class Cache(NamedTuple):
        """What the backward block reads."""

        shape: tuple[int, ...]  # of A_prev, with m
        weight: Array | None  # (T, 1, …, m): 1/T of each example's own steps, 0 elsewhere

    def output_shape(self, input_shape):
        if len(input_shape) < 2:
            raise ShapeError("takes a sequence", expected="(T, …)", got=input_shape)
        return tuple(input_shape[1:])

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        if mode.mask is None:
            return A_prev.mean(axis=0), MeanOverTime.Cache(A_prev.shape, None)
        weight = (mode.mask / mode.mask.sum(axis=0)).astype(A_prev.dtype)
        weight = weight.reshape(len(A_prev), *(1,) * (A_prev.ndim - 2), A_prev.shape[-1])
        return (A_prev * weight).sum(axis=0), MeanOverTime.Cache(A_prev.shape, weight)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        if cache.weight is None:
            return ops.xp.broadcast_to(dA / cache.shape[0], cache.shape), {}
        return dA[None] * cache.weight, {}

    def output_mask(self, mask):
        return None

    def equations(self, *, train=True):
        return {"A": "(1/T) Σ_t A_prev[t]", "dA_prev": "dA / T at every t"}

    def multiply_adds(self, input_shape):
        return math.prod(input_shape)


@dataclass(frozen=True, eq=False, repr=False)
class Repeat(Layer):
    """One vector as the input of every step: A[t] = A_prev for t = 0 … T-1. From one, many.

    backward  dA_prev = Σ_t dA[t]

    Shapes: A_prev (…, m) · A (T, …, m)

    Arguments:
        steps: T.
    """

    steps: int

    class Cache(NamedTuple):
        """Nothing."""

    def __post_init__(self):
        positive_integer(self.steps, "steps", self)

    def output_shape(self, input_shape):
        return (self.steps, *input_shape)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        return ops.xp.broadcast_to(A_prev[None], (self.steps, *A_prev.shape)), Repeat.Cache()

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return dA.sum(axis=0) if input_gradient else None, {}

    def equations(self, *, train=True):
        return {"A": "A_prev at every t", "dA_prev": "Σ_t dA[t]"}
