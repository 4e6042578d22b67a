"""Attention: weights and context against PyTorch, gradients by differences, and masks that change no result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from contracts import STEPWISE
from contracts.gradients import assert_gradient, assert_network_gradients
from pellucid import engines
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers import Mode

KINDS = [
    pl.Attention(),
    pl.Attention("dot"),
    pl.Attention("general"),
    pl.AdditiveAttention(5),
]
kinds = pytest.mark.parametrize("layer", KINDS, ids=repr)
shapes = st.tuples(*(st.integers(1, 6) for _ in range(5)))  # T_q, T_v, n, n_v, m
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=STEPWISE)
def ops(request):
    return engines.get(request.param)


def drawn(rng, layer, T_q, T_v, n, n_v, m, n_k=None):
    n_k = n_k or n
    inputs = tuple(rng.normal(size=shape) for shape in ((T_q, n, m), (T_v, n_v, m), (T_v, n_k, m)))
    params = layer.init(rng, tuple(each.shape[:-1] for each in inputs), "float64")
    return inputs, params


def mask_of(rng, T, m):
    """True up to a random length of each example, and at least once."""
    return np.arange(T)[:, None] < rng.integers(1, T + 1, m)


@given(shapes, seeds)
def test_scaled_dot_is_pytorchs(shape, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here, and it is not installed")
    T_q, T_v, n, n_v, m = shape
    rng = np.random.default_rng(seed)
    layer, numpy = pl.Attention(), engines.get("numpy")
    inputs, params = drawn(rng, layer, T_q, T_v, n, n_v, m)
    mask, dA = mask_of(rng, T_v, m), rng.normal(size=(T_q, n_v, m))

    A, cache = layer.forward(numpy, params, inputs, mode=Mode(False, mask=(None, mask, None)))
    d_inputs, _ = layer.backward(numpy, params, cache, dA)

    theirs = [torch.tensor(each.transpose(2, 0, 1).copy(), requires_grad=True) for each in inputs]
    Q, V, K = theirs
    seen = torch.tensor(np.broadcast_to(mask.T[:, None], (m, T_q, T_v)).copy())
    context = torch.nn.functional.scaled_dot_product_attention(Q, K, V, attn_mask=seen)
    context.backward(torch.tensor(dA.transpose(2, 0, 1).copy()))
    np.testing.assert_allclose(A, context.detach().numpy().transpose(1, 2, 0), rtol=1e-10, atol=1e-12)
    for ours, each in zip(d_inputs, theirs, strict=True):
        np.testing.assert_allclose(ours, each.grad.numpy().transpose(1, 2, 0), rtol=1e-9, atol=1e-11)


def test_scores_are_their_formulas(ops, rng):
    (Q, V, K), _ = drawn(rng, KINDS[0], 3, 4, 5, 2, 6)
    W, Wq, U, v = rng.normal(size=(5, 5)), rng.normal(size=(7, 5)), rng.normal(size=(7, 5)), rng.normal(size=(1, 7))
    formulas = [
        (pl.Attention(), {}, lambda q, k: q @ k / np.sqrt(5)),
        (pl.Attention("dot"), {}, lambda q, k: q @ k),
        (pl.Attention("general"), {"W": W}, lambda q, k: q @ W @ k),
        (pl.AdditiveAttention(7), {"W": Wq, "U": U, "v": v}, lambda q, k: (v @ np.tanh(Wq @ q + U @ k)).item()),
    ]
    for layer, params, score in formulas:
        A, cache = layer.forward(ops, params, (Q, V, K))
        for t in range(3):
            for i in range(6):
                e = np.exp([score(Q[t, :, i], K[s, :, i]) for s in range(4)])
                np.testing.assert_allclose(cache.weights[t, :, i], e / e.sum(), rtol=1e-10)
                np.testing.assert_allclose(A[t, :, i], V[:, :, i].T @ (e / e.sum()), rtol=1e-10)


@kinds
@pytest.mark.parametrize("inputs", ["values", "values and keys"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_backward_is_the_gradient_of_forward(layer, inputs, masked, ops, rng):
    arrays, params = drawn(rng, layer, 3, 4, 5, 5, 6)
    arrays = arrays if inputs == "values and keys" else arrays[:2]
    mask = (None, mask_of(rng, 4, 6), None)[: len(arrays)] if masked else None
    dA = rng.normal(size=(3, 5, 6))

    def forward():
        return layer.forward(ops, params, arrays, mode=Mode(True, mask=mask))

    def J():
        return float((forward()[0] * dA).sum())

    d_inputs, grads = layer.backward(ops, params, forward()[1], dA)
    assert list(grads) == list(params)
    for name, A, d in zip(("queries", "values", "keys"), arrays, d_inputs, strict=False):
        assert_gradient(J, A, d, rng, name)
    for name, W in params.items():
        assert_gradient(lambda: J() / 6, W, grads[name], rng, name)
    declined, same = layer.backward(ops, params, forward()[1], dA, input_gradient=False)
    assert declined == (None,) * len(arrays)
    for name in grads:
        np.testing.assert_array_equal(same[name], grads[name])


@kinds
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_changes_nothing(layer, dtype, ops, rng):
    (Q, V, K), params = drawn(rng, layer, 3, 6, 4, 4, 5)
    Q, V, K = (each.astype(dtype) for each in (Q, V, K))
    params = {name: W.astype(dtype) for name, W in params.items()}
    lengths, dA = [1, 6, 3, 2, 5], rng.normal(size=Q.shape).astype(dtype)
    mask = np.arange(6)[:, None] < lengths
    V[~mask.repeat(4, axis=1).reshape(6, 5, 4).transpose(0, 2, 1)] = 1e6  # what stands in the padding is never seen
    A, cache = layer.forward(ops, params, (Q, V, K), mode=Mode(False, mask=(None, mask, mask)))
    d_inputs, _ = layer.backward(ops, params, cache, dA)
    assert A.dtype == dtype
    assert not cache.weights[:, ~mask].any()
    for i, T in enumerate(lengths):
        one = np.s_[..., i : i + 1]
        alone = Q[one], V[:T][one], K[:T][one]
        A_alone, cache_alone = layer.forward(ops, params, alone)
        d_alone, _ = layer.backward(ops, params, cache_alone, dA[one])
        tolerance = 1e-12 if dtype == "float64" else 1e-5
        np.testing.assert_allclose(A[one], A_alone, rtol=tolerance, atol=tolerance)
        for padded, d in zip(d_inputs, d_alone, strict=True):
            np.testing.assert_allclose(padded[: len(d)][one], d, rtol=tolerance, atol=tolerance)
            assert not padded[len(d) :][one].any()


@kinds
def test_queries_keep_their_mask(layer):
    queries, values = np.ones((3, 2), bool), np.ones((4, 2), bool)
    assert layer.output_mask((queries, values)) is queries
    assert layer.output_mask((None, values)) is None
    assert layer.output_mask(None) is None
    assert not layer.causal  # the first query reads the last value


def attending(layer, **options):
    x, y = pl.Input((None, 3)), pl.Input((None, 3))
    context = layer(pl.SimpleRNN(4, return_sequences=True)(x), pl.SimpleRNN(4, return_sequences=True)(y))
    outputs = pl.TimeDistributed(pl.Dense(2))(context)
    return pl.Graph(inputs={"x": x, "y": y}, outputs=outputs, loss="squared_error", dtype="float64", **options)


@kinds
def test_in_a_graph_with_masks_on_both_sides(layer, rng):
    net = attending(layer)
    X = {"x": rng.normal(size=(5, 3, 4)), "y": rng.normal(size=(3, 3, 4))}
    mask = {"x": mask_of(rng, 5, 4), "y": mask_of(rng, 3, 4)}
    Y = rng.normal(size=(5, 2, 4))
    assert_network_gradients(net, X, Y, rng, mask=mask)
    total = 0.0
    for i in range(4):
        T = {name: int(mask[name][:, i].sum()) for name in X}
        alone = {name: A[: T[name], :, i : i + 1] for name, A in X.items()}
        total += net.cost(alone, Y[: T["x"], :, i : i + 1])
    assert net.cost(X, Y, mask=mask) == pytest.approx(total / 4, rel=1e-12)


@kinds
def test_the_weights_are_seen(layer, rng):
    net = attending(layer)
    t = pl.trace(net, {"x": rng.normal(size=(3, 3, 2)), "y": rng.normal(size=(4, 3, 2))}, rng.normal(size=(3, 2, 2)))
    seen = next(each for each in t if each.layer is layer)
    np.testing.assert_allclose(seen.alpha.sum(axis=1), np.ones((3, 2)), rtol=1e-12)
    e = np.exp(seen.scores)
    np.testing.assert_allclose(seen.alpha, e / e.sum(axis=1, keepdims=True), rtol=1e-10)
    np.testing.assert_allclose(seen.dscores.sum(axis=1), np.zeros((3, 2)), atol=1e-12)
    assert seen.A.shape == (3, 4, 2)
    assert set(layer.equations()) >= {"scores", "alpha", "A", "dalpha", "dscores"}
    assert f"alpha[{seen.name}] = softmax" in str(t)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (pl.Attention(), ((3, 4),), "expected: 2 or 3 inputs"),
        (pl.Attention(), ((3, 4), (2,)), r"expected: values \(T, n\)"),
        (pl.Attention(), ((3, 4), (2, 5)), 'score="general"'),
        (pl.Attention("dot"), ((3, 4), (2, 4), (2, 5)), r"got: +\(T, 5\)"),
        (pl.AdditiveAttention(2), ((3, 4), (2, 5), (3, 5)), "a key for each value"),
    ],
)
def test_what_does_not_fit_is_refused(layer, shape, message):
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(shape)


def test_keys_and_values_of_different_lengths_are_refused(ops):
    shapes = (3, 4, 1), (5, 4, 1), (2, 4, 1)
    with pytest.raises(ShapeError, match=r"Attention\(\): a key for each value"):
        pl.Attention().forward(ops, {}, tuple(map(np.zeros, shapes)))


def test_arguments_are_checked():
    with pytest.raises(ParameterError, match="scaled_dot, dot or general"):
        pl.Attention("additive")
    with pytest.raises(ParameterError, match="units must be a positive integer"):
        pl.AdditiveAttention(0)


def test_multiply_adds_are_counted():
    assert pl.Attention().multiply_adds(((3, 4), (5, 6))) == 3 * 5 * (4 + 6)
    assert pl.Attention("general").multiply_adds(((3, 4), (5, 6))) == 3 * 5 * (4 + 6) + 5 * 4 * 6
    assert pl.AdditiveAttention(7).multiply_adds(((3, 4), (5, 6))) == 7 * (3 * 4 + 5 * 6 + 3 * 5) + 3 * 5 * 6
