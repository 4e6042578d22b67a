"""Two tasks that only a network with memory can learn, and what becomes of the gradient on its way through time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import TrainingError
from pellucid.inspect.pictures import new_figure, save
from pellucid.inspect.trace import trace
from pellucid.lab.base import COLORS, Experiment, Finding, Result, tidy
from pellucid.layers import GRU, LSTM, Dense, SimpleRNN, TimeDistributed
from pellucid.network import Sequential

DELAY = 3  # of the parity, in steps
_IRNN: dict[str, Any] = {"recurrent_initializer": "identity", "initializer": "normal(0.001)"}


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Teach the adding problem and a delayed parity to networks with and without memory; follow gradients back in time.

    Arguments:
        out: the folder for ``memory.png``.
        seed: of the data and the networks.
        quick: True takes short sequences, few of them and small networks.

    Raises:
        EngineError: matplotlib is not installed.
    """
    steps, units, examples, epochs, seeds = (100, 64, 20_000, 8, 2) if not quick else (12, 16, 6_000, 3, 1)
    sequences = max(1_000, examples // 20)
    curves = {
        name: [learn_adding(name, steps, units, examples, epochs, seed + each) for each in range(seeds)]
        for name in ("no memory", "SimpleRNN, tanh", "IRNN", "LSTM", "GRU")
    }
    parities = {
        name: learn_parity(name, 20, units // 2, sequences, 2 * epochs, seed)
        for name in ("no memory", "SimpleRNN, tanh", "LSTM")
    }
    shrinking = {name: norms_back_in_time(layer, steps, seed) for name, layer in untrained(units).items()}
    exploding = {clip: explode(clip, steps, units, examples // 10, seed) for clip in (None, 1.0, 0.1)}

    x, y = adding(np.random.default_rng(seed), 64, steps)
    bound, largest = tanh_bound(units, x, y, seed)
    least, coin = scatter(steps, seeds * (examples // 10)), 1 / math.sqrt(sequences // 4 * (20 - DELAY - 1))
    findings = (  # held-out examples are few: four standard deviations of what is measured on them
        Finding(
            "adding, no memory: least squared error that the last step allows", blind(steps), last(curves), 4 * least
        ),
        Finding("parity, no memory: accuracy", 0.5, parities["no memory"][-1], 4 * coin),
        *(
            Finding(
                f"ReLU, U = {slope:g} I, h > 0: factor of the gradient per step", slope, constant(slope, seed), 1e-4
            )
            for slope in (0.9, 1.0, 1.1)
        ),
        Finding(
            "LSTM at its start: factor along C per step, σ(forget bias 1)",
            1 / (1 + math.e**-1),
            forgetting(x, seed),
            0.03,
        ),
        Finding("tanh: steps back at which ‖dh‖ grows by more than ‖U‖₂", 0.0, float((largest > bound).sum()), 0.0),
    )
    rows = [
        (
            name,
            f"adding, T = {steps}",
            float(np.median([run[-1] for run in runs])),
            blind(steps),
            growth(shrinking.get(name)),
        )
        for name, runs in curves.items()
    ]
    rows += [(name, f"parity {DELAY} steps ago", run[-1], 0.5, None) for name, run in parities.items()]
    picture = draw(curves, parities, shrinking, exploding, steps, out / "memory.png")
    ended = {
        clip: "diverged" if norms[-1] is None else f"ended at {norms[-1]:.3g}" for clip, norms in exploding.items()
    }
    notes = (
        f"adding: the sum of the two marked of {steps} numbers from 0 to 1, one mark in each half; {examples:,} "
        f"examples, {epochs} epochs of Adam with clipping by norm 1, {units} units, the median of {seeds} seeds",
        f"parity: at every step, of the two bits {DELAY} and {DELAY + 1} steps ago; 20 steps",
        "no memory: the same layers without U: each answer is made of the present step alone",
        f"a ReLU network started at U = 1.03 I, batch gradient descent, its loss after 30 updates: {ended[None]} "
        f"without clipping, {ended[1.0]} with the norm clipped at 1, {ended[0.1]} at 0.1",
    )
    head = ("network", "task", "error, or accuracy of parity", "chance", "‖dh‖ at the first step ÷ at the last")
    return Result(head, tuple(rows), findings, picture, notes)


# --- the tasks ------------------------------------------------------------------------------------------------------


def adding(rng: np.random.Generator, m: int, T: int) -> tuple[np.ndarray, np.ndarray]:
    """The adding problem: x (m, T, 2) numbers and marks, y (m, 1) the sum of the two numbers that are marked.

    Source: Hochreiter and Schmidhuber 1997, section 5.4, in the form of Le, Jaitly and Hinton 2015.
    """
    x = np.zeros((m, T, 2), np.float32)
    x[..., 0] = rng.random((m, T))
    each, first, second = np.arange(m), rng.integers(0, T // 2, m), rng.integers(T // 2, T, m)
    x[each, first, 1] = x[each, second, 1] = 1.0
    return x, (x[each, first, 0] + x[each, second, 0])[:, None]


def delayed_parity(rng: np.random.Generator, m: int, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits x (m, T, 1), and at each step y (m, T, 1) whether the bits `DELAY` and one more steps ago differ."""
    x = rng.integers(0, 2, (m, T, 1))
    y = np.zeros((m, T, 1), np.int64)
    y[:, DELAY + 1 :] = x[:, 1 : T - DELAY] ^ x[:, : T - DELAY - 1]
    y[:, : DELAY + 1] = rng.integers(0, 2, (m, DELAY + 1, 1))  # before there is anything to remember: a coin
    return (2.0 * x - 1.0).astype(np.float32), y


def blind(T: int) -> float:
    """The least squared error that can be had from the last step alone: it is one of the two with chance p.

    Of the sum of two numbers, uniform from 0 to 1, the variance is 1/6; of one, 1/12.
    """
    p = 1.0 / (T - T // 2)
    return (1 - p) / 6 + p / 12


def scatter(T: int, m: int) -> float:
    """The relative standard deviation of that error over m examples.

    The squared deviation of the sum of two has the mean 1/6 and the mean square 1/15, of one 1/12 and 1/80.
    """
    p = 1.0 / (T - T // 2)
    return math.sqrt(((1 - p) / 15 + p / 80) / blind(T) ** 2 - 1) / math.sqrt(m)


def recurrent(name: str, units: int, **options: Any) -> Any:
    """The layer with memory that is called so."""
    if name == "IRNN":
        return SimpleRNN(units, "relu", **_IRNN, **options)
    return {"SimpleRNN, tanh": SimpleRNN, "LSTM": LSTM, "GRU": GRU}[name](units, **options)


def learn_adding(name: str, T: int, units: int, examples: int, epochs: int, seed: int) -> list[float]:
    """The held-out squared error after each epoch."""
    rng = np.random.default_rng([seed, 1])
    (x, y), (x_held, y_held) = adding(rng, examples, T), adding(rng, examples // 10, T)
    if name == "no memory":  # with nothing handed on, the answer of the last step is made of the last step
        x, x_held = x[:, -1], x_held[:, -1]
        layers: tuple[Any, ...] = (Dense(units, "relu"),)
        shape: tuple[int, ...] = (2,)
    else:
        layers, shape = (recurrent(name, units),), (T, 2)
    rate = {"LSTM": 3e-3, "GRU": 3e-3, "no memory": 1e-2}.get(name, 1e-3)
    net = Sequential(*layers, Dense(1), input_shape=shape, loss="mean_squared_error", seed=seed)
    history = net.fit(
        x,
        y,
        epochs=epochs,
        batch_size=100,
        optimizer=f"adam({rate}, clip_norm=1.0)",
        validation=(x_held, y_held),
        metrics=(),
        progress=False,
    )
    return [record["validation"]["loss"] for record in history]


def learn_parity(name: str, T: int, units: int, examples: int, epochs: int, seed: int) -> list[float]:
    """The held-out accuracy after each epoch, of the steps that have an answer."""
    rng = np.random.default_rng([seed, 2])
    (x, y), (x_held, y_held) = delayed_parity(rng, examples, T), delayed_parity(rng, examples // 4, T)
    first = (
        TimeDistributed(Dense(units, "tanh")) if name == "no memory" else recurrent(name, units, return_sequences=True)
    )
    net = Sequential(first, TimeDistributed(Dense(1)), input_shape=(T, 1), loss="sigmoid_cross_entropy", seed=seed)
    right = []
    for _ in range(epochs):
        net.fit(x, y, epochs=1, batch_size=50, optimizer="adam(3e-3, clip_norm=1.0)", metrics=(), progress=False)
        said = net.predict(x_held)[:, DELAY + 1 :] > 0.5
        right.append(float((said == y_held[:, DELAY + 1 :]).mean()))
    return right


def last(curves: dict[str, list[list[float]]]) -> float:
    """The error that the network without memory ended at."""
    return float(np.median([run[-1] for run in curves["no memory"]]))


# --- the gradient on its way back -----------------------------------------------------------------------------------


def untrained(units: int) -> dict[str, Any]:
    """Layers as they start, by the name they have in the picture."""
    return {
        "logistic": SimpleRNN(units, "sigmoid"),
        "SimpleRNN, tanh": SimpleRNN(units),
        "IRNN": recurrent("IRNN", units),
        "LSTM": LSTM(units),
        "LSTM, forget bias 4": LSTM(units, forget_bias=4.0),
        "GRU": GRU(units),
        "ReLU, U = 1.1 I": SimpleRNN(
            units, "relu", initializer="uniform(0, 0.1)", recurrent_initializer="identity(1.1)"
        ),
    }


def norms_back_in_time(layer: Any, T: int, seed: int) -> np.ndarray:
    """‖dh[t]‖ of every step, before any training, of the sum of squared errors of the adding problem."""
    x, y = adding(np.random.default_rng([seed, 3]), 64, T)
    net = Sequential(layer, Dense(1), input_shape=(T, 2), loss="squared_error", seed=seed, dtype="float64")
    dh = trace(net, np.moveaxis(x, 0, -1), y.T)[1].dh
    return np.sqrt((dh**2).sum(axis=(1, 2)))


def growth(norms: np.ndarray | None) -> float | None:
    """How much of the last step's gradient reaches the first."""
    return None if norms is None else float(norms[0] / norms[-1])


def constant(slope: float, seed: int) -> float:
    """The measured factor per step of a ReLU layer whose units never switch off."""
    layer = SimpleRNN(
        8,
        "relu",
        initializer="uniform(0, 0.1)",
        recurrent_initializer=f"identity({slope})",
        bias_initializer="constant(0.01)",
    )
    norms = norms_back_in_time(layer, 30, seed)
    return float((norms[0] / norms[-1]) ** (1 / 29))


def forgetting(x: np.ndarray, seed: int) -> float:
    """The geometric mean of an LSTM's forget gates before training: what the gradient along C is multiplied by."""
    net = Sequential(LSTM(32), Dense(1), input_shape=x.shape[1:], loss="squared_error", seed=seed, dtype="float64")
    f = trace(net, np.moveaxis(x, 0, -1), np.zeros((1, len(x))))[1].f
    return float(np.exp(np.log(f).mean()))


def tanh_bound(units: int, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
    """‖U‖₂, and what ‖dh‖ of each example is multiplied by in every step back."""
    net = Sequential(
        SimpleRNN(units), Dense(1), input_shape=x.shape[1:], loss="squared_error", seed=seed, dtype="float64"
    )
    norms = np.linalg.norm(trace(net, np.moveaxis(x, 0, -1), y.T)[1].dh, axis=1)
    bound = float(np.linalg.norm(net.parameters["simple_rnn_1"]["U"], 2))
    return bound * (1 + 1e-9), norms[:-1] / norms[1:]


def explode(clip: float | None, T: int, units: int, examples: int, seed: int) -> list[float | None]:
    """The loss after each update of a network whose gradient grows through time; None where it was no number."""
    x, y = adding(np.random.default_rng([seed, 4]), examples, T)
    layer = SimpleRNN(units, "relu", initializer="normal(0.001)", recurrent_initializer="identity(1.03)")
    net = Sequential(layer, Dense(1), input_shape=(T, 2), loss="mean_squared_error", seed=seed)
    losses: list[float | None] = []
    for update in range(30):
        try:
            history = net.fit(
                x,
                y,
                epochs=1,
                batch_size=None,
                optimizer=f"gradient_descent(0.01{f', clip_norm={clip}' if clip else ''})",
                metrics=(),
                progress=False,
                seed=update,
            )
        except TrainingError:
            return [*losses, None]
        losses.append(history["loss"][-1])
    return losses


# --- the picture ----------------------------------------------------------------------------------------------------


def draw(curves: Any, parities: Any, shrinking: Any, exploding: Any, T: int, path: Path) -> Path:
    """What was learned, and how the gradient shrinks or grows on its way back."""
    figure = new_figure(11.0, 7.2)
    (adding_panel, parity_panel), (gradient_panel, clip_panel) = figure.subplots(2, 2)
    colors = dict(zip(["no memory", "SimpleRNN, tanh", "IRNN", "LSTM", "GRU"], ("#999999", *COLORS), strict=False))

    tidy(adding_panel, f"adding problem, T = {T}", "epoch", "held-out squared error")
    for name, runs in curves.items():
        epochs = np.arange(1, len(runs[0]) + 1)
        adding_panel.plot(epochs, np.median(runs, axis=0), color=colors[name], linewidth=1.8, label=name)
        for each in runs:
            adding_panel.plot(epochs, each, color=colors[name], linewidth=0.7, alpha=0.5)
    adding_panel.axhline(blind(T), color="#444444", linewidth=1, linestyle=":", label="best without memory")
    adding_panel.set_yscale("log")
    adding_panel.legend(frameon=False, fontsize=8)

    tidy(parity_panel, f"parity of two bits {DELAY} steps ago", "epoch", "held-out accuracy")
    for name, right in parities.items():
        parity_panel.plot(np.arange(1, len(right) + 1), right, color=colors[name], linewidth=1.8, label=name)
    parity_panel.axhline(0.5, color="#444444", linewidth=1, linestyle=":", label="chance")
    parity_panel.set_ylim(0.45, 1.02)
    parity_panel.legend(frameon=False, fontsize=8, loc="center right")

    tidy(gradient_panel, "the gradient before training", "steps back from the end", "‖dh[t]‖ ÷ ‖dh[T]‖")
    others = {"logistic": COLORS[4], "LSTM, forget bias 4": COLORS[5], "ReLU, U = 1.1 I": COLORS[6]}
    for name, norms in shrinking.items():
        back = (norms / norms[-1])[::-1]
        gradient_panel.plot(np.arange(len(back)), back, linewidth=1.6, color={**colors, **others}[name], label=name)
    gradient_panel.set_yscale("log")
    gradient_panel.set_ylim(1e-12, 1e6)
    gradient_panel.legend(frameon=False, fontsize=7, ncols=2, loc="lower left")

    tidy(clip_panel, "a gradient that explodes: ReLU, U = 1.03 I", "update", "loss")
    for (clip, losses), color in zip(exploding.items(), (COLORS[1], COLORS[5], COLORS[0]), strict=True):
        shown = [each for each in losses if each is not None]
        label = f"clipped at norm {clip:g}" if clip else "not clipped"
        clip_panel.plot(np.arange(1, len(shown) + 1), shown, ".-", color=color, linewidth=1.4, label=label)
        if len(shown) < len(losses):
            clip_panel.plot(
                len(shown), shown[-1] if shown else 1, "x", color=color, markersize=9, label="no longer a number"
            )
    clip_panel.set_yscale("log")
    clip_panel.legend(frameon=False, fontsize=8)
    return save(figure, path)


EXPERIMENT = Experiment(
    "memory",
    "what only a network with memory can learn, and why some memories fade",
    "What can a network with memory learn that one without cannot, and how far back does its gradient reach?",
    run,
)
