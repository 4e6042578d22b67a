"""One process of a job on simulated devices: ``python job.py RUN ADDRESS PROCESSES PROCESS``; without ADDRESS alone.

Process 1 kills itself in the second epoch. Alone it trains from the start, and resumes the run on three devices.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
os.environ["JAX_NUM_CPU_DEVICES"] = "1" if len(sys.argv) > 2 else "3"

import pellucid as pl
from pellucid.trees import leaves


class Dies(pl.Callback):
    def on_update(self, training):
        if training.epoch == 1 and training.batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


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
    history = net.fit(x, y, mesh=mesh, callbacks=callbacks, **usual, **options)
    parameters = {path: np.asarray(leaf).ravel().tolist() for path, leaf in leaves(net.parameters)}
    return {"losses": history["loss"], "parameters": parameters}


run, *rest = sys.argv[1:]
if rest:
    address, processes, process = rest[0], int(rest[1]), int(rest[2])
    pl.distribute(address, processes=processes, process=process)
    try:
        trained(f"data={processes}", *([Dies()] if process == 1 else []), run=run)
    except pl.errors.EngineError as lost:
        print(lost)
        sys.exit(3)
else:
    print(json.dumps({"alone": trained(None), "resumed": trained("data=3", run=run, resume=True)}))
