"""The search: counted, shared, interrupted, killed, and what becomes of trials that go wrong."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helping import SPACE, python, until

from pellucid.data.prepared import Prepared
from pellucid.errors import DataError, EngineError, ParameterError, TrainingError
from pellucid.tune import Study, tune
from pellucid.tune import search as searching
from pellucid.tune import splits as splitting
from pellucid.tune import storage as storing
from pellucid.tune.splits import drawn, judged, usual

# --- one process ----------------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_recipe_and_the_others_are_drawn(small):
    study = small(trials=5)
    first, *others = study.counted
    assert first.baseline
    assert first.settings == {}
    second = others[0].settings  # what the space has of the recipe
    assert (second["optimizer"], second["learning_rate"], second["units"]) == ("adam", 0.002, 32)
    assert [each.settings["layers"] for each in others] == [1] * 4
    assert len({str(each.settings) for each in study.counted}) == 5
    assert study.best.loss == min(each.loss for each in study.complete)
    assert first.environment["data_fingerprint"] == study.plan["fingerprint"]
    assert {"engine", "cpu", "pellucid", "date", "packages"} <= set(first.environment)


def test_the_same_seed_draws_the_same(small):
    one, other = small(trials=7, out="one"), small(trials=7, out="other")
    assert [each.settings for each in one.counted] == [each.settings for each in other.counted]
    assert [each.loss for each in one.counted] == [each.loss for each in other.counted]
    third = small(trials=7, out="third", seed=1)
    assert [each.settings for each in third.counted][1:] != [each.settings for each in one.counted][1:]


def test_the_same_call_again_goes_on_until_there_are_enough(small):
    assert len(small(trials=3).counted) == 3
    before = small(trials=3).counted
    assert len(before) == 3
    after = small(trials=6).counted
    assert after[:3] == before
    assert len(after) == 6
    assert len({str(each.settings) for each in after}) == 6


@pytest.mark.parametrize("sampler", searching.SAMPLERS)
def test_every_sampler_searches(small, sampler):
    space = SPACE | {"units": {"low": 4, "high": 12, "step": 4}, "learning_rate": [0.01, 0.1], "momentum": [0.5, 0.9]}
    study = small(trials=6, sampler=sampler, space=space, pruner="none")
    assert [each.state for each in study.counted] == ["complete"] * 6
    assert len({str(each.settings) for each in study.counted}) == 6


def test_a_sampler_learns(small):
    """Where one choice is far better, a sampler that learns draws it more often than one that does not."""
    space = {"learning_rate": {"low": 1e-6, "high": 1.0, "log": True}, "optimizer": "gradient_descent", "epochs": 3}

    def typical(sampler):
        study = small(trials=36, sampler=sampler, space=space, out=sampler)
        return np.median([each.settings["learning_rate"] for each in study.counted[12:]])

    assert typical("tpe") > 10 * typical("random")


def test_a_grid_ends_when_all_of_it_was_tried(small):
    space = {"units": [4, 8], "optimizer": ["adam", "momentum"], "momentum": [0.5, 0.9], "epochs": 2}
    study = small(trials=50, sampler="grid", space=space)
    assert len(study.counted) == 1 + 2 * 3
    assert study.exhausted
    with pytest.raises(ParameterError, match="a grid needs every value"):
        small(sampler="grid", out="other")


def test_a_small_space_is_searched_through_and_nothing_twice(small):
    study = small(trials=50, sampler="random", space={"units": [4, 8, 16], "epochs": 2})
    assert len(study.counted) == 4
    assert study.exhausted


@pytest.mark.parametrize("pruner", ["median", "hyperband", "asha"])
def test_trials_that_do_badly_end_early(small, pruner):
    space = {"learning_rate": {"low": 1e-7, "high": 1e-1, "log": True}, "units": 8, "epochs": 12, "patience": 0}
    study = small(trials=24, space=space, pruner=pruner, sampler="random")
    pruned = [each for each in study.counted if each.state == "pruned"]
    assert pruned
    assert all(each.epochs < 12 and f"after epoch {each.epochs}" in each.reason for each in pruned)
    assert all(each.loss is None and len(each.curve) == each.epochs for each in pruned)
    assert np.median([each.curve[1] for each in pruned]) > study.complete[0].curve[1]


def test_without_a_pruner_all_are_trained_to_their_end(small):
    space = {"learning_rate": {"low": 1e-7, "high": 1e-1, "log": True}, "units": 8, "epochs": 5, "patience": 0}
    study = small(trials=14, space=space, pruner="none", sampler="random")
    assert {each.epochs for each in study.counted if not each.baseline} == {5}


def test_several_draws_of_the_validation_examples_never_touch_the_test(folder):
    study = tune("iris", space=SPACE, trials=4, validation=0.2, test=0.2, progress=False, pruner="none")
    draws = drawn(study.task, 4, 0)
    assert study.plan["splits"] == len(draws) == 4
    pool = Counter(row.tobytes() for part in ("train", "validation") for row in study.task.arrays(part)[0])
    held: Counter[bytes] = Counter()
    for each in draws:
        (train_x, train_y), (held_x, held_y) = each.arrays("train"), each.arrays("validation")
        assert (len(train_x), len(held_x)) == (90, 30)
        assert np.bincount(held_y).tolist() == [10, 10, 10]
        assert len(train_y) == 90
        assert Counter(row.tobytes() for row in np.concatenate([train_x, held_x])) == pool
        held.update(row.tobytes() for row in held_x)
    assert held == pool  # four draws of 30 of 120: each example is held out once
    for trial in study.counted:
        curves = [searching.train(each, study.plan, study.wanted(trial)).history["validation_loss"] for each in draws]
        assert trial.losses == pytest.approx(judged(curves, patient=True), rel=1e-6)
        assert trial.loss == pytest.approx(np.mean(trial.losses))
        assert trial.validation["loss"] == pytest.approx(min(curves[0]), rel=1e-6)


def test_no_draw_chooses_the_epoch_of_its_own_loss():
    curves = [[0.5, 0.1, 0.4], [0.3, 0.9, 0.2, 0.1], [0.6, 0.8, 0.7]]
    assert judged(curves, patient=True) == [0.5, 0.9, 0.7]  # the others like epoch 1, 2, 3 best
    assert judged(curves, patient=False) == [0.4, 0.1, 0.7]
    assert judged(curves[:1], patient=True) == [0.1]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4, 200)) + 1  # nothing to choose: the loss is 1 at every epoch
    flattered = noise.min(axis=1).mean()
    assert flattered < -1
    assert np.mean([np.mean(judged(rng.standard_normal((4, 50)) + 1, patient=True)) for _ in range(200)]) > 0.9


def test_how_often_the_validation_examples_are_drawn(small, monkeypatch):
    assert small(trials=1, out="one", splits=None).plan["splits"] == 10
    with pytest.raises(ParameterError, match=r"cannot be drawn so often(?s:.*)at most 10"):
        small(trials=1, out="many", splits=11)
    task = small(trials=1, out="two", splits=2).task
    assert task.sizes == {"train": 81, "validation": 9, "test": 0}
    for enough, count in ((9, 1), (10, 2), (27, 3), (1000, 10)):
        monkeypatch.setattr(splitting, "ENOUGH", enough)
        assert usual(task) == count
    monkeypatch.setattr(splitting, "MOST", 5)
    assert usual(task) == 5
    with pytest.raises(ParameterError, match="about another splits"):
        small(trials=1, out="two", splits=3)


def test_a_trial_behind_in_its_first_draws_is_not_trained_with_the_others(small):
    space = {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}, "units": 8, "epochs": 2, "patience": 0}
    study = small(trials=20, space=space, sampler="random", splits=3)
    behind = [each for each in study.counted if each.reason and "draws" in each.reason]
    assert behind
    assert all(len(each.losses) < 3 and f"{len(each.losses)} of 3 draws" in each.reason for each in behind)
    assert all(len(each.losses) == 3 for each in study.complete)


def test_time_bounds_the_search(small):
    study = small(trials=None, time=0.5)
    assert 1 <= len(study.counted) < 60


def test_the_test_examples_are_never_looked_at(folder, monkeypatch):
    seen: set[int] = set()
    take = Prepared.take

    def spied(self, indices):
        seen.update(self.rows[indices].tolist())
        return take(self, indices)

    monkeypatch.setattr(Prepared, "take", spied)
    study = tune("iris", space=SPACE, trials=3, test=0.2, progress=False)
    held = set(study.task.split.test.tolist())
    assert len(held) == 30
    assert seen == set(range(150)) - held


# --- trials that go wrong -------------------------------------------------------------------------------------------


def test_a_trial_that_diverges_is_recorded_and_the_search_goes_on(small):
    space = {"learning_rate": [1e30, 0.01, 0.02], "optimizer": "gradient_descent", "epochs": 3}
    study = small(trials=4, space=space)
    (diverged,) = [each for each in study.counted if each.state == "diverged"]
    assert diverged.settings["learning_rate"] == 1e30
    assert "the cost became" in diverged.reason
    assert diverged.loss is None
    assert len(study.complete) == 3


def test_a_trial_that_needs_too_much_memory_is_recorded_and_the_search_goes_on(small):
    study = small(trials=3, space={"units": [4, 10**13], "layers": 1, "epochs": 2})
    (large,) = [each for each in study.counted if each.state == "out of memory"]
    assert large.settings["units"] == 10**13
    assert "allocate" in large.reason
    assert len(study.complete) == 2


def test_a_trial_that_fails_is_recorded_with_its_reason(small):
    # 81 training examples in batches of 16 leave one for the last, which batch normalisation cannot take
    study = small(trials=3, space={"batch_size": [16, 24], "epochs": 2})
    (failed,) = [each for each in study.counted if each.state == "failed"]
    assert failed.settings["batch_size"] == 16
    assert "a batch would hold a single example" in failed.reason
    assert failed.row()["reason"] == failed.reason


def test_a_study_without_a_complete_trial_says_why(small, monkeypatch):
    def broken(*_, **__):
        raise TrainingError("the cost is no longer finite")

    monkeypatch.setattr(searching, "train", broken)
    with pytest.raises(TrainingError, match=r"no trial came to its end(?s:.*)diverged: the cost is no longer finite"):
        small(trials=2)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit(143)])
def test_an_interrupted_trial_is_begun_again_with_its_settings(small, monkeypatch, stop):
    train = searching.train
    calls = []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise stop
        return train(*arguments, **options)

    monkeypatch.setattr(searching, "train", interrupted)
    with pytest.raises(type(stop) if isinstance(stop, BaseException) else stop):
        small(trials=4)
    cut = Study.open("study").trials[2]
    assert (cut.state, cut.counts) == ("interrupted", False)
    study = small(trials=4)
    assert [each.state for each in study.counted] == ["complete"] * 4
    assert study.counted[2].settings == cut.settings
    assert [each.number for each in study.counted] == [0, 1, 3, 4]


# --- several processes ----------------------------------------------------------------------------------------------

SEARCH = """
import time
from pathlib import Path
import pellucid as pl
Path("{name}.ready").touch()
while not Path("go").exists():
    time.sleep(0.005)
