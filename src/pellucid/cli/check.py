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

    net, X, Y = _examples(args)
    report = check_gradients(net, X, Y, entries=args.entries, seed=args.seed)
    document = {"network": args.name, "passed": report.passed, "worst": asdict(report.worst), "blame": report.blame}
    return Answer(document, str(report), 0 if report.passed else 1)


def _examples(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The network and examples last, (…, m)."""
    import numpy as np

    from pellucid import zoo
    from pellucid.cli.step import prepared
    from pellucid.experiment import complete_file, is_file, is_run, trained

    if args.data or (is_run(args.name) and not Path(args.name).is_file()):
        net, rows, _ = prepared(args)
        x, y = rows.take(np.arange(min(args.batch, len(rows))))
        return net, np.moveaxis(x, 0, -1), np.moveaxis(y, 0, -1) if y.ndim > 1 else y
    if is_run(args.name):
        net, _, _ = trained(args.name)
    elif is_file(args.name):
        net = complete_file(args.name, loss="mean_squared_error")
    else:
        net = zoo.find(args.name).example()
    rng = np.random.default_rng(args.seed)
    X = {name: rng.standard_normal((*shape, args.batch)) for name, shape in net.inputs.items()}
    Y = {name: _targets(net.losses[name], shape, args.batch, rng) for name, shape in net.outputs.items()}
    return (net, next(iter(X.values())), next(iter(Y.values()))) if net.single else (net, X, Y)


def _targets(loss: Any, shape: tuple[int, ...], m: int, rng: Any) -> Any:
    if loss.binary:
        return rng.integers(0, 2, (*shape, m)).astype(float)
    return rng.integers(0, shape[-1], (*shape[:-1], m)) if loss.of_classes else rng.standard_normal((*shape, m))
