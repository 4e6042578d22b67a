"""Every primitive in `jax.numpy` and `jax.lax`, each backward written out: nothing here is differentiated by JAX.

Called one by one they run one by one, as `pl.trace` wants it; inside `JaxOps.compile` XLA sees the whole step and fuses
across them. The example axis stays last for the reader; where it lies in memory is XLA's choice.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

from pellucid.data.storage import data_home
from pellucid.engines.base import Array, Ops, Window
from pellucid.engines.cells import CELLS
from pellucid.engines.jax import towers
from pellucid.errors import EngineError
from pellucid.trees import Tree

KEPT = 1 << 29  # bytes of compiled programs


class JaxOps(Ops):
    """The primitives on the devices that JAX finds.

    Making one sets two of JAX's options for the whole process: 64-bit numbers, as float64 would silently be float32
    without, and a folder that keeps compiled programs for the next process, where none is set.
    """

    name = "jax"
    xp = jnp
    batches_ahead = 2
    compiles = True

    def __init__(self, precision: str | None = None) -> None:
        self.precision = precision
        self._precision = lax.Precision.HIGH if precision == "tensorfloat32" else lax.Precision.HIGHEST
        jax.config.update("jax_enable_x64", True)
        if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
            _keep_programs(data_home() / "compiled")

    def _operands(self, *arrays: Array) -> tuple[Array, ...]:
        """The arrays as they enter a product."""
        rounded = self.precision == "bfloat16" and all(A.dtype == jnp.float32 for A in arrays)
        return tuple(A.astype(jnp.bfloat16) for A in arrays) if rounded else arrays

    # --- arrays

    def asarray(self, values, dtype=None):
        return jnp.asarray(values, dtype=dtype)

    def to_numpy(self, A):
        if isinstance(A, jax.Array) and not (A.is_fully_addressable or A.is_fully_replicated):
            return multihost_utils.process_allgather(A, tiled=True)
        if isinstance(A, jax.Array) and not A.is_fully_replicated:
            # NumPy's own way would keep a copy with the array, for as long as it lives.
            whole = np.empty(A.shape, A.dtype)
            for part in A.addressable_shards:
                whole[part.index] = part.data
            return whole
        return np.asarray(A)

    def compile(self, step, *, given_away=(), static=(), own=False):
        options = compiler_options()
        names = {"donate_argnames": given_away, "static_argnames": static}
        return _run(jax.jit(_of_ordered(step), **names, compiler_options=options))

    def looped(self, step):
        def loop(carry: Any, data: Any, each: Any) -> Any:
            ordered = _of_ordered(step)
            return lax.scan(lambda carry, entry: ordered(carry, data, entry), carry, each)

        return _run(jax.jit(loop, donate_argnums=0, compiler_options=compiler_options()))

    def resident_bytes(self, *, convolutions):
        device = jax.local_devices()[0]
        if convolutions and device.platform == "cpu":  # where XLA runs them several times slower within a loop
            return 0
        counted = device.memory_stats() or {}
        return counted.get("bytes_limit", 4 << 30) // 4

    def placement(self, mesh):
        from pellucid.engines.jax.placement import OnMesh

        return super().placement(None) if mesh is None else OnMesh(self, mesh)

    def fetched(self, params, dA=None):
        mesh = towers.traced()
        sharded = mesh is not None and "sharded" in mesh.axis_names
        if mesh is None or not params or not (sharded or mesh.shape["model"] > 1):
            return params
        arrays, tree = jax.tree.flatten(params)
        if sharded and dA is not None:
            # Else what the forward block fetched would be kept for the backward block: in the end the whole network.
            arrays = towers.later(mesh, self.apart, arrays, jax.tree.leaves(dA)[0])
        own = ("model" if "model" in towers.lies(W.shape, mesh)[:1] else None for W in arrays)
        where = [P(units) if units else P() for units in own]
        return jax.tree.unflatten(tree, map(lax.with_sharding_constraint, arrays, where))

    def scope(self, name):
        return jax.named_scope(name)

    def padded_steps(self, T):
        # Each T is compiled by itself: four of them to every doubling, so at most a quarter of the steps is padding.
        apart = max(1, 1 << (T - 1).bit_length() >> 3)
        return -(-T // apart) * apart

    def peak_bytes(self, *, reset=False):
        # Of the fullest device, since the process began: JAX cannot count anew.
        counted = [device.memory_stats() or {} for device in jax.local_devices()]
        return max((each["peak_bytes_in_use"] for each in counted if "peak_bytes_in_use" in each), default=None)

    def apart(self, *arrays):
        *before, last = arrays
        if self.known(last) or jax.default_backend() != "cpu":
            return lax.optimization_barrier(arrays)
        # On CPUs XLA lets go of the barrier before it looks for what is computed twice; that this is always true it
        # does not see.
        one = last.reshape(-1)[0]
        there = (one == one) | (one != one)
        return *(None if A is None else jnp.where(there, A, jnp.zeros_like(A)) for A in before), last

    def known(self, A):
        return not isinstance(A, jax.core.Tracer)

    # --- affine

    def affine(self, W, A_prev, b):
        if mesh := towers.over(len(W)):
            return towers.forward(mesh, lambda W, A, b, _: self.affine(W, A, b), W, A_prev, b, axis=A_prev.ndim - 2)
        W, A_prev = self._operands(W, A_prev)
        Z = _product(W, A_prev, self._precision)
        return Z if b is None else Z + b

    def affine_dW(self, dZ, A_prev):
        shape = dZ.shape[-2], A_prev.shape[-2]
        if mesh := towers.over(shape[0]):
            return towers.dW(mesh, lambda dZ, A, _: self.affine_dW(dZ, A), dZ, A_prev, shape, axis=dZ.ndim - 2)
        steps = "" if dZ.ndim == 2 else "t"
        dZ, A_prev = self._operands(dZ, A_prev)
        dW = jnp.einsum(
            f"{steps}im,{steps}jm->ij", dZ, A_prev, precision=self._precision, preferred_element_type=_sum_type(dZ)
        )
        return dW * (1.0 / dZ.shape[-1])

    def affine_db(self, dZ):
        over = (*range(dZ.ndim - 2), -1)
        return dZ.sum(axis=over).reshape(-1, 1) * (1.0 / dZ.shape[-1])

    def affine_dA(self, W, dZ):
        if mesh := towers.over(len(W)):
            return towers.dA(mesh, lambda W, dZ, *_: self.affine_dA(W, dZ), W, dZ, W.shape[1], axis=dZ.ndim - 2)
        W, dZ = self._operands(W, dZ)
        return _product(W.T, dZ, self._precision)

    # --- recurrence

    def recurrence(self, cell, Z, U, c, state, mask):
        Z, state = _whole_units((Z, tuple(state)))
        return _recurrence(cell, self._precision, Z, *_everywhere((U, c)), state, mask)

    def recurrence_backward(self, cell, U, states, kept, mask, dA, d_last):
        states, kept, dA, d_last = _whole_units((tuple(states), tuple(kept), dA, tuple(d_last)))
        return _recurrence_backward(cell, self._precision, _everywhere(U), states, kept, mask, dA, d_last)

    # --- convolution: all three are one kind of convolution to XLA, which takes the axes in any order

    def convolution(self, W, A_prev, b, window, groups):
        if mesh := towers.over(len(W), groups=groups):
            own = partial(self.convolution, window=window)
            return towers.forward(mesh, lambda W, A, b, g: own(W, A, b, groups=g), W, A_prev, b, groups)
        W, A_prev = self._operands(W, A_prev)
        s = "XYZ"[: len(window.kernel)]
        Z = self._convolved(
            A_prev,
            W,
            (f"C{s}N", f"OI{s}", f"C{s}N"),
            window_strides=window.stride,
            padding=window.pads,
            rhs_dilation=window.dilation,
            feature_group_count=groups,
        )
        return Z if b is None else Z + b

    def convolution_dW(self, dZ, A_prev, window, groups):
        if mesh := towers.over(len(dZ), groups=groups):
            own = partial(self.convolution_dW, window=window)
            shape = len(dZ), len(A_prev) // groups, *window.kernel
            return towers.dW(mesh, lambda dZ, A, g: own(dZ, A, groups=g), dZ, A_prev, shape, groups)
        dZ, A_prev = self._operands(dZ, A_prev)
        # Channels as examples, examples as channels; dZ is the kernel. Stride and dilation change places.
        s = "XYZ"[: len(window.kernel)]
        dW = self._convolved(
            A_prev,
            dZ,
            (f"N{s}C", f"O{s}I", f"CN{s}"),
            window_strides=window.dilation,
            padding=_just_enough(window, A_prev.shape[1:-1], dZ.shape[1:-1]),
            rhs_dilation=window.stride,
            batch_group_count=groups,
        )
        return dW * (1.0 / dZ.shape[-1])

    def _convolved(self, A: Array, W: Array, axes: tuple[str, str, str], **how: Any) -> Array:
        return lax.conv_general_dilated(
            A, W, dimension_numbers=axes, precision=self._precision, preferred_element_type=_sum_type(A), **how
        )

    def convolution_db(self, dZ):
        db = dZ.sum(axis=tuple(range(1, dZ.ndim))) * (1.0 / dZ.shape[-1])
        return db.reshape(-1, *(1,) * (dZ.ndim - 1))

    def convolution_dA(self, W, dZ, shape, window, groups):
        if mesh := towers.over(len(W), groups=groups):

            def own(W: Array, dZ: Array, channels: int, groups: int) -> Array:
                return self.convolution_dA(W, dZ, (channels, *shape[1:-1], dZ.shape[-1]), window, groups)

            return towers.dA(mesh, own, W, dZ, shape[0], groups)
        W, dZ = self._operands(W, dZ)
        # dZ with zeros between its places, under the kernel turned around, its units and channels exchanged.
        s = "XYZ"[: len(window.kernel)]
        turned = jnp.flip(W, axis=tuple(range(2, W.ndim)))
        turned = turned.reshape(groups, -1, *turned.shape[1:]).swapaxes(1, 2).reshape(shape[0], -1, *W.shape[2:])
        before = [d * (k - 1) - pad for k, d, (pad, _) in zip(window.kernel, window.dilation, window.pads, strict=True)]
        after = [
            n - stride * (places - 1) - 1 - low + d * (k - 1)
            for n, places, stride, low, k, d in zip(
                shape[1:-1], dZ.shape[1:-1], window.stride, before, window.kernel, window.dilation, strict=True
            )
        ]
        return self._convolved(
            dZ,
            turned,
            (f"C{s}N", f"OI{s}", f"C{s}N"),
            window_strides=(1,) * len(s),
            padding=tuple(zip(before, after, strict=True)),
            lhs_dilation=window.stride,
            rhs_dilation=window.dilation,
            feature_group_count=groups,
        )

    # --- pooling

    def max_pool(self, A_prev, window, places):
        # One axis after the other, the last first: k + k comparisons instead of k², and the first of equals is kept.
        A = _padded(A_prev, window, places, -jnp.inf)
        taps, apart = jnp.zeros(A.shape, jnp.int32), 1
        for axis in range(len(places) - 1, -1, -1):
            seen = [
                (_tap(A, axis, tap, window, places), _tap(taps, axis, tap, window, places) + tap * apart)
                for tap in range(window.kernel[axis])
            ]
            A, taps = seen[0]
            for part, its_taps in seen[1:]:
                taps = jnp.where(part > A, its_taps, taps)
                A = jnp.maximum(A, part)
            apart *= window.kernel[axis]
        return A, taps

    def max_pool_backward(self, dA, taps, shape, window):
        dA_prev = jnp.zeros(shape, dA.dtype)
        for number, tap in enumerate(np.ndindex(*window.kernel)):
            dA_prev = dA_prev + _spread(jnp.where(taps == number, dA, 0), tap, shape, window)
        return dA_prev

    def take_taps(self, A_prev, taps, window):
        places = taps.shape[1:-1]
        padded = _padded(A_prev, window, places, 0.0)
        A = jnp.zeros(taps.shape, A_prev.dtype)
        for number, tap in enumerate(np.ndindex(*window.kernel)):
            part = padded
            for axis, k in enumerate(tap):
                part = _tap(part, axis, k, window, places)
            A = jnp.where(taps == number, part, A)
        return A

    def sum_pool(self, A_prev, window, places):
        padded = _padded(A_prev, window, places, 0.0)
        return lax.reduce_window(
            padded,
            np.zeros((), A_prev.dtype),
            lax.add,
            (1, *window.kernel, 1),
            (1, *window.stride, 1),
            "VALID",
            window_dilation=(1, *window.dilation, 1),
        )

    def sum_pool_backward(self, dA, shape, window):
        # Every pixel sums the places whose window it was under: the same sum over dA with zeros between its places.
        spread = _spread(dA, (0,) * len(window.kernel), None, window)
        low = [d * (k - 1) - pad for k, d, (pad, _) in zip(window.kernel, window.dilation, window.pads, strict=True)]
        config = [
            (0, 0, 0),
            *(
                (before, n + d * (k - 1) - before - size, 0)
                for before, n, size, k, d in zip(
                    low, shape[1:-1], spread.shape[1:-1], window.kernel, window.dilation, strict=True
                )
            ),
            (0, 0, 0),
        ]
        return lax.reduce_window(
            lax.pad(spread, np.zeros((), dA.dtype), config),
            np.zeros((), dA.dtype),
            lax.add,
            (1, *window.kernel, 1),
            (1,) * dA.ndim,
            "VALID",
            window_dilation=(1, *window.dilation, 1),
        )

    # --- activations

    def erf(self, Z):
        return lax.erf(Z)

    def softmax(self, Z, axis):
        A = jnp.exp(Z - Z.max(axis=axis, keepdims=True))
        return A / A.sum(axis=axis, keepdims=True)

    # --- losses on logits

    def softmax_cross_entropy(self, Z, Y, smoothing, axis):
        shifted = Z - Z.max(axis=axis, keepdims=True)
        exponentials = jnp.exp(shifted)
        total = exponentials.sum(axis=axis, keepdims=True)
        log_P = shifted - jnp.log(total)
        return -(_distribution(Y, Z, smoothing, axis) * log_P).sum(axis=axis), exponentials / total

    def softmax_cross_entropy_backward(self, P, Y, smoothing, axis):
        return P - _distribution(Y, P, smoothing, axis)

    # --- embedding

    def embedding(self, W, ids):
        return jnp.moveaxis(W[:, ids], 0, 1)

    def embedding_dW(self, dA, ids, levels):
        if mesh := towers.over(dA.shape[1]):
            own = lambda dA, ids, _: self.embedding_dW(dA, ids, levels)  # noqa: E731
            return towers.dW(mesh, own, dA, ids, (dA.shape[1], levels), axis=1)
        rows = jnp.swapaxes(dA, 1, 2).reshape(-1, dA.shape[1])
        dW = jnp.zeros((levels, dA.shape[1]), dA.dtype).at[ids.reshape(-1)].add(rows)
        return dW.T * (1.0 / dA.shape[-1])

    # --- normalisation

    def normalize(self, A_prev, axes, epsilon):
        mean = A_prev.mean(axis=axes, keepdims=True)
        centred = A_prev - mean
        variance = jnp.square(centred).mean(axis=axes, keepdims=True)
        return centred * lax.rsqrt(variance + epsilon), mean, variance

    def normalize_backward(self, dA_hat, A_hat, variance, axes, epsilon):
        shared = dA_hat.mean(axis=axes, keepdims=True) + A_hat * (dA_hat * A_hat).mean(axis=axes, keepdims=True)
        return (dA_hat - shared) * lax.rsqrt(variance + epsilon)

    # --- randomness: a key is two words, made on the host and the same on every device and every number of devices

    def random_key(self, *numbers):
        *stream, number = numbers
        keys = np.full((*np.shape(number), 2), _words(*stream), np.uint32)
        keys[..., 1] += np.asarray(number).astype(np.uint32)
        return keys

    def fold_in(self, key, number):
        return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(key)), number))

    def uniform(self, key, shape, dtype):
        draws = jax.random.uniform(jax.random.wrap_key_data(jnp.asarray(key)), shape, dtype)
        return jnp.clip(draws, np.finfo(np.float32).tiny, 1.0 - np.finfo(dtype).epsneg)

    def dropout(self, key, A_prev, rate):
        D = self.uniform(key, A_prev.shape, np.float32) >= rate
        return self.dropout_backward(A_prev, D, rate), D

    # --- updates

    def update(self, rule, params, grads, slots, *, learning_rate, t):
        new: Tree = {}
        new_slots: dict[str, Tree] = {slot: {} for slot in slots}
        for name, W in params.items():
            dW, own = grads[name], {slot: tree[name] for slot, tree in slots.items()}
            step = partial(self.update, rule) if isinstance(W, dict) else partial(rule, jnp)
            new[name], made = step(W, dW, own, learning_rate=learning_rate, t=t)
            for slot, value in made.items():
                new_slots[slot][name] = value
        return new, new_slots


@lru_cache
def _words(*numbers: int) -> np.ndarray:
    return np.random.SeedSequence(numbers).generate_state(2)


def _whole_units(tree: Any) -> Any:
    """What a loop over steps reads, all units of a device's own examples: no step is to exchange anything."""
    mesh = towers.traced()
    if mesh is None or mesh.shape["model"] == 1:
        return tree
    return jax.tree.map(
        lambda A: lax.with_sharding_constraint(
            A, P(*(None,) * (A.ndim - 1), "data" if A.shape[-1] % mesh.shape["data"] == 0 else None)
        ),
        tree,
    )


