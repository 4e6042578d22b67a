"""One sheet that shows what a network on images sees, as a picture or as a page that stands alone."""

from __future__ import annotations

import base64
import html
import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.errors import ParameterError, ShapeError, need, unknown
from pellucid.files import atomic_write
from pellucid.inspect import features
from pellucid.inspect.receptive_field import receptive_field
from pellucid.layers.activations import ReLU
from pellucid.layers.conv import Conv2D
from pellucid.layers.shape import Flatten
from pellucid.network.base import Network
from pellucid.trees import leaves

_BLANK = (206, 213, 222)  # outside the image, and where a unit sees nothing
_DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
_HEAT = ((13, 8, 35), (101, 21, 110), (212, 72, 66), (250, 176, 25), (252, 255, 210))
_LAYERS = 8  # of a deep network: what a reader takes in
_SMOOTH_PER = 7  # pixels seen for one smoothing of the gradient: in large fields single pixels would alternate


class View(NamedTuple):
    """What is shown of one unit, as RGB images of their own size; None where there is none."""

    title: str
    filter: np.ndarray | None
    preferred: np.ndarray
    patches: list[np.ndarray]
    map: np.ndarray | None


class Section(NamedTuple):
    """What is shown of one layer."""

    title: str
    note: str
    views: list[View]


class Example(NamedTuple):
    """An image and where the network looked."""

    title: str
    image: np.ndarray
    saliency: np.ndarray


class Sheet(NamedTuple):
    """All that is shown of a network."""

    title: str
    note: str
    examples: list[Example]
    sections: list[Section]


_ROWS = (
    ("filter", "filter", "weights: blue < 0 < red"),
    ("preferred", "preferred input", "by gradient ascent"),
    ("patches", "most exciting", "patches of the data"),
    ("map", "feature map", "of the first example"),
)


