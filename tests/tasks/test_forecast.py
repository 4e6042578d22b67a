"""Forecasts: windows seen from their last value, parts in the order of time, and forecasts that need no learning."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.data.series import Windows
from pellucid.errors import DataError, ParameterError
from pellucid.network import load
from pellucid.tasks.forecast import Changes, Forecast, read_series

SEASON = 6


@pytest.fixture
def wave(tmp_path):
    """A series that grows and swings, too far at its end for what its beginning knew."""
    t = np.arange(400)
    values = 0.05 * t + np.sin(2 * np.pi * t / SEASON) + 100
    np.save(tmp_path / "wave.npy", values)
    return tmp_path / "wave.npy"


def task(path, split=(0.1, 0.2), data=None, **own) -> Forecast:
    return Forecast(
        {
            "data": {"source": str(path), **(data or {})},
            "split": {"validation": split[0], "test": split[1], "seed": 0},
            "task": {"kind": "forecast", "length": 12, "horizon": 4, "season": SEASON, **own},
        }
    )


def test_changes_are_from_the_last_known_value_and_come_back_in_units():
    values = np.arange(60.0).reshape(30, 2) ** 1.5
    windows = Windows(values, 5, 3, targets=[1], mean=[3.0, 4.0], scale=[2.0, 5.0])
    rows = Changes(windows)
    x, y = rows.take(np.array([0, 4]))
    assert (x[:, -1] == 0).all()
    assert x[1, 0, 0] == pytest.approx((values[4, 0] - values[8, 0]) / 2, rel=1e-6)
    assert y[1] == pytest.approx((values[9:12, 1] - values[8, 1]) / 5, rel=1e-6)
    assert rows.truth(np.array([4]))[0, :, 0] == pytest.approx(values[9:12, 1], rel=1e-6)

    class Same:
        """Says that nothing changes."""

        def predict(self, x):
            return np.zeros((len(x), 3), np.float32)

    assert rows.forecasts(Same(), np.array([4]))[0, :, 0] == pytest.approx([values[8, 1]] * 3, rel=1e-6)
    assert rows.naive(np.array([4]))[0, :, 0] == pytest.approx([values[8, 1]] * 3, rel=1e-6)


def test_the_baselines_are_what_they_are_called():
    t = np.arange(50.0)
    values = 2 * t + (t % 5 == 0)
    rows = Changes(Windows(values, 12, 8))
    first = np.array([0])
    truth = rows.truth(first)[0, :, 0]
    assert truth == pytest.approx(values[12:20])
    seasonal = rows.naive(first, 5)[0, :, 0]
    assert seasonal == pytest.approx(values[[7, 8, 9, 10, 11, 7, 8, 9]])
    assert rows.naive(first, 5, growing=True)[0, :, 0] == pytest.approx(truth)  # steady growth is all there is


def test_no_part_sees_what_comes_after_it(wave):
    made = task(wave)
    values = np.load(wave)
    train, test = made.rows("train").windows, made.rows("test").windows
    assert train.part[1] <= made.rows("validation").windows.part[0] < test.part[0] == 320
    assert train.mean[0] == pytest.approx(values[:280].mean())
    latest = train.first + len(train) - 1 + train.length + train.horizon
    assert latest <= 280
    assert test.first + test.length >= 320  # no target of the test part lies before it


def test_a_growing_wave_is_forecast_beyond_the_levels_of_training(wave):
    made = task(wave)
    net, training = made.settled("lstm", {"hidden": [16], "dropout": 0.0, "epochs": 12, "optimizer": "adam(1e-2)"})
    made.fit(net, training, progress=False)
    found = made.measure(net, made.rows("test"), [])
    baselines = found.document["baselines"]
    assert baselines["naive (the last value)"]["mean_absolute_error"] > 0.8
    assert baselines[f"seasonal naive (a season of {SEASON} ago)"]["mean_absolute_error"] == pytest.approx(
        0.3, abs=0.01
    )
    exact = baselines["seasonal naive, and what the last season added"]["mean_absolute_error"]
    assert exact == pytest.approx(0, abs=1e-4)
    assert found.values["mean_absolute_error"] < 0.2
    assert "the network loses: seasonal naive, and what the last season added is nearer" in found.note
    assert found.document["better_than_baselines"] is False


def test_what_follows_the_end_is_forecast_from_the_end(wave, tmp_path):
    made = task(wave)
    net, training = made.settled("gru", {"hidden": [16], "dropout": 0.0, "epochs": 12, "optimizer": "adam(1e-2)"})
    made.fit(net, training, progress=False)
    net.save(tmp_path / "net.pellucid")
    said = Forecast.predict(load(tmp_path / "net.pellucid"), str(wave))
    t = 400 + np.arange(4)
    assert said.columns["time"] == ["400", "401", "402", "403"]
    assert said.columns["value"] == pytest.approx(0.05 * t + np.sin(2 * np.pi * t / SEASON) + 100, abs=0.4)
    found, count = Forecast.evaluate(load(tmp_path / "net.pellucid"), str(wave), None)
    assert count == 400 - 12 - 4 + 1
    assert found.values["mean_absolute_error"] < 0.2


@pytest.mark.parametrize("horizon", [4, 1])
def test_a_picture_shows_forecasts_beside_the_truth(wave, tmp_path, horizon):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from PIL import Image

    made = task(wave, horizon=horizon)
    net, _ = made.settled("rnn", {"hidden": [4]})
    made.measure(net, made.rows("test"), []).pictures["forecast.png"](tmp_path / "forecast.png")
    pixels = np.asarray(Image.open(tmp_path / "forecast.png").convert("RGB")).reshape(-1, 3)
    for color in ((0, 0, 0), (0xD5, 0x5E, 0), (0x99, 0x99, 0x99)):
        assert (np.abs(pixels.astype(int) - color).sum(1) < 12).sum() > 50


def test_a_series_longer_than_memory_stays_on_disk(wave):
    series, _, _ = read_series(str(wave))
    assert isinstance(series.values, np.memmap)
    assert isinstance(task(wave).rows("train").windows.values, np.memmap)


def test_a_column_of_a_table_is_a_series(tmp_path):
    rows = "\n".join(f"{day},{2 * day + 1}.5" for day in range(60))
    (tmp_path / "table.csv").write_text(f"day,height\n{rows}\n")
    made = task(tmp_path / "table.csv", data={"target": "height"})
    assert made.targets == ["height"]
    assert made.rows("train").truth(np.array([0]))[0, :, 0] == pytest.approx([25.5, 27.5, 29.5, 31.5], rel=1e-5)


def test_of_the_other_columns_of_a_table_nothing_is_asked(tmp_path, monkeypatch):
    days = np.datetime64("2024-01-01") + np.arange(60)
    heights = ["" if i in (7, 8) else f"{2 * i}" for i in range(60)]
    rows = [f"{day},{height},note {i} of many" for i, (day, height) in enumerate(zip(days, heights, strict=True))]
    (tmp_path / "table.csv").write_text("\n".join(["day,height,note", *rows]))
    series, _, _ = read_series(str(tmp_path / "table.csv"), "height")
    assert series.values[5:11].tolist() == [10, 12, 12, 12, 18, 20]
    assert "2 gaps are filled with the last value measured" in series.report
    for column, holds in (("day", "dates"), ("note", "texts")):
        with pytest.raises(
            DataError, match=rf"'{column}' holds no numbers(.|\n)*got: +{holds}(.|\n)*another: .*height"
        ):
            read_series(str(tmp_path / "table.csv"), column)
    (tmp_path / "alone.csv").write_text("\n".join(["height", *map(str, range(60))]))
    monkeypatch.chdir(tmp_path)
    made = task(tmp_path / "alone.csv")
    assert made.targets == ["height"]
    assert made.next_steps(tmp_path / "run")[0][0] == f"pellucid predict {tmp_path / 'run'} alone.csv"


def test_several_columns_are_read_and_one_is_forecast(tmp_path):
    np.save(tmp_path / "two.npy", np.random.default_rng(0).normal(size=(200, 2)))
    made = task(tmp_path / "two.npy", data={"target": "1"})
    assert made.input_shape == (12, 2)
    assert made.outputs(made.loss(None)) == 4
    assert task(tmp_path / "two.npy").outputs(made.loss(None)) == 8


def test_what_cannot_be_forecast_is_refused(wave, tmp_path):
    with pytest.raises(DataError, match="there is no such series"):
        read_series("mars")
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    with pytest.raises(DataError, match="no series"):
        read_series(str(tmp_path / "text.npy"))
    np.save(tmp_path / "objects.npy", np.array([1, "a"], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="no array of numbers"):
        read_series(str(tmp_path / "objects.npy"))
    with pytest.raises(ParameterError, match=r"unknown column '7'"):
        read_series(str(wave), "7")
    with pytest.raises(DataError, match="too few steps for a single example"):
        task(wave, horizon=90)
    with pytest.raises(ParameterError, match="of a series a share is held out"):
        task(wave, split=(0.1, 0))
    with pytest.raises(ParameterError, match="does not fit a forecast"):
        task(wave).loss("softmax_cross_entropy")
    with pytest.raises(ParameterError, match="is measured by what belongs to it"):
        task(wave).metrics(["accuracy"])
    made = task(wave)
    net, _ = made.settled("rnn", {"hidden": [4]})
    net.preprocessing = made.preprocessing()
    np.save(tmp_path / "short.npy", np.zeros(5))
    with pytest.raises(DataError, match="the series is too short"):
        Forecast.predict(net, str(tmp_path / "short.npy"))
    np.save(tmp_path / "two.npy", np.zeros((50, 2)))
    with pytest.raises(DataError, match="another number of columns than in training"):
        Forecast.predict(net, str(tmp_path / "two.npy"))
    with pytest.raises(ParameterError, match="no probabilities"):
        Forecast.predict(net, str(wave), probabilities=True)
