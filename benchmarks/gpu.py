"""pellucid's JAX engine on a GPU beside PyTorch and plain JAX: time and memory of a training step.

    python benchmarks/gpu.py [--only TEXT] [--batches 128 1024] [--precisions float32 tf32] [--rounds 9] [--out FILE]
    python benchmarks/gpu.py --python jax=OTHER/bin/python      # a contender installed elsewhere
    python benchmarks/gpu.py --device cpu                       # all of it in small, where there is no GPU

As in steps.py every contender is a process of its own and takes its turn in each round; a turn ends when the device
has done all of it. Each work has new processes, so that the most memory they held is that work's. The card's peak is
the rate of a large product of matrices in the same precision, the best of PyTorch's and JAX's. Examples lie on the
device. ``pellucid`` is a whole step in one call, its memory given away; ``pellucid scan`` is ``fit`` with the examples
resident, shuffling and choosing the batches included; ``graphs`` is torch.compile with CUDA graphs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import steps
from steps import Work

ALEXNET = (
    (3, 227, 227),
    (
        *((96, 11, 0, 4), "lrn", ("pool", 3, 2)),
        *((256, 5, 2, 1, 2), "lrn", ("pool", 3, 2)),
        *((384, 3, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2), ("pool", 3, 2)),
        *(4096, ("dropout", 0.5), 4096, ("dropout", 0.5), 1000),
    ),
)
NETWORKS: dict[str, tuple[Any, Any]] = {
    "MLP 784-512-512-10": steps.WIDE,
    "LeNet-5": steps.LENET,
    "VGG-like": steps.vgg(64, 128, 256),
    "RNN 28-128-10, T=28": steps.recurrent("rnn"),
    "LSTM 28-128-10, T=28": steps.recurrent("lstm"),
    "AlexNet": ALEXNET,
}
SMALL: dict[str, tuple[Any, Any]] = {
    "MLP 12-8-10": ((12,), (8, 10)),
    "LeNet-5 of 12×12": ((1, 12, 12), ((2, 5, 2), "pool", (3, 5, 0), 8, 10)),
    "VGG-like of 8×8": ((3, 8, 8), ((2, 3, 1), "pool", (4, 3, 1), "pool", 10)),
    "RNN 3-4-10, T=5": ((5, 3), (("rnn", 4), 10)),
    "LSTM 3-4-10, T=5": ((5, 3), (("lstm", 4), 10)),
    "AlexNet of 35×35": (
        (3, 35, 35),
        ((4, 11, 0, 4), "lrn", ("pool", 3, 2), (8, 3, 1, 1, 2), ("pool", 3, 2), 8, ("dropout", 0.5), 10),
    ),
}
BATCHES, PRECISIONS = (128, 256, 512, 1024), ("float32", "tf32", "bfloat16")
MOST = 1 << 30  # bytes of the examples that stay on the device
PRODUCT = {"cuda": 8192, "cpu": 256}  # rows of the matrices whose product shows the peak


def scan(work: Work) -> Callable[[], Any]:
    """Epochs of as many batches as have room, 2 to 512."""
    count = max(2, min(512, MOST // (4 * work.m * math.prod(work.input_shape))))
    do = steps.pellucid("jax")(work._replace(kind="epoch", examples=count * work.m))
    do.steps = count  # type: ignore[attr-defined]
    return do


def compiled(mode: str | None) -> Callable[[Work], Callable[[], Any]]:
    """torch.compile, images' channels last."""
    return lambda work: steps.torch(compiled=True, mode=mode, channels_last=len(work.input_shape) == 3)(work)


def on_gpu(make: Callable[[Work], Callable[[], Any]]) -> Callable[[Work], Callable[[], Any]]:
    """A contender that stands aside where JAX finds no GPU, in whose place it would take the processor."""

    def made(work: Work) -> Callable[[], Any]:
        import jax

        if work.device == "cuda" and jax.default_backend() != "gpu":
            raise NotImplementedError("JAX finds no GPU")
        return make(work)

    return made


def torch_product(work: Work) -> Callable[[], Any]:
    """A product of two square matrices."""
    import torch

    torch.set_float32_matmul_precision("high" if work.precision == "tf32" else "highest")
    dtype = torch.bfloat16 if work.precision == "bfloat16" else torch.float32
    A = torch.randn(work.m, work.m, dtype=dtype, device=work.device)
    return lambda: A @ A


def jax_product(work: Work) -> Callable[[], Any]:
    """The same in JAX."""
    import jax

    A = jax.random.normal(
        jax.random.key(0), (work.m, work.m), "bfloat16" if work.precision == "bfloat16" else "float32"
    )
    product = jax.jit(
        lambda A: jax.numpy.matmul(A, A, precision="tensorfloat32" if work.precision == "tf32" else "float32")
    )
    return lambda: product(A)


