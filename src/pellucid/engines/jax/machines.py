"""Several processes, on one machine or on many, by JAX's own runtime: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import atexit
import os
import re
import sys
from typing import Any

import jax
from jax._src import distributed

from pellucid.errors import EngineError, ParameterError

PATIENCE = 60  # seconds without a sign of life after which a process counts as lost
ASKED = 10  # seconds that the others get to answer who is still there
_TRANSPORT = re.compile(r"gloo|nccl|coordination|heartbeat|connection (reset|closed)|socket closed", re.IGNORECASE)


def join(address: str | None = None, *, processes: int | None = None, process: int | None = None) -> None:
    """Make this process one of a job's; each runs the same program, and `fit` then trains on the devices of all.

    To be called before anything else of JAX is.

    Arguments:
        address: ``host:port`` where process 0 listens; None asks SLURM, Open MPI, Kubernetes or a TPU's environment.
        processes: how many there are.
        process: which of them this is, from 0.

    Raises:
        ParameterError: nothing says where process 0 listens, how many there are or which this is.
        EngineError: process 0 does not answer, or JAX runs already.
    """
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise ParameterError("not an address", where="distributed", expected="HOST:PORT", got=repr(address))
    try:
        jax.distributed.initialize(
            address, processes, process, heartbeat_timeout_seconds=PATIENCE, initialization_timeout=2 * PATIENCE
        )
    except (ValueError, TypeError) as missing:
        raise ParameterError(
            f"this process does not know its place in the job: {missing}",
            where="distributed",
            expected="a launcher that JAX knows (SLURM, Open MPI, Kubernetes), or all three said",
            got=f"address {address}, processes {processes}, process {process}",
            hint="--distributed HOST:PORT --processes N --process K, with K = 0 on HOST",
        ) from missing
    except (jax.errors.JaxRuntimeError, RuntimeError) as failure:
        early = "must be called before" in str(failure) or "only be called once" in str(failure)
        raise EngineError(
            "JAX runs already" if early else "the processes of the job have not found each other",
            where="distributed",
            expected=f"{processes or 'all'} processes at {address or 'the address the launcher gives'}",
            got=str(failure).splitlines()[0],
            hint="join the job first of all"
            if early
            else "does process 0 run, is its port open, and N the same for all?",
        ) from failure


def leave() -> None:
    """Let the job end: this process goes on by itself. Waits for the others to leave too."""
    jax.distributed.shutdown()


def told(what: str, text: str | None = None) -> str:
    """A text that process 0 tells the others under a name: its own ``text`` there, what it said here."""
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
    try:
        _client().wait_at_barrier("pellucid/lost", 1000 * ASKED)
        return []
    except jax.errors.JaxRuntimeError as answer:
        _, _, named = str(answer).partition("timed out task names:\n")
        return re.findall(r"\d+", named.split("\n\n")[0])


def _client() -> Any:
    return distributed.global_state.client


def _end() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
