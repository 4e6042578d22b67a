"""Systematic tuning of hyperparameters, on Optuna: ``pl.tune("digits")``, or ``pl.tune(x, y)``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from pellucid.tune.space import Space
from pellucid.tune.study import Confirmation, Study, Trial
from pellucid.tune.tuning import tune

__all__ = ["Confirmation", "Space", "Study", "Trial", "tune"]


class _Room(ModuleType):
    """The room and its one function have the same name: as ``pl.tune`` it is both."""

    def __call__(self, *arguments: Any, **options: Any) -> Study:
        return tune(*arguments, **options)


sys.modules[__name__].__class__ = _Room
