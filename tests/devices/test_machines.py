"""Several processes over loopback: the numbers of one, a process lost in the middle, the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
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


LOST = {"epoch": (0, 2), "save": (1, 3), "start": (2, 3)}  # when: which, of how many


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the jobs said that lose a process, what two processes of the command line found; then, from one process
    with two devices, the same without a loss, and the rest of each run."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    folder, jobs, runs = tmp_path_factory.mktemp("jobs"), {}, {}
    for when, (victim, processes) in LOST.items():
        runs[when] = folder / when
        pl.runs.Run.create(runs[when], config={}, environment={}).close()
        where = address()
        patience = "5" if when == "start" else "60"  # there only a missing sign of life tells
        each = [(str(k), str(runs[when]), when if k == victim else "never") for k in range(processes)]
        jobs[when] = ended(started(str(JOB), "lost", where, str(processes), *one, PATIENCE=patience) for one in each)
    where, together = address(), folder / "together"
    jobs["command"] = ended(started(str(JOB), "command", where, "2", str(k), str(together)) for k in range(2))
    before = {when: pl.runs.Run.open(run).history() for when, run in runs.items()}
    kept = {when: (run / "checkpoints" / "latest.pellucid").exists() for when, run in runs.items()}
    ((code, said, errors),) = ended([started(str(JOB), "alone", str(folder / "alone"), *map(str, runs.values()))])
    assert code == 0, errors
    return SimpleNamespace(**locals(), alone=json.loads(said))


def ended(jobs):
    """Exit code, what was said and what was complained of, of each."""
    jobs = list(jobs)
    try:
        said = [job.communicate(timeout=120) for job in jobs]
        return [(job.returncode, *each) for job, each in zip(jobs, said, strict=True)]
    finally:
        for job in jobs:
            job.kill()


@pytest.mark.parametrize("when", LOST)
def test_a_process_is_lost_and_the_run_goes_on_with_another_number_of_devices(found, when):
    (victim, processes), run = LOST[when], found.runs[when]
    checkpoint = run / "checkpoints" / "latest.pellucid"
    assert found.kept[when] == (when != "start")
    for k, (code, _, said) in enumerate(found.jobs[when]):
        if k == victim:
            assert code == -9
            continue
        assert code == 1, said
        who = f"(another process|process {victim})" if when == "start" else f"process {victim}"
        assert re.search(f"process {k}: {who} of {processes} was lost", said), said
        kept = "there was no checkpoint yet" if when == "start" else f"the last checkpoint is intact, {checkpoint}"
        assert f"hint:     {kept}; to " in said
        assert f"fit(…, run={str(run)!r}, resume=True)" in said

    before, whole = found.before[when], found.alone["whole"]
    assert len(before) == {"start": 0, "epoch": 1, "save": 2}[when]  # an epoch's record comes before its checkpoint
    if when != "start":
        np.testing.assert_allclose(before["loss"], whole["losses"][: len(before)], rtol=1e-5)
    resumed = found.alone["resumed"][list(LOST).index(when)]
    np.testing.assert_allclose(resumed["losses"], whole["losses"], rtol=1e-5)
    for path, values in whole["parameters"].items():
        np.testing.assert_allclose(resumed["parameters"][path], values, rtol=1e-4, atol=2e-5, err_msg=path)


@pytest.mark.parametrize("when", LOST)
def test_processes_that_were_told_otherwise_all_refuse(found, when):
    for _, said, errors in found.jobs[when]:
        assert "process 1 was started with another batch_size than process 0\n" in said, errors
        assert "expected: 12\n  got:      24\n" in said


def test_two_processes_train_and_measure_a_network_that_neither_has_whole(found):
    for code, _, errors in found.jobs["command"]:
        assert code == 0, errors
    first, other = (json.loads(Path(f"{found.together}-{k}.json").read_text()) for k in range(2))
    assert (first["code"], other["code"]) == (0, 0)
    assert found.jobs["command"][1][1:] == ("", "")
    said = json.loads(found.jobs["command"][0][1])  # and nothing besides
    assert "mesh data=2,sharded" in found.jobs["command"][0][2]
    assert first["whole"] == other["whole"] == []
    alone = found.alone["command"]
    assert sorted(map(tuple, alone["whole"])) == [(96, 128), (128, 64)]  # it would have been seen
    for part in ("train", "validation", "test"):
        assert said[part] == pytest.approx(alone["said"][part], rel=1e-9)
    assert said["confusion"] == alone["said"]["confusion"]
    assert said["train"]["accuracy"] > 0.3
    run = pl.runs.Run.open(found.together)
    assert run.status == "finished"
    assert len(run.history()) == len(run.openings) == 1
    assert run.openings[0]["metrics"] == said["test"]
    one, several = (pl.load(folder / "model.pellucid", engine="numpy") for folder in (found.folder / "alone", run.path))
    for name, params in one.parameters.items():
        for leaf, values in params.items():
            np.testing.assert_allclose(several.parameters[name][leaf], values, rtol=1e-6, atol=1e-9)


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
def test_a_process_that_does_not_know_its_place_and_one_that_meets_nobody_are_told():
    script = (
        "import pellucid as pl; from pellucid.engines.jax import machines; machines.PATIENCE = 1\n"
        "try: pl.distribute(processes=2)\n"
        "except pl.errors.ParameterError as told: print(told)\n"
        "pl.distribute(%r, processes=2, process=%d)"
    )
    jobs = ended(started("-c", script % (address(), process), JAX_PLATFORMS="cpu") for process in range(2))
    for process, (code, said, errors) in enumerate(jobs):
        assert code == 1
        assert "does not know its place in the job" in said
        assert "--distributed HOST:PORT --processes N --process K" in said
        assert f"process {process}: the processes of the job have not found each other" in errors
        assert "expected: 2 processes at 127.0.0.1:" in errors


@needs_jax
def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineError, match=r"(?s)process 0 cannot listen there.*in use.*another port"):
            pl.distribute(where, processes=2, process=0)


@needs_jax
def test_another_number_of_processes_is_refused():
    script = (
        "import pellucid as pl, time; from pellucid.engines.jax import machines; machines.PARTING = 1\n"
        f"pl.distribute({address()!r}, processes=%d, process=%d); time.sleep(100)"
    )
    first, other = (started("-c", script % (2 + k, k), JAX_PLATFORMS="cpu") for k in range(2))
    try:
        ((code, _, errors),) = ended([other])
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert "process 1: another number of processes than process 0 was started with\n  expected: 2\n" in errors
    assert code == 1


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
