"""Convolution, pooling and local response normalisation against PyTorch: values and gradients on random geometry."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from contracts import STEPWISE
from pellucid import engines

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its oracle is left out")
F = torch.nn.functional


@pytest.fixture(params=STEPWISE)
def ops(request):
    return engines.get(request.param)


def first(A: np.ndarray) -> np.ndarray:
    """Examples first, as PyTorch has them."""
    return np.moveaxis(np.asarray(A), -1, 0).copy()


def tensor(A: np.ndarray):
    return torch.tensor(A, requires_grad=True)


def numbers(rng, low: int, high: int, count: int = 2) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(low, high, count))


def run(ops, layer, input_shape, m, rng):
    """A layer's output, input gradient and parameter gradients for random values, with its parameters and dA."""
    params = layer.init(rng, input_shape, np.float64)
    for name in params:
        params[name] = params[name] + 0.1 * rng.normal(size=params[name].shape)
    X = rng.normal(size=(*input_shape, m))
    A, cache = layer.forward(ops, params, X)
    assert A.shape[:-1] == layer.output_shape(input_shape)
    dA = rng.normal(size=A.shape)
    dX, grads = layer.backward(ops, params, cache, dA)
    return X, params, A, dA, dX, grads


def same(ours: np.ndarray, theirs) -> None:
    np.testing.assert_allclose(first(ours), theirs.detach().numpy(), rtol=1e-10, atol=1e-11)


