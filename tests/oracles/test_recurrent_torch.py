"""Recurrent layers against PyTorch's with the same weights: value and every gradient, sequences of differing lengths.

Examples and steps are last and first here, first and second there. PyTorch has two biases where one is enough: the
second is held at zero, but for the GRU's c, which is inside the reset gate's product.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from contracts import STEPWISE
from pellucid import engines
from pellucid.layers import Mode
from pellucid.sequences import Sequences
from pellucid.trees import leaves

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here, and it is not installed")
rnn = torch.nn.utils.rnn

CELLS = {
    "tanh": (pl.SimpleRNN, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "relu": (pl.SimpleRNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (pl.LSTM, torch.nn.LSTM, {}),
    "gru": (pl.GRU, torch.nn.GRU, {}),
}
seeds = st.integers(0, 2**32 - 1)
both = pytest.mark.parametrize("engine", STEPWISE)
cells = pytest.mark.parametrize("cell", CELLS)


def layer_of(cell, n, **options):
    options |= {"activation": cell} if cell in ("tanh", "relu") else {}
    return CELLS[cell][0](n, bias_initializer="normal(0.5)", **options)


def as_torch(A, **options):
    return torch.tensor(np.array(A), dtype=torch.float64, **options)


def first(A):
    """(T, n, m) as (m, T, n)."""
    return np.moveaxis(A, -1, 0)


def close(one, other, rtol=1e-10):
    np.testing.assert_allclose(one, other.detach().numpy(), rtol=rtol, atol=1e-11)


def share(module, params, suffix="l0"):
    """Give a layer of PyTorch's our weights."""
    with torch.no_grad():
        getattr(module, f"weight_ih_{suffix}").copy_(as_torch(params["W"]))
        getattr(module, f"weight_hh_{suffix}").copy_(as_torch(params["U"]))
        if "b" in params:
            getattr(module, f"bias_ih_{suffix}").copy_(as_torch(params["b"][:, 0]))
            second = getattr(module, f"bias_hh_{suffix}")
            second.zero_()
            if "c" in params:
                second[-len(params["c"]) :] = as_torch(params["c"][:, 0])


def assert_shared_gradients(module, grads, m, suffix="l0"):
    """Ours are means over the examples; PyTorch's are of the sum."""
    close(grads["W"], getattr(module, f"weight_ih_{suffix}").grad / m)
    close(grads["U"], getattr(module, f"weight_hh_{suffix}").grad / m)
    if "b" in grads:
        close(grads["b"][:, 0], getattr(module, f"bias_ih_{suffix}").grad / m)
    if "c" in grads:
        close(grads["c"][:, 0], getattr(module, f"bias_hh_{suffix}").grad[-len(grads["c"]) :] / m)


