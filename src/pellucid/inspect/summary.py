"""What a network is made of and what it costs: shapes, parameters, multiply–adds, memory of the caches."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pellucid import engines
from pellucid.errors import PellucidError
from pellucid.inspect.receptive_field import receptive_field
from pellucid.inspect.text import byte_size, table
from pellucid.inspect.trace import Recorder, is_chain
from pellucid.layers.base import Mode
from pellucid.layers.recompute import Recompute
from pellucid.network.base import Network
from pellucid.network.parameters import count
from pellucid.sequences import written
from pellucid.trees import tree_map

WIDTH = 118


class Row(NamedTuple):
    """One application of a layer.

    Attributes:
        name: the layer's name; ``dense_1@2`` where it is used a second time.
        layer: the layer, as it is written in code.
        sources: names of what it reads.
        output_shape: without the example axis; a tuple of shapes for several outputs.
        parameters: trained numbers; 0 at the second use, which shares them.
        state: numbers that are kept but not trained, such as running averages.
        multiply_adds: of one example's forward block.
        cache_bytes_per_example: what its cache keeps for the backward pass, of arrays no earlier cache keeps.
        cache_bytes_fixed: the same, whatever the batch.
        shared: the use is not the layer's first.
        recomputed_multiply_adds: of those above, what the backward block computes again.
        receptive_field: pixels of the image that a unit sees, (height, width) with the padding; None without an image.
    """

    name: str
    layer: str
    sources: tuple[str, ...]
    output_shape: Any
    parameters: int
    state: int
    multiply_adds: int
    cache_bytes_per_example: int
    cache_bytes_fixed: int
    shared: bool
    recomputed_multiply_adds: int = 0
    receptive_field: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Summary:
    """What `summary` found; prints as a table.

    Attributes:
        rows: one for each application of a layer, in the order they run.
        inputs: the inputs' shapes by name.
        ends: the name of the layer that makes each output, by output.
        dtype: of the parameters.
        precision: of the operands of products.
        kind: ``"Sequential"`` or ``"Graph"``.
        chain: no branches.
        recomputed_bytes_per_example: what a training step would keep besides if nothing were recomputed.
    """

    rows: tuple[Row, ...]
    inputs: dict[str, tuple[int, ...]]
    ends: dict[str, str]
    dtype: str
    precision: str
    kind: str
    chain: bool
    recomputed_bytes_per_example: int = 0

    @property
    def parameters(self) -> int:
        """Trained numbers, each counted once."""
        return sum(row.parameters for row in self.rows)

    @property
    def state(self) -> int:
        """Numbers kept but not trained."""
        return sum(row.state for row in self.rows)

    @property
    def parameter_bytes(self) -> int:
        """Memory of the parameters and the state."""
        return (self.parameters + self.state) * np.dtype(self.dtype).itemsize

    @property
    def multiply_adds(self) -> int:
        """Of one example's forward pass."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def cache_bytes_per_example(self) -> int:
        """What a training step keeps between forward and backward, for each example of the batch."""
        return sum(row.cache_bytes_per_example for row in self.rows)

    @property
    def cache_bytes_fixed(self) -> int:
        """What it keeps besides, whatever the batch."""
        return sum(row.cache_bytes_fixed for row in self.rows)

    @property
    def recomputed_multiply_adds(self) -> int:
        """Of one example's forward pass, what a training step computes twice."""
        return sum(row.recomputed_multiply_adds for row in self.rows)

    def __str__(self) -> str:
        branching = not self.chain
        images = any(
            row.receptive_field and np.ndim(row.output_shape) == 1 < len(row.output_shape) for row in self.rows
        )
        heads = ["name", "layer", "output", "parameters", "multiply–adds", "cache/example"]
        heads += ["sees"] * images + ["reads"] * branching
        cells = [[name, "Input", written(*shape), *[""] * (len(heads) - 3)] for name, shape in self.inputs.items()]
        for row in self.rows:
            shapes = row.output_shape if isinstance(row.output_shape[0], tuple) else (row.output_shape,)
            numbers = ["shared" if row.shared else f"{row.parameters:,}", f"{row.multiply_adds:,}"]
            output = " ".join(written(*shape) for shape in shapes)
            cells.append([row.name, row.layer, output, *numbers, byte_size(row.cache_bytes_per_example)])
            cells[-1] += ["×".join(map(str, row.receptive_field or "–"))] * images
            cells[-1] += [", ".join(row.sources)] * branching
        total = ["total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"]
        cells.append([*total, byte_size(self.cache_bytes_per_example), *[""] * (images + branching)])
        left = (0, 1, 2, *[len(heads) - 1] * branching)
        _fit(heads, cells, (1, *left[3:], 0))
        lines = table(heads, cells, left=left)
        lines.insert(-1, lines[1])
        kept = f" + {self.state:,} not trained" if self.state else ""
        fixed = f" + {byte_size(self.cache_bytes_fixed)} for the batch" if self.cache_bytes_fixed else ""
        rounded = f", multiplied in {self.precision}" if self.precision != self.dtype else ""
        lines += [
            "",
            f"  {self.parameters:,} trained parameters{kept}, "
            f"{byte_size(self.parameter_bytes)} as {self.dtype}{rounded}",
            f"  caches of a training step: {byte_size(self.cache_bytes_per_example)} per example{fixed}",
        ]
        if self.recomputed_multiply_adds:
            share = self.recomputed_multiply_adds / (3 * self.multiply_adds)  # forward, dA_prev and dW cost alike
            saved = f"{byte_size(self.recomputed_bytes_per_example)} less per example"
            lines.append(f"  recomputed: {saved}, {share:.0%} more multiply–adds in a training step")
        if any(None in shape for shape in self.inputs.values()):
            lines.append("  multiply–adds and caches: of one step, where there may be any number T")
        if branching:
            lines.append(f"  outputs: {', '.join(f'{name} = {label}' for name, label in self.ends.items())}")
        return "\n".join([self.kind, *lines])

    __repr__ = __str__


