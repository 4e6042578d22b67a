"""Products on a mesh of devices, units over ``model`` and examples over ``data``: what is exchanged, and nothing else.

    forward   Z[own units] from all channels of A_prev, which are gathered; in groups, a device has those it needs
    dW        of the own units: again from all channels
    dA_prev   every device's units contribute to all channels: summed, and each device keeps its own; in groups it has
              all that contribute to its own

A device's own units are fetched whole where they are sharded over ``data`` too; dW is a mean over ``data``, of which
each device then keeps the part whose W it has. Left to itself XLA gathers the weights and activations of grouped
convolutions, and with sharded weights the examples.

Source: Krizhevsky, Sutskever and Hinton 2012, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from pellucid.engines.base import Array

LARGE = 1024  # numbers: smaller leaves stay whole, as fetching them costs more than keeping them


def lies(shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """Which axes of a parameter, or of a slot of its shape, are split over which axis of the mesh: by its shape alone.

    The first, units, over ``model``, or where that does not go the largest that does; then, where the mesh is
    ``sharded``, the largest of the others over ``data``. Of leaves that are not `LARGE` only units are split.
    """
    axes: list[str | None] = [None] * len(shape)
    for name in ("model", "data") if "sharded" in mesh.axis_names else ("model",):
        n = mesh.shape[name]
        fit = [i for i, size in enumerate(shape) if n > 1 and size and axes[i] is None and size % n == 0]
        if name == "model" and 0 in fit:
            axes[0] = name
        elif fit and math.prod(shape) >= LARGE:
            axes[max(fit, key=lambda i: shape[i])] = name
    return P(*axes)


def traced() -> AbstractMesh | None:
    """The mesh that this is traced for; None on one device, or within one of the functions below, where everything is a
    device's own."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if "model" in mesh.axis_names and mesh.axis_types[0] == AxisType.Auto else None


def over(units: int, *, groups: int = 1) -> AbstractMesh | None:
    """The mesh that so many units are split over where this is traced; None where XLA is to see to it.

    Arguments:
        units: along the first axis of W.
        groups: of a convolution.
    """
    mesh = traced()
    towers = mesh.shape["model"] if mesh else 1
    return None if towers > 1 and (units % towers or (groups > 1 and groups % towers)) else mesh


def forward(
    mesh: AbstractMesh, product: Callable, W: Array, A_prev: Array, b: Array | None, groups: int = 1, axis: int = 0
) -> Array:
    """``product(W, A_prev, b, groups)``, its units split; ``axis`` has the channels of A_prev and the units of Z."""
    split, units, channels = (_axis(mesh, *each) for each in _splits(A_prev.shape[-1], len(W), A_prev.shape[axis]))

    def device(W: Array, A_prev: Array, b: Array | None) -> Array:
        if channels and groups == 1:
            A_prev = lax.all_gather(A_prev, "model", axis=axis, tiled=True)
        return product(W, A_prev, b, _own(mesh, groups))

    specs = (P(units), _spec(A_prev, channels, split, axis), P(units))
    return jax.shard_map(device, in_specs=specs, out_specs=_spec(A_prev, units, split, axis))(W, A_prev, b)


def dW(
    mesh: AbstractMesh,
    product: Callable,
    dZ: Array,
    A_prev: Array,
    shape: tuple[int, ...],
    groups: int = 1,
    axis: int = 0,
) -> Array:
    """``product(dZ, A_prev, groups)`` of W's ``shape``, a mean over the examples; it lies as W does.

    A_prev without an axis of channels, as the ids of an embedding, is whole on every device.
    """
    several = A_prev.ndim == dZ.ndim
    split, units, channels = (
        _axis(mesh, *each) for each in _splits(dZ.shape[-1], shape[0], A_prev.shape[axis] if several else 1)
    )
    where = lies(shape, mesh)
    shards = where.index("data") if split and "data" in where else None

    def device(dZ: Array, A_prev: Array) -> Array:
        if channels and groups == 1:
            A_prev = lax.all_gather(A_prev, "model", axis=axis, tiled=True)
        mean = product(dZ, A_prev, _own(mesh, groups))
        if shards is not None:
            return lax.psum_scatter(mean, "data", scatter_dimension=shards, tiled=True) * (1 / mesh.shape["data"])
        return lax.pmean(mean, "data") if split else mean

    specs = (_spec(dZ, units, split, axis), _spec(A_prev, channels, split, axis))
    out = P(units) if shards is None else where
    return jax.shard_map(device, in_specs=specs, out_specs=out)(dZ, A_prev)


def dA(
    mesh: AbstractMesh, product: Callable, W: Array, dZ: Array, channels: int, groups: int = 1, axis: int = 0
) -> Array:
    """``product(W, dZ, channels, groups)`` where W and dZ have their units split."""
    split, units, apart = (_axis(mesh, *each) for each in _splits(dZ.shape[-1], len(W), channels))

    def device(W: Array, dZ: Array) -> Array:
        if groups > 1:
            return product(W, dZ, channels // mesh.shape["model"], _own(mesh, groups))
        every = product(W, dZ, channels, 1)
        if not units:
            return every
        return (
            lax.psum_scatter(every, "model", scatter_dimension=axis, tiled=True) if apart else lax.psum(every, "model")
        )

    specs = (P(units), _spec(dZ, units, split, axis))
    return jax.shard_map(device, in_specs=specs, out_specs=_spec(dZ, apart, split, axis))(W, dZ)


def later(mesh: AbstractMesh, apart: Callable, arrays: list[Array], dA: Array) -> list[Array]:
    """Parameters, each device's own part of them, ``apart`` from what was computed of them before dA was there."""
    lie = [P(*("data" if axis == "data" else None for axis in lies(W.shape, mesh))) for W in arrays]
    specs = (lie, _spec(dA, None, _axis(mesh, "data", dA.shape[-1]), 0))

    def device(arrays: list[Array], dA: Array) -> list[Array]:
        return list(apart(*arrays, dA)[:-1])

    return jax.shard_map(device, in_specs=specs, out_specs=lie, axis_names={"data"}, check_vma=False)(arrays, dA)


def _splits(m: int, units: int, channels: int) -> tuple[tuple[str, int], ...]:
    return ("data", m), ("model", units), ("model", channels)


def _axis(mesh: AbstractMesh, name: str, n: int) -> str | None:
    """The axis of the mesh if n can be split over it and there is something to split."""
    return name if mesh.shape[name] > 1 and n % mesh.shape[name] == 0 else None


def _own(mesh: AbstractMesh, groups: int) -> int:
    """The groups of one device."""
    return max(1, groups // mesh.shape["model"])


def _spec(A: Array, units: str | None, last: str | None, axis: int) -> P:
    axes: list[str | None] = [None] * A.ndim
    if units:
        axes[axis] = units
    axes[-1] = last
    return P(*axes)
