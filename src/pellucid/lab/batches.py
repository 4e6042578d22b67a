"""Batch, mini-batch and stochastic descent: how good a batch's gradient is, what it costs, and what pays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.errors import TrainingError
from pellucid.inspect.pictures import new_figure, save
from pellucid.lab.base import COLORS, Experiment, Finding, Result, standardised_digits, tidy
from pellucid.layers import Dense
from pellucid.layers.base import PREDICT
from pellucid.network import Sequential
from pellucid.optimizers import GradientDescent
from pellucid.training.callbacks import Callback
from pellucid.trees import leaves

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
GOAL = 0.1  # the loss that descents race to
MOMENTS = ("start", "trained")


class Extent(NamedTuple):
    """How much a run does."""

    examples: int  # N
    sizes: tuple[int, ...]  # batches whose gradients are compared with the full one; N is added
    checked: tuple[int, ...]  # those of them whose noise is held to theory
    draws: int  # batches of each size
    epochs: dict[int, int]  # of a descent, by batch size
    seeds: int


FULL = Extent(
    1792,
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    (8, 64, 512),
    1000,
    {1: 20, 32: 60, 256: 200, 1792: 1000},
    3,
)
QUICK = Extent(256, (1, 16, 128), (16, 128), 300, {1: 2, 32: 6, 256: 30}, 1)


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Draw many batches and compare their gradients with the full one; then descend with batches of several sizes.

    Arguments:
        out: the folder for ``batches.png``.
        seed: of the network, the batches and the descents.
        quick: True takes fewer examples, sizes and epochs.

    Raises:
        EngineError: matplotlib is not installed.
    """
    extent = QUICK if quick else FULL
    N = extent.examples
    x, y = standardised_digits(N)
    net = network(seed, "float64")
    spread, seen, apart = {}, {}, {}
    for moment in MOMENTS:
        if moment == "trained":
            net.fit(x, y, epochs=5, optimizer=GradientDescent(0.1), metrics=(), progress=False)
        full = gradient(net, x, y)
        each = np.array([gradient(net, x[i : i + 1], y[i : i + 1]) for i in range(N)])
        spread[moment] = Spread(float(full @ full), float(((each - full) ** 2).sum(axis=1).mean()), N)
        apart[moment] = float(
            np.abs(np.mean([gradient(net, *part) for part in epoch(x, y, 32, seed)], axis=0) - full).max()
        )
        rng = np.random.default_rng([seed, 1])
        seen[moment] = {B: compared(net, x, y, full, B, extent.draws, rng) for B in extent.sizes}
    cost = {B: seconds_of_update(x, y, B) for B in sorted({*extent.sizes, *extent.epochs, N})}
    descents = {B: descend(x, y, B, epochs, seed, extent.seeds) for B, epochs in extent.epochs.items()}

    findings = (
        *(
            Finding(
                f"noise of B = {B}, {moment}: S / (B ‖g‖²) · (N-B) / (N-1)",
                spread[moment].noise(B),
                seen[moment][B][0],
                0.15,
            )
            for moment in MOMENTS
            for B in extent.checked
        ),
        *(
            Finding(f"cosine of B = {B}, {moment}: 1 / √(1 + noise)", spread[moment].cosine(B), seen[moment][B][1], 0.1)
            for moment in MOMENTS
            for B in extent.checked[1:]
        ),
        Finding("an epoch's batches, on average, and g: largest difference", 0.0, max(apart.values()), 1e-12),
    )
    rows = []
    for B in (*extent.sizes, N):
        quality = [value for moment in MOMENTS for value in beside(spread[moment], B, seen[moment].get(B))]
        rows.append((B, *quality, 1000 * cost[B], *price(descents.get(B), cost[B])))
    picture = draw(extent, spread, seen, cost, descents, out / "batches.png")
    equal = ", ".join(f"{each.S / each.g2:,.0f} ({moment})" for moment, each in spread.items())
    notes = (
        f"{N:,} of the digits, 64 inputs, 32 ReLU units, 10 classes, seed {seed}; {extent.draws:,} batches each",
        "noise: E‖g_B - g‖² / ‖g‖², drawn without replacement; foretold from the gradients of single examples",
        f"trained: after 5 epochs; noise equals signal at batches of {equal}",
        f"descents to a loss of {GOAL} on all examples: α the fastest of {', '.join(f'{rate:g}' for rate in RATES)} "
        f"on a seed of its own, then {extent.seeds}",
    )
    columns = [f"{what}, {moment}" for moment in MOMENTS for what in ("noise", "foretold", "cosine")]
    head = ("batch", *columns, "ms an update", "α", "updates", "epochs", "seconds")
    return Result(head, tuple(rows), findings, picture, notes)