def torch_run(module, X, lengths, start):
    """Outputs (m, T, n) with zeros behind each example's end, and the last states, each (m, n)."""
    packed = rnn.pack_padded_sequence(X, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    start = tuple(each[None] for each in start or ())
    A, last = module(packed, start if len(start) == 2 else start[0] if start else None)
    A, _ = rnn.pad_packed_sequence(A, batch_first=True, total_length=X.shape[1])
    return A, last if isinstance(last, tuple) else (last,)


@both
@cells
@given(
    T=st.integers(1, 7),
    n_x=st.integers(1, 5),
    n=st.integers(1, 5),
    m=st.integers(1, 6),
    bias=st.booleans(),
    given_start=st.booleans(),
    padded=st.booleans(),
    seed=seeds,
)
def test_a_layer(engine, cell, T, n_x, n, m, bias, given_start, padded, seed):
    ops, rng = engines.get(engine), np.random.default_rng(seed)
    layer = layer_of(cell, n, use_bias=bias, return_sequences=True, return_state=True)
    states = len(layer.states)
    params = layer.init(rng, (T, n_x), np.float64)
    X, dA = rng.normal(size=(T, n_x, m)), rng.normal(size=(T, n, m))
    start = [rng.normal(size=(n, m)) for _ in range(states)] if given_start else []
    d_last = [rng.normal(size=(n, m)) for _ in range(states)]
    lengths = rng.integers(1, T + 1, m) if padded else np.full(m, T)
    inside = np.arange(T)[:, None] < lengths
    dA = dA * inside[:, None]
    mode = Mode(True, mask=inside if padded else None)

    A_prev = (X, *start) if start else X
    (A, *last), cache = layer.forward(ops, params, A_prev, mode=mode)
    dA_prev, grads = layer.backward(ops, params, cache, (dA, *d_last))
    dX, *d_start = dA_prev if start else (dA_prev,)

    module = CELLS[cell][1](n_x, n, bias=bias, batch_first=True, dtype=torch.float64, **CELLS[cell][2])
    share(module, params)
    X_torch = as_torch(first(X), requires_grad=True)
    start_torch = tuple(as_torch(each.T, requires_grad=True) for each in start)
    A_torch, last_torch = torch_run(module, X_torch, lengths, start_torch)
    total = (A_torch * as_torch(first(dA))).sum()
    total = total + sum((each[0] * as_torch(d.T)).sum() for each, d in zip(last_torch, d_last, strict=True))
    total.backward()

    close(first(ops.to_numpy(A) * inside[:, None]), A_torch)
    close(first(ops.to_numpy(dX)), X_torch.grad)
    for own, other in zip(last, last_torch, strict=True):
        close(ops.to_numpy(own).T, other[0])
    for own, other in zip(d_start, start_torch, strict=True):
        close(ops.to_numpy(own).T, other.grad)
    assert_shared_gradients(module, {name: ops.to_numpy(dW) for name, dW in grads.items()}, m)


@both
@cells
@given(T=st.integers(1, 6), n_x=st.integers(1, 4), n=st.integers(1, 4), m=st.integers(1, 5), seed=seeds)
def test_both_ways(engine, cell, T, n_x, n, m, seed):
    ops, rng = engines.get(engine), np.random.default_rng(seed)
    layer = pl.Bidirectional(layer_of(cell, n, return_sequences=True, return_state=True))
    params = layer.init(rng, (T, n_x), np.float64)
    lengths = rng.integers(1, T + 1, m)
    inside = np.arange(T)[:, None] < lengths
    X, dA = rng.normal(size=(T, n_x, m)), rng.normal(size=(T, 2 * n, m)) * inside[:, None]
    d_last = [rng.normal(size=(2 * n, m)) for _ in layer.layer.states]
    (A, *last), cache = layer.forward(ops, params, X, mode=Mode(True, mask=inside))
    dX, grads = layer.backward(ops, params, cache, (dA, *d_last))

    module = CELLS[cell][1](n_x, n, batch_first=True, bidirectional=True, dtype=torch.float64, **CELLS[cell][2])
    for way, suffix in (("forward", "l0"), ("backward", "l0_reverse")):
        share(module, {name.removesuffix(f"_{way}"): W for name, W in params.items() if name.endswith(way)}, suffix)
    X_torch = as_torch(first(X), requires_grad=True)
    A_torch, last_torch = torch_run(module, X_torch, lengths, None)
    last_torch = [torch.cat(tuple(each), dim=1) for each in last_torch]
    total = (A_torch * as_torch(first(dA))).sum()
    (total + sum((each * as_torch(d.T)).sum() for each, d in zip(last_torch, d_last, strict=True))).backward()

    close(first(ops.to_numpy(A) * inside[:, None]), A_torch)
    close(first(ops.to_numpy(dX)), X_torch.grad)
    for own, other in zip(last, last_torch, strict=True):
        close(ops.to_numpy(own).T, other)
    for way, suffix in (("forward", "l0"), ("backward", "l0_reverse")):
        own = {name.removesuffix(f"_{way}"): ops.to_numpy(d) for name, d in grads.items() if name.endswith(way)}
        assert_shared_gradients(module, own, m, suffix)


@cells
@pytest.mark.parametrize("every_step", [True, False], ids=["many-to-many", "many-to-one"])
def test_a_stacked_network_and_its_loss(cell, every_step, rng):
    """Three layers deep, one of them both ways, classified: J and every gradient, lengths of 1 to 9."""
    n, lengths = 4, [5, 9, 1, 7, 9, 2]
    net = pl.Sequential(
        pl.Bidirectional(layer_of(cell, n, return_sequences=True)),
        layer_of(cell, n, return_sequences=True),
        layer_of(cell, n, return_sequences=every_step),
        pl.TimeDistributed(pl.Dense(3)) if every_step else pl.Dense(3),
        input_shape=(None, 2),
        loss="softmax_cross_entropy",
        dtype="float64",
    )
    x = [rng.normal(size=(T, 2)) for T in lengths]
    y = [rng.integers(3, size=T) for T in lengths] if every_step else rng.integers(3, size=6)
    X, mask = Sequences(x).batch(np.arange(6))
    Y = Sequences(y).batch(np.arange(6))[0] if every_step else y
    J, grads = net.gradients(X, Y, mask=mask)

    def module(n_x, **options):
        return CELLS[cell][1](n_x, n, batch_first=True, dtype=torch.float64, **CELLS[cell][2], **options)

    deep = [module(2, bidirectional=True), module(2 * n), module(n)]
    head = torch.nn.Linear(n, 3, dtype=torch.float64)
    ours = {name: {path: net.ops.to_numpy(W) for path, W in leaves(tree)} for name, tree in net.parameters.items()}
    names = list(ours)
    for way, suffix in (("forward", "l0"), ("backward", "l0_reverse")):
        own = {k.removesuffix(f"_{way}"): W for k, W in ours[names[0]].items() if k.endswith(way)}
        share(deep[0], own, suffix)
    share(deep[1], ours[names[1]])
    share(deep[2], ours[names[2]])
    with torch.no_grad():
        head.weight.copy_(as_torch(ours[names[3]]["W"]))
        head.bias.copy_(as_torch(ours[names[3]]["b"][:, 0]))
    packed = rnn.pack_sequence([as_torch(each) for each in x], enforce_sorted=False)
    for each in deep:
        packed, last = each(packed)
    if every_step:
        A, _ = rnn.pad_packed_sequence(packed, batch_first=True)
        cost = sum(
            torch.nn.functional.cross_entropy(head(A[i, :T]), torch.tensor(y[i]), reduction="sum")
            for i, T in enumerate(lengths)
        )
    else:
        last = last[0] if isinstance(last, tuple) else last
        cost = torch.nn.functional.cross_entropy(head(last[0]), torch.tensor(y), reduction="sum")
    (cost / 6).backward()
    assert pytest.approx((cost / 6).item(), rel=1e-12) == J
    assert_shared_gradients(deep[1], grads[names[1]], 1)
    assert_shared_gradients(deep[2], grads[names[2]], 1)
    for way, suffix in (("forward", "l0"), ("backward", "l0_reverse")):
        own = {k.removesuffix(f"_{way}"): dW for k, dW in grads[names[0]].items() if k.endswith(way)}
        assert_shared_gradients(deep[0], own, 1, suffix)
    close(grads[names[3]]["W"], head.weight.grad)
    close(grads[names[3]]["b"][:, 0], head.bias.grad)


@cells
def test_it_learns_as_pytorch_does(cell, rng):
    """Ten updates of gradient descent on many-to-one sequences end at the same weights."""
    net = pl.Sequential(layer_of(cell, 3), pl.Dense(1), input_shape=(None, 2), loss="squared_error", dtype="float64")
    x, y = [rng.normal(size=(T, 2)) for T in (3, 6, 1, 4)], rng.normal(size=4)
    names = list(net.parameters)
    module = CELLS[cell][1](2, 3, batch_first=True, dtype=torch.float64, **CELLS[cell][2])
    head = torch.nn.Linear(3, 1, dtype=torch.float64)
    share(module, net.parameters[names[0]])
    with torch.no_grad():
        head.weight.copy_(as_torch(net.parameters[names[1]]["W"]))
        head.bias.copy_(as_torch(net.parameters[names[1]]["b"][:, 0]))
    second = module.bias_hh_l0
    if cell != "gru":
        second.requires_grad_(False)
    else:  # only the rows that are c learn
        second.register_hook(lambda gradient: gradient * torch.tensor([0.0] * 6 + [1.0] * 3))
    trained = [each for each in [*module.parameters(), *head.parameters()] if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        _, last = module(rnn.pack_sequence([as_torch(each) for each in x], enforce_sorted=False))
        said = head((last[0] if isinstance(last, tuple) else last)[0])[:, 0]
        (0.5 * (said - as_torch(y)) ** 2).mean().backward()
        optimizer.step()
    options = {"optimizer": "gradient_descent(0.1)", "metrics": (), "progress": False}
    net.fit(Sequences(x), y, epochs=10, batch_size=None, **options)
    close(net.parameters[names[0]]["W"], module.weight_ih_l0)
    close(net.parameters[names[0]]["U"], module.weight_hh_l0)
    close(net.parameters[names[1]]["W"], head.weight)
