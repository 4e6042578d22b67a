"""Arrays and tables as plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def matrix(A: np.ndarray, precision: int = 4, max_items: int = 6, *, examples: bool = True) -> list[str]:
    """An array as the lines of a bracketed matrix, the middle of long rows and columns left out.

    Arguments:
        A: any shape. Of more than two axes one slice is shown, and said which.
        precision: digits after the point.
        max_items: rows and columns shown.
        examples: the last axis is the example, so images show one example's plane, not one pixel's batch.
    """
    note = ""
    if A.ndim > 2:
        kept = 1 if examples else 0
        place = (0,) * (A.ndim - 2 - kept) + (slice(None), slice(None)) + (0,) * kept
        note = f"   [{', '.join(':' if isinstance(i, slice) else str(i) for i in place)}] of {A.shape}"
        A = A[place]
    rows = np.atleast_2d(A)
    down, across = _shown(rows.shape[0], max_items), _shown(rows.shape[1], max_items)
    write = _writer(rows[np.ix_([i for i in down if i is not None], [j for j in across if j is not None])], precision)
    cells = [[_left_out(i, j) or write(rows[i, j]) for j in across] for i in down]
    if not cells or not cells[0]:
        return [f"[ ]{note}"]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    if len(lines) == 1:
        return [f"[ {lines[0]} ]{note}"]
    inner = [f"⎢ {line} ⎥" for line in lines[1:-1]]
    return [f"⎡ {lines[0]} ⎤{note}", *inner, f"⎣ {lines[-1]} ⎦"]


def _left_out(i: int | None, j: int | None) -> str:
    return "⋱" if i is None and j is None else "⋮" if i is None else "…" if j is None else ""


def _shown(n: int, max_items: int) -> list[int | None]:
    """Which of n indices are shown; None stands for those left out."""
    if n <= max_items:
        return list(range(n))
    last = max_items // 2
    return [*range(max_items - last), None, *range(n - last, n)]


def _writer(A: np.ndarray, precision: int) -> Any:
    """How the numbers of ``A`` are written: whole where all are, else with a point, or an exponent where needed."""
    if np.isfinite(A).all() and (np.rint(A) == A).all() and (np.abs(A) < 1e6).all():
        return lambda value: str(int(value))
    finite = np.abs(A[np.isfinite(A) & (A != 0)])
    fixed = not finite.size or (10.0 ** (2 - precision) <= finite.max() < 1e5)
    return lambda value: "0" if value == 0 else f"{value:.{precision}f}" if fixed else f"{value:.{precision - 1}e}"


def number(value: float | None, precision: int = 3) -> str:
    """One number with ``precision`` significant digits; ``–`` for None."""
    return "–" if value is None else f"{value:.{precision}g}"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,), indent: str = "  "
) -> list[str]:
    """Rows under their heads, columns aligned.

    Arguments:
        heads: one for each column.
        rows: cells as text.
        left: the columns aligned left; the others are numbers.
        indent: what every line begins with.
    """
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return (indent + "  ".join(aligned)).rstrip()

    return [line(heads), indent + "─" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)]


def headline(title: str, width: int = 100) -> str:
    """A title with a line to its right."""
    return f"{title} {'─' * max(0, width - len(title) - 1)}"


def byte_size(n: int) -> str:
    """Bytes, in the unit that gives one to three digits before the point."""
    if n < 1024:
        return f"{n} B"
    power = min(int(math.log2(n) // 10), 4)
    return f"{n / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
