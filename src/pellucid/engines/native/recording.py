"""A prediction recorded: its layers run once, on a value that knows only its shape, and every primitive is noted.

A layer that does anything else than call primitives, such as arithmetic of its own or a look at the numbers, fails on
such a value, and the prediction is not recorded.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np

from pellucid.engines.native import _CONSTANTS, _KINDS, _kind, _rows

EXAMPLES = 1_000_003  # m while recording: no layer can take it for a size of its own


class Value:
    """What stands for an array: the number under which the program holds it, and its shape with the examples last."""

    __slots__ = ("dtype", "number", "shape")
    __array_ufunc__ = None  # NumPy's operators then refuse it

    def __init__(self, number: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if shape[-1:] != (EXAMPLES,):
            raise TypeError("the examples are not its last axis")
        self.number, self.shape, self.dtype = number, shape, dtype

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a value that is being recorded has no numbers")

    __array_function__ = __eq__ = __ne__ = __bool__ = __array__
    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """How many axes it has, the examples' among them."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def reshape(self, *shape: int) -> Value:
        """The same value seen in another shape."""
        if math.prod(shape) != self.size:
            raise TypeError("not the same size")
        return Value(self.number, shape, self.dtype)


class Recorder:
    """The primitives, as steps added to a program of the extension: those that a program can run, no others.

    Attributes:
        program: what is recorded.
        input: the value that stands for the examples.
    """

    name = "native"

    def __init__(self, kernels: Any, shape: tuple[int, ...], dtype: str) -> None:
        self.program = getattr(kernels, f"Program_{dtype}")(shape, np.dtype(dtype))
        self.input = Value(0, (*shape, EXAMPLES), np.dtype(dtype))

    scope = staticmethod(nullcontext)

    def fetched(self, params, dA=None):
        return params

    def affine(self, W, A_prev, b):
        return self._record("affine", A_prev, _fixed(W), _fixed(b))

    def convolution(self, W, A_prev, b, window, groups):
        return self._record("convolution", A_prev, _fixed(W), _fixed(b), window, groups)

    def max_pool(self, A_prev, window, places):
        return self._record("max_pool", A_prev, window, places), None

    def activation(self, g, Z, *, in_place=False):
        constant = getattr(g, _CONSTANTS.get(g.registered_name, ""), 0.0)
        return self._record("activation", Z, _kind(g), constant, in_place)

    def sigmoid(self, Z):
        return self._record("activation", Z, _KINDS.index("sigmoid"), 0.0, False)

    def softmax(self, Z, axis):
        return self._record("softmax", Z, axis % Z.ndim)

    def end(self, A: Value) -> Any:
        """The program whose result is ``A``."""
        self.program.end(A.number, A.shape[:-1])
        return self.program

    def _record(self, step: str, A: Value, *arguments: Any) -> Value:
        number, shape = getattr(self.program, step)(A.number, A.shape[:-1], *arguments)
        return Value(number, (*shape, EXAMPLES), A.dtype)


def _fixed(W: Any) -> Any:
    """A parameter that the program can read where it lies."""
    if W is not None and _rows(W) is not W:
        raise TypeError("a parameter that is not contiguous")
    return W
