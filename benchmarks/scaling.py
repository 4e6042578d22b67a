"""How long a training step takes on more and more devices: measured where they are at hand, modelled beyond.

    python benchmarks/scaling.py [--net LeNet-5] [--batch 1024] [--most 256] [--rounds 9] [--out FILE]
    JAX_NUM_CPU_DEVICES=4 taskset -c 0 python benchmarks/scaling.py     # four simulated devices, which share one core

Measured, on one device: the whole step, and each layer's forward and backward block as compiled by themselves, at the
batch that each device gets. Measured, on as many devices as are at hand: the whole step. Modelled: every device has
the whole network and its part of the batch; gradients are summed by rings (Patarasuk and Yuan 2009), which take

    2 (p - 1) / p · bytes / bandwidth + 2 (p - 1) · latency      over p devices,

either all at once after the backward half, or each layer's as soon as it is there, while the layers below go backward.
AlexNet also on two devices that have half of every layer's units each: half of the measured time, and what
`pl.exchanged` counts in the compiled program, sent while nothing else is done.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gpu
import steps


class Link(NamedTuple):
    """What joins a device to the next one of the ring."""

    bandwidth: float  # bytes a second each way
    latency: float  # seconds of one message


LINKS = {  # latencies are assumptions of the usual size
    "NVLink 450 GB/s, 3 µs": Link(450e9, 3e-6),
    "InfiniBand 400 Gb/s, 5 µs": Link(50e9, 5e-6),
    "Ethernet 10 Gb/s, 50 µs": Link(1.25e9, 50e-6),
}


class Cost(NamedTuple):
    """What a layer takes on one device: seconds, and bytes of its gradients."""

    name: str
    forward: float
    backward: float
    size: int


# --- modelled ---------------------------------------------------------------------------------------------------------


def ring(size: float, p: int, link: Link) -> float:
    """Seconds in which p devices sum arrays of so many bytes."""
    return 2 * (p - 1) / p * size / link.bandwidth + 2 * (p - 1) * link.latency


def modelled(costs: Sequence[Cost], step: float, p: int, link: Link, *, overlap: bool) -> float:
    """Seconds of a step on p devices.

    Arguments:
        costs: of the layers, at the batch that each device gets.
        step: seconds of the whole step on one device at that batch; what the layers leave of it is the loss and the
            update. Layers that take longer by themselves than all of it are scaled to it.
        p: devices.
        link: between them.
        overlap: whether a layer's gradients travel while the layers below it go backward.
    """
    layers = sum(cost.forward + cost.backward for cost in costs)
    scale = min(1.0, step / layers) if layers else 1.0
    rest = step - scale * layers
    clock = sent = scale * sum(cost.forward for cost in costs)
    for cost in reversed(costs):
        clock += scale * cost.backward
        if overlap and cost.size:
            sent = max(sent, clock) + ring(cost.size, p, link)
    if not overlap:
        sent = clock + ring(sum(cost.size for cost in costs), p, link)
    return max(clock, sent) + rest


def towers(step: float, sent: Sequence[int], link: Link) -> float:
    """Seconds of a step on two devices with half of the units each, which send so many bytes one after the other."""
    return step / 2 + sum(size / link.bandwidth + link.latency for size in sent if size)


# --- measured ---------------------------------------------------------------------------------------------------------


def seconds(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """The least time of each, taken in turns; processor time where one core does it all, which others may use too."""
    import jax

    one_core = jax.default_backend() == "cpu" and hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1
    clock = time.process_time if one_core else time.perf_counter
    least = [math.inf] * len(calls)
    for call in calls:
        steps.settle(call())
    for _ in range(rounds):
        for index, call in enumerate(calls):
            start = clock()
            steps.settle(call())
            least[index] = min(least[index], clock() - start)
    return least


def measured(work: steps.Work, rounds: int) -> tuple[list[Cost], float]:
    """Each layer's costs, and the seconds of a whole step."""
    import jax
    import numpy as np

    from pellucid.layers.base import Mode, backward

    net = steps.pellucid_network(work, "jax")
    ops, mode = net.ops, Mode(True, net.ops.random_key(0, 0))
    A = ops.asarray(np.moveaxis(steps.data(work)[0], 0, -1))
    calls: list[Callable[[], Any]] = [steps.pellucid("jax")(work)]
    for index, (layer, step) in enumerate(zip(net.layers, net.steps, strict=True)):
        own, params = net._own_mode(index, net.state, mode), net.parameters.get(step.name, {})

        def forward(params: Any, A: Any, layer: Any = layer, own: Any = own) -> Any:
            return layer.forward(ops, params, A, mode=own)[0]

        def both(params: Any, A: Any, dA: Any, layer: Any = layer, own: Any = own, first: bool = index == 0) -> Any:
            after, cache = layer.forward(ops, params, A, mode=own)
            return after, backward(layer, ops, params, cache, dA, input_gradient=not first)

        forward, both = jax.jit(forward), jax.jit(both)
        after = forward(params, A)
        calls.append(lambda f=forward, params=params, A=A: f(params, A))
        calls.append(lambda f=both, params=params, A=A, dA=after: f(params, A, dA))
        A = after
    step_seconds, *layers = seconds(calls, rounds)
    costs = []
    for step, one, two in zip(net.steps, layers[::2], layers[1::2], strict=True):
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(net.parameters.get(step.name, {})))
        costs.append(Cost(step.label, one, max(0.0, two - one), size))
    return costs, step_seconds


