"""The ways to descend: their rates on a bowl against theory, their paths, and one network trained by each."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid import engines
from pellucid.errors import TrainingError
from pellucid.inspect.pictures import new_figure, save
from pellucid.lab.base import COLORS, Experiment, Finding, Result, digits, mean_and_interval, tidy
from pellucid.layers import Dense, Flatten
from pellucid.layers.base import PREDICT
from pellucid.network import Sequential
from pellucid.optimizers import AdaGrad, Adam, AdamW, GradientDescent, Lion, Momentum, Nesterov, Optimizer, RMSprop
from pellucid.training.callbacks import Callback

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "gradient descent": GradientDescent,
    "momentum": Momentum,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSprop": RMSprop,
    "Adam": Adam,
    "AdamW": AdamW,
    "Lion": Lion,
}
DRAWN = ("gradient descent", "momentum", "RMSprop", "Adam")  # of the paths: more would hide one another
COLOR = dict(zip(OPTIMIZERS, COLORS, strict=True))
RATES = tuple(float(f"{10**exponent:.1g}") for exponent in np.arange(-4.5, 0.6, 0.5))
LEARNED = 0.1  # a training loss that counts as learned
PATH_RATES = tuple(10.0 ** np.arange(-4.0, 0.6, 0.125))
EVERY = 10  # updates between two looks at the whole training set
CURVATURE = np.array([1.0, 25.0])  # λ, of the bowl along its two axes
KAPPA = CURVATURE[1] / CURVATURE[0]


class Extent(NamedTuple):
    """How much a run does."""

    epochs: int
    rates: tuple[float, ...]
    tuning_seeds: int
    seeds: int
    steps: int  # on the bowl and in the valley


FULL = Extent(20, RATES, 3, 10, 200)
QUICK = Extent(2, RATES[2:8:2], 1, 2, 40)


class Trajectory(NamedTuple):
    """One training."""

    updates: np.ndarray
    seconds: np.ndarray  # spent on updates
    losses: np.ndarray  # of the whole training set
    accuracy: float  # held-out


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Measure convergence on a bowl, draw paths, and train one network by every optimizer at its best rate.

    Arguments:
        out: the folder for ``optimizers.png``.
        seed: the first of all seeds.
        quick: True takes few rates, epochs and seeds.

    Raises:
        EngineError: matplotlib is not installed.
    """
    extent = QUICK if quick else FULL
    data = digits(0.2, seed=seed)
    ends = {name: np.empty((len(extent.rates), extent.tuning_seeds)) for name in OPTIMIZERS}
    for name, losses in ends.items():
        for place in np.ndindex(losses.shape):
            trained = train(OPTIMIZERS[name](extent.rates[place[0]]), data, extent.epochs, seed + place[1])
            losses[place] = trained.losses[-1]
    best = {name: extent.rates[int(losses.mean(axis=1).argmin())] for name, losses in ends.items()}
    fresh = range(seed + extent.tuning_seeds, seed + extent.tuning_seeds + extent.seeds)
    trained_by: dict[str, list[Trajectory]] = {name: [] for name in OPTIMIZERS}
    for each in fresh:  # in turns, so that a busy machine slows all alike
        for name, kind in OPTIMIZERS.items():
            trained_by[name].append(train(kind(best[name]), data, extent.epochs, each))
    rows = tuple(row(name, best[name], runs) for name, runs in trained_by.items())
    picture = draw(extent, ends, trained_by, out / "optimizers.png")
    at_edge = [name for name, rate in best.items() if rate in (extent.rates[0], extent.rates[-1])]
    notes = (
        f"digits: {len(data[1])} examples to learn from, {len(data[3])} held out; network 64-64-64-10 with ReLU; "
        f"{extent.epochs} epochs in batches of 64",
        f"each optimizer at the best of {len(extent.rates)} learning rates from {extent.rates[0]:g} to "
        f"{extent.rates[-1]:g}, by the training loss at the end, mean of {extent.tuning_seeds} seeds",
        f"then {extent.seeds} seeds that chose nothing; a seed gives all of them the same start and the same batches; "
        "± is a 95 % interval",
        f"loss: of the whole training set; learned: the first look, one every {EVERY} updates, with a mean loss below "
        f"{LEARNED:g}; µs of a processor",
        *([f"best at the edge of the grid: {', '.join(at_edge)}"] if at_edge else []),
    )
    head = ("optimizer", "best rate", "loss", "±", "held-out accuracy", "± ", "learned after updates", "µs per update")
    return Result(head, rows, findings(), picture, notes)


