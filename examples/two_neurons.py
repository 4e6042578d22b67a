"""Two neurons in a row (the notes' S3): what the backward blocks compute, beside the closed forms.

x ── w₁ ── z₁ ─ a₁ ── w₂ ── z₂ ─ a₂      a = logistic(z), E = ½ (a₂ - t)²

δ₂ = (a₂ - t) a₂ (1 - a₂)                w₂ := w₂ - η δ₂ a₁
δ₁ = δ₂ w₂ a₁ (1 - a₁)                   w₁ := w₁ - η δ₁ x
"""

from __future__ import annotations

import math

import numpy as np

import pellucid as pl


def logistic(z: float) -> float:
    """1 / (1 + e^-z)."""
    return 1.0 / (1.0 + math.exp(-z))


def main(x: float = 0.7, t: float = 0.1, w1: float = -1.3, w2: float = 2.1, eta: float = 0.5) -> dict:
    """One iteration both ways; returns ``{name: (closed form, pellucid)}``."""
    net = pl.Sequential(
        pl.Dense(1, "logistic", use_bias=False, name="neuron_1"),
        pl.Dense(1, "logistic", use_bias=False, name="neuron_2"),
        input_shape=1,
        loss="squared_error",
        dtype="float64",
    )
    net.parameters = {"neuron_1": {"W": np.array([[w1]])}, "neuron_2": {"W": np.array([[w2]])}}

    a1 = logistic(w1 * x)
    a2 = logistic(w2 * a1)
    delta2 = (a2 - t) * a2 * (1 - a2)
    delta1 = delta2 * w2 * a1 * (1 - a1)
    closed = {
        "a₂": a2,
        "E": 0.5 * (a2 - t) ** 2,
        "∂E/∂w₂ = δ₂ a₁": delta2 * a1,
        "∂E/∂w₁ = δ₁ x": delta1 * x,
        "w₂ after the update": w2 - eta * delta2 * a1,
        "w₁ after the update": w1 - eta * delta1 * x,
    }

    done = net.checked_iteration(np.array([[x]]), np.array([[t]]))
    dw1, dw2 = (float(done.grads[name]["W"][0, 0]) for name in ("neuron_1", "neuron_2"))
    rule = pl.GradientDescent(eta)
    new, _ = rule.update(net.ops, net.parameters, done.grads, {}, learning_rate=eta, t=1)
    computed = {
        "a₂": float(done.outputs["output"][0, 0]),
        "E": float(done.cost),
        "∂E/∂w₂ = δ₂ a₁": dw2,
        "∂E/∂w₁ = δ₁ x": dw1,
        "w₂ after the update": float(new["neuron_2"]["W"][0, 0]),
        "w₁ after the update": float(new["neuron_1"]["W"][0, 0]),
    }

    print(f"x = {x}, t = {t}, w₁ = {w1}, w₂ = {w2}, η = {eta}\n")
    print(f"{'':22}{'closed form':>20}{'pellucid':>20}")
    for name, value in closed.items():
        print(f"{name:22}{value:20.14f}{computed[name]:20.14f}")
    return {name: (closed[name], computed[name]) for name in closed}


if __name__ == "__main__":
    main()
