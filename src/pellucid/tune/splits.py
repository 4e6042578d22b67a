"""Several draws of the validation examples: what is chosen by few examples is chosen by luck."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from pellucid.errors import ParameterError
from pellucid.tasks import Task
from pellucid.training.split import split_indices

ENOUGH = 1_000  # validation examples by which one draw tells good settings from lucky ones
MOST = 5


def usual(task: Task) -> int:
    """How many draws are made where nobody says: up to five where there are few validation examples."""
    pool = _pool(task)
    if pool is None:
        return 1
    held_out = task.sizes["validation"]
    return max(1, min(MOST, -(-ENOUGH // held_out), len(pool[0]) // held_out))


def drawn(task: Task, count: int, seed: int) -> list[Task]:
    """The task, and the same with other validation examples: of the draws no two have an example in common.

    They are drawn from the training and validation examples. The test examples are those of the task, and so is the
    preprocessing, which was fitted to its training examples.

    Arguments:
        task: the first of them.
        count: how many.
        seed: of the draws.

    Raises:
        ParameterError: more than there are examples for, or several of examples that are no arrays in memory.
    """
    tasks = [task]
    if count == 1:
        return tasks
    pool, size = _pool(task), task.sizes["validation"]
    if pool is None or count * size > len(pool[0]):
        raise ParameterError(
            "these examples cannot be drawn so often",
            where="splits",
            expected="1, or arrays in memory" if pool is None else f"at most {len(pool[0]) // size}",
            got=count,
        )
    x, y = pool
    everything, rest = np.arange(len(x)), np.arange(len(x) - size)  # the first draw's are at the end
    for number in range(1, count):
        if len(rest) > size:
            labels = y[rest] if task.task == "classification" else None
            rng = np.random.default_rng([seed, number])
            parts = split_indices(len(rest), validation=size, test=0, labels=labels, seed=rng)
            held_out, rest = rest[parts.validation], rest[parts.train]
        else:
            held_out = rest
        rows = {"train": np.setdiff1d(everything, held_out), "validation": held_out}
        tasks.append(_with(task, x, y, rows))
    return tasks


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


def _pool(task: Task) -> tuple[np.ndarray, np.ndarray] | None:
    """x and y of the training and validation examples together; None where they are no arrays."""
    parts = [task.arrays(part) for part in ("train", "validation")]
    if not all(isinstance(each, np.ndarray) for part in parts for each in part):
        return None
    (x, y), (held_x, held_y) = parts
    return np.concatenate([x, held_x]), np.concatenate([y, held_y])


def _with(task: Task, x: np.ndarray, y: np.ndarray, rows: dict[str, np.ndarray]) -> Task:
    other = copy.copy(task)
    arrays = {part: (x[chosen], y[chosen]) for part, chosen in rows.items()}
    other.arrays = arrays.__getitem__  # type: ignore[method-assign, assignment]
    return other