options = dict(progress=False, seed=0, sampler="random", out="study", pruner="none", confirm=0, splits=2{more})
pl.tune("iris", space={space!r}, trials={trials}, **options)
"""


@pytest.mark.parametrize("storage", [None, "sqlite:///shared.db"])
def test_two_processes_repeat_and_lose_no_trial(folder, storage):
    # 12 settings, of which 10 are drawn by two with the same seed: that both draw the same again and again is certain
    space = {"units": [4, 6, 8, 10], "dropout": [0.0, 0.1, 0.2], "epochs": 25, "patience": 0}
    more = "" if storage is None else f", storage={storage!r}"
    workers = [
        python(SEARCH.format(name=name, space=space, trials=10, more=more), cwd=folder) for name in ("one", "other")
    ]
    until(lambda: all((folder / f"{name}.ready").exists() for name in ("one", "other")))
    (folder / "go").touch()
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    study = Study.open("study")
    counted = study.counted
    assert [each.state for each in counted] == ["complete"] * 10
    assert len({str(each.settings) for each in counted}) == 10
    assert not [each for each in study.trials if each.state in ("running", "waiting")]
    raw = {each.number: each.user_attrs["by"]["process"] for each in study._search.study.get_trials(deepcopy=False)}
    assert len({raw[each.number] for each in counted}) == 2


STUCK = """
import time
import pellucid as pl
from pellucid.tune import search
train = search.train
def stuck(experiment, plan, wanted, **options):
    if wanted:
        time.sleep(600)
    return train(experiment, plan, wanted, **options)
