"""Layers with memory: SimpleRNN, LSTM, GRU, and Bidirectional, which runs one of them both ways.

Each is an affine part that every step makes of its own input, Z[t] = W X[t] + b, and a recurrence that goes from step
to step with U. Unrolled, the W, U and b of all steps are the same variables, so their gradients are sums over the
steps: back-propagation through time.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import (
    PREDICT,
    Layer,
    Mode,
    find_rules,
    layers,
    positive_integer,
    set_field,
)


class _Cache(NamedTuple):
    """What the backward block reads."""

    X: Array  # (T, n_x, m), in the order of the recurrence
    states: tuple[Array, ...]  # each (T+1, n, m): the start, then every step
    kept: tuple[Array, ...]  # what the engine kept of the gates, (T, G n, m)
    mask: Array | None  # (T, m)
    given: bool  # whether the start was an input


@dataclass(frozen=True, eq=False, repr=False)
class _Recurrent(Layer):
    """Base of the layers with memory."""

    units: int
    return_sequences: bool = field(default=False, kw_only=True)
    return_state: bool = field(default=False, kw_only=True)
    stateful: bool = field(default=False, kw_only=True)
    reverse: bool = field(default=False, kw_only=True)
    use_bias: bool = field(default=True, kw_only=True)
    initializer: Any = field(default="xavier_uniform", kw_only=True)
    recurrent_initializer: Any = field(default="orthogonal", kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)
    regularizer: Any = field(default=None, kw_only=True)

    several_inputs: ClassVar[bool | None] = None
    any_length: ClassVar[bool] = True
    regularized: ClassVar[tuple[str, ...]] = ("W", "U")
    gates: ClassVar[int] = 1  # G: rows of W and U for each unit
    states: ClassVar[tuple[str, ...]] = ("h",)  # what goes from step to step

    Cache = _Cache  # type: ignore[assignment]

    def __post_init__(self):
        positive_integer(self.units, "units", self)
        find_rules(self)
        for name in ("return_sequences", "return_state", "stateful", "reverse", "use_bias"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                where = type(self).__name__
                raise ParameterError(f"{name} is True or False", where=where, got=repr(getattr(self, name)))
        if self.stateful and self.reverse:
            raise ParameterError(
                "a recurrence that runs backwards has no state to hand on: what comes next is not there yet",
                where=type(self).__name__,
                expected="stateful=False, or reverse=False",
            )

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Unless it goes from the last step to the first."""
        return not self.reverse

    @property
    def cell(self) -> str:
        """The engine's name of the cell."""
        raise NotImplementedError

    # --- shapes and parameters ----------------------------------------------------------------------------------

    def output_shape(self, input_shape):
        sequence, *starts = input_shape if isinstance(input_shape[0], tuple) else (input_shape,)
        if len(sequence) != 2:
            few = "return_sequences=True in a recurrent layer before it; of ids pl.Embedding(…) makes vectors"
            many = "pl.TimeDistributed(pl.Flatten()) makes a vector of each step"
            hint = few if len(sequence) < 2 else many
            raise ShapeError("takes a sequence of vectors", expected="(T, n_x)", got=sequence, hint=hint)
        if starts and tuple(starts) != ((self.units,),) * len(self.states):
            raise ShapeError(
                f"starts from {' and '.join(self.states)} of its own size",
                expected=" and ".join([f"({self.units},)"] * len(self.states)),
                got=" and ".join(map(str, starts)),
            )
        if starts and self.stateful:
            raise ShapeError("a stateful layer has its start from the batch before", expected="one input")
        A = (sequence[0], self.units) if self.return_sequences else (self.units,)
        return (A, *((self.units,),) * len(self.states)) if self.return_state else A

    def init(self, rng, input_shape, dtype=np.float32):
        n, G = self.units, self.gates
        n_x = (input_shape[0] if isinstance(input_shape[0], tuple) else input_shape)[-1]
        # Every gate is a layer of its own: its fans are those of one gate.
        W = [self.initializer(rng, (n, n_x), fan_in=n_x, fan_out=n, dtype=dtype) for _ in range(G)]
        U = [self.recurrent_initializer(rng, (n, n), fan_in=n, fan_out=n, dtype=dtype) for _ in range(G)]
        params = {"W": np.concatenate(W), "U": np.concatenate(U)}
        if self.use_bias:
            params["b"] = self.bias_initializer(rng, (G * n, 1), fan_in=n_x, fan_out=n, dtype=dtype)
        return params

    def init_state(self, input_shape, dtype=np.float32):
        return self.start(dtype) if self.stateful else {}

    def start(self, dtype: Any = np.float32) -> dict[str, np.ndarray]:
        """The state that a sequence starts from when nothing else is said: zeros, for any number of examples."""
        return {name: np.zeros((self.units, 1), dtype) for name in self.states}

    # --- forward and backward -----------------------------------------------------------------------------------

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        X, *starts = A_prev if isinstance(A_prev, tuple) else (A_prev,)
        mask = mode.mask[0] if isinstance(mode.mask, tuple) else mode.mask
        self._check(X, params["W"], mask)
        given = bool(starts)
        start = tuple(self._started(ops, each, X) for each in starts or map(mode.state.get, self.states))
        if self.reverse:
            X, mask = X[::-1], None if mask is None else mask[::-1]

        states, kept = ops.recurrent(self.cell, params, X, start, mask)
        A = states[0][1:] if self.return_sequences else states[0][-1]
        if self.reverse and self.return_sequences:
            A = A[::-1]
        last = tuple(S[-1] for S in states) if self.return_state else ()
        return (A, *last) if last else A, _Cache(X, states, kept, mask, given)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        dX, grads, d_start = ops.recurrent_backward(self.cell, params, *cache[:-1], *self._arriving(dA), input_gradient)
        if not input_gradient:
            return (None,) * (1 + len(self.states)) if cache.given else None, grads
        dX = dX[::-1] if self.reverse else dX
        return (dX, *d_start) if cache.given else dX, grads

    def next_state(self, ops, state, cache):
        return self.state_at(cache, None) if self.stateful else state

    def state_at(self, cache: _Cache, step: int | None) -> dict[str, Array]:
        """The state after ``step`` steps of the sequence that left ``cache``; None is all."""
        return {name: S[-1 if step is None else step] for name, S in zip(self.states, cache.states, strict=True)}

    def output_mask(self, mask):
        mask = mask[0] if isinstance(mask, tuple) else mask
        A = mask if self.return_sequences else None
        return (A, *(None,) * len(self.states)) if self.return_state else A

    def _arriving(self, dA: Any) -> tuple[Array | None, tuple[Array | None, ...]]:
        """dA as the gradients of every step's A and of the last states."""
        dA, *d_last = dA if isinstance(dA, tuple) else (dA,)
        d_last = d_last or [None] * len(self.states)
        if self.return_sequences:
            return dA[::-1] if self.reverse else dA, tuple(d_last)
        return None, (dA if d_last[0] is None else dA + d_last[0], *d_last[1:])

    def _started(self, ops: Any, start: Array | None, X: Array) -> Array:
        shape = (self.units, X.shape[-1])
        if start is None:
            return ops.xp.zeros(shape, X.dtype)
        if start.shape[-1] == 1 != shape[-1] and not (ops.known(start) and bool((start != 0).any())):  # of `start`
            return ops.xp.zeros(shape, X.dtype) + start
        if tuple(start.shape) != shape:
            raise ShapeError(
                "the state that the sequence starts from is of another batch",
                where=repr(self),
                expected=shape,
                got=tuple(start.shape),
                hint="batches of one size, with the same sequences at the same places; net.reset_state() to start anew",
            )
        return start

    def _check(self, X: Array, W: Array, mask: Array | None) -> None:
        if X.ndim != 3 or X.shape[1] != W.shape[1]:
            raise ShapeError(
                "the input does not fit the weights",
                where=repr(self),
                expected=f"A_prev (T, {W.shape[1]}, m)",
                got=tuple(X.shape),
                hint="sequences are (T, n_x, m) here: examples last, steps first",
            )
        if not len(X):
            raise ShapeError("a sequence of length 0", where=repr(self), expected="1 step or more", got=tuple(X.shape))
        if mask is not None and tuple(mask.shape) != (X.shape[0], X.shape[2]):
            raise ShapeError(
                "the mask does not fit the sequences",
                where=repr(self),
                expected=f"(T, m) = {(X.shape[0], X.shape[2])}",
                got=tuple(mask.shape),
            )

    # --- seeing it ----------------------------------------------------------------------------------------------

    def equations(self, *, train=True):
        bias = {"db": "(1/m) Σ_t Σ_columns dZ[t]"} if self.use_bias else {}
        order = "t+1" if self.reverse else "t-1"
        return {
            "dW": "(1/m) Σ_t dZ[t] A_prev[t]ᵀ",
            "dU": f"(1/m) Σ_t dZ[t] h[{order}]ᵀ",
            **bias,
            "dA_prev": "Wᵀ dZ[t] at every t",
            "dW_steps": "the share of each step t: (1/m) dZ[t] A_prev[t]ᵀ",
            "dU_steps": f"the share of each step t: (1/m) dZ[t] h[{order}]ᵀ",
        }

    def intermediates(self, ops, params, cache, dA):
        dA_steps, d_last = self._arriving(dA)
        dZ, dV, _ = ops.recurrence_backward(
            self.cell, params["U"], cache.states, cache.kept, cache.mask, dA_steps, d_last
        )
        m, H = dZ.shape[-1], cache.states[0]
        through, carried = ops.affine_dA(params["U"], dV), self._carried(cache)
        dh = [ops.xp.zeros_like(H[0]) if d_last[0] is None else d_last[0]]
        for t in range(len(dZ) - 1, -1, -1):
            dh[0] = dh[0] if dA_steps is None else dh[0] + dA_steps[t]
            passed = (
                dh[0] * carried[t] if cache.mask is None else ops.xp.where(cache.mask[t], dh[0] * carried[t], dh[0])
            )
            dh.insert(0, through[t] + passed)
        values = {
            **self._between(cache),
            "dh": ops.xp.stack(dh[1:]),
            "dZ": dZ,
            "dW_steps": dZ @ cache.X.swapaxes(1, 2) / m,
            "dU_steps": dV @ H[:-1].swapaxes(1, 2) / m,
        }
        return {name: each[::-1] for name, each in values.items()} if self.reverse else values

    def _carried(self, cache: _Cache) -> Any:
        """The slope of every step's h by the h before it, beside what goes through U."""
        return [0.0] * len(cache.X)

    def _between(self, cache: _Cache) -> dict[str, Array]:
        """The values of every step between A_prev and A."""
        return {"h": cache.states[0][1:]}

    def multiply_adds(self, input_shape):
        T, n_x = input_shape[0] if isinstance(input_shape[0], tuple) else input_shape
        return T * self.gates * self.units * (n_x + self.units)


