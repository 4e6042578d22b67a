"""What normalising buys: the rates at which a network still learns, and the invariance behind it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.errors import TrainingError
from pellucid.inspect.pictures import new_figure, save
from pellucid.lab.base import COLORS, Experiment, Finding, Result, digits, mean_and_interval, tidy
from pellucid.layers import BatchNorm, Conv2D, Dense, Flatten, Layer, LayerNorm, LocalResponseNorm, MaxPool2D, ReLU
from pellucid.network import Sequential
from pellucid.network.base import Observer
from pellucid.optimizers import GradientDescent
from pellucid.training.callbacks import Callback

KINDS: dict[str, tuple[bool, type[Layer] | None]] = {  # whether inputs are standardised, and what follows a convolution
    "raw pixels": (False, None),
    "standardised": (True, None),
    "batch": (True, BatchNorm),
    "layer": (True, LayerNorm),
    "local response": (True, LocalResponseNorm),
    "raw, batch": (False, BatchNorm),
}
COLOR = dict(zip(KINDS, ("#999999", COLORS[0], COLORS[1], COLORS[2], COLORS[3], "#000000"), strict=True))
CHANNELS = (8, 16, 16, 32)
LEARNED = 0.5  # a mean training loss that counts as learning
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)


class Extent(NamedTuple):
    """How much a run does."""

    rates: tuple[float, ...]
    seeds: int
    epochs: int


FULL = Extent((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), 3, 5)
QUICK = Extent((0.1, 1.0), 1, 1)


class Training(NamedTuple):
    """One training."""

    losses: np.ndarray  # of each update's batch, infinite from a divergence on
    loss: float  # of all training examples, at the end
    accuracy: float  # held-out


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Train one convolutional network with every kind of normalisation at many learning rates.

    Arguments:
        out: the folder for ``normalization.png``.
        seed: the first of all seeds.
        quick: True takes few rates, one seed and one epoch.

    Raises:
        EngineError: matplotlib is not installed.
    """
    extent = QUICK if quick else FULL
    data = {standardised: prepared(standardised, seed) for standardised in (False, True)}
    runs = {
        (name, rate): [train(name, rate, data[KINDS[name][0]], extent.epochs, each) for each in seeds(extent, seed)]
        for name in KINDS
        for rate in extent.rates
    }
    rows = []
    for name in KINDS:
        ends = {rate: np.mean([each.loss for each in runs[name, rate]]) for rate in extent.rates}
        best = min(ends, key=lambda rate: ends[rate])
        learning = [rate for rate, loss in ends.items() if loss < LEARNED]
        loss = mean_and_interval([each.loss for each in runs[name, best]])
        accuracy = mean_and_interval([each.accuracy for each in runs[name, best]])
        rows.append((name, *((min(learning), max(learning)) if learning else (None, None)), best, *loss, *accuracy))
    slopes = {name: gradients_by_scale(name, data, seed) for name in KINDS if KINDS[name][0]}
    limits = {standardised: (edge(data[standardised]), limit(data[standardised])) for standardised in data}
    picture = draw(extent, runs, slopes, data, seed, out / "normalization.png")
    notes = (
        f"digits: {len(data[True][1])} examples to learn from, {len(data[True][3])} held out; convolutions 3×3 of "
        f"{', '.join(map(str, CHANNELS))} channels with ReLU, pooling after the second, and a dense layer",
        f"gradient descent, {extent.epochs} epochs in batches of 64, {len(extent.rates)} rates from "
        f"{extent.rates[0]:g} to {extent.rates[-1]:g}, {extent.seeds} seeds each; ± is a 95 % interval at the best",
        f"learns: mean training loss at the end below {LEARNED:g}",
        "raw: pixels from 0 to 16; standardised: each pixel to mean 0 and variance 1 over the training examples; batch "
        "and layer normalisation stand before ReLU, local response normalisation behind it, as in AlexNet",
    )
    head = ("normalised", "learns from rate", "to rate", "best rate", "loss", "±", "held-out accuracy", "± ")
    return Result(head, tuple(rows), findings(slopes, limits, data, seed), picture, notes)


def seeds(extent: Extent, seed: int) -> range:
    """Of the trainings."""
    return range(seed, seed + extent.seeds)


def prepared(standardised: bool, seed: int) -> tuple[np.ndarray, ...]:
    """x, y to learn from, x, y held out: pixels from 0 to 16, or standardised by the training examples."""
    x, y, x_held, y_held = digits(0.2, seed=seed)
    mean, std = (x.mean(axis=0), x.std(axis=0)) if standardised else (0.0, 1 / 16)
    std = np.where(std == 0, 1.0, std).astype(np.float32)  # pixels at the edge are 0 in every example
    return (x - mean) / std, y, (x_held - mean) / std, y_held