def check_convolution(ops, layer, input_shape, m, rng, theirs):
    X, params, A, dA, dX, grads = run(ops, layer, input_shape, m, rng)
    x, W, b = tensor(first(X)), tensor(params["W"]), tensor(params["b"].ravel())
    z = torch.tanh(theirs(x, W, b))
    same(A, z)
    z.backward(torch.tensor(first(dA)))
    same(dX, x.grad)
    np.testing.assert_allclose(grads["W"] * m, W.grad.numpy(), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(grads["b"].ravel() * m, b.grad.numpy(), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("seed", range(25))
def test_conv2d(ops, seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 4))
    channels, units = (groups * int(n) for n in rng.integers(1, 4, 2))
    kernel, stride, padding, dilation = numbers(rng, 1, 5), numbers(rng, 1, 6), numbers(rng, 0, 4), numbers(rng, 1, 3)
    size, m = numbers(rng, 8, 14), int(rng.integers(1, 20))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = pl.Conv2D(units, kernel, "tanh", **options)
    check_convolution(ops, layer, (channels, *size), m, rng, lambda x, W, b: F.conv2d(x, W, b, **options))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # PyTorch says it copies
@pytest.mark.parametrize("seed", range(15))
def test_conv2d_same_padding_and_sides_of_their_own(ops, seed):
    rng = np.random.default_rng(seed)
    kernel, size, m = numbers(rng, 1, 6), numbers(rng, 6, 12), int(rng.integers(1, 18))
    sides = ((0, 2), (3, 1))
    layer = pl.Conv2D(3, kernel, "tanh", padding=sides)
    check_convolution(ops, layer, (2, *size), m, rng, lambda x, W, b: F.conv2d(F.pad(x, (*sides[1], *sides[0])), W, b))
    same_size = pl.Conv2D(3, kernel, "tanh", padding="same")
    assert same_size.output_shape((2, *size)) == (3, *size)
    check_convolution(ops, same_size, (2, *size), m, rng, lambda x, W, b: F.conv2d(x, W, b, padding="same"))


@pytest.mark.parametrize("seed", range(10))
def test_conv1d(ops, seed):
    rng = np.random.default_rng(seed)
    (kernel, stride, padding, dilation), m = (int(rng.integers(1, n)) for n in (6, 4, 4, 3)), int(rng.integers(1, 20))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = pl.Conv1D(4, kernel, "tanh", groups=2, **options)
    check_convolution(ops, layer, (2, 17), m, rng, lambda x, W, b: F.conv1d(x, W, b, groups=2, **options))


def test_causal_convolution_never_sees_a_later_sample(ops):
    rng = np.random.default_rng(0)
    layer = pl.Conv1D(2, 3, padding="causal", dilation=2)
    params = layer.init(rng, (3, 11), np.float64)
    X = rng.normal(size=(3, 11, 2))
    later = X.copy()
    later[:, 6:] += 1.0
    A, B = (layer.forward(ops, params, each)[0] for each in (X, later))
    np.testing.assert_array_equal(A[:, :6], B[:, :6])
    assert (A[:, 6:] != B[:, 6:]).any()


@pytest.mark.parametrize("seed", range(20))
def test_conv_transpose2d(ops, seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 3))
    channels, units = (groups * int(n) for n in rng.integers(1, 4, 2))
    kernel, stride, dilation = numbers(rng, 1, 5), numbers(rng, 1, 4), numbers(rng, 1, 3)
    padding = tuple(int(rng.integers(0, d * (k - 1) // 2 + 2)) for k, d in zip(kernel, dilation, strict=True))
    size, m = numbers(rng, 4, 8), int(rng.integers(1, 18))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = pl.ConvTranspose2D(units, kernel, "tanh", **options)
    check_convolution(ops, layer, (channels, *size), m, rng, lambda x, W, b: F.conv_transpose2d(x, W, b, **options))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", ["max", "average", "average with padding", "norm"])
def test_pooling(ops, kind, seed):
    rng = np.random.default_rng(seed)
    size, stride = numbers(rng, 1, 5), numbers(rng, 1, 5)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in size)
    ceil, image, m = bool(rng.integers(2)), numbers(rng, 5, 13), int(rng.integers(1, 20))
    if kind == "max":
        layer = pl.MaxPool2D(size, stride, padding=padding, ceil=ceil)
        pool = lambda x: F.max_pool2d(x, size, stride, padding, ceil_mode=ceil)  # noqa: E731
    elif kind == "norm":
        layer = pl.LpPool2D(size, stride, p=3.0)
        pool = lambda x: F.lp_pool2d(x.abs(), 3.0, size, stride)  # noqa: E731
    else:
        counted = kind == "average with padding"
        layer = pl.AveragePool2D(size, stride, padding=padding, ceil=ceil, count_padding=counted)
        pool = lambda x: F.avg_pool2d(x, size, stride, padding, ceil, counted)  # noqa: E731
    X, _, A, dA, dX, _ = run(ops, layer, (2, *image), m, rng)
    x = tensor(first(X))
    z = pool(x)
    same(A, z)
    z.backward(torch.tensor(first(dA)))
    same(dX, x.grad)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_local_response_norm_with_alpha_over_n(ops, n):
    rng = np.random.default_rng(n)
    layer = pl.LocalResponseNorm(n, 0.7, 0.75, 2.0, alpha_over_n=True)
    X, _, A, dA, dX, _ = run(ops, layer, (6, 3, 4), 5, rng)
    x = tensor(first(X))
    z = F.local_response_norm(x, n, 0.7, 0.75, 2.0)
    same(A, z)
    z.backward(torch.tensor(first(dA)))
    same(dX, x.grad)
    published = pl.LocalResponseNorm(n, 0.7 / n, 0.75, 2.0)
    np.testing.assert_allclose(published.forward(ops, {}, X)[0], A, rtol=1e-12)


def test_stochastic_pooling_draws_in_proportion(ops):
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    X = np.broadcast_to(weights.reshape(1, 2, 2, 1), (1, 2, 2, 20_000)).copy()
    layer = pl.StochasticPool2D(2)
    mode = pl.layers.Mode(True, ops.random_key(1, 2))
    drawn = layer.forward(ops, {}, X, mode=mode)[0].ravel()
    shares = [(drawn == w).mean() for w in weights]
    np.testing.assert_allclose(shares, weights, atol=4 * np.sqrt(0.25 / 20_000))
    assert layer.forward(ops, {}, X)[0].ravel()[0] == pytest.approx((weights**2).sum())


def test_connections_are_a_convolution_with_zeros(ops):
    rng = np.random.default_rng(0)
    rows = ((0, 1), (2,), (0, 1, 2))
    layer = pl.Conv2D(3, 3, "tanh", connections=rows)
    params = layer.init(rng, (3, 6, 7), np.float64)
    assert params["W"].shape == (6, 3, 3)
    W = np.zeros((3, 3, 3, 3))
    index = 0
    for unit, row in enumerate(rows):
        for channel in row:
            W[unit, channel] = params["W"][index]
            index += 1
    X, dA = rng.normal(size=(3, 6, 7, 4)), rng.normal(size=(3, 4, 5, 4))
    A, cache = layer.forward(ops, params, X)
    dX, grads = layer.backward(ops, params, cache, dA)
    x, w = tensor(first(X)), tensor(W)
    z = torch.tanh(F.conv2d(x, w, torch.tensor(params["b"].ravel())))
    same(A, z)
    z.backward(torch.tensor(first(dA)))
    same(dX, x.grad)
    kept = np.concatenate([w.grad.numpy()[unit, list(row)] for unit, row in enumerate(rows)])
    np.testing.assert_allclose(grads["W"] * 4, kept, rtol=1e-10, atol=1e-11)


def test_local_response_normalisation_in_groups_is_that_of_each_group(ops, rng):
    X = rng.normal(size=(6, 3, 2, 4))
    halves = [pl.LocalResponseNorm(3, 0.7).forward(ops, {}, part)[0] for part in (X[:3], X[3:])]
    A, _ = pl.LocalResponseNorm(3, 0.7, groups=2).forward(ops, {}, X)
    np.testing.assert_allclose(A, np.concatenate(halves), rtol=1e-12)
