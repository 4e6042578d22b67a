"""One process with simulated devices: the same trainings on several meshes, and what came of them as one line of JSON.

``python worker.py DEVICES JOB …`` with JOB = name:mesh, such as ``mlp:data=2,model=2``; ``mlp:`` is one device.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np

os.environ["JAX_NUM_CPU_DEVICES"] = sys.argv[1]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiled sooner; it runs for an instant

import pellucid as pl
from pellucid.trees import leaves
from pellucid.zoo.alexnet import small


def data(shape, m=16, classes=4):
    rng = np.random.default_rng(1)
    return rng.normal(size=(m, *shape)).astype("float32"), rng.integers(0, classes, m)


def network(name):
    options = {"loss": "softmax_cross_entropy", "engine": "jax", "seed": 2}
    if name == "mlp":
        layers = [pl.Dense(64, "relu"), pl.BatchNorm(), pl.Dropout(0.4), pl.Dense(5, "tanh"), pl.Dense(4)]
        return pl.Sequential(*layers, input_shape=32, **options), data((32,), m=22)
    if name == "convolutions":  # LeNet-5's kinds of layers, a grouped one and a transpose among them
        layers = [
            *(pl.Conv2D(4, 3, "relu", padding=1), pl.AveragePool2D(2), pl.Conv2D(6, 3, "tanh", groups=2)),
            *(pl.LocalResponseNorm(groups=2), pl.ConvTranspose2D(2, 2), pl.Flatten(), pl.Dense(4)),
        ]
        return pl.Sequential(*layers, input_shape=(1, 8, 8), **options), data((1, 8, 8))
    if name == "lstm":
        x, y = data((5, 3))
        x = pl.Sequences([each[: 1 + i % 5] for i, each in enumerate(x)])
        return pl.Sequential(pl.LSTM(6), pl.Dense(4), input_shape=(None, 3), **options), (x, y)
    return small((3, 16, 16), 4, width=1 / 32, dropout=0.3, **options), data((3, 16, 16))


def trained(name, mesh, **options):
    net, (x, y) = network(name)
    usual = {"batch_size": 8, "metrics": (), "optimizer": "adam(1e-2)", "progress": False}
    options = {"epochs": 2 if name == "mlp" else 1, **usual, **options}
    history = net.fit(x, y, mesh=mesh or None, **options)
    return {
        "loss": history["loss"][-1],
        "parameters": {path: np.asarray(leaf).ravel().tolist() for path, leaf in leaves(net.parameters)},
        "state": {path: np.asarray(leaf).ravel().tolist() for path, leaf in leaves(net.state)},
    }


def refused(**options):
    net, (x, y) = network("mlp")
    try:
        net.fit(x, y, epochs=1, progress=False, **options)
    except pl.errors.PellucidError as problem:
        return str(problem)


def done(job):
    name, _, mesh = job.partition(":")
    if name == "exchanged":
        found = pl.exchanged(network("alexnet")[0], mesh=mesh, batch_size=8)
        return {
            "rows": [tuple(row) for row in found.rows],
            "text": str(found),
            "parameter_bytes": found.parameter_bytes,
            "step_bytes": found.step_bytes,
        }
    if name == "refused":
        return [
            refused(mesh="data=5"),
            refused(mesh="data=4", batch_size=6),
            refused(mesh="data=2,rows=3"),
            refused(mesh="data=0"),
        ]
    if name == "resumed":  # two epochs, the first of them on two devices
        with pl.runs.Run.create(os.environ["RUN"], config={}, environment={}) as run:
            trained("mlp", "data=2", run=run, epochs=1)
        shutil.copytree(run.path, os.environ["RUN"] + "-2")
        return [trained("mlp", "", run=run, resume=True), trained("mlp", "data=4", run=f"{run.path}-2", resume=True)]
    return trained(name, mesh)


if __name__ == "__main__":
    print(json.dumps({job: done(job) for job in sys.argv[2:]}))
