"""Parameters and batches on a mesh of devices: XLA splits the compiled step by where they lie.

W of dense layers and convolutions   (units over "model", …)      batches   (…, examples over "data")
with ``sharded`` the large ones      an axis over "data"          slots     as the parameters, all large ones sharded
all else                             whole on every device
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from pellucid.engines.base import Array, Ops
from pellucid.engines.jax import machines
from pellucid.engines.mesh import Mesh, Placement
from pellucid.errors import EngineError, ParameterError
from pellucid.trees import Tree

LARGE = 1024  # numbers: smaller leaves stay whole, as fetching them costs more than keeping them
ASKED_EVERY = 20  # updates: how often several processes ask each other, which waits for all of them


class OnMesh(Placement):
    """The arrays of a training on a mesh of JAX's devices.

    Arguments:
        ops: the engine.
        mesh: the devices.
        units: of the layers that can be split over ``model``, by name.

    Raises:
        EngineError: there are not so many devices, or several processes would not use all of theirs.
    """

    mesh: Mesh

    def __init__(self, ops: Ops, mesh: Mesh, units: Mapping[str, int]) -> None:
        super().__init__(ops)
        there = jax.devices()
        several = jax.process_count() > 1
        if mesh.size > len(there) or (several and mesh.size < len(there)):
            hint = f"at most mesh='data={len(there)}'"
            if several:
                hint = f"mesh='data={len(there)}': all devices of all processes are used"
            elif there[0].platform == "cpu":
                hint += f"; to try more on a CPU, set JAX_NUM_CPU_DEVICES={mesh.size} before"
            found = f"{len(there)} ({there[0].platform})" + (f" in {jax.process_count()} processes" if several else "")
            raise EngineError(
                "the mesh does not fit the devices",
                where=f"mesh {mesh}",
                expected=f"{mesh.size} devices",
                got=found,
                hint=hint,
            )
        self.mesh, self.units, self.first = mesh, units, jax.process_index() == 0
        table = np.array(there[: mesh.size]).reshape(mesh.data, mesh.model)
        self.devices = jax.sharding.Mesh(table, ("data", "model"))

    # --- parameters ---------------------------------------------------------------------------------------------

    def spread(self, tree, *, slot=False):
        def put(leaf: Any, where: NamedSharding) -> Array:
            if isinstance(leaf, jax.Array) and leaf.sharding == where:
                return leaf
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, where, lambda part: whole[part])

        return self._mapped(put, tree, slot)

    def kept(self, tree, *, slot=False):
        return self._mapped(lax.with_sharding_constraint, tree, slot)

    def home(self, tree):
        if isinstance(tree, dict):  # not by jax.tree.map, which would sort it
            return {name: self.home(each) for name, each in tree.items()}
        if isinstance(tree, tuple):
            return type(tree)(*map(self.home, tree))
        if isinstance(tree, jax.Array) and tree.is_fully_replicated:
            return tree.addressable_data(0)
        return None if tree is None else self.ops.asarray(self.ops.to_numpy(tree))

    def split(self, layer: str, shape: tuple[int, ...], *, slot: bool = False) -> PartitionSpec:
        """Which axes of a parameter, or of a ``slot`` of its shape, are split over which axis of the mesh.

        Parameters are sharded where their products fetch them (see `towers`), slots everywhere.
        """
        axes: list[str | None] = [None] * len(shape)
        units = self.units.get(layer)
        if self.mesh.model > 1 and shape and shape[0] == units and units % self.mesh.model == 0:
            axes[0] = "model"
        if self.mesh.sharded and (slot or units) and math.prod(shape) >= LARGE:
            fit = [i for i, n in enumerate(shape) if axes[i] is None and n % self.mesh.data == 0]
            if fit:
                axes[max(fit, key=lambda i: shape[i])] = "data"
        return PartitionSpec(*axes)

    def _mapped(self, function: Callable[[Any, NamedSharding], Any], tree: Tree, slot: bool = False) -> Tree:
        def mapped(layer: str, part: Any) -> Any:
            if isinstance(part, dict):
                return {name: mapped(layer, each) for name, each in part.items()}
            return function(part, NamedSharding(self.devices, self.split(layer, np.shape(part), slot=slot)))

        return {layer: mapped(layer, part) for layer, part in tree.items()}

    # --- batches ------------------------------------------------------------------------------------------------

    def share(self, m):
        own = self._of_batch(1, m).addressable_devices_indices_map((m,)).values()
        parts = [part[0].indices(m) for part in own if part]
        return slice(min(start for start, _, _ in parts), max(stop for _, stop, _ in parts))

    def batch(self, share, m):
        share = np.asarray(share)
        return jax.make_array_from_process_local_data(self._of_batch(share.ndim, m), share, (*share.shape[:-1], m))

    def _of_batch(self, ndim: int, m: int) -> NamedSharding:
        """The examples over "data"; a batch that cannot be split, as the last of an epoch, whole on every device."""
        last = "data" if m % self.mesh.data == 0 else None
        return NamedSharding(self.devices, PartitionSpec(*(None,) * (ndim - 1), last))

    def check(self, batch_size):
        if batch_size % self.mesh.data:
            below = batch_size // self.mesh.data * self.mesh.data
            fit = [str(n) for n in (below, below + self.mesh.data) if n]
            raise ParameterError(
                "the batches cannot be split over the devices",
                where="batch_size",
                expected=f"a multiple of {self.mesh.data}, as in mesh {self.mesh}",
                got=batch_size,
                hint=f"batch_size={' or '.join(fit)}, or another mesh",
            )

    # --- looking at it ------------------------------------------------------------------------------------------

    def compiled(self, step: Callable, trees: Any, state: Tree, batch: Sequence[Tree], key: Any) -> tuple[str, int]:
        """The text of the program that XLA makes of a step, and the bytes one device needs to run it; it is not run.

        Arguments:
            step: ``step(trees, state, batch, key)``.
            trees: parameters, then slots.
            state: the layers'.
            batch: trees of arrays (…, m).
            key: a random key.
        """

        def lies(leaf: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=where)

        arguments = (
            [self._mapped(lies, tree, slot=index > 0) for index, tree in enumerate(trees)],
            self._mapped(lies, state),
            jax.tree.map(lambda A: lies(A, self._of_batch(A.ndim, A.shape[-1])), list(batch)),
            key,
        )
        with jax.set_mesh(self.devices):
            made = jax.jit(step, donate_argnums=0).lower(*arguments).compile()
        needs: Any = made.memory_analysis()
        new = needs.output_size_in_bytes - needs.alias_size_in_bytes  # the rest is written over what was given away
        return made.as_text() or "", needs.argument_size_in_bytes + new + needs.temp_size_in_bytes

    def bytes_held(self, tree: Tree, *, slot: bool = False) -> int:
        """How much of parameters, or of a slot, one device holds."""
        held: list[int] = []

        def count(leaf: Any, where: NamedSharding) -> None:
            held.append(math.prod(where.shard_shape(np.shape(leaf))) * leaf.dtype.itemsize)

        self._mapped(count, tree, slot)
        return sum(held)

    # --- several processes --------------------------------------------------------------------------------------

    def agreed(self, wanted, at):
        if jax.process_count() == 1:
            return wanted
        return at % ASKED_EVERY == 0 and bool(multihost_utils.process_allgather(np.array(wanted)).any())

    @contextmanager
    def active(self) -> Iterator[None]:
        try:
            with jax.set_mesh(self.devices):
                yield
        except (jax.errors.JaxRuntimeError, EngineError, ValueError) as failure:
            raise machines.explained(failure) from failure.__cause__
