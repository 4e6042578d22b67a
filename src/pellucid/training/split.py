"""Training, validation and test examples: drawn once, reproducibly; the test set is kept in a vault."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.errors import DataError, ParameterError, VaultError
from pellucid.files import atomic_write, locked, to_json

if TYPE_CHECKING:
    from pellucid.runs import Run


class Split(NamedTuple):
    """Indices of the examples of each part, ascending; together every example exactly once."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_indices(
    m: int,
    *,
    validation: float | np.number = 0.1,
    test: float | np.number = 0.1,
    labels: Any = None,
    groups: Any = None,
    seed: int | np.random.Generator = 0,
    classes: Sequence[str] | None = None,
) -> Split:
    """Draw the training, validation and test examples.

    With ``labels`` the split is stratified: of n_c examples of class c, part p of size s_p receives n_c·s_p/m, rounded
    up or down, while every part keeps its exact size. A class too rare for that to leave it a training example keeps
    one there, and the rule holds for the rest.

    Arguments:
        m: number of examples.
        validation: share of the examples in (0, 1), rounded to at least one, or their number; 0 for none.
        test: the same, for the test set.
        labels: the class of each example (m,), for a stratified split.
        groups: the group of each example (m,), such as the speaker; groups stay whole, and shares and numbers count
            groups.
        seed: of the NumPy generator that draws, or the generator itself.
        classes: what the labels 0, 1, … are called in messages.

    Returns:
        The three index arrays.

    Raises:
        ParameterError: a share or number that cannot be used.
        DataError: too few examples for these sizes, or more rare classes than training examples.
    """
    if labels is not None and groups is not None:
        raise ParameterError(
            "a split is by labels or by groups", where="split", got="both", hint="leave one of them out"
        )
    rng = np.random.default_rng(seed)
    if groups is not None:
        names, member_of = np.unique(_column(groups, m, "groups"), return_inverse=True)
        parts = split_indices(len(names), validation=validation, test=test, seed=rng)
        return Split(*(np.flatnonzero(np.isin(member_of, part)) for part in parts))
    held_out = [_count("validation", validation, m), _count("test", test, m)]
    sizes = np.array([m - sum(held_out), *held_out])
    if sizes[0] < 1:
        raise DataError(
            f"nothing is left to train on: {m} examples, validation {held_out[0]}, test {held_out[1]}",
            where="split",
            expected="at least 1 training example",
            got=f"together {validation + test:g} of the data"
            if isinstance(validation, float) and isinstance(test, float)
            else f"{sizes[0]}",
            hint="hold out fewer examples",
        )
    if labels is None:
        strata, table = np.zeros(m, dtype=np.intp), sizes[None, :]
    else:
        names, strata = np.unique(_column(labels, m, "labels"), return_inverse=True)
        table = _stratified(np.bincount(strata), sizes, names if classes is None else np.array(classes)[names])
    shuffled = rng.permutation(m)
    by_stratum = shuffled[np.argsort(strata[shuffled], kind="stable")]
    part_of = np.repeat(np.tile(np.arange(3), len(table)), table.ravel())
    return Split(*(np.sort(by_stratum[part_of == part]) for part in range(3)))


class TestVault:
    """Keeps the test set until the one look at it.

    The openings are recorded in the run's ``vault.json``, so that they survive the process, and of two processes only
    one gets in. Without a run they are remembered by the vault itself.

    Arguments:
        rows: what is kept, such as the test indices or a pair (x, y).
        run: the run whose test set this is.
    """

    __test__ = False  # pytest would take the name for a test class

    def __init__(self, rows: Any, run: Run | None = None) -> None:
        self._rows = rows
        self._run = run
        self._remembered: list[dict[str, Any]] = []
        self._mine: int | None = None

    @property
    def openings(self) -> list[dict[str, Any]]:
        """Every opening so far: ``{"when", "reason", "repeat", "metrics"}``.

        Raises:
            CheckpointError: the record is damaged.
        """
        return self._remembered if self._run is None else self._run.openings

    def open(self, *, reason: str = "evaluate", force: bool = False) -> Any:
        """The rows, once.

        Arguments:
            reason: what they are wanted for; recorded.
            force: open once more although they were seen; recorded as a repeat.

        Returns:
            The rows given to the vault.

        Raises:
            VaultError: they were seen before.
        """

        def add(openings: list[dict[str, Any]]) -> None:
            if openings and not force:
                raise _seen(openings, self._run)
            when = datetime.now(UTC).isoformat(timespec="seconds")
            openings.append({"when": when, "reason": reason, "repeat": bool(openings), "metrics": None})
            self._mine = len(openings) - 1

        self._change(add)
        return self._rows

    def record(self, metrics: dict[str, Any]) -> None:
        """Write down what was measured in this vault's latest opening.

        Raises:
            VaultError: this vault was not opened.
        """
        if self._mine is None:
            raise VaultError("nothing can have been measured: the test set is still closed", hint="open() it first")

        def note(openings: list[dict[str, Any]]) -> None:
            openings[self._mine]["metrics"] = metrics  # type: ignore[index]

        self._change(note)

    def _change(self, change: Any) -> None:
        if self._run is None:
            change(self._remembered)
            return
        folder = self._run.path
        with locked(folder / "config.toml"):  # never replaced, so its lock holds while vault.json is
            openings = self._run.openings
            change(openings)
            atomic_write(folder / "vault.json", to_json({"openings": openings}, indent=2) + "\n")