def _everywhere(tree: Any) -> Any:
    """Whole on every device."""
    return tree if towers.traced() is None else lax.with_sharding_constraint(tree, P())


def compiler_options() -> dict[str, Any] | None:
    """On several CPU devices XLA is to take the order that needs least memory: by itself it fetches all first that
    there is to fetch, and each device has the whole network in the end."""
    several = jax.default_backend() == "cpu" and jax.device_count() > 1
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if several else None


def _keep_programs(folder: Path) -> None:
    """Let JAX keep what it compiles for the next process; where that cannot be written, each compiles anew."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_compilation_cache_max_size", KEPT)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _product(W: Array, A: Array, precision: lax.Precision) -> Array:
    return jnp.matmul(W, A, precision=precision, preferred_element_type=_sum_type(W))


def _sum_type(A: Array) -> Any:
    return jnp.float32 if A.dtype == jnp.bfloat16 else A.dtype


@partial(jax.jit, static_argnums=(0, 1))
def _recurrence(cell, precision, Z, U, c, state, mask):
    step, n = CELLS[cell], U.shape[1]

    def forward(before, given):
        Z_t, mask_t = given
        V = _product(U, before[0], precision)
        after, gates = step.forward(jnp, Z_t, V, c, before)
        if mask is not None:
            after = tuple(jnp.where(mask_t, new, old) for new, old in zip(after, before, strict=True))
        v = V[-n:] if c is None else V[-n:] + c
        return after, (after, () if step.gates == 1 else (gates, v) if step.keeps_V else (gates,))

    _, (later, kept) = lax.scan(forward, state, (Z, mask))
    return tuple(jnp.concatenate([first[None], S]) for first, S in zip(state, later, strict=True)), kept


@partial(jax.jit, static_argnums=(0, 1))
def _recurrence_backward(cell, precision, U, states, kept, mask, dA, d_last):
    step = CELLS[cell]

    def backward(d_after, given):
        before, after, (gates, v), mask_t, dA_t = given
        if dA is not None:
            d_after = (d_after[0] + dA_t, *d_after[1:])
        dZ, dV, d_before = step.backward(jnp, gates, v, before, after, d_after)
        if mask is not None:  # a masked step hands the gradient on as it came
            dZ, dV = dZ * mask_t, dV * mask_t
            d_before = tuple(jnp.where(mask_t, d, passed) for d, passed in zip(d_before, d_after, strict=True))
        return (d_before[0] + _product(U.T, dV, precision), *d_before[1:]), (dZ, dV)

    d_state = tuple(jnp.zeros_like(S[0]) if d is None else d for S, d in zip(states, d_last, strict=True))
    before, after = tuple(S[:-1] for S in states), tuple(S[1:] for S in states)
    gates_and_v = (*kept, None, None)[:2]
    d_start, (dZ, dV) = lax.scan(backward, d_state, (before, after, gates_and_v, mask, dA), reverse=True)
    return dZ, dV, d_start


def _distribution(Y: Array, like: Array, smoothing: float, axis: int) -> Array:
    """q: the targets as a distribution over the classes along ``axis``, smoothed."""
    if Y.ndim < like.ndim:
        classes = jnp.arange(like.shape[axis]).reshape(-1, *(1,) * (like.ndim - 1 - axis % like.ndim))
        Y = (jnp.expand_dims(Y, axis) == classes).astype(like.dtype)
    return (1.0 - smoothing) * Y + smoothing / like.shape[axis] if smoothing else Y


def _just_enough(window: Window, sizes: tuple[int, ...], places: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Padding before and after so that the last place ends where the padded axis does; cut off where it is negative."""
    return tuple(
        (before, stride * (count - 1) + dilation * (k - 1) + 1 - n - before)
        for (before, _), n, count, k, stride, dilation in zip(
            window.pads, sizes, places, window.kernel, window.stride, window.dilation, strict=True
        )
    )


