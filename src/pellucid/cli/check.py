"""``pellucid check``: a network's gradients against finite differences."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pellucid.cli.common import Answer, common_flags, integer, natural


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``check`` takes."""
    from pellucid.cli.train import reading_flags

    parser.epilog = "The exit code is 1 when a gradient is wrong."
    parser.usage = "%(prog)s NET|RUN [DATA] [flags]"
    parser.add_argument("name", metavar="NET|RUN", help="a network of the zoo, a network file, a run, a saved network")
    parser.add_argument("data", nargs="?", metavar="DATA", help="default: the run's own, or random numbers")
    parser.add_argument("--batch", type=integer, default=8, metavar="N", help="how many examples (default: 8)")
    parser.add_argument("--entries", type=integer, default=20, metavar="N", help="entries of each array (default: 20)")
    parser.add_argument("--seed", type=natural, default=0, metavar="S", help="of random data and directions")
    reading_flags(parser)
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Check."""
    from pellucid.inspect.gradcheck import check_gradients

    net, X, Y, mask = _examples(args)
    report = check_gradients(net, X, Y, mask=mask, entries=args.entries, seed=args.seed)
    document = {"network": args.name, "passed": report.passed, "worst": asdict(report.worst), "blame": report.blame}
    return Answer(document, str(report), 0 if report.passed else 1)


def _examples(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """The network, examples last (…, m) by name, and the masks of those of different lengths."""
    import numpy as np

    from pellucid import zoo
    from pellucid.cli.step import prepared
    from pellucid.experiment import is_run, opened
    from pellucid.tasks.building import complete_file, is_file
    from pellucid.training.batches import Source

    if args.data or (is_run(args.name) and not Path(args.name).is_file()):
        net, rows, _ = prepared(args)
        chosen = np.arange(min(args.batch, len(rows)))
        batch = Source(net, *rows.take(chosen)).batch(chosen)
        return net, batch.inputs, batch.targets, batch.masks
    if is_run(args.name):
        net = opened(args.name)[0]
    elif is_file(args.name):
        net = complete_file(args.name, loss="mean_squared_error")
    else:
        net = zoo.find(args.name).example()
    rng = np.random.default_rng(args.seed)
    X = {name: _inputs(net, name, shape, args.batch, rng) for name, shape in net.inputs.items()}
    Y = {name: _targets(net.losses[name], _sized(shape), args.batch, rng) for name, shape in net.outputs.items()}
    return net, X, Y, None


def _inputs(net: Any, name: str, shape: tuple[int, ...], m: int, rng: Any) -> Any:
    """Random numbers; random ids where they are looked up."""
    from pellucid.layers import Embedding

    readers = [step.layer for step in net.steps if name in step.sources]
    levels = [layer.levels for layer in readers if isinstance(layer, Embedding)]
    size = (*_sized(shape), m)
    return rng.integers(0, min(levels), size).astype(float) if levels else rng.standard_normal(size)


def _sized(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """Six steps where there may be any number."""
    return tuple(6 if n is None else n for n in shape)


def _targets(loss: Any, shape: tuple[int, ...], m: int, rng: Any) -> Any:
    if loss.binary:
        return rng.integers(0, 2, (*shape, m)).astype(float)
    return rng.integers(0, shape[-1], (*shape[:-1], m)) if loss.of_classes else rng.standard_normal((*shape, m))