def _seen(openings: list[dict[str, Any]], run: Run | None) -> VaultError:
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    last = openings[-1]
    measured = ", ".join(f"{name} {value:.4g}" for name, value in (last["metrics"] or {}).items()) or "nothing recorded"
    return VaultError(
        f"the test set was already opened {times}, last on {last['when']} for {last['reason']!r}",
        where=f"run {run.name}" if run else None,
        expected="one opening per run",
        got=f"measured then: {measured}",
        hint="force=True opens it once more and records the repeat",
    )


def _count(name: str, size: float | np.number, m: int) -> int:
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 0:
        return int(size)
    if isinstance(size, (float, np.floating)) and 0 <= size < 1:
        return max(1, round(float(size) * m)) if size else 0
    raise ParameterError(
        "not a size", where=f"split, {name}", expected="a share in [0, 1) or a number of examples", got=repr(size)
    )


def _column(values: Any, m: int, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (m,):
        raise DataError(f"{name} must hold one value for each example", where="split", expected=(m,), got=values.shape)
    return values


def _stratified(counts: np.ndarray, sizes: np.ndarray, names: np.ndarray) -> np.ndarray:
    """How many of each class (row) go to each part (column), with the given row and column sums."""
    rare = counts * sizes[0] < counts.sum()
    if rare.sum() > sizes[0]:
        listed = ", ".join(f"{name} ({count})" for name, count in zip(names[rare], counts[rare], strict=True))
        raise DataError(
            "classes with too few examples for a training set this small",
            where="split",
            expected=f"room for one training example of each: {rare.sum()}",
            got=f"{sizes[0]} training examples; class (examples): {listed}",
            hint="validation=0 and test=0 hold none out; or join these classes",
        )
    kept = np.outer(rare, [1, 0, 0])
    return kept + _controlled_rounding(counts - rare, sizes - kept.sum(axis=0))


def _controlled_rounding(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whole numbers with the given row and column sums, each rows[i]·columns[j]/total rounded up or down.

    Source:
        Cox, "A constructive procedure for unbiased controlled rounding", JASA 82 (1987): move the fractions around a
        closed loop of fractional cells until one becomes whole, so that the sums stay.
    """
    total = max(int(rows.sum()), 1)
    whole, fraction = np.divmod(np.outer(rows, columns), total)  # in units of 1/total, hence exact
    while (fraction % total).any():
        loop = _loop(fraction % total > 0)
        up, down = loop > 0, loop < 0
        fraction += loop * min((total - fraction[up]).min(), fraction[down].min())
    return whole + fraction // total


def _loop(fractional: np.ndarray) -> np.ndarray:
    """+1 and -1 around a closed loop of the given cells, 0 elsewhere: every row and column sums to 0."""
    row, column = -1, int(np.argmax(fractional.any(axis=0)))
    steps: list[tuple[int, int, int]] = []
    columns: list[int] = []
    while column not in columns:
        columns.append(column)
        row = next(int(each) for each in np.flatnonzero(fractional[:, column]) if each != row)
        column = next(int(each) for each in np.flatnonzero(fractional[row]) if each != column)
        steps.append((row, columns[-1], column))
    loop = np.zeros(fractional.shape, dtype=np.int64)
    for row, source, target in steps[columns.index(column) :]:
        loop[row, source] += 1
        loop[row, target] -= 1
    return loop
