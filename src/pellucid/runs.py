"""A run directory: what one training run was given, where it ran and what came of it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import sys
import time
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import CheckpointError, DataError, ParameterError
from pellucid.files import atomic_write, cannot_write, fcntl, sweep, to_json
from pellucid.history import History, flat

RUNS = "runs"
"""The folder, below the current one, where runs are kept unless told otherwise."""

_PACKAGES = ("numpy", "safetensors", "scipy", "scikit-learn", "pyarrow", "pillow", "jax", "jaxlib", "torch", "optuna")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PATIENCE = 1.0  # seconds a writer waits for the lock: `status` looks at it for an instant


class Run:
    """One run's folder; made by `Run.create`, found again by `Run.open`.

    It holds ``config.toml`` (the hyperparameters), ``environment.json``, ``metrics.jsonl`` (one JSON object a line),
    ``checkpoints/``, ``vault.json`` once the test set was opened, and ``status.json``, whose lock keeps a second
    process from writing the run. It is taken at the first writing, and given back by `close` or the process's end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike | None = None,
        *,
        config: dict[str, Any],
        environment: dict[str, Any],
        name: str = "run",
    ) -> Run:
        """Make a new run; this process is its writer.

        Arguments:
            folder: where; it must be empty or not there yet. None is ``runs/<name>-<date>-<time>``, with ``-2`` … added
                where that is taken.
            config: all hyperparameters; those that are None are left out.
            environment: where it runs (see `environment`).
            name: begins the folder's name when ``folder`` is None.

        Raises:
            ParameterError: the folder holds something already, or a value that TOML cannot hold.
            CheckpointError: the folder cannot be written.
        """
        import tomli_w

        texts = {
            "environment.json": to_json(environment, indent=2) + "\n",
            "config.toml": tomli_w.dumps(_for_toml(config, "config")),
        }
        path = _new_folder(name) if folder is None else _empty_folder(Path(folder))
        run = cls(path)
        run._lock = _lock(path)
        if not _missing(path):  # another process was faster
            run._release()
            raise _taken(path, path)
        try:
            (path / "checkpoints").mkdir()
            (path / "metrics.jsonl").touch()
            run._begin()
            for file, text in texts.items():
                atomic_write(path / file, text)
        except BaseException as failure:
            shutil.rmtree(path, ignore_errors=True)
            run._release()
            if isinstance(failure, OSError):
                raise cannot_write(path, failure) from failure
            raise
        return run

    @classmethod
    def open(cls, run: str | os.PathLike, *, below: str | os.PathLike = RUNS) -> Run:
        """The run with this path, or below ``runs/`` with this name or beginning of one; ``"latest"`` is the newest.

        Raises:
            DataError: no such run, several, or a folder that is no run; the message says what is missing or which.
        """
        path = Path(run)
        if path.is_dir() and not _missing(path):
            return cls(path)
        known = list_runs(below)
        if str(run) == "latest" and known:
            return max(known, key=lambda each: (each.path / "config.toml").stat().st_mtime_ns)
        found = [each for each in known if each.name == str(run)] or [
            each for each in known if str(run) and each.name.startswith(str(run))
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(each.name for each in (found or known)[-8:]) or "none yet"
        if found:
            raise DataError(f"several runs begin with {str(run)!r}", expected="one run", got=names)
        if path.is_dir():
            raise DataError("this folder is not a run", where=str(path), got=f"no {', no '.join(_missing(path))}")
        raise DataError(
            f"no run {str(run)!r}",
            expected=f"a run's folder, or a name in {below}: {names}",
            hint="`pellucid runs list` shows the runs; `pellucid train` makes one",
        )

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def config(self) -> dict[str, Any]:
        """The hyperparameters, from ``config.toml``."""
        try:
            return tomllib.loads((self.path / "config.toml").read_text("utf-8"))
        except (OSError, ValueError) as broken:
            raise _unreadable(self.path / "config.toml", broken) from None

    @property
    def environment(self) -> dict[str, Any]:
        """Where it ran, from ``environment.json``."""
        try:
            return json.loads((self.path / "environment.json").read_text("utf-8"))
        except (OSError, ValueError) as broken:
            raise _unreadable(self.path / "environment.json", broken) from None

    @property
    def status(self) -> str:
        """``"running"`` while a process writes it, then ``"finished"``, ``"failed"`` or ``"interrupted"``."""
        if self._lock is not None or _is_locked(self.path / "status.json"):
            return "running"
        recorded = _note(self.path / "status.json").get("status", "interrupted")
        return "interrupted" if recorded == "running" else recorded

    @property
    def openings(self) -> list[dict[str, Any]]:
        """Every look at the test set so far, from ``vault.json``: ``{"when", "reason", "repeat", "metrics"}``.

        Raises:
            CheckpointError: the record is damaged.
        """
        path = self.path / "vault.json"
        try:
            return json.loads(path.read_text("utf-8"))["openings"]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as broken:
            raise CheckpointError(
                f"the record of test-set openings is damaged ({broken})",
                where=str(path),
                hint="whether the test set was seen can no longer be told: start a new run",
            ) from None

    def claim(self) -> None:
        """Become the run's writer, and tidy what a killed one left; nothing to do for who is it already.

        Raises:
            ParameterError: another process, or another `Run` of this one, is writing it.
            CheckpointError: the folder cannot be written.
        """
        if self._lock is not None:
            return
        self._lock = _lock(self.path)
        try:
            self._begin()
        except OSError as failure:
            self._release()
            raise cannot_write(self.path, failure) from failure

    def close(self, status: str = "finished") -> None:
        """Stop writing the run and note how it ended: ``"finished"``, ``"interrupted"`` or ``"failed"``."""
        if self._lock is not None:
            try:
                self._write_status(status)
            except OSError as failure:
                raise cannot_write(self.path / "status.json", failure) from failure
            finally:
                self._release()

    def __enter__(self) -> Run:
        self.claim()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
        self.close("finished" if kind is None else "interrupted" if stopped else "failed")

    def log(self, record: dict[str, Any]) -> None:
        """Add one record to ``metrics.jsonl``; it is there for other processes at once, whole or not at all.

        Raises:
            ParameterError: another process is writing the run, or a value JSON cannot hold.
            CheckpointError: it cannot be written; the file is as it was.
        """
        self.claim()
        path, line = self.path / "metrics.jsonl", (to_json(record) + "\n").encode()
        try:
            with open(path, "ab", buffering=0) as file:
                before = file.tell()
                try:
                    while line:
                        line = line[file.write(line) :]
                except BaseException:
                    file.truncate(before)
                    raise
        except OSError as failure:
            raise cannot_write(path, failure) from failure

    def metrics(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl`` in order. A last line that a killed process left unfinished is not one.

        Raises:
            DataError: the file cannot be read, or a line within it is damaged.
        """
        path = self.path / "metrics.jsonl"
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as broken:
            raise _unreadable(path, broken) from None
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                if line.strip():
                    records.append(_object(line))
            except ValueError as broken:
                if number < len(lines):
                    raise _unreadable(path, broken, number) from None
        return records

    def history(self) -> History:
        """The epochs among the records. A resumed run writes some twice: the last of each counts."""
        return History(record for record in self.metrics() if "epoch" in record)

    def checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint of this name is, or will be: ``checkpoints/<name>.pellucid``.

        Raises:
            ParameterError: not a plain name.
        """
        name = name.removesuffix(".pellucid")
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ParameterError("not a checkpoint's name", expected="letters, digits, _, - and .", got=repr(name))
        return self.path / "checkpoints" / f"{name}.pellucid"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    def __del__(self) -> None:
        self._release()

    def _begin(self) -> None:
        self._write_status("running")
        for folder in (self.path, self.path / "checkpoints"):
            sweep(folder)
        _mend_last_line(self.path / "metrics.jsonl")

    def _write_status(self, status: str) -> None:
        assert self._lock is not None
        note = {"status": status, "process": os.getpid(), "host": socket.gethostname(), "when": _now()}
        text = (to_json(note) + "\n").encode()
        # In place, not renamed: the lock belongs to this very file. A torn note reads as an empty one.
        os.lseek(self._lock, 0, os.SEEK_SET)
        os.write(self._lock, text)
        os.ftruncate(self._lock, len(text))

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Watched(Run):
    """A run that another process of the same job writes: read here, never written."""

    def claim(self) -> None:
        """Nothing: the other process is its writer."""

    def close(self, status: str = "finished") -> None:
        """Nothing, as the other does it."""

    def log(self, record: dict[str, Any]) -> None:
        """Nothing, as the other does it."""


def list_runs(folder: str | os.PathLike = RUNS) -> list[Run]:
    """The runs directly below ``folder``, by name; none where there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return [Run(path) for path in sorted(folder.iterdir()) if path.is_dir() and not _missing(path)]


def compare(runs: Iterable[Run], *, metric: str | None = None) -> list[dict[str, Any]]:
    """What differs between runs and what came of it.

    Arguments:
        runs: the runs.
        metric: names the best epoch (see `History.best`).

    Returns:
        A row for each run: ``run``, ``status``, ``config`` (by dotted name, those that are not the same in all),
        ``epochs``, ``best`` and ``last`` (metrics of those epochs by name, empty when there are none), and ``test``
        (what was measured when the test set was opened).
    """
    runs = list(runs)
    configs = [_dotted(run.config) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    differ = [name for name in names if any(config.get(name) != configs[0].get(name) for config in configs)]
    rows = []
    for run, config in zip(runs, configs, strict=True):
        history = run.history()
        try:
            best = flat(history.best(metric))
        except (ParameterError, DataError):  # nothing measured yet, or nothing finite
            best = {}
        rows.append(
            {
                "run": run.name,
                "status": run.status,
                "config": {name: config.get(name) for name in differ},
                "epochs": len(history),
                "best": best,
                "last": flat(history.records[-1]) if len(history) else {},
                "test": next((each["metrics"] for each in reversed(run.openings) if each["metrics"]), {}),
            }
        )
    return rows


def environment(*, engine: str, seed: int | None = None, data_fingerprint: str | None = None) -> dict[str, Any]:
    """Where and with what a run is made: all that can change its bits or its speed.

    Arguments:
        engine: the engine's name.
        seed: of the run.
        data_fingerprint: tells whether two runs saw the same data.

    Returns:
        ``pellucid``, ``python``, ``packages``, ``blas``, ``engine``, ``seed``, ``data_fingerprint``, ``threads``,
        ``cpu``, ``cores`` (usable by this process), ``memory`` (bytes), ``platform``, ``date`` (UTC).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [int(os.environ[name]) for name in _THREAD_LIMITS if os.environ.get(name, "").isdigit()]
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "pellucid": _version("pellucid"),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "engine": engine,
        "seed": seed,
        "data_fingerprint": data_fingerprint,
        "threads": max(1, min([cores, *limits])),
        "cpu": _cpu(),
        "cores": cores,
        "memory": _memory(),
        "platform": platform.platform(),
        "date": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held at one time; None where the system does not tell."""
    try:
        # Before getrusage, which on Linux counts what the process was forked from too.
        if found := re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE):
            return int(found[1]) << 10
        import resource
    except (OSError, ImportError):
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def _for_toml(value: Any, place: str) -> Any:
    """``value`` as TOML can hold it: NumPy and paths made plain, None left out of dictionaries."""
    if isinstance(value, dict):
        return {str(key): _for_toml(each, f"{place}.{key}") for key, each in value.items() if each is not None}
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_for_toml(each, f"{place}[{i}]") for i, each in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text
    if isinstance(value, (bool, int, float)):
        return value
    raise ParameterError(
        "cannot be written as TOML",
        where=place,
        expected="numbers, text, booleans, lists, dictionaries",
        got=f"{type(value).__name__} {value!r}",
    )


def _dotted(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _missing(folder: Path) -> list[str]:
    return [name for name in ("config.toml", "environment.json") if not (folder / name).is_file()]


def _new_folder(name: str) -> Path:
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    stem = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    count = 1
    while True:
        path = Path(RUNS) / (stem if count == 1 else f"{stem}-{count}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not Path(RUNS).is_dir():
                raise cannot_write(Path(RUNS), OSError(None, "it is a file, not a folder")) from None
            count += 1
        except OSError as failure:
            raise cannot_write(path, failure) from failure


def _empty_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = next(path.iterdir(), None)
    except FileExistsError:
        taken = path
    except OSError as failure:
        raise cannot_write(path, failure) from failure
    if taken:
        raise _taken(path, taken)
    return path


def _taken(path: Path, by: Path) -> ParameterError:
    is_run = path.is_dir() and not _missing(path)
    return ParameterError(
        "there is a run here already" if is_run else "there is something here already",
        where=str(path),
        expected="a folder that is empty or not there yet",
        got=None if is_run else by.name,
        hint="choose another folder" + (", or resume this run" if is_run else ""),
    )


def _lock(folder: Path) -> int:
    try:
        descriptor = os.open(folder / "status.json", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as failure:
        raise cannot_write(folder, failure) from failure
    until = time.monotonic() + _PATIENCE
    while fcntl:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.02)
                continue
            os.close(descriptor)
            note = _note(folder / "status.json")
            raise ParameterError(
                "another process is writing this run",
                where=str(folder),
                got=f"process {note.get('process')} on {note.get('host')}, since {note.get('when')}",
                hint="wait for it or stop it, or choose another folder",
            ) from None
    return descriptor


def _is_locked(path: Path) -> bool:
    if not fcntl:
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _note(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _object(line: bytes) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def _mend_last_line(path: Path) -> None:
    """Complete or cut the line that a killed process left unfinished, so that the next record gets its own."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        whole = file.read()
        start = whole.rfind(b"\n") + 1
        try:
            if whole[start:]:
                _object(whole[start:])
                file.write(b"\n")
        except ValueError:
            file.truncate(start)


def _unreadable(path: Path, broken: Exception, line: int | None = None) -> DataError:
    where = str(path) if line is None else f"{path}, line {line}"
    problem = broken.strerror if isinstance(broken, OSError) else broken
    return DataError(f"cannot be read: {problem}", where=where, hint="restore the file from a copy, or delete the run")
