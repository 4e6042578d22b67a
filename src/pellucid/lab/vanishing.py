"""Gradients that vanish: how their size changes from layer to layer, by activation, start and normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid import engines
from pellucid.errors import TrainingError
from pellucid.inspect.pictures import new_figure, save
from pellucid.inspect.trace import Trace, trace
from pellucid.lab.base import COLORS, Experiment, Finding, Result, mean_and_interval, standardised_digits, tidy
from pellucid.layers import BatchNorm, Dense, LayerNorm
from pellucid.layers.activations import activations
from pellucid.layers.dense import fitting_initializer
from pellucid.network import Sequential
from pellucid.optimizers import Momentum

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu")
NAIVE, FITTING, BATCH, LAYER = "naive", "fitting", "naive, batch norm", "naive, layer norm"
NORMS = {NAIVE: None, FITTING: None, BATCH: BatchNorm, LAYER: LayerNorm}
LARGEST_SLOPE = {"sigmoid": 0.25, "relu": 1.0}
GRID = np.linspace(-9, 9, 6000)  # even, so that 0, where ReLU has its kink, lies between two points
NORMAL = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()


class Extent(NamedTuple):
    """How much a run does."""

    activations: tuple[str, ...]
    depth: int  # hidden layers of the networks that are measured
    width: int
    depths: tuple[int, ...]
    seeds: int
    learned: int  # hidden layers of the networks that learn
    learned_width: int
    epochs: int
    tolerance: float  # of a factor per layer; theory is that of infinite width


FULL = Extent(ACTIVATIONS, 30, 256, (1, 2, 4, 8, 16, 32), 3, 16, 64, 10, 0.05)
QUICK = Extent(("sigmoid", "tanh", "relu"), 8, 128, (1, 4), 2, 4, 16, 1, 0.1)
FORETOLD = (
    *((NAIVE, "sigmoid"), (FITTING, "sigmoid"), (BATCH, "sigmoid"), (LAYER, "sigmoid"), (NAIVE, "tanh")),
    *((FITTING, "tanh"), (NAIVE, "relu"), (FITTING, "relu"), (BATCH, "relu"), (LAYER, "relu")),
)
LEARNERS = ((NAIVE, "sigmoid"), (BATCH, "sigmoid"), (FITTING, "tanh"), (NAIVE, "relu"), (FITTING, "relu"))


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Trace one iteration of deep networks on the digits, compare each layer's gradient with theory; then train some.

    Arguments:
        out: the folder for ``vanishing.png``.
        seed: the first of the networks' seeds.
        quick: True takes fewer activations, layers and seeds.

    Raises:
        EngineError: matplotlib is not installed.
    """
    extent = QUICK if quick else FULL
    seeds = range(seed, seed + extent.seeds)
    cases = {(start, g): measure(start, g, extent, seeds) for start in NORMS for g in extent.activations}
    first = {
        g: [
            np.mean([first_gradient(FITTING, g, depth, extent.width, each) for each in seeds])
            for depth in extent.depths
        ]
        for g in extent.activations
    }
    right = {
        (start, g): [np.mean([learned(start, g, depth, extent, s) for s in seeds]) for depth in extent.depths]
        for start, g in LEARNERS
    }
    above = float(sum(case.shrinkage.above for case in cases.values() if case.shrinkage))
    findings = (
        *(
            Finding(
                f"‖dZ‖ from a layer to the one before, {g}, {start}",
                cases[start, g].predicted,
                cases[start, g].factor,
                extent.tolerance,
            )
            for start, g in FORETOLD
        ),
        Finding("examples and layers where logistic or ReLU exceeds max g' · ‖W‖₂", 0.0, above, 0.0),
    )
    rows = [
        (*names, case.factor, case.half, case.predicted, case.sizes[0], case.first_dW, case.right)
        for names, case in cases.items()
    ]
    picture = draw(extent, cases, first, right, out / "vanishing.png")
    notes = (
        f"{extent.depth} hidden layers of {extent.width}, float64, seeds {seed} to {seeds[-1]}; 256 of the digits, "
        "one mean and one deviation for all pixels",
        "naive: W uniform in ±1/√n_prev; fitting: He's for ReLU's family, LeCun's for SELU, Xavier's for the others",
        "‖dZ‖: of a typical example, √(Σ dZ²/m); per layer: (‖dZ[1]‖ / ‖dZ[L]‖)^(1/(L-1)), mean and 95 % interval",
        "foretold: mean field, from the deviation of W and the size of the inputs",
        f"right: on held-out digits, {extent.learned} hidden layers of {extent.learned_width}, {extent.epochs} epochs, "
        "momentum 0.9, α 0.02; – where a seed diverged",
        f"right by depth: {', '.join(map(str, extent.depths))} hidden layers",
        *(f"{g}, {start}: {', '.join(f'{each:.2f}' for each in shares)}" for (start, g), shares in right.items()),
    )
    head = ("start", "activation", "per layer", "±", "foretold", "‖dZ‖ first/last", "‖dW‖ first/last", "right")
    return Result(head, tuple(rows), findings, picture, notes)


