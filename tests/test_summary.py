"""The summary's numbers against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl


def test_a_chain_by_hand():
    net = pl.Sequential(
        pl.Flatten(), pl.Dense(5, "relu"), pl.BatchNorm(), pl.Dropout(0.5), pl.Dense(3), input_shape=(1, 2, 3)
    )
    s = net.summary()
    # Dense(5): 5·6 + 5 parameters, 5·6 multiply–adds; BatchNorm: γ and β, and two running averages, of 5
    assert [row.parameters for row in s.rows] == [0, 35, 10, 0, 18]
    assert [row.state for row in s.rows] == [0, 0, 10, 0, 0]
    assert [row.multiply_adds for row in s.rows] == [0, 30, 5, 0, 15]
    assert [row.output_shape for row in s.rows] == [(6,), (5,), (5,), (5,), (3,)]
    # per example: Flatten nothing; Dense the view of X (6 floats) and A (5); BatchNorm A_hat (5); Dropout 5 booleans;
    # the last Dense its input (5), of an identity activation nothing. For the batch: BatchNorm's mean and variance.
    assert [row.cache_bytes_per_example for row in s.rows] == [0, 44, 20, 5, 20]
    assert [row.cache_bytes_fixed for row in s.rows] == [0, 0, 40, 0, 0]
    assert (s.parameters, s.state, s.parameter_bytes, s.multiply_adds) == (63, 10, 292, 50)
    assert (s.cache_bytes_per_example, s.cache_bytes_fixed) == (89, 40)


def test_float64_doubles_the_memory():
    one, two = (
        pl.Sequential(pl.Dense(4, "tanh"), pl.Dense(2), input_shape=3, dtype=dtype).summary()
        for dtype in ("float32", "float64")
    )
    assert one.cache_bytes_per_example == 4 * (3 + 4)  # X, and A[1] which both layers hold
    assert two.cache_bytes_per_example == 2 * one.cache_bytes_per_example
    assert two.parameter_bytes == 2 * one.parameter_bytes


def test_shared_layers_and_arrays_are_counted_once():
    layer = pl.Dense(4, "tanh")
    s = pl.Sequential(layer, layer, pl.Dense(2), input_shape=4).summary()
    assert [row.name for row in s.rows] == ["dense_1", "dense_1@2", "dense_2"]
    assert [row.parameters for row in s.rows] == [20, 0, 10]
    assert [row.shared for row in s.rows] == [False, True, False]
    assert [row.multiply_adds for row in s.rows] == [16, 16, 8]
    assert [row.cache_bytes_per_example for row in s.rows] == [4 * (4 + 4), 4 * 4, 0]
    assert s.parameters == 30


def graph():
    a, b = pl.Input(4), pl.Input((1, 2, 2))
    d = pl.Dense(4, "relu", name="tower")
    h = pl.Concat()(d(a), d(pl.Flatten()(b)))
    p, q = pl.Split(2)(h)
    return pl.Graph(
        inputs={"a": a, "b": b},
        outputs={"kind": pl.Dense(3, name="kind_head")(pl.Multiply()(p, q)), "size": pl.Dense(1, name="size_head")(h)},
        loss={"kind": "softmax_cross_entropy", "size": "squared_error"},
    )


def test_a_graph_by_hand():
    s = graph().summary()
    rows = {row.name: row for row in s.rows}
    assert {name: row.parameters for name, row in rows.items()} == {
        "tower": 20, "flatten_1": 0, "tower@2": 0, "concat_1": 0, "split_1": 0, "multiply_1": 0, "kind_head": 15,
        "size_head": 9,
    }  # fmt: skip
    assert {name: row.multiply_adds for name, row in rows.items() if row.multiply_adds} == {
        "tower": 16, "tower@2": 16, "multiply_1": 4, "kind_head": 12, "size_head": 8,
    }  # fmt: skip
    # a and A; b by its view and A; the joined array, which split, multiply and a head hold; the product
    assert {name: row.cache_bytes_per_example for name, row in rows.items() if row.cache_bytes_per_example} == {
        "tower": 32, "tower@2": 32, "split_1": 32, "kind_head": 16,
    }  # fmt: skip
    assert rows["concat_1"].sources == ("tower", "tower@2")
    assert rows["split_1"].output_shape == ((4,), (4,))
    assert rows["tower@2"].shared
    text = str(s)
    assert "split_1:0, split_1:1" in text
    assert "outputs: kind = kind_head, size = size_head" in text
    line = next(line for line in text.splitlines() if line.startswith("  tower@2"))
    assert line.split() == ["tower@2", "Dense(4,", "activation='relu')", "(4,)", "shared", "16", "32", "B", "flatten_1"]


def test_the_cost_of_caches_is_what_a_real_pass_keeps():
    """Live memory of the caches of a larger batch, measured, is what the summary foretells."""
    import gc
    import tracemalloc

    net = pl.Sequential(
        pl.Dense(64, "relu"),
        pl.BatchNorm(),
        pl.Dropout(0.2),
        pl.Dense(32, "gelu"),
        pl.Dense(10),
        engine="numpy",  # whose memory Python can trace
        input_shape=40,
    )
    s, m = net.summary(), 2000
    X = np.zeros((40, m), np.float32)
    net.forward(X, train=True)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    A, caches = net.forward(X, train=True)
    del A
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    foretold = s.cache_bytes_per_example * m + s.cache_bytes_fixed - X.nbytes  # X was there before
    assert caches
    assert kept == pytest.approx(foretold, rel=0.01)


def test_the_table_fits_and_reads_well():
    net = pl.Sequential(
        *(pl.Dense(2000, "leaky_relu(0.2)", initializer="orthogonal(1.4)", regularizer="elastic(0.001, 0.002)"),) * 1,
        pl.Dense(10, name="a_very_long_name_that_somebody_gave_to_the_last_layer_of_all"),
        input_shape=784,
    )
    text = str(net.summary())
    assert max(map(len, text.splitlines())) <= 120
    assert f"{784 * 2000 + 2000 + 20010:,} trained parameters, 6.1 MiB as float32" in text
    assert "…" in text
    graph_text = str(graph().summary())
    assert max(map(len, graph_text.splitlines())) <= 120


def test_what_each_layer_sees_of_an_image():
    net = pl.Sequential(
        pl.Conv2D(6, 5, padding=2),
        pl.MaxPool2D(2),
        pl.Conv2D(16, 5),
        pl.Flatten(),
        pl.Dense(10),
        input_shape=(1, 28, 28),
    )
    s = net.summary()
    assert [row.receptive_field for row in s.rows] == [(5, 5), (6, 6), (14, 14), (32, 32), (32, 32)]
    lines = str(s).splitlines()
    assert lines[1].endswith("  sees")
    assert [line.split()[-1] for line in lines[4:9]] == ["5×5", "6×6", "14×14", "32×32", "32×32"]
    assert "sees" not in str(graph().summary()).splitlines()[1].split()
    x = pl.Input((1, 8, 8))
    branched = pl.Graph(inputs=x, outputs=pl.Add()(x, pl.Conv2D(1, 3, padding=1)(x))).summary()
    assert str(branched).splitlines()[1].split()[-2:] == ["sees", "reads"]
    assert str(branched).splitlines()[4].split()[-2:] == ["3×3", "input"]


def test_nothing_is_changed():
    net = pl.Sequential(pl.BatchNorm(), pl.Dense(2), input_shape=3)
    state, params = net.state, net.parameters
    net.summary()
    assert net.state is state
    assert net.parameters is params
