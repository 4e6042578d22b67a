"""The reference engine: NumPy, short and obvious. What the other engines must agree with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from pellucid.engines.base import Array, Ops, Window
from pellucid.engines.cells import CELLS

PREFERENCE = 0
PRECISIONS = ("bfloat16",)
BLOCK = 1 << 15  # elements: a block of operands and temporaries stays in the L2 cache
CACHE = 1 << 18  # elements: patches that are gathered, multiplied once and forgotten


def unavailable() -> str | None:
    """NumPy runs wherever pellucid does."""
    return None


def create(precision: str | None) -> NumpyOps:
    """The engine."""
    return NumpyOps(precision)


class NumpyOps(Ops):
    """Every primitive as its definition."""

    name = "numpy"
    xp = np

    def __init__(self, precision: str | None = None) -> None:
        self.precision = precision

    def _operands(self, *arrays: Array) -> tuple[Array, ...]:
        """The arrays as they enter a product."""
        return tuple(map(_bfloat16, arrays)) if self.precision else arrays

    def asarray(self, values, dtype=None):
        return np.asarray(values, dtype=dtype)

    def to_numpy(self, A):
        return np.asarray(A)

    # --- affine

    def affine(self, W, A_prev, b):
        W, A_prev = self._operands(W, A_prev)
        Z = W @ A_prev
        if b is not None:
            Z += b
        return Z

    def affine_dW(self, dZ, A_prev):
        dZ, A_prev = self._operands(dZ, A_prev)
        dW = dZ @ np.swapaxes(A_prev, -1, -2)
        dW = dW.sum(axis=tuple(range(dW.ndim - 2))) if dW.ndim > 2 else dW
        dW *= 1.0 / dZ.shape[-1]
        return dW

    def affine_db(self, dZ):
        m = dZ.shape[-1]
        db = dZ @ np.full((m, 1), 1.0 / m, dZ.dtype)
        return db.sum(axis=tuple(range(db.ndim - 2))) if db.ndim > 2 else db

    def affine_dA(self, W, dZ):
        W, dZ = self._operands(W, dZ)
        return W.T @ dZ

    # --- recurrence

    def recurrence(self, cell, Z, U, c, state, mask):
        step = CELLS[cell]
        T, n, m = len(Z), U.shape[1], Z.shape[-1]
        states = tuple(np.empty((T + 1, n, m), Z.dtype) for _ in state)
        for S, start in zip(states, state, strict=True):
            S[0] = start
        v = np.empty((T, n, m), Z.dtype) if step.keeps_V else None
        for t in range(T):
            V = U @ states[0][t]
            after, Z[t] = step.forward(np, Z[t], V, c, [S[t] for S in states])
            if v is not None:
                v[t] = V[-n:] if c is None else V[-n:] + c
            for S, new in zip(states, after, strict=True):
                S[t + 1] = new if mask is None else np.where(mask[t], new, S[t])
        kept = () if step.gates == 1 else (Z,) if v is None else (Z, v)
        return states, kept

    def recurrence_backward(self, cell, U, states, kept, mask, dA, d_last):
        step, (Z, v) = CELLS[cell], (*kept, None, None)[:2]
        T, m = len(states[0]) - 1, states[0].shape[-1]
        dZ = np.empty((T, len(U), m), states[0].dtype)
        dV = np.empty_like(dZ) if step.keeps_V else dZ
        d_state = [np.zeros_like(S[0]) if d is None else d for S, d in zip(states, d_last, strict=True)]
        for t in range(T - 1, -1, -1):
            if dA is not None:
                d_state[0] = d_state[0] + dA[t]
            Z_t, v_t = (None if each is None else each[t] for each in (Z, v))
            before, after = [S[t] for S in states], [S[t + 1] for S in states]
            dZ[t], dV[t], d_before = step.backward(np, Z_t, v_t, before, after, d_state)
            if mask is not None:  # a masked step hands the gradient on as it came
                dZ[t] *= mask[t]
                dV[t] = dV[t] * mask[t] if step.keeps_V else dV[t]
                d_before = tuple(np.where(mask[t], d, passed) for d, passed in zip(d_before, d_state, strict=True))
            d_state = [d_before[0] + U.T @ dV[t], *d_before[1:]]
        return dZ, dV, tuple(d_state)

    # --- convolution: patches as the columns of a matrix, so that it is an affine layer's arithmetic; a few rows of the
    # image at a time, so that their patches, which hold every pixel k² times, never leave the cache

    def convolution(self, W, A_prev, b, window, groups):
        W, A_prev = self._operands(W, A_prev)
        padded = _pad(A_prev, window, (), 0.0)
        places = _places(padded.shape, window)
        Z = np.empty((W.shape[0], *places, A_prev.shape[-1]), np.result_type(W, A_prev))
        for rows, patches in _patches(padded, window, places, groups):
            Z[:, rows] = (_by_group(W, groups) @ patches).reshape(Z[:, rows].shape)
        if b is not None:
            Z += b
        return Z

    def convolution_dW(self, dZ, A_prev, window, groups):
        dZ, A_prev = self._operands(dZ, A_prev)
        padded = _pad(A_prev, window, (), 0.0)
        dW = np.zeros((), dZ.dtype)
        for rows, patches in _patches(padded, window, dZ.shape[1:-1], groups):
            dW = dW + _by_group(dZ[:, rows], groups) @ patches.transpose(0, 2, 1)
        dW *= 1.0 / dZ.shape[-1]
        return dW.reshape(dZ.shape[0], A_prev.shape[0] // groups, *window.kernel)

    def convolution_db(self, dZ):
        db = dZ.reshape(dZ.shape[0], -1).sum(axis=1) * (1.0 / dZ.shape[-1])
        return db.reshape(-1, *(1,) * (dZ.ndim - 1))

    def convolution_dA(self, W, dZ, shape, window, groups):
        W, dZ = self._operands(W, dZ)
        dA_prev = np.zeros(_padded(shape, window), dZ.dtype)
        for rows in _blocks(dZ.shape[1:], shape[0] * math.prod(window.kernel)):
            part = dZ[:, rows]
            d_patches = _by_group(W, groups).transpose(0, 2, 1) @ _by_group(part, groups)
            d_patches = d_patches.reshape(shape[0], -1, *part.shape[1:])
            seen = dA_prev[:, rows.start * window.stride[0] :]
            for tap, pixels in enumerate(_taps(window, part.shape[1:-1])):
                seen[pixels] += d_patches[:, tap]
        return _unpadded(dA_prev, shape, window)

    # --- pooling: one pass for each tap of the window

    def max_pool(self, A_prev, window, places):
        padded = _pad(A_prev, window, places, -np.inf)
        first, *others = _taps(window, places)
        A = padded[first].copy()
        taps = np.zeros(A.shape, np.int32)
        for tap, part in enumerate(others, 1):
            larger = padded[part] > A  # np.maximum, as a copy where a mask is set costs forty times as much
            np.maximum(A, padded[part], out=A)
            np.maximum(taps, larger * np.int32(tap), out=taps)
        return A, taps

    def max_pool_backward(self, dA, taps, shape, window):
        dA_prev = np.zeros(_padded(shape, window, dA.shape[1:-1]), dA.dtype)
        for tap, part in enumerate(_taps(window, dA.shape[1:-1])):
            dA_prev[part] += dA * (taps == tap)
        return _unpadded(dA_prev, shape, window)

    def take_taps(self, A_prev, taps, window):
        padded = _pad(A_prev, window, taps.shape[1:-1], 0.0)
        A = np.zeros(taps.shape, A_prev.dtype)
        for tap, part in enumerate(_taps(window, taps.shape[1:-1])):
            np.copyto(A, padded[part], where=taps == tap)
        return A

    def sum_pool(self, A_prev, window, places):
        padded = _pad(A_prev, window, places, 0.0)
        A = np.zeros((A_prev.shape[0], *places, A_prev.shape[-1]), A_prev.dtype)
        for part in _taps(window, places):
            A += padded[part]
        return A

    def sum_pool_backward(self, dA, shape, window):
        dA_prev = np.zeros(_padded(shape, window, dA.shape[1:-1]), dA.dtype)
        for part in _taps(window, dA.shape[1:-1]):
            dA_prev[part] += dA
        return _unpadded(dA_prev, shape, window)

    # --- activations

    def activation(self, g, Z, *, in_place=False):
        if not in_place or Z.size <= BLOCK or not Z.flags.c_contiguous:
            return g.g(self, Z)
        flat = Z.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            flat[start : start + BLOCK] = g.g(self, flat[start : start + BLOCK])
        return Z

    def erf(self, Z):
        # Taylor's series of degree 6 about the nearest of 385 nodes, exact to the last bits of float64.
        nodes, values, slopes = _erf_nodes()
        x = np.fmin(np.abs(Z), 6.0).astype(np.float64)  # a nan finds a node, and its sign is nan
        nearest = np.rint(x * 64.0).astype(np.intp)
        c, d = nodes[nearest], x - nodes[nearest]
        h2, h3, h4 = -c, (2 * c**2 - 1) / 3, -(2 * c**3 - 3 * c) / 6
        h5, h6 = (4 * c**4 - 12 * c**2 + 3) / 30, -(4 * c**5 - 20 * c**3 + 15 * c) / 90
        series = d * (1 + d * (h2 + d * (h3 + d * (h4 + d * (h5 + d * h6)))))
        return (np.sign(Z) * (values[nearest] + slopes[nearest] * series)).astype(Z.dtype)

    def softmax(self, Z, axis):
        A = np.exp(Z - Z.max(axis=axis, keepdims=True))
        A /= A.sum(axis=axis, keepdims=True)
        return A

    # --- losses on logits

    def softmax_cross_entropy(self, Z, Y, smoothing, axis):
        shifted = Z - Z.max(axis=axis, keepdims=True)
        P = np.exp(shifted)
        total = P.sum(axis=axis, keepdims=True)
        P /= total
        log_total = np.log(total)
        if Y.ndim == Z.ndim:
            fit = (Y * shifted).sum(axis=axis) - Y.sum(axis=axis) * log_total.squeeze(axis)
        else:
            fit = shifted[_own(Y, axis)] - log_total.squeeze(axis)
        if smoothing:
            fit = (1.0 - smoothing) * fit + smoothing * (shifted - log_total).mean(axis=axis)
        return -fit, P

    def softmax_cross_entropy_backward(self, P, Y, smoothing, axis):
        n = P.shape[axis]
        if Y.ndim == P.ndim:
            return P - ((1.0 - smoothing) * Y + smoothing / n)
        dZ = P - smoothing / n if smoothing else P.copy()
        dZ[_own(Y, axis)] -= 1.0 - smoothing
        return dZ

    # --- embedding

    def embedding(self, W, ids):
        return np.ascontiguousarray(W[:, ids].transpose(1, 0, 2))

    def embedding_dW(self, dA, ids, levels):
        columns = dA.transpose(1, 0, 2).reshape(dA.shape[1], -1)
        dW = np.stack([np.bincount(ids.reshape(-1), row, levels) for row in columns])
        return (dW / dA.shape[-1]).astype(dA.dtype)

    # --- normalisation

    def normalize(self, A_prev, axes, epsilon):
        mean = A_prev.mean(axis=axes, keepdims=True)
        A_hat = A_prev - mean
        variance = np.square(A_hat).mean(axis=axes, keepdims=True)
        A_hat *= 1.0 / np.sqrt(variance + epsilon)
        return A_hat, mean, variance

    def normalize_backward(self, dA_hat, A_hat, variance, axes, epsilon):
        dA_prev = dA_hat - dA_hat.mean(axis=axes, keepdims=True)
        dA_prev -= A_hat * (dA_hat * A_hat).mean(axis=axes, keepdims=True)
        dA_prev *= 1.0 / np.sqrt(variance + epsilon)
        return dA_prev

    # --- randomness: a key is a tuple of numbers, so nothing but the numbers has to be saved to resume

    def random_key(self, *numbers):
        return numbers

    def fold_in(self, key, number):
        return (*key, number)

    def uniform(self, key, shape, dtype):
        draws = _generator(key).uniform(np.finfo(np.float32).tiny, 1.0, shape).astype(dtype)
        return np.minimum(draws, 1.0 - np.finfo(dtype).epsneg)  # in float32 some would round up to 1

    def dropout(self, key, A_prev, rate):
        draws = _generator(key).random(A_prev.shape, dtype=np.float32)
        D = draws >= rate
        return self.dropout_backward(A_prev, D, rate), D

    # --- updates

    def update(self, rule, params, grads, slots, *, learning_rate, t):
        for name, W in params.items():
            dW, W_slots = grads[name], {slot: tree[name] for slot, tree in slots.items()}
            if isinstance(W, dict):
                self.update(rule, W, dW, W_slots, learning_rate=learning_rate, t=t)
            else:
                _update_in_place(rule, W, dW, W_slots, learning_rate=learning_rate, t=t)
        return params, slots


def _own(Y: Array, axis: int) -> tuple[Array, ...]:
    """The index of each example's own class: classes Y (m,) or (T, m) lie along ``axis`` of what is indexed."""
    index = [np.arange(n).reshape((n,) + (1,) * (Y.ndim - 1 - k)) for k, n in enumerate(Y.shape)]
    index.insert(axis % (Y.ndim + 1), Y)
    return tuple(index)


