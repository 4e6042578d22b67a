"""Sequences of different lengths as a data set: read, taken, standardised over the steps of the training examples."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pellucid import data
from pellucid.data import Dataset, Preprocessor
from pellucid.data.prepared import Prepared
from pellucid.errors import DataError, ParameterError
from pellucid.sequences import Sequences

TS = """\
#a comment
@problemName tiny
@classLabel true up down
@data
1,2,3:10,20,30:up
4,5:40,50:down
"""


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def walks(rng):
    return [rng.normal([3, -40], [2, 0.1], size=(length, 2)) for length in (4, 1, 6, 3)]


def test_a_ts_file(tmp_path):
    path = tmp_path / "tiny.ts"
    path.write_text(TS)
    ds = data.load(path)
    x, y = ds.take([1, 0])
    assert (ds.kind, ds.example_shape, ds.task) == ("sequence", (None, 2), "classification")
    assert [each.tolist() for each in x] == [[[4, 40], [5, 50]], [[1, 10], [2, 20], [3, 30]]]
    assert y.tolist() == ["down", "up"]
    assert data.load(path, target=False).y is None
    path.write_text(TS.replace("true up down", "false").replace(":up", "").replace(":down", ""))
    assert data.load(path).y is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((":10,20,30", ":10,20"), r"line 5: the features have different numbers of steps(.|\n)*\[2, 3\]"),
        (("4,5", "4,?"), "line 6: a step is not a number"),
        (("1,2,3:10,20,30:up\n4,5:40,50:down\n", ""), r"tiny.ts: there is not a single sequence(.|\n)*@data"),
    ],
)
def test_a_ts_file_that_cannot_be_read(tmp_path, change, said):
    path = tmp_path / "tiny.ts"
    path.write_text(TS.replace(*change))
    with pytest.raises(DataError, match=said):
        data.load(path)


def test_each_feature_is_standardised_over_all_steps_of_the_training_examples(walks):
    ds = Dataset(Sequences(walks), [0, 1, 0, 1], name="walks")
    pre = Preprocessor.fit(ds, rows=[0, 2, 3])
    steps = np.concatenate([walks[0], walks[2], walks[3]])
    assert np.allclose(pre.mean, steps.mean(0))
    assert np.allclose(pre.scale, steps.std(0))
    assert pre.input_shape == (None, 2)
    X = pre.x(ds.take([1, 2])[0])
    assert isinstance(X, Sequences)
    assert X.dtype == np.float32
    for made, walk in zip(X, (walks[1], walks[2]), strict=True):
        assert np.allclose(made, (walk - steps.mean(0)) / steps.std(0), atol=1e-5)
    again = Preprocessor.from_document(json.loads(json.dumps(pre.document())))
    assert np.array_equal(again.x(ds.take([1, 2])[0]).values, X.values)
    assert np.array_equal(again.x([walks[1], walks[2]]).values, X.values)


def test_sequences_of_one_length_have_the_same_moments(rng):
    x = rng.normal([3, -40], [2, 0.1], size=(5, 7, 2))
    ds = Dataset(x, [0, 1, 0, 1, 1], sequences=True)
    pre = Preprocessor.fit(ds, rows=[0, 1, 4])
    ragged = Preprocessor.fit(Dataset(Sequences(list(x)), ds.y), rows=[0, 1, 4])
    assert (ds.kind, pre.input_shape) == ("sequence", (7, 2))
    assert np.allclose(pre.mean, ragged.mean)
    assert np.allclose(pre.scale, ragged.scale)
    assert np.allclose(pre.x(x), np.stack(list(ragged.x(list(x)))))
    assert Preprocessor.fit(Dataset(x, ds.y)).mean.shape == (7, 2)  # without being told: element by element


def test_ids_stay_as_they_are():
    ds = Dataset(Sequences([[5, 7, 7], [9]]), [0, 1])
    pre = Preprocessor.fit(ds)
    assert pre.input_shape == (None,)
    assert [each.tolist() for each in pre.x(ds.take([0, 1])[0])] == [[5, 7, 7], [9]]
    pixels = Dataset(Sequences([np.array([[1], [3]])]), ["a"], need_classes=False)
    assert Preprocessor.fit(pixels).mean.tolist() == [2]


def test_missing_steps_are_filled_from_the_training_examples(walks):
    walks[2][1, 0] = np.nan
    with pytest.raises(DataError, match=r"1 value is NaN(.|\n)*missing='mean'") as problem:
        Dataset(Sequences(walks), [0, 1, 0, 1], name="walks")
    assert problem.value.where == "walks, first in sequence 2 at [1, 0]"
    ds = Dataset(Sequences(walks), [0, 1, 0, 1], missing="median")
    pre = Preprocessor.fit(ds)
    assert np.isclose(pre.fill[0], np.nanmedian(np.concatenate(walks)[:, 0]))
    filled = pre.x(ds.take([2])[0])[0][1, 0]
    assert np.isclose(filled, (pre.fill[0] - pre.mean[0]) / pre.scale[0], atol=1e-6)
    walks[2][1, 0] = np.inf
    with pytest.raises(DataError, match=r"sequence 2 at \[1, 0\]: 1 value is infinite"):
        Dataset(Sequences(walks), [0, 1, 0, 1], name="walks")


def test_other_steps_than_in_training_are_refused(walks):
    pre = Preprocessor.fit(Dataset(Sequences(walks), [0, 1, 0, 1]))
    with pytest.raises(DataError, match=r"steps have another shape(.|\n)*\(T, 2\)(.|\n)*\(T, 3\)"):
        pre.x([np.zeros((4, 3))])
    with pytest.raises(DataError, match=r"no sequences(.|\n)*\(m, T, …\)"):
        Dataset(np.zeros(4), [0, 1, 0, 1], sequences=True)
    with pytest.raises(ParameterError, match="no training rows"):
        Preprocessor.fit(Dataset(Sequences(walks), [0, 1, 0, 1]), rows=[])


def test_prepared_rows_come_whole_or_as_they_are_asked_for(walks):
    ds = Dataset(Sequences(walks), ["a", "b", "a", "b"])
    prepared = Prepared(ds, Preprocessor.fit(ds), np.array([3, 0]))
    x, y = prepared.arrays()
    assert [len(each) for each in x] == [3, 4]
    assert y.tolist() == [1, 0]
    assert prepared.arrays(limit=8) == (prepared, None)


def test_a_fingerprint_tells_lengths_apart():
    steps = np.arange(6.0)[:, None]
    prints = {Dataset(Sequences([steps[:k], steps[k:]]), [0, 1]).fingerprint for k in (2, 3)}
    assert len(prints) == 2


def test_the_real_vowels(have):
    have("japanese-vowels")
    ds = data.load("japanese-vowels")
    assert (len(ds), ds.example_shape, len(ds.classes)) == (640, (None, 12), 9)
    train = np.setdiff1d(np.arange(640), ds.test_rows)
    assert np.bincount(ds.y[train]).tolist() == [30] * 9
    assert np.bincount(ds.y[ds.test_rows]).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]  # as the archive says
    lengths = ds.take(slice(None))[0].lengths
    assert (lengths.min(), lengths.max()) == (7, 29)
    steps = Preprocessor.fit(ds, train)
    X = steps.x(ds.take(train)[0]).values
    assert np.allclose(X.mean(0), 0, atol=1e-5)
    assert np.allclose(X.std(0), 1, atol=1e-5)
