"""AlexNet: two towers of convolutions that meet in the third."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.layers import Conv2D, Dense, Dropout, Flatten, Layer, LocalResponseNorm, MaxPool2D
from pellucid.network import Sequential
from pellucid.zoo.base import Entry, Recipe, as_image

SMALL = 96  # pixels: images smaller than this get C1's kernel and stride scaled down


def alexnet(
    input_shape: Sequence[int],
    outputs: int,
    *,
    width: float = 1.0,
    groups: int = 2,
    dropout: float = 0.5,
    initializer: Any = "normal(0.01)",
    **options: Any,
) -> Sequential:
    """AlexNet: 60,965,224 parameters on 227×227 colour images and 1000 classes.

        layer     kernels                                  maps          parameters
        conv1     96 of 11×11, stride 4                    96×55×55      34,944
                  LRN, largest of 3×3 every 2              96×27×27      0
        conv2     256 of 5×5, padding 2, two towers        256×27×27     307,456
                  LRN, largest of 3×3 every 2              256×13×13     0
        conv3     384 of 3×3, padding 1: the towers meet   384×13×13     885,120
        conv4     384 of 3×3, padding 1, two towers        384×13×13     663,936
        conv5     256 of 3×3, padding 1, two towers        256×13×13     442,624
                  largest of 3×3 every 2                   256×6×6       0
        fc6       4096, dropout ½                          4096          37,752,832
        fc7       4096, dropout ½                          4096          16,781,312
        fc8       1000                                     1000          4,097,000

    A tower is a group: half of the maps, LRN within them, on a device of its own with ``mesh="model=2"``. Conv3 and the
    fully connected layers read both towers. ReLU after every layer but the last. LRN has k = 2, n = 5, α = 1e-4 not
    divided by n, β = 0.75.

    Arguments:
        input_shape: (channels, height, width). 224×224 gets the padding that makes 227 of it; smaller than 96 pixels,
            conv1 is 5×5 with stride 1 and padding 2.
        outputs: units of fc8: logits.
        width: factor on all maps and units but the last layer's, which makes smaller images' networks smaller.
        groups: towers; 1 for one device, 62,378,344 parameters.
        dropout: the probability of dropping, after fc6 and fc7.
        initializer: of all weights.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.
    """
    _, height, wide = as_image(input_shape, "alexnet")
    if min(height, wide) < SMALL:
        first: dict[str, Any] = {"kernel": 5, "stride": 1, "padding": 2}
    else:
        first = {"kernel": 11, "stride": 4, "padding": tuple(_to_227(n) for n in (height, wide))}

    def maps(count: int) -> int:
        return max(1, round(count * width / groups)) * groups

    def conv(number: int, count: int, *, ones: bool, **geometry: Any) -> Layer:
        start = {"initializer": initializer, "bias_initializer": "ones" if ones else "zeros"}
        return Conv2D(maps(count), activation="relu", name=f"conv{number}", **start, **geometry)

    def dense(number: int) -> list[Layer]:
        start: Any = {"initializer": initializer, "bias_initializer": "ones"}
        layer = Dense(maps(4096), "relu", name=f"fc{number}", **start)
        return [layer, Dropout(dropout)] if dropout else [layer]

    return Sequential(
        conv(1, 96, ones=False, **first),
        LocalResponseNorm(groups=groups),
        MaxPool2D(3, 2),
        conv(2, 256, ones=True, kernel=5, padding=2, groups=groups),
        LocalResponseNorm(groups=groups),
        MaxPool2D(3, 2),
        conv(3, 384, ones=False, kernel=3, padding=1),
        conv(4, 384, ones=True, kernel=3, padding=1, groups=groups),
        conv(5, 256, ones=True, kernel=3, padding=1, groups=groups),
        MaxPool2D(3, 2),
        Flatten(),
        *dense(6),
        *dense(7),
        Dense(outputs, name="fc8", initializer=initializer),
        input_shape=input_shape,
        **options,
    )


def _to_227(n: int) -> tuple[int, int]:
    """Pixels before and after, so that 224 become 227; none for other sizes."""
    return (1, 2) if n == 224 else (0, 0)


def small(input_shape: Sequence[int], outputs: int, *, width: float = 0.25, **options: Any) -> Sequential:
    """AlexNet scaled to images of 28 to 64 pixels: a quarter of its maps, started by He's rule. Arguments as there."""
    return alexnet(input_shape, outputs, width=width, **{"initializer": "he_normal", **options})


_SOURCE = "Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks"
_DEVIATIONS = (
    "227×227 images, or 224×224 padded by 1 before and 2 behind: 224, as printed, does not give 55×55",
    "the towers are groups of one network, on one device unless mesh='model=2' gives each its own",
    "the learning rate falls along a cosine instead of by hand; no images of ImageNet, no colour jitter, no ten crops",
)
ENTRIES = (
    Entry(
        name="alexnet",
        title="AlexNet as published, two towers, 60,965,224 parameters on 227×227 colour images and 1000 classes",
        build=alexnet,
        source=_SOURCE,
        deviations=_DEVIATIONS,
        input_shape=(3, 227, 227),
        outputs=1000,
        recipe=Recipe(
            optimizer="momentum(cosine(0.01), momentum=0.9)",
            batch_size=128,
            epochs=90,
            patience=None,
            regularizer="l2(5e-4)",
        ),
    ),
    Entry(
        name="alexnet-small",
        title="AlexNet for images of 28 to 64 pixels: conv1 of 5×5 with stride 1, a quarter of the maps",
        build=small,
        source=_SOURCE,
        deviations=(
            *_DEVIATIONS[:2],
            "Adam with a one-cycle learning rate: with momentum and biases of one the small network's units die",
            "conv1 is 5×5 with stride 1 and padding 2; a quarter of all maps and units",
            "weights start as N(0, 2 / fan-in): a standard deviation of 0.01 suits wide layers only",
        ),
        recipe=Recipe(
            optimizer="adam(one_cycle(1e-3))", batch_size=128, epochs=20, patience=None, regularizer="l2(5e-4)"
        ),
    ),
)
