"""Words that are said, told by their sound: a program's voices train, a person's recordings test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import losses, metrics, sound
from pellucid.data import speech
from pellucid.errors import DataError, ParameterError
from pellucid.inspect import curves
from pellucid.metrics import confusion_matrix, render_confusion
from pellucid.network.base import Network
from pellucid.network.saving import read_toml
from pellucid.sequences import Sequences
from pellucid.tasks.base import PARTS, Finding, Said, Task
from pellucid.tasks.building import is_file
from pellucid.training.split import split_indices

SETS: dict[str, Sequence[str]] = {
    "spoken-digits": speech.DIGITS,
    "spoken-letters": speech.LETTERS,
    "spoken-alphabet": speech.PHONETIC,
    "spoken-words": tuple(dict.fromkeys(speech.WORDS.values())),
}
"""Sets of words by name: spoken by a program for training, recorded for the test."""

_VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt3", "Alicia", "Andrea"),
    *("Annie", "anika", "belinda", "linda", "steph", "shelby", "Mike", "paul"),
)
_ABROAD = ("m1", "m3", "m5", "m7", "f1", "f2", "f4", "f5")
VOICES = (
    *(f"en-us+{variant}" for variant in _VARIANTS),
    *(f"{accent}+{variant}" for accent in ("en-gb", "en-gb-scotland") for variant in _ABROAD),
)
"""Voices of espeak-ng that train: 24 ways to speak, of them 8 in three accents."""

RATE = 8000
COPIES = 3  # of every training signal in an epoch, each varied in its own way
QUIET = 1e-3  # peak below which a signal is silence: 60 dB below full scale
SHORT = 0.05  # seconds: shorter than any word
_DEPTH = 8.0  # nepers of power below the loudest that are still heard: 35 dB


@dataclass(frozen=True)
class Hearing:
    """How a network hears a signal.

    Arguments:
        features: ``"waveform"``, (1, longest) samples, `equalised`, in the middle of silence; or ``"log-mel"``,
            (T, 26) log mel energies, every filter's mean over the steps taken away. Either way a telephone line that
            lifts some frequencies changes little.
        rate: samples a second.
        longest: samples; what is longer is cut at both ends.
    """

    features: str
    rate: int
    longest: int

    def __call__(self, signal: np.ndarray) -> np.ndarray:
        """What the network is given: float32."""
        spare = max(0, len(signal) - self.longest)
        signal = signal[spare // 2 : spare // 2 + self.longest]
        if self.features == "waveform":
            signal = equalised(signal, self.rate)
            before = (self.longest - len(signal)) // 2
            return np.pad(signal, (before, self.longest - len(signal) - before))[None]
        energies = sound.log_mel(signal, self.rate, low=100.0)
        energies = np.maximum(energies, energies.max() - _DEPTH)
        return (energies - energies.mean(axis=0)) / 2

    def all(self, signals: Sequence[np.ndarray]) -> Any:
        """An array (m, 1, longest), or `Sequences` of steps (26,)."""
        heard = [self(signal) for signal in signals]
        return np.stack(heard) if self.features == "waveform" else Sequences(heard)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of one example."""
        return (1, self.longest) if self.features == "waveform" else (None, 26)


def equalised(signal: np.ndarray, rate: int) -> np.ndarray:
    """The signal with the same power at all frequencies, seen 200 Hz at a time, and mean square 1.

        X'_k = X_k / √(mean of |X|² within 100 Hz of k + a hundredth of the mean of all)

    Arguments:
        signal: (n,).
        rate: samples a second.
    """
    spectrum = np.fft.rfft(signal)
    power = np.abs(spectrum) ** 2
    half = max(1, round(100 * len(signal) / rate))
    sums = np.cumsum(np.pad(power, (half + 1, half), mode="edge"), dtype=np.float64)
    around = (sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1)
    flat = np.fft.irfft(spectrum / np.sqrt(around + power.mean() / 100), len(signal))
    return (flat / np.sqrt(np.square(flat).mean())).astype(np.float32)


