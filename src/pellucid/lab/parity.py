"""The parity of n bits: networks constructed for it, and what learning finds of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.errors import ParameterError
from pellucid.inspect.pictures import new_figure, save
from pellucid.inspect.trace import trace
from pellucid.lab.base import COLORS, Experiment, Finding, Result, mean_and_interval, tidy
from pellucid.layers import Dense
from pellucid.network import Sequential
from pellucid.network.parameters import count
from pellucid.optimizers import Adam, global_norm
from pellucid.training.callbacks import Callback

Row = tuple[Any, ...]
Weights = list[tuple[np.ndarray, np.ndarray]]  # W and b of each layer; ReLU behind all but the last
BATCH = 32
JUDGED = 4096  # unseen inputs, at most


class Extent(NamedTuple):
    """How much a run does."""

    bits: int  # of the largest networks constructed
    learned: int  # bits, where all inputs are learned
    sizes: tuple[int, ...]  # about how many parameters learn them
    depths: tuple[int, ...]
    seeds: int
    unseen: tuple[int, ...]  # bits, where some of the inputs are learned
    examples: int  # to learn from there, at most
    unseen_seeds: int
    signal: int  # bits, up to which the gradient's signal is measured
    updates: int  # of the parameters, at most


FULL = Extent(16, 8, (50, 100, 200, 400, 800), (1, 2, 3, 4), 20, (6, 8, 10, 12, 14, 16, 20), 2048, 5, 14, 2000)
QUICK = Extent(8, 4, (30, 100), (1, 2), 3, (6, 20), 256, 2, 6, 150)


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Construct four networks for parity and verify them on every input; let others of equal size learn it.

    Arguments:
        out: the folder for ``parity.png``.
        seed: the first of the seeds of what is learned.
        quick: True takes fewer bits, sizes and seeds.

    Raises:
        EngineError: matplotlib is not installed.
    """
    extent = QUICK if quick else FULL
    n = extent.bits
    constructed, hidden, wrong = construct(n)
    fitted, learned = learn_all(extent, seed)
    guessed, unseen = learn_some(extent, seed)
    signals = {
        depth: [full_parity_signal(learner(bits, 1000, depth, seed, "float64"), bits) for bits in _bits(extent)]
        for depth in (1, 3)
    }

    last = extent.unseen[-1]
    by_parity, by_example = parseval(learner(min(n, 8), 1000, 2, seed, "float64"), min(n, 8))
    findings = (
        *(
            Finding(f"hidden units for {n} bits, {name}: {formula}", float(foretold(n)), float(sum(hidden[name][n])), 0)
            for name, (formula, foretold) in FORETOLD.items()
        ),
        Finding(f"hidden layers of the XOR tree for {n} bits: ⌈log₂ n⌉", levels(n), len(hidden["XOR tree"][n]), 0),
        Finding(f"wrong outputs of all four, on all inputs of 2 to {n} bits", 0.0, float(wrong), 0),
        Finding(f"mean of ‖E χ ∂Ŷ‖² over all parities χ of {min(n, 8)} bits: E‖∂Ŷ‖² / 2ⁿ", by_example, by_parity, 1e-9),
        Finding(
            f"right on unseen inputs of {last} bits: chance",
            0.5,
            float(np.mean([unseen[last, 1], unseen[last, 3]])),
            0.06,
        ),
    )
    picture = draw(
        {name: {b: sum(each) for b, each in of.items()} for name, of in hidden.items()},
        learned,
        unseen,
        signals,
        extent,
        out / "parity.png",
    )
    notes = (
        f"constructed: ReLU and a linear output, exactly 0 or 1 in float32 on all 2ⁿ inputs for every n from 2 to {n}",
        "learned: bits as ±1, ReLU, logistic loss, Adam at 0.01, batches of 32, at most "
        f"{extent.updates:,} updates, seeds from {seed}",
        f"all right: of {extent.seeds} seeds trained on all inputs those then right on each; Wilson's 95 % interval",
        f"unseen right: trained on some inputs, judged on up to {JUDGED:,} others; mean of "
        f"{extent.unseen_seeds} seeds and its 95 % interval",
    )
    head = ("network", "bits", "hidden layers", "hidden units", "parameters", "all right", "unseen right")
    return Result(head, (*constructed, *fitted, *guessed), findings, picture, notes)


