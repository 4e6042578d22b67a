"""Pairs of texts, one to be read and one to be written: spelling and sound, English and Korean, question and answer."""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pellucid.data import catalog
from pellucid.data.text import Vocabulary
from pellucid.data.texts import read_stamps
from pellucid.errors import DataError, counted, unknown
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
    report = [f"{counted(others, 'entry is', 'entries are')} left out: other characters than a to z in the word"]
    if twice:
        report.append(f"{counted(twice, 'entry is', 'entries are')} left out: there already, but for the stress")
    return Pairs("cmudict", *_columns(words), ("character", "word"), report)


def english_korean(
    source: str = "stamps",
    path: str | os.PathLike[str] | None = None,
    *,
    units: tuple[str, str] = ("word", "character"),
    longest: int = 8,
) -> Pairs:
    """Short English texts with their Korean translations; the same pair is there once.

    Arguments:
        source: ``"stamps"``, what the pictures of Tux Paint are called; or ``"office"``, what LibreOffice's windows
            say. Of the latter, what is no plain text is left out, and counted in the report: translations without a
            Korean letter, place holders, markup and addresses, characters other than those of plain English, and
            more than ``longest`` words, 60 English or 40 Korean characters; marks of keyboard shortcuts are removed.
        path: the folder of the files; that of the set when None.
        units: of which symbols the texts consist: ``"character"`` of Korean is a syllable, ``"jamo"`` its letters.
        longest: words of an English text of ``"office"``.

    Raises:
        ParameterError: another source.
        DataError: the set is not on this machine, or a file cannot be read.
    """
    readers = {"stamps": _stamps, "office": _office}
    if source not in readers:
        raise unknown("source", source, readers, where="english_korean")
    if path is None:
        files = catalog.files_of(source)
    else:
        files = sorted(each for each in Path(path).rglob("*") if each.suffix in (".txt", ".mo"))
    report: list[str] = []
    pairs = readers[source](files, longest, report)
    once = dict.fromkeys(pairs)
    report.append(f"{len(once):,} of {len(pairs):,} pairs differ: the others are left out")
    return Pairs(f"english-korean-{source}", *_columns(once), units, report)


def _stamps(files: Sequence[Path], longest: int, report: list[str]) -> list[tuple[str, str]]:
    pairs = read_stamps(files, "ko")
    report.append(f"{len(pairs):,} of {counted(len(files), 'stamp has', 'stamps have')} a Korean name")
    return pairs


_MARKUP = re.compile(r"[%$<>\\{}#@|\n\t]|https?:|www\.")
_PLAIN = re.compile(r"[A-Za-z0-9 ,.'’?!:;()/&\"…–-]+")


def _office(files: Sequence[Path], longest: int, report: list[str]) -> list[tuple[str, str]]:
    pairs, left_out = [], Counter[str]()
    for file in files:
        for message, translation in read_mo(file).items():
            english = re.sub("[_~]", "", message.rpartition("\x04")[2]).strip()
            korean = re.sub(r"\s*\([_~][A-Za-z0-9]\)|[_~]", "", translation).strip()
            if not re.search("[가-힣]", korean):
                left_out["no Korean letter in the translation"] += 1
            elif _MARKUP.search(english + korean):
                left_out["place holders, markup or addresses"] += 1
            elif len(english.split()) > longest or len(english) > 60 or len(korean) > 40:
                left_out["too long"] += 1
            elif not _PLAIN.fullmatch(english):
                left_out["other characters than those of plain English"] += 1
            else:
                pairs.append((english, korean))
    said = left_out.most_common()
    report += [f"{counted(count, 'message is', 'messages are')} left out: {why}" for why, count in said]
    return pairs


def read_mo(path: Path) -> dict[str, str]:
    """Messages and translations of a compiled catalog of GNU gettext; those with a plural are left out.

    A message that depends on its context is ``context``, ``\\x04``, message.

    Raises:
        DataError: not such a file.

    Source: GNU gettext manual, section 10.3, The Format of GNU MO Files.
    """
    data = path.read_bytes()
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(data[:4])
    try:
        if order is None:
            raise ValueError("another file type")
        count, *tables = struct.unpack_from(f"{order}3I", data, 8)
        texts = []
        for table in tables:
            places = struct.unpack_from(f"{order}{2 * count}I", data, table)
            texts.append([data[at : at + size].decode() for size, at in zip(places[::2], places[1::2], strict=True)])
    except (ValueError, struct.error) as problem:
        raise DataError("no catalog of GNU gettext", where=str(path), got=str(problem)) from None
    return {message: text for message, text in zip(*texts, strict=True) if message and "\0" not in message}


def chat(language: str = "english", path: str | os.PathLike[str] | None = None, *, every_turn: bool = False) -> Pairs:
    """What is said and what is answered, from the corpus of ChatterBot; the same exchange is there once.

    Arguments:
        language: ``"english"`` or ``"korean"``.
        path: the folder of ``.yml`` files; that of the set when None.
        every_turn: False takes the first two turns of each conversation; True every turn with the one after it, as
            ChatterBot does. In some files what follows the first answer are other answers to the same question.

    Raises:
        ParameterError: another language.
        DataError: the set is not on this machine, or a file cannot be read.
    """
    if path is None:
        if language not in ("english", "korean"):
            raise unknown("language", language, ("english", "korean"), where="chat")
        files = catalog.files_of("chat", language)
    else:
        files = sorted(Path(path).glob("*.yml"))
    talks = [talk for file in files for talk in read_conversations(file)]
    turns = [(talk[i], talk[i + 1]) for talk in talks for i in range(len(talk) - 1 if every_turn else len(talk) > 1)]
    once = dict.fromkeys(turns)
    report = [f"{len(once):,} of {len(turns):,} exchanges differ: the others are left out"]
    return Pairs(f"chat-{language}", *_columns(once), report=report)


def read_conversations(path: Path) -> list[list[str]]:
    """The conversations in a ``.yml`` file of ChatterBot's corpus, turn by turn.

    Of YAML just what these files use is read: lists in a list, plain and quoted text over one or several lines, and
    literal blocks.

    Raises:
        DataError: a line that is nothing of this.
    """
    talks: list[list[str]] = []
    inside = False
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        starts = re.match(r"(- (?:- )?|  - )(.*)", line)
        if not inside or not line.strip():
            inside = inside or line.startswith("conversations:")
            if inside and talks and talks[-1][-1].startswith("|"):
                talks[-1][-1] += "\n"
        elif starts and (starts[1][0] == "-" or talks):
            if starts[1][0] == "-":  # one file forgets the second dash
                talks.append([])
            talks[-1].append(starts[2].strip())
        elif talks and line.startswith("    "):
            block = talks[-1][-1].startswith("|")
            talks[-1][-1] += "\n" + line[4:] if block else " " + line.strip()
        else:
            raise DataError("no turn of a conversation", where=f"{path}, line {number}", got=repr(line))
    return [[text for text in map(_unquoted, talk) if text] for talk in talks]


def _unquoted(text: str) -> str:
    text = text.strip()
    if text[:1] == "|":
        return text[1:].lstrip("-+").strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'").strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1]).strip()
    return text


def _columns(pairs: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    pairs = list(pairs)
    return [text for text, _ in pairs], [text for _, text in pairs]
