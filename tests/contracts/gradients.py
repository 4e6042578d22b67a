"""Directional derivatives by central differences, precise enough to hold a gradient to 1e-6."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pellucid.trees import leaves, tree_map

TOLERANCE = 1e-6  # relative
FLOOR = 1e-9  # below it a derivative is the rounding error of the differences


def directional_derivative(J: Callable[[], float], A: np.ndarray, u: np.ndarray, step: float) -> float | None:
    """d/dt J(A + t u) at 0, changing A in place and back; None where a kink of J lies within reach.

    Four points make the error of order step⁴. On a smooth piece the estimates with ``step`` and ``step / 2`` agree;
    across a kink they cannot.
    """
    start = A.copy()

    def at(t: float) -> float:
        A[...] = start + t * u
        return float(J())

    def estimate(h: float) -> float:
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)

    coarse, fine = estimate(step), estimate(step / 2)
    A[...] = start
    return fine if abs(coarse - fine) <= TOLERANCE / 4 * max(abs(coarse), abs(fine)) + FLOOR / 4 else None


def assert_gradient(
    J: Callable[[], float], A: np.ndarray, dA: np.ndarray, rng: np.random.Generator, what: str = "", step: float = 1e-3
) -> None:
    """Hold dA, the claimed gradient of J by A, to the differences of J along three random directions."""
    assert dA.shape == A.shape, f"{what}: gradient {dA.shape} of an array {A.shape}"
    typical = float(np.linalg.norm(dA)) / math.sqrt(max(A.size, 1))
    for _ in range(3):
        u = rng.normal(size=A.shape)
        u /= np.linalg.norm(u)
        for h in (step, step / 10, step / 100):
            numeric = directional_derivative(J, A, u, h)
            if numeric is not None:
                break
        else:
            raise AssertionError(f"{what}: a kink lies beside the test's own point; choose other numbers")
        analytic = float((dA * u).sum())
        allowed = TOLERANCE * max(abs(numeric), abs(analytic), 0.1 * typical) + FLOOR
        assert abs(numeric - analytic) <= allowed, (
            f"{what}: derivative along a random direction is {numeric:.12g} by differences, {analytic:.12g} by backward"
        )


def assert_network_gradients(net, X, Y, rng: np.random.Generator, **options) -> None:
    """Hold every gradient of a float64 network, and dA[0], to differences of its cost.

    The parameters are moved a little first: biases of 0 put units that get only zeros exactly on their kink.
    """
    params = tree_map(lambda W: net.ops.to_numpy(W) + 0.1 * rng.normal(size=W.shape), net.parameters)
    inputs = {name: np.array(A, np.float64) for name, A in (X if isinstance(X, dict) else {"input": X}).items()}

    def iteration(**more):
        net.parameters = params
        return net.checked_iteration(inputs if isinstance(X, dict) else inputs["input"], Y, **options, **more)

    done = iteration(input_gradient=True)
    flat = {name: net.ops.to_numpy(dW) for name, dW in leaves(done.grads)}
    assert list(flat) == [name for name, _ in leaves(params)]
    for name, W in leaves(params):
        assert_gradient(lambda: float(iteration().cost), W, flat[name], rng, name)
    for name, A in inputs.items():
        dA = net.ops.to_numpy(done.d_inputs[name]) / A.shape[-1]  # dA is per example, J a mean
        assert_gradient(lambda: float(iteration().cost), A, dA, rng, f"dA[0] of {name}")