def features_sheet(
    net: Network,
    x: Any,
    path: str | os.PathLike[str],
    *,
    y: Any = None,
    classes: Sequence[Any] | None = None,
    layers: Sequence[str] | None = None,
    units: int | None = None,
    title: str = "What the units respond to",
) -> Path:
    """Draw what the units of a network on images respond to, layer by layer.

    Of each unit: the filter where it reads the image itself, the input that it prefers, the patches of ``x`` that
    excite it most, and its map of the first example; above them, examples and where the network looked.

    Arguments:
        net: a network with one input, images (channels, height, width).
        x: (m, C, H, W), examples first, as the network takes them: a few hundred that it was not trained on.
        path: ``.html``, a page that stands alone, or ``.png``, ``.svg``, ``.pdf``.
        y: (m,) class indices: then there is one example of each class.
        classes: their names.
        layers: names of the convolutions and dense layers to show; None is at most 8, evenly spaced.
        units: shown of each layer, evenly spaced among those that respond; None is 10 of a picture, 48 of a page.
        title: of the sheet.

    Returns:
        ``path``.

    Raises:
        ParameterError: a network that does not read one image, an unknown layer, another ending.
        ShapeError, DataError: x or y do not fit.
        EngineError: matplotlib is not installed; a page does without.
        CheckpointError: the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".html", ".png", ".svg", ".pdf"):
        raise unknown("format", ending, [".html", ".png", ".svg", ".pdf"], where=str(path))
    if ending != ".html":
        need("matplotlib", extra="plot")
    if units is None:
        units = 48 if ending == ".html" else 10
    if not isinstance(units, int) or units < 1:
        raise ParameterError("units is a number of units", where="features_sheet", expected="1, 2, …", got=repr(units))
    sheet = _sheet(net, x, y, classes, layers, units, title)
    return atomic_write(path, _page(sheet).encode() if ending == ".html" else _picture(sheet, ending[1:]))


def _sheet(net: Network, x: Any, y: Any, classes: Any, layers: Any, units: int, title: str) -> Sheet:
    there = features.blocks(net)
    if layers is None:
        blocks = [there[i] for i in np.unique(np.linspace(0, len(there) - 1, min(len(there), _LAYERS)).astype(int))]
    else:
        blocks = [features._block(net, name) for name in layers]
    features.checked_images(net, x)
    x = np.asarray(x, net.dtype)
    y = None if y is None else np.asarray(y)
    if y is not None and y.shape != x.shape[:1]:
        raise ShapeError("a class for each image", where="y", expected=f"({len(x)},)", got=y.shape)
    first = np.arange(min(len(x), 10)) if y is None else np.unique(y, return_index=True)[1][:10]
    scale = x.min(axis=(0, 2, 3))[:, None, None], x.max(axis=(0, 2, 3))[:, None, None]
    maps = features.feature_maps(net, x[first[:1]], [block.A for block in blocks if len(block.shape) == 3])
    sections = [
        _section(net, x, block, maps, scale, units, classes if block == there[-1] else None) for block in blocks
    ]
    count = sum(W.size for _, W in leaves(net.parameters))
    shape = "×".join(map(str, x.shape[1:]))
    of = "" if len(blocks) == len(there) else f" of {len(there)}"
    note = f"{len(blocks)}{of} layers of units, {count:,} parameters, images {shape}; patches from {len(x):,} images"
    return Sheet(title, note, _examples(net, x, y, classes, first, scale), sections)


def _examples(net: Network, x: np.ndarray, y: Any, classes: Any, first: np.ndarray, scale: Any) -> list[Example]:
    if len(net.outputs) > 1 or len(next(iter(net.outputs.values()))) != 1:
        return []
    (name,) = net.outputs
    inputs = features.checked_images(net, x[first])
    A, _ = net.forward_pass(net.parameters, net.state, inputs, features.Mode(False))
    guessed = features.guessed(net, A[name])
    many = next(iter(net.outputs.values()))[0] > 1
    titles = [str(classes[k]) if classes is not None else f"class {k}" for k in guessed.tolist()] if many else []
    seen = features.saliency(net, x[first], guessed)
    examples = []
    for i, index in enumerate(first):
        said = titles[i] if many else f"example {index}"
        wrong = many and y is not None and guessed[i] != y[index]
        heat = _coloured(seen[i], _HEAT, 0.0)
        examples.append(Example(said + (" ✗" if wrong else ""), _photo(x[index], *scale), heat))
    return examples


def _section(
    net: Network, x: np.ndarray, block: features.Block, maps: Any, scale: Any, units: int, classes: Any
) -> Section:
    found = features.exciting_patches(net, x, block.name)
    layer: Any = block.layer
    last = {step.label: step.layer for step in net.steps}[block.A]
    rectified = isinstance(last, ReLU) or isinstance(getattr(last, "activation", None), ReLU)
    alive = np.flatnonzero(found.Z[:, 0] > 0) if rectified else np.arange(block.shape[0])
    chosen = alive[np.unique(np.linspace(0, len(alive) - 1, min(units, len(alive))).round().astype(int))]
    field = receptive_field(net, block.name)
    sees = tuple(min(size, n) for size, n in zip(field.size, x.shape[2:], strict=True))
    smooth = max(sees) // _SMOOTH_PER
    filters = features.filters(net, block.name) if _reads_image(net, block.name) else None
    preferred: Any = features.maximising_input(net, block.name, chosen, x=x, smooth=smooth) if len(chosen) else []
    mean = x.mean(axis=(0, 2, 3))[:, None, None]
    views = []
    for unit, image in zip(chosen.tolist(), preferred, strict=True):
        named = classes is not None and len(classes) == block.shape[0]
        views.append(
            View(
                str(classes[unit]) if named else f"unit {unit}",
                None if filters is None else _weights(filters[unit]),
                _around(_middle(image, net, block) - mean),
                [_photo(patch, *scale) for patch in found.images[unit]],
                _map(maps[block.A][0, unit]) if block.A in maps else None,
            )
        )
    kind = f"{block.shape[0]} units"
    if isinstance(layer, Conv2D):
        kind += f" of {'×'.join(map(str, layer.kernel))}, maps {'×'.join(map(str, block.shape[1:]))}"
    seen = "the whole image" if not any(field.jump) else f"{'×'.join(map(str, field.size))} pixels"
    note = f"{kind}; each sees {seen}"
    dead = block.shape[0] - len(alive)
    return Section(block.name, note + (f"; {dead} never respond{'s' * (dead == 1)}" if dead else ""), views)


def _reads_image(net: Network, layer: str) -> bool:
    """Whether nothing but a change of form lies between the image and the layer, so that its weights are an image."""
    labels = {step.label: step for step in net.steps}
    (source,) = labels[layer].sources
    while source in labels and isinstance(labels[source].layer, Flatten):
        (source,) = labels[source].sources
    return source in net.inputs and getattr(labels[layer].layer, "groups", 1) == 1


def _middle(image: np.ndarray, net: Network, block: features.Block) -> np.ndarray:
    """The part of the image that the unit in the middle of its map sees."""
    first, size = features._fields(net, block)
    _, H, W = image.shape
    places = [n // 2 for n in block.shape[1:]] or [0, 0]
    top, left = (first(axis, places[axis]) for axis in range(2))
    return image[:, max(top, 0) : min(top + size[0], H), max(left, 0) : min(left + size[1], W)]


# --- numbers as colours -------------------------------------------------------------------------------------------


def _photo(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(H, W, 3) of an image between the darkest and the lightest that the data hold; NaN is blank."""
    share = (image - low) / np.maximum(high - low, np.finfo(image.dtype).tiny)
    share = share if len(image) == 3 else np.repeat(share.mean(axis=0, keepdims=True), 3, axis=0)
    blank = np.isnan(share)
    made = (np.where(blank, 0, share).clip(0, 1) * 255).round().astype(np.uint8)
    return np.moveaxis(np.where(blank, np.array(_BLANK, np.uint8)[:, None, None], made), 0, -1)


