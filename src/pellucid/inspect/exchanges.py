"""What the devices of a mesh exchange, counted from the program that XLA compiled, and what each has to hold."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pellucid import optimizers
from pellucid.engines.mesh import Mesh
from pellucid.errors import ParameterError
from pellucid.inspect.text import byte_size, table
from pellucid.layers.base import Mode
from pellucid.network.base import Network
from pellucid.trees import leaves

_COLLECTIVE = re.compile(
    r" = (?P<result>\(.*?\)|\S+) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?P<start>-start)?\((?P<rest>.*)"
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")
STEPS = 16  # of sequences whose length is left open


class Exchange(NamedTuple):
    """What one layer exchanges in an update.

    Attributes:
        name: the layer's; ``loss`` and ``update`` stand for what is none's.
        split: how its parameters are split over the devices, ``"whole"`` where every device has all.
        forward, backward: bytes that each device sends in the forward and in the backward block.
    """

    name: str
    split: str
    forward: int
    backward: int


@dataclass(frozen=True)
class Exchanged:
    """What `exchanged` counted; prints as a table.

    Attributes:
        rows: one for each layer that has parameters or exchanges something, in the order they run, then the others.
        mesh: the devices.
        batch_size: of an update.
        parameter_bytes: parameters and slots that one device holds.
        step_bytes: memory of one device in an update, by XLA's account: those, its batch, and what it computes with.
    """

    rows: tuple[Exchange, ...]
    mesh: Mesh
    batch_size: int
    parameter_bytes: int
    step_bytes: int

    @property
    def forward(self) -> int:
        """Bytes that each device sends in all forward blocks."""
        return sum(row.forward for row in self.rows)

    @property
    def backward(self) -> int:
        """Bytes that each device sends in all backward blocks and in the update."""
        return sum(row.backward for row in self.rows)

    def __str__(self) -> str:
        def said(count: int) -> str:
            return byte_size(count) if count else ""

        cells = [[row.name, row.split, said(row.forward), said(row.backward)] for row in self.rows]
        cells.append(["total", "", said(self.forward), said(self.backward)])
        lines = table(["layer", "parameters", "forward sends", "backward sends"], cells, left=(0, 1))
        each = "each of 1 device" if self.mesh.size == 1 else f"each of {self.mesh.size} devices"
        return "\n".join(
            [
                f"Exchanged in an update of {self.batch_size} examples, mesh {self.mesh}",
                *lines,
                "",
                f"  {each} holds {byte_size(self.parameter_bytes)} of parameters and slots, and needs "
                f"{byte_size(self.step_bytes)} in an update",
            ]
        )


def exchanged(net: Network, *, mesh: Any, batch_size: int = 32, optimizer: Any = "adam") -> Exchanged:
    """What devices send each other in an update, layer by layer: counted from the compiled program, which is not run.

        all-gather, reduce-scatter, all-to-all   (p - 1) / p of the whole, over p devices
        all-reduce                               2 (p - 1) / p of it, as rings have it
        collective-permute                       all of it

    What stands in a loop over the steps of a sequence is counted once.

    Arguments:
        net: on the jax engine.
        mesh: as in `fit`; on a CPU so many devices can be simulated, see `EngineError`'s hint.
        batch_size: examples per update.
        optimizer: for its slots' memory.

    Raises:
        EngineError: the network is on another engine, or there are not so many devices.
        ParameterError: the batches cannot be split over the devices.

    Source: Patarasuk and Yuan 2009, for rings.
    """
    wanted = Mesh.of(mesh)
    if wanted is None:
        raise ParameterError("one device exchanges nothing", where="exchanged", expected="mesh='data=2', …")
    placement: Any = net.ops.placement(wanted)
    placement.check(batch_size)
    rule = optimizers.get(optimizer)

    slots = rule.init(net.parameters)

    def step(trees, state, batch, key):
        params, *own = trees
        done = net.iteration(params, state, *batch, mode=Mode(True, key, mask={}))
        with net.ops.scope("update"):
            params, new = rule.update(
                net.ops, params, placement.kept(done.grads), dict(zip(slots, own, strict=True)), learning_rate=0.1, t=1
            )
        return [placement.kept(tree) for tree in (params, *new.values())], placement.kept(done.state), done.cost

    trees = [net.parameters, *slots.values()]
    batch = (_inputs(net, batch_size), _targets(net, batch_size))
    program, step_bytes = placement.compiled(step, trees, net.state, batch, net.ops.random_key(0, 0))
    sent = sent_by_scope(program)
    rows = [_row(net, placement, label, name, sent) for label, name in _labels(net)]
    known = {part for row in rows for part in (f"{row.name}/forward", f"{row.name}/backward")}
    update = sent["update"]
    loss = sum(count for scope, count in sent.items() if scope not in known and scope != "update")
    others = [Exchange("loss", "", loss, 0)] if loss else []
    others += [Exchange("update", "", 0, update)] if update else []
    held = sum(map(placement.bytes_held, trees))
    shown = [row for row in rows if row.split or row.forward or row.backward]
    return Exchanged((*shown, *others), wanted, batch_size, held, step_bytes)


def sent_by_scope(program: str) -> Counter[str]:
    """Bytes that each device sends, by the scope (see `Ops.scope`) of every collective in a compiled program's text."""
    sent: Counter[str] = Counter()
    for line in program.splitlines():
        found = _COLLECTIVE.search(line)
        if found:
            sizes = _sent(found)
            named = re.search(r'op_name="([^"]*)"', line)
            # Several that XLA made one of are listed, in the order of the arrays: (dense_1/…:dense_2/…).
            origins = re.sub(r"[()]", "", named[1]).split(":") if named else []
            origins = origins if len(origins) == len(sizes) else origins[:1] * len(sizes) or [""] * len(sizes)
            for origin, size in zip(origins, sizes, strict=True):
                scope = re.search(r"[\w@.-]+/(?:forward|backward)(?=/|$)|(?<=/)update(?=/|$)", f"/{origin}")
                sent[scope[0] if scope else "other"] += size
    return sent


