"""How a deep network starts: the size of its signals by layer against theory, symmetry, and what can be learned."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.errors import TrainingError
from pellucid.inspect.pictures import new_figure, save
from pellucid.lab.base import Experiment, Finding, Result, digits, mean_and_interval, tidy
from pellucid.layers import Activation, Dense, Flatten, ReLU, Tanh
from pellucid.network import Sequential
from pellucid.network.base import Observer
from pellucid.optimizers import Momentum
from pellucid.training.callbacks import Callback

DEPTH, WIDTH = 8, 100  # hidden layers, and units of each
GAIN = {"relu": math.sqrt(2), "tanh": 1.0}  # of the orthogonal start: ReLU passes half of the mean square
START = {  # the initializer, and the variance of an entry of W by fan_in, fan_out and gain; None: nothing is random
    "zeros": ("zeros", None),
    "constant": ("constant(0.05)", None),
    "too small": ("normal(0.05)", lambda n_in, n_out, gain: 0.05**2),
    "too large": ("normal(0.5)", lambda n_in, n_out, gain: 0.5**2),
    "LeCun": ("lecun_normal", lambda n_in, n_out, gain: 1 / n_in),
    "Xavier": ("xavier_normal", lambda n_in, n_out, gain: 2 / (n_in + n_out)),
    "He": ("he_normal", lambda n_in, n_out, gain: 2 / n_in),
    "orthogonal": ("orthogonal({gain})", lambda n_in, n_out, gain: gain**2 / max(n_in, n_out)),
}
_COLORS = ("#000000", "#999999", "#56B4E9", "#D55E00", "#CC79A7", "#E69F00", "#0072B2", "#009E73")
COLOR = dict(zip(START, _COLORS, strict=True))
LABEL = {"relu": "ReLU", "tanh": "tanh"}
SPREAD = {
    "zeros": "zeros",
    "constant": "constant(0.05)",
    "constant ± 10⁻⁶": "normal(1e-6, mean=0.05)",
    "Xavier": "xavier_normal",
}


class Extent(NamedTuple):
    """How much a run does."""

    draws: int  # of the parameters, for the size of the signals
    rates: tuple[float, ...]
    tuning_seeds: int
    seeds: int
    epochs: int


FULL = Extent(300, (0.003, 0.01, 0.03, 0.1), 2, 5, 12)
QUICK = Extent(10, (0.03,), 0, 2, 1)


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Follow signals and gradients through eight hidden layers at the start, then train from it.

    Arguments:
        out: the folder for ``initialization.png``.
        seed: the first of all seeds.
        quick: True takes fewer draws, rates, seeds and epochs.

    Raises:
        EngineError: matplotlib is not installed.
    """
    extent = QUICK if quick else FULL
    data = digits(0.2, seed=seed)
    kinds = [(g, name) for g in GAIN for name in START]
    sizes = {kind: signals(*kind, data, range(seed, seed + extent.draws)) for kind in kinds}
    learned = {kind: trainings(*kind, data, extent, seed) for kind in kinds}
    rows = []
    for (g, name), (forward, _) in sizes.items():
        predicted = foretold(g, name, float(np.mean(data[0] ** 2)))
        rate, _, (loss, accuracy) = learned[g, name]
        last = None if predicted is None else predicted[-1]
        rows.append((g, name, last, forward[-1], rate, *mean_and_interval(loss), *mean_and_interval(accuracy)))
    spreads = {name: spread(start, data, extent.epochs, seed) for name, start in SPREAD.items()}
    picture = draw(sizes, learned, spreads, float(np.mean(data[0] ** 2)), out / "initialization.png")
    notes = (
        f"digits: {len(data[1])} examples to learn from, {len(data[3])} held out; network 64-{DEPTH}×{WIDTH}-10",
        f"mean Z²: in the last hidden layer before training, mean of {extent.draws} draws; foretold by the "
        "initializer alone",
        f"learned: momentum 0.9, {extent.epochs} epochs in batches of 64, each at the best of {len(extent.rates)} "
        f"rates from {extent.rates[0]:g} to {extent.rates[-1]:g} by the training loss of {extent.tuning_seeds} "
        f"seeds; then {extent.seeds} others, ± is a 95 % interval",
        "too small: N(0, 0.05²); too large: N(0, 0.5²); constant: 0.05; orthogonal: gain √2 with ReLU, 1 with tanh",
    )
    head = ("g", "start", "mean Z² foretold", "measured", "best rate", "loss", "±", "held-out accuracy", "± ")
    return Result(head, tuple(rows), findings(sizes, spreads, data, learned, extent), picture, notes)


