"""Several processes over loopback: the numbers of one, a process lost in the middle, the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pellucid as pl
from pellucid.cli import main
from pellucid.engines.jax import machines
from pellucid.engines.mesh import Placement
from pellucid.errors import EngineError, ParameterError
from pellucid.training.augment import Augmentation, Augmenter, augmentations
from pellucid.training.batches import Source

JOB = Path(__file__).with_name("job.py")
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")


def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def started(*command, **environment):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], env={**os.environ, **environment}, **pipes)


@pytest.fixture(scope="module")
def alone():
    """The training that nothing interrupts, on one device."""
    done = started(str(JOB))
    said, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    return json.loads(said)


@needs_jax
@pytest.mark.parametrize(("victim", "when"), [(0, "epoch"), (1, "save"), (2, "start")])
def test_a_process_is_lost_and_the_run_goes_on_with_another_number_of_devices(tmp_path, alone, victim, when):
    run = tmp_path / "run"
    pl.runs.Run.create(run, config={}, environment={}).close()
    where = address()
    patience = "5" if when == "start" else "60"  # there only a missing sign of life tells
    jobs = [
        started(str(JOB), str(run), where, "3", str(k), when if k == victim else "never", PATIENCE=patience)
        for k in range(3)
    ]
    try:
        said = [job.communicate(timeout=100)[1] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    checkpoint = run / "checkpoints" / "latest.pellucid"
    assert checkpoint.exists() == (when != "start")
    for k in {0, 1, 2} - {victim}:
        assert jobs[k].returncode == 1, said[k]
        who = "another process" if when == "start" else f"process {victim}"
        assert f"process {k}: {who} of 3 was lost" in said[k]
        kept = "there was no checkpoint yet" if when == "start" else f"the last checkpoint is intact, {checkpoint}"
        assert f"hint:     {kept}; to " in said[k]
        assert f"fit(…, run={str(run)!r}, resume=True)" in said[k]
    assert jobs[victim].returncode == -9

    before = pl.runs.Run.open(run).history()
    assert len(before) == {"start": 0, "epoch": 1, "save": 2}[when]  # an epoch's record comes before its checkpoint
    if when != "start":
        np.testing.assert_allclose(before["loss"], alone["losses"][: len(before)], rtol=1e-5)
    done = started(str(JOB), str(run))
    answer, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    resumed = json.loads(answer)
    np.testing.assert_allclose(resumed["losses"], alone["losses"], rtol=1e-5)
    for path, values in alone["parameters"].items():
        np.testing.assert_allclose(resumed["parameters"][path], values, rtol=1e-4, atol=2e-5, err_msg=path)


@needs_jax
def test_the_command_line_trains_with_two_processes(tmp_path):
    where = address()
    command = ["-m", "pellucid", "train", "digits", "--epochs", "1", "--batch-size", "128", "--hidden", "32", "--json"]
    command += [
        "--learning-rate",
        "0.02",
        "--distributed",
        where,
        "--processes",
        "2",
        "--no-plot",
        "--out",
        str(tmp_path / "run"),
    ]
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    jobs = [started(*command, "--process", str(k), **flags) for k in range(2)]
    (said, errors), (other, silence) = (job.communicate(timeout=120) for job in jobs)
    assert [job.returncode for job in jobs] == [0, 0], errors + silence
    document = json.loads(said)  # and nothing besides
    assert document["engine"] == "jax"
    assert document["train"]["accuracy"] > 0.3
    assert "mesh data=2" in errors
    assert (other, silence) == ("", "")
    run = pl.runs.Run.open(tmp_path / "run")
    assert run.status == "finished"
    assert len(run.history()) == 1


class Second(Placement):
    """What the second of two processes does."""

    def share(self, m):
        return slice(m // 2, m)

    def batch(self, share, m):
        return np.asarray(share)


class Taken:
    def __init__(self):
        self.indices = []

    def __len__(self):
        return 8

    def take(self, indices):
        self.indices.extend(indices.tolist())
        return np.outer(indices, [1.0, 2.0]), indices % 2


def test_a_process_reads_its_share_only():
    net = pl.Sequential(pl.Dense(2), input_shape=2, loss="softmax_cross_entropy", engine="numpy")
    rows = Taken()
    batch = Source(net, rows).batch(np.array([5, 3, 1, 6]), None, Second(net.ops))
    assert rows.indices == [1, 6]
    np.testing.assert_array_equal(batch.inputs["input"], [[1, 6], [2, 12]])
    np.testing.assert_array_equal(batch.targets["output"], [1, 0])


@dataclass(frozen=True)
class Turned(Augmentation):
    """One that draws for the whole batch only, as a user may write it."""

    def images(self, rng, X):
        return X * rng.permutation(X.shape[-1]).astype(X.dtype)


KINDS = [
    *("shift(2)", "random_crop", "flip", "rotate", "scale", "elastic(8, sigma=2)", "cutout(3)", "color_jitter"),
    *("lighting", "mixup(1.0)", ["shift", "mixup", "cutout(2)", "mixup(0.5)", "flip"], "turned"),
]


@pytest.mark.parametrize("given", KINDS)
def test_a_share_is_augmented_as_the_whole_batch_is(given, monkeypatch):
    net = pl.Sequential(pl.Flatten(), pl.Dense(3), input_shape=(3, 6, 6), loss="softmax_cross_entropy", engine="numpy")
    rng = np.random.default_rng(2)
    x, y, weight = rng.normal(size=(40, 3, 6, 6)), rng.integers(0, 3, 40), rng.uniform(0.5, 2, 40)

    class Fetched(Taken):
        def __len__(self):
            return 40

        def take(self, indices):
            self.indices.extend(indices.tolist())
            return x[indices], y[indices]

    monkeypatch.setitem(augmentations._classes, "turned", Turned)
    monkeypatch.setitem(augmentations._lookup, "turned", "turned")
    rows = Fetched()
    source = Source(net, rows, sample_weight=weight)
    change, chosen = Augmenter(given, net, Source(net, x, y), seed=4).at(2, 7), rng.permutation(40)[:16]
    whole = source.batch(chosen, change)
    rows.indices.clear()
    share = source.batch(chosen, change, Second(net.ops))
    mixes = "mixup" in given or "turned" in given or "mixup(1.0)" in given
    assert set(chosen[8:]) <= set(rows.indices) <= set(chosen)
    assert mixes or rows.indices == chosen[8:].tolist()
    for one, all_of_them in ((share.inputs, whole.inputs), (share.targets, whole.targets)):
        for name, values in one.items():
            np.testing.assert_array_equal(values, all_of_them[name][..., 8:])
    np.testing.assert_array_equal(share.weight, whole.weight[8:])
    assert not np.array_equal(share.inputs["input"], source.batch(chosen[8:]).inputs["input"])


@pytest.mark.parametrize("fetched", [False, True])
def test_sequences_of_a_share_are_as_long_as_the_whole_batch_needs(fetched):
    net = pl.Sequential(pl.LSTM(2), pl.Dense(2), input_shape=(None, 1), loss="softmax_cross_entropy", engine="numpy")
    x, y = pl.Sequences([np.full((n, 1), n, float) for n in (5, 1, 2, 2)]), np.array([0, 1, 1, 0])

    class Fetched(Taken):
        def __len__(self):
            return 4

        def take(self, indices):
            return x.take(indices), y[indices]

    source = Source(net, Fetched()) if fetched else Source(net, x, y)
    whole = source.batch(np.arange(4))
    share = source.batch(np.arange(4), None, Second(net.ops))
    np.testing.assert_array_equal(share.inputs["input"], whole.inputs["input"][..., 2:])
    np.testing.assert_array_equal(share.masks["input"], whole.masks["input"][..., 2:])
    np.testing.assert_array_equal(share.targets["output"], [1, 0])


@pytest.mark.parametrize("somewhere", ["somewhere", "host:0", "host:65536", "host:123456"])
def test_an_address_has_a_port(somewhere):
    with pytest.raises(ParameterError, match="HOST:PORT, the port from 1 to 65535"):
        pl.distribute(somewhere, processes=2, process=0)


@needs_jax
def test_a_loss_is_told_once_however_many_look_at_it(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(machines, "atexit", SimpleNamespace(register=lambda end: None))
    monkeypatch.setattr(machines, "_noticed", threading.Event())
    monkeypatch.setattr(machines, "_saying", SimpleNamespace(acquire=lambda: None))
    monkeypatch.setattr(machines, "_state", lambda: SimpleNamespace(num_processes=2, process_id=0))
    monkeypatch.setattr(machines, "_missing", lambda: [1])
    other = ValueError("of something else")
    assert machines.explained(other) is other
    told = machines.explained(RuntimeError("Gloo AllReduce failed: Connection reset by peer"))
    assert "process 0: process 1 of 2 was lost\n  got:      Gloo AllReduce failed" in str(told)
    assert machines.explained(told) is told  # by the `active` around the one that told it


@needs_jax
def test_a_process_that_does_not_know_its_place_is_told_how():
    script = "import pellucid as pl; pl.distribute(processes=2)"
    done = started("-c", script, JAX_PLATFORMS="cpu")
    _, errors = done.communicate(timeout=60)
    assert "does not know its place in the job" in errors
    assert "--distributed HOST:PORT --processes N --process K" in errors


@needs_jax
@pytest.mark.parametrize("process", [0, 1])
def test_a_job_that_does_not_meet_ends(process):
    script = (
        "import pellucid as pl; from pellucid.engines.jax import machines; machines.PATIENCE = 1\n"
        f"pl.distribute({address()!r}, processes=2, process={process})"
    )
    done = started("-c", script, JAX_PLATFORMS="cpu")
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 1
    assert f"process {process}: the processes of the job have not found each other" in errors
    assert "expected: 2 processes at 127.0.0.1:" in errors


@needs_jax
def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineError, match=r"(?s)process 0 cannot listen there.*in use.*another port"):
            pl.distribute(where, processes=2, process=0)


@needs_jax
def test_processes_that_were_not_told_the_same_all_end():
    where = address()
    script = f"import pellucid as pl; pl.distribute({where!r}, processes=%d, process=%d)"
    wait = "\nimport threading; threading.Event().wait()"
    numbers = [started("-c", script % (2 + k, k) + wait * (k == 0), JAX_PLATFORMS="cpu") for k in range(2)]
    where = address()
    command = ["-m", "pellucid", "train", "digits", "--distributed", where, "--processes", "2", "--quiet"]
    settings = [
        started(*command, "--process", str(k), "--batch-size", size, JAX_PLATFORMS="cpu")
        for k, size in enumerate(("64", "32"))
    ]
    try:
        _, errors = numbers[1].communicate(timeout=60)
    finally:
        numbers[0].kill()
    assert "process 1: another number of processes than process 0 was started with\n  expected: 2\n" in errors
    assert numbers[1].returncode == 1
    numbers[0].communicate()
    for job in settings:
        _, errors = job.communicate(timeout=60)
        assert job.returncode == 1
        assert (
            "process 1 was started with another batch_size than process 0\n  expected: 64\n  got:      32\n" in errors
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--process", "1"], "go with --distributed HOST:PORT"),
        (["--distributed", "127.0.0.1:1", "--engine", "numpy"], "--distributed is the jax engine's"),
        (["--distributed", "somewhere"], "HOST:PORT"),
        (["--mesh", ""], "expected: 'data=4', 'model=2', 'data=2,model=2' or 'data=4,sharded'"),
        (["--mesh", "data=2", "--engine", "numpy"], "hint:     --engine jax"),
    ],
)
def test_flags_that_do_not_go_together(capsys, flags, message):
    assert main(["train", "digits", *flags]) != 0
    assert message in capsys.readouterr().err


def test_the_launch_files_are_scripts():
    for script in (JOB.parents[2] / "examples" / "launch").glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
