"""pellucid and its peers on the same work: training steps, predictions of one example, whole epochs.

    python benchmarks/steps.py [--only TEXT] [--threads 1 2] [--rounds 20] [--out FILE]
    python benchmarks/steps.py --sweep                          # neighbouring sizes: is there a cliff?
    python benchmarks/steps.py --lengths                        # longer and longer sequences: time and memory
    python benchmarks/steps.py --python jax=OTHER/bin/python    # a contender installed elsewhere

Every contender is a process of its own with the same number of threads, and runs only while the others wait for their
turn; a round gives each one turn, in another order each time, so that whatever else the machine does falls on all of
them alike. A turn begins with a pause, in which the threads of the one before stop looking out for more work and leave
the cores, and (but for epochs) with one step that is not timed. Reported are medians over the rounds, milliseconds of
a step by the clock (`wall`) and of processor time (`cpu`, all threads together), and pellucid's share of the best
peer's. Processor time is the steadier of the two on a machine that does other things too; above one thread it counts
waiting threads as well, and the clock alone tells.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

LEARNING_RATE = 1e-3
SECONDS = 0.15  # of one turn, about
PAUSE = 0.02  # seconds before it


class Work(NamedTuple):
    """What is timed: ``layers`` are widths of dense layers and ("dropout", rate); before them (channels, kernel,
    padding[, stride[, groups]]), ("pool", kernel, stride), "pool" for ("pool", 2, 2) and "lrn"; or ("rnn" | "lstm" |
    "gru", units), whose last state the next layer sees; input_shape is then (T, n_x). In bfloat16 PyTorch runs under
    autocast."""

    kind: str  # train: one step on one batch, Adam included · predict: examples first, to outputs · epoch: all batches
    input_shape: tuple[int, ...]
    layers: tuple[Any, ...]
    m: int
    examples: int = 0
    precision: str = "float32"
    device: str = "cpu"  # or cuda

    @classmethod
    def read(cls, said: list[Any]) -> Work:
        """What JSON has made of one."""
        kind, input_shape, layers, *rest = said
        return cls(kind, tuple(input_shape), tuple(tuple(x) if isinstance(x, list) else x for x in layers), *rest)


MLP = ((784,), (128, 10))
WIDE = ((784,), (512, 512, 10))
LENET = ((1, 28, 28), ((6, 5, 2), "pool", (16, 5, 0), "pool", 120, 84, 10))


def vgg(a: int, b: int, c: int) -> tuple[Any, Any]:
    """Six convolutions in three pairs."""
    pairs = (((n, 3, 1), (n, 3, 1), "pool") for n in (a, b, c))
    return (3, 32, 32), (*(each for pair in pairs for each in pair), 10)


GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def recurrent(cell: str, T: int = 28, n: int = 128) -> tuple[Any, Any]:
    """Sequences of 28 numbers a step through one layer, its last state to ten classes."""
    return (T, 28), ((cell, n), 10)


WORKS = {
    "MLP 784-128-10, m=64": Work("train", *MLP, 64),
    "MLP 784-512-512-10, m=128": Work("train", *WIDE, 128),
    "LeNet-5, m=128": Work("train", *LENET, 128),
    "VGG-like, m=64": Work("train", *vgg(64, 128, 256), 64),
    "VGG-like in bfloat16, m=64": Work("train", *vgg(64, 128, 256), 64, precision="bfloat16"),
    "RNN 28-128-10, T=28, m=128": Work("train", *recurrent("rnn"), 128),
    "LSTM 28-128-10, T=28, m=128": Work("train", *recurrent("lstm"), 128),
    "GRU 28-128-10, T=28, m=128": Work("train", *recurrent("gru"), 128),
    "MLP 784-128-10 predicts, m=1": Work("predict", *MLP, 1),
    "LeNet-5 predicts, m=1": Work("predict", *LENET, 1),
    "LeNet-5, an epoch of 60,000, m=128": Work("epoch", *LENET, 128, 60_000),
    "MLP 784-128-10, an epoch of 60,000, m=64": Work("epoch", *MLP, 64, 60_000),
    "LSTM 28-128-10, T=28, an epoch of 12,800, m=128": Work("epoch", *recurrent("lstm"), 128, 12_800),
}
SWEEP = {
    **{f"MLP 784-128-10, m={m}": Work("train", *MLP, m) for m in (1, 2, 8, 15, 16, 17, 33, 65, 100, 127, 129, 512)},
    **{
        f"MLP 784-{n}-{n}-10, m=128": Work("train", (784,), (n, n, 10), 128)
        for n in (100, 127, 129, 500, 511, 513, 1024, 2048)
    },
    **{
        f"{name} predicts, m={m}": Work("predict", *layers, m)
        for name, layers in (("MLP 784-128-10", MLP), ("MLP 784-512-512-10", WIDE), ("LeNet-5", LENET))
        for m in (1, 2, 7, 17, 64, 65)
    },
    **{f"LeNet-5, m={m}": Work("train", *LENET, m) for m in (1, 8, 15, 16, 17, 31, 32, 33, 64, 100, 127, 129, 256)},
    **{
        f"LeNet-5 of {a} and {b} maps, m=128": Work(
            "train", (1, 28, 28), ((a, 5, 2), "pool", (b, 5, 0), "pool", 120, 84, 10), 128
        )
        for a, b in ((5, 13), (7, 17), (8, 16), (20, 50), (32, 64))
    },
    **{
        f"VGG-like of {a}, {b}, {c} maps, m={m}": Work("train", *vgg(a, b, c), m)
        for a, b, c, m in (
            (64, 128, 256, 16),
            (64, 128, 256, 33),
            (48, 96, 192, 64),
            (50, 100, 200, 64),
            (33, 65, 130, 64),
        )
    },
    **{
        f"{name} in bfloat16, m={m}": Work("train", *layers, m, precision="bfloat16")
        for name, layers, m in (
            ("MLP 784-512-512-10", WIDE, 128),
            ("LeNet-5", LENET, 128),
            ("VGG-like of 64, 128, 256 maps", vgg(64, 128, 256), 16),
            ("VGG-like of 64, 128, 256 maps", vgg(64, 128, 256), 33),
            ("VGG-like of 50, 100, 200 maps", vgg(50, 100, 200), 64),
            ("VGG-like of 33, 65, 130 maps", vgg(33, 65, 130), 64),
        )
    },
    **{
        f"{cell.upper()} 28-{n}-10, T={T}, m={m}": Work("train", *recurrent(cell, T, n), m)
        for cell in GATES
        for T, n, m in (
            *((28, 128, m) for m in (1, 16, 17, 33, 64, 100, 129, 200)),
            *((28, n, 128) for n in (100, 127, 129, 200)),
            *((T, 128, 128) for T in (10, 100)),
            (28, 512, 64),
        )
    },
}
LENGTHS = {
    f"{cell.upper()} 28-128-10, T={T}, m=64": Work("train", *recurrent(cell, T), 64)
    for cell in ("rnn", "lstm")
    for T in (25, 50, 100, 200, 400, 800)
}


def data(work: Work) -> tuple[Any, Any]:
    """Examples first: x (m, …) and class indices."""
    import numpy as np

    rng = np.random.default_rng(0)
    count = work.examples or work.m
    return rng.normal(size=(count, *work.input_shape)).astype(np.float32), rng.integers(0, 10, count)


# --- contenders: each makes a function that does the work once ------------------------------------------------------


def pellucid(engine: str, mesh: str | None = None) -> Callable[[Work], Callable[[], Any]]:
    """pellucid with one of its engines, on a mesh of devices."""

    def make(work: Work) -> Callable[[], Any]:
        import numpy as np

        import pellucid as pl
        from pellucid.training.batches import Source
        from pellucid.training.loop import Training
        from pellucid.trees import tree_map

        net = pellucid_network(work, engine)
        x, y = data(work)
        if work.kind == "predict":
            return lambda: net.predict(x)
        training = Training(
            net,
            Source(net, x, y),
            epochs=10**6,
            batch_size=work.m,
            optimizer=pl.Adam(LEARNING_RATE),
            validation=None,
            metrics=(),
            callbacks=[],
            shuffle=True,
            seed=0,
            layer_statistics=False,
            run=None,
            checkpoint_seconds=60.0,
            mesh=mesh,
        )
        if work.kind == "epoch":
            return lambda: training.run(until=training.epoch + 1)
        batch = training.source.batch(np.arange(len(x)), None, training.placement)
        on_device = batch._replace(
            inputs=tree_map(net.ops.asarray, batch.inputs), targets=tree_map(net.ops.asarray, batch.targets)
        )

        def step() -> Any:
            with training.placement.active():
                training._run_update(on_device, {})
            return training.params

        return step

    return make


def pellucid_network(work: Work, engine: str) -> Any:
    """The network as pellucid's."""
    import pellucid as pl

    layers: list[Any] = []
    for each, (before, _) in zip(work.layers, pairwise(shapes(work)), strict=True):
        if each == "pool":
            layers.append(pl.MaxPool2D(2))
        elif each == "lrn":
            layers.append(pl.LocalResponseNorm())
        elif isinstance(each, int):
            layers += [pl.Flatten()] if len(before) == 3 else []
            layers.append(pl.Dense(each, "relu" if each is not work.layers[-1] else "identity"))
        elif each[0] == "pool":
            layers.append(pl.MaxPool2D(*each[1:]))
        elif each[0] == "dropout":
            layers.append(pl.Dropout(each[1]))
        elif each[0] in GATES:
            layers.append({"rnn": pl.SimpleRNN, "lstm": pl.LSTM, "gru": pl.GRU}[each[0]](each[1]))
        else:
            units, kernel, padding, stride, groups = (*each, 1, 1)[:5]
            layers.append(pl.Conv2D(units, kernel, "relu", stride=stride, padding=padding, groups=groups))
    precision = "tensorfloat32" if work.precision == "tf32" else work.precision
    options: dict[str, Any] = {"engine": engine, "precision": precision}
    return pl.Sequential(*layers, input_shape=work.input_shape, loss="softmax_cross_entropy", **options)


