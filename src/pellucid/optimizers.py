"""Optimizers: each the published equation that turns a parameter W and its gradient dW into the next W.

An optimizer is a frozen specification. What it remembers of the past lives in slots: trees of arrays shaped like the
parameters. ``rule`` is the equation for one array, pure and elementwise; ``update`` clips the gradients and hands the
rule to the engine, which applies it to every parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from pellucid import schedules
from pellucid.registry import Registry
from pellucid.schedules import Constant, Schedule, check_numbers, number
from pellucid.trees import Tree, leaves, tree_map

Array = Any
Rate = float | str | dict | Schedule

optimizers: Registry[Optimizer] = Registry("optimizer")


def get(value: str | dict | type | Optimizer, where: str | None = None) -> Optimizer:
    """The optimizer that ``value`` describes, such as ``"adam(1e-3, beta1=0.8)"`` or the dictionary of its `config`.

    Arguments:
        value: a name or call, an optimizer or its class, or a dictionary.
        where: the place to name in an error.

    Returns:
        The optimizer.

    Raises:
        ParameterError: an unknown name, or arguments out of range.
    """
    return optimizers.get(value, where=where)


def global_norm(xp: Any, tree: Tree) -> Array:
    """The Euclidean norm of all leaves together: √(Σ g²), a scalar.

    The largest entry is divided out first: the gradients that need clipping most are those whose squares overflow.

    Arguments:
        xp: ``numpy`` or ``jax.numpy``.
        tree: arrays of any shapes.
    """
    arrays = [leaf for _, leaf in leaves(tree)]
    ends = (xp.maximum(xp.max(each, initial=0), -xp.min(each, initial=0)) for each in arrays)
    largest = reduce(xp.maximum, ends, 0.0)
    unit = xp.where(largest > 0, largest, 1)
    scaled = (xp.ravel(each / unit) for each in arrays)
    return largest * xp.sqrt(sum(xp.vdot(each, each) for each in scaled))


def clip_by_norm(xp: Any, grads: Tree, limit: float) -> tuple[Tree, Array]:
    """Gradients scaled down together until their global norm is at most ``limit``: g · min(1, limit / ‖g‖).

    Arguments:
        xp: ``numpy`` or ``jax.numpy``.
        grads: tree of gradients.
        limit: the largest norm, > 0.

    Returns:
        The gradients and the norm they had before, a scalar.

    Source:
        Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    norm = global_norm(xp, grads)
    scale = limit / xp.maximum(norm, limit)
    return tree_map(lambda grad: grad * scale, grads), norm


def clip_by_value(xp: Any, grads: Tree, limit: float) -> Tree:
    """Gradients with every entry moved into [-limit, limit].

    Arguments:
        xp: ``numpy`` or ``jax.numpy``.
        grads: tree of gradients.
        limit: the largest absolute value, > 0.
    """
    return tree_map(lambda grad: xp.clip(grad, -limit, limit), grads)


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers.

    Arguments:
        learning_rate: α: a number, a schedule, or the text or dictionary of one; kept as a schedule.
        clip_norm: clip the gradients of each update to this global norm; None does not.
        clip_value: clip every entry of the gradients to this absolute value, before ``clip_norm``; None does not.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    learning_rate: Rate = field(default=Constant(0.01))
    clip_norm: float | None = number("(0, inf)", None, kw_only=True)
    clip_value: float | None = number("(0, inf)", None, kw_only=True)

    def __post_init__(self) -> None:
        where = f"{type(self).__name__}, learning_rate"
        object.__setattr__(self, "learning_rate", schedules.get(self.learning_rate, where=where))
        check_numbers(self)

    @property
    def schedule(self) -> Schedule:
        """The learning rate as the schedule it always is."""
        return schedules.get(self.learning_rate)

    def init(self, params: Tree, full: Callable[..., Array] = np.full) -> dict[str, Tree]:
        """The slots before the first update: for each slot a tree shaped and typed like the parameters.

        Arguments:
            params: arrays, or what only has their shapes and types.
            full: ``full(shape, value, dtype)`` makes an array where it is to lie.
        """
        return {name: tree_map(lambda W: full(W.shape, self._start, W.dtype), params) for name in self.slots}

    @property
    def _start(self) -> float:
        """What every number of a slot is before the first update."""
        return 0.0

    def rule(
        self, xp: Any, W: Array, dW: Array, slots: Mapping[str, Array], *, learning_rate: float, t: int
    ) -> tuple[Array, dict[str, Array]]:
        """One update of one parameter; new arrays, nothing given is changed.

        Arguments:
            xp: ``numpy`` or ``jax.numpy``.
            W: the parameter, any shape.
            dW: its gradient, the mean over the batch, same shape.
            slots: the arrays remembered by slot name, same shape.
            learning_rate: α of this update; may be traced by ``jax.jit``.
            t: the number of this update, 1, 2, …; may be traced by ``jax.jit``.

        Returns:
            The next W and the next slots.
        """
        raise NotImplementedError

    def update(
        self, ops: Any, params: Tree, grads: Tree, slots: dict[str, Tree], *, learning_rate: float, t: int
    ) -> tuple[Tree, dict[str, Tree]]:
        """One update of all parameters: the gradients are clipped by value, then by norm, then `rule` is applied.

        Arguments:
            ops: the engine. ``params`` and ``slots`` are given up to it, and may be overwritten.
            params: tree of parameters.
            grads: tree of gradients, unchanged afterwards.
            slots: for each slot name a tree, of `init` or the last update.
            learning_rate: α of this update.
            t: the number of this update, 1, 2, …

        Returns:
            The next parameters and slots.
        """
        if self.clip_value is not None:
            grads = clip_by_value(ops.xp, grads, self.clip_value)
        if self.clip_norm is not None:
            grads, _ = clip_by_norm(ops.xp, grads, self.clip_norm)
        return ops.update(self.rule, params, grads, slots, learning_rate=learning_rate, t=t)


