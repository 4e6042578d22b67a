"""The encoder–decoder: all of the source in, then the target out; attention looks back at it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pellucid.errors import ParameterError
from pellucid.layers import (
    GRU,
    LSTM,
    Attention,
    Bidirectional,
    Concat,
    Dense,
    Dropout,
    Embedding,
    Input,
    Layer,
    SimpleRNN,
    TimeDistributed,
)
from pellucid.network import Graph, Network
from pellucid.zoo.base import Entry, Recipe

CELLS = {"lstm": LSTM, "gru": GRU, "rnn": SimpleRNN}
ENCODERS = ("forward", "reverse", "bidirectional")


def seq2seq(
    input_shape: Sequence[int | None],
    outputs: int,
    *,
    source_symbols: int = 32,
    hidden: Sequence[int] = (256,),
    embedding: int = 64,
    cell: str = "lstm",
    encoder: str = "bidirectional",
    attention: str | None = None,
    dropout: float = 0.2,
    **options: Any,
) -> Network:
    """An encoder that reads the source, and a decoder that starts from its last state and writes the target.

        inputs    source: ids (T_s, m)     target: ids (T_t, m), the target from <start> on (teacher forcing)
        output    logits (T_t, outputs, m): of the id that comes after each of the target's

    `pellucid.network.decoding` writes where there is no target: each id it chose is the next one it reads.

    Arguments:
        input_shape: of the source, (T,) or (None,) for any number of steps.
        outputs: how many ids the target has.
        source_symbols: how many ids the source has.
        hidden: units of each recurrent layer, the same in encoder and decoder.
        embedding: length of an id's vector.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        encoder: the way it goes: ``"forward"``; ``"reverse"`` from the last step to the first (Sutskever's reversed
            source); or ``"bidirectional"``, half of the units each way.
        attention: the score: of `Attention`, ``"scaled_dot"``, ``"dot"`` or ``"general"``; None has no attention.
        dropout: the probability of dropping, between the layers and never along time (Zaremba et al. 2014).
        options: ``loss``, ``seed``, ``engine``, ``dtype``, ``precision``, ``regularizer``.

    Raises:
        ParameterError: an unknown cell or encoder, an odd number of units to go both ways.
    """
    _check(cell, encoder, hidden)

    def dropped(h: Any) -> Any:
        return Dropout(dropout)(h) if dropout else h

    source, target = Input(tuple(input_shape)), Input((None,))
    memory = Embedding(source_symbols, embedding, name="source_embedding")(source)
    h = Embedding(outputs, embedding, name="target_embedding")(target)
    for index, units in enumerate(hidden, 1):
        name, both = f"encoder_{index}", {"return_sequences": True, "return_state": True}
        if encoder == "bidirectional":
            reader: Layer = Bidirectional(CELLS[cell](units // 2, **both), name=name)
        else:
            reader = CELLS[cell](units, reverse=encoder == "reverse", name=name, **both)
        memory, *last = reader(dropped(memory))
        h = CELLS[cell](units, return_sequences=True, name=f"decoder_{index}")(dropped(h), *last)
    if attention is not None:
        context = Attention(attention, name="attention")(h, memory)
        h = TimeDistributed(Dense(hidden[-1], "tanh"), name="attended")(Concat(axis=1)(h, context))
    logits = TimeDistributed(Dense(outputs), name="logits")(dropped(h))
    return Graph(inputs={"source": source, "target": target}, outputs={"next": logits}, **options)


def _check(cell: str, encoder: str, hidden: Sequence[int]) -> None:
    for value, known, what in ((cell, CELLS, "cell"), (encoder, ENCODERS, "encoder")):
        if value not in known:
            raise ParameterError(f"no such {what}", where="seq2seq", expected=", ".join(known), got=repr(value))
    if not hidden:
        raise ParameterError("at least one layer", where="seq2seq, hidden", expected="256, or 256,256", got=hidden)
    if encoder == "bidirectional" and any(units % 2 for units in hidden):
        raise ParameterError(
            "half of the units go each way", where="seq2seq, hidden", expected="even numbers", got=list(hidden)
        )


_SOURCE = "Sutskever, Vinyals and Le 2014; Cho et al. 2014"
_RECIPE = Recipe(optimizer="adam(cosine(2e-3), clip_norm=5.0)", batch_size=128, epochs=12, patience=None)
_SMALLER = "one layer of 256 LSTM units, not four of 1,000; trained by Adam with dropout, not by plain descent"
_BOTH_WAYS = "the encoder reads both ways (Bahdanau et al. 2015); encoder='reverse' is the reversed source of the paper"

ENTRIES = [
    Entry(
        name="seq2seq",
        title="encoder–decoder: all of a sequence in, then another out",
        build=seq2seq,
        source=_SOURCE,
        deviations=(_SMALLER, _BOTH_WAYS),
        recipe=_RECIPE,
        input_shape=(12,),
        outputs=32,
    ),
    Entry(
        name="seq2seq-attention",
        title="encoder–decoder with attention: each output looks back at the whole source",
        build=partial(seq2seq, attention="scaled_dot"),
        source="Luong, Pham and Manning 2015, section 3, global attention; Vaswani et al. 2017 for the scaled score",
        deviations=(
            _SMALLER,
            "the score is divided by √n; attention='dot' or 'general' are the paper's",
            "no input feeding: what attention made of one step is not an input of the next, so that in training the"
            " decoder's recurrence runs over the whole target at once",
            _BOTH_WAYS,
        ),
        recipe=_RECIPE,
        input_shape=(12,),
        outputs=32,
    ),
]
