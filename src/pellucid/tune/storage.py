"""Where a study is kept, and who works on it: Optuna's storages, and how a killed process is told from a slow one."""

from __future__ import annotations

import os
import socket
import time
import warnings
from pathlib import Path
from typing import Any

from pellucid.errors import DataError, EngineError, need, unknown

SCHEMES = ("journal", "sqlite", "postgresql", "mysql", "redis")
GRACE = 600.0  # seconds without a sign of life after which a process on another machine counts as dead
_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
BEAT = 20.0  # seconds between two signs of life


def optuna() -> Any:
    """The optuna package, quiet.

    Raises:
        EngineError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        package = need("optuna", extra="tune")
    package.logging.set_verbosity(package.logging.ERROR)
    return package


def open_storage(url: str) -> Any:
    """The storage that a URL names.

    Arguments:
        url: ``journal:FILE``, a file that processes and machines may share; or ``sqlite:///FILE``,
            ``postgresql://…``, ``mysql://…``, ``redis://…``.

    Raises:
        ParameterError: another scheme.
        DataError: the storage cannot be opened.
        EngineError: a package that it needs is not installed.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES:
        raise unknown("storage", scheme, SCHEMES, where="--storage")
    package = optuna()
    try:
        if scheme == "journal":
            path = Path(url.partition(":")[2].removeprefix("//"))
            path.parent.mkdir(parents=True, exist_ok=True)
            return package.storages.JournalStorage(_file(path))
        if scheme == "redis":
            return package.storages.JournalStorage(package.storages.journal.JournalRedisBackend(url))
        options = {"connect_args": {"timeout": 60}} if scheme == "sqlite" else {"pool_pre_ping": True}
        return _database(url, options)
    except ImportError as missing:
        module = getattr(missing.__cause__ or missing.__context__ or missing, "name", None) or scheme
        hint = f"pip install '{_PACKAGES.get(module, module)}'"
        raise EngineError(f"{scheme} needs {module}, which is not installed", hint=hint) from missing
    except Exception as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise DataError(f"cannot be opened: {reason}", where=without_password(url)) from problem


def _database(url: str, options: dict[str, Any]) -> Any:
    """The tables of a database, which another process may be making at the same moment."""
    for wait in (0.2, 0.5, 1.0, 2.0, None):
        try:
            return optuna().storages.RDBStorage(url, engine_kwargs=options)
        except Exception as problem:
            said = str(problem).lower()
            if wait is None or not any(each in said for each in ("already exists", "unique", "duplicate", "locked")):
                raise
            time.sleep(wait)
    raise AssertionError


def _file(path: Path) -> Any:
    """Optuna's journal file under a lock that ends with the process that holds it."""
    journal = optuna().storages.journal
    try:
        import fcntl
    except ModuleNotFoundError:
        return journal.JournalFileBackend(str(path), lock_obj=journal.JournalFileOpenLock(str(path)))

    class Lock(journal._file.BaseJournalFileLock):  # type: ignore[name-defined]
        """Optuna's own locks stay behind when a process is killed, and hold all others up for half a minute."""

        def acquire(self) -> bool:
            self._held = open(path, "r+b")  # noqa: SIM115  held until the release
            fcntl.flock(self._held, fcntl.LOCK_EX)
            self._cut_torn_line()
            return True

        def release(self) -> None:
            self._held.close()

        def _cut_torn_line(self) -> None:
            size = self._held.seek(0, os.SEEK_END)
            if size and (self._held.seek(size - 1), self._held.read(1))[1] != b"\n":
                self._held.seek(0)
                self._held.truncate(self._held.read().rfind(b"\n") + 1)

    return journal.JournalFileBackend(str(path), lock_obj=Lock())


def without_password(url: str) -> str:
    """The URL of a storage as it may be shown."""
    before, at, after = url.rpartition("@")
    return f"{before.rpartition(':')[0]}:…@{after}" if at and ":" in before.partition("://")[2] else url


def sign() -> dict[str, Any]:
    """This process, so that others can tell whether it lives: machine, process, when it began, and now."""
    return {"host": socket.gethostname(), "process": os.getpid(), "began": _began(os.getpid()), "alive": time.time()}


def is_dead(signed: dict[str, Any]) -> bool:
    """Whether the process that signed is gone; of one on another machine, whether it has been silent too long."""
    if signed.get("host") != socket.gethostname():
        return time.time() - signed.get("alive", 0.0) > GRACE
    began = _began(signed["process"])
    return began is None or began != signed["began"]


def _began(process: int) -> str | None:
    """When a process of this machine began, as the system counts; None where there is none: numbers are used again."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"
