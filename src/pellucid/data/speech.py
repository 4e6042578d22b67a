"""Spoken words: recorded by a person, or spoken by a program to order; which of the two is always said."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from pellucid.data import catalog
from pellucid.data.dataset import Dataset
from pellucid.data.storage import data_home, replacing
from pellucid.errors import DataError, ParameterError
from pellucid.sequences import Sequences


def _listed(words: str) -> list[str]:
    return words.split()


DIGITS = tuple(_listed("zero one two three four five six seven eight nine"))
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
PHONETIC = tuple(
    _listed(
        "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec "
        "romeo sierra tango uniform victor whiskey x-ray yankee zulu"
    )
)
_TEENS = _listed("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = _listed("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth")
_DAYS = _listed("Sunday Monday Tuesday Wednesday Thursday Friday Saturday")
_MONTHS = _listed("January February March April May June July August September October November December")
_NUMBERS = _listed("hundred thousand million billion minus oh today tomorrow yesterday")
_SIGNS = _listed("asterisk dash dollar dot equals plus slash space zed")

WORDS: dict[str, str] = {
    **{f"digits/{i}": word for i, word in enumerate([*DIGITS, *_TEENS])},
    **{f"digits/{10 * i}": word for i, word in enumerate(_TENS, 2)},
    **{f"digits/{word}": word for word in _NUMBERS},
    **{f"digits/h-{i}": word for i, word in enumerate([*_ORDINALS, *(f"{each}th" for each in _TEENS[3:])], 1)},
    **{f"digits/h-{10 * i}": f"{word[:-1]}ieth" for i, word in enumerate(_TENS, 2)},
    **{f"digits/day-{i}": word for i, word in enumerate(_DAYS)},
    **{f"digits/mon-{i}": word for i, word in enumerate(_MONTHS)},
    **{f"letters/{letter}": letter for letter in LETTERS},
    **{f"letters/{word}": word for word in _SIGNS},
    **{f"phonetic/{letter}_p": word for letter, word in zip(LETTERS, PHONETIC, strict=True)},
}
"""What is said in each file of ``"spoken-words"`` that holds one word: file, without its ending → word."""

_VARIANTS = _listed("m1 m3 m4 m5 m7 f1 f2 f3 f4 f5")
VOICES = tuple(f"{accent}+{variant}" for accent in ("en-us", "en-gb") for variant in _VARIANTS)
"""Voices of espeak-ng: two accents, ten ways to speak."""


@dataclass(frozen=True)
class Sounds:
    """Signals and the word that is said in each.

    Arguments:
        name: what to call them.
        signals: each (n_i,) float32 from -1 to 1.
        words: what is said.
        rate: samples a second.
        synthetic: whether a program spoke.
        voices: who speaks.
        report: sentences on where they come from and what was decided.
    """

    name: str
    signals: Sequence[np.ndarray]
    words: Sequence[str]
    rate: int
    synthetic: bool
    voices: Sequence[str]
    report: Sequence[str] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.signals)

    def __repr__(self) -> str:
        kind = "synthetic" if self.synthetic else "recorded"
        return f"<Sounds {self.name}: {len(self):,} {kind}, {len(set(self.words)):,} words, {self.rate:,} Hz>"

    def dataset(self, features: Callable[[np.ndarray, int], np.ndarray], *, test: Sounds | None = None) -> Dataset:
        """The words as a data set: sequences of features, the word as class.

        Arguments:
            features: (n,), rate → (T, n_x), such as ``pl.sound.log_mel``; ``lambda signal, rate: signal[:, None]``
                leaves the waveform.
            test: sounds that become the official test set, such as recordings where these are synthetic.

        Raises:
            DataError: another rate, or a word in the test set that is not in these.
        """
        parts = [self] if test is None else [self, test]
        if test is not None and (test.rate != self.rate or not set(test.words) <= set(self.words)):
            raise DataError(
                "the test set is of another kind",
                where=test.name,
                expected=f"{self.rate} Hz, words of {self.name}",
                got=f"{test.rate} Hz; not in {self.name}: {sorted(set(test.words) - set(self.words))}",
            )
        signals = [signal for part in parts for signal in part.signals]
        return Dataset(
            Sequences([features(signal, self.rate) for signal in signals]),
            [word for part in parts for word in part.words],
            name=self.name,
            task="classification",
            test_rows=None if test is None else np.arange(len(self), len(signals)),
            report=[sentence for part in parts for sentence in part.report],
        )


def recordings(words: Iterable[str] | None = DIGITS, path: str | os.PathLike[str] | None = None) -> Sounds:
    """Words spoken by Allison Smith for the telephone: one recording each, 8,000 Hz, silence cut off, peak at 1.

    Arguments:
        words: which: `DIGITS`, `LETTERS`, `PHONETIC`, or others of `WORDS`; None for all of them.
        path: the folder with ``digits``, ``letters`` and ``phonetic``; that of the set ``"spoken-words"`` when None.

    Raises:
        ParameterError: a word that is not there.
        DataError: the set is not on this machine, or a file cannot be read.
    """
    wanted = dict.fromkeys(WORDS.values() if words is None else words)
    missing = sorted(set(wanted) - set(WORDS.values()))
    if missing:
        raise ParameterError(
            f"no recording of {', '.join(map(repr, missing))}",
            where="recordings",
            expected="words of pl.data.speech.WORDS",
        )
    folder = Path(path) if path is not None else catalog.files_of("spoken-words")[0].parent.parent
    files = {folder / f"{file}.wav": word for file, word in WORDS.items() if word in wanted}
    read = [read_wav(file) for file in files]
    rates = {rate for _, rate in read}
    if len(rates) != 1:
        raise DataError("recordings of different rates", where=str(folder), got=f"{sorted(rates)} Hz")
    name = "spoken-words"
    report = [f"{name}: recorded by one person, {catalog.card(name).licence}"]
    signals = [trimmed(signal) for signal, _ in read]
    return Sounds(name, signals, list(files.values()), rates.pop(), False, ["Allison Smith"] * len(files), report)


def speak(
    words: Iterable[str],
    *,
    voices: Sequence[str] = VOICES,
    speeds: Sequence[int] = (130, 175),
    pitches: Sequence[int] = (35, 60),
    rate: int = 8000,
) -> Sounds:
    """Every word in every voice at every speed and pitch, spoken by the program espeak-ng; silence cut off, peak at 1.

    What was spoken once is kept in the data home.

    Arguments:
        words: any words.
        voices: of espeak-ng: ``"en-us"``, with a variant ``"en-us+f3"``; ``espeak-ng --voices`` lists them.
        speeds: words a minute, 80 to 450.
        pitches: 0 to 99.
        rate: samples a second.

    Raises:
        DataError: espeak-ng is not on this machine, or refuses.
        ParameterError: no words, or no voices.
    """
    tasks = list(product(dict.fromkeys(words), voices, speeds, pitches))
    if not tasks:
        raise ParameterError("there is nothing to say", where="speak", expected="words, voices, speeds and pitches")
    version = _espeak(["--version"]).partition("Data at")[0].strip()
    key = hashlib.sha256(repr((version, tasks, rate)).encode()).hexdigest()[:24]
    kept = data_home() / "spoken" / key
    if not (kept / "signals.npz").exists():
        with replacing(kept) as scratch, tempfile.TemporaryDirectory() as folder:
            spoken = [_spoken(*task, rate=rate, folder=Path(folder)) for task in tasks]
            scratch.mkdir(parents=True)
            lengths = np.array([len(signal) for signal in spoken])
            np.savez(scratch / "signals.npz", samples=np.concatenate(spoken), lengths=lengths)
    with np.load(kept / "signals.npz", allow_pickle=False) as archive:
        signals = np.split(archive["samples"], np.cumsum(archive["lengths"])[:-1])
    report = [f"synthetic: spoken by {version} (GPL-3) in {len(voices)} voices, not by people"]
    return Sounds(
        "espeak-ng", signals, [word for word, *_ in tasks], rate, True, [voice for _, voice, *_ in tasks], report
    )


def _spoken(word: str, voice: str, speed: int, pitch: int, *, rate: int, folder: Path) -> np.ndarray:
    file = folder / "spoken.wav"
    _espeak(["-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(file), "--", word])
    signal, made = read_wav(file)
    return trimmed(resample(signal, made, rate))


def _espeak(arguments: list[str]) -> str:
    if shutil.which("espeak-ng") is None:
        raise DataError(
            "espeak-ng is not on this machine",
            where="speak",
            expected="the program that speaks",
            hint="install the package espeak-ng of your system",
        )
    done = subprocess.run(
        ["espeak-ng", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    if done.returncode or "Error" in done.stderr:
        raise DataError("espeak-ng refused", where=" ".join(arguments), got=done.stderr.strip() or done.returncode)
    return done.stdout


def read_wav(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """The signal in a WAV file of integer samples, and how many of them make a second.

    Returns:
        float32 from -1 to 1, (n,), or (n, channels) where there are several; the rate in Hz.

    Raises:
        DataError: no such file, another format.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except FileNotFoundError:
        raise DataError("there is no such file", where=str(path)) from None
    except (OSError, EOFError, wave.Error) as problem:
        raise DataError(
            "this is no WAV file that can be read",
            where=str(path),
            expected="integer samples, not compressed",
            got=str(problem) or "an early end",
        ) from None
    if width == 1:
        samples = np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    else:
        bytes_of = np.zeros((len(data) // width, 4), np.uint8)
        bytes_of[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
        samples = (bytes_of.view("<i4")[:, 0] / 2**31).astype(np.float32)
    return samples if channels == 1 else samples.reshape(-1, channels), rate


def resample(signal: np.ndarray, rate: int, to: int) -> np.ndarray:
    """The signal (n,) with ``to`` samples a second: what lies at or above half of either rate is left out.

    Source: the sampling theorem; by the discrete Fourier transform, which takes the signal as periodic.
    """
    if rate == to:
        return signal
    count = round(len(signal) * to / rate)
    spectrum = np.fft.rfft(signal)[: (min(count, len(signal)) + 1) // 2]
    return (np.fft.irfft(spectrum, count) * (count / len(signal))).astype(signal.dtype)


def trimmed(signal: np.ndarray, share: float = 0.02) -> np.ndarray:
    """The signal (n,) from its first to its last sample above ``share`` of its peak, and the peak brought to 1.

    Raises:
        DataError: nothing but silence.
    """
    peak = np.abs(signal).max(initial=0)
    if not peak > 0:
        raise DataError("nothing is to be heard", where="trimmed", got=f"{len(signal)} samples of silence")
    loud = np.flatnonzero(np.abs(signal) >= share * peak)
    return signal[loud[0] : loud[-1] + 1] / peak
