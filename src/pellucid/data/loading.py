"""`load`: from a path or a name to a data set."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from pellucid.data import catalog
from pellucid.data.dataset import Dataset
from pellucid.data.reading import Options, read
from pellucid.errors import DataError, ParameterError, unknown


def load(source: str | os.PathLike[str], **options: Any) -> Dataset:
    """The data at a path, or of a name in the catalog; nothing is ever fetched from elsewhere, nothing substituted.

    A name is looked for as a path, in the data home (``PELLUCID_DATA_HOME``, else the user's cache folder), and among
    the installed packages, which are found but not imported.

    Arguments:
        source: CSV, TSV (also compressed), Parquet, NPZ, NPY, IDX, an image, a folder of images by class, a folder of
            MNIST-style IDX files, or a name such as ``"digits"``.
        options: see `Options`: target, task, name, delimiter, header, encoding, decimal, categorical, text,
            column_names, drop, missing, dates, images, image_size, channels, keys, like, memory_limit, chunk_bytes.

    Returns:
        The data set; its ``report`` says what was decided.

    Raises:
        DataError: nothing there, or it cannot be used as it is.
        ParameterError: an unknown name or option.
    """
    known = Options.__dataclass_fields__
    for option in options:
        if option not in known:
            raise unknown("option", option, known, where="load")
    wanted = Options(**options)
    path = Path(source).expanduser()
    text = os.fspath(source)
    if path.exists():
        dataset = read(path, wanted)
        if text in catalog.names():
            dataset.report.append(f"read from {path.resolve()}; the catalog has a set of the same name")
        return dataset
    if text in catalog.names():
        free = {"like", "memory_limit", "chunk_bytes", "name", "task"}
        given = [option for option, value in options.items() if option not in free and value not in (None, (), [])]
        if given:
            raise ParameterError(
                f"{', '.join(given)}= cannot be used with a set of the catalog, which is read as its card says",
                where=text,
                hint="give the path of the file to read it in another way",
            )
        return catalog.open_set(text, wanted)
    if path.suffix or len(path.parts) > 1:
        folder = path.parent
        near = (
            difflib.get_close_matches(path.name, [each.name for each in folder.iterdir()], n=3)
            if folder.is_dir()
            else []
        )
        raise DataError(
            "there is no such file or folder",
            where=text,
            hint=f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else None
            if folder.is_dir()
            else f"{folder} does not exist either",
        )
    raise unknown("data set", text, catalog.names(), where="neither a file or folder nor a name in the catalog")
