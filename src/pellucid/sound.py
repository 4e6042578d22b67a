"""Sound as sequences of features: frames, power spectra, mel filter banks, log energies, cepstrum coefficients.

    signal (n,) → frames (T, length) → power |X|² (T, bins) → mel energies (T, filters) → log → DCT → MFCC (T, count)

Every function returns examples of time first, (T, …), which is what a recurrent layer reads step by step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.errors import DataError, ParameterError, ShapeError, unknown

FLOOR = 1e-10
"""The least energy whose logarithm is taken: 100 dB below 1."""


def frames(signal: Any, length: int, step: int) -> np.ndarray:
    """The signal in overlapping pieces: ``frames[t] = signal[t · step : t · step + length]``.

    Arguments:
        signal: (n,) samples.
        length: samples of a frame.
        step: samples from the start of one frame to that of the next.

    Returns:
        (T, length), T = 1 + ⌊(n - length) / step⌋; a view that cannot be written to. Samples behind the last whole
        frame are in none.

    Raises:
        ShapeError: not (n,).
        ParameterError: a length or step below 1.
        DataError: a signal shorter than a frame, or with values that are not finite.
    """
    signal = np.asarray(signal)
    if signal.ndim != 1:
        raise ShapeError(
            "a signal is one row of samples",
            where="frames",
            expected="(n,)",
            got=signal.shape,
            hint="signal.mean(axis=…) over the channels makes one of several",
        )
    for what, number in (("length", length), ("step", step)):
        if not isinstance(number, (int, np.integer)) or number < 1:
            raise ParameterError(f"{what} is a whole number of samples from 1", where="frames", got=repr(number))
    if signal.size < length:
        hint = f"np.pad(signal, (0, {length - signal.size})) adds silence"
        raise DataError("shorter than a frame", where="frames", expected=f"{length}", got=signal.size, hint=hint)
    if not np.isfinite(signal).all():
        raise DataError("a sample is not finite", where=f"frames, sample {np.argmin(np.isfinite(signal))}")
    return np.lib.stride_tricks.sliding_window_view(signal, length)[::step]


def window(name: str, length: int) -> np.ndarray:
    """Weights that fade a frame in and out, so that its ends do not count as a jump.

        hann      w[n] = 0.5 - 0.5 cos(2πn / length)
        hamming   w[n] = 0.54 - 0.46 cos(2πn / length)
        ones      w[n] = 1

    Arguments:
        name: one of the three.
        length: samples; the period, so that the weights of frames half a length apart add up to a constant.

    Raises:
        ParameterError: another name.

    Source: Harris 1978, On the use of windows for harmonic analysis with the discrete Fourier transform.
    """
    weights = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46), "ones": (1.0, 0.0)}
    if name not in weights:
        raise unknown("window", name, weights, where="window")
    mean, swing = weights[name]
    return mean - swing * np.cos(2 * np.pi * np.arange(length) / length)


def pre_emphasis(signal: Any, factor: float = 0.97) -> np.ndarray:
    """y[n] = x[n] - factor · x[n - 1], y[0] = x[0]: lifts what is high, which speech has less of.

    Arguments:
        signal: (n,) samples.
        factor: 0 changes nothing.

    Source: Young et al., The HTK Book, chapter 5.
    """
    signal = np.asarray(signal)
    return np.concatenate([signal[:1], signal[1:] - factor * signal[:-1]])


def power_spectrogram(
    signal: Any, length: int, step: int, *, kind: str = "hann", n_fft: int | None = None
) -> np.ndarray:
    """The power in each frequency of each frame: |Σ_n w[n] x[n] e^(-2πi k n / n_fft)|².

    Arguments:
        signal: (n,) samples.
        length, step: of the `frames`, in samples.
        kind: of the `window`.
        n_fft: points of the Fourier transform, ``length`` or more; the power of two from ``length`` when None.

    Returns:
        (T, n_fft // 2 + 1); bin k is at k · rate / n_fft Hz. float32 for float32.

    Raises:
        ParameterError: a window nobody knows, a transform shorter than the frame.
        ShapeError, DataError: as `frames`.
    """
    pieces = frames(signal, length, step)
    n_fft = 1 << (length - 1).bit_length() if n_fft is None else n_fft
    if n_fft < length:
        raise ParameterError("the transform is shorter than the frame", expected=f"n_fft ≥ {length}", got=n_fft)
    real = pieces.dtype if pieces.dtype == np.float32 else np.float64
    spectrum = np.fft.rfft(pieces * window(kind, length).astype(real), n_fft)
    return spectrum.real**2 + spectrum.imag**2


def to_mel(frequency: Any, scale: str = "htk") -> np.ndarray:
    """Hertz on the mel scale, on which equal steps sound equally far apart.

        htk      m = 2595 log₁₀(1 + f / 700)
        slaney   m = 3 f / 200 below 1000 Hz, 15 + 27 ln(f / 1000) / ln 6.4 from there on

    Source: Young et al., The HTK Book, chapter 5; Slaney 1998, Auditory Toolbox version 2, mfcc.
    """
    f = np.asarray(frequency, np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + f / 700)
    if scale == "slaney":
        return np.where(f < 1000, 3 * f / 200, 15 + 27 * np.log(np.maximum(f, 1000) / 1000) / np.log(6.4))
    raise unknown("mel scale", scale, ("htk", "slaney"))


def from_mel(mel: Any, scale: str = "htk") -> np.ndarray:
    """The inverse of `to_mel`."""
    m = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700 * (10 ** (m / 2595) - 1)
    if scale == "slaney":
        return np.where(m < 15, 200 * m / 3, 1000 * np.exp((m - 15) * np.log(6.4) / 27))
    raise unknown("mel scale", scale, ("htk", "slaney"))


def mel_filters(
    filters: int,
    n_fft: int,
    rate: float,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: str = "htk",
    norm: str | None = None,
) -> np.ndarray:
    """Triangular weights over the bins of a power spectrum, their corners equally far apart on the mel scale.

        weight of filter j at f = max(0, min((f - c[j-1]) / (c[j] - c[j-1]), (c[j+1] - f) / (c[j+1] - c[j])))

    Arguments:
        filters: how many.
        n_fft: points of the Fourier transform.
        rate: samples a second.
        low, high: Hz between which they lie; half of ``rate`` when ``high`` is None.
        scale: ``"htk"`` or ``"slaney"``: see `to_mel`.
        norm: None for peaks of 1; ``"area"`` divides each by half its width in Hz, so that all have the same area.

    Returns:
        (n_fft // 2 + 1, filters).

    Raises:
        ParameterError: frequencies that are not 0 ≤ low < high ≤ rate / 2; so many filters that one lies between
            two bins; another scale or norm.

    Source: Davis and Mermelstein 1980, figure 1; Slaney 1998 for the norm.
    """
    high = rate / 2 if high is None else high
    if filters < 1 or not 0 <= low < high <= rate / 2:
        raise ParameterError(
            "these filters are none",
            where="mel_filters",
            expected=f"1 filter or more, 0 ≤ low < high ≤ {rate / 2:g} Hz",
            got=f"{filters} from {low:g} to {high:g} Hz",
        )
    if norm not in (None, "area"):
        raise ParameterError("unknown norm=", where="mel_filters", expected="None or 'area'", got=repr(norm))
    corners = from_mel(np.linspace(to_mel(low, scale), to_mel(high, scale), filters + 2), scale)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    f = np.arange(n_fft // 2 + 1)[:, None] * rate / n_fft
    weights = np.maximum(0, np.minimum((f - left) / (middle - left), (right - f) / (right - middle)))
    empty = np.flatnonzero(weights.sum(axis=0) == 0)
    if empty.size:
        raise ParameterError(
            f"filter {empty[0]} of {filters} lies between two bins of the spectrum: it would see nothing",
            where="mel_filters",
            expected=f"fewer filters, or n_fft above {n_fft}",
        )
    return weights if norm is None else weights * 2 / (right - left)


def log_mel(
    signal: Any,
    rate: float,
    *,
    filters: int = 26,
    length: float = 0.025,
    step: float = 0.01,
    kind: str = "hann",
    emphasis: float = 0.97,
    low: float = 0.0,
    high: float | None = None,
    scale: str = "htk",
    norm: str | None = None,
) -> np.ndarray:
    """The logarithm of the power that each mel filter sees in each frame: ln max(|X|² · weights, 1e-10).

    Arguments:
        signal: (n,) samples.
        rate: samples a second.
        filters: how many.
        length, step: of the frames, in seconds.
        kind: of the `window`.
        emphasis: factor of `pre_emphasis`, 0 for none.
        low, high, scale, norm: see `mel_filters`.

    Returns:
        (T, filters), float32 for float32.

    Raises:
        ShapeError, DataError, ParameterError: as `power_spectrogram` and `mel_filters`.
    """
    samples = round(length * rate)
    power = power_spectrogram(pre_emphasis(signal, emphasis), samples, round(step * rate), kind=kind)
    weights = mel_filters(filters, 2 * (power.shape[1] - 1), rate, low=low, high=high, scale=scale, norm=norm)
    return np.log(np.maximum(power @ weights.astype(power.dtype), FLOOR))


def mfcc(signal: Any, rate: float, *, count: int = 13, **options: Any) -> np.ndarray:
    """Mel-frequency cepstrum coefficients: the DCT-II of the log mel energies E, orthonormal.

        c[i] = √(2 / K) Σ_j E[j] cos(π i (j + ½) / K)        c[0] with √(1 / K)        j = 0 … K-1

    The first coefficients tell the broad shape of the spectrum, which is the shape of the mouth; those left out tell
    the pitch of the voice.

    Arguments:
        signal: (n,) samples.
        rate: samples a second.
        count: how many, from c[0] on.
        options: of `log_mel`.

    Returns:
        (T, count).

    Raises:
        ParameterError: more coefficients than filters.
        ShapeError, DataError: as `log_mel`.

    Source: Davis and Mermelstein 1980, Comparison of parametric representations for monosyllabic word recognition in
    continuously spoken sentences; there without the factors.
    """
    energies = log_mel(signal, rate, **options)
    filters = energies.shape[1]
    if not 1 <= count <= filters:
        raise ParameterError("too many coefficients", where="mfcc", expected=f"1 … {filters} filters", got=count)
    basis = np.cos(np.pi * np.outer(np.arange(filters) + 0.5, np.arange(count)) / filters) * np.sqrt(2 / filters)
    basis[:, 0] = np.sqrt(1 / filters)
    return energies @ basis.astype(energies.dtype)