def row(name: str, rate: float, runs: list[Trajectory]) -> tuple[Any, ...]:
    """The table's row of an optimizer."""
    mean = np.mean([each.losses for each in runs], axis=0)
    learned = int(runs[0].updates[np.argmax(mean < LEARNED)]) if (mean < LEARNED).any() else None
    cost = np.median([each.seconds[-1] / each.updates[-1] for each in runs])
    loss, accuracy = ([each.losses[-1] for each in runs], [each.accuracy for each in runs])
    return (name, rate, *mean_and_interval(loss), *mean_and_interval(accuracy), learned, round(1e6 * float(cost)))


# --- a network ------------------------------------------------------------------------------------------------------


class Watch(Callback):
    """Notes the loss of all training examples on the way, and the time that the updates took."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y, self.seconds = x, y, 0.0
        self.seen: list[tuple[int, float, float]] = []

    def on_start(self, training: Any) -> None:
        self.X, self.Y = training.net.checked(np.moveaxis(self.x, 0, -1)), training.net.checked_targets(self.y)
        self.look(training)

    def on_update(self, training: Any) -> None:
        if training.t % EVERY == 0:
            self.seconds += time.process_time() - self.clock
            self.look(training)

    def look(self, training: Any) -> None:
        loss = training.net.objective(training.params, training.state, self.X, self.Y, mode=PREDICT)
        self.seen.append((training.t, self.seconds, float(loss)))
        self.clock = time.process_time()


def train(optimizer: Optimizer, data: tuple, epochs: int, seed: int) -> Trajectory:
    """The network trained once; where it diverges the loss is infinite."""
    x, y, x_held, y_held = data
    net = Sequential(
        Flatten(),
        Dense(64, "relu"),
        Dense(64, "relu"),
        Dense(10),
        input_shape=(1, 8, 8),
        loss="softmax_cross_entropy",
        seed=seed,
    )
    watch = Watch(x, y)
    try:
        net.fit(x, y, optimizer=optimizer, batch_size=64, epochs=epochs, metrics=(), callbacks=[watch], progress=False)
    except TrainingError:
        watch.seen.append((watch.seen[-1][0] + EVERY, watch.seconds, np.inf))
    updates, seconds, losses = np.array(watch.seen).T
    accuracy = net.evaluate(x_held, y_held)["accuracy"] if np.isfinite(losses[-1]) else np.nan
    return Trajectory(updates, seconds, losses, accuracy)


# --- two dimensions ---------------------------------------------------------------------------------------------------


class Landscape(NamedTuple):
    """A function of two numbers, w₁ and w₂."""

    height: Callable
    gradient: Callable
    start: tuple[float, float]
    goal: tuple[float, float]
    frame: tuple[tuple[float, float], tuple[float, float]]


BOWL = Landscape(
    lambda x, y: (CURVATURE[0] * x**2 + CURVATURE[1] * y**2) / 2,
    lambda w: CURVATURE * w,
    start=(-9.0, 2.0),
    goal=(0.0, 0.0),
    frame=((-10.0, 3.0), (-2.8, 2.8)),
)
VALLEY = Landscape(  # Rosenbrock's, with 20 for 100
    lambda x, y: (1 - x) ** 2 + 20 * (y - x**2) ** 2,
    lambda w: np.array([-2 * (1 - w[0]) - 80 * w[0] * (w[1] - w[0] ** 2), 40 * (w[1] - w[0] ** 2)]),
    start=(-1.5, 1.0),
    goal=(1.0, 1.0),
    frame=((-1.8, 1.5), (-0.9, 1.9)),
)


def descend(optimizer: Optimizer, gradient: Callable, start: tuple[float, float], steps: int) -> np.ndarray:
    """The points passed, (steps + 1, 2)."""
    ops, alpha = engines.get("numpy"), optimizer.schedule.rate(0, 1, {})
    params: Any = {"w": np.array(start)}
    slots = optimizer.init(params)
    points = [np.array(start)]
    for t in range(1, steps + 1):
        params, slots = optimizer.update(ops, params, {"w": gradient(params["w"])}, slots, learning_rate=alpha, t=t)
        points.append(params["w"].copy())
    return np.array(points)


def convergence(optimizer: Optimizer) -> float:
    """What the distance from the bowl's bottom is multiplied by at each update, once the start is forgotten."""
    points = descend(optimizer, BOWL.gradient, (1.0, 1.0), 400)
    # two points are the whole memory of a method with momentum: their norm does not dip where the path swings through
    logs = np.log(np.hypot(*np.linalg.norm([points[200:400], points[201:]], axis=2)))
    return float(np.exp(np.polyfit(np.arange(len(logs)), logs, 1)[0]))


