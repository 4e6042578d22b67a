"""Running text, for networks that go on writing it."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data import catalog
from pellucid.data.series import Parts, windows
from pellucid.data.text import Vocabulary
from pellucid.data.texts import read_sayings
from pellucid.errors import DataError, unknown


def prose(name: str = "fortunes", path: str | os.PathLike[str] | None = None, *, seed: int = 0) -> str:
    """One long text, its pieces in an order drawn by ``seed`` so that its beginning is like its end.

    Arguments:
        name: ``"fortunes"``, 2.4 million characters of sayings and jokes of the Unix program fortune; or
            ``"python"``, the sources of Python's own library as it is on this machine, which differ from version to
            version.
        path: the folder of the files; None looks for the set, or for the library.
        seed: of the order.

    Raises:
        ParameterError: another name.
        DataError: the set is not on this machine, or there is no text in the folder.
    """
    if name == "fortunes":
        files = catalog.files_of("fortunes") if path is None else sorted(Path(path).iterdir())
        pieces = list(dict.fromkeys(saying for of in read_sayings(files).values() for saying in of))
    elif name == "python":
        folder = Path(path) if path is not None else Path(sysconfig.get_path("stdlib"))
        pieces = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.glob("*.py"))]
    else:
        raise unknown("prose", name, ("fortunes", "python"))
    if not pieces:
        raise DataError("there is no text in this folder", where=str(path))
    order = np.random.default_rng(seed).permutation(len(pieces))
    return "\n\n".join(pieces[i] for i in order)


def text_windows(
    text: str,
    length: int,
    *,
    unit: str = "character",
    validation: float = 0.05,
    test: float = 0.05,
    stride: int | None = None,
    **options: Any,
) -> tuple[Vocabulary, Parts]:
    """Windows of a text, each symbol's target the one after it, and the vocabulary of the training part.

    Arguments:
        text: in the order of reading.
        length: symbols in a window.
        unit: see `Vocabulary`.
        validation, test: share of the symbols, at the end of the text.
        stride: symbols from one window to the next; ``length`` when None.
        options: ``least``, ``most`` of `Vocabulary.build`.

    Returns:
        the vocabulary; and training, validation and test windows, which give x (k, length) and y (k, length) ids.

    Raises:
        ParameterError, DataError: as `windows` and `Vocabulary`.
    """
    split = Vocabulary([], unit)
    symbols = split.split(text)
    training = len(symbols) - round(len(symbols) * validation) - round(len(symbols) * test)
    vocabulary = Vocabulary.build([split.join(symbols[:training])], unit, **options)
    ids = vocabulary.encode(text).astype(np.int32)
    parts = windows(ids, length, validation=validation, test=test, every_step=True, stride=stride or length)
    return vocabulary, parts
