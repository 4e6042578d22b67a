"""An interrupted run that is resumed ends as one that never was: the same bits everywhere."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from pellucid import files
from pellucid.errors import CheckpointError, ParameterError, TrainingError
from pellucid.runs import Run
from pellucid.trees import flatten

WORKER = Path(__file__).with_name("worker.py")
_spec = importlib.util.spec_from_file_location("pellucid_training_worker", WORKER)
worker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker)


def start(folder: Path, what: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(WORKER), str(folder), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_until(folder: Path, what: str) -> tuple[int, str, str]:
    process = start(worker.new_run(folder), what)
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def without_seconds(value):
    if isinstance(value, dict):
        return {name: without_seconds(each) for name, each in value.items() if name not in ("seconds", "memory")}
    return [without_seconds(each) for each in value] if isinstance(value, list) else value


def checkpoint(folder: Path, name: str = "latest") -> tuple[dict[str, np.ndarray], dict]:
    return files.read_arrays(folder / "checkpoints" / f"{name}.pellucid")


def assert_same_end(folder: Path, net, history, reference) -> None:
    expected_folder, expected_net, expected_history = reference
    arrays, document = checkpoint(folder)
    expected_arrays, expected_document = checkpoint(expected_folder)
    assert arrays.keys() == expected_arrays.keys()
    for name, array in expected_arrays.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    assert without_seconds(document) == without_seconds(expected_document)
    for one, other in ((net.parameters, expected_net.parameters), (net.state, expected_net.state)):
        for path, leaf in flatten(other).items():
            np.testing.assert_array_equal(flatten(one)[path], leaf, err_msg=path)
    assert without_seconds(history.to_document()) == without_seconds(expected_history.to_document())
    with Run.open(folder) as run:
        assert without_seconds(run.history().records) == without_seconds(expected_history.records)
    assert Run.open(folder).status == "finished"
    assert not list(folder.rglob("*.tmp"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = worker.new_run(tmp_path_factory.mktemp("whole") / "run")
    net, history = worker.train(folder)
    assert history.stopped is not None
    assert history.restored_epoch == len(history) - 4
    assert len(set(history["learning_rate"])) > 1
    assert {path.split("/")[0] for path in checkpoint(folder)[0]} == {
        "parameters",
        "state",
        "slots",
        "tally",
        "callbacks",
    }
    return folder, net, history


@pytest.mark.parametrize(
    "what", ["update:1", "update:4", "update:45", "update:50", "rename:40", "sync:33", "link:30", "log:3", "measure:3"]
)
def test_resume_after_kill_9_is_exact(tmp_path, reference, what):
    folder = tmp_path / "run"
    code, _, _ = run_until(folder, what)
    assert code == -signal.SIGKILL
    assert Run.open(folder).status == "interrupted"
    assert_same_end(folder, *worker.train(folder, resume=True), reference)


def test_resume_after_being_killed_at_any_time_again_and_again(tmp_path, reference):
    folder = worker.new_run(tmp_path / "run")
    for seconds in (0.02, 0.05):
        process = start(folder, "slow")
        while not (folder / "checkpoints" / "latest.pellucid").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        time.sleep(seconds)
        process.kill()
        process.communicate()
        Run.open(folder).claim()  # what a dead process left is no obstacle
        saved = checkpoint(folder)[1]["position"]
        (folder / "checkpoints" / "latest.pellucid").rename(folder / "kept")
        (folder / "checkpoints" / "previous.pellucid").unlink(missing_ok=True)
    (folder / "kept").rename(folder / "checkpoints" / "latest.pellucid")
    assert saved["t"] > 0
    net, history = worker.train(folder, resume=True)
    _, expected_net, expected = reference
    assert without_seconds(history.records) == without_seconds(expected.records)
    np.testing.assert_array_equal(net.parameters["dense_1"]["W"], expected_net.parameters["dense_1"]["W"])


@pytest.mark.parametrize(("name", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 128 + signal.SIGTERM)])
def test_a_signal_saves_and_ends(tmp_path, reference, name, code):
    folder = tmp_path / "run"
    returned, out, _ = run_until(folder, name)
    assert returned == code
    assert out.startswith("KeyboardInterrupt" if name == "SIGINT" else "SystemExit 143")
    assert checkpoint(folder)[1]["position"]["t"] == 40
    assert Run.open(folder).status == "interrupted"
    assert_same_end(folder, *worker.train(folder, resume=True), reference)


def test_a_second_ctrl_c_is_immediate(tmp_path):
    folder = tmp_path / "run"
    returned, out, _ = run_until(folder, "twice")
    assert (returned, out.split()[0]) == (-signal.SIGINT, "KeyboardInterrupt")
    assert checkpoint(folder)[1]["position"]["t"] == 39  # nothing more was written


def test_the_network_keeps_what_it_learned_until_ctrl_c(tmp_path):
    x, y = worker.data()
    net, other = worker.make(), worker.make()
    before = signal.getsignal(signal.SIGINT)
    options = {"batch_size": 9, "progress": False, "shuffle": False}
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, y, epochs=9, callbacks=[worker.Until(20, signal.SIGINT)], **options)
    assert signal.getsignal(signal.SIGINT) is before
    other.fit(x, y, epochs=2, **options)
    np.testing.assert_array_equal(net.parameters["dense_1"]["W"], other.parameters["dense_1"]["W"])
    np.testing.assert_array_equal(net.state["batch_norm_1"]["mean"], other.state["batch_norm_1"]["mean"])


def test_ctrl_c_while_validating_ends_before_the_next_update(tmp_path, monkeypatch, reference):
    from pellucid.training import loop

    measured, calls = loop.measured, []

    def interrupted(*arguments, **options):
        calls.append(len(calls))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return measured(*arguments, **options)

    folder = worker.new_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "measured", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.train(folder)
    position = checkpoint(folder)[1]["position"]
    assert (position["epoch"], position["batch"], position["t"]) == (3, 0, 27)
    assert_same_end(folder, *worker.train(folder, resume=True), reference)


def test_signals_are_left_alone_outside_the_main_thread():
    import threading

    x, y = worker.data()
    lengths = []
    thread = threading.Thread(
        target=lambda: lengths.append(len(worker.make().fit(x, y, epochs=1, batch_size=9, progress=False)))
    )
    thread.start()
    thread.join()
    assert lengths == [1]


def test_more_epochs_go_on_where_the_run_ended(tmp_path):
    x, y = worker.data()
    folder = worker.new_run(tmp_path / "run")
    options = {"batch_size": 9, "progress": False, "metrics": ()}
    one, two = worker.make(), worker.make()
    one.fit(x, y, epochs=5, **options)
    two.fit(x, y, epochs=2, run=folder, **options)
    two = worker.make()
    history = two.fit(x, y, epochs=5, run=folder, resume=True, **options)
    assert history.epochs == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(one.parameters["dense_1"]["W"], two.parameters["dense_1"]["W"])


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path, reference):
    folder = tmp_path / "run"
    code, out, error = run_until(folder, "full")
    assert code == 1
    assert out.startswith("CheckpointError")
    assert "latest.pellucid: cannot be written" in error
    assert "ulimit -f" in error
    assert checkpoint(folder)[1]["position"]["t"] == 39
    assert not list(folder.rglob("*.tmp"))
    assert_same_end(folder, *worker.train(folder, resume=True), reference)


def test_a_full_disk_does_not_cost_the_network_what_it_learned(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = worker.new_run(tmp_path / "run")
    net = worker.make()
    before = net.parameters["dense_1"]["W"].copy()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device") as problem:
            net.fit(*worker.data(), batch_size=9, run=folder, checkpoint_seconds=0, progress=False)
    assert "free some space" in str(problem.value)
    assert (net.parameters["dense_1"]["W"] != before).any()
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_checkpoint_is_refused_with_what_to_do(tmp_path, reference, damage):
    folder = tmp_path / "run"
    run_until(folder, "update:50")
    latest, previous = (folder / "checkpoints" / f"{name}.pellucid" for name in ("latest", "previous"))
    whole = latest.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    latest.write_bytes({"truncated": whole[:-100], "flipped": bytes(flipped), "emptied": b""}[damage])
    with pytest.raises(CheckpointError) as problem:
        worker.train(folder, resume=True)
    message = str(problem.value)
    assert str(latest) in message
    assert "delete it: the run then goes on from previous.pellucid" in message
    latest.unlink()
    assert checkpoint(folder, "previous")[1]["position"]["t"] == 48
    assert_same_end(folder, *worker.train(folder, resume=True), reference)
    latest.write_bytes(b"")
    previous.unlink()
    with pytest.raises(CheckpointError, match="start a new run"):
        worker.train(folder, resume=True)


@pytest.mark.parametrize(
    ("named", "changed"),
    [
        ("optimizer", {"optimizer": "adam(0.5)"}),
        ("batch_size", {"batch_size": 11}),
        ("seed", {"seed": 9}),
        ("shuffle", {"shuffle": False}),
        ("layer_statistics", {"layer_statistics": False}),
        ("metrics", {"metrics": ()}),
        ("validation data", {"validation": None, "callbacks": []}),
        ("validation data", {"sample_weight": None}),
        ("data", {"x": worker.data()[0] + np.eye(90, 5, dtype="float32")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_settings_or_data_are_refused(reference, named, changed):
    with pytest.raises(ParameterError, match=f"the run was made with another {named}") as problem:
        worker.train(reference[0], resume=True, **changed)
    assert "expected:" in str(problem.value)
    assert "start a new run" in str(problem.value)
    assert Run.open(reference[0]).status == "finished"


def test_another_network_is_refused(reference):
    x, y = worker.data()
    net = pl.Sequential(pl.Dense(3), input_shape=5, loss="softmax_cross_entropy")
    with pytest.raises(ParameterError, match="another network"):
        net.fit(x, y, run=reference[0], resume=True, progress=False)


def test_resume_needs_a_run_and_a_run_needs_resume(reference):
    x, y = worker.data()
    with pytest.raises(ParameterError, match="nothing to resume"):
        worker.make().fit(x, y, resume=True, progress=False)
    with pytest.raises(ParameterError, match="resume=True to go on, or a new run"):
        worker.make().fit(x, y, run=reference[0], progress=False)


def test_a_saved_network_is_no_checkpoint(tmp_path):
    folder = worker.new_run(tmp_path / "run")
    worker.make().save(folder / "checkpoints" / "latest.pellucid")
    with pytest.raises(CheckpointError, match="not a checkpoint of a training"):
        worker.train(folder, resume=True)


def test_two_writers_are_refused(tmp_path):
    folder = worker.new_run(tmp_path / "run")
    with Run.open(folder), pytest.raises(ParameterError, match="another process is writing this run"):
        worker.train(folder)


def test_a_diverging_run_keeps_its_last_good_checkpoint_and_its_network(tmp_path):
    x, y = worker.data()
    folder = worker.new_run(tmp_path / "run")
    net = worker.make()
    before = {path: leaf.copy() for path, leaf in flatten(net.parameters).items()}

    class Sudden(pl.schedules.Schedule):
        def rate(self, epoch, epochs, state):
            return 0.01 if epoch < 0.5 else 1e38

    pl.schedules.schedules.register("sudden_for_test_resume")(Sudden)
    with pytest.raises(TrainingError, match=r"at update [67] \(epoch 1\)") as problem:
        net.fit(
            x,
            y,
            batch_size=9,
            optimizer=pl.GradientDescent(Sudden()),
            run=folder,
            checkpoint_seconds=0,
            progress=False,
        )
    assert "a smaller learning rate" in str(problem.value)
    for path, leaf in flatten(net.parameters).items():
        np.testing.assert_array_equal(leaf, before[path])
    arrays, document = checkpoint(folder)
    assert document["position"]["t"] >= 5
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert Run.open(folder).status == "failed"


def test_history_keeps_how_it_ended(reference):
    history = reference[2]
    again = pl.History.from_document(history.to_document())
    assert (again.stopped, again.restored_epoch) == (history.stopped, history.restored_epoch)
    assert "has not improved since epoch" in again.stopped
