"""The one place that writes files: whole or not at all, and read back only when every byte is the one written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pellucid.errors import CheckpointError, ParameterError

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no flock; one writer at a time is then up to the user
    fcntl = None  # type: ignore[assignment]

Writer = Callable[[BinaryIO], Any]

FORMAT = 1
"""Version of the layout that `write_arrays` writes; `read_arrays` refuses any other."""

_TEMPORARY = ".pellucid-{}.tmp"
_LENGTH = struct.Struct("<Q")  # of the header
_HEADER_LIMIT = 100_000_000  # bytes; safetensors refuses to read a longer header
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_MENDS = {
    errno.ENOSPC: "the disk is full: free some space, or write to another disk",
    errno.EDQUOT: "your disk quota is used up: free some space, or write to another disk",
    errno.EFBIG: "the file is larger than the system lets this process write (see `ulimit -f`)",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "this disk is read-only: choose another folder",
}


def atomic_write(path: str | os.PathLike, data: bytes | str | Writer) -> Path:
    """Put ``data`` at ``path``, whole or not at all: a reader sees the old file or the new one, never a mixture.

    The data goes to a temporary file in the same folder, is synced to disk and renamed over ``path``; folders that are
    missing are made. When anything fails, Ctrl-C included, the temporary is removed and the old file is as it was.

    Arguments:
        path: the file; a symbolic link is followed, so the link stays and its target is replaced.
        data: bytes, text (written as UTF-8), or what writes them to the file it is given.

    Returns:
        ``path``.

    Raises:
        CheckpointError: the disk is full, the folder cannot be written, or ``path`` is a folder or a device.
    """
    path = Path(path)
    if isinstance(data, str):
        data = data.encode()
    write: Writer = (lambda file: file.write(data)) if isinstance(data, bytes) else data
    target = Path(os.path.realpath(path))
    temporary = target.parent / _TEMPORARY.format(secrets.token_hex(8))
    try:
        mode = stat.S_IMODE(_regular(target).st_mode) if os.path.lexists(target) else None
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(temporary, mode)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as failure:
        raise cannot_write(path, failure) from failure
    _sync_folder(target.parent)
    return path


def write_arrays(
    path: str | os.PathLike,
    arrays: dict[str, Any],
    document: dict[str, Any],
    to_numpy: Callable[[Any], np.ndarray] = np.asarray,
) -> Path:
    """Write named arrays and a document as one safetensors file, atomically.

    The metadata holds the document as JSON (``pellucid``), the format version (``pellucid.format``) and the SHA-256 of
    the document and of every array's name, dtype, shape and bytes (``pellucid.sha256``).

    Arguments:
        path: the file.
        arrays: array by name, any shape; bool, (u)int8…64, float16…64.
        document: plain values (see `to_json`).
        to_numpy: brings an engine's array to the host; one after the other, so that no two are there together.

    Returns:
        ``path``.

    Raises:
        ParameterError: an array or a value that the format cannot hold.
        CheckpointError: the file cannot be written (see `atomic_write`).

    Source:
        The safetensors format: 8 bytes of header length (little endian), the JSON header, the arrays in C order.
    """
    arrays = {name: A if hasattr(A, "dtype") else np.asarray(A) for name, A in arrays.items()}
    for name, A in arrays.items():
        _check(name, A, path)
    text = to_json(document)
    digest = hashlib.sha256(text.encode())
    metadata = {
        "pellucid": text,
        "pellucid.format": str(FORMAT),
        "pellucid.arrays": json.dumps(list(arrays)),
        "pellucid.sha256": digest.hexdigest(),  # as long as the one that is known at the end
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, A in sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize):
        size = math.prod(A.shape) * A.dtype.itemsize
        header[name] = {"dtype": _DTYPES[A.dtype.name], "shape": list(A.shape), "data_offsets": [start, start + size]}
        start += size
    encoded = _encoded(header)
    if len(encoded) > _HEADER_LIMIT:
        raise ParameterError(
            "the document is too large to be read back",
            where=str(path),
            expected=f"at most {_HEADER_LIMIT:,} bytes of header",
            got=f"{len(encoded):,} bytes",
            hint="large tables belong in the arrays",
        )

    def write(file: BinaryIO) -> None:
        begin = _LENGTH.size + len(encoded)
        for name, A in arrays.items():
            plain = np.asarray(to_numpy(A), dtype=A.dtype.newbyteorder("<"), order="C")
            _add_to(digest, name, plain)
            file.seek(begin + header[name]["data_offsets"][0])
            file.write(_bytes(plain))
        metadata["pellucid.sha256"] = digest.hexdigest()
        file.seek(0)
        file.write(_LENGTH.pack(len(encoded)) + _encoded(header))

    return atomic_write(path, write)


def read_arrays(path: str | os.PathLike, *, mapped: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the document that `write_arrays` wrote, in the order they were given.

    Arguments:
        path: the file.
        mapped: True for arrays that stay in the file until they are looked at: for those that are copied at once.

    Returns:
        The arrays by name, writable, and the document.

    Raises:
        CheckpointError: no such file, not one of pellucid's, of another format version, truncated, or damaged anywhere.
    """
    from safetensors import SafetensorError, safe_open

    where = str(path)
    try:
        size = _regular(Path(path)).st_size
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            read = _mapped(path) if mapped else file.get_tensor
            arrays = {name: np.require(read(name), requirements="W") for name in names}
    except OSError as failure:
        hint = "check the path" if isinstance(failure, FileNotFoundError) else None
        raise CheckpointError(f"cannot be read: {failure.strerror or failure}", where=where, hint=hint) from failure
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as broken:
        raise CheckpointError(
            "the file is empty" if size == 0 else f"the file is damaged, truncated or of another kind ({broken})",
            where=where,
            expected="a file that pellucid saved",
            got=f"{size:,} bytes",
            hint="use an older checkpoint, or copy the file again from where it came",
        ) from broken
    if "pellucid" not in metadata:
        raise CheckpointError(
            "a safetensors file, but not one that pellucid saved",
            where=where,
            expected="a document named 'pellucid' in its metadata",
            got=", ".join(sorted(metadata)) or "no metadata",
        )
    if metadata.get("pellucid.format") != str(FORMAT):
        raise CheckpointError(
            "saved in a format that this version cannot read",
            where=where,
            expected=f"format {FORMAT}",
            got=f"format {metadata.get('pellucid.format')}",
            hint="read it with the pellucid version that wrote it, or upgrade",
        )
    damaged = CheckpointError(
        "the file is damaged: its contents do not match their checksum",
        where=where,
        hint="use an older checkpoint, or copy the file again from where it came",
    )
    try:
        arrays = {name: arrays[name] for name in json.loads(metadata["pellucid.arrays"])}
        if _digest(metadata["pellucid"], arrays) != metadata["pellucid.sha256"]:
            raise damaged
        return arrays, json.loads(metadata["pellucid"])
    except (KeyError, TypeError, ValueError):
        raise damaged from None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """``value`` as JSON. Floats read back exactly; NaN and infinities are written ``NaN`` and ``Infinity``.

    NumPy scalars and arrays become numbers and lists, paths become text, tuples become lists.

    Raises:
        ParameterError: a value that JSON cannot hold.
    """
    try:
        return json.dumps(value, default=_plain_value, indent=indent)
    except (TypeError, ValueError) as unfit:
        raise ParameterError(
            f"cannot be written as JSON: {unfit}", expected="numbers, text, booleans, None, lists, dictionaries"
        ) from None


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock that the existing file ``path`` carries, waiting for it: for short read-and-write steps."""
    with open(path, "r+b") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sweep(folder: Path) -> None:
    """Remove the temporaries that a killed `atomic_write` left in ``folder``; call it only where nobody is writing."""
    for leftover in folder.glob(_TEMPORARY.format("*")):
        leftover.unlink(missing_ok=True)


def _regular(path: Path) -> os.stat_result:
    """The file's status; raises `OSError` unless it is a plain file, for a rename would replace a device or a pipe."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return status