def on_devices(work: steps.Work, p: int, rounds: int) -> float:
    """Seconds of a step on p devices that are at hand."""
    return seconds([steps.pellucid("jax", f"data={p}")(work)], rounds)[0]


def sent_by_towers(m: int) -> list[int]:
    """Bytes that each of two devices sends in a step of AlexNet on m examples, layer by layer, as published: there
    local response normalisation keeps to its tower."""
    import pellucid as pl
    from pellucid import zoo

    net = zoo.find("alexnet").build(
        (3, 227, 227), 1000, initializer="zeros", loss="softmax_cross_entropy", engine="jax"
    )
    rows = pl.exchanged(net, mesh="model=2", batch_size=m).rows
    return [size for row in rows for size in (row.forward, row.backward)]


# --- the tables -------------------------------------------------------------------------------------------------------


def scaling(work: steps.Work, most: int, rounds: int, *, strong: bool) -> dict[str, Any]:
    """A row for each number of devices: ``work`` is what all have together, or with ``strong=False`` what each has."""
    import jax

    rows = []
    costs, step = measured(work, rounds)
    for p in (2**n for n in range(int(math.log2(most)) + 1)):
        if strong and work.m % p:
            break
        m = work.m // p if strong else work.m
        if strong and p > 1:
            costs, step = measured(work._replace(m=m), rounds)
        row = {"devices": p, "examples each": m, "one device": step, "layers": costs}
        if 1 < p <= jax.device_count():
            row["all devices"] = on_devices(work._replace(m=m * p), p, rounds)
        row["modelled"] = {
            name: {
                "after": modelled(costs, step, p, link, overlap=False),
                "beside": modelled(costs, step, p, link, overlap=True),
            }
            for name, link in LINKS.items()
        }
        rows.append(row)
    return {"scaling": "strong" if strong else "weak", "rows": rows}


def table(result: dict[str, Any]) -> str:
    """The rows in Markdown, milliseconds; behind a modelled time the share of the devices that it keeps busy."""
    strong, rows = result["scaling"] == "strong", result["rows"]
    alone = rows[0]["one device"]
    head = ["devices", "examples each", "one device at that batch, measured", "all of them, measured"]
    head += [f"{name}, modelled" for name in LINKS]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        p = row["devices"]
        cells = [str(p), str(row["examples each"]), f"{row['one device'] * 1e3:.4g}"]
        cells.append(f"{row['all devices'] * 1e3:.4g}" if "all devices" in row else "–")
        for times in row["modelled"].values():
            beside = times["beside"]
            share = alone / beside / (p if strong else 1)
            cells.append(f"{times['after'] * 1e3:.4g}; {beside * 1e3:.4g} ({share:.0%})" if p > 1 else "as measured")
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def layers_table(costs: Sequence[Cost]) -> str:
    """What was measured of each layer, in Markdown."""
    lines = ["| layer | forward, ms | backward, ms | gradients, kB |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {ahead * 1e3:.3g} | {back * 1e3:.3g} | {size / 1e3:.4g} |" for name, ahead, back, size in costs
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=gpu.NETWORKS, default="LeNet-5")
    parser.add_argument("--batch", type=int, default=1024, help="examples of a step on all devices together")
    parser.add_argument("--each", type=int, default=128, help="examples of each device in the weak table")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--most", type=int, default=256, help="devices")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each measurement")
    parser.add_argument("--out", help="write all that was measured here, as JSON")
    arguments = parser.parse_args()
    import jax

    work = steps.Work("train", *gpu.NETWORKS[arguments.net], arguments.batch, precision=arguments.precision)
    devices = jax.devices()
    kind = f"{len(devices)} × {devices[0].device_kind}"
    print(f"{arguments.net}, {work.precision}, {kind}, {os.cpu_count()} processor cores\n")
    weak = scaling(work._replace(m=arguments.each), arguments.most, arguments.rounds, strong=False)
    strong = scaling(work, arguments.most, arguments.rounds, strong=True)
    print(f"Layers with {arguments.each} examples, measured\n\n{layers_table(weak['rows'][0]['layers'])}\n")
    for result in (strong, weak):
        print(f"{result['scaling']} scaling, ms: sums after the backward half; beside it\n\n{table(result)}\n")
    document = {"net": arguments.net, "devices": kind, "tables": [strong, weak]}
    if arguments.net == "AlexNet" and len(devices) > 1:
        sent, step = sent_by_towers(arguments.each), weak["rows"][0]["one device"]
        document["towers"] = {name: towers(step, sent, link) for name, link in LINKS.items()}
        print(f"two towers, {arguments.each} examples: {step * 1e3:.4g} ms on one device, measured")
        print(f"each sends {sum(sent) / 1e6:.4g} MB in {sum(size > 0 for size in sent)} exchanges, counted")
        for name, time_taken in document["towers"].items():
            print(f"{name}: {time_taken * 1e3:.4g} ms, modelled")
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(document, file, indent=2)


if __name__ == "__main__":
    main()
