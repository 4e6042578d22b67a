"""The contract every layer keeps, on every engine and in both float types. A new layer is one row of `TABLE`."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from typing import Any, NamedTuple

import numpy as np
import pytest

import pellucid as pl
from contracts import STEPWISE
from contracts.gradients import assert_gradient
from pellucid import engines
from pellucid.layers import Mode, activations, layers
from pellucid.layers.embedding import Embedding
from pellucid.registry import config
from pellucid.trees import flatten, leaves, tree_map


class Row(NamedTuple):
    layer: pl.Layer
    input_shape: Any  # without the examples; a tuple of shapes for a layer that joins several inputs
    levels: int = 0  # > 0 where the input is whole numbers 0 … levels-1, which have no gradient


TABLE = [
    *(Row(pl.Dense(4, g), (3,)) for g in activations if g != "maxout"),
    Row(pl.Dense(6, "maxout(3)"), (5,)),
    Row(pl.Dense(4, "gelu(approximate='tanh')", use_bias=False), (3,)),
    Row(pl.Dense(1), (1,)),
    Row(pl.Dense(7, "prelu", use_bias=False, initializer="orthogonal", bias_initializer="normal(0.5)"), (2,)),
    *(Row(activations.get(g), (6,)) for g in activations),
    *(Row(activations.get(g), (4, 2, 3)) for g in activations),
    Row(pl.LeakyReLU(0.3), (5,)),
    Row(pl.PReLU(0.1), (3, 2, 2)),
    Row(pl.ELU(0.5), (5,)),
    Row(pl.GELU("tanh"), (5,)),
    Row(pl.Softmax(axis=-1), (3, 4)),
    Row(pl.Softmax(axis=1), (2, 3, 2)),
    Row(pl.Maxout(3), (6, 2)),
    Row(pl.Maxout(1), (3,)),
    Row(pl.Dropout(0.4), (7,)),
    Row(pl.Dropout(0.0), (3, 2)),
    Row(pl.BatchNorm(), (5,)),
    Row(pl.BatchNorm(momentum=0.5, epsilon=0.1), (3, 2, 2)),
    Row(pl.LayerNorm(), (5,)),
    Row(pl.LayerNorm(epsilon=0.1), (2, 3, 2)),
    Row(pl.LayerNorm(axes=1), (4, 5)),
    Row(pl.LayerNorm(axes=2), (2, 3, 2)),
    Row(pl.Flatten(), (2, 3, 2)),
    Row(pl.Flatten(), (3,)),
    Row(pl.Reshape((3, 4)), (2, 6)),
    Row(pl.Reshape((2, -1, 2)), (12,)),
    Row(pl.Split(2), (6,)),
    Row(pl.Split([1, 2, 3], axis=-1), (2, 6)),
    Row(pl.Concat(), ((2,), (3,), (1,))),
    Row(pl.Concat(axis=-1), ((2, 3), (2, 1))),
    Row(pl.Add(), ((3,), (3,), (3,))),
    Row(pl.Multiply(), ((3, 2), (3, 2), (3, 2))),
    Row(pl.Multiply(), ((4,), (4,))),
    Row(pl.Conv2D(4, 3, "tanh"), (2, 5, 6)),
    Row(pl.Conv2D(6, (2, 3), "relu", stride=(2, 1), padding="same", groups=2), (4, 5, 6)),
    Row(pl.Conv2D(3, 2, "prelu", dilation=2, padding=((1, 0), (2, 1)), use_bias=False), (2, 4, 5)),
    Row(pl.Conv2D(4, 3, "sigmoid", connections=((0, 1), (2,), (0, 1, 2), (1,))), (3, 4, 5)),
    Row(pl.Conv2D(2, 1, stride=3), (1, 4, 5)),
    Row(pl.Conv1D(3, 3, "tanh", padding="causal", dilation=2), (2, 7)),
    Row(pl.Conv1D(4, 2, stride=2, groups=2), (2, 7)),
    Row(pl.ConvTranspose2D(3, 3, "tanh", stride=2, padding=1), (2, 3, 4)),
    Row(pl.ConvTranspose2D(4, (2, 3), groups=2, dilation=2, padding="same"), (2, 4, 3)),
    Row(pl.MaxPool2D(2), (2, 5, 6)),
    Row(pl.MaxPool2D(3, 2, padding=1, ceil=True), (2, 6, 5)),
    Row(pl.MaxPool1D(3, 1, padding="same"), (2, 6)),
    Row(pl.AveragePool2D(2), (2, 4, 5)),
    Row(pl.AveragePool2D((2, 3), (1, 2), padding=(1, 1), ceil=True), (2, 4, 5)),
    Row(pl.AveragePool2D(3, padding=1, count_padding=True), (1, 5, 5)),
    Row(pl.AveragePool1D(2), (3, 5)),
    Row(pl.LpPool2D(2), (2, 4, 5)),
    Row(pl.LpPool2D(3, 2, p=3.5), (1, 5, 5)),
    Row(pl.StochasticPool2D(2), (2, 4, 5)),
    Row(pl.StochasticPool2D(3, 2), (1, 5, 5)),
    Row(pl.GlobalAveragePool(), (3, 2, 3)),
    Row(pl.GlobalAveragePool(), (3, 4)),
    Row(pl.GlobalMaxPool(), (3, 2, 3)),
    Row(pl.Subsample2D(2), (2, 4, 5)),
    Row(pl.Subsample2D(3, 2, initializer="normal(0.5)", bias_initializer="normal(0.5)"), (2, 5, 5)),
    Row(pl.LocalResponseNorm(), (7, 2, 3)),
    Row(pl.LocalResponseNorm(4, 0.5, 0.6, 1.5, alpha_over_n=True), (5, 2, 2)),
    Row(pl.LocalResponseNorm(3, 0.5, groups=2), (6, 2, 2)),
    Row(pl.RBF(), (84,)),
    Row(pl.RBF([[1, -1, 0.5], [0, 2, -1]]), (3,)),
    Row(pl.Rescale(1.275, -0.1), (2, 3)),
    Row(pl.Shortcut2D(5, 2), (3, 5, 4)),
    Row(pl.Shortcut2D(2, 3), (2, 4, 7)),
    Row(pl.ZeroPad2D(), (2, 3, 2)),
    Row(pl.ZeroPad2D(((0, 1), (2, 3))), (1, 2, 2)),
    Row(pl.Crop2D(((0, 1), (1, 0))), (2, 4, 3)),
    Row(pl.Upsample2D((2, 3)), (2, 2, 3)),
    Row(Embedding(4, 3), (5,), levels=4),
    Row(Embedding(2, 1, initializer="uniform(-0.3, 0.3)"), (1,), levels=2),
    *(
        Row(cell(3, **options), shape)
        for cell in (pl.SimpleRNN, pl.LSTM, pl.GRU)
        for options, shape in (
            ({}, (4, 2)),
            ({"return_sequences": True}, (5, 2)),
            ({"return_state": True}, (4, 2)),
            ({"return_sequences": True, "return_state": True}, (3, 2)),
            ({"return_sequences": True, "reverse": True}, (4, 2)),
            ({"return_state": True, "reverse": True, "use_bias": False}, (3, 2)),
            ({"stateful": True, "return_sequences": True}, (4, 2)),
            ({"stateful": True, "use_bias": False}, (1, 1)),
            ({"initializer": "normal(0.5)", "recurrent_initializer": "normal(0.5)"}, (3, 1)),
        )
    ),
    *(
        Row(cell(3, return_state=reverse, return_sequences=True, reverse=reverse), ((4, 2), *((3,),) * states))
        for cell, states in ((pl.SimpleRNN, 1), (pl.LSTM, 2), (pl.GRU, 1))
        for reverse in (False, True)
    ),
    Row(pl.SimpleRNN(3, "relu", return_sequences=True, recurrent_initializer="identity"), (4, 2)),
    Row(pl.SimpleRNN(3, "sigmoid", return_sequences=True), (4, 2)),
    Row(pl.LSTM(3, forget_bias=0.0), (4, 2)),
    *(
        Row(pl.Bidirectional(cell, merge), (4, 2))
        for cell, merge in (
            (pl.SimpleRNN(3), "concat"),
            (pl.SimpleRNN(3, return_sequences=True), "multiply"),
            (pl.GRU(2, return_sequences=True), "concat"),
            (pl.GRU(2), "average"),
            (pl.LSTM(2, return_sequences=True), "sum"),
            (pl.LSTM(2), "multiply"),
            (pl.LSTM(2, return_sequences=True, return_state=True), "concat"),
            (pl.GRU(2, return_state=True, use_bias=False), "average"),
        )
    ),
    *(
        Row(pl.TimeDistributed(layer), (3, *shape))
        for layer, shape in (
            (pl.Dense(4, "tanh"), (2,)),
            (pl.Dense(4, "prelu", use_bias=False), (2,)),
            (pl.Dense(4, "softmax"), (2,)),
            (pl.Dense(4, "maxout(2)"), (2,)),
            (pl.Conv2D(2, 2, "relu"), (1, 3, 4)),
            (pl.Conv1D(2, 2), (2, 4)),
            (pl.MaxPool2D(2), (2, 4, 4)),
            (pl.BatchNorm(), (4,)),
            (pl.BatchNorm(), (2, 2, 3)),
            (pl.LayerNorm(), (4,)),
            (pl.Dropout(0.4), (6,)),
            (pl.PReLU(), (3,)),
            (pl.PReLU(0.1), (2, 2)),
            (pl.Softmax(), (4,)),
            (pl.ReLU(), (2, 3)),
            (pl.Flatten(), (2, 2)),
            (pl.Reshape((4,)), (2, 2)),
            (pl.TimeDistributed(pl.Dense(2)), (2, 3)),
        )
    ),
    *(
        Row(pl.Recompute(*layers), shape)
        for layers, shape in (
            ([pl.Dense(4, "tanh")], (3,)),
            ([pl.Dense(4, "prelu"), pl.Dropout(0.4), pl.Dense(2, "gelu", regularizer="l2(0.1)")], (3,)),
            ([pl.Tanh(), pl.Dropout(0.4), pl.Flatten()], (2, 3)),
            ([pl.Conv2D(3, 3, use_bias=False, name="maps"), pl.BatchNorm(), pl.ReLU(), pl.MaxPool2D(2)], (2, 5, 6)),
            ([pl.Dropout(0.3), pl.Recompute(pl.Dense(4), pl.BatchNorm(0.5)), pl.Tanh(), pl.Dense(3)], (3,)),
            ([pl.TimeDistributed(pl.Dense(3, "tanh")), pl.LSTM(2), pl.Dense(2, "sigmoid")], (4, 2)),
            ([pl.Dropout(0.2), pl.GRU(3, return_sequences=True), pl.TimeDistributed(pl.BatchNorm())], (4, 2)),
            ([pl.TimeDistributed(pl.Recompute(pl.Dense(3), pl.BatchNorm(), pl.Tanh())), pl.MeanOverTime()], (4, 2)),
        )
    ),
    Row(pl.TimeDistributed(pl.Recompute(pl.Dense(3, "tanh"), pl.Dropout(0.2), pl.Dense(2))), (3, 2)),
    Row(pl.MeanOverTime(), (4, 3)),
    Row(pl.MeanOverTime(), (3, 2, 2)),
    Row(pl.Repeat(3), (4,)),
    Row(pl.Repeat(1), (2, 3)),
    Row(pl.Attention(), ((3, 2), (4, 2))),
    Row(pl.Attention("dot"), ((1, 2), (3, 4), (3, 2))),
    Row(pl.Attention("general"), ((2, 3), (4, 2))),
    Row(pl.Attention("general"), ((2, 3), (4, 1), (4, 2))),
    Row(pl.AdditiveAttention(3), ((2, 3), (4, 2))),
    Row(pl.AdditiveAttention(2), ((3, 2), (2, 4), (2, 1))),
]

COUNTS = (17, 1)
IDS = [f"{index}-{row.layer!r}-{row.input_shape}".replace(" ", "") for index, row in enumerate(TABLE)]


class Bench:
    """A layer with parameters, state and an input, ready to be run forward and backward on an engine."""

    def __init__(self, row: Row, engine: str, dtype: str, m: int, *, train: bool, seed: int = 0) -> None:
        self.layer, self.input_shape, self.dtype = row.layer, row.input_shape, dtype
        self.ops = engines.get(engine)
        rng = np.random.default_rng([seed, m])
        self.several = isinstance(row.input_shape[0], tuple)
        shapes = row.input_shape if self.several else (row.input_shape,)
        params = row.layer.init(rng, row.input_shape, np.dtype(dtype))
        state = row.layer.init_state(row.input_shape, np.dtype(dtype))
        # Zeros and ones at the start would hide a wrong use of them.
        self.params = tree_map(lambda W: W + 0.1 * rng.normal(size=W.shape).astype(W.dtype), params)
        columns = m if row.layer.start() else 1  # what is carried along a sequence is each example's own
        self.state = tree_map(lambda W: W + 0.3 * rng.random(size=(*W.shape[:-1], columns)).astype(W.dtype), state)
        if row.levels:
            self.inputs = [rng.integers(row.levels, size=(*shape, m)).astype(dtype) for shape in shapes]
        else:
            self.inputs = [away_from_kinks(rng, (*shape, m)).astype(dtype) for shape in shapes]
        self.train = train
        A, _ = self.forward()
        self.outputs = len(A)
        self.dA = [rng.normal(size=each.shape).astype(dtype) for each in A]

    def mode(self) -> Mode:
        key = self.ops.random_key(3, 1) if self.train else None
        return Mode(self.train, key, self.on_engine(self.state))

    def on_engine(self, tree):
        return tree_map(lambda W: self.ops.asarray(W, self.dtype), tree)

    def forward(self):
        """Outputs as a list of NumPy arrays, and the cache."""
        A_prev = tuple(self.ops.asarray(each, self.dtype) for each in self.inputs)
        A, cache = self.layer.forward(
            self.ops, self.on_engine(self.params), A_prev if self.several else A_prev[0], mode=self.mode()
        )
        return [self.ops.to_numpy(each) for each in as_list(A)], cache

    def backward(self, cache, **options):
        """dA_prev as a list of NumPy arrays (or Nones), and the gradients as a flat dictionary of NumPy arrays."""
        dA = tuple(self.ops.asarray(each, self.dtype) for each in self.dA)
        dA_prev, grads = self.layer.backward(
            self.ops, self.on_engine(self.params), cache, dA if self.outputs > 1 else dA[0], **options
        )
        d_inputs = [None if each is None else self.ops.to_numpy(each) for each in as_list(dA_prev)]
        return d_inputs, {name: self.ops.to_numpy(leaf) for name, leaf in leaves(grads)}

    def J(self) -> float:
        """Σᵢ of the examples' own losses <dA, A>, whose gradient by A is dA."""
        return sum(float((dA * A).sum()) for dA, A in zip(self.dA, self.forward()[0], strict=True))