def network(name: str, seed: int) -> Sequential:
    """Four convolutions, normalised in one of the ways."""
    norm = KINDS[name][1]
    layers: list[Layer] = []
    for index, channels in enumerate(CHANNELS):
        behind: list[Layer] = [ReLU()]
        if norm:
            behind.insert(1 if norm is LocalResponseNorm else 0, norm())
        layers += [Conv2D(channels, 3, padding=1, initializer="he_normal"), *behind, *[MaxPool2D(2)] * (index == 1)]
    return Sequential(*layers, Flatten(), Dense(10), input_shape=(1, 8, 8), loss="softmax_cross_entropy", seed=seed)


def train(name: str, rate: float, data: tuple, epochs: int, seed: int) -> Training:
    """The network trained once; where it diverges the loss is infinite."""
    x, y, x_held, y_held = data
    net = network(name, seed)
    losses: list[float] = []

    class Watch(Callback):
        def on_update(self, training: Any) -> None:
            losses.append(training.last_loss())

    try:
        options: Any = {"batch_size": 64, "epochs": epochs, "metrics": (), "progress": False}
        net.fit(x, y, optimizer=GradientDescent(rate), callbacks=[Watch()], **options)
        with np.errstate(over="ignore", invalid="ignore"):
            loss, accuracy = net.evaluate(x, y)["loss"], net.evaluate(x_held, y_held)["accuracy"]
    except TrainingError:
        loss, accuracy = math.inf, math.nan
    updates = epochs * math.ceil(len(y) / 64)
    curve = np.array([*losses, *[math.inf] * (updates - len(losses))])
    return Training(np.where(np.isfinite(curve), curve, math.inf), loss if math.isfinite(loss) else math.inf, accuracy)


# --- the invariance ---------------------------------------------------------------------------------------------------


class Sizes(Observer):
    """Notes what enters and leaves every layer."""

    def __init__(self, net: Sequential) -> None:
        self.net = net
        self.passed: list[tuple[Layer, np.ndarray, np.ndarray]] = []

    def forward(self, index: int, A_prev: Any, A: Any, cache: Any) -> None:
        self.passed.append((self.net.steps[index].layer, A_prev, A))


def observed(net: Sequential, data: tuple) -> tuple[Sizes, Any]:
    """What passes through the layers, and the gradients, of the first 256 examples."""
    sizes = Sizes(net)
    done = net.checked_iteration(np.moveaxis(data[0][:256], 0, -1), data[1][:256], observer=sizes)
    return sizes, done.grads


def gradients_by_scale(name: str, data: dict, seed: int) -> tuple[np.ndarray, float]:
    """‖dW‖ of the second convolution with W multiplied by each scale, and the cosine of W and dW."""
    norms, cosine = [], math.nan
    for scale in SCALES:
        net = network(name, seed)
        W = net.parameters["conv2d_2"]["W"]
        net.parameters = {**net.parameters, "conv2d_2": {**net.parameters["conv2d_2"], "W": W * np.float32(scale)}}
        dW = observed(net, data[KINDS[name][0]])[1]["conv2d_2"]["W"]
        norms.append(float(np.linalg.norm(dW)))
        if scale == 1.0:
            cosine = float(np.vdot(W, dW) / (np.linalg.norm(W) * np.linalg.norm(dW)))
    return np.array(norms), cosine


# --- a linear layer, where the limit is known -------------------------------------------------------------------------


def eigenvalues(data: tuple) -> np.ndarray:
    """Of the loss's second derivative for a linear layer with squared error: E x xᵀ, with a 1 for the bias."""
    x = data[0].reshape(len(data[0]), -1).astype(np.float64)
    x = np.hstack([x, np.ones((len(x), 1))])
    return np.linalg.eigvalsh(x.T @ x / len(x))


def limit(data: tuple) -> float:
    """Above this rate gradient descent on a linear layer diverges: 2 / λ_max."""
    return float(2 / eigenvalues(data)[-1])


def linear_descent(data: tuple, rate: float, updates: int) -> np.ndarray:
    """‖gradient‖ before each update of a linear layer from pixels to classes, by batch gradient descent."""
    x, y = data[0].reshape(len(data[0]), -1).T, np.eye(10)[:, data[1]]
    net = Sequential(Dense(10), input_shape=64, loss="squared_error", dtype="float64", seed=0)
    norms = []
    with np.errstate(all="ignore"):
        for _ in range(updates):
            grads = net.gradients(x, y)[1]["dense_1"]
            norms.append(math.sqrt(sum(float(np.sum(g**2)) for g in grads.values())))
            if not norms[-1] < 1e12:
                break
            net.parameters = {"dense_1": {k: W - rate * grads[k] for k, W in net.parameters["dense_1"].items()}}
    return np.array(norms)