def _around(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) of differences from the mean image, which is middle grey."""
    most = float(np.abs(image).max()) or 1.0
    return _photo(image / most, np.full((len(image), 1, 1), -1.0), np.full((len(image), 1, 1), 1.0))


def _weights(kernel: np.ndarray) -> np.ndarray:
    return _around(kernel) if len(kernel) == 3 else _coloured(kernel[0], _DIVERGING, -1.0)


def _map(A: np.ndarray) -> np.ndarray:
    return _coloured(A, _DIVERGING, -1.0) if A.min() < 0 else _coloured(A, _HEAT, 0.0)


def _coloured(values: np.ndarray, colours: Any, low: float) -> np.ndarray:
    """(H, W, 3) of (H, W) numbers: from ``low`` to 1 times the largest absolute one."""
    share = (values / (float(np.abs(values).max()) or 1.0) - low) / (1.0 - low)
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(share, stops, channel) for channel in np.transpose(colours)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    """The image brought to a square by repeating or leaving out pixels, blank where it is not square."""
    H, W, _ = image.shape
    height, width = max(1, round(side * H / max(H, W))), max(1, round(side * W / max(H, W)))
    tile = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    rows, columns = np.arange(height) * H // height, np.arange(width) * W // width
    tile[top : top + height, left : left + width] = image[np.ix_(rows, columns)]
    return tile


def _mosaic(images: list[np.ndarray], gap: int) -> np.ndarray:
    """Nine images as three rows of three."""
    H, W, _ = images[0].shape
    made = np.full((3 * H + 2 * gap, 3 * W + 2 * gap, 3), 255, np.uint8)
    for i, image in enumerate(images[:9]):
        top, left = i // 3 * (H + gap), i % 3 * (W + gap)
        made[top : top + H, left : left + W] = image
    return made


# --- a picture ----------------------------------------------------------------------------------------------------

_TILE, _GAP, _LEFT, _EDGE = 88, 12, 128, 24
_SMALL = (_TILE - 4) // 3


def _picture(sheet: Sheet, kind: str) -> bytes:
    from matplotlib.figure import Figure

    from pellucid.inspect.curves import _fonts, _plain_text

    columns = max([len(sheet.examples), *(len(section.views) for section in sheet.sections), 6])
    width = _LEFT + columns * (_TILE + _GAP) + _EDGE
    tiles: list[tuple[int, int, np.ndarray]] = []
    texts: list[tuple[float, float, str, dict[str, Any]]] = []
    lines: list[int] = []

    def write(x: float, y: float, text: str, size: float, **style: Any) -> None:
        style = {"color": "#5b6470", "va": "top", "family": _fonts(), **style}
        texts.append((x, y, _plain_text(text), {"fontsize": size, **style}))

    def row(y: int, name: str, note: str, images: list[np.ndarray | None]) -> int:
        write(_EDGE, y + _TILE / 2 - 13, name, 8, color="#1c2430")
        write(_EDGE, y + _TILE / 2 + 2, note, 5.6)
        for i, image in enumerate(images):
            if image is not None:
                tiles.append((_LEFT + i * (_TILE + _GAP), y, _fitted(image, _TILE)))
        return y + _TILE + _GAP

    def titles(y: int, names: list[str]) -> int:
        for i, name in enumerate(names):
            short = name if len(name) <= 14 else name[:13] + "…"
            write(_LEFT + i * (_TILE + _GAP) + _TILE / 2, y, short, 6.6, ha="center")
        return y + 17

    write(_EDGE, _EDGE - 4, sheet.title, 15, weight="bold", color="#1c2430")
    write(_EDGE, _EDGE + 26, sheet.note, 7.5)
    y = _EDGE + 58
    if sheet.examples:
        y = titles(y, [example.title for example in sheet.examples])
        y = row(y, "example", "and what it is taken for", [example.image for example in sheet.examples])
        y = row(y, "saliency", "|dA[0]| of that class", [example.saliency for example in sheet.examples])
    for section in sheet.sections:
        lines.append(y + 4)
        write(_EDGE, y + 14, section.title, 11, weight="bold", color="#1c2430")
        write(_LEFT + 16, y + 18, section.note, 7.5)
        y = titles(y + 44, [view.title for view in section.views])
        for field, name, note in _ROWS:
            images = [getattr(view, field) for view in section.views]
            if field == "patches":
                images = [_mosaic([_fitted(each, _SMALL) for each in patches], 2) for patches in images]
            if any(image is not None for image in images):
                y = row(y, name, note, images)
    height = y + _EDGE - _GAP
    canvas = np.full((height, width, 3), 255, np.uint8)
    for left, top, tile in tiles:
        canvas[top : top + _TILE, left : left + _TILE] = tile
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(canvas, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
    axes.axis("off")
    for at in lines:
        axes.plot([_EDGE, width - _EDGE], [at, at], color="#d5dae0", linewidth=0.8)
    axes.set(xlim=(0, width), ylim=(height, 0))
    for text_x, text_y, text, style in texts:
        axes.text(text_x, text_y, text, **style)
    made = io.BytesIO()
    figure.savefig(made, format=kind, dpi=100)
    return made.getvalue()


# --- a page -------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6470; --paper: #ffffff; --card: #f5f7f9; --line: #d5dae0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf1; --soft: #9aa5b1; --paper: #14181d; --card: #1e242b; --line: #39424d }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 80rem; padding: 0 1.5rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 0; display: inline }
p, h2 + span, figcaption, dt { color: var(--soft) } h2 + span { margin-left: .8rem }
section { border-top: 1px solid var(--line); margin-top: 1.6rem; padding-top: 1rem }
.units { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: .8rem }
figure { margin: 0; padding: .5rem; background: var(--card); border-radius: .5rem }
figcaption { font-size: .78rem; text-align: center; padding-bottom: .3rem }
img { image-rendering: pixelated; height: 84px; display: block; border-radius: 2px }
.row { display: flex; gap: .4rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; font-size: .85rem } dd { margin: 0 }
"""


