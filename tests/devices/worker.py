"""One process with simulated devices: the same trainings on several meshes, and what came of them as one line of JSON.

``python worker.py DEVICES JOB …`` with JOB = name:mesh, such as ``mlp:data=2,model=2``; ``mlp:`` is one device.
"""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest

os.environ["JAX_NUM_CPU_DEVICES"] = sys.argv[1]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiled sooner; it runs for an instant

import jax
from held import command

import pellucid as pl
from pellucid.engines.jax.ops import _ordered
from pellucid.engines.jax.placement import OnMesh
from pellucid.inspect.exchanges import _COLLECTIVE
from pellucid.trees import leaves
from pellucid.zoo.alexnet import small


def data(shape, m=16, classes=4):
    rng = np.random.default_rng(1)
    return rng.normal(size=(m, *shape)).astype("float32"), rng.integers(0, classes, m)


def network(name, **more):
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
    if name == "layers":  # whose parameters lie in trees of their own, or are not those of a product
        x, y = np.random.default_rng(5).integers(0, 36, (16, 5)), data((), m=16)[1]
        ids = pl.Input((5,))
        A = pl.TimeDistributed(pl.Dense(36, "relu"))(pl.Embedding(36, 32)(ids))
        A = pl.Bidirectional(pl.LSTM(16, return_sequences=True))(A)
        A = pl.Recompute(pl.TimeDistributed(pl.Dense(36)), pl.LayerNorm(), pl.Dropout(0.2))(A)
        A = pl.GRU(20)(pl.AdditiveAttention(34)(A, A))
        return pl.Graph(inputs=ids, outputs=pl.Dense(4)(A), **options, **more), (x, y)
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


def most_held():
    """The bytes of all arrays there are, on the device that has most of them."""
    buffers = {
        (part.device, part.data.unsafe_buffer_pointer()): part.data.nbytes  # two arrays may share one
        for A in jax.live_arrays()
        for part in A.addressable_shards
    }
    held = Counter()
    for (device, _), size in buffers.items():
        held[device] += size
    return max(held.values(), default=0)


class Watch(pl.Callback):
    def __init__(self):
        self.most = 0

    def on_update(self, training):
        self.most = max(self.most, most_held())


def spread(mesh):
    """A network made, trained, saved, read and run on a mesh: bytes of the device that has most, and of the host."""

    def made(**where):
        layers = [pl.Dense(128, "relu") for _ in range(8)]
        return pl.Sequential(
            *layers, pl.Dense(4), input_shape=128, loss="softmax_cross_entropy", engine="jax", seed=2, **where
        )

    found = {}
    most = []
    placed = OnMesh.placed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnMesh, "placed", lambda *given: (placed(*given), most.append(most_held()))[0])
        net = made(mesh=mesh)
        found["made"] = max(most)
        x, y = data((128,))
        options = {"batch_size": 8, "metrics": (), "optimizer": "adam(1e-2)", "progress": False, "epochs": 1}
        watch = Watch()
        with pl.runs.Run.create(f"{os.environ['RUN']}-{mesh}", config={}, environment={}) as run:
            net.fit(x, y, callbacks=[watch], run=run, **options)
        found["trained"] = watch.most
        path = os.environ["RUN"] + ".pellucid"
        tracemalloc.start()
        net.save(path)
        found["saved"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        predicted = net.predict(x)
        shares = {
            name: math.prod(W.sharding.shard_shape(W.shape)) / W.size
            for name, W in leaves(net.parameters)
            if W.size > 1000
        }
        del net
        gc.collect()
        most.clear()
        net = pl.load(path, engine="jax", mesh=mesh)
        found["read"] = max(most)
        again = net.predict(x)
        del net
        gc.collect()
        watch.most = 0
        most.clear()
        net = made(mesh=mesh)
        net.fit(x, y, callbacks=[watch], run=run.path, resume=True, **(options | {"epochs": 2}))
        found["resumed"] = max(most)
    one = made()
    whole = sum(W.nbytes for _, W in leaves(one.parameters))
    same = all(np.array_equal(one.parameters[name]["W"], W["W"]) for name, W in made(mesh=mesh).parameters.items())
    one.fit(x, y, **options)
    apart = [float(np.abs(np.subtract(other, one.predict(x))).max()) for other in (predicted, again)]
    return {"whole": whole, "same": same, "shares": shares, "apart": apart, **found}


def looped(mesh):
    """A training in the loop over resident examples, the same step by step, and the loop's program."""
    programs = []

    def taken(loop):
        def run(*arguments):
            programs.append(loop.__wrapped__.lower(*map(_ordered, arguments)).compile().as_text())
            return loop(*arguments)

        return run

    ops = type(pl.engines.get("jax"))
    wrapped = ops.looped
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "looped", lambda *given: taken(wrapped(*given)))
        own = trained("mlp", mesh, metrics="auto", sample_weight=np.linspace(0.5, 1.5, 22))
        steps = trained("mlp", mesh, metrics="auto", sample_weight=np.linspace(0.5, 1.5, 22), callbacks=[Watch()])
    kinds = Counter(found["kind"] for line in programs[0].splitlines() if (found := _COLLECTIVE.search(line)))
    return {"own": own, "steps": steps, "calls": len(programs), "kinds": kinds}


def refused(**options):
    net, (x, y) = network("mlp")
    try:
        net.fit(x, y, epochs=1, progress=False, **options)
    except pl.errors.PellucidError as problem:
        return str(problem)


def done(job):
    name, _, mesh = job.partition(":")
    if name == "looped":
        return looped(mesh)
    if name == "spread":
        return spread(mesh)
    if name == "command":
        return command(f"{os.environ['RUN']}-command-{mesh}", *(["--mesh", mesh] if mesh else []))
    if name == "step_bytes":  # of networks of 4 and of 12 such layers
        return [
            (found.parameter_bytes, found.step_bytes, [tuple(row) for row in found.rows])
            for layers in ([pl.Dense(128, "relu") for _ in range(n)] for n in (4, 12))
            for net in [pl.Sequential(*layers, input_shape=128, loss="mse", engine="jax")]
            for found in [pl.exchanged(net, mesh=mesh, batch_size=8)]
        ]
    if name == "lies":
        shapes = [(64, 32), (32, 64), (63, 64), (6, 5), (7, 5), (4096,), (4098, 3), (36, 36, 3, 3), (1, 2048), ()]
        return [list(OnMesh(pl.engines.get("jax"), pl.Mesh.of(mesh)).split(shape)) for shape in shapes]
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
