"""The preprocessor: fitted on training rows alone, exact through JSON, and strict with new data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pellucid.data.preprocessor as module
from pellucid.data import Dataset, Preprocessor, load
from pellucid.errors import DataError, ParameterError


@pytest.fixture
def table(tmp_path, rng):
    def make(**options):
        count = 60
        numbers = rng.normal(5, 3, size=(count, 2))
        colours = [["red", "green", "blue"][i % 3] for i in range(count)]
        path = tmp_path / "t.csv"
        path.write_text(
            "a,colour,b,label\n"
            + "".join(
                f"{a},{c},{b},{'xy'[i % 2]}\n" for i, ((a, b), c) in enumerate(zip(numbers, colours, strict=True))
            )
        )
        return load(path, **options), numbers, colours

    return make


def test_numbers_are_standardised_by_the_training_rows_alone(table):
    ds, numbers, _ = table()
    rows = np.arange(0, 60, 2)
    pre = Preprocessor.fit(ds, rows)
    assert np.allclose(pre.mean, numbers[rows].mean(0), rtol=1e-14)
    assert np.allclose(pre.scale, numbers[rows].std(0), rtol=1e-13)
    X = pre.x(ds.take(np.arange(60))[0])
    assert X.dtype == np.float32
    assert np.allclose(X[:, :2], (numbers - numbers[rows].mean(0)) / numbers[rows].std(0), rtol=1e-5, atol=1e-6)
    plain = Preprocessor.fit(ds, rows, standardize=False)
    assert np.array_equal(plain.x(ds.take([3])[0])[0, :2], numbers[3].astype(np.float32))


def test_one_hot_and_embedding(table):
    ds, _, colours = table()
    pre = Preprocessor.fit(ds)
    assert pre.feature_names == ["a", "b", "colour=blue", "colour=green", "colour=red"]
    assert pre.input_shape == (5,)
    X = pre.x(ds.take(slice(None))[0])
    assert [pre.feature_names[2 + i].split("=")[1] for i in X[:, 2:].argmax(1)] == colours
    assert (X[:, 2:].sum(1) == 1).all()
    embedded = Preprocessor.fit(ds, categorical="embedding")
    assert embedded.input_shape == (3,)
    assert embedded.embedding_sizes == {"colour": 4}
    codes = embedded.x(ds.take(slice(None))[0])[:, 2]
    assert [["blue", "green", "red"][int(code)] for code in codes] == colours
    with pytest.raises(ParameterError, match="unknown categorical="):
        Preprocessor.fit(ds, categorical="hash")


def test_levels_come_from_the_training_rows(table):
    ds, _, colours = table()
    rows = [i for i, colour in enumerate(colours) if colour != "blue"]
    pre = Preprocessor.fit(ds, rows)
    assert pre.levels == {"colour": ["green", "red"]}
    assert "no training row has 'blue'" in " ".join(pre.report)
    blue = ds.take([2])[0]
    assert pre.x(blue)[0, 2:].tolist() == [0, 0]
    assert Preprocessor.fit(ds, rows, categorical="embedding").x(blue)[0, 2] == 2
    new = {**blue, "colour": np.array(["violet"])}
    with pytest.raises(DataError, match=r"row 0: column 'colour' holds a category that was not there(.|\n)*'violet'"):
        pre.x(new)
    assert Preprocessor.fit(ds, categorical="embedding").x(new)[0, 2] == 3


def test_columns_go_by_name(table):
    ds, _, _ = table(drop=[])
    pre = Preprocessor.fit(ds)
    raw = ds.take([5, 9])[0]
    expected = pre.x(raw)
    assert np.array_equal(pre.x(dict(reversed(raw.items()))), expected)
    assert np.array_equal(pre.x({**raw, "label": np.array(["x", "y"])}), expected)
    with pytest.raises(DataError, match=r"column 'a' is missing(.|\n)*'a', 'b', 'colour'"):
        pre.x({name: raw[name] for name in ("b", "colour")})
    with pytest.raises(DataError, match=r"column 'c' was not there in training(.|\n)*drop=\['c'\]"):
        pre.x({**raw, "c": raw["a"]})
    with pytest.raises(DataError, match="column 'a' held numbers"):
        pre.x({**raw, "a": np.array(["u", "v"])})
    with pytest.raises(DataError, match=r"trained on named columns(.|\n)*ndarray"):
        pre.x(np.zeros((2, 3)))


@pytest.mark.parametrize("missing", ["mean", "median", "most_frequent"])
def test_imputation_is_fitted_on_the_training_rows(tmp_path, missing):
    values = [1.0, 1.0, 5.0, 9.0, None, 100.0, 3.0, None]
    texts = ["u", "v", "v", "", "u", "u", "u", ""]
    path = tmp_path / "t.csv"
    path.write_text(
        "a,b,y\n"
        + "".join(f"{'' if a is None else a},{b},{i}.5\n" for i, (a, b) in enumerate(zip(values, texts, strict=True)))
    )
    ds = load(path, missing=missing)
    pre = Preprocessor.fit(ds, np.arange(5), standardize=False)
    expected = {"mean": 4.0, "median": 3.0, "most_frequent": 1.0}[missing]
    X = pre.x(ds.take([7])[0])
    assert X[0, 0] == expected
    assert dict(zip(pre.feature_names, X[0].tolist(), strict=True))["b=u"] == 1
    assert pre.fill_level == {"b": "u"}
    assert Preprocessor.from_document(pre.document()).x(ds.take([7])[0]).tolist() == X.tolist()


def test_missing_values_without_imputation_are_refused(table):
    ds, _, _ = table()
    pre = Preprocessor.fit(ds)
    raw = ds.take([0, 1])[0]
    with pytest.raises(DataError, match=r"row 1, column 'b': a value is missing"):
        pre.x({**raw, "b": np.array([1.0, np.nan])})
    with pytest.raises(DataError, match=r"row 0, column 'a': a value is infinite"):
        pre.x({**raw, "a": np.array([np.inf, 1.0])})
    with pytest.raises(DataError, match=r"row 1: column 'colour' has a missing value"):
        pre.x({**raw, "colour": np.array(["red", ""])})
    with pytest.raises(ParameterError, match="unknown missing="):
        Preprocessor.fit(ds, missing="zero")
    with pytest.raises(ParameterError, match="no training rows"):
        Preprocessor.fit(ds, [])


def test_a_column_without_a_value_in_training(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,c,y\n1,,u,0.5\n2,,,1.5\n3,4,,2.5\n4,5,,3.5\n")
    ds = load(path, missing="median")
    with pytest.raises(DataError, match=r"column 'b': there is not a single value"):
        Preprocessor.fit(ds, [0, 1])
    with pytest.raises(DataError, match=r"column 'c': there is not a single value"):
        Preprocessor.fit(ds, [2, 3])


def test_constant_columns_are_reported_and_harmless():
    x = np.stack([np.full(30, 0.1), np.arange(30.0)], 1)
    pre = Preprocessor.fit(Dataset(x, np.arange(30) % 2))
    X = pre.x(x)
    assert np.isfinite(X).all()
    assert np.allclose(X[:, 0], 0)
    assert "1 of 2 inputs have one value" in " ".join(pre.report)
    target = Preprocessor.fit(Dataset(x, np.full(30, 7.5)))
    assert target.y([7.5, 8.5]).tolist() == [[0], [1]]
    assert "the target has one value" in " ".join(target.report)


def test_statistics_do_not_depend_on_the_chunks(rng, monkeypatch):
    x = rng.normal(1e6, 1, size=(500, 3)) * [1, 1e-3, 1e3]
    x[::7, 1] = np.nan
    ds = Dataset(x, np.arange(500) * 0.5, missing="median")
    whole = Preprocessor.fit(ds)
    assert np.allclose(whole.scale, np.nanstd(x, 0), rtol=1e-9)
    assert np.array_equal(whole.fill, np.nanmedian(x, 0))
    monkeypatch.setattr(module, "CHUNK_VALUES", 40)
    pieces = Preprocessor.fit(ds, rng.permutation(500))
    assert np.allclose(pieces.mean, whole.mean, rtol=1e-14)
    assert np.allclose(pieces.scale, whole.scale, rtol=1e-9)
    assert np.array_equal(pieces.fill, whole.fill)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_standardised_by_channel(rng, dtype, monkeypatch):
    pixels = rng.integers(0, 256, (40, 3, 4, 5)).astype(dtype)
    pixels[:, 2] = 9
    ds = Dataset(pixels, np.arange(40) % 2)
    monkeypatch.setattr(module, "CHUNK_VALUES", 700)
    pre = Preprocessor.fit(ds, np.arange(30))
    train = pixels[:30].astype(np.float64)
    assert np.allclose(pre.mean, train.mean((0, 2, 3)), rtol=1e-13)
    assert np.allclose(pre.scale[:2], train.std((0, 2, 3))[:2], rtol=1e-12)
    X = pre.x(ds.take([35, 1])[0])
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    assert np.allclose(X, (pixels[[35, 1]] - pre.mean[:, None, None]) / pre.scale[:, None, None], atol=1e-5)
    assert np.allclose(X[:, 2], 0)
    assert pre.input_shape == (3, 4, 5)
    plain = Preprocessor.fit(ds, standardize=False).x(ds.take([0])[0])
    assert np.allclose(plain, pixels[[0]] / (255 if dtype == np.uint8 else 1))
    with pytest.raises(DataError, match=r"another shape(.|\n)*\(m, 3, 4, 5\)(.|\n)*\(2, 1, 4, 5\)"):
        pre.x(ds.take([0, 1])[0][:, :1])


def test_labels_become_class_indices():
    ds = Dataset(np.arange(8.0).reshape(4, 2), ["b", "a", "c", "a"])
    pre = Preprocessor.fit(ds)
    assert pre.y(ds.take([0, 1, 2, 3])[1]).tolist() == [1, 0, 2, 0]
    assert pre.y(np.array(["c"])).dtype == np.int64
    with pytest.raises(DataError, match=r"label 'd' was not there in training(.|\n)*'a', 'b', 'c'"):
        pre.y(["a", "d"])
    named = Preprocessor.fit(Dataset(np.arange(8.0).reshape(4, 2), [1, 0, 1, 0], classes=["no", "yes"]))
    assert named.y([1, 0]).tolist() == [1, 0]
    assert named.y([1.0, 0.0]).tolist() == [1, 0]
    assert named.y(["yes", "no"]).tolist() == [1, 0]
    with pytest.raises(DataError, match="label '2' was not there"):
        named.y([2])
    sparse = Preprocessor.fit(Dataset(np.arange(8.0).reshape(4, 2), [-1, 7, -1, 7], task="classification"))
    assert sparse.y([7, -1]).tolist() == [1, 0]


def test_regression_targets_are_standardised_and_come_back(rng):
    y = rng.normal(100, 20, size=(50, 2))
    ds = Dataset(rng.normal(size=(50, 3)), y)
    rows = np.arange(30)
    pre = Preprocessor.fit(ds, rows)
    Y = pre.y(ds.take(slice(None))[1])
    assert Y.dtype == np.float32
    assert np.allclose(Y, (y - y[rows].mean(0)) / y[rows].std(0), atol=1e-5)
    assert np.allclose(pre.inverse_y(Y), y, rtol=1e-6)
    single = Preprocessor.fit(Dataset(np.zeros((50, 1)), y[:, 0]), standardize=False)
    assert single.y(y[:3, 0]).shape == (3, 1)
    assert np.array_equal(single.inverse_y(single.y(y[:3, 0])), y[:3, :1].astype(np.float32))
    with pytest.raises(DataError, match=r"targets cannot be used(.|\n)*\(m, 2\)"):
        pre.y(y[:, 0])
    with pytest.raises(DataError, match="with NaN or infinity"):
        pre.y(np.full((2, 2), np.nan))


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(2, 8), st.integers(1, 4)), elements=st.floats(-1e30, 1e30)),
    st.booleans(),
)
def test_the_document_is_exact(x, standardize):
    pre = Preprocessor.fit(Dataset(x, np.arange(len(x)) * 0.1), standardize=standardize)
    back = Preprocessor.from_document(json.loads(json.dumps(pre.document(), allow_nan=False)))
    for name in ("mean", "scale", "target_mean", "target_scale"):
        assert getattr(back, name).tobytes() == getattr(pre, name).tobytes()
    assert back.document() == pre.document()
    assert back.x(x).tobytes() == pre.x(x).tobytes()


def test_the_document_of_a_table_is_exact(table):
    ds, _, _ = table()
    pre = Preprocessor.fit(ds, categorical="embedding")
    back = Preprocessor.from_document(json.loads(json.dumps(pre.document())))
    raw, labels = ds.take(slice(None))
    assert back.x(raw).tobytes() == pre.x(raw).tobytes()
    assert back.y(labels).tolist() == pre.y(labels).tolist()
    assert back.document() == pre.document()


def test_numbers_too_large_for_the_arithmetic():
    x = np.array([[1e39], [2.0], [3.0]])
    ds = Dataset(x, [0, 1, 0])
    with pytest.raises(DataError, match=r"x\[0, 0\]: a number is too large for float32(.|\n)*1e\+39"):
        Preprocessor.fit(ds, standardize=False).x(x)
    with pytest.raises(DataError, match=r"too large to be standardised(.|\n)*1e\+200"):
        Preprocessor.fit(Dataset(x * 1e161, [0, 1, 0]))


def test_a_document_that_is_not_one(table):
    document = Preprocessor.fit(table()[0]).document()
    for damaged in (
        {**document, "format": 2},
        {**document, "more": 1},
        {k: v for k, v in document.items() if k != "mean"},
    ):
        with pytest.raises(DataError, match="another version of pellucid, or is damaged"):
            Preprocessor.from_document(damaged)
