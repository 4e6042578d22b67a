"""Every engine keeps the contract of `engines.base.Ops`: the same signatures, and the numpy engine's numbers."""

from __future__ import annotations

import functools
import inspect
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

import pellucid as pl
from pellucid import engines
from pellucid.engines.base import Ops, Window
from pellucid.layers import activations
from pellucid.trees import leaves

REFERENCE = engines.get("numpy")
PUBLIC = [name for name, _ in inspect.getmembers(Ops, inspect.isfunction) if not name.startswith("_")]
ELEMENTWISE = [*(name for name in activations if activations.find(name).g is not pl.Activation.g), "gelu('tanh')"]
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}

every_engine = pytest.mark.parametrize("ops", [engines.get(name) for name in engines.available()], ids=lambda o: o.name)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
sizes = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


def given(**strategies):
    """hypothesis' `given`, with few examples for an engine that compiles each new shape."""

    def decorated(test):
        drawn = hypothesis.given(**strategies)(test)
        few = settings(max_examples=4)(hypothesis.given(**strategies)(test))

        @functools.wraps(test)
        def run(ops, **others):
            (few if ops.name == "jax" else drawn)(ops=ops, **others)

        run.__signature__ = inspect.signature(drawn)
        return run

    return decorated


@every_engine
@pytest.mark.parametrize("name", PUBLIC)
def test_signatures_are_the_contract(ops, name):
    promised = inspect.signature(getattr(Ops, name)).parameters.values()
    kept = inspect.signature(getattr(type(ops), name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in kept] == [(p.name, p.kind, p.default) for p in promised]


@every_engine
def test_no_engine_grows_primitives_of_its_own(ops):
    own = {name for name, _ in inspect.getmembers(type(ops), inspect.isfunction) if not name.startswith("_")}
    assert own == set(PUBLIC)


def test_every_primitive_is_documented():
    assert all(inspect.getdoc(getattr(Ops, name)) for name in PUBLIC)


class Twins:
    """The same call on an engine and on the reference."""

    def __init__(self, ops, dtype: str) -> None:
        self.ops, self.dtype = ops, dtype

    def agree(self, name: str, *arguments, tolerance: float = 1.0) -> None:
        def result(ops):
            given = [ops.asarray(each) if isinstance(each, np.ndarray) else each for each in arguments]
            made = getattr(ops, name)(*given)
            return [ops.to_numpy(each) for each in (made if isinstance(made, tuple) else (made,))]

        for one, other in zip(result(self.ops), result(REFERENCE), strict=True):
            assert one.dtype == other.dtype == self.dtype
            limit = tolerance * TOLERANCE[self.dtype]
            np.testing.assert_allclose(one, other, rtol=limit, atol=limit, err_msg=name)


@every_engine
@dtypes
@given(n=sizes, n_prev=sizes, m=sizes, seed=seeds, bias=st.booleans())
def test_affine(ops, dtype, n, n_prev, m, seed, bias):
    rng = np.random.default_rng(seed)
    W, A_prev, dZ, b = (rng.normal(size=s).astype(dtype) for s in ((n, n_prev), (n_prev, m), (n, m), (n, 1)))
    twins = Twins(ops, dtype)
    twins.agree("affine", W, A_prev, b if bias else None)
    twins.agree("affine_dW", dZ, A_prev)
    twins.agree("affine_db", dZ)
    twins.agree("affine_dA", W, dZ)
    np.testing.assert_allclose(
        ops.to_numpy(ops.affine(ops.asarray(W), ops.asarray(A_prev), ops.asarray(b))),
        np.array([[sum(W[i, k] * A_prev[k, j] for k in range(n_prev)) + b[i, 0] for j in range(m)] for i in range(n)]),
        rtol=1e-4 if dtype == "float32" else 1e-10,
        atol=1e-5 if dtype == "float32" else 1e-12,
    )


@every_engine
@dtypes
@given(T=st.integers(0, 4), n=sizes, n_prev=sizes, m=sizes, seed=seeds)
def test_affine_of_a_sequence(ops, dtype, T, n, n_prev, m, seed):
    """Step by step, and what goes into the parameters is the sum over the steps."""
    rng = np.random.default_rng(seed)
    W, b = rng.normal(size=(n, n_prev)).astype(dtype), rng.normal(size=(n, 1)).astype(dtype)
    A_prev, dZ = (rng.normal(size=(T, each, m)).astype(dtype) for each in (n_prev, n))
    twins = Twins(ops, dtype)
    twins.agree("affine", W, A_prev, b)
    twins.agree("affine_dW", dZ, A_prev, tolerance=10)
    twins.agree("affine_db", dZ, tolerance=10)
    twins.agree("affine_dA", W, dZ)
    steps = np.array([REFERENCE.affine_dW(*step) for step in zip(dZ, A_prev, strict=True)]).reshape(T, n, n_prev)
    limit = 10 * TOLERANCE[dtype]
    np.testing.assert_allclose(REFERENCE.affine_dW(dZ, A_prev), steps.sum(axis=0), rtol=limit, atol=limit)


GATES = {"tanh": 1, "relu": 1, "sigmoid": 1, "lstm": 4, "gru": 3}


@every_engine
@dtypes
@pytest.mark.parametrize("cell", GATES)
@given(T=st.integers(0, 4), n=sizes, m=sizes, seed=seeds, masked=st.booleans(), above=st.booleans(), last=st.booleans())
def test_recurrence(ops, dtype, cell, T, n, m, seed, masked, above, last):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    U, Z, c = draw(GATES[cell] * n, n) / n, draw(T, GATES[cell] * n, m), draw(n, 1) if cell == "gru" else None
    start = tuple(draw(n, m) for _ in range(2 if cell == "lstm" else 1))
    mask = rng.random((T, m)) < 0.7 if masked else None
    dA, d_last = draw(T, n, m) if above else None, tuple(draw(n, m) if last else None for _ in start)

    def through(ops):
        def own(tree):
            if isinstance(tree, tuple):
                return tuple(own(each) for each in tree)
            return None if tree is None else ops.asarray(tree.copy())

        states, kept = ops.recurrence(cell, *own((Z, U, c, start, mask)))
        back = ops.recurrence_backward(cell, own(U), states, kept, own(mask), *own((dA, d_last)))
        return [ops.to_numpy(each) for each in (*states, *kept, back[0], back[1], *back[2])]

    for one, other in zip(through(ops), through(REFERENCE), strict=True):
        assert one.dtype == dtype
        limit = 3 * TOLERANCE[dtype]
        np.testing.assert_allclose(one, other, rtol=limit, atol=limit, err_msg=cell)


@every_engine
@dtypes
@pytest.mark.parametrize("cell", GATES)
@given(T=st.integers(1, 4), n=sizes, n_x=sizes, m=sizes, seed=seeds, masked=st.booleans(), bias=st.booleans())
def test_the_recurrent_layer_is_its_parts(ops, dtype, cell, T, n, n_x, m, seed, masked, bias):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    G = GATES[cell]
    params = {"W": draw(G * n, n_x) / n_x, "U": draw(G * n, n) / n} | ({"b": draw(G * n, 1)} if bias else {})
    if cell == "gru" and bias:
        params["c"] = draw(n, 1)
    W, U, b, c = map(params.get, "WUbc")
    X, start, dA = draw(T, n_x, m), tuple(draw(n, m) for _ in range(2 if cell == "lstm" else 1)), draw(T, n, m)
    if seed % 2:
        start = tuple(np.zeros_like(each) for each in start)
    mask = rng.random((T, m)) < 0.7 if masked else None
    d_last = tuple(draw(n, m) for _ in start)

    states, kept = REFERENCE.recurrence(cell, REFERENCE.affine(W, X, b), U, c, start, mask)
    dZ, dV, d_start = REFERENCE.recurrence_backward(cell, U, states, kept, mask, dA, d_last)
    expected = {"W": REFERENCE.affine_dW(dZ, X), "U": REFERENCE.affine_dW(dV, states[0][:-1])}
    expected |= {"b": REFERENCE.affine_db(dZ)} if bias else {}
    expected |= {"c": REFERENCE.affine_db(dV[:, -n:])} if c is not None else {}

    def agree(made, right, what):
        made, limit = ops.to_numpy(made), 10 * TOLERANCE[dtype]
        assert made.dtype == dtype
        np.testing.assert_allclose(made, right, rtol=limit, atol=limit, err_msg=f"{cell} {what}")

    def own(tree):
        if isinstance(tree, tuple):
            return tuple(own(each) for each in tree)
        return None if tree is None else ops.asarray(tree.copy())

    given = {name: own(each) for name, each in params.items()}, own(X)
    own_states, own_kept = ops.recurrent(cell, *given, own(start), own(mask))
    assert (len(own_states), len(own_kept)) == (len(states), len(kept))
    for one, other in zip((*own_states, *own_kept), (*states, *kept), strict=True):
        agree(one, other, "forward")
    for asked in (True, False):
        back = ops.recurrent_backward(cell, *given, own_states, own_kept, own(mask), own(dA), own(d_last), asked)
        dX, grads, d_first = back
        assert grads.keys() == params.keys()
        for name, each in grads.items():
            agree(each, expected[name], f"d{name}")
        if not asked:
            assert dX is None
            assert d_first is None
            continue
        agree(dX, REFERENCE.affine_dA(W, dZ), "dX")
        for one, other in zip(d_first, d_start, strict=True):
            agree(one, other, "the start")


@every_engine
@pytest.mark.parametrize("cell", GATES)
def test_recurrence_backward_is_the_derivative(ops, cell, rng):
    """Along one direction through everything that a sequence starts from, masked steps among them."""
    T, n, m, G = 5, 3, 4, GATES[cell]
    names = ["Z", "U", *(["c"] if cell == "gru" else []), *(["h", "C"] if cell == "lstm" else ["h"])]
    shapes = {"Z": (T, G * n, m), "U": (G * n, n), "c": (n, 1), "h": (n, m), "C": (n, m)}
    values = {name: rng.normal(size=shapes[name]) for name in names}
    way = {name: rng.normal(size=shapes[name]) for name in names}
    mask = rng.random((T, m)) < 0.7
    dA, d_last = rng.normal(size=(T, n, m)), tuple(rng.normal(size=(n, m)) for name in names if name in "hC")

    def forward(x):
        start = tuple(ops.asarray(x[name]) for name in names if name in "hC")
        given = ops.asarray(x["Z"].copy()), ops.asarray(x["U"]), ops.asarray(x["c"]) if "c" in x else None
        return ops.recurrence(cell, *given, start, ops.asarray(mask))

    def total(x):
        states = [ops.to_numpy(each) for each in forward(x)[0]]
        return (states[0][1:] * dA).sum() + sum((S[-1] * d).sum() for S, d in zip(states, d_last, strict=True))

    step = 1e-6
    ahead, behind = ({k: v + sign * step * way[k] for k, v in values.items()} for sign in (1, -1))
    states, kept = forward(values)
    arriving = ops.asarray(dA), tuple(ops.asarray(d) for d in d_last)
    dZ, dV, d_start = ops.recurrence_backward(
        cell, ops.asarray(values["U"]), states, kept, ops.asarray(mask), *arriving
    )
    dZ, dV, H = (ops.to_numpy(each) for each in (dZ, dV, states[0]))
    along = (dZ * way["Z"]).sum() + sum((dV[t] @ H[t].T * way["U"]).sum() for t in range(T))
    along += sum((ops.to_numpy(d) * way[name]).sum() for d, name in zip(d_start, ("h", "C"), strict=False))
    along += (dV[:, -n:] * way["c"]).sum() if "c" in way else 0.0
    assert abs(along - (total(ahead) - total(behind)) / (2 * step)) < 1e-7 * max(1.0, abs(along))


@every_engine
@dtypes
@pytest.mark.parametrize("name", ELEMENTWISE)
@given(shape=st.lists(sizes, min_size=2, max_size=4), seed=seeds)
def test_activations(ops, dtype, name, shape, seed):
    g = activations.get(name)
    rng = np.random.default_rng(seed)
    Z, dA = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    twins = Twins(ops, dtype)
    twins.agree("activation", g, Z)
    kept = REFERENCE.activation(g, Z.copy()) if g.keeps == "A" else Z
    twins.agree("activation_backward", g, dA, kept)


@every_engine
@dtypes
@pytest.mark.parametrize("m", [1, 3000])  # 7 · 3000 values: more than one block of the reference engine
def test_in_place_is_the_same(ops, dtype, m, rng):
    for name in ELEMENTWISE:
        g = activations.get(name)
        if g.keeps == "A":
            Z = rng.normal(size=(7, m)).astype(dtype)
            plain = ops.to_numpy(ops.activation(g, ops.asarray(Z.copy())))
            in_place = ops.to_numpy(ops.activation(g, ops.asarray(Z.copy()), in_place=True))
            np.testing.assert_array_equal(in_place, plain, err_msg=name)


@every_engine
@dtypes
@given(values=st.lists(st.floats(-8, 8), min_size=1, max_size=20))
def test_erf(ops, dtype, values):
    Z = np.array(values, dtype)
    exact = np.array([math.erf(z) for z in Z])
    found = ops.to_numpy(ops.erf(ops.asarray(Z)))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, exact, rtol=1e-6 if dtype == "float32" else 1e-14, atol=1e-30)


