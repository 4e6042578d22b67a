"""The lab: its members, what an experiment says, and the filters' numbers against SciPy's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats

from pellucid import lab
from pellucid.cli import main
from pellucid.errors import EngineError, ParameterError
from pellucid.lab import filters
from pellucid.lab.base import Experiment, Finding, Result, mean_and_interval


def test_members_are_the_modules():
    modules = {path.stem for path in Path(lab.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert {each.run.__module__.rpartition(".")[2] for each in lab.experiments().values()} == modules
    assert all(name == each.name and each.question.endswith("?") for name, each in lab.experiments().items())
    with pytest.raises(ParameterError, match=r"unknown experiment 'filter'[^$]*did you mean 'filters'"):
        lab.find("filter")


def test_a_finding_agrees_within_its_tolerance():
    assert [Finding("x", 2.0, measured, 0.05).agrees for measured in (1.89, 1.91, 2.09, 2.11)] == [
        False,
        True,
        True,
        False,
    ]
    assert [Finding("x", -2.0, measured, 0.05).agrees for measured in (-2.09, -2.11)] == [True, False]
    assert [Finding("x", 0.0, measured, 1e-8).agrees for measured in (1e-9, -1e-7)] == [True, False]


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Result:
    return filters.run(tmp_path_factory.mktemp("lab"), seed=1, quick=True)


def test_the_filters_do_what_theory_foretells(result):
    assert [each.agrees for each in result.findings] == [True] * 5
    table = {row[0]: row[1:] for row in result.rows}
    # what SciPy's filters make of the same noise
    clean = filters.photograph()[150:270, 220:380]
    noisy = clean + np.random.default_rng(1).normal(0, 0.1, clean.shape)
    for name, image in (("none", noisy), ("σ = 1", ndimage.gaussian_filter(noisy, 1.0))):
        ratio = 10 * math.log10(1 / np.mean((image - clean) ** 2))
        assert table[name][0] == pytest.approx(ratio, rel=1e-9)
        steep = [np.hypot(ndimage.sobel(each, 0), ndimage.sobel(each, 1)) for each in (clean, image)]
        edges, found = (set(np.argsort(each, axis=None)[-1920:]) for each in steep)  # a tenth of 19,200 pixels
        assert table[name][2] == pytest.approx(len(edges & found) / 1920, abs=1e-3)
    for _, measured, foretold, _ in result.rows[1:]:
        assert measured == pytest.approx(foretold, abs=0.1)
    assert max(row[1] for row in result.rows) > table["none"][0] + 3  # dB: noise was removed


def test_the_picture_shows_the_photograph(result):
    from PIL import Image

    with Image.open(result.picture) as picture:
        assert picture.size == (1950, 735)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 200


def test_another_seed_is_another_noise(tmp_path, result):
    other = filters.run(tmp_path, seed=2, quick=True)
    again = filters.run(tmp_path, seed=1, quick=True)
    assert other.rows != result.rows
    assert again.rows == result.rows


def run(capsys, *arguments):
    code = main(list(map(str, arguments)))
    return code, *capsys.readouterr()


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "lab", "filters", "--quick", "--seed", 1)
    assert (code, err) == (0, "")
    assert "σ = 1.5" in out
    assert "drawn in lab/filters.png" in out
    assert Path("lab/filters.png").exists()
    code, out, _ = run(capsys, "lab", "filters", "--quick", "--out", "elsewhere", "--json")
    document = json.loads(out)
    assert document["picture"] == "elsewhere/filters.png"
    assert [each["agrees"] for each in document["findings"]] == [True] * 5
    assert document["table"][0]["smoothed by"] == "none"
    code, out, _ = run(capsys, "lab")
    assert code == 0
    assert "filters" in out
    assert run(capsys, "lab", "list")[1] == out
    assert [each["name"] for each in json.loads(run(capsys, "lab", "list", "--json")[1])["experiments"]] == list(
        lab.experiments()
    )
    code, _, err = run(capsys, "lab", "filtres")
    assert code == 1
    assert "did you mean 'filters'?" in err


def made_up(name, *findings, problem=None):
    def run(out, *, seed, quick):
        if problem:
            raise problem
        return Result(("a",), ((seed,),), findings, out / f"{name}.png")

    return Experiment(name, f"title of {name}", "why?", run)


def test_a_prediction_that_fails_is_said_and_fails_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wrong = made_up("wrong", Finding("one", 1.0, 2.0, 0.1))
    monkeypatch.setattr(lab, "find", lambda name: wrong)
    code, out, _ = run(capsys, "lab", "wrong", "--seed", 7)
    assert code == 1
    assert "DIFFERS" in out
    assert "7" in out


def test_all_goes_on_whatever_becomes_of_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    right, wrong = Finding("one", 1.0, 1.0, 0.1), Finding("two", 1.0, 2.0, 0.1)
    problem = EngineError("matplotlib is not installed", hint="pip install 'pellucid[plot]'")
    several = [made_up("mixed", right, wrong), made_up("broken", problem=problem), made_up("good", right)]
    monkeypatch.setattr(lab, "experiments", lambda: {each.name: each for each in several})
    code, out, err = run(capsys, "lab", "all", "--seed", 7)
    assert code == 1
    assert [line.split(",")[0] for line in err.splitlines()] == ["mixed: DIFFERS", "broken: FAILED", "good: agrees"]
    assert "title of mixed" in out
    assert "title of good" in out
    assert "drawn in lab/good.png" in out
    assert "matplotlib is not installed" in out
    code, out, _ = run(capsys, "lab", "all", "--json", "--out", "there")
    document = json.loads(out)
    assert (code, document["agrees"]) == (1, False)
    assert [each["agrees"] for each in document["experiments"]] == [False, False, True]
    assert document["experiments"][1]["error"]["hint"] == "pip install 'pellucid[plot]'"
    assert document["experiments"][2]["picture"] == "there/good.png"
    monkeypatch.setattr(lab, "experiments", lambda: {"good": several[2]})
    assert run(capsys, "lab", "all")[0] == 0


@pytest.mark.parametrize("name", ["all", "good"])
def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, monkeypatch, capsys, name):
    several = {"good": made_up("good", problem=AssertionError("it ran"))}
    monkeypatch.setattr(lab, "experiments", lambda: several)
    (tmp_path / "file").touch()
    for there in (tmp_path / "file", tmp_path / "file" / "within"):
        code, _, err = run(capsys, "lab", name, "--out", there)
        assert code == 1
        assert f"{there}: cannot be written" in err
    monkeypatch.setattr("os.access", lambda path, mode: False)
    code, _, err = run(capsys, "lab", name, "--out", tmp_path / "new")
    assert code == 1
    assert "choose a folder that you may write to" in err


def test_the_interval_is_students():
    for n in (2, 5, 16, 17, 40):
        values = np.random.default_rng(n).normal(size=n)
        low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        mean, half = mean_and_interval(values)
        assert mean == pytest.approx((low + high) / 2)
        assert half == pytest.approx((high - low) / 2, rel=2e-3)
    assert math.isnan(mean_and_interval([1.0])[1])
