"""Which pixels of the image a unit sees: in closed form for a layer, to the pixel for a unit.

Going from a layer back towards the image, per axis, with kernel k, stride s, padding p before and dilation d:

    convolution, pooling       first' = s first - p            last' = s last - p + d (k - 1)       jump' = s jump
    transposed, repeated       first' = ⌈(first + p - d (k - 1)) / s⌉     last' = ⌊(last + p) / s⌋    jump' = jump / s
    Dense, global pooling      first' = 0                      last' = n - 1                        jump' = 0

Where branches meet, a unit sees what it sees along every path.

Source: Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", equations 1 to 8;
transposed convolution: Dumoulin and Visin 2016, chapter 4.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.engines.base import Window
from pellucid.errors import ParameterError, ShapeError, unknown
from pellucid.inspect.pictures import new_figure, save, show_image
from pellucid.layers.activations import Activation, Maxout, Softmax
from pellucid.layers.base import Layer, Shape
from pellucid.layers.conv import Conv2D, ConvTranspose2D
from pellucid.layers.dense import Dense
from pellucid.layers.dropout import Dropout
from pellucid.layers.merge import Add, Concat, Multiply
from pellucid.layers.norm import BatchNorm, LayerNorm, LocalResponseNorm
from pellucid.layers.pool import GlobalAveragePool, GlobalMaxPool, _Pooling
from pellucid.layers.rbf import RBF
from pellucid.layers.recompute import Recompute
from pellucid.layers.rescale import Rescale
from pellucid.layers.shape import Flatten, Reshape, Split, joined_axis
from pellucid.layers.shortcut import Shortcut2D
from pellucid.layers.spatial import Crop2D, Upsample2D, ZeroPad2D
from pellucid.layers.windows import Pads, checked_padding, per_axis, slid
from pellucid.network.base import Network, Step

Number = int | float


@dataclass(frozen=True)
class ReceptiveField:
    """What a layer's units see of the image, one entry for each spatial axis.

    Attributes:
        layer: the layer's name.
        input: the image's name among the network's inputs.
        shape: of the image, (channels, height, width) or (channels, length).
        size: pixels from the first to the last that a unit sees, padding counted; the most that any unit sees.
        jump: pixels between the fields of neighbouring units; 0 where every unit sees the same, a fraction after
            upsampling, None where paths of different strides meet.
        centre: the middle of the field of the first unit; unit i's is ``centre + i * jump``.
        unit: the unit that was asked for, and for it:
        region: (first, stop) of the pixels that it sees on the image; None where it sees none.
        padding: (before, after) pixels of its field that lie outside the image.
        pixels: whether it sees them, of ``shape``.
    """

    layer: str
    input: str
    shape: Shape
    size: tuple[int, ...]
    jump: tuple[Number | None, ...]
    centre: tuple[float, ...]
    unit: tuple[int, ...] | None = None
    region: tuple[tuple[int, int], ...] | None = None
    padding: tuple[tuple[int, int], ...] | None = None
    pixels: np.ndarray | None = None

    @property
    def start(self) -> tuple[float, ...]:
        """The first pixel of the first unit's field, negative in the padding; unit i's is ``start + i * jump``."""
        return tuple(c - (n - 1) / 2 for c, n in zip(self.centre, self.size, strict=True))

    def __str__(self) -> str:
        jump = " × ".join("varying" if each is None else f"{each:g}" for each in self.jump)
        lines = [
            f"{self.layer} sees {_sides(self.size)} pixels of {self.input} {self.shape}",
            f"  jump {jump}, first at ({', '.join(f'{each:g}' for each in self.start)})",
        ]
        if self.unit is not None:
            lines.append(f"  unit {self.unit}: {self._place()}")
        return "\n".join(lines)

    def _place(self) -> str:
        if self.region is None or self.padding is None:
            return "sees nothing of it"
        names = ("rows", "columns") if len(self.region) == 2 else ("samples",)
        seen = ", ".join(f"{name} {a} to {b - 1}" for name, (a, b) in zip(names, self.region, strict=True))
        outside = ", ".join(f"{before} before and {after} after" for before, after in self.padding)
        return f"{seen}; in the padding {outside}"


def receptive_field(
    net: Network, layer: str | Layer, unit: int | Sequence[int] | None = None, *, input: str | None = None
) -> ReceptiveField:
    """The pixels that a layer's units see.

    What is said of a unit is exact: it depends on the pixels in ``pixels`` and on no other (a maximum depends on
    whichever pixel is largest). BatchNorm is taken as in prediction, where it mixes no pixels.

    Arguments:
        net: a network with an image (channels, height, width) or a signal (channels, length) as input.
        layer: its name as in `net.summary`, or the layer itself; of a `Split`, ``"split_1:0"``.
        unit: (channel, row, column), (channel, sample), or the number of a unit in a vector.
        input: which input, where the layer sees several images.

    Returns:
        the `ReceptiveField`.

    Raises:
        ParameterError: no such layer or input; a layer on the way that has no such geometry.
        ShapeError: no such unit.
    """
    label, shape = _find(net, layer)
    fields = _walk(net, label, tuple(Span.of(np.arange(n)) for n in shape[1:]), _spans, _joined)
    image = _chosen(net, label, fields, input)
    spans, sizes = fields[image], net.inputs[image][1:]
    field = ReceptiveField(
        label,
        image,
        net.inputs[image],
        size=tuple(int(max(0.0, (span.last - span.first).max() + 1)) for span in spans),
        jump=tuple(None if span.jump is None else _plain(span.jump) for span in spans),
        centre=tuple(float(span.centre) for span in spans),
    )
    if unit is None:
        return field

    place = _checked_unit(unit, shape, label)
    own = _walk(net, label, tuple(Span.of(np.array([i])) for i in place[1:]), _spans, _joined)[image]
    start = np.zeros(shape, bool)
    start[place] = True
    pixels = _walk(net, label, start, _pixels, np.logical_or)[image]
    seen = [
        np.flatnonzero(pixels.any(axis=(0, *range(1, a), *range(a + 1, pixels.ndim)))) for a in range(1, pixels.ndim)
    ]
    return replace(
        field,
        unit=place,
        region=tuple((int(each[0]), int(each[-1]) + 1) for each in seen) if pixels.any() else None,
        padding=tuple(
            (max(0, -int(span.first[0])), max(0, int(span.last[0]) - n + 1)) if np.isfinite(span.first[0]) else (0, 0)
            for span, n in zip(own, sizes, strict=True)
        ),
        pixels=pixels,
    )


def overlay_png(
    net: Network,
    layer: str | Layer,
    unit: int | Sequence[int],
    image: Any,
    path: str | os.PathLike,
    *,
    input: str | None = None,
) -> Path:
    """An image with the region that a unit sees drawn on it; of a field that reaches into the padding all is drawn.

    Arguments:
        net, layer, unit, input: as in `receptive_field`.
        image: (channels, height, width) or (height, width), of the input's size; any range of values.
        path: the picture; its ending says the format: ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        ``path``.

    Raises:
        ShapeError: the image is not of the input's size, or the input is no image.
        ParameterError, EngineError, CheckpointError: as `receptive_field`, and as for other pictures.
    """
    field = receptive_field(net, layer, unit, input=input)
    values = np.asarray(image)
    if len(field.shape) != 3 or values.shape not in (field.shape, field.shape[1:]):
        raise ShapeError(
            "not an image of the input's size", where="overlay_png", expected=field.shape, got=values.shape
        )
    figure = new_figure(4.6, 4.9)
    axes = figure.add_subplot()
    show_image(axes, values)
    if field.region is not None and field.padding is not None and field.pixels is not None:
        from matplotlib.patches import Rectangle

        _, height, width = field.shape
        shade = np.zeros((height, width, 4))
        shade[..., 3] = 0.55 * ~field.pixels.any(axis=0)
        axes.imshow(shade, interpolation="nearest")
        (top, bottom), (left, right) = (
            (first - before - 0.5, stop + after - 0.5)
            for (first, stop), (before, after) in zip(field.region, field.padding, strict=True)
        )
        outline = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#D55E00", linewidth=2)
        outline.set_clip_on(False)
        axes.add_patch(outline)
        axes.set_xlim(min(left, -0.5), max(right, width - 0.5))
        axes.set_ylim(max(bottom, height - 0.5), min(top, -0.5))
    axes.set_title(f"{field.layer}, unit {field.unit}: {_sides(field.size)} pixels", loc="left", fontsize=10)
    return save(figure, path)


# --- going back through one layer -----------------------------------------------------------------------------------


class Span(NamedTuple):
    """What units see along one axis: from ``first`` to ``last``, both included, in pixels."""

    first: np.ndarray  # of each unit; +∞ for one that sees nothing
    last: np.ndarray  # of each unit; -∞ for one that sees nothing
    jump: Fraction | None
    centre: Fraction  # of unit 0

    @classmethod
    def of(cls, units: np.ndarray) -> Span:
        """Units that see themselves."""
        return cls(units.astype(float), units.astype(float), Fraction(1), Fraction(0))

    @classmethod
    def whole(cls, n: int) -> Span:
        """A unit that sees all of an axis."""
        return cls(np.zeros(1), np.full(1, n - 1.0), Fraction(0), Fraction(n - 1, 2))


Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Link:
    """How values come from those before them; here each from the one at its own place.

    Attributes:
        shape: of what is read, without the example axis.
    """

    shape: Shape

    def spans(self, spans: Spans) -> Spans:
        """What is seen before the link, from what is seen behind it, along each axis."""
        return spans

    def pixels(self, mask: np.ndarray) -> np.ndarray:
        """The values read by those in ``mask``."""
        return mask


@dataclass(frozen=True)
class Across(Link):
    """Each value reads all along some axes of what is before it, and its own place along the others."""

    axes: tuple[int, ...]

    def spans(self, spans):
        if not spans:
            return tuple(map(Span.whole, self.shape[1:]))
        return tuple(Span.whole(n) if 1 + a in self.axes else spans[a] for a, n in enumerate(self.shape[1:]))

    def pixels(self, mask):
        mask = mask.reshape(*mask.shape, *(1,) * (len(self.shape) - mask.ndim))
        return np.broadcast_to(mask.any(axis=self.axes, keepdims=True), self.shape)


@dataclass(frozen=True)
class Channels(Link):
    """Each value reads some channels at its own place.

    Attributes:
        reads: (channels behind, channels before).
    """

    reads: np.ndarray

    def pixels(self, mask):
        flat = mask.reshape(mask.shape[0], -1).astype(np.float32)
        return (self.reads.T.astype(np.float32) @ flat > 0).reshape(self.shape[0], *mask.shape[1:])


@dataclass(frozen=True)
class Slides(Link):
    """Each value reads a window of what is before it."""

    window: Window

    def spans(self, spans):
        return tuple(
            Span(
                span.first * s - before,
                span.last * s - before + d * (k - 1),
                span.jump and span.jump * s,
                span.centre * s - before + Fraction(d * (k - 1), 2),
            )
            for span, k, s, before, d in zip(spans, *_numbers(self.window), strict=True)
        )

    def pixels(self, mask):
        for axis, (n, k, s, before, d) in enumerate(zip(self.shape[1:], *_numbers(self.window), strict=True), 1):
            mask = np.moveaxis(mask, axis, -1)
            read = np.zeros((*mask.shape[:-1], n), bool)
            for tap in range(k):
                places = np.arange(mask.shape[-1]) * s - before + d * tap
                there = (places >= 0) & (places < n)
                read[..., places[there]] |= mask[..., there]
            mask = np.moveaxis(read, -1, axis)
        return mask


@dataclass(frozen=True)
class Spreads(Link):
    """Each value reads those whose window it lies under: the transpose of `Slides`."""

    window: Window

    def spans(self, spans):
        found = []
        for span, k, s, before, d in zip(spans, *_numbers(self.window), strict=True):
            taps = before - d * np.arange(k)
            first, last = np.ceil((span.first[:, None] + taps) / s), np.floor((span.last[:, None] + taps) / s)
            hit = first <= last
            centre = (span.centre + before - Fraction(d * (k - 1), 2)) / s
            first, last = np.where(hit, first, np.inf).min(axis=1), np.where(hit, last, -np.inf).max(axis=1)
            found.append(Span(first, last, span.jump and span.jump / s, centre))
        return tuple(found)

    def pixels(self, mask):
        for axis, (n, k, s, before, d) in enumerate(zip(self.shape[1:], *_numbers(self.window), strict=True), 1):
            mask = np.moveaxis(mask, axis, -1)
            read = np.zeros((*mask.shape[:-1], n), bool)
            for tap in range(k):
                places = np.arange(n) * s - before + d * tap
                there = (places >= 0) & (places < mask.shape[-1])
                read[..., there] |= mask[..., places[there]]
            mask = np.moveaxis(read, -1, axis)
        return mask


@dataclass(frozen=True)
class Rearranged(Link):
    """The same values in another shape."""

    def spans(self, spans):
        if not spans:
            return tuple(map(Span.whole, self.shape[1:]))
        if len(self.shape) == 1:
            return ()
        raise _without_geometry("Reshape", "it moves pixels to other places")

    def pixels(self, mask):
        return mask.reshape(self.shape)


@dataclass(frozen=True)
class Part(Link):
    """Channels of what is behind (a `Concat`), or the place of a part in what is before (a `Split`)."""

    start: int

    def pixels(self, mask):
        behind, before = mask.shape[0], self.shape[0]
        if behind >= before:
            return mask[self.start : self.start + before]
        read = np.zeros(self.shape, bool)
        read[self.start : self.start + behind] = mask
        return read


Links = tuple[Link, ...]


@singledispatch
def reads(layer: Layer, shape: Shape) -> Links:
    """What a layer's output reads of its input, from the output back. `reads.register` adds a layer of your own:

        @reads.register(MyLayer)
        def _(layer, shape):
            return (Link(shape),)       # each value from the one at its own place

    Arguments:
        layer: with one input and one output.
        shape: of its input, without the example axis.

    Raises:
        ParameterError: nobody has said it of such a layer.
    """
    if layer.any_length:  # a layer for sequences
        steps = "its own step alone" if layer.causal else "steps before it and behind it"
        steps = "every step up to its own" if layer.start() and layer.causal else steps
        raise _without_geometry(type(layer).__name__, f"its input is a sequence, of which a step sees {steps}")
    raise _without_geometry(
        type(layer).__name__,
        "what its units see is not known",
        hint="say it with pellucid.inspect.receptive_field.reads.register",
    )


@reads.register(Activation)
@reads.register(BatchNorm)
@reads.register(Dropout)
@reads.register(Rescale)
def _(layer, shape):
    return (Link(shape),)


@reads.register
def _(layer: Softmax, shape):
    return (Across(shape, (layer.axis % len(shape),)),)


@reads.register
def _(layer: Maxout, shape):
    return (Channels(shape, np.kron(np.eye(shape[0] // layer.pieces), np.ones((1, layer.pieces))) > 0),)


@reads.register
def _(layer: Recompute, shape):
    links: Links = ()
    for each in layer.layers:
        links, shape = (*reads(each, shape), *links), each.output_shape(shape)
    return links


@reads.register(Dense)
@reads.register(RBF)
@reads.register(GlobalAveragePool)
@reads.register(GlobalMaxPool)
@reads.register(LayerNorm)
def _(layer, shape):
    first = 1 if isinstance(layer, (GlobalAveragePool, GlobalMaxPool)) else 0
    if isinstance(layer, LayerNorm) and layer.axes:
        first = len(shape) - layer.axes
    whole = Across(shape, tuple(range(first, len(shape))))
    if not isinstance(layer, Dense):
        return (whole,)
    Z = (layer.units,)
    return (*reads(layer.activation, Z), whole)


@reads.register
def _(layer: LocalResponseNorm, shape):
    offset = np.arange(shape[0]) - np.arange(shape[0])[:, None]
    return (Channels(shape, (offset >= -(layer.n // 2)) & (offset <= layer.n - 1 - layer.n // 2)),)


@reads.register
def _(layer: Conv2D, shape):
    window = layer.window(shape)
    if layer.connections is None:
        seen = _grouped(layer.units, shape[0], layer.groups)
    else:
        seen = np.array([[channel in row for channel in range(shape[0])] for row in layer.connections])
    Z = (layer.units, *slid(window, shape[1:]))
    return (*reads(layer.activation, Z), Channels((shape[0], *Z[1:]), seen), Slides(shape, window))


@reads.register
def _(layer: ConvTranspose2D, shape):
    sizes, window = layer._result(shape)
    Z = (layer.units, *sizes)
    seen = _grouped(layer.units, shape[0], layer.groups)
    return (*reads(layer.activation, Z), Channels((shape[0], *sizes), seen), Spreads(shape, window))


@reads.register
def _(layer: _Pooling, shape):
    return (Slides(shape, layer.window(shape)),)


@reads.register
def _(layer: Upsample2D, shape):
    scale = per_axis(layer.scale, 2, "scale", "Upsample2D")
    return (Spreads(shape, Window(scale, scale, ((0, 0), (0, 0)), (1, 1))),)


@reads.register
def _(layer: ZeroPad2D, shape):
    return (Slides(shape, Window((1, 1), (1, 1), _sides_of(layer.padding, "ZeroPad2D"), (1, 1))),)


@reads.register
def _(layer: Crop2D, shape):
    cut = tuple((-before, -after) for before, after in _sides_of(layer.border, "Crop2D"))
    return (Slides(shape, Window((1, 1), (1, 1), cut, (1, 1))),)


@reads.register
def _(layer: Shortcut2D, shape):
    stride = Window((1, 1), (layer.stride,) * 2, ((0, 0), (0, 0)), (1, 1))
    return (
        Channels((shape[0], *layer.output_shape(shape)[1:]), np.eye(layer.units, shape[0]) > 0),
        Slides(shape, stride),
    )


@reads.register(Flatten)
@reads.register(Reshape)
def _(layer, shape):
    same = layer.output_shape(shape) == tuple(shape)
    return (Link(shape) if same else Rearranged(shape),)


def _grouped(units: int, channels: int, groups: int) -> np.ndarray:
    return np.kron(np.eye(groups), np.ones((units // groups, channels // groups))) > 0


def _sides_of(padding: Any, where: str) -> Pads:
    sides = checked_padding(padding, 2, where)
    assert not isinstance(sides, str)
    return sides


def _numbers(window: Window) -> tuple[Any, ...]:
    """Kernel, stride, padding before and dilation, each for every axis."""
    return window.kernel, window.stride, [before for before, _ in window.pads], window.dilation


# --- going back through a network -----------------------------------------------------------------------------------


def _spans(link: Link, spans: Spans) -> Spans:
    return link.spans(spans)


def _pixels(link: Link, mask: np.ndarray) -> np.ndarray:
    return link.pixels(mask)


def _joined(one: Spans, other: Spans) -> Spans:
    """What is seen along one path or the other."""
    return tuple(
        Span(
            first := np.minimum(a.first, b.first),
            last := np.maximum(a.last, b.last),
            a.jump if a.jump == b.jump else None,
            a.centre if a.centre == b.centre else Fraction(float(first[0] + last[0]) / 2),
        )
        for a, b in zip(one, other, strict=True)
    )


def _walk(net: Network, label: str, value: Any, through: Any, join: Any) -> dict[str, Any]:
    """What ``value`` at ``label`` becomes at each input that leads there."""
    values = {label: value}
    for step in reversed(net.steps):
        if values.keys().isdisjoint(step.outputs):
            continue
        for made, source, links in _edges(step):
            if made in values:
                value = values[made]
                for link in links:
                    value = through(link, value)
                values[source] = join(values[source], value) if source in values else value
    return {name: values[name] for name in net.inputs if name in values}


def _edges(step: Step) -> list[tuple[str, str, Links]]:
    """(what is made, what is read for it, how) of one application of a layer."""
    layer, shapes = step.layer, step.input_shape
    if isinstance(layer, (Add, Multiply)):
        return [(step.label, source, (Link(shape),)) for source, shape in zip(step.sources, shapes, strict=True)]
    if not isinstance(layer, (Concat, Split)):
        return [(step.label, step.sources[0], reads(layer, shapes))]
    joins = isinstance(layer, Concat)
    parts, whole = (shapes, step.output_shape) if joins else (step.output_shape, shapes)
    if joined_axis(layer, layer.axis, whole):
        raise _without_geometry(step.label, "it joins or cuts images along another axis than the channels")
    starts = np.cumsum([0, *(shape[0] for shape in parts)])
    if joins:
        return [
            (step.label, source, (Part(shape, int(start)),))
            for source, shape, start in zip(step.sources, parts, starts[:-1], strict=True)
        ]
    return [
        (made, step.sources[0], (Part(shapes, int(start)),))
        for made, start in zip(step.outputs, starts[:-1], strict=True)
    ]


def _find(net: Network, layer: str | Layer) -> tuple[str, Shape]:
    """The label and the shape of what a layer makes."""
    shapes: dict[str, Shape] = {}
    for step in net.steps:
        made = [step.output_shape] if len(step.outputs) == 1 else step.output_shape
        shapes.update(zip(step.outputs, made, strict=True))
    label = net.names.get(layer, repr(layer)) if isinstance(layer, Layer) else layer
    if label not in shapes:
        raise unknown("layer", label, shapes, where="receptive_field")
    if None in shapes[label]:
        raise ParameterError(
            f"{label} has any number of steps, and a receptive field is of an image or signal of a known size",
            where="receptive_field",
            expected="a number for T",
            got=shapes[label],
        )
    return label, shapes[label]


def _chosen(net: Network, label: str, fields: dict[str, Spans], input: str | None) -> str:
    """The one image among the inputs that lead to a layer, or the one that was named."""
    images = [name for name in fields if len(net.inputs[name]) > 1]
    if input is None and len(images) == 1:
        return images[0]
    if input in images:
        return input
    raise ParameterError(
        f"{label} sees {'several images' if images else 'no image'}",
        where="receptive_field",
        expected=f"input={' or '.join(map(repr, images))}" if images else "an input (channels, height, width)",
        got=f"input={input!r}" if images else ", ".join(f"{name} {shape}" for name, shape in net.inputs.items()),
    )


def _checked_unit(unit: int | Sequence[int], shape: Shape, label: str) -> tuple[int, ...]:
    place = tuple(unit) if isinstance(unit, (tuple, list, np.ndarray)) else (unit,)
    whole = all(isinstance(i, (int, np.integer)) for i in place)
    if len(place) != len(shape) or not whole or not all(0 <= i < n for i, n in zip(place, shape, strict=True)):
        raise ShapeError(
            "there is no such unit", where=label, expected=f"one index from 0 for each of {shape}", got=unit
        )
    return tuple(int(i) for i in place)


def _without_geometry(layer: str, why: str, hint: str | None = None) -> ParameterError:
    return ParameterError(f"no receptive field goes through it: {why}", where=layer, hint=hint)


def _plain(value: Fraction) -> Number:
    return int(value) if value.denominator == 1 else float(value)


def _sides(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
