"""Sequences in ``.ts`` files, as the archives of time series classification have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pellucid.data import delimited
from pellucid.errors import DataError


def read_ts(path: Path) -> tuple[list[np.ndarray], list[str] | None]:
    """The sequences of a ``.ts`` file, as the UEA and UCR archives have them.

    After the header, a line for each example: its features separated by colons, the steps of each by commas, and
    behind the last colon the class.

    Arguments:
        path: the file.

    Returns:
        the sequences, each (T_i, features) float32; and their classes, None where the header says there are none.

    Raises:
        DataError: no such file, or a line that cannot be read.
    """
    labelled, examples, labels, in_data = True, [], [], False
    with delimited.open_text(path, "utf-8") as file:
        for number, line in enumerate(map(str.strip, file), 1):
            key, _, value = line.partition(" ")
            if not line or line.startswith("#"):
                continue
            if not in_data:
                in_data = key.lower() == "@data"
                if key.lower() in ("@classlabel", "@targetlabel"):
                    labelled = value.split()[:1] == ["true"]
                continue
            features = line.split(":")
            if labelled:
                labels.append(features.pop().strip())
            examples.append(_steps(features, f"{path}, line {number}"))
    if not examples:
        raise DataError("there is not a single sequence", where=str(path), expected="lines after @data")
    return examples, labels if labelled else None


def _steps(features: list[str], where: str) -> np.ndarray:
    try:
        columns = [np.array(feature.split(","), np.float32) for feature in features]
    except ValueError as problem:
        raise DataError("a step is not a number", where=where, got=str(problem)) from None
    if len({len(column) for column in columns}) != 1:
        lengths = sorted({len(column) for column in columns})
        raise DataError("the features have different numbers of steps", where=where, got=f"{lengths}")
    return np.stack(columns, axis=1)
