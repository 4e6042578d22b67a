"""Texts that say what they are: sayings by topic, names of things by language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

TOPICS = (
    *("art", "computers", "drugs", "education", "food", "kids", "law", "love", "politics", "science", "songs-poems"),
    *("sports", "startrek", "work"),
)
"""The files of ``"fortunes"`` that are named after what they are about, and hold 100 sayings or more."""

LANGUAGES = {
    "da": "Danish",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hu": "Hungarian",
    "it": "Italian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "sv": "Swedish",
    "tr": "Turkish",
}
"""The languages of ``"stamps"`` that are told apart; all are written with Latin letters."""


def topics(files: Sequence[Path], longest: int = 300) -> tuple[list[str], list[str], list[str]]:
    """Sayings of at most ``longest`` characters, the topic of each, and what was left out."""
    sayings = read_sayings(files)
    return _told_apart({topic: sayings.get(topic, ()) for topic in TOPICS}, "sayings", longest)


def languages(files: Sequence[Path]) -> tuple[list[str], list[str], list[str]]:
    """What pictures are called, the language of each text, and what was left out."""
    return _told_apart(
        {language: [name for _, name in read_stamps(files, code)] for code, language in LANGUAGES.items()}, "texts"
    )


def _told_apart(
    by_class: Mapping[str, Iterable[str]], what: str, longest: int | None = None
) -> tuple[list[str], list[str], list[str]]:
    found: dict[str, set[str]] = {}
    for name, texts in by_class.items():
        for text in texts:
            found.setdefault(text, set()).add(name)
    own = {text: next(iter(names)) for text, names in found.items() if len(names) == 1}
    short = {text: name for text, name in own.items() if longest is None or len(text) <= longest}
    report = [f"{len(own):,} of {len(found):,} {what} belong to one class: the others are left out"]
    if longest is not None:
        report.append(f"{len(short):,} of these have at most {longest} characters: the others are left out")
    return list(short), list(short.values()), report


def read_sayings(files: Sequence[Path]) -> dict[str, list[str]]:
    """The sayings of each file of the program fortune, by its name; lines of ``%`` stand between them."""
    sayings = {}
    for file in files:
        if file.suffix not in (".dat", ".u8"):
            pieces = re.split(r"^%\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            sayings[file.name] = [piece.strip("\n") for piece in pieces if piece.strip()]
    return sayings


def read_stamps(files: Sequence[Path], language: str) -> list[tuple[str, str]]:
    """Of each picture that has a name in ``language`` the English name, and that one."""
    pairs = []
    for file in files:
        english, *lines = file.read_text(encoding="utf-8").splitlines() or [""]
        names = {"en.utf8": english} | dict(line.split("=", 1) for line in lines if "=" in line)
        if name := names.get(f"{language}.utf8", "").strip():
            pairs.append((english.strip(), name))
    return pairs
