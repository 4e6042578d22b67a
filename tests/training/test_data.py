"""Data that cannot be trained on is refused before any arithmetic, saying where and what to do."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

import pellucid as pl
from pellucid.errors import DataError, ParameterError, PellucidError, ShapeError, TrainingError
from pellucid.training.batches import Source, order
from pellucid.trees import flatten

X = np.random.default_rng(0).normal(size=(20, 4))
Y = np.arange(20) % 3


def make(*layers, input_shape=4, loss="softmax_cross_entropy", **options):
    return pl.Sequential(*(layers or (pl.Dense(3),)), input_shape=input_shape, loss=loss, **options)


def changed(x, index, value):
    x = x.copy()
    x[index] = value
    return x


def says(error: BaseException, *parts: str) -> None:
    for part in parts:
        assert part in str(error), f"{part!r} is missing in:\n{error}"


def ragged():
    return [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0]]


BAD = {
    "nan": (changed(X, (7, 2), np.nan), Y, DataError, ["x, example 7, feature 2", "nan", "impute"]),
    "infinite": (changed(X, (0, 3), -np.inf), Y, DataError, ["x, example 0, feature 3", "not finite", "-inf"]),
    "too large": (changed(X, (5, 1), 1e300), Y, DataError, ["example 5, feature 1", "too large", "1e+300", "float64"]),
    "too wide": (np.zeros((20, 5)), Y, ShapeError, ["expected: (m, 4)", "got:      (20, 5)"]),
    "swapped": (X.T, Y, ShapeError, ["examples come first here", ".T"]),
    "one example": (X[0], Y[:1], ShapeError, ["x[None]"]),
    "no number": (3.0, Y, ShapeError, ["expected: (m, 4)", "got:      ()"]),
    "objects": (X.astype(object), Y, DataError, ["x: not numbers", "dtype object", "x.toarray()"]),
    "text": (X.astype(str), Y, DataError, ["x: not numbers", "x.astype(float)"]),
    "ragged": (ragged(), Y[:2], DataError, ["x: not a rectangular array"]),
    "label too large": (X, changed(Y, 3, 3), DataError, ["y, example 3", "0 … 2", "3 outputs", "got:      3"]),
    "label negative": (X, changed(Y, 4, -1), DataError, ["y, example 4", "0 … 2", "got:      -1"]),
    "label broken": (X, Y + 0.5, DataError, ["y, example 0", "0 … 2", "got:      0.5"]),
    "label nan": (X, changed(Y * 1.0, 4, np.nan), DataError, ["y, example 4", "0 … 2", "got:      nan"]),
    "label text": (X, np.array(["a", "b"] * 10), DataError, ["y: not numbers", "np.unique(y, return_inverse=True)"]),
    "label objects": (X, np.array(["a", None] * 10), DataError, ["y: not numbers", "np.unique"]),
    "one class": (X, np.ones(20, int), DataError, ["all 20 training examples are of class 1", "two classes"]),
    "empty": (X[:0], Y[:0], DataError, ["there are no examples", "m = 0"]),
    "too few labels": (X, Y[:19], ShapeError, ["different numbers of examples", "x: m = 20", "y: m = 19"]),
    "wide labels": (X, np.zeros((20, 4)), ShapeError, ["y: the targets", "class indices (m,)", "(20, 4)"]),
    "no sum": (X, np.ones((20, 3)), DataError, ["must be ≥ 0 and sum to 1"]),
    "by name": ({"image": X}, Y, ShapeError, ["other names than the network's", "image"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_examples(name):
    x, y, kind, parts = BAD[name]
    net = make()
    before = net.parameters["dense_1"]["W"].copy()
    with pytest.raises(kind) as problem:
        net.fit(x, y, progress=False)
    says(problem.value, *parts)
    np.testing.assert_array_equal(net.parameters["dense_1"]["W"], before)


@pytest.mark.parametrize(
    ("x", "shape", "hint"),
    [
        (np.zeros((6, 8, 9, 3)), (3, 8, 9), "np.moveaxis(x, -1, 1)"),
        (np.zeros((6, 8, 9)), (1, 8, 9), "x[:, None]"),
        (np.zeros((6, 8, 9)), (72,), "x.reshape(len(x), -1)"),
        (np.zeros((8, 9, 6)), (8, 9), "np.moveaxis(…, -1, 0)"),
        (np.zeros((8, 9)), (8, 9), "x[None]"),
    ],
)
def test_shapes_come_with_their_mend(x, shape, hint):
    net = make(pl.Flatten(), pl.Dense(3), input_shape=shape)
    with pytest.raises(ShapeError, match=re.escape(hint)):
        net.predict(x)


def test_a_bad_pixel_is_found_by_place():
    net = make(pl.Flatten(), pl.Dense(3), input_shape=(1, 2, 2))
    with pytest.raises(DataError, match=re.escape("x, example 1, at (0, 1, 0)")):
        net.predict(changed(np.zeros((3, 1, 2, 2)), (1, 0, 1, 0), np.nan))


def test_the_check_reaches_the_last_of_many_examples(monkeypatch):
    monkeypatch.setattr("pellucid.training.batches.CHECKED_AT_ONCE", 12)
    with pytest.raises(DataError, match="example 19, feature 3"):
        make().predict(changed(X, (19, 3), np.nan))


@pytest.mark.parametrize(
    ("loss", "y", "kind", "parts"),
    [
        ("squared_error", np.zeros((20, 3)), ShapeError, ["expected: (m, 1)", "got:      (20, 3)"]),
        ("squared_error", np.zeros((1, 20)), ShapeError, ["examples come first here"]),
        ("squared_error", changed(np.zeros(20), 6, np.nan), DataError, ["y, example 6", "not finite"]),
        ("sigmoid_cross_entropy", np.arange(20), DataError, ["y, example 2", "0 to 1", "softmax_cross_entropy"]),
        ("hinge", np.arange(20), DataError, ["hinge target out of range", "0 or 1, or -1 or 1"]),
        ("softmax_cross_entropy", Y, ShapeError, ["needs an output for each class", "sigmoid_cross_entropy"]),
    ],
)
def test_bad_targets_of_one_output(loss, y, kind, parts):
    with pytest.raises(kind) as problem:
        make(pl.Dense(1), loss=loss).fit(X, y, progress=False)
    says(problem.value, *parts)


WEIGHTS = {
    "length": (np.ones(19), ShapeError, ["one weight per example", "(20,)", "(19,)"]),
    "negative": (changed(np.ones(20), 4, -1), DataError, ["sample_weight, example 4", "≥ 0", "-1.0"]),
    "nan": (changed(np.ones(20), 5, np.nan), DataError, ["sample_weight, example 5", "nan"]),
    "zero": (np.zeros(20), DataError, ["the weights are all 0"]),
    "text": (["a"] * 20, DataError, ["sample_weight: not numbers"]),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_bad_weights(name):
    weight, kind, parts = WEIGHTS[name]
    with pytest.raises(kind) as problem:
        make().fit(X, Y, sample_weight=weight, progress=False)
    says(problem.value, *parts)


SETTINGS = {
    "validation kind": (
        {"validation": "some"},
        ["cannot be used as validation", "a share, a number, or (x, y)", "str"],
    ),
    "validation true": ({"validation": True}, ["not a size"]),
    "validation all": ({"validation": 20}, ["nothing is left to train on"]),
    "validation share": ({"validation": 1.0}, ["not a size", "share in [0, 1)"]),
    "validation nan": ({"validation": (changed(X, (2, 1), np.nan), Y)}, ["validation x, example 2, feature 1"]),
    "validation labels": ({"validation": (X, Y + 1)}, ["validation y, example 2", "0 … 2"]),
    "validation m": ({"validation": (X, Y[:3])}, ["validation: different numbers", "validation y: m = 3"]),
    "validation weight": ({"validation": (X, Y, np.ones(3))}, ["validation sample_weight: one weight"]),
    "validation no y": ({"validation": (X, None)}, ["validation y: there are no targets"]),
    "batch size 0": ({"batch_size": 0}, ["batch_size must be a whole number", "1, 2, …", "got:      0"]),
    "batch size float": ({"batch_size": 1.5}, ["batch_size must be a whole number", "1.5"]),
    "epochs": ({"epochs": -1}, ["epochs must be a whole number", "-1"]),
    "epochs true": ({"epochs": True}, ["epochs must be a whole number", "True"]),
    "seed": ({"seed": -1}, ["seed must be a whole number", "0, 1, …"]),
    "seed float": ({"seed": 0.5}, ["seed must be a whole number"]),
    "checkpoints": ({"checkpoint_seconds": -1}, ["checkpoint_seconds", "≥ 0"]),
    "optimizer": ({"optimizer": "addam"}, ["unknown optimizer 'addam'", "did you mean 'adam'"]),
    "metric": ({"metrics": "acuracy"}, ["unknown metric 'acuracy'", "did you mean 'accuracy'"]),
    "metric task": ({"metrics": ["mae"]}, ["is a metric of regression", "'softmax_cross_entropy'"]),
    "metric output": ({"metrics": {"kind": ["accuracy"]}}, ["unknown output 'kind'", "one of output"]),
    "stopping": ({"callbacks": [pl.EarlyStopping()]}, ["there are no validation examples", "validation=0.1"]),
    "callback class": ({"callbacks": [pl.EarlyStopping]}, ["not a callback", "pl.EarlyStopping()"]),
    "callback kind": ({"callbacks": [3]}, ["not a callback", "got:      3"]),
    "progress": ({"progress": "bars"}, ["progress", "'auto' or False", "'bars'"]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings(name):
    options, parts = SETTINGS[name]
    with pytest.raises(PellucidError) as problem:
        make().fit(X, Y, **{"progress": False, **options})
    says(problem.value, *parts)


def test_batch_norm_refuses_a_batch_of_one():
    net = make(pl.BatchNorm(), pl.Dense(3))
    with pytest.raises(ParameterError, match="batch_norm_1 normalises over the batch") as problem:
        net.fit(X[:17], Y[:17], batch_size=16, progress=False)
    says(problem.value, "17 examples in batches of 16", "another batch_size, or pl.LayerNorm()")
    net.fit(X[:18], Y[:18], batch_size=16, epochs=1, progress=False)


def test_a_network_without_a_loss_is_only_run():
    net = make(loss=None)
    assert net.predict(X).shape == (20, 3)
    for use in (net.fit, net.evaluate):
        with pytest.raises(ParameterError, match="the network has no loss"):
            use(X, Y)
    with pytest.raises(DataError, match="no targets"):
        make().evaluate(X)
    with pytest.raises(DataError, match="no targets"):
        make().fit(X, progress=False)


def test_divergence_names_the_update_and_leaves_the_network():
    net = make(pl.Dense(8), pl.Dense(1), loss="squared_error")
    before = {path: leaf.copy() for path, leaf in flatten(net.parameters).items()}
    with pytest.raises(TrainingError, match=r"the cost became (inf|nan) at update \d+ \(epoch [12]\)") as problem:
        net.fit(X * 1e4, X.sum(1) * 1e4, optimizer="sgd(1.0)", batch_size=2, epochs=3, progress=False)
    says(problem.value, "learning rate 1", "a smaller learning rate", "the network is as it was before")
    for path, leaf in flatten(net.parameters).items():
        np.testing.assert_array_equal(leaf, before[path])


def test_divergence_at_the_very_last_update_is_seen():
    net = make(pl.Dense(1), loss="squared_error")
    with pytest.raises(TrainingError, match=r"the parameters are no longer finite at update 1 \(epoch 1\)"):
        net.fit(X * 1e10, X.sum(1) * 1e10, optimizer="sgd(1e30)", batch_size=None, epochs=1, progress=False)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_first_bad_update_is_named_far_into_an_epoch(batch_size):
    x, y = np.zeros((150, 1)), np.zeros(150)
    y[100 * batch_size // 3 :] = 1e30
    net = make(pl.Dense(1), input_shape=1, loss="squared_error")
    where = 100 * batch_size // 3 // batch_size + 1
    with pytest.raises(TrainingError, match=rf"the cost became inf at update {where} "):
        net.fit(x, y, optimizer="sgd(0)", batch_size=batch_size, shuffle=False, epochs=1, progress=False)


def test_lists_integers_and_frames_are_examples():
    reference = make()
    reference.fit(X.astype(np.float32), Y, epochs=2, progress=False)
    forms = [(X.tolist(), Y.tolist()), (X, Y[:, None]), (X.astype(np.float32), Y.astype(float))]
    for x, y in forms:
        net = make()
        net.fit(x, y, epochs=2, progress=False)
        np.testing.assert_array_equal(net.parameters["dense_1"]["W"], reference.parameters["dense_1"]["W"])
    whole = np.arange(80).reshape(20, 4) % 256
    nets = [make(), make(), make()]
    for net, kind in zip(nets, ("uint8", "int64", "float64"), strict=True):
        net.fit(whole.astype(kind), Y, epochs=2, progress=False)
        np.testing.assert_array_equal(net.parameters["dense_1"]["W"], nets[0].parameters["dense_1"]["W"])


def test_data_frames():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    nets = [make(), make()]
    nets[0].fit(X, Y, epochs=2, validation=0.2, progress=False)
    nets[1].fit(frame, pandas.Series(Y), epochs=2, validation=0.2, progress=False)
    np.testing.assert_array_equal(nets[0].parameters["dense_1"]["W"], nets[1].parameters["dense_1"]["W"])
    frame.loc[3, "c"] = np.nan
    with pytest.raises(DataError, match=re.escape("x, example 3, feature 2 ('c')")):
        nets[1].predict(frame)
    frame["c"] = "text"
    with pytest.raises(DataError, match="not numbers"):
        nets[1].predict(frame)


class Table:
    """Rows from a file, fetched as they are needed; remembers how many at once."""

    def __init__(self, x, y):
        self.x, self.y, self.most = x, y, 0

    def __len__(self):
        return len(self.x)

    def take(self, indices):
        self.most = max(self.most, len(indices))
        return self.x[indices], None if self.y is None else self.y[indices]


def test_rows_train_as_arrays_do():
    options = {"epochs": 3, "batch_size": 6, "optimizer": "adam", "progress": False}
    weight = np.linspace(0.5, 2, 20)
    one, two = make(), make()
    x = X.astype(np.float32)
    expected = one.fit(x, Y, validation=(x, Y), sample_weight=weight, **options)
    history = two.fit(Table(x, Y), validation=Table(x, Y), sample_weight=weight, **options)
    np.testing.assert_array_equal(one.parameters["dense_1"]["W"], two.parameters["dense_1"]["W"])
    assert [each["validation"] for each in history] == [each["validation"] for each in expected]
    np.testing.assert_array_equal(one.predict(x), two.predict(Table(x, None)))
    assert one.evaluate(x, Y) == two.evaluate(Table(x, Y))


def test_rows_can_be_split():
    history = make().fit(Table(X, Y), validation=0.2, epochs=1, progress=False)
    assert history.records[0]["validation"]["loss"] > 0


def test_rows_are_checked_as_they_come():
    with pytest.raises(DataError, match="rows fetched from 0 on: x, example 7, feature 2"):
        make().fit(Table(changed(X, (7, 2), np.nan), Y), shuffle=False, progress=False)
    with pytest.raises(ParameterError, match="rows bring their own targets"):
        make().fit(Table(X, Y), Y, progress=False)

    class Short(Table):
        def take(self, indices):
            return super().take(indices[1:])

    with pytest.raises(ShapeError, match="another number of examples"):
        make().fit(Short(X, Y), progress=False)


def test_a_table_larger_than_memory_is_read_piece_by_piece(tmp_path):
    m, n = 40_000, 64
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(m, n))
    x[:] = np.random.default_rng(0).normal(size=(m, n))
    x.flush()
    y = (np.asarray(x[:, 0]) > 0).astype(np.int64)
    del x
    for as_rows in (False, True):
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
        table = Table(x, y)
        net = make(pl.Dense(2), input_shape=n)
        tracemalloc.start()
        arguments = (table,) if as_rows else (x, y)
        history = net.fit(*arguments, epochs=1, batch_size=1000, optimizer="adam(0.1)", metrics=(), progress=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert history["loss"][0] < 0.7
        if as_rows:
            assert table.most == 1000
            assert peak < x.nbytes / 5
        else:
            assert peak < x.nbytes * 3  # the check for finite values goes piece by piece too, in larger pieces


def test_a_part_is_the_examples_it_names():
    source = Source(make(), X.astype(np.float32), Y, sample_weight=np.arange(20))
    part = source.part(np.array([3, 5, 8, 13])).part(np.array([3, 1]))
    batch = part.batch(np.array([0, 1]))
    np.testing.assert_array_equal(batch.inputs["input"], X[[13, 5]].T.astype(np.float32))
    np.testing.assert_array_equal(batch.targets["output"], Y[[13, 5]])
    np.testing.assert_allclose(batch.weight, np.array([13, 5]) / 9)
    np.testing.assert_array_equal(part.labels(), Y[[13, 5]])
    assert len(part) == 2


def test_the_fingerprint_is_of_the_data_alone():
    def of(x, y, weight=None):
        return Source(make(), x, y, sample_weight=weight).fingerprint()

    same = of(X, Y)
    assert same == of(X.copy(), Y.tolist()) == Source(make(seed=4), Table(X, Y)).fingerprint()
    others = [of(X[:19], Y[:19]), of(X + 1, Y), of(X, (Y + 1) % 3), of(X, Y, np.arange(20)), of(X[::-1], Y)]
    assert len({same, *others}) == 6
    assert sorted(order(20, seed=0, epoch=0, shuffle=True)) == list(range(20))


# --- sequences ------------------------------------------------------------------------------------------------------


def two_readers(output, loss="softmax_cross_entropy"):
    """A graph whose output has the steps of b; a gives it its first state, or is added to b."""
    a, b = pl.Input((None, 3)), pl.Input((None, 3))
    return pl.Graph(inputs={"a": a, "b": b}, outputs={"o": output(a, b)}, loss=loss)


def started(a, b):
    return pl.TimeDistributed(pl.Dense(2))(pl.SimpleRNN(4, return_sequences=True)(b, pl.SimpleRNN(4)(a)))


def sequences(*lengths):
    return pl.Sequences([np.ones((T, 3)) for T in lengths])


def test_targets_are_as_long_as_the_input_whose_steps_the_output_has():
    net, x = two_readers(started), {"a": sequences(3, 5), "b": sequences(5, 4)}
    net.evaluate(x, {"o": pl.Sequences([[1] * 5, [0] * 4])})
    with pytest.raises(ShapeError) as caught:
        net.evaluate(x, {"o": pl.Sequences([[1] * 3, [0] * 5])})  # of a, with the padding of b counted
    says(caught.value, "y['o'], example 0", "5 steps, as x['b'] has", "3 steps")


@pytest.mark.parametrize("joined", [pl.Add(), pl.Multiply(), pl.Concat(axis=1)], ids=lambda layer: repr(layer))
def test_sequences_of_other_lengths_are_not_joined_step_by_step(joined):
    net = two_readers(lambda a, b: pl.LSTM(2)(joined(a, b)))
    for a, b in (((5, 5), (6, 6)), ((3, 5), (5, 6)), ((3, 5), (5, 3))):
        with pytest.raises(ShapeError) as caught:
            net.predict({"a": sequences(*a), "b": sequences(*b)})
        says(caught.value, type(joined).__name__, "5")


def test_one_value_at_each_step_needs_no_axis_of_its_own():
    net = make(pl.TimeDistributed(pl.Dense(1)), input_shape=(None, 3), loss="sigmoid_cross_entropy")
    x, y = sequences(3, 5), [[1, 0, 1], [0, 0, 1, 1, 1]]
    with_axis = net.evaluate(x, pl.Sequences([np.array(each)[:, None] for each in y]))
    assert net.evaluate(x, pl.Sequences(y)) == with_axis
    array = np.array([[0, 1, 1], [1, 1, 0]])
    assert net.evaluate(sequences(3, 3), array) == net.evaluate(sequences(3, 3), array[..., None])
    with pytest.raises(ShapeError) as caught:
        net.evaluate(x, pl.Sequences([np.ones((3, 2)), np.ones((5, 2))]))
    says(caught.value, "sequences (T, 1)", "sequences (T, 2)")
