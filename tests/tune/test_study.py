"""What a study says: the best, what mattered, the command that trains it, the pictures."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from helping import SPACE

import pellucid as pl
from pellucid.errors import DataError, ParameterError
from pellucid.inspect import pictures as drawing
from pellucid.tune import Study, tune
from pellucid.tune.study import train_arguments


def test_the_room_is_its_function(folder):
    study = pl.tune("iris", space=SPACE, trials=2, progress=False)
    assert isinstance(study, pl.tune.Study)
    assert study.folder == Path("tuning/iris-mlp")
    assert repr(study).startswith("Study('tuning/iris-mlp': 2 trials, best loss 0.")


def test_the_best_network_is_the_one_that_was_measured(small, arrays):
    study = small(trials=4)
    net = study.best_network()
    x, y = study.task.arrays("validation")
    assert net.evaluate(x, y)["loss"] == pytest.approx(study.best.loss, rel=1e-6)
    assert len(x) == 9


def test_the_command_says_which_column_holds_the_texts():
    data = {
        "source": "reviews.csv",
        "target": "stars",
        "text": "review",
        "standardize": True,
        "categories_as": "one-hot",
    }
    plan = {"net": "gru", "data": data, "fixed": {}, "split": {"validation": 0.1, "test": 0.1}, "seed": 0}
    said = train_arguments(plan, {})
    assert said[said.index("--text") + 1] == "review"
    assert said[said.index("--target") + 1] == "stars"


def test_it_is_found_again_where_it_is(small, monkeypatch):
    study = small(trials=3)
    counted = study.counted
    again = Study.open("study")
    assert again.counted == counted
    assert again.space.document() == study.space.document()
    Path("study").rename("moved")
    assert Study.open("moved").counted == counted
    with pytest.raises(DataError, match="no study here"):
        Study.open("study")
    with pytest.raises(DataError, match="no study here"):
        Study.open("moved/study.json")
    Path("moved/study.journal").unlink()
    with pytest.raises(DataError, match="storage is gone"):
        Study.open("moved")
    Path("moved/study.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Study.open("moved")


def test_changed_data_are_noticed(small):
    small(trials=1)
    with np.load("study/data.npz") as there:
        x, y = there["x"], there["y"]
    np.savez("study/data.npz", x=x + 1, y=y)
    with pytest.raises(DataError, match=r"have changed since(?s:.*)recheck"):
        Study.open("study").best_network()


def test_what_mattered_is_what_matters(small):
    """Of a learning rate over four powers of ten, and a choice that is almost without effect."""
    space = {
        "learning_rate": {"low": 1e-4, "high": 1.0, "log": True},
        "optimizer": "gradient_descent",
        "batch_size": {"low": 20, "high": 22},
        "epochs": 2,
    }
    study = small(trials=24, space=space, sampler="random", pruner="none")
    shares = study.importances()
    assert list(shares) == ["learning_rate", "batch_size"]
    assert shares["learning_rate"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)


def test_what_only_some_trials_have_is_judged_among_those(small):
    study = small(trials=16, pruner="none", sampler="random")
    shares = study.importances()
    assert set(shares) == {"optimizer", "learning_rate", "units", "momentum"}
    assert all(0 <= share <= 1 for share in shares.values())


def test_without_scikit_learn_another_measure_is_taken(small, monkeypatch):
    import optuna

    study = small(trials=12, pruner="none", sampler="random")

    def missing(**_):
        raise ImportError("sklearn")

    monkeypatch.setattr(optuna.importance, "FanovaImportanceEvaluator", missing)
    assert set(study.importances()) == {"optimizer", "learning_rate", "units", "momentum"}


def test_too_few_trials_say_nothing_of_importance(small):
    assert small(trials=3).importances() == {}


@pytest.mark.parametrize("trials", [1, 2, 9])
def test_the_report_has_the_pictures_and_reads_back(small, monkeypatch, trials):
    drawn = {}
    save = drawing.save

    def spied(figure, path):
        drawn[Path(path).name] = figure
        return save(figure, path)

    monkeypatch.setattr("pellucid.tune.pictures.save", spied)
    study = small(trials=trials, space={**SPACE, "learning_rate": [1e30, 0.01, 0.1]})
    document = study.report()
    assert json.loads(Path("study/report.json").read_text())["best"]["loss"] == study.best.loss
    assert {Path(path).name for path in document["pictures"]} == set(drawn)
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in document["pictures"])
    assert sum(document["states"].values()) == trials
    assert len(document["trials"]) == trials
    if trials == 9:
        assert set(drawn) == {"history.png", "importances.png", "slices.png", "parallel.png"}
        points = drawn["slices.png"].axes[0].collections[0].get_offsets()
        assert sorted(points[:, 1]) == pytest.approx(sorted(e.loss for e in study.complete if e.settings))
        lines = drawn["history.png"].axes[0].lines
        lowest = next(each for each in lines if each.get_label() == "lowest so far").get_ydata()
        assert lowest[-1] == study.best.loss
        assert (np.diff(lowest) <= 0).all()


@pytest.mark.parametrize("recipe", [True, False])
def test_only_the_best_of_all_is_drawn_as_the_best(small, monkeypatch, recipe):
    drawn = {}
    monkeypatch.setattr("pellucid.tune.pictures.save", lambda figure, path: drawn.setdefault(Path(path).name, figure))
    study = small(trials=5, pruner="none")
    trials = [each for each in study.complete if each.settings]
    best = study.baseline if recipe else trials[0]
    monkeypatch.setattr(Study, "best", best)
    study.report()
    orange = [each for each in drawn["parallel.png"].axes[0].lines if each.get_color() == "#D55E00"]
    assert bool(orange) is not recipe
    title = drawn["parallel.png"].axes[0].get_title("left")
    assert title.startswith("The recipe is best and not drawn" if recipe else "Complete trials: the best in orange")
    panels = [axes for axes in drawn["slices.png"].axes if axes.get_visible()]
    for axes in panels:
        (line,) = axes.lines
        assert list(line.get_ydata()) == [study.baseline.loss] * 2
        assert axes.get_ylim()[0] < study.baseline.loss < axes.get_ylim()[1]


def test_a_report_without_matplotlib_has_no_pictures(small, monkeypatch):
    from pellucid.errors import EngineError

    def missing(*_, **__):
        raise EngineError("matplotlib is not installed", hint="pip install 'pellucid[plot]'")

    monkeypatch.setattr("pellucid.tune.pictures.new_figure", missing)
    document = small(trials=2).report()
    assert document["pictures"] == []
    assert "pellucid[plot]" in document["note"]


def test_a_network_of_ones_own_is_tuned_with_its_layers(folder, arrays):
    net = pl.Sequential(pl.Dense(5, "tanh"), pl.Dense(2), input_shape=3)
    space = {"learning_rate": {"low": 1e-3, "high": 0.1, "log": True}, "epochs": 3}
    study = tune(*arrays, net=net, space=space, trials=3, progress=False)
    assert study.folder == Path("tuning/arrays-network")
    assert study.best_network().config()["layers"] == net.config()["layers"]
    assert study.best.parameters == 3 * 5 + 5 + 5 * 2 + 2


def test_the_command_says_how_the_data_are_read(folder):
    rows = "".join(f"{i % 7};{'ab'[i % 2]};{i % 3};{10 * i},5\n" for i in range(80))
    Path("table.csv").write_text("a;b;c;value\n" + rows)
    reading = {
        "target": "value", "drop": ["c"], "categorical": ["a"], "delimiter": ";", "decimal": ",", "header": True,
        "missing": "mean", "standardize": False, "categories_as": "embedding", "task": "regression",
    }  # fmt: skip
    study = tune(
        "table.csv", space={"units": 4, "layers": 1, "epochs": 2}, trials=2, progress=False, reading=reading,
        validation=0.2, test=7, seed=3, metrics=["r2"], loss="huber",
    )  # fmt: skip
    said = shlex.split(study.command(study.counted[1]))
    assert said[:2] == ["pellucid", "train"]
    assert said[2] == str(Path("table.csv").resolve())
    flags = " ".join(said[3:])
    for flag in (
        "--net mlp", "--target value", "--drop c", "--categories a", "--delimiter ;", "--decimal ,", "--header yes",
        "--missing mean", "--no-standardize", "--categorical embedding", "--task regression", "--validation 0.2",
        "--test 7", "--seed 3", "--metrics r2", "--loss huber", "--hidden 4", "--epochs 2",
    ):  # fmt: skip
        assert flag in flags


def test_an_augmentation_is_searched_for_images_alone_and_not_when_it_is_fixed():
    space = {"augment": ["none", "shift(1)"]}
    with pytest.raises(ParameterError, match=r"only images can be augmented(?s:.*)height, width(?s:.*)\(4,\)"):
        pl.tune("iris", space=space, trials=1, progress=False)
    with pytest.raises(ParameterError, match=r"both fixed and searched(?s:.*)shift\(2\)(?s:.*)leave it out"):
        pl.tune("digits", space=space, trials=1, progress=False, augment=["shift(2)"])
