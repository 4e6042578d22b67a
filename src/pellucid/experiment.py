"""Runs and saved networks made ready to be used again."""

from __future__ import annotations

from pathlib import Path

from pellucid import tasks, zoo
from pellucid.data.preprocessor import Preprocessor
from pellucid.errors import CheckpointError, DataError, ParameterError, unknown
from pellucid.network.base import Network
from pellucid.network.saving import load, restored
from pellucid.runs import Run
from pellucid.tasks.examples import Examples

MODEL = "model.pellucid"


def trained(name: str, *, engine: str = "auto") -> tuple[Network, Preprocessor, Run | None]:
    """The network of a run on examples or of a saved file, its preprocessing, and the run; see `opened`.

    Raises:
        ParameterError: it was trained for another task.
    """
    net, run = opened(name, engine=engine)
    task = tasks.of(net)
    if task is not Examples:
        raise ParameterError(f"this network is for {task.title}", where=name, expected=f"one for {Examples.title}")
    return net, Preprocessor.from_document(net.preprocessing or {}), run


def opened(name: str, *, engine: str = "auto") -> tuple[Network, Run | None]:
    """The network of a run or of a saved file, and the run; the network holds its preprocessing.

    Of a run that has not ended the last checkpoint is taken.

    Raises:
        DataError: there is no such run.
        CheckpointError: nothing was saved yet, it is damaged, or it holds no preprocessing.
    """
    from pellucid import files

    if Path(name).is_file():
        net, run = load(name, engine=engine), None
    else:
        run = Run.open(name)
        path = run.path / MODEL
        if path.exists():
            net = load(path, engine=engine)
        elif (path := run.checkpoint_path("latest")).exists():
            net = restored(*files.read_arrays(path), engine=engine, where=str(path))
        else:
            raise CheckpointError(
                "this run has saved no network yet", where=str(run.path), hint=f"pellucid train --resume {run.path}"
            )
    if net.preprocessing is None:
        raise CheckpointError(
            "this network was saved without preprocessing, so it cannot read raw data",
            where=name,
            hint="networks trained by `pellucid train` have it; in Python use pl.load(…).predict(x)",
        )
    return net, run


def is_run(name: str) -> bool:
    """Whether ``name`` is a run or a saved network, and no network of the zoo or file."""
    if name in zoo.entries() or name.endswith(".toml"):
        return False
    try:
        return Path(name).is_file() or bool(Run.open(name))
    except DataError:
        if Path(name).exists() or name == "latest":
            raise
        from pellucid.runs import list_runs

        if any(run.name.startswith(name) for run in list_runs()):
            raise
        raise unknown("run or network", name, [*zoo.entries(), *(run.name for run in list_runs())]) from None