def varied(signal: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """The same word said otherwise, as far as arithmetic can: what the voices of a program lack.

    Faster and higher or slower and lower by up to 20 %; through a line that lifts and lowers frequencies by 6 dB (one
    standard deviation); with up to 80 ms before and behind; in white noise, 10 to 40 dB below it; half of them upside
    down.

    Arguments:
        signal: (n,).
        rate: samples a second.
        rng: draws all that.
    """
    signal = speech.resample(signal, rate, round(rate * np.exp(rng.uniform(-0.2, 0.2))))
    spectrum = np.fft.rfft(signal)
    gains = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, 9), rng.normal(0, 6, 9))
    signal = np.fft.irfft(spectrum * 10 ** (gains / 20), len(signal))
    loudness = np.sqrt(np.square(signal).mean())
    signal = np.pad(signal, rng.integers(0, round(0.08 * rate), 2))
    noise = rng.normal(0, loudness * 10 ** (-rng.uniform(10, 40) / 20), len(signal))
    return (rng.choice((-1, 1)) * (signal + noise)).astype(np.float32)


class Rows:
    """Signals as a network hears them; what `fit` takes.

    Arguments:
        signals: each (n_i,).
        labels: (m,) classes.
        hearing: what makes inputs of them.
        copies: 0 for the signals as they are; else so many of each, all `varied`.
        seed: of the variations; the same copy is the same in every epoch.
    """

    def __init__(
        self, signals: Sequence[np.ndarray], labels: np.ndarray, hearing: Hearing, copies: int = 0, seed: int = 0
    ) -> None:
        self.signals, self.labels, self.hearing, self.copies, self.seed = signals, labels, hearing, copies, seed

    def __len__(self) -> int:
        return len(self.signals) * max(1, self.copies)

    def take(self, indices: Any) -> tuple[Any, np.ndarray]:
        """x as `Hearing.all` has it, and y (k,) classes."""
        chosen = np.arange(len(self))[indices]
        return self.hearing.all([self._signal(i) for i in chosen]), self.labels[chosen % len(self.signals)]

    def _signal(self, index: int) -> np.ndarray:
        signal = self.signals[index % len(self.signals)]
        if not self.copies:
            return signal
        return varied(signal, self.hearing.rate, np.random.default_rng([self.seed, index]))