def edge(data: tuple) -> float:
    """The rate above which the gradient grows, found by halving an interval from 10⁻⁵ to 10."""
    low, high = math.log(1e-5), math.log(10.0)
    while high - low > 5e-3:
        rate = math.exp((low + high) / 2)
        norms = linear_descent(data, rate, 80)
        low, high = (low, math.log(rate)) if not norms[-1] < norms[len(norms) // 2] else (math.log(rate), high)
    return math.exp((low + high) / 2)


def findings(slopes: dict, limits: dict, data: dict, seed: int) -> tuple[Finding, ...]:
    """Statistics behind the layers, invariance, and the linear layer's limits."""
    passed = {name: observed(network(name, seed), data[True])[0].passed for name in ("batch", "local response")}
    behind = [A.reshape(len(A), -1) for layer, _, A in passed["batch"] if isinstance(layer, BatchNorm)]
    means, variances = (np.concatenate([getattr(A, what)(axis=1) for A in behind]) for what in ("mean", "var"))
    lrn = [(A_prev, A) for layer, A_prev, A in passed["local response"] if isinstance(layer, LocalResponseNorm)]
    factor = np.concatenate([(A[A_prev > 0] / A_prev[A_prev > 0]).ravel() for A_prev, A in lrn])
    found = [
        Finding("mean behind batch normalisation, the largest", 0.0, float(np.abs(means).max()), 1e-4),
        Finding("variance there: σ² / (σ² + ε), mean", 1.0, float(variances.mean()), 1e-3),
    ]
    for name in ("batch", "layer"):
        norms, cosine = slopes[name]
        found += [
            Finding(f"‖dW‖ with 10 W beside that with W, {name}: 1/10", 0.1, float(norms[-1] / norms[2]), 2e-2),
            Finding(f"cosine of W and dW, {name}", 0.0, cosine, 1e-3),
        ]
    found.append(
        Finding("local response normalisation of small activities: 2^-0.75", 2**-0.75, float(factor.mean()), 0.02)
    )
    for standardised, (measured, predicted) in limits.items():
        what = "standardised" if standardised else "raw"
        found.append(Finding(f"largest rate of a linear layer, {what} pixels: 2 / λ_max", predicted, measured, 0.02))
    return tuple(found)


# --- the picture ------------------------------------------------------------------------------------------------------


def draw(extent: Extent, runs: dict, slopes: dict, data: dict, seed: int, path: Path) -> Path:
    """Losses by rate and by update; the size of signals, the invariance, and the linear layer."""
    figure = new_figure(14.0, 8.2)
    panels = figure.subplots(2, 3)
    by_rate, slow, fast, sizes, invariance, linear = panels.ravel()
    for name, color in COLOR.items():
        ends = [np.mean([min(each.loss, 10.0) for each in runs[name, rate]]) for rate in extent.rates]
        by_rate.plot(extent.rates, ends, "o-", color=color, linewidth=1.5, markersize=4, label=name)
        for axes, rate in ((slow, 0.1), (fast, 1.0)):
            mean = np.mean([np.minimum(each.losses, 10.0) for each in runs[name, rate]], axis=0)
            smooth = np.convolve(mean, np.ones(8) / 8, "valid")
            axes.plot(np.arange(len(smooth)) + 8, smooth, color=color, linewidth=1.5)
        passed = observed(network(name, seed), data[KINDS[name][0]])[0].passed
        entering = [float(np.sqrt(np.mean(A_prev**2))) for layer, A_prev, _ in passed if isinstance(layer, ReLU)]
        sizes.plot(range(1, len(entering) + 1), entering, "o-", color=color, linewidth=1.5, markersize=4)
    for name, (norms, _) in slopes.items():
        invariance.plot(SCALES, norms / norms[2], "o-", color=COLOR[name], linewidth=1.5, markersize=4)
    invariance.plot(SCALES, 1 / np.array(SCALES), ":", color="#222222", linewidth=1.6)
    for standardised, name in ((False, "raw pixels"), (True, "standardised")):
        norms = linear_descent(data[standardised], 0.95 * limit(data[standardised]), 300)
        linear.plot(norms / norms[0], color=COLOR[name], linewidth=1.5)
    for axes in panels.ravel():
        axes.set_yscale("log")
    by_rate.set_xscale("log")
    invariance.set_xscale("log")
    sizes.set_xticks(range(1, len(CHANNELS) + 1))
    tidy(
        by_rate, f"training loss after {extent.epochs} epochs by learning rate", "learning rate (drawn at 10: diverged)"
    )
    tidy(slow, "loss at rate 0.1", "updates")
    tidy(fast, "loss at rate 1", "updates")
    tidy(sizes, "root mean square of what enters ReLU, at the start", "convolution")
    tidy(invariance, "‖dW‖ with c W beside ‖dW‖ with W (dotted: 1/c)", "c")
    tidy(linear, "a linear layer at 0.95 of its largest rate: ‖gradient‖", "updates")
    figure.legend(*by_rate.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return save(figure, path)


EXPERIMENT = Experiment(
    "normalization",
    "standardised inputs, batch, layer and local response normalisation",
    "At which learning rates does a network still learn when its inputs or its layers are normalised, and why?",
    run,
)
