"""Under- and overfitting, what helps against it, and dropout as the ensemble of all its sub-networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.history import History
from pellucid.inspect.pictures import new_figure, save
from pellucid.lab.base import COLORS, Experiment, Finding, Result, digits, mean_and_interval, tidy
from pellucid.layers import Dense, Dropout, Flatten
from pellucid.network import Sequential
from pellucid.optimizers import Adam
from pellucid.regularizers import L2
from pellucid.training.callbacks import EarlyStopping

EXAMPLES, UNITS = 100, 128  # where neither is the question
SMALL = 12  # units of the network whose 2¹² sub-networks are all run
REMEDIES: dict[str, tuple[dict[str, Any], ...]] = {  # the settings that validation chooses from
    "none": ({},),
    "early stopping": ({"patience": 5}, {"patience": 10}, {"patience": 20}),
    "L2": ({"l2": 3e-4}, {"l2": 3e-3}, {"l2": 3e-2}),
    "dropout": ({"dropout": 0.2}, {"dropout": 0.5}, {"dropout": 0.7}),
    "augmentation": ({"augment": ("shift(1)",)}, {"augment": ("shift(1)", "rotate(15)")}, {"augment": ("rotate(15)",)}),
}


class Data(NamedTuple):
    """Three parts of the digits."""

    x: np.ndarray
    y: np.ndarray
    validation: tuple[np.ndarray, np.ndarray]
    held: tuple[np.ndarray, np.ndarray]


class Extent(NamedTuple):
    """How much a run does."""

    units: tuple[int, ...]
    examples: tuple[int, ...]
    epochs: int
    tuning_seeds: int
    seeds: int
    samples: int  # sub-networks


FULL = Extent((1, 2, 4, 8, 16, 32, 64, 128, 256), (25, 50, 100, 200, 400, 597), 300, 2, 10, 300)
QUICK = Extent((2, 128), (25, 100), 60, 1, 2, 20)


class Score(NamedTuple):
    """Of one trained network."""

    train_loss: float
    loss: float
    accuracy: float
    train_accuracy: float


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Vary capacity, data and remedies; run every sub-network of a network with dropout.

    Arguments:
        out: the folder for ``overfitting.png``.
        seed: the first of all seeds.
        quick: True takes fewer sizes, seeds and epochs.

    Raises:
        EngineError: matplotlib is not installed.
    """
    extent = QUICK if quick else FULL
    seeds = range(seed + extent.tuning_seeds, seed + extent.tuning_seeds + extent.seeds)
    capacity = {n: [score(n, EXAMPLES, extent.epochs, each) for each in seeds[:5]] for n in extent.units}
    amount = {m: [score(UNITS, m, extent.epochs, each) for each in seeds[:5]] for m in extent.examples}
    settings = {name: chosen(name, extent, seed) for name in REMEDIES}
    remedies = {called(name, setting): setting for name, setting in settings.items()}
    remedies["all of them"] = {key: value for setting in settings.values() for key, value in setting.items()}
    helped = {
        said: [score(UNITS, EXAMPLES, extent.epochs, each, **remedy) for each in seeds]
        for said, remedy in remedies.items()
    }
    small = train(SMALL, draw_data(EXAMPLES, seed), extent.epochs, seed, dropout=0.5)[0]
    deep = train(UNITS, draw_data(EXAMPLES, seed), extent.epochs, seed, dropout=0.5, layers=2)[0]
    held = draw_data(EXAMPLES, seed).held
    ensemble, single = sampled(deep, *held, extent.samples)
    rows: list[tuple[Any, ...]] = [
        *(("capacity", f"{n} units", *averages(scores), None, None) for n, scores in capacity.items()),
        *(("data", f"{m} examples", *averages(scores), None, None) for m, scores in amount.items()),
        *(("remedy", said, *averages(scores), *against(scores, helped["none"])) for said, scores in helped.items()),
    ]
    for k in (1, 10, extent.samples):
        loss, right = ensemble[k - 1] if k > 1 else single.mean(axis=0)
        said = f"mean of {k} sub-networks" if k > 1 else "one sub-network"
        rows.append(("dropout", said, None, float(loss), None, float(right), None, None, None))
    scaled = log_softmax(deep.forward(np.moveaxis(held[0], 0, -1))[0])
    loss, right = cross_entropy(scaled, held[1]), accuracy(scaled, held[1])
    rows.append(("dropout", "weights scaled", None, loss, None, right, None, None, None))
    found, gap = findings(small, held, capacity)
    history = train(UNITS, draw_data(EXAMPLES, seeds[0]), extent.epochs, seeds[0], watch=True)[1]
    picture = draw(capacity, amount, helped, history, ensemble, scaled, held[1], gap, out / "overfitting.png")
    notes = (
        f"digits; {EXAMPLES} examples to learn from, 200 for validation, 1,000 held out, other ones for each seed; one "
        f"hidden layer of {UNITS} ReLU units, Adam at 0.003, {extent.epochs} epochs in batches of 32",
        f"remedy: the setting with the lowest validation loss of {extent.tuning_seeds} seeds, then {len(seeds)} more; "
        f"capacity and data: {len(seeds[:5])} seeds; ± is a 95 % interval; against none: seed by seed",
        "early stopping alone needs the validation examples in every training; the others only to be chosen",
        f"dropout: two hidden layers of {UNITS}, rate 0.5; the mean of probabilities, on the held-out examples",
        f"all {2**SMALL:,} sub-networks of {SMALL} units: the arithmetic mean differs from the scaled network by up to "
        f"{gap['arithmetic'].max():.3f}",
    )
    head = ("what", "setting", "training loss", "held-out loss", "±", "accuracy", "± ", "loss against none", " ±")
    return Result(head, tuple(rows), found, picture, notes)


