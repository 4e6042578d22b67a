"""The native engine: C++ kernels for this processor, under the same primitives. What has no kernel is the reference's.

The kernels are compiled with the package; where no compiler was found the package works without them, and `unavailable`
says so. Every kernel reads contiguous arrays whose last axis, the examples, is its vector axis.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.engines.base import Array
from pellucid.engines.native.replay import Replayed, whole
from pellucid.engines.numpy import NumpyOps

PREFERENCE = 10
PRECISIONS = ("bfloat16",)

# Activations with a kernel, in the order of kernels.h.
_KINDS = (
    *("relu", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "silu", "hard_sigmoid", "scaled_tanh"),
    *("gelu", "gelu_tanh", "softplus"),
)
_CELLS = ("tanh", "relu", "sigmoid", "lstm", "gru")  # in the order of kernels.h
_LARGE = 1 << 19  # numbers in U from which its gradient stays in no cache: then all steps at once are faster than each
_CONSTANTS = {"leaky_relu": "slope", "elu": "alpha"}
_RULES = {
    "gradient_descent": (0, ()),
    "momentum": (1, ("momentum",)),
    "nesterov": (2, ("momentum",)),
    "adagrad": (3, ("epsilon",)),
    "adadelta": (7, ("decay", "epsilon")),
    "rmsprop": (4, ("decay", "epsilon")),
    "adam": (5, ("beta1", "beta2", "epsilon")),
    "adamw": (6, ("beta1", "beta2", "epsilon", "weight_decay")),
    "lion": (8, ("beta1", "beta2", "weight_decay")),
}


def unavailable() -> str | None:
    """Why the kernels cannot run here: not compiled, not loadable, or not of the sources beside this file."""
    if not compiled():
        return "its kernels were not compiled, which takes a C++17 compiler: `pip install -v` says what failed"
    try:
        kernels = importlib.import_module(f"{__name__}._kernels")
    except ImportError as failure:
        return f"its kernels cannot be loaded, install pellucid again: {failure}"
    if _interface() in (None, getattr(kernels, "interface", "nothing known")):
        return None
    return "its kernels are older than the code: `pip install -e .` compiles them anew"


def compiled() -> bool:
    """Whether there are kernels, be it ones that cannot run here."""
    return importlib.util.find_spec(f"{__name__}._kernels") is not None


def _interface() -> str | None:
    """The digest of the sources that say what the kernels are called with; None where the package is without sources.

    CMakeLists.txt computes the same when the kernels are compiled.
    """
    sources = [Path(__file__).with_name(name) for name in ("module.cpp", "kernels.h", "program.h")]
    if not all(source.exists() for source in sources):
        return None
    digests = "".join(hashlib.sha256(source.read_bytes()).hexdigest() for source in sources)
    return hashlib.sha256(digests.encode()).hexdigest()


def about() -> str:
    """The instruction set, and what bfloat16 gains here."""
    kernels = importlib.import_module(f"{__name__}._kernels")
    own = kernels.instruction_set()
    if kernels.instruction_set(bfloat16=True) != own:
        return f"{own}; bfloat16 in pairs: up to twice as fast as float32, slower for fewer than 16 examples"
    return f"{own}; bfloat16 is rounded and multiplied in float32: slower than float32"


def create(precision: str | None) -> NativeOps:
    """The engine."""
    return NativeOps(precision)


class NativeOps(NumpyOps):
    """The primitives that have a kernel; the others are inherited.

    Attributes:
        kernels: the extension module.
        rounds: whether products are of operands rounded to bfloat16.
    """

    name = "native"

    def __init__(self, precision: str | None = None) -> None:
        super().__init__(precision)
        self.rounds = precision == "bfloat16"
        self.kernels: Any = importlib.import_module(f"{__name__}._kernels")
        _show_threads()

    # --- arrays

    def peak_bytes(self, *, reset=False):
        if reset:
            self.kernels.reset_peak()
        return self.kernels.peak_bytes() + self.kernels.scratch_bytes()

    def compile(self, step, *, given_away=(), static=(), own=False):
        return Replayed(self, step, given_away, static) if own else step

    def look(self, check, *arrays):
        whole(check)(*arrays)

    def recorded(self, predict, shape, dtype):
        from pellucid.engines.native.recording import Recorder

        if self.precision is not None:
            return None
        try:
            recorder = Recorder(self.kernels, shape, dtype)
            return recorder.end(predict(recorder, recorder.input))
        except Exception:  # of whatever kind: where something is wrong with the network, running it says what
            return None

    def examples_last(self, x, rows, dtype):
        if x.ndim < 2 or not x.flags.c_contiguous or x.dtype not in (dtype, np.uint8):
            return super().examples_last(x, rows, dtype)
        if x.dtype == np.uint8:
            return getattr(self.kernels, f"{dtype}_examples_last")(x, rows)
        return self.kernels.examples_last(x, rows)

    # --- affine

    def affine(self, W, A_prev, b):
        if not A_prev.size:
            return super().affine(W, A_prev, b)
        return self.kernels.affine(_rows(W), _rows(A_prev), None if b is None else _rows(b), self.rounds)

    def affine_dW(self, dZ, A_prev):
        return self.kernels.affine_dW(_rows(dZ), _rows(A_prev), self.rounds)

    def affine_db(self, dZ):
        return self.kernels.affine_db(_rows(dZ))

    def affine_dA(self, W, dZ):
        return self.kernels.affine_dA(_rows(W), _rows(dZ), self.rounds)

    # --- recurrence

    def recurrence(self, cell, Z, U, c, state, mask):
        Z = Z if Z.flags.carray else Z.copy()
        given = (None if each is None else _rows(each) for each in (c, *_two(state)))
        H, C, v = self.kernels.recurrence(_CELLS.index(cell), Z, _rows(U), *given, _bytes(mask))
        return _there(H, C), () if cell in _CELLS[:3] else _there(Z, v)

    def recurrence_backward(self, cell, U, states, kept, mask, dA, d_last):
        H, C, Z, v, dA, d_h, d_C = (
            None if each is None else _rows(each) for each in (*_two(states), *_two(kept), dA, *_two(d_last))
        )
        given = _rows(U), H, C, Z, v, _bytes(mask), dA, d_h, d_C
        dZ, dV, d_h, d_C, *_ = self.kernels.recurrence_backward(_CELLS.index(cell), *given)
        return dZ, dV, _there(d_h, d_C)

    def recurrent(self, cell, params, X, state, mask):
        if cell == "gru" or self.precision:
            return super().recurrent(cell, params, X, state, mask)
        given = (None if each is None else _rows(each) for each in (params.get("b"), *_two(state)))
        H, C, Z = self.kernels.recurrent(
            _CELLS.index(cell), _rows(X), _rows(params["W"]), _rows(params["U"]), *given, _bytes(mask)
        )
        return _there(H, C), _there(Z)

    def recurrent_backward(self, cell, params, X, states, kept, mask, dA, d_last, input_gradient):
        if cell == "gru" or self.precision or params["U"].size > _LARGE:
            return super().recurrent_backward(cell, params, X, states, kept, mask, dA, d_last, input_gradient)
        H, C, Z, dA, d_h, d_C, X = (
            None if each is None else _rows(each) for each in (*_two(states), *_two(kept)[:1], dA, *_two(d_last), X)
        )
        given = _rows(params["U"]), H, C, Z, None, _bytes(mask), dA, d_h, d_C, X, input_gradient
        dZ, _, d_h, d_C, *found = self.kernels.recurrence_backward(_CELLS.index(cell), *given)
        grads = {name: each for name, each in zip("WUb", found, strict=True) if name in params}
        if not input_gradient:
            return None, grads, None
        return self.affine_dA(params["W"], dZ), grads, _there(d_h, d_C)

    # --- convolution and pooling

    def convolution(self, W, A_prev, b, window, groups):
        b = None if b is None else _rows(b)
        return self.kernels.convolution(_rows(W), _rows(A_prev), b, window, groups, self.rounds)

    def convolution_dW(self, dZ, A_prev, window, groups):
        return self.kernels.convolution_dW(_rows(dZ), _rows(A_prev), window, groups, self.rounds)

    def convolution_db(self, dZ):
        return self.kernels.row_sums(_rows(dZ), dZ.shape[-1])

    def convolution_dA(self, W, dZ, shape, window, groups):
        return self.kernels.convolution_dA(_rows(W), _rows(dZ), shape, window, groups, self.rounds)

    def max_pool(self, A_prev, window, places):
        return self.kernels.max_pool(_rows(A_prev), window, places)

    def max_pool_backward(self, dA, taps, shape, window):
        return self.kernels.max_pool_backward(_rows(dA), _rows(taps), shape, window)

    def sum_pool(self, A_prev, window, places):
        return self.kernels.sum_pool(_rows(A_prev), window, places)

    def sum_pool_backward(self, dA, shape, window):
        return self.kernels.sum_pool_backward(_rows(dA), shape, window)

    # --- activations

    def activation(self, g, Z, *, in_place=False):
        kind = _kind(g)
        if kind is None:
            return super().activation(g, Z, in_place=in_place)
        constant = getattr(g, _CONSTANTS.get(g.registered_name, ""), 0.0)
        if in_place and Z.flags.carray:
            self.kernels.activation_in_place(kind, Z, constant)
            return Z
        return self.kernels.activation(kind, _rows(Z), constant)

    def activation_backward(self, g, dA, kept):
        kind = _kind(g)
        if kind is None:
            return super().activation_backward(g, dA, kept)
        constant = getattr(g, _CONSTANTS.get(g.registered_name, ""), 0.0)
        return self.kernels.activation_backward(kind, _rows(dA), _rows(kept), constant)

    def erf(self, Z):
        return self.kernels.erf(_rows(Z))

    def sigmoid(self, Z):
        return self.kernels.activation(_KINDS.index("sigmoid"), _rows(Z), 0.0)

    def prelu(self, a, Z):
        return self.kernels.prelu(_rows(a), _rows(Z))

    def prelu_backward(self, a, dA, Z):
        return self.kernels.prelu_backward(_rows(a), _rows(dA), _rows(Z))

    # --- loss

    def softmax_cross_entropy(self, Z, Y, smoothing, axis):
        if Z.ndim != 2 or Y.ndim != 1 or axis not in (0, -2):
            return super().softmax_cross_entropy(Z, Y, smoothing, axis)
        return self.kernels.softmax_cross_entropy(_rows(Z), _rows(Y.astype(np.int64, copy=False)), smoothing)

    def softmax_cross_entropy_backward(self, P, Y, smoothing, axis):
        if P.ndim != 2 or Y.ndim != 1 or axis not in (0, -2):
            return super().softmax_cross_entropy_backward(P, Y, smoothing, axis)
        return self.kernels.softmax_cross_entropy_backward(_rows(P), _rows(Y.astype(np.int64, copy=False)), smoothing)

    def softmax(self, Z, axis):
        return self.kernels.softmax(_rows(Z), axis % Z.ndim)

    def softmax_backward(self, dA, A, axis):
        return self.kernels.softmax_backward(_rows(dA), _rows(A), axis % A.ndim)

    # --- embedding

    def embedding(self, W, ids):
        return self.kernels.embedding(_rows(W), _rows(ids.astype(np.int64, copy=False)))

    def embedding_dW(self, dA, ids, levels):
        return self.kernels.embedding_dW(_rows(dA), _rows(ids.astype(np.int64, copy=False)), levels)

    # --- normalisation

    def normalize(self, A_prev, axes, epsilon):
        if not _together(axes) or not A_prev.size:
            return super().normalize(A_prev, axes, epsilon)
        if axes == tuple(range(1, A_prev.ndim)):
            return self.kernels.normalize(_rows(A_prev), epsilon)
        return self.kernels.normalize_columns(_rows(A_prev), axes[0], len(axes), epsilon)

    def normalize_backward(self, dA_hat, A_hat, variance, axes, epsilon):
        if not _together(axes) or not A_hat.size:
            return super().normalize_backward(dA_hat, A_hat, variance, axes, epsilon)
        given = _rows(dA_hat), _rows(A_hat), _rows(variance)
        if axes == tuple(range(1, A_hat.ndim)):
            return self.kernels.normalize_backward(*given, epsilon)
        return self.kernels.normalize_columns_backward(*given, axes[0], len(axes), epsilon)

    def scale(self, gamma, A_hat, beta):
        return self.kernels.scale(_rows(gamma), _rows(A_hat), _rows(beta))

    def scale_backward(self, gamma, dA, A_hat):
        return self.kernels.scale_backward(_rows(gamma), _rows(dA), _rows(A_hat))

    def local_response(self, A_prev, before, after, alpha, beta, k):
        return self.kernels.local_response(_rows(A_prev), before, after, alpha, beta, k)

    def local_response_backward(self, dA, A_prev, S, before, after, alpha, beta):
        return self.kernels.local_response_backward(_rows(dA), _rows(A_prev), _rows(S), before, after, alpha, beta)

    # --- randomness

    def dropout(self, key, A_prev, rate):
        A, D = self.kernels.dropout(_mixed(key), _rows(A_prev), rate)
        return A, D.view(np.bool_)

    def dropout_backward(self, dA, D, rate):
        return self.kernels.dropout_backward(_rows(dA), _rows(D).view(np.uint8), rate)

    # --- updates

    def update(self, rule, params, grads, slots, *, learning_rate, t):
        optimizer = getattr(rule, "__self__", None)
        known = _RULES.get(getattr(optimizer, "registered_name", ""))
        if known is None or not type(optimizer).__module__.startswith("pellucid."):
            return super().update(rule, params, grads, slots, learning_rate=learning_rate, t=t)
        kind, names = known
        constants = [learning_rate, t, *(getattr(optimizer, name) for name in names)]
        constants += [0.0] * (6 - len(constants))
        self._update(kind, params, grads, list(slots.values()), constants)
        return params, slots

    def _update(self, kind, params, grads, slots, constants):
        for name, W in params.items():
            own = [tree[name] for tree in slots]
            if isinstance(W, dict):
                self._update(kind, W, grads[name], own, constants)
            elif all(each.flags.carray for each in (W, *own)):
                self.kernels.update(kind, W, _rows(grads[name]), own, constants)
            else:
                copies = [each.copy() for each in (W, *own)]
                self.kernels.update(kind, copies[0], _rows(grads[name]), copies[1:], constants)
                for given, made in zip((W, *own), copies, strict=True):
                    given[...] = made


def _kind(g: Any) -> int | None:
    """The number of an activation's kernel; None for one that has none, such as a user's own."""
    name = g.registered_name + ("_tanh" if getattr(g, "approximate", "none") == "tanh" else "")
    return _KINDS.index(name) if name in _KINDS and type(g).__module__.startswith("pellucid.") else None


def _rows(A: Array) -> Array:
    flags = A.flags
    return A if flags.c_contiguous and flags.aligned else A.copy()


def _two(arrays: tuple[Array | None, ...]) -> tuple[Array | None, Array | None]:
    first, second, *_ = (*arrays, None, None)
    return first, second


def _there(*arrays: Array | None) -> tuple[Array, ...]:
    return tuple(each for each in arrays if each is not None)


def _bytes(mask: Array | None) -> Array | None:
    return None if mask is None else _rows(mask.astype(np.bool_, copy=False)).view(np.uint8)


def _together(axes: tuple[int, ...]) -> bool:
    return axes[0] >= 0 and axes == tuple(range(axes[0], axes[0] + len(axes)))


@whole
def _mixed(key: tuple[int, ...]) -> int:
    """The numbers of a key as 64 bits that differ everywhere when one number differs (Steele et al.'s SplitMix64)."""
    state = 0
    for number in key:
        state = (state ^ int(number)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


def _show_threads() -> None:
    """Let threadpoolctl see and set the kernels' threads, once it is imported; it is not imported for that."""
    if "threadpoolctl" in sys.modules:
        _register(sys.modules["threadpoolctl"])
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


def _register(threadpoolctl: Any) -> None:
    class Threads(threadpoolctl.LibController):
        user_api = "pellucid"
        internal_api = "pellucid"
        filename_prefixes = ("_kernels",)
        check_symbols = ("pellucid_get_num_threads", "pellucid_set_num_threads")

        def get_num_threads(self):
            return self.dynlib.pellucid_get_num_threads()

        def set_num_threads(self, num_threads):
            self.dynlib.pellucid_set_num_threads(num_threads)

        def get_version(self):
            return None

        def set_additional_attributes(self):
            self.instruction_set = importlib.import_module(f"{__name__}._kernels").instruction_set()

    threadpoolctl.register(Threads)


class _WhenImported:
    """Finds nothing itself: has `_register` called at the end of threadpoolctl's import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "threadpoolctl":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def then_register(module: Any) -> None:
                run(module)
                _register(module)

            spec.loader.exec_module = then_register  # type: ignore[method-assign]
        return spec
