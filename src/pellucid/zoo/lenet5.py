"""LeNet-5 as it is built today: every map of C3 sees every map of S2, plain pooling, ReLU, a linear output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D
from pellucid.network import Sequential
from pellucid.zoo.base import Entry, Recipe, as_image


def lenet5(
    input_shape: Sequence[int],
    outputs: int,
    *,
    activation: Any = "relu",
    dropout: float = 0.1,
    initializer: Any = None,
    **options: Any,
) -> Sequential:
    """LeNet-5, modern form: 61,706 parameters on grey images and ten classes.

        layer   kernel                  maps of a 28×28 image    parameters
        C1      6 of 5×5, padding 2     6×28×28                  156
        S2      largest of 2×2          6×14×14                  0
        C3      16 of 5×5               16×10×10                 2,416
        S4      largest of 2×2          16×5×5                   0
        C5      120 units               120                      48,120
        F6      84 units                84                       10,164
        output  10 units                10                       850

    Arguments:
        input_shape: (channels, height, width). Images of 32×32 pixels and more are not padded.
        outputs: units of the last layer, which has no activation: logits or values.
        activation: of C1, C3, C5 and F6.
        dropout: the probability of dropping, after C5 and after F6.
        initializer: of the weights of C1, C3, C5 and F6; None is each layer's own.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.
    """
    _, height, width = as_image(input_shape, "lenet5")
    drop = [Dropout(dropout)] if dropout else []
    return Sequential(
        Conv2D(6, 5, activation, padding=2 if min(height, width) < 32 else 0, initializer=initializer, name="C1"),
        MaxPool2D(2, name="S2"),
        Conv2D(16, 5, activation, initializer=initializer, name="C3"),
        MaxPool2D(2, name="S4"),
        Flatten(),
        Dense(120, activation, initializer=initializer, name="C5"),
        *drop,
        Dense(84, activation, initializer=initializer, name="F6"),
        *([Dropout(dropout)] if dropout else []),
        Dense(outputs, name="output"),
        input_shape=input_shape,
        **options,
    )


ENTRY = Entry(
    name="lenet5",
    title="LeNet-5 as it is built today, 61,706 parameters on 28×28 grey images",
    build=lenet5,
    source="LeCun, Bottou, Bengio and Haffner 1998, section II.B, in today's form",
    deviations=(
        "ReLU instead of the scaled hyperbolic tangent",
        "the largest of each 2×2 window instead of its sum with trained coefficient and bias",
        "every map of C3 sees all six maps of S2",
        "ten linear units and softmax cross-entropy instead of radial basis functions",
        "28×28 images padded by 2 inside C1 instead of 32×32 images",
        "dropout after C5 and F6; Adam with a one-cycle learning rate; training images move by up to one pixel",
    ),
    recipe=Recipe(optimizer="adam(one_cycle(3e-3))", batch_size=64, epochs=40, patience=None, augment=("shift(1)",)),
)
