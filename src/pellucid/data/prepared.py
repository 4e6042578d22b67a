"""Some rows of a data set as a network takes them: fetched and prepared as they are asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pellucid.data.dataset import Dataset
from pellucid.data.preprocessor import Preprocessor

MEMORY_LIMIT = 2**30
"""Bytes of prepared inputs that are kept in memory; more are prepared batch by batch, anew in every epoch."""

_AT_ONCE = 2**22  # values prepared at a time, so that float64 on the way takes little memory


class Prepared:
    """Rows of a data set behind its preprocessor; what `fit`, `evaluate` and `predict` take as ``x``.

    Arguments:
        dataset: the raw examples.
        preprocessor: makes inputs and targets of them.
        rows: (k,) which of the examples, in this order; all when None.
    """

    def __init__(self, dataset: Dataset, preprocessor: Preprocessor, rows: np.ndarray | None = None) -> None:
        self.dataset, self.preprocessor = dataset, preprocessor
        self.rows = np.arange(len(dataset)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> tuple[Any, np.ndarray | None]:
        """x (k, …) float32, `Sequences` where lengths differ; y (k,) class indices or (k, targets) values, or None."""
        x, y = self.dataset.take(self.rows[indices])
        return self.preprocessor.x(x), None if y is None else self.preprocessor.y(y)

    def arrays(self, limit: int = MEMORY_LIMIT) -> tuple[Any, np.ndarray | None]:
        """x and y as arrays where x takes at most ``limit`` bytes; else these rows themselves, and None."""
        shape = self.preprocessor.input_shape
        if None in shape:
            small = 4 * len(self) * self.dataset.numbers <= limit
            return self.take(np.arange(len(self))) if small else (self, None)
        width = max(1, math.prod(shape))
        if 4 * len(self) * width > limit:
            return self, None
        x = np.empty((len(self), *shape), np.float32)
        targets = []
        step = max(1, _AT_ONCE // width)
        for start in range(0, len(self), step):
            part = np.arange(start, min(start + step, len(self)))
            x[part], y = self.take(part)
            if y is not None:
                targets.append(y)
        return x, np.concatenate(targets) if targets else None
