"""`Sequences`, how they cross into batches, and what is said of sequences that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.sequences import Sequences, examples_as_steps, steps_as_examples
from pellucid.training.batches import Source

ragged = st.lists(st.integers(1, 6), min_size=1, max_size=9)
seeds = st.integers(0, 2**32 - 1)


def walks(lengths, seed=0, width=(2,)):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(T, *width)) for T in lengths]


def labeller(*, every_step=True, input_shape=(None, 2), loss="softmax_cross_entropy", **options):
    head = pl.TimeDistributed(pl.Dense(3)) if every_step else pl.Dense(3)
    return pl.Sequential(
        pl.GRU(4, return_sequences=every_step),
        head,
        input_shape=input_shape,
        loss=loss,
        **{"dtype": "float64", **options},
    )


# --- the class ------------------------------------------------------------------------------------------------------


@given(lengths=ragged, seed=seeds)
def test_what_goes_in_comes_out(lengths, seed):
    x = walks(lengths, seed)
    s = Sequences(x)
    assert len(s) == len(x)
    assert s.lengths.tolist() == lengths
    for one, other in zip(s, x, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(s[-1], x[-1])
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(x), size=7)
    for one, row in zip(s.take(rows), rows, strict=True):
        np.testing.assert_array_equal(one, x[row])
    chosen = rng.random(len(x)) < 0.5
    assert [len(each) for each in s[chosen]] == [T for T, c in zip(lengths, chosen, strict=True) if c]
    assert [len(each) for each in s[::-1]] == lengths[::-1]


@given(lengths=ragged, seed=seeds)
def test_batches_are_padded_behind_and_masked(lengths, seed):
    x = walks(lengths, seed)
    rows = np.random.default_rng(seed).permutation(len(x))[:4]
    X, mask = Sequences(x).batch(rows)
    T = max(lengths[row] for row in rows)
    assert X.shape == (T, 2, len(rows))
    assert X.flags.c_contiguous
    assert (mask is None) == all(lengths[row] == T for row in rows)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(X[: lengths[row], :, i], x[row])
        assert not X[lengths[row] :, :, i].any()
        if mask is not None:
            np.testing.assert_array_equal(mask[:, i], np.arange(T) < lengths[row])


@given(lengths=ragged, seed=seeds)
def test_padded_arrays_and_their_lengths(lengths, seed):
    x = walks(lengths, seed)
    array = np.full((len(x), 8, 2), np.nan)
    for i, each in enumerate(x):
        array[i, : len(each)] = each
    for one, other in zip(Sequences.padded(array, lengths), x, strict=True):
        np.testing.assert_array_equal(one, other)


def test_lists_of_ids_and_what_it_looks_like():
    s = Sequences([[3, 1, 1], [2], [0, 5]])
    assert s.dtype == np.int64
    assert s.values.tolist() == [3, 1, 1, 2, 0, 5]
    assert repr(s) == "<3 sequences, 1 to 3 long>"
    assert repr(Sequences(walks([4, 2]))) == "<2 sequences of steps (2,), 2 to 4 long>"
    assert repr(Sequences([])) == "Sequences([])"
    assert [each.tolist() for each in s.replaced(10 * s.values)] == [[30, 10, 10], [20], [0, 50]]
    with pytest.raises(IndexError):
        s[3]


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Sequences([[1, 2], []]), DataError, r"sequence 1: a sequence of length 0(.|\n)*1 step or more"),
        (lambda: Sequences([np.zeros((0, 3))]), DataError, "sequence 0: a sequence of length 0"),
        (lambda: Sequences([[1], 5]), ShapeError, r"sequence 1: a sequence is an array of steps(.|\n)*a single value"),
        (lambda: Sequences([[[1, 2], [3]]]), DataError, "sequence 0: not a rectangular array"),
        (lambda: Sequences([["a", "b"]]), DataError, r"not numbers(.|\n)*Vocabulary"),
        (lambda: Sequences([[1.0], [object()]]), DataError, "sequence 1: not numbers"),
        (
            lambda: Sequences([np.ones((2, 3)), np.ones((2, 4))]),
            ShapeError,
            r"sequence 1: (.|\n)*\(T, 3\)(.|\n)*\(2, 4\)",
        ),
        (lambda: Sequences([[1, 2], [[1], [2]]]), ShapeError, r"sequence 1: (.|\n)*\(T,\)"),
        (lambda: Sequences.joined(np.arange(4), [2, 3]), ShapeError, r"do not add up(.|\n)*4 steps(.|\n)*5"),
        (lambda: Sequences.joined(np.arange(4), [4, 0]), DataError, "sequence 1: a sequence of length 0"),
        (lambda: Sequences.padded(np.ones((2, 3, 1)), [1, 4]), DataError, r"example 1(.|\n)*1 … 3(.|\n)*4"),
        (lambda: Sequences.padded(np.ones((2, 3, 1)), [0, 3]), DataError, r"example 0(.|\n)*1 … 3(.|\n)*0"),
        (lambda: Sequences.padded(np.ones((2, 3, 1)), [1.5, 3]), DataError, "no length of a sequence"),
        (lambda: Sequences.padded(np.ones((2, 3, 1)), [3]), ShapeError, r"one length for each example(.|\n)*\(2,\)"),
    ],
)
def test_what_no_sequences_are(make, error, said):
    with pytest.raises(error, match=said):
        make()


@given(T=st.integers(1, 5), n=st.integers(1, 3), m=st.integers(1, 4), seed=seeds)
def test_steps_as_examples_and_back(T, n, m, seed):
    rng = np.random.default_rng(seed)
    A, mask = rng.normal(size=(T, n, m)), rng.random((T, m)) < 0.5
    np.testing.assert_array_equal(examples_as_steps(np, steps_as_examples(np, A), T), A)
    folded = steps_as_examples(np, A, mask)
    assert folded.shape == (n, mask.sum())
    np.testing.assert_array_equal(examples_as_steps(np, folded, T, mask), A * mask[:, None])


# --- as data --------------------------------------------------------------------------------------------------------


def test_splits_weights_and_orders_take_sequences_along(rng):
    x, y = walks(rng.integers(1, 9, 40)), rng.integers(3, size=40)
    net = labeller(every_step=False)
    history = net.fit(Sequences(x), y, sample_weight=rng.random(40), validation=0.25, epochs=2, progress=False)
    assert len(history["validation_loss"]) == 2
    source = Source(net, Sequences(x), y)
    part = source.part(np.array([7, 3, 11]))
    batch = part.batch(np.array([2, 0]))
    np.testing.assert_array_equal(batch.inputs["input"][: len(x[11]), :, 0], x[11])
    np.testing.assert_array_equal(batch.targets["output"], y[[11, 7]])
    assert source.fingerprint() == Source(net, Sequences(x), y).fingerprint()
    x[39] = x[39] + 1
    assert source.fingerprint() != Source(net, Sequences(x), y).fingerprint()


class OnDemand:
    """Sequences that are fetched as they are needed."""

    def __init__(self, x, y):
        self.x, self.y = Sequences(x), Sequences(y)

    def __len__(self):
        return len(self.x)

    def take(self, indices):
        return self.x.take(indices), self.y.take(indices)


def test_rows_may_be_sequences(rng):
    lengths = rng.integers(1, 9, 20)
    x, y = walks(lengths), [rng.integers(3, size=T) for T in lengths]
    one, other = labeller(), labeller()
    history = one.fit(Sequences(x), Sequences(y), epochs=2, batch_size=6, progress=False)
    again = other.fit(OnDemand(x, y), epochs=2, batch_size=6, progress=False)
    assert again["loss"] == history["loss"]
    assert other.evaluate(OnDemand(x, y)) == one.evaluate(Sequences(x), Sequences(y))
    said = other.predict(OnDemand(x, y), batch_size=7)
    np.testing.assert_array_equal(said.values, one.predict(Sequences(x), batch_size=7).values)


def test_a_network_of_one_length_takes_sequences_of_that_length(rng):
    x = walks([4, 4, 4])
    net = labeller(input_shape=(4, 2), loss=None)
    np.testing.assert_array_equal(net.predict(Sequences(x)), net.predict(np.array(x)))


# --- what is refused, and in which words ----------------------------------------------------------------------------


X3 = walks([3, 1, 2])
Y3 = [[0, 1, 2], [1], [2, 0]]


@pytest.mark.parametrize(
    ("options", "x", "y", "error", "said"),
    [
        # mixed lengths without a mask
        ({}, X3, Y3, DataError, r"x: not a rectangular array(.|\n)*pl\.Sequences"),
        ({}, Sequences(X3), Y3, DataError, r"y: not a rectangular array(.|\n)*pl\.Sequences"),
        # lengths of 0
        ({}, np.zeros((2, 0, 2)), np.zeros((2, 0)), ShapeError, r"\(m, T, 2\)(.|\n)*\(2, 0, 2\)(.|\n)*length 0"),
        # targets of other lengths
        (
            {},
            Sequences(X3),
            Sequences([[0, 1, 2], [1, 1], [2, 0]]),
            ShapeError,
            r"y, example 1(.|\n)*1 steps(.|\n)*2 steps",
        ),
        (
            {},
            Sequences(X3),
            np.zeros((3, 3), int),
            ShapeError,
            r"y, example 1(.|\n)*1 steps, as x has(.|\n)*3 steps(.|\n)*padded",
        ),
        (
            {},
            np.zeros((3, 4, 2)),
            np.zeros((3, 5), int),
            ShapeError,
            r"y, example 0(.|\n)*4 steps, as x has(.|\n)*5 steps",
        ),
        ({}, np.zeros((3, 4, 2)), Sequences(Y3), ShapeError, r"y, example 0(.|\n)*4 steps, as x has(.|\n)*3 steps"),
        ({}, Sequences(X3), Sequences(Y3[:2]), ShapeError, r"different(.|\n)*3"),
        # a target for each step, and one output
        (
            {"every_step": False},
            Sequences(X3),
            Sequences(Y3),
            ShapeError,
            r"one output for a whole sequence(.|\n)*return_seq",
        ),
        # and the other way round
        ({}, Sequences(X3), np.array([0, 1, 2]), ShapeError, r"y: (.|\n)*class indices \(m, T\)(.|\n)*\(3,\)"),
        # longer than the network, or shorter
        (
            {"input_shape": (2, 2)},
            Sequences(X3),
            Sequences(Y3),
            ShapeError,
            r"example 0(.|\n)*2 steps(.|\n)*3 steps(.|\n)*\(None, 2\)",
        ),
        (
            {"input_shape": (3, 2)},
            Sequences(X3),
            Sequences(Y3),
            ShapeError,
            r"example 1(.|\n)*3 steps(.|\n)*1 steps(.|\n)*\(None, 2\)",
        ),
        (
            {"input_shape": (2, 2)},
            np.zeros((3, 3, 2)),
            np.zeros((3, 3), int),
            ShapeError,
            r"\(m, 2, 2\)(.|\n)*\(3, 3, 2\)",
        ),
        # other steps
        (
            {},
            Sequences(walks([3, 1], width=(5,))),
            Sequences(Y3[:2]),
            ShapeError,
            r"sequences \(T, 2\)(.|\n)*sequences \(T, 5\)",
        ),
        ({}, Sequences(Y3), Sequences(Y3), ShapeError, r"sequences \(T, 2\)(.|\n)*sequences \(T,\)"),
        ({}, np.zeros((3, 4)), np.zeros((3, 4), int), ShapeError, r"\(m, T, 2\)(.|\n)*\(3, 4\)"),
        ({}, np.zeros((3, 4, 2, 1)), np.zeros((3, 4), int), ShapeError, r"\(m, T, 2\)(.|\n)*\(3, 4, 2, 1\)"),
        # values
        ({}, Sequences([X3[0], [[np.nan, 1]]]), Sequences(Y3[:2]), DataError, r"x, example 1, at \(0, 0\)"),
        ({}, Sequences(X3), Sequences([[0, 1, 7], [1], [2, 0]]), DataError, r"0 … 2(.|\n)*7"),
        ({}, Sequences([]), Sequences([]), DataError, r"no examples|m = 0"),
    ],
)
def test_data_that_cannot_be(options, x, y, error, said):
    net = labeller(**options)
    for use in (net.evaluate, lambda x, y: net.fit(x, y, epochs=1, progress=False)):
        with pytest.raises(error, match=said):
            use(x, y)


def test_a_sequence_for_a_network_without_steps():
    net = pl.Sequential(pl.Dense(2), input_shape=3, loss="mse")
    with pytest.raises(ShapeError, match="sequences"):
        net.predict(Sequences(X3))


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([pl.Flatten(), pl.Dense(2)], r"layer 1 \(flatten_1\)(.|\n)*number of steps(.|\n)*a number for T"),
        ([pl.Dense(2)], r"layer 1 \(dense_1\)(.|\n)*number of steps(.|\n)*pl\.TimeDistributed"),
        (
            [pl.GRU(2, return_sequences=True), pl.Dense(2)],
            r"layer 2 \(dense_1\)(.|\n)*number of steps(.|\n)*TimeDistributed",
        ),
        ([pl.Conv1D(2, 1)], r"layer 1 \(conv1d_1\)(.|\n)*number of steps"),
        (
            [pl.GRU(2), pl.GRU(2)],
            r"layer 2 \(gru_2\)(.|\n)*takes a sequence of vectors(.|\n)*\(2,\)(.|\n)*return_seq",
        ),
        ([pl.Embedding(3, 2), pl.GRU(2)], r"layer 1 \(embedding_1\)(.|\n)*takes a vector"),
        ([pl.MeanOverTime(), pl.MeanOverTime()], r"layer 2(.|\n)*takes a sequence"),
        ([pl.TimeDistributed(pl.Conv2D(2, 2))], r"layer 1 \(time_distributed_1\)(.|\n)*"),
        ([pl.GRU(2, return_state=True)], r"layer 1 \(gru_1\)(.|\n)*several outputs(.|\n)*pl\.Graph"),
    ],
)
def test_layers_that_do_not_fit_together(layers, said):
    with pytest.raises(ShapeError, match=said):
        pl.Sequential(*layers, input_shape=(None, 2))


def test_frames_go_through_a_flattening_of_each():
    with pytest.raises(
        ShapeError, match=r"takes a sequence of vectors(.|\n)*\(None, 1, 4, 4\)(.|\n)*TimeDistributed\(pl\.Flatten"
    ):
        pl.Sequential(pl.GRU(2), input_shape=(None, 1, 4, 4))


@pytest.mark.parametrize(
    "layer", [pl.Flatten(), pl.Reshape((8,)), pl.Conv1D(2, 1), pl.LayerNorm(), pl.Softmax(), pl.GlobalMaxPool()]
)
def test_a_mask_where_padding_would_count(layer, rng):
    net = pl.Sequential(pl.Tanh(), layer, input_shape=(4, 2))
    X, mask = rng.normal(size=(4, 2, 3)), np.ones((4, 3), bool)
    mask[3, 1] = False
    net.forward(X)
    with pytest.raises(ShapeError, match=r"layer 2(.|\n)*padding would count as steps(.|\n)*TimeDistributed"):
        net.forward(X, mask=mask)


@pytest.mark.parametrize("layer", [pl.LayerNorm(axes=1), pl.Softmax(axis=-1)], ids=repr)
def test_steps_of_single_values_are_not_mixed(layer, rng):
    with pytest.raises(ShapeError, match=r"would mix them(.|\n)*\(T, n\)(.|\n)*\(T,\)"):
        pl.Sequential(layer, input_shape=(None,))
    X, mask = rng.normal(size=(4, 3)), np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    net = pl.Sequential(layer, input_shape=(4,))
    net.forward(X)
    with pytest.raises(ShapeError, match="would mix them"):
        net.forward(X, mask=mask)
    for over_steps in (pl.Softmax(axis=-2), pl.Concat(axis=-2)):
        assert not over_steps.any_length


@pytest.mark.parametrize(
    ("mask", "error", "said"),
    [
        (np.zeros((4, 3), bool), DataError, r"mask, example 0: a mask without a single True"),
        (np.array([[1, 1, 0]] * 4), DataError, r"mask, example 2: a mask without a single True"),
        (np.full((4, 3), 0.5), DataError, "True and False"),
        (np.ones((3, 4), bool), ShapeError, r"\(T, m\) = \(4, 3\)(.|\n)*\(3, 4\)(.|\n)*mask\.T"),
        (np.ones((4,), bool), ShapeError, r"\(T, m\) = \(4, 3\)(.|\n)*\(4,\)"),
        ({"x": np.ones((4, 3), bool)}, ShapeError, r"a mask of no input(.|\n)*input"),
    ],
)
def test_masks_that_cannot_be(mask, error, said, rng):
    net, X = labeller(), rng.normal(size=(4, 2, 3))
    for use in (
        lambda: net.forward(X, mask=mask),
        lambda: net.gradients(X, np.zeros((4, 3), int), mask=mask),
        lambda: net.cost(X, np.zeros((4, 3), int), mask=mask),
        lambda: pl.trace(net, X, np.zeros((4, 3), int), mask=mask),
    ):
        with pytest.raises(error, match=said):
            use()


def test_arrays_for_a_network_that_cannot_be(rng):
    net = labeller()
    with pytest.raises(ShapeError, match=r"Y: inputs and targets of different lengths(.|\n)*4 steps(.|\n)*3 steps"):
        net.cost(rng.normal(size=(4, 2, 3)), np.zeros((3, 3), int))
    with pytest.raises(ShapeError, match=r"\(T, 2, m\)(.|\n)*\(0, 2, 3\)(.|\n)*length 0"):
        net.forward(np.zeros((0, 2, 3)))
    with pytest.raises(ShapeError, match=r"\(T, 2, m\)(.|\n)*\(2, 3\)"):
        net.forward(np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"an array and a mask(.|\n)*x\.batch"):
        net.forward(Sequences(X3))


def test_an_id_outside_the_vocabulary():
    net = pl.Sequential(pl.Embedding(5, 2), pl.GRU(2), pl.Dense(2), input_shape=(None,), loss="softmax_cross_entropy")
    for bad in (5, -1, 1.5):
        ids = Sequences([[0, 1, 4], [3, bad], [2]])
        with pytest.raises(DataError, match=rf"example 1, position 1: an id that has no(.|\n)*0 … 4(.|\n)*{bad}$"):
            net.predict(ids)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pl.GRU(0), "units must be a positive integer"),
        (lambda: pl.GRU(2, return_sequences="yes"), r"return_sequences is True or False(.|\n)*'yes'"),
        (lambda: pl.LSTM(2, stateful=True, reverse=True), "no state to hand on"),
        (lambda: pl.SimpleRNN(2, "gelu"), r"no activation of a SimpleRNN(.|\n)*tanh, relu, sigmoid(.|\n)*gelu"),
        (lambda: pl.LSTM(2, forget_bias="one"), "forget_bias is a number"),
        (lambda: pl.Bidirectional(pl.Dense(2)), r"both ways(.|\n)*SimpleRNN, LSTM or GRU"),
        (lambda: pl.Bidirectional(pl.GRU(2, reverse=True)), "neither reverse nor stateful"),
        (lambda: pl.Bidirectional(pl.GRU(2), "mean"), r"no such merge(.|\n)*concat, sum, multiply or average"),
        (lambda: pl.TimeDistributed(pl.GRU(2)), "without memory"),
        (lambda: pl.TimeDistributed(pl.Add()), "a layer of one input"),
        (lambda: pl.Repeat(1.5), "steps must be a positive integer"),
        (lambda: pl.GRU(2, regularizer="l3"), "l3"),
    ],
)
def test_layers_that_cannot_be(make, said):
    with pytest.raises(ParameterError, match=said):
        make()


def test_states_that_do_not_fit(rng):
    x = pl.Input((None, 2))
    with pytest.raises(ShapeError, match=r"starts from h and C of its own size(.|\n)*\(3,\) and \(3,\)(.|\n)*\(3,\)"):
        pl.LSTM(3)(x, pl.Input((3,)))
    with pytest.raises(ShapeError, match=r"starts from h of its own size(.|\n)*\(3,\)(.|\n)*\(4,\)"):
        pl.GRU(3)(x, pl.Input((4,)))
    with pytest.raises(ShapeError, match="its start from the batch before"):
        pl.GRU(3, stateful=True)(x, pl.Input((3,)))
