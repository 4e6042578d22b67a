"""The encoder–decoder as a whole: right in its gradients, indifferent to padding, and able to translate."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from pellucid import zoo
from pellucid.data.pairs import Pairs
from pellucid.errors import DataError, ParameterError
from pellucid.network.decoding import greedy
from pellucid.tasks import translation
from pellucid.tasks.translation import Rows, Translation, edit_distance, errors
from pellucid.zoo.seq2seq import seq2seq

FORMS = [
    {"encoder": "forward"},
    {"encoder": "reverse", "cell": "gru"},
    {"attention": "scaled_dot", "encoder": "bidirectional"},
    {"attention": "general", "encoder": "bidirectional", "cell": "gru", "hidden": (4, 6)},
    {"attention": "dot", "encoder": "reverse", "cell": "rnn", "hidden": (4, 4)},
]
forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form.values())))


def network(form, **options):
    options = {"hidden": (4,), "embedding": 3, "dtype": "float64", "loss": "softmax_cross_entropy", **form, **options}
    return seq2seq((None,), 5, source_symbols=4, **options)


def batch(rng, m=4, T_s=5, T_t=4):
    X = {"source": rng.integers(4, size=(T_s, m)), "target": rng.integers(5, size=(T_t, m))}
    masks = {
        name: np.arange(len(ids))[:, None] < np.append(rng.integers(1, len(ids), m - 1), len(ids))
        for name, ids in X.items()
    }
    return X, masks, rng.integers(5, size=(T_t, m))


# --- the network ----------------------------------------------------------------------------------------------------


@forms
def test_gradients(form, rng):
    X, masks, Y = batch(rng)
    net = network(form, dropout=0.0)
    report = pl.check_gradients(net, X, Y, mask=masks, entries=1)
    report.assert_passed()


@forms
def test_padding_changes_nothing(form, rng):
    net = network(form)
    X, masks, Y = batch(rng)
    whole = net.checked_iteration(X, Y, mask=masks, train=False)
    for i in range(4):
        T = {name: int(mask[:, i].sum()) for name, mask in masks.items()}
        alone = {name: ids[: T[name], i : i + 1] for name, ids in X.items()}
        one = net.checked_iteration(alone, Y[: T["target"], i : i + 1], train=False)
        np.testing.assert_allclose(whole.losses[i], one.losses[0], rtol=1e-10)
        logits = whole.outputs["next"][: T["target"], :, i : i + 1]
        np.testing.assert_allclose(logits, one.outputs["next"], rtol=1e-9, atol=1e-12)


def test_the_reversed_encoder_reads_the_reversed_source(rng):
    ahead, back = network({"encoder": "forward"}), network({"encoder": "reverse"})
    back.parameters = ahead.parameters
    X, _, _ = batch(rng)
    A, _ = ahead.forward(X)
    B, _ = back.forward({**X, "source": X["source"][::-1].copy()})
    np.testing.assert_allclose(A["next"], B["next"], rtol=1e-12)


@forms
def test_no_output_knows_what_comes_after(form, rng):
    net = network(form)
    X, _, _ = batch(rng)
    changed = {**X, "target": X["target"].copy()}
    changed["target"][2:] = (changed["target"][2:] + 1) % 5
    (A, _), (B, _) = net.forward(X), net.forward(changed)
    np.testing.assert_array_equal(A["next"][:2], B["next"][:2])
    assert (A["next"][2:] != B["next"][2:]).any()


def test_the_target_is_written_from_the_source(rng):
    """Without attention the decoder knows the source by the encoder's last state alone, and it does."""
    X, _, _ = batch(rng)
    for form in FORMS[:3]:
        net = network(form)
        other = {**X, "source": (X["source"] + 1) % 4}
        assert (net.forward(X)[0]["next"][0] != net.forward(other)[0]["next"][0]).any(axis=0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "lstmm"}, "no such cell"),
        ({"encoder": "sideways"}, "forward, reverse, bidirectional"),
        ({"hidden": (5,)}, "half of the units go each way"),
        ({"hidden": ()}, "at least one layer"),
        ({"attention": "additive"}, "no such score"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ParameterError, match=message):
        seq2seq((None,), 5, **options)


def test_the_zoo_has_it_with_and_without_attention():
    without, attending = zoo.find("seq2seq"), zoo.find("seq2seq-attention")
    assert "attention" not in [step.name for step in without.example().steps]
    assert "attention" in [step.name for step in attending.example().steps]
    assert "input feeding" in " ".join(attending.deviations)


