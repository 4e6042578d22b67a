"""Pairs of texts, one to be read and one to be written: spelling and sound, English and Korean, question and answer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pellucid.data import catalog
from pellucid.data.text import Vocabulary
from pellucid.errors import DataError
from pellucid.sequences import Sequences


@dataclass(frozen=True)
class Pairs:
    """Texts to be read and texts to be written, row by row.

    Arguments:
        name: what to call it.
        inputs, outputs: (m,) texts.
        units: of which symbols they consist: see `Vocabulary`.
        report: sentences on what was decided in reading them.
    """

    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    units: tuple[str, str] = ("character", "character")
    report: Sequence[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.outputs):
            raise DataError(
                "inputs and outputs differ in number",
                where=self.name,
                expected=f"{len(self.inputs):,} outputs",
                got=f"{len(self.outputs):,}",
            )
        if not len(self.inputs):
            raise DataError("there is not a single pair", where=self.name)

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        return f"<Pairs {self.name}: {len(self):,}, such as {self.inputs[0]!r} → {self.outputs[0]!r}>"

    @property
    def groups(self) -> np.ndarray:
        """Numbers (m,) that are equal where the same text is read, in whatever case; what a split keeps together:
        ``split_indices(len(pairs), groups=pairs.groups)``."""
        return np.unique([text.casefold() for text in self.inputs], return_inverse=True)[1]

    def take(self, rows: np.ndarray | Sequence[int]) -> Pairs:
        """The pairs at ``rows``."""
        chosen = [int(row) for row in rows]
        inputs, outputs = [self.inputs[row] for row in chosen], [self.outputs[row] for row in chosen]
        return Pairs(self.name, inputs, outputs, self.units, self.report)

    def within(self, longest_input: int, longest_output: int | None = None) -> Pairs:
        """The pairs of at most so many symbols.

        Raises:
            DataError: there is none.
        """
        read, write = (Vocabulary([], unit) for unit in self.units)
        limit = longest_input if longest_output is None else longest_output
        return self.take(
            [
                row
                for row, (x, y) in enumerate(zip(self.inputs, self.outputs, strict=True))
                if len(read.split(x)) <= longest_input and len(write.split(y)) <= limit
            ]
        )

    def vocabularies(self, *, least: int = 1, most: int | None = None) -> tuple[Vocabulary, Vocabulary]:
        """The vocabularies of inputs and outputs; to be asked of the training pairs, ``pairs.take(rows.train)``."""
        read, write = self.units
        return (
            Vocabulary.build(self.inputs, read, least=least, most=most),
            Vocabulary.build(self.outputs, write, least=least, most=most),
        )

    def encode(self, vocabularies: tuple[Vocabulary, Vocabulary]) -> tuple[Sequences, Sequences]:
        """Ids of the inputs, and of the outputs between ``<start>`` and ``<end>``.

        A decoder reads an output without its last id and is to answer it without its first.
        """
        read, write = vocabularies
        return read.encode_all(self.inputs), write.encode_all(self.outputs, start=True, end=True)

    def answers(self) -> dict[str, list[str]]:
        """Every output that stands beside each input: a prediction is right that equals one of them."""
        answers: dict[str, list[str]] = {}
        for text, output in zip(self.inputs, self.outputs, strict=True):
            answers.setdefault(text, []).append(output)
        return answers


def pronunciations(path: str | os.PathLike[str] | None = None, *, stress: bool = False) -> Pairs:
    """English words and how they are said: letters to phonemes, from the CMU Pronouncing Dictionary.

    Words of anything but the letters a to z are left out, and counted in the report. A word with several
    pronunciations has a row for each.

    Arguments:
        path: the file; that of the set ``"cmudict"`` when None.
        stress: whether vowels keep their stress: ``AH0``, ``AH1``, ``AH2`` rather than ``AH``.

    Returns:
        pairs such as ``"cat"`` → ``"K AE T"``; the outputs are words to a `Vocabulary`.

    Raises:
        DataError: the set is not on this machine, or a line cannot be read.
    """
    file = Path(path) if path is not None else catalog.file_of("cmudict")
    words: dict[tuple[str, str], None] = {}
    others = twice = 0
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        entry = line.partition("#")[0].split()
        if not entry:
            continue
        if len(entry) == 1:
            raise DataError("a word without a phoneme", where=f"{file}, line {number}", got=repr(line))
        word = re.sub(r"\(\d+\)$", "", entry[0])
        if not re.fullmatch("[a-z]+", word):
            others += 1
            continue
        sounds = " ".join(entry[1:] if stress else [phoneme.rstrip("012") for phoneme in entry[1:]])
        twice += (word, sounds) in words
        words[word, sounds] = None
    report = [f"{others:,} entries are left out: other characters than a to z in the word"]
    if twice:
        report.append(f"{twice:,} entries are left out: but for the stress they are there already")
    return Pairs("cmudict", *_columns(words), ("character", "word"), report)


def _columns(pairs: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    pairs = list(pairs)
    return [text for text, _ in pairs], [text for _, text in pairs]
