"""Translation: a text in, another out. Spelling to sound, English to Korean, a question and what is answered."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid import losses
from pellucid.data.pairs import Pairs, chat, english_korean, pronunciations
from pellucid.data.text import Vocabulary
from pellucid.errors import DataError, ParameterError, unknown
from pellucid.network.base import Network
from pellucid.network.decoding import Written, beam_search, greedy
from pellucid.sequences import Sequences
from pellucid.tasks.base import PARTS, Finding, Said, Task
from pellucid.training.split import split_indices

WIDTH = 4
"""Of the beam that writes the answers."""

SHOWN = 8  # sources, the first ones, that a finding shows
_SOME = 500  # sources of the training and validation examples that are written out: enough to compare with the test


def _short(pairs: Pairs, longest_input: int, longest_output: int) -> Pairs:
    """The pairs of at most so many symbols, and in the report how many others there are."""
    short = pairs.within(longest_input, longest_output)
    left_out = f"{len(pairs) - len(short):,} pairs are left out: over {longest_input} {pairs.units[0]}s to read"
    return replace(short, report=[*pairs.report, f"{left_out} or {longest_output} {pairs.units[1]}s to write"])


def _korean(*sources: str) -> Pairs:
    parts = [english_korean(source, units=("character", "character")) for source in sources]
    once = dict.fromkeys(pair for part in parts for pair in zip(part.inputs, part.outputs, strict=True))
    inputs, outputs = zip(*once, strict=True)
    name = parts[0].name if len(parts) == 1 else "english-korean"
    report = [line for part in parts for line in part.report]
    return _short(Pairs(name, inputs, outputs, parts[0].units, report), 40, 20)


READERS: dict[str, Callable[[], Pairs]] = {
    "cmudict": pronunciations,
    "english-korean": lambda: _korean("stamps", "office"),
    "stamps": lambda: _korean("stamps"),
    "office": lambda: _korean("office"),
    "chat": lambda: _short(chat(), 60, 100),
    "chat-korean": lambda: _short(chat("korean"), 60, 100),
}
"""The sets of pairs by name; ``"english-korean"`` is ``"stamps"`` and ``"office"`` together."""


class Rows:
    """Some pairs as ids; what `fit` takes.

    Arguments:
        pairs: the pairs.
        vocabularies: of inputs and outputs.
        some: how many of the sources are written out when they are measured; None for all.
    """

    def __init__(self, pairs: Pairs, vocabularies: tuple[Vocabulary, Vocabulary], some: int | None = None) -> None:
        self.pairs, self.vocabularies, self.some = pairs, vocabularies, some

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, indices: np.ndarray) -> tuple[dict[str, Sequences], Sequences]:
        """Source and target, the target without its last id; and the target without its first one."""
        source, target = self.pairs.take(indices).encode(self.vocabularies)
        ends = np.cumsum(target.lengths)
        shifted = [
            Sequences.joined(np.delete(target.values, left_out), target.lengths - 1)
            for left_out in (ends - 1, ends - target.lengths)
        ]
        return {"source": source, "target": shifted[0]}, shifted[1]


class Translation(Task):
    """Pairs of texts. Arguments as in `Task`.

    The data are a name in `READERS`, or a file with an input, a tab and an output on every line. All outputs of one
    input are in one part.
    """

    kind = "translation"
    title = "another text for each text"
    net = "seq2seq-attention"

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
        self.pairs, split = pairs_of(described["data"]["source"]), described["split"]
        parts = split_indices(
            len(self.pairs),
            validation=split["validation"],
            test=split["test"],
            groups=self.pairs.groups,
            seed=split["seed"],
        )
        self.split = parts
        self.name, self.report = self.pairs.name, self.pairs.report
        everything = "\n".join(f"{x}\t{y}" for x, y in zip(self.pairs.inputs, self.pairs.outputs, strict=True))
        self.fingerprint = hashlib.sha256(everything.encode()).hexdigest()
        self.sizes = dict(zip(PARTS, map(len, parts), strict=True))
        self.input_shape = (None,)
        train = self.pairs.take(parts.train)
        self.vocabularies = train.vocabularies()
        read, write = self.vocabularies
        self.longest = (max(len(read.split(x)) for x in train.inputs), max(len(write.split(y)) for y in train.outputs))

    @classmethod
    def takes(cls, source: str) -> bool:
        return source in READERS and source != "stamps" and not Path(source).exists()

    def rows(self, part: str) -> Rows:
        some = None if part == "test" else _SOME
        return Rows(self.pairs.take(getattr(self.split, part)), self.vocabularies, some)

    def arrays(self, part: str) -> tuple[Any, Any]:
        rows = self.rows(part)
        return rows.take(np.arange(len(rows)))

    def preprocessing(self) -> dict[str, Any]:
        read, write = (each.document() for each in self.vocabularies)
        return {"task": {"kind": self.kind}, "read": read, "write": write, "longest": list(self.longest)}

    def described(self) -> str:
        read, write = self.vocabularies
        return f"pairs, {len(read):,} {read.unit}s to read and {len(write):,} {write.unit}s to write"

    def loss(self, named: Any) -> losses.Loss:
        loss = losses.get(named or "softmax_cross_entropy", where="--loss")
        if not loss.of_classes or loss.binary:
            raise ParameterError(
                f"{loss.registered_name} does not fit {self.kind}", where="--loss", expected="softmax_cross_entropy"
            )
        return loss

    def outputs(self, loss: losses.Loss) -> int:
        return len(self.vocabularies[1])

    def network_options(self) -> dict[str, Any]:
        return {"source_symbols": len(self.vocabularies[0])}

    def measure(self, net: Network, rows: Rows, names: Sequence[str]) -> Finding:
        self.metrics(names)
        return measured(net, rows)

    @classmethod
    def evaluate(cls, net: Network, source: str, names: Sequence[str] | None, **reading: Any) -> tuple[Finding, int]:
        rows = Rows(pairs_of(source), _Reader.of(net).vocabularies)
        return measured(net, rows), len(rows)

    @classmethod
    def predict(cls, net: Network, source: str, *, probabilities: bool = False, **reading: Any) -> Said:
        path = Path(source)
        texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else [source]
        reader = _Reader.of(net)
        found = [beam[0] for beam in reader.write(net, reader.encode(texts, str(path) if path.is_file() else "text"))]
        answers = [reader.vocabularies[1].decode(each.ids) for each in found]
        columns: dict[str, list[Any]] = {"input": list(texts), "output": answers}
        if probabilities:
            columns["probability"] = [float(f"{math.exp(each.log_probability):.4g}") for each in found]
        cut = sum(not each.ended for each in found)
        report = [f"{cut:,} outputs were cut at {reader.longest[1] + 1} symbols"] if cut else []
        return Said(columns, {"predictions": answers, "inputs": list(texts)}, report)

    def next_steps(self, run: Path) -> list[tuple[str, str]]:
        own = self.pairs.inputs[int(self.split.train[0])]
        return [
            (f'pellucid predict {run} "{own}"', "what it makes of a text of your own, or of a file of them"),
            (f"pellucid show {run}", "layers, hyperparameters, parameters"),
            (f"pellucid step {run} --example 0", "one iteration, every value laid open"),
        ]


def pairs_of(source: str) -> Pairs:
    """The pairs of that name, or in a file of lines with an input, a tab and an output.

    Raises:
        DataError: there is no such file, or a line is no pair.
        ParameterError: an unknown name.
    """
    path = Path(source)
    if not path.is_file():
        if source in READERS:
            return READERS[source]()
        raise unknown("set of pairs", source, READERS, where="no file of this name, and")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        columns = [each.strip() for each in line.split("\t")]
        if not line.strip():
            continue
        if len(columns) != 2 or not all(columns):
            raise DataError(
                "no pair of texts", where=f"{path}, line {number}", expected="input, tab, output", got=repr(line[:60])
            )
        rows.append(columns)
    return Pairs(path.stem, [x for x, _ in rows], [y for _, y in rows])


class _Reader(NamedTuple):
    """What a trained network needs to read texts and write them."""

    vocabularies: tuple[Vocabulary, Vocabulary]
    longest: tuple[int, int]  # symbols of an input and of an output, of the training examples

    @classmethod
    def of(cls, net: Network) -> _Reader:
        document = net.preprocessing or {}
        vocabularies = Vocabulary.from_document(document["read"]), Vocabulary.from_document(document["write"])
        return cls(vocabularies, tuple(document["longest"]))

    def encode(self, texts: Sequence[str], where: str) -> Sequences:
        """Ids of a user's texts; one that the network knows in lower case only is taken so.

        Raises:
            DataError: an empty text, one longer than all the network has seen, a symbol it has never seen.
        """
        read = self.vocabularies[0]
        if not texts:
            raise DataError("there is not a single text", where=where)
        found = []
        for line, text in enumerate(texts, 1):
            place = f"{where}, line {line}" if len(texts) > 1 else where
            ids = read.encode(text)
            if (ids == read.unknown).any():
                ids = read.encode(text.casefold())
            symbols = read.split(text)
            if not symbols or not text.strip():
                raise DataError("an empty text", where=place, expected=f"1 to {self.longest[0]} {read.unit}s")
            strange = dict.fromkeys(symbols[i] for i in np.flatnonzero(ids == read.unknown) if i < len(symbols))
            if strange:
                known = sorted(read.symbols[3:], key=lambda symbol: (len(symbol), symbol))
                known = [repr(symbol) if symbol.isspace() else symbol for symbol in known]
                raise DataError(
                    f"the network was never shown {', '.join(map(repr, strange))}",
                    where=place,
                    expected=" ".join(known[:80]) + (" …" if len(known) > 80 else ""),
                    got=repr(text),
                )
            if len(ids) > self.longest[0]:
                raise DataError(
                    "a text longer than any the network was shown",
                    where=place,
                    expected=f"at most {self.longest[0]} {read.unit}s",
                    got=f"{len(ids)}",
                )
            found.append(ids)
        return Sequences(found)

    def write(self, net: Network, x: Sequences, *, width: int = WIDTH) -> list[list[Written]]:
        """The network's sequences for each source, the best first; ``width=1`` is greedy."""
        write = self.vocabularies[1]
        options: dict[str, Any] = {
            "start": write.start,
            "end": write.end,
            "never": [write.unknown],
            "longest": self.longest[1] + 1,
        }
        if width == 1:
            return [[each] for each in greedy(net, x, **options)]
        return beam_search(net, x, width=width, **options)