@every_engine
@dtypes
@given(values=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_sigmoid(ops, dtype, values):
    Z = np.array(values, dtype)
    exact = [1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z)) for z in Z.tolist()]
    found = ops.to_numpy(ops.sigmoid(ops.asarray(Z)))
    assert found.dtype == dtype
    epsilon = np.finfo(dtype).eps
    np.testing.assert_allclose(found, exact, rtol=8 * epsilon, atol=epsilon)


@every_engine
@dtypes
@given(shape=st.lists(sizes, min_size=2, max_size=4), axis=st.integers(0, 3), seed=seeds, size=st.sampled_from([1, 80]))
def test_softmax(ops, dtype, shape, axis, seed, size):
    axis %= len(shape)
    rng = np.random.default_rng(seed)
    Z, dA = (size * rng.normal(size=shape).astype(dtype) for _ in range(2))
    twins = Twins(ops, dtype)
    twins.agree("softmax", Z, axis, tolerance=size)
    A = REFERENCE.softmax(Z, axis)
    np.testing.assert_allclose(A.sum(axis=axis), 1, rtol=1e-5)
    twins.agree("softmax_backward", dA, A, axis, tolerance=size)


@every_engine
@dtypes
@given(
    n=st.integers(2, 9),
    m=sizes,
    T=st.integers(0, 4),
    seed=seeds,
    smoothing=st.sampled_from([0.0, 0.1]),
    distribution=st.booleans(),
)
def test_softmax_cross_entropy(ops, dtype, n, m, T, seed, smoothing, distribution):
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(T, n, m) if T else (n, m)).astype(dtype)
    Y = rng.integers(n, size=(T, m) if T else (m,))
    if distribution:
        Y = np.moveaxis(np.eye(n, dtype=dtype)[Y], -1, -2)
    twins = Twins(ops, dtype)
    twins.agree("softmax_cross_entropy", Z, Y, smoothing, -2)
    _, P = REFERENCE.softmax_cross_entropy(Z, Y, smoothing, -2)
    twins.agree("softmax_cross_entropy_backward", P, Y, smoothing, -2)