def run(ops, layer, mode, params, inputs, dA):
    """Forward and backward of a layer: outputs, dA_prev, gradients and the next state, as tuples and dictionaries."""
    several = len(inputs) > 1 or layer.several_inputs
    A, cache = layer.forward(ops, params, inputs if several else inputs[0], mode=mode)
    dA_prev, grads = layer.backward(ops, params, cache, dA if isinstance(A, tuple) else dA[0])
    outputs, d_inputs = (each if isinstance(each, tuple) else (each,) for each in (A, dA_prev))
    return outputs, d_inputs, flatten(grads), flatten(layer.next_state(ops, mode.state, cache))


def as_list(value: Any) -> list:
    return list(value) if isinstance(value, tuple) else [value]


def away_from_kinks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values of both signs, none within 0.02 of 0 or ±3 where some activations have kinks, and none equal."""
    sizes = rng.permutation(np.linspace(0.05, 2.9, int(np.prod(shape)))).reshape(shape)
    far = rng.random(shape) < 0.1
    return rng.choice([-1.0, 1.0], shape) * (sizes + 0.17 * far + (sizes > 2.8) * far)


@pytest.fixture(params=STEPWISE)
def engine(request) -> str:
    return request.param


rows = pytest.mark.parametrize("row", TABLE, ids=IDS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
modes = pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])
counts = pytest.mark.parametrize("m", COUNTS, ids=lambda m: f"m={m}")


@rows
@modes
@counts
def test_backward_is_the_gradient_of_forward(row, engine, train, m, rng):
    bench = Bench(row, engine, "float64", m, train=train)
    _, cache = bench.forward()
    d_inputs, grads = bench.backward(cache)
    for index, (A_prev, dA_prev) in enumerate(zip(bench.inputs, d_inputs, strict=True)):
        if row.levels:
            assert not dA_prev.any()
        else:
            assert_gradient(bench.J, A_prev, dA_prev, rng, f"dA_prev {index}")
    assert list(grads) == list(flatten(bench.params))
    for name, W in leaves(bench.params):
        assert_gradient(lambda: bench.J() / m, W, grads[name], rng, f"d{name}")


@rows
@modes
def test_nothing_that_goes_in_is_changed(row, engine, train):
    bench = Bench(row, engine, "float64", 17, train=train)
    before = copy.deepcopy((bench.inputs, bench.params, bench.state, bench.dA))
    A, cache = bench.forward()
    assert_same((bench.inputs, bench.params, bench.state, bench.dA), before)
    A_before, cache_before = copy.deepcopy((A, cache))
    bench.backward(cache)
    assert_same((bench.inputs, bench.params, bench.state, bench.dA), before)
    assert_same((A, cache), (A_before, cache_before))
    bench.layer.next_state(bench.ops, bench.on_engine(bench.state), cache)
    assert_same((bench.state, cache), (before[2], cache_before))


@rows
@dtypes
def test_any_memory_layout_gives_the_same(row, engine, dtype):
    bench = Bench(row, engine, dtype, 17, train=True)
    A, cache = bench.forward()
    d_inputs, grads = bench.backward(cache)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    contiguous = bench.inputs, bench.dA
    for layout in (strided, reversed_in_memory, np.asfortranarray, read_only):
        bench.inputs, bench.dA = ([layout(each) for each in arrays] for arrays in contiguous)
        again, cache = bench.forward()
        d_again, grads_again = bench.backward(cache)
        for one, other in zip([*A, *d_inputs, *grads.values()], [*again, *d_again, *grads_again.values()], strict=True):
            np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance, err_msg=layout.__name__)


@rows
@dtypes
@modes
@counts
def test_shapes_and_float_type_are_kept(row, engine, dtype, train, m):
    bench = Bench(row, engine, dtype, m, train=train)
    A, cache = bench.forward()
    d_inputs, grads = bench.backward(cache)
    promised = row.layer.output_shape(row.input_shape)
    promised = promised if isinstance(promised[0], tuple) else (promised,)
    assert [each.shape for each in A] == [(*shape, m) for shape in promised]
    assert [each.shape for each in d_inputs] == [each.shape for each in bench.inputs]
    assert {name: dW.shape for name, dW in grads.items()} == {name: W.shape for name, W in leaves(bench.params)}
    state = bench.layer.next_state(bench.ops, bench.on_engine(bench.state), cache)
    stateful = getattr(row.layer, "stateful", False)  # one column stands for any number of examples
    kept = {name: (*W.shape[:-1], m) if stateful else W.shape for name, W in leaves(bench.state)}
    assert {name: W.shape for name, W in leaves(state)} == kept
    for each in (*A, *d_inputs, *grads.values(), *(bench.ops.to_numpy(W) for _, W in leaves(state))):
        assert each.dtype == dtype
        assert np.isfinite(each).all()


@rows
@modes
def test_input_gradient_can_be_declined(row, engine, train):
    bench = Bench(row, engine, "float64", 17, train=train)
    _, cache = bench.forward()
    _, grads = bench.backward(cache)
    declined, same = bench.backward(cache, input_gradient=False)
    assert declined == [None] * len(bench.inputs)
    assert_same(same, grads)


@rows
def test_cache_says_what_each_field_holds(row, engine):
    cache_type = type(row.layer).Cache
    _, cache = Bench(row, engine, "float32", 3, train=True).forward()
    assert isinstance(cache, cache_type)
    assert cache_type.__doc__
    assert not cache_type.__doc__.startswith(f"{cache_type.__name__}("), "a docstring of its own"
    source = textwrap.dedent(inspect.getsource(cache_type))
    fields = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]
    assert [node.target.id for node in fields] == list(cache_type._fields)
    for node in fields:
        assert "# " in source.splitlines()[node.lineno - 1], f"{node.target.id}: a trailing comment with its shape"


@rows
def test_config_rebuilds_the_layer(row, engine):
    rebuilt = layers.get(config(row.layer))
    assert type(rebuilt) is type(row.layer)
    assert config(rebuilt) == config(row.layer)
    assert repr(rebuilt) == repr(row.layer)
    one = Bench(row, engine, "float64", 5, train=True)
    other = Bench(row._replace(layer=rebuilt), engine, "float64", 5, train=True)
    (A, cache), (A_again, cache_again) = one.forward(), other.forward()
    assert_same(one.params, other.params)
    assert_same(A_again, A)
    assert_same(other.backward(cache_again), one.backward(cache))


@rows
def test_every_layer_can_be_read(row, engine):
    bench = Bench(row, engine, "float64", 5, train=True)
    _, cache = bench.forward()
    equations = row.layer.equations()
    assert equations
    assert all(isinstance(text, str) and text for text in equations.values())
    dA = tuple(bench.ops.asarray(each, "float64") for each in bench.dA)
    values = row.layer.intermediates(
        bench.ops, bench.on_engine(bench.params), cache, dA if bench.outputs > 1 else dA[0]
    )
    assert all(np.isfinite(bench.ops.to_numpy(value)).all() for value in values.values())
    assert row.layer.multiply_adds(row.input_shape) >= 0


def test_every_layer_of_pellucid_is_in_the_table():
    abstract = {pl.Activation}
    known = {layers.find(name) for name in layers}
    own = {cls for cls in known if cls.__module__.partition(".")[0] == "pellucid"}
    assert own - abstract - {type(row.layer) for row in TABLE} == set()


def strided(A):
    wide = np.zeros((*A.shape[:-1], 2 * A.shape[-1]), A.dtype)
    wide[..., ::2] = A
    return wide[..., ::2]


def reversed_in_memory(A):
    return A[..., ::-1].copy()[..., ::-1]


def read_only(A):
    A = A.copy()
    A.flags.writeable = False
    return A


def assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit, through tuples, lists and dictionaries."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (tuple, list)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif one is None or other is None:
        assert one is other
    else:
        np.testing.assert_array_equal(one, other)