def torch(
    *, channels_last: bool = False, batch_first: bool = False, compiled: bool = False, mode: str | None = None
) -> Callable[[Work], Callable[[], Any]]:
    """PyTorch with fused Adam; a sequence lies steps first, or examples first."""

    def make(work: Work) -> Callable[[], Any]:
        import torch
        from torch import nn

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high" if work.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = work.precision == "tf32"
        torch.backends.cudnn.benchmark = True
        layout = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last and len(work.input_shape) != 3:
            raise NotImplementedError("no channels")
        sequence = len(work.input_shape) == 2
        if batch_first and not sequence:
            raise NotImplementedError("no sequence")
        net = torch_network(work, batch_first).to(work.device)
        if len(work.input_shape) == 3:
            net = net.to(memory_format=layout)
        compiled_or_not = torch.compile(net, mode=mode) if compiled else net
        rounding = work.precision == "bfloat16"

        def run(X: Any) -> Any:
            with torch.autocast(work.device, torch.bfloat16, enabled=rounding):
                return compiled_or_not(X)

        x, y = data(work)
        X, Y = torch.from_numpy(x).to(work.device), torch.from_numpy(y).to(work.device)
        loss = nn.CrossEntropyLoss()
        if sequence and not batch_first:
            X = X.transpose(0, 1).contiguous()
        if len(work.input_shape) == 3:
            X = X.contiguous(memory_format=layout)
        if work.kind == "predict":
            net.eval()

            def predict() -> Any:
                with torch.inference_mode():
                    return run(X).softmax(1)

            return predict
        adam = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, fused=True)

        def step(X: Any = X, Y: Any = Y) -> None:
            adam.zero_grad(set_to_none=True)
            loss(run(X).float(), Y).backward()
            adam.step()

        def epoch() -> None:
            order = torch.randperm(len(Y), device=work.device)
            for start in range(0, len(Y), work.m):
                chosen = order[start : start + work.m]
                step(X[:, chosen] if sequence and not batch_first else X[chosen], Y[chosen])

        return epoch if work.kind == "epoch" else step

    return make


