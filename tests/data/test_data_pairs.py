"""Pairs of texts: read from files as people wrote them, and kept together where they must be."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import data
from pellucid.data import Pairs
from pellucid.errors import DataError
from pellucid.training.split import split_indices

DICTIONARY = """\
'bout B AW1 T
a AH0
a(2) EY1
a.m. EY2 EH1 M
record R AH0 K AO1 R D
record(2) R EH1 K ER0 D # noun
record(3) R IH0 K AO1 R D
the DH AH0
the(2) DH AH1
"""


@pytest.fixture
def dictionary(tmp_path):
    path = tmp_path / "d.dict"
    path.write_text(DICTIONARY, encoding="utf-8")
    return path


def test_pronunciations_without_stress(dictionary):
    pairs = data.pronunciations(dictionary)
    assert list(zip(pairs.inputs, pairs.outputs, strict=True)) == [
        ("a", "AH"),
        ("a", "EY"),
        ("record", "R AH K AO R D"),
        ("record", "R EH K ER D"),
        ("record", "R IH K AO R D"),
        ("the", "DH AH"),
    ]
    assert pairs.answers()["a"] == ["AH", "EY"]
    said = " ".join(pairs.report)
    assert "2 entries are left out: other characters" in said
    assert "1 entries are left out: but for the stress" in said


def test_pronunciations_with_stress(dictionary):
    pairs = data.pronunciations(dictionary, stress=True)
    assert pairs.answers()["the"] == ["DH AH0", "DH AH1"]
    read, write = pairs.vocabularies()
    x, y = pairs.encode((read, write))
    assert read.decode(x[3]) == "record"
    assert write.symbols_of(y[3]) == ["R", "EH1", "K", "ER0", "D"]
    assert (y[3][0], y[3][-1]) == (write.start, write.end)


def test_a_word_without_a_phoneme_is_refused(tmp_path):
    path = tmp_path / "d.dict"
    path.write_text("a AH0\nb\n")
    with pytest.raises(DataError, match=r"line 2: a word without a phoneme"):
        data.pronunciations(path)


def test_pairs_that_read_the_same_stay_together():
    inputs = [word for i in range(40) for word in (f"word{i}", f"WORD{i}", f"word{i}")]
    pairs = Pairs("p", inputs, [str(i) for i in range(120)])
    parts = split_indices(len(pairs), groups=pairs.groups, validation=0.2, test=0.2, seed=3)
    words = [{pairs.inputs[row].lower() for row in part} for part in parts]
    assert [len(part) for part in words] == [24, 8, 8]
    assert not words[0] & words[1]
    assert not words[0] & words[2]
    assert not words[1] & words[2]


def test_short_pairs_only():
    pairs = Pairs("p", ["a", "abc", "ab"], ["x y z", "x", "x y"], ("character", "word"))
    assert pairs.within(2).inputs == ["ab"]
    assert pairs.within(3, 2).inputs == ["abc", "ab"]
    assert pairs.take([2, 0]).outputs == ["x y", "x y z"]
    with pytest.raises(DataError, match="not a single pair"):
        pairs.within(0)


def test_pairs_of_different_number_are_refused():
    with pytest.raises(DataError, match=r"p: inputs and outputs differ in number(.|\n)*2 outputs(.|\n)*1"):
        Pairs("p", ["a", "b"], ["c"])


def test_the_real_dictionary(have):
    have("cmudict")
    pairs = data.pronunciations()
    assert len(pairs) == 125_571
    assert len(np.unique(pairs.groups)) == 117_493
    assert pairs.answers()["read"] == ["R EH D", "R IY D"]
    assert len(pairs.vocabularies()[1]) == 39 + 3
    assert any(sentence.startswith("9,311 entries") for sentence in pairs.report)
