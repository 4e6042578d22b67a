"""One training step, batcher and Adam included: pellucid beside PyTorch and scikit-learn on the same work.

    python benchmarks/training_step.py [--threads 1 2] [--rounds 40] [--out training_step.json]

For each number of threads one process runs every contender in turns, an epoch of 40 steps at a time, so that whatever
else the machine does falls on all of them alike. Reported are medians over the turns, and the median of the paired
ratios. Above one thread the machine must be idle: the libraries' threads wait for each other by spinning.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from itertools import pairwise

WORKLOADS = {
    "MLP 784-128-10, m=64": ((784, 128, 10), 64),
    "MLP 784-512-512-10, m=128": ((784, 512, 512, 10), 128),
    "digits 64-64-10, m=32": ((64, 64, 10), 32),
}
LEARNING_RATE = 1e-3
BATCHES = 40  # in an epoch


def pellucid(sizes: tuple[int, ...], m: int, x, y) -> Callable[[], object]:
    """An epoch of pellucid's own loop on the reference engine."""
    import pellucid as pl
    from pellucid.training.batches import Source
    from pellucid.training.loop import Training

    layers = [*(pl.Dense(n, "relu") for n in sizes[1:-1]), pl.Dense(sizes[-1])]
    net = pl.Sequential(*layers, input_shape=sizes[0], loss="softmax_cross_entropy", engine="numpy")
    training = Training(
        net,
        Source(net, x, y),
        epochs=10**6,
        batch_size=m,
        optimizer=pl.Adam(LEARNING_RATE),
        validation=None,
        metrics=(),
        callbacks=[],
        shuffle=True,
        seed=0,
        layer_statistics=False,
        run=None,
        checkpoint_seconds=60.0,
    )

    return lambda: training.run(until=training.epoch + 1)


def torch(sizes: tuple[int, ...], m: int, x, y) -> Callable[[], object]:
    """An epoch of PyTorch, eager, with fused Adam."""
    import torch
    from torch import nn

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    net, loss = nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, fused=True)
    X, Y = torch.from_numpy(x), torch.from_numpy(y)

    def epoch() -> None:
        examples = torch.randperm(len(x))
        for start in range(0, len(x), m):
            chosen = examples[start : start + m]
            optimizer.zero_grad(set_to_none=True)
            loss(net(X[chosen]), Y[chosen]).backward()
            optimizer.step()

    return epoch


def scikit_learn(sizes: tuple[int, ...], m: int, x, y) -> Callable[[], object]:
    """An epoch of scikit-learn's MLPClassifier, which always shuffles and adds a little L2."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore", ConvergenceWarning)

    net = MLPClassifier(sizes[1:-1], batch_size=m, learning_rate_init=LEARNING_RATE, max_iter=1)
    return lambda: net.fit(x, y)


CONTENDERS = {"pellucid": pellucid, "torch": torch, "scikit-learn": scikit_learn}


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds for one step of each contender on each workload, and their ratios to pellucid."""
    import numpy as np

    rows = {}
    for name, (sizes, m) in WORKLOADS.items():
        rng = np.random.default_rng(0)
        x = rng.normal(size=(BATCHES * m, sizes[0])).astype(np.float32)
        y = rng.integers(0, sizes[-1], len(x))
        made = {who: make(sizes, m, x, y) for who, make in CONTENDERS.items() if available(who)}
        for epoch in made.values():
            epoch()
        taken: dict[str, list[float]] = {who: [] for who in made}
        for turn in range(rounds):
            for who in [*made][turn % len(made) :] + [*made][: turn % len(made)]:
                started = time.perf_counter()
                made[who]()
                taken[who].append((time.perf_counter() - started) / BATCHES * 1e3)
        row = {f"{who} ms": round(statistics.median(each), 4) for who, each in taken.items()}
        for who in made:
            if who != "pellucid":
                pairs = zip(taken["pellucid"], taken[who], strict=True)
                row[f"pellucid / {who}"] = round(statistics.median(ours / theirs for ours, theirs in pairs), 3)
        rows[name] = row
    return rows


def available(package: str) -> bool:
    """Whether the contender is installed."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40, help="turns of each contender")
    parser.add_argument("--out", help="write the JSON here too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.rounds)))
        return
    document = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {each: metadata.version(each) for each in ("numpy", *CONTENDERS) if available(each)},
        "load before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": {},
    }
    for threads in arguments.threads:
        limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        done = subprocess.run(
            [sys.executable, __file__, "--measure", "--rounds", str(arguments.rounds)],
            env={**os.environ, **limits},
            stdout=subprocess.PIPE,
            check=True,
        )
        document["threads"][str(threads)] = json.loads(done.stdout)
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.out:
        with open(arguments.out, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
