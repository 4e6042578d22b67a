"""Engines: where the primitives run. `get` finds one by name; a module placed in this folder is an engine."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pellucid.engines.base import Array, Ops
from pellucid.errors import EngineError, unknown

__all__ = ["Array", "Ops", "available", "get", "known"]


@cache
def known() -> dict[str, str | None]:
    """Every engine of this installation with the reason why it cannot run here, or None; the preferred first."""
    modules = [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if module.name not in ("base", "cells")  # beside the engines: their contract, and the steps of the reference
    ]
    modules.sort(key=lambda module: -module.PREFERENCE)
    return {module.__name__.rpartition(".")[2]: module.unavailable() for module in modules}


def available() -> list[str]:
    """The engines that can run here, the preferred first."""
    return [name for name, reason in known().items() if reason is None]


@cache
def get(name: str = "auto") -> Ops:
    """The engine called ``name``; ``"auto"`` is the preferred one of those that can run here.

    Raises:
        ParameterError: no engine has that name.
        EngineError: the engine cannot run here; the message says why.
    """
    if name == "auto":
        return get(available()[0])
    if name not in known():
        raise unknown("engine", name, ["auto", *known()])
    reason = known()[name]
    if reason is not None:
        raise EngineError(f"the {name} engine cannot run here", got=reason, hint=f"available: {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}").create()
