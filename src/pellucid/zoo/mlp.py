"""The multi-layer perceptron: fully connected layers, the network of the notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.layers import BatchNorm, Concat, Dense, Dropout, Embedding, Flatten, Input, Layer, Split
from pellucid.layers.activations import activations
from pellucid.network import Graph, Network, Sequential
from pellucid.zoo.base import Entry, Recipe


def mlp(
    input_shape: Sequence[int],
    outputs: int,
    *,
    hidden: Sequence[int] = (256, 128),
    activation: Any = "relu",
    dropout: float = 0.3,
    batch_norm: bool = True,
    initializer: Any = None,
    levels: Mapping[int, int] | None = None,
    **options: Any,
) -> Network:
    """Fully connected layers with batch normalisation and dropout between them.

    Arguments:
        input_shape: of one example; images are flattened.
        outputs: units of the last layer, which has no activation: logits or values.
        hidden: units of each hidden layer.
        activation: of the hidden layers.
        dropout: the probability of dropping, after each hidden layer.
        batch_norm: normalise before each activation, where the normalisation's β is the bias. After a ReLU the
            statistics of units that are seldom active would make rare examples huge in prediction.
        initializer: of the hidden layers' weights; None is each `Dense`'s own.
        levels: for features that are codes of a category, how many levels each has, by position; they are embedded.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.

    Returns:
        a `Sequential`; with embedded features a `Graph`.
    """
    chain: list[Layer] = []
    for units in hidden:
        if batch_norm:
            chain += [
                Dense(units, use_bias=False, initializer=initializer),
                BatchNorm(),
                activations.get(activation, where="activation"),
            ]
        else:
            chain.append(Dense(units, activation, initializer=initializer))
        if dropout:
            chain.append(Dropout(dropout))
    chain.append(Dense(outputs))
    if not levels:
        first = [Flatten()] if len(input_shape) > 1 else []
        return Sequential(*first, *chain, input_shape=input_shape, **options)
    x = Input(input_shape)
    h = _embedded(x, levels)
    for layer in chain:
        h = layer(h)
    return Graph(inputs=x, outputs=h, **options)


def _embedded(x: Any, levels: Mapping[int, int]) -> Any:
    """The features, each coded one replaced by its vector of about 1.6 levels^0.56 units (Guo and Berkhahn 2016)."""
    (n,) = x.shape
    parts, start = [], 0
    sizes: list[int] = []
    for position in range(n):
        if position in levels:
            if position > start:
                sizes.append(position - start)
            sizes.append(1)
            start = position + 1
    if start < n:
        sizes.append(n - start)
    pieces = Split(sizes)(x) if len(sizes) > 1 else (x,)
    position = 0
    for piece, size in zip(pieces, sizes, strict=True):
        if position in levels:
            units = min(50, max(1, round(1.6 * levels[position] ** 0.56)))
            parts.append(Flatten()(Embedding(levels[position], units)(piece)))
        else:
            parts.append(piece)
        position += size
    return Concat()(*parts) if len(parts) > 1 else parts[0]


ENTRY = Entry(
    name="mlp",
    title="multi-layer perceptron, two hidden layers with batch normalisation and dropout",
    build=mlp,
    source="Rumelhart, Hinton and Williams 1986; Ioffe and Szegedy 2015; Srivastava et al. 2014",
    deviations=("ReLU units, Adam and early stopping, which came later",),
    recipe=Recipe(optimizer="adam(cosine(2e-3))", batch_size=64, epochs=30, patience=8),
    input_shape=(1, 8, 8),
)