def summary(net: Network) -> Summary:
    """Layers with their output shapes, parameters, multiply–adds, what they see of an image, and their caches' memory.

    The caches are those of real forward passes, run as in training with one and with two examples of zeros on the
    numpy engine. An array that several caches hold, or of which one holds a view, is counted once, at the first.
    Sequences that may have any number of steps have one.

    Arguments:
        net: the network; it is left as it is.

    Returns:
        The `Summary`.
    """
    one, two = _cache_bytes(net, 1), _cache_bytes(net, 2)
    saved = 0
    if any(isinstance(layer, Recompute) for layer in net.names):
        whole = [sum(_cache_bytes(net, m, whole=True)) for m in (1, 2)]
        saved = whole[1] - whole[0] - (sum(two) - sum(one))
    uses: Counter[str] = Counter()
    rows = []
    for index, step in enumerate(net.steps):
        uses[step.name] += 1
        first = uses[step.name] == 1
        multiply_adds = step.layer.multiply_adds(_of_one_step(step.input_shape))
        rows.append(
            Row(
                step.label,
                repr(step.layer),
                step.sources,
                step.output_shape,
                count(net.parameters.get(step.name, {})) if first else 0,
                count(net.state.get(step.name, {})) if first else 0,
                multiply_adds,
                two[index] - one[index],
                2 * one[index] - two[index],
                not first,
                multiply_adds if isinstance(step.layer, Recompute) else 0,
                _seen(net, step.outputs[0]),
            )
        )
    dtypes, kind = (net.dtype, net.precision), type(net).__name__
    return Summary(tuple(rows), dict(net.inputs), dict(net.ends), *dtypes, kind, is_chain(net), saved)


def _seen(net: Network, label: str) -> tuple[int, ...] | None:
    try:
        return receptive_field(net, label).size
    except PellucidError:  # no image, several, or a layer on the way whose geometry is not known
        return None


def _cache_bytes(net: Network, m: int, *, whole: bool = False) -> list[int]:
    """Bytes each step's cache adds to those before it, with m examples; ``whole`` as if nothing were recomputed."""
    run = copy.copy(net)
    run.ops = engines.get("numpy")
    run.adopt(*(tree_map(net.ops.to_numpy, tree) for tree in (net.parameters, net.state)))
    seen = Recorder()
    inputs = {name: np.zeros((*_of_one_step(shape), m), net.dtype) for name, shape in net.inputs.items()}
    with np.errstate(all="ignore"):
        run.forward_pass(run.parameters, run.state, inputs, Mode(True, run.ops.random_key(0, 0)), observer=seen)
    counted = {id(_owner(A)) for A in _arrays((run.parameters, run.state))}
    again: dict[int, Any] = {}  # the outputs that were made a second time, with their first
    sizes, alive = [], []
    for index, step in enumerate(net.steps):
        own = 0
        _, made, cache = seen.made[index]
        if whole and isinstance(step.layer, Recompute):
            every, cache = step.layer.recomputed(run.ops, run.parameters.get(step.name, {}), cache)
            again[id(_owner(every[-1]))] = _owner(made)
            alive.append((every, cache))
        several = made if isinstance(made, tuple) else ()  # a graph keeps the arrays of several outputs
        for A in map(_owner, _arrays((cache, several))):
            A = again.get(id(A), A)
            if id(A) not in counted:
                counted.add(id(A))
                own += A.nbytes
        sizes.append(own)
    return sizes


def _of_one_step(shape: Any) -> Any:
    """The shape, or shapes, with 1 for steps of any number."""
    return tuple(_of_one_step(n) if isinstance(n, tuple) else 1 if n is None else n for n in shape)


def _owner(A: np.ndarray) -> np.ndarray:
    """The array whose memory it is."""
    while isinstance(A.base, np.ndarray):
        A = A.base
    return A


def _arrays(cache: Any) -> Iterator[np.ndarray]:
    if isinstance(cache, np.ndarray):
        yield cache
    elif isinstance(cache, dict):
        yield from _arrays(tuple(cache.values()))
    elif isinstance(cache, (tuple, list)):
        for each in cache:
            yield from _arrays(each)


def _fit(heads: list[str], cells: list[list[str]], columns: tuple[int, ...]) -> None:
    """Shorten these text columns, one after the other, until the table fits."""
    for column in columns:
        widths = [max(map(len, each)) for each in zip(heads, *cells, strict=True)]
        excess = sum(widths) + 2 * len(widths) - WIDTH
        if excess > 0:
            limit = max(12, widths[column] - excess)
            for row in cells:
                row[column] = row[column] if len(row[column]) <= limit else row[column][: limit - 1] + "…"
