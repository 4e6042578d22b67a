"""Errors that say where, what was expected, what came, and the likely mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PellucidError(Exception):
    """Base of every error pellucid raises on purpose.

    Arguments:
        problem: one sentence, what is wrong.
        where: the place, such as ``"layer 2 (dense_2)"`` or ``"data.csv, line 17"``.
        expected: what would have been right.
        got: what came instead.
        hint: the likely mend.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        self.problem, self.where, self.expected, self.got, self.hint = problem, where, expected, got, hint
        lines = [f"{where}: {problem}" if where else problem]
        lines += [
            f"  {label:<9} {value}"
            for label, value in (("expected:", expected), ("got:", got), ("hint:", hint))
            if value is not None
        ]
        super().__init__("\n".join(lines))

    def __reduce__(self):  # keyword arguments survive pickling between processes
        return (_rebuild, (type(self), self.problem, self.where, self.expected, self.got, self.hint))


def _rebuild(cls, problem, where, expected, got, hint):
    return cls(problem, where=where, expected=expected, got=got, hint=hint)


class ShapeError(PellucidError, ValueError):
    """An array or a layer's input has a shape that cannot be used."""


class ParameterError(PellucidError, ValueError):
    """A hyperparameter has a value or a name that cannot be used."""


class DataError(PellucidError, ValueError):
    """Data that cannot be trained on: missing, ragged, not finite, out of range."""


class EngineError(PellucidError, RuntimeError):
    """An engine that is not there or cannot do what was asked."""


class CheckpointError(PellucidError, RuntimeError):
    """A saved network or checkpoint that is corrupt, truncated or of another network."""


class TrainingError(PellucidError, RuntimeError):
    """Training that cannot go on, such as a cost that is no longer finite."""


class VaultError(PellucidError, RuntimeError):
    """A second look at the test set that was not asked for by name."""


def unknown(kind: str, name: object, known: Iterable[str], *, where: str | None = None) -> ParameterError:
    """The error for a name nobody knows: lists the known names, the nearest first in the hint."""
    known = sorted(known)
    by_lower = {each.lower(): each for each in known}
    nearest = [by_lower[each] for each in difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else None
    return ParameterError(
        f"unknown {kind} {name!r}", where=where, expected=f"one of {', '.join(known)}", got=repr(name), hint=hint
    )


def counted(number: int, one: str, many: str) -> str:
    """How many, with the words that go with it: ``1 value is``, ``1,200 values are``."""
    return f"{number:,} {one if number == 1 else many}"


def need(module: str, *, extra: str):
    """Import an optional dependency, or say which extra brings it.

    Raises:
        EngineError: the module is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise EngineError(f"{module} is not installed", hint=f"pip install 'pellucid[{extra}]'") from missing
