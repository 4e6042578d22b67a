"""What a training takes of memory is reported, and none of it is lost."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines
from pellucid.history import History
from pellucid.runs import Run, environment, peak_memory
from pellucid.training.callbacks import Callback

native = pytest.mark.skipif(
    engines.known().get("native") is not None, reason=f"native engine: {engines.known().get('native')}"
)
STATUS = Path("/proc/self/status")
linux = pytest.mark.skipif(not STATUS.exists(), reason="needs /proc")
RNG = np.random.default_rng(0)


def resident() -> int:
    """Bytes of memory that the process holds now."""
    return int(re.search(r"VmRSS:\s*(\d+)", STATUS.read_text())[1]) << 10


def digits(**options):
    return pl.Sequential(
        pl.Conv2D(4, 3, "relu"),
        pl.MaxPool2D(2),
        pl.BatchNorm(),
        pl.Flatten(),
        pl.Dropout(0.2),
        pl.Dense(5),
        input_shape=(1, 8, 8),
        loss="softmax_cross_entropy",
        **options,
    )


def sequences(**options):
    return pl.Sequential(
        pl.LSTM(6), pl.Dense(5, "tanh"), pl.Dense(1), input_shape=(None, 3), loss="squared_error", **options
    )


@native
@linux
@pytest.mark.parametrize(("make", "steps"), [(digits, 10_000), (sequences, 2_000)], ids=["images", "sequences"])
def test_nothing_is_lost_in_ten_thousand_steps(make, steps):
    net = make(engine="native", seed=0)
    m, batch = 400, 8
    if make is digits:
        x, y = RNG.normal(size=(m, 1, 8, 8)).astype(np.float32), np.arange(m) % 5
    else:
        x = pl.Sequences([RNG.normal(size=(1 + i % 4, 3)).astype(np.float32) for i in range(m)])
        y = RNG.normal(size=(m, 1)).astype(np.float32)
    kernels, held = engines.get("native").kernels, []

    class Watch(Callback):
        def on_epoch(self, training, record):
            if training.t in (500, 500 + steps):
                gc.collect()
                held.append((resident(), kernels.used_bytes(), kernels.held_bytes(), sys.getallocatedblocks()))

    net.fit(
        x,
        y,
        batch_size=batch,
        epochs=10 + steps // 50,
        optimizer="adam",
        metrics=(),
        callbacks=[Watch()],
        progress=False,
    )
    before, after = held
    grown = dict(zip(("resident", "used", "held", "blocks"), np.subtract(after, before), strict=True))
    assert grown["used"] == 0
    assert grown["held"] == 0
    assert grown["resident"] < 100 * steps, grown
    assert grown["blocks"] < steps / 2, grown  # what the records of the epochs take is less


@native
def test_the_history_says_what_the_engine_held():
    net = digits(engine="native", seed=0)
    x, y = RNG.normal(size=(64, 1, 8, 8)).astype(np.float32), np.arange(64) % 5
    small = net.fit(x, y, batch_size=8, epochs=2, progress=False).memory["engine"]
    large = net.fit(x, y, batch_size=64, epochs=2, progress=False).memory["engine"]
    maps = 4 * 6 * 6 * 4  # bytes of an example's first feature maps, which the backward pass reads
    assert 8 * maps < small < large
    assert large - small > 56 * maps


@linux
def test_the_process_s_own_peak_is_reported():
    program = (
        "import numpy as np; from pellucid.runs import peak_memory; before = peak_memory();"
        "np.ones(30_000_000 // 8); print(before, peak_memory())"
    )
    before, after = map(
        int, subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.split()
    )
    assert 25_000_000 < after - before < 40_000_000
    assert resident() <= peak_memory() < 1 << 40


def test_each_epoch_is_recorded_with_the_most_so_far_and_so_is_the_run(tmp_path):
    net = pl.Sequential(pl.Dense(1), input_shape=2, loss="squared_error", engine="numpy")
    x = RNG.normal(size=(20, 2)).astype(np.float32)
    with Run.create(tmp_path / "run", config={}, environment=environment(engine="numpy")) as run:
        history = net.fit(x, x[:, :1], epochs=3, run=run, progress=False)
    assert "engine" not in history.memory  # which does not count
    process = [record["memory"].get("process", 0) for record in history]
    assert process == sorted(process)
    assert history.memory.get("process", 0) == process[-1]
    assert run.history().memory == History.from_document(history.to_document()).memory == history.memory
    assert not [name for name in history.metrics if "memory" in name]
    assert "memory" not in repr(history)


def test_a_history_without_it_has_none():
    assert History([{"epoch": 1, "train": {"loss": 1.0}}]).memory == {}
    both = History([{"epoch": 1, "memory": {"process": 7, "engine": 3}}, {"epoch": 2, "memory": {"process": 9}}])
    assert both.memory == {"process": 9, "engine": 3}


@pytest.mark.parametrize("engine", engines.available())
def test_a_training_s_memory_is_free_when_it_is_over(engine):
    net = pl.Sequential(pl.Dense(1), input_shape=2, loss="squared_error", engine=engine)
    x = RNG.normal(size=(20, 2)).astype(np.float32)
    seen = []

    class Look(Callback):
        def on_start(self, training):
            seen.append(weakref.ref(training))

    gc.disable()
    try:
        net.fit(x, x[:, :1], epochs=1, batch_size=8, callbacks=[Look()], progress=False)
        assert seen[0]() is None
    finally:
        gc.enable()
