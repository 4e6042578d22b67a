"""The choice at the end: the recipe and the leading trials trained again, and chosen among by fresh losses alone."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helping import SPACE, python, until

from pellucid.errors import DataError, ParameterError, TrainingError
from pellucid.tune import Study
from pellucid.tune import search as searching
from pellucid.tune.splits import drawn, fresh, judged

QUICK = {"units": {"low": 4, "high": 64}, "layers": 1, "epochs": 1}


@pytest.fixture
def made(monkeypatch):
    """Makes losses of the units (None: the recipe's) and the seed, and remembers what was trained again."""
    train, again = searching.train, []

    def use(loss):
        def trained(task, plan, wanted, *, seed=None, callbacks=()):
            units = wanted["hidden"][0] if wanted else None
            again.extend([(units, seed)] if seed is not None else [])
            value = loss(units, seed)
            if not math.isfinite(value):
                raise TrainingError("no longer finite")
            done = train(task, plan, {**wanted, "epochs": 1}, seed=seed, callbacks=())
            return done._replace(history={"validation_loss": [value]}, patient=False)

        monkeypatch.setattr(searching, "train", trained)
        return again

    return use


def leading(study, count):
    """The recipe and the trials with the lowest losses of the search."""
    return [study.baseline.number, *[each.number for each in study.complete if not each.baseline][:count]]


def test_the_recipe_and_the_leading_trials_are_trained_again(small):
    study = small(trials=12, confirm=2, pruner="none")
    again = [each for each in study.counted if each.state == "confirmed"]
    assert len(study.counted) == 12
    assert [each.confirms for each in again] == leading(study, 2)
    draws = fresh(study.task, searching.AGAIN)
    for each in again:
        settings = study.space.wanted(study.trials[each.confirms].settings)
        seeds = range(searching.AGAIN, searching.AGAIN + len(draws))
        curves = [
            searching.train(task, study.plan, settings, seed=seed).history["validation_loss"]
            for task, seed in zip(draws, seeds, strict=True)
        ]
        assert each.losses == pytest.approx(judged(curves, patient=True), rel=1e-6)
    recipe, *others = again
    for found in study.confirmed:
        if not found.trial.baseline:
            losses = next(each.losses for each in others if each.confirms == found.trial.number)
            gains = np.subtract(recipe.losses, losses)
            assert found.gain == pytest.approx(gains.mean())
            assert found.error == pytest.approx(gains.std(ddof=1) * math.sqrt(1 / 10 + 9 / 81))
            assert found.loss == pytest.approx(np.mean(losses))
    assert study.complete == [each for each in study.complete if each.confirms is None]
    assert Study.open("study").confirmed == study.confirmed


def test_fresh_draws_hold_out_every_example_and_not_those_of_the_search_together(small, monkeypatch):
    task = small(trials=1).task
    pool = Counter(row.tobytes() for part in ("train", "validation") for row in task.arrays(part)[0])
    held: Counter[bytes] = Counter()
    draws = fresh(task, 7)
    for each in draws:
        (train_x, train_y), (held_x, held_y) = each.arrays("train"), each.arrays("validation")
        assert Counter(row.tobytes() for row in np.concatenate([train_x, held_x])) == pool
        assert (len(train_x), len(held_x), len(train_y)) == (81, 9, 81)
        assert min(np.bincount(held_y)) >= 4
        held.update(row.tobytes() for row in held_x)
    assert held == pool  # ten draws of nine
    searched = {frozenset(row.tobytes() for row in each.arrays("validation")[0]) for each in drawn(task, 10, 0)}
    assert not searched & {frozenset(row.tobytes() for row in each.arrays("validation")[0]) for each in draws}
    monkeypatch.setattr("pellucid.tune.splits.MOST", 25)
    assert len(fresh(task, 7)) == 25  # two and a half rounds
    monkeypatch.setattr("pellucid.tune.splits.ENOUGH", 1)
    assert len(fresh(task, 7)) == 3
    monkeypatch.setattr("pellucid.tune.splits._pool", lambda task: None)
    assert fresh(task, 7) == [task] * 3


@pytest.mark.parametrize(
    ("recipe", "lucky", "next_best", "best", "said"),
    [
        (1.0, 2.0, 0.5, "next", "is the best of 3 trained again"),  # the lowest of the search was luck
        (1.0, 0.4, 0.5, "lucky", "is above its standard error"),
        (1.0, 1.5, 1.2, "recipe", "the recipe stands: its loss is the lowest of 3 trained again"),
        (
            1.0,
            0.99,
            1.2,
            "recipe",
            "but its gain over the recipe, 0.01, is within chance",
        ),  # a gain of 0.01, of which the error is above 0.01
        (math.inf, 0.9, 1.2, "lucky", "the recipe could not be trained again"),
        (1.0, math.inf, 0.8, "next", "is the best of 2 trained again"),
        (1.0, math.inf, math.inf, "lucky", "by the losses of the search alone"),
    ],
)
def test_the_winner_is_chosen_by_fresh_losses_alone(small, made, recipe, lucky, next_best, best, said):
    units = []

    def loss(size, seed):
        if size is not None and seed is None and size not in units:
            units.append(size)
        if seed is None:  # the search: the first that is drawn is the lowest, the recipe the highest
            return 9.0 if size is None else 0.1 + units.index(size)
        noise = 0.02 * ((seed * (1 if size is None else 7)) % 5)
        return {None: recipe, units[0]: lucky}.get(size, next_best) + noise

    again = made(loss)
    study = small(trials=12, confirm=2, space=QUICK, pruner="none")
    numbers = {"recipe": 0, "lucky": 1, "next": 2}
    assert {size for size, _ in again} == {None, *units[:2]}
    assert study.best.number == numbers[best]
    assert said in study.verdict
    assert study.document()["verdict"] == study.verdict
    assert study.document()["best"]["number"] == study.best.number


def test_the_recipe_stands_while_it_was_not_trained_again(small, made):
    """Another process has taken it upon itself, and has not come to its end."""
    again = made(lambda units, seed: 9.0 if units is None else 1 / units + 0.001 * (seed or 0) % 3)
    optuna_study = small(trials=9, confirm=0, space=QUICK, pruner="none")._search.study
    optuna_study.enqueue_trial({}, user_attrs={"confirms": 0, "settings": {}})
    taken = optuna_study.ask()
    taken.set_user_attr("by", searching.sign())
    study = small(trials=12, confirm=2, space=QUICK, pruner="none")
    assert None not in {units for units, _ in again}
    assert [each.gain for each in study.confirmed] == [None, None]
    assert study.best == study.baseline != study.complete[0]
    number = study.confirmed[0].trial.number
    assert study.verdict == (
        f"the recipe stands: trial {number} has the lowest loss of 2 trained again with 10 fresh draws and seeds, "
        "but the recipe was not trained again"
    )


def test_a_longer_search_confirms_only_new_leaders(small, made):
    again = made(lambda units, seed: 2.0 if units is None else 1 + 1 / units + 0.001 * (seed or 0) % 3)
    first = small(trials=12, confirm=2, space=QUICK, pruner="none")
    assert len(first.counted) == 12
    before = len(again)
    assert len(small(trials=12, confirm=2, space=QUICK, pruner="none").counted) == 12
    assert len(again) == before
    study = small(trials=30, confirm=2, space=QUICK, pruner="none")
    assert len(study.counted) == 30
    confirmed = [each.trial.number for each in study.confirmed]
    assert len(set(confirmed)) == len(confirmed)
    assert set(leading(study, 2)) <= set(confirmed)


def test_confirming_stays_within_the_trials(small):
    for trials, again in ((7, 0), (8, 2), (16, 4)):
        study = small(trials=trials, confirm=3, space=QUICK, out=f"of{trials}", pruner="none")
        assert len(study.counted) == trials
        assert sum(each.state == "confirmed" for each in study.counted) == again


def test_confirming_stays_within_the_time(small, monkeypatch):
    """By a clock on which every training takes a second."""
    train, now, slow = searching.train, [0.0], [False]

    def trained(*arguments, seed=None, **options):
        long = seed is None and int(now[0]) % 5 == 4
        now[0] += 7 if long and slow[0] else 1
        return train(*arguments, seed=seed, **options)

    monkeypatch.setattr(searching, "train", trained)
    monkeypatch.setattr(searching.Search, "clock", staticmethod(lambda: now[0]))
    space = {"learning_rate": {"low": 1e-4, "high": 0.1, "log": True}, "units": 4, "layers": 1, "epochs": 1}
    for seconds, searched, again in ((61, 30, 3), (21, 10, 1)):
        study = small(trials=1, space=space, out=f"of{seconds}")
        begun, search = now[0] - 1, searching.Search(study.storage, study.name, sampler="random", pruner="none")
        search.work(study.task, until=begun + seconds, confirm=2)
        assert now[0] < begun + seconds + 10  # what was begun in time is ended
        assert len(study.complete) == 1 + searched
        assert len(study.confirmed) == again
    slow[0] = True  # what is begun last may be one that takes long
    for seconds in (80, 83):
        study = small(trials=1, space=space, out=f"of{seconds}")
        search = searching.Search(study.storage, study.name, sampler="random", pruner="none")
        search.work(study.task, until=now[0] + seconds, confirm=2)
        assert len(study.confirmed) == 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit(143)])
