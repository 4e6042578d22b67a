"""Time series: complete and in order, cut into windows that never show a part what comes after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import data
from pellucid.data.series import Windows, fill_gaps
from pellucid.data.storage import FileRows
from pellucid.errors import DataError, ParameterError


def covered(windows):
    """Every step that a part sees as input, and as target."""
    base = np.arange(len(windows.values))
    bare = Windows(
        base,
        windows.length,
        windows.horizon,
        every_step=windows.every_step,
        stride=windows.stride,
        part=windows.part,
    )
    return bare.take(np.arange(len(bare)))


@given(
    count=st.integers(40, 120),
    length=st.integers(1, 6),
    horizon=st.integers(1, 4),
    stride=st.integers(1, 3),
    every_step=st.booleans(),
)
def test_no_part_sees_what_comes_after_it(count, length, horizon, stride, every_step):
    values = np.arange(float(count))
    options = {"stride": stride, "every_step": every_step}
    parts = data.windows(values, length, horizon, validation=0.3, test=0.3, standardize=False, **options)
    edges = [0, count - 2 * round(0.3 * count), count - round(0.3 * count), count]
    for part, low, high in zip(parts, edges, edges[1:], strict=False):
        x, y = covered(part)
        assert ((low <= y) & (y < high)).all()
        assert x.min() >= 0
        assert x.max() < high
        if every_step:
            assert np.array_equal(y, x + horizon)
        else:
            assert np.array_equal(y[:, 0], x[:, -1] + 1)
            assert (np.diff(np.concatenate([x, y], axis=1)) == 1).all()
        # nothing is wasted: one more step would leave the part
        assert y.max() + stride >= high
        assert x.min() == 0 or y.min() == low


def test_windows_of_one_column():
    windows = Windows(np.arange(10.0), 3, 2)
    x, y = windows.take([0, 5])
    assert x.tolist() == [[[0], [1], [2]], [[5], [6], [7]]]
    assert y.tolist() == [[3, 4], [8, 9]]
    assert (len(windows), x.dtype, y.dtype) == (6, np.float32, np.float32)
    with pytest.raises(IndexError):
        windows.take([6])


def test_windows_of_several_columns():
    values = np.stack([np.arange(10.0), np.arange(10.0) * 100], axis=1)
    x, y = Windows(values, 3, 2, targets=[1]).take([1])
    assert x[0].tolist() == [[1, 100], [2, 200], [3, 300]]
    assert y.tolist() == [[400, 500]]
    assert Windows(values, 3, 2).take([1])[1].tolist() == [[[4, 400], [5, 500]]]
    assert Windows(values, 2, 3, every_step=True, targets=[0]).take([0])[1].tolist() == [[[3], [4]]]


def test_ids_stay_ids():
    x, y = Windows(np.arange(10), 4, 1, every_step=True, stride=4).take([1])
    assert (x.tolist(), y.tolist(), x.dtype) == ([[4, 5, 6, 7]], [[5, 6, 7, 8]], np.int64)
    parts = data.windows(np.arange(100, dtype=np.uint16), 4, every_step=True)
    assert parts.train.take([0])[0].dtype == np.uint16


def test_only_training_steps_say_mean_and_scale():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal([5, 1000], [2, 9], size=(700, 2)), np.full((300, 2), 1e6)])
    parts = data.windows(values, 5, 2, validation=0.2, test=0.1)
    for part in parts:
        assert np.allclose(part.mean, values[:700].mean(0))
        assert np.allclose(part.scale, values[:700].std(0))
    x, y = parts.train.take([3])
    assert np.allclose(parts.train.inverse(y)[0], values[8:10], atol=1e-3)
    assert np.allclose(x[0], (values[3:8] - values[:700].mean(0)) / values[:700].std(0), atol=1e-5)
    single = data.windows(values, 5, 2, targets=[1])
    assert np.allclose(single.train.inverse(single.train.take([3])[1])[0], values[8:10, 1], atol=1e-3)
    assert data.windows(np.full(100, 7.0), 5).train.take([0])[0].tolist() == [[[0]] * 5]


def test_a_series_in_a_file_is_read_window_by_window(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    path = tmp_path / "long"
    values.tofile(path)
    rows = FileRows(path, np.float32, values.shape)
    asked = []
    read = FileRows.__getitem__
    monkeypatch.setattr(FileRows, "__getitem__", lambda self, at: asked.append(np.size(at)) or read(self, at))
    from_file, from_memory = data.windows(rows, 8, 3), data.windows(values, 8, 3)
    asked.clear()
    for part, same in zip(from_file, from_memory, strict=True):
        for got, wanted in zip(part.take([7, 3]), same.take([7, 3]), strict=True):
            assert np.allclose(got, wanted, atol=1e-6)
    assert max(asked) <= 2 * 8


def test_forecasts_that_need_no_learning():
    season = np.tile([10.0, 20.0, 30.0], 20) + np.arange(60) // 3
    part = Windows(season, 4, 5, part=(30, 60))
    last = part.naive([2])
    assert last.tolist() == [[season[part.first + 2 + 3]] * 5]
    start = part.first + 2 + 4
    seasonal = part.naive([2], season=3)[0]
    assert seasonal.tolist() == season[[start - 3, start - 2, start - 1, start - 3, start - 2]].tolist()
    exact = Windows(np.tile([1.0, 2.0, 3.0], 20), 4, 5, part=(30, 60), mean=1.5, scale=2.0)
    assert np.allclose(exact.naive(season=3), exact.take(slice(None))[1])
    for wrong, of in ((35, part), (0, part), (1, Windows(season, 4, every_step=True))):
        with pytest.raises(ParameterError, match=r"no season before(.|\n)*every_step=False"):
            of.naive(season=wrong)


def test_gaps():
    values = np.array([1.0, np.nan, np.nan, 4.0, np.nan])
    assert fill_gaps(values).tolist() == [1, 1, 1, 4, 4]
    assert fill_gaps(values[:4], "interpolate").tolist() == [1, 2, 3, 4]
    with pytest.raises(DataError, match="nothing beside it"):
        fill_gaps(values, "interpolate")
    with pytest.raises(DataError, match="nothing beside it"):
        fill_gaps(values[1:])
    with pytest.raises(ParameterError, match=r"carry or interpolate(.|\n)*'mean'"):
        fill_gaps(values, "mean")


def test_what_cannot_be_cut():
    with pytest.raises(DataError, match=r"steps 0 to 10: there are too few steps(.|\n)*length=9 and horizon=2"):
        Windows(np.arange(10.0), 9, 2)
    assert len(Windows(np.arange(10.0), 8, 2)) == 1
    for wrong in ({"length": 0}, {"horizon": 0}, {"stride": 1.5}):
        with pytest.raises(ParameterError, match="is a whole number from 1"):
            Windows(np.arange(10.0), **{"length": 2, **wrong})
    with pytest.raises(ParameterError, match=r"no such column(.|\n)*0 … 0"):
        Windows(np.arange(10.0), 2, targets=[1])
    with pytest.raises(ParameterError, match="each part needs a share"):
        data.windows(np.arange(10.0), 2, validation=0.5, test=0.5)
    with pytest.raises(DataError, match=r"not finite(.|\n)*fill_gaps"):
        data.windows(np.array([1, np.nan] * 50), 2)


def test_a_file_of_weeks_with_gaps(tmp_path):
    path = tmp_path / "co2.csv"
    path.write_text("date,co2\n19580329,316.1\n19580405,\n19580412,317.7\n19580426,318.5\n")
    series = data.time_series("co2", path)
    assert series.values.tolist() == [316.1, 316.1, 317.7, 317.7, 318.5]  # one week empty, one not there at all
    assert series.times.astype(str).tolist()[-2:] == ["1958-04-19", "1958-04-26"]
    assert "2 weeks of 5 without a measurement: the last value is carried" in series.report[0]
    line = data.time_series("co2", path, gaps="interpolate")
    assert np.allclose(line.values, [316.1, 316.9, 317.7, 318.1, 318.5])
    assert "on a line between" in line.report[0]
    path.write_text("day,co2\n1,2\n")
    with pytest.raises(DataError, match="not the file of the series"):
        data.time_series("co2", path)
    with pytest.raises(ParameterError, match=r"unknown series 'co'(.|\n)*'co2'"):
        data.time_series("co")


@pytest.mark.parametrize(
    ("name", "shape", "first", "last", "season", "gaps"),
    [
        ("co2", (2284,), "1958-03-29", "2001-12-29", 52, 59),
        ("sunspots", (309,), "1700", "2008", 11, 0),
        ("sf-temps", (8760,), "2010-01-01T00", "2010-12-31T23", 24, 1),
        ("seattle-weather", (1461, 4), "2012-01-01", "2015-12-31", 365, 0),
    ],
)
def test_the_real_series(have, name, shape, first, last, season, gaps):
    have(name)
    series = data.time_series(name)
    assert series.values.shape == shape
    assert (str(series.times[0]), str(series.times[-1]), series.season) == (first, last, season)
    assert np.isfinite(series.values).all()
    assert [sentence.split()[0] for sentence in series.report] == [str(gaps)] * bool(gaps)
