"""Augmentation: training images changed by chance in ways that leave their meaning as it is.

Images are examples last, (C, H, W, m), and every example draws its own change. What is drawn depends on the seed, the
epoch and the batch alone, so a resumed training sees the images that an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from pellucid.errors import ParameterError, ShapeError
from pellucid.losses import Hinge
from pellucid.network.base import Network
from pellucid.registry import Registry
from pellucid.schedules import check_numbers, number
from pellucid.training.batches import Batch, Source

augmentations: Registry[Augmentation] = Registry("augmentation")

_AUGMENT = 0xA06  # sets these draws apart from the orders of the examples
_RNG = Callable[[], np.random.Generator]


@dataclass(frozen=True)
class Augmentation:
    """Base of the augmentations.

    Attributes:
        moves: pixels change their places, so targets that are images would have to move along.
    """

    moves: ClassVar[bool] = False
    registered_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_numbers(self)
        fill = getattr(self, "fill", "edge")
        if fill != "edge" and not (isinstance(fill, Real) and not isinstance(fill, bool) and math.isfinite(fill)):
            where = type(self).__name__
            raise ParameterError("cannot fill", where=where, expected="'edge' or a finite number", got=repr(fill))

    def images(self, rng: np.random.Generator, X: np.ndarray) -> np.ndarray:
        """The changed images, a new array of X's shape and type.

        Arguments:
            rng: what to draw from.
            X: (C, H, W, m), in the network's unit.
        """
        return self.changed(X, self.draws(rng, X.shape, X.dtype))

    def draws(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """What is drawn for a batch of images, examples last: (…, m).

        Arguments:
            rng: what to draw from.
            shape: of the images, (C, H, W, m).
            dtype: of the images.
        """
        raise NotImplementedError(f"{type(self).__name__} needs images(rng, X), or draws and changed")

    def changed(self, X: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The changed images, a new array of X's shape and type; with it a process changes its own of a batch only.

        Arguments:
            X: (C, H, W, k), in the network's unit.
            drawn: what was drawn for these, (…, k).
        """
        raise NotImplementedError(f"{type(self).__name__} needs images(rng, X), or draws and changed")

    def fitted(self, samples: list[np.ndarray]) -> Augmentation:
        """The augmentation with what it takes from the training images; ``samples`` holds some of each input."""
        return self

    def check(self, net: Network) -> None:
        """Refuse a network whose inputs or targets cannot be augmented so."""

    def batch(self, rng: _RNG, batch: Batch, net: Network) -> Batch:
        """The changed batch; several inputs that are images get the same draws, so that they stay aligned."""
        return self._on_images(batch, net, lambda X: self.images(rng(), X))

    def part(self, rng: _RNG, batch: Batch, net: Network, places: np.ndarray, m: int) -> Batch:
        """The examples at ``places`` of a batch of m, which ``batch`` holds, changed as `batch` changes them there."""

        def changed(X: np.ndarray) -> np.ndarray:
            return self.changed(X, self.draws(rng(), (*X.shape[:-1], m), X.dtype)[..., places])

        return self._on_images(batch, net, changed)

    def needed(self, rng: _RNG, places: np.ndarray, m: int) -> np.ndarray:
        """Which of a batch's m examples, in order, `part` has to be given for those at ``places``."""
        own = type(self)
        parts = own.images is Augmentation.images and own.batch is Augmentation.batch
        return places if parts else np.arange(m)

    @staticmethod
    def _on_images(batch: Batch, net: Network, change: Callable[[np.ndarray], np.ndarray]) -> Batch:
        images = {name: change(X) for name, X in batch.inputs.items() if len(net.inputs[name]) == 3}
        return batch._replace(inputs={**batch.inputs, **images})


