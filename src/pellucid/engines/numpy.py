"""The reference engine: NumPy, short and obvious. What the other engines must agree with."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from pellucid.engines.base import Array, Ops

PREFERENCE = 0
BLOCK = 1 << 14  # elements: a block of operands and temporaries stays in the L2 cache


def unavailable() -> str | None:
    """NumPy runs wherever pellucid does."""
    return None


def create() -> NumpyOps:
    """The engine."""
    return NumpyOps()


class NumpyOps(Ops):
    """Every primitive as its definition."""

    name = "numpy"
    xp = np

    def asarray(self, values, dtype=None):
        return np.asarray(values, dtype=dtype)

    def to_numpy(self, A):
        return np.asarray(A)

    # --- affine

    def affine(self, W, A_prev, b):
        Z = W @ A_prev
        if b is not None:
            Z += b
        return Z

    def affine_dW(self, dZ, A_prev):
        dW = dZ @ A_prev.T
        dW *= 1.0 / dZ.shape[-1]
        return dW

    def affine_db(self, dZ):
        return dZ.mean(axis=1, keepdims=True)

    def affine_dA(self, W, dZ):
        return W.T @ dZ

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
        x = np.minimum(np.abs(Z), 6.0).astype(np.float64)
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
            fit = (np.take_along_axis(shifted, np.expand_dims(Y, axis), axis) - log_total).squeeze(axis)
        if smoothing:
            fit = (1.0 - smoothing) * fit + smoothing * (shifted - log_total).mean(axis=axis)
        return -fit, P

    def softmax_cross_entropy_backward(self, P, Y, smoothing, axis):
        n = P.shape[axis]
        if Y.ndim == P.ndim:
            return P - ((1.0 - smoothing) * Y + smoothing / n)
        dZ = P - smoothing / n if smoothing else P.copy()
        index = np.expand_dims(Y, axis)
        np.put_along_axis(dZ, index, np.take_along_axis(dZ, index, axis) - (1.0 - smoothing), axis)
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


def _generator(key: tuple[int, ...]) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


@cache
def _erf_nodes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nodes = np.arange(385) / 64.0
    values = np.array([math.erf(x) for x in nodes])
    return nodes, values, 2.0 / math.sqrt(math.pi) * np.exp(-(nodes**2))
