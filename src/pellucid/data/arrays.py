"""Arrays in files: NPY, NPZ and IDX. Pickled objects are never opened."""

from __future__ import annotations

import gzip
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from pellucid.data.storage import CHUNK_BYTES, FileRows, Rows, RowWriter, Shelf
from pellucid.errors import DataError

PAIRS = (("x", "y"), ("X", "y"), ("X", "Y"), ("data", "target"), ("images", "labels"), ("data", "labels"))
SPLIT = ("x_train", "y_train", "x_test", "y_test")
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_npy(path: Path, memory_limit: int) -> Rows:
    """The array in a NPY file; past ``memory_limit`` bytes only the rows that are asked for are read."""
    with path.open("rb") as file:
        if not file.read(6).startswith((b"\x93NUMPY", b"PK")):
            raise DataError("this is no NPY file", where=str(path), expected="what numpy.save writes")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as failure:
        raise _unreadable(path, failure) from None
    if not isinstance(array, np.memmap):
        raise DataError("this is an NPZ archive under another name", where=str(path), hint="rename it to .npz")
    _check_array(array.dtype, array.shape, str(path))
    if array.nbytes <= memory_limit or not array.flags.c_contiguous:
        return np.ascontiguousarray(array)
    return FileRows(path, array.dtype, array.shape, array.offset)


