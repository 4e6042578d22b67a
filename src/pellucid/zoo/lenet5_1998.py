"""LeNet-5 as published in 1998."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pellucid.errors import ParameterError, ShapeError
from pellucid.layers import RBF, Conv2D, Dense, Flatten, Rescale, ScaledTanh, Subsample2D, ZeroPad2D
from pellucid.losses import CodeDistance, MaximumAPosteriori, losses
from pellucid.network import Network, Sequential
from pellucid.zoo.base import Entry, Recipe, as_image

SIZE = 32  # of the images it reads: digits of 28×28 in a wider field, so that their ends reach C1's middle
SMALLEST = 20  # that are still read: MNIST's digits themselves are 20×20
BACKGROUND, CONTRAST = -0.1, 1.275  # of pixels: ink is 1.175, and an image has about mean 0 and variance 1
C3 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
"""The maps of S2 that each map of C3 sees: the paper's table I."""


def lenet5_1998(input_shape: Sequence[int], outputs: int, *, loss: Any = "map", **options: Any) -> Sequential:
    """LeNet-5: 60,000 trained parameters and 340,908 connections.

        layer   of a 28×28 image with pixels 0 … 1        maps        parameters    connections
        input   a border of 2, -0.1 paper to 1.175 ink    1×32×32     0             0
        C1      6 of 5×5                                  6×28×28     156           122,304
        S2      sums of 2×2, trained coefficient, bias    6×14×14     12            5,880
        C3      16 of 5×5, partly connected               16×10×10    1,516         151,600
        S4      as S2                                     16×5×5      32            2,000
        C5      120 of 5×5                                120×1×1     48,120        48,120
        F6      84 units                                  84          10,164        10,164
        output  distance from 10 fixed codes of 84        10          0             840

    Every layer but the output ends in 1.7159 tanh(⅔ Z).

    Arguments:
        input_shape: (1, height, width), 20×20 to 32×32: smaller ones get a border of background. Pixels go from 0 for
            paper to 1 for ink.
        outputs: classes, 10: the codes are pictures of the ten digits.
        loss: ``"map"``, equation 9, or ``"code_distance"``, equation 8; None for a network that is only run.
        options: ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.

    Raises:
        ShapeError: colour images, or of another size.
        ParameterError: another number of classes, or a loss that does not read penalties.
    """
    channels, height, width = as_image(input_shape, "lenet5-1998")
    if channels != 1 or not all(SMALLEST <= n <= SIZE for n in (height, width)):
        raise ShapeError(
            "reads grey images of digits",
            where="lenet5-1998",
            expected=f"(1, {SMALLEST}, {SMALLEST}) to (1, {SIZE}, {SIZE})",
            got=tuple(input_shape),
            hint="--channels grey --image-size 28x28 brings images there",
        )
    if outputs != len(RBF().centres()):
        raise ParameterError(
            "knows the ten digits", where="lenet5-1998", expected="10 classes", got=outputs, hint="--net lenet5"
        )
    if loss is not None and not isinstance(losses.get(loss), (CodeDistance, MaximumAPosteriori)):
        raise ParameterError(
            "its outputs are penalties, of which the smallest wins",
            where="lenet5-1998",
            expected="loss map or code_distance",
            got=losses.get(loss).registered_name,
        )
    start: Any = {"initializer": "fan_in_uniform(2.4)", "bias_initializer": "fan_in_uniform(2.4)"}
    squashed: Any = {"activation": "scaled_tanh", **start}
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    border = ((top, SIZE - height - top), (left, SIZE - width - left))
    return Sequential(
        *([ZeroPad2D(border)] if any(map(any, border)) else []),
        Rescale(CONTRAST, BACKGROUND),
        Conv2D(6, 5, name="C1", **squashed),
        Subsample2D(2, name="S2", **start),
        ScaledTanh(),
        Conv2D(16, 5, connections=C3, name="C3", **squashed),
        Subsample2D(2, name="S4", **start),
        ScaledTanh(),
        Conv2D(120, 5, name="C5", **squashed),
        Flatten(),
        Dense(84, name="F6", **squashed),
        RBF(name="output"),
        input_shape=input_shape,
        loss=loss,
        **options,
    )


def connections(net: Network) -> dict[str, int]:
    """How many connections each layer has, a bias being one: what every unit reads, summed over the units."""
    return {
        step.name: step.layer.multiply_adds(step.input_shape) + ("b" in params) * math.prod(step.output_shape)
        for step in net.steps
        if (params := net.parameters.get(step.name, {})) or isinstance(step.layer, RBF)
    }


ENTRY = Entry(
    name="lenet5-1998",
    title="LeNet-5 as published: partial C3, trained subsampling, radial basis functions; 60,000 parameters",
    build=lenet5_1998,
    source="LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document Recognition, II.B",
    deviations=(
        "Adam on batches of 32 stands in for the stochastic diagonal Levenberg-Marquardt method on single examples: "
        "both scale each parameter's step by an estimate of its own; the published learning rates are all four times "
        "as large",
        "training images move by up to one pixel; the paper's distorted set is also stretched and sheared",
        "the pictures of the ten digits are drawn after figure 3, not copied from it pixel by pixel",
        "j of equation 9, which the paper does not give, is 10",
        "biases, of which the paper does not speak, start as the weights; C3's fan-in is the mean of its maps'",
        "trained on 54,000 of the 60,000 digits, the others being held out for validation",
    ),
    recipe=Recipe(
        optimizer="adam(piecewise([2e-3, 8e-4, 4e-4, 2e-4, 4e-5], [2, 5, 8, 12]))",
        batch_size=32,
        epochs=20,
        patience=None,
        loss="map",
        augment=("shift(1)",),
        standardize=False,
    ),
)
