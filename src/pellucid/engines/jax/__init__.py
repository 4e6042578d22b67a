"""The JAX engine: the same primitives on GPUs and on many devices, whole steps compiled by XLA.

JAX is imported when the engine is first asked for, never before.
"""

from __future__ import annotations

import importlib.util

from pellucid.engines.base import Ops

PREFERENCE = -10  # asked for by name: compiling takes seconds, which small networks on a CPU never earn back

PRECISIONS = ("bfloat16", "tensorfloat32")


def unavailable() -> str | None:
    """Why it cannot run here: JAX is not installed."""
    if importlib.util.find_spec("jax") is None:
        return "JAX is not installed: pip install 'pellucid[jax]'; for NVIDIA GPUs pip install 'jax[cuda13]'"
    return None


def create(precision: str | None) -> Ops:
    """The engine."""
    from pellucid.engines.jax.ops import JaxOps

    return JaxOps(precision)
