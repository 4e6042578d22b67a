"""Decoding: step by step as all at once, greedy as a beam of one, and the beam against every sequence there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import pellucid as pl
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.network.decoding import Decoder, beam_search, greedy, sample
from pellucid.trees import tree_map
from pellucid.zoo.seq2seq import seq2seq

LEVELS = 5
START, END = 0, 1
FORMS = [
    {"attention": None, "encoder": "forward"},
    {"attention": None, "encoder": "reverse", "cell": "gru"},
    {"attention": "scaled_dot", "encoder": "bidirectional"},
    {"attention": "general", "encoder": "bidirectional", "cell": "gru", "hidden": (6, 4)},
    {"attention": "dot", "encoder": "reverse", "cell": "rnn", "hidden": (4, 4)},
]
forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form.values())))
WITHOUT_END = {"start": START, "end": END, "longest": 6}


def network(form, seed=3, **options):
    options = {"hidden": (6,), "embedding": 3, "dtype": "float64", "loss": "softmax_cross_entropy", **form, **options}
    net = seq2seq((None,), LEVELS, source_symbols=4, seed=seed, **options)
    rng = np.random.default_rng(seed)  # larger weights than at the start: else every sequence is as good as any other
    net.parameters = tree_map(lambda W: 3 * W + 0.5 * rng.normal(size=W.shape), net.parameters)
    return net


def sources(rng, m=7):
    return pl.Sequences([rng.integers(4, size=rng.integers(1, 6)) for _ in range(m)])


def likelihood(net, source, ids):
    """log P(ids | source), the network reading all of the target at once."""
    target = np.array([START, *ids[:-1]])
    return -net.cost({"source": source[:, None], "target": target[:, None]}, np.asarray(ids)[:, None])


@forms
def test_step_by_step_is_what_teacher_forcing_says(form, rng):
    net, x = network(form), sources(rng)
    target = rng.integers(LEVELS, size=(4, len(x)))
    decoder = Decoder(net)
    memory = decoder.encode(*x.batch(np.arange(len(x))))
    steps = []
    for ids in target:
        log_p, memory = decoder.step(ids, memory)
        np.testing.assert_allclose(np.exp(log_p).sum(axis=0), np.ones(len(x)), rtol=1e-12)
        steps.append(log_p)
    for i, source in enumerate(x):
        logits, _ = net.forward({"source": source[:, None].astype(float), "target": target[:, i : i + 1].astype(float)})
        Z = logits["next"][..., 0]
        expected = Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(np.stack(steps)[:, :, i], expected, rtol=1e-9, atol=1e-11)


def test_one_id_may_start_and_end(rng):
    net, x = network(FORMS[0]), sources(rng)
    options = {"start": START, "end": START, "longest": 40}
    for written in (sample(net, x, **options), [each for beam in beam_search(net, x, **options) for each in beam]):
        ended = [each for each in written if each.ended]
        assert ended
        assert all(each.ids[-1] == START and START not in each.ids[:-1] for each in ended)


@forms
def test_greedy_is_a_beam_of_one(form, rng):
    net, x = network(form), sources(rng)
    one = greedy(net, x, **WITHOUT_END)
    for written, beam in zip(one, beam_search(net, x, width=1, **WITHOUT_END), strict=True):
        assert len(beam) == 1
        np.testing.assert_array_equal(beam[0].ids, written.ids)
        assert beam[0].log_probability == pytest.approx(written.log_probability, rel=1e-12)
        assert beam[0].ended == written.ended
    assert len({tuple(written.ids) for written in one}) > 1  # they do differ from source to source


@forms
def test_log_probability_is_the_teacher_forced_one(form, rng):
    net, x = network(form), sources(rng)
    several = [greedy(net, x, **WITHOUT_END), sample(net, x, seed=5, **WITHOUT_END)]
    several += list(zip(*beam_search(net, x, width=2, **WITHOUT_END), strict=True))
    for found in several:
        for source, written in zip(x, found, strict=True):
            assert written.log_probability == pytest.approx(likelihood(net, source, written.ids), rel=1e-9)
            assert written.ended == (written.ids[-1] == END)
            assert len(written.ids) <= 6
            assert START not in written.ids
            assert END not in written.ids[:-1]


def every_sequence(net, source, longest):
    """Every sequence that can be written, with its log P."""
    letters = [i for i in range(LEVELS) if i not in (START, END)]
    found = {}
    for T in range(1, longest + 1):
        for before in itertools.product(letters, repeat=T - 1):
            for last in [END, *letters][: None if longest == T else 1]:
                found[*before, last] = likelihood(net, source, [*before, last])
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all(penalty, rng):
    net, x = network(FORMS[2]), sources(rng, 3)
    found = beam_search(net, x, start=START, end=END, longest=3, width=40, length_penalty=penalty)
    for source, beam in zip(x, found, strict=True):
        every = every_sequence(net, source, 3)
        order = sorted(every, key=lambda ids: -every[ids] / len(ids) ** penalty)
        assert [tuple(written.ids.tolist()) for written in beam] == order
        assert [written.log_probability for written in beam] == pytest.approx([every[ids] for ids in order], rel=1e-9)


def test_a_beam_does_better_than_greedy_where_greedy_errs():
    """Over many networks the beam's best is at least as probable in most cases, and more so in some."""
    better = worse = 0
    for seed in range(8):
        net, x = network(FORMS[2], seed=seed), sources(np.random.default_rng(seed))
        one = greedy(net, x, **WITHOUT_END)
        for written, beam in zip(one, beam_search(net, x, width=8, length_penalty=0.0, **WITHOUT_END), strict=True):
            better += beam[0].log_probability > written.log_probability + 1e-9
            worse += beam[0].log_probability < written.log_probability - 1e-9
    assert better > 5
    assert worse <= 1


