"""Training steps that are written down and replayed: what they compute, when they are not, and what they keep."""

from __future__ import annotations

import pickle
import sys
import threading
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines
from pellucid.engines.native import replay
from pellucid.errors import DataError
from pellucid.layers.base import Mode
from pellucid.trees import flatten

pytestmark = pytest.mark.skipif("native" not in engines.available(), reason="the native engine is not built")

NATIVE = engines.get("native")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Steps are written down the first time they run."""
    monkeypatch.setattr(replay, "AFTER", 0)


@pytest.fixture
def written(monkeypatch):
    """The steps that were written down, and None for each that could not be."""
    found = []

    class Seen(replay.Replayed):
        def _written(self, given):
            written, made = super()._written(given)
            found.append(None if written is self.step else written)
            return written, made

    monkeypatch.setattr("pellucid.engines.native.Replayed", Seen)
    return found


def plainly(monkeypatch):
    """Steps run as they are from now on."""
    monkeypatch.setattr(type(NATIVE), "compile", lambda self, step, **options: step)


def steps_of(replayed):
    return [step for structure in replayed.structures for step in structure.steps.values()]


def images(rng):
    return rng.normal(size=(50, 1, 8, 8)).astype("float32"), rng.integers(0, 3, 50)


def table(rng):
    return rng.normal(size=(50, 6)).astype("float32"), rng.integers(0, 3, 50)


def sequences(rng):
    lengths = rng.integers(2, 6, 50)
    return pl.Sequences([rng.normal(size=(T, 4)).astype("float32") for T in lengths]), rng.integers(0, 3, 50)


def words(rng):
    return rng.integers(0, 9, (50, 5)), rng.integers(0, 3, 50)


def dense():
    return (pl.Dense(8, "relu"), pl.BatchNorm(), pl.Dropout(0.3), pl.Dense(3)), (6,)


def convolutional():
    layers = pl.Conv2D(4, 3, "relu", padding=1), pl.MaxPool2D(2), pl.BatchNorm(), pl.Conv2D(5, 3, "gelu")
    return (*layers, pl.LocalResponseNorm(), pl.Flatten(), pl.Dense(3)), (1, 8, 8)


def recurrent():
    return (pl.Bidirectional(pl.LSTM(5, return_sequences=True)), pl.GRU(4), pl.Dense(3)), (None, 4)


def embedded():
    return (pl.Embedding(9, 4), pl.SimpleRNN(5), pl.Dense(3)), (5,)


def labelled():
    return (pl.LSTM(4, return_sequences=True), pl.TimeDistributed(pl.Dense(2))), (6, 4)


def steps(rng):
    return rng.normal(size=(50, 6, 4)).astype("float32"), rng.normal(size=(50, 6, 2)).astype("float32")


SMOOTHED = pl.SoftmaxCrossEntropy(label_smoothing=0.1)
WEIGHTED = pl.SoftmaxCrossEntropy(class_weight=[1.0, 2.0, 0.5])
TRAININGS = [
    (table, dense, {}, {}),
    (table, dense, {}, {"optimizer": "momentum(clip_norm=0.5)", "layer_statistics": True}),
    (table, dense, {}, {"optimizer": "lion", "sample_weight": np.linspace(0.5, 2, 50)}),
    (table, dense, {"loss": SMOOTHED}, {"optimizer": "adadelta", "metrics": ["accuracy"]}),
    (images, convolutional, {}, {"optimizer": "adamw"}),
    (sequences, recurrent, {}, {"optimizer": "rmsprop", "layer_statistics": True}),
    (words, embedded, {}, {"optimizer": "nesterov"}),
    (words, embedded, {"loss": WEIGHTED, "regularizer": "max_norm(0.5)"}, {"optimizer": "gd(0.5)"}),
    (table, dense, {"regularizer": "elastic", "dtype": "float64"}, {"optimizer": "adagrad"}),
]


def train(case, rng, **more):
    data, layers, options, training = case
    x, y = data(rng)
    parts, shape = layers()
    net = pl.Sequential(*parts, input_shape=shape, engine="native", **{"loss": "softmax_cross_entropy", **options})
    training = {"optimizer": "adam", "layer_statistics": False, **training, **more}
    history = net.fit(x, y, epochs=4, batch_size=16, progress=False, seed=3, **training)
    return net, history


@pytest.mark.parametrize("case", TRAININGS, ids=lambda case: f"{case[1].__name__}-{case[3].get('optimizer', 'adam')}")
def test_a_training_ends_in_the_same_numbers(case, written, monkeypatch, request):
    net, history = train(case, np.random.default_rng(0))
    assert written
    assert all(written), "a step of the library's own was not written down"
    plainly(monkeypatch)
    plain, plain_history = train(case, np.random.default_rng(0))
    for tree, other in ((net.parameters, plain.parameters), (net.state, plain.state)):
        theirs = flatten(other)
        for name, A in flatten(tree).items():
            np.testing.assert_array_equal(A, theirs[name], err_msg=name)
    assert [each["train"] for each in history] == [each["train"] for each in plain_history]


def test_truncated_back_propagation_ends_in_the_same_numbers(written, monkeypatch):
    case = (steps, labelled, {"loss": "squared_error"}, {"truncate": (2, 4)})
    net, history = train(case, np.random.default_rng(0))
    assert any(written)
    plainly(monkeypatch)
    plain, plain_history = train(case, np.random.default_rng(0))
    for name, A in flatten(net.parameters).items():
        np.testing.assert_array_equal(A, flatten(plain.parameters)[name], err_msg=name)
    assert [each["train"] for each in history] == [each["train"] for each in plain_history]


def test_it_is_one_list_of_kernels(written):
    train(TRAININGS[0], np.random.default_rng(0))
    lines = [line.strip() for line in written[0].source.splitlines()]
    kernels = [line.split(" = ")[-1].partition("(")[0] for line in lines]
    wanted = ["affine", "normalize", "dropout", "softmax_cross_entropy", "affine_dW", "dropout_backward", "update"]
    assert [name for name in dict.fromkeys(kernels) if name in wanted] == wanted


def test_batches_of_another_length_are_written_down_apart(written):
    train(TRAININGS[0], np.random.default_rng(0))  # 50 examples are 16, 16, 16 and 2
    assert len(written) == 2


def test_a_layer_of_the_users_own_runs_each_time(written):
    class Counted(pl.Dense):
        runs = 0

        def forward(self, *given, **options):
            type(self).runs += 1
            return super().forward(*given, **options)

    x, y = table(np.random.default_rng(0))
    net = pl.Sequential(Counted(3), input_shape=(6,), loss="softmax_cross_entropy", engine="native")
    net.fit(x, y, epochs=3, batch_size=25, progress=False, metrics=())
    assert not written
    assert Counted.runs == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda training: training.net.loss_weights.update(output=0.5),
        lambda training: training.net.losses.update(output=SMOOTHED),
        lambda training: training.net.penalties.append(("dense_1", "W", pl.L2(0.5))),
        lambda training: setattr(training, "optimizer", pl.GradientDescent(0.1, clip_norm=0.01)),
        lambda training: setattr(training, "layer_statistics", True),
        lambda training: training.params["dense_1"].update(W=np.asfortranarray(training.params["dense_1"]["W"] / 2)),
    ],
    ids=["loss weight", "loss", "penalty", "optimizer", "statistics", "parameters"],
)
def test_what_a_callback_changes_is_seen(change, monkeypatch):
    class Changing(pl.Callback):
        def on_update(self, training):
            if training.t == 7:
                change(training)

    def run():
        x, y = table(np.random.default_rng(0))
        net = pl.Sequential(pl.Dense(3), input_shape=(6,), loss="softmax_cross_entropy", engine="native")
        history = net.fit(x, y, epochs=3, batch_size=10, progress=False, callbacks=[Changing()], optimizer="gd(0.1)")
        return net.parameters["dense_1"]["W"], ["layers" in each for each in history]

    W, layers = run()
    plainly(monkeypatch)
    plain_W, plain_layers = run()
    np.testing.assert_array_equal(W, plain_W)
    assert layers == plain_layers


def test_parameters_are_updated_where_they_lie():
    class Looking(pl.Callback):
        def on_update(self, training):
            seen.append(training.params["dense_1"]["W"])

    seen = []
    x, y = table(np.random.default_rng(0))
    net = pl.Sequential(pl.Dense(3), input_shape=(6,), loss="softmax_cross_entropy", engine="native")
    net.fit(x, y, epochs=2, batch_size=25, progress=False, callbacks=[Looking()])
    assert len(seen) == 4
    assert all(each is seen[0] for each in seen)


def test_under_a_debugger_the_blocks_run():
    calls = []
    step = NATIVE.compile(lambda A: (calls.append(1), A + 1)[1], own=True)
    A = np.zeros(3)
    for _ in range(3):
        step(A)
    assert len(calls) == 1
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        step(A)
    finally:
        sys.settrace(before)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "step",
    [
        lambda A: A * 2 if A.sum() > 0 else A,
        lambda A: np.array([float(A[0])]),
        lambda A: np.sqrt(A, out=np.empty(3)),
        lambda A: np.array([each + 1 for each in A]),
        lambda A: np.asarray(A) + 1,
        lambda A: A[A > 1] * len(A[A > 1]),
        lambda A: A * len(np.nonzero(A > 1)[0]),
        lambda A: np.unique(A),
        lambda A: np.repeat(A, A.astype(int)),
        lambda A: A[(A > 1).nonzero()[0]],
        lambda A: np.where(A > 1)[0],
    ],
    ids=[
        *("decides", "a number", "writes to its own", "row by row", "asarray"),
        *("masked", "nonzero", "unique", "repeated", "method", "where"),
    ],
)
def test_what_cannot_be_noted_runs_as_it_is(step):
    replayed = NATIVE.compile(step, own=True)
    for k in range(4):
        A = np.array([1.0, 2.0, 3.0]) * (1 - k)
        A = abs(A) if k < 2 else np.abs(A) + k
        np.testing.assert_array_equal(replayed(A), step(A))
    assert steps_of(replayed) == [step]


def test_arrays_that_the_step_makes_itself_stay_as_they_were():
    def step(A):
        total = np.zeros(3)
        return total + A, total

    replayed = NATIVE.compile(step, own=True)
    for k in range(4):
        made, total = replayed(np.full(3, float(k)))
        assert made.tolist() == [k] * 3
        assert total.tolist() == [0] * 3


def test_ids_are_checked_in_every_step():
    layers, shape = embedded()
    x, y = words(np.random.default_rng(0))
    x = x.astype("float32")
    x[40, 1] = 2.5
    net = pl.Sequential(*layers, input_shape=shape, loss="softmax_cross_entropy", engine="native")
    with pytest.raises(DataError, match=r"(?s)example 0, position 1: an id that has no vector.*got: +2\.5"):
        net.fit(x, y, batch_size=5, shuffle=False, progress=False)


def test_sequences_normalised_by_the_steps_that_count(monkeypatch):
    def normalised():
        return (pl.TimeDistributed(pl.BatchNorm()), pl.GRU(4), pl.Dense(3)), (None, 4)

    net, history = train((sequences, normalised, {}, {}), np.random.default_rng(0))
    plainly(monkeypatch)
    plain, plain_history = train((sequences, normalised, {}, {}), np.random.default_rng(0))
    for name, A in flatten(net.parameters).items():
        np.testing.assert_array_equal(A, flatten(plain.parameters)[name], err_msg=name)
    assert [each["train"] for each in history] == [each["train"] for each in plain_history]


def test_a_kernel_that_fails_is_told_as_without():
    layers, shape = embedded()
    net = pl.Sequential(*layers, input_shape=shape, loss="softmax_cross_entropy", engine="native")
    mode = Mode(True, mask={})
    step = NATIVE.compile(lambda params, X: net.forward_pass(params, {}, {"input": X}, mode)[0], own=True)
    X = np.ascontiguousarray(words(np.random.default_rng(0))[0].T, np.float32)
    for _ in range(3):
        step(net.parameters, X)
    with pytest.raises(DataError, match="an id that has no vector"):
        step(net.parameters, X + 4)


def test_no_more_memory_than_the_step_itself(monkeypatch):
    case = (images, convolutional, {}, {})

    def most():
        rng = np.random.default_rng(0)
        train(case, rng)
        NATIVE.kernels.reset_peak()
        train(case, rng)
        return NATIVE.kernels.peak_bytes()

    replayed = most()
    plainly(monkeypatch)
    assert replayed <= most() * 1.02


def test_other_threads_compute_while_one_writes_down():
    A = np.random.default_rng(0).normal(size=(4, 4))
    ended, wrong = threading.Event(), []

    def beside():
        while not ended.is_set():
            if not np.array_equal(NATIVE.affine(A, A, None), expected):
                wrong.append(1)

    expected = NATIVE.affine(A, A, None)
    thread = threading.Thread(target=beside)
    thread.start()
    try:
        for _ in range(50):
            step = NATIVE.compile(lambda A: NATIVE.affine(A, A, None), own=True)
            for _ in range(3):
                np.testing.assert_array_equal(step(A), expected)
    finally:
        ended.set()
        thread.join()
    assert not wrong
    assert not isinstance(NATIVE.kernels, replay._Noting)


def test_no_step_is_written_down_for_every_length_there_is():
    step = NATIVE.compile(lambda A: A + 1, own=True)
    for m in range(1, replay.MOST + 20):
        for _ in range(2):
            assert step(np.zeros(m)).tolist() == [1] * m
    assert len(steps_of(step)) == replay.MOST


def test_a_step_is_written_down_once_that_pays(monkeypatch):
    monkeypatch.setattr(replay, "AFTER", 3)
    calls = []
    step = NATIVE.compile(lambda A: (calls.append(len(A)), A + 1)[1], own=True)
    for _ in range(3):
        step(np.zeros(9))
    for m in (1, 2, 1, 2, 1, 1, 1):
        assert step(np.zeros(m)).tolist() == [1] * m
    assert calls == [9, 9, 9, 1, 2, 1, 2, 1, 1]
    assert [callable(each) for each in steps_of(step)] == [True, False]


def test_what_is_too_large_to_be_copied_runs_as_it_is(monkeypatch):
    monkeypatch.setattr(replay, "MOST_BYTES", 100)
    step = NATIVE.compile(lambda params, t: {"W": params["W"] + t}, given_away=("params",), own=True)
    for _ in range(3):
        assert step({"W": np.zeros(12)}, 2)["W"].tolist() == [2] * 12
        assert step({"W": np.zeros(13)}, 2)["W"].tolist() == [2] * 13
    assert [how is step.step for how in steps_of(step)] == [False, True]


def test_static_arguments_are_told_apart_and_trees_given_back_are_the_same():
    step = NATIVE.compile(
        lambda keep, params, A: (params, A + (keep or 0)), given_away=("params",), static=("keep",), own=True
    )
    for keep in (None, 3) * 3:
        params = {"layer": {"W": np.ones(2)}}
        given_back, A = step(keep, params, np.zeros(2))
        assert given_back["layer"]["W"].tolist() == [1, 1]
        assert A.tolist() == [keep or 0] * 2
    assert all(how is not step.step for how in steps_of(step))
    assert given_back is params


def test_what_the_step_puts_into_an_argument_comes_back():
    def step(params, A):
        params["layer"]["W"] = params["layer"]["W"] * A
        return params

    replayed = NATIVE.compile(step, given_away=("params",), own=True)
    for _ in range(3):
        assert replayed({"layer": {"W": np.ones(2)}}, np.full(2, 3.0))["layer"]["W"].tolist() == [3, 3]
    assert all(how is not step for how in steps_of(replayed))


def test_a_step_that_fails_after_an_update_starts_over_from_before_it():
    def step(params):
        params["W"] += 1
        return params["W"] if params["W"].any() else None

    replayed = NATIVE.compile(step, given_away=("params",), own=True)
    assert replayed({"W": np.ones(2)}).tolist() == [2, 2]
    assert steps_of(replayed) == [step]


def test_an_update_is_not_made_twice_where_memory_runs_out():
    def more(A):
        if short:
            raise MemoryError
        return A

    def step(params):
        params["W"] += 1
        return replay.whole(more)(params["W"])

    short = False
    replayed = NATIVE.compile(step, given_away=("params",), own=True)
    params = {"W": np.zeros(2)}
    replayed(params)
    short = True
    with pytest.raises(MemoryError):
        replayed(params)
    assert params["W"].tolist() == [2, 2]


def test_trees_may_be_of_other_dictionaries():
    step = NATIVE.compile(lambda params, pair: params["W"] * pair[0] + pair[1], own=True)
    for kind in (OrderedDict, dict, OrderedDict):
        pair = namedtuple("Pair", "a b")(2.0, 1.0) if kind is dict else (2.0, 1.0)
        assert step(kind(W=np.ones(2)), pair).tolist() == [3, 3]
    assert [how is not step.step for how in steps_of(step)] == [True]


def test_mapped_arrays_are_told_apart_by_shape(tmp_path):
    step = NATIVE.compile(lambda A: A.reshape(A.shape[0] * A.shape[1]) + 1, own=True)
    for shape in ((2, 3), (3, 4), (2, 3)):
        A = np.memmap(tmp_path / "A", "float32", "w+", shape=shape)
        assert step(A).tolist() == [1] * A.size
    assert len(steps_of(step)) == 2


def test_arguments_of_other_kinds_are_told_apart():
    step = NATIVE.compile(lambda tree, option: tree["A"] * 2 if option else tree["A"] + tree.get("B", 1), own=True)
    A = np.arange(3.0)
    others = [
        ({"A": A}, True),
        ({"A": A}, False),
        ({"A": A, "B": A}, False),
        ({"A": A.astype("float32")}, False),
        ({"A": 3}, False),
        ({"A": 3.5}, False),
        ({"A": A}, "a word"),
        ({"A": A}, None),
    ]
    for _ in range(4):
        for tree, option in others:
            expected = tree["A"] * 2 if option else tree["A"] + tree.get("B", 1)
            found = step(tree, option)
            np.testing.assert_array_equal(found, expected)
            assert np.asarray(found).dtype == np.asarray(expected).dtype
    assert sum(how is not step.step for how in steps_of(step)) == 7


class Pickling(pl.Callback):
    pickled = b""

    def on_epoch(self, training, record):
        if training.epoch == 10:
            Pickling.pickled = pickle.dumps(training)


def test_a_training_is_pickled_in_the_midst_of_it():
    rng = np.random.default_rng(0)
    net = pl.Sequential(pl.Dense(3), input_shape=(6,), loss="softmax_cross_entropy", engine="native")
    x, y = table(rng)
    net.fit(x, y, epochs=12, batch_size=10, progress=False, callbacks=[Pickling()])
    again = pickle.loads(Pickling.pickled)
    assert again.epoch == 10
    again.callbacks = []
    again.run()
    np.testing.assert_array_equal(again.params["dense_1"]["W"], net.parameters["dense_1"]["W"])


def test_the_rate_of_an_optimizer_that_a_callback_puts_there_counts():
    class Standing(pl.Callback):
        def on_epoch(self, training, record):
            training.optimizer = pl.Adam(0.0)
            self.left = training.params["dense_1"]["W"].copy() if training.epoch == 4 else self.left

        left = None

    x, y = table(np.random.default_rng(0))
    net = pl.Sequential(pl.Dense(3), input_shape=(6,), loss="softmax_cross_entropy", engine="native")
    standing = Standing()
    start = net.parameters["dense_1"]["W"].copy()
    net.fit(x, y, epochs=8, batch_size=5, progress=False, callbacks=[standing])
    assert np.abs(standing.left - start).max() > 0
    np.testing.assert_array_equal(net.parameters["dense_1"]["W"], standing.left)
