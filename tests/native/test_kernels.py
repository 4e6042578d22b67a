"""The native engine's kernels against the numpy engine: odd sizes, any layout of memory, every instruction set."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import pellucid as pl
from pellucid import engines
from pellucid.engines.base import Window
from pellucid.layers import activations
from pellucid.layers.activations import Activation

pytestmark = pytest.mark.skipif(
    engines.known().get("native") is not None, reason=f"native engine: {engines.known().get('native')}"
)

NUMPY = engines.get("numpy")
NATIVE = engines.get("native") if "native" in engines.available() else None
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
ELEMENTWISE = [*sorted(name for name in activations if activations.find(name).g is not Activation.g), "gelu('tanh')"]
RULES = ["gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "adadelta", "lion"]

dtypes = st.sampled_from(["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
examples = st.sampled_from([1, 2, 3, 15, 16, 17, 33, 64, 65, 130])
widths = st.sampled_from([1, 2, 3, 5, 6, 7, 13, 24, 25, 31, 100])
layouts = st.sampled_from(["plain", "fortran", "strided", "read-only", "offset"])


def laid_out(A: np.ndarray, layout: str) -> np.ndarray:
    """The same values otherwise in memory."""
    if layout == "fortran":
        return np.asfortranarray(A)
    if layout == "strided":
        wide = np.full((*A.shape[:-1], 2 * A.shape[-1]), 77, A.dtype)
        wide[..., ::2] = A
        return wide[..., ::2]
    if layout == "read-only":
        A = A.copy()
        A.flags.writeable = False
    if layout == "offset":  # by 4 bytes: float64 lies where no float64 may lie
        memory = bytearray(A.nbytes + 4)
        moved = np.frombuffer(memory, A.dtype, A.size, offset=4).reshape(A.shape)
        moved[...] = A
        return moved
    return A


def agree(name: str, *arguments, tolerance: float = 1.0, layout: str = "plain") -> None:
    """The kernel gives what the reference gives, and leaves its arguments as they were."""
    given = [laid_out(each, layout) if isinstance(each, np.ndarray) and each.ndim else each for each in arguments]
    before = [each.copy() if isinstance(each, np.ndarray) else None for each in given]
    made, expected = getattr(NATIVE, name)(*given), getattr(NUMPY, name)(*arguments)
    if not isinstance(expected, tuple):
        made, expected = (made,), (expected,)
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        limit = tolerance * TOLERANCE.get(str(other.dtype), 1e-12)
        np.testing.assert_allclose(one, other, rtol=limit, atol=limit, err_msg=name)
    for one, other in zip(given, before, strict=True):
        if other is not None:
            np.testing.assert_array_equal(one, other, err_msg=f"{name} wrote into an argument")


def normal(seed: int, dtype: str):
    rng = np.random.default_rng(seed)
    return lambda *shape: rng.normal(size=shape).astype(dtype)


# --- affine


@given(n=widths, n_prev=widths, m=examples, seed=seeds, dtype=dtypes, layout=layouts, bias=st.booleans())
@example(n=200, n_prev=300, m=128, seed=0, dtype="float32", layout="plain", bias=True)
@example(n=70, n_prev=3000, m=65, seed=0, dtype="float32", layout="plain", bias=True)
@example(n=70, n_prev=3000, m=3, seed=0, dtype="float64", layout="plain", bias=True)
@example(n=7, n_prev=9, m=0, seed=0, dtype="float32", layout="plain", bias=True)
@example(n=7, n_prev=0, m=17, seed=0, dtype="float32", layout="plain", bias=True)
@example(n=0, n_prev=9, m=17, seed=0, dtype="float32", layout="plain", bias=True)
def test_affine(n, n_prev, m, seed, dtype, layout, bias):
    draw = normal(seed, dtype)
    W, A_prev, dZ, b = draw(n, n_prev), draw(n_prev, m), draw(n, m), draw(n, 1)
    agree("affine", W, A_prev, b if bias else None, layout=layout, tolerance=max(1, n_prev / 10))
    agree("affine_dA", W, dZ, layout=layout, tolerance=max(1, n / 10))
    if m:
        agree("affine_dW", dZ, A_prev, layout=layout)
        agree("affine_db", dZ, layout=layout)


@pytest.mark.parametrize(("units", "channels", "groups", "m"), [(130, 120, 1, 17), (264, 124, 2, 16)])
def test_a_gradient_of_filters_whose_sums_are_large_is_shared_out_by_units(units, channels, groups, m, rng):
    window = Window((3, 3), (1, 1), ((1, 1), (1, 0)), (1, 1))
    A = rng.normal(size=(channels * groups, 8, 8, m)).astype("float32")
    dZ = rng.normal(size=(units, 8, 7, m)).astype("float32")
    expected = engines.get("numpy").convolution_dW(dZ.astype("float64"), A.astype("float64"), window, groups)
    before = NATIVE.kernels.threads()
    try:
        for threads in (1, 2, 3):
            NATIVE.kernels.set_threads(threads)
            dW = NATIVE.convolution_dW(dZ, A, window, groups)
            np.testing.assert_allclose(dW, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    finally:
        NATIVE.kernels.set_threads(before)


@pytest.mark.parametrize(("n", "n_prev"), [(1, 385), (5, 900), (13, 784)])
def test_columns_that_fill_no_whole_vectors(n, n_prev, rng):
    # So deep that sums are made in parts: what a vector has in common with the one before must not be added twice.
    W = rng.normal(size=(n, n_prev)).astype("float32")
    for m in [*range(15, 34), 47, 49, 63, 65, 66, 79, 81, 95, 97, 127, 129, 145]:
        A = rng.normal(size=(n_prev, m)).astype("float32")
        expected = W.astype("float64") @ A
        np.testing.assert_allclose(
            NATIVE.affine(W, A, None), expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=m
        )


@given(
    steps=st.sampled_from([(0,), (1,), (3,), (2, 2), (9,)]),
    n=widths,
    n_prev=widths,
    m=examples,
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    bias=st.booleans(),
)
@example(steps=(40,), n=70, n_prev=50, m=40, seed=0, dtype="float32", layout="plain", bias=True)  # more than one thread
@example(steps=(5,), n=7, n_prev=9, m=0, seed=0, dtype="float32", layout="plain", bias=True)
@example(steps=(200,), n=7, n_prev=9, m=1, seed=0, dtype="float32", layout="plain", bias=True)
def test_affine_of_a_sequence(steps, n, n_prev, m, seed, dtype, layout, bias):
    draw = normal(seed, dtype)
    W, A_prev, dZ, b = draw(n, n_prev), draw(*steps, n_prev, m), draw(*steps, n, m), draw(n, 1)
    agree("affine", W, A_prev, b if bias else None, layout=layout, tolerance=max(1, n_prev / 10))
    agree("affine_dA", W, dZ, layout=layout, tolerance=max(1, n / 10))
    if m:
        agree("affine_dW", dZ, A_prev, layout=layout, tolerance=max(1, steps[0]))
        agree("affine_db", dZ, layout=layout, tolerance=max(1, steps[0]))


# --- recurrence

GATES = {"tanh": 1, "relu": 1, "sigmoid": 1, "lstm": 4, "gru": 3}


@given(
    cell=st.sampled_from(list(GATES)),
    T=st.sampled_from([0, 1, 2, 5]),
    n=st.sampled_from([1, 2, 3, 5, 6, 7, 13, 24, 25]),
    m=examples,
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    masked=st.booleans(),
    above=st.booleans(),
    last=st.tuples(st.booleans(), st.booleans()),
)
@example("lstm", 3, 60, 130, 0, "float32", "plain", True, True, (True, True))  # more than one thread
@example("gru", 3, 60, 130, 0, "float64", "plain", True, True, (True, True))
@example("tanh", 3, 90, 130, 0, "float32", "plain", False, True, (False, False))
@example("lstm", 2, 4, 0, 0, "float32", "plain", True, True, (True, True))
@example("gru", 2, 0, 4, 0, "float32", "plain", True, True, (True, True))
def test_recurrence(cell, T, n, m, seed, dtype, layout, masked, above, last):
    draw = normal(seed, dtype)
    U, Z = draw(GATES[cell] * n, n) / np.sqrt(n + 1).astype(dtype), draw(T, GATES[cell] * n, m)
    c = draw(n, 1) if cell == "gru" else None
    start = tuple(draw(n, m) for _ in range(2 if cell == "lstm" else 1))
    mask = np.random.default_rng(seed).random((T, m)) < 0.6 if masked else None
    dA, d_last = draw(T, n, m) if above else None, tuple(draw(n, m) if each else None for each in last[: len(start)])

    def through(ops, lay):
        given = lay((Z.copy(), U, c, start, mask))
        states, kept = ops.recurrence(cell, *given)
        back = ops.recurrence_backward(cell, given[1], lay(states), lay(kept), given[4], *lay((dA, d_last)))
        return [*states, *kept, back[0], back[1], *back[2]], given[1:]

    def lay(tree):
        if isinstance(tree, tuple):
            return tuple(lay(each) for each in tree)
        return tree if tree is None else laid_out(tree, layout)

    (made, given), (expected, _) = through(NATIVE, lay), through(NUMPY, lambda tree: tree)
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        limit = TOLERANCE[dtype] * 3
        np.testing.assert_allclose(one, other, rtol=limit, atol=limit, err_msg=cell)
    for one, other in zip(given, (U, c, start, mask), strict=True):
        if isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other, err_msg="recurrence wrote into an argument")


@given(
    cell=st.sampled_from(list(GATES)),
    T=st.sampled_from([1, 2, 5]),
    n=st.sampled_from([1, 2, 3, 5, 7, 13, 24, 25, 66]),
    n_x=st.sampled_from([1, 3, 15, 16, 28]),
    m=examples.filter(bool),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    masked=st.booleans(),
    above=st.booleans(),
    zeros_first=st.booleans(),
    bias=st.booleans(),
)
@example("lstm", 3, 60, 28, 130, 0, "float32", "plain", True, True, False, True)  # more than one thread
@example("lstm", 3, 100, 28, 128, 0, "float32", "plain", False, False, True, True)
@example("lstm", 2, 400, 5, 17, 0, "float32", "plain", False, True, False, True)  # a large U
@example("tanh", 3, 130, 28, 130, 0, "float64", "plain", False, True, True, False)
def test_the_recurrent_layer(cell, T, n, n_x, m, seed, dtype, layout, masked, above, zeros_first, bias):
    draw, G = normal(seed, dtype), GATES[cell]
    params = {"W": draw(G * n, n_x) / np.sqrt(n_x).astype(dtype), "U": draw(G * n, n) / np.sqrt(n + 1).astype(dtype)}
    params |= {"b": draw(G * n, 1)} if bias else {}
    params |= {"c": draw(n, 1)} if cell == "gru" and bias else {}
    X, start = draw(T, n_x, m), tuple(draw(n, m) * (not zeros_first) for _ in range(2 if cell == "lstm" else 1))
    mask = np.random.default_rng(seed).random((T, m)) < 0.6 if masked else None
    dA, d_last = draw(T, n, m) if above else None, tuple(draw(n, m) for _ in start)

    def through(ops, lay):
        own = {name: lay(each) for name, each in params.items()}
        given = lay((X, start, mask))
        states, kept = ops.recurrent(cell, own, *given)
        back = lay(states), lay(kept), given[2], *lay((dA, d_last))
        dX, grads, d_start = ops.recurrent_backward(cell, own, given[0], *back, True)
        _, again, _ = ops.recurrent_backward(cell, own, given[0], *back, False)
        made = {"states": states, "kept": kept, "dX": (dX,), "d_start": d_start}
        made |= {f"d{name}": (grads[name], again[name]) for name in params}
        return made, (own, *given)

    def lay(tree):
        if isinstance(tree, tuple):
            return tuple(lay(each) for each in tree)
        return tree if tree is None else laid_out(tree, layout)

    (made, given), (expected, _) = through(NATIVE, lay), through(NUMPY, lambda tree: tree)
    assert made.keys() == expected.keys()
    limit = TOLERANCE[dtype] * 10
    for what, right in expected.items():
        for one, other in zip(made[what], right, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=limit, atol=limit, err_msg=f"{cell} {what}")
    for one, other in zip((*given[0].values(), given[1], *given[2]), (*params.values(), X, *start), strict=True):
        np.testing.assert_array_equal(one, other, err_msg="an argument was written into")


def test_a_recurrent_layer_keeps_nan_where_it_is():
    for cell in ("tanh", "lstm"):
        draw, G = normal(1, "float32"), GATES[cell]
        params = {"W": draw(G * 5, 3), "U": draw(G * 5, 5), "b": draw(G * 5, 1)}
        X, start = draw(3, 3, 20), tuple(zeros(5, 20) for _ in range(1 + (cell == "lstm")))
        X[1, :, 7] = np.nan
        (H, *_), _ = NATIVE.recurrent(cell, params, X, start, None)
        assert np.isnan(H[2:, :, 7]).all()
        assert np.isfinite(np.delete(H, 7, axis=2)).all()


def test_a_recurrence_keeps_nan_where_it_is():
    """Examples do not see each other, and one that is lost does not look like one that is not."""
    for cell, gates in GATES.items():
        draw = normal(1, "float32")
        Z, U, start = (
            draw(3, gates * 5, 20),
            draw(gates * 5, 5),
            tuple(draw(5, 20) for _ in range(1 + (cell == "lstm"))),
        )
        Z[1, :, 7] = np.nan
        (H, *_), _ = NATIVE.recurrence(cell, Z, U, np.zeros((5, 1), "float32") if cell == "gru" else None, start, None)
        assert np.isnan(H[2:, :, 7]).all()
        assert np.isfinite(np.delete(H, 7, axis=2)).all()


def test_the_gates_are_written_over_what_was_given_away():
    Z, U, h = zeros(2, 12, 3), zeros(12, 3), zeros(3, 3)
    _, (gates,) = NATIVE.recurrence("lstm", Z, U, None, (h, h), None)
    assert gates is Z


# --- embedding


@given(
    T=st.sampled_from([0, 1, 2, 9]),
    m=examples,
    n=widths,
    levels=st.sampled_from([1, 2, 30]),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    ids=st.sampled_from(["int32", "int64", "uint8"]),
)
@example(T=20, m=130, n=40, levels=500, seed=0, dtype="float32", layout="plain", ids="int64")  # more than one thread
def test_embedding(T, m, n, levels, seed, dtype, layout, ids):
    draw = normal(seed, dtype)
    which = np.random.default_rng(seed).integers(levels, size=(T, m)).astype(ids)
    agree("embedding", draw(n, levels), which, layout=layout)
    agree("embedding_dW", draw(T, n, m), which, levels, layout=layout, tolerance=20)


# --- convolution and pooling


@st.composite
def geometries(draw, pooling: bool = False):
    """(window, sizes, places) of one or two axes: strides beyond the kernel, padding beyond its reach, dilation."""
    axes = []
    for _ in range(draw(st.integers(1, 2))):
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
        pads = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
        reach = dilation * (kernel - 1) + 1
        size = draw(st.integers(max(1, reach - sum(pads)), 9 + reach))
        places = (size + sum(pads) - reach) // stride + 1
        if pooling and (places - 1) * stride + reach < size + sum(pads) and places * stride < size + pads[0]:
            places += draw(st.integers(0, 1))
        axes.append((kernel, stride, pads, dilation, size, places))
    kernel, stride, pads, dilation, size, places = zip(*axes, strict=True)
    return Window(kernel, stride, pads, dilation), size, places


@given(
    geometry=geometries(),
    m=st.sampled_from([1, 2, 3, 15, 16, 17, 33]),
    groups=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 3, 7]),
    units=st.sampled_from([1, 2, 5, 7, 25]),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    bias=st.booleans(),
)
def test_convolution(geometry, m, groups, channels, units, seed, dtype, layout, bias):
    window, size, places = geometry
    draw = normal(seed, dtype)
    W, b = draw(groups * units, channels, *window.kernel), draw(groups * units, *(1,) * (len(size) + 1))
    A_prev, dZ = draw(groups * channels, *size, m), draw(groups * units, *places, m)
    agree("convolution", W, A_prev, b if bias else None, window, groups, layout=layout, tolerance=5)
    agree("convolution_dW", dZ, A_prev, window, groups, layout=layout, tolerance=5)
    agree("convolution_db", dZ, layout=layout, tolerance=5)
    agree("convolution_dA", W, dZ, A_prev.shape, window, groups, layout=layout, tolerance=5)


@given(
    places=st.tuples(*[st.sampled_from([7, 8, 11, 12, 14])] * 2),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    m=st.sampled_from([16, 17, 32, 33, 130]),
    groups=st.integers(1, 2),
    channels=st.sampled_from([8, 13, 17, 48, 70]),
    units=st.sampled_from([8, 25, 50]),
    seed=seeds,
    bias=st.booleans(),
)
def test_convolution_at_points(places, pads, m, groups, channels, units, seed, bias):
    window = Window((3, 3), (1, 1), (pads[:2], pads[2:]), (1, 1))
    size = tuple(n + 2 - sum(pad) for n, pad in zip(places, window.pads, strict=True))
    draw = normal(seed, "float32")
    W, b = draw(groups * units, channels, 3, 3) / np.float32(20), draw(groups * units, 1, 1, 1)
    A_prev, dZ = draw(groups * channels, *size, m), draw(groups * units, *places, m)
    agree("convolution", W, A_prev, b if bias else None, window, groups, tolerance=2)
    agree("convolution_dW", dZ, A_prev, window, groups, tolerance=5)
    agree("convolution_dA", W, dZ, A_prev.shape, window, groups, tolerance=2)


def test_convolution_at_points_rounds_little_more_than_sums_do(rng):
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    W, A_prev, dZ, image = (
        rng.normal(size=size).astype(np.float32)
        for size in ((64, 64, 3, 3), (64, 8, 8, 32), (16, 96, 96, 16), (16, 96, 96, 16))
    )
    for name, operands in {"convolution": (W, A_prev, None), "convolution_dW": (dZ, image)}.items():  # dW: long sums
        wide = [each if each is None else each.astype(np.float64) for each in operands]
        exact = getattr(NUMPY, name)(*wide, window, 1)
        at_points, plain = (
            np.sqrt(np.mean((getattr(ops, name)(*operands, window, 1) - exact) ** 2)) for ops in (NATIVE, NUMPY)
        )
        assert at_points < 4 * plain


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "size"), [(5, 2, 1, 23), (6, 2, 1, 24), (7, 3, 1, 31), (3, 2, 2, 24)]
)
def test_phases_of_a_strided_dA_at_points(kernel, stride, dilation, size, rng):
    window = Window((kernel, kernel), (stride, stride), ((0, 0), (0, 0)), (dilation, dilation))
    places = (size - dilation * (kernel - 1) - 1) // stride + 1
    W, dZ = rng.normal(size=(9, 8, kernel, kernel)), rng.normal(size=(9, places, places, 32))
    W, dZ = W.astype(np.float32), dZ.astype(np.float32)
    agree("convolution_dA", W, dZ, (8, size, size, 32), window, 1, tolerance=2)


@given(geometry=geometries(pooling=True), m=examples, C=st.integers(1, 4), seed=seeds, dtype=dtypes, layout=layouts)
def test_pooling(geometry, m, C, seed, dtype, layout):
    window, size, places = geometry
    draw = normal(seed, dtype)
    A_prev, dA = draw(C, *size, m), draw(C, *places, m)
    A_prev = np.round(A_prev * 2)  # equals abound: the first of them is the one
    agree("max_pool", A_prev, window, places, layout=layout)
    agree("sum_pool", A_prev, window, places, layout=layout)
    _, taps = NUMPY.max_pool(A_prev, window, places)
    agree("max_pool_backward", dA, taps, A_prev.shape, window, layout=layout)
    agree("sum_pool_backward", dA, A_prev.shape, window, layout=layout)


# --- elementwise


@pytest.mark.parametrize("name", ELEMENTWISE)
@given(shape=st.lists(st.integers(0, 20), min_size=1, max_size=3), seed=seeds, dtype=dtypes, layout=layouts)
def test_activations(name, shape, seed, dtype, layout):
    g, draw = activations.get(name), normal(seed, dtype)
    Z, dA = 4 * draw(*shape), draw(*shape)
    agree("activation", g, Z, layout=layout)
    agree("activation_backward", g, dA, NUMPY.activation(g, Z.copy()) if g.keeps == "A" else Z, layout=layout)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activations_of_what_is_no_ordinary_number(name, dtype):
    """nan, the infinities, zeros of both signs and the largest numbers come out as from the reference."""
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    Z = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, huge, -huge, 100.0, -100.0, 1000.0] * 3, dtype)
    g = activations.get(name)
    with np.errstate(all="ignore"):
        expected = NUMPY.activation(g, Z.copy())
        np.testing.assert_allclose(NATIVE.activation(g, Z.copy()), expected, rtol=1e-5, atol=1e-37)
        np.testing.assert_array_equal(np.isnan(NATIVE.activation(g, Z.copy(), in_place=True)), np.isnan(expected))


@given(shape=st.lists(st.integers(0, 20), min_size=1, max_size=3), seed=seeds, dtype=dtypes, layout=layouts)
def test_erf(shape, seed, dtype, layout):
    agree("erf", 2 * normal(seed, dtype)(*shape), layout=layout)


@pytest.mark.parametrize(("dtype", "units"), [("float32", 4), ("float64", 4)])
def test_the_tail_of_gelu_keeps_its_digits(dtype, units):
    """Where 1 + erf has lost them all: z Φ(z) = ½ z erfc(-z/√2), and z² / 2 is rounded before its exponential."""
    Z = np.linspace(-12 if dtype == "float32" else -30, 0, 999).astype(dtype)
    exact = np.array([0.5 * z * math.erfc(-z / math.sqrt(2)) for z in Z.astype("float64")])
    found = NATIVE.activation(activations.get("gelu"), Z)
    error = np.abs(found - exact) / np.maximum(np.abs(exact), np.finfo(dtype).tiny)
    assert (error <= units * np.finfo(dtype).eps * (1 + Z.astype("float64") ** 2 / 2)).all()


@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), m=examples, seed=seeds, dtype=dtypes, layout=layouts)
@example(shape=[8, 30, 30], m=65, seed=0, dtype="float32", layout="plain")  # more than one thread
def test_prelu(shape, m, seed, dtype, layout):
    draw = normal(seed, dtype)
    a, Z, dA = draw(shape[0], *(1,) * len(shape)), draw(*shape, m), draw(*shape, m)
    agree("prelu", a, Z, layout=layout)
    agree("prelu_backward", a, dA, Z, layout=layout, tolerance=10 * math.prod(shape[1:]))


def test_max_pool_keeps_nan():
    A_prev = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)
    A_prev[0, 0, 1], A_prev[0, 3, 0], A_prev[0, 2, 2] = np.nan, np.nan, np.inf
    window = Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    agree("max_pool", A_prev, window, (2, 2))
    assert np.isnan(NATIVE.max_pool(A_prev, window, (2, 2))[0][0, :, 0, 0]).all()


# --- columns and rows


@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    m=examples,
    axis=st.integers(0, 3),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
)
def test_softmax(shape, m, axis, seed, dtype, layout):
    draw = normal(seed, dtype)
    Z, dA = 5 * draw(*shape, m), draw(*shape, m)
    axis %= len(shape)
    agree("softmax", Z, axis, layout=layout)
    agree("softmax_backward", dA, NUMPY.softmax(Z, axis), axis, layout=layout)


@given(
    n=widths,
    m=examples,
    T=st.integers(0, 3),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    smoothing=st.sampled_from([0.0, 0.1]),
    distribution=st.booleans(),
)
def test_softmax_cross_entropy(n, m, T, seed, dtype, layout, smoothing, distribution):
    rng, shape = np.random.default_rng(seed), ((T, n, m) if T else (n, m))
    Z, Y = 5 * rng.normal(size=shape).astype(dtype), rng.integers(n, size=(*shape[:-2], m))
    if distribution:
        Y = np.moveaxis(np.eye(n, dtype=dtype)[Y], -1, -2)
    agree("softmax_cross_entropy", Z, Y, smoothing, -2, layout=layout, tolerance=10)
    P = NUMPY.softmax(Z, -2)
    agree("softmax_cross_entropy_backward", P, Y, smoothing, -2, layout=layout)


def test_a_class_that_is_masked_out_has_no_probability():
    Z = np.array([[1.0, 2.0], [-np.inf, 0.0], [0.0, -np.inf]], "float32")
    losses, P = NATIVE.softmax_cross_entropy(Z, np.array([0, 1]), 0.0, 0)
    assert P[1, 0] == P[2, 1] == 0
    np.testing.assert_allclose(losses, [np.log1p(np.exp(-1.0)), 2 + np.log1p(np.exp(-2.0))], rtol=1e-6)


over_axes = given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    m=examples,
    over=st.sampled_from(["batch", "features", "last feature"]),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
)


@over_axes
def test_normalize(shape, m, over, seed, dtype, layout):
    ndim = len(shape) + 1
    axes = {"batch": range(1, ndim), "features": range(ndim - 1), "last feature": (ndim - 2,)}[over]
    rng = np.random.default_rng(seed)
    A_prev, dA_hat = (rng.normal(3, 2, size=(*shape, m)).astype(dtype) for _ in range(2))
    agree("normalize", A_prev, tuple(axes), 1e-3, layout=layout, tolerance=50)
    A_hat, _, variance = NUMPY.normalize(A_prev, tuple(axes), 1e-3)
    agree("normalize_backward", dA_hat, A_hat, variance, tuple(axes), 1e-3, layout=layout, tolerance=500)


@over_axes
@example(shape=[8, 30, 30], m=65, over="batch", seed=0, dtype="float32", layout="plain")  # more than one thread
@example(shape=[30, 40], m=65, over="last feature", seed=0, dtype="float32", layout="plain")
def test_scale(shape, m, over, seed, dtype, layout):
    draw = normal(seed, dtype)
    parameter = {
        "batch": (shape[0], *(1,) * len(shape)),
        "features": (*shape, 1),
        "last feature": (shape[-1], 1),
    }[over]
    gamma, beta, A_hat, dA = draw(*parameter), draw(*parameter), draw(*shape, m), draw(*shape, m)
    agree("scale", gamma, A_hat, beta, layout=layout)
    agree("scale_backward", gamma, dA, A_hat, layout=layout, tolerance=10 * math.prod(shape))


@given(
    C=st.integers(1, 12),
    shape=st.lists(st.integers(1, 9), max_size=2),
    m=examples,
    around=st.tuples(st.integers(0, 14), st.integers(0, 3)),
    beta=st.sampled_from([0.0, 0.5, 0.75, 1.3]),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
)
@example(20, [20, 20], 65, (2, 2), 0.75, 0, "float32", "plain")  # more than one thread
def test_local_response(C, shape, m, around, beta, seed, dtype, layout):
    draw = normal(seed, dtype)
    A_prev, dA = 3 * draw(C, *shape, m), draw(C, *shape, m)
    agree("local_response", A_prev, *around, 0.1, beta, 1.5, layout=layout, tolerance=3)
    _, S = NUMPY.local_response(A_prev, *around, 0.1, beta, 1.5)
    agree("local_response_backward", dA, A_prev, S, *around, 0.1, beta, layout=layout, tolerance=10)


# --- batches


@given(
    m=st.integers(1, 70), n=st.sampled_from([1, 3, 15, 16, 17, 64, 100]), seed=seeds, dtype=dtypes, bytes_=st.booleans()
)
@example(m=300, n=400, seed=0, dtype="float32", bytes_=True)  # more than one thread
def test_examples_last(m, n, seed, dtype, bytes_):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (40, n)).astype("uint8" if bytes_ else dtype)
    rows = rng.integers(40, size=m)
    X = NATIVE.examples_last(x, rows, dtype)
    assert X.dtype == dtype
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X, x[rows].T)


# --- randomness


@given(shape=st.lists(st.integers(0, 40), min_size=1, max_size=3), seed=seeds, dtype=dtypes, layout=layouts)
def test_dropout(shape, seed, dtype, layout):
    A_prev = 1 + np.abs(normal(seed, dtype)(*shape))
    A, D = NATIVE.dropout((seed, 1), laid_out(A_prev, layout), 0.3)
    assert A.dtype == dtype
    assert D.dtype == bool
    np.testing.assert_allclose(A, A_prev * D / 0.7, rtol=1e-6)
    agree("dropout_backward", A_prev, D, 0.3, layout=layout)


# --- updates


@pytest.mark.parametrize("name", RULES)
@given(
    n=widths,
    n_prev=widths,
    seed=seeds,
    dtype=dtypes,
    layout=st.sampled_from(["plain", "fortran", "strided", "offset"]),
)
def test_update(name, n, n_prev, seed, dtype, layout):
    rule, draw = pl.optimizers.get(name), normal(seed, dtype)
    W, gradients = draw(n, n_prev), [draw(n, n_prev) for _ in range(3)]
    results = []
    for ops in (NUMPY, NATIVE):
        params = {"a": {"W": laid_out(W.copy(), layout)}}
        slots = {slot: {"a": {"W": laid_out(tree["a"]["W"], layout)}} for slot, tree in rule.init(params).items()}
        for t, dW in enumerate(gradients, 1):
            own = {"a": {"W": laid_out(dW, layout)}}
            params, slots = ops.update(rule.rule, params, own, slots, learning_rate=0.05, t=t)
        results.append([params["a"]["W"], *(tree["a"]["W"] for tree in slots.values())])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=50 * TOLERANCE[dtype], atol=2 * TOLERANCE[dtype], err_msg=name)


# --- the doors: what does not fit raises, and nothing is read


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


WINDOW = ((3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
IMAGE, FILTERS = zeros(4, 8, 8, 5), zeros(6, 4, 3, 3)
REFUSED = {
    "affine": [
        (zeros(3, 4), zeros(5, 6), None),
        (zeros(3, 4), zeros(4, 6), zeros(4, 1)),
        (zeros(3), zeros(3, 6), None),
        (zeros(3, 4), zeros(4, 6, dtype="float64"), None),
        (zeros(3, 4, dtype="int32"), zeros(4, 6, dtype="int32"), None),
        (zeros(4, 3).T, zeros(4, 6), None),
        (zeros(3, 4, dtype=">f4"), zeros(4, 6, dtype=">f4"), None),
        (None, zeros(4, 6), None),
    ],
    "affine_dW": [(zeros(3, 4), zeros(5, 6)), (zeros(3, 0), zeros(5, 0)), (zeros(3, 4, 1), zeros(5, 4, 1))],
    "affine_dA": [(zeros(3, 4), zeros(4, 6)), (zeros(3), zeros(3, 6))],
    "row_sums": [(zeros(3, 0), 1.0), (np.float32(1), 1.0)],
    "convolution": [
        (FILTERS, zeros(5, 8, 8, 5), None, WINDOW, 1),
        (zeros(6, 4, 3, 2), IMAGE, None, WINDOW, 1),
        (zeros(4, 6, 3, 3), IMAGE, None, WINDOW, 1),  # as many numbers, other axes
        (FILTERS, IMAGE, zeros(5, 1, 1, 1), WINDOW, 1),
        (FILTERS, IMAGE, None, WINDOW, 2),
        (FILTERS, IMAGE, None, WINDOW, 0),
        (FILTERS, IMAGE, None, WINDOW, -1),
        (np.float32(1), IMAGE, None, WINDOW, 1),
        (FILTERS, zeros(4, 2, 8, 5), None, WINDOW, 1),
        (FILTERS, IMAGE, None, ((3, 3), (0, 1), ((0, 0), (0, 0)), (1, 1)), 1),
        (FILTERS, IMAGE, None, ((3, 3), (1, 1), ((-1, 0), (0, 0)), (1, 1)), 1),
        (FILTERS, IMAGE, None, ((3, 3), (1, 1), ((0, 0), (0, 0)), (2**62, 1)), 1),
        (FILTERS, IMAGE, None, ((3, 3), (1,), ((0, 0), (0, 0)), (1, 1)), 1),
        (FILTERS, IMAGE, None, ((3, 3, 3), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1)), 1),
    ],
    "convolution_dW": [
        (zeros(6, 6, 5, 5), IMAGE, WINDOW, 1),
        (zeros(6, 6, 6, 4), IMAGE, WINDOW, 1),
        (zeros(6, 6, 6, 5), IMAGE, WINDOW, 4),
        (zeros(6, 6, 6, 0), zeros(4, 8, 8, 0), WINDOW, 1),
        (np.float32(1), IMAGE, WINDOW, 1),
    ],
    "convolution_dA": [
        (FILTERS, zeros(6, 6, 6, 5), (4, 8, 9, 5), WINDOW, 1),
        (FILTERS, zeros(6, 6, 6, 5), (5, 8, 8, 5), WINDOW, 1),
        (FILTERS, zeros(5, 6, 6, 5), (4, 8, 8, 5), WINDOW, 1),
        (FILTERS, zeros(6, 6, 6, 5), (4, 8, 8), WINDOW, 1),
        (FILTERS, zeros(6, 6, 6, 5), (4, 8, 2**61, 5), WINDOW, 1),
        (FILTERS, zeros(6, 6, 6, 5), (-4, 8, 8, 5), WINDOW, 1),
    ],
    "max_pool": [
        (IMAGE, WINDOW, (6,)),
        (IMAGE, WINDOW, (0, 6)),
        (IMAGE, WINDOW, (6, 20)),
        (zeros(4, 5), WINDOW, (1, 1)),
    ],
    "max_pool_backward": [
        (zeros(4, 6, 6, 5), zeros(4, 6, 5, 5, dtype="int32"), (4, 8, 8, 5), WINDOW),
        (zeros(4, 6, 6, 5), zeros(4, 6, 6, 5, dtype="int32"), (3, 8, 8, 5), WINDOW),
        (zeros(4, 6, 6, 5), zeros(4, 6, 6, 5, dtype="int64"), (4, 8, 8, 5), WINDOW),
    ],
    "sum_pool": [(IMAGE, WINDOW, (6, 6, 6)), (IMAGE, WINDOW, (20, 6))],
    "sum_pool_backward": [(zeros(4, 6, 6, 5), (4, 8, 8, 6), WINDOW), (zeros(5), (4, 8, 8, 6), WINDOW)],
    "activation": [(99, IMAGE, 0.0), (-1, IMAGE, 0.0)],
    "activation_in_place": [(99, zeros(3), 0.0), (0, IMAGE[::2], 0.0)],
    "activation_backward": [(0, zeros(3), zeros(4), 0.0), (99, zeros(3), zeros(3), 0.0)],
    "softmax_cross_entropy": [
        (zeros(3, 4), np.array([0, 1, 2, 3]), 0.0),
        (zeros(3, 4), np.array([0, 1, 2, -1]), 0.0),
        (zeros(3, 4), np.array([0, 1, 2]), 0.0),
        (zeros(0, 4), np.array([0, 0, 0, 0]), 0.0),
    ],
    "softmax_cross_entropy_backward": [
        (zeros(3, 4), np.array([0, 1, 2, 3]), 0.0),
        (zeros(3, 4), np.array([0, 1, 2, -1]), 0.0),
        (zeros(3, 4), np.array([0, 1]), 0.0),
        (zeros(0, 1), np.array([0]), 0.0),
    ],
    "softmax": [(zeros(3, 4), 2), (zeros(3, 4), -1), (zeros(0, 4), 0)],
    "softmax_backward": [(zeros(3, 4), zeros(4, 3), 0), (zeros(3, 4), zeros(3, 4), 2)],
    "normalize_columns": [
        (zeros(3, 4), 1, 2, 1e-5),
        (zeros(3, 4), 0, 0, 1e-5),
        (zeros(3, 4), 1, 2**63, 1e-5),
        (zeros(0, 4), 0, 1, 1e-5),
    ],
    "normalize_columns_backward": [
        (zeros(3, 4), zeros(3, 4), zeros(3, 1), 0, 1, 1e-5),
        (zeros(3, 4), zeros(4, 3), zeros(1, 4), 0, 1, 1e-5),
        (zeros(3, 4), zeros(3, 4), zeros(1, 4), 0, 3, 1e-5),
    ],
    "dropout_backward": [
        (zeros(3), zeros(4, dtype="uint8"), 0.5),
        (zeros(3), zeros(3, dtype="uint8"), 1.0),
        (zeros(3), zeros(3), 0.5),
    ],
    "normalize": [(zeros(3, 0), 1e-5), (zeros(3), 1e-5)],
    "normalize_backward": [
        (zeros(3, 4), zeros(3, 4), zeros(4, 1), 1e-5),
        (zeros(3, 4), zeros(3, 5), zeros(3, 1), 1e-5),
    ],
    "dropout": [(1, IMAGE, 1.0), (1, IMAGE, -0.1), (1, IMAGE, float("nan"))],
    "update": [
        (1, zeros(3), zeros(3), [], [0.0] * 6),
        (5, zeros(3), zeros(3), [zeros(3)], [0.0] * 6),
        (5, zeros(3), zeros(3), [zeros(3), zeros(4)], [0.0] * 6),
        (0, zeros(3), zeros(4), [], [0.0] * 6),
        (0, zeros(3), zeros(3), [], [0.0]),
        (99, zeros(3), zeros(3), [], [0.0] * 6),
    ],
    "embedding": [
        (zeros(3, 4), np.array([[4]])),
        (zeros(3, 4), np.array([[-1]])),
        (zeros(3, 4), np.array([0])),
        (zeros(4), np.array([[0]])),
    ],
    "embedding_dW": [
        (zeros(1, 3, 2), np.array([[0, 4]]), 4),
        (zeros(1, 3, 2), np.array([[0, -1]]), 4),
        (zeros(2, 3, 2), np.array([[0, 1]]), 4),
        (zeros(1, 3, 2), np.array([[0]]), 4),
        (zeros(1, 3, 0), np.zeros((1, 0), "int64"), 4),
        (zeros(3, 2), np.array([[0, 1]]), 4),
    ],
    "affine_db": [(zeros(3, 0),), (zeros(3),), (zeros(4, 3, 0),)],
    "recurrence": [
        (3, *arguments)
        for arguments in (
            (zeros(2, 11, 5), zeros(12, 3), None, zeros(3, 5), zeros(3, 5), None),
            (zeros(2, 12, 5), zeros(11, 3), None, zeros(3, 5), zeros(3, 5), None),
            (zeros(2, 12, 5), zeros(12, 4), None, zeros(3, 5), zeros(3, 5), None),
            (zeros(2, 12, 5), zeros(12, 3), None, zeros(3, 4), zeros(3, 5), None),
            (zeros(2, 12, 5), zeros(12, 3), None, zeros(3, 5), None, None),
            (zeros(2, 12, 5), zeros(12, 3), None, zeros(3, 5), zeros(5, 3), None),
            (zeros(2, 12, 5), zeros(12, 3), None, zeros(3, 5), zeros(3, 5), zeros(2, 4, dtype="uint8")),
            (zeros(2, 12, 5), zeros(12, 3), None, zeros(3, 5), zeros(3, 5), zeros(3, 5, dtype="uint8")),
            (zeros(2, 12, 5), zeros(12, 3), None, zeros(3, 5), zeros(3, 5), zeros(2, 5)),
            (zeros(12, 5), zeros(12, 3), None, zeros(3, 5), zeros(3, 5), None),
            (zeros(2, 12, 5), zeros(12, 3), None, zeros(3, 5, dtype="float64"), zeros(3, 5), None),
        )
    ]
    + [
        (5, zeros(2, 3, 5), zeros(3, 3), None, zeros(3, 5), None, None),
        (-1, zeros(2, 3, 5), zeros(3, 3), None, zeros(3, 5), None, None),
        (4, zeros(2, 9, 5), zeros(9, 3), zeros(4, 1), zeros(3, 5), None, None),
    ],
    "recurrent": [
        (0, zeros(2, 4, 5), zeros(3, 4), zeros(3, 4), None, zeros(3, 5), None, None),
        (0, zeros(2, 4, 5), zeros(3, 3), zeros(3, 3), None, zeros(3, 5), None, None),
        (0, zeros(2, 4, 5), zeros(4, 4), zeros(3, 3), None, zeros(3, 5), None, None),
        (0, zeros(4, 5), zeros(3, 4), zeros(3, 3), None, zeros(3, 5), None, None),
        (0, zeros(2, 4, 5), zeros(3, 4), zeros(3, 3), zeros(2, 1), zeros(3, 5), None, None),
        (0, zeros(2, 4, 5), zeros(3, 4), zeros(3, 3), None, zeros(3, 4), None, None),
        (0, zeros(2, 4, 5), zeros(3, 4), zeros(3, 3), None, zeros(3, 5), None, zeros(2, 4, dtype="uint8")),
        (3, zeros(2, 4, 5), zeros(12, 4), zeros(12, 3), None, zeros(3, 5), None, None),
        (4, zeros(2, 4, 5), zeros(9, 4), zeros(9, 3), None, zeros(3, 5), None, None),
        (9, zeros(2, 4, 5), zeros(3, 4), zeros(3, 3), None, zeros(3, 5), None, None),
    ],
    "recurrence_backward": [
        (4, *arguments)
        for arguments in (
            (zeros(9, 4), zeros(3, 3, 5), None, zeros(2, 9, 5), zeros(2, 3, 5), None, None, None, None),
            (zeros(8, 3), zeros(3, 3, 5), None, zeros(2, 9, 5), zeros(2, 3, 5), None, None, None, None),
            (zeros(9, 3), zeros(4, 3, 5), None, zeros(2, 9, 5), zeros(2, 3, 5), None, None, None, None),
            (zeros(9, 3), zeros(0, 3, 5), None, zeros(0, 9, 5), zeros(0, 3, 5), None, None, None, None),
            (zeros(9, 3), zeros(3, 3, 5), None, None, zeros(2, 3, 5), None, None, None, None),
            (zeros(9, 3), zeros(3, 3, 5), None, zeros(2, 9, 5), None, None, None, None, None),
            (zeros(9, 3), zeros(3, 3, 5), None, zeros(2, 9, 5), zeros(3, 3, 5), None, None, None, None),
            (
                zeros(9, 3),
                zeros(3, 3, 5),
                None,
                zeros(2, 9, 5),
                zeros(2, 3, 5),
                zeros(2, 4, dtype="uint8"),
                None,
                None,
                None,
            ),
            (zeros(9, 3), zeros(3, 3, 5), None, zeros(2, 9, 5), zeros(2, 3, 5), None, zeros(3, 3, 5), None, None),
            (zeros(9, 3), zeros(3, 3, 5), None, zeros(2, 9, 5), zeros(2, 3, 5), None, None, zeros(5, 3), None),
        )
    ]
    + [
        (3, zeros(12, 3), zeros(3, 3, 5), None, zeros(2, 12, 5), None, None, None, None, None),
        (3, zeros(12, 3), zeros(3, 3, 5), zeros(2, 3, 5), zeros(2, 12, 5), None, None, None, None, None),
        (3, zeros(12, 3), zeros(3, 3, 5), zeros(3, 3, 5), zeros(2, 12, 5), None, None, None, None, zeros(5, 3)),
        (4, zeros(9, 3), zeros(3, 3, 5), None, zeros(2, 9, 5), zeros(2, 3, 5), *(None,) * 4, zeros(2, 4, 5), True),
        (0, zeros(3, 3), zeros(3, 3, 5), *(None,) * 7, zeros(3, 4, 5), True),
        (0, zeros(3, 3), zeros(3, 3, 5), *(None,) * 7, zeros(4, 5), True),
        (0, zeros(3, 3), zeros(3, 3, 5), *(None,) * 7, None, False),
        (0, zeros(3, 3), zeros(3, 3, 0), *(None,) * 7, zeros(2, 4, 0), False),
    ],
    "examples_last": [(zeros(3, 4), np.array([0, 3])), (zeros(3, 4), np.array([-1])), (zeros(3), np.array([0]))],
    "float32_examples_last": [
        (zeros(3, 4, dtype="uint8"), np.array([0, 3])),
        (zeros(3, 4, dtype="uint8"), np.array([-1])),
        (zeros(3, 4), np.array([0])),
    ],
    "float64_examples_last": [(zeros(3, 4, dtype="uint8"), np.array([3])), (zeros(3, dtype="uint8"), np.array([0]))],
    "erf": [(zeros(4, 3).T,), (zeros(3, dtype="int32"),)],
    "prelu": [
        (zeros(4, 1), zeros(3, 5)),
        (zeros(3, 2, 1), zeros(3, 4, 5)),
        (zeros(4, 1), zeros(3, 4, 5)),
        (zeros(3, 1, 1), zeros(3, 5)),
    ],
    "prelu_backward": [
        (zeros(3, 1), zeros(3, 4), zeros(3, 5)),
        (zeros(4, 1), zeros(3, 5), zeros(3, 5)),
        (zeros(3, 1), zeros(3, 0), zeros(3, 0)),
    ],
    "scale": [
        (zeros(4, 1), zeros(3, 5), zeros(4, 1)),
        (zeros(3, 1), zeros(3, 5), zeros(1, 3)),
        (zeros(3, 2, 1), zeros(3, 4, 5), zeros(3, 2, 1)),
        (zeros(1, 3, 1), zeros(3, 5), zeros(1, 3, 1)),
    ],
    "scale_backward": [
        (zeros(3, 1), zeros(3, 4), zeros(3, 5)),
        (zeros(4, 1), zeros(3, 5), zeros(3, 5)),
        (zeros(3, 1), zeros(3, 0), zeros(3, 0)),
    ],
    "local_response": [(zeros(3, 4), -1, 2, 1.0, 0.5, 1.0), (np.float32(1), 1, 1, 1.0, 0.5, 1.0)],
    "local_response_backward": [
        (zeros(3, 4), zeros(3, 4), zeros(3, 5), 1, 1, 1.0, 0.5),
        (zeros(3, 5), zeros(3, 4), zeros(3, 4), 1, 1, 1.0, 0.5),
        (zeros(3, 4), zeros(3, 4), zeros(3, 4), 1, -1, 1.0, 0.5),
    ],
}


@pytest.mark.parametrize(("name", "arguments"), [(name, each) for name, all_ in REFUSED.items() for each in all_])
def test_what_does_not_fit_is_refused(name, arguments):
    with pytest.raises((TypeError, ValueError)):
        getattr(NATIVE.kernels, name)(*arguments)


def test_the_engine_says_how_it_multiplies_bfloat16():
    code = "from pellucid import engines; print(engines.about('native'))"
    pairs = NATIVE.kernels.instruction_set(True) != NATIVE.kernels.instruction_set()
    assert ("in pairs" in engines.about("native")) == pairs
    lesser = {**os.environ, "PELLUCID_ISA": "generic"}
    said = subprocess.run([sys.executable, "-c", code], env=lesser, capture_output=True, text=True, check=True)
    assert said.stdout == "generic; bfloat16 is rounded and multiplied in float32: slower than float32\n"


def test_every_kernel_has_a_door_that_refuses():
    plain = {
        "instruction_set",
        "interface",
        "threads",
        "set_threads",
        "held_bytes",
        "used_bytes",
        "peak_bytes",
        "scratch_bytes",
        "reset_peak",
        "release",
    }
    kernels = {name for name in dir(NATIVE.kernels) if not name.startswith(("_", "Program_"))} - plain
    assert kernels == set(REFUSED)


def test_read_only_memory_is_not_written():
    frozen = zeros(3)
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        NATIVE.kernels.update(0, frozen, zeros(3), [], [0.0] * 6)
    with pytest.raises(TypeError):
        NATIVE.kernels.activation_in_place(0, frozen, 0.0)


# --- instruction sets


@pytest.mark.parametrize("name", ["generic", "avx2", "avx512"])
def test_every_instruction_set(name):
    """This file again, with lesser kernels than the processor's best."""
    asked = {**os.environ, "PELLUCID_ISA": name}
    code = "from pellucid import engines; print(engines.get('native').kernels.instruction_set())"
    found = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=True)
    if found.stdout.strip() != name:
        pytest.skip(f"this processor has no {name}")
    if name == NATIVE.kernels.instruction_set():
        return
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    ran = subprocess.run(
        [*command, "-k", "not instruction_set and not refused"],
        env=asked,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