def test_an_interrupted_confirmation_is_begun_again(small, monkeypatch, stop):
    train, calls = searching.train, []

    def interrupted(*arguments, seed=None, **options):
        calls.append(seed)
        if calls.count(searching.AGAIN + 4) == 2:
            raise stop
        return train(*arguments, seed=seed, **options)

    monkeypatch.setattr(searching, "train", interrupted)
    with pytest.raises(type(stop) if isinstance(stop, BaseException) else stop):
        small(trials=12, confirm=2, space=QUICK)
    assert [each.state for each in Study.open("study").trials[-2:]] == ["interrupted", "waiting"]
    monkeypatch.setattr(searching, "train", train)
    study = small(trials=12, confirm=2, space=QUICK)
    assert sorted(each.trial.number for each in study.confirmed) == sorted(leading(study, 2))
    assert len(study.counted) == 12


SEARCH = """
import time
from pathlib import Path
import pellucid as pl
Path("{name}.ready").touch()
while not Path("go").exists():
    time.sleep(0.005)
pl.tune("iris", space={space!r}, trials=16, progress=False, out="study", confirm=3, splits=2)
"""


def test_two_processes_confirm_together_and_nothing_twice(folder):
    names = ("one", "other")
    workers = [python(SEARCH.format(name=name, space=SPACE), cwd=folder) for name in names]
    until(lambda: all((folder / f"{name}.ready").exists() for name in names))
    (folder / "go").touch()
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    study = Study.open("study")
    assert len(study.counted) == 16
    assert not [each for each in study.trials if each.state in ("running", "waiting")]
    assert sorted(each.confirms for each in study.counted if each.confirms is not None) == sorted(leading(study, 3))
    by = {each.number: each.user_attrs["by"]["process"] for each in study._search.study.get_trials(deepcopy=False)}
    assert len({by[each.number] for each in study.counted if each.confirms is None}) == 2


