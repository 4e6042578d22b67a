"""Products on a mesh of devices, units over ``model`` and examples over ``data``: what is exchanged, and nothing else.

    forward   Z[own units] from all channels of A_prev, which are gathered; in groups, a device has those it needs
    dW        of the own units: again from all channels
    dA_prev   every device's units contribute to all channels: summed, and each device keeps its own; in groups it has
              all that contribute to its own

A device's own units are fetched whole where they are sharded over ``data`` too; dW is a mean over ``data``. Left to
itself XLA gathers the weights and activations of grouped convolutions, and with sharded weights the examples.

Source: Krizhevsky, Sutskever and Hinton 2012, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from pellucid.engines.base import Array


def over(units: int, *, groups: int = 1, steps: bool = False) -> AbstractMesh | None:
    """The mesh that so many units are split over where this is traced; None where XLA is to see to it.

    Arguments:
        units: along the first axis of W.
        groups: of a convolution.
        steps: A is a sequence, which has its units along the second axis.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if "model" not in mesh.axis_names or mesh.axis_types[mesh.axis_names.index("model")] != AxisType.Auto:
        return None  # one device, or within one of the functions below, where everything is a device's own
    towers = mesh.shape["model"]
    whole = towers > 1 and (units % towers or (groups > 1 and groups % towers) or steps)
    return None if whole else mesh


def forward(mesh: AbstractMesh, product: Callable, W: Array, A_prev: Array, b: Array | None, groups: int = 1) -> Array:
    """``product(W, A_prev, b, groups)``, its units split."""
    split, units, channels = (_axis(mesh, *each) for each in _splits(A_prev.shape[-1], len(W), len(A_prev)))

    def device(W: Array, A_prev: Array, b: Array | None) -> Array:
        if channels and groups == 1:
            A_prev = lax.all_gather(A_prev, "model", tiled=True)
        return product(W, A_prev, b, _own(mesh, groups))

    specs = (P(units), _spec(A_prev, channels, split), P(units))
    return jax.shard_map(device, in_specs=specs, out_specs=_spec(A_prev, units, split))(W, A_prev, b)


def dW(mesh: AbstractMesh, product: Callable, dZ: Array, A_prev: Array, groups: int = 1) -> Array:
    """``product(dZ, A_prev, groups)``, a mean over the examples, its units split."""
    split, units, channels = (_axis(mesh, *each) for each in _splits(dZ.shape[-1], len(dZ), len(A_prev)))

    def device(dZ: Array, A_prev: Array) -> Array:
        if channels and groups == 1:
            A_prev = lax.all_gather(A_prev, "model", tiled=True)
        mean = product(dZ, A_prev, _own(mesh, groups))
        return lax.pmean(mean, "data") if split else mean

    specs = (_spec(dZ, units, split), _spec(A_prev, channels, split))
    return jax.shard_map(device, in_specs=specs, out_specs=P(units))(dZ, A_prev)


def dA(mesh: AbstractMesh, product: Callable, W: Array, dZ: Array, channels: int, groups: int = 1) -> Array:
    """``product(W, dZ, channels, groups)`` where W and dZ have their units split."""
    split, units, apart = (_axis(mesh, *each) for each in _splits(dZ.shape[-1], len(W), channels))

    def device(W: Array, dZ: Array) -> Array:
        if groups > 1:
            return product(W, dZ, channels // mesh.shape["model"], _own(mesh, groups))
        every = product(W, dZ, channels, 1)
        if not units:
            return every
        return lax.psum_scatter(every, "model", tiled=True) if apart else lax.psum(every, "model")

    specs = (P(units), _spec(dZ, units, split))
    return jax.shard_map(device, in_specs=specs, out_specs=_spec(dZ, apart, split))(W, dZ)


def _splits(m: int, units: int, channels: int) -> tuple[tuple[str, int], ...]:
    return ("data", m), ("model", units), ("model", channels)


def _axis(mesh: AbstractMesh, name: str, n: int) -> str | None:
    """The axis of the mesh if n can be split over it and there is something to split."""
    return name if mesh.shape[name] > 1 and n % mesh.shape[name] == 0 else None


def _own(mesh: AbstractMesh, groups: int) -> int:
    """The groups of one device."""
    return max(1, groups // mesh.shape["model"])


def _spec(A: Array, first: str | None, last: str | None) -> P:
    return P(first, *(None,) * (A.ndim - 2), last)