class Augmenter:
    """Augments the batches of a training.

    Arguments:
        given: an augmentation, by name, as ``"shift(2)"``, or as an object; or a list of them, applied in this order.
        net: the network to be trained.
        source: the training examples.
        seed: of the training.

    Raises:
        ParameterError: an unknown augmentation, or inputs that are not images.
    """

    def __init__(self, given: Any, net: Network, source: Source, seed: int) -> None:
        listed = given if isinstance(given, (list, tuple)) else [given]
        self.given = [augmentations.get(each, where="augment") for each in listed]
        self.net, self.seed = net, seed
        images = [name for name, shape in net.inputs.items() if len(shape) == 3]
        if self.given and not images:
            raise ParameterError(
                "only images can be augmented",
                where="augment",
                expected="an input (channels, height, width)",
                got=", ".join(f"{name} {shape}" for name, shape in net.inputs.items()),
                hint="leave augment out, or begin the network with input_shape=(channels, height, width) and "
                "pl.Flatten()",
            )
        pictures = [f"{name} {shape}" for name, shape in net.outputs.items() if len(shape) == 3]
        for each in self.given:
            if each.moves and pictures:
                raise ParameterError(
                    "the targets are images too, and would have to move along",
                    where=f"augment, {type(each).__name__}",
                    got=f"output {pictures[0]}",
                    hint="augment inputs and targets together before fit",
                )
            each.check(net)
        sample = source.sample().inputs if self.given else {}
        self._fitted = [each.fitted([sample[name] for name in images]) for each in self.given]

    def __call__(self, batch: Batch, epoch: int, index: int) -> Batch:
        """The batch ``index`` of an epoch, augmented; the given one is left as it is."""
        return self.at(epoch, index)(batch)

    def at(self, epoch: int, index: int) -> OfBatch:
        """What is made of the batch ``index`` of an epoch, the whole or a part of it."""
        return OfBatch(self._fitted, self.net, (self.seed, epoch, index))


class OfBatch:
    """What is made of one batch: see `pellucid.training.batches.Change`."""

    def __init__(self, fitted: list[Augmentation], net: Network, key: tuple[int, ...]) -> None:
        self.net = net
        self._drawing = [
            (each, partial(np.random.default_rng, [*key, place, _AUGMENT])) for place, each in enumerate(fitted)
        ]

    def needed(self, places: np.ndarray, m: int) -> np.ndarray:
        """Which of the batch's m examples, in order, are needed to augment those at ``places``."""
        for each, rng in reversed(self._drawing):
            places = each.needed(rng, places, m)
        return places

    def __call__(self, batch: Batch, *, places: np.ndarray | None = None, m: int = 0) -> Batch:
        """The batch augmented; with ``places``, those of its m examples, what they become in the whole batch."""
        for each, rng in self._drawing:
            if places is None or len(places) == m:
                batch = each.batch(rng, batch, self.net)
            else:
                batch = each.part(rng, batch, self.net, places, m)
        return batch


# --- places ---------------------------------------------------------------------------------------------------------


@augmentations.register("shift", "translate")
@dataclass(frozen=True)
class Shift(Augmentation):
    """Moves each image by whole pixels, up to so many down or up and across.

    Arguments:
        pixels: the most, each way.
        fill: what comes in from outside: ``"edge"`` repeats the outermost pixels; a number is in the inputs' unit.

    Source: LeCun et al. 1998, section III.C.
    """

    pixels: int = number("[0, inf)", 2, whole=True)
    fill: Any = "edge"

    moves: ClassVar[bool] = True

    def draws(self, rng, shape, dtype):
        return rng.integers(-self.pixels, self.pixels + 1, (2, shape[-1]))

    def changed(self, X, drawn):
        _, H, W, _ = X.shape
        down, right = drawn
        return pixels_at(X, np.arange(H)[:, None, None] - down, np.arange(W)[:, None] - right, self.fill)


@augmentations.register("random_crop", "crop")
@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """Pads each image on all sides and cuts out its own size again, anywhere.

    Arguments:
        padding: pixels on each side.
        fill: what they hold; 0 is the mean of standardised images, ``"edge"`` repeats the outermost pixels.

    Source: Krizhevsky, Sutskever and Hinton 2012, section 4.1, in the form of He et al. 2016, section 4.2.
    """

    padding: int = number("[0, inf)", 4, whole=True)
    fill: Any = 0.0

    moves: ClassVar[bool] = True

    def draws(self, rng, shape, dtype):
        return self._shift.draws(rng, shape, dtype)

    def changed(self, X, drawn):
        return self._shift.changed(X, drawn)

    @property
    def _shift(self) -> Shift:
        return Shift(self.padding, self.fill)  # the same thing, said in other words


@augmentations.register("horizontal_flip", "flip", "mirror")
@dataclass(frozen=True)
class HorizontalFlip(Augmentation):
    """Swaps left and right. Not for what is read: letters and digits.

    Arguments:
        probability: of each image being flipped.

    Source: Krizhevsky, Sutskever and Hinton 2012, section 4.1.
    """

    probability: float = number("[0, 1]", 0.5)

    moves: ClassVar[bool] = True

    def draws(self, rng, shape, dtype):
        return rng.random(shape[-1]) < self.probability

    def changed(self, X, drawn):
        return np.where(drawn, X[:, :, ::-1], X)


