"""A command line in this process, in a folder of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pellucid.cli import main


class Said(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output; anything beside it fails the test."""
        return json.loads(self.out)


@pytest.fixture
def pellucid(tmp_path, monkeypatch, capsys) -> Callable[..., Said]:
    """``pellucid("train", "digits")`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_DATA_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def flowers() -> Callable[..., Path]:
    """Writes a table nobody prepared: two kinds that two columns tell apart, a category, a number to predict."""

    def write(
        path: str = "flowers.csv", m: int = 60, change: Callable[[list[str]], list[str]] = lambda rows: rows
    ) -> Path:
        rng = random.Random(0)
        rows = ["length,width,colour,weight,kind"]
        for i in range(m):
            kind = "rose" if i % 2 else "iris"
            length, width = rng.gauss(5 if i % 2 else 2, 0.5), rng.gauss(1, 0.2)
            rows.append(
                f"{length:.3f},{width:.3f},{rng.choice(['red', 'white'])},{100 * length + 20 * width:.2f},{kind}"
            )
        Path(path).write_text("\n".join(change(rows)) + "\n")
        return Path(path)

    return write


@pytest.fixture
def trained(pellucid, flowers) -> Path:
    """A small run of two epochs on the flowers."""
    flowers()
    said = pellucid("train", "flowers.csv", "--epochs", 2, "--hidden", 8, "--out", "runs/first", "--no-plot", "--quiet")
    assert said.code == 0, said.err
    return Path("runs/first")
