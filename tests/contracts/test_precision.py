"""`precision="bfloat16"` on every engine: products of operands rounded to 8 significant bits, all else as it was."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from pellucid import engines
from pellucid.engines.base import Window
from pellucid.errors import ParameterError
from pellucid.trees import leaves

NAMES = [n for n in engines.available() if "bfloat16" in importlib.import_module(f"pellucid.engines.{n}").PRECISIONS]
EXACT = engines.get("numpy")

every_engine = pytest.mark.parametrize("ops", [engines.get(name, "bfloat16") for name in NAMES], ids=lambda o: o.name)
sizes = st.one_of(st.integers(1, 9), st.integers(1, 70))
few = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


def rounded(A: np.ndarray) -> np.ndarray:
    """The definition, by exponents: 8 significant bits, to nearest, ties to even (`np.rint`)."""
    mantissa, exponent = np.frexp(A.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


def agree(ops, name: str, *arguments, operands: tuple[int, int]) -> None:
    """The engine's float32 result against the float64 product of the rounded operands."""
    given = [ops.asarray(each) if isinstance(each, np.ndarray) else each for each in arguments]
    made = ops.to_numpy(getattr(ops, name)(*given))
    wide = [each.astype(np.float64) if isinstance(each, np.ndarray) else each for each in arguments]
    for index in operands:
        wide[index] = rounded(arguments[index])
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, getattr(EXACT, name)(*wide), rtol=5e-5, atol=5e-5, err_msg=name)


@every_engine
@given(steps=st.integers(0, 3), n=sizes, n_prev=sizes, m=sizes, seed=seeds, bias=st.booleans())
def test_affine(ops, steps, n, n_prev, m, seed, bias):
    rng, T = np.random.default_rng(seed), (steps,) if steps else ()
    W, A_prev, dZ, b = (
        rng.normal(size=s).astype(np.float32) for s in ((n, n_prev), (*T, n_prev, m), (*T, n, m), (n, 1))
    )
    agree(ops, "affine", W, A_prev, b if bias else None, operands=(0, 1))
    agree(ops, "affine_dW", dZ, A_prev, operands=(0, 1))
    agree(ops, "affine_db", dZ, operands=())
    agree(ops, "affine_dA", W, dZ, operands=(0, 1))


@every_engine
@pytest.mark.parametrize(
    ("n", "n_prev", "m"), [(512, 784, 1), (130, 517, 128), (67, 1000, 65), (1, 300, 33), (300, 1, 20)]
)
def test_affine_of_many(ops, n, n_prev, m, rng):
    W, A_prev, dZ, b = (rng.normal(size=s).astype(np.float32) for s in ((n, n_prev), (n_prev, m), (n, m), (n, 1)))
    W /= np.float32(np.sqrt(n_prev))
    agree(ops, "affine", W, A_prev, b, operands=(0, 1))
    agree(ops, "affine_dW", dZ, A_prev, operands=(0, 1))
    agree(ops, "affine_dA", W, dZ / np.float32(np.sqrt(n)), operands=(0, 1))


@every_engine
@given(
    C=few, C_prev=few, size=st.tuples(few, few), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), pads=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), groups=st.sampled_from([1, 1, 1, 2, 3]),
    m=st.one_of(few, st.integers(1, 40), st.sampled_from([33, 64])), seed=seeds,
)  # fmt: skip
def test_convolution(ops, C, C_prev, size, kernel, stride, pads, dilation, groups, m, seed):
    window = Window(kernel, stride, (pads[:2], pads[2:]), dilation)
    places = tuple(
        (n + sum(pad) - d * (k - 1) - 1) // s + 1
        for n, k, s, pad, d in zip(size, kernel, stride, window.pads, dilation, strict=True)
    )
    if min(places) < 1:
        return
    rng = np.random.default_rng(seed)
    W, A_prev, dZ, b = (
        rng.normal(size=s).astype(np.float32)
        for s in (
            (C * groups, C_prev, *kernel),
            (C_prev * groups, *size, m),
            (C * groups, *places, m),
            (C * groups, 1, 1, 1),
        )
    )
    agree(ops, "convolution", W, A_prev, b, window, groups, operands=(0, 1))
    agree(ops, "convolution_dW", dZ, A_prev, window, groups, operands=(0, 1))
    agree(ops, "convolution_db", dZ, operands=())
    agree(ops, "convolution_dA", W, dZ, A_prev.shape, window, groups, operands=(0, 1))


