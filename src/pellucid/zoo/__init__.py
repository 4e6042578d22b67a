"""The zoo: networks that can be named. A module in this folder with an ``ENTRY`` or ``ENTRIES`` is a member."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pellucid.errors import unknown
from pellucid.zoo.base import Entry, Recipe

__all__ = ["Entry", "Recipe", "entries", "find"]


@cache
def entries() -> dict[str, Entry]:
    """Every entry by name."""
    modules = [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if module.name != "base"
    ]
    members = [
        entry
        for module in modules
        for entry in (*getattr(module, "ENTRIES", ()), *([module.ENTRY] if hasattr(module, "ENTRY") else []))
    ]
    return {entry.name: entry for entry in members}


def find(name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        ParameterError: there is none; the message lists the known ones.
    """
    if name not in entries():
        raise unknown("net", name, entries())
    return entries()[name]
