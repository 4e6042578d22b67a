"""Rows in memory or in a file: appended once, then read in any order; and the folder where pellucid keeps data."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pellucid.errors import DataError

MEMORY_LIMIT = 2**29
"""Bytes of one array that are kept in memory; what is larger goes to a file and is read row by row."""

CHUNK_BYTES = 2**22

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


class FileRows:
    """An array in a file, mapped only while rows are read, so that memory holds the rows asked for and no more.

    Arguments:
        path: the file.
        dtype: type of one element.
        shape: ``(m, …)``, examples first.
        offset: bytes before the first element.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...], offset: int = 0) -> None:
        self.path, self.dtype, self.shape, self.offset = Path(path), np.dtype(dtype), tuple(shape), offset

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.array(np.memmap(self.path, self.dtype, "r", self.offset, self.shape)[rows])


Rows = np.ndarray | FileRows


class RowWriter:
    """Collects blocks of rows; past ``memory_limit`` bytes they move to the file ``path``."""

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...], memory_limit: int) -> None:
        self.path, self.dtype, self.row_shape, self.memory_limit = path, np.dtype(dtype), row_shape, memory_limit
        self.length = 0
        self._blocks: list[np.ndarray] = []
        self._held = 0
        self._file: BinaryIO | None = None

    @property
    def spilled(self) -> bool:
        return self._file is not None

    def append(self, block: np.ndarray) -> None:
        block = np.ascontiguousarray(block, self.dtype)
        self.length += len(block)
        if self._file is not None:
            self._write(block)
            return
        self._blocks.append(block)
        self._held += block.nbytes
        if self._held > self.memory_limit:
            self.spill()

    def spill(self) -> None:
        """Move everything to the file, if it is not there already."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
            for block in self._blocks:
                self._write(block)
            self._blocks.clear()

    def _write(self, block: np.ndarray) -> None:
        assert self._file is not None
        self._file.write(block.data if block.size else b"")

    def finish(self) -> Rows:
        """The rows: an array, or `FileRows` when they went to the file."""
        shape = (self.length, *self.row_shape)
        if self._file is not None:
            self._file.close()
            return FileRows(self.path, self.dtype, shape)
        return np.concatenate([np.empty((0, *self.row_shape), self.dtype), *self._blocks])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Shelf:
    """Keeps the rows of one source: in memory, or past ``memory_limit`` bytes in ``folder``, found again by ``stamp``.

    Arguments:
        folder: of this source alone.
        stamp: says which state of the source the rows are of; with another stamp they are made anew.
    """

    def __init__(self, folder: Path, stamp: str, memory_limit: int) -> None:
        self.folder, self.stamp, self.memory_limit = folder, stamp, memory_limit

    def rows(self, dtype: Any, row_shape: tuple[int, ...], fill: Callable[[RowWriter], None]) -> Rows:
        """The rows that ``fill`` appends, or those it appended before."""
        kept = self.folder / "rows.json"
        if not kept.exists() or json.loads(kept.read_text(encoding="utf-8"))["stamp"] != self.stamp:
            with replacing(self.folder) as scratch:
                writer = RowWriter(scratch / "rows", dtype, row_shape, self.memory_limit)
                try:
                    fill(writer)
                    rows = writer.finish()
                finally:
                    writer.close()
                if not writer.spilled:
                    return rows
                notes = {"stamp": self.stamp, "length": writer.length}
                (scratch / "rows.json").write_text(json.dumps(notes), encoding="utf-8")
        length = json.loads(kept.read_text(encoding="utf-8"))["length"]
        return FileRows(self.folder / "rows", dtype, (length, *row_shape))


def data_home() -> Path:
    """Where fetched and converted data live: ``PELLUCID_DATA_HOME``, else the user's cache folder."""
    if home := os.environ.get("PELLUCID_DATA_HOME"):
        return Path(home).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "pellucid"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A path beside ``folder`` to build in: it takes the folder's place when the block ends well, else it vanishes.

    Raises:
        DataError: the disk is full or may not be written.
    """
    scratch = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        yield scratch
        if scratch.exists():
            old = scratch.with_name(scratch.name + "-old")
            if folder.exists():
                folder.rename(old)
            scratch.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as failure:
        if failure.errno not in _CANNOT_WRITE:
            raise
        raise DataError(
            f"cannot be written: {failure.strerror}",
            where=str(folder),
            hint="set PELLUCID_DATA_HOME to a folder that can be written and has room",
        ) from failure
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of one file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 over the names below ``root`` and the contents of several files, in the order of their names."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        digest.update(f"{name}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def row_chunks(count: int, row_bytes: int, chunk_bytes: int = 2**20) -> Iterator[slice]:
    """Slices over ``count`` rows, each of about ``chunk_bytes``."""
    step = max(1, chunk_bytes // max(1, row_bytes))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def row_bytes(rows: Rows) -> int:
    """Bytes of one row."""
    return int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.dtype.itemsize
