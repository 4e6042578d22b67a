"""Networks that hear: what they are given, what they learn from tones, what is said of recordings, and the sheet."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from pellucid import zoo
from pellucid.cli import main
from pellucid.data import speech
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.inspect.receptive_field import receptive_field
from pellucid.tasks import find, made, sound

RATE = 8000
WORDS = {"fall": (2400.0, 500.0), "hold": (1200.0, 1200.0), "rise": (500.0, 2400.0)}


def said(word: str, rng: np.random.Generator, rate: int = RATE, seconds: float = 0.2) -> np.ndarray:
    """A tone that rises, falls or stays where it is: what tells them apart is how the spectrum changes."""
    t = np.arange(round(seconds * rate)) / rate
    first, last = np.multiply(WORDS[word], rng.uniform(0.95, 1.05))
    phase = 2 * np.pi * (first * t + (last - first) * t**2 / (2 * seconds))
    return np.sin(phase) * np.hanning(len(t)) ** 0.5 + rng.normal(0, 0.01, len(t))


def tone(frequency: float, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.sin(2 * np.pi * frequency * t) * np.hanning(len(t))


def written(path: Path, signal: np.ndarray, rate: int = RATE) -> Path:
    """A WAV file of 16 bits; (n, channels) where there are several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if signal.ndim == 1 else signal.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.asarray(signal) * 30000).clip(-32767, 32767).astype("<i2").tobytes())
    return path