def network(g: str, name: str, seed: int) -> Sequential:
    """Eight hidden layers that start in one of the ways; biases are 0."""
    kind: type[Activation] = {"relu": ReLU, "tanh": Tanh}[g]
    start = START[name][0].format(gain=GAIN[g])
    hidden = [layer for _ in range(DEPTH) for layer in (Dense(WIDTH, initializer=start), kind())]
    last = Dense(10, initializer=start)
    return Sequential(Flatten(), *hidden, last, input_shape=(1, 8, 8), loss="softmax_cross_entropy", seed=seed)


# --- the size of signals ----------------------------------------------------------------------------------------------


class Sizes(Observer):
    """Notes the mean squares of Z and dZ of every hidden layer."""

    def __init__(self, net: Sequential) -> None:
        dense = [index for index, step in enumerate(net.steps) if isinstance(step.layer, Dense)][:-1]
        self.place = {index: l for l, index in enumerate(dense)}
        self.Z, self.dZ = np.zeros(DEPTH), np.zeros(DEPTH)

    def forward(self, index: int, A_prev: Any, A: Any, cache: Any) -> None:
        if index in self.place:
            self.Z[self.place[index]] = np.mean(np.square(A, dtype=np.float64))

    def backward(self, index: int, dA: Any, dA_prev: Any, grads: Any) -> None:
        if index in self.place:
            self.dZ[self.place[index]] = np.mean(np.square(dA, dtype=np.float64))


