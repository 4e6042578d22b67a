"""Text that goes on: after every symbol the next one, learned from a long text and written from a short one."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import data, losses
from pellucid.data.running_text import prose, text_windows
from pellucid.data.series import Windows
from pellucid.data.text import SPECIALS, Vocabulary
from pellucid.errors import DataError, ParameterError
from pellucid.history import History
from pellucid.layers.base import PREDICT
from pellucid.network.base import Network
from pellucid.tasks.base import PARTS, Finding, Said, Task
from pellucid.trees import Tree

MOST_STREAMS = 64  # in which a text is measured side by side
STEPS = 64  # symbols that a network reads at once where nothing is learned
ORDERS = 7  # symbols that the baselines look at, the predicted one included
ENDINGS = (".txt", ".md", ".py")
NAMES = ("fortunes", "python")


class Streams:
    """The windows of a text read in several places at once: batch b holds the b-th window of every stream.

    A network with stateful layers so goes through each stream from its beginning to its end, however long it is.

    Arguments:
        windows: of a text, none of which overlap.
        count: streams; as many as there are windows at most. What is left over at the end is left out.
    """

    def __init__(self, windows: Windows, count: int) -> None:
        self.windows, self.streams = windows, min(count, len(windows))
        self.each = len(windows) // self.streams

    def __len__(self) -> int:
        return self.each * self.streams

    def take(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """The windows at ``indices``, ids x (k, length) and y (k, length)."""
        batch, stream = np.divmod(np.arange(len(self))[indices], self.streams)
        return self.windows.take(stream * self.each + batch)


class Text(Task):
    """The next symbol of a text. Arguments as in `Task`; of the split the last parts of the text are held out."""

    kind = "text"
    title = "what comes next in a text"
    net = "char-rnn"
    options = {"symbols": "character", "length": 64}  # noqa: RUF012
    shuffle = False

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
        self.name, text = read_text(*self.reading(described, encoding="utf-8"))
        split = described["split"]
        self.length, self.unit = self.settings["length"], self.settings["symbols"]
        shares: dict[str, Any] = {part: _share(split[part], part) for part in ("validation", "test")}
        self.vocabulary, self.windows = text_windows(text, self.length, unit=self.unit, **shares)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self.sizes = dict(zip(PARTS, map(len, self.windows), strict=True))
        self.input_shape = (None,)
        self.streams = 1
        held_out = self.windows.train.values[self.windows.train.part[1] :]
        unknown = int((held_out == self.vocabulary.unknown).sum())
        self.report = [
            f"{len(self.vocabulary) - len(SPECIALS):,} different {self.unit}s in the training part; the parts follow "
            "one another, the test part last"
        ]
        if unknown:
            self.report.append(f"{unknown:,} of {len(held_out):,} {self.unit}s held out are not among them")

    @classmethod
    def takes(cls, source: str) -> bool:
        path = Path(source)
        return path.suffix in ENDINGS and path.is_file()

    def rows(self, part: str) -> Windows:
        return getattr(self.windows, part)

    def arrays(self, part: str) -> tuple[Any, Any]:
        return Streams(self.rows(part), self.streams), None

    def preprocessing(self) -> dict[str, Any]:
        return {"task": {"kind": self.kind}, "vocabulary": self.vocabulary.document()}

    def described(self) -> str:
        return f"windows of {self.length} {self.unit}s, to each the next one"

    # --- the network --------------------------------------------------------------------------------------------

    def loss(self, named: Any) -> losses.Loss:
        if named not in (None, "softmax_cross_entropy"):
            raise ParameterError(
                "a text's next symbol is one of many", where="--loss", expected="softmax_cross_entropy", got=named
            )
        return losses.get("softmax_cross_entropy")

    def outputs(self, loss: losses.Loss) -> int:
        return len(self.vocabulary)

    def network_options(self) -> dict[str, Any]:
        return {"symbols": len(self.vocabulary), "every_step": True, "stateful": True}

    def network(self, net: str, wanted: dict[str, Any], hyperparameters: dict[str, Any]) -> Network:
        share = {"output": 1 / self.length}  # the loss is then that of one symbol, in nats
        made = super().network(net, {**wanted, "loss_weights": share}, hyperparameters)
        _check_steps(made)
        return made

    def settled(self, net_name: str, wanted: dict[str, Any]) -> tuple[Network, dict[str, Any]]:
        net, training = super().settled(net_name, wanted)
        training["batch_size"] = min(training["batch_size"], self.sizes["train"])
        return net, training

    def fit(self, net: Network, training: dict[str, Any], **options: Any) -> History:
        """As `Task.fit`; each of the ``batch_size`` examples of an update is a stream that goes on in the next."""
        self.streams = training["batch_size"]
        history = super().fit(net, training, **options)
        net.reset_state()  # where the streams ended is no place that anybody goes on from
        return history

    # --- what comes of it ---------------------------------------------------------------------------------------

    def measure(self, net: Network, rows: Windows, names: Sequence[str]) -> Finding:
        self.metrics(names)
        first, last = rows.part
        ids = np.asarray(rows.values[max(first - 1, 0) : last])
        values = _measured(net, ids)
        if rows is self.windows.train:
            return Finding(values)
        baselines = n_grams(np.asarray(rows.values[: self.windows.train.part[1]]), ids, len(self.vocabulary), ORDERS)
        own = values["bits_per_symbol"]
        lines = [(f"{order}-gram", bits) for order, bits in enumerate(baselines, 1)] + [("the network", own)]
        best = int(np.argmin(baselines)) + 1
        gain = baselines[best - 1] - own
        verdict = (
            f"the network needs {gain:.3f} bits less than the best of them, the {best}-gram"
            if gain > 0
            else f"the network loses: it needs {-gain:.3f} bits more than the {best}-gram"
        )
        width = max(len(name) for name, _ in lines)
        text = "\n".join(f"{name:<{width}}  {bits:.3f}" for name, bits in lines)
        document = {"baselines": {f"{order}-gram": bits for order, bits in enumerate(baselines, 1)}}
        return Finding(values, document, f"Bits to say the next {self.unit}", text, verdict)

    @classmethod
    def evaluate(cls, net: Network, source: str, names: Sequence[str] | None, **reading: Any) -> tuple[Finding, int]:
        cls.refuse(**reading, metrics=names)
        vocabulary = vocabulary_of(net)
        _, text = read_text(source)
        ids = vocabulary.encode(text)
        unknown = int((ids == vocabulary.unknown).sum())
        note = f"{unknown:,} of {len(ids):,} {vocabulary.unit}s are unknown to the network" if unknown else ""
        return Finding(_measured(net, ids), note=note), len(ids)

    @classmethod
    def predict(cls, net: Network, source: str, *, probabilities: bool = False, **reading: Any) -> Said:
        cls.refuse(**reading)
        vocabulary = vocabulary_of(net)
        _, text = read_text(source)
        ids = vocabulary.encode(text)
        if len(ids) < 2:
            raise DataError("there is nothing to go on from", where=source, expected=f"two {vocabulary.unit}s or more")
        likely, chance = [], []
        for logits, targets in _read(net, ids[None]):
            p = _softmax(logits[:, :, 0])
            likely += [vocabulary.symbols[i] for i in p.argmax(axis=1)]
            chance += [float(f"{each:.6g}") for each in p[np.arange(len(p)), targets[0]]]
        symbols = [vocabulary.symbols[i] for i in ids[1:]]
        columns: dict[str, list[Any]] = {vocabulary.unit: symbols, "predicted": likely}
        document = {"predictions": likely, "symbols": symbols}
        if probabilities:
            columns[f"p({vocabulary.unit})"] = document["probability_of_symbol"] = chance
        return Said(columns, document)

    def next_steps(self, run: Path) -> list[tuple[str, str]]:
        return [
            (f'pellucid generate {run} --seed-text "The " --length 300', "what it writes"),
            (f"pellucid evaluate {run} OTHER.txt", "how many bits it needs for another text"),
            (f"pellucid predict {run} OTHER.txt", "what it expected after every symbol"),
            (f"pellucid show {run}", "layers, hyperparameters, parameters"),
        ]


def read_text(source: str, encoding: str = "utf-8") -> tuple[str, str]:
    """A name and the text of a file, of the text files of a folder, or of a set that `prose` knows.

    Raises:
        DataError: there is no such text, or it cannot be read.
    """
    path = Path(source)
    if source in NAMES and not path.is_file():
        return source, prose(source)
    if not path.exists():
        known = ", ".join(NAMES)
        what = "this set is no running text" if source in data.names() else "there is no such text"
        raise DataError(what, where=source, expected=f"a file, a folder of {', '.join(ENDINGS)} files, or {known}")
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.suffix in ENDINGS)
    try:
        text = "\n\n".join(file.read_text(encoding=encoding) for file in files)
    except (UnicodeDecodeError, LookupError) as problem:
        raise DataError(
            "the text cannot be read", where=source, got=str(problem), hint="--encoding says which"
        ) from None
    if not text:
        raise DataError("there is no text", where=source, expected=f"text, or files that end in {', '.join(ENDINGS)}")
    return path.stem, text


def vocabulary_of(net: Network) -> Vocabulary:
    """The vocabulary that a network was trained with.

    Raises:
        ParameterError: it was trained for another task.
    """
    said = net.preprocessing or {}
    if "vocabulary" not in said:
        raise ParameterError(
            "this network does not write",
            expected="one trained for text",
            hint="pellucid train fortunes --task text",
        )
    return Vocabulary.from_document(said["vocabulary"])


# --- a network along a text -------------------------------------------------------------------------------------


def generate(
    net: Any,
    seed_text: str | None = None,
    *,
    length: int = 200,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """What a network writes: one symbol after the other, each drawn, read, and the next one drawn.

        p(next = k) = softmax(Z[L] / temperature)_k         temperature 0: always the most probable

    Arguments:
        net: a network trained for text, a run, or the path of a saved network.
        seed_text: what it reads before; None is the most frequent symbol of its training text.
        length: symbols to write.
        temperature: from 0. Below 1 it plays safe, above 1 it dares.
        seed: of the draws.

    Returns:
        The new text alone.

    Raises:
        DataError: a symbol in ``seed_text`` that the network does not know.
        ParameterError: a network that does not write, a temperature below 0, no length or no seed.
    """
    if not isinstance(net, Network):
        from pellucid.experiment import opened

        net = opened(os.fspath(net))[0]
    vocabulary = vocabulary_of(net)
    _check_steps(net)
    if not (isinstance(temperature, Real) and 0 <= temperature < math.inf):
        raise ParameterError("no temperature", where="temperature", expected="0 or more", got=repr(temperature))
    for name, number, least in (("length", length, 1), ("seed", seed, 0)):
        if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < least:
            raise ParameterError(f"{name} is a whole number from {least}", where="generate", got=repr(number))
    ids = checked_ids(vocabulary, vocabulary.symbols[len(SPECIALS)] if seed_text is None else seed_text)
    rng = np.random.default_rng(seed)
    carried, written = net.start(), []
    for _ in range(length):
        logits, carried = _advanced(net, ids[:, None], carried)
        written.append(_drawn(logits[-1, :, 0], temperature, rng))
        ids = np.array(written[-1:])
    return vocabulary.decode(written)


def checked_ids(vocabulary: Vocabulary, text: str) -> np.ndarray:
    """The ids of a text of known symbols.

    Raises:
        DataError: it holds others, or none.
    """
    symbols = vocabulary.split(text)
    unknown = list(dict.fromkeys(symbol for symbol in symbols if symbol not in vocabulary))
    if unknown:
        many = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise DataError(
            f"{vocabulary.unit}s that the network has never seen",
            where="seed text",
            expected=f"of the {len(vocabulary) - len(SPECIALS):,} {vocabulary.unit}s of its training text",
            got=" ".join(map(repr, unknown[:20])) + many,
        )
    if not symbols:
        raise DataError("there is nothing to go on from", where="seed text", expected=f"one {vocabulary.unit} or more")
    return vocabulary.encode(text)


def _drawn(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """The id of a symbol; never of ``<start>``, ``<end>`` or ``<unknown>``, which stand for no text."""
    logits = np.asarray(logits, np.float64)
    logits[: len(SPECIALS)] = -np.inf
    if temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # -∞, where the temperature is next to nothing
        p = np.exp((logits - logits.max()) / temperature)
    return int(rng.choice(len(p), p=p / p.sum()))


def _check_steps(net: Network) -> None:
    """Refuse a network that cannot go through a text step by step."""
    for step in net.steps:
        if not (step.layer.any_length and step.layer.causal):
            raise ParameterError(
                "what comes next cannot be learned by a network that sees it",
                where=step.label,
                expected="layers that go from step to step, such as LSTM and TimeDistributed",
                got=repr(step.layer),
            )


def _advanced(net: Network, ids: np.ndarray, carried: Tree) -> tuple[np.ndarray, Tree]:
    """The outputs (T, n, m) of ids (T, m) read from where ``carried`` stands, and where it stands then."""
    state = {**net.state, **carried}
    outputs, caches = net.forward_pass(net.parameters, state, {"input": net.ops.asarray(ids, net.dtype)}, PREDICT)
    return net.ops.to_numpy(outputs["output"]), net.carried(caches)


def _read(net: Network, ids: np.ndarray) -> Any:
    """Logits (T, n, m) and targets (m, T) of ids (m, T + 1), part by part: memory does not grow with it."""
    carried = net.start()
    for begin in range(0, ids.shape[1] - 1, STEPS):
        part = ids[:, begin : begin + STEPS + 1]
        logits, carried = _advanced(net, part[:, :-1].T, carried)
        yield logits, part[:, 1:]


def _measured(net: Network, ids: np.ndarray) -> dict[str, float]:
    """What the symbols after the first cost, read in several places side by side.

    Raises:
        DataError: fewer than two symbols.
    """
    count = len(ids) - 1
    if count < 1:
        raise DataError("there is nothing to go on from", where="text", expected="two symbols or more")
    streams = max(1, min(MOST_STREAMS, count // 1000))
    each = count // streams
    starts = each * np.arange(streams)
    blocks = [ids[starts[:, None] + np.arange(each + 1)]]
    if left := count - each * streams:
        blocks.append(ids[None, -left - 1 :])
    nats, right = 0.0, 0
    for block in blocks:
        for logits, targets in _read(net, block):
            logits = np.asarray(logits, np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            own = np.take_along_axis(logits, targets.T[:, None], axis=1)[:, 0]
            nats += float((np.log(np.exp(logits).sum(axis=1)) - own).sum())
            right += int((logits.argmax(axis=1) == targets.T).sum())
    return {"loss": nats / count, "bits_per_symbol": nats / count / math.log(2), "accuracy": right / count}


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def n_grams(training: np.ndarray, ids: np.ndarray, symbols: int, orders: int) -> list[float]:
    """Bits per symbol that counting needs: for each order n a model of the n - 1 symbols before, from training ids.

        p_n(c | h) = (count(h c) + d(h) p_{n-1}(c | h')) / (count(h) + d(h))        p_0 = 1 / symbols

    d(h) is how many different symbols followed h, and h' is h without its first symbol.

    Arguments:
        training: ids (T,).
        ids: those to be told, all but the first (T,).
        symbols: how many ids there are.
        orders: the largest n.

    Source: Witten and Bell 1991; Chen and Goodman 1999, section 2.4.
    """
    p = np.full(len(ids) - 1, 1 / symbols)
    bits = []
    for n in range(1, orders + 1):
        if symbols**n >= 2**63:
            break
        seen, asked = _grams(training, n, symbols), _grams(ids[1:] if n == 1 else ids, n, symbols)
        grams, counts = np.unique(seen, return_counts=True)
        contexts, first = np.unique(grams // symbols, return_index=True)
        followers = np.diff([*first, len(grams)])
        totals = np.add.reduceat(counts, first)
        count, total, different = (
            _looked_up(keys, values, wanted)
            for keys, values, wanted in (
                (grams, counts, asked),
                (contexts, totals, asked // symbols),
                (contexts, followers, asked // symbols),
            )
        )
        known = total > 0
        own = p[max(n - 2, 0) :]  # a view; the first symbols have no such long past
        own[known] = (count[known] + different[known] * own[known]) / (total[known] + different[known])
        bits.append(float(-np.log2(p).mean()))
    return bits


def _grams(ids: np.ndarray, n: int, symbols: int) -> np.ndarray:
    """Each n consecutive ids as one number."""
    grams = np.zeros(len(ids) - n + 1, np.int64)
    for i in range(n):
        grams = grams * symbols + ids[i : len(ids) - n + 1 + i]
    return grams


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def _share(given: Any, part: str) -> float:
    if isinstance(given, float) and 0 < given < 1:
        return given
    raise ParameterError(
        "of a text a share is held out", where=f"--{part}", expected="above 0 and below 1, such as 0.05", got=given
    )


TASK = Text
