"""Several draws of the validation examples: what is chosen by few examples is chosen by luck."""

from __future__ import annotations

import copy

import numpy as np

from pellucid.errors import ParameterError
from pellucid.tasks import Task
from pellucid.training.split import split_indices

ENOUGH = 1_000  # validation examples by which one draw tells good settings from lucky ones
MOST = 5


def usual(task: Task) -> int:
    """How many draws are made where nobody says: five where there are few validation examples, fewer where more."""
    if _pool(task) is None:
        return 1
    return min(MOST, max(1, -(-ENOUGH // task.sizes["validation"])))


def drawn(task: Task, count: int, seed: int) -> list[Task]:
    """The task, and the same with other validation examples, drawn from its training and validation examples.

    The test examples are those of the task, and so is the preprocessing, which was fitted to its training examples.

    Arguments:
        task: the first of them.
        count: how many.
        seed: of the draws.

    Raises:
        ParameterError: several, of examples that do not fit into memory or are no arrays.
    """
    tasks = [task]
    if count == 1:
        return tasks
    pool = _pool(task)
    if pool is None:
        raise ParameterError(
            "these examples cannot be drawn again",
            where="splits",
            expected="1, or arrays that fit into memory",
            got=count,
        )
    x, y = pool
    labels = y if task.task == "classification" else None
    for number in range(1, count):
        rng = np.random.default_rng([seed, number])
        parts = split_indices(len(x), validation=task.sizes["validation"], test=0, labels=labels, seed=rng)
        tasks.append(_with(task, x, y, {"train": parts.train, "validation": parts.validation}))
    return tasks


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