@optimizers.register("gradient_descent", "sgd", "gd")
@dataclass(frozen=True)
class GradientDescent(Optimizer):
    """Gradient descent: W := W - α dW. Batch, stochastic or mini-batch by the batch size alone.

    Arguments:
        learning_rate: α.
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        The course notes, S1 and S4.
    """

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        return W - learning_rate * dW, {}


@optimizers.register("momentum")
@dataclass(frozen=True)
class Momentum(Optimizer):
    """Classical momentum: v := μ v - α dW,  W := W + v.

    α acts inside the velocity, so a new rate acts on new gradients only. PyTorch keeps v' := μ v' + dW, W := W - α v';
    with a constant α the two are the same, v = -α v'.

    Arguments:
        learning_rate: α.
        momentum: μ, in [0, 1).
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Polyak 1964; as in Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning",
        equations 1 and 2.
    """

    slots = ("v",)

    momentum: float = number("[0, 1)", 0.9)

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        v = self.momentum * slots["v"] - learning_rate * dW
        return W + v, {"v": v}


@optimizers.register("nesterov")
@dataclass(frozen=True)
class Nesterov(Momentum):
    """Nesterov's momentum: v := μ v - α dW,  W := W + μ v - α dW.

    The published form takes the gradient at the point looked ahead to, θ + μ v. W here is that point, so dW is the
    gradient where the network is, and nothing else changes. With a constant α the same as PyTorch's ``nesterov=True``.

    Arguments:
        learning_rate: α.
        momentum: μ, in [0, 1).
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Sutskever et al. 2013, equations 3 and 4, rewritten in the point looked ahead to by Bengio,
        Boulanger-Lewandowski & Pascanu 2013, "Advances in optimizing recurrent networks", equation 7.
    """

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        v = self.momentum * slots["v"] - learning_rate * dW
        return W + self.momentum * v - learning_rate * dW, {"v": v}


@optimizers.register("adagrad")
@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """AdaGrad: s := s + dW²,  W := W - α dW / (√s + ε).

    Arguments:
        learning_rate: α.
        initial_accumulator: s before the first update, ≥ 0.
        epsilon: ε, outside the root as in the paper and PyTorch.
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Duchi, Hazan & Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization", figure 1.
    """

    slots = ("s",)

    initial_accumulator: float = number("[0, inf)", 0.0)
    epsilon: float = number("(0, inf)", 1e-10)

    @property
    def _start(self):
        return self.initial_accumulator

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        s = slots["s"] + xp.square(dW)
        return W - learning_rate * dW / (xp.sqrt(s) + self.epsilon), {"s": s}


