"""Several processes, on one machine or on many, by JAX's own runtime: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from pellucid import engines
from pellucid.errors import EngineError, ParameterError

PATIENCE = 60  # seconds without a sign of life after which a process counts as lost
ASKED = 10  # seconds that the others get to answer who is still there
PARTING = 5  # seconds that the others get to end too, before a process that failed leaves without them
BEGINNING = 600  # seconds that the others get to read their data, which one may have to fetch
SHOWN = 200  # letters of a setting
_TRANSPORT = re.compile(r"gloo|nccl|coordination|heartbeat|connection (reset|closed)|socket closed", re.IGNORECASE)


def distribute(address: str | None = None, *, processes: int | None = None, process: int | None = None) -> None:
    """Make this process one of a job's; each runs the same program, and `fit` then trains on the devices of all.

    To be called before anything else of JAX is. Where they have not found each other after two minutes the process
    ends, saying what to look at.

    Arguments:
        address: ``host:port`` where process 0 listens; None asks SLURM, Open MPI, Kubernetes or a TPU's environment.
        processes: how many there are.
        process: which of them this is, from 0.

    Raises:
        ParameterError: nothing says where process 0 listens, how many there are or which this is; or process 0 was told
            another number of them.
        EngineError: JAX is not installed, or runs already; the port is in use; or the others are not found.
    """
    if address is not None and not (re.fullmatch(r".+:\d{1,5}", address) and 0 < _port(address) < 1 << 16):
        expected = "HOST:PORT, the port from 1 to 65535"
        raise ParameterError("not an address", where="distributed", expected=expected, got=repr(address))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what JAX logs of a lost process; read when it is imported
    engines.get("jax")  # or why it cannot run here
    import jax

    if process == 0 and address is not None:
        _check_free(_port(address))
    # JAX's own end of waiting is to abort, with nothing that says what to do.
    waiting = threading.Timer(2 * PATIENCE, _give_up, (_not_met(address, processes, process),))
    waiting.daemon = True
    waiting.start()
    try:
        with _ending_in_our_words():
            jax.distributed.initialize(
                address,
                processes,
                process,
                heartbeat_timeout_seconds=PATIENCE,
                initialization_timeout=3 * PATIENCE,
                shutdown_timeout_seconds=PATIENCE,
            )
    except (ValueError, TypeError) as missing:
        raise ParameterError(
            f"this process does not know its place in the job: {missing}",
            where="distributed",
            expected="a launcher that JAX knows (SLURM, Open MPI, Kubernetes), or all three said",
            got=f"address {address}, processes {processes}, process {process}",
            hint="--distributed HOST:PORT --processes N --process K, with K = 0 on HOST",
        ) from missing
    except RuntimeError as failure:
        if "must be called before" not in str(failure) and "only be called once" not in str(failure):
            atexit.register(_end)  # JAX's own end tells the same in its words
            raise _not_met(address, processes, process) from failure
        raise EngineError(
            "JAX runs already", where="distributed", hint="pl.distribute before anything else of JAX"
        ) from failure
    finally:
        waiting.cancel()
    atexit.register(_part)  # before JAX's own leaving, which waits for the others
    own = str(_state().num_processes)
    first = told("processes", own if _state().process_id == 0 else None)
    if own != first:
        raise ParameterError(
            "another number of processes than process 0 was started with",
            where=f"process {_state().process_id}",
            expected=first,
            got=own,
            hint="--processes N, the same for all",
        )


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _check_free(port: int) -> None:
    try:
        socket.create_server(("", port)).close()
    except OSError as failure:
        raise EngineError(
            "process 0 cannot listen there",
            where=f"distributed, port {port}",
            got=failure.strerror,
            hint="another port, the same for all processes; does an earlier job still run?",
        ) from failure


def _not_met(address: str | None, processes: int | None, process: int | None) -> EngineError:
    return EngineError(
        "the processes of the job have not found each other",
        where="distributed" if process is None else f"process {process}",
        expected=f"{processes or 'all'} processes at {address or 'the address that the launcher gives'}",
        hint="has each of them started, is process 0's port open, and N the same for all?",
    )


def devices() -> int:
    """How many devices all processes have together."""
    import jax

    return jax.device_count()


def is_first() -> bool:
    """Whether this is process 0, which writes and speaks for all."""
    import jax

    return jax.process_index() == 0


def leave() -> None:
    """Let the job end: this process goes on by itself. Waits for the others to leave too."""
    import jax

    jax.distributed.shutdown()


def told(what: str, text: str | None = None) -> str:
    """A text that process 0 tells the others under a name: its own ``text`` there, what it said here.

    Raises:
        EngineError: process 0 has said nothing.
    """
    import jax

    client = _state().client
    if text is not None:
        client.key_value_set(f"pellucid/{what}", text)
        return text
    try:
        return client.blocking_key_value_get(f"pellucid/{what}", 1000 * BEGINNING)
    except jax.errors.JaxRuntimeError as failure:
        raise EngineError(
            "process 0 has not begun",
            where="distributed",
            got=str(failure).splitlines()[0],
            hint="what it printed says why",
        ) from failure


def agree(settings: Mapping[str, Any]) -> None:
    """Wait until every process is about to train, and refuse where they would not train the same.

    Arguments:
        settings: what must be the same in all.

    Raises:
        ParameterError: another process has other settings; every process raises it.
        EngineError: another process does not come.
    """
    import jax

    job, which = _state(), f"pellucid/begin/{next(_beginnings)}"
    mine = {name: _short(value) for name, value in settings.items()}
    theirs: dict[int, Any] = {}
    until = time.monotonic() + BEGINNING
    try:
        job.client.key_value_set(f"{which}/{job.process_id}", json.dumps(mine))
        while True:
            there = job.client.key_value_dir_get(which)
            theirs = {int(key.rpartition("/")[2]): json.loads(text) for key, text in there}
            _awaited[:] = sorted(set(range(job.num_processes)) - set(theirs))
            if not _awaited:
                break
            for _, process in job.client.key_value_dir_get("pellucid/failed"):
                raise _lost([int(process)], "it failed before it began to train")
            if time.monotonic() > until:
                raise _lost(_awaited, f"it has not begun to train after {BEGINNING} seconds")
            time.sleep(0.5)
    except jax.errors.JaxRuntimeError as failure:
        raise explained(failure) from failure
    for process, its in sorted(theirs.items()):
        for name, value in theirs[0].items():
            if its.get(name) != value:
                raise ParameterError(
                    f"process {process} was started with another {name} than process 0",
                    where="distributed",
                    expected=value,
                    got=its.get(name),
                    hint="the same command and the same data in every process",
                )


def keep(checkpoint: Path, command: str | None = None) -> None:
    """Remember what to say of going on, should a process be lost.

    Arguments:
        checkpoint: where the run's last one will be.
        command: resumes the run; None leaves the one that was said before, or says how a program does.
    """
    _kept["checkpoint"] = checkpoint
    if command or "command" not in _kept:
        _kept["command"] = command or f"fit(…, run={str(checkpoint.parents[1])!r}, resume=True)"


def explained(failure: Exception) -> Exception:
    """Which process was lost, where a failure is the first of what the processes talk by; any other as it is."""
    import jax

    if jax.process_count() == 1 or _noticed.is_set() or not _TRANSPORT.search(str(failure)):
        return failure
    _noticed.set()
    # What JAX would do at the end is wait for the lost one, and abort.
    atexit.register(_end)
    missing = _missing()
    _saying.acquire()
    return _lost(missing, str(failure).splitlines()[0][:SHOWN])


def failed(code: int) -> None:
    """This process is about to end with an exit code while the others may go on: it will not wait for them."""
    _ends["code"] = code


_beginnings = count()
_kept: dict[str, Any] = {}
_ends: dict[str, int] = {}
_for_ever: list[Any] = []  # what C++ may call
_awaited: list[int] = []  # processes that were not there when it was last asked
_noticed = threading.Event()  # by a broken connection that a process was lost
_saying = threading.Lock()  # never given back: that is said once


def _lost(missing: list[int], got: str) -> EngineError:
    job = _state()
    who = ", ".join(f"process {each}" for each in missing) or "another process"
    if "command" not in _kept:
        hint = "there is nothing to go on from, start the job again; fit(…, run=…) keeps checkpoints"
    elif _kept["checkpoint"].exists():
        hint = f"the last checkpoint is intact, {_kept['checkpoint']}; to go on: {_kept['command']}"
    else:
        hint = f"there was no checkpoint yet; to begin again: {_kept['command']}"
    return EngineError(
        f"{who} of {job.num_processes} was lost",
        where=f"process {job.process_id}",
        got=got,
        hint=f"{hint}\n            what the lost one printed last says why",
    )


def _missing() -> list[int]:
    """The processes that no longer answer: those that JAX's coordination service misses at a barrier."""
    import jax

    try:
        _state().client.wait_at_barrier("pellucid/lost", 1000 * ASKED)
        return []
    except jax.errors.JaxRuntimeError as answer:
        _, _, named = str(answer).partition("timed out task names:\n")
        return [int(each) for each in re.findall(r"\d+", named.split("\n\n")[0])] or _gone()


