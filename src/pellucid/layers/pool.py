"""Pooling: many pixels of a channel become one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array, Window
from pellucid.errors import ParameterError
from pellucid.layers.base import PREDICT, Layer, Shape, find_rules, set_field
from pellucid.layers.windows import Pads, check_channels, check_spatial, checked_padding, pads_for, per_axis, slid
from pellucid.schedules import number


@dataclass(frozen=True, eq=False, repr=False)
class _Pooling(Layer):
    """What the pooling layers share: their arguments, checked, and their geometry."""

    size: Any
    stride: Any = None
    padding: Any = field(default="valid", kw_only=True)
    ceil: bool = field(default=False, kw_only=True)

    _size: Shape = field(init=False)  # one for each axis, as are the others; the fields above stay as they were given
    _stride: Shape = field(init=False)
    _padding: str | Pads = field(init=False)

    axes: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        where = type(self).__name__
        set_field(self, "_size", per_axis(self.size, self.axes, "size", where))
        stride = self.size if self.stride is None else self.stride
        set_field(self, "_stride", per_axis(stride, self.axes, "stride", where))
        set_field(self, "_padding", checked_padding(self.padding, self.axes, where))
        if isinstance(self._padding, tuple):
            for pads, k in zip(self._padding, self._size, strict=True):
                if max(pads) >= k:
                    raise ParameterError(
                        "a window would see padding alone", where=where, expected=f"padding < {k}", got=pads
                    )

    def window(self, input_shape: Shape) -> Window:
        """Size, stride and padding as numbers for an input of this shape."""
        ones = (1,) * self.axes
        pads = pads_for(self._padding, input_shape[1:], self._size, self._stride, ones)
        return Window(self._size, self._stride, pads, ones)

    def places(self, input_shape: Shape) -> Shape:
        """How many windows there are along each axis."""
        window = self.window(input_shape)
        places = slid(window, input_shape[1:], ceil=self.ceil)
        # A last window that begins in the padding behind the image sees nothing.
        return tuple(
            p - ((p - 1) * s >= n + before)
            for p, s, n, (before, _) in zip(places, window.stride, input_shape[1:], window.pads, strict=True)
        )

    def output_shape(self, input_shape):
        check_spatial(input_shape, self.axes)
        return (input_shape[0], *self.places(input_shape))

    def multiply_adds(self, input_shape):
        return input_shape[0] * math.prod(self.places(input_shape)) * math.prod(self._size)


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2D(_Pooling):
    """The largest value under each window.

        forward    A[c, p] = max_k A_prev[c, stride p + k - pad]
        backward   dA_prev gets dA[c, p] at the pixel that was largest (the first of equals); overlaps add

    Shapes: A_prev (C, H, W, m) · A (C, H', W', m), with H' = ⌊(H + pads - size) / stride⌋ + 1

    Arguments:
        size: of the window, in pixels; one number or (height, width).
        stride: between windows; None is ``size``. A stride smaller than the size makes windows overlap.
        padding: as in `Conv2D`; padded pixels are never the largest.
        ceil: True keeps a last, incomplete window.

    Source: Zhou and Chellappa 1988; overlapping: Krizhevsky, Sutskever and Hinton 2012, section 3.4.
    """

    class Cache(NamedTuple):
        """Where each maximum came from."""

        taps: Array  # (C, H', W', m), integer: the place within its window
        shape: tuple[int, ...]  # of A_prev

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        check_channels(self, A_prev, A_prev.shape[0])
        shape = A_prev.shape[:-1]
        A, taps = ops.max_pool(A_prev, self.window(shape), self.places(shape))
        return A, MaxPool2D.Cache(taps, A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        return ops.max_pool_backward(dA, cache.taps, cache.shape, self.window(cache.shape[:-1])), {}

    def equations(self, *, train=True):
        return {"A": "max over each window of A_prev", "dA_prev": "dA at each window's largest pixel"}


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool1D(MaxPool2D):
    """The largest value under each window of a signal (C, T, m). As `MaxPool2D`, with one number each."""

    axes: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool2D(_Pooling):
    """The mean under each window.

        forward    A[c, p] = (1/n_p) Σ_k A_prev[c, stride p + k - pad]
        backward   dA_prev gets dA[c, p] / n_p at every pixel of the window, summed where windows overlap

    Shapes: A_prev (C, H, W, m) · A (C, H', W', m)

    Arguments:
        size, stride, padding, ceil: as in `MaxPool2D`.
        count_padding: True divides by the whole window also where it lies over padding; n_p counts pixels otherwise.

    Source: LeCun et al. 1990.
    """

    count_padding: bool = field(default=False, kw_only=True)

    class Cache(NamedTuple):
        """The input's shape."""

        shape: tuple[int, ...]  # of A_prev

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        check_channels(self, A_prev, A_prev.shape[0])
        shape = A_prev.shape[:-1]
        A = ops.sum_pool(A_prev, self.window(shape), self.places(shape))
        return A * self._share(ops, shape, A.dtype), AveragePool2D.Cache(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        shape = cache.shape[:-1]
        dA = dA * self._share(ops, shape, dA.dtype)
        return ops.sum_pool_backward(dA, cache.shape, self.window(shape)), {}

    def _share(self, ops, shape: Shape, dtype: Any) -> Array:
        """1/n_p for every place, (H', W', 1)."""
        window = self.window(shape)
        counts = np.ones(())
        for axis, places in enumerate(self.places(shape)):
            before, after = window.pads[axis]
            first, size = np.arange(places) * window.stride[axis] - before, window.kernel[axis]
            low, high = (-before, shape[1 + axis] + after) if self.count_padding else (0, shape[1 + axis])
            counts = np.multiply.outer(counts, np.minimum(first + size, high) - np.maximum(first, low))
        return ops.asarray((1.0 / counts)[..., None], np.dtype(dtype).name)

    def equations(self, *, train=True):
        return {"A": "mean over each window of A_prev", "dA_prev": "dA / n, to every pixel of the window"}


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool1D(AveragePool2D):
    """The mean under each window of a signal (C, T, m). As `AveragePool2D`, with one number each."""

    axes: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class LpPool2D(_Pooling):
    """The p-norm under each window: p = 1 sums, p = 2 is the root of the sum of squares, p → ∞ is the maximum.

        forward    A = (Σ_k |A_prev|^p)^(1/p)
        backward   dA_prev = dA · |A_prev|^(p-1) sign(A_prev) / A^(p-1), summed where windows overlap

    Shapes: A_prev (C, H, W, m) · A (C, H', W', m)

    Arguments:
        size, stride, padding, ceil: as in `MaxPool2D`.
        p: the exponent, ≥ 1.

    Source: Sermanet, Chintala and LeCun 2012, section 2.1.
    """

    p: float = number("[1, inf)", 2.0, kw_only=True)

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_prev: Array  # (C, H, W, m)
        A: Array  # (C, H', W', m)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        check_channels(self, A_prev, A_prev.shape[0])
        shape = A_prev.shape[:-1]
        total = ops.sum_pool(ops.xp.abs(A_prev) ** self.p, self.window(shape), self.places(shape))
        A = total ** (1.0 / self.p)
        return A, LpPool2D.Cache(A_prev, A)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        xp, (A_prev, A) = ops.xp, cache
        # Where a whole window is zero its norm has a kink; 0 is taken there.
        scaled = xp.where(A > 0, dA / xp.where(A > 0, A, xp.ones_like(A)) ** (self.p - 1.0), xp.zeros_like(A))
        spread = ops.sum_pool_backward(scaled, A_prev.shape, self.window(A_prev.shape[:-1]))
        return spread * xp.abs(A_prev) ** (self.p - 1.0) * xp.sign(A_prev), {}

    def equations(self, *, train=True):
        return {"A": "(Σ |A_prev|^p)^(1/p)", "dA_prev": "Σ dA |A_prev|^(p-1) sign(A_prev) / A^(p-1)"}


@dataclass(frozen=True, eq=False, repr=False)
class StochasticPool2D(_Pooling):
    """In training one pixel of each window, drawn with probability proportional to its (non-negative) value.

        forward    p_k = A_prev[k] / Σ A_prev      training: A = A_prev[k], k ~ p      prediction: A = Σ_k p_k A_prev[k]
        backward   training: dA_prev gets dA at the drawn pixel
                   prediction: dA_prev[k] = Σ dA (2 A_prev[k] - A) / Σ A_prev

    Negative values count as zero; a window of zeros gives zero.

    Shapes: A_prev (C, H, W, m) · A (C, H', W', m)

    Arguments:
        size, stride, padding, ceil: as in `MaxPool2D`.

    Source: Zeiler and Fergus 2013, equations 4 to 6.
    """

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_prev: Array  # (C, H, W, m), negative values set to zero
        taps: Array | None  # (C, H', W', m), the drawn place within each window; None in prediction
        positive: Array  # (C, H, W, m), whether A_prev was > 0

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        check_channels(self, A_prev, A_prev.shape[0])
        xp, shape = ops.xp, A_prev.shape[:-1]
        window, places = self.window(shape), self.places(shape)
        positive = A_prev > 0
        A_prev = xp.where(positive, A_prev, xp.zeros_like(A_prev))
        if mode.train:
            # The largest of p / -log(uniform) is a draw from p (an exponential race). The noise is per pixel: where
            # windows overlap their draws are correlated, each still with the right probabilities.
            noise = ops.uniform(mode.key, A_prev.shape, A_prev.dtype)
            score = xp.where(positive, A_prev / -xp.log(noise), xp.zeros_like(A_prev))
            _, taps = ops.max_pool(score, window, places)
            return ops.take_taps(A_prev, taps, window), StochasticPool2D.Cache(A_prev, taps, positive)
        total = ops.sum_pool(A_prev, window, places)
        A = ops.sum_pool(A_prev * A_prev, window, places) / xp.where(total > 0, total, xp.ones_like(total))
        return A, StochasticPool2D.Cache(A_prev, None, positive)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        xp, (A_prev, taps, positive) = ops.xp, cache
        shape = A_prev.shape[:-1]
        window, places = self.window(shape), self.places(shape)
        if taps is not None:
            return ops.max_pool_backward(dA, taps, A_prev.shape, window) * positive, {}
        total = ops.sum_pool(A_prev, window, places)
        total = xp.where(total > 0, total, xp.ones_like(total))
        A = ops.sum_pool(A_prev * A_prev, window, places) / total
        spread = ops.sum_pool_backward(dA / total, A_prev.shape, window)
        minus = ops.sum_pool_backward(dA * A / total, A_prev.shape, window)
        return (2.0 * A_prev * spread - minus) * positive, {}

    def equations(self, *, train=True):
        if train:
            return {"A": "A_prev at a pixel drawn with p = A_prev / Σ A_prev", "dA_prev": "dA at the drawn pixel"}
        return {"A": "Σ A_prev² / Σ A_prev", "dA_prev": "Σ dA (2 A_prev - A) / Σ A_prev"}


@dataclass(frozen=True, eq=False, repr=False)
class GlobalAveragePool(Layer):
    """The mean of each channel: (C, …, m) → (C, m); dA_prev = dA / positions everywhere.

    Source: Lin, Chen and Yan 2014, section 3.2.
    """

    class Cache(NamedTuple):
        """The input's shape."""

        shape: tuple[int, ...]  # of A_prev

    def output_shape(self, input_shape):
        _check_positions(input_shape)
        return (input_shape[0],)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        return A_prev.mean(axis=tuple(range(1, A_prev.ndim - 1))), GlobalAveragePool.Cache(A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        C, *positions, m = cache.shape
        share = dA * (1.0 / math.prod(positions))
        return ops.xp.broadcast_to(share.reshape(C, *(1,) * len(positions), m), cache.shape), {}

    def equations(self, *, train=True):
        return {"A": "mean of each channel of A_prev", "dA_prev": "dA / positions"}


@dataclass(frozen=True, eq=False, repr=False)
class GlobalMaxPool(Layer):
    """The largest value of each channel: (C, …, m) → (C, m); dA_prev is dA at that place (the first of equals)."""

    class Cache(NamedTuple):
        """Where each maximum came from."""

        largest: Array  # (C, 1, m), integer: the position, counted row by row
        shape: tuple[int, ...]  # of A_prev

    def output_shape(self, input_shape):
        _check_positions(input_shape)
        return (input_shape[0],)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        rows = A_prev.reshape(A_prev.shape[0], -1, A_prev.shape[-1])
        largest = ops.xp.expand_dims(rows.argmax(axis=1), 1)
        return ops.xp.take_along_axis(rows, largest, 1)[:, 0], GlobalMaxPool.Cache(largest, A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        positions = ops.xp.arange(math.prod(cache.shape[1:-1]))[:, None]
        return ((positions == cache.largest) * dA[:, None]).reshape(cache.shape), {}

    def equations(self, *, train=True):
        return {"A": "max of each channel of A_prev", "dA_prev": "dA at each channel's largest value"}


@dataclass(frozen=True, eq=False, repr=False)
class Subsample2D(_Pooling):
    """LeNet-5's pooling: the sum of each window times a trained coefficient, plus a trained bias, for each channel.

        forward    S[c, p] = Σ_k A_prev[c, stride p + k]             A = w[c] S + b[c]
        backward   dw[c] = (1/m) Σ dA * S        db[c] = (1/m) Σ dA        dS = w[c] dA, to every pixel of the window

    Shapes: A_prev (C, H, W, m) · w, b (C, 1, 1, 1) · A (C, H', W', m)

    Arguments:
        size, stride, padding, ceil: as in `MaxPool2D`.
        initializer: how w starts, with fan-in size².
        bias_initializer: how b starts.
        regularizer: of w; None takes the network's.

    Source: LeCun et al. 1998, section II.B, layer S2. Its squashing is a layer of its own here: `ScaledTanh`.
    """

    initializer: Any = field(default="xavier_uniform", kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)
    regularizer: Any = field(default=None, kw_only=True)

    regularized: ClassVar[tuple[str, ...]] = ("w",)

    class Cache(NamedTuple):
        """What the backward block reads."""

        S: Array  # (C, H', W', m)
        shape: tuple[int, ...]  # of A_prev

    def __post_init__(self):
        super().__post_init__()
        find_rules(self)

    def init(self, rng, input_shape, dtype=np.float32):
        fans = {"fan_in": math.prod(self._size), "fan_out": 1, "dtype": dtype}
        column = (input_shape[0], 1, 1, 1)
        return {"w": self.initializer(rng, column, **fans), "b": self.bias_initializer(rng, column, **fans)}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        check_channels(self, A_prev, params["w"].shape[0])
        shape = A_prev.shape[:-1]
        S = ops.sum_pool(A_prev, self.window(shape), self.places(shape))
        return params["w"] * S + params["b"], Subsample2D.Cache(S, A_prev.shape)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        grads = {"w": ops.convolution_db(dA * cache.S), "b": ops.convolution_db(dA)}
        if not input_gradient:
            return None, grads
        window = self.window(cache.shape[:-1])
        return ops.sum_pool_backward(params["w"] * dA, cache.shape, window), grads

    def equations(self, *, train=True):
        return {"S": "Σ over each window of A_prev", "A": "w S + b", "dw": "(1/m) Σ dA * S", "db": "(1/m) Σ dA"}

    def intermediates(self, ops, params, cache, dA):
        return {"S": cache.S}


def _check_positions(input_shape: Shape) -> None:
    check_spatial(input_shape, 1 if len(input_shape) == 2 else 2)
