"""Text that goes on: streams, the bits it costs, the counts it is held against, and what is written."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from pellucid import zoo
from pellucid.data.series import Windows
from pellucid.data.text import Vocabulary
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.tasks import text as texts
from pellucid.tasks.text import Streams, Text, n_grams


def writer(text: str = "abcab", net: str = "char-rnn", **options) -> pl.Sequential:
    vocabulary = Vocabulary.build([text])
    made = zoo.find(net).build((None,), len(vocabulary), hidden=(8,), embedding=4, seed=1, **options)
    made.preprocessing = {"task": {"kind": "text"}, "vocabulary": vocabulary.document()}
    return made


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(30, 90), length=st.integers(1, 6), count=st.integers(1, 12))
def test_streams_hold_every_window_once_and_each_goes_on_where_it_ended(steps, length, count):
    windows = Windows(np.arange(steps, dtype=np.int32), length, every_step=True, stride=length)
    streams = Streams(windows, count)
    x, y = streams.take(np.arange(len(streams)))
    assert (y == x + 1).all()
    assert len(np.unique(x)) == x.size
    assert len(windows) - len(streams) < streams.streams
    batches = x.reshape(streams.each, streams.streams, length)
    assert (batches[1:, :, 0] == batches[:-1, :, -1] + 1).all()


def test_a_text_is_measured_as_if_read_from_end_to_end():
    net = writer("the cat sat", loss="softmax_cross_entropy")
    ids = Vocabulary.build(["the cat sat"]).encode("the cat sat on the mat " * 9)
    A, _ = net.forward(ids[:-1, None].astype(float))
    p = np.exp(A[:, :, 0]) / np.exp(A[:, :, 0]).sum(axis=1, keepdims=True)
    bits = -np.log2(p[np.arange(len(ids) - 1), ids[1:]]).mean()
    found = texts._measured(net, ids)
    assert len(ids) > 3 * texts.STEPS
    assert found["bits_per_symbol"] == pytest.approx(bits, rel=1e-5)
    assert found["loss"] == pytest.approx(bits * math.log(2), rel=1e-5)
    assert found["accuracy"] == np.mean(A[:, :, 0].argmax(1) == ids[1:])


def test_no_symbol_is_left_out_where_a_text_is_measured_in_several_places(monkeypatch):
    seen = []
    monkeypatch.setattr(texts, "_advanced", lambda net, ids, carried: (np.zeros((*ids.shape[:1], 5, ids.shape[1])), {}))
    monkeypatch.setattr(texts, "_read", lambda net, ids, of=texts._read: (seen.append(ids), of(net, ids))[1])
    ids = np.arange(5 * 1000 + 7) % 5
    found = texts._measured(writer(), ids)
    assert sum(block[:, 1:].size for block in seen) == len(ids) - 1
    assert len(seen[0]) == 5
    assert found["loss"] == pytest.approx(math.log(5))


def counted(training: list[int], ids: list[int], symbols: int, n: int) -> float:
    """The baseline as its equation says it, symbol by symbol."""
    follow = defaultdict(Counter)
    for order in range(1, n + 1):
        for i in range(len(training) - order + 1):
            *history, c = training[i : i + order]
            follow[tuple(history)][c] += 1
    bits = 0.0
    for i in range(1, len(ids)):
        p = 1 / symbols
        for order in range(1, n + 1):
            if i - order + 1 < 0:
                break
            after = follow.get(tuple(ids[i - order + 1 : i]))
            if after:
                p = (after[ids[i]] + len(after) * p) / (after.total() + len(after))
        bits -= math.log2(p)
    return bits / (len(ids) - 1)


def test_n_grams_are_witten_and_bells():
    rng = np.random.default_rng(0)
    training, ids = rng.integers(0, 4, 300), rng.integers(0, 5, 60)
    found = n_grams(training, ids, 5, 4)
    assert found == pytest.approx([counted(training.tolist(), ids.tolist(), 5, n) for n in (1, 2, 3, 4)], rel=1e-12)


def test_the_seed_is_read_and_the_state_carried_from_symbol_to_symbol():
    net = writer("abcab")
    vocabulary = Vocabulary.build(["abcab"])
    written = pl.generate(net, "abc", length=12, temperature=0)
    ids = vocabulary.encode("abc")
    for _ in range(12):  # the whole text anew for every symbol
        A, _ = net.forward(ids[:, None].astype(float))
        logits = A[-1, :, 0].copy()
        logits[:3] = -np.inf
        ids = np.append(ids, logits.argmax())
    assert written == vocabulary.decode(ids[3:])


def test_a_temperature_sharpens_and_flattens_what_is_drawn():
    logits = np.array([9.0, 9.0, 9.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        rng = np.random.default_rng(0)
        drawn = np.bincount([texts._drawn(logits, temperature, rng) for _ in range(4000)], minlength=6) / 4000
        p = np.exp(logits[3:] / temperature) / np.exp(logits[3:] / temperature).sum()
        assert drawn[:3].sum() == 0  # <start>, <end> and <unknown> are no text
        assert drawn[3:] == pytest.approx(p, abs=0.03)
    assert texts._drawn(logits, 0, np.random.default_rng(0)) == 3


def test_the_same_seed_writes_the_same_text():
    net = writer("abcdefgh")
    assert pl.generate(net, "a", length=40, seed=3) == pl.generate(net, "a", length=40, seed=3)
    assert pl.generate(net, "a", length=40, seed=3) != pl.generate(net, "a", length=40, seed=4)
    assert len(pl.generate(net, length=17)) == 17


def test_what_cannot_be_gone_on_from_is_refused():
    net = writer("abcab")
    with pytest.raises(DataError, match=r"characters that the network has never seen(?s:.*)'é' 'Z'"):
        pl.generate(net, "aéaZ")
    with pytest.raises(DataError, match="nothing to go on from"):
        pl.generate(net, "")
    for wrong, said in (
        ({"temperature": -1}, "no temperature"),
        ({"temperature": "hot"}, "no temperature"),
        ({"length": 2.5}, "length is a whole number from 1"),
        ({"length": 0}, "length is a whole number from 1"),
        ({"seed": -1}, "seed is a whole number from 0"),
    ):
        with pytest.raises(ParameterError, match=said):
            pl.generate(net, "a", **wrong)
    assert pl.generate(net, "a", length=9, temperature=1e-320) == pl.generate(net, "a", length=9, temperature=0)
    other = pl.Sequential(pl.Dense(2), input_shape=2)
    with pytest.raises(ParameterError, match="this network does not write"):
        pl.generate(other)
    both = writer("abcab", "lstm", bidirectional=True, every_step=True, symbols=6)
    with pytest.raises(ParameterError, match="a network that sees it"):
        pl.generate(both, "a")


def task(path, text, **own) -> Text:
    path.write_text(text, "utf-8")
    described = {"standardize": True, "categories_as": "one-hot", "source": str(path)}
    return Text(
        {
            "data": described,
            "split": {"validation": 0.1, "test": 0.2, "seed": 0},
            "task": {"kind": "text", "length": 8, **own},
        }
    )


def test_the_parts_of_a_text_follow_one_another_and_the_vocabulary_is_of_the_first(tmp_path):
    made = task(tmp_path / "a.txt", "abcdefghij" * 63 + "xyz" * 90)
    train, test = made.rows("train"), made.rows("test")
    assert train.part == (0, 630)
    assert test.part[1] == 900
    assert "x" not in made.vocabulary
    assert (test.take(np.arange(len(test)))[1] == made.vocabulary.unknown).all()
    assert "are not among them" in made.report[1]


def test_what_lies_further_back_than_counting_looks_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "ORDERS", 3)
    letters = np.random.default_rng(0).choice(list("abcd"), 1200)
    made = task(tmp_path / "a.txt", "".join(f"{letter}...{letter}" for letter in letters), length=20)
    net, training = made.settled(
        "char-rnn", {"hidden": [24], "epochs": 12, "batch_size": 8, "optimizer": "adam(2e-2, clip_norm=1.0)"}
    )
    history = made.fit(net, training, progress=False)
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    found = made.measure(net, made.rows("test"), [])
    assert found.values["bits_per_symbol"] == pytest.approx(2 / 5, abs=0.05)  # a new letter in five symbols, 2 bits
    assert min(found.document["baselines"].values()) > 4 / 5  # counting has to guess the second one too
    assert "less than the best of them" in found.note
    assert all(not leaf["h"].any() for leaf in net.state.values())  # what is saved starts from nothing


def test_a_network_file_answers_at_every_step(tmp_path):
    made, file = task(tmp_path / "a.txt", "abab" * 300), tmp_path / "net.toml"
    layers = '{type = "Embedding", levels = 5, units = 2}, {type = "GRU", units = 3, return_sequences = true}'
    file.write_text(f'layers = [{layers}, {{type = "TimeDistributed", layer = {{type = "Dense"}}}}]')
    assert made.settled(str(file), {})[0].outputs == {"output": (None, len(made.vocabulary))}
    file.write_text('layers = [{type = "Embedding", levels = 5, units = 2}, {type = "GRU", units = 3}, "Dense"]')
    with pytest.raises(ShapeError, match=r"output does not fit(.|\n)*\(T, 5\)(.|\n)*\(5,\)(.|\n)*return_sequences"):
        made.settled(str(file), {})


def test_a_network_that_was_not_trained_is_said_to_lose(tmp_path):
    made = task(tmp_path / "a.txt", "abab" * 300)
    net, _ = made.settled("char-rnn", {"hidden": [4]})
    assert "the network loses" in made.measure(net, made.rows("test"), []).note


def test_a_text_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such text"):
        texts.read_text("nowhere")
    with pytest.raises(DataError, match="this set is no running text"):
        texts.read_text("iris")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match="--encoding says which"):
        texts.read_text(str(tmp_path / "latin.txt"))
    assert texts.read_text(str(tmp_path / "latin.txt"), "latin-1")[1] == "é"
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="there is no text"):
        texts.read_text(str(tmp_path / "none"))
    with pytest.raises(ParameterError, match="of a text a share is held out"):
        Text({"data": {"source": __file__}, "split": {"validation": 5, "test": 0.1, "seed": 0}})
    with pytest.raises(ParameterError, match=r"--drop(?s:.*)--encoding"):
        Text({"data": {"source": "x", "drop": ["a"]}, "split": {}})
    with pytest.raises(ParameterError, match="unknown option of text 'horizon'"):
        Text({"data": {"source": "x"}, "split": {}, "task": {"kind": "text", "horizon": 3}})
