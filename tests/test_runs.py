from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid import runs as module
from pellucid.errors import DataError, ParameterError
from pellucid.runs import Run, compare, environment, list_runs
from pellucid.training.split import TestVault

CONFIG = {"seed": 0, "optimizer": {"type": "adam", "learning_rate": 1e-3}, "layers": [{"units": 10}]}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(folder=None, config=CONFIG, **more) -> Run:
    return Run.create(folder, config=config, environment=environment(engine="numpy", seed=0), **more)


def in_another_process(program: str, *arguments, **more):
    return subprocess.run(
        [sys.executable, "-c", "import sys; from pellucid.runs import Run\n" + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def epoch(number, loss, validation_loss, **more):
    return {"epoch": number, "train": {"loss": loss}, "validation": {"loss": validation_loss}} | more


def test_a_run_holds_what_it_was_given(tmp_path):
    run = made(tmp_path / "a", config=CONFIG | {"dropout": None, "rates": np.array([0.1, 0.2]), "data": Path("x.csv")})
    assert run.config == CONFIG | {"rates": [0.1, 0.2], "data": "x.csv"}
    assert run.environment["engine"] == "numpy"
    assert sorted(each.name for each in run.path.iterdir()) == [
        "checkpoints",
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "status.json",
    ]
    assert tomllib.loads((run.path / "config.toml").read_text())["optimizer"]["learning_rate"] == 1e-3
    assert run.metrics() == []
    assert run.checkpoint_path("last") == run.path / "checkpoints" / "last.pellucid"
    assert run.checkpoint_path("best.pellucid").name == "best.pellucid"
    with pytest.raises(ParameterError, match=r"not a checkpoint's name(?s:.*)'\.\./x'"):
        run.checkpoint_path("../x")


values = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=6)


@given(config=st.dictionaries(st.text(max_size=5), values | st.lists(values, max_size=3), max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_config_comes_back(config):
    run = made(config=config)
    assert run.config == config
    run.close()


def test_config_that_toml_cannot_hold_names_the_place():
    with pytest.raises(ParameterError, match=r"config\.layers\[1\]\.g: cannot be written as TOML(?s:.*)object"):
        made(config={"layers": [{}, {"g": object()}]})
    with pytest.raises(ParameterError, match=r"config\.shape\[0\]: cannot be written as TOML(?s:.*)None"):
        made(config={"shape": [None, 3]})
    assert list_runs() == []


def test_default_folder_is_new_every_time(monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 21, 9, 30, 5, tzinfo=tz)

    monkeypatch.setattr(module, "datetime", Clock)
    assert [made(name=name).name for name in ("iris", "iris", "iris", "my data/x")] == [
        "iris-20261121-093005",
        "iris-20261121-093005-2",
        "iris-20261121-093005-3",
        "my-data-x-20261121-093005",
    ]


def test_what_is_there_is_never_overwritten(tmp_path):
    made(tmp_path / "a").close()
    before = (tmp_path / "a" / "config.toml").read_bytes()
    with pytest.raises(
        ParameterError, match=r"(?s)a: there is a run here already.*hint:\s+choose another folder, or resume"
    ):
        made(tmp_path / "a", config={})
    assert (tmp_path / "a" / "config.toml").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ParameterError, match=r"(?s)something here already.*thesis\.txt"):
        made(tmp_path / "mine")
    with pytest.raises(ParameterError, match=r"something here already"):
        made(tmp_path / "mine" / "thesis.txt")
    (tmp_path / "empty").mkdir()
    assert made(tmp_path / "empty").config == CONFIG


def test_of_processes_that_make_the_same_run_one_does(tmp_path):
    program = (
        "sys.stdin.read(); run = Run.create(sys.argv[1], config={'n': sys.argv[2]}, environment={})\n"
        "print(run.config['n'])"
    )
    start = [sys.executable, "-c", "import sys; from pellucid.runs import Run\n" + program, str(tmp_path / "a")]
    pipe = subprocess.PIPE
    racers = [subprocess.Popen([*start, str(i)], stdin=pipe, stdout=pipe, stderr=pipe, text=True) for i in range(4)]
    for racer in racers:
        racer.stdin.close()
        racer.stdin = None
    said = [racer.communicate() for racer in racers]
    assert sorted(racer.returncode for racer in racers) == [0, 1, 1, 1]
    assert all("ParameterError" in errors for out, errors in said if not out)
    assert Run.open(tmp_path / "a").config["n"] == next(out for out, _ in said if out).strip()


def test_a_full_disk_leaves_no_half_run(tmp_path):
    program = "Run.create(sys.argv[1], config={'text': 'x' * 5000}, environment={})"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = in_another_process(program, tmp_path / "a", preexec_fn=limit)
    assert "CheckpointError" in done.stderr
    assert not (tmp_path / "a").exists()


def test_open_by_path_name_prefix_and_latest(tmp_path):
    for i, name in enumerate(["iris-1", "iris-2", "wine-1"]):
        made(tmp_path / "runs" / name).close()
        os.utime(tmp_path / "runs" / name / "config.toml", ns=(0, 10 - i))
    assert [run.name for run in list_runs()] == ["iris-1", "iris-2", "wine-1"]
    assert Run.open(tmp_path / "runs" / "iris-2").name == "iris-2"
    assert Run.open("iris-2").name == "iris-2"
    assert Run.open("wine").name == "wine-1"
    assert Run.open("latest").name == "iris-1"
    assert Run.open("wine", below=tmp_path / "runs").name == "wine-1"
    with pytest.raises(DataError, match=r"(?s)several runs begin with 'iris'.*iris-1, iris-2"):
        Run.open("iris")
    with pytest.raises(DataError, match=r"(?s)no run 'cifar'.*iris-1, iris-2, wine-1.*pellucid runs list"):
        Run.open("cifar")
    (tmp_path / "wine").mkdir()
    assert Run.open("wine").name == "wine-1"


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"(?s)no run 'latest'.*none yet"):
        Run.open("latest")
    with pytest.raises(DataError, match=r"this folder is not a run"):
        Run.open("", below="nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"(?s)photos: this folder is not a run.*no config\.toml, no environment\.json"):
        Run.open(tmp_path / "photos")
    run = made(tmp_path / "a")
    (run.path / "config.toml").write_text("a = = 1")
    with pytest.raises(DataError, match=r"config\.toml: cannot be read: Invalid value"):
        Run.open(run.path).config  # noqa: B018
    (run.path / "environment.json").write_text("{")
    with pytest.raises(DataError, match=r"environment\.json: cannot be read: Expecting"):
        run.environment  # noqa: B018


def test_records_come_back_and_other_processes_see_them_at_once(tmp_path):
    run = made(tmp_path / "a")
    run.log({"epoch": 1, "train": {"loss": np.float32(0.5)}})
    run.log({"epoch": 2, "train": {"loss": math.nan}})
    seen = in_another_process("print(len(Run.open(sys.argv[1]).metrics()))", run.path)
    assert seen.stdout.strip() == "2"
    first, second = run.metrics()
    assert first == {"epoch": 1, "train": {"loss": 0.5}}
    assert math.isnan(second["train"]["loss"])


@pytest.mark.parametrize(
    ("torn", "left"),
    [
        ('{"epoch": 2, "tra', [1]),
        ('{"epoch": 2}', [1, 2]),
        ('{"epoch": 2}\n', [1, 2]),
        ('{"name": "\\ud', [1]),
        ("", [1]),
    ],
)
def test_a_torn_last_line_is_skipped_and_mended(tmp_path, torn, left):
    run = made(tmp_path / "a")
    run.log({"epoch": 1})
    run.close()
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(torn)
    again = Run.open(run.path)
    assert [each["epoch"] for each in again.metrics()] == left
    again.log({"epoch": 3})
    assert [each["epoch"] for each in again.metrics()] == [*left, 3]
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == len(left) + 1


@pytest.mark.parametrize("damage", ['{"epoch": \n', "3\n", "\xff\n"])
def test_damage_within_the_records_is_named(tmp_path, damage):
    run = made(tmp_path / "a")
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n' + damage + '{"epoch": 3}\n', "latin-1")
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: cannot be read"):
        run.metrics()


def test_a_record_that_does_not_fit_leaves_the_file_as_it_was(tmp_path):
    made(tmp_path / "a").close()
    program = "run = Run.open(sys.argv[1])\nfor i in range(100): run.log({'epoch': i, 'text': 'x' * 79})"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731 (9 records and a part of the tenth)
    done = in_another_process(program, tmp_path / "a", preexec_fn=limit)
    assert "metrics.jsonl: cannot be written: File too large" in done.stderr
    text = (tmp_path / "a" / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    assert [each["epoch"] for each in Run.open(tmp_path / "a").metrics()] == list(range(len(text.splitlines())))
    with pytest.raises(ParameterError, match=r"cannot be written as JSON"):
        Run.open(tmp_path / "a").log({"a": object()})


def test_kill_9_leaves_a_run_that_can_go_on(tmp_path):
    program = (
        "import os; from pellucid.files import atomic_write; from pathlib import Path\n"
        "run = Run.create(sys.argv[1], config={}, environment={}); run.log({'epoch': 1})\n"
        "def half(file):\n    file.write(b'half'); file.flush()\n    os.kill(os.getpid(), 9)\n"
        "atomic_write(run.checkpoint_path('last'), half)"
    )
    assert in_another_process(program, tmp_path / "a").returncode == -9
    run = Run.open(tmp_path / "a")
    assert run.status == "interrupted"
    assert len(list((run.path / "checkpoints").iterdir())) == 1
    run.log({"epoch": 2})
    assert run.status == "running"
    assert list((run.path / "checkpoints").iterdir()) == []
    assert [each["epoch"] for each in run.metrics()] == [1, 2]


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    run = made(tmp_path / "a")
    other = Run.open(run.path)
    assert other.status == "running"
    assert other.config == CONFIG
    with pytest.raises(
        ParameterError, match=rf"(?s)another process is writing this run.*process {os.getpid()} on.*hint"
    ):
        other.log({"epoch": 1})
    done = in_another_process("Run.open(sys.argv[1]).log({})", run.path)
    assert "another process is writing this run" in done.stderr
    run.close()
    other.log({"epoch": 1})
    assert [each["epoch"] for each in run.metrics()] == [1]


def test_status(tmp_path):
    run = made(tmp_path / "a")
    assert run.status == "running"
    run.close()
    assert run.status == Run.open(run.path).status == "finished"
    with pytest.raises(KeyboardInterrupt), run:
        raise KeyboardInterrupt
    assert run.status == "interrupted"
    with pytest.raises(ZeroDivisionError), run:
        _ = 1 / 0
    assert run.status == "failed"
    with run:
        pass
    assert run.status == "finished"
    assert repr(run) == f"Run({str(run.path)!r}, finished)"
    assert json.loads((run.path / "status.json").read_text())["process"] == os.getpid()
    run.claim()
    del run
    assert Run.open(tmp_path / "a").status == "interrupted"


def test_a_resumed_run_counts_each_epoch_once(tmp_path):
    run = made(tmp_path / "a")
    for record in (epoch(1, 1.0, 1.0), epoch(2, 0.9, 0.9), {"note": "resumed"}, epoch(2, 0.5, 0.6), epoch(3, 0.4, 0.7)):
        run.log(record)
    assert len(run.metrics()) == 5
    assert run.history()["loss"] == [1.0, 0.5, 0.4]


def test_compare_shows_what_differs(tmp_path):
    first = made(tmp_path / "a")
    second = made(tmp_path / "b", config=CONFIG | {"optimizer": {"type": "adam", "learning_rate": 0.1}, "extra": 1})
    third = made(tmp_path / "c")
    for run, losses in ((first, [0.9, 0.5, 0.7]), (second, [0.8, math.nan])):
        for number, loss in enumerate(losses, 1):
            run.log(epoch(number, loss / 2, loss))
    vault = TestVault([], first)
    vault.open()
    vault.record({"accuracy": 0.97})
    first.close()
    rows = compare([first, second, third])
    assert [row["run"] for row in rows] == ["a", "b", "c"]
    assert [row["status"] for row in rows] == ["finished", "running", "running"]
    assert [row["config"] for row in rows] == [
        {"optimizer.learning_rate": 1e-3, "extra": None},
        {"optimizer.learning_rate": 0.1, "extra": 1},
        {"optimizer.learning_rate": 1e-3, "extra": None},
    ]
    assert [row["epochs"] for row in rows] == [3, 2, 0]
    assert rows[0]["best"] == {"epoch": 2, "loss": 0.25, "validation_loss": 0.5}
    assert rows[0]["last"] == {"epoch": 3, "loss": 0.35, "validation_loss": 0.7}
    assert rows[1]["best"]["epoch"] == 1
    assert rows[2]["best"] == rows[2]["last"] == {}
    assert [row["test"] for row in rows] == [{"accuracy": 0.97}, {}, {}]
    assert compare([]) == []


def test_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    imported = "torch" in sys.modules
    got = environment(engine="numpy", seed=3, data_fingerprint="abc")
    assert got["packages"]["numpy"] == np.__version__
    assert got["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (got["engine"], got["seed"], got["data_fingerprint"], got["threads"]) == ("numpy", 3, "abc", 1)
    assert got["cores"] >= 1
    assert got["memory"] > 2**28
    assert got["cpu"]
    age = datetime.now(UTC) - datetime.fromisoformat(got["date"])
    assert 0 <= age.total_seconds() < 5
    assert ("torch" in sys.modules) == imported  # versions are read, nothing is imported
    assert json.loads(json.dumps(got)) == got