def findings() -> tuple[Finding, ...]:
    """Convergence on the bowl, and first steps."""
    low, high = CURVATURE
    best, mu, alpha = 2 / (low + high), 0.9, 1 / high

    def first_step(optimizer: Optimizer) -> float:
        return float(np.abs(np.diff(descend(optimizer, BOWL.gradient, (1e-3, 40.0), 1), axis=0)).mean())

    return (
        Finding(
            "gradient descent at α = 2 / (λ₁ + λ₂): (κ - 1) / (κ + 1)",
            (KAPPA - 1) / (KAPPA + 1),
            convergence(GradientDescent(best)),
            1e-6,
        ),
        Finding("the same at α = 1 / λ₂: 1 - α λ₁", 1 - alpha * low, convergence(GradientDescent(alpha)), 1e-6),
        Finding(
            "beyond the limit, α = 2.02 / λ₂, it grows: α λ₂ - 1", 1.02, convergence(GradientDescent(2.02 / high)), 1e-6
        ),
        Finding("momentum μ = 0.9 at α = 1 / λ₂: √μ", np.sqrt(mu), convergence(Momentum(alpha, mu)), 2e-3),
        Finding(
            "Nesterov's: √(μ (1 - α λ₁))",
            np.sqrt(mu * (1 - alpha * low)),
            convergence(Nesterov(alpha, mu)),
            2e-3,
        ),
        Finding("Adam's first step at α = 0.1, on gradients of 0.001 and 1000: α", 0.1, first_step(Adam(0.1)), 1e-4),
        Finding("RMSprop's, with ρ = 0.9: α / √(1 - ρ)", 0.1 / np.sqrt(0.1), first_step(RMSprop(0.1, decay=0.9)), 1e-4),
    )


def best_momentum() -> Momentum:
    """α = (2 / (√λ₁ + √λ₂))², μ = ((√κ - 1) / (√κ + 1))²: both axes at the edge of swinging (Polyak 1964)."""
    root = np.sqrt(KAPPA)
    return Momentum(float((2 / np.sqrt(CURVATURE).sum()) ** 2), float(((root - 1) / (root + 1)) ** 2))


def best_path(kind: type[Optimizer], slope: Landscape, steps: int, *, inside: bool = False) -> np.ndarray:
    """Of the paths with many rates, the one that ends nearest to the goal; ``inside`` the frame all the way."""
    with np.errstate(all="ignore"):
        paths = [descend(kind(rate), slope.gradient, slope.start, steps) for rate in PATH_RATES]
        ends = np.array([np.linalg.norm(path[-1] - slope.goal) for path in paths])
    low, high = np.array(slope.frame).T
    leaves = np.array([not ((path >= low) & (path <= high)).all() for path in paths])
    return paths[int(np.nanargmin(np.where(leaves & inside, np.nan, ends)))]


