"""Residual networks: blocks that learn what to add to their input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pellucid.errors import ParameterError
from pellucid.layers import Add, BatchNorm, Conv2D, Dense, GlobalAveragePool, Input, Node, ReLU, Shortcut2D
from pellucid.network import Graph
from pellucid.zoo.base import Entry, Recipe, as_image


def resnet(
    input_shape: Sequence[int],
    outputs: int,
    *,
    depth: int = 20,
    width: int = 16,
    shortcut: str = "identity",
    pre_activation: bool = False,
    **options: Any,
) -> Graph:
    """Residual network for small images, depth = 6 n + 2; ResNet-20 has 269,722 parameters on 32×32 colour images.

        layers            kernels                                    maps of a 32×32 image    parameters (n = 3)
        first             16 of 3×3                                  16×32×32                 464
        stage 1           n blocks of two 16 of 3×3                  16×32×32                 14,016
        stage 2           n blocks of two 32 of 3×3, first by 2      32×16×16                 51,072
        stage 3           n blocks of two 64 of 3×3, first by 2      64×8×8                   203,520
        output            mean of each map, 10 units                 10                       650

        block              A = ReLU(F(x) + x)         F = conv → batch norm → ReLU → conv → batch norm
        pre-activation     A = F(x) + x               F = batch norm → ReLU → conv → batch norm → ReLU → conv

    Where a block halves the image, x is taken at every second pixel, with zeros for the new maps (``"identity"``,
    the paper's option A), or goes through a 1×1 convolution (``"projection"``, option B: 272,474 parameters).

    Arguments:
        input_shape: (channels, height, width).
        outputs: units of the last layer: logits.
        depth: 8, 14, 20, 32, 44, 56, 110, …: layers with weights.
        width: maps of the first stage.
        shortcut: ``"identity"`` or ``"projection"``.
        pre_activation: True for the blocks of 2016.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.

    Raises:
        ParameterError: a depth that is not 6 n + 2, or an unknown shortcut.
    """
    as_image(input_shape, "resnet")
    if depth < 8 or (depth - 2) % 6:
        raise ParameterError("no depth of a residual network", where="resnet", expected="8, 14, 20, 26, …", got=depth)
    if shortcut not in ("identity", "projection"):
        raise ParameterError(
            "unknown shortcut", where="resnet", expected="'identity' or 'projection'", got=repr(shortcut)
        )
    x = Input(input_shape)
    h = _conv(width)(x) if pre_activation else ReLU()(BatchNorm()(_conv(width)(x)))
    block = partial(_pre_activated if pre_activation else _block, projected=shortcut == "projection")
    for stage in range(3):
        for index in range((depth - 2) // 6):
            h = block(h, width * 2**stage, 2 if stage and not index else 1)
    if pre_activation:
        h = ReLU()(BatchNorm()(h))
    return Graph(inputs=x, outputs=Dense(outputs)(GlobalAveragePool()(h)), **options)


def _conv(units: int, kernel: int = 3, stride: int = 1) -> Conv2D:
    return Conv2D(units, kernel, stride=stride, padding=kernel // 2, use_bias=False, initializer="he_normal")


def _block(x: Node, units: int, stride: int, *, projected: bool) -> Node:
    """He et al. 2015, figure 2."""
    h = ReLU()(BatchNorm()(_conv(units, 3, stride)(x)))
    F = BatchNorm()(_conv(units)(h))
    if x.shape == F.shape:
        return ReLU()(Add()(F, x))
    past = BatchNorm()(_conv(units, 1, stride)(x)) if projected else Shortcut2D(units, stride)(x)
    return ReLU()(Add()(F, past))


def _pre_activated(x: Node, units: int, stride: int, *, projected: bool) -> Node:
    """He et al. 2016, figure 1b."""
    active = ReLU()(BatchNorm()(x))
    h = _conv(units, 3, stride)(active)
    F = _conv(units)(ReLU()(BatchNorm()(h)))
    if x.shape == F.shape:
        return Add()(F, x)
    return Add()(F, _conv(units, 1, stride)(active) if projected else Shortcut2D(units, stride)(x))


_RECIPE = Recipe(
    optimizer="momentum(one_cycle(0.1), momentum=0.9)",
    batch_size=128,
    epochs=30,
    patience=None,
    regularizer="l2(1e-4)",
)
_DEVIATIONS = (
    "one cycle of the learning rate in 30 epochs instead of two falls by ten in 64,000 updates",
    "no shifted and flipped images",
)
ENTRIES = (
    Entry(
        name="resnet",
        title="residual network of 20 layers for small images, 0.27 million parameters",
        build=resnet,
        source="He, Zhang, Ren and Sun 2015, Deep Residual Learning for Image Recognition, section 4.2",
        deviations=_DEVIATIONS,
        recipe=_RECIPE,
        input_shape=(3, 32, 32),
    ),
    Entry(
        name="resnet-v2",
        title="residual network of 20 layers whose blocks begin with normalisation and ReLU",
        build=partial(resnet, pre_activation=True),
        source="He, Zhang, Ren and Sun 2016, Identity Mappings in Deep Residual Networks, figure 1b",
        deviations=_DEVIATIONS,
        recipe=_RECIPE,
        input_shape=(3, 32, 32),
    ),
)