@every_engine
@pytest.mark.parametrize(
    ("C", "C_prev", "size", "m"),
    [
        (64, 64, 9, 32),
        (70, 35, 8, 33),
        (130, 67, 5, 16),
        (24, 72, 6, 1),
        (32, 3, 12, 48),
        (64, 64, 8, 32),
        (50, 130, 12, 63),
    ],
)
def test_convolution_of_many(ops, C, C_prev, size, m, rng):
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    W, A_prev, dZ = (
        rng.normal(size=s).astype(np.float32) for s in ((C, C_prev, 3, 3), (C_prev, size, size, m), (C, size, size, m))
    )
    W /= np.float32(np.sqrt(9 * max(C, C_prev)))
    agree(ops, "convolution", W, A_prev, None, window, 1, operands=(0, 1))
    agree(ops, "convolution_dW", dZ, A_prev, window, 1, operands=(0, 1))
    agree(ops, "convolution_dA", W, dZ, A_prev.shape, window, 1, operands=(0, 1))


@every_engine
def test_rounding_to_nearest_and_ties_to_even(ops):
    """Each number times 1 shows how it was rounded; the products of an identity matrix add nothing."""
    one = np.float32(1)
    values = np.array(
        [one, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 1 - 2**-9, 3e38, -0.0], np.float32
    )
    expected = np.array([1, 1, 1 + 2**-6, 1 + 2**-7, -1, 1, rounded(np.float32(3e38)), 0], np.float32)
    made = ops.to_numpy(ops.affine(ops.asarray(values[None]), ops.asarray(np.eye(8, dtype=np.float32)), None))
    np.testing.assert_array_equal(made[0], expected)
    special = np.array([[np.nan, 1.0], [np.inf, 1.0], [np.float32(3.4e38), 1.0], [1.0, -np.inf]], np.float32)
    quiet = np.array([[0x7F800001, 0x7FFFFFFF]], np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        made = ops.to_numpy(ops.affine(ops.asarray(special), ops.asarray(np.ones((2, 3), np.float32)), None))
        kept = ops.to_numpy(ops.affine(ops.asarray(quiet.T.copy()), ops.asarray(np.ones((1, 3), np.float32)), None))
    np.testing.assert_array_equal(made[:, 0], np.array([np.nan, np.inf, np.inf, -np.inf], np.float32))
    assert np.isnan(kept).all()


@every_engine
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_a_recurrent_layer_rounds_in_its_affine_part_alone(ops, cell, rng):
    """W X, dZ Xᵀ and dU as the affine primitives have them; what goes through U from step to step is not rounded."""
    G, T, n, n_x, m = {"tanh": 1, "lstm": 4, "gru": 3}[cell], 3, 20, 9, 33
    params = {
        "W": rng.normal(size=(G * n, n_x)),
        "U": rng.normal(size=(G * n, n)) / n,
        "b": rng.normal(size=(G * n, 1)),
    }
    params = {name: each.astype(np.float32) for name, each in params.items()}
    X, h, dA = (rng.normal(size=shape).astype(np.float32) for shape in ((T, n_x, m), (n, m), (T, n, m)))
    start = (h, h) if cell == "lstm" else (h,)

    def through(ops):
        own = {name: ops.asarray(each) for name, each in params.items()}
        own_X, own_start = ops.asarray(X), tuple(map(ops.asarray, start))
        states, kept = ops.recurrent(cell, own, own_X, own_start, None)
        nothing = (None,) * len(start)
        dX, grads, _ = ops.recurrent_backward(cell, own, own_X, states, kept, None, ops.asarray(dA), nothing, True)
        return [ops.to_numpy(each) for each in (states[0], dX, *(grads[name] for name in params))]

    made, right, exact = through(ops), through(engines.get("numpy", "bfloat16")), through(EXACT)
    for one, other, unrounded in zip(made, right, exact, strict=True):
        near = np.abs(one - other).mean()
        assert near < 0.1 * np.abs(one - unrounded).mean() + 1e-7


@every_engine
def test_float64_is_never_rounded(ops, rng):
    W, A_prev = rng.normal(size=(5, 7)), rng.normal(size=(7, 3))
    np.testing.assert_allclose(ops.to_numpy(ops.affine(ops.asarray(W), ops.asarray(A_prev), None)), W @ A_prev, 1e-12)


def network(engine: str, precision: str | None):
    return pl.Sequential(
        *(pl.Conv2D(8, 3, padding=1, activation="relu"), pl.BatchNorm(), pl.MaxPool2D(2), pl.Flatten()),
        *(pl.Dense(20, "relu"), pl.Dense(3)),
        input_shape=(2, 8, 8), loss="softmax_cross_entropy", seed=4, engine=engine, precision=precision,
    )  # fmt: skip


@pytest.mark.parametrize("engine", NAMES)
def test_a_networks_gradients_are_near_float32s(engine, rng):
    X, Y = rng.normal(size=(2, 8, 8, 17)).astype(np.float32), rng.integers(0, 3, 17)
    J, grads = network(engine, None).gradients(X, Y)
    J_rounded, grads_rounded = network(engine, "bfloat16").gradients(X, Y)
    assert 0 < abs(J - J_rounded) < 0.01 * J
    for (path, dW), (_, other) in zip(leaves(grads), leaves(grads_rounded), strict=True):
        assert other.dtype == np.float32
        away = np.linalg.norm(dW - other) / max(np.linalg.norm(dW), 1e-3)
        assert 1e-5 < away < 0.15 or path == "conv2d_1/b", path


@pytest.mark.parametrize("engine", NAMES)
def test_what_is_learned_is_kept_in_float32(engine, rng, tmp_path):
    x, y = rng.normal(size=(60, 2, 8, 8)).astype(np.float32), rng.integers(0, 3, 60)
    net = network(engine, "bfloat16")
    history = net.fit(x, y, optimizer=pl.Adam(3e-3), batch_size=20, epochs=15, progress=False)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    for _, W in [*leaves(net.parameters), *leaves(net.state)]:
        W = net.ops.to_numpy(W)
        assert W.dtype == np.float32
        assert W.size < 9 or (rounded(W) != W).any()
    net.save(tmp_path / "net")
    again = pl.load(tmp_path / "net", engine=engine)
    assert (again.precision, again.ops, again.config()) == ("bfloat16", net.ops, net.config())
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert pl.check_gradients(net, x[:5].transpose(1, 2, 3, 0), y[:5]).passed


def test_what_a_network_says_of_its_precision():
    net = network("numpy", "bfloat16")
    assert "as float32, multiplied in bfloat16" in str(net.summary())
    assert net.config()["precision"] == "bfloat16" == pl.from_config(net.config()).precision
    plain = network("numpy", None)
    assert "precision" not in plain.config()
    assert plain.precision == "float32"
    assert pl.from_config(net.config(), precision=None).ops is pl.from_config(plain.config()).ops
    assert "multiplied" not in str(plain.summary())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "bfloat61"}, ("unknown precision 'bfloat61'", "did you mean 'bfloat16'")),
        ({"precision": "float64"}, ("unknown precision 'float64'", "bfloat16, float32")),
        ({"precision": "bfloat16", "dtype": "float64"}, ("float64 is multiplied as it is", "dtype='float32'")),
    ],
)
def test_what_cannot_be_multiplied_is_refused(options, words):
    with pytest.raises(ParameterError) as caught:
        pl.Sequential(pl.Dense(1), input_shape=2, engine="numpy", **options)
    assert all(word in str(caught.value) for word in words)