@dataclass(frozen=True, eq=False, repr=False)
class SimpleRNN(_Recurrent):
    """The vanilla recurrent layer: what it said at the step before is an input of the next.

        forward    Z[t]  = W X[t] + U A[t-1] + b             A[t]    = g(Z[t])
        backward   dZ[t] = (dA[t] + Uᵀ dZ[t+1]) * g'(Z[t])   dX[t]   = Wᵀ dZ[t]
                   dW = (1/m) Σ_t dZ[t] X[t]ᵀ     dU = (1/m) Σ_t dZ[t] A[t-1]ᵀ     db = (1/m) Σ_t Σ_columns dZ[t]

    Shapes: X (T, n_x, m) · W (n, n_x) · U (n, n) · b (n, 1) · A (T, n, m), or (n, m) of the last step

    Where the mask of a batch is False, a step changes nothing: A[t] = A[t-1].

    Arguments:
        units: n.
        activation: g: ``"tanh"``, ``"relu"`` or ``"sigmoid"``.
        return_sequences: True gives A of every step, (T, n, m); False of the last one.
        return_state: True gives the state after the last step too, as another output in a graph.
        stateful: True starts each batch from the state that the batch before ended with; see `Network.reset_state`.
        reverse: True goes from the last step to the first.
        use_bias: False for no b.
        initializer: how W starts.
        recurrent_initializer: how U starts; ``"identity"`` with ReLU is the IRNN.
        bias_initializer: how b starts.
        regularizer: of W and U; None takes the network's.

    In a graph it can be given the state to start from: ``pl.SimpleRNN(n)(x, h)``.

    Source: Elman 1990; the notes' S2; back-propagation through time: Werbos 1990; IRNN: Le, Jaitly and Hinton 2015.
    """

    activation: Any = "tanh"

    def __post_init__(self):
        super().__post_init__()
        g = self.activation if isinstance(self.activation, str) else getattr(self.activation, "registered_name", "")
        names = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "logistic": "sigmoid"}
        if g not in names:
            raise ParameterError(
                "no activation of a SimpleRNN", where="SimpleRNN", expected=", ".join(names), got=repr(self.activation)
            )
        set_field(self, "activation", names[g])

    @property
    def cell(self):
        return self.activation

    def equations(self, *, train=True):
        before, after = ("t+1", "t-1") if self.reverse else ("t-1", "t+1")
        bias = " + b" if self.use_bias else ""
        return {
            "h": f"{self.activation}(W A_prev[t] + U h[{before}]{bias})",
            "A": "h[t] at every t" if self.return_sequences else "h of the last step",
            "dh": f"dA[t] + Uᵀ dZ[{after}]" if self.return_sequences else f"Uᵀ dZ[{after}]; dA at the last step",
            "dZ": f"dh[t] * {self.activation}'(Z[t])",
            **super().equations(train=train),
        }


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(_Recurrent):
    """Long short-term memory: a cell C that is added to, not overwritten, and gates that say when.

        forward    i, f, o = σ(W X[t] + U A[t-1] + b) of their rows,  g = tanh(W X[t] + U A[t-1] + b) of its rows
                   C[t] = f * C[t-1] + i * g                          A[t] = o * tanh C[t]
        backward   dC[t] = dA[t] * o * (1 - tanh² C[t]) + dC[t+1] * f[t+1]
                   dZ of i: dC * g * i (1-i) · of f: dC * C[t-1] * f (1-f) · of g: dC * i * (1-g²)
                   of o: dA * tanh C * o (1-o);     dA[t-1] takes Uᵀ dZ[t];     dW, dU, db as in `SimpleRNN`

    Shapes: X (T, n_x, m) · W (4n, n_x) · U (4n, n) · b (4n, 1), rows in the order i, f, g, o · A (T, n, m) or (n, m)

    Along C the gradient is multiplied by f alone, which is why it lives longer than in a `SimpleRNN`.

    Arguments:
        units: n.
        forget_bias: what b of the forget gate starts from; 1 remembers at first, 0 is PyTorch's.
        return_sequences, return_state, stateful, reverse, use_bias: as in `SimpleRNN`; the state is (A, C).
        initializer, recurrent_initializer, bias_initializer, regularizer: as in `SimpleRNN`, for each gate.

    Source: Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000; its bias: Jozefowicz,
    Zaremba and Sutskever 2015.
    """

    forget_bias: float = field(default=1.0, kw_only=True)

    cell: ClassVar[str] = "lstm"
    gates: ClassVar[int] = 4
    states: ClassVar[tuple[str, ...]] = ("h", "C")

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.forget_bias, (int, float)) or not np.isfinite(self.forget_bias):
            raise ParameterError("forget_bias is a number", where="LSTM", got=repr(self.forget_bias))

    def init(self, rng, input_shape, dtype=np.float32):
        params = super().init(rng, input_shape, dtype)
        if self.use_bias:
            params["b"][self.units : 2 * self.units] += self.forget_bias
        return params

    def equations(self, *, train=True):
        before, after = ("t+1", "t-1") if self.reverse else ("t-1", "t+1")
        Z = f"W A_prev[t] + U h[{before}]" + (" + b" if self.use_bias else "")
        return {
            "i": f"sigmoid({Z}), its rows",
            "f": f"sigmoid({Z}), its rows",
            "g": f"tanh({Z}), its rows",
            "o": f"sigmoid({Z}), its rows",
            "C": f"f[t] * C[{before}] + i[t] * g[t]",
            "h": "o[t] * tanh(C[t])",
            "A": "h[t] at every t" if self.return_sequences else "h of the last step",
            "dh": f"dA[t] + Uᵀ dZ[{after}]" if self.return_sequences else f"Uᵀ dZ[{after}]; dA at the last step",
            "dZ": "dh[t] back through the gates; dC[t] takes dC f of the step after",
            **super().equations(train=train),
        }

    def _between(self, cache):
        n, gates = self.units, cache.kept[0]
        parts = {name: gates[:, k * n : (k + 1) * n] for k, name in enumerate("ifgo")}
        return {**parts, "C": cache.states[1][1:], "h": cache.states[0][1:]}


