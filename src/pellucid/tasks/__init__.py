"""Tasks: what can be learned from data, found by what the data are. A module here with a ``TASK`` is a member."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from pellucid import zoo
from pellucid.errors import unknown
from pellucid.network.base import Network
from pellucid.tasks.base import Finding, Said, Task

__all__ = ["Finding", "Said", "Task", "find", "known", "made", "of"]

_ANSWERS = ("classification", "regression")  # what examples can be learned for; every other task has a name of its own


@cache
def known() -> dict[str, type[Task]]:
    """Every task by its kind."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    members = [module.TASK for module in modules if hasattr(module, "TASK")]
    return {member.kind: member for member in members}


def find(source: str, asked: str | None = None, net: str | None = None) -> type[Task]:
    """The task that is meant by a file, a folder or a name of the catalog.

    Arguments:
        source: what the user named.
        asked: the kind, where the user said it; ``"classification"`` and ``"regression"`` are those of examples.
        net: the network, where the user said it: some are made for one task.

    Raises:
        ParameterError: an unknown kind.
    """
    tasks = known()
    if asked in _ANSWERS:
        return tasks["examples"]
    if asked is not None:
        if asked not in tasks:
            raise unknown("task", asked, [*_ANSWERS, *(each for each in tasks if each != "examples")], where="--task")
        return tasks[asked]
    if net in zoo.entries() and (made_for := zoo.find(net).task):
        return tasks[made_for]
    return next((task for task in tasks.values() if task.takes(source)), tasks["examples"])


def made(described: Mapping[str, Any]) -> Task:
    """The task that a run's config describes, its data read and split.

    Raises:
        ParameterError: an unknown kind, an option that cannot be used.
        DataError: data that cannot be used, or are not there.
    """
    return find("", described.get("task", {}).get("kind", "examples"))(described)


def of(net: Network) -> type[Task]:
    """The task that a saved network was trained for, by its preprocessing."""
    said = (net.preprocessing or {}).get("task")
    return find("", said["kind"] if isinstance(said, Mapping) else "examples")
