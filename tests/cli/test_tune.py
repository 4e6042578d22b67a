"""``pellucid tune``: what it finds, the command it gives, going on, and measuring an old optimum again."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna", reason="the search is Optuna's")

SPACE = """
optimizer = ["adam", "nesterov"]
schedule = ["constant", "cosine"]
learning_rate = {low = 1e-3, high = 0.3, log = true}
momentum = {low = 0.5, high = 0.95}
units = {low = 4, high = 32, log = true}
dropout = [0.0, 0.2]
activation = ["relu", "tanh"]
initializer = ["he_normal", "orthogonal"]
regularizer = ["none", "l2"]
regularization = {low = 1e-5, high = 1e-2, log = true}
layers = {low = 1, high = 2}
batch_size = [12, 24]
epochs = {low = 3, high = 6}
"""


@pytest.fixture
def tune(pellucid, flowers):
    """``tune("--trials", 5)`` on the flowers."""
    flowers(m=120)
    Path("space.toml").write_text(SPACE)

    def run(*flags):
        return pellucid("tune", "flowers.csv", "--target", "kind", "--space", "space.toml", "--quiet", *flags)

    return run


def test_the_command_trains_the_winner_to_the_same_loss(pellucid, tune):
    said = tune("--trials", 12, "--seed", 3, "--validation", 0.2, "--json")
    assert said.code == 0, said.err
    answer = said.json
    drawn = min((each for each in answer["trials"] if "optimizer" in each), key=lambda e: e["loss"] or np.inf)
    from pellucid.tune import Study

    study = Study.open("tuning/flowers-mlp")
    for trial in (study.best, study.counted[drawn["trial"]]):
        assert len(trial.losses) == 4  # of 108 examples each draw takes 24
        assert trial.loss == pytest.approx(np.mean(trial.losses))
        command = shlex.split(study.command(trial))
        trained = pellucid(*command[1:], "--quiet", "--no-plot", "--json").json
        assert trained["validation"]["loss"] == pytest.approx(trial.validation["loss"], rel=1e-5)
        assert trained["seed"] == 3
        assert trained["examples"] == {"train": 84, "validation": 24, "test": 12}
    assert shlex.split(answer["command"]) == shlex.split(study.command())
    again = {each.trial.number: each for each in study.confirmed}  # chosen by new draws, whatever the search said
    assert study.best.baseline or again[study.best.number].gain > 0


def test_people_are_told_the_best_what_mattered_and_what_to_type(tune):
    said = tune("--trials", 16, "--confirm", 1, "--sampler", "random")
    assert said.code == 0
    for part in (
        "The best of",
        "validation loss",
        "What mattered",
        "Kept in\n  tuning/flowers-mlp",
        "pellucid train /",
    ):
        assert part in said.out
    head = next(line for line in said.out.splitlines() if line.startswith("trial "))
    assert {name.replace(" ", "_") for name in re.split(r"  +", head)[4:]} == set(tomllib.loads(SPACE))
    assert re.search(r"^0, the recipe +0\.\d+", said.out, re.MULTILINE)
    assert re.search(r"^  [a-z, ]*momentum[a-z, ]*: among the trials that have it$", said.out, re.MULTILINE)
    assert {each.name for each in Path("tuning/flowers-mlp").iterdir()} == {
        *("study.journal", "study.json", "report.json"),
        *("history.png", "importances.png", "slices.png", "parallel.png"),
    }


def test_progress_is_a_line_for_each_trial_on_standard_error(pellucid, flowers):
    flowers()
    Path("space.toml").write_text("learning_rate = [0.01, 1e30]\noptimizer = 'gradient_descent'\nepochs = 2")
    said = pellucid("tune", "flowers.csv", "--target", "kind", "--space", "space.toml", "--trials", 3, "--json")
    assert said.json["states"] == {"complete": 2, "diverged": 1}
    lines = said.err.splitlines()
    assert len(lines) == 3
    assert "the recipe as it stands" in lines[0]
    assert sum("diverged: the cost became" in each for each in lines) == 1
    again = pellucid("tune", "flowers.csv", "--target", "kind", "--space", "space.toml", "--trials", 9)
    assert "every setting of the space has been tried" in again.out


def test_an_interrupted_search_goes_on_with_the_same_command(pellucid, flowers):
    flowers(m=400)
    Path("space.toml").write_text("learning_rate = {low = 1e-3, high = 0.1, log = true}\nepochs = 30\npatience = 0")
    command = [sys.executable, "-m", "pellucid", "tune", "flowers.csv", "--target", "kind", "--space", "space.toml"]
    flags = ["--trials", "200", "--json"]
    process = subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored in the background
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("trial   2"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "every trial that has ended is kept" in err
    assert json.loads(out)["error"]["hint"].startswith("pellucid tune flowers.csv --target kind")
    from pellucid.tune import Study

    done = [each for each in Study.open("tuning/flowers-mlp").counted if each.state == "complete"]
    assert len(done) >= 3
    said = pellucid(*command[3:], "--trials", len(done) + 2, "--quiet", "--json")
    assert said.code == 0, said.err
    after = Study.open("tuning/flowers-mlp").counted
    assert [each for each in after if each in done] == done
    assert len(after) == len(done) + 2


def test_an_old_optimum_is_measured_again(pellucid, tune):
    assert tune("--trials", 4).code == 0
    said = pellucid("tune", "--recheck", "tuning/flowers-mlp", "--seeds", 2, "--quiet", "--json")
    assert said.code == 0, said.err
    assert said.json["verdict"] in ("keep", "adjust", "search again")
    assert said.json["changed"] == []
    text = pellucid("tune", "--recheck", "tuning/flowers-mlp", "flowers.csv", "--seeds", 2)
    for part in ("Verdict:", "Measured with 2 seeds", "optimum", "What has changed since\n  nothing", "recheck.json"):
        assert part in text.out
    assert "optimum (trial" in text.err
    above = re.findall(
        r"^  (?:runner-up|neighbour|fresh|recipe) .* ([+-]\d\.\d{4}) +\d\.\d{4}$", text.out, re.MULTILINE
    )
    measured = json.loads(Path("tuning/flowers-mlp/recheck.json").read_text())["rechecks"][-1]["candidates"]
    assert above == [f"{each['mean'] - measured[0]['mean']:+.4f}" for each in measured[1:]]
    assert "above the optimum" in text.out
    rows = Path("flowers.csv").read_text().splitlines()
    Path("flowers.csv").write_text("\n".join(rows[:-20]) + "\n")
    changed = pellucid("tune", "--recheck", "tuning/flowers-mlp", "--seeds", 2, "--quiet")
    assert "data_fingerprint" in changed.out
    said = tune("--trials", 5)
    assert said.code == 1
    assert "this study is about other data" in said.err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ((), 2, "give DATA to search on, or --recheck STUDY"),
        (("iris", "--time", "soon"), 2, "expected a time such as 90s"),
        (("iris", "--time", "0s"), 2, "expected a time such as 90s"),
        (("iris", "--seeds", "3"), 2, "--seeds is for --recheck"),
        (("iris", "--sampler", "tep"), 1, "unknown sampler 'tep'"),
        (("iris", "--trails", "3"), 2, "did you mean --trials?"),
        (("--recheck", "nowhere"), 1, "there is no study here"),
        (("--recheck", "nowhere", "--trials", "3"), 2, "--trials is the study's, and stays"),
        (("iris", "--space", "missing.toml"), 1, "missing.toml: cannot be read"),
        (("iris", "--space", "wrong.toml"), 1, "unknown hyperparameter 'lr'"),
        (("iris", "--net", "lenet6"), 1, "unknown net 'lenet6'"),
        (("no.csv",), 1, "no such file"),
    ],
)
def test_what_cannot_be_done_is_said(pellucid, flags, code, message):
    Path("wrong.toml").write_text("lr = 0.1")
    said = pellucid("tune", *flags)
    assert said.code == code
    assert message in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_times(text, seconds):
    from pellucid.cli.tune import _seconds

    assert _seconds(text) == seconds


def test_time_ends_the_search(tune):
    begun = time.monotonic()
    said = tune("--time", "1s", "--json")
    assert said.code == 0
    assert len(said.json["trials"]) >= 1
    assert time.monotonic() - begun < 60