STUCK = """
import time
import pellucid as pl
from pellucid.tune import search
train = search.train
def stuck(task, plan, wanted, seed=None, **options):
    if seed is not None and wanted:
        time.sleep(600)
    return train(task, plan, wanted, seed=seed, **options)
search.train = stuck
pl.tune("iris", space={space!r}, trials=8, progress=False, out="study", splits=1)
"""


def test_a_confirmation_of_a_killed_process_is_begun_again(folder):
    worker = python(STUCK.format(space=QUICK), cwd=folder)

    def stuck():
        try:
            return [each for each in Study.open("study").trials if each.state == "running" and each.confirms]
        except (DataError, ParameterError):
            return None

    (running,) = until(stuck)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    again = python(STUCK.format(space=QUICK).replace("time.sleep(600)", "pass"), cwd=folder)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    study = Study.open("study")
    assert study.trials[running.number].state == "killed"
    assert [each.trial.number for each in study.confirmed if not each.trial.baseline] == [running.confirms]
    assert len(study.counted) == 8


def test_a_sampler_that_learns_begins_near_the_recipe(small):
    study = small(trials=14, pruner="none", sampler="tpe")
    start = study.counted[1].settings
    near = [each.settings for each in study.counted[2:5]]  # no optimizer: another would need a momentum
    for settings in near:
        changed = [name for name in {**start, **settings} if settings.get(name) != start.get(name)]
        assert len(changed) == 1
    assert sum(settings["learning_rate"] != start["learning_rate"] for settings in near) == 2
    by_chance = small(trials=14, pruner="none", sampler="random", out="random").counted[2:]
    assert not any(each.settings in near for each in by_chance)


def test_the_default_space_has_neighbours_of_every_recipe(small):
    """The recipe of an mlp says no initializer, which is then drawn, as in the trial before them."""
    study = small(trials=5, space="defaults", sampler="tpe", pruner="none")
    start = study.plan["start"]
    assert "initializer" not in start
    for trial in study.counted[2:]:
        assert trial.settings["learning_rate"] != start["learning_rate"] or trial.number == 4
        assert sum(trial.settings[name] != value for name, value in start.items() if name in trial.settings) == 1


def test_the_report_says_how_it_was_chosen(small, capsys):
    from pellucid.cli.tune import _answer

    study = small(trials=12, confirm=2, space=QUICK)
    text = _answer(study).text
    assert f"How it was chosen\n  {study.verdict}" in text
    for each in study.confirmed:
        assert f"{each.loss:.4f}" in text
    kept = Path("study/report.json").read_text()
    assert '"above_error"' in kept
    assert "chosen by the losses of the search alone" in _answer(small(trials=2, out="few")).text