def traced_digits() -> tuple[np.ndarray, np.ndarray]:
    """X (64, 256) and Y (256,), the first of them."""
    x, y = standardised_digits()
    return x[:256].T, y[:256]


def network(start: str, g: str, depth: int, width: int, seed: int, dtype: str = "float64") -> Sequential:
    """Hidden layers Dense, normalisation where ``start`` has one, activation g; ten classes."""
    layers: list[Any] = []
    activation = activations.get(g)
    for n_prev in [64] + [width] * (depth - 1):
        naive = f"uniform({-(n_prev**-0.5)}, {n_prev**-0.5})"
        layers.append(Dense(width, initializer=fitting_initializer(activation) if start == FITTING else naive))
        if norm := NORMS[start]:
            layers.append(norm())
        layers.append(type(activation)())
    return Sequential(*layers, Dense(10), input_shape=64, loss="softmax_cross_entropy", seed=seed, dtype=dtype)


# --- measured -------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """What was measured and foretold of one start and activation.

    Attributes:
        sizes: ‖dZ[l]‖ / ‖dZ[L]‖ for l = 1 … L, the geometric mean over the seeds.
        foretold: the same by `mean_field`.
        factor, half: of ‖dZ‖ per layer, and half its 95 % interval.
        first_dW: ‖dW[1]‖ / ‖dW[L]‖.
        shrinkage: of the first seed, `above` of all; where max g' is in `LARGEST_SLOPE` and nothing is normalised.
        right: the share of held-out digits that such a network is right on after training.
    """

    sizes: np.ndarray
    foretold: np.ndarray
    factor: float
    half: float
    first_dW: float
    shrinkage: Shrinkage | None
    right: float

    @property
    def predicted(self) -> float:
        """The factor per layer that is foretold."""
        return float(self.foretold[0] ** (1 / (len(self.foretold) - 1)))


def measure(start: str, g: str, extent: Extent, seeds: range) -> Case:
    """Trace networks of one start and activation, and train some."""
    X, Y = traced_digits()
    nets = [network(start, g, extent.depth, extent.width, seed) for seed in seeds]
    traces = [trace(net, X, Y) for net in nets]
    dZ, dW = (np.array([[getattr(each, name) for each in hidden_norms(t)] for t in traces]) for name in ("dA", "dW"))
    shrunk = None
    if g in LARGEST_SLOPE and not NORMS[start]:
        of_seeds = [shrinkage(t, LARGEST_SLOPE[g]) for t in traces]
        shrunk = of_seeds[0]._replace(above=sum(each.above for each in of_seeds))
    return Case(
        np.exp(np.log(dZ / dZ[:, -1:]).mean(axis=0)),
        mean_field(nets[0], start, g, X),
        *mean_and_interval((dZ[:, 0] / dZ[:, -1]) ** (1 / (extent.depth - 1))),
        float(np.exp(np.log(dW[:, 0] / dW[:, -1]).mean())),
        shrunk,
        float(np.mean([learned(start, g, extent.learned, extent, seed) for seed in seeds])),
    )


def hidden_norms(t: Trace) -> list[Any]:
    """The norms of the hidden layers; their Dense ends in Z, so its dA is dZ."""
    return [norms for norms, each in zip(t.norms(), t, strict=True) if isinstance(each.layer, Dense)][:-1]


class Shrinkage(NamedTuple):
    """dZ from layer to layer, the first to the last but one.

    Attributes:
        typical: ‖dZ[l]‖ / ‖dZ[l+1]‖ of a typical example.
        bound: max g' · ‖W[l+1]‖₂.
        above: how many examples and layers exceed it.
    """

    typical: np.ndarray
    bound: np.ndarray
    above: int


def shrinkage(t: Trace, slope: float) -> Shrinkage:
    """What a trace without normalisation says of |dZ[l]| ≤ max g' · ‖W[l+1]‖₂ · |dZ[l+1]|.

    Arguments:
        t: the trace.
        slope: max g'.
    """
    dense = [each for each in t if isinstance(each.layer, Dense)][:-1]
    sizes = np.array([np.linalg.norm(each.dA, axis=0) for each in dense])  # (L, m)
    bound = np.array([slope * np.linalg.norm(each.W, 2) for each in dense[1:]])
    typical = np.sqrt((sizes**2).mean(axis=1))
    above = int(np.sum(sizes[:-1] > bound[:, None] * sizes[1:] * (1 + 1e-12)))
    return Shrinkage(typical[:-1] / typical[1:], bound, above)


def first_gradient(start: str, g: str, depth: int, width: int, seed: int) -> float:
    """‖dW[1]‖ of a network with ``depth`` hidden layers."""
    X, Y = traced_digits()
    _, grads = network(start, g, depth, width, seed).gradients(X, Y)
    return float(np.linalg.norm(grads["dense_1"]["W"]))


def learned(start: str, g: str, depth: int, extent: Extent, seed: int) -> float:
    """The share of held-out digits that a network is right on after training; NaN where the training diverged."""
    x, y = standardised_digits()
    net = network(start, g, depth, extent.learned_width, seed, "float32")
    rule = Momentum(0.02)
    try:
        history = net.fit(
            x, y, epochs=extent.epochs, optimizer=rule, validation=0.2, metrics=["accuracy"], progress=False
        )
    except TrainingError:
        return float("nan")
    return history["validation_accuracy"][-1]


# --- foretold -------------------------------------------------------------------------------------------------------


def moments(g: str, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E A, E A² and E g'(Z)² for Z from N(0, q), A = g(Z); each of q's shape (k,)."""
    ops, layer = engines.get("numpy"), activations.get(g)
    Z = np.sqrt(q)[:, None] * GRID
    A, cache = layer.forward(ops, {}, Z)
    slope, _ = layer.backward(ops, {}, cache, np.ones_like(Z))
    return A @ NORMAL, A**2 @ NORMAL, slope**2 @ NORMAL


