"""Networks that hear: a convolutional one on the samples of a sound, a recurrent one on its spectrum over time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pellucid.errors import ShapeError
from pellucid.layers import BatchNorm, Conv1D, Dense, Dropout, GlobalAveragePool, Layer, MaxPool1D
from pellucid.layers.activations import activations
from pellucid.network import Sequential
from pellucid.zoo.base import Entry, Recipe
from pellucid.zoo.recurrent import recurrent


def sound_cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    width: int = 24,
    activation: Any = "relu",
    dropout: float = 0.2,
    initializer: Any = "he_normal",
    **options: Any,
) -> Sequential:
    """Convolutional network on samples, which go in as they are: 78,922 parameters for ten words.

        stage   kernels                                   of a second at 8,000 Hz   a unit hears
        1       24 of 80, stride 4; largest of 4          24×2000 → 24×500          10 ms
        2       24 of 3; largest of 4                     24×500 → 24×125           15.5 ms
        3       48 of 3; largest of 4                     48×125 → 48×31            37.5 ms
        4       96 of 3; largest of 4                     96×31 → 96×7              125.5 ms
        5       192 of 3; mean of each map                192×7 → 192               477.5 ms
        output  one unit for each word

    Every convolution is followed by batch normalisation and the activation, every stage by dropout.

    Arguments:
        input_shape: (1, samples).
        outputs: units of the last layer, which has no activation: logits.
        width: maps of the first two stages; each later one has twice as many as the one before.
        activation: after each normalisation.
        dropout: the probability of dropping, after each stage but the first.
        initializer: of the convolutions' weights.
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.

    Raises:
        ShapeError: the input is no sound.
    """
    if len(input_shape) != 2 or input_shape[0] != 1 or input_shape[1] is None:
        raise ShapeError("reads the samples of a sound", where="sound-cnn", expected="(1, T)", got=tuple(input_shape))
    chain: list[Layer] = []
    for stage in range(5):
        if stage:
            chain += [MaxPool1D(4), *([Dropout(dropout)] if dropout and stage > 1 else [])]
        kernel: Any = {"kernel": 80, "stride": 4} if not stage else {"kernel": 3}
        maps = width * 2 ** max(0, stage - 1)
        convolution = Conv1D(maps, **kernel, padding="same", use_bias=False, initializer=initializer)
        chain += [convolution, BatchNorm(), activations.get(activation)]
    chain += [GlobalAveragePool(), *([Dropout(dropout)] if dropout else [])]
    return Sequential(*chain, Dense(outputs), input_shape=input_shape, **options)


def sound_rnn(
    input_shape: Sequence[int | None],
    outputs: int,
    *,
    hidden: Sequence[int] = (64, 64),
    dropout: float = 0.3,
    bidirectional: bool = True,
    initializer: Any = None,
    **options: Any,
) -> Sequential:
    """Two gated recurrent layers, each both ways, on a spectrum over time. Arguments as in `recurrent`."""
    own: dict[str, Any] = {"hidden": hidden, "dropout": dropout, "bidirectional": bidirectional}
    return recurrent("gru", input_shape, outputs, **own, initializer=initializer, **options)


_entry = partial(Entry, task="sound")

ENTRIES = [
    _entry(
        name="sound-cnn",
        title="what is said, from the samples themselves: five convolutions, from 10 ms to half a second",
        build=sound_cnn,
        source="Dai, Dai, Qu, Li and Das 2017, Very deep convolutional neural networks for raw waveforms, M5",
        deviations=("24 to 192 maps, not 128 to 512", "a fifth convolution, so that a unit hears a word", "dropout"),
        recipe=Recipe(optimizer="adam(one_cycle(1e-2))", batch_size=64, epochs=8, patience=None),
        input_shape=(1, 8000),
    ),
    _entry(
        name="sound-rnn",
        title="what is said, from its mel spectrum: two bidirectional layers of gated recurrent units, 2 × 64 each",
        build=sound_rnn,
        source="Graves and Schmidhuber 2005 (both ways); Cho et al. 2014 (the units)",
        deviations=("gated recurrent units in place of LSTM", "one answer, at the end", "dropout, Adam"),
        recipe=Recipe(optimizer="adam(one_cycle(5e-3), clip_norm=1.0)", batch_size=64, epochs=8, patience=None),
        input_shape=(None, 26),
    ),
]