# --- training ---------------------------------------------------------------------------------------------------------


def draw_data(examples: int, seed: int) -> Data:
    """Examples to learn from, 200 to validate with, 1,000 held out."""
    x, y, *held = digits(1000, seed=seed)
    order = np.random.default_rng(seed).permutation(len(y))
    chosen, validation = order[200 : 200 + examples], order[:200]
    return Data(x[chosen], y[chosen], (x[validation], y[validation]), (held[0], held[1]))


def train(
    units: int,
    data: Data,
    epochs: int,
    seed: int,
    *,
    layers: int = 1,
    dropout: float = 0.0,
    l2: float = 0.0,
    augment: tuple[str, ...] = (),
    patience: int | None = None,
    watch: bool = False,
) -> tuple[Sequential, History]:
    """A network with the remedies asked for; ``watch`` measures the held-out examples after every epoch."""
    hidden = [each for _ in range(layers) for each in (Dense(units, "relu"), *[Dropout(dropout)] * bool(dropout))]
    net = Sequential(
        *(Flatten(), *hidden, Dense(10)),
        input_shape=(1, 8, 8),
        loss="softmax_cross_entropy",
        seed=seed,
        dtype="float64",
        regularizer=L2(l2) if l2 else None,
    )
    history = net.fit(
        data.x,
        data.y,
        epochs=epochs,
        batch_size=32,
        optimizer=Adam(3e-3),
        validation=data.held if watch else data.validation if patience else None,
        callbacks=[EarlyStopping(patience)] if patience else [],
        augment=augment,
        metrics=(),
        progress=False,
    )
    return net, history


def score(units: int, examples: int, epochs: int, seed: int, **remedy: Any) -> Score:
    """A training judged by the held-out examples."""
    data = draw_data(examples, seed)
    net, _ = train(units, data, epochs, seed, **remedy)
    seen, held = net.evaluate(data.x, data.y), net.evaluate(*data.held)
    return Score(seen["loss"], held["loss"], held["accuracy"], seen["accuracy"])


