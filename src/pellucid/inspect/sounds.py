"""What the units of a network on the samples of a sound respond to: from a few milliseconds to whole words.

The first layer's units are filters, each with its frequency response; those of later layers answer to longer and
longer stretches: parts of a period, phonemes, words.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.errors import DataError, ParameterError, ShapeError, unknown
from pellucid.inspect.features import Prefix
from pellucid.inspect.pictures import new_figure, save
from pellucid.inspect.receptive_field import receptive_field
from pellucid.layers.conv import Conv1D
from pellucid.layers.norm import BatchNorm
from pellucid.network.base import Network

_AT_ONCE = 1 << 22  # numbers of the largest layer's output computed at a time
_BRIEF = 0.03  # seconds below which a spectrum says more than how it changes
_DEPTH = 40  # decibels below the loudest that are drawn
_WINDOW, _STEP = 0.008, 0.001  # seconds, of the spectrograms


class Segments(NamedTuple):
    """The stretches of sound that excite each unit most, best first, at most one of each example.

    Attributes:
        Z: (units, count), how strongly.
        examples: (units, count), which example.
        starts: (units, count), the first sample of the stretch; negative where it begins before the sound.
        signals: (units, count, samples), what the unit hears; NaN outside the sound.
    """

    Z: np.ndarray
    examples: np.ndarray
    starts: np.ndarray
    signals: np.ndarray


def exciting_sounds(net: Network, x: Any, layer: str, count: int = 3) -> Segments:
    """What excites each unit of a one-dimensional convolution most, before its activation.

        max over examples i and places t of Z[unit, t, i]; the stretch is the receptive field of (unit, t)

    Arguments:
        net: a network with one input, (1, T) samples.
        x: (m, 1, T), examples first, such as those of the validation.
        layer: its name.
        count: stretches of each unit; fewer where there are fewer examples.

    Returns:
        the `Segments`.

    Raises:
        ParameterError: another network, no such layer.
        ShapeError, DataError: x does not fit.

    Source: Zeiler and Fergus 2014, section 4, for sounds.
    """
    name = _checked(net, x)
    if layer not in (there := _convolutions(net)):
        raise unknown("convolution", layer, there, where="exciting_sounds")
    prefix = Prefix(net, there[layer], before_activation=True)
    x = np.asarray(x, net.dtype)
    largest = max(int(np.prod(step.output_shape)) for step in prefix.steps)
    at_once = max(1, _AT_ONCE // largest)
    best, places = [], []
    for begin in range(0, len(x), at_once):
        X = net.checked({name: np.moveaxis(x[begin : begin + at_once], 0, -1)}, where="x")
        Z = net.ops.to_numpy(prefix.forward(X)[0])  # (units, places, examples)
        places.append(Z.argmax(axis=1))
        best.append(Z.max(axis=1))
    Z, place = np.concatenate(best, axis=1), np.concatenate(places, axis=1)
    examples = np.argsort(-Z, axis=1, kind="stable")[:, :count]
    field = receptive_field(net, layer)
    starts = np.rint(field.start[0] + np.take_along_axis(place, examples, axis=1) * float(field.jump[0] or 0))
    starts = starts.astype(np.int64)
    heard = np.arange(field.size[0]) + starts[..., None]
    inside = (heard >= 0) & (heard < x.shape[2])
    signals = np.where(inside, x[examples[..., None], 0, np.where(inside, heard, 0)], np.nan)
    return Segments(np.take_along_axis(Z, examples, axis=1), examples, starts, signals)


def frequency_response(W: Any, rate: float, points: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """How much each filter lets through of each frequency: 20 log₁₀ |Σ_n w[n] e^(-2πi f n / rate)|, largest 0 dB.

    Arguments:
        W: (units, samples), kernels.
        rate: samples a second.
        points: of the Fourier transform, or the kernel's length where that is more.

    Returns:
        f (k,) in Hz and the responses (units, k) in dB, at least -120.
    """
    W = np.asarray(W, np.float64)
    points = max(points, W.shape[1])
    size = np.abs(np.fft.rfft(W, points))
    size /= np.maximum(size.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.fft.rfftfreq(points, 1 / rate), 20 * np.log10(np.maximum(size, 1e-6))


def sounds_sheet(
    net: Network,
    x: Any,
    path: str | os.PathLike[str],
    *,
    rate: float,
    y: Any = None,
    classes: Sequence[Any] | None = None,
    layers: Sequence[str] | None = None,
    units: int = 8,
    title: str = "The sounds that the units respond to",
) -> Path:
    """Draw what the units of a network on samples respond to, layer by layer.

    Of each unit of the first layer the filter and its frequency response, sorted by the frequency that passes best;
    of every layer the two stretches of sound that excite its units most, as waveform and as spectrum, or from 30 ms
    on as spectrogram, with the word they are from and where in it they begin.

    Arguments:
        net: a network with one input, (1, T) samples.
        x: (m, 1, T), examples first, as the network takes them: some hundred that it was not trained on.
        path: ``.png``, ``.svg`` or ``.pdf``.
        rate: samples a second.
        y: (m,) class indices of the examples.
        classes: their names.
        layers: names of the convolutions to show; None is all.
        units: shown of each layer, evenly spaced among those that respond.
        title: of the sheet.

    Returns:
        ``path``.

    Raises:
        ParameterError: a network that does not read samples, an unknown layer, another ending.
        ShapeError, DataError: x or y do not fit.
        EngineError: matplotlib is not installed.
        CheckpointError: the file cannot be written.
    """
    _checked(net, x)
    there = _convolutions(net)
    for layer in layers or ():
        if layer not in there:
            raise unknown("convolution", layer, there, where="sounds_sheet")
    if not isinstance(units, int) or units < 1:
        raise ParameterError("units is a number of units", where="sounds_sheet", expected="1, 2, …", got=repr(units))
    if y is not None and np.shape(y) != np.shape(x)[:1]:
        raise ShapeError("a class for each sound", where="y", expected=f"({len(x)},)", got=np.shape(y))
    shown = list(layers or there)
    names = None if y is None else [str(classes[i]) if classes is not None else f"class {i}" for i in np.asarray(y)]
    sections = [_section(net, x, layer, rate, units) for layer in shown]
    heights = [0.55 + 0.82 * (2 * 2 + 2 * bool(len(each.filters))) for each in sections]
    width, top = 0.9 + 1.28 * max(len(each.chosen) for each in sections), 0.75
    height = sum(heights) + top
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    figure.text(0.3 / width, 1 - 0.28 / height, title, fontsize=13, weight="bold", va="center")
    figure.text(0.3 / width, 1 - 0.52 / height, f"{len(x):,} sounds of {rate:,g} Hz", fontsize=8, va="center")
    for section, tall in zip(sections, heights, strict=True):
        figure.text(0.3 / width, 1 - (top + 0.1) / height, section.title, fontsize=10, weight="bold", va="center")
        for column, unit in enumerate(section.chosen):
            left = (0.75 + 1.28 * column) / width
            cells = [
                figure.add_axes((left, 1 - (top + 0.5 + 0.82 * row + 0.62) / height, 1.12 / width, 0.62 / height))
                for row in range(round((tall - 0.55) / 0.82))
            ]
            _draw_unit(cells, section, int(unit), rate, names, first=not column)
        top += tall
    return save(figure, path)


class _Section(NamedTuple):
    title: str
    chosen: np.ndarray
    filters: np.ndarray  # (units, samples); none of a later layer
    found: Segments


def _section(net: Network, x: Any, layer: str, rate: float, units: int) -> _Section:
    step = {each.label: each for each in net.steps}[layer]
    found = exciting_sounds(net, x, layer, 2)
    alive = np.flatnonzero(found.Z[:, 0] > 0)
    first = step.sources[0] in net.inputs
    filters = net.ops.to_numpy(net.parameters[step.name]["W"])[:, 0] if first else np.zeros((0, 0))
    if first:  # from the lowest frequency that passes best to the highest
        alive = alive[np.argsort(frequency_response(filters, rate)[1].argmax(axis=1)[alive], kind="stable")]
    chosen = alive[np.unique(np.linspace(0, len(alive) - 1, min(units, len(alive))).round().astype(int))]
    samples = receptive_field(net, layer).size[0]
    silent = len(found.Z) - len(alive)
    heard = f"{samples:,} samples, {1000 * samples / rate:g} ms"
    title = f"{layer}: {len(found.Z)} units; each hears {heard}" + (f"; {silent} never respond" if silent else "")
    return _Section(title, chosen, filters, found)


def _draw_unit(cells: list[Any], section: _Section, unit: int, rate: float, names: Any, *, first: bool) -> None:
    """One column of a layer: the filter and its response, then each stretch and its spectrum."""
    cells = list(cells)
    if len(section.filters):
        W = section.filters[unit]
        _wave(cells[0], W, rate, f"unit {unit}", "#D55E00")
        f, decibels = frequency_response(section.filters[[unit]], rate)
        _spectrum(cells[1], f, decibels[0], "#D55E00")
        if first:
            _say(cells[0], "filter")
            _say(cells[1], "response\ndB")
        cells = cells[2:]
    for rank in range(section.found.signals.shape[1]):
        wave, spectrum = cells[2 * rank : 2 * rank + 2]
        signal, begin = section.found.signals[unit, rank], section.found.starts[unit, rank]
        word = "" if names is None else f"{names[section.found.examples[unit, rank]]}, "
        head = f"{word}{1000 * begin / rate:.0f} ms"
        _wave(wave, signal, rate, head if rank or len(section.filters) else f"unit {unit}\n{head}", "#0072B2")
        heard = np.nan_to_num(signal)
        brief = len(heard) < _BRIEF * rate
        if brief:
            f, decibels = frequency_response(heard[None] * np.hanning(len(heard)), rate)
            _spectrum(spectrum, f, decibels[0], "#0072B2")
        else:
            _spectrogram(spectrum, heard, rate)
        if first:
            _say(wave, "sound")
            _say(spectrum, "spectrum\ndB" if brief else "kHz")
    for cell in cells[2 * section.found.signals.shape[1] :]:
        cell.axis("off")


def _wave(axes: Any, signal: np.ndarray, rate: float, head: str, color: str) -> None:
    most = float(np.nanmax(np.abs(signal), initial=0)) or 1.0
    axes.plot(1000 * np.arange(len(signal)) / rate, signal / most, color=color, linewidth=0.6)
    axes.set(xlim=(0, 1000 * len(signal) / rate), ylim=(-1.1, 1.1), yticks=[], xticks=[])
    axes.set_title(head, fontsize=6.5, pad=2)


def _spectrum(axes: Any, f: np.ndarray, decibels: np.ndarray, color: str) -> None:
    axes.fill_between(f / 1000, np.maximum(decibels, -_DEPTH), -_DEPTH, color=color, alpha=0.35, linewidth=0)
    axes.set(xlim=(0, f[-1] / 1000), ylim=(-_DEPTH, 2), xticks=[], yticks=[-_DEPTH, 0])
    axes.tick_params(labelsize=5, length=1.5, pad=1)
    axes.set_xlabel(f"0 – {f[-1] / 1000:g} kHz", fontsize=5, labelpad=1)


def _spectrogram(axes: Any, signal: np.ndarray, rate: float) -> None:
    length, step = round(_WINDOW * rate), max(1, round(_STEP * rate))
    pieces = np.lib.stride_tricks.sliding_window_view(signal, length)[::step] * np.hanning(length)
    power = np.abs(np.fft.rfft(pieces, 4 * length)) ** 2
    decibels = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 1e-12))
    extent = (0, 1000 * len(signal) / rate, 0, rate / 2000)
    axes.imshow(decibels.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-_DEPTH, vmax=0)
    axes.set(xticks=[], yticks=[0, rate / 4000])
    axes.tick_params(labelsize=5, length=1.5, pad=1)
    axes.set_xlabel(f"0 – {extent[1]:g} ms", fontsize=5, labelpad=1)


def _say(axes: Any, text: str) -> None:
    axes.set_ylabel(text, fontsize=6, labelpad=2)


def _checked(net: Network, x: Any) -> str:
    """The name of the one input, the samples of a sound, which ``x`` fits."""
    name, shape = next(iter(net.inputs.items()))
    if len(net.inputs) > 1 or len(shape) != 2 or shape[0] != 1 or shape[1] is None or not _convolutions(net):
        got = ", ".join(f"{each} {shape}" for each, shape in net.inputs.items())
        expected = "one input (1, T), read by Conv1D"
        hint = "pellucid train spoken-digits --net sound-cnn trains such a one"
        raise ParameterError(
            "sounds are heard in networks on samples", where="sounds", expected=expected, got=got, hint=hint
        )
    shape_of_x = np.shape(x)
    if len(shape_of_x) != 3 or shape_of_x[1:] != shape or not shape_of_x[0]:
        raise ShapeError(
            "the sounds do not fit the network",
            where="x",
            expected=f"(m, 1, {shape[1]}), examples first",
            got=shape_of_x,
        )
    if not np.isfinite(np.asarray(x)).all():
        raise DataError("a sample is not finite", where="x")
    return name


def _convolutions(net: Network) -> dict[str, str]:
    """Every one-dimensional convolution, and the label of its Z: behind the normalisation that follows it."""
    found = {}
    for step in net.steps:
        if isinstance(step.layer, Conv1D):
            readers = [each for each in net.steps if step.label in each.sources]
            normed = len(readers) == 1 and isinstance(readers[0].layer, BatchNorm)
            found[step.label] = readers[0].label if normed else step.label
    return found