@forms
def test_what_is_in_the_same_batch_does_not_matter(form, rng):
    net, x = network(form), sources(rng)
    whole = beam_search(net, x, width=3, **WITHOUT_END)
    in_twos = beam_search(net, x, width=3, batch_size=2, **WITHOUT_END)
    for i, (beam, other) in enumerate(zip(whole, in_twos, strict=True)):
        alone = beam_search(net, x[i : i + 1], width=3, **WITHOUT_END)[0]
        for one, two, three in zip(beam, other, alone, strict=True):
            np.testing.assert_array_equal(one.ids, two.ids)
            np.testing.assert_array_equal(one.ids, three.ids)


def test_draws_have_the_networks_probabilities(rng):
    net = network(FORMS[2])
    x = pl.Sequences([[2, 1, 3]] * 4000)
    first = np.array([written.ids[0] for written in sample(net, x, start=START, end=END, longest=1)])
    decoder = Decoder(net)
    P = np.exp(decoder.step(np.array([START]), decoder.encode(np.array([[2], [1], [3]])))[0][:, 0])
    P[START] = 0
    share = np.bincount(first, minlength=LEVELS) / len(first)
    np.testing.assert_allclose(share, P / P.sum(), atol=4 * np.sqrt(0.25 / 4000))
    again = sample(net, x[:50], seed=1, **WITHOUT_END)
    for written, same in zip(again, sample(net, x[:50], seed=1, **WITHOUT_END), strict=True):
        np.testing.assert_array_equal(written.ids, same.ids)
    cold = sample(net, x[:50], temperature=1e-6, **WITHOUT_END)
    for written in cold:
        np.testing.assert_array_equal(written.ids, greedy(net, x[:1], **WITHOUT_END)[0].ids)


def test_what_is_never_written_is_not(rng):
    net, x = network(FORMS[0]), sources(rng)
    never = greedy(net, x, **WITHOUT_END)[0].ids[0]
    beams = beam_search(net, x, never=[never], **WITHOUT_END)
    for written in itertools.chain(greedy(net, x, never=[never], **WITHOUT_END), *beams):
        assert never not in written.ids


def test_a_saved_network_writes_the_same(tmp_path, rng):
    net, x = network(FORMS[3]), sources(rng)
    net.save(tmp_path / "net.pellucid")
    for one, two in zip(
        greedy(net, x, **WITHOUT_END), greedy(pl.load(tmp_path / "net.pellucid"), x, **WITHOUT_END), strict=True
    ):
        np.testing.assert_array_equal(one.ids, two.ids)


def test_engines_agree(rng):
    x = sources(rng)
    numpy, best = (network(FORMS[2], engine=engine) for engine in ("numpy", "auto"))
    best.parameters = numpy.parameters
    for one, two in zip(greedy(numpy, x, **WITHOUT_END), greedy(best, x, **WITHOUT_END), strict=True):
        np.testing.assert_array_equal(one.ids, two.ids)
        assert one.log_probability == pytest.approx(two.log_probability, rel=1e-9)


def graph(decode, loss="softmax_cross_entropy"):
    """An encoder–decoder whose decoder is what ``decode`` makes of the target's vectors and the encoder's."""
    source, target = pl.Input((None,)), pl.Input((None,))
    outputs = decode(pl.Embedding(LEVELS, 3)(target), pl.Embedding(4, 3)(source))
    return pl.Graph(inputs={"source": source, "target": target}, outputs=outputs, loss=loss)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: pl.Sequential(pl.Dense(3), input_shape=2, loss="softmax_cross_entropy"), "no encoder–decoder"),
        (lambda: graph(lambda y, x: pl.Dense(2)(pl.LSTM(2)(pl.Add()(y, x))), "squared_error"), "no loss on classes"),
        (
            lambda: graph(
                lambda y, x: pl.Attention("general")(pl.Bidirectional(pl.GRU(2, return_sequences=True))(y), x)
            ),
            "bidirectional_1: reads later steps of the target",
        ),
        (lambda: graph(lambda y, x: pl.Attention()(x, y)), "attention_1: reads later steps of the target"),
        (
            lambda: graph(lambda y, x: pl.GRU(3, reverse=True, return_sequences=True)(y, pl.GRU(3)(x))),
            "reads later steps",
        ),
    ],
)
def test_other_networks_are_refused(net, message):
    with pytest.raises((ParameterError, ShapeError), match=message):
        Decoder(net())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1}, r"start is an id[\s\S]*0 … 4"),
        ({"end": 5}, "end is an id"),
        ({"never": [7]}, "never is an id"),
        ({"longest": 0}, "longest is a whole number from 1"),
        ({"width": 0}, "width is a whole number from 1"),
        ({"width": True}, "width is a whole number"),
        ({"batch_size": 1.5}, "batch_size is a whole number"),
        ({"length_penalty": -1}, "length_penalty is a number ≥ 0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ParameterError, match=message):
        beam_search(network(FORMS[0]), pl.Sequences([[1]]), **{"start": START, "end": END, **options})


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), "warm"])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ParameterError, match="temperature is a positive number"):
        sample(network(FORMS[0]), pl.Sequences([[1]]), start=START, end=END, temperature=temperature)


def test_sources_are_checked():
    net = network(FORMS[0])
    with pytest.raises(ShapeError, match=r"takes sequences of ids[\s\S]*list"):
        greedy(net, [[1, 2]], start=START, end=END)
    with pytest.raises(ShapeError, match="takes sequences of ids"):
        greedy(net, pl.Sequences([np.zeros((2, 3))]), start=START, end=END)
    with pytest.raises(DataError, match="an id that has no vector"):
        greedy(net, pl.Sequences([[1], [4]]), start=START, end=END)