@every_engine
@dtypes
@given(
    shape=st.lists(st.integers(2, 7), min_size=2, max_size=4), over=st.sampled_from(["batch", "features"]), seed=seeds
)
def test_normalize(ops, dtype, shape, over, seed):
    axes = tuple(range(1, len(shape))) if over == "batch" else tuple(range(len(shape) - 1))
    rng = np.random.default_rng(seed)
    A_prev, dA_hat = (rng.normal(3, 2, size=shape).astype(dtype) for _ in range(2))
    twins = Twins(ops, dtype)
    twins.agree("normalize", A_prev, axes, 1e-3, tolerance=50)
    A_hat, _, variance = REFERENCE.normalize(A_prev, axes, 1e-3)
    twins.agree("normalize_backward", dA_hat, A_hat, variance, axes, 1e-3, tolerance=500)


@every_engine
@dtypes
@given(shape=st.lists(sizes, min_size=2, max_size=4), over=st.sampled_from(["batch", "features", "steps"]), seed=seeds)
def test_scale(ops, dtype, shape, over, seed):
    rng = np.random.default_rng(seed)
    own = {"batch": (shape[0], *(1,) * (len(shape) - 1)), "features": (*shape[:-1], 1), "steps": (shape[-2], 1)}[over]
    gamma, beta, A_hat, dA = (rng.normal(size=each).astype(dtype) for each in (own, own, shape, shape))
    twins = Twins(ops, dtype)
    twins.agree("scale", gamma, A_hat, beta)
    twins.agree("scale_backward", gamma, dA, A_hat, tolerance=100)
    _, dgamma, dbeta = REFERENCE.scale_backward(gamma, dA, A_hat)
    along = (dgamma * gamma + dbeta * beta).sum() * shape[-1]
    limit = 100 * TOLERANCE[dtype] * dA.size
    assert abs(along - (dA * REFERENCE.scale(gamma, A_hat, beta)).sum()) < limit  # A is linear in γ and β


