"""Pairs of texts from the command line: trained, then asked about words that were never shown."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest


def test_from_pairs_to_words_of_ones_own(pellucid, tmp_path):
    rng = np.random.default_rng(0)
    words = sorted({"".join(rng.choice(list("abcd"), rng.integers(2, 5))) for _ in range(300)})
    (tmp_path / "loud.tsv").write_text("".join(f"{word}\t{word.upper()}\n" for word in words), "utf-8")
    options = ["--task", "translation", "--hidden", 32, "--optimizer", "adam(1e-2)", "--epochs", 20, "--out", "run"]
    trained = pellucid("train", "loud.tsv", *options, "--no-plot", "--json")
    assert trained.code == 0, trained.err
    test = trained.json["test"]
    assert test["symbol_error"] < 0.2
    assert set(test) == {"loss", "perplexity", "greedy_symbol_error", "greedy_text_error", "symbol_error", "text_error"}

    said = pellucid("predict", "run", "abcd")
    assert said.code == 0
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert list(rows[0]) == ["input", "output"]
    assert sum(a == b for a, b in zip(rows[0]["output"], "ABCD", strict=False)) >= 3
    (tmp_path / "words.txt").write_text("ab\nDDD\n", "utf-8")
    several = pellucid("predict", "run", "words.txt", "--json", "--probabilities").json
    assert several["inputs"] == ["ab", "DDD"]
    assert len(several["predictions"]) == several["examples"] == 2

    assert pellucid("evaluate", "run", "--again", "--json").json["test"] == pytest.approx(test)
    assert pellucid("evaluate", "run", "loud.tsv", "--json").json["metrics"]["loss"] > 0

    resumed = pellucid("train", "--resume", "run", "--epochs", 21, "--no-plot", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["epochs"] == 21

    for text, message in [("", "an empty text"), ("abx", "never shown 'x'"), ("abcda", "at most 4 characters")]:
        said = pellucid("predict", "run", text)
        assert said.code == 1
        assert message in said.err
        assert not said.out
