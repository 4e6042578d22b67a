"""A small convolutional network: three stages of two 3×3 convolutions, under 100,000 parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.layers import BatchNorm, Conv2D, Dense, Dropout, GlobalAveragePool, Layer, MaxPool2D
from pellucid.layers.activations import activations
from pellucid.network import Sequential
from pellucid.zoo.base import Entry, Recipe, as_image


def cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    width: int = 16,
    activation: Any = "relu",
    dropout: float = 0.1,
    initializer: Any = "he_normal",
    **options: Any,
) -> Sequential:
    """Small convolutional network: 72,666 parameters on grey images and ten classes.

        stage   kernels                                    maps of a 28×28 image    parameters
        1       2 × (16 of 3×3, batch norm, ReLU)          16×28×28                 2,512
                largest of 2×2                             16×14×14
        2       2 × (32 of 3×3, batch norm, ReLU)          32×14×14                 13,952
                largest of 2×2                             32×7×7
        3       2 × (64 of 3×3, batch norm, ReLU)          64×7×7                   55,552
                mean of each map                           64
        output  10 units                                   10                       650

    Arguments:
        input_shape: (channels, height, width).
        outputs: units of the last layer, which has no activation: logits or values.
        width: maps of the first stage; each stage has twice as many as the one before.
        activation: after each normalisation.
        dropout: the probability of dropping, after each stage.
        initializer: of the convolutions' weights.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.
    """
    as_image(input_shape, "cnn")
    chain: list[Layer] = []
    for stage in range(3):
        if stage:
            chain.append(MaxPool2D(2))
        for _ in range(2):
            convolution = Conv2D(width * 2**stage, 3, padding="same", use_bias=False, initializer=initializer)
            chain += [convolution, BatchNorm(), activations.get(activation)]
        if stage == 2:
            chain.append(GlobalAveragePool())
        if dropout:
            chain.append(Dropout(dropout))
    return Sequential(*chain, Dense(outputs), input_shape=input_shape, **options)


ENTRY = Entry(
    name="cnn",
    title="small convolutional network, six 3×3 convolutions with batch normalisation, under 100,000 parameters",
    build=cnn,
    source="Simonyan and Zisserman 2014 (stages of 3×3); Ioffe and Szegedy 2015; Lin, Chen and Yan 2013 (the mean)",
    deviations=("no published network: the three ideas together, small enough to train on two cores",),
    recipe=Recipe(optimizer="adam(one_cycle(1e-2))", batch_size=128, epochs=15, patience=None),
)
