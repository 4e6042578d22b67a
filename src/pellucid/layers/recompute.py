"""A chain of layers whose caches are not kept: the backward block runs the forward blocks again to have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import PREDICT, Layer, Mode, backward, layers, named, output_shape, set_field


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Recompute(Layer):
    """A chain of layers as one, of which only A_prev is kept: memory is saved, and their forward blocks run twice.

        pl.Recompute(pl.Conv2D(64, 3, "relu"), pl.Conv2D(64, 3, "relu"), pl.MaxPool2D(2))

        forward    A = layer_L(… layer_1(A_prev))                                      the caches are let go
        backward   the forward blocks again, from A_prev; then the backward blocks with their caches, layer_L first

    The second run draws what the first drew (dropout), and running averages move once: every value and gradient is that
    of the chain, to the bit where the engine computes the same twice.

    Shapes: A_prev and A are the chain's. Parameters, state and gradients are trees by the members' names.

    Arguments:
        layers: from the first to the last, each of one input and one output; one after the other, or a list. Layers
            with memory inside see whole sequences: they are neither stateful nor trained with ``truncate``.

    Raises:
        ParameterError: no layer, one of several inputs, one that is stateful, or one twice.

    Source: Chen, Xu, Zhang and Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", algorithm 1.
    """

    layers: Any
    members: dict[str, Layer] = field(init=False)  # by name

    class Cache(NamedTuple):
        """What the forward blocks are run again from."""

        A_prev: Array  # the chain's input, its own shape and m
        mode: Mode  # how they were run: the key of what they draw, their state, the mask (T, m)
        states: dict[str, Any]  # of each member whose state changes, what its next_state reads of its cache

    def __init__(self, layers: Any, *more: Any, name: str | None = None) -> None:
        chain = tuple(_member(each) for each in (*(layers if isinstance(layers, (list, tuple)) else (layers,)), *more))
        if not chain or len(set(chain)) < len(chain):
            raise ParameterError(
                "is made of one layer or more, each at one place", where="Recompute", got=", ".join(map(repr, chain))
            )
        set_field(self, "layers", chain)
        set_field(self, "name", name)
        set_field(self, "members", {own: layer for layer, own in named(chain).items()})

    def __repr__(self) -> str:
        return f"Recompute({', '.join(map(repr, self.layers))})"

    # --- what the chain is -----------------------------------------------------------------------------------------

    @property
    def any_length(self) -> bool:  # type: ignore[override]
        """Where every layer is, up to the one that makes one vector of the steps."""
        mask: Any = np.ones((1, 1), bool)
        for layer in self.layers:
            if mask is not None and not layer.any_length:
                return False
            mask = layer.output_mask(mask)
        return True

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Where all are; not with a memory inside, whose steps are not kept to go on from."""
        return all(layer.causal and not layer.start() for layer in self.layers)

    @property
    def needs_batch(self) -> bool:  # type: ignore[override]
        """Where one does."""
        return any(layer.needs_batch for layer in self.layers)

    def penalized(self) -> dict[str, Any]:
        return {
            f"{name}/{path}": rule for name, layer in self.members.items() for path, rule in layer.penalized().items()
        }

    def output_shape(self, input_shape):
        return self._shapes(input_shape)[-1]

    def _shapes(self, shape: Any) -> list[Any]:
        """The shape that goes into each layer, and the last one's output's."""
        shapes = [shape]
        for name, layer in self.members.items():
            try:
                shapes.append(output_shape(layer, shapes[-1]))
            except ShapeError as problem:
                what = (problem.problem, problem.expected, problem.got, problem.hint)
                raise ShapeError(what[0], where=name, expected=what[1], got=what[2], hint=what[3]) from None
            if shapes[-1] and isinstance(shapes[-1][0], tuple):
                raise ShapeError("has several outputs, in a chain", where=name, got=f"{len(shapes[-1])} of them")
        return shapes

    def init(self, rng, input_shape, dtype=np.float32):
        return self._of_members(lambda layer, shape: layer.init(rng, shape, dtype), input_shape)

    def init_state(self, input_shape, dtype=np.float32):
        return self._of_members(lambda layer, shape: layer.init_state(shape, dtype), input_shape)

    def _of_members(self, made: Any, input_shape: Any) -> dict[str, Any]:
        trees = zip(self.members.items(), self._shapes(input_shape), strict=False)
        return {name: tree for (name, layer), shape in trees if (tree := made(layer, shape))}

    def output_mask(self, mask):
        for layer in self.layers:
            mask = layer.output_mask(mask)
        return mask

    # --- forward and backward --------------------------------------------------------------------------------------

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        A, states = A_prev, {}
        for name, layer, own in self._modes(ops, mode):
            A, cache = layer.forward(ops, params.get(name, {}), A, mode=own)
            if (read := layer.state_cache(cache)) is not None:
                states[name] = read
        return A, Recompute.Cache(A_prev, mode, states)

    def recomputed(self, ops: Any, params: Any, cache: Cache) -> tuple[list[Any], list[Any]]:
        """The forward blocks again: every layer's A, and its cache."""
        made, caches = [cache.A_prev], []
        for name, layer, own in self._modes(ops, cache.mode):
            A, its_cache = layer.forward(ops, params.get(name, {}), made[-1], mode=own)
            made.append(A)
            caches.append(its_cache)
        return made[1:], caches

    def _modes(self, ops: Any, mode: Mode) -> Iterator[tuple[str, Layer, Mode]]:
        """Each layer with its name and how it is run."""
        mask = mode.mask
        for index, (name, layer) in enumerate(self.members.items()):
            key = None if mode.key is None else ops.fold_in(mode.key, index)
            yield name, layer, Mode(mode.train, key, mode.state.get(name, {}), mask)
            mask = None if mask is None else layer.output_mask(mask)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not (params or input_gradient):
            return None, {}
        # A compiler must not find that all this was computed already, nor begin it while the layers above are at work.
        A_prev, key, dA = ops.apart(cache.A_prev, cache.mode.key, dA)
        again = cache._replace(A_prev=A_prev, mode=cache.mode._replace(key=key))
        caches = self.recomputed(ops, params, again)[1]
        names = list(self.members)
        last = 0 if input_gradient else min(map(names.index, params))
        grads = {}
        for index in range(len(names) - 1, last - 1, -1):
            name, wanted = names[index], input_gradient or index > last
            dA, own = backward(self.members[name], ops, params.get(name, {}), caches.pop(), dA, input_gradient=wanted)
            if own:
                grads[name] = own
        return dA, {name: grads[name] for name in params if name in grads}

    def next_state(self, ops, state, cache):
        return {name: self.members[name].next_state(ops, own, cache.states.get(name)) for name, own in state.items()}

    def state_cache(self, cache):
        return cache._replace(A_prev=None, mode=None) if cache.states else None

    # --- seeing it -------------------------------------------------------------------------------------------------

    def equations(self, *, train=True):
        """The members' own, each name with its member's: ``Z_conv2d_1``; A_prev of one is A of the one before it."""
        found = {}
        names = list(self.members)
        for index, (name, layer) in enumerate(self.members.items()):
            before = f"_{names[index - 1]}" if index else "_prev"
            after = f"_{name}" if index < len(names) - 1 else ""
            equations = layer.equations(train=train)
            own = {each.removeprefix("d") for each in equations} | set(equations) | set(_SYMBOLS)
            ends = {"A": f"A{after}", "dA": f"dA{after}", "A_prev": f"A{before}", "dA_prev": f"dA{before}"}
            known = {each: f"{each}_{name}" for each in own} | ends
            token = re.compile(
                rf"(?<![A-Za-z_])({'|'.join(sorted(map(re.escape, known), key=len, reverse=True))})(?![A-Za-z_(])"
            )
            for each, formula in equations.items():
                parts = token.split(formula)  # every other one is a name
                parts[1::2] = map(known.get, parts[1::2])
                found[known[each]] = "".join(parts)
        return found

    def intermediates(self, ops, params, cache, dA):
        made, caches = self.recomputed(ops, params, cache)
        forward: dict[str, Any] = {}
        gradients: dict[str, Any] = {}
        for name, A, own in zip(reversed(self.members), reversed(made), reversed(caches), strict=True):
            layer, weights = self.members[name], params.get(name, {})
            if A is not made[-1]:
                forward, gradients = {f"A_{name}": A, **forward}, {**gradients, f"dA_{name}": dA}
            inner = layer.intermediates(ops, weights, own, dA)
            forward = {**{f"{each}_{name}": value for each, value in inner.items() if each[0] != "d"}, **forward}
            gradients |= {f"{each}_{name}": value for each, value in inner.items() if each[0] == "d"}
            dA, _ = backward(layer, ops, weights, own, dA, input_gradient=True)
        return {**forward, **gradients}

    def multiply_adds(self, input_shape):
        return sum(
            layer.multiply_adds(shape) for layer, shape in zip(self.layers, self._shapes(input_shape), strict=False)
        )


_SYMBOLS = ("γ", "β", "μ", "σ²")


def _member(given: Any) -> Layer:
    layer = layers.get(given, where="Recompute")
    if layer.several_inputs or getattr(layer, "stateful", False):
        why = "joins several inputs" if layer.several_inputs else "starts where the batch before ended"
        raise ParameterError(
            f"a layer that {why} cannot be recomputed in a chain",
            where="Recompute",
            expected="layers of one input, not stateful",
            got=repr(layer),
        )
    return layer
