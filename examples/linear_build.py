"""A layer of your own, as in the notes (S1): build asks for weights, call computes, backward returns the gradients.

Trained on the handwritten digits by a descent loop written out, so that nothing is hidden.
"""

from __future__ import annotations

import numpy as np

import pellucid as pl


class LinearBuild(pl.Layer):
    """y = w.x + b, the examples in columns."""

    def __init__(self, units=32):
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(self.units, input_shape[-1]), initializer="random_normal", trainable=True)
        self.b = self.add_weight(shape=(self.units, 1), initializer="random_normal", trainable=True)

    def call(self, inputs):
        return self.w @ inputs + self.b

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        m = dA.shape[-1]
        grads = {"w": dA @ cache.A_prev.T / m, "b": dA.mean(axis=1, keepdims=True)}
        return params["w"].T @ dA if input_gradient else None, grads


def main(epochs: int = 20, batch_size: int = 32, learning_rate: float = 0.2) -> float:
    """Train two such layers with a ReLU between them; returns the share of held-out digits read correctly."""
    digits = pl.data.load("digits")
    rng = np.random.default_rng(0)
    images, Y = digits.take(rng.permutation(len(digits)))
    X = images.reshape(-1, 64).T / 16.0
    held_out = slice(0, 360)
    training = np.arange(360, len(digits))

    net = pl.Sequential(LinearBuild(32), pl.ReLU(), LinearBuild(10), input_shape=64, loss="softmax_cross_entropy")
    rule = pl.GradientDescent(learning_rate)
    t, correct = 0, 0.0
    print("epoch   J of training digits   held-out digits read correctly")
    for epoch in range(1, epochs + 1):
        for batch in np.array_split(rng.permutation(training), len(training) // batch_size):
            t += 1
            _, grads = net.gradients(X[:, batch], Y[batch])
            net.parameters, _ = rule.update(net.ops, net.parameters, grads, {}, learning_rate=learning_rate, t=t)
        correct = float((net.forward(X[:, held_out])[0].argmax(axis=0) == Y[held_out]).mean())
        if epoch % 5 == 0 or epoch == 1:
            print(f"{epoch:5d}   {net.cost(X[:, training], Y[training]):20.4f}   {correct:.1%}")
    return correct


if __name__ == "__main__":
    main()
