"""Parameters and batches on a mesh of devices: XLA splits the compiled step by where they lie.

parameters, slots and state     (units over "model", …)           batches   (…, examples over "data")
with ``sharded`` large ones     another axis over "data"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from pellucid.engines.base import Ops
from pellucid.engines.jax import machines, towers
from pellucid.engines.jax.ops import compiler_options
from pellucid.engines.mesh import Mesh, Placement
from pellucid.errors import EngineError, ParameterError
from pellucid.trees import Tree, leaves, tree_map

ASKED_EVERY = 20  # updates: how often several processes ask each other, which waits for all of them


class OnMesh(Placement):
    """The arrays of a training on a mesh of JAX's devices.

    Arguments:
        ops: the engine.
        mesh: the devices.

    Raises:
        EngineError: there are not so many devices, or several processes would not use all of theirs.
    """

    mesh: Mesh

    def __init__(self, ops: Ops, mesh: Mesh) -> None:
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
        self.mesh, self.first = mesh, jax.process_index() == 0
        table = np.array(there[: mesh.size]).reshape(mesh.data, mesh.model)
        # An axis of one tells what is compiled for the mesh that it is sharded.
        table, axes = (table[..., None], ("data", "model", "sharded")) if mesh.sharded else (table, ("data", "model"))
        self.devices = jax.sharding.Mesh(table, axes)

    # --- parameters ---------------------------------------------------------------------------------------------

    def placed(self, leaf, dtype=None):
        where = self._where(np.shape(leaf))
        if isinstance(leaf, jax.Array) and leaf.sharding == where and dtype in (None, leaf.dtype):
            return leaf
        whole = np.asarray(self.ops.to_numpy(leaf), dtype)
        return jax.make_array_from_callback(whole.shape, where, lambda part: np.array(whole[part]))

    def full(self, shape, value, dtype):
        where = self._where(shape)
        part = np.full(where.shard_shape(shape), value, dtype)
        return jax.make_array_from_callback(shape, where, lambda _: part)

    def kept(self, tree):
        return tree_map(lambda leaf: lax.with_sharding_constraint(leaf, self._where(leaf.shape)), tree)

    def home(self, tree):
        if isinstance(tree, dict):  # not by jax.tree.map, which would sort it
            return {name: self.home(each) for name, each in tree.items()}
        if isinstance(tree, tuple):
            return type(tree)(*map(self.home, tree))
        if isinstance(tree, jax.Array) and tree.is_fully_replicated:
            return tree.addressable_data(0)
        return None if tree is None else self.ops.asarray(self.ops.to_numpy(tree))

    def split(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Which axes of a parameter, or of a slot of its shape, are split over which axis of the mesh."""
        return towers.lies(shape, self.devices)

    def _where(self, shape: tuple[int, ...]) -> NamedSharding:
        return NamedSharding(self.devices, self.split(shape))

    # --- batches ------------------------------------------------------------------------------------------------

    def share(self, m):
        own = self._of_batch(1, m).addressable_devices_indices_map((m,)).values()
        parts = [part[0].indices(m) for part in own if part]
        return slice(min(start for start, _, _ in parts), max(stop for _, stop, _ in parts))

    def batch(self, share, m):
        share = np.asarray(share)
        return jax.make_array_from_process_local_data(self._of_batch(share.ndim, m), share, (*share.shape[:-1], m))

    def everywhere(self, values):
        values = np.asarray(values)
        where = NamedSharding(self.devices, PartitionSpec())
        return jax.make_array_from_callback(values.shape, where, lambda part: values[part])

    def examples(self, A):
        return lax.with_sharding_constraint(A, self._of_batch(A.ndim, A.shape[-1]))

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

        def lies(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._where(leaf.shape))

        def shared(A: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(A.shape, A.dtype, sharding=self._of_batch(A.ndim, A.shape[-1]))

        arguments = (
            jax.tree.map(lies, list(trees)),
            jax.tree.map(lies, state),
            jax.tree.map(shared, list(batch)),
            key,
        )
        with jax.set_mesh(self.devices):
            made = jax.jit(step, donate_argnums=0).lower(*arguments).compile(compiler_options())
        needs: Any = made.memory_analysis()
        new = needs.output_size_in_bytes - needs.alias_size_in_bytes  # the rest is written over what was given away
        return made.as_text() or "", needs.argument_size_in_bytes + new + needs.temp_size_in_bytes

    def bytes_held(self, tree: Tree) -> int:
        """How much of parameters, or of a slot, one device holds."""
        shares = ((math.prod(self._where(W.shape).shard_shape(W.shape)), W.dtype.itemsize) for _, W in leaves(tree))
        return sum(count * width for count, width in shares)

    # --- several processes --------------------------------------------------------------------------------------

    def agreed(self, wanted, at, since=-1):
        if jax.process_count() == 1:
            return wanted
        return at // ASKED_EVERY > since // ASKED_EVERY and bool(
            multihost_utils.process_allgather(np.array(wanted)).any()
        )

    def begin(self, settings, checkpoint):
        if jax.process_count() > 1:
            if checkpoint is not None:
                machines.keep(checkpoint)
            machines.agree(settings())

    @contextmanager
    def active(self) -> Iterator[None]:
        try:
            with jax.set_mesh(self.devices):
                yield
        except (jax.errors.JaxRuntimeError, EngineError, ValueError) as failure:
            raise machines.explained(failure) from failure.__cause__