def network(seed: int, dtype: str = "float32") -> Sequential:
    """64 inputs, 32 ReLU units, 10 classes."""
    return Sequential(
        Dense(32, "relu"), Dense(10), input_shape=64, loss="softmax_cross_entropy", seed=seed, dtype=dtype
    )


# --- how good a gradient is -----------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """How the gradients of single examples scatter about the full one, and what follows for batches.

    Attributes:
        g2: ‖g‖², of the full gradient.
        S: mean ‖g_i - g‖² over the examples.
        N: how many examples there are.

    Source: Cochran 1977, "Sampling Techniques", theorem 2.2; McCandlish et al. 2018, "An empirical model of
    large-batch training", section 2.2, where S / ‖g‖² is the simple noise scale.
    """

    g2: float
    S: float
    N: int

    def noise(self, B: int) -> float:
        """E‖g_B - g‖² / ‖g‖² = S/‖g‖² · (1/B) · (N-B)/(N-1), of a batch drawn without replacement."""
        return self.S / self.g2 / B * (self.N - B) / (self.N - 1)

    def cosine(self, B: int) -> float:
        """Of g_B and g, where the noise is at right angles to g: 1 / √(1 + noise)."""
        return 1 / math.sqrt(1 + self.noise(B))


def gradient(net: Sequential, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """All gradients of the mean loss on these examples as one vector."""
    _, grads = net.gradients(x.T, y)
    return np.concatenate([leaf.ravel() for _, leaf in leaves(grads)])


def epoch(x: np.ndarray, y: np.ndarray, B: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The examples in a random order, cut into batches of B."""
    order = np.random.default_rng(seed).permutation(len(x))
    return [(x[part], y[part]) for part in order.reshape(-1, B)]