def construct(n: int) -> tuple[list[Row], dict[str, dict[int, list[int]]], int]:
    """All networks for 2 to n bits: rows of the largest, the units of each layer, and how many outputs are wrong."""
    hidden: dict[str, dict[int, list[int]]] = {name: {} for name in CONSTRUCTIONS}
    wrong = 0
    rows: list[Row] = []
    for name, weights in CONSTRUCTIONS.items():
        for bits in range(2, n + 1):
            net = network(weights(bits))
            hidden[name][bits] = [len(params["W"]) for params in net.parameters.values()][:-1]
            mistakes = wrong_outputs(net, bits)
            wrong += mistakes
        layers = hidden[name][n]
        rows.append((name, n, len(layers), sum(layers), count(net.parameters), "no" if mistakes else "yes", None))
    return rows, hidden, wrong


def learn_all(extent: Extent, seed: int) -> tuple[list[Row], dict[tuple[int, int], int]]:
    """Networks of every size and depth trained on all inputs: rows, and how many seeds are then right on each."""
    rows: list[Row] = []
    learned = {}
    for size in extent.sizes:
        for depth in extent.depths:
            nets = [learner(extent.learned, size, depth, seed + i) for i in range(extent.seeds)]
            right = learned[size, depth] = sum(learns_all(net, extent.learned, extent.updates) for net in nets)
            said = f"{right} of {len(nets)} ({' – '.join(f'{end:.0%}' for end in wilson(right, len(nets)))})"
            rows.append((f"learned from {2**extent.learned:,}", extent.learned, depth, *_size(nets[0]), said, None))
    return rows, learned


def learn_some(extent: Extent, seed: int) -> tuple[list[Row], dict[tuple[int, int], list[float]]]:
    """Networks trained on some of the inputs: rows, and the shares of the others that they are right on."""
    rows: list[Row] = []
    unseen = {}
    for bits in extent.unseen:
        m = min(2 ** (bits - 1), extent.examples)
        for depth in (1, 3):
            nets = [learner(bits, 1000, depth, seed + i) for i in range(extent.unseen_seeds)]
            shares = unseen[bits, depth] = [right_on_unseen(net, bits, m, extent.updates) for net in nets]
            said = "{:.1%} ± {:.1%}".format(*mean_and_interval(shares))
            rows.append((f"learned from {m:,}", bits, depth, *_size(nets[0]), None, said))
    return rows, unseen


# --- constructed ----------------------------------------------------------------------------------------------------


def xor_tree(n: int) -> Weights:
    """⌈log₂ n⌉ layers of XOR gates: relu(a - b) + relu(b - a) is (a AND NOT b) OR (b AND NOT a) of bits.

    The sum is taken by the next layer's W. A bit without a partner is passed on by relu(a) = a.

    Source: the notes' S0 and S1.
    """
    signals, layers = np.eye(checked(n)), []  # each bit of a level, as a sum of the units of the layer before
    while len(signals) > 1:
        pairs, odd = divmod(len(signals), 2)
        a, b, alone = signals[: 2 * pairs : 2], signals[1::2], signals[2 * pairs :]
        W = np.concatenate([np.stack([a - b, b - a], axis=1).reshape(2 * pairs, -1), alone])
        layers.append((W, np.zeros((len(W), 1))))
        signals = np.zeros((pairs + odd, 2 * pairs + odd))
        signals[:pairs, : 2 * pairs] = np.kron(np.eye(pairs), [1.0, 1.0])
        signals[pairs:, 2 * pairs :] = 1.0
    return [*layers, (signals, np.zeros((1, 1)))]


def minterms(n: int) -> Weights:
    """One hidden layer with an AND for each of the 2ⁿ⁻¹ inputs of odd parity; relu(Σ ±x - ones + 1) is 1 only there.

    A sum of ANDs needs as many: one that leaves a bit out is 1 on inputs of both parities.

    Source: Lupanov 1961; Håstad 1986, "Almost optimal lower bounds for small depth circuits".
    """
    odd = inputs(checked(n))
    odd = odd[parity(odd) == 1]
    return [(2 * odd - 1, 1 - odd.sum(axis=1, keepdims=True)), (np.ones((1, len(odd))), np.zeros((1, 1)))]