search.train = stuck
pl.tune("iris", space={space!r}, trials=3, progress=False, out="study")
"""


def test_a_killed_process_loses_no_trial_and_the_second_time_it_is_given_up(folder):
    for _ in (1, 2):
        worker = python(STUCK.format(space=SPACE), cwd=folder)

        def stuck(worker=worker):
            try:
                found = Study.open("study")
            except (DataError, ParameterError):  # it is only just beginning
                return None
            raw = found._search.study.get_trials(deepcopy=False)
            mine = [e.number for e in raw if e.user_attrs.get("by", {}).get("process") == worker.pid]
            return [e for e in found.trials if e.state == "running" and e.settings and e.number in mine]

        (running,) = until(stuck)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL
    study = tune("iris", space=SPACE, trials=3, progress=False, out="study")
    first, again = [each for each in study.trials if each.state == "killed"]
    assert first.settings == again.settings == running.settings
    assert (first.counts, again.counts) == (False, True)
    assert f"process {worker.pid} on" in again.reason
    assert [each.state for each in study.counted] == ["complete", "killed", "complete"]


def test_jobs_share_the_trials_and_one_that_is_killed_is_replaced(folder):
    space = {**SPACE, "epochs": 120, "patience": 0}
    del space["optimizer"], space["momentum"]
    options = "trials=5, jobs=2, splits=1, pruner='none', out='study'"
    script = f"import pellucid as pl\npl.tune('iris', space={space!r}, {options})\n"
    parent = python(script, cwd=folder)

    def at_work():
        try:
            trials = Study.open("study")._search.study.get_trials(deepcopy=False)
        except (DataError, ParameterError):
            return None
        return [each for each in trials if each.state.name == "RUNNING" and each.user_attrs.get("settings")]

    victim = until(at_work)[0]
    assert victim.user_attrs["by"]["process"] != parent.pid
    os.kill(victim.user_attrs["by"]["process"], signal.SIGKILL)
    _, said = parent.communicate(timeout=120)
    assert parent.returncode == 0, said
    study = Study.open("study")
    assert [each.state for each in study.counted] == ["complete"] * 5
    lost = study.trials[victim.number]
    assert (lost.state, lost.counts) == ("killed", False)
    assert sum(each.settings == lost.settings for each in study.counted) == 1
    assert f"trial {victim.number}" in said
    assert "killed" in said


def test_every_worker_gets_its_share_of_the_threads(folder, monkeypatch):
    begun = []

    class Worker:
        def __init__(self, command, env, **options):
            begun.append((command, env))

        def poll(self):
            return 1

        def wait(self):
            return 1

    from pellucid.tune import tuning

    monkeypatch.setattr(tuning.subprocess, "Popen", Worker)
    monkeypatch.setattr("pellucid.runs.environment", lambda **_: {"threads": 7})
    with pytest.raises(EngineError, match="every worker failed"):
        tune("iris", space=SPACE, trials=3, jobs=3, progress=False, time=60)
    assert {env[name] for _, env in begun for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"2"}
    assert [command[-3] for command, _ in begun] == ["0", "1", "2"]
    assert 50 < float(begun[0][0][-2]) <= 60


def test_a_silent_process_on_another_machine_is_taken_for_dead_after_a_while(small, monkeypatch):
    study = small(trials=2)
    optuna_study = study._search.study
    for silent in (10.0, storing.GRACE + 60):
        trial = optuna_study.ask()
        trial.set_user_attr("by", {"host": "elsewhere", "process": 1, "began": "1", "alive": time.time() - silent})
        trial.set_user_attr("settings", {"units": silent})
    assert study._search.recover() == 1
    assert [each.state for each in study.trials[-3:]] == ["running", "killed", "waiting"]


def test_a_process_number_that_is_used_again_is_another_process():
    me = storing.sign()
    assert not storing.is_dead(me)
    if Path("/proc/self/stat").exists():
        assert storing.is_dead({**me, "began": "1"})
    assert storing.is_dead({**me, "process": 2**22 + 1})


def test_a_trial_that_others_took_for_dead_changes_nothing(small, monkeypatch):
    train = searching.train

    def slow(*arguments, **options):
        found = train(*arguments, **options)
        other = Study.open("study")._search
        running = [t for t in other.study.get_trials(deepcopy=False) if t.state.name == "RUNNING"]
        if running and running[0].number == 1:
            assert other._lost(running[0], "killed", "taken for dead", attempt=2)
        return found

    monkeypatch.setattr(searching, "train", slow)
    study = small(trials=3)
    assert (study.trials[1].state, study.trials[1].counts) == ("killed", False)
    assert [each.state for each in study.counted] == ["complete"] * 3
    assert study.trials[1].settings in [each.settings for each in study.counted]


# --- storages -------------------------------------------------------------------------------------------------------


def test_a_torn_line_of_a_killed_writer_is_cut(small):
    small(trials=2)
    path = Path("study/study.journal")
    with open(path, "ab") as file:
        file.write(b'{"op_code": 8, "worker_id"')
    study = small(trials=4)
    assert len(study.counted) == 4
    for line in path.read_text().splitlines():
        json.loads(line)


def test_sqlite_keeps_the_same_study(small):
    study = small(storage="sqlite:///a.db")
    assert len(study.counted) == 4
    assert len(sqlite3.connect("a.db").execute("select * from trials").fetchall()) == 4
    assert [each.loss for each in study.counted] == [each.loss for each in small(out="journal").counted]
    assert [each.loss for each in Study.open("study").counted] == [each.loss for each in study.counted]


@pytest.mark.parametrize(
    ("storage", "error", "message"),
    [
        ("mongodb://x", ParameterError, r"unknown storage 'mongodb'(?s:.*)postgresql"),
        ("some/where", ParameterError, "not the URL of a storage"),
        ("sqlite:////no/such/folder/a.db", DataError, "cannot be opened"),
        ("postgresql://me:secret@127.0.0.1:1/x", (DataError, EngineError), "cannot be opened|not installed"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused(small, storage, error, message):
    with pytest.raises(error, match=message) as caught:
        small(storage=storage)
    assert "secret" not in str(caught.value)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "tp"}, r"unknown sampler 'tp'(?s:.*)cmaes"),
        ({"pruner": "mediam"}, r"unknown pruner 'mediam'(?s:.*)median"),
        ({"jobs": 0}, r"tune, jobs: is out of range(?s:.*)a whole number from 1(?s:.*)got: +0"),
        ({"trials": 2.5}, r"tune, trials: is out of range(?s:.*)a whole number from 1(?s:.*)got: +2\.5"),
        ({"splits": True}, "tune, splits: is out of range"),
        ({"seed": -1}, r"tune, seed: is out of range(?s:.*)a whole number from 0(?s:.*)got: +-1"),
        ({"seed": None}, "tune, seed: is out of range"),
        ({"time": 0.0}, r"tune, time: is out of range(?s:.*)seconds, above 0"),
        ({"time": "1h"}, r"tune, time: is out of range(?s:.*)seconds, above 0(?s:.*)'1h'"),
        ({"validation": 0}, "compares validation losses"),
        ({"learning_rate": 0.1}, "unknown argument 'learning_rate'"),
        ({"net": "mpl"}, "unknown net 'mpl'"),
        ({"net": "no.toml"}, "no such network file"),
        ({"net": 3}, "cannot be used as a network"),
        ({"progress": "no"}, "cannot be used as progress"),
        ({"loss": "mean_squared_error"}, "does not fit classification"),
    ],
)
def test_what_cannot_be_searched_is_refused(small, options, message):
    with pytest.raises(ParameterError, match=message):
        small(**options)


def test_arrays_that_do_not_belong_together_are_refused(folder, arrays):
    x, y = arrays
    with pytest.raises(DataError, match="arrays of the same length"):
        tune(x, y[:-1])
    with pytest.raises(DataError, match="arrays of the same length"):
        tune(x)
    with pytest.raises(ParameterError, match="targets of their own"):
        tune("iris", y)
    with pytest.raises(ParameterError, match="test set of their own"):
        tune("iris.npz" if Path("iris.npz").exists() else official(folder), trials=1, test=0.5)


def official(folder: Path) -> str:
    """Data with a test set of their own."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    y = (x[:, 0] > 0).astype(int)
    np.savez(folder / "own.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    return "own.npz"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {"epochs": 3}}, "about another space"),
        ({"seed": 3}, "about another split|about another seed"),
        ({"net": "other.toml"}, "there is another study here"),
        ({"net": "other.toml", "study": "arrays-mlp"}, "about another net"),
        ({"engine": "numpy"}, "about another fixed"),
        ({"reading": {"standardize": False}}, "about another reading"),
    ],
)
def test_a_study_of_something_else_is_not_mixed_in(small, change, message):
    Path("other.toml").write_text('layers = [{type = "dense", units = 4}, {type = "dense"}]')
    small(trials=1)
    change.setdefault("space", SPACE if "net" not in change else {"epochs": 4})
    with pytest.raises(ParameterError, match=message):
        small(trials=2, **change)
    assert len(small(trials=2).counted) == 2


def test_other_arrays_in_the_same_place_are_refused(small, arrays):
    small(trials=1)
    x, y = arrays
    with pytest.raises(ParameterError, match="a study of other arrays here"):
        tune(x + 1, y, space=SPACE, trials=1, out="study", progress=False)
    with pytest.raises(ParameterError, match="another study here"):
        small(trials=1, storage="journal:elsewhere.journal")


def test_changed_data_are_refused_and_the_way_out_is_named(folder):
    Path("table.csv").write_text("a,kind\n" + "".join(f"{i % 7},{'xy'[i % 2]}\n" for i in range(60)))
    tune("table.csv", space=SPACE, trials=1, progress=False)
    Path("table.csv").write_text("a,kind\n" + "".join(f"{i % 5},{'xy'[i % 2]}\n" for i in range(60)))
    with pytest.raises(ParameterError, match=r"about other data(?s:.*)--recheck"):
        tune("table.csv", space=SPACE, trials=2, progress=False)
