"""The geometry of what slides over an image: sizes, strides, padding, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.engines.base import Array, Window
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import Layer, Shape

Pads = tuple[tuple[int, int], ...]


def per_axis(value: Any, axes: int, what: str, where: str) -> tuple[int, ...]:
    """One positive integer for each spatial axis, from one for all of them or one each.

    Raises:
        ParameterError: another number of them, or not positive integers.
    """
    sizes = (value,) * axes if _whole(value) else value
    right = isinstance(sizes, (tuple, list)) and len(sizes) == axes
    if not right or not all(_whole(n) and n > 0 for n in sizes):
        raise ParameterError(
            f"{what} is a positive integer, or one for each of {axes} axes", where=where, got=repr(value)
        )
    return tuple(int(n) for n in sizes)


def checked_padding(padding: Any, axes: int, where: str) -> str | Pads:
    """``"valid"``, ``"same"``, ``"causal"`` (one axis), or numbers of zeros as ((before, after), …).

    Raises:
        ParameterError: something else.
    """
    names = ("valid", "same", "causal") if axes == 1 else ("valid", "same")
    if isinstance(padding, str) and padding in names:
        return padding
    if _whole(padding):
        sides: Any = ((padding, padding),) * axes
    elif isinstance(padding, (tuple, list)) and axes == 1 and len(padding) == 2 and not _nested(padding):
        sides = (tuple(padding),)
    elif isinstance(padding, (tuple, list)) and len(padding) == axes:
        sides = tuple(tuple(each) if isinstance(each, (tuple, list)) else (each, each) for each in padding)
    else:
        sides = ()
    whole = all(_whole(n) and n >= 0 for each in sides for n in each)
    if not sides or any(len(each) != 2 for each in sides) or not whole:
        raise ParameterError(
            "cannot be used as padding",
            where=where,
            expected=f"{', '.join(map(repr, names))}, a number ≥ 0, or numbers for each side",
            got=repr(padding),
        )
    return tuple((int(before), int(after)) for before, after in sides)


def pads_for(padding: str | Pads, sizes: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Pads:
    """Zeros before and after each axis of the given size."""
    if isinstance(padding, tuple):
        return padding
    if padding == "valid":
        return ((0, 0),) * len(sizes)
    if padding == "causal":
        return tuple((d * (k - 1), 0) for k, d in zip(kernel, dilation, strict=True))
    needed = [
        max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    return tuple((n // 2, n - n // 2) for n in needed)


def slid(window: Window, sizes: Shape, *, ceil: bool = False) -> Shape:
    """How many places the window takes along each axis: ⌊(n + pads - dilation (k - 1) - 1) / stride⌋ + 1.

    Arguments:
        window: kernel, stride, padding, dilation.
        sizes: of the image.
        ceil: True counts a last, incomplete place too.

    Raises:
        ShapeError: the window is larger than the padded image.
    """
    places = []
    for axis, n in enumerate(sizes):
        (before, after), k, d = window.pads[axis], window.kernel[axis], window.dilation[axis]
        reach, padded = d * (k - 1) + 1, n + before + after
        if reach > padded:
            around = f" + padding {before} + {after}" if before or after else ""
            dilated = f" (kernel {k}, dilation {d})" if d > 1 else ""
            raise ShapeError(
                f"the kernel is larger than the image along spatial axis {axis}",
                expected=f"{reach} pixels or more{dilated}",
                got=f"{n}{around}",
                hint="larger images, a smaller kernel, more padding, or fewer pooling layers before it",
            )
        places.append((padded - reach + (window.stride[axis] - 1 if ceil else 0)) // window.stride[axis] + 1)
    return tuple(places)


def check_spatial(input_shape: Shape, axes: int) -> None:
    """Refuse what is not (channels, …) with so many spatial axes.

    Raises:
        ShapeError: saying which axis is missing.
    """
    if len(input_shape) != axes + 1:
        wanted = "(channels, height, width)" if axes == 2 else "(channels, length)"
        missing = len(input_shape) == axes
        raise ShapeError(
            f"takes {wanted} per example",
            expected=wanted,
            got=input_shape,
            hint=f"add the channel axis: {(1, *input_shape)}" if missing else None,
        )


def check_channels(layer: Layer, A_prev: Array, channels: int) -> None:
    """Refuse an input whose channels do not fit the weights, before any arithmetic.

    Raises:
        ShapeError: A_prev is not (channels, …, m).
    """
    axes = layer.axes  # type: ignore[attr-defined]
    if A_prev.ndim != axes + 2 or A_prev.shape[0] != channels:
        raise ShapeError(
            "the input does not fit the weights",
            where=repr(layer),
            expected=f"A_prev ({channels}, {'height, width' if axes == 2 else 'length'}, m)",
            got=tuple(A_prev.shape),
            hint="channels come first" if channels in A_prev.shape[1:-1] else None,
        )


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _nested(padding: Any) -> bool:
    return any(isinstance(each, (tuple, list)) for each in padding)
