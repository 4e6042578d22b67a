"""Examples of different lengths: what goes in one after the other, and the padded arrays that come out with a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pellucid.errors import DataError, ShapeError


class Sequences:
    """Sequences of different lengths, one for each example; what `fit`, `predict` and `evaluate` take as x or y.

        x = pl.Sequences([np.zeros((7, 12)), np.zeros((29, 12))])         # T_i steps of 12 numbers each
        y = pl.Sequences([[0, 1, 1], [2]])                                # a class for each step

    In a batch the shorter ones are padded behind, and a mask keeps the padding from changing any result.

    Arguments:
        examples: an array (T_i, …) or a list for each example; the steps of all have one shape.

    Raises:
        DataError: an example without a step, or no numbers.
        ShapeError: steps of different shapes.

    Attributes:
        values: (Σ T_i, …), the steps of all the examples one after the other.
        lengths: (m,) T_i.
    """

    def __init__(self, examples: Sequence[Any]) -> None:
        arrays = [_as_steps(example, index) for index, example in enumerate(examples)]
        shapes = [array.shape[1:] for array in arrays]
        for index, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise ShapeError(
                    "the steps of the sequences have different shapes",
                    where=f"sequence {index}",
                    expected=f"(T, {', '.join(map(str, shapes[0]))})" if shapes[0] else "(T,)",
                    got=arrays[index].shape,
                )
        lengths = np.array([len(array) for array in arrays], np.int64)
        self._set(np.concatenate(arrays) if arrays else np.zeros((0,)), lengths)

    @classmethod
    def joined(cls, values: np.ndarray, lengths: np.ndarray) -> Sequences:
        """The sequences whose steps lie one after the other in ``values`` (Σ T_i, …)."""
        made = cls.__new__(cls)
        made._set(values, np.asarray(lengths, np.int64))
        if made.lengths.sum() != len(values):
            raise ShapeError("the lengths do not add up", expected=f"{len(values)} steps", got=int(made.lengths.sum()))
        if (made.lengths < 1).any():
            raise _empty(f"sequence {int(np.argmax(made.lengths < 1))}")
        return made

    @classmethod
    def padded(cls, array: Any, lengths: Any) -> Sequences:
        """The sequences of a padded array.

        Arguments:
            array: (m, T, …).
            lengths: (m,) how many of the T steps of each example count, from the first on; 1 to T.
        """
        array, lengths = np.asarray(array), np.asarray(lengths)
        if array.ndim < 2 or lengths.shape != array.shape[:1]:
            raise ShapeError(
                "one length for each example", expected=f"({array.shape[0] if array.ndim else 'm'},)", got=lengths.shape
            )
        wrong = np.flatnonzero((lengths < 1) | (lengths > array.shape[1]) | (lengths != np.floor(lengths)))
        if wrong.size:
            raise DataError(
                "no length of a sequence",
                where=f"example {wrong[0]}",
                expected=f"1 … {array.shape[1]}",
                got=lengths[wrong[0]],
            )
        inside = np.arange(array.shape[1]) < lengths[:, None]
        return cls.joined(array[inside], lengths)

    def _set(self, values: np.ndarray, lengths: np.ndarray) -> None:
        self.values, self.lengths = values, lengths
        self._starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if len(lengths) else lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        """One sequence (T_i, …) by its number; some of them, as `Sequences`, by a slice, numbers or a mask."""
        if isinstance(index, (int, np.integer)):
            index = range(len(self))[index]
            return self.values[self._starts[index] : self._starts[index] + self.lengths[index]]
        return self.take(np.arange(len(self))[index])

    def __repr__(self) -> str:
        if not len(self):
            return "Sequences([])"
        step = f" of steps {self.values.shape[1:]}" if self.values.ndim > 1 else ""
        return f"<{len(self):,} sequences{step}, {self.lengths.min()} to {self.lengths.max()} long>"

    @property
    def dtype(self) -> np.dtype:
        """The type of the values."""
        return self.values.dtype

    def take(self, rows: np.ndarray) -> Sequences:
        """The sequences at ``rows``, in this order."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Sequences.joined(self.values[np.repeat(self._starts[rows], lengths) + within], lengths)

    def replaced(self, values: np.ndarray) -> Sequences:
        """Sequences of the same lengths with other values (Σ T_i, …)."""
        return Sequences.joined(values, self.lengths)

    def batch(self, rows: np.ndarray, *, steps: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """The sequences at ``rows`` with the examples last: (T, …, k) padded by zeros, and the mask (T, k).

        Arguments:
            rows: (k,).
            steps: T, at least the longest of these; None is the longest.

        Returns:
            the mask is None where all have this length.
        """
        lengths = self.lengths[rows]
        t = np.arange(lengths.max() if steps is None else steps)[:, None]
        mask = t < lengths
        values = self.values[np.where(mask, self._starts[rows] + t, 0)]
        if not mask.all():
            values[~mask] = 0
        else:
            mask = None
        return np.ascontiguousarray(np.moveaxis(values, 1, -1)), mask


def fits(got: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    """Whether a shape is the one asked for, in which None stands for any number of steps from 1 on."""
    return len(got) == len(shape) and all(
        n == wanted or (wanted is None and n > 0) for n, wanted in zip(got, shape, strict=True)
    )


def written(*axes: Any) -> str:
    """A shape as a message shows it: ``(T, 12, m)`` with T for None."""
    return f"({', '.join('T' if n is None else str(n) for n in axes)}{',' if len(axes) == 1 else ''})"


def steps_as_examples(xp: Any, A: Any, mask: Any = None) -> Any:
    """(T, …, m) as (…, T m): every step an example of its own; only those at which the mask (T, m) is True."""
    A = xp.moveaxis(A, 0, -2)
    return A.reshape(*A.shape[:-2], -1) if mask is None else A[..., mask]


def examples_as_steps(xp: Any, A: Any, T: int, mask: Any = None) -> Any:
    """(…, T m) as (T, …, m) again, the way back from `steps_as_examples`; zeros where the mask is False."""
    if mask is not None:
        place = xp.cumsum(mask.reshape(-1)).reshape(mask.shape) - 1
        with_zero = xp.concatenate([A, xp.zeros((*A.shape[:-1], 1), A.dtype)], axis=-1)
        return xp.moveaxis(with_zero[..., xp.where(mask, place, -1)], -2, 0)
    return xp.moveaxis(A.reshape(*A.shape[:-1], T, A.shape[-1] // T), -2, 0)


def check_vectors(shape: tuple[int | None, ...], where: str) -> None:
    """Refuse steps (T,) of single values, for a layer that goes over the last axis: it would mix the steps.

    Raises:
        ShapeError: there is no axis but that of the steps.
    """
    if len(shape) == 1:
        raise ShapeError(
            "the steps are single values, and it would mix them: padding would count as steps",
            where=where,
            expected="steps that are vectors, (T, n)",
            got=written(*shape),
        )


def _empty(where: str) -> DataError:
    return DataError(
        "a sequence of length 0",
        where=where,
        expected="1 step or more",
        hint="leave the example out, or give it a step that says that there is nothing",
    )


def _as_steps(example: Any, index: int) -> np.ndarray:
    where = f"sequence {index}"
    try:
        array = np.asarray(example)
    except ValueError as ragged:
        raise DataError("not a rectangular array", where=where, got=str(ragged)) from None
    if array.ndim == 0:
        raise ShapeError("a sequence is an array of steps", where=where, expected="(T, …)", got="a single value")
    if not len(array):
        raise _empty(where)
    if array.dtype.kind not in "fiub":
        hint = "text becomes numbers by pellucid.data.text.Vocabulary" if array.dtype.kind in "US" else None
        raise DataError("not numbers", where=where, expected="numbers", got=f"dtype {array.dtype}", hint=hint)
    return array