@augmentations.register("rotate", "rotation")
@dataclass(frozen=True)
class Rotate(Augmentation):
    """Turns each image about its centre, bilinearly.

    Arguments:
        degrees: the most, either way.
        fill: as in `Shift`.
    """

    degrees: float = number("[0, 180]", 10.0)
    fill: Any = "edge"

    moves: ClassVar[bool] = True

    def draws(self, rng, shape, dtype):
        return np.deg2rad(rng.uniform(-self.degrees, self.degrees, shape[-1]))

    def changed(self, X, drawn):
        return turned(X, drawn, 1.0, self.fill)


@augmentations.register("scale", "zoom")
@dataclass(frozen=True)
class Scale(Augmentation):
    """Enlarges or shrinks each image about its centre, bilinearly; its frame keeps its size.

    Arguments:
        amount: factors are drawn from [1 - amount, 1 + amount].
        fill: as in `Shift`.
    """

    amount: float = number("[0, 1)", 0.1)
    fill: Any = "edge"

    moves: ClassVar[bool] = True

    def draws(self, rng, shape, dtype):
        return 1.0 + rng.uniform(-self.amount, self.amount, shape[-1])

    def changed(self, X, drawn):
        return turned(X, 0.0, drawn, self.fill)


@augmentations.register("elastic", "elastic_distortion")
@dataclass(frozen=True)
class ElasticDistortion(Augmentation):
    """Moves every pixel a little, neighbours alike: strokes as another hand would draw them.

        displacement = alpha · (uniform noise in [-1, 1], smoothed by a Gaussian of sigma)

    Arguments:
        alpha: strength; the typical displacement is about alpha / (6 sigma) pixels.
        sigma: of the Gaussian, in pixels; the paper's 34 and 4 are for digits of 29 × 29.
        fill: as in `Shift`.

    Source: Simard, Steinkraus and Platt 2003, section 2.
    """

    alpha: float = number("[0, inf)", 34.0)
    sigma: float = number("(0, inf)", 4.0)
    fill: Any = "edge"

    moves: ClassVar[bool] = True

    def draws(self, rng, shape, dtype):
        return rng.random((2, *shape[1:]), dtype)

    def changed(self, X, drawn):
        _, H, W, m = X.shape
        field = 2.0 * drawn - 1.0
        field = self._gaussian(H, X.dtype) @ field.reshape(2, H, W * m)
        field = self._gaussian(W, X.dtype) @ field.reshape(2 * H, W, m)
        down, right = self.alpha * field.reshape(2, H, W, m)
        rows, columns = np.arange(H, dtype=X.dtype)[:, None, None], np.arange(W, dtype=X.dtype)[:, None]
        return sampled(X, rows + down, columns + right, self.fill)

    def _gaussian(self, n: int, dtype: Any) -> np.ndarray:
        """(n, n): row i holds what each pixel of a line adds to pixel i; nothing comes from outside the image."""

        def bell(distance: np.ndarray) -> np.ndarray:
            return np.exp(-0.5 * (distance / self.sigma) ** 2)

        whole = bell(np.arange(-math.ceil(8 * self.sigma), math.ceil(8 * self.sigma) + 1)).sum()
        return (bell(np.subtract.outer(np.arange(n), np.arange(n))) / whole).astype(dtype)


@augmentations.register("cutout")
@dataclass(frozen=True)
class Cutout(Augmentation):
    """Blanks a square of each image, its centre anywhere: the network must not rely on one part alone.

    Arguments:
        size: side of the square, in pixels; what of it lies outside the image is lost.
        fill: what the square holds; 0 is the mean of standardised images.

    Source: DeVries and Taylor 2017, section 3.
    """

    size: int = number("[0, inf)", 8, whole=True)
    fill: float = number("(-inf, inf)", 0.0)

    def draws(self, rng, shape, dtype):
        _, H, W, m = shape
        return rng.integers(0, (H, W), (m, 2)).T

    def changed(self, X, drawn):
        _, H, W, _ = X.shape
        row, column = drawn - self.size // 2
        inside = _between(np.arange(H)[:, None], row, self.size)[:, None] & _between(
            np.arange(W)[:, None], column, self.size
        )
        return np.where(inside, X.dtype.type(self.fill), X)