@optimizers.register("rmsprop")
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop: s := ρ s + (1 - ρ) dW²,  W := W - α dW / (√s + ε).

    The lecture has no ε. Here it is outside the root, as in PyTorch (whose ``alpha`` is ρ, 0.99 by default); Keras has
    it inside.

    Arguments:
        learning_rate: α.
        decay: ρ, in [0, 1).
        epsilon: ε.
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Tieleman & Hinton 2012, "Neural Networks for Machine Learning", lecture 6e.
    """

    slots = ("s",)

    learning_rate: Rate = field(default=Constant(0.001))
    decay: float = number("[0, 1)", 0.9)
    epsilon: float = number("(0, inf)", 1e-8)

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        s = self.decay * slots["s"] + (1 - self.decay) * xp.square(dW)
        return W - learning_rate * dW / (xp.sqrt(s) + self.epsilon), {"s": s}


@optimizers.register("adam")
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: W := W - α m̂ / (√v̂ + ε), with both moments freed of their bias towards zero.

    m := β₁ m + (1 - β₁) dW,  v := β₂ v + (1 - β₂) dW²,  m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ).

    Arguments:
        learning_rate: α.
        beta1: β₁, in [0, 1).
        beta2: β₂, in [0, 1).
        epsilon: ε.
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1.
    """

    slots = ("m", "v")

    learning_rate: Rate = field(default=Constant(0.001))
    beta1: float = number("[0, 1)", 0.9)
    beta2: float = number("[0, 1)", 0.999)
    epsilon: float = number("(0, inf)", 1e-8)

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        m = self.beta1 * slots["m"] + (1 - self.beta1) * dW
        v = self.beta2 * slots["v"] + (1 - self.beta2) * xp.square(dW)
        rate = learning_rate / (1 - self.beta1**t)  # α m̂ = rate m: numbers are divided here, not arrays
        v_hat = v * (1 / (1 - self.beta2**t))
        return W - rate * m / (xp.sqrt(v_hat) + self.epsilon), {"m": m, "v": v}


@optimizers.register("adamw")
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: W := W - α (m̂ / (√v̂ + ε) + λ W).

    Every parameter decays, biases too. λ is multiplied by α, as in PyTorch; the paper multiplies it by the schedule's
    multiplier alone.

    Arguments:
        learning_rate: α.
        beta1, beta2, epsilon: as in `Adam`.
        weight_decay: λ, ≥ 0.
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
    """

    weight_decay: float = number("[0, inf)", 0.01)

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        W_adam, slots = super().rule(xp, W, dW, slots, learning_rate=learning_rate, t=t)
        return W_adam - learning_rate * self.weight_decay * W, slots


@optimizers.register("adadelta")
@dataclass(frozen=True)
class Adadelta(Optimizer):
    """Adadelta: the step has the parameter's own unit, so α = 1 fits all.

    s := ρ s + (1 - ρ) dW²,  Δ = -√(u + ε) / √(s + ε) · dW,  u := ρ u + (1 - ρ) Δ²,  W := W + α Δ.

    Arguments:
        learning_rate: α; the paper has none.
        decay: ρ, in [0, 1).
        epsilon: ε.
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Zeiler 2012, "ADADELTA: An Adaptive Learning Rate Method", algorithm 1.
    """

    slots = ("s", "u")

    learning_rate: Rate = field(default=Constant(1.0))
    decay: float = number("[0, 1)", 0.95)
    epsilon: float = number("(0, inf)", 1e-6)

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        s = self.decay * slots["s"] + (1 - self.decay) * xp.square(dW)
        step = -xp.sqrt(slots["u"] + self.epsilon) / xp.sqrt(s + self.epsilon) * dW
        u = self.decay * slots["u"] + (1 - self.decay) * xp.square(step)
        return W + learning_rate * step, {"s": s, "u": u}


@optimizers.register("lion")
@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion: only the sign of an interpolated momentum: W := W - α (sign(c) + λ W).

    c = β₁ m + (1 - β₁) dW, and after it m := β₂ m + (1 - β₂) dW.

    Arguments:
        learning_rate: α; about a tenth of Adam's.
        beta1: β₁, in [0, 1).
        beta2: β₂, in [0, 1).
        weight_decay: λ, ≥ 0.
        clip_norm, clip_value: as in `Optimizer`.

    Source:
        Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.
    """

    slots = ("m",)

    learning_rate: Rate = field(default=Constant(0.0001))
    beta1: float = number("[0, 1)", 0.9)
    beta2: float = number("[0, 1)", 0.99)
    weight_decay: float = number("[0, inf)", 0.0)

    def rule(self, xp, W, dW, slots, *, learning_rate, t):
        direction = xp.sign(self.beta1 * slots["m"] + (1 - self.beta1) * dW)
        m = self.beta2 * slots["m"] + (1 - self.beta2) * dW
        return W - learning_rate * (direction + self.weight_decay * W), {"m": m}
