"""Several processes, on one machine or on many, by JAX's own runtime: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
from typing import Any

from pellucid import engines
from pellucid.errors import EngineError, ParameterError

PATIENCE = 60  # seconds without a sign of life after which a process counts as lost
ASKED = 10  # seconds that the others get to answer who is still there
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
        ParameterError: nothing says where process 0 listens, how many there are or which this is.
        EngineError: JAX is not installed, or runs already.
    """
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise ParameterError("not an address", where="distributed", expected="HOST:PORT", got=repr(address))
    engines.get("jax")  # or why it cannot run here
    import jax

    # JAX's own end of waiting is to abort, with nothing that says what to do.
    waiting = threading.Timer(2 * PATIENCE, _give_up, (_not_met(address, processes, process),))
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            address, processes, process, heartbeat_timeout_seconds=PATIENCE, initialization_timeout=3 * PATIENCE
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
            raise _not_met(address, processes, process) from failure
        raise EngineError(
            "JAX runs already", where="distributed", hint="pl.distribute before anything else of JAX"
        ) from failure
    finally:
        waiting.cancel()


def _not_met(address: str | None, processes: int | None, process: int | None) -> EngineError:
    return EngineError(
        "the processes of the job have not found each other",
        where="distributed" if process is None else f"process {process}",
        expected=f"{processes or 'all'} processes at {address or 'the address that the launcher gives'}",
        hint="has each of them started, is process 0's port open, and N the same for all?",
    )


def _give_up(problem: EngineError) -> None:
    print(f"error: {problem}", file=sys.stderr)
    _end()


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
    """A text that process 0 tells the others under a name: its own ``text`` there, what it said here."""
    import jax

    client = _client()
    if text is not None:
        client.key_value_set(f"pellucid/{what}", text)
        return text
    try:
        return client.blocking_key_value_get(f"pellucid/{what}", 1000 * PATIENCE)
    except jax.errors.JaxRuntimeError as failure:
        raise EngineError(
            "process 0 has not begun",
            where="distributed",
            got=str(failure).splitlines()[0],
            hint="what it printed says why",
        ) from failure


def explained(failure: Exception) -> Exception:
    """Which process was lost, where a failure is one of what the processes talk by; any other failure as it is."""
    import jax

    if jax.process_count() == 1 or not _TRANSPORT.search(str(failure)):
        return failure
    # What JAX would do at the end is wait for the lost one, and abort.
    atexit.register(_end)
    who = ", ".join(f"process {each}" for each in _missing()) or "the connection to another process"
    return EngineError(
        f"{who} of {jax.process_count()} was lost",
        where=f"process {jax.process_index()}",
        got=str(failure).splitlines()[0][:200],
        hint="what it printed last says why; the last checkpoint is intact: start the job again, to resume the run",
    )


def _missing() -> list[str]:
    """The processes that no longer answer: those that JAX's coordination service misses at a barrier."""
    import jax

    try:
        _client().wait_at_barrier("pellucid/lost", 1000 * ASKED)
        return []
    except jax.errors.JaxRuntimeError as answer:
        _, _, named = str(answer).partition("timed out task names:\n")
        return re.findall(r"\d+", named.split("\n\n")[0])


def _client() -> Any:
    from jax._src import distributed

    return distributed.global_state.client


def _end() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
