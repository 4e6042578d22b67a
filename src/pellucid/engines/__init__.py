"""Engines: where the primitives run. `get` finds one by name; a module placed in this folder is an engine."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import warnings
from functools import cache
from typing import Any

from pellucid.engines.base import Array, Ops
from pellucid.errors import EngineError, ParameterError, unknown

__all__ = ["Array", "Ops", "about", "available", "get", "known"]


@cache
def known() -> dict[str, str | None]:
    """Every engine of this installation with the reason why it cannot run here, or None; the preferred first."""
    modules = [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if module.name not in ("base", "cells", "mesh")  # beside the engines: their contract, steps, devices
    ]
    modules.sort(key=lambda module: -module.PREFERENCE)
    return {module.__name__.rpartition(".")[2]: module.unavailable() for module in modules}


def about(name: str) -> str:
    """What an engine that runs here says of itself on this machine, where it says something."""
    return getattr(_module(name), "about", str)()


def available() -> list[str]:
    """The engines that can run here, the preferred first."""
    return [name for name, reason in known().items() if reason is None]


def get(name: str = "auto", precision: str | None = None) -> Ops:
    """The engine called ``name``; ``"auto"`` is the preferred one of those that can run here.

    Arguments:
        name: of the engine.
        precision: ``"bfloat16"`` for products of operands rounded to bfloat16, or on the jax engine
            ``"tensorfloat32"``, see `Ops`; None for the arrays' own.

    Raises:
        ParameterError: no engine has that name, or this one does not have that precision.
        EngineError: the engine cannot run here; the message says why.
    """
    if name == "auto":
        name = available()[0]
        for preferred, reason in itertools.takewhile(lambda each: each[0] != name, known().items()):
            if getattr(_module(preferred), "compiled", bool)():  # it was meant to run
                warnings.warn(f"{name} is taken, as the {preferred} engine cannot run here: {reason}", stacklevel=3)
    if name not in known():
        raise unknown("engine", name, ["auto", *known()])
    reason = known()[name]
    if reason is not None:
        raise EngineError(f"the {name} engine cannot run here", got=reason, hint=f"available: {', '.join(available())}")
    return _made(name, precision)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


@cache
def _made(name: str, precision: str | None) -> Ops:
    module = _module(name)
    if precision not in (None, *module.PRECISIONS):
        others = [other for other in known() if precision in _module(other).PRECISIONS]
        if others:
            raise ParameterError(
                f"the {name} engine does not multiply in {precision}",
                where="precision",
                expected=" or ".join(["float32", *module.PRECISIONS]),
                got=repr(precision),
                hint=f"engine={others[0]!r}",
            )
        raise unknown("precision", precision, ["float32", *module.PRECISIONS], where=f"the {name} engine")
    return module.create(precision)
