"""Radial basis functions: LeNet-5's output layer, the distance of its input from a picture of each class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import PREDICT, Layer, check_width, set_field, vector_length

# Each digit as printed, 7 pixels wide and 12 high, ink # (+1) and paper . (-1); row by row they are 84 numbers.
_DIGITS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...#...  .#####.  .#####.  ....##.  #######  ..####.  #######  .#####.  .#####.
.#...#.  ..##...  #.....#  #.....#  ...#.#.  #......  .#.....  ......#  #.....#  #.....#
#.....#  .###...  ......#  ......#  ..#..#.  #......  #......  ......#  #.....#  #.....#
#.....#  ...#...  ......#  ......#  .#...#.  #.####.  #......  .....#.  #.....#  #.....#
#.....#  ...#...  .....#.  ..####.  #....#.  ##....#  #.####.  ....#..  .#####.  .######
#.....#  ...#...  ...##..  ......#  #######  ......#  ##....#  ....#..  #.....#  ......#
#.....#  ...#...  .##....  ......#  .....#.  ......#  #.....#  ...#...  #.....#  ......#
#.....#  ...#...  #......  ......#  .....#.  ......#  #.....#  ...#...  #.....#  ......#
.#...#.  ...#...  #......  #.....#  .....#.  #.....#  #.....#  ..#....  #.....#  .....#.
..###..  .#####.  #######  .#####.  .....#.  .#####.  .#####.  ..#....  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def digit_codes() -> np.ndarray:
    """The ten digits as printed, (10, 84): +1 where there is ink, -1 where there is none."""
    rows = [line.split() for line in _DIGITS.split("\n") if line]
    pictures = ["".join(row[digit] for row in rows) for digit in range(10)]
    return np.array([[1.0 if pixel == "#" else -1.0 for pixel in picture] for picture in pictures])


@dataclass(frozen=True, eq=False, repr=False)
class RBF(Layer):
    """Euclidean radial basis functions with fixed centres: how far the input is from each class's code.

        forward    A[i] = Σ_j (A_prev[j] - w[i, j])²
        backward   dA_prev[j] = 2 Σ_i dA[i] (A_prev[j] - w[i, j])

    The smallest output wins: it is a penalty, no score. The centres are not trained, so the layer has no parameters.

    Shapes: A_prev (n, m) · w (classes, n) · A (classes, m)

    Arguments:
        codes: w, one row of numbers for each class; ``"digits"`` are the ten digits as printed, 7×12 pixels of ±1.

    Raises:
        ParameterError: codes that are no table of numbers.
        ShapeError: an input that is not as long as a code.

    Source: LeCun et al. 1998, section II.B, equation 7 and figure 3.
    """

    codes: Any = "digits"

    class Cache(NamedTuple):
        """What the backward block reads."""

        A_prev: Array  # (n, m)

    def __post_init__(self):
        if isinstance(self.codes, str) and self.codes == "digits":
            return
        try:
            table = np.array(self.codes, dtype=np.float64)
        except (TypeError, ValueError):
            table = np.empty(0)
        if table.ndim != 2 or not table.size or not np.isfinite(table).all():
            raise ParameterError(
                "codes are a row of numbers for each class", where="RBF", expected='"digits", or (classes, n)'
            )
        set_field(self, "codes", tuple(map(tuple, table.tolist())))

    def centres(self) -> np.ndarray:
        """w (classes, n)."""
        return digit_codes() if isinstance(self.codes, str) else np.array(self.codes)

    def output_shape(self, input_shape):
        n = vector_length(input_shape, self)
        classes, width = self.centres().shape
        if n != width:
            raise ShapeError(
                "the input is not as long as the codes it is compared with",
                expected=(width,),
                got=input_shape,
                hint=f"a layer of {width} units before it",
            )
        return (classes,)

    def init(self, rng, input_shape, dtype=np.float32):
        return {}

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        w = self._centres(ops, A_prev)
        check_width(self, A_prev, w.shape[1])
        return ops.xp.square(A_prev - w[:, :, None]).sum(axis=1), RBF.Cache(A_prev)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        if not input_gradient:
            return None, {}
        w = self._centres(ops, dA)
        return 2.0 * (cache.A_prev * dA.sum(axis=0) - w.T @ dA), {}

    def _centres(self, ops, like):
        return ops.asarray(self.centres(), like.dtype)

    def equations(self, *, train=True):
        return {"A": "Σ_j (A_prev[j] - w[i, j])²", "dA_prev": "2 Σ_i dA[i] (A_prev[j] - w[i, j])"}

    def multiply_adds(self, input_shape):
        return math.prod(self.centres().shape)