def _padded(A: Array, window: Window, places: tuple[int, ...], value: float) -> Array:
    pads = [(*pad, 0) for pad in _just_enough(window, A.shape[1:-1], places)]
    return lax.pad(A, np.asarray(value, A.dtype), [(0, 0, 0), *pads, (0, 0, 0)])


def _tap(A: Array, axis: int, tap: int, window: Window, places: tuple[int, ...]) -> Array:
    """What that tap sees along a spatial axis of the padded array, from all places."""
    start, stride = tap * window.dilation[axis], window.stride[axis]
    return lax.slice_in_dim(A, start, start + (places[axis] - 1) * stride + 1, stride, axis + 1)


def _spread(A: Array, tap: tuple[int, ...], shape: tuple[int, ...] | None, window: Window) -> Array:
    """The places of A at the pixels that the window's ``tap`` sees; without ``shape`` only set apart by the stride."""
    config = [(0, 0, 0)]
    for axis, (k, stride) in enumerate(zip(tap, window.stride, strict=True)):
        length = stride * (A.shape[axis + 1] - 1) + 1
        low = k * window.dilation[axis] - window.pads[axis][0] if shape else 0
        config.append((low, shape[axis + 1] - length - low if shape else 0, stride - 1))
    return lax.pad(A, np.zeros((), A.dtype), [*config, (0, 0, 0)])