@every_engine
@dtypes
@given(shape=st.lists(sizes, min_size=2, max_size=4), seed=seeds)
def test_prelu(ops, dtype, shape, seed):
    rng = np.random.default_rng(seed)
    a, Z, dA = (rng.normal(size=s).astype(dtype) for s in ((shape[0], *(1,) * (len(shape) - 1)), shape, shape))
    twins = Twins(ops, dtype)
    twins.agree("prelu", a, Z)
    twins.agree("prelu_backward", a, dA, Z, tolerance=100)


@every_engine
@dtypes
@given(
    shape=st.lists(sizes, min_size=2, max_size=4),
    around=st.tuples(st.integers(0, 12), st.integers(0, 3)),
    beta=st.sampled_from([0.0, 0.75, 1.5]),
    seed=seeds,
)
def test_local_response(ops, dtype, shape, around, beta, seed):
    rng = np.random.default_rng(seed)
    A_prev, dA = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    twins = Twins(ops, dtype)
    twins.agree("local_response", A_prev, *around, 0.3, beta, 1.5, tolerance=3)
    _, S = REFERENCE.local_response(A_prev, *around, 0.3, beta, 1.5)
    before, after = around
    sums = [(A_prev[max(0, c - before) : c + after + 1] ** 2).sum(axis=0) for c in range(shape[0])]
    np.testing.assert_allclose(S, 1.5 + 0.3 * np.array(sums), rtol=1e-5)
    twins.agree("local_response_backward", dA, A_prev, S, *around, 0.3, beta, tolerance=10)


