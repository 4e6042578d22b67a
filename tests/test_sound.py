"""Features of sound: equal to SciPy's transforms and to what the formulas say of signals that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import sound
from pellucid.errors import DataError, ParameterError, ShapeError

RATE = 8000


@pytest.fixture
def noise():
    return np.random.default_rng(5).normal(size=1203)


def tone(frequency, seconds=0.5):
    return np.sin(2 * np.pi * frequency * np.arange(round(RATE * seconds)) / RATE)


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 50))
def test_frames_lie_where_they_should(n, length, step):
    signal = np.arange(float(n))
    if length > n:
        with pytest.raises(DataError, match="shorter than a frame"):
            sound.frames(signal, length, step)
        return
    pieces = sound.frames(signal, length, step)
    assert len(pieces) == 1 + (n - length) // step
    for t, piece in enumerate(pieces):
        assert np.array_equal(piece, signal[t * step : t * step + length])


@pytest.mark.parametrize("kind", ["hann", "hamming"])
@pytest.mark.parametrize("length", [7, 64])
def test_windows_are_those_of_scipy(kind, length):
    scipy = pytest.importorskip("scipy.signal", reason="SciPy is the oracle of the windows")
    assert np.allclose(sound.window(kind, length), scipy.get_window(kind, length))
    assert (sound.window("ones", length) == 1).all()


@pytest.mark.parametrize("kind", ["hann", "hamming"])
def test_the_spectrogram_is_that_of_scipy(noise, kind):
    scipy = pytest.importorskip("scipy.signal", reason="SciPy is the oracle of the spectrogram")
    made = sound.power_spectrogram(noise, 200, 80, kind=kind, n_fft=256)
    window = scipy.get_window(kind, 200)
    f, _, oracle = scipy.spectrogram(
        noise, RATE, window, noverlap=120, nfft=256, detrend=False, scaling="spectrum", mode="psd"
    )
    oracle = oracle.T * window.sum() ** 2
    oracle[:, 1:-1] /= 2  # SciPy counts the frequencies below zero as well
    assert np.allclose(made, oracle)
    assert np.allclose(f, np.arange(129) * RATE / 256)


def test_power_is_conserved(noise):
    power = sound.power_spectrogram(noise, 128, 64, kind="ones")
    both_sides = power[:, 0] + power[:, -1] + 2 * power[:, 1:-1].sum(1)
    assert np.allclose(both_sides / 128, (sound.frames(noise, 128, 64) ** 2).sum(1))  # Parseval
    assert sound.power_spectrogram(noise.astype(np.float32), 100, 64).dtype == np.float32
    assert sound.power_spectrogram(noise, 100, 64).shape[1] == 128 // 2 + 1


@given(st.floats(0, 20_000), st.sampled_from(["htk", "slaney"]))
def test_mel_and_back(frequency, scale):
    assert math.isclose(float(sound.from_mel(sound.to_mel(frequency, scale), scale)), frequency, abs_tol=1e-6)


def test_points_of_the_mel_scales():
    assert math.isclose(float(sound.to_mel(1000)), 1000, abs_tol=0.05)  # by which it was made
    assert math.isclose(float(sound.to_mel(700)), 2595 * math.log10(2))
    assert sound.to_mel([0, 200, 1000, 6400], "slaney").tolist() == [0, 3, 15, 42]


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_filters_are_triangles_that_share_each_frequency(scale):
    weights = sound.mel_filters(10, 4096, RATE, low=100, high=3500, scale=scale)
    corners = sound.from_mel(np.linspace(sound.to_mel(100, scale), sound.to_mel(3500, scale), 12), scale)
    f = np.arange(2049) * RATE / 4096
    oracle = [np.interp(f, corners[j : j + 3], [0, 1, 0], left=0, right=0) for j in range(10)]
    assert np.allclose(weights, np.transpose(oracle))
    inside = (f >= corners[1]) & (f <= corners[-2])
    assert np.allclose(weights[inside].sum(1), 1)
    area = sound.mel_filters(10, 4096, RATE, low=100, high=3500, scale=scale, norm="area").sum(0) * RATE / 4096
    assert np.allclose(area, 1, atol=1e-3)


def test_a_tone_is_seen_by_the_filter_at_its_frequency():
    for frequency in (300, 800, 2000, 3300):
        energies = sound.log_mel(tone(frequency), RATE, filters=20)
        middle = sound.from_mel(np.linspace(0, sound.to_mel(RATE / 2), 22))[1:-1]
        assert (energies.argmax(1) == np.abs(sound.to_mel(middle) - sound.to_mel(frequency)).argmin()).all()
    assert energies.shape == (1 + (4000 - 200) // 80, 20)
    assert np.allclose(sound.log_mel(np.zeros(400), RATE), math.log(sound.FLOOR))


def test_cepstrum_coefficients_are_the_dct_of_the_log_energies(noise):
    fft = pytest.importorskip("scipy.fft", reason="SciPy is the oracle of the cosine transform")
    energies = sound.log_mel(noise, RATE, filters=24, scale="slaney", norm="area", kind="hamming", emphasis=0)
    made = sound.mfcc(noise, RATE, count=24, filters=24, scale="slaney", norm="area", kind="hamming", emphasis=0)
    assert np.allclose(made, fft.dct(energies, type=2, norm="ortho"))
    assert np.allclose(sound.mfcc(noise, RATE, filters=24), sound.mfcc(noise, RATE, count=24, filters=24)[:, :13])
    assert sound.mfcc(noise.astype(np.float32), RATE).dtype == np.float32


def test_louder_is_another_first_coefficient_and_nothing_else(noise):
    soft, loud = sound.mfcc(noise, RATE), sound.mfcc(3 * noise, RATE)
    assert np.allclose(loud[:, 0] - soft[:, 0], math.sqrt(26) * math.log(9))
    assert np.allclose(loud[:, 1:], soft[:, 1:])


def test_pre_emphasis():
    assert sound.pre_emphasis([1.0, 2.0, 3.0], 0.5).tolist() == [1, 1.5, 2]
    assert sound.pre_emphasis([1.0, 2.0], 0).tolist() == [1, 2]


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", [None, "area"])
def test_filters_are_those_of_librosa(scale, norm):
    librosa = pytest.importorskip("librosa", reason="librosa is one more oracle of the filters")
    oracle = librosa.filters.mel(
        sr=RATE, n_fft=512, n_mels=23, htk=scale == "htk", norm="slaney" if norm else None, dtype=np.float64
    )
    assert np.allclose(sound.mel_filters(23, 512, RATE, scale=scale, norm=norm), oracle.T)


def test_what_cannot_be_heard():
    with pytest.raises(ShapeError, match=r"one row of samples(.|\n)*\(n,\)(.|\n)*\(3, 2\)(.|\n)*mean"):
        sound.frames(np.zeros((3, 2)), 2, 1)
    with pytest.raises(ParameterError, match="step is a whole number of samples"):
        sound.frames(np.zeros(5), 2, 0)
    with pytest.raises(DataError, match=r"shorter than a frame(.|\n)*200(.|\n)*150(.|\n)*np.pad\(signal, \(0, 50\)\)"):
        sound.log_mel(np.zeros(150), RATE)
    with pytest.raises(DataError, match="frames, sample 3: a sample is not finite"):
        sound.frames(np.array([0, 0, 0, np.nan]), 2, 1)
    with pytest.raises(ParameterError, match=r"unknown window 'han'(.|\n)*'hann'"):
        sound.window("han", 4)
    with pytest.raises(ParameterError, match=r"shorter than the frame(.|\n)*n_fft ≥ 200"):
        sound.power_spectrogram(np.zeros(300), 200, 80, n_fft=128)
    with pytest.raises(ParameterError, match=r"0 ≤ low < high ≤ 4000 Hz(.|\n)*to 5000 Hz"):
        sound.mel_filters(20, 256, RATE, high=5000)
    with pytest.raises(ParameterError, match=r"filter \d+ of 120 lies between two bins(.|\n)*n_fft above 256"):
        sound.mel_filters(120, 256, RATE)
    with pytest.raises(ParameterError, match="unknown norm="):
        sound.mel_filters(20, 256, RATE, norm="slaney")
    for of in (sound.to_mel, sound.from_mel):
        with pytest.raises(ParameterError, match="unknown mel scale 'bark'"):
            of(1, "bark")
    with pytest.raises(ParameterError, match=r"too many coefficients(.|\n)*26 filters"):
        sound.mfcc(np.zeros(300), RATE, count=27)