def mean_field(net: Sequential, start: str, g: str, X: np.ndarray) -> np.ndarray:
    """‖dZ[l]‖ / ‖dZ[L]‖ for l = 1 … L, as a wide network would have it: Z normal, forward and backward independent.

        forward    q[l] = σ²[l] E A[l-1]², where σ²[l] = n[l-1] · variance of W[l]
        backward   E dZ[l]² = σ²[l+1] E g'(Z[l])² E dZ[l+1]²

    Normalised, Z is from N(0, 1) whatever W is, and dZ is divided by what Z was divided by: σ[l] times the deviation
    of A[l-1] over the batch, or the root of its mean square over the layer. The σ² cancel.

    Arguments:
        net: the network; only the sizes of its W are read.
        start: one of `NORMS`.
        g: the activation.
        X: the inputs (64, m); their sizes start the forward half.

    Source: Poole et al. 2016, "Exponential expressivity in deep neural networks through transient chaos", equation 3;
    Schoenholz et al. 2017, "Deep information propagation", equation 8; for batch normalisation Yang et al. 2019.
    """
    W = [params["W"] for name, params in net.parameters.items() if name.startswith("dense")][:-1]
    variances = [each.shape[1] * each.var() for each in W]
    if norm := NORMS[start]:
        mean, square, slope = (each[0] for each in moments(g, np.ones(1)))
        spread = square - mean**2 if norm is BatchNorm else square
        before = X.var(axis=1).mean() if norm is BatchNorm else (X**2).mean()  # of A[0], the inputs
        squares = [slope / each for each in [before] + [spread] * (len(W) - 2)]
        return np.sqrt(np.append(np.cumprod(squares[::-1])[::-1], 1.0))
    q = variances[0] * np.quantile((X**2).mean(axis=0), (np.arange(16) + 0.5) / 16)  # of 16 typical examples
    factors = []
    for sigma2 in variances[1:]:
        _, square, slope = moments(g, q)
        factors.append(sigma2 * slope)
        q = sigma2 * square
    backward = np.cumprod(factors[::-1], axis=0)[::-1].mean(axis=1)
    return np.sqrt(np.append(backward, 1.0))


