"""Text as numbers: a vocabulary of characters, words or Korean letters, built on training text alone."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pellucid.errors import DataError, ParameterError, unknown
from pellucid.sequences import Sequences

START, END, UNKNOWN = "<start>", "<end>", "<unknown>"
SPECIALS = (START, END, UNKNOWN)
FORMAT = 1


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", text)


def _sentence(words: Iterable[str]) -> str:
    return re.sub(r" (?=[.,!?;:…](?: |$))", "", " ".join(words))


def _jamo(text: str) -> list[str]:
    return list(unicodedata.normalize("NFD", text))


def _syllables(letters: Iterable[str]) -> str:
    return unicodedata.normalize("NFC", "".join(letters))


UNITS: dict[str, tuple[Callable[[str], list[str]], Callable[[Iterable[str]], str]]] = {
    "character": (list, "".join),
    "word": (_words, _sentence),
    "jamo": (_jamo, _syllables),
}
"""How text falls into symbols, and how symbols become text again."""


class Vocabulary:
    """Symbols and their ids: 0 ``<start>``, 1 ``<end>``, 2 ``<unknown>``, then the symbols.

        vocabulary = Vocabulary.build(["a cat", "a dog"], unit="character")
        vocabulary.decode(vocabulary.encode("a cod", end=True))           # 'a cod'

    Padding has no id: a mask says which steps count.

    Arguments:
        symbols: the known symbols, in the order of their ids.
        unit: ``"character"``; ``"word"``, which are words and marks of punctuation, apart; or ``"jamo"``, characters
            with Korean syllables taken apart into their letters (Unicode's NFD; NFC puts them together again).

    Raises:
        ParameterError: an unknown unit, a symbol that is there twice or that is one of the three.
    """

    def __init__(self, symbols: Iterable[str], unit: str = "character") -> None:
        if unit not in UNITS:
            raise unknown("unit", unit, UNITS, where="Vocabulary")
        self.symbols, self.unit = [*SPECIALS, *symbols], unit
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        if len(self._ids) != len(self.symbols):
            twice = next(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
            raise ParameterError("a symbol is there twice", where="Vocabulary", got=repr(twice))

    @classmethod
    def build(
        cls, texts: Iterable[str], unit: str = "character", *, least: int = 1, most: int | None = None
    ) -> Vocabulary:
        """The symbols of some texts, the most frequent first, equally frequent ones in the order of the alphabet.

        Arguments:
            texts: those of the training examples; what only other text has is unknown.
            unit: see the class.
            least: how often a symbol must occur to be known.
            most: how many symbols are known at most.

        Raises:
            ParameterError: a string instead of a list of them.
            DataError: not a single symbol.
        """
        if isinstance(texts, str):
            raise ParameterError("takes a list of texts", where="Vocabulary.build", got=repr(texts[:40]), hint="[text]")
        empty = cls([], unit)
        counts = Counter(symbol for text in texts for symbol in empty.split(text))
        known = sorted((symbol for symbol, count in counts.items() if count >= least), key=lambda s: (-counts[s], s))
        if not known[:most]:
            raise DataError(
                "there is not a single symbol", where="Vocabulary.build", expected="texts that are not empty"
            )
        return cls(known[:most], unit)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.symbols, self.unit) == (other.symbols, other.unit)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self):,} {self.unit}s, 3 of them special>"

    @property
    def start(self) -> int:
        """The id of ``<start>``."""
        return self._ids[START]

    @property
    def end(self) -> int:
        """The id of ``<end>``."""
        return self._ids[END]

    @property
    def unknown(self) -> int:
        """The id that every symbol gets that is not known."""
        return self._ids[UNKNOWN]

    def split(self, text: str) -> list[str]:
        """The symbols of a text, known or not."""
        return UNITS[self.unit][0](text)

    def join(self, symbols: Iterable[str]) -> str:
        """The text of some symbols."""
        return UNITS[self.unit][1](symbols)

    def encode(self, text: str, *, start: bool = False, end: bool = False) -> np.ndarray:
        """The ids of a text: int64 (T,).

        Arguments:
            text: what is not known in it becomes ``<unknown>``.
            start, end: whether ``<start>`` goes before it, ``<end>`` behind it.
        """
        ids = [self._ids.get(symbol, self.unknown) for symbol in self.split(text)]
        return np.array([*[self.start] * start, *ids, *[self.end] * end], np.int64)

    def encode_all(self, texts: Sequence[str], *, start: bool = False, end: bool = False) -> Sequences:
        """The ids of several texts, each as `encode` gives them.

        Raises:
            DataError: a text without a symbol.
        """
        return Sequences([self.encode(text, start=start, end=end) for text in texts])

    def decode(self, ids: Any) -> str:
        """The text of some ids: ``<start>`` is left out, and what comes from the first ``<end>`` on.

        Raises:
            DataError: an id outside the vocabulary.
        """
        return self.join(self.symbols_of(ids))

    def symbols_of(self, ids: Any) -> list[str]:
        """The symbols that `decode` makes a text of."""
        ids = np.asarray(ids, np.int64).reshape(-1)
        outside = np.flatnonzero((ids < 0) | (ids >= len(self)))
        if outside.size:
            raise DataError(
                "an id is outside the vocabulary",
                where=f"step {outside[0]}",
                expected=f"0 … {len(self) - 1}",
                got=int(ids[outside[0]]),
            )
        ends = np.flatnonzero(ids == self.end)
        kept = ids[: ends[0]] if ends.size else ids
        return [self.symbols[i] for i in kept if i != self.start]

    def document(self) -> dict[str, Any]:
        """All of it as values that JSON and TOML hold; `from_document` is the inverse."""
        return {"format": FORMAT, "unit": self.unit, "symbols": self.symbols[len(SPECIALS) :]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that wrote ``document``.

        Raises:
            DataError: another format, or an entry that is missing or unknown.
        """
        if set(document) != {"format", "unit", "symbols"} or document["format"] != FORMAT:
            raise DataError(
                "this vocabulary was written by another version of pellucid, or is damaged",
                expected=f"format {FORMAT} with unit and symbols",
                got=", ".join(f"{key}" for key in document),
            )
        return cls(document["symbols"], document["unit"])