@every_engine
@dtypes
@given(T=sizes, m=sizes, units=sizes, levels=sizes, seed=seeds)
def test_embedding(ops, dtype, T, m, units, levels, seed):
    rng = np.random.default_rng(seed)
    W, dA = rng.normal(size=(units, levels)).astype(dtype), rng.normal(size=(T, units, m)).astype(dtype)
    ids = rng.integers(levels, size=(T, m)).astype("int32")
    twins = Twins(ops, dtype)
    twins.agree("embedding", W, ids)
    twins.agree("embedding_dW", dA, ids, levels)


@every_engine
@dtypes
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
def test_dropout(ops, dtype, rate, rng):
    A_prev = rng.normal(size=(40, 50)).astype(dtype)
    key = ops.random_key(1, 2, 3)
    A, D = (ops.to_numpy(each) for each in ops.dropout(key, ops.asarray(A_prev), rate))
    assert A.dtype == dtype
    assert set(np.unique(D)) <= {0, 1}
    assert abs(D.mean() - (1 - rate)) < 5 * math.sqrt(rate * (1 - rate) / D.size) + 1e-12
    np.testing.assert_allclose(A, A_prev * D / (1 - rate), rtol=1e-6)
    back = ops.to_numpy(ops.dropout_backward(ops.asarray(A_prev), ops.asarray(D), rate))
    np.testing.assert_allclose(back, A, rtol=1e-6)


@every_engine
def test_random_streams(ops, rng):
    """The same numbers give the same stream; any other number, or another order, gives another."""
    A_prev = ops.asarray(np.ones((30, 30), "float32"))

    def mask(key):
        return ops.to_numpy(ops.dropout(key, A_prev, 0.5)[1])

    first = mask(ops.fold_in(ops.random_key(0, 7), 3))
    np.testing.assert_array_equal(first, mask(ops.fold_in(ops.random_key(0, 7), 3)))
    others = (
        ops.fold_in(ops.random_key(0, 7), 4),
        ops.fold_in(ops.random_key(0, 8), 3),
        ops.fold_in(ops.random_key(7, 0), 3),
        ops.fold_in(ops.random_key(3, 7), 0),
    )
    for key in others:
        assert 0.4 < (mask(key) != first).mean() < 0.6