def counter(n: int, folds: int = 0) -> Weights:
    """Parity by s, the number of ones: ``folds`` layers of |s - c| = relu(s - c) + relu(c - s), then a zigzag.

    An even c keeps the parity of s and halves its range. relu(s) - 2 relu(s - 1) + 2 relu(s - 2) - … is 0 where s is
    even and 1 where it is odd; r units reach to s = r.

    Source: Rumelhart, Hinton and Williams 1986, "Learning internal representations by error propagation" (n units);
    Telgarsky 2016, "Benefits of depth in neural networks" (folds).
    """
    W, span, layers = np.ones((1, checked(n))), n, []
    for _ in range(folds):
        span = 2 * math.ceil(span / 4)
        layers.append((np.concatenate([W, -W]), np.array([[-span], [span]])))
        W = np.ones((1, 2))
    steps = np.arange(span)
    zigzag = np.where(steps == 0, 1, 2 * (-1.0) ** steps)[None]
    return [*layers, (np.repeat(W, span, axis=0), -steps[:, None]), (zigzag, np.zeros((1, 1)))]


def levels(n: int) -> int:
    """⌈log₂ n⌉."""
    return int(checked(n) - 1).bit_length()


def alone(n: int) -> int:
    """How many levels of a tree over n bits have one without a partner."""
    return 0 if n == 1 else n % 2 + alone((n + 1) // 2)


CONSTRUCTIONS: dict[str, Callable[[int], Weights]] = {
    "XOR tree": xor_tree,
    "one layer of ANDs": minterms,
    "one layer, zigzag": counter,
    "folds": lambda n: counter(n, levels(n) - 1),
}
FORETOLD: dict[str, tuple[str, Callable[[int], int]]] = {
    "XOR tree": ("2 (n - 1) + those passed on", lambda n: 2 * (n - 1) + alone(n)),
    "one layer of ANDs": ("2ⁿ⁻¹", lambda n: 2 ** (n - 1)),
    "one layer, zigzag": ("n", lambda n: n),
    "folds": ("2 ⌈log₂ n⌉", lambda n: 2 * levels(n)),
}


def checked(n: int) -> int:
    """``n``, where it is a number of bits that networks are constructed for.

    Raises:
        ParameterError: it is not.
    """
    if not isinstance(n, (int, np.integer)) or n < 2:
        raise ParameterError("no such number of bits", where="lab parity", expected="2, 3, …", got=repr(n))
    return n


def network(weights: Weights) -> Sequential:
    """A network with these weights: ReLU layers and a linear output."""
    layers = [Dense(len(W), "relu") for W, _ in weights[:-1]]
    net = Sequential(*layers, Dense(1), input_shape=weights[0][0].shape[1], loss="squared_error")
    net.parameters = {name: {"W": W, "b": b} for name, (W, b) in zip(net.parameters, weights, strict=True)}
    return net


def inputs(n: int, numbers: np.ndarray | None = None) -> np.ndarray:
    """Inputs of n bits, (m, n): those that the ``numbers`` are in binary, or all 2ⁿ."""
    chosen = np.arange(2**n) if numbers is None else numbers
    return (chosen[:, None] >> np.arange(n) & 1).astype(np.float32)


def parity(x: np.ndarray) -> np.ndarray:
    """1 where the number of ones is odd: (m, n) → (m,)."""
    return x.sum(axis=1) % 2


def wrong_outputs(net: Sequential, n: int) -> int:
    """On how many of all 2ⁿ inputs the output is not exactly the parity."""
    x = inputs(n)
    return int(np.sum(net.predict(x, batch_size=256)[:, 0] != parity(x)))


# --- learned --------------------------------------------------------------------------------------------------------


def learner(n: int, size: int, depth: int, seed: int, dtype: str = "float32") -> Sequential:
    """A network with ``depth`` hidden layers of equal width and as near as can be to ``size`` parameters."""

    def parameters(width: int) -> int:
        return width * (n + 1) + (depth - 1) * width * (width + 1) + width + 1

    width = min(range(1, size), key=lambda width: abs(parameters(width) - size))
    layers = [Dense(width, "relu") for _ in range(depth)]
    return Sequential(*layers, Dense(1), input_shape=n, loss="sigmoid_cross_entropy", seed=seed, dtype=dtype)


class AllRight(Callback):
    """Stops when the mean loss of m examples is below log 2 / m: then none of them is wrong."""

    def on_epoch(self, training, record):
        if record["train"]["loss"] < math.log(2) / len(training.source):
            training.stop("all are right")


def learn(net: Sequential, x: np.ndarray, updates: int) -> None:
    """Train on inputs x (m, n) and their parity."""
    epochs = math.ceil(updates / math.ceil(len(x) / BATCH))
    options: dict[str, Any] = {"batch_size": BATCH, "optimizer": Adam(0.01), "metrics": (), "progress": False}
    net.fit(2 * x - 1, parity(x), epochs=epochs, callbacks=[AllRight()], **options)


def right(net: Sequential, x: np.ndarray) -> float:
    """The share of the inputs whose parity the network says."""
    return float(np.mean((net.predict(2 * x - 1)[:, 0] > 0.5) == parity(x)))


def learns_all(net: Sequential, n: int, updates: int) -> bool:
    """Whether a network trained on all 2ⁿ inputs is then right on each."""
    x = inputs(n)
    learn(net, x, updates)
    return right(net, x) == 1.0


def right_on_unseen(net: Sequential, n: int, m: int, updates: int) -> float:
    """The share of other inputs that a network trained on m gets right."""
    x = inputs(n, np.random.default_rng(net.seed).permutation(2**n)[: m + JUDGED])
    learn(net, x[:m], updates)
    return right(net, x[m:])


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share.

    Source: Wilson 1927.
    """
    z, share = 1.96, successes / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, (middle - half) / (1 + z * z / trials)), min(1.0, (middle + half) / (1 + z * z / trials))


# --- what a gradient can say of it ----------------------------------------------------------------------------------


def signal(net: Sequential, x: np.ndarray, chi: np.ndarray) -> float:
    """‖E χ(x) ∂Ŷ(x)‖: what of the squared error's gradient depends on the parity χ that is asked for.

    Arguments:
        net: with one output.
        x: bits (m, n).
        chi: 1 and -1, (m,).
    """
    _, caches = net.forward(2 * x.T - 1)
    return float(global_norm(np, net.backward(caches, chi[None], input_gradient=False)[1]))


def mean_square(net: Sequential, x: np.ndarray) -> float:
    """E‖∂Ŷ(x)‖², the gradient of the output itself, example by example."""
    return float(np.mean([signal(net, each[None], np.ones(1)) ** 2 for each in x]))


def parseval(net: Sequential, n: int) -> tuple[float, float]:
    """The mean over all 2ⁿ parities of the signal's square, and E‖∂Ŷ‖² / 2ⁿ, which Parseval says it is.

    Source: Shalev-Shwartz, Shamir and Shammah 2017, "Failures of gradient-based deep learning", theorem 1.
    """
    x = inputs(n)
    parities = 1 - 2 * (x @ x.T % 2)
    return float(np.mean([signal(net, x, chi) ** 2 for chi in parities])), mean_square(net, x) / 2**n


def full_parity_signal(net: Sequential, n: int) -> float:
    """The signal of the parity of all n bits, relative to √E‖∂Ŷ‖² (of 256 inputs where there are more)."""
    x = inputs(n)
    some = x if n <= 8 else np.random.default_rng(net.seed).permutation(x)[:256]
    return signal(net, x, 1 - 2 * parity(x)) / math.sqrt(mean_square(net, some))


# --- the picture ----------------------------------------------------------------------------------------------------


def _bits(extent: Extent) -> range:
    return range(2, extent.signal + 1)


def _size(net: Sequential) -> tuple[int, int]:
    """Hidden units and parameters."""
    return sum(len(params["W"]) for params in net.parameters.values()) - 1, count(net.parameters)


def draw(
    units: dict[str, dict[int, int]],
    learned: dict[tuple[int, int], int],
    unseen: dict[tuple[int, int], list[float]],
    signals: dict[int, list[float]],
    extent: Extent,
    path: Path,
) -> Path:
    """A tree at work, the sizes of the constructions, and how learning fares."""
    figure = new_figure(13.0, 8.2)
    panels = figure.subplot_mosaic([["tree", "tree", "units"], ["learned", "unseen", "signal"]])
    draw_tree(panels["tree"], min(extent.bits, 8))

    axes = panels["units"]
    for color, (name, of_n) in zip(COLORS, units.items(), strict=False):
        axes.semilogy(list(of_n), [FORETOLD[name][1](n) for n in of_n], color=color, linewidth=1.0)
        axes.semilogy(list(of_n), list(of_n.values()), "o", color=color, markersize=3.5, label=name)
    tidy(axes, "hidden units: counted, and foretold (lines)", "bits")
    axes.legend(frameon=False, fontsize=8)

    axes = panels["learned"]
    for i, depth in enumerate(extent.depths):
        shares = np.array([learned[size, depth] / extent.seeds for size in extent.sizes])
        ends = np.array([wilson(learned[size, depth], extent.seeds) for size in extent.sizes]).T
        at = np.array(extent.sizes) * 1.05 ** (i - 1.5)
        label = f"{depth} hidden layer{'s' * (depth > 1)}"
        axes.errorbar(
            at,
            shares,
            np.abs(ends - shares),
            fmt="o-",
            color=COLORS[i],
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_xticks(extent.sizes, [str(size) for size in extent.sizes], minor=False)
    axes.set_xticks([], minor=True)
    tidy(axes, f"learning all inputs of {extent.learned} bits", "parameters", "share of seeds that succeed")
    axes.legend(frameon=False, fontsize=8)

    axes = panels["unseen"]
    for color, depth in zip(COLORS, (1, 3), strict=False):
        means = [np.mean(unseen[n, depth]) for n in extent.unseen]
        axes.plot(extent.unseen, means, color=color, linewidth=1.2, label=f"{depth} hidden layer{'s' * (depth > 1)}")
        for n in extent.unseen:
            axes.plot([n] * extent.unseen_seeds, unseen[n, depth], "o", color=color, markersize=3, alpha=0.6)
    axes.axhline(1.0, color=COLORS[2], linewidth=1.2, label="constructed")
    axes.axhline(0.5, color="#999999", linewidth=1.0, linestyle="--", label="chance")
    tidy(axes, f"learning {extent.examples:,} inputs, or half of them", "bits", "right on unseen inputs")
    axes.legend(frameon=False, fontsize=8)

    axes = panels["signal"]
    bits = np.array(_bits(extent))
    axes.semilogy(bits, 2.0 ** (-bits / 2), color="#999999", linewidth=1.4, label="mean of all parities: 2$^{-n/2}$")
    for color, (depth, values) in zip(COLORS, signals.items(), strict=False):
        axes.semilogy(
            bits,
            values,
            "o-",
            color=color,
            markersize=4,
            linewidth=1.0,
            label=f"of all bits, {depth} hidden layer{'s' * (depth > 1)}",
        )
    tidy(axes, "a parity's signal in the first gradient", "bits")
    axes.legend(frameon=False, fontsize=8)
    return save(figure, path)


def draw_tree(axes: Any, n: int) -> None:
    """The XOR tree over n bits on one input: a unit is filled with its activation, a line is a weight."""
    net, x = network(xor_tree(n)), inputs(n, np.array([0b01001001 % 2**n]))
    t = trace(net, x.T, parity(x)[None])
    columns = [t[0].A, *(layer.A for layer in t)]
    places = [(np.arange(len(A)) + 0.5) / len(A) for A in columns]
    for level, layer in enumerate(t):
        for i, j in zip(*np.nonzero(layer.W), strict=True):
            on = columns[level][j, 0] > 0
            color = COLORS[0] if layer.W[i, j] > 0 else COLORS[1]
            axes.plot(
                [level, level + 1],
                [places[level][j], places[level + 1][i]],
                color=color,
                linewidth=1.0,
                alpha=0.9 if on else 0.2,
            )
    for level, (A, y) in enumerate(zip(columns, places, strict=True)):
        axes.scatter(
            [level] * len(y), y, s=70, c=["#222222" if a else "white" for a in A[:, 0]], edgecolors="#222222", zorder=3
        )
    gates = [f"{len(y) // 2} XOR{'s' * (len(y) > 3)}" for y in places[1:-1]]
    for level, name in enumerate([f"{n} bits", *gates, "parity"]):
        axes.text(level, 1.04, name, ha="center", fontsize=8)
    axes.set_xlim(-0.2, len(columns) - 0.8)
    axes.invert_yaxis()
    tidy(axes, f"the XOR tree for {n} bits; filled: 1; weights +1 blue, −1 orange, faint where they carry 0")
    axes.set_axis_off()


EXPERIMENT = Experiment(
    "parity",
    "the parity of n bits: constructed, counted, verified, and learned",
    "How many units does parity take in a deep network and in one hidden layer, and does learning find them?",
    run,
)