@jax.tree_util.register_pytree_node_class
class _Ordered:
    """A dictionary that keeps its order: JAX sorts the names of those it is given."""

    def __init__(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self.names, self.values = names, values

    def tree_flatten(self) -> Any:
        return self.values, self.names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: tuple[Any, ...]) -> _Ordered:
        return cls(names, values)


def _ordered(tree: Any) -> Any:
    if isinstance(tree, dict):
        return _Ordered(tuple(tree), tuple(map(_ordered, tree.values())))
    return _each(_ordered, tree)


def _plain(tree: Any) -> Any:
    if isinstance(tree, _Ordered):
        return dict(zip(tree.names, map(_plain, tree.values), strict=True))
    return _each(_plain, tree)


def _each(function: Callable, tree: Any) -> Any:
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(function, tree))
    return type(tree)(map(function, tree)) if isinstance(tree, (tuple, list)) else tree


def _of_ordered(step: Callable) -> Callable:
    """The step, of trees whose dictionaries are `_Ordered`."""

    @wraps(step)
    def run(*arguments: Any, **options: Any) -> Any:
        given = {name: _plain(value) for name, value in options.items()}
        return _ordered(step(*map(_plain, arguments), **given))

    return run


def _run(compiled: Callable) -> Callable:
    """The compiled function of trees as they are, its failures in our words."""

    @wraps(compiled)
    def run(*arguments: Any, **options: Any) -> Any:
        given = {name: _ordered(value) for name, value in options.items()}
        try:
            return _plain(compiled(*map(_ordered, arguments), **given))
        except (jax.errors.JaxRuntimeError, TypeError, IndexError) as failure:
            if (explained := _explained(failure)) is None:
                raise
            raise explained from failure

    return run


