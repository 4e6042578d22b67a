"""VGG: stacks of 3×3 convolutions, configurations A to E."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from pellucid.errors import unknown
from pellucid.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2D,
    Recompute,
    ReLU,
)
from pellucid.network import Sequential
from pellucid.zoo.base import Entry, Recipe, as_image

# For each block the kernel sizes of its convolutions; the blocks have 64, 128, 256, 512 and 512 maps.
CONFIGURATIONS = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "A-LRN": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3),) * 5,
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3,) * 4, (3,) * 4, (3,) * 4),
}
MAPS = (64, 128, 256, 512, 512)


def vgg(
    input_shape: Sequence[int],
    outputs: int,
    *,
    configuration: str = "D",
    width: float = 1.0,
    hidden: Sequence[int] = (4096, 4096),
    dropout: float = 0.5,
    batch_norm: bool = False,
    initializer: Any = "he_normal",
    recompute: bool = False,
    **options: Any,
) -> Sequential:
    """VGG: blocks of 3×3 convolutions with padding 1, each followed by the largest of 2×2.

        block    A             A-LRN         B             C                 D             E             maps
        1        1             1, LRN        2             2                 2             2             64×112×112
        2        1             1             2             2                 2             2             128×56×56
        3        2             2             2             2 and one 1×1     3             4             256×28×28
        4        2             2             2             2 and one 1×1     3             4             512×14×14
        5        2             2             2             2 and one 1×1     3             4             512×7×7
        fully connected: 4096, dropout ½, 4096, dropout ½, 1000
        parameters, of 224×224 colour images:
                 132,863,336   132,863,336   133,047,848   133,638,952       138,357,544   143,667,240

    Arguments:
        input_shape: (channels, height, width). A pooling that would leave nothing of a small image is left out.
        outputs: units of the last layer: logits.
        configuration: ``"A"``, ``"A-LRN"``, ``"B"``, ``"C"``, ``"D"`` (16 layers) or ``"E"`` (19 layers).
        width: factor on the maps of every block.
        hidden: units of the fully connected layers.
        dropout: the probability of dropping, after each fully connected layer.
        batch_norm: normalise before each ReLU of the convolutions, which then have no bias.
        initializer: of all weights.
        recompute: True makes each block a `Recompute`: less memory for a third more arithmetic.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.
    """
    _, *sizes = as_image(input_shape, "vgg")
    if configuration not in CONFIGURATIONS:
        raise unknown("configuration", configuration, CONFIGURATIONS, where="vgg")
    chain: list[Layer] = []
    for block, (kernels, maps) in enumerate(zip(CONFIGURATIONS[configuration], MAPS, strict=True), 1):
        own: list[Layer] = []
        for index, kernel in enumerate(kernels, 1):
            units, name = max(1, round(maps * width)), f"conv{block}_{index}"
            fixed: Any = {"padding": "same", "initializer": initializer, "name": name}
            if batch_norm:
                own += [Conv2D(units, kernel, use_bias=False, **fixed), BatchNorm(), ReLU()]
            else:
                own.append(Conv2D(units, kernel, "relu", **fixed))
        if configuration == "A-LRN" and block == 1:
            own.append(LocalResponseNorm())
        if min(sizes) > 1:
            own.append(MaxPool2D(2))
            sizes = [n // 2 for n in sizes]
        chain += [Recompute(own)] if recompute else own
    chain.append(Flatten())
    for units in hidden:
        chain.append(Dense(units, "relu", initializer=initializer))
        if dropout:
            chain.append(Dropout(dropout))
    return Sequential(*chain, Dense(outputs, initializer=initializer), input_shape=input_shape, **options)


def small(
    input_shape: Sequence[int],
    outputs: int,
    *,
    width: float = 0.25,
    hidden: Sequence[int] = (128,),
    dropout: float = 0.3,
    configuration: str = "A",
    **options: Any,
) -> Sequential:
    """VGG scaled to images of 28 to 64 pixels: a quarter of the maps, batch normalisation, one hidden layer."""
    scaled: Any = {"width": width, "hidden": hidden, "dropout": dropout, "configuration": configuration}
    return vgg(input_shape, outputs, **{"batch_norm": True, **scaled, **options})


def _entry(configuration: str) -> Entry:
    def build(input_shape: Sequence[int], outputs: int, **options: Any) -> Sequential:
        return vgg(input_shape, outputs, **{"configuration": configuration, **options})

    layers = sum(map(len, CONFIGURATIONS[configuration])) + 3
    build.__signature__ = inspect.signature(vgg)  # type: ignore[attr-defined]
    return Entry(
        name=f"vgg-{configuration.lower()}",
        title=f"VGG, configuration {configuration}: {layers} layers with weights",
        build=build,
        source=_SOURCE,
        deviations=_DEVIATIONS,
        input_shape=(3, 224, 224),
        outputs=1000,
        recipe=Recipe(
            optimizer="momentum(cosine(0.01), momentum=0.9)",
            batch_size=256,
            epochs=74,
            patience=None,
            regularizer="l2(5e-4)",
        ),
    )


_SOURCE = "Simonyan and Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition, table 1"
_DEVIATIONS = (
    "weights start as N(0, 2 / fan-in) (He et al. 2015), where the paper starts deep ones from A's weights",
    "the learning rate falls along a cosine instead of by ten on plateaus; no scale jitter, no crops",
)
ENTRIES = (
    *map(_entry, CONFIGURATIONS),
    Entry(
        name="vgg-small",
        title="VGG A for images of 28 to 64 pixels: a quarter of the maps, batch normalisation",
        build=small,
        source=_SOURCE,
        deviations=(
            *_DEVIATIONS,
            "a quarter of the maps, one hidden layer of 128, dropout 0.3",
            "batch normalisation before each ReLU (Ioffe and Szegedy 2015)",
            "poolings that would leave nothing of a small image are left out",
        ),
        recipe=Recipe(optimizer="adam(one_cycle(3e-3))", batch_size=128, epochs=15, patience=None),
    ),
)