CONTENDERS: dict[str, Callable[[Work], Callable[[], Any]]] = {
    "pellucid": on_gpu(steps.pellucid("jax")),
    "pellucid scan": on_gpu(scan),
    "torch": steps.torch(),
    "torch channels_last": steps.torch(channels_last=True),
    "torch.compile": compiled(None),
    "torch.compile graphs": compiled("reduce-overhead"),
    "jax": on_gpu(steps.jax),
}
PRODUCTS = {"torch": torch_product, "jax": on_gpu(jax_product)}


def works(device: str, batches: list[int], precisions: list[str]) -> dict[str, Work]:
    """What is timed: every network with every batch in every precision."""
    networks = NETWORKS if device == "cuda" else SMALL
    return {
        f"{name}, m={m}, {precision}": Work("train", *network, m, precision=precision, device=device)
        for name, network in networks.items()
        for m in batches
        for precision in precisions
    }


def peak(precision: str, device: str, pythons: dict[str, str], threads: int) -> float:
    """TFLOP/s of a large product in that precision: the best that one of the libraries reaches."""
    n = PRODUCT[device]
    title, work = "product", Work("product", (), (), n, precision=precision, device=device)
    row = steps.contest({title: work}, [f"product {name}" for name in PRODUCTS], pythons, threads, 5, __file__)[title]
    fastest = min((each["wall ms"] for each in row["medians"].values()), default=math.inf)
    return 2 * n**3 / fastest / 1e9


def share_of_peak(work: Work, row: dict[str, Any], fastest: float) -> float | None:
    """Of the products of a step by the faster of pellucid's two."""
    own = [row["medians"][name]["wall ms"] for name in steps.OURS if name in row["medians"]]
    return round(2e-9 * steps.multiply_adds(work) / min(own) / fastest, 4) if own and fastest else None


def table(rows: dict[str, Any]) -> str:
    """Milliseconds, ratios, share of the peak and memory as a table in Markdown."""
    head = ["", *CONTENDERS, "step / best", "scan / best", "share of peak", "MB, pellucid", "MB, best peer"]
    lines = [head, ["---"] * len(head)]
    for title, row in rows.items():
        ratios = [row.get(f"{ours} / best peer", {}).get("wall", {}) for ours in ("pellucid", "pellucid scan")]
        memory = [row["peak MB"].get(name) for name in ("pellucid", ratios[0].get("peer"))]
        cells = [row["medians"].get(name, {}).get("wall ms") for name in CONTENDERS]
        cells += [*(each.get("ratio") for each in ratios), row["share of peak"], *memory]
        lines.append([title, *("–" if each is None else f"{each:.4g}" for each in cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def gpus(pythons: dict[str, str]) -> dict[str, str]:
    """The GPU that each library finds, or nothing."""
    asking = {
        "torch": "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')",
        "jax": "import jax; print(jax.devices()[0].device_kind if jax.default_backend() == 'gpu' else '')",
    }
    found = {}
    for name, program in asking.items():
        python = pythons.get(name, sys.executable)
        done = subprocess.run([python, "-c", program], capture_output=True, text=True)
        found[name] = done.stdout.strip()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", default="", help="works whose name contains this")
    parser.add_argument("--batches", type=int, nargs="+", help=f"examples of a step; default {BATCHES}")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="another Python for a contender")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender")
    parser.add_argument("--out", help="write all that was measured here, as JSON")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        steps.serve(arguments.serve, CONTENDERS | {f"product {name}": make for name, make in PRODUCTS.items()})
        return
    pythons = dict(each.split("=", 1) for each in arguments.python)
    pythons = {f"product {name}": python for name, python in pythons.items() if name in PRODUCTS} | pythons
    if arguments.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        device, batches = f"{platform.machine()} processor", arguments.batches or [4]
    else:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # room for the others
        found, batches = gpus(pythons), arguments.batches or list(BATCHES)
        device = found["torch"] or found["jax"]
        if not device:
            print("no GPU: neither PyTorch nor JAX finds one; --device cpu runs all of it in small on the processor")
            return
    threads = os.cpu_count() or 1
    chosen = {
        name: work
        for name, work in works(arguments.device, batches, arguments.precisions).items()
        if arguments.only in name
    }
    peaks = {
        name: peak(name, arguments.device, pythons, threads) for name in {work.precision for work in chosen.values()}
    }
    rows: dict[str, Any] = {}
    for name, work in chosen.items():
        rows |= steps.contest({name: work}, arguments.contenders, pythons, threads, arguments.rounds, __file__)
        rows[name]["share of peak"] = share_of_peak(work, rows[name], peaks[work.precision])
    print(f"{device}: {', '.join(f'{tera:.4g} TFLOP/s in {name}' for name, tera in sorted(peaks.items()))}\n")
    print(table(rows))
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump({"device": device, "peak TFLOP/s": peaks, "works": rows}, file, indent=2)


if __name__ == "__main__":
    main()
