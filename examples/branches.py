"""Branches (the notes' S3): two inputs, two outputs, and gradients that are sums over every path.

The left and the right half of a handwritten digit come in at different doors. One output says which digit it is, the
other how much ink it took. A layer shared by both halves sees them the same way.

    left  ── eye ──┐          ┌── kind (10 classes)
                   ├─ joined ─┤
    right ── eye ──┘          └── ink (a number)
"""

from __future__ import annotations

import numpy as np

import pellucid as pl


def halves() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Examples first: the two halves of each digit, its class, and its ink as a share of the paper."""
    digits = pl.data.load("digits")
    images, kinds = digits.take(np.random.default_rng(0).permutation(len(digits)))
    images = images[:, 0] / 16.0
    inputs = {"left": images[:, :, :4].reshape(-1, 32), "right": images[:, :, 4:].reshape(-1, 32)}
    return inputs, {"kind": kinds, "ink": images.mean(axis=(1, 2))}


def network(**options) -> pl.Graph:
    """The graph of the picture above."""
    left, right = pl.Input(32), pl.Input(32)
    eye = pl.Dense(24, "relu", name="eye")
    joined = pl.Dense(32, "relu", name="joined")(pl.Concat()(eye(left), eye(right)))
    return pl.Graph(
        inputs={"left": left, "right": right},
        outputs={"kind": pl.Dense(10, name="kind_of_digit")(joined), "ink": pl.Dense(1, name="amount")(joined)},
        loss={"kind": "softmax_cross_entropy", "ink": "squared_error"},
        loss_weights={"ink": 10.0},
        **options,
    )


def worst_gradient(net: pl.Graph, X: dict[str, np.ndarray], Y: dict[str, np.ndarray], h: float = 1e-5) -> float:
    """The largest relative error of any parameter's gradient along one random direction."""
    rng = np.random.default_rng(0)
    _, grads = net.gradients(X, Y)
    worst = 0.0
    for layer, tree in net.parameters.items():
        for name, W in tree.items():
            u = rng.normal(size=W.shape)
            W += h * u
            above = net.cost(X, Y)
            W -= 2 * h * u
            below = net.cost(X, Y)
            W += h * u
            numeric, analytic = (above - below) / (2 * h), float((grads[layer][name] * u).sum())
            worst = max(worst, abs(numeric - analytic) / max(abs(numeric), abs(analytic)))
    return worst


def main(epochs: int = 15) -> dict[str, float]:
    """Check the gradients, train, and measure on held-out digits; returns the measures."""
    x, y = halves()
    train, test = slice(360, None), slice(0, 360)
    few = slice(360, 376)
    checked = network(dtype="float64", engine="numpy")
    error = worst_gradient(
        checked, {name: a[few].T for name, a in x.items()}, {"kind": y["kind"][few], "ink": y["ink"][few]}
    )
    print(f"gradients against finite differences: largest relative error {error:.1e}\n")

    net = network()
    net.fit(
        {name: a[train] for name, a in x.items()},
        {name: a[train] for name, a in y.items()},
        epochs=epochs,
        optimizer="adam(0.005)",
        progress=False,
    )
    said = net.predict({name: a[test] for name, a in x.items()})
    correct = float((said["kind"].argmax(axis=1) == y["kind"][test]).mean())
    off = float(abs(said["ink"][:, 0] - y["ink"][test]).mean())
    print(f"held-out digits read correctly:      {correct:.1%}")
    print(f"mean error of the ink:               {off:.3f} of a mean of {y['ink'].mean():.3f}")
    return {"gradient error": error, "correct": correct, "ink error": off}


if __name__ == "__main__":
    main()