@dataclass(frozen=True, eq=False, repr=False)
class GRU(_Recurrent):
    """The gated recurrent unit: an LSTM's patience with one state and three parts.

        forward    r, z = σ(W X[t] + U A[t-1] + b) of their rows
                   v = U A[t-1] + c,  n = tanh(W X[t] + b + r * v) of the last rows
                   A[t] = (1 - z) * n + z * A[t-1]
        backward   dZ of n: dA * (1-z) * (1-n²) · of r: dZ_n * v * r (1-r) · of z: dA * (A[t-1] - n) * z (1-z)
                   dV is dZ, but r * dZ_n for n;     dA[t-1] takes dA * z + Uᵀ dV;     dU = (1/m) Σ_t dV[t] A[t-1]ᵀ

    Shapes: X (T, n_x, m) · W (3n, n_x) · U (3n, n) · b (3n, 1), rows in the order r, z, n · c (n, 1) · A (T, n, m)

    Arguments:
        units: n.
        return_sequences, return_state, stateful, reverse, use_bias: as in `SimpleRNN`.
        initializer, recurrent_initializer, bias_initializer, regularizer: as in `SimpleRNN`, for each gate.

    Source: Cho et al. 2014, with the reset gate after the product, as cuDNN and PyTorch have it.
    """

    cell: ClassVar[str] = "gru"
    gates: ClassVar[int] = 3

    def init(self, rng, input_shape, dtype=np.float32):
        params = super().init(rng, input_shape, dtype)
        if self.use_bias:
            n = self.units
            params["c"] = self.bias_initializer(rng, (n, 1), fan_in=n, fan_out=n, dtype=dtype)
        return params

    def equations(self, *, train=True):
        before = "t+1" if self.reverse else "t-1"
        b, c = (" + b", " + c") if self.use_bias else ("", "")
        return {
            "r": f"sigmoid(W A_prev[t] + U h[{before}]{b}), its rows",
            "z": f"sigmoid(W A_prev[t] + U h[{before}]{b}), its rows",
            "v": f"U h[{before}]{c}, the last rows",
            "n": f"tanh(W A_prev[t]{b} + r[t] * v[t]), the last rows",
            "h": f"(1 - z[t]) * n[t] + z[t] * h[{before}]",
            "A": "h[t] at every t" if self.return_sequences else "h of the last step",
            "dh": "dA[t] + what the step after hands back"
            if self.return_sequences
            else "what the step after hands back",
            "dZ": "dh[t] back through the gates",
            **super().equations(train=train),
            "dU": f"(1/m) Σ_t dV[t] h[{before}]ᵀ, dV being dZ with r * dZ for n",
            "dU_steps": f"the share of each step t: (1/m) dV[t] h[{before}]ᵀ",
            **({"dc": "(1/m) Σ_t Σ_columns dV[t], the last rows"} if self.use_bias else {}),
        }

    def _carried(self, cache):
        return cache.kept[0][:, self.units : 2 * self.units]

    def _between(self, cache):
        n, (gates, v) = self.units, cache.kept
        parts = {name: gates[:, k * n : (k + 1) * n] for k, name in enumerate("rzn")}
        return {"r": parts["r"], "z": parts["z"], "v": v, "n": parts["n"], "h": cache.states[0][1:]}


