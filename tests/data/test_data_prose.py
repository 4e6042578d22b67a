"""Running text and texts that say what they are, to the last symbol."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pellucid import data
from pellucid.data import Dataset, Preprocessor
from pellucid.data.prepared import Prepared
from pellucid.data.texts import languages, read_sayings, topics
from pellucid.errors import DataError, ParameterError
from pellucid.sequences import Sequences


@pytest.fixture
def sayings(tmp_path):
    folder = tmp_path / "fortunes"
    folder.mkdir()
    (folder / "art").write_text("An eye.\n%\nshared\n%\n\n%\n" + "long " * 100 + "\n%\n", encoding="utf-8")
    (folder / "law").write_text("Order!\n\t-- a judge\n%\nshared\n", encoding="utf-8")
    (folder / "law.dat").write_bytes(b"\xff\xfe")
    return folder


def test_sayings_in_an_order_of_their_own(sayings):
    text = data.prose("fortunes", sayings, seed=1)
    assert sorted(text.split("\n\n")) == sorted(["An eye.", "shared", "long " * 100, "Order!\n\t-- a judge"])
    assert text == data.prose("fortunes", sayings, seed=1)
    assert len({data.prose("fortunes", sayings, seed=seed) for seed in range(8)}) > 1


def test_the_sources_of_python_are_always_there(tmp_path):
    text = data.prose("python")
    assert len(text) > 1_000_000
    assert "class TextWrapper" in text
    with pytest.raises(DataError, match="no text in this folder"):
        data.prose("python", tmp_path)
    with pytest.raises(ParameterError, match="unknown prose 'fortune'"):
        data.prose("fortune")


def test_windows_of_a_text_know_the_vocabulary_of_training_only():
    text = "abcab" * 20 + "xyz" * 10
    vocabulary, parts = data.text_windows(text, 5, validation=0.1, test=0.2)
    assert sorted(vocabulary.symbols[3:]) == ["a", "b", "c"]  # of the first 91 of 130 symbols
    x, y = parts.train.take(np.arange(len(parts.train)))
    assert "".join(vocabulary.decode(row) for row in x) == text[: 5 * len(parts.train)]
    assert "".join(vocabulary.decode(row) for row in y) == text[1 : 5 * len(parts.train) + 1]
    assert (parts.test.take([0])[1] == vocabulary.unknown).any()
    words, _ = data.text_windows("one two, " * 50, 4, unit="word")
    assert set(words.symbols[3:]) == {",", "one", "two"}


def test_texts_of_two_topics_tell_nothing(sayings):
    texts, labels, report = topics(sorted(sayings.iterdir()))
    assert list(zip(texts, labels, strict=True)) == [("An eye.", "art"), ("Order!\n\t-- a judge", "law")]
    assert report == [
        "3 of 4 sayings belong to one class: the others are left out",
        "2 of these have at most 300 characters: the others are left out",
    ]
    assert read_sayings(sorted(sayings.iterdir()))["law"] == ["Order!\n\t-- a judge", "shared"]


def test_names_in_one_language_only(tmp_path):
    (tmp_path / "a.txt").write_text("A bus.\nde.utf8=Ein Bus.\nda.utf8=En bus.\nsv.utf8=En bus.\nel.utf8=x\n")
    texts, labels, report = languages([tmp_path / "a.txt"])
    assert dict(zip(texts, labels, strict=True)) == {"A bus.": "English", "Ein Bus.": "German"}
    assert report == ["2 of 3 texts belong to one class: the others are left out"]


def test_texts_become_ids_of_what_training_knows():
    texts = ["a cat sat", "a dog sat", "the bird"]
    ds = Dataset(texts, ["x", "y", "x"], name="t")
    pre = Preprocessor.fit(ds, rows=[0, 1])
    assert (ds.kind, ds.example_shape, ds.numbers, pre.input_shape) == ("text", (None,), 9, (None,))
    assert pre.vocabulary.symbols[3:] == ["a", "sat"]  # the others are there once
    assert pre.embedding_sizes == {"text": 5}
    X = pre.x(ds.take([2, 0])[0])
    assert isinstance(X, Sequences)
    assert X.dtype == np.float32
    assert [each.tolist() for each in X] == [[2, 2], [3, 2, 4]]
    again = Preprocessor.from_document(json.loads(json.dumps(pre.document())))
    assert again.x(["a sat"])[0].tolist() == [3, 4]
    characters = Preprocessor.fit(ds, unit="character", least=1)
    assert characters.vocabulary.decode(characters.x(["the cat"])[0]) == "the cat"
    x, y = Prepared(ds, pre, np.array([1])).arrays()
    assert ([each.tolist() for each in x], y.tolist()) == ([[3, 2, 4]], [1])
    assert ds.fingerprint != Dataset(["a cat sat", "a dog sat", "the birds"], ["x", "y", "x"]).fingerprint


def test_a_preprocessor_from_before_there_were_texts():
    ds = Dataset(np.arange(12.0).reshape(6, 2), [0, 1] * 3)
    document = Preprocessor.fit(ds).document()
    del document["symbols"], document["unit"]
    assert Preprocessor.from_document(document).x(np.ones((1, 2))).shape == (1, 2)


def test_texts_that_cannot_be_used():
    with pytest.raises(DataError, match="not numbers"):
        Dataset(np.array([["a"], ["b"]]), [0, 1])
    with pytest.raises(DataError, match="sequence 1: a sequence of length 0"):
        Preprocessor.fit(Dataset(["a", "a"], [0, 1])).x(["a", "  "])
    for wrong in ("a text", np.zeros((2, 3)), [1.0]):
        with pytest.raises(DataError, match=r"trained on texts(.|\n)*a list of texts(.|\n)*\[text\]"):
            Preprocessor.fit(Dataset(["a", "a"], [0, 1])).x(wrong)


@pytest.mark.parametrize(("name", "count"), [("stamps", 10_637), ("fortunes", 4_611)])
def test_the_real_texts(have, name, count):
    have(name)
    ds = data.load(name)
    assert (len(ds), ds.kind) == (count, "text")
    assert ds.classes == list(data.card(name).classes)
    assert np.bincount(ds.y).min() > 100


def test_the_real_prose(have):
    have("fortunes")
    text = data.prose()
    vocabulary, parts = data.text_windows(text, 100)
    assert len(text) == 2_453_305
    assert len(vocabulary) == 111
    x, y = parts.validation.take([5])
    assert np.array_equal(x[0, 1:], y[0, :-1])


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [f"{i},{'good' if i % 2 else 'bad'} food {i},{'up' if i % 2 else 'down'}" for i in range(30)]
    path.write_text("id,review,label\n" + "\n".join(rows))
    return path


def test_texts_in_a_column_of_a_table(reviews, tmp_path):
    with pytest.raises(DataError, match=r"'review' holds a different text in every row(.|\n)*text='review' learns"):
        data.load(reviews)
    ds = data.load(reviews, text="review")
    assert (ds.kind, len(ds), ds.classes, ds.target_names) == ("text", 30, ["down", "up"], ["label"])
    x, y = ds.take([3, 4])
    assert (x.tolist(), y.tolist()) == (["good food 3", "bad food 4"], ["up", "down"])
    assert "the target is column 'label'" in " ".join(ds.report)
    pre = Preprocessor.fit(ds)
    assert pre.vocabulary.symbols[3:] == ["food", "bad", "good"]
    again = data.load(reviews, like=pre)
    assert np.array_equal(pre.x(again.take([5])[0])[0], pre.x(["good food 5"])[0])
    assert pre.y(again.take(slice(None))[1]).tolist() == ds.y.tolist()
    (tmp_path / "new.csv").write_text("review\ngood new\nbad\n")
    new = data.load(tmp_path / "new.csv", like=pre)
    assert (new.take([0, 1])[0].tolist(), new.y) == (["good new", "bad"], None)
    (tmp_path / "new.txt").write_text("good, they say\n\nbad\n")
    lines = data.load(tmp_path / "new.txt", like=pre)
    assert lines.take(slice(None))[0].tolist() == ["good, they say", "bad"]
    with pytest.raises(ParameterError, match=r"unknown column 'reviw'(.|\n)*'review'"):
        data.load(reviews, text="reviw")
    with pytest.raises(ParameterError, match=r"unknown column 'lable'(.|\n)*'label'"):
        data.load(reviews, text="review", target="lable")
    assert data.load(reviews, text="review", target="id").task == "regression"
