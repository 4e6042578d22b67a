"""The single neuron in both of its forms (the notes' S3), telling zeros from ones on real handwritten digits.

    z = Σ wᵢxᵢ + b            the bias apart
    z = Σ wᵢxᵢ, x₀ = 1        the bias as the weight w₀ of a constant input
    a = 1 / (1 + e^-z)

Both are the same neuron: started alike they stay alike, through every update.
"""

from __future__ import annotations

import numpy as np

import pellucid as pl


def zeros_and_ones() -> tuple[np.ndarray, np.ndarray]:
    """Digits 0 and 1 as columns of 64 pixels in [0, 1], and which of the two each is."""
    digits = pl.data.load("digits")
    images, kinds = digits.take(np.flatnonzero(digits.y <= 1))
    return images.reshape(-1, 64).T / 16.0, kinds


def main(updates: int = 50, learning_rate: float = 1.0) -> tuple[pl.Sequential, pl.Sequential]:
    """Train both forms side by side; returns them."""
    X, Y = zeros_and_ones()
    n, m = X.shape
    common = {"loss": "binary_cross_entropy", "dtype": "float64"}
    with_b = pl.Sequential(pl.Dense(1, "logistic"), input_shape=n, **common)
    with_w0 = pl.Sequential(pl.Dense(1, "logistic", use_bias=False), input_shape=n + 1, **common)

    X1 = np.vstack([np.ones((1, m)), X])  # x₀ = 1 above the pixels
    start = with_b.parameters["dense_1"]
    with_w0.parameters = {"dense_1": {"W": np.hstack([start["b"], start["W"]])}}

    rule = pl.GradientDescent(learning_rate)
    print(f"{m} digits, 0 or 1, {n} pixels each\n")
    print("update   J with b    J with w₀   correct   largest difference of w")
    for t in range(updates + 1):
        J, grads = with_b.gradients(X, Y)
        J0, grads0 = with_w0.gradients(X1, Y)
        if t % 10 == 0:
            correct = ((with_b.forward(X)[0] > 0.5) == Y).mean()
            joined = np.hstack([with_b.parameters["dense_1"]["b"], with_b.parameters["dense_1"]["W"]])
            difference = abs(joined - with_w0.parameters["dense_1"]["W"]).max()
            print(f"{t:6d}   {J:.6f}    {J0:.6f}    {correct:6.1%}    {difference:.1e}")
        for net, gradient in ((with_b, grads), (with_w0, grads0)):
            net.parameters, _ = rule.update(net.ops, net.parameters, gradient, {}, learning_rate=learning_rate, t=t + 1)
    return with_b, with_w0


if __name__ == "__main__":
    main()