def chosen(name: str, extent: Extent, seed: int) -> dict[str, Any]:
    """The setting of a remedy with the lowest validation loss."""

    def validation_loss(remedy: dict[str, Any]) -> float:
        losses = []
        for each in range(seed, seed + extent.tuning_seeds):
            data = draw_data(EXAMPLES, each)
            net, _ = train(UNITS, data, extent.epochs, each, **remedy)
            losses.append(net.evaluate(*data.validation)["loss"])
        return float(np.mean(losses))

    settings = REMEDIES[name]
    return settings[0] if len(settings) == 1 else min(settings, key=validation_loss)


def called(name: str, setting: dict[str, Any]) -> str:
    """A remedy with its setting, for people."""
    if name == "augmentation":
        return " + ".join(setting["augment"])
    return " ".join([name, *(f"{value:g}" for value in setting.values())]).replace("stopping ", "stopping, patience ")


def averages(scores: list[Score]) -> tuple[float, ...]:
    """Training loss; held-out loss and accuracy, each with its interval."""
    train_loss, loss, accuracy, _ = np.transpose(scores)
    return float(train_loss.mean()), *mean_and_interval(loss), *mean_and_interval(accuracy)


def against(scores: list[Score], none: list[Score]) -> tuple[float, float]:
    """How much the held-out loss changes, seed by seed, with its interval: all of a seed but the remedy is the same."""
    return mean_and_interval([each.loss - other.loss for each, other in zip(scores, none, strict=True)])


# --- dropout as an ensemble -------------------------------------------------------------------------------------------


def log_softmax(Z: np.ndarray) -> np.ndarray:
    """log of the softmax over the first axis."""
    Z = Z - Z.max(axis=0)
    return Z - np.log(np.exp(Z).sum(axis=0))


def cross_entropy(log_probabilities: np.ndarray, y: np.ndarray) -> float:
    """The mean loss; probabilities (classes, m)."""
    return float(-log_probabilities[y, np.arange(len(y))].mean())


def accuracy(log_probabilities: np.ndarray, y: np.ndarray) -> float:
    """The share that is right."""
    return float(np.mean(log_probabilities.argmax(axis=0) == y))


