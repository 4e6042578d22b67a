"""A training that can be killed: run as a script by test_resume.py, which also imports what it trains."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import pellucid as pl
from pellucid import files
from pellucid.runs import Run, environment


class Until(pl.Callback):
    """Sends this process a signal after an update, as if from outside."""

    def __init__(self, t: int, number: int, times: int = 1) -> None:
        self.t, self.number, self.times = t, number, times

    def on_update(self, training) -> None:
        if training.t == self.t:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class Remembers(pl.Callback):
    """A callback with a memory of its own, numbers and arrays."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.path = np.zeros(2)

    def on_update(self, training) -> None:
        self.losses.append(training.last_loss())
        self.path = self.path * 0.9 + training.t

    def document(self):
        return {"losses": self.losses}

    def arrays(self):
        return {"path": self.path}

    def restore(self, document, arrays):
        self.losses, self.path = document["losses"], arrays["path"]


def data(m: int = 90) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, m)
    return (rng.normal(size=(m, 5)) + y[:, None] * rng.normal(size=5)).astype(np.float32), y


def make() -> pl.Sequential:
    return pl.Sequential(
        pl.Dense(16, "relu"),
        pl.BatchNorm(),
        pl.Dropout(0.3),
        pl.Dense(3),
        input_shape=5,
        loss="softmax_cross_entropy",
        regularizer="l2(0.001)",
        seed=1,
    )


def train(folder: Path, *, resume: bool = False, callbacks=(), x=None, **options):
    """Twelve epochs of nine updates with everything that has a memory; the network and its history."""
    net = make()
    own, y = data()
    history = net.fit(
        own if x is None else x,
        y,
        **{
            "epochs": 12,
            "batch_size": 9,
            "optimizer": pl.Adam(pl.ReduceOnPlateau(0.02, factor=0.5, patience=0, threshold=0.01)),
            "validation": 0.1,
            "sample_weight": np.linspace(0.5, 2.0, 90),
            "metrics": ["accuracy", "log_loss"],
            "callbacks": [pl.EarlyStopping(4, min_delta=0.02), Remembers(), *callbacks],
            "layer_statistics": True,
            "progress": False,
            "run": str(folder),
            "checkpoint_seconds": 0,
            "resume": resume,
            **options,
        },
    )
    return net, history


def new_run(folder: Path) -> Path:
    with Run.create(folder, config={"epochs": 12}, environment=environment(engine="numpy", seed=1)):
        return folder


def kill_within(what: str) -> list[pl.Callback]:
    """Arranges for this process to die at a tender moment of update 40 or of epoch 5's end."""
    name, _, count = what.partition(":")
    left = [int(count)]

    def dying(function):
        def call(*arguments, **named):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    if name == "rename":
        os.replace = dying(os.replace)
    elif name == "sync":
        os.fsync = dying(os.fsync)
    elif name == "log":
        Run.log = dying(Run.log)
    elif name == "link":
        os.link = dying(os.link)
    elif name == "measure":
        from pellucid.training import loop

        loop.measured = dying(loop.measured)
    return []


def main() -> None:
    folder, what = Path(sys.argv[1]), sys.argv[2]
    callbacks: list[pl.Callback] = []
    options = {}
    if what.startswith("update:"):
        callbacks = [Until(int(what.split(":")[1]), signal.SIGKILL)]
    elif what in ("SIGINT", "SIGTERM"):
        callbacks = [Until(40, getattr(signal, what))]
    elif what == "twice":
        callbacks = [Until(40, signal.SIGINT, times=2)]
    elif what == "slow":  # until killed from outside

        class Slow(pl.Callback):
            def on_update(self, training):
                time.sleep(0.002)

        callbacks, options = [Slow()], {"checkpoint_seconds": 0.003}
    elif what == "full":
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        class Fill(pl.Callback):
            def on_update(self, training):
                if training.t == 40:
                    size = (folder / "checkpoints" / "latest.pellucid").stat().st_size
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

        callbacks = [Fill()]
    else:
        callbacks = kill_within(what)
    before = signal.getsignal(signal.SIGINT)
    try:
        train(folder, callbacks=callbacks, **options)
    except BaseException as failure:
        assert signal.getsignal(signal.SIGINT) is before
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        print(type(failure).__name__, failure)
        raise
    files.write_arrays(folder / "end.pellucid", {}, {})


if __name__ == "__main__":
    main()
