"""Writing a sequence that is not there yet: greedily, by beam search, or by drawing.

In training an encoder–decoder reads the very target it is to write (teacher forcing). Here the encoder runs once, and
the decoder one step at a time with the same parameters, reading at each step what it wrote at the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import PREDICT, Node
from pellucid.network.base import Network
from pellucid.network.graph import Graph
from pellucid.sequences import Sequences


class Written(NamedTuple):
    """A sequence that a network wrote.

    Attributes:
        ids: (T,), from the first one after ``start`` on, with ``end`` where it came to that.
        log_probability: log P(ids | source) as the network has it, the sum of its steps.
        ended: False where it was cut at the longest length.
    """

    ids: np.ndarray
    log_probability: float
    ended: bool


class Memory(NamedTuple):
    """What the decoder goes on from; the last axis of every array is the example.

    Attributes:
        read: values of the encoder that the decoder reads, by node.
        masks: which steps of them count, by label.
        carried: what each layer with memory carries from step to step, by label of its place.
    """

    read: dict[Node, Array]
    masks: dict[str, Array]
    carried: dict[str, tuple[Array, ...]]

    def repeated(self, times: int) -> Memory:
        """Every example ``times`` times, one after the other."""
        read = {node: A.repeat(times, axis=-1) for node, A in self.read.items()}
        masks = {label: mask.repeat(times, axis=-1) for label, mask in self.masks.items()}
        carried = {label: tuple(S.repeat(times, axis=-1) for S in states) for label, states in self.carried.items()}
        return Memory(read, masks, carried)

    def following(self, parents: np.ndarray) -> Memory:
        """The same source, each example going on from what ``parents`` of it carries."""
        carried = {label: tuple(S[..., parents] for S in states) for label, states in self.carried.items()}
        return self._replace(carried=carried)


class Decoder:
    """A trained encoder–decoder in two parts: the encoder, and one step of the decoder.

        decoder = Decoder(net)
        memory = decoder.encode(ids, mask)                      # (T, m), once
        log_p, memory = decoder.step(start, memory)             # log P of what comes next: (levels, m)

    The decoder is whatever of the graph lies behind the target. Its layers with memory go one step at a time.

    Arguments:
        net: a graph that reads ids ``source`` and ids ``target`` and has one output, with a loss on classes.
        source, target: what these inputs are called.

    Raises:
        ParameterError: another network, or one that reads later ids of the target than it has written.
    """

    def __init__(self, net: Network, *, source: str = "source", target: str = "target") -> None:
        if not isinstance(net, Graph) or set(net.inputs) != {source, target} or len(net.losses) != 1:
            raise ParameterError(
                "no encoder–decoder",
                where="Decoder",
                expected=f"a graph with the inputs {source} and {target}, and one output with a loss",
                got=f"{type(net).__name__} with the inputs {', '.join(net.inputs)}",
            )
        ((self.output, self.loss),) = net.losses.items()
        if not self.loss.of_classes or self.loss.binary:
            raise ParameterError(
                "no loss on classes", where="Decoder", expected="softmax_cross_entropy", got=self.loss.registered_name
            )
        self.net, self.source, self.target = net, net.input_nodes[source], net.input_nodes[target]
        self.source_name, self.levels = source, net.outputs[self.output][-1]
        behind = {self.target}
        for call in net.calls:
            if behind.intersection(call.inputs):
                behind.update(call.nodes)
        places = list(enumerate(zip(net.steps, net.calls, strict=True)))
        self._encoder = [(i, step, call) for i, (step, call) in places if not behind.intersection(call.nodes)]
        self._decoder = [(i, step, call) for i, (step, call) in places if behind.intersection(call.nodes)]
        for _, step, call in self._decoder:
            # Attention may see all of what is no step of the target.
            if not call.layer.causal and (call.layer.start() or behind.intersection(call.inputs[1:] or call.inputs)):
                raise ParameterError(
                    "reads later steps of the target, which are not written yet", where=step.label, got=repr(call.layer)
                )
        needed = {node for *_, call in self._decoder for node in call.inputs} - behind
        self._read = [node for node in needed if node is not self.source]

    def encode(self, ids: np.ndarray, mask: np.ndarray | None = None) -> Memory:
        """All of the source, read once.

        Arguments:
            ids: (T, m) whole numbers.
            mask: which steps count, (T, m) booleans; None for all.
        """
        net, on_engine = self.net, self.net.ops.asarray
        masks = net.masks(None if mask is None else {self.source_name: on_engine(mask)})
        values = {self.source: on_engine(np.asarray(ids), net.dtype)}
        self._run(self._encoder, values, masks, {})
        carried = {}
        for _, step, call in self._decoder:
            if zeros := call.layer.start(np.dtype(net.dtype)):
                shape = (1, ids.shape[-1])
                given = tuple(values[node] for node in call.inputs[1:])
                carried[step.label] = given or tuple(on_engine(np.tile(S, shape)) for S in zeros.values())
        return Memory({node: values[node] for node in self._read}, masks, carried)

    def step(self, ids: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory]:
        """One id of each example further: log P of the id that follows, (levels, m), and what to go on from.

        Arguments:
            ids: (m,) what was written last; the start at first.
            memory: of `encode`, or of the step before.
        """
        ops = self.net.ops
        values = {**memory.read, self.target: ops.asarray(np.asarray(ids)[None], self.net.dtype)}
        carried = dict(memory.carried)
        self._run(self._decoder, values, memory.masks, carried)
        P = ops.to_numpy(self.loss.predict(ops, values[self.net.output_nodes[self.output]]))[0]
        return np.log(np.maximum(P, np.finfo(P.dtype).tiny)), memory._replace(carried=carried)

    def _run(self, places: Any, values: dict[Node, Any], masks: Any, carried: dict[str, Any]) -> None:
        """The layers at these places in order, adding to ``values``, and changing what is ``carried`` into them."""
        net, mode = self.net, PREDICT._replace(mask=masks)
        for index, step, call in places:
            A_prev = call.as_input(tuple(values[node] for node in call.inputs if node in values))
            own = net._own_mode(index, net.state, mode)
            if step.label in carried:
                A_prev = (values[call.inputs[0]], *carried[step.label])
            A, cache = call.layer.forward(net.ops, net.parameters.get(step.name, {}), A_prev, mode=own)
            if step.label in carried:
                carried[step.label] = tuple(call.layer.state_at(cache, 1).values())
            values.update(zip(call.nodes, A if len(call.nodes) > 1 else (A,), strict=True))


def greedy(
    net: Network,
    x: Sequences,
    *,
    start: int,
    end: int,
    longest: int = 64,
    never: Iterable[int] = (),
    batch_size: int = 256,
) -> list[Written]:
    """What the network writes when it takes the most probable id at every step.

    Arguments:
        net: an encoder–decoder; see `Decoder`.
        x: ids of the sources.
        start, end: the ids before the first and behind the last.
        longest: ids at most, with the end.
        never: ids that are not written; the start is not anyway, unless it is the end too.
        batch_size: sources at a time.

    Returns:
        what it writes for each source.

    Raises:
        ParameterError, ShapeError, DataError: an id, a size or a source that cannot be used.
    """
    return _step_by_step(net, x, lambda log_p: log_p.argmax(axis=0), start, end, longest, never, batch_size)


def sample(
    net: Network,
    x: Sequences,
    *,
    start: int,
    end: int,
    temperature: float = 1.0,
    seed: int = 0,
    longest: int = 64,
    never: Iterable[int] = (),
    batch_size: int = 256,
) -> list[Written]:
    """What the network writes when each id is drawn from its probabilities: P^(1/temperature), normalised.

    Arguments:
        temperature: below 1 the probable becomes more probable, above 1 less; towards 0 it is `greedy`.
        seed: of the draws.
        net, x, start, end, longest, never, batch_size: as in `greedy`.
    """
    if not (isinstance(temperature, Real) and 0 < temperature < np.inf):
        raise ParameterError("temperature is a positive number", where="sample", got=repr(temperature))
    rng = np.random.default_rng(seed)

    def drawn(log_p: np.ndarray) -> np.ndarray:
        # The largest of log p + Gumbel noise is a draw from p (Gumbel 1954).
        return (log_p / temperature + rng.gumbel(size=log_p.shape)).argmax(axis=0)

    return _step_by_step(net, x, drawn, start, end, longest, never, batch_size)


def beam_search(
    net: Network,
    x: Sequences,
    *,
    start: int,
    end: int,
    width: int = 4,
    length_penalty: float = 1.0,
    longest: int = 64,
    never: Iterable[int] = (),
    batch_size: int = 64,
) -> list[list[Written]]:
    """The most probable sequences that are found when the ``width`` most probable beginnings are kept at every step.

    One that ends leaves the beam, which is narrower from then on. At last they are ordered by log P / T^length_penalty,
    because log P alone prefers the short. With ``width=1`` it is `greedy`.

    Arguments:
        width: how many beginnings are kept.
        length_penalty: the power of the length T; 0 orders by log P, 1 by the mean of the steps.
        net, x, start, end, longest, never, batch_size: as in `greedy`.

    Returns:
        ``width`` sequences for each source, or fewer where no more are possible; the best first.

    Source: Sutskever, Vinyals and Le 2014, section 3.2; length: Wu et al. 2016, section 7.
    """
    _check_size("width", width)
    if not (isinstance(length_penalty, Real) and 0 <= length_penalty < np.inf):
        raise ParameterError("length_penalty is a number ≥ 0", where="beam_search", got=repr(length_penalty))
    found = []
    for decoder, memory, m, forbidden in _encoded(net, x, start, end, longest, never, batch_size):
        found += _beam(decoder, memory.repeated(width), m, width, forbidden, start, end, longest)
    for each in found:
        each.sort(key=lambda one: -one.log_probability / len(one.ids) ** length_penalty)
    return found


def _beam(
    decoder: Decoder, memory: Memory, m: int, width: int, forbidden: list[int], start: int, end: int, longest: int
) -> list[list[Written]]:
    """Each example's sequences, unordered. Column e·width + j is its beginning j; where none is, log P is -∞."""
    ended: list[list[Written]] = [[] for _ in range(m)]
    ids = np.zeros((m * width, 0), np.int64)
    log_P = np.full((m, width), -np.inf)
    log_P[:, 0] = 0.0
    open_places = np.full(m, width)
    for _ in range(longest):
        log_p, memory = decoder.step(ids[:, -1] if ids.size else np.full(m * width, start), memory)
        log_p[forbidden] = -np.inf
        every = (log_P.reshape(-1) + log_p).T.reshape(m, -1)  # (m, width · levels)
        best = np.argsort(-every, axis=1, kind="stable")[:, :width]
        log_P = np.take_along_axis(every, best, axis=1)
        log_P[np.arange(width) >= open_places[:, None]] = -np.inf
        parents, new = np.divmod(best, decoder.levels)
        parents = (parents + width * np.arange(m)[:, None]).reshape(-1)
        ids = np.concatenate([ids[parents], new.reshape(-1, 1)], axis=1)
        memory = memory.following(parents)
        for e, j in np.argwhere((new == end) & (log_P > -np.inf)):
            ended[e].append(Written(ids[e * width + j], float(log_P[e, j]), True))
            log_P[e, j] = -np.inf
            open_places[e] -= 1
        if not open_places.any():
            break
    for e, j in np.argwhere(log_P > -np.inf):
        ended[e].append(Written(ids[e * width + j], float(log_P[e, j]), False))
    return ended