def torch_network(work: Work, batch_first: bool = False) -> Any:
    """The same network as a PyTorch module."""
    from torch import nn

    class Last(nn.Module):
        """The state after the last step."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, X: Any) -> Any:
            A = self.layer(X)[0]
            return A[:, -1] if batch_first else A[-1]

    layers: list[Any] = []
    for each, (before, _) in zip(work.layers, pairwise(shapes(work)), strict=True):
        if each == "pool":
            layers.append(nn.MaxPool2d(2))
        elif each == "lrn":
            layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))  # its α is divided by n
        elif isinstance(each, int):
            layers += [nn.Flatten()] if len(before) == 3 else []
            layers += [nn.Linear(math.prod(before), each), nn.ReLU()]
        elif each[0] == "pool":
            layers.append(nn.MaxPool2d(*each[1:]))
        elif each[0] == "dropout":
            layers.append(nn.Dropout(each[1]))
        elif each[0] in GATES:
            kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[each[0]]
            layers.append(Last(kind(before[1], each[1], batch_first=batch_first)))
        else:
            units, kernel, padding, stride, groups = (*each, 1, 1)[:5]
            layers += [nn.Conv2d(before[0], units, kernel, stride, padding, groups=groups), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def scikit_learn(work: Work) -> Callable[[], Any]:
    """scikit-learn's MLPClassifier, which always batches and adds a little L2."""
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    if len(work.input_shape) != 1:
        raise NotImplementedError("dense networks only")
    warnings.simplefilter("ignore", ConvergenceWarning)
    if work.precision != "float32":
        raise NotImplementedError("float32 only")
    x, y = data(work)
    widths = work.layers[:-1]
    net = MLPClassifier(widths, batch_size=len(x), learning_rate_init=LEARNING_RATE, alpha=0.0)
    net.partial_fit(x, y, classes=np.arange(10))
    return (lambda: net.predict_proba(x)) if work.kind == "predict" else lambda: net.partial_fit(x, y)


