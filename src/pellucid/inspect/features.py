"""What the units of a network on images respond to: filters, maps, exciting patches, preferred inputs, saliency.

Units near the image answer to edges and blobs, later ones to the parts and wholes that these make up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pellucid.engines.base import Array
from pellucid.errors import DataError, ParameterError, ShapeError, unknown
from pellucid.inspect.receptive_field import receptive_field
from pellucid.inspect.trace import Recorder
from pellucid.layers.activations import Activation, Identity
from pellucid.layers.base import Layer, Mode, backward
from pellucid.layers.conv import Conv2D
from pellucid.layers.dense import Dense
from pellucid.layers.norm import BatchNorm
from pellucid.layers.shape import Flatten
from pellucid.network.base import Network, Step

_AT_ONCE = 1 << 22  # numbers of a layer's output computed at a time


class Block(NamedTuple):
    """A layer of units with the normalisation and the activation that follow it.

    Attributes:
        name: of the layer whose units these are.
        layer: that layer.
        Z, A: labels of its output before and after the activation.
        shape: of Z, (units, height, width) or (units,).
    """

    name: str
    layer: Layer
    Z: str
    A: str
    shape: tuple[int, ...]


class Patches(NamedTuple):
    """The image patches that excite each unit most, best first, at most one of each image.

    Attributes:
        Z: (units, count), how strongly.
        examples: (units, count), which image.
        places: (units, count, 2), row and column of the unit in its map; zeros for a unit that sees the whole image.
        images: (units, count, C, h, w), what the unit sees; NaN outside the image.
    """

    Z: np.ndarray
    examples: np.ndarray
    places: np.ndarray
    images: np.ndarray


class Prefix:
    """The part of a network that leads to one value, forward and backward, in prediction; what follows is not run.

    Arguments:
        net: the network.
        label: of the value: a layer's name, as in `Network.steps`.
        before_activation: True leaves out the activation that the last layer itself has: where a ReLU is zero it
            has no slope, and a unit that is off could not say what would turn it on.
    """

    def __init__(self, net: Network, label: str, *, before_activation: bool = False) -> None:
        self.net, self.label = net, label
        wanted, self.steps = {label}, list[Step]()
        for step in reversed(net.steps):
            if wanted.intersection(step.outputs):
                wanted.update(step.sources)
                self.steps.insert(0, step)
        if not self.steps:
            raise unknown("layer", label, [step.label for step in net.steps])
        last: Any = self.steps[-1].layer
        if before_activation and isinstance(last, (Conv2D, Dense)):
            self.steps[-1] = self.steps[-1]._replace(layer=replace(last, activation="identity"))

    def forward(self, inputs: dict[str, Array]) -> tuple[Array, list[Any]]:
        """The value, examples last, and the caches."""
        net, values, caches = self.net, dict(inputs), []
        for step in self.steps:
            A_prev = tuple(values[source] for source in step.sources)
            A, cache = step.layer.forward(
                net.ops,
                net.parameters.get(step.name, {}),
                A_prev if step.layer.several_inputs or len(A_prev) > 1 else A_prev[0],
                mode=Mode(False, None, net.state.get(step.name, {})),
            )
            values.update(zip(step.outputs, A if len(step.outputs) > 1 else (A,), strict=True))
            caches.append(cache)
        self._values = values
        return values[self.label], caches

    def backward(self, caches: list[Any], dA: Array) -> dict[str, Array]:
        """The gradients by the inputs, by name, of what has the gradient ``dA`` by the value."""
        net, gradients = self.net, {self.label: dA}
        for step, cache in zip(reversed(self.steps), reversed(caches), strict=True):
            dAs = tuple(
                gradients[each] if each in gradients else net.ops.xp.zeros_like(self._values[each])
                for each in step.outputs
            )
            params = net.parameters.get(step.name, {})
            dA_prev, _ = backward(
                step.layer, net.ops, params, cache, dAs if len(dAs) > 1 else dAs[0], input_gradient=True
            )
            parts = dA_prev if isinstance(dA_prev, tuple) else (dA_prev,)
            for source, part in zip(step.sources, parts, strict=True):
                gradients[source] = gradients[source] + part if source in gradients else part
        return gradients


def blocks(net: Network) -> list[Block]:
    """The convolutions and the dense layers in order, each with what follows it elementwise.

    Raises:
        ParameterError: the network does not read one image.
    """
    image_input(net)
    found = []
    for step in net.steps:
        layer: Any = step.layer
        of_images = isinstance(layer, Conv2D) and layer.axes == 2
        if not (of_images or (isinstance(layer, Dense) and len(step.output_shape) == 1)):
            continue
        Z = A = step.label
        while len(readers := [each for each in net.steps if A in each.sources]) == 1:
            behind = readers[0]
            if isinstance(behind.layer, BatchNorm) and A == Z and isinstance(layer.activation, Identity):
                Z = A = behind.label
            elif isinstance(behind.layer, Activation) and behind.output_shape == step.output_shape:
                A = behind.label
                break
            else:
                break
        found.append(Block(step.label, layer, Z, A, step.output_shape))
    return found


def image_input(net: Network) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the one input, an image (channels, height, width).

    Raises:
        ParameterError: there are several inputs, or it is no image.
    """
    name, shape = next(iter(net.inputs.items()))
    if len(net.inputs) > 1 or len(shape) != 3:
        got = ", ".join(f"{each} {shape}" for each, shape in net.inputs.items())
        expected = "one input (channels, height, width)"
        raise ParameterError("features are seen in networks on images", where="features", expected=expected, got=got)
    return name, shape