# --- the picture ----------------------------------------------------------------------------------------------------


def draw(
    extent: Extent,
    cases: dict[tuple[str, str], Case],
    first: dict[str, list[Any]],
    right: dict[tuple[str, str], list[Any]],
    path: Path,
) -> Path:
    """The gradient through the layers of each start; the bound; and what depth costs."""
    figure = new_figure(13.0, 7.4)
    panels = figure.subplots(2, 4)
    color = dict(zip(ACTIVATIONS, COLORS, strict=False))
    layers = np.arange(1, extent.depth + 1)
    for axes, start in zip(panels[0], NORMS, strict=True):
        for g in extent.activations:
            axes.semilogy(layers, cases[start, g].foretold, color=color[g], linewidth=1.0)
            axes.semilogy(layers, cases[start, g].sizes, "o", color=color[g], markersize=2.5, label=g)
        axes.axhline(1.0, color="#999999", linewidth=0.8)
        tidy(axes, start, "layer", "‖dZ‖ against the last layer's" if start == NAIVE else "")
    panels[0, 0].legend(frameon=False, fontsize=8)

    axes = panels[1, 0]
    for g, slope in LARGEST_SLOPE.items():
        if shrunk := cases[FITTING, g].shrinkage:
            axes.semilogy(layers[:-1], shrunk.bound, "--", color=color[g], linewidth=1.2, label=f"{g}: {slope:g} ‖W‖₂")
            axes.semilogy(
                layers[:-1], shrunk.typical, "o-", color=color[g], markersize=2.5, linewidth=0.8, label="measured"
            )
    axes.set_ylim(0.12, 12)
    axes.set_yticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    axes.set_yticks([], minor=True)
    tidy(axes, "fitting: a layer's factor, its bound", "layer", "‖dZ[l]‖ / ‖dZ[l+1]‖")
    axes.legend(frameon=False, fontsize=7, ncols=2)

    axes = panels[1, 1]
    for g, values in first.items():
        axes.loglog(extent.depths, values, "o-", color=color[g], markersize=3, linewidth=1.0)
    tidy(axes, "fitting: ‖dW[1]‖ by depth", "hidden layers")

    axes = panels[1, 2]
    looks = zip(
        (("sigmoid", "-"), ("sigmoid", "--"), ("tanh", "-"), ("relu", ":"), ("relu", "-")), right.items(), strict=True
    )
    for (g, line), ((start, _), values) in looks:
        axes.semilogx(
            extent.depths, values, line, marker="o", color=color[g], markersize=3, linewidth=1.2, label=f"{g}, {start}"
        )
    tidy(axes, "right after training, by depth", "hidden layers")
    axes.legend(framealpha=0.85, edgecolor="none", fontsize=7, loc="center left")
    for axes in panels[1, 1:3]:
        axes.set_xticks(extent.depths, [str(depth) for depth in extent.depths])
        axes.set_xticks([], minor=True)

    axes = panels[1, 3]
    for start, marker in zip(NORMS, "osD^", strict=True):
        those = {g: case for (of, g), case in cases.items() if of == start}
        axes.plot([], [], marker, color="#444444", markersize=4, label=start)
        for g, case in those.items():
            axes.semilogx(case.factor, case.right, marker, color=color[g], markersize=4)
    axes.set_xticks([0.15, 0.25, 0.5, 1.0], ["0.15", "0.25", "0.5", "1"])
    axes.set_xticks([], minor=True)
    tidy(axes, f"right after training, {extent.learned} layers", "factor of ‖dZ‖ per layer")
    axes.legend(frameon=False, fontsize=7)
    return save(figure, path)


EXPERIMENT = Experiment(
    "vanishing",
    "gradients that vanish: their size layer by layer, by activation, start and normalisation",
    "How does a gradient's size change on its way back through the layers, and what keeps it?",
    run,
)
