"""Convolution over one or two spatial axes, and its transpose."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array, Window
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.activations import activations
from pellucid.layers.base import PREDICT, Layer, Params, Shape, find_rules, positive_integer, set_field
from pellucid.layers.dense import start
from pellucid.layers.windows import (
    Pads,
    check_channels,
    check_spatial,
    checked_padding,
    pads_for,
    per_axis,
    slid,
)


@dataclass(frozen=True, eq=False, repr=False)
class _Convolution(Layer):
    """What the convolutions share: their arguments, checked, and their gradients but for the geometry."""

    units: int
    kernel: Any
    activation: Any = "identity"
    stride: Any = field(default=1, kw_only=True)
    padding: Any = field(default="valid", kw_only=True)
    dilation: Any = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    use_bias: bool = field(default=True, kw_only=True)
    initializer: Any = field(default=None, kw_only=True)
    bias_initializer: Any = field(default="zeros", kw_only=True)
    regularizer: Any = field(default=None, kw_only=True)

    _stride: Shape = field(init=False)  # one for each axis, as are the others; the fields above stay as they were given
    _dilation: Shape = field(init=False)
    _padding: str | Pads = field(init=False)

    axes: ClassVar[int]
    regularized: ClassVar[tuple[str, ...]] = ("W",)

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_prev: Array  # (C_prev, …, m); its patches, k² times as large, are gathered again in the backward block
        g: Any  # the activation's own cache: Z (C, …, m), or A where g' can be had from A

    def __post_init__(self):
        where = type(self).__name__
        positive_integer(self.units, "units", self)
        positive_integer(self.groups, "groups", self)
        set_field(self, "kernel", per_axis(self.kernel, self.axes, "kernel", where))
        set_field(self, "_stride", per_axis(self.stride, self.axes, "stride", where))
        set_field(self, "_dilation", per_axis(self.dilation, self.axes, "dilation", where))
        set_field(self, "_padding", checked_padding(self.padding, self.axes, where))
        set_field(self, "activation", activations.get(self.activation, where=where))
        find_rules(self)
        if self.units % self.groups:
            raise ParameterError(
                "the units do not divide into groups",
                where=where,
                expected=f"a multiple of {self.groups}",
                got=self.units,
            )

    def _check_groups(self, input_shape: Shape) -> None:
        check_spatial(input_shape, self.axes)
        if input_shape[0] % self.groups:
            raise ShapeError(
                "the channels do not divide into groups",
                expected=f"a multiple of {self.groups} channels",
                got=input_shape,
            )

    def _start(self, rng: np.random.Generator, W: Shape, fan_in: int, fan_out: int, maps: Shape, dtype: Any) -> Params:
        b, Z = (self.units, *(1,) * (self.axes + 1)), (self.units, *maps)
        return start(self, rng, W=W, b=b, Z=Z, fan_in=fan_in, fan_out=fan_out, dtype=dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Conv2D(_Convolution):
    """Convolution over an image: the same small kernel looks at every place.

        forward    Z[o] = Σ_c W[o, c] ⋆ A_prev[c] + b[o]             A         = g(Z)
        backward   dZ   = dA * g'(Z)                                 dW[o, c]  = (1/m) Σ dZ[o] ⋆ A_prev[c]
                   db[o] = (1/m) Σ_positions,columns dZ[o]           dA_prev[c] = Σ_o W[o, c] * dZ[o]

    ⋆ is cross-correlation: the kernel is not flipped, which is what networks call convolution. Its gradient by the
    input, *, is the true convolution, with the kernel flipped.

    Shapes: A_prev (C_prev, H, W, m) · W (C, C_prev / groups, k, k) · b (C, 1, 1, 1) · Z, A (C, H', W', m), where
    H' = ⌊(H + pads - dilation (k - 1) - 1) / stride⌋ + 1

    Arguments:
        units: C, the number of feature maps.
        kernel: k, one size or (height, width), in pixels.
        activation: g, by name or as a layer.
        stride: pixels between two places of the kernel; one number or (down, across).
        padding: zeros around the image: ``"valid"`` none, ``"same"`` so that H' = ⌈H / stride⌉ (an odd one goes to the
            end), a number for all sides, (vertical, horizontal), or ((top, bottom), (left, right)).
        dilation: pixels between two taps of the kernel.
        groups: the channels and units are cut into so many groups that do not see each other; as many as channels is
            a depthwise convolution.
        connections: for each unit the input channels it sees, such as LeNet-5's table; W is then
            (connections, k, k), one kernel for each pair.
        use_bias: False for Z without b.
        initializer: how W starts; by default as in `Dense`, with fan-in C_prev k² / groups.
        bias_initializer: how b starts.
        regularizer: of W; None takes the network's.

    Raises:
        ShapeError: an input that is no image, channels that do not divide, or a kernel larger than the padded image.

    Source: LeCun et al. 1998, section II.A; the notes' S2.
    """

    connections: Any = field(default=None, kw_only=True)

    axes: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        if self.connections is not None:
            set_field(self, "connections", self._checked_connections())

    def window(self, input_shape: Shape) -> Window:
        """Kernel, stride, padding and dilation as numbers for an input of this shape."""
        pads = pads_for(self._padding, input_shape[1:], self.kernel, self._stride, self._dilation)
        return Window(self.kernel, self._stride, pads, self._dilation)

    def output_shape(self, input_shape):
        self._check_groups(input_shape)
        if self.connections is not None:
            last = max(channel for row in self.connections for channel in row)
            if last >= input_shape[0]:
                raise ShapeError(
                    "the connections name a channel that is not there", expected=f"{last + 1} or more", got=input_shape
                )
        return self.activation.output_shape((self.units, *slid(self.window(input_shape), input_shape[1:])))

    def init(self, rng, input_shape, dtype=np.float32):
        taps, seen = math.prod(self.kernel), input_shape[0] // self.groups
        shape = (self.units, seen, *self.kernel)
        if self.connections is not None:
            pairs = sum(map(len, self.connections))
            seen, shape = max(1, round(pairs / self.units)), (pairs, *self.kernel)
        maps = slid(self.window(input_shape), input_shape[1:])
        return self._start(rng, shape, seen * taps, self.units // self.groups * taps, maps, dtype)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        if self.connections is None:
            check_channels(self, A_prev, params["W"].shape[1] * self.groups)
        W, b = self._spread(ops, params["W"], A_prev), params.get("b")

        Z = ops.convolution(W, A_prev, b, self.window(A_prev.shape[:-1]), self.groups)
        A, g = self.activation.forward(ops, params.get("g"), Z, mode=mode, in_place=True)
        return A, Conv2D.Cache(A_prev, g)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        A_prev = cache.A_prev
        W, window = self._spread(ops, params["W"], A_prev), self.window(A_prev.shape[:-1])

        dZ, dg = self.activation.backward(ops, params.get("g"), cache.g, dA)
        grads = {"W": self._gathered(ops.convolution_dW(dZ, A_prev, window, self.groups))}
        if self.use_bias:
            grads["b"] = ops.convolution_db(dZ)
        dA_prev = ops.convolution_dA(W, dZ, A_prev.shape, window, self.groups) if input_gradient else None
        return dA_prev, {**grads, "g": dg} if dg else grads

    def _spread(self, ops, W, A_prev):
        """W (C, C_prev, k, k) from one kernel for each connection, zeros where there is none."""
        if self.connections is None:
            return W
        place = np.full((self.units, A_prev.shape[0]), -1)
        place[self._pairs()] = np.arange(W.shape[0])
        return ops.xp.concatenate([W, ops.xp.zeros_like(W[:1])])[place]

    def _gathered(self, dW):
        return dW if self.connections is None else dW[self._pairs()]

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        pairs = [(unit, channel) for unit, row in enumerate(self.connections) for channel in row]
        units, channels = np.array(pairs).T
        return units, channels

    def _checked_connections(self) -> tuple[tuple[int, ...], ...]:
        if self.groups != 1:
            raise ParameterError("connections and groups exclude each other", where="Conv2D")
        try:
            rows = tuple(tuple(int(c) for c in row) for row in self.connections)
        except (TypeError, ValueError):
            rows = ()
        if len(rows) != self.units or any(not row or min(row) < 0 or len(set(row)) < len(row) for row in rows):
            raise ParameterError(
                "connections list the channels that each unit sees",
                where="Conv2D",
                expected=f"{self.units} rows of different channels ≥ 0",
                got=self.connections,
            )
        return rows

    def equations(self, *, train=True):
        with_bias = {"db": "(1/m) Σ_positions,columns dZ[o]"} if self.use_bias else {}
        return {
            "Z": "Σ_c W[o, c] ⋆ A_prev[c] + b[o]" if self.use_bias else "Σ_c W[o, c] ⋆ A_prev[c]",
            "dW": "(1/m) Σ_columns dZ[o] ⋆ A_prev[c]",
            **with_bias,
            "dA_prev": "Σ_o W[o, c] * dZ[o], true convolution",
            **self.activation.equations_of_Z(),
        }

    def intermediates(self, ops, params, cache, dA):
        W, window = self._spread(ops, params["W"], cache.A_prev), self.window(cache.A_prev.shape[:-1])
        Z = ops.convolution(W, cache.A_prev, params.get("b"), window, self.groups)
        dZ, _ = self.activation.backward(ops, params.get("g"), cache.g, dA)
        return {"Z": Z, "dZ": dZ}

    def multiply_adds(self, input_shape):
        pairs = self.units * input_shape[0] // self.groups
        if self.connections is not None:
            pairs = sum(map(len, self.connections))
        return pairs * math.prod(self.kernel) * math.prod(slid(self.window(input_shape), input_shape[1:]))


@dataclass(frozen=True, eq=False, repr=False)
class Conv1D(Conv2D):
    """Convolution along one axis, such as the samples of a sound. Equations and arguments as in `Conv2D`.

    Shapes: A_prev (C_prev, T, m) · W (C, C_prev / groups, k) · b (C, 1, 1) · Z, A (C, T', m)

    Arguments:
        padding: ``"valid"``, ``"same"``, ``"causal"`` (all zeros before, so that no output sees a later sample), a
            number, or (before, after).
        others: as in `Conv2D`, each one number.
    """

    axes: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose2D(_Convolution):
    """The transpose of a convolution: its forward is the input gradient of a `Conv2D`, its backward that forward.

        forward    Z[o] = Σ_c W[c, o] * A_prev[c] + b[o]             A         = g(Z)
        backward   dZ   = dA * g'(Z)                                 dW[c, o]  = (1/m) Σ A_prev[c] ⋆ dZ[o]
                   db[o] = (1/m) Σ_positions,columns dZ[o]           dA_prev[c] = Σ_o W[c, o] ⋆ dZ[o]

    With stride s the image grows s times: H' = (H - 1) s + dilation (k - 1) + 1 - pads.

    Shapes: A_prev (C_prev, H, W, m) · W (C_prev, C / groups, k, k) · b (C, 1, 1, 1) · Z, A (C, H', W', m)

    Arguments:
        padding: pixels cut off each side of the result: ``"valid"`` none, ``"same"`` so that H' = H stride, or numbers
            as in `Conv2D`.
        others: as in `Conv2D`.

    Source: Zeiler et al. 2010; Dumoulin and Visin 2016, chapter 4.
    """

    axes: ClassVar[int] = 2

    def _result(self, input_shape: Shape) -> tuple[Shape, Window]:
        """The result's spatial shape, and the window of the convolution that this is the transpose of."""
        full = [
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(input_shape[1:], self._stride, self._dilation, self.kernel, strict=True)
        ]
        if self._padding == "same":
            over = [max(n - size * s, 0) for n, size, s in zip(full, input_shape[1:], self._stride, strict=True)]
            pads = tuple((n // 2, n - n // 2) for n in over)
        else:
            pads = pads_for(self._padding, input_shape[1:], self.kernel, self._stride, self._dilation)
        shape = tuple(n - sum(pad) for n, pad in zip(full, pads, strict=True))
        if min(shape) < 1:
            raise ShapeError("the padding cuts everything off", expected="1 pixel or more", got=shape)
        return shape, Window(self.kernel, self._stride, pads, self._dilation)

    def output_shape(self, input_shape):
        self._check_groups(input_shape)
        return self.activation.output_shape((self.units, *self._result(input_shape)[0]))

    def init(self, rng, input_shape, dtype=np.float32):
        taps = math.prod(self.kernel)
        shape = (input_shape[0], self.units // self.groups, *self.kernel)
        fan_in = input_shape[0] // self.groups * taps
        return self._start(rng, shape, fan_in, shape[1] * taps, self._result(input_shape)[0], dtype)

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        W, b = params["W"], params.get("b")
        check_channels(self, A_prev, W.shape[0])

        Z = ops.convolution_dA(W, A_prev, self._shape(A_prev), self._result(A_prev.shape[:-1])[1], self.groups)
        Z = Z if b is None else Z + b
        A, g = self.activation.forward(ops, params.get("g"), Z, mode=mode, in_place=True)
        return A, ConvTranspose2D.Cache(A_prev, g)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        W, A_prev = params["W"], cache.A_prev
        _, window = self._result(A_prev.shape[:-1])

        dZ, dg = self.activation.backward(ops, params.get("g"), cache.g, dA)
        grads = {"W": ops.convolution_dW(A_prev, dZ, window, self.groups)}
        if self.use_bias:
            grads["b"] = ops.convolution_db(dZ)
        dA_prev = ops.convolution(W, dZ, None, window, self.groups) if input_gradient else None
        return dA_prev, {**grads, "g": dg} if dg else grads

    def _shape(self, A_prev: Array) -> Shape:
        return (self.units, *self._result(A_prev.shape[:-1])[0], A_prev.shape[-1])

    def equations(self, *, train=True):
        with_bias = {"db": "(1/m) Σ_positions,columns dZ[o]"} if self.use_bias else {}
        return {
            "Z": "Σ_c W[c, o] * A_prev[c] + b[o]" if self.use_bias else "Σ_c W[c, o] * A_prev[c]",
            "dW": "(1/m) Σ_columns A_prev[c] ⋆ dZ[o]",
            **with_bias,
            "dA_prev": "Σ_o W[c, o] ⋆ dZ[o]",
            **self.activation.equations_of_Z(),
        }

    def multiply_adds(self, input_shape):
        return math.prod(input_shape) * self.units // self.groups * math.prod(self.kernel)