def sampled(net: Sequential, x: np.ndarray, y: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy of the mean probabilities of 1, 2, … sub-networks, (samples, 2), and each one's own."""
    X, total, ensemble, single = np.moveaxis(x, 0, -1), 0.0, [], []
    for k in range(1, samples + 1):
        each = log_softmax(net.forward(X, train=True, update=k)[0])
        total = total + np.exp(each)
        mean = np.log(total / k)
        ensemble.append((cross_entropy(mean, y), accuracy(mean, y)))
        single.append((cross_entropy(each, y), accuracy(each, y)))
    return np.array(ensemble), np.array(single)


def every_subnetwork(net: Sequential, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of all 2¹² sub-networks, (2¹², classes, m), and the hidden activations A, (12, m)."""
    first, last = net.parameters["dense_1"], net.parameters["dense_2"]
    A = np.maximum(first["W"] @ x.reshape(len(x), -1).T + first["b"], 0)
    D = np.arange(2**SMALL)[:, None, None] >> np.arange(SMALL)[:, None] & 1  # (2¹², 12, 1): every mask once
    return last["W"] @ (A * D / 0.5) + last["b"], A


def findings(net: Sequential, held: tuple, capacity: dict[int, list[Score]]) -> tuple[tuple[Finding, ...], dict]:
    """The ensemble's identities, and the memory of a wide network; with it the means' distances from the network."""
    x, widest = held[0][:100], max(capacity)
    Z, A = every_subnetwork(net, x)
    scaled = np.exp(log_softmax(net.forward(np.moveaxis(x, 0, -1))[0]))
    each = np.stack([log_softmax(logits) for logits in Z])
    geometric = np.exp(log_softmax(each.mean(axis=0)))  # normalised again, as a geometric mean must be
    gap = {"geometric": np.abs(geometric - scaled), "arithmetic": np.abs(np.exp(each).mean(axis=0) - scaled)}
    W, targets = net.parameters["dense_2"]["W"], np.eye(10)[:, held[1][:100]]
    plain = W @ A + net.parameters["dense_2"]["b"]
    squared = 0.5 * ((plain - targets) ** 2).sum(axis=0) + 0.5 * (W**2).sum(axis=0) @ A**2
    dropped = 0.5 * ((Z - targets) ** 2).sum(axis=1).mean(axis=0)
    remembered = float(np.mean([each.train_accuracy for each in capacity[widest]]))
    return (
        Finding(f"all {len(Z):,} sub-networks: geometric mean - scaled one", 0.0, float(gap["geometric"].max()), 1e-12),
        Finding(
            "squared error, their mean: undropped + ½ rate/(1 - rate) Σ w² a²",
            float(squared.mean()),
            float(dropped.mean()),
            1e-12,
        ),
        Finding(f"training accuracy of {widest} units, more than examples", 1.0, remembered, 0.0),
    ), gap


# --- the picture ------------------------------------------------------------------------------------------------------


def draw(
    capacity: dict, amount: dict, remedies: dict, history: History, ensemble: np.ndarray, scaled: np.ndarray,
    y: np.ndarray, gap: dict, path: Path,
) -> Path:  # fmt: skip
    """Losses by capacity, data and epoch; below, the remedies and the ensemble."""
    figure = new_figure(14.0, 8.2)
    panels = figure.subplots(2, 3)
    for axes, scores, label in ((panels[0, 0], capacity, "hidden units"), (panels[0, 1], amount, "examples")):
        for which, name, color in ((0, "training", COLORS[0]), (1, "held out", COLORS[1])):
            mean, half = np.transpose([mean_and_interval([s[which] for s in each]) for each in scores.values()])
            axes.errorbar(list(scores), mean, half, fmt="o-", color=color, linewidth=1.6, markersize=4, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(list(scores), list(map(str, scores)))
        axes.set_xticks([], minor=True)
        axes.legend(frameon=False, fontsize=9)
        tidy(axes, f"loss by {label}", label)
    axes = panels[0, 2]
    for name, label, color in (("loss", "training", COLORS[0]), ("validation_loss", "held out", COLORS[1])):
        axes.plot(history.epochs, history[name], color=color, linewidth=1.6, label=label)
    best = history.best("validation_loss")
    axes.plot(best["epoch"], best["validation"]["loss"], "o", color=COLORS[1])
    axes.annotate(f"best: epoch {best['epoch']}", (best["epoch"], best["validation"]["loss"]), xytext=(0, 12),
                  textcoords="offset points", fontsize=8, ha="center")  # fmt: skip
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=9)
    tidy(axes, "loss of one training", "epoch")

    changes = {
        "held-out loss against none, seed by seed": lambda each, other: each.loss - other.loss,
        "held-out accuracy": lambda each, other: each.accuracy,
    }
    for axes, (label, change) in zip(panels[1], changes.items(), strict=False):
        for place, scores in enumerate(remedies.values()):
            values = [change(*pair) for pair in zip(scores, remedies["none"], strict=True)]
            mean, half = mean_and_interval(values)
            color = COLORS[place % len(COLORS)]
            axes.plot(values, [place] * len(values), "|", color=color, alpha=0.5)
            axes.errorbar(mean, place, xerr=half, fmt="o", color=color, capsize=3)
        axes.set_yticks(range(len(remedies)), remedies if axes is panels[1, 0] else [""] * len(remedies))
        axes.invert_yaxis()
        tidy(axes, label)
    panels[1, 0].axvline(0.0, color="#999999", linewidth=1.0)
    axes = panels[1, 2]
    axes.plot(np.arange(1, len(ensemble) + 1), ensemble[:, 0], color=COLORS[0], linewidth=1.6, label="mean of k")
    axes.axhline(cross_entropy(scaled, y), color=COLORS[1], linestyle="--", linewidth=1.6, label="weights scaled")
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=9)
    tidy(axes, "dropout: held-out loss of k sub-networks' mean", "k")
    return save(figure, path)


EXPERIMENT = Experiment(
    "overfitting",
    "capacity, data and remedies; dropout as an ensemble",
    "When does a network learn its examples by heart, what helps against it, and what is it that dropout averages?",
    run,
)