def signals(g: str, name: str, data: tuple, seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Mean Z² and mean dZ² of each hidden layer, over examples, units and draws of the parameters."""
    x, y = data[0][:64], data[1][:64]
    seen = []
    net = network(g, name, seeds[0])
    for seed in seeds if START[name][1] else seeds[:1]:
        net.initialize(seed)
        sizes = Sizes(net)
        net.checked_iteration(np.moveaxis(x, 0, -1), y, observer=sizes)
        seen.append((sizes.Z, sizes.dZ))
    forward, backward = np.mean(seen, axis=0)
    return forward, backward


def foretold(g: str, name: str, mean_square: float) -> np.ndarray | None:
    """Mean Z² of each hidden layer by theory; None where nothing is random.

    q[1] = n[0] σ² mean x²        q[l] = n[l-1] σ² E g(√q[l-1] ζ)²,  ζ ~ N(0, 1);  of ReLU that is q[l-1]/2
    """
    variance = START[name][1]
    if variance is None:
        return None
    q = [64 * variance(64, WIDTH, GAIN[g]) * mean_square]
    for _ in range(DEPTH - 1):
        q.append(WIDTH * variance(WIDTH, WIDTH, GAIN[g]) * passed(g, q[-1]))
    return np.array(q)


def passed(g: str, q: float) -> float:
    """E g(√q ζ)² for ζ ~ N(0, 1): what an activation leaves of the mean square."""
    if g == "relu":
        return q / 2
    at, weight = _quadrature()
    return float(weight @ np.tanh(math.sqrt(q) * at) ** 2 / math.sqrt(2 * math.pi))


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.hermite_e.hermegauss(201)


def per_layer(sizes: np.ndarray) -> float:
    """The factor from hidden layer to hidden layer, their geometric mean."""
    return float((sizes[-1] / sizes[0]) ** (1 / (DEPTH - 1)))


# --- learning ---------------------------------------------------------------------------------------------------------


def train(net: Sequential, rate: float, data: tuple, epochs: int) -> tuple[list[float], float, float]:
    """Training loss of each epoch; loss and held-out accuracy at the end, infinite and NaN where it diverged."""
    x, y, x_held, y_held = data
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            history = net.fit(x, y, optimizer=Momentum(rate), batch_size=64, epochs=epochs, metrics=(), progress=False)
    except TrainingError:
        return [math.nan] * epochs, math.inf, math.nan
    return history["loss"], net.evaluate(x, y)["loss"], net.evaluate(x_held, y_held)["accuracy"]


def trainings(g: str, name: str, data: tuple, extent: Extent, seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    """The best rate; then of each seed the losses by epoch, and loss and held-out accuracy at the end."""
    tuning = range(seed, seed + extent.tuning_seeds)

    def at(rate: float, seeds: range) -> list:
        return [train(network(g, name, each), rate, data, extent.epochs) for each in seeds]

    rate = (
        extent.rates[0]
        if not tuning
        else min(extent.rates, key=lambda rate: np.mean([loss for _, loss, _ in at(rate, tuning)]))
    )
    runs = at(rate, range(tuning.stop, tuning.stop + extent.seeds))
    return rate, np.array([each[0] for each in runs]), np.array([each[1:] for each in runs]).T


def spread(start: str, data: tuple, epochs: int, seed: int) -> np.ndarray:
    """After each update of a network with one hidden layer: the largest difference between two units' weights."""
    found = []

    class Watch(Callback):
        def on_update(self, training: Any) -> None:
            found.append(float(np.ptp(training.params["dense_1"]["W"], axis=0).max()))

    layers = Flatten(), Dense(WIDTH, "tanh", initializer=start), Dense(10, initializer=start)
    net = Sequential(*layers, input_shape=(1, 8, 8), loss="softmax_cross_entropy", seed=seed)
    net.fit(*data[:2], optimizer=Momentum(0.03), batch_size=64, epochs=epochs, callbacks=[Watch()], progress=False)
    return np.array(found)


def findings(sizes: dict, spreads: dict, data: tuple, learned: dict, extent: Extent) -> tuple[Finding, ...]:
    """Factors per layer, and symmetry."""

    def factor(name: str, which: int) -> float:
        return per_layer(sizes["relu", name][which][:: 1 - 2 * which])  # gradients go from the last layer to the first

    tolerance = 0.04 if extent is FULL else 0.15
    share = np.bincount(data[1]) / len(data[1])
    zeros = learned["relu", "zeros"][2][0].mean()
    tanh = foretold("tanh", "Xavier", float(np.mean(data[0] ** 2)))
    assert tanh is not None
    return (
        Finding("mean Z², ReLU, from layer to layer, He: n (2/n) / 2", 1.0, factor("He", 0), tolerance),
        Finding("LeCun: n (1/n) / 2", 0.5, factor("LeCun", 0), tolerance),
        Finding("orthogonal, gain √2: gain² / 2", 1.0, factor("orthogonal", 0), tolerance),
        Finding("too small: n 0.05² / 2", WIDTH * 0.05**2 / 2, factor("too small", 0), tolerance),
        Finding("too large: n 0.5² / 2", WIDTH * 0.5**2 / 2, factor("too large", 0), tolerance),
        Finding("mean dZ², back from layer to layer, He: n (2/n) / 2", 1.0, factor("He", 1), tolerance),
        Finding("LeCun: n (1/n) / 2", 0.5, factor("LeCun", 1), tolerance),
        Finding(
            "mean Z² in the last hidden layer, tanh, Xavier", tanh[-1], sizes["tanh", "Xavier"][0][-1], 2.5 * tolerance
        ),
        Finding("zeros: largest difference between two units after training", 0.0, spreads["zeros"][-1], 1e-12),
        Finding("constant: the same, beside weights of 0.05", 0.0, spreads["constant"][-1], 1e-5),
        Finding("zeros: loss after training: entropy of the classes", float(-share @ np.log(share)), zeros, 0.02),
    )


# --- the picture ------------------------------------------------------------------------------------------------------


def draw(sizes: dict, learned: dict, spreads: dict[str, np.ndarray], mean_square: float, path: Path) -> Path:
    """Signals by layer, measured as points and foretold as lines; below, what was learned."""
    figure = new_figure(14.0, 8.2)
    panels = figure.subplots(2, 3)
    layers = np.arange(1, DEPTH + 1)
    for axes, g in zip(panels[0], GAIN, strict=False):
        for name in START:
            q = foretold(g, name, mean_square)
            if q is not None:
                axes.plot(layers, q, color=COLOR[name], linewidth=1.2)
                axes.plot(layers, sizes[g, name][0], "o", color=COLOR[name], markersize=5)
        axes.set_yscale("log")
        tidy(axes, f"{LABEL[g]}: mean Z², foretold (lines) and measured", "hidden layer")
    axes = panels[0, 2]
    for name, (_, variance) in START.items():
        if variance is not None:
            backward = sizes["relu", name][1]
            factor = WIDTH * variance(WIDTH, WIDTH, GAIN["relu"]) / 2
            axes.plot(layers, backward[-1] * factor ** (DEPTH - layers), color=COLOR[name], linewidth=1.2)
            axes.plot(layers, backward, "o", color=COLOR[name], markersize=5)
    axes.set_yscale("log")
    tidy(axes, "ReLU: mean dZ², going back", "hidden layer")
    for axes, g in zip(panels[1], GAIN, strict=False):
        for name in START:
            curves = learned[g, name][1]
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(epochs, np.exp(np.log(curves).mean(axis=0)), color=COLOR[name], linewidth=1.7, label=name)
        axes.set_yscale("log")
        axes.set_ylim(top=10.0)
        tidy(axes, f"{LABEL[g]}: training loss, each at its best rate", "epoch")
    axes = panels[1, 2]
    for (name, values), style in zip(spreads.items(), ("-", "--", ":", "-."), strict=True):
        axes.plot(np.maximum(values, 1e-9), style, color="#222222", linewidth=1.6, label=name)
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=9)
    tidy(axes, "one layer, tanh: largest difference between two units", "updates (0 is drawn at 10⁻⁹)")
    figure.legend(*panels[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    return save(figure, path)


EXPERIMENT = Experiment(
    "initialization",
    "eight ways to start a deep network",
    "Why must the weights start random, and why at just this size?",
    run,
)