def _check_array(dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
    if dtype.names or not shape:
        raise DataError(
            "this array has no rows of numbers",
            where=where,
            expected="an array of shape (m, …)",
            got=f"shape {shape}, {dtype}",
        )


def _unreadable(path: Path, failure: Exception) -> DataError:
    if "allow_pickle" in str(failure) or "Python objects" in str(failure):
        return DataError(
            "this array holds Python objects, which could run code when opened",
            where=str(path),
            expected="numbers or text of fixed width",
            hint="write it again with a numeric dtype: array.astype(float)",
        )
    return DataError(f"cannot be read: {failure}", where=str(path), hint="the file is damaged or cut off")


def read_npz(
    path: Path, *, keys: Sequence[str] | None, shelf: Shelf
) -> tuple[Rows, np.ndarray | None, int | None, dict[str, list[str]]]:
    """The inputs and targets in a NPZ archive.

    Arguments:
        keys: names of inputs and targets, or of training inputs, training targets, test inputs, test targets.
        shelf: keeps the inputs.

    Returns:
        inputs (m, …), targets (m, …) or None, how many rows at the end are the official test set, and names:
        ``feature_names`` and ``target_names`` where the archive has them.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as failure:
        raise _unreadable(path, failure) from None
    with archive:
        members = {info.filename.removesuffix(".npy"): info.filename for info in archive.infolist()}
        shapes = {key: _header(path, archive, member)[:2] for key, member in members.items()}
        chosen = _choose(path, shapes, keys)
        (_, *row_shape), dtype = shapes[chosen[0]]
        for x_key, y_key in zip(chosen[::2], chosen[1::2], strict=True):
            (x_count, *x_row), x_dtype = shapes[x_key]
            if x_row != row_shape or x_dtype != dtype:
                raise DataError(
                    "training and test inputs differ in kind",
                    where=f"{path}, {x_key}",
                    expected=f"rows of shape {tuple(row_shape)}, {dtype}",
                    got=f"{tuple(x_row)}, {x_dtype}",
                )
            if shapes[y_key][0][0] != x_count:
                raise DataError(
                    "inputs and targets differ in number",
                    where=f"{path}, {x_key} and {y_key}",
                    expected=f"{x_count:,} targets",
                    got=f"shape {shapes[y_key][0]}",
                )

        def fill(writer: RowWriter) -> None:
            for key in chosen[::2]:
                _copy(path, archive, members[key], writer)

        inputs = shelf.rows(dtype, tuple(row_shape), fill)
        targets = [_whole(path, archive, members[key]) for key in chosen[1::2]]
        names: dict[str, list[str]] = {
            key: [str(each) for each in _whole(path, archive, members[key])]
            for key in ("feature_names", "target_names")
            if key in shapes and shapes[key][1].kind == "U" and len(shapes[key][0]) == 1
        }
        return inputs, np.concatenate(targets), len(targets[-1]) if len(chosen) == 4 else None, names


def _choose(path: Path, shapes: dict[str, Any], keys: Sequence[str] | None) -> Sequence[str]:
    wanted = [tuple(keys)] if keys is not None else [SPLIT, *PAIRS]
    found = [each for each in wanted if all(key in shapes for key in each)]
    if found and len(found[0]) in (2, 4):
        for key in found[0]:
            _check_array(shapes[key][1], shapes[key][0], f"{path}, {key}")
        return found[0]
    raise DataError(
        "it is not clear which array holds the inputs and which the targets",
        where=str(path),
        expected="x and y, X and y, data and target, or x_train, y_train, x_test, y_test",
        got=", ".join(f"{key} {shape}" for key, (shape, _) in shapes.items()) or "an empty archive",
        hint="keys=('inputs', 'targets') names them",
    )


def _header(path: Path, archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype, bool, IO[bytes]]:
    try:
        stream = archive.open(member)
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as failure:
        raise _unreadable(path, failure) from None
    if dtype.hasobject:
        raise _unreadable(path, ValueError("pickle: allow_pickle"))
    return shape, dtype, fortran, stream


def _whole(path: Path, archive: zipfile.ZipFile, member: str) -> np.ndarray:
    try:
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as failure:
        raise _unreadable(path, failure) from None


def _copy(path: Path, archive: zipfile.ZipFile, member: str, writer: RowWriter) -> None:
    shape, dtype, fortran, stream = _header(path, archive, member)
    if fortran:  # rows lie scattered: only the whole array can be turned
        writer.append(_whole(path, archive, member))
        return
    with stream:
        copy_rows(stream, dtype, shape, writer, path)


def copy_rows(stream: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], writer: RowWriter, path: Path) -> None:
    """Read an array from ``stream`` in pieces of rows."""
    bytes_of_row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    step = max(1, CHUNK_BYTES // max(1, bytes_of_row))
    for start in range(0, shape[0], step):
        rows = min(step, shape[0] - start)
        try:
            data = stream.read(rows * bytes_of_row)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as failure:
            raise _unreadable(path, failure) from None
        if len(data) < rows * bytes_of_row:
            raise DataError(
                "the file is cut off",
                where=str(path),
                expected=f"{shape[0]:,} rows of {bytes_of_row:,} bytes",
                got=f"{start + len(data) // bytes_of_row:,} rows",
            )
        writer.append(np.frombuffer(data, dtype).reshape(rows, *shape[1:]))


def is_idx(path: Path) -> bool:
    """Whether the name is one that IDX files have: ``…-idx3-ubyte``, ``….idx1-ubyte.gz``, ``….idx``."""
    return bool(re.search(r"idx\d?-u?byte(\.gz)?$|\.idx(\.gz)?$", path.name))


def read_idx(paths: Sequence[Path], shelf: Shelf | None = None) -> Rows:
    """The arrays in IDX files, gzipped or not, one after the other.

    Arguments:
        paths: files whose rows have the same shape.
        shelf: keeps the rows; they are held in memory when None.

    Source: LeCun, Cortes, Burges: the MNIST database, file format.
    """
    headers = [_idx_header(path) for path in paths]
    (_, *row_shape), dtype, offset = headers[0]
    for path, (shape, other, _) in zip(paths, headers, strict=True):
        if shape[1:] != tuple(row_shape) or other != dtype:
            raise DataError(
                "these files do not belong together",
                where=str(path),
                expected=f"rows of shape {tuple(row_shape)}, {dtype}, as in {paths[0].name}",
                got=f"{shape[1:]}, {other}",
            )

    def fill(writer: RowWriter) -> None:
        for path, (shape, _, _) in zip(paths, headers, strict=True):
            with _open_idx(path) as stream:
                stream.read(offset)
                copy_rows(stream, dtype, shape, writer, path)

    if shelf is not None:
        return shelf.rows(dtype.newbyteorder("="), tuple(row_shape), fill)
    writer = RowWriter(Path(), dtype.newbyteorder("="), tuple(row_shape), sys.maxsize)
    fill(writer)
    return writer.finish()


def _open_idx(path: Path) -> Any:
    return gzip.open(path) if path.name.endswith(".gz") else path.open("rb")


def _idx_header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    try:
        with _open_idx(path) as stream:
            zero, code, dimensions = struct.unpack(">HBB", stream.read(4))
            if zero or code not in _IDX_TYPES or not dimensions:
                raise struct.error(f"it begins with {zero:04x} {code:02x} {dimensions:02x}")
            shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
            return shape, np.dtype(_IDX_TYPES[code]), 4 + 4 * dimensions
    except (struct.error, OSError, EOFError, zlib.error) as failure:
        raise DataError(f"this is no IDX file, or a damaged one: {failure}", where=str(path)) from None


def idx_files(folder: Path) -> dict[str, Path]:
    """The MNIST-style files of a folder, by ``train-images``, ``train-labels``, ``t10k-images``, ``t10k-labels``."""
    found = {}
    for path in sorted(folder.iterdir()):
        match = re.match(r"(train|t10k|test)-(images|labels)", path.name)
        if match and is_idx(path):
            found[f"{'train' if match[1] == 'train' else 't10k'}-{match[2]}"] = path
    return found


def labels_beside(images: Path) -> Path | None:
    """The file of labels that belongs to a file of images, when it lies beside it."""
    if "images" not in images.name:
        return None
    name = re.sub(r"idx\d", "idx1", images.name.replace("images", "labels"))
    for each in (name, name + ".gz", name.removesuffix(".gz")):
        if images.with_name(each).exists():
            return images.with_name(each)
    return None