def filters(net: Network, layer: str) -> np.ndarray:
    """The kernels of a convolution, or the weights of a dense layer that reads the image itself, as images.

    Arguments:
        net: the network.
        layer: its name.

    Returns:
        (units, channels, height, width); with groups the channels of the unit's own group.

    Raises:
        ParameterError: a layer that has no such weights.
    """
    step = _step(net, layer)
    if "W" in net.parameters.get(step.name, {}):
        W = net.ops.to_numpy(net.parameters[step.name]["W"])
        if isinstance(step.layer, Conv2D) and step.layer.axes == 2:
            seen = np.zeros((step.input_shape[0], 1, 1, 1), W.dtype)
            return net.ops.to_numpy(step.layer._spread(net.ops, W, seen))
        _, shape = image_input(net)
        before = {each.label: each for each in net.steps}.get(step.sources[0])
        flat = before is not None and isinstance(before.layer, Flatten) and before.sources[0] in net.inputs
        if isinstance(step.layer, Dense) and flat:
            return W.reshape(-1, *shape)
    raise ParameterError(
        "has no filters that can be seen",
        where=f"filters, {layer}",
        expected="a Conv2D, or a Dense that reads the flattened image",
        got=repr(step.layer),
    )


def feature_maps(net: Network, x: Any, layers: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The outputs of layers as images.

    Arguments:
        net: the network.
        x: (m, C, H, W), examples first.
        layers: their names; None is every layer whose output is a set of maps.

    Returns:
        (m, units, height, width) by layer.

    Raises:
        ParameterError: an unknown layer.
        ShapeError, DataError: x does not fit.
    """
    labels = [step.label for step in net.steps if len(step.output_shape) == 3] if layers is None else list(layers)
    places = {step.label: index for index, step in enumerate(net.steps)}
    for label in labels:
        _step(net, label)
    seen = Recorder()
    net.forward_pass(net.parameters, net.state, checked_images(net, x), Mode(False), observer=seen)
    return {label: np.moveaxis(net.ops.to_numpy(seen.made[places[label]][1]), -1, 0) for label in labels}


def exciting_patches(net: Network, x: Any, layer: str, count: int = 9) -> Patches:
    """What excites each unit of a layer most among the images given, before its activation.

    Arguments:
        net: the network.
        x: (m, C, H, W), examples first, such as the validation images.
        layer: its name.
        count: patches of each unit; fewer where there are fewer images.

    Returns:
        the `Patches`.

    Source: Zeiler and Fergus 2014, section 4, with the patches themselves.
    """
    block = _block(net, layer)
    prefix = Prefix(net, block.Z, before_activation=True)
    x = np.asarray(x)
    inputs = checked_images(net, x)
    units, count = block.shape[0], min(count, len(x))
    best, examples = np.full((units, 0), -np.inf), np.zeros((units, 0), np.intp)
    places = np.zeros((units, 0), np.intp)
    largest = max(int(np.prod(step.output_shape)) for step in prefix.steps)
    for part in _parts(len(x), max(1, _AT_ONCE // largest)):
        Z = net.ops.to_numpy(prefix.forward({name: X[..., part] for name, X in inputs.items()})[0])
        flat = Z.reshape(units, -1, Z.shape[-1])  # (units, places, images)
        place = flat.argmax(axis=1)
        found = np.take_along_axis(flat, place[:, None], axis=1)[:, 0]
        number = np.broadcast_to(np.arange(part.start, part.start + Z.shape[-1]), found.shape)
        best, examples = np.concatenate([best, found], axis=1), np.concatenate([examples, number], axis=1)
        places = np.concatenate([places, place], axis=1)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, examples, places = (np.take_along_axis(each, kept, axis=1) for each in (best, examples, places))
    where = np.stack(np.unravel_index(places, block.shape[1:] or (1,)), axis=-1)
    if where.shape[-1] == 1:
        where = np.concatenate([where, where], axis=-1)
    return Patches(best, examples, where, _cut_out(net, x, block, examples, where))


def _cut_out(net: Network, x: np.ndarray, block: Block, examples: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What the units at ``places`` of their maps see of the images ``examples``; NaN in the padding."""
    _, H, W = x.shape[1:]
    first, size = _fields(net, block)
    images = np.full((*examples.shape, x.shape[1], *size), np.nan, net.dtype)
    for index in np.ndindex(examples.shape):
        top, left = (first(axis, int(places[index][axis])) for axis in range(2))
        rows, columns = slice(max(top, 0), min(top + size[0], H)), slice(max(left, 0), min(left + size[1], W))
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        images[index][:, *inside] = x[examples[index]][:, rows, columns]
    return images


def _fields(net: Network, block: Block) -> tuple[Any, tuple[int, int]]:
    """The first row or column that a unit sees, by axis and place, and how many; at most the image itself."""
    _, (_, H, W) = image_input(net)
    field = receptive_field(net, block.name)
    if not all(field.jump):
        return (lambda axis, place: 0), (H, W)

    def first(axis: int, place: int) -> int:
        return round(field.start[axis] + place * float(field.jump[axis] or 0))

    return first, (field.size[0], field.size[1])


def maximising_input(
    net: Network,
    layer: str,
    units: Sequence[int] | None = None,
    *,
    x: Any = None,
    steps: int = 60,
    smooth: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """The input that excites a unit most, of all inputs as far from the mean image as real ones are.

        D := ρ D / ‖D‖,  D := D + α_t ρ g / ‖g‖,    g = dZ_unit / dX at X = mean + D, by the backward blocks

    Arguments:
        net: the network.
        layer: its name. Of a convolution the unit in the middle of each map is taken.
        units: which of its units; None for all.
        x: (m, C, H, W), images that mean and ρ are taken from; None is mean 0, deviation 1.
        steps: of the gradient ascent.
        smooth: how often g is averaged with its neighbours [1 2 1]/4 before each step; 0 lets pixels alternate.
        seed: of the noise that is begun with.

    Returns:
        (units, C, H, W); the mean image where a unit sees nothing.

    Raises:
        ParameterError: an unknown layer or unit.

    Source: Erhan, Bengio, Courville and Vincent 2009, section 4.1; smoothed gradients: Olah et al. 2017.
    """
    block = _block(net, layer)
    name, shape = image_input(net)
    chosen = list(range(block.shape[0])) if units is None else [int(each) for each in units]
    for each in chosen:
        if not 0 <= each < block.shape[0]:
            raise ParameterError("no such unit", where=layer, expected=f"0 … {block.shape[0] - 1}", got=each)
    middle = tuple(n // 2 for n in block.shape[1:])
    pixels = receptive_field(net, block.name, (chosen[0], *middle)).pixels
    assert pixels is not None
    seen = np.any(pixels, axis=0, keepdims=True)[..., None]  # (1, H, W, 1)
    images = np.zeros((1, *shape), net.dtype) if x is None else np.moveaxis(checked_images(net, x)[name], -1, 0)
    mean = net.ops.to_numpy(images).mean(axis=(0, 2, 3)).astype(net.dtype)[:, None, None, None]
    away = np.moveaxis(np.asarray(images), 0, -1) - mean
    radius = float(np.sqrt(np.square(away * seen, dtype=np.float64).sum() / len(images)))
    radius = radius or float(np.sqrt(pixels.sum()))
    m = len(chosen)
    D = np.random.default_rng(seed).normal(size=(*shape, 1)).astype(net.dtype) * seen
    D = _of_length(np.repeat(D, m, axis=-1), radius)
    prefix = Prefix(net, block.Z, before_activation=True)
    dZ = np.zeros((*block.shape, m), net.dtype)
    dZ[chosen, *middle, np.arange(m)] = 1  # type: ignore[index]
    for t in range(steps):
        _, caches = prefix.forward({name: net.ops.asarray(mean + D)})
        g = net.ops.to_numpy(prefix.backward(caches, net.ops.asarray(dZ))[name]) * seen
        for _ in range(smooth):
            g = _smoothed(g) * seen
        D = _of_length(D + (1.0 - 0.9 * t / steps) * _of_length(g, radius), radius)
    return np.moveaxis(mean + D, -1, 0)


def saliency(net: Network, x: Any, y: Any = None) -> np.ndarray:
    """How much each pixel matters: |dA[0]| of a class's score, the largest over the channels.

    Arguments:
        net: the network, with one output.
        x: (m, C, H, W), examples first.
        y: (m,), of which class; None is the one predicted.

    Returns:
        (m, H, W).

    Source: Simonyan, Vedaldi and Zisserman 2014, section 3.
    """
    name, _ = image_input(net)
    (output,) = net.outputs
    A, caches = net.forward_pass(net.parameters, net.state, checked_images(net, x), Mode(False))
    scores = net.ops.to_numpy(A[output])
    if scores.ndim != 2:
        raise ShapeError("saliency needs a score per class", where="saliency", expected="(n, m)", got=scores.shape)
    chosen = guessed(net, A[output]) if y is None else np.asarray(y)
    fits = chosen.shape == scores.shape[1:] and chosen.dtype.kind in "iu"
    if not fits or not np.isin(chosen, np.arange(len(scores))).all():
        expected = f"{scores.shape[1]} classes 0 … {len(scores) - 1}"
        raise DataError("of which class?", where="saliency, y", expected=expected, got=chosen)
    dA = np.zeros_like(scores)
    dA[chosen, np.arange(len(chosen))] = 1
    gradients, _ = net.backward_pass(net.parameters, caches, {output: net.ops.asarray(dA)}, input_gradient=True)
    return np.moveaxis(np.abs(net.ops.to_numpy(gradients[name])).max(axis=0), -1, 0)


def guessed(net: Network, A: Array) -> np.ndarray:
    """(m,): the class that the one output (n, m) says, as its loss reads it: of distances the smallest."""
    (output,) = net.outputs
    said = net.losses[output].predict(net.ops, A) if output in net.losses else A
    return net.ops.to_numpy(said).argmax(axis=0)


def checked_images(net: Network, x: Any) -> dict[str, Array]:
    """Images (m, C, H, W) as the network's input, examples last.

    Raises:
        ShapeError, DataError: they do not fit.
    """
    name, shape = image_input(net)
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[1:] != shape or not len(x):
        hint = "one image is a batch of one: x[None]" if x.shape == shape else None
        expected = f"({', '.join(map(str, ('m', *shape)))}), examples first"
        raise ShapeError("the images do not fit the network", where="x", expected=expected, got=x.shape, hint=hint)
    return net.checked({name: np.moveaxis(x, 0, -1)} if not net.single else np.moveaxis(x, 0, -1), where="x")


def _step(net: Network, label: str) -> Any:
    steps = {step.label: step for step in net.steps}
    if label not in steps:
        raise unknown("layer", label, steps, where="features")
    return steps[label]


def _block(net: Network, layer: str) -> Block:
    found = {block.name: block for block in blocks(net)}
    if layer not in found:
        raise unknown("convolution or dense layer", layer, found, where="features")
    return found[layer]


def _parts(m: int, at_once: int) -> Iterator[slice]:
    for start in range(0, m, at_once):
        yield slice(start, min(start + at_once, m))


def _of_length(D: np.ndarray, length: float) -> np.ndarray:
    """Each example scaled to this norm; zeros stay."""
    norm = np.sqrt(np.square(D, dtype=np.float64).sum(axis=(0, 1, 2)))
    return D * (length / np.where(norm > 0, norm, np.inf)).astype(D.dtype)


def _smoothed(g: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        n = g.shape[axis]
        padded = np.pad(g, [(1, 1) if each == axis else (0, 0) for each in range(4)], mode="edge")
        before, here, after = (padded.take(range(i, i + n), axis=axis) for i in range(3))
        g = (before + 2 * here + after) / 4
    return g
