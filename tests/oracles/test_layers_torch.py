"""Layers against PyTorch, value and gradient, on random shapes. Examples are last here and first there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from contracts import STEPWISE
from pellucid import engines
from pellucid.layers import Mode, activations

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here, and it is not installed")
F = torch.nn.functional

SELU_SLOPE = 0.3
ORACLES = {
    "identity": (pl.Identity(), lambda Z: Z * 1),
    "sigmoid": (pl.Sigmoid(), torch.sigmoid),
    "tanh": (pl.Tanh(), torch.tanh),
    "relu": (pl.ReLU(), F.relu),
    "leaky_relu": (pl.LeakyReLU(SELU_SLOPE), lambda Z: F.leaky_relu(Z, SELU_SLOPE)),
    "prelu": (pl.PReLU(), lambda Z: F.prelu(Z.movedim(-1, 0), torch.full((Z.shape[0],), 0.25).to(Z)).movedim(0, -1)),
    "elu": (pl.ELU(0.7), lambda Z: F.elu(Z, 0.7)),
    "selu": (pl.SELU(), F.selu),
    "gelu": (pl.GELU(), F.gelu),
    "gelu, tanh": (pl.GELU("tanh"), lambda Z: F.gelu(Z, approximate="tanh")),
    "silu": (pl.SiLU(), F.silu),
    "softplus": (pl.Softplus(), lambda Z: F.softplus(Z, threshold=1000.0)),
    "hard_sigmoid": (pl.HardSigmoid(), lambda Z: (Z / 6 + 0.5).clamp(0, 1)),  # F.hardsigmoid's 1/6 is a float32
    "softmax": (pl.Softmax(), lambda Z: F.softmax(Z, dim=0)),
    "softmax along the last axis": (pl.Softmax(-1), lambda Z: F.softmax(Z, dim=-2)),
    "maxout": (pl.Maxout(2), lambda Z: Z.reshape(-1, 2, *Z.shape[1:]).amax(1)),
    "scaled_tanh": (activations.get("scaled_tanh"), lambda Z: 1.7159 * torch.tanh(2 / 3 * Z)),
}
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(lambda shape: (2 * shape[0], *shape[1:], 5))
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=STEPWISE)
def ops(request):
    return engines.get(request.param)


def as_torch(A, **options):
    return torch.tensor(np.array(A), dtype=torch.float64, **options)


def close(one, other, rtol=1e-10):
    np.testing.assert_allclose(
        one, other.detach().numpy() if hasattr(other, "detach") else other, rtol=rtol, atol=1e-12
    )


def first(A):
    """Examples first, as PyTorch has them."""
    return np.moveaxis(A, -1, 0)


def test_every_activation_has_an_oracle():
    own = {name for name in activations if activations.find(name).__module__.startswith("pellucid.")}
    assert own <= {type(layer).registered_name for layer, _ in ORACLES.values()}


@pytest.mark.parametrize("engine", STEPWISE)
@pytest.mark.parametrize("name", ORACLES)
@given(shape=shapes, seed=seeds, size=st.sampled_from([1.0, 20.0]))
def test_activations(engine, name, shape, seed, size):
    ops = engines.get(engine)
    rng = np.random.default_rng(seed)
    layer, oracle = ORACLES[name]
    Z = size * rng.normal(size=shape)
    params = layer.init(rng, shape[:-1], np.dtype("float64"))
    A, cache = layer.forward(ops, params, ops.asarray(Z, "float64"))
    dA = rng.normal(size=A.shape)
    dZ, _ = layer.backward(ops, params, cache, ops.asarray(dA, "float64"))
    Z_torch = as_torch(Z, requires_grad=True)
    A_torch = oracle(Z_torch)
    A_torch.backward(as_torch(dA))
    close(ops.to_numpy(A), A_torch)
    close(ops.to_numpy(dZ), Z_torch.grad, rtol=1e-8)


def test_gradient_of_prelus_slope(ops, rng):
    Z, dA = rng.normal(size=(3, 2, 7)), rng.normal(size=(3, 2, 7))
    layer = pl.PReLU()
    params = {"a": rng.random((3, 1, 1))}
    _, cache = layer.forward(ops, params, ops.asarray(Z, "float64"))
    _, grads = layer.backward(ops, params, cache, ops.asarray(dA, "float64"))
    a = as_torch(params["a"].ravel(), requires_grad=True)
    F.prelu(as_torch(first(Z)), a).backward(as_torch(first(dA)))
    close(ops.to_numpy(grads["a"]).ravel(), a.grad / 7)


def test_softmax_jacobian(ops, rng):
    """Column by column of the whole Jacobian diag(A) - A Aᵀ."""
    z = rng.normal(size=6)
    jacobian = torch.autograd.functional.jacobian(lambda z: F.softmax(z, dim=0), as_torch(z))
    layer = pl.Softmax()
    A, cache = layer.forward(ops, {}, ops.asarray(np.repeat(z[:, None], 6, axis=1), "float64"))
    dZ, _ = layer.backward(ops, {}, cache, ops.asarray(np.eye(6), "float64"))
    close(ops.to_numpy(dZ), jacobian.T)
    a = ops.to_numpy(A)[:, 0]
    close(ops.to_numpy(dZ), np.diag(a) - np.outer(a, a))


@pytest.mark.parametrize("engine", STEPWISE)
@given(n=st.integers(1, 6), n_prev=st.integers(1, 6), m=st.integers(1, 9), seed=seeds, bias=st.booleans())
def test_dense(engine, n, n_prev, m, seed, bias):
    ops = engines.get(engine)
    rng = np.random.default_rng(seed)
    layer = pl.Dense(n, "tanh", use_bias=bias, bias_initializer="normal(1.0)")
    params = layer.init(rng, (n_prev,), np.dtype("float64"))
    X, dA = rng.normal(size=(n_prev, m)), rng.normal(size=(n, m))
    A, cache = layer.forward(ops, params, ops.asarray(X, "float64"))
    dX, grads = layer.backward(ops, params, cache, ops.asarray(dA, "float64"))

    linear = torch.nn.Linear(n_prev, n, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(as_torch(params["W"]))
        if bias:
            linear.bias.copy_(as_torch(params["b"].ravel()))
    X_torch = as_torch(first(X), requires_grad=True)
    A_torch = torch.tanh(linear(X_torch))
    A_torch.backward(as_torch(first(dA)))
    close(first(ops.to_numpy(A)), A_torch)
    close(first(ops.to_numpy(dX)), X_torch.grad)
    close(ops.to_numpy(grads["W"]), linear.weight.grad / m)
    if bias:
        close(ops.to_numpy(grads["b"]).ravel(), linear.bias.grad / m)


@pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])
@pytest.mark.parametrize("shape", [(4,), (3, 5, 2)], ids=["units", "channels"])
@pytest.mark.parametrize("m", [2, 7])
def test_batch_norm(ops, train, shape, m, rng):
    layer = pl.BatchNorm(momentum=0.7, epsilon=1e-3)
    column = (shape[0],) + (1,) * len(shape)
    params = {"gamma": rng.normal(size=column), "beta": rng.normal(size=column)}
    state = {"mean": rng.normal(size=column), "variance": rng.random(column) + 0.5}
    X, dA = rng.normal(2.0, 3.0, size=(*shape, m)), rng.normal(size=(*shape, m))
    A, cache = layer.forward(ops, params, ops.asarray(X, "float64"), mode=Mode(train, None, state))
    dX, grads = layer.backward(ops, params, cache, ops.asarray(dA, "float64"))
    new = layer.next_state(ops, state, cache)

    kind = torch.nn.BatchNorm1d if len(shape) == 1 else torch.nn.BatchNorm2d
    norm = kind(shape[0], eps=1e-3, momentum=1 - 0.7, dtype=torch.float64).train(train)
    with torch.no_grad():
        norm.weight.copy_(as_torch(params["gamma"].ravel()))
        norm.bias.copy_(as_torch(params["beta"].ravel()))
        norm.running_mean.copy_(as_torch(state["mean"].ravel()))
        norm.running_var.copy_(as_torch(state["variance"].ravel()))
    X_torch = as_torch(first(X), requires_grad=True)
    A_torch = norm(X_torch)
    A_torch.backward(as_torch(first(dA)))
    close(first(ops.to_numpy(A)), A_torch)
    close(first(ops.to_numpy(dX)), X_torch.grad, rtol=1e-8)
    close(ops.to_numpy(grads["gamma"]).ravel(), norm.weight.grad / m)
    close(ops.to_numpy(grads["beta"]).ravel(), norm.bias.grad / m)
    close(ops.to_numpy(new["mean"]).ravel(), norm.running_mean)
    close(ops.to_numpy(new["variance"]).ravel(), norm.running_var)


@pytest.mark.parametrize(("shape", "axes"), [((5,), None), ((3, 4), None), ((3, 4), 1), ((2, 3, 4), 2)])
def test_layer_norm(ops, shape, axes, rng):
    layer = pl.LayerNorm(axes=axes, epsilon=1e-3)
    over = shape if axes is None else shape[-axes:]
    params = {"gamma": rng.normal(size=(*over, 1)), "beta": rng.normal(size=(*over, 1))}
    X, dA = rng.normal(2.0, 3.0, size=(*shape, 6)), rng.normal(size=(*shape, 6))
    A, cache = layer.forward(ops, params, ops.asarray(X, "float64"))
    dX, grads = layer.backward(ops, params, cache, ops.asarray(dA, "float64"))
    norm = torch.nn.LayerNorm(over, eps=1e-3, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(as_torch(params["gamma"][..., 0]))
        norm.bias.copy_(as_torch(params["beta"][..., 0]))
    X_torch = as_torch(first(X), requires_grad=True)
    A_torch = norm(X_torch)
    A_torch.backward(as_torch(first(dA)))
    close(first(ops.to_numpy(A)), A_torch)
    close(first(ops.to_numpy(dX)), X_torch.grad, rtol=1e-8)
    close(ops.to_numpy(grads["gamma"])[..., 0], norm.weight.grad / 6)
    close(ops.to_numpy(grads["beta"])[..., 0], norm.bias.grad / 6)


def test_embedding(ops, rng):
    ids, dA = rng.integers(4, size=(3, 7)), rng.normal(size=(3, 2, 7))
    layer = pl.Embedding(4, 2)
    params = {"W": rng.normal(size=(2, 4))}
    A, cache = layer.forward(ops, params, ops.asarray(ids, "float64"))
    _, grads = layer.backward(ops, params, cache, ops.asarray(dA, "float64"))
    W = as_torch(params["W"].T, requires_grad=True)
    A_torch = F.embedding(torch.tensor(first(ids)), W)
    A_torch.backward(as_torch(first(dA)))
    close(first(ops.to_numpy(A)), A_torch)
    close(ops.to_numpy(grads["W"]).T, W.grad / 7)


def test_a_whole_network(rng):
    """Every parameter's gradient of a chain, from one loss, in both libraries."""
    net = pl.Sequential(
        pl.Dense(6, "gelu"),
        pl.BatchNorm(),
        pl.Dense(5, "tanh"),
        pl.LayerNorm(),
        pl.Dense(3),
        input_shape=4,
        loss="softmax_cross_entropy",
        dtype="float64",
    )
    X, Y = rng.normal(size=(4, 9)), rng.integers(3, size=9)
    J, grads = net.gradients(X, Y)
    torch_net = torch.nn.Sequential(
        torch.nn.Linear(4, 6),
        torch.nn.GELU(),
        torch.nn.BatchNorm1d(6),
        torch.nn.Linear(6, 5),
        torch.nn.Tanh(),
        torch.nn.LayerNorm(5),
        torch.nn.Linear(5, 3),
    ).double()
    ours = [leaf for tree in net.parameters.values() for leaf in tree.values()]
    with torch.no_grad():
        for theirs, own in zip(torch_net.parameters(), ours, strict=True):
            theirs.copy_(as_torch(net.ops.to_numpy(own)).reshape(theirs.shape))
    cost = F.cross_entropy(torch_net(as_torch(first(X))), torch.tensor(Y))
    cost.backward()
    assert pytest.approx(cost.item(), rel=1e-12) == J
    flat = [leaf for tree in grads.values() for leaf in tree.values()]
    for theirs, own in zip(torch_net.parameters(), flat, strict=True):
        close(net.ops.to_numpy(own).reshape(theirs.shape), theirs.grad, rtol=1e-8)