class Sound(Task):
    """Words by their sound. Arguments as in `Task`.

    The data are a name in `SETS`: then a program's voices train, those of `split`'s share validate, and the test is a
    person's recordings; or a folder with a folder of WAV files for every word.
    """

    kind = "sound"
    title = "the word that is said"
    net = "sound-cnn"
    metrics_by_default = ("accuracy",)

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
        (source,), split = self.reading(described), described["split"]
        self.seed = split["seed"]
        signals, words, parts = self._spoken(source, split) if source in SETS else self._read(source, split)
        self.classes = sorted(set(words)) if source not in SETS else list(SETS[source])
        if len(self.classes) < 2:
            raise DataError("there is one word only", where=source, expected="a folder for each word", got=self.classes)
        labels = np.array([self.classes.index(word) for word in words])
        tenth = RATE // 10
        longest = -(-max(len(signals[i]) for i in parts[0]) // tenth) * tenth
        self.hearing = Hearing(*_heard_by(described.get("net", self.net), longest))
        self.parts = {
            name: Rows([signals[i] for i in rows], labels[rows], self.hearing)
            for name, rows in zip(PARTS, parts, strict=True)
        }
        self.sizes = {name: len(part) for name, part in self.parts.items()}
        self.input_shape = self.hearing.shape
        digest = hashlib.sha256(repr([words, self.hearing]).encode())
        for signal in signals:
            digest.update(np.ascontiguousarray(signal).tobytes())
        self.fingerprint = digest.hexdigest()

    def _spoken(self, source: str, split: Mapping[str, Any]) -> tuple[list[np.ndarray], list[str], Any]:
        spoken, recorded = speech.speak(SETS[source], voices=VOICES, speeds=(120, 160)), speech.recordings(SETS[source])
        ways = [voice.partition("+")[2] for voice in spoken.voices]
        train, validation, _ = split_indices(
            len(spoken), groups=ways, validation=split["validation"], test=0, seed=self.seed
        )
        held_out = sorted({ways[i] for i in validation})
        self.name, self.official_test = source, len(recorded)
        self.report = [
            *spoken.report,
            *([f"validated on voices that do not train: {', '.join(held_out)}"] if held_out else []),
            *recorded.report,
            f"tested on these recordings, {len(recorded)} of {len(SETS[source])} words: chance is right in "
            f"{100 / len(SETS[source]):.1f} %",
        ]
        test = np.arange(len(spoken), len(spoken) + len(recorded))
        return [*spoken.signals, *recorded.signals], [*spoken.words, *recorded.words], (train, validation, test)

    def _read(self, source: str, split: Mapping[str, Any]) -> tuple[list[np.ndarray], list[str], Any]:
        files = _labelled(source)
        words = [file.parent.name for file in files]
        found = [heard_in(file) for file in files]
        self.name = Path(source).name
        self.report = [each for each in dict.fromkeys(said for _, said in found) if each]
        classes, labels = np.unique(words, return_inverse=True)
        shares = {part: split[part] for part in ("validation", "test")}
        parts = split_indices(len(files), labels=labels, classes=classes.tolist(), seed=self.seed, **shares)
        return [signal for signal, _ in found], words, parts

    @classmethod
    def takes(cls, source: str) -> bool:
        path = Path(source)
        if not path.is_dir():
            return source in SETS and not path.exists()
        return next(path.glob("*/*.wav"), None) is not None

    def rows(self, part: str) -> Rows:
        return self.parts[part]

    def arrays(self, part: str) -> tuple[Any, Any]:
        rows = self.parts[part]
        if part == "train":
            return Rows(rows.signals, rows.labels, self.hearing, COPIES, self.seed), None
        return rows.take(slice(None))

    def preprocessing(self) -> dict[str, Any]:
        return {"task": {"kind": self.kind}, "classes": self.classes, "hearing": asdict(self.hearing)}

    def described(self) -> str:
        return f"signals, {len(self.classes)} words, heard as {self.hearing.features}, each trained on {COPIES} times"

    # --- the network --------------------------------------------------------------------------------------------

    def loss(self, named: Any) -> losses.Loss:
        loss = losses.get(named or "softmax_cross_entropy", where="--loss")
        if not loss.of_classes or loss.binary:
            raise ParameterError(
                f"{loss.registered_name} does not fit one word of several",
                where="--loss",
                expected="softmax_cross_entropy",
            )
        return loss

    def outputs(self, loss: losses.Loss) -> int:
        return len(self.classes)

    def metrics(self, names: Sequence[str]) -> list[metrics.Metric]:
        return _metrics(names)

    # --- what comes of it ---------------------------------------------------------------------------------------

    def measure(self, net: Network, rows: Rows, names: Sequence[str]) -> Finding:
        return measured(net, rows, self.classes, self.metrics(names))

    @classmethod
    def evaluate(cls, net: Network, source: str, names: Sequence[str] | None, **reading: Any) -> tuple[Finding, int]:
        rows, classes = heard_like(net, source)
        return measured(net, rows, classes, _metrics(names or cls.metrics_by_default)), len(rows)

    @classmethod
    def predict(cls, net: Network, source: str, *, probabilities: bool = False, **reading: Any) -> Said:
        classes, hearing = _of(net)
        path = Path(source)
        files = sorted(path.rglob("*.wav")) if path.is_dir() else [path]
        if not files:
            raise DataError("there is no WAV file", where=source, expected="a .wav file, or a folder of them")
        found = [_fitting(file, hearing) for file in files]
        p = net.predict(hearing.all([signal for signal, _ in found]))
        said = [classes[i] for i in p.argmax(axis=1)]
        names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in files]
        columns: dict[str, list[Any]] = {"file": names, "word": said}
        document: dict[str, Any] = {"predictions": said, "files": names}
        if probabilities:
            shares = {word: [float(f"{each:.6g}") for each in p[:, i]] for i, word in enumerate(classes)}
            columns |= {f"p({word})": each for word, each in shares.items()}
            document["probabilities"] = shares
        return Said(columns, document, [each for each in dict.fromkeys(said for _, said in found) if each])

    def next_steps(self, run: Path) -> list[tuple[str, str]]:
        sheet = [(f"pellucid show {run} --features", "the sounds that its units respond to")]
        return [
            (f"pellucid predict {run} MY.wav", "the word in a recording of your own"),
            *(sheet if self.hearing.features == "waveform" else []),
            (f"pellucid show {run}", "layers, hyperparameters, parameters"),
            (f"pellucid evaluate {run} FOLDER", "measure it on other recordings, a folder for each word"),
        ]


