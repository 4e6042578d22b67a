"""The lab: experiments that predict, measure and draw. A module put here with an ``EXPERIMENT`` is a member."""

from __future__ import annotations

from functools import cache

from pellucid.errors import unknown
from pellucid.lab.base import Experiment, Finding, Result
from pellucid.registry import members

__all__ = ["Experiment", "Finding", "Result", "experiments", "find"]


@cache
def experiments() -> dict[str, Experiment]:
    """Every experiment by name."""
    return members(__name__, "EXPERIMENT")


def find(name: str) -> Experiment:
    """The experiment called ``name``.

    Raises:
        ParameterError: there is none; the message lists the known ones.
    """
    if name not in experiments():
        raise unknown("experiment", name, experiments())
    return experiments()[name]
