"""Several draws of the validation examples: what is chosen by few examples is chosen by luck."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from pellucid.errors import ParameterError
from pellucid.tasks import Task

Pool = tuple[np.ndarray, np.ndarray]
ENOUGH = 1_000  # validations of one trial by which good settings are told from lucky ones
MOST = 10
LEAST = 3  # fresh draws, by which a standard error can be told


def usual(task: Task) -> int:
    """How many draws are made where nobody says: to 1,000 validations, or until every example had its turn."""
    pool = _pool(task)
    held_out = task.sizes["validation"]
    return 1 if pool is None else max(1, min(MOST, -(-ENOUGH // held_out), _folds(len(pool[0]), held_out)))


def drawn(task: Task, count: int, seed: int) -> list[Task]:
    """The task, and the same with other validation examples: of the draws no two have an example in common.

    They are drawn from the training and validation examples, so that with as many draws as there are folds each is
    validated once. The test examples are those of the task, and so is the preprocessing, which was fitted to its
    training examples.

    Arguments:
        task: the first of them.
        count: how many.
        seed: of the draws.

    Raises:
        ParameterError: more than there are examples for, or several of examples that are no arrays in memory.
    """
    if count == 1:
        return [task]
    pool, size = _pool(task), task.sizes["validation"]
    if pool is None or count > _folds(len(pool[0]), size):
        raise ParameterError(
            "these examples cannot be drawn so often",
            where="splits",
            expected="1, or arrays in memory" if pool is None else f"at most {_folds(len(pool[0]), size)}",
            got=count,
        )
    rest = np.arange(len(pool[0]) - size)  # the first draw's are at the end
    others = _folded(task, pool, rest, _folds(len(pool[0]), size) - 1, [seed, 1])
    return [task, *others[: count - 1]]


def fresh(task: Task, seed: int) -> list[Task]:
    """Draws that the search has not seen: to 2,000 validations, but three at least and ten at most.

    When every training and validation example had its turn they are divided anew. Where the examples are no arrays in
    memory, these are the task itself, three times, for three seeds.

    Arguments:
        task: as it was searched.
        seed: of the draws.
    """
    pool, size = _pool(task), task.sizes["validation"]
    if pool is None:
        return [task] * LEAST
    count, folds = len(pool[0]), max(2, _folds(len(pool[0]), size))
    most = max(LEAST, min(MOST, -(-2 * ENOUGH // size)))
    draws: list[Task] = []
    while len(draws) < most:
        draws += _folded(task, pool, np.arange(count), folds, [seed, 2 + len(draws)])
    return draws[:most]


def _folds(count: int, size: int) -> int:
    """In how many parts of about this size examples are divided."""
    return max(1, round(count / size))


def _folded(task: Task, pool: Pool, rest: np.ndarray, folds: int, seed: list[int]) -> list[Task]:
    """The task with each of so many parts of the ``rest`` as validation examples, and all others to train on.

    The classes are dealt out evenly. There are as many to train on as the task has, so that batches are of the same
    sizes too: where the parts come out otherwise, a few examples are left over.
    """
    x, y = pool
    size, count = task.sizes["validation"], task.sizes["train"]
    order = np.random.default_rng(seed).permutation(rest)
    if task.task == "classification":
        order = order[np.argsort(y[order], kind="stable")]
    parts = [np.sort(order[fold::folds][:size]) for fold in range(folds)]
    others = [np.setdiff1d(np.arange(len(x)), part)[:count] for part in parts]
    return [_with(task, x, y, {"train": more, "validation": part}) for more, part in zip(others, parts, strict=True)]


def judged(curves: Sequence[Sequence[float]], *, patient: bool) -> list[float]:
    """The loss of each draw, of an epoch that the draw itself had no part in choosing.

    A training that stops early goes back to the epoch that its validation examples like best, and their loss there
    flatters it. So the epoch is taken at which the mean loss of the other draws is lowest. Of a single draw, its own.

    Arguments:
        curves: validation loss by epoch, of each draw.
        patient: whether training goes back to the best epoch; where not, the last one counts.
    """
    if not patient:
        return [float(curve[-1]) for curve in curves]
    if len(curves) == 1:
        return [float(min(curves[0]))]
    table = np.array([curve[: min(map(len, curves))] for curve in curves])  # (draws, epochs)
    others = table.sum(axis=0) - table
    return [float(curve[epoch]) for curve, epoch in zip(table, others.argmin(axis=1), strict=True)]


def _pool(task: Task) -> Pool | None:
    """x and y of the training and validation examples together; None where they are no arrays."""
    parts = [task.arrays(part) for part in ("train", "validation")]
    if not all(isinstance(each, np.ndarray) for part in parts for each in part):
        return None
    (x, y), (held_x, held_y) = parts
    return np.concatenate([x, held_x]), np.concatenate([y, held_y])


def _with(task: Task, x: np.ndarray, y: np.ndarray, rows: dict[str, np.ndarray]) -> Task:
    other = copy.copy(task)
    # Copied only while it is trained.
    other.arrays = lambda part: (x[rows[part]], y[rows[part]])  # type: ignore[method-assign]
    return other