def _page(sheet: Sheet) -> str:
    rows = {field: (name, note) for field, name, note in _ROWS}
    parts = [
        f"<h1>{html.escape(sheet.title)}</h1>\n<p>{html.escape(sheet.note)}</p>",
        "<dl>" + "".join(f"<dt>{name}</dt><dd>{html.escape(note)}</dd>" for name, note in rows.values()) + "</dl>",
    ]
    if sheet.examples:
        cards = [
            _card(each.title, [("image", each.image), ("saliency, |dA[0]| of that class", each.saliency)])
            for each in sheet.examples
        ]
        what = "what it is taken for, and the pixels that matter to it"
        parts.append(_part("Examples", what, cards))
    for section in sheet.sections:
        cards = []
        for view in section.views:
            shown = {**view._asdict(), "patches": _mosaic(view.patches, 1)}
            cards.append(_card(view.title, [(name, shown[field]) for field, (name, _) in rows.items()]))
        parts.append(_part(section.title, section.note, cards))
    body = "\n".join(parts)
    head = f'<meta charset="utf-8">\n<title>{html.escape(sheet.title)}</title>\n<style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _part(title: str, note: str, cards: list[str]) -> str:
    inside = "\n".join(cards)
    name, said = html.escape(title), html.escape(note)
    return f'<section>\n<h2>{name}</h2><span>{said}</span>\n<div class="units">\n{inside}\n</div>\n</section>'


def _card(title: str, images: list[tuple[str, np.ndarray | None]]) -> str:
    shown = "".join(
        f'<img title="{html.escape(name)}" alt="{html.escape(f"{title}: {name}")}" src="{_data(image)}">'
        for name, image in images
        if image is not None
    )
    return f'<figure><figcaption>{html.escape(title)}</figcaption><div class="row">{shown}</div></figure>'


def _data(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def png_bytes(image: np.ndarray) -> bytes:
    """An RGB image (H, W, 3) of bytes as a PNG file.

    Source: PNG specification, third edition, sections 5, 7 and 11.
    """
    H, W, _ = image.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = np.concatenate([np.zeros((H, 1), np.uint8), image.reshape(H, 3 * W)], axis=1)  # 0: no filter on any line
    header = struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