def _gone() -> list[int]:
    """Process 0 where nobody listens at its port any more."""
    host, _, port = _state().coordinator_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        return []
    except OSError:
        return [0]


@contextmanager
def _ending_in_our_words() -> Iterator[None]:
    """Within, JAX's client is made so that we say what was lost, where JAX would abort this process.

    JAX hands the reason to a function of Python's as an object that its bindings cannot convert, so that the thread
    ends by an exception of C++ (jaxlib 0.10). What C++ calls then is ours.
    """
    with contextlib.ExitStack() as undoing:
        with contextlib.suppress(ImportError, OSError, AttributeError):  # another JAX or C++ library: JAX's own words
            from jax._src.lib import _jax

            make = _jax.get_distributed_runtime_client
            _at_termination(ctypes.CDLL("libstdc++.so.6"))
            _jax.get_distributed_runtime_client = partial(make, missed_heartbeat_callback=_aborted)
            undoing.callback(setattr, _jax, "get_distributed_runtime_client", make)
        yield


def _aborted(*_: object) -> NoReturn:
    """The coordination service has ended, or says that a process has not given a sign of life."""
    # The end of a process takes an instant; and who has asked who was lost may be about to say it. With process 0 the
    # service ends, so that it would be taken for the lost one by those that are not so far yet.
    time.sleep(1 if _state().process_id else 4)
    gone = _gone()
    if _noticed.is_set() and not gone:
        time.sleep(3 * ASKED)
    _saying.acquire(timeout=3 * ASKED)
    got = "nobody listens at its port" if gone else f"no sign of life for {PATIENCE} seconds"
    _give_up(_lost(gone or _awaited, got))