def _padded(shape: tuple[int, ...], window: Window, places: tuple[int, ...] = ()) -> tuple[int, ...]:
    """``shape`` with its padding, and with what an incomplete last place needs beyond it."""
    sizes = [n + sum(pad) for n, pad in zip(shape[1:-1], window.pads, strict=True)]
    for axis, count in enumerate(places):
        reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        sizes[axis] = max(sizes[axis], (count - 1) * window.stride[axis] + reach)
    return (shape[0], *sizes, shape[-1])


def _pad(A: Array, window: Window, places: tuple[int, ...], value: float) -> Array:
    shape = _padded(A.shape, window, places)
    if shape == A.shape:
        return A
    padded = np.full(shape, value, A.dtype)
    _unpadded(padded, A.shape, window)[...] = A
    return padded


def _unpadded(A: Array, shape: tuple[int, ...], window: Window) -> Array:
    inside = (slice(before, before + n) for n, (before, _) in zip(shape[1:-1], window.pads, strict=True))
    return A[(slice(None), *inside)]


def _taps(window: Window, places: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """For each tap of the kernel, row by row, the part of the padded image it sees from all places."""
    for tap in np.ndindex(*window.kernel):
        yield (
            slice(None),
            *(
                slice(k * d, k * d + (n - 1) * s + 1, s)
                for k, d, n, s in zip(tap, window.dilation, places, window.stride, strict=True)
            ),
        )


def _places(padded: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """How many places the window takes along each axis of a padded image."""
    return tuple(
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(padded[1:-1], window.kernel, window.stride, window.dilation, strict=True)
    )


def _by_group(A: Array, groups: int) -> Array:
    """A (C, …) as a matrix for each group of channels, (groups, C / groups, everything else)."""
    return A.reshape(groups, A.shape[0] // groups, -1)


def _blocks(places: tuple[int, ...], taps: int) -> Iterator[slice]:
    """Rows of places (rows, …, m), so many at a time that their patches of ``taps`` numbers each fit the cache."""
    rows = max(1, CACHE // (taps * math.prod(places[1:])))
    return (slice(start, min(start + rows, places[0])) for start in range(0, places[0], rows))


def _patches(padded: Array, window: Window, places: tuple[int, ...], groups: int) -> Iterator[tuple[slice, Array]]:
    """Rows of places, and what the kernel sees from them: (groups, C_prev / groups · taps, places · m)."""
    channel, *spatial, example = padded.strides
    seen = np.lib.stride_tricks.as_strided(
        padded,
        (padded.shape[0], *window.kernel, *places, padded.shape[-1]),
        (
            channel,
            *(n * d for n, d in zip(spatial, window.dilation, strict=True)),
            *(n * s for n, s in zip(spatial, window.stride, strict=True)),
            example,
        ),
        writeable=False,
    )
    taps = padded.shape[0] * math.prod(window.kernel)
    for rows in _blocks((*places, padded.shape[-1]), taps):
        part = seen[(slice(None),) * (1 + len(window.kernel)) + (rows,)]
        yield rows, part.reshape(groups, taps // groups, -1)


def _update_in_place(rule, W: Array, dW: Array, slots: dict[str, Array], **now: Any) -> None:
    """The pure rule, applied block by block so that its temporaries never leave the cache."""
    if W.size <= BLOCK or not all(a.flags.c_contiguous for a in (W, dW, *slots.values())):
        blocks: Any = [(W, dW, slots)]
    else:
        flat_W, flat_dW = W.reshape(-1), dW.reshape(-1)
        flat_slots = {name: slot.reshape(-1) for name, slot in slots.items()}
        blocks = (
            (flat_W[part], flat_dW[part], {name: slot[part] for name, slot in flat_slots.items()})
            for part in (slice(start, start + BLOCK) for start in range(0, W.size, BLOCK))
        )
    for W_block, dW_block, slot_blocks in blocks:
        W_new, slots_new = rule(np, W_block, dW_block, slot_blocks, **now)
        W_block[...] = W_new
        for name, slot in slots_new.items():
            slot_blocks[name][...] = slot


def _bfloat16(A: Array) -> Array:
    """float32 numbers rounded to the 8 significant bits of bfloat16, to nearest, ties to even; others as they are."""
    if A.dtype != np.float32:
        return A
    bits = A.view(np.uint32)
    bits = bits + (0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(A), A, bits.view(np.float32))


def _generator(key: tuple[int, ...]) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


@cache
def _erf_nodes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nodes = np.arange(385) / 64.0
    values = np.array([math.erf(x) for x in nodes])
    return nodes, values, 2.0 / math.sqrt(math.pi) * np.exp(-(nodes**2))
