"""Spoken words: read sample by sample, trimmed, resampled; and who spoke is always said."""

from __future__ import annotations

import os
import stat
import sys
import wave

import numpy as np
import pytest

from pellucid import data, sound
from pellucid.data import Preprocessor, speech
from pellucid.errors import DataError, ParameterError

RATE = 8000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA_HOME", str(tmp_path / "home"))


def tone(frequency, seconds=0.2, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def write(path, samples, *, width=2, channels=1, rate=RATE):
    """A WAV file of samples from -1 to 1."""
    whole = np.clip(np.round(samples * 2.0 ** (8 * width - 1)), -(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1)
    raw = whole.astype(np.int64)
    if width == 1:
        raw = raw + 128
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"".join(int(value).to_bytes(width, "little", signed=width > 1) for value in raw.reshape(-1)))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width(tmp_path, width):
    samples = np.array([-1.0, -0.5, 0.0, 0.25, 0.5])
    write(tmp_path / "s.wav", samples, width=width, rate=11_025)
    signal, rate = data.read_wav(tmp_path / "s.wav")
    assert (signal.tolist(), signal.dtype, rate) == (samples.tolist(), np.float32, 11_025)


@pytest.mark.parametrize("width", [2, 4])
def test_samples_are_those_that_scipy_reads(tmp_path, width):
    scipy = pytest.importorskip("scipy.io.wavfile", reason="SciPy is the oracle of WAV files")
    samples = np.random.default_rng(0).uniform(-1, 1, size=(50, 2))
    write(tmp_path / "s.wav", samples, width=width, channels=2)
    signal, _ = data.read_wav(tmp_path / "s.wav")
    assert np.allclose(signal, scipy.read(tmp_path / "s.wav")[1] / 2.0 ** (8 * width - 1))


def test_what_is_no_wav_file(tmp_path):
    (tmp_path / "s.wav").write_bytes(b"RIFF....")
    with pytest.raises(DataError, match=r"s\.wav: this is no WAV file(.|\n)*integer samples"):
        data.read_wav(tmp_path / "s.wav")
    with pytest.raises(DataError, match=r"absent\.wav: there is no such file"):
        data.read_wav(tmp_path / "absent.wav")


@pytest.mark.parametrize("to", [4000, 5000, 8000, 11_025])
def test_resampling_keeps_what_the_new_rate_can_hold(to):
    scipy = pytest.importorskip("scipy.signal", reason="SciPy is the oracle of resampling")
    signal = np.random.default_rng(1).normal(size=802)
    half = (-1.0) ** np.arange(802)
    signal -= (signal * half).mean() * half  # SciPy keeps what lies at half the rate itself
    made = speech.resample(signal, RATE, to)
    oracle = scipy.resample(signal, round(802 * to / RATE))
    assert np.allclose(made, oracle)
    assert np.allclose(speech.resample(tone(500), RATE, to), tone(500, rate=to), atol=1e-9)


def test_silence_is_cut_off():
    signal = np.concatenate([np.zeros(30), 0.5 * tone(100), 0.001 * tone(100), np.zeros(40)])
    cut = speech.trimmed(signal)
    assert abs(len(cut) - 1600) < 5
    assert np.abs(cut).max() == 1
    with pytest.raises(DataError, match=r"nothing is to be heard(.|\n)*5 samples"):
        speech.trimmed(np.zeros(5))


@pytest.fixture
def folder(tmp_path):
    for file in speech.WORDS:
        write(tmp_path / "sounds" / f"{file}.wav", 0.3 * tone(200 + 20 * len(file)))
    return tmp_path / "sounds"


def test_recordings_of_the_words_asked_for(folder):
    made = data.recordings(path=folder)
    assert list(made.words) == list(speech.DIGITS)
    assert (made.rate, made.synthetic) == (RATE, False)
    assert "recorded by one person" in made.report[0]
    assert data.recordings(["x-ray", "fortieth", "Friday"], folder).words == ["fortieth", "Friday", "x-ray"]
    every = data.recordings(None, folder)
    assert len(every) == len(set(every.words)) == data.card("spoken-words").examples
    with pytest.raises(ParameterError, match=r"no recording of 'ninty', 'tree'(.|\n)*WORDS"):
        data.recordings(["tree", "one", "ninty"], folder)
    (folder / "digits" / "3.wav").unlink()
    with pytest.raises(DataError, match=r"3\.wav: there is no such file"):
        data.recordings(path=folder)
    write(folder / "digits" / "3.wav", tone(300, rate=16_000), rate=16_000)
    with pytest.raises(DataError, match=r"different rates(.|\n)*8000, 16000"):
        data.recordings(path=folder)


SPEAKER = """\
#!{python}
import math, struct, sys, wave
if "--version" in sys.argv:
    print("eSpeak NG text-to-speech: 9.9  Data at: /nowhere")
    sys.exit()
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if options["-v"] == "xx":
    sys.exit("Error: The specified espeak-ng voice does not exist.")
frequency = 100 + 10 * int(options["-p"]) + len(sys.argv[-1])
with wave.open(options["-w"], "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes(b"".join(struct.pack("<h", int(9999 * math.sin(2 * math.pi * frequency * n / 16000)))
                              for n in range(4000)))
"""


@pytest.fixture
def espeak(tmp_path, monkeypatch):
    """A program of the name that whistles words, and the file it logs to."""
    program, log = tmp_path / "bin" / "espeak-ng", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(SPEAKER.format(python=sys.executable, log=str(log)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return log


def test_every_word_in_every_voice(espeak):
    made = data.speak(["yes", "-no"], voices=("a", "b"), speeds=(100,), pitches=(10, 30))
    said = espeak.read_text().splitlines()
    assert len(said) == len(made) == 8
    assert said[0].startswith("-v a -s 100 -p 10 -w ")
    assert said[0].endswith("-- yes")
    assert said[-1].endswith("-- -no")
    assert made.words == ["yes"] * 4 + ["-no"] * 4
    assert made.voices[:4] == ["a", "a", "b", "b"]
    assert made.synthetic
    assert made.report == ["synthetic: spoken by eSpeak NG text-to-speech: 9.9 (GPL-3) in 2 voices, not by people"]
    peak = np.abs(np.fft.rfft(made.signals[1], 2 * RATE)).argmax() / 2
    assert abs(peak - (100 + 10 * 30 + 3)) < 2  # heard at the new rate as it was spoken at the old
    again = data.speak(["yes", "-no"], voices=("a", "b"), speeds=(100,), pitches=(10, 30))
    assert len(espeak.read_text().splitlines()) == 8  # kept
    for one, other in zip(made.signals, again.signals, strict=True):
        assert np.array_equal(one, other)


def test_when_nobody_speaks(espeak, monkeypatch):
    with pytest.raises(DataError, match=r"-v xx(.|\n)*espeak-ng refused(.|\n)*voice does not exist"):
        data.speak(["a"], voices=("xx",))
    with pytest.raises(ParameterError, match="nothing to say"):
        data.speak([])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"espeak-ng is not on this machine(.|\n)*install the package"):
        data.speak(["a"])


def test_synthetic_voices_train_and_recordings_test(espeak, folder):
    spoken = data.speak(["one", "two"], voices=("a",), speeds=(100,), pitches=(10, 30))
    recorded = data.recordings(["two", "one"], folder)
    ds = spoken.dataset(sound.log_mel, test=recorded)
    assert ds.test_rows.tolist() == [4, 5]
    x, y = ds.take(ds.test_rows)
    assert y.tolist() == list(recorded.words)
    assert np.array_equal(x[0], sound.log_mel(recorded.signals[0], RATE))
    assert Preprocessor.fit(ds, [0, 1, 2, 3]).input_shape == (None, 26)
    assert [sentence.split(":")[0] for sentence in ds.report[:2]] == ["synthetic", "spoken-words"]
    assert spoken.dataset(lambda signal, rate: signal[:, None]).test_rows is None
    with pytest.raises(DataError, match=r"of another kind(.|\n)*not in espeak-ng: \['three'\]"):
        spoken.dataset(sound.log_mel, test=data.recordings(["three"], folder))


def test_the_real_recordings(have, monkeypatch):
    monkeypatch.delenv("PELLUCID_DATA_HOME")
    have("spoken-words")
    made = data.recordings(None)
    assert (len(made), made.rate) == (144, RATE)
    assert all(0.2 < len(signal) / RATE < 1.5 for signal in made.signals)