def _at_termination(cpp: Any) -> None:
    """Have C++ call `_aborted` where an object cannot be converted; whatever else it is, what it called before."""
    function = ctypes.CFUNCTYPE(None)
    thrown = cpp.__cxa_current_exception_type
    thrown.restype = ctypes.POINTER(ctypes.c_char_p)  # its second word is the type's name

    @function
    def ended() -> None:
        kind = thrown()
        _aborted() if kind and b"bad_cast" in kind[1] else before()

    cpp._ZSt13set_terminatePFvvE.restype = function
    before = cpp._ZSt13set_terminatePFvvE(ended)
    _for_ever.append(ended)


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _give_up(problem: EngineError) -> NoReturn:
    print(f"error: {problem}", file=sys.stderr)
    _end()


def _part() -> None:
    """At the end of a process that failed: where the others do not end too, leave them."""
    import jax

    client, unhandled = _state().client, getattr(sys, "last_value", None) is not None
    if client is None or not (unhandled or "code" in _ends):
        return
    try:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # it was not the first
            client.key_value_set("pellucid/failed/first", str(_state().process_id))
        client.wait_at_barrier("pellucid/end", 1000 * PARTING)
    except jax.errors.JaxRuntimeError:
        _end(_ends.get("code", 1))


def _state() -> Any:
    from jax._src import distributed

    return distributed.global_state


def _end(code: int = 1) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