def jax(work: Work) -> Callable[[], Any]:
    """JAX: the whole step under one jit, its memory donated, optax's Adam; in bfloat16 the activations are so too."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if work.precision == "tf32" else "float32")
    rounded = jnp.bfloat16 if work.precision == "bfloat16" else jnp.float32
    rng = np.random.default_rng(0)

    def drawn(*size: int, fan_in: int) -> Any:
        return (rng.normal(size=size) / np.sqrt(fan_in)).astype(np.float32)

    params: list[Any] = []
    for each, (before, _) in zip(work.layers, pairwise(shapes(work)), strict=True):
        if isinstance(each, int):
            n = math.prod(before)
            params.append((drawn(n, each, fan_in=n), np.zeros(each, np.float32)))
        elif each[0] in GATES:
            n, G = each[1], GATES[each[0]]
            sizes = ((before[1], G * n), (n, G * n), (G * n,), (n,))  # the last is the GRU's c
            params.append(tuple(drawn(*size, fan_in=n) for size in sizes))
        elif isinstance(each[0], int):
            units, kernel, _, _, groups = (*each, 1, 1)[:5]
            size = (kernel, kernel, before[0] // groups, units)
            params.append((drawn(*size, fan_in=math.prod(size[:3])), np.zeros(units, np.float32)))

    def forward(params: Any, A: Any, key: Any) -> Any:
        own, A = iter(jax.tree.map(lambda W: W.astype(rounded), params)), A.astype(rounded)
        for index, each in enumerate(work.layers):
            if each == "pool" or (isinstance(each, tuple) and each[0] == "pool"):
                k, s = (2, 2) if each == "pool" else each[1:]
                A = jax.lax.reduce_window(A, -jnp.inf, jax.lax.max, (1, k, k, 1), (1, s, s, 1), "VALID")
            elif each == "lrn":
                squares = jax.lax.reduce_window(A * A, 0.0, jax.lax.add, (1, 1, 1, 5), (1, 1, 1, 1), "SAME")
                A = A * (2.0 + 1e-4 * squares) ** -0.75
            elif isinstance(each, int):
                W, b = next(own)
                A = A.reshape(len(A), -1) @ W + b
                A = A if each is work.layers[-1] else jax.nn.relu(A)
            elif each[0] == "dropout":
                if work.kind != "predict":
                    kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1 - each[1], A.shape)
                    A = jnp.where(kept, A / (1 - each[1]), 0)
            elif each[0] in GATES:
                A = jax_recurrent(each[0], *next(own), A)
            else:
                _, _, padding, stride, groups = (*each, 1, 1)[:5]
                (W, b), axes = next(own), ("NHWC", "HWIO", "NHWC")
                pads = [(padding, padding)] * 2
                A = jax.lax.conv_general_dilated(
                    A, W, (stride, stride), pads, dimension_numbers=axes, feature_group_count=groups
                )
                A = jax.nn.relu(A + b)
        return A.astype(jnp.float32)

    x, y = data(work)
    if x.ndim == 4:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    if work.kind == "predict":
        say = jax.jit(lambda params, x: jax.nn.softmax(forward(params, x, None)))
        params = jax.device_put(params)
        return lambda: np.asarray(say(params, x))
    import optax

    adam = optax.adam(LEARNING_RATE)

    def cost(params: Any, X: Any, Y: Any, key: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, X, key), Y).mean()

    def update(params: Any, memory: Any, key: Any, X: Any, Y: Any) -> Any:
        key, own = jax.random.split(key)
        changes, memory = adam.update(jax.grad(cost)(params, X, Y, own), memory)
        return optax.apply_updates(params, changes), memory, key

    compiled = jax.jit(update, donate_argnums=(0, 1, 2))
    now = (jax.device_put(params), adam.init(params), jax.random.key(0))
    X, Y = jax.device_put(x), jax.device_put(y)

    def step() -> Any:
        nonlocal now
        now = compiled(*now, X, Y)
        return now

    def epoch() -> Any:
        nonlocal now
        order = rng.permutation(len(x))
        for start in range(0, len(x), work.m):
            chosen = order[start : start + work.m]
            now = compiled(*now, x[chosen], y[chosen])
        return now

    return epoch if work.kind == "epoch" else step


def jax_recurrent(cell: str, W: Any, U: Any, b: Any, c: Any, X: Any) -> Any:
    """The last state of X (m, T, n_x): the inputs of all steps by one product, then a scan."""
    import jax
    import jax.numpy as jnp

    def step(state: Any, Z: Any) -> Any:
        h, C = state
        V = h @ U
        if cell == "rnn":
            return (jnp.tanh(Z + V), C), None
        if cell == "lstm":
            i, f, g, o = jnp.split(Z + V, 4, axis=1)
            C = jax.nn.sigmoid(f) * C + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(C), C), None
        (Zr, Zz, Zn), (Vr, Vz, Vn) = jnp.split(Z, 3, axis=1), jnp.split(V, 3, axis=1)
        z, candidate = jax.nn.sigmoid(Zz + Vz), jnp.tanh(Zn + jax.nn.sigmoid(Zr + Vr) * (Vn + c))
        return ((1 - z) * candidate + z * h, C), None

    start = jnp.zeros((len(X), U.shape[0]), X.dtype)
    return jax.lax.scan(step, (start, start), jnp.swapaxes(X @ W + b, 0, 1))[0][0]


CONTENDERS: dict[str, Callable[[Work], Callable[[], Any]]] = {
    "native": pellucid("native"),
    "numpy": pellucid("numpy"),
    "jax engine": pellucid("jax"),
    "torch": torch(),
    "torch channels_last": torch(channels_last=True),
    "torch batch_first": torch(batch_first=True),
    "torch.compile": torch(compiled=True),
    "scikit-learn": scikit_learn,
    "jax": jax,
}
OURS = ("native", "numpy", "jax engine", "pellucid", "pellucid scan")


# --- the contest ------------------------------------------------------------------------------------------------------


def serve(contender: str, contenders: dict[str, Callable[[Work], Callable[[], Any]]]) -> None:
    """A contender's process: reads a work to prepare, or how often to do it, and answers with seconds for one. What
    does several steps at once says so in its attribute ``steps``."""
    answers, sys.stdout = sys.stdout, sys.stderr
    do: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        order = json.loads(line)
        if "peak" in order:
            print(json.dumps(peak_bytes(contender, do)), file=answers, flush=True)
            continue
        try:
            if "work" in order:
                do = contenders[contender](Work.read(order["work"]))
                settle(do())
            times, made = order.get("times", 1), None
            time.sleep(PAUSE)
            if times > 1:
                settle(do())
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(times):
                made = do()
            settle(made)
            wall, cpu, steps = time.perf_counter() - wall, time.process_time() - cpu, times * getattr(do, "steps", 1)
            answer: Any = [wall / steps, cpu / steps]
        except Exception as problem:  # a contender that cannot do this work stands aside
            answer = f"{type(problem).__name__}: {problem}".splitlines()[0]
        print(json.dumps(answer), file=answers, flush=True)


def settle(made: Any) -> None:
    """Wait until what was asked of JAX and of a GPU is done."""
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(made)
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        sys.modules["torch"].cuda.synchronize()


def peak_bytes(contender: str, do: Callable[[], Any]) -> int | None:
    """The most that a work holds at one time in the native engine's arrays, or of a GPU's since the process began."""
    if contender == "native":
        from pellucid import engines

        kernels = engines.get("native").kernels
        kernels.reset_peak()
        do()
        return kernels.peak_bytes()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        return sys.modules["torch"].cuda.max_memory_allocated()
    counted = sys.modules["jax"].local_devices()[0].memory_stats() if "jax" in sys.modules else None
    return counted and counted["peak_bytes_in_use"]


def pinned(threads: int) -> list[str]:
    """What starts a process that sees only so many processor cores, where the system has it."""
    return ["taskset", "--cpu-list", f"0-{threads - 1}"] if shutil.which("taskset") else []


class Contender:
    """The other end of `serve`."""

    def __init__(self, name: str, python: str, threads: int, script: str = __file__) -> None:
        limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "PELLUCID")}
        self.process = subprocess.Popen(  # not all libraries keep to the limits, so all are held to the same cores
            [*pinned(threads), python, script, "--serve", name],
            env={**os.environ, **limits},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **order: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline() or '"died"')


def contest(
    works: dict[str, Work],
    names: list[str],
    pythons: dict[str, str],
    threads: int,
    rounds: int,
    script: str = __file__,
) -> dict[str, Any]:
    """For each work every contender's medians, and pellucid's ratios to the best peer."""
    contenders = {name: Contender(name, pythons.get(name, sys.executable), threads, script) for name in names}
    rows = {}
    for title, work in works.items():
        ready: dict[str, int] = {}
        absent: dict[str, str] = {}
        for name, contender in contenders.items():
            first = contender.ask(work=work)
            if isinstance(first, str):
                absent[name] = first
            else:
                ready[name] = max(1, round(SECONDS / min(contender.ask(times=3))))
        taken: dict[str, list[list[float]]] = {name: [] for name in ready}
        for turn in range(rounds if work.kind != "epoch" else max(3, rounds // 5)):
            for name in [*ready][turn % len(ready) :] + [*ready][: turn % len(ready)]:
                taken[name].append(contenders[name].ask(times=ready[name]))
        rows[title] = judged(taken) | {"absent": absent}
        peaks = {name: contenders[name].ask(peak=True) for name in ready}
        rows[title]["peak MB"] = {name: round(most / 1e6, 2) for name, most in peaks.items() if most}
        shown = {name: each["wall ms"] for name, each in rows[title]["medians"].items()}
        ratios = {name: each for name, each in rows[title].items() if name.endswith("peer")}
        print(title, shown, ratios, absent, file=sys.stderr, flush=True)
    for contender in contenders.values():
        contender.process.terminate()
    return rows


def judged(taken: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Medians, and the median of the rounds' ratios of pellucid to whichever peer has the smallest median."""
    ratios: dict[str, Any] = {f"{ours} / best peer": {} for ours in OURS if ours in taken}
    medians: dict[str, dict[str, float]] = {name: {} for name in taken}
    for index, clock in enumerate(("wall", "cpu")):
        series = {name: [each[index] for each in times] for name, times in taken.items()}
        for name, times in series.items():
            medians[name][f"{clock} ms"] = round(statistics.median(times) * 1e3, 4)
        peers = [name for name in series if name not in OURS]
        if not peers:
            continue
        best = min(peers, key=lambda name: medians[name][f"{clock} ms"])
        for ours in OURS:
            if ours in series:
                pairs = zip(series[ours], series[best], strict=True)
                ratio = statistics.median(own / theirs for own, theirs in pairs)
                ratios[f"{ours} / best peer"][clock] = {"peer": best, "ratio": round(ratio, 3)}
    return {"medians": medians, **ratios}