@dataclass(frozen=True, eq=False, repr=False)
class Bidirectional(Layer):
    """A recurrent layer run both ways: each step knows what came before it and what comes after.

        A = [A of the layer from the first step to the last;  A of a second one, with its own parameters, the other way]

    Shapes: A_prev (T, n_x, m) · A (T, 2n, m) or (2n, m); (T, n, m) or (n, m) unless the two are joined by "concat"

    Arguments:
        layer: a `SimpleRNN`, `LSTM` or `GRU`, for the way forward; the way back is another of the same kind.
        merge: how the two A become one: ``"concat"``, ``"sum"``, ``"multiply"`` or ``"average"``.

    Its parameters are those of the layer with ``_forward`` and ``_backward`` behind their names. With ``return_state``
    each state is that of both ways, one after the other.

    Source: Schuster and Paliwal 1997.
    """

    layer: Any
    merge: str = "concat"

    any_length: ClassVar[bool] = True
    causal: ClassVar[bool] = False

    class Cache(NamedTuple):
        """What the backward block reads."""

        forward: _Cache  # of the way forward
        backward: _Cache  # of the way back
        A: tuple[Array, Array] | None  # of both ways, where the merge multiplies

    def __post_init__(self):
        layer = layers.get(self.layer, where="Bidirectional")
        if not isinstance(layer, _Recurrent) or layer.reverse or layer.stateful:
            raise ParameterError(
                "runs a recurrent layer both ways",
                where="Bidirectional",
                expected="SimpleRNN, LSTM or GRU, neither reverse nor stateful",
                got=repr(self.layer),
            )
        if self.merge not in ("concat", "sum", "multiply", "average"):
            raise ParameterError(
                "no such merge",
                where="Bidirectional",
                expected="concat, sum, multiply or average",
                got=repr(self.merge),
            )
        set_field(self, "layer", layer)

    @property
    def ways(self) -> dict[str, _Recurrent]:
        """The two layers, by the way they go."""
        return {"forward": self.layer, "backward": dataclasses.replace(self.layer, reverse=True)}

    @property
    def regularizer(self) -> Any:
        """The layer's."""
        return self.layer.regularizer

    @property
    def regularized(self) -> tuple[str, ...]:  # type: ignore[override]
        """The layer's, of both ways."""
        return tuple(f"{name}_{way}" for way in ("forward", "backward") for name in self.layer.regularized)

    def output_shape(self, input_shape):
        shape = self.layer.output_shape(input_shape)
        A, *states = shape if self.layer.return_state else (shape,)
        A = (*A[:-1], 2 * A[-1]) if self.merge == "concat" else A
        return (A, *((2 * n,) for (n,) in states)) if states else A

    def init(self, rng, input_shape, dtype=np.float32):
        return {
            f"{name}_{way}": value
            for way, layer in self.ways.items()
            for name, value in layer.init(rng, input_shape, dtype).items()
        }

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        made = [
            layer.forward(ops, _of_way(params, way), A_prev, mode=Mode(mode.train, mode.key, {}, mode.mask))
            for way, layer in self.ways.items()
        ]
        (ahead, cache_ahead), (back, cache_back) = made
        A, back_A = (each[0] if self.layer.return_state else each for each in (ahead, back))
        kept = (A, back_A) if self.merge == "multiply" else None
        joined = {
            "concat": lambda: ops.xp.concatenate([A, back_A], axis=-2),
            "sum": lambda: A + back_A,
            "multiply": lambda: A * back_A,
            "average": lambda: 0.5 * (A + back_A),
        }[self.merge]()
        cache = Bidirectional.Cache(cache_ahead, cache_back, kept)
        if not self.layer.return_state:
            return joined, cache
        states = zip(ahead[1:], back[1:], strict=True)
        return (joined, *(ops.xp.concatenate(both, axis=0) for both in states)), cache

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        dA_prev: Any = None
        grads: dict[str, Any] = {}
        for (way, layer), own, arriving in zip(self.ways.items(), cache[:2], self._arriving(cache, dA), strict=True):
            d, found = layer.backward(ops, _of_way(params, way), own, arriving, input_gradient=input_gradient)
            grads |= {f"{name}_{way}": gradient for name, gradient in found.items()}
            dA_prev = d if dA_prev is None else dA_prev + d
        return dA_prev, grads

    def _arriving(self, cache: Any, dA: Any) -> tuple[Any, Any]:
        """dA as each of the two ways sees it."""
        dA, *d_states = dA if isinstance(dA, tuple) else (dA,)
        n = self.layer.units
        both = {
            "concat": lambda: (dA[..., :n, :], dA[..., n:, :]),
            "sum": lambda: (dA, dA),
            "multiply": lambda: (dA * cache.A[1], dA * cache.A[0]),
            "average": lambda: (0.5 * dA, 0.5 * dA),
        }[self.merge]()
        if not d_states:
            return both
        return (both[0], *(d[:n] for d in d_states)), (both[1], *(d[n:] for d in d_states))

    def output_mask(self, mask):
        return self.layer.output_mask(mask)

    def equations(self, *, train=True):
        joined = {
            "concat": "[h_forward; h_backward]",
            "sum": "h_forward + h_backward",
            "multiply": "h_forward * h_backward",
            "average": "½ (h_forward + h_backward)",
        }
        where = "at every t" if self.layer.return_sequences else "of its last step, which is the first for h_backward"
        found = {
            "A": f"{joined[self.merge]} {where}",
            "dA_prev": "W_forwardᵀ dZ_forward[t] + W_backwardᵀ dZ_backward[t] at every t",
        }
        for way, layer in self.ways.items():
            own = layer.equations(train=train)
            token = re.compile(rf"(?<![A-Za-z_])({'|'.join({*own, *'WUbc'} - {'A', 'dA_prev'})})(?![A-Za-z_(])")
            for name in own.keys() - {"A", "dA_prev"}:
                found[f"{name}_{way}"] = token.sub(rf"\1_{way}", own[name])
        return found

    def intermediates(self, ops, params, cache, dA):
        arriving = self._arriving(cache, dA)
        return {
            f"{name}_{way}": value
            for (way, layer), own, d in zip(self.ways.items(), cache[:2], arriving, strict=True)
            for name, value in layer.intermediates(ops, _of_way(params, way), own, d).items()
        }

    def multiply_adds(self, input_shape):
        return 2 * self.layer.multiply_adds(input_shape)


def _of_way(params: dict[str, Any], way: str) -> dict[str, Any]:
    """The parameters of one way, under the layer's own names."""
    return {name.removesuffix(f"_{way}"): value for name, value in params.items() if name.endswith(f"_{way}")}
