"""Networks with memory: recurrent layers that read a sequence and answer at its end, or at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pellucid.errors import ParameterError, ShapeError
from pellucid.layers import (
    GRU,
    LSTM,
    Bidirectional,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    MaxPool2D,
    MeanOverTime,
    Reshape,
    SimpleRNN,
    TimeDistributed,
)
from pellucid.network import Sequential
from pellucid.zoo.base import Entry, Recipe

_CELLS: dict[str, Callable[..., Layer]] = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}


def recurrent(
    cell: str,
    input_shape: Sequence[int | None],
    outputs: int,
    *,
    hidden: Sequence[int] = (128,),
    dropout: float = 0.2,
    bidirectional: bool = False,
    symbols: int | None = None,
    embedding: int = 64,
    every_step: bool = False,
    stateful: bool = False,
    activation: Any = None,
    initializer: Any = None,
    **options: Any,
) -> Sequential:
    """Recurrent layers, one above the other, and a dense layer on what the last one says.

    Arguments:
        cell: ``"rnn"``, ``"lstm"`` or ``"gru"``.
        input_shape: (T, n_x), None for sequences of any length; (T,) of ids; an image (channels, height, width) is
            read row by row, each channel's rows after those of the one before; of a video (T, …) a frame is a step.
        outputs: units of the last layer, which has no activation: logits or values.
        hidden: units of each recurrent layer.
        dropout: the probability of dropping, after each recurrent layer.
        bidirectional: True runs each both ways, with as many units for each way.
        symbols: how many ids there are, where the steps are ids; they are embedded.
        embedding: units of the embedding.
        every_step: True answers at every step, False after the last one.
        stateful: True starts each batch where the batch before ended.
        activation: of the recurrent layers of an ``"rnn"``: ``"tanh"``, ``"relu"`` or ``"sigmoid"``.
        initializer: of the recurrent layers' W.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``, ``loss_weights``.
    """
    if activation is not None and cell != "rnn":
        raise ParameterError(f"the gates of {cell} have activations of their own", where="activation", got=activation)
    given = {"activation": activation, "initializer": initializer}
    own = {name: value for name, value in given.items() if value is not None}
    chain = _steps_of(input_shape, cell, symbols, embedding)
    for index, units in enumerate(hidden, 1):
        sequences = every_step or index < len(hidden)
        layer = _CELLS[cell](units, return_sequences=sequences, stateful=stateful, **own)
        chain.append(Bidirectional(layer) if bidirectional else layer)
        if dropout:
            chain.append(Dropout(dropout))
    last = Dense(outputs)
    return Sequential(*chain, TimeDistributed(last) if every_step else last, input_shape=input_shape, **options)


def _steps_of(shape: Sequence[int | None], net: str, symbols: int | None, embedding: int) -> list[Layer]:
    """What makes vectors of the steps of the input."""
    if symbols is not None:
        return [Embedding(symbols, embedding)]
    if len(shape) == 1:
        raise ShapeError(
            "reads sequences", where=net, expected="(T, n_x)", got=tuple(shape), hint="for tables there is --net mlp"
        )
    if len(shape) == 3 and (width := shape[2]) is not None and None not in shape:
        return [Reshape((-1, width))]
    return [TimeDistributed(Flatten())] if len(shape) > 2 else []


def _entry(cell: str, title: str, source: str, rate: str = "3e-3") -> Entry:
    return Entry(
        name=cell,
        title=title,
        build=partial(recurrent, cell),
        source=source,
        deviations=("dropout after the layer, Adam and gradients clipped by norm, which came later",),
        recipe=Recipe(optimizer=f"adam(cosine({rate}), clip_norm=1.0)", batch_size=64, epochs=20, patience=5),
        input_shape=(28, 28),
    )


def char_rnn(
    input_shape: Sequence[int | None],
    outputs: int,
    *,
    hidden: Sequence[int] = (256,),
    dropout: float = 0.0,
    symbols: int | None = None,
    embedding: int = 64,
    every_step: bool = True,
    stateful: bool = True,
    initializer: Any = None,
    **options: Any,
) -> Sequential:
    """What comes next, after every symbol: an LSTM that goes on where the batch before ended.

    Arguments as in `recurrent`; ``symbols`` is ``outputs`` where nobody says.
    """
    own: dict[str, Any] = {"hidden": hidden, "dropout": dropout, "embedding": embedding, "initializer": initializer}
    own |= {"symbols": symbols or outputs, "every_step": every_step, "stateful": stateful}
    return recurrent("lstm", input_shape, outputs, **own, **options)


def frames(
    input_shape: Sequence[int | None],
    outputs: int,
    *,
    width: int = 8,
    hidden: Sequence[int] = (64,),
    dropout: float = 0.2,
    every_step: bool = True,
    **options: Any,
) -> Sequential:
    """A convolutional network that sees each frame, and recurrent layers that remember what it saw.

    Two convolutions of 3×3, each before the largest of 2×2, and 64 units, the same at every frame; an LSTM; a dense
    layer at every step. ``hidden=()`` has no memory: each frame is told by itself.

    Arguments:
        input_shape: (T, channels, height, width); (T, n_x) leaves the convolutions out.
        outputs: units of the last layer.
        width: maps of the first convolution; the second has twice as many.
        hidden: units of each LSTM.
        dropout: the probability of dropping, after each LSTM.
        every_step: True answers at every step, False after the last one.
        options: ``loss``, ``loss_weights``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.
    """
    chain: list[Layer] = []
    if len(input_shape) == 4:
        for maps in (width, 2 * width):
            chain += [Conv2D(maps, 3, padding="same", activation="relu"), MaxPool2D(2)]
        chain += [Flatten(), Dense(64, "relu")]
    elif len(input_shape) != 2:
        raise ShapeError(
            "reads videos", where="frames", expected="(T, channels, height, width)", got=tuple(input_shape)
        )
    seen: list[Layer] = [TimeDistributed(layer) for layer in chain]
    for index, units in enumerate(hidden, 1):
        seen.append(LSTM(units, return_sequences=every_step or index < len(hidden)))
        if dropout:
            seen.append(Dropout(dropout))
    if not every_step and not hidden:
        seen.append(MeanOverTime())
    last = Dense(outputs)
    return Sequential(*seen, TimeDistributed(last) if every_step else last, input_shape=input_shape, **options)


ENTRIES = [
    _entry("rnn", "vanilla recurrent network, tanh, 128 units", "Elman 1990", rate="1e-3"),
    _entry("lstm", "long short-term memory, 128 units", "Hochreiter and Schmidhuber 1997; Gers et al. 2000"),
    _entry("gru", "gated recurrent unit, 128 units", "Cho et al. 2014"),
    Entry(
        name="char-rnn",
        title="what comes next in a text: an embedding and an LSTM of 256 units, state carried along",
        build=char_rnn,
        source="Mikolov et al. 2010; Graves 2013, section 3; truncated back-propagation: Williams and Peng 1990",
        deviations=("one layer, trained by Adam",),
        recipe=Recipe(optimizer="adam(cosine(4e-3), clip_norm=1.0)", batch_size=32, epochs=10, patience=None),
        input_shape=(None,),
        outputs=64,
        task="text",
    ),
    Entry(
        name="frames",
        title="two convolutions at every frame of a video, and an LSTM of 64 units over them",
        build=frames,
        source="Donahue et al. 2015, section 3: convolutions in each frame, an LSTM over the frames",
        deviations=("small, trained from scratch by Adam, not fine-tuned from ImageNet",),
        recipe=Recipe(optimizer="adam(cosine(3e-3), clip_norm=1.0)", batch_size=32, epochs=15, patience=5),
        input_shape=(12, 1, 24, 24),
    ),
]