def _sent(found: re.Match[str]) -> list[int]:
    """Bytes that each device sends in a collective, for each of its arrays."""
    kind, p = found["kind"], _group_size(found["rest"])
    arrays = _ARRAY.findall(found["result"])
    if found["start"] and kind != "all-reduce":  # begun and not yet ended, it holds operands, results and more
        arrays = arrays[len(arrays) // 2 :] if kind != "collective-permute" else arrays[:1]
    whole = [math.prod(int(n) for n in shape.split(",") if n) * _width(dtype) for dtype, shape in arrays]
    if kind == "collective-permute":
        return whole
    times = {"all-reduce": 2 * (p - 1), "reduce-scatter": p * (p - 1)}.get(kind, p - 1)
    return [size * times // p for size in whole]


def _width(dtype: str) -> int:
    """Bytes of a number: ``f32`` has 4."""
    return 1 if dtype == "pred" else max(1, int(re.sub(r"\D", "", dtype)) // 8)


def _group_size(rest: str) -> int:
    """Devices in each group of a collective: ``{{0,1},{2,3}}``, ``[2,2]<=[4]`` or ``mesh['a'=2,'b'=2] {'a'}``."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return listed[1].count(",") + 1
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if named:
        sizes = dict(axis.split("=") for axis in named[1].split(","))
        return math.prod(int(sizes[axis]) for axis in named[2].split(","))
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", rest)
    return int(counted[1]) if counted else 1


def _labels(net: Network) -> list[tuple[str, str]]:
    return [(step.label, step.name) for step in net.steps]


def _row(net: Network, placement: Any, label: str, name: str, sent: Counter[str]) -> Exchange:
    split = ""
    if name in net.parameters:
        axes = {axis for _, leaf in leaves(net.parameters[name]) for axis in placement.split(leaf.shape) if axis}
        split = ", ".join(_WORDS[axis] for axis in ("model", "data") if axis in axes) or "whole"
    return Exchange(label, split, sent[f"{label}/forward"], sent[f"{label}/backward"])


_WORDS = {"model": "units over model", "data": "sharded over data"}


def _inputs(net: Network, m: int) -> dict[str, np.ndarray]:
    shapes = {name: tuple(n or STEPS for n in shape) for name, shape in net.inputs.items()}
    return {name: np.zeros((*shape, m), net.dtype) for name, shape in shapes.items()}


def _targets(net: Network, m: int) -> dict[str, np.ndarray]:
    made = {}
    for name, loss in net.losses.items():
        shape = tuple(n or STEPS for n in net.outputs[name])
        of_indices = loss.of_classes and shape[-1] > 1
        Y = np.zeros((*shape[:-1], m), np.int64) if of_indices else np.zeros((*shape, m), net.dtype)
        made[name] = loss.targets(Y, shape, np.dtype(net.dtype), where=name)
    return made