def _explained(failure: Exception) -> EngineError | None:
    """What to do about a failure of XLA's, or of a layer that cannot be compiled; None where that is not known."""
    if isinstance(failure, jax.errors.TracerArrayConversionError):
        problem, hint = "a layer calls NumPy, and a compiled step has no NumPy arrays", "ops.xp in the place of np"
    elif isinstance(failure, (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError)):
        problem = "a layer reads the numbers of an array, and a compiled step has none yet"
        hint = "ops.xp.where(…) in the place of if and of A[mask]"
    elif isinstance(failure, TypeError) and "arrays are immutable" in str(failure):
        problem, hint = "a layer writes into an array, which this engine's cannot be", "ops.xp.where(…) makes a new one"
    elif "RESOURCE_EXHAUSTED" not in str(failure):
        return None
    else:
        return EngineError(
            "the device ran out of memory",
            where="the jax engine",
            got=str(failure).splitlines()[0],
            hint="a smaller batch_size, or more devices",
        )
    return EngineError(problem, where=_place(failure), hint=f"{hint}; or engine='native'")


def _place(failure: Exception) -> str:
    """The line of a user's own code where it came about, if it did in one."""
    own = [Path(__file__).parents[2], Path(jax.__file__).parent]
    frames = traceback.extract_tb(failure.__traceback__)
    users = [each for each in frames if not any(folder in Path(each.filename).parents for folder in own)]
    written = [each for each in users if each.name != "<module>"] or users
    return f"{written[-1].filename}, line {written[-1].lineno}, in {written[-1].name}" if written else "the jax engine"