def multiply_adds(work: Work) -> int:
    """Of one step forward and backward, the first layer's dX left out."""
    forward, first = 0, 0
    for each, (before, after) in zip(work.layers, pairwise(shapes(work)), strict=True):
        if isinstance(each, int):
            own = each * math.prod(before)
        elif each[0] in GATES:
            T, n_x = before
            gates = T * GATES[each[0]] * each[1]
            forward, first = forward + gates * (n_x + each[1]), first or gates * n_x
            continue
        elif isinstance(each[0], int):
            own = math.prod(after) * before[0] * each[1] ** 2 // (*each, 1, 1)[4]
        else:
            continue
        forward, first = forward + own, first or own
    return work.m * (3 * forward - first)


def shapes(work: Work) -> Iterator[tuple[int, ...]]:
    """The input's shape and every layer's output shape."""
    shape = work.input_shape
    yield shape
    for each in work.layers:
        if isinstance(each, int):
            shape = (each,)
        elif each == "pool" or each[0] == "pool":
            k, s = (2, 2) if each == "pool" else each[1:]
            shape = (shape[0], *((n - k) // s + 1 for n in shape[1:]))
        elif each[0] in GATES:
            shape = (each[1],)
        elif isinstance(each[0], int):
            units, k, padding, s, _ = (*each, 1, 1)[:5]
            shape = (units, *((n + 2 * padding - k) // s + 1 for n in shape[1:]))
        yield shape


def peak(threads: int) -> float:
    """GFLOP/s of a large product of matrices, the best of NumPy's and pellucid's: what this machine can do."""
    program = """
import time
import numpy as np
from pellucid import engines

A = np.ones((1024, 1024), np.float32)
best, clock = np.inf, time.CLOCK
for ops in ("numpy", "native"):
    for _ in range(30):
        start = clock()
        engines.get(ops).affine(A, A, None)
        best = min(best, clock() - start)
print(2 * len(A) ** 3 / best / 1e9)
"""
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "PELLUCID")}
    done = subprocess.run(
        [sys.executable, "-c", program.replace("CLOCK", "process_time" if threads == 1 else "perf_counter")],
        env={**os.environ, **limits},
        capture_output=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="works whose name contains this")
    parser.add_argument("--sweep", action="store_true", help="neighbouring sizes instead")
    parser.add_argument("--lengths", action="store_true", help="sequences of growing length instead")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="another Python for a contender")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contender")
    parser.add_argument("--out", help="write the JSON here too")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, CONTENDERS)
        return
    chosen = SWEEP if arguments.sweep else LENGTHS if arguments.lengths else WORKS
    works = {name: work for name, work in chosen.items() if arguments.only in name}
    pythons = dict(each.split("=", 1) for each in arguments.python)
    document: dict[str, Any] = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": {},
    }
    for threads in arguments.threads:
        fastest = peak(threads)
        rows = contest(works, arguments.contenders, pythons, threads, arguments.rounds)
        for title, row in rows.items():
            ours = row["medians"].get("native")
            if ours and works[title].kind == "train" and works[title].precision == "float32":
                seconds = ours["cpu ms" if threads == 1 else "wall ms"] / 1e3
                row["share of peak"] = round(2e-9 * multiply_adds(works[title]) / seconds / fastest, 3)
        document["threads"][str(threads)] = {"peak GFLOP/s": round(fastest, 1), "works": rows}
    document["load after"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.out:
        with open(arguments.out, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