@every_engine
@dtypes
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_update(ops, dtype, name, rng):
    optimizer = pl.optimizers.get(name)

    def tree():
        return {"one": {"W": rng.normal(size=(3, 4)).astype(dtype)}, "two": rng.normal(size=(200, 100)).astype(dtype)}

    params, grads = tree(), tree()

    def three_updates(ops):
        def to_engine(tree):
            return {k: to_engine(v) if isinstance(v, dict) else ops.asarray(v.copy()) for k, v in tree.items()}

        W, slots = to_engine(params), {slot: to_engine(t) for slot, t in optimizer.init(params).items()}
        for t in (1, 2, 3):
            W, slots = ops.update(optimizer.rule, W, to_engine(grads), slots, learning_rate=0.1, t=t)
        return {path: ops.to_numpy(leaf) for path, leaf in leaves({"W": W, **slots})}

    found, expected = three_updates(ops), three_updates(REFERENCE)
    assert list(found) == list(expected)
    for path, one in found.items():
        assert one.dtype == dtype
        np.testing.assert_allclose(one, expected[path], rtol=10 * TOLERANCE[dtype], atol=TOLERANCE[dtype])


@every_engine
@dtypes
@given(kernel=st.integers(1, 3), stride=st.integers(1, 3), pad=st.integers(0, 2), m=st.integers(1, 18), seed=seeds)
def test_convolution_and_pooling(ops, dtype, kernel, stride, pad, m, seed):
    rng = np.random.default_rng(seed)
    groups, size = 2, (7, 6)
    window = Window((kernel, 2), (stride, 1), ((pad, 1), (0, pad)), (1, 2))
    shape = (4, *size, m)
    A_prev, W, b = (rng.normal(size=each).astype(dtype) for each in (shape, (6, 2, kernel, 2), (6, 1, 1, 1)))
    places = REFERENCE.convolution(W, A_prev, b, window, groups).shape[1:-1]
    dZ, dA = (rng.normal(size=(units, *places, m)).astype(dtype) for units in (6, 4))
    twins = Twins(ops, dtype)
    twins.agree("convolution", W, A_prev, b, window, groups, tolerance=10)
    twins.agree("convolution_dW", dZ, A_prev, window, groups, tolerance=10)
    twins.agree("convolution_db", dZ, tolerance=10)
    twins.agree("convolution_dA", W, dZ, shape, window, groups, tolerance=10)
    twins.agree("sum_pool", A_prev, window, places)
    twins.agree("sum_pool_backward", dA, shape, window)
    A, taps = ops.max_pool(ops.asarray(A_prev), window, places)
    expected, expected_taps = REFERENCE.max_pool(A_prev, window, places)
    np.testing.assert_array_equal(ops.to_numpy(A), expected)
    np.testing.assert_array_equal(ops.to_numpy(taps), expected_taps)
    twins.agree("max_pool_backward", dA, expected_taps, shape, window)
    twins.agree("take_taps", A_prev, expected_taps, window)


@every_engine
@dtypes
@given(m=st.integers(1, 20), n=st.integers(1, 20), seed=seeds)
def test_examples_last(ops, dtype, m, n, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(m, size=2 * m)
    for x in rng.normal(size=(m, n, 3)).astype(dtype), rng.integers(0, 256, (m, n, 3)).astype("uint8"):
        X = ops.examples_last(x, rows, dtype)
        np.testing.assert_array_equal(X, np.moveaxis(x[rows], 0, -1))
        assert X.dtype == dtype
        assert X.flags.c_contiguous


@every_engine
@dtypes
def test_uniform(ops, dtype):
    draws = ops.to_numpy(ops.uniform(ops.random_key(1, 2), (100, 200), np.dtype(dtype)))
    again = ops.to_numpy(ops.uniform(ops.random_key(1, 2), (100, 200), np.dtype(dtype)))
    other = ops.to_numpy(ops.uniform(ops.random_key(1, 3), (100, 200), np.dtype(dtype)))
    np.testing.assert_array_equal(draws, again)
    assert draws.dtype == dtype
    assert 0 < draws.min() < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 4 * np.sqrt(1 / 12 / draws.size)
    assert abs(np.corrcoef(draws.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(draws.size)
