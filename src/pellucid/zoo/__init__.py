"""The zoo: networks that can be named. A module in this folder with an ``ENTRY`` or ``ENTRIES`` is a member."""

from __future__ import annotations

from functools import cache

from pellucid.errors import unknown
from pellucid.registry import members
from pellucid.zoo.base import Entry, Recipe

__all__ = ["Entry", "Recipe", "entries", "find"]


@cache
def entries() -> dict[str, Entry]:
    """Every entry by name."""
    return members(__name__, "ENTRY", "ENTRIES")


def find(name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        ParameterError: there is none; the message lists the known ones.
    """
    if name not in entries():
        raise unknown("net", name, entries())
    return entries()[name]