def run(*arguments: object) -> int:
    return main([str(each) for each in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three words, 12 recordings of each."""
    rng, home = np.random.default_rng(0), tmp_path_factory.mktemp("sounds") / "tones"
    for word in WORDS:
        for i in range(12):
            written(home / word / f"{i:02}.wav", 0.8 * said(word, rng, seconds=rng.uniform(0.16, 0.24)))
    return home


@pytest.fixture(scope="module", params=["sound-cnn", "sound-rnn"])
def trained(request, folder, tmp_path_factory):
    """A run of each network on the tones."""
    home = tmp_path_factory.mktemp(request.param) / "run"
    size = ("--width", 6) if request.param == "sound-cnn" else ("--hidden", "8")
    command = ("train", folder, "--net", request.param, *size, "--dropout", 0, "--epochs", 12, "--batch-size", 8)
    assert run(*command, "--validation", 6, "--test", 6, "--out", home, "--quiet", "--no-plot") == 0
    return home


# --- what a network is given -----------------------------------------------------------------------------------------


def test_equalising_takes_away_what_a_line_does():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=4000)
    spectrum = np.fft.rfft(signal)
    tilted = np.fft.irfft(spectrum * 10 ** (-np.linspace(0, 20, len(spectrum)) / 20), len(signal))
    plain, again = sound.equalised(signal, RATE), sound.equalised(tilted, RATE)
    assert np.square(again).mean() == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(signal, tilted)[0, 1] < 0.95 < np.corrcoef(plain, again)[0, 1]
    power = np.abs(np.fft.rfft(again)) ** 2
    halves = power[:1000].mean(), power[1000:].mean()
    assert 0.75 < halves[0] / halves[1] < 1.35  # 20 dB of tilt before


def test_equalising_is_its_formula():
    signal = np.random.default_rng(1).normal(size=300)
    X = np.fft.rfft(signal)
    half = round(100 * 300 / RATE)
    P = np.pad(np.abs(X) ** 2, half, mode="edge")
    around = np.array([P[k : k + 2 * half + 1].mean() for k in range(len(X))])
    expected = np.fft.irfft(X / np.sqrt(around + (np.abs(X) ** 2).mean() / 100), 300)
    np.testing.assert_allclose(
        sound.equalised(signal, RATE), expected / np.sqrt((expected**2).mean()), rtol=1e-4, atol=1e-5
    )


def test_hearing_the_waveform():
    rng = np.random.default_rng(0)
    hearing = sound.Hearing("waveform", RATE, 2000)
    signal = tone(500, 0.1)
    x = hearing(signal)
    assert x.shape == hearing.shape == (1, 2000)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[0, 600:1400], sound.equalised(signal, RATE))
    assert not x[0, :600].any()
    assert not x[0, 1400:].any()
    long = rng.normal(size=2600)
    np.testing.assert_array_equal(hearing(long)[0], sound.equalised(long[300:2300], RATE))


def test_hearing_the_spectrum_does_not_mind_a_line_or_a_volume():
    rng = np.random.default_rng(0)
    hearing = sound.Hearing("log-mel", RATE, 8000)
    signal = rng.normal(size=3000).astype(np.float32)
    x = hearing(signal)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(hearing(0.01 * signal), x, atol=1e-3)
    line = np.convolve(signal, [1, 0.5])[:3000]
    assert np.abs(hearing(line) - x).mean() < 0.1 * np.abs(x).mean() * 2


def test_variations_are_drawn_and_repeatable():
    signal = tone(500, 0.3).astype(np.float32)
    made = [sound.varied(signal, RATE, np.random.default_rng(seed)) for seed in range(40)]
    again = sound.varied(signal, RATE, np.random.default_rng(0))
    np.testing.assert_array_equal(made[0], again)
    lengths = np.array([len(each) for each in made])
    assert lengths.min() >= 0.81 * len(signal)
    assert lengths.max() <= 1.23 * len(signal) + 0.16 * RATE
    peaks = np.array([np.abs(np.fft.rfft(each, 1 << 14)).argmax() * RATE / (1 << 14) for each in made])
    assert ((peaks > 400) & (peaks < 620)).all()
    assert peaks.std() > 20


def test_an_epoch_holds_every_signal_so_often(folder):
    task = made(_described(folder))
    rows, plain = task.arrays("train")[0], task.rows("train")
    assert len(rows) == sound.COPIES * len(plain) == sound.COPIES * task.sizes["train"]
    x, y = rows.take(np.array([1, 1 + len(plain), 1]))
    assert len(set(y.tolist())) == 1
    assert not np.array_equal(x[0], x[1])
    np.testing.assert_array_equal(x[0], x[2])
    np.testing.assert_array_equal(plain.take([1])[0][0], task.hearing(plain.signals[1]))
    assert task.fingerprint == made(_described(folder)).fingerprint


def _described(source, net="sound-cnn", validation=6, test=6):
    split = {"validation": validation, "test": test, "seed": 0}
    return {"net": str(net), "data": {"source": str(source)}, "split": split, "task": {"kind": "sound"}}


def test_a_file_says_whether_samples_go_in(folder, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('input_shape = [1, 1800]\nlayers = ["flatten", "dense"]\n')
    assert made(_described(folder, file)).input_shape == (1, 1800)
    file.write_text('layers = [{type = "gru", units = 4}, "dense"]\n')
    assert made(_described(folder, file)).input_shape == (None, 26)


def test_which_data_are_sounds(folder, tmp_path):
    assert find(str(folder)) is find("spoken-digits") is find("x", net="sound-rnn") is sound.Sound
    assert find(str(tmp_path)) is not sound.Sound
    shutil.copytree(folder / "hold", tmp_path / "one" / "hold")
    with pytest.raises(DataError, match="one word only"):
        made(_described(tmp_path / "one", validation=2, test=2))


# --- the networks -----------------------------------------------------------------------------------------------------


def test_gradients(rng):
    net = zoo.find("sound-cnn").build((1, 1400), 3, width=2, dropout=0.0, loss="softmax_cross_entropy")
    pl.check_gradients(net, rng.normal(size=(1, 1400, 3)), np.array([0, 2, 1]), entries=1).assert_passed()
    net = zoo.find("sound-rnn").build((None, 5), 3, hidden=(3,), dropout=0.0, loss="softmax_cross_entropy")
    pl.check_gradients(net, rng.normal(size=(4, 5, 2)), np.array([0, 2])).assert_passed()


def test_what_the_units_hear_is_what_the_page_says():
    net = zoo.find("sound-cnn").example()
    hears = [receptive_field(net, f"conv1d_{stage}").size[0] for stage in range(1, 6)]
    assert hears == [80, 124, 300, 1004, 3820]
    doc = zoo.sound.sound_cnn.__doc__ if hasattr(zoo, "sound") else zoo.find("sound-cnn").build.__doc__
    assert all(f"{1000 * n / RATE:g} ms" in doc for n in hears)
    count = sum(leaf.size for tree in net.parameters.values() for leaf in tree.values())
    assert f"{count:,} parameters" in doc
    with pytest.raises(ShapeError, match="samples of a sound"):
        zoo.find("sound-cnn").build((None, 26), 3)


def test_they_tell_them_apart(trained):
    lines = [json.loads(line)["train"]["loss"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1] < 0.7 * lines[0]
    net = pl.network.load(trained / "model.pellucid")
    rng = np.random.default_rng(5)
    hearing = sound.Hearing(**net.preprocessing["hearing"])
    signals = [said(word, rng).astype(np.float32) for word in WORDS for _ in range(4)]
    heard = [net.preprocessing["classes"][i] for i in net.predict(hearing.all(signals)).argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(heard, np.repeat(list(WORDS), 4), strict=True)]) >= 0.75


# --- the command line -------------------------------------------------------------------------------------------------


def test_a_recording_of_another_rate_is_named(trained, tmp_path, capsys):
    rng = np.random.default_rng(3)
    for word in WORDS:
        written(tmp_path / f"{word}.wav", np.pad(0.5 * said(word, rng, 44100), 9000), 44100)
    assert run("predict", trained, tmp_path, "--probabilities") == 0
    out, err = capsys.readouterr()
    assert "44,100 Hz are brought to 8,000 Hz" in err
    lines = [line.split(",") for line in out.splitlines()]
    assert lines[0] == ["file", "word", "p(fall)", "p(hold)", "p(rise)"]
    assert sum(name == f"{word}.wav" for name, word, *_ in lines[1:]) >= 2
    assert all(abs(sum(map(float, p)) - 1) < 1e-3 for _, _, *p in lines[1:])


def test_the_rate_of_a_recording_changes_nothing(tmp_path):
    t = np.arange(16000 // 4) / 16000
    signal = 0.5 * np.sin(2 * np.pi * 700 * t) * np.hanning(len(t))
    (a, note), (b, nothing) = (
        sound.heard_in(written(tmp_path / f"{rate}.wav", signal[:: 16000 // rate], rate)) for rate in (16000, 8000)
    )
    assert "16,000" in note
    assert not nothing
    n = min(len(a), len(b))
    assert abs(len(a) - len(b)) <= 2
    assert max(np.corrcoef(a[i : n - 2], b[: n - 2 - i])[0, 1] for i in (0, 1)) > 0.99


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.zeros(4000), "nothing is to be heard"),
        (np.zeros((4000, 2)), "2 channels"),
        (np.hanning(100), "too short for a word"),
        (np.random.default_rng(0).uniform(-0.5, 0.5, 16000), "longer than any word"),
    ],
)
def test_recordings_that_are_no_word(trained, tmp_path, capsys, signal, message):
    assert run("predict", trained, written(tmp_path / "x.wav", signal)) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "x.wav" in err


def test_what_is_no_recording(trained, tmp_path, capsys):
    (tmp_path / "x.wav").write_text("no sound")
    assert run("predict", trained, tmp_path / "x.wav") == 1
    assert "no WAV file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("predict", trained, tmp_path / "empty") == 1
    assert "there is no WAV file" in capsys.readouterr().err
    assert run("evaluate", trained, tmp_path / "empty") == 1
    assert "there are no recordings of words" in capsys.readouterr().err
    written(tmp_path / "strange" / "other" / "1.wav", np.hanning(1000))
    assert run("evaluate", trained, tmp_path / "strange") == 1
    err = capsys.readouterr().err
    assert "does not know" in err
    assert "other" in err
    assert "fall, hold, rise" in err


def test_measured_again(trained, folder, capsys):
    assert run("evaluate", trained, folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 36
    assert found["recognised"] == round(36 * found["metrics"]["accuracy"])
    assert np.sum(found["confusion"]) == 36
    assert found["classes"] == ["fall", "hold", "rise"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--loss", "mean_squared_error"), "does not fit one word of several"),
        (("--metrics", "mean_absolute_error"), "words are classes"),
        (("--target", "x"), "makes nothing of it"),
        (("--net", "cnn", "--task", "sound"), "reads images"),
    ],
)
def test_what_does_not_fit(folder, capsys, flags, message):
    assert run("train", folder, *flags) == 1
    assert message in capsys.readouterr().err


# --- the sheet --------------------------------------------------------------------------------------------------------


def _listener(seed=0):
    net = pl.Sequential(
        *(pl.Conv1D(3, 9, stride=2, padding="same"), pl.BatchNorm(), pl.ReLU(), pl.MaxPool1D(2)),
        *(pl.Conv1D(4, 3, "relu"), pl.GlobalAveragePool(), pl.Dense(2)),
        input_shape=(1, 120),
        loss="softmax_cross_entropy",
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    net.fit(rng.normal(size=(16, 1, 120)), np.arange(16) % 2, epochs=1, progress=False)
    return net


@pytest.mark.parametrize("layer", ["conv1d_1", "conv1d_2"])
def test_exciting_sounds_are_what_excites(layer):
    """What is cut out, put alone into silence at its place, makes the unit answer as strongly; no other place more."""
    net, x = _listener(), np.random.default_rng(1).normal(size=(7, 1, 120)).astype(np.float32)
    found = pl.exciting_sounds(net, x, layer, 2)
    label = {"conv1d_1": "batch_norm_1", "conv1d_2": "conv1d_2"}[layer]
    size = receptive_field(net, layer).size[0]
    assert found.signals.shape[-1] == size
    from pellucid.inspect.features import Prefix

    prefix = Prefix(net, label, before_activation=True)
    Z = prefix.forward({"input": np.moveaxis(x, 0, -1)})[0]
    np.testing.assert_allclose(found.Z[:, 0], Z.max(axis=(1, 2)), rtol=1e-5)
    for unit in range(len(found.Z)):
        example, start = found.examples[unit, 0], found.starts[unit, 0]
        place = Z[unit, :, example].argmax()
        inside = ~np.isnan(found.signals[unit, 0])
        alone = np.zeros((1, 120, 1), np.float32)
        alone[0, np.flatnonzero(inside) + start, 0] = found.signals[unit, 0][inside]
        np.testing.assert_array_equal(
            alone[0, max(start, 0) : start + size, 0], x[example, 0, max(start, 0) : start + size]
        )
        assert prefix.forward({"input": alone})[0][unit, place, 0] == pytest.approx(found.Z[unit, 0], rel=1e-4)
        assert len(set(found.examples[unit])) == 2


def test_the_response_of_a_filter_equals_scipy():
    signal = pytest.importorskip("scipy.signal", reason="scipy is not installed")
    W = np.random.default_rng(0).normal(size=(3, 20))
    f, decibels = pl.frequency_response(W, RATE, points=256)
    for kernel, found in zip(W, decibels, strict=True):
        at, response = signal.freqz(kernel, worN=f, fs=RATE)
        expected = 20 * np.log10(np.abs(response) / np.abs(response).max())
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(at, f)
    sine = np.sin(2 * np.pi * 1000 * np.arange(80) / RATE) * np.hanning(80)
    assert f[pl.frequency_response(sine[None], RATE, points=256)[1].argmax()] == pytest.approx(1000, abs=32)


def test_the_sheet_of_a_run(trained, folder, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    path = tmp_path / "sheet.png"
    if "rnn" in str(trained):
        assert run("show", trained, "--features", "--out", path) == 1
        assert "sounds are heard in networks on samples" in capsys.readouterr().err
        assert not path.exists()
        return
    assert run("show", trained, "--features", "--out", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(path)]
    with image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[0] > 1500
    assert 0.02 < (pixels < 200).mean() < 0.5
    assert run("show", trained / "model.pellucid", "--features", "--data", folder, "--out", tmp_path / "b.png") == 0
    assert run("show", trained / "model.pellucid", "--features") == 2


def test_the_sheet_says_what_does_not_fit(tmp_path):
    net, x = _listener(), np.zeros((3, 1, 120))
    options = {"rate": RATE}
    for change, error, message in [
        ({"x": np.zeros((3, 120))}, ShapeError, "do not fit the network"),
        ({"x": np.full((3, 1, 120), np.nan)}, DataError, "not finite"),
        ({"layers": ["conv"]}, ParameterError, "conv1d_1"),
        ({"units": 0}, ParameterError, "number of units"),
        ({"y": [0, 1]}, ShapeError, "a class for each sound"),
        ({"path": tmp_path / "x.html"}, ParameterError, ".png"),
    ]:
        given = {"x": x, "path": tmp_path / "x.png", **options, **change}
        with pytest.raises(error, match=message):
            pl.sounds_sheet(net, given.pop("x"), given.pop("path"), **given)
    with pytest.raises(ParameterError, match="convolution"):
        pl.exciting_sounds(net, x, "dense_1")
    images = pl.Sequential(pl.Flatten(), pl.Dense(2), input_shape=(1, 4, 4), loss="softmax_cross_entropy")
    with pytest.raises(ParameterError, match="networks on samples"):
        pl.exciting_sounds(images, np.zeros((1, 1, 4, 4)), "dense_1")


# --- real recordings --------------------------------------------------------------------------------------------------


def test_a_program_trains_and_a_person_tests():
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not on this machine")
    try:
        speech.recordings(["zero"])
    except DataError:
        pytest.skip("the set spoken-words is not on this machine: pellucid data fetch spoken-words")
    kept, sound.VOICES = sound.VOICES, ("en-us+m1", "en-us+f1", "en-gb+f1", "en-us+m3")
    words = sound.SETS["spoken-digits"]
    sound.SETS["spoken-digits"] = words[:2]
    try:
        task = made(_described("spoken-digits", validation=1))
    finally:
        sound.VOICES, sound.SETS["spoken-digits"] = kept, words
    assert task.sizes["test"] == task.official_test == 2
    assert task.classes == ["zero", "one"]
    assert task.sizes["train"] + task.sizes["validation"] == 2 * 4 * 2 * 2
    report = "\n".join(task.report)
    assert "synthetic: spoken by" in report
    assert "recorded by one person" in report
    assert "50.0 %" in report
    assert "validated on voices that do not train: " in report