def cannot_write(path: Path, failure: OSError) -> CheckpointError:
    return CheckpointError(
        f"cannot be written: {failure.strerror or failure}",
        where=str(path),
        hint=_MENDS.get(failure.errno or 0, "choose another file or folder"),
    )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable. The file is whole either way, and some network disks cannot sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _encoded(header: dict[str, Any]) -> bytes:
    encoded = json.dumps(header).encode()
    return encoded + b" " * (-len(encoded) % 8)


def _mapped(path: str | os.PathLike) -> Callable[[str], np.ndarray]:
    """What gives the arrays of a file that was found whole: a private view of its pages."""
    pages = np.memmap(path, np.uint8, "c")
    begin = _LENGTH.size + _LENGTH.unpack(bytes(pages[: _LENGTH.size]))[0]
    header = json.loads(bytes(pages[_LENGTH.size : begin]))
    names = {short: name for name, short in _DTYPES.items()}

    def view(name: str) -> np.ndarray:
        start, stop = (begin + offset for offset in header[name]["data_offsets"])
        return np.asarray(pages[start:stop]).view(names[header[name]["dtype"]]).reshape(header[name]["shape"])

    return view


def _check(name: str, array: Any, path: str | os.PathLike) -> None:
    if array.dtype.name not in _DTYPES:
        raise ParameterError(
            f"array {name!r} cannot be saved", where=str(path), expected=", ".join(_DTYPES), got=array.dtype.name
        )
    if name == "__metadata__" or not name.isprintable():
        raise ParameterError("not a name that an array can be saved under", where=str(path), got=repr(name))


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _add_to(digest: Any, name: str, array: np.ndarray) -> None:
    digest.update(f"\0{name}\0{array.dtype.name}\0{array.shape}\0".encode())
    digest.update(_bytes(array))


def _digest(document: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(document.encode())
    for name, array in arrays.items():
        _add_to(digest, name, array)
    return digest.hexdigest()


def _plain_value(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} {value!r}")
