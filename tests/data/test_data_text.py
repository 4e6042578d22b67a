"""Text as numbers and back: nothing is lost that is known, and what is not known is said."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data import Vocabulary
from pellucid.data.text import UNITS
from pellucid.errors import DataError, ParameterError

texts = st.lists(st.text(max_size=30), min_size=1).filter(lambda texts: any(text.split() for text in texts))


@given(texts)
def test_characters_come_back_as_they_were(texts):
    vocabulary = Vocabulary.build(texts)
    for text in texts:
        ids = vocabulary.encode(text, start=True, end=True)
        assert vocabulary.decode(ids) == text
        assert (ids[0], ids[-1]) == (vocabulary.start, vocabulary.end)
        assert vocabulary.unknown not in ids


@given(texts)
def test_korean_letters_come_back_as_syllables(texts):
    vocabulary = Vocabulary.build(texts, unit="jamo")
    for text in texts:
        assert vocabulary.decode(vocabulary.encode(text)) == unicodedata.normalize("NFC", text)


@given(texts)
def test_a_sentence_made_of_words_has_the_same_words(texts):
    vocabulary = Vocabulary.build(texts, unit="word")
    for text in texts:
        ids = vocabulary.encode(text)
        assert np.array_equal(vocabulary.encode(vocabulary.decode(ids)), ids)


@pytest.mark.parametrize("unit", UNITS)
@given(texts=texts)
def test_a_vocabulary_is_kept_as_a_document(unit, texts):
    vocabulary = Vocabulary.build(texts, unit=unit)
    again = Vocabulary.from_document(json.loads(json.dumps(vocabulary.document())))
    assert again == vocabulary
    assert np.array_equal(again.encode(texts[0]), vocabulary.encode(texts[0]))


def test_words_and_marks_stand_apart_and_are_put_together():
    vocabulary = Vocabulary.build(["Don't panic, it's a cat."], unit="word")
    assert vocabulary.split("Don't panic, it's a cat.") == ["Don't", "panic", ",", "it's", "a", "cat", "."]
    assert vocabulary.decode(vocabulary.encode("Don't panic, it's a cat.")) == "Don't panic, it's a cat."


def test_korean_syllables_fall_into_letters():
    vocabulary = Vocabulary.build(["각하"], unit="jamo")
    assert [unicodedata.name(letter) for letter in vocabulary.split("각")] == [
        "HANGUL CHOSEONG KIYEOK",
        "HANGUL JUNGSEONG A",
        "HANGUL JONGSEONG KIYEOK",
    ]
    assert len(vocabulary) == 3 + 4


def test_ids_go_by_frequency_and_then_by_the_alphabet():
    vocabulary = Vocabulary.build(["cab", "b"])
    assert vocabulary.symbols == ["<start>", "<end>", "<unknown>", "b", "a", "c"]
    assert vocabulary.encode("abc").tolist() == [4, 3, 5]
    assert "a" in vocabulary
    assert "z" not in vocabulary


def test_what_training_text_does_not_have_is_unknown():
    vocabulary = Vocabulary.build(["aaab"], least=2)
    assert vocabulary.encode("ab").tolist() == [3, vocabulary.unknown]
    assert vocabulary.decode([3, 2]) == "a<unknown>"
    assert len(Vocabulary.build(["aabbc"], most=2)) == 3 + 2


def test_decoding_ends_at_the_end():
    vocabulary = Vocabulary.build(["ab"])
    assert vocabulary.decode([0, 3, 1, 4, 4]) == "a"
    assert vocabulary.encode_all(["a", "ba"], end=True)[1].tolist() == [4, 3, 1]


@pytest.mark.parametrize("ids", [[3, 5], [3, -1]])
def test_an_id_outside_the_vocabulary_is_refused_with_its_place(ids):
    with pytest.raises(DataError, match=rf"step 1: an id is outside the vocabulary(.|\n)*0 … 4(.|\n)*{ids[1]}"):
        Vocabulary.build(["ab"]).decode(ids)


def test_what_cannot_be_a_vocabulary():
    with pytest.raises(ParameterError, match=r"unknown unit 'charcter'(.|\n)*did you mean 'character'"):
        Vocabulary(["a"], unit="charcter")
    with pytest.raises(ParameterError, match=r"a symbol is there twice(.|\n)*'a'"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(ParameterError, match=r"a symbol is there twice(.|\n)*'<end>'"):
        Vocabulary(["<end>"])
    with pytest.raises(ParameterError, match=r"takes a list of texts(.|\n)*\[text\]"):
        Vocabulary.build("text")
    with pytest.raises(DataError, match="not a single symbol"):
        Vocabulary.build(["", ""])
    with pytest.raises(DataError, match="not a single symbol"):
        Vocabulary.build(["ab"], least=2)
    document = Vocabulary.build(["ab"]).document()
    for damaged in ({**document, "format": 99}, {"format": 1, "unit": "word"}):
        with pytest.raises(DataError, match=r"another version of pellucid(.|\n)*format 1"):
            Vocabulary.from_document(damaged)
    with pytest.raises(DataError, match="sequence 1: a sequence of length 0"):
        Vocabulary.build(["ab"]).encode_all(["a", ""])