def heard_like(net: Network, source: str) -> tuple[Rows, list[str]]:
    """The recordings in a folder with a folder for each word, as the network hears them, and the network's words.

    Raises:
        DataError: no such folder, a word that the network does not know, a recording that it cannot read.
    """
    classes, hearing = _of(net)
    files = _labelled(source)
    strange = sorted({file.parent.name for file in files} - set(classes))
    if strange:
        raise DataError(
            "folders of words that the network does not know",
            where=source,
            expected=", ".join(classes),
            got=", ".join(strange),
        )
    labels = np.array([classes.index(file.parent.name) for file in files])
    return Rows([_fitting(file, hearing)[0] for file in files], labels, hearing), classes


def measured(net: Network, rows: Rows, classes: Sequence[str], chosen: list[metrics.Metric]) -> Finding:
    """Loss and metrics, and what was taken for what."""
    x, y = rows.take(slice(None))
    values = net.evaluate(x, y, metrics=chosen)
    said = net.predict(x).argmax(axis=1)
    confusion = confusion_matrix(said, y, len(classes))
    right = int((said == y).sum())
    note = f"{right} of {len(y)} recognised; by chance it would be {len(y) / len(classes):.1f}"

    def draw(path: Path) -> str:
        curves.confusion_png(confusion, classes, path)
        return ""

    return Finding(
        values,
        {"classes": list(classes), "confusion": confusion, "recognised": right},
        "Which word was taken for which",
        render_confusion(confusion, classes),
        note,
        {"confusion.png": draw},
    )


def heard_in(file: str | Path) -> tuple[np.ndarray, str]:
    """The word in a WAV file at 8,000 Hz, silence cut off, and a sentence where its rate was another.

    Raises:
        DataError: no WAV file that can be read, several channels, silence, or too short.
    """
    signal, rate = speech.read_wav(file)
    if signal.ndim != 1:
        raise DataError(
            f"{signal.shape[1]} channels",
            where=str(file),
            expected="one",
            hint="record it mono, or keep one channel of it",
        )
    peak = float(np.abs(signal).max(initial=0))
    if peak < QUIET:
        raise DataError("nothing is to be heard", where=str(file), expected=f"a peak of {QUIET:g} or more", got=peak)
    signal = speech.trimmed(speech.resample(signal, rate, RATE))
    if len(signal) < SHORT * RATE:
        raise DataError(
            "too short for a word", where=str(file), expected=f"{SHORT:g} s or more", got=f"{len(signal) / RATE:.3f} s"
        )
    return signal, "" if rate == RATE else f"recordings of {rate:,} Hz are brought to {RATE:,} Hz"


def _fitting(file: Path, hearing: Hearing) -> tuple[np.ndarray, str]:
    signal, said = heard_in(file)
    if len(signal) > hearing.longest:
        raise DataError(
            "longer than any word that the network was shown",
            where=str(file),
            expected=f"at most {hearing.longest / hearing.rate:g} s between the silences",
            got=f"{len(signal) / hearing.rate:.2f} s",
            hint="cut out the word",
        )
    return signal, said


def _labelled(source: str) -> list[Path]:
    files = sorted(Path(source).glob("*/*.wav"))
    if not files:
        raise DataError(
            "there are no recordings of words",
            where=source,
            expected=f"a folder with a folder of .wav files for each word, or {', '.join(SETS)}",
        )
    return files


def _heard_by(net: str, longest: int) -> tuple[str, int, int]:
    """Features, rate and length: a network's file says by its input_shape whether it reads samples."""
    if is_file(net):
        shape = read_toml(net).get("input_shape", ())
        if len(shape) == 2 and shape[0] == 1 and isinstance(shape[1], int):
            return "waveform", RATE, shape[1]
        return "log-mel", RATE, longest
    return "waveform" if net == "sound-cnn" else "log-mel", RATE, longest


def _metrics(names: Sequence[str]) -> list[metrics.Metric]:
    chosen = [metrics.get(name, where="--metrics") for name in names]
    for metric in chosen:
        if metric.task != "classification":
            raise ParameterError(f"{metric.name} is for {metric.task}, and words are classes", where="--metrics")
    return chosen


def _of(net: Network) -> tuple[list[str], Hearing]:
    said = net.preprocessing or {}
    return said["classes"], Hearing(**said["hearing"])


TASK = Sound