# --- colours --------------------------------------------------------------------------------------------------------


@augmentations.register("color_jitter", "colour_jitter")
@dataclass(frozen=True)
class ColorJitter(Augmentation):
    """Changes brightness, contrast and saturation of each image, in this order.

        X + b        mean + (1 + c) (X - mean)        grey + (1 + s) (X - grey)

    The mean is the image's own, grey the mean of a pixel's channels: both hold in any unit of the inputs.

    Arguments:
        brightness: the largest b, in the unit of the inputs; of standardised images that is standard deviations.
        contrast: the largest c.
        saturation: the largest s; grey images have none.
    """

    brightness: float = number("[0, inf)", 0.2)
    contrast: float = number("[0, 1]", 0.2)
    saturation: float = number("[0, 1]", 0.2)

    def draws(self, rng, shape, dtype):
        return rng.uniform(-1.0, 1.0, (3, shape[-1])).astype(dtype)

    def changed(self, X, drawn):
        b, c, s = drawn
        X = X + self.brightness * b
        X = X + self.contrast * c * (X - X.mean(axis=(0, 1, 2)))
        return X + self.saturation * s * (X - X.mean(axis=0))


@augmentations.register("pca_jitter", "lighting")
@dataclass(frozen=True)
class PCAJitter(Augmentation):
    """Adds to all pixels of an image the principal components of the training images' colours, by random amounts.

        X + Σ_k a_k √λ_k p_k,  a_k ~ N(0, deviation²),  λ_k and p_k eigenvalues and -vectors of the colours' covariance

    The light's intensity and colour change, the object stays. The paper writes λ_k; √λ_k is the deviation along p_k,
    so that the strength does not depend on the unit of the pixels.

    Arguments:
        deviation: standard deviation of the amounts.
        covariance: (C, C) of the channels; None takes that of the training images.

    Source: Krizhevsky, Sutskever and Hinton 2012, section 4.1.
    """

    deviation: float = number("[0, inf)", 0.1)
    covariance: Any = None

    def draws(self, rng, shape, dtype):
        return rng.normal(0.0, self.deviation, (shape[0], shape[-1]))

    def changed(self, X, drawn):
        known = self if self.covariance is not None else self.fitted([X])
        covariance = np.asarray(known.covariance, np.float64)
        if covariance.shape != (len(X), len(X)):
            expected = f"({len(X)}, {len(X)}), a row and a column for each channel"
            raise ShapeError("the covariance", where="PCAJitter", expected=expected, got=covariance.shape)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        light = vectors @ (np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * drawn)
        return X + light[:, None, None].astype(X.dtype)

    def fitted(self, samples):
        if self.covariance is not None:
            return self
        if len({len(X) for X in samples}) > 1:
            channels = " and ".join(str(len(X)) for X in samples)
            raise ParameterError("the inputs differ in their channels", where="augment, PCAJitter", got=channels)
        colours = np.concatenate([X.reshape(len(X), -1) for X in samples], axis=1, dtype=np.float64)
        return replace(self, covariance=tuple(map(tuple, np.atleast_2d(np.cov(colours, bias=True)).tolist())))


# --- examples -------------------------------------------------------------------------------------------------------