def test_its_summary_is_of_one_step_each():
    summary = network({"attention": "scaled_dot", "encoder": "bidirectional"}).summary()
    rows = {row.name: row for row in summary.rows}
    assert rows["encoder_1"].multiply_adds == 2 * 4 * 2 * (3 + 2)  # both ways, gates, units, (n_x + n)
    assert rows["decoder_1"].multiply_adds == 4 * 4 * (3 + 4)
    assert rows["attention"].multiply_adds == 4 + 4
    assert rows["decoder_1"].output_shape == (None, 4)
    assert "of one step" in str(summary)


# --- learning -------------------------------------------------------------------------------------------------------


def words(m, seed, letters="abcde"):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(letters), rng.integers(2, 6))) for _ in range(m)]


def backwards(m, seed):
    """Words, and the same words backwards in capitals."""
    texts = words(m, seed)
    return Pairs("backwards", texts, [text[::-1].upper() for text in texts])


def test_it_learns_to_write_words_backwards():
    """Held-out words too: what attention is for, a rule about places and not a list of answers."""
    pairs = backwards(600, 0)
    rows = Rows(pairs, pairs.vocabularies())
    read, write = rows.vocabularies
    net = seq2seq(
        (None,),
        len(write),
        source_symbols=len(read),
        hidden=(32,),
        embedding=16,
        dropout=0.0,
        attention="scaled_dot",
        loss="softmax_cross_entropy",
    )
    x, y = rows.take(np.arange(len(rows)))
    net.fit(x, y, optimizer="adam(1e-2, clip_norm=5.0)", batch_size=32, epochs=14, metrics=(), progress=False)
    known = set(pairs.inputs)
    new = [text for text in words(300, 1) if text not in known]
    assert len(new) > 50
    written = greedy(net, read.encode_all(new), start=write.start, end=write.end)
    right = [write.decode(each.ids) == text[::-1].upper() for each, text in zip(written, new, strict=True)]
    assert np.mean(right) > 0.8


# --- the task -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    pairs = backwards(120, 2)
    path = tmp_path_factory.mktemp("data") / "backwards.tsv"
    path.write_text("".join(f"{x}\t{y}\n" for x, y in zip(pairs.inputs, pairs.outputs, strict=True)), "utf-8")
    return path


def described(source, **more):
    split = {"validation": 0.1, "test": 0.2, "seed": 0}
    return {"data": {"source": str(source)}, "split": split, "task": {"kind": "translation"}, **more}


@pytest.fixture(scope="module")
def trained(file):
    task = Translation(described(file))
    net, training = task.settled("seq2seq-attention", {"hidden": [16], "epochs": 2, "seed": 0})
    task.fit(net, training, progress=False)
    return task, net


def test_no_input_is_in_two_parts(file):
    task = Translation(described(file))
    parts = [{task.pairs.inputs[i].casefold() for i in part} for part in task.split]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len({x.casefold() for x in task.pairs.inputs})
    assert sum(task.sizes.values()) == 120


def test_what_it_is_measured_by(trained):
    task, net = trained
    rows = task.rows("test")
    finding = task.measure(net, rows, [])
    x, y = rows.take(np.arange(len(rows)))
    loss = net.evaluate(x, y, metrics=())["loss"]
    assert finding.values["loss"] == pytest.approx(loss)
    assert finding.values["perplexity"] == pytest.approx(math.exp(loss / y.lengths.mean()))
    write = task.vocabularies[1]
    sources = list(rows.pairs.answers())
    found = greedy(
        net,
        task.vocabularies[0].encode_all(sources),
        start=write.start,
        end=write.end,
        never=[write.unknown],
        longest=task.longest[1] + 1,
    )
    right = sum(write.decode(each.ids) in rows.pairs.answers()[x] for each, x in zip(found, sources, strict=True))
    assert finding.values["greedy_text_error"] == pytest.approx(1 - right / len(sources))
    assert [each["input"] for each in finding.document["first"]] == sources[: translation.SHOWN]
    with pytest.raises(ParameterError, match="accuracy"):
        task.measure(net, rows, ["accuracy"])


def test_targets_are_shifted_by_one(file):
    rows = Translation(described(file)).rows("train")
    x, y = rows.take(np.array([3, 0]))
    write = rows.vocabularies[1]
    for i, row in enumerate((3, 0)):
        text = rows.pairs.outputs[row]
        np.testing.assert_array_equal(x["source"][i], rows.vocabularies[0].encode(rows.pairs.inputs[row]))
        np.testing.assert_array_equal(x["target"][i], write.encode(text, start=True))
        np.testing.assert_array_equal(y[i], write.encode(text, end=True))


