"""One process of a job on simulated devices: ``python job.py lost ADDRESS PROCESSES PROCESS RUN WHEN``.

It kills itself WHEN: in the middle of the second ``epoch``, when it has to ``save`` then, before the first step, at the
``start``, or ``never``. Before, it is refused with what it was told otherwise than the others.

``job.py command ADDRESS PROCESSES PROCESS RUN`` is the command line, ``job.py alone RUN RESUMED…`` one process with two
devices that does all of it: the command line into RUN, the training, and what is left of each run.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
os.environ["JAX_NUM_CPU_DEVICES"] = "2" if sys.argv[1] == "alone" else "1"

from held import command

import pellucid as pl
from pellucid.engines.jax import machines
from pellucid.trees import leaves

machines.PATIENCE, machines.ASKED = int(os.environ.get("PATIENCE", "60")), 3


class Dies(pl.Callback):
    def __init__(self, when):
        self.when, self.epoch = when, 0

    def dies(self, now):
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_start(self, training):
        self.dies(self.when == "start")

    def on_update(self, training):
        self.epoch = training.epoch
        self.dies(self.when == "epoch" and training.epoch == 1 and training.batch == 2)

    def arrays(self):
        self.dies(self.when == "save" and self.epoch == 1)
        return {}


def trained(mesh, *callbacks, **options):
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 6, 48)  # of different lengths, so that a process must know of the others' to agree
    x, y = pl.Sequences([rng.normal(size=(n, 3)).astype("float32") for n in lengths]), rng.integers(0, 3, 48)
    net = pl.Sequential(
        *(pl.TimeDistributed(pl.Dense(6, "relu")), pl.SimpleRNN(8), pl.BatchNorm(), pl.Dropout(0.3), pl.Dense(3)),
        input_shape=(None, 3),
        loss="softmax_cross_entropy",
        engine="jax",
        seed=1,
    )
    usual = {"epochs": 2, "batch_size": 12, "metrics": (), "progress": False, "checkpoint_seconds": 0.0}
    history = net.fit(x, y, mesh=mesh, callbacks=callbacks, **(usual | options))
    parameters = {path: np.asarray(leaf).ravel().tolist() for path, leaf in leaves(net.parameters)}
    return {"losses": history["loss"], "parameters": parameters}


def lost(address, processes, process, run, when):
    pl.distribute(address, processes=int(processes), process=int(process))
    try:
        trained(f"data={processes}", batch_size=12 if process == "0" else 24)
    except pl.errors.ParameterError as refused:
        print(refused, flush=True)
    trained(f"data={processes}", *([] if when == "never" else [Dies(when)]), run=run)


def one_of_several(address, processes, process, run):
    which = ["--distributed", address, "--processes", processes, "--process", process]
    found = command(run, "--mesh", f"data={processes},sharded", *which)
    with open(f"{run}-{process}.json", "w") as file:
        json.dump(found, file)


def alone(run, *resumed):
    rest = [trained("data=2", run=each, resume=True) for each in resumed]
    print(json.dumps({"command": command(run), "whole": trained(None), "resumed": rest}))


{"lost": lost, "command": one_of_several, "alone": alone}[sys.argv[1]](*sys.argv[2:])