# --- the picture ------------------------------------------------------------------------------------------------------


def draw(extent: Extent, ends: dict, trained_by: dict[str, list[Trajectory]], path: Path) -> Path:
    """Paths and distances in two dimensions; below, the network's losses."""
    figure = new_figure(14.0, 8.4)
    panels = figure.subplots(2, 3)
    draw_paths(panels[0, 0], BOWL, extent.steps)
    tidy(panels[0, 0], "a bowl 25 times as steep one way as the other", "w₁", "w₂")
    draw_distances(panels[0, 1], extent.steps)
    draw_paths(panels[0, 2], VALLEY, extent.steps)
    tidy(panels[0, 2], f"a bent valley: {extent.steps} updates", "w₁", "w₂")

    by_update, by_second, by_rate = panels[1]
    for name, runs in trained_by.items():
        losses = np.array([each.losses for each in runs])
        middle = np.exp(np.log(losses).mean(axis=0))
        seconds = np.median([each.seconds for each in runs], axis=0)
        for axes, x in ((by_update, runs[0].updates), (by_second, 1e3 * seconds)):
            axes.plot(x, middle, color=COLOR[name], linewidth=1.6, label=name)
        finite = np.where(np.isfinite(ends[name]), ends[name], 1e3).mean(axis=1)
        by_rate.plot(extent.rates, np.minimum(finite, 10.0), "o-", color=COLOR[name], linewidth=1.4, markersize=3.5)
    for axes in panels[1]:
        axes.set_yscale("log")
    by_rate.set_xscale("log")
    by_rate.set_ylim(top=6.0)
    tidy(by_update, "digits, each at its best rate: training loss", "updates")
    tidy(by_second, "the same by the time that updates took", "milliseconds of a processor")
    tidy(by_rate, "training loss at the end by learning rate", "learning rate")
    figure.legend(*by_update.get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    return save(figure, path)


def draw_paths(axes: Any, slope: Landscape, steps: int) -> None:
    """Contours, and paths over them."""
    x, y = slope.frame
    height = slope.height(*np.meshgrid(np.linspace(*x, 200), np.linspace(*y, 200)))
    axes.contourf(np.log1p(height), 14, extent=(*x, *y), cmap="Greys", alpha=0.35)
    for name in DRAWN:
        path = best_path(OPTIMIZERS[name], slope, steps, inside=True)
        axes.plot(*path.T, ".-", color=COLOR[name], linewidth=1.1, markersize=2.5, alpha=0.85)
    axes.plot(*slope.goal, "*", color="black", markersize=9)


def draw_distances(axes: Any, steps: int) -> None:
    """How far from the bowl's bottom, with the best that theory grants to gradient descent and to momentum."""
    for name, kind in OPTIMIZERS.items():
        axes.plot(np.linalg.norm(best_path(kind, BOWL, steps), axis=1), color=COLOR[name], linewidth=1.4)
    best = np.linalg.norm(descend(best_momentum(), BOWL.gradient, BOWL.start, steps), axis=1)
    axes.plot(best, "--", color=COLOR["momentum"], linewidth=1.4)
    t = np.arange(steps + 1)
    for kappa in (KAPPA, np.sqrt(KAPPA)):
        axes.plot(t, best[0] * ((kappa - 1) / (kappa + 1)) ** t, ":", color="#222222", linewidth=1.6)
    said = "dotted: ((κ - 1)/(κ + 1))ᵗ\nand ((√κ - 1)/(√κ + 1))ᵗ\ndashed: momentum with the best μ"
    axes.text(0.98, 0.04, said, transform=axes.transAxes, fontsize=8, ha="right", color="#444444")
    axes.set_yscale("log")
    axes.set_ylim(1e-14, 30)
    tidy(axes, "distance from the bowl's bottom", "updates t")


EXPERIMENT = Experiment(
    "optimizers",
    "eight ways to descend, each at its best learning rate",
    "What do momentum and adaptive rates buy over gradient descent, and does the theory of the bowl hold?",
    run,
)
