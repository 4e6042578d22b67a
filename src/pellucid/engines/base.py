"""The contract of an engine: the primitives that layers, losses and optimizers are written in.

An engine is one module in this folder with

    PREFERENCE: int                         # "auto" takes the largest that is available
    PRECISIONS: tuple[str, ...]             # what it can multiply in beside the arrays' own dtype: "bfloat16"
    def unavailable() -> str | None: ...    # why it cannot run here, or None
    def about() -> str: ...                 # optional: what it has found on this machine, for `pellucid show --engines`
    def create(precision: str | None) -> Ops: ...   # heavy imports belong here, never at the top of the module

and nothing else has to change to add one. The methods below that have a body are definitions in terms of `xp`; an
engine overrides those it can do faster. The last axis of every array is the example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from pellucid.engines.mesh import Mesh, Placement
from pellucid.errors import EngineError
from pellucid.trees import Tree

Array = Any
"""An engine's own array: `numpy.ndarray` for numpy and native, `jax.Array` for jax."""


class Window(NamedTuple):
    """What slides over an image: one entry for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]  # zeros before and after
    dilation: tuple[int, ...]


class Ops(ABC):
    """The primitives of one engine.

    Attributes:
        name: the engine's name, as in ``engine="numpy"``.
        xp: the array namespace (`numpy`, `jax.numpy`) for the arithmetic that needs no primitive.
        precision: of the products in the affine and convolution primitives. None multiplies the arrays as they are;
            "bfloat16" rounds both operands of a float32 product to bfloat16 first (to nearest, ties to even) and sums
            in float32. All else stays as it is: results, biases, the sums db, every other primitive; and float64.
            "tensorfloat32" lets a GPU round them to 11 significant bits, there and within a recurrence.
        compiles: whether a function's first run waits for `compile`.
        batches_ahead: how many batches are made ready while the device computes.
    """

    name: str
    xp: Any
    precision: str | None = None
    batches_ahead: int = 0
    compiles: bool = False

    def __reduce__(self) -> Any:
        """Pickled as its name and precision: an engine holds handles that no other process can use."""
        from pellucid import engines

        return engines.get, (self.name, self.precision)

    # --- arrays -------------------------------------------------------------------------------------------------

    @abstractmethod
    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        """``values`` as this engine's array, not copied where that can be avoided."""

    @abstractmethod
    def to_numpy(self, A: Array) -> np.ndarray:
        """``A`` as a NumPy array, not copied where that can be avoided."""

    def examples_last(self, x: np.ndarray, rows: np.ndarray, dtype: str) -> np.ndarray:
        """The given rows of x (·, …) as X (…, m), contiguous: examples first turned to examples last, by NumPy."""
        return np.ascontiguousarray(np.moveaxis(x[rows], 0, -1), dtype=dtype)

    def compile(
        self, step: Callable, *, given_away: Sequence[str] = (), static: Sequence[str] = (), own: bool = False
    ) -> Callable:
        """A pure function, compiled where the engine compiles; the function itself otherwise.

        Arguments:
            step: reads and makes trees of arrays.
            given_away: the names of arguments whose memory it may write its results to.
            static: the names of those that are no arrays; it is compiled for each of their values.
            own: True where no code takes part but the library's, which decides by shapes and options alone. An engine
                that does not compile may then note what is called, and call that from then on.
        """
        return step

    def peak_bytes(self, *, reset: bool = False) -> int | None:
        """The most bytes of its own arrays in use at one time; None where it does not count them.

        Arguments:
            reset: True counts anew from now on.
        """
        return None

    def looped(self, step: Callable) -> Callable:
        """``loop(carry, data, each)``: a pure step for each entry on the first axis of the trees ``each``, in one call.

        Arguments:
            step: ``step(carry, data, entry) -> (carry, made)``.

        Returns:
            the loop, which returns the last carry and what the steps made, stacked. It may write to ``carry``.
        """
        raise NotImplementedError(f"the {self.name} engine runs step by step")

    def resident_bytes(self, *, convolutions: bool) -> int:
        """The most bytes of examples that a training keeps on the device, to run them by `looped`; 0: step by step.

        Arguments:
            convolutions: whether the network has some.
        """
        return 0

    def placement(self, mesh: Mesh | None) -> Placement:
        """Where the arrays of a network or a training lie.

        Arguments:
            mesh: the devices; None is one.

        Raises:
            EngineError: this engine runs on one device, or there are not so many devices.
        """
        if mesh is not None:
            raise EngineError(
                f"the {self.name} engine runs on one device", where="mesh", got=str(mesh), hint="engine='jax'"
            )
        return Placement(self)

    def fetched(self, params: Tree, dA: Any = None) -> Tree:
        """A layer's parameters as its blocks read them, where each device keeps a part of them.

        Arguments:
            params: as they are kept.
            dA: what the backward block starts from; it is not to begin before that is there.
        """
        return params

    def scope(self, name: str) -> AbstractContextManager[Any]:
        """What is computed within is called ``name`` in the program that the engine compiles, if it does."""
        return nullcontext()

    def padded_steps(self, T: int) -> int:
        """How many steps sequences of T steps and fewer are given in a batch: T, or more where every T costs anew."""
        return T

    def known(self, A: Array) -> bool:
        """Whether the array has its numbers already; not while a step is being compiled."""
        return True

    def look(self, check: Callable[..., None], *arrays: Array) -> None:
        """``check(*arrays)``, which raises where their numbers are wrong; not where those are not at hand."""
        if all(isinstance(each, np.ndarray) for each in arrays):
            check(*arrays)

    def recorded(self, predict: Callable[[Any, Any], Any], shape: tuple[int, ...], dtype: str) -> Any:
        """A prediction as one call of the engine, recorded while its layers run once; None where it cannot be.

        Arguments:
            predict: ``predict(ops, X)`` runs all layers and returns what is predicted, (…, m).
            shape: of one example.
            dtype: of X and of what the layers make of it.

        Returns:
            ``program(x, most)``: for at most so many finite examples x (m, …), contiguous and of this shape and type,
            the predictions (m, …); None for any other x. It reads the parameters where they lay when it was recorded;
            ``program.unchanged(now, then, trees)`` is whether the dictionary ``now`` still has all the objects of
            ``then``, and the first of each pair of dictionaries in ``trees`` the same as the second.
        """
        return None

    def apart(self, *arrays: Any) -> tuple[Any, ...]:
        """The same arrays, or None, for what is to be computed from them anew once all of them are there.

        An engine that compiles must neither take it from what was computed of them before, nor begin earlier.
        """
        return arrays

    # --- affine: Z = W A_prev + b; of a sequence (T, n_prev, m) step by step, the gradients summed over the steps ----

    @abstractmethod
    def affine(self, W: Array, A_prev: Array, b: Array | None) -> Array:
        """Z = W A_prev + b, from W (n, n_prev), A_prev (…, n_prev, m), b (n, 1) or None, to Z (…, n, m)."""

    @abstractmethod
    def affine_dW(self, dZ: Array, A_prev: Array) -> Array:
        """dW = (1/m) Σ_steps dZ A_prevᵀ, from dZ (…, n, m), A_prev (…, n_prev, m), to dW (n, n_prev)."""

    @abstractmethod
    def affine_db(self, dZ: Array) -> Array:
        """db = (1/m) Σ_steps,columns dZ, from dZ (…, n, m) to db (n, 1)."""

    @abstractmethod
    def affine_dA(self, W: Array, dZ: Array) -> Array:
        """dA_prev = Wᵀ dZ, from W (n, n_prev), dZ (…, n, m), to dA_prev (…, n_prev, m)."""

    # --- recurrence: a whole sequence at once ---------------------------------------------------------------------

    @abstractmethod
    def recurrence(
        self, cell: str, Z: Array, U: Array, c: Array | None, state: tuple[Array, ...], mask: Array | None
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The part of a recurrent layer that goes from step to step; what each step reads of the input is in Z.

        With h the step before, and σ the logistic function:

            "tanh", "relu", "sigmoid"   A[t] = g(Z[t] + U h)
            "lstm"   (i, f, g, o) = (σ, σ, tanh, σ)(Z[t] + U h);   C[t] = f C[t-1] + i g;   A[t] = o tanh C[t]
            "gru"    r, z = σ(Z[t] + U h) of their rows;  v = U h + c, n = tanh(Z[t] + r v) of theirs;
                     A[t] = (1 - z) n + z h

        Where the mask is False a step changes nothing: A[t] = A[t-1], C[t] = C[t-1].

        Arguments:
            cell: which of these.
            Z: (T, G n, m), given away: the gates may be written over it. G is 1, 4 (i, f, g, o) or 3 (r, z, n).
            U: (G n, n).
            c: (n, 1), the bias inside the reset gate's product; None for other cells.
            state: where the sequence starts: (h,), or (h, C) for an LSTM, each (n, m).
            mask: (T, m) booleans, or None for all True.

        Returns:
            the states (H,) or (H, C), each (T+1, n, m): the start, then every step; and what else
            `recurrence_backward` reads: () or the gates (T, G n, m) after their functions, and for "gru" v (T, n, m).
        """

    @abstractmethod
    def recurrence_backward(
        self,
        cell: str,
        U: Array,
        states: tuple[Array, ...],
        kept: tuple[Array, ...],
        mask: Array | None,
        dA: Array | None,
        d_last: tuple[Array | None, ...],
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        """Back-propagation through time.

        Arguments:
            cell, U, mask: as in `recurrence`.
            states, kept: what it returned.
            dA: (T, n, m), the gradient of every A[t] as the layers above see it; None is zeros.
            d_last: the gradient of the states after the last step, beside dA; each (n, m), None is zeros.

        Returns:
            dZ (T, G n, m); dV (T, G n, m), the gradient of U h (dZ itself but for "gru", whose n rows are r * dZ);
            and the gradient of the states at the start, each (n, m). Masked steps have zeros in dZ and dV.
        """

    def recurrent(
        self, cell: str, params: dict[str, Array], X: Array, state: tuple[Array, ...], mask: Array | None
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The whole recurrent layer: `recurrence` of Z[t] = W X[t] + b.

        Arguments:
            cell, state, mask: as in `recurrence`.
            params: W (G n, n_x), U (G n, n), and where the layer has them b (G n, 1) and c (n, 1).
            X: (T, n_x, m).

        Returns:
            what `recurrence` returns.
        """
        Z = self.affine(params["W"], X, params.get("b"))
        return self.recurrence(cell, Z, params["U"], params.get("c"), state, mask)

    def recurrent_backward(
        self,
        cell: str,
        params: dict[str, Array],
        X: Array,
        states: tuple[Array, ...],
        kept: tuple[Array, ...],
        mask: Array | None,
        dA: Array | None,
        d_last: tuple[Array | None, ...],
        input_gradient: bool,
    ) -> tuple[Array | None, dict[str, Array], tuple[Array, ...] | None]:
        """Back-propagation through time, to the parameters.

        Arguments:
            cell, params, X, mask: as in `recurrent`.
            states, kept: what it returned.
            dA, d_last: as in `recurrence_backward`.
            input_gradient: whether the gradients of X and of the start are asked for.

        Returns:
            dX (T, n_x, m); the gradient of each of the params; and of the states at the start, each (n, m). The first
            and the last are None where they are not asked for.
        """
        dZ, dV, d_start = self.recurrence_backward(cell, params["U"], states, kept, mask, dA, d_last)
        grads = {"W": self.affine_dW(dZ, X), "U": self.affine_dW(dV, states[0][:-1])}
        if "b" in params:
            grads["b"] = self.affine_db(dZ)
        if "c" in params:
            grads["c"] = self.affine_db(dV[:, -params["U"].shape[1] :])
        return (self.affine_dA(params["W"], dZ), grads, d_start) if input_gradient else (None, grads, None)

    # --- convolution, as networks mean it: the kernel is not flipped --------------------------------------------

    @abstractmethod
    def convolution(self, W: Array, A_prev: Array, b: Array | None, window: Window, groups: int) -> Array:
        """Z[o, p] = Σ_c,k W[o, c, k] A_prev[c, stride p + dilation k - pad] + b[o].

        Arguments:
            W: (C, C_prev / groups, *kernel).
            A_prev: (C_prev, *sizes, m).
            b: (C, 1, …, 1), or None.
            window: kernel, stride, padding, dilation.
            groups: unit o sees the channels of its own group only.

        Returns:
            Z (C, *places, m).
        """

    @abstractmethod
    def convolution_dW(self, dZ: Array, A_prev: Array, window: Window, groups: int) -> Array:
        """dW[o, c, k] = (1/m) Σ_p,columns dZ[o, p] A_prev[c, stride p + dilation k - pad]."""

    @abstractmethod
    def convolution_db(self, dZ: Array) -> Array:
        """db[o] = (1/m) Σ_p,columns dZ[o, p], of shape (C, 1, …, 1)."""

    @abstractmethod
    def convolution_dA(self, W: Array, dZ: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        """dA_prev[c, stride p + dilation k - pad] = Σ_o,k W[o, c, k] dZ[o, p], of A_prev's ``shape``."""

    # --- pooling ------------------------------------------------------------------------------------------------

    @abstractmethod
    def max_pool(self, A_prev: Array, window: Window, places: tuple[int, ...]) -> tuple[Array, Array]:
        """A[c, p] = the largest value under the window at p, padding never; and which tap it was (the first of equals).

        Arguments:
            A_prev: (C, *sizes, m).
            window: kernel, stride, padding, dilation.
            places: of the window along each axis.
        """

    @abstractmethod
    def max_pool_backward(self, dA: Array, taps: Array, shape: tuple[int, ...], window: Window) -> Array:
        """dA_prev of ``shape``: each dA[c, p] goes to the tap that was largest."""

    @abstractmethod
    def take_taps(self, A_prev: Array, taps: Array, window: Window) -> Array:
        """A[c, p] = A_prev under the given tap of the window at p, the taps being `max_pool`'s of another array."""

    @abstractmethod
    def sum_pool(self, A_prev: Array, window: Window, places: tuple[int, ...]) -> Array:
        """A[c, p] = Σ_k A_prev[c, stride p + dilation k - pad], padding counting as zero."""

    @abstractmethod
    def sum_pool_backward(self, dA: Array, shape: tuple[int, ...], window: Window) -> Array:
        """dA_prev of ``shape``: each dA[c, p] goes to every tap."""

    # --- activations --------------------------------------------------------------------------------------------

    def activation(self, g: Any, Z: Array, *, in_place: bool = False) -> Array:
        """A = g(Z) for an elementwise activation ``g``; ``in_place`` says that Z may be overwritten."""
        return g.g(self, Z)

    def activation_backward(self, g: Any, dA: Array, kept: Array) -> Array:
        """dZ = dA * g'(Z), where ``kept`` is the Z or the A that ``g`` asked to keep."""
        return dA * g.derivative(self, kept)

    def prelu(self, a: Array, Z: Array) -> Array:
        """A = Z where Z > 0, a Z elsewhere, from a (n, 1, …, 1), Z (n, …, m)."""
        return self.xp.where(Z > 0.0, Z, a * Z)

    def prelu_backward(self, a: Array, dA: Array, Z: Array) -> tuple[Array, Array]:
        """dZ = dA where Z > 0, a dA elsewhere; and da = (1/m) Σ dA * min(Z, 0), of a's shape."""
        da = (dA * self.xp.minimum(Z, 0.0)).sum(axis=tuple(range(1, Z.ndim)), keepdims=True) * (1.0 / Z.shape[-1])
        return self.xp.where(Z > 0.0, dA, a * dA), da

    def sigmoid(self, Z: Array) -> Array:
        """A = 1 / (1 + e^-Z), elementwise."""
        return 0.5 * self.xp.tanh(0.5 * Z) + 0.5  # the same function, without overflow

    @abstractmethod
    def erf(self, Z: Array) -> Array:
        """The error function (2/√π) ∫₀ᶻ e^(-t²) dt, elementwise."""

    @abstractmethod
    def softmax(self, Z: Array, axis: int) -> Array:
        """A = exp(Z) / Σ_axis exp(Z), computed from Z - max Z."""

    def softmax_backward(self, dA: Array, A: Array, axis: int) -> Array:
        """dZ = A * (dA - Σ_axis dA * A): the Jacobian diag(A) - A Aᵀ applied to dA."""
        return A * (dA - (dA * A).sum(axis=axis, keepdims=True))

    # --- losses on logits ---------------------------------------------------------------------------------------

    @abstractmethod
    def softmax_cross_entropy(self, Z: Array, Y: Array, smoothing: float, axis: int) -> tuple[Array, Array]:
        """Losses -Σ q log softmax(Z) and the probabilities P.

        Arguments:
            Z: logits, classes along ``axis``.
            Y: class indices (Z's shape without ``axis``) or target distributions (Z's shape).
            smoothing: ε of label smoothing, q = (1-ε) Y + ε/n.
            axis: the class axis.

        Returns:
            the losses (Z's shape without ``axis``) and P (Z's shape).
        """

    @abstractmethod
    def softmax_cross_entropy_backward(self, P: Array, Y: Array, smoothing: float, axis: int) -> Array:
        """dZ = P - q, with q as in `softmax_cross_entropy`."""

    # --- embedding ----------------------------------------------------------------------------------------------

    @abstractmethod
    def embedding(self, W: Array, ids: Array) -> Array:
        """A[t, :, i] = W[:, ids[t, i]], from W (n, levels) and integer ids (T, m), to A (T, n, m)."""

    @abstractmethod
    def embedding_dW(self, dA: Array, ids: Array, levels: int) -> Array:
        """dW[:, k] = (1/m) Σ dA[t, :, i] where ids[t, i] = k, from dA (T, n, m), to dW (n, levels)."""

    # --- normalisation ------------------------------------------------------------------------------------------

    @abstractmethod
    def normalize(self, A_prev: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
        """A_hat = (A_prev - μ) / √(σ² + ε) with μ and σ² taken over ``axes``; returns (A_hat, μ, σ²)."""

    @abstractmethod
    def normalize_backward(
        self, dA_hat: Array, A_hat: Array, variance: Array, axes: tuple[int, ...], epsilon: float
    ) -> Array:
        """dA_prev = (dA_hat - mean(dA_hat) - A_hat * mean(dA_hat * A_hat)) / √(σ² + ε), means over ``axes``."""

    def scale(self, gamma: Array, A_hat: Array, beta: Array) -> Array:
        """A = γ A_hat + β; γ and β of one shape, like the last axes of A_hat or 1."""
        return gamma * A_hat + beta

    def scale_backward(self, gamma: Array, dA: Array, A_hat: Array) -> tuple[Array, Array, Array]:
        """dA_hat = γ dA; dγ = (1/m) Σ dA * A_hat and dβ = (1/m) Σ dA, of γ's shape."""
        shape = (1,) * (dA.ndim - gamma.ndim) + gamma.shape
        shared = tuple(axis for axis, n in enumerate(shape) if n == 1)
        dgamma, dbeta = ((1.0 / dA.shape[-1]) * each.sum(axis=shared).reshape(gamma.shape) for each in (dA * A_hat, dA))
        return gamma * dA, dgamma, dbeta

    def local_response(
        self, A_prev: Array, before: int, after: int, alpha: float, beta: float, k: float
    ) -> tuple[Array, Array]:
        """A[c] = A_prev[c] S[c]^-β with S[c] = k + α Σ A_prev[c']² over c - before ≤ c' ≤ c + after; returns (A, S)."""
        S = k + alpha * self._around(A_prev * A_prev, before, after)
        return A_prev * S**-beta, S

    def local_response_backward(
        self, dA: Array, A_prev: Array, S: Array, before: int, after: int, alpha: float, beta: float
    ) -> Array:
        """dA_prev[c] = dA[c] S[c]^-β - 2 α β A_prev[c] Σ dA[c'] A_prev[c'] S[c']^(-β-1), c' where S reads c."""
        direct = dA * S**-beta
        return direct - 2.0 * alpha * beta * A_prev * self._around(direct * A_prev / S, after, before)

    def _around(self, A: Array, before: int, after: int) -> Array:
        """The sum over so many rows of A before and after each."""
        total = self.xp.zeros_like(A)
        for offset in range(-min(before, len(A)), min(after, len(A)) + 1):
            source = slice(max(0, offset), min(len(A), len(A) + offset))
            pads = ((max(0, -offset), max(0, offset)), *((0, 0),) * (A.ndim - 1))
            total = total + self.xp.pad(A[source], pads)
        return total

    # --- randomness ---------------------------------------------------------------------------------------------

    @abstractmethod
    def random_key(self, *numbers: Any) -> Any:
        """The key of a random stream. The same numbers give the same stream on the same engine, always.

        Where the engine has `looped` the last may be an array of numbers, for a key of each, along the first axis.
        """

    @abstractmethod
    def fold_in(self, key: Any, number: int) -> Any:
        """A key of its own, made from ``key`` and ``number``."""

    @abstractmethod
    def uniform(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        """Numbers drawn uniformly from (0, 1)."""

    @abstractmethod
    def dropout(self, key: Any, A_prev: Array, rate: float) -> tuple[Array, Array]:
        """A = A_prev * D / (1 - rate), D drawn 0 with probability ``rate`` and 1 otherwise; returns (A, D)."""

    def dropout_backward(self, dA: Array, D: Array, rate: float) -> Array:
        """dA_prev = dA * D / (1 - rate)."""
        return dA * D * (1.0 / (1.0 - rate))

    # --- updates ------------------------------------------------------------------------------------------------

    @abstractmethod
    def update(
        self, rule: Callable, params: Tree, grads: Tree, slots: dict[str, Tree], *, learning_rate: float, t: int
    ) -> tuple[Tree, dict[str, Tree]]:
        """An optimizer's elementwise rule applied to every parameter.

        Arguments:
            rule: ``rule(xp, W, dW, slots, learning_rate=, t=) -> (W, slots)``, pure.
            params: the parameters, given away: the engine may overwrite them.
            grads: a tree of the same shape.
            slots: for each of the optimizer's slots a tree of the same shape, given away too.
            learning_rate: α at this update.
            t: 1 at the first update.

        Returns:
            the new parameters and slots.
        """
