"""Whether an old optimum still is one: the interval, the verdict, and what has changed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pellucid.errors import ParameterError
from pellucid.tune import recheck as rechecking
from pellucid.tune import search as searching
from pellucid.tune.recheck import Candidate, _judged, _t_interval
from pellucid.tune.search import Trained

SPACE = {
    "learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
    "units": {"low": 4, "high": 32, "log": True},
    "epochs": 2,
}


def candidate(kind, mean, gain=None, half=0.001, **more):
    interval = None if mean is None else (mean - half, mean + half)
    return Candidate(
        kind, "", {"units": kind}, [], mean, interval, gain, None if gain is None else (gain - half, gain + half),
        1.0, **more,
    )  # fmt: skip


def test_the_interval_is_students():
    from scipy import stats

    values = [0.2, 0.25, 0.3, 0.22]
    mean, (low, high) = _t_interval(values, 0.9)
    assert mean == pytest.approx(np.mean(values))
    expected = stats.t.interval(0.9, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("others", "verdict", "use"),
    [
        ([("neighbour", 0.5, 0.1), ("fresh", 0.6, 0.2)], "keep", "optimum"),
        ([("neighbour", 0.3, -0.1), ("fresh", 0.6, 0.2)], "adjust", "neighbour"),
        ([("neighbour", 0.3, -0.1), ("fresh", 0.35, -0.05)], "search again", None),
        ([("recipe", 0.35, -0.05)], "search again", None),
        ([("neighbour", 0.3995, -0.0005)], "keep", "optimum"),  # its interval holds 0
        ([("neighbour", 0.398, -0.002)], "keep", "optimum"),  # surely better, and not worth a change
        ([("fresh", None, None)], "keep", "optimum"),
    ],
)
def test_the_verdict(others, verdict, use):
    found, why, settings = _judged(0.4, 1.0, [candidate("optimum", 0.4), *(candidate(*each) for each in others)])
    assert found == verdict
    assert settings == (None if use is None else {"units": use})
    assert "recorded 0.4" in why[0]


def test_what_has_become_slower_or_worse_is_said():
    _, why, _ = _judged(0.2, 0.1, [candidate("optimum", 0.4)])
    assert any("worse than it was then" in each for each in why)
    assert any("takes 1 s; it took 0.1 s" in each for each in why)
    verdict, why, _ = _judged(0.2, 0.1, [candidate("optimum", None, reason="diverged with seed 1")])
    assert verdict == "search again"
    assert "diverged with seed 1" in why[0]


@pytest.fixture
def measured(monkeypatch):
    """Makes losses of settings and seed instead of training, and remembers what was asked for."""
    asked = []

    def use(loss):
        def train(experiment, plan, wanted, *, seed=None, callbacks=()):
            asked.append((seed, wanted))
            value = loss(wanted, seed)
            return Trained(None, None, 1, False, {"loss": value}, {}, 0.5)

        monkeypatch.setattr(rechecking, "train", train)
        return asked

    return use


def units(wanted):
    return wanted.get("hidden", [256])[0]


def test_everything_is_measured_with_the_same_new_seeds(small, measured):
    study = small(space=SPACE, trials=4)
    best = study.best.settings
    asked = measured(lambda wanted, seed: 1.0 + 0.001 * seed)
    found = study.recheck(seeds=3, neighbours=3, fresh=2)
    assert found.verdict == "keep"
    assert {seed for seed, _ in asked} == {1, 2, 3}
    assert found.seeds == [1, 2, 3]
    kinds = [each.kind for each in found.candidates]
    assert kinds == ["optimum", "runner-up", *["neighbour"] * 3, "fresh", "fresh", *["recipe"] * bool(best)]
    assert all(each.losses == [1.001, 1.002, 1.003] for each in found.candidates)
    assert found.candidates[1].gain == pytest.approx(0)
    assert found.changed == []
    kept = json.loads(Path("study/recheck.json").read_text())["rechecks"]
    assert [each["verdict"] for each in kept] == ["keep"]
    study.recheck(seeds=2)
    assert len(json.loads(Path("study/recheck.json").read_text())["rechecks"]) == 2


def test_a_training_is_as_long_as_one_draw_of_the_trial_was(small, measured):
    study = small(space=SPACE, trials=2, splits=4)
    measured(lambda wanted, seed: 1.0)  # each in half a second
    for seconds, slower in ((2.4, False), (8.0, True)):
        best = replace(study.best, seconds=seconds)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(study), "best", best)
            found = study.recheck(seeds=2, neighbours=0, fresh=0)
        assert any("one training takes 0.5 s; it took 2 s then" in each for each in found.why) is slower


def test_an_optimum_that_has_moved_away_is_searched_for_again(small, measured):
    study = small(space=SPACE, trials=4)
    best = units(study.wanted())
    measured(lambda wanted, seed: (1.0 if units(wanted) == best else 0.5) + 0.001 * seed)
    found = study.recheck(seeds=3, neighbours=0)
    assert found.verdict == "search again"
    assert found.settings is found.command is None


def test_an_optimum_that_has_moved_a_little_is_adjusted(small, measured, monkeypatch):
    study = small(space=SPACE, trials=6)
    drawn = next(each for each in study.complete if each.settings)
    monkeypatch.setattr(type(study), "best", drawn)
    near = [settings for _, settings in study.space.neighbours(drawn.settings, study.space.searched)]
    better = [study.space.wanted(each) for each in near]
    measured(lambda wanted, seed: (0.5 if wanted in better else 1.0) + 0.001 * seed)
    found = study.recheck(seeds=3, neighbours=8)
    assert found.verdict == "adjust"
    assert found.settings in near
    assert "pellucid train" in found.command


def test_the_neighbours_of_a_recipe_are_the_recipe_with_one_thing_changed(small, measured, monkeypatch):
    space = {
        **SPACE,
        "optimizer": ["adam", "rmsprop"],
        "schedule": ["cosine", "constant"],
        "regularizer": ["none", "l2"],
        "regularization": {"low": 1e-5, "high": 1e-2, "log": True},
    }
    study = small(space=space, trials=6)
    monkeypatch.setattr(type(study), "best", study.baseline)
    asked = measured(lambda wanted, seed: (0.5 if set(wanted) == {"hidden"} else 1.0) + 0.001 * seed)
    found = study.recheck(seeds=2, neighbours=20, fresh=0)
    kinds = [each.kind for each in found.candidates]
    near = [each.settings for each in found.candidates if each.kind == "neighbour"]
    assert kinds[:2] == ["optimum", "runner-up"]
    start = study.plan["start"]
    update = {name: start[name] for name in ("optimizer", "schedule", "learning_rate")}
    for settings in near:
        (changed,) = [name for name, value in settings.items() if value != start[name]]
        assert settings == (
            {**update, changed: settings[changed]} if changed in update else {changed: settings[changed]}
        )
    assert {name for each in near for name, value in each.items() if value != start[name]} == {*update, "units"}
    assert (1, {"optimizer": "adam", "learning_rate": "constant(0.002)"}) in asked
    assert found.verdict == "adjust"
    assert set(found.settings) == {"units"}


def test_a_candidate_that_diverges_is_no_candidate(small, measured):
    study = small(space=SPACE, trials=4)
    best = study.wanted()

    def loss(wanted, seed):
        if wanted != best and seed == 2:
            raise searching.TrainingError("no longer finite")
        return 1.0 + 0.01 * seed if wanted == best else 0.1

    measured(loss)
    found = study.recheck(seeds=3)
    assert found.verdict == "keep"
    assert {each.reason for each in found.candidates[1:]} == {"diverged with seed 2"}
    measured(lambda wanted, seed: (_ for _ in ()).throw(MemoryError()))
    found = study.recheck(seeds=3)
    assert found.verdict == "search again"
    assert "out of memory" in found.why[0]


def test_other_data_are_noticed_and_measured(small, arrays):
    study = small(space=SPACE, trials=3)
    x, y = arrays
    np.savez("new.npz", x=x[:, ::-1] * 2, y=1 - y)
    found = study.recheck("new.npz", seeds=2, neighbours=1, fresh=1)
    names = [name for name, _, _ in found.changed]
    assert names == ["data_fingerprint"]
    assert found.candidates[0].losses != [found.then] * 2
    assert all(math.isfinite(each.mean) for each in found.candidates)
    if found.command:
        assert str(Path("new.npz").resolve()) in found.command


def test_a_change_of_engine_and_packages_is_noticed(small, monkeypatch):
    study = small(space=SPACE, trials=2)
    real = rechecking.environment
    monkeypatch.setattr(
        rechecking, "environment",
        lambda **said: {**real(**said), "cpu": "another", "packages": {**real(**said)["packages"], "numpy": "9"}},
    )  # fmt: skip
    found = study.recheck(seeds=2, neighbours=0, fresh=1)
    assert [(name, now) for name, _, now in found.changed] == [("cpu", "another"), ("numpy", "9")]


def test_one_seed_has_no_interval(small):
    with pytest.raises(ParameterError, match="two seeds or more"):
        small(space=SPACE, trials=1).recheck(seeds=1)