def test_a_saved_network_translates(trained, tmp_path):
    _, net = trained
    net.save(tmp_path / "net.pellucid")
    again = pl.load(tmp_path / "net.pellucid")
    one = Translation.predict(net, "abc", probabilities=True)
    assert Translation.predict(again, "abc", probabilities=True) == one
    assert one.columns["input"] == ["abc"]
    assert 0 < one.columns["probability"][0] < 1
    several = tmp_path / "words.txt"
    several.write_text("abc\nDEC\n", "utf-8")
    two = Translation.predict(net, str(several))
    assert two.columns["input"] == ["abc", "DEC"]
    assert two.columns["output"] == one.columns["output"] + Translation.predict(net, "dec").columns["output"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty text"),
        ("  ", "an empty text|never shown ' '"),
        ("abz", "never shown 'z'[\\s\\S]*expected: a b c d e"),
        ("abcde" * 3, "longer than any[\\s\\S]*at most 5 characters[\\s\\S]*15"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(trained, text, message):
    with pytest.raises(DataError, match=message):
        Translation.predict(trained[1], text)


def test_a_blank_among_the_known_letters_is_seen(trained, monkeypatch):
    net = trained[1]
    with_blank = json.loads(json.dumps(net.preprocessing).replace('"e"', '" "'))
    monkeypatch.setattr(net, "preprocessing", with_blank)
    with pytest.raises(DataError, match=r"never shown 'z'[\s\S]*expected: ' ' a b c d\n"):
        Translation.predict(net, "a z")


def test_the_line_of_a_file_is_named(trained, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("abc\na?c\n", "utf-8")
    with pytest.raises(DataError, match=r"words.txt, line 2: the network was never shown '\?'"):
        Translation.predict(trained[1], str(path))
    path.write_text("", "utf-8")
    with pytest.raises(DataError, match="not a single text"):
        Translation.predict(trained[1], str(path))


def test_other_pairs_can_be_evaluated(trained, tmp_path):
    path = tmp_path / "more.tsv"
    path.write_text("abc\tCBA\nabc\tABC\n\nde\tED\n", "utf-8")
    finding, count = Translation.evaluate(trained[1], str(path), None)
    assert count == 3
    assert len(finding.document["first"]) == 2
    assert finding.document["first"][0]["reference"] == ["CBA", "ABC"]


def test_files_are_checked(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("a\tb\nonly one\n", "utf-8")
    with pytest.raises(DataError, match=r"line 2: no pair of texts[\s\S]*input, tab, output"):
        translation.pairs_of(str(path))
    with pytest.raises(ParameterError, match="cmudict"):
        translation.pairs_of("cmudic")


def test_long_pairs_are_left_out_and_counted():
    pairs = Pairs("pairs", ["abc", "ab", "a"], ["x", "xyz", "y"], report=["read"])
    short = translation._short(pairs, 2, 2)
    assert list(short.inputs) == ["a"]
    assert short.report == ["read", "2 pairs are left out: over 2 characters to read or 2 characters to write"]


def test_the_same_pair_of_two_sources_is_there_once(monkeypatch):
    of = {"stamps": (["a cat", "red"], ["고양이", "빨강"]), "office": (["red", "red"], ["빨강", "적색"])}
    monkeypatch.setattr(
        translation, "english_korean", lambda source, units: Pairs(source, *of[source], units, [source])
    )
    pairs = translation.READERS["english-korean"]()
    assert list(zip(pairs.inputs, pairs.outputs, strict=True)) == [
        ("a cat", "고양이"),
        ("red", "빨강"),
        ("red", "적색"),
    ]
    assert pairs.answers()["red"] == ["빨강", "적색"]
    assert pairs.report[:2] == ["stamps", "office"]


def test_a_loss_must_fit(file):
    with pytest.raises(ParameterError, match="softmax_cross_entropy"):
        Translation(described(file)).loss("mean_squared_error")


def test_which_data_it_is_for():
    assert Translation.takes("cmudict")
    assert not Translation.takes("stamps")  # whose languages are told apart, unless --task translation
    assert not Translation.takes("digits")


# --- errors ---------------------------------------------------------------------------------------------------------

texts = st.lists(st.integers(0, 2), max_size=6)


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)]
)
def test_edit_distances(a, b, distance):
    assert edit_distance(a, b) == distance


@given(texts, texts, texts)
def test_an_edit_distance_is_a_distance(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_the_nearest_reference_counts():
    written = [["a", "b"], ["c"], []]
    references = [[["x", "y", "z"], ["a", "b", "c", "d"]], [["c"], ["d"]], [["e", "f"]]]
    symbol_error, text_error = errors(written, references)
    assert symbol_error == (2 + 0 + 2) / (4 + 1 + 2)
    assert text_error == 2 / 3