def measured(net: Network, rows: Rows) -> Finding:
    """Perplexity with the right beginning given, and the errors of what the network writes by itself."""
    reader = _Reader.of(net)
    write = reader.vocabularies[1]
    x, y = rows.take(np.arange(len(rows)))
    loss = net.evaluate(x, y, metrics=())["loss"]
    values = {"loss": loss, "perplexity": math.exp(loss * len(y) / y.lengths.sum())}
    answers = rows.pairs.answers()
    sources = list(answers)[: rows.some]
    ids = reader.vocabularies[0].encode_all(sources)
    references = [[write.split(answer) for answer in answers[source]] for source in sources]
    written: list[list[str]] = []
    for name, width in (("greedy_", 1), ("", WIDTH)):
        written = [write.symbols_of(beam[0].ids) for beam in reader.write(net, ids, width=width)]
        values[f"{name}symbol_error"], values[f"{name}text_error"] = errors(written, references)
    said = [write.join(symbols) for symbols in written]
    first = [
        {"input": source, "reference": answers[source], "output": output}
        for source, output in zip(sources[:SHOWN], said[:SHOWN], strict=True)
    ]
    lines = [
        f"{'=' if each['output'] in each['reference'] else '≠'} {each['input']} → {each['output']}"
        + ("" if each["output"] in each["reference"] else f"   (not {' or '.join(each['reference'])})")
        for each in first
    ]
    note = (
        f"loss: of a text; perplexity: of a symbol, the right ones before it given; errors: written by beam of "
        f"{WIDTH}, or greedily, the nearest of an input's references counting; "
        f"of training and validation the first {_SOME} inputs"
    )
    return Finding(values, {"first": first}, f"The first {len(first)} inputs", "\n".join(lines), note)


def errors(written: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> tuple[float, float]:
    """Edits per symbol of the nearest reference, and the share of texts that equal none of their references."""
    edits = symbols = wrong = 0
    for found, possible in zip(written, references, strict=True):
        distance, length = min((edit_distance(found, each), len(each)) for each in possible)
        edits, symbols, wrong = edits + distance, symbols + length, wrong + (distance > 0)
    return edits / symbols, wrong / len(written)


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The least number of symbols inserted, deleted or replaced that make b of a.

    Source: Levenshtein 1966; Wagner and Fischer 1974.
    """
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


TASK = Translation