def compared(
    net: Sequential, x: np.ndarray, y: np.ndarray, full: np.ndarray, B: int, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Mean ‖g_B - g‖² / ‖g‖² and mean cosine of g_B and g, over batches drawn without replacement."""
    noise, cosine = [], []
    norm = np.linalg.norm(full)
    for _ in range(draws):
        part = rng.choice(len(x), B, replace=False)
        g = gradient(net, x[part], y[part])
        noise.append(np.sum((g - full) ** 2) / norm**2)
        cosine.append(g @ full / max(np.linalg.norm(g) * norm, np.finfo(float).tiny))
    return float(np.mean(noise)), float(np.mean(cosine))


def beside(spread: Spread, B: int, seen: tuple[float, float] | None) -> tuple[float | None, float, float | None]:
    """Noise, foretold noise and cosine of a batch size; all of the examples have no noise."""
    noise, cosine = seen or (0.0, 1.0)
    return noise, spread.noise(B), cosine


# --- what it costs, and what pays -----------------------------------------------------------------------------------


def seconds_of_update(x: np.ndarray, y: np.ndarray, B: int) -> float:
    """The time of an update with B examples: the fastest of 40 short epochs, the one least disturbed by others."""
    m = min(len(x), 16 * B)
    history = network(0).fit(x[:m], y[:m], epochs=40, **_options(B, 0.01))
    return min(history["seconds"]) / math.ceil(m / B)


class Descent(NamedTuple):
    """Training with one batch size.

    Attributes:
        rate: α.
        updates: after which the loss was looked at.
        loss: of all examples then; mean over the seeds.
        per_epoch: updates of an epoch.
    """

    rate: float
    updates: np.ndarray
    loss: np.ndarray
    per_epoch: int

    def to_goal(self) -> int | None:
        """The updates to a loss of `GOAL`; None where it is not reached."""
        reached = np.flatnonzero(self.loss <= GOAL)
        return int(self.updates[reached[0]]) if len(reached) else None


class Losses(Callback):
    """The loss of all examples, up to 28 times an epoch."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.updates: list[int] = []
        self.values: list[float] = []

    def on_update(self, training):
        if training.t % max(1, training.batches_per_epoch // 28) == 0:
            net = training.net
            inputs, targets = net.checked(self.x.T), net.checked_targets(self.y)
            self.updates.append(training.t)
            self.values.append(float(net.objective(training.params, training.state, inputs, targets, mode=PREDICT)))


def price(descent: Descent | None, seconds: float) -> tuple[float | None, ...]:
    """α, and the updates, epochs and seconds to `GOAL` at so many seconds an update."""
    if descent is None or (updates := descent.to_goal()) is None:
        return descent and descent.rate, None, None, None
    return descent.rate, updates, round(updates / descent.per_epoch, 2), updates * seconds


def descend(x: np.ndarray, y: np.ndarray, B: int, epochs: int, seed: int, seeds: int) -> Descent:
    """Gradient descent with batches of B, at the rate that is fastest to `GOAL` on a seed of its own."""

    def train(rate: float, *seeds: int) -> Descent:
        watched = []
        for each in seeds:
            watched.append(Losses(x, y))
            network(each).fit(x, y, epochs=epochs, callbacks=[watched[-1]], **_options(B, rate))
        loss = np.mean([each.values for each in watched], axis=0)
        return Descent(rate, np.array(watched[0].updates), loss, math.ceil(len(x) / B))

    def speed(rate: float) -> tuple[float, float]:
        try:
            done = train(rate, seed + seeds)
        except TrainingError:
            return math.inf, math.inf
        return done.to_goal() or math.inf, float(done.loss[-1])

    return train(min(RATES, key=speed), *range(seed, seed + seeds))


def _options(B: int, rate: float) -> dict[str, Any]:
    return {"batch_size": B, "optimizer": GradientDescent(rate), "metrics": (), "progress": False}


# --- the picture ----------------------------------------------------------------------------------------------------


def draw(
    extent: Extent,
    spread: dict[str, Spread],
    seen: dict[str, dict[int, tuple[float, float]]],
    cost: dict[int, float],
    descents: dict[int, Descent],
    path: Path,
) -> Path:
    """Noise, cosine and cost by batch size; the loss by updates, epochs and seconds."""
    figure = new_figure(13.0, 7.4)
    panels = figure.subplots(2, 3)
    sizes = np.array(extent.sizes)
    line = np.unique(np.geomspace(1, extent.examples - 1, 200).astype(int))
    for moment, color in zip(MOMENTS, COLORS, strict=False):
        theory = spread[moment]
        noise, cosine = zip(*(seen[moment][B] for B in extent.sizes), strict=True)
        panels[0, 0].loglog(line, [theory.noise(B) for B in line], color=color, linewidth=1.0)
        panels[0, 0].loglog(sizes, noise, "o", color=color, markersize=4, label=moment)
        panels[0, 1].semilogx(line, [theory.cosine(B) for B in line], color=color, linewidth=1.0)
        panels[0, 1].semilogx(sizes, cosine, "o", color=color, markersize=4, label=moment)
    panels[0, 0].axhline(1.0, color="#999999", linewidth=0.8, linestyle="--", label="noise equals signal")
    tidy(panels[0, 0], "noise of a batch's gradient (lines: foretold)", "batch size B", "E‖g_B − g‖² / ‖g‖²")
    tidy(panels[0, 1], "its cosine with the full one (lines: foretold)", "batch size B")

    axes = panels[0, 2]
    all_sizes = np.array(list(cost))
    axes.loglog(all_sizes, 1000 * np.array(list(cost.values())), "o-", color=COLORS[0], markersize=4, label="measured")
    per_example = cost[extent.examples] / extent.examples
    axes.loglog(all_sizes, 1000 * per_example * all_sizes, "--", color="#999999", label="in proportion to B")
    tidy(axes, "what an update costs", "batch size B", "ms")

    for (B, descent), color in zip(descents.items(), COLORS, strict=False):
        label = f"{'all ' * (extent.examples == B)}{B:,}, α = {descent.rate:g}"
        for axes, scale in zip(panels[1], (1.0, 1 / descent.per_epoch, cost[B]), strict=True):
            axes.loglog(descent.updates * scale, descent.loss, color=color, linewidth=1.2, label=label)
    for axes, unit in zip(panels[1], ("updates", "epochs", "seconds"), strict=True):
        axes.axhline(GOAL, color="#999999", linewidth=0.8, linestyle="--")
        axes.set_ylim(bottom=3e-4)
        tidy(axes, f"loss by {unit}", unit)
    for axes in (*panels[0], panels[1, 0]):
        axes.legend(frameon=False, fontsize=8)
    return save(figure, path)


EXPERIMENT = Experiment(
    "batches",
    "batch, mini-batch and stochastic descent: the quality of a gradient against its cost",
    "How good is the gradient of a few examples, and is a better one worth its price?",
    run,
)
