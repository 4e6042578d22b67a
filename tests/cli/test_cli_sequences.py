"""Texts, series and clips from the command line: trained, measured, asked, gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pellucid.network import load
from pellucid.runs import Run

QUIET = ("--no-plot", "--quiet", "--json")


@pytest.fixture
def book() -> Path:
    """A text of few words, in the present folder."""
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat"], 400)
    Path("book.txt").write_text(" ".join(words) + "\n")
    return Path("book.txt")


@pytest.fixture
def written(pellucid, book) -> Path:
    """A small run on the book."""
    said = pellucid("train", "book.txt", "--units", 12, "--length", 10, "--epochs", 2, "--out", "writer", *QUIET)
    assert said.code == 0, said.out
    return Path("writer")


def test_a_text_is_learned_and_measured_in_bits(pellucid, written):
    config = Run.open(written).config
    assert config["net"] == "char-rnn"
    assert config["task"] == {"kind": "text", "symbols": "character", "length": 10}
    answer = pellucid("train", "book.txt", "--units", 12, "--length", 10, "--epochs", 2, *QUIET).json
    assert answer["task"] == "text"
    assert set(answer["test"]) == {"loss", "bits_per_symbol", "accuracy"}
    assert answer["test"]["bits_per_symbol"] == pytest.approx(answer["test"]["loss"] / np.log(2))
    assert list(answer["baselines"]) == [f"{n}-gram" for n in range(1, 8)]
    opening = json.loads((written / "vault.json").read_text())["openings"]
    assert opening[0]["metrics"] == answer["test"]
    again = pellucid("evaluate", "writer", "--again", "--json").json
    assert again["test"] == answer["test"]


def test_people_are_told_whether_counting_is_beaten(pellucid, book):
    said = pellucid("train", "book.txt", "--units", 4, "--epochs", 1, "--out", "r", "--no-plot")
    assert said.code == 0
    for part in (
        "Test set: bits to say the next character",
        "7-gram",
        "the network",
        "pellucid generate r --seed-text",
    ):
        assert part in said.out
    assert "windows of 64 characters, to each the next one" in said.err
    assert "the parts follow one another, the test part last" in said.err


def test_a_run_writes(pellucid, written):
    how = ("generate", "writer", "--seed-text", "the cat", "--length", 30, "--temperature", 0.5, "--seed")
    said = pellucid(*how, 3)
    assert said.code == 0
    assert said.out.startswith("the cat")
    assert len(said.out.rstrip("\n")) <= 37
    again = pellucid(*how, 3, "--json")
    assert ("the cat" + again.json["text"]).rstrip("\n") == said.out.rstrip("\n")
    assert set(again.json["text"]) <= set("thecatsonm \n")
    other = pellucid(*how, 4, "--json")
    assert other.json["text"] != again.json["text"]
    bold = ("generate", "writer/model.pellucid", "--temperature", 0, "--length", 9, "--json", "--seed")
    greedy = [pellucid(*bold, seed).json["text"] for seed in (1, 2)]
    assert greedy[0] == greedy[1]


def test_what_cannot_be_written_on_is_refused(pellucid, written, trained):
    said = pellucid("generate", "writer", "--seed-text", "Zebra!")
    assert (said.code, said.out) == (1, "")
    assert "never seen" in said.err
    assert "'Z' 'b' 'r' '!'" in said.err
    said = pellucid("generate", "writer", "--seed-text", "Z", "--json")
    assert said.json["error"]["type"] == "DataError"
    said = pellucid("generate", trained)
    assert said.code == 1
    assert "this network does not write" in said.err
    said = pellucid("generate", "writer", "--temperature", -1)
    assert (said.code, said.out) == (2, "")
    assert "expected a number from 0" in said.err
    said = pellucid("predict", trained, "book.txt")
    assert said.code == 1


def test_other_texts_are_measured_and_read_along(pellucid, written):
    Path("other.txt").write_text("the mat sat")
    said = pellucid("evaluate", "writer", "other.txt", "--json").json
    assert said["examples"] == 11
    assert said["metrics"]["bits_per_symbol"] > 0
    assert pellucid("predict", "writer", "other.txt").out.splitlines()[0] == "character,predicted"
    lines = pellucid("predict", "writer", "other.txt", "--probabilities").out.splitlines()
    assert lines[0] == "character,predicted,p(character)"
    assert [line[0] for line in lines[1:]] == list("he mat sat")
    p = [float(line.rsplit(",", 1)[1]) for line in lines[1:]]
    assert -np.log2(p).mean() == pytest.approx(said["metrics"]["bits_per_symbol"], rel=1e-4)
    for verb in ("evaluate", "predict"):
        refused = pellucid(verb, "writer", "other.txt", "--keys", "x")
        assert refused.code == 1
        assert "--keys: text makes nothing of it" in refused.err


def test_the_texts_of_a_column_are_learned_and_answered_again(pellucid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"up": ("good", "great"), "down": ("bad", "awful")}
    rows = [f"a {words[said][i // 2 % 2]} film number {i},{said}" for i, said in enumerate(["up", "down"] * 30)]
    Path("reviews.csv").write_text("\n".join(["review,stars", *rows]))
    refused = pellucid("train", "reviews.csv", "--target", "stars")
    assert refused.code == 1
    assert "--text review learns from what it says" in refused.err
    how = ("--text", "review", "--target", "stars", "--net", "gru", "--units", 8, "--epochs", 8, "--no-plot")
    answer = pellucid("train", "reviews.csv", *how, "--learning-rate", 0.03, "--out", "told", "--json").json
    assert answer["test"]["accuracy"] == 1
    Path("new.txt").write_text("a great film\nan awful film\n")
    assert pellucid("predict", "told", "new.txt", "--json").json["predictions"] == ["up", "down"]
    Path("new.csv").write_text("review\na great film\nan awful film again\n")
    assert pellucid("predict", "told", "new.csv", "--json").json["predictions"] == ["up", "down"]
    unnamed = ("--text", "review", "--target", "stars", "--units", 8, "--epochs", 1, "--no-plot", "--out", "unnamed")
    assert pellucid("train", "reviews.csv", *unnamed).code == 0
    assert Run.open("unnamed").config["net"] == "lstm"  # mlp reads no texts
    strange = pellucid("train", "reviews.csv", "--text", "revew", "--net", "gru")
    assert "--text: unknown column 'revew'" in strange.err
    assert "did you mean 'review'?" in strange.err


def test_an_interrupted_text_goes_on_as_if_it_had_not_been(pellucid, book):
    options = ("--units", 8, "--length", 10, "--batch-size", 4, *QUIET)
    whole = pellucid("train", "book.txt", "--epochs", 3, "--optimizer", "adam(1e-2)", "--out", "whole", *options)
    pellucid("train", "book.txt", "--epochs", 2, "--optimizer", "adam(1e-2)", "--out", "parts", *options)
    parts = pellucid("train", "--resume", "parts", "--epochs", 3, *QUIET)
    assert parts.json["validation"] == whole.json["validation"]
    a, b = load("whole/model.pellucid"), load("parts/model.pellucid")
    assert all((a.parameters["lstm_1"][name] == b.parameters["lstm_1"][name]).all() for name in a.parameters["lstm_1"])


def test_an_unfinished_text_run_is_used_from_its_checkpoint(pellucid, written):
    (written / "model.pellucid").unlink()
    said = pellucid("generate", "writer", "--length", 5)
    assert said.code == 0, said.err


def test_flags_of_sequences_are_obeyed(pellucid, book):
    said = pellucid(
        "train", "book.txt", "--net", "gru", "--layers", 2, "--units", 6, "--embedding", 5, "--truncate", "4,8",
        "--length", 12, "--symbols", "word", "--epochs", 1, "--batch-size", 2, "--out", "all", *QUIET,
    )  # fmt: skip
    assert said.code == 0, said.out
    config, net = Run.open("all").config, load("all/model.pellucid")
    assert config["training"]["truncate"] == [4, 8]
    assert config["task"] == {"kind": "text", "symbols": "word", "length": 12}
    assert net.parameters["embedding_1"]["W"].shape == (5, 9)  # six words and three specials
    assert [layer["units"] for layer in config["network"]["layers"] if layer["type"] == "GRU"] == [6, 6]
    assert all(layer.get("stateful", True) for layer in config["network"]["layers"])
    batches = said.json["examples"]["train"] // 2
    assert Run.open("all").history()["step"] == [3 * batches]  # an update every 4 of 12 steps


def test_a_network_that_reads_both_ways(pellucid):
    bits = np.random.default_rng(0).integers(0, 2, (60, 5))
    np.savez("both.npz", x=bits[..., None].astype(float), y=np.roll(bits, -1, axis=1))  # what comes next
    options = ("--task", "labelling", "--net", "rnn", "--units", 8, "--epochs", 30, "--optimizer", "adam(2e-2)", *QUIET)
    one_way = pellucid("train", "both.npz", *options).json["test"]["accuracy"]
    both = pellucid("train", "both.npz", "--bidirectional", *options).json["test"]["accuracy"]
    assert both > one_way + 0.15


def test_a_series_is_forecast_and_the_picture_drawn(pellucid):
    np.save("wave.npy", np.sin(np.arange(240) / 2) + 0.02 * np.arange(240))
    options = ("--task", "forecast", "--season", 12, "--horizon", 4, "--length", 15, "--units", 6, "--epochs", 2)
    answer = pellucid("train", "wave.npy", *options, "--out", "wave", "--json", "--quiet").json
    assert Run.open("wave").config["task"] == {"kind": "forecast", "season": 12, "horizon": 4, "length": 15}
    assert answer["examples"] == {"train": 174, "validation": 21, "test": 21}
    assert len(answer["baselines"]) == 3
    assert (Path("wave/forecast.png").stat().st_size > 1000) == ("wave/forecast.png" in answer["pictures"])
    lines = pellucid("predict", "wave", "wave.npy").out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["time", "240", "241", "242", "243"]


def test_a_run_may_be_called_as_its_data(pellucid):
    options = ("--length", 3, "--validation", 4, "--test", 4, "--units", 2, "--epochs", 1, *QUIET)
    for out in ("moving-digits", "again"):
        said = pellucid("train", "moving-digits", "--net", "rnn", *options, "--out", out)
        assert said.code == 0, said.out
    assert Run.open("again").config["data"]["source"] == "moving-digits"


def test_every_verb_knows_every_task(pellucid, written):
    np.savez("bits.npz", x=np.random.default_rng(0).normal(size=(40, 4, 2)), y=np.tile([0, 1, 0, 1], (40, 1)))
    np.save("line.npy", np.arange(80.0))
    small = ("--epochs", 1, "--units", 3, *QUIET)
    pellucid("train", "bits.npz", "--task", "labelling", "--out", "bits", *small)
    pellucid("train", "line.npy", "--task", "forecast", "--out", "line", *small)
    for run in ("writer", "bits", "line"):
        shown = pellucid("show", run, "--json")
        assert shown.json["test"] is not None
        step = pellucid("step", run, "--example", 0)
        assert step.code == 0, step.err
        assert "one iteration on 1 example" in step.out
        checked = pellucid("check", run, "--batch", 2, "--entries", 2)
        assert checked.code == 0, checked.out + checked.err
    said = pellucid("show", "writer", "--features")
    assert said.code == 1
    assert "this network is for what comes next in a text" in said.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["digits", "--horizon", 3], ["--horizon", "there is no horizon to choose", "a task of forecast"]),
        (["book.txt", "--season", 3], ["--season", "a task of forecast", "text"]),
        (["book.txt", "--drop", "a"], ["--drop", "text makes nothing of it"]),
        (["book.txt", "--no-standardize"], ["--no-standardize", "text makes nothing of it"]),
        (["book.txt", "--categorical", "embedding"], ["--categorical", "text makes nothing of it"]),
        (["book.txt", "--class-weight", "balanced"], ["--class-weight is for examples of one class each"]),
        (["book.txt", "--net", "cnn"], ["--net", "cnn cannot read these data", "char-rnn", "lstm"]),
        (["book.txt", "--net", "lstm", "--bidirectional"], ["both ways"]),
        (["digits", "--truncate", "4"], ["truncate", "needs the whole sequence"]),
        (["digits", "--net", "lstm", "--layers", 2, "--hidden", "4"], ["--layers", "--hidden says it all"]),
        (["digits", "--symbols", "word"], ["--symbols", "these are no texts"]),
        (["digits", "--task", "labeling"], ["unknown task", "did you mean 'labelling'"]),
        (["moving-digits", "--target", "colour"], ["unknown target 'colour'", "direction"]),
        (["digits", "--net", "frames"], ["frames", "reads videos"]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_wrong_use_says_what_to_do(pellucid, book, arguments, parts):
    said = pellucid("train", *arguments, "--epochs", 1, "--quiet", "--no-plot")
    assert (said.code, said.out) == (1, "")
    for part in parts:
        assert part in said.err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_steps_of_truncation_are_numbers(pellucid, book):
    for wrong in ("x", "0", "1,2,3", "-1"):
        said = pellucid("train", "book.txt", f"--truncate={wrong}")
        assert said.code == 2
        assert "expected steps such as 32 or 32,64" in said.err
    said = pellucid("train", "book.txt", "--truncate", "8,4", "--quiet")
    assert said.code == 1
    assert "k1" in said.err
