"""Twenty updates of every rule that PyTorch has too, on the same random gradients."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.optimizers import (
    Adadelta,
    AdaGrad,
    Adam,
    AdamW,
    GradientDescent,
    Momentum,
    Nesterov,
    RMSprop,
    clip_by_norm,
)

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")

PAIRS = [
    (GradientDescent(0.1), "SGD", {"lr": 0.1}),
    (Momentum(0.1, momentum=0.8), "SGD", {"lr": 0.1, "momentum": 0.8}),
    (Nesterov(0.1, momentum=0.8), "SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    (AdaGrad(0.1, epsilon=1e-3), "Adagrad", {"lr": 0.1, "eps": 1e-3}),
    (AdaGrad(0.1, initial_accumulator=0.3), "Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.3}),
    (RMSprop(0.1, decay=0.7, epsilon=1e-3), "RMSprop", {"lr": 0.1, "alpha": 0.7, "eps": 1e-3}),
    (Adam(0.1), "Adam", {"lr": 0.1}),
    (Adam(0.1, beta1=0.7, beta2=0.95, epsilon=1e-3), "Adam", {"lr": 0.1, "betas": (0.7, 0.95), "eps": 1e-3}),
    (AdamW(0.1, weight_decay=0.2), "AdamW", {"lr": 0.1, "weight_decay": 0.2}),
    (Adadelta(decay=0.8, epsilon=1e-3), "Adadelta", {"lr": 1.0, "rho": 0.8, "eps": 1e-3}),
    (Adadelta(0.5), "Adadelta", {"lr": 0.5, "rho": 0.95, "eps": 1e-6}),
]


@pytest.mark.parametrize(("ours", "name", "options"), PAIRS, ids=lambda value: getattr(value, "registered_name", ""))
def test_twenty_updates_equal_pytorch(ours, name, options):
    rng = np.random.default_rng(7)
    W = rng.standard_normal((5, 4))
    parameter = torch.nn.Parameter(torch.tensor(W))
    theirs = getattr(torch.optim, name)([parameter], foreach=False, **options)
    slots = {slot: tree["W"] for slot, tree in ours.init({"W": W}).items()}
    for t in range(1, 21):
        dW = rng.standard_normal(W.shape)
        parameter.grad = torch.tensor(dW)
        theirs.step()
        W, slots = ours.rule(np, W, dW, slots, learning_rate=ours.schedule.rate(0, 1, {}), t=t)
        np.testing.assert_allclose(W, parameter.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_by_norm_equals_pytorch(limit):
    rng = np.random.default_rng(3)
    grads = {"a": rng.standard_normal((4, 3)), "b": {"c": rng.standard_normal(6)}}
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((4, 3), (6,))]
    for parameter, grad in zip(parameters, (grads["a"], grads["b"]["c"]), strict=True):
        parameter.grad = torch.tensor(grad)
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    clipped, our_norm = clip_by_norm(np, grads, limit)
    assert our_norm == pytest.approx(float(norm), rel=1e-12)
    for ours, theirs in zip((clipped["a"], clipped["b"]["c"]), parameters, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=3e-6)  # PyTorch adds 1e-6 to the norm it divides by