@augmentations.register("mixup")
@dataclass(frozen=True)
class Mixup(Augmentation):
    """Mixes each example with another of its batch, inputs and targets alike; classes become distributions.

        X_i := λ_i X_i + (1 - λ_i) X_j        Y_i := λ_i Y_i + (1 - λ_i) Y_j        λ_i ~ Beta(alpha, alpha)

    Examples that have weights keep them: the example weighs λ_i w_i + (1 - λ_i) w_j, and its targets are shared in
    that proportion.

    Arguments:
        alpha: of the Beta distribution; 0 mixes nothing, 1 draws every λ alike.

    Source: Zhang et al. 2018, section 2.
    """

    alpha: float = number("[0, inf)", 0.2)

    def check(self, net):
        other = [f"{name} {shape}" for name, shape in net.inputs.items() if len(shape) != 3]
        if other:
            expected = "inputs (channels, height, width)"
            raise ParameterError("mixes images only", where="augment, Mixup", expected=expected, got=", ".join(other))
        if any(isinstance(loss, Hinge) for loss in net.losses.values()):
            raise ParameterError(
                "hinge takes no distributions over classes", where="augment, Mixup", hint="loss='softmax_cross_entropy'"
            )

    def batch(self, rng, batch, net):
        m = next(iter(batch.inputs.values())).shape[-1]
        return self.part(rng, batch, net, np.arange(m), m)

    def needed(self, rng, places, m):
        return np.union1d(places, rng().permutation(m)[places]) if self.alpha else places

    def part(self, rng, batch, net, places, m):
        if not self.alpha:
            return batch
        draw, dtype = rng(), next(iter(batch.inputs.values())).dtype
        # Those that are here only as partners of others may have their own elsewhere: nobody reads what they become.
        partner = np.searchsorted(places, draw.permutation(m)[places]).clip(max=len(places) - 1)
        share = draw.beta(self.alpha, self.alpha, m).astype(dtype)[places]
        inputs = {name: _mixed(X, share, partner) for name, X in batch.inputs.items()}
        weight = batch.weight
        if weight is not None:
            own, weight = share * weight, _mixed(weight, share, partner)
            share = np.divide(own, weight, out=share, where=weight > 0)
        targets = {}
        for name, Y in batch.targets.items():
            classes = Y.ndim < len(net.outputs[name]) + 1
            Y = (np.arange(net.outputs[name][-1])[:, None] == Y[..., None, :]).astype(dtype) if classes else Y
            targets[name] = _mixed(Y, share, partner)
        return batch._replace(inputs=inputs, targets=targets, weight=weight)


def _mixed(values: np.ndarray, share: np.ndarray, partner: np.ndarray) -> np.ndarray:
    return share * values + (1 - share) * values[..., partner]


# --- looking elsewhere ----------------------------------------------------------------------------------------------


def pixels_at(X: np.ndarray, rows: np.ndarray, columns: np.ndarray, fill: Any) -> np.ndarray:
    """The pixels of X (C, H, W, m) at whole places.

    Arguments:
        rows, columns: integers that broadcast to (H', W', m).
        fill: of places outside the image: ``"edge"`` takes the nearest pixel, a number is the value.

    Returns:
        (C, H', W', m).
    """
    C, H, W, m = X.shape
    row, column = rows.clip(0, H - 1), columns.clip(0, W - 1)
    found = X.reshape(C, -1).take((row * W + column) * m + np.arange(m), axis=1)
    if isinstance(fill, str):
        return found
    return np.where((row == rows) & (column == columns), found, X.dtype.type(fill))


def sampled(X: np.ndarray, rows: np.ndarray, columns: np.ndarray, fill: Any) -> np.ndarray:
    """X at places between pixels, bilinear. Arguments as in `pixels_at`, but fractional."""
    if not isinstance(fill, str):  # in a frame of the fill, whatever lies further out is the frame's own edge
        X, rows, columns = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill), rows + 1, columns + 1
    C, H, W, m = X.shape
    rows, columns = rows.clip(0, H - 1), columns.clip(0, W - 1)
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    down, right = (rows - top).astype(X.dtype), (columns - left).astype(X.dtype)
    pixels, place = X.reshape(C, -1), (top * W + left) * m + np.arange(m)
    to_the_right = np.where(left < W - 1, m, 0)

    def between(place: np.ndarray) -> np.ndarray:
        here = pixels.take(place, axis=1)
        return here + right * (pixels.take(place + to_the_right, axis=1) - here)

    above = between(place)
    return above + down * (between(place + np.where(top < H - 1, W * m, 0)) - above)


def turned(X: np.ndarray, angle: Any, factor: Any, fill: Any) -> np.ndarray:
    """Images turned about their centres counter-clockwise and enlarged.

    Arguments:
        X: (C, H, W, m).
        angle: in radians, (m,) or one number.
        factor: (m,) or one number.
        fill: as in `pixels_at`.
    """
    _, H, W, m = X.shape
    middle = (H - 1) / 2, (W - 1) / 2
    y, x = np.arange(H, dtype=X.dtype)[:, None, None] - middle[0], np.arange(W, dtype=X.dtype)[:, None] - middle[1]
    # each pixel of the result is looked up where it came from: the inverse of the turn
    along, across = (np.broadcast_to(each / factor, m).astype(X.dtype) for each in (np.cos(angle), np.sin(angle)))
    return sampled(X, along * y + across * x + middle[0], along * x - across * y + middle[1], fill)


def _between(places: np.ndarray, start: np.ndarray, size: int) -> np.ndarray:
    return (places >= start) & (places < start + size)