def _step_by_step(
    net: Network,
    x: Sequences,
    choose: Callable[[np.ndarray], np.ndarray],
    start: int,
    end: int,
    longest: int,
    never: Iterable[int],
    batch_size: int,
) -> list[Written]:
    """One sequence for each source, its next id being what ``choose`` makes of log P (levels, m)."""
    found: list[Written] = []
    for decoder, memory, m, forbidden in _encoded(net, x, start, end, longest, never, batch_size):
        last, log_P, lengths = np.full(m, start), np.zeros(m), np.zeros(m, np.int64)
        ended, ids = np.zeros(m, bool), []
        for _ in range(longest):
            log_p, memory = decoder.step(last, memory)
            log_p[forbidden] = -np.inf
            last = choose(log_p)
            log_P += np.where(ended, 0.0, log_p[last, np.arange(m)])
            lengths += ~ended
            ended |= last == end
            ids.append(last)
            if ended.all():
                break
        steps = np.stack(ids, axis=1)
        found += [Written(steps[i, : lengths[i]], float(log_P[i]), bool(ended[i])) for i in range(m)]
    return found


def _encoded(
    net: Network, x: Sequences, start: int, end: int, longest: int, never: Iterable[int], batch_size: int
) -> Iterator[tuple[Decoder, Memory, int, list[int]]]:
    """For each batch: the decoder, its memory of the sources, how many these are, and what is not written."""
    decoder = Decoder(net)
    _check_size("longest", longest)
    _check_size("batch_size", batch_size)
    forbidden = [*never]
    for name, number in [("start", start), ("end", end), *(("never", each) for each in forbidden)]:
        if not (isinstance(number, (int, np.integer)) and 0 <= number < decoder.levels):
            raise ParameterError(f"{name} is an id", where="decoding", expected=f"0 … {decoder.levels - 1}", got=number)
    forbidden += [start] if start != end else []  # one id may stand for both
    if not isinstance(x, Sequences) or x.values.ndim != 1:
        got = repr(x) if isinstance(x, Sequences) else type(x).__name__
        raise ShapeError("takes sequences of ids", where="decoding", expected="pl.Sequences([[3, 1, 4], …])", got=got)
    for first in range(0, len(x), batch_size):
        rows = np.arange(first, min(first + batch_size, len(x)))
        yield decoder, decoder.encode(*x.batch(rows)), len(rows), forbidden


def _check_size(name: str, value: Any) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ParameterError(f"{name} is a whole number from 1", where="decoding", got=repr(value))
