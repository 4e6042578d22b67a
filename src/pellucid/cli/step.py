"""``pellucid step``: one iteration laid open, for one example or a batch."""

from __future__ import annotations

import argparse
from typing import Any

from pellucid.cli.common import Answer, UsageError, common_flags, integer, natural


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``step`` takes."""
    from pellucid.cli.train import reading_flags

    parser.usage = "%(prog)s RUN|NET [DATA] [flags]"
    parser.add_argument("name", metavar="RUN|NET", help="a run, a network of the zoo, or a network file")
    parser.add_argument("data", nargs="?", metavar="DATA", help="examples; without it the training examples of the run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--example", type=natural, metavar="I", help="this example alone, counted from 0 (default: 0)")
    which.add_argument("--batch", type=integer, metavar="N", help="the first N examples")
    parser.add_argument(
        "--optimizer", metavar="O", help='of the update (default: the run\'s or "gradient_descent(0.1)")'
    )
    parser.add_argument("--precision", type=integer, default=4, metavar="N", help="digits after the point (default: 4)")
    parser.add_argument("--max-items", type=integer, default=6, metavar="N", help="rows and columns shown (default: 6)")
    reading_flags(parser)
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Lay one iteration open."""
    import numpy as np

    from pellucid.errors import DataError
    from pellucid.inspect.trace import trace
    from pellucid.training.batches import Source

    net, rows, optimizer = prepared(args)
    chosen = np.arange(min(args.batch, len(rows))) if args.batch else np.array([args.example or 0])
    if chosen[-1] >= len(rows):
        raise DataError("no such example", where="--example", expected=f"0 … {len(rows) - 1}", got=int(chosen[-1]))
    x, y = rows.take(chosen)
    if y is None:
        raise DataError("there are no targets, and an iteration needs them", where=rows.dataset.name)
    batch = Source(net, x, y).batch(np.arange(len(chosen)))
    # statistics of a batch of one are the example itself: the running ones are what says something
    alone = len(chosen) == 1 and any(layer.needs_batch for layer in net.names)
    done = trace(net, batch.inputs, batch.targets, mask=batch.masks, train=not alone)
    update = done.update(args.optimizer or optimizer)
    shown = {"precision": args.precision, "max_items": args.max_items}
    document = done.document() | {
        "target": [np.asarray(each).tolist() for each in y],
        "update": {path: {what: A.tolist() for what, A in change.items()} for path, change in update.items()},
    }
    note = [
        "(one example: normalisation uses its running statistics and nothing is dropped; --batch 8 trains)\n"
    ] * alone
    return Answer(document, "\n".join([*note, done.show(**shown), "", update.show(**shown)]))


def prepared(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The network, the examples and the optimizer that the arguments name."""
    from pellucid import data, tasks, zoo
    from pellucid.cli.train import reading
    from pellucid.data.prepared import Prepared
    from pellucid.experiment import is_run, opened, trained
    from pellucid.tasks.building import is_file

    if is_run(args.name):
        net, run = opened(args.name)
        optimizer = run.config["training"]["optimizer"] if run else "gradient_descent(0.1)"
        if args.data:
            preprocessor = trained(args.name)[1]
            return net, Prepared(data.load(args.data, like=preprocessor), preprocessor), optimizer
        if run is None:
            raise UsageError("a saved network needs DATA", args.parser)
        return net, tasks.made(run.config).rows("train"), optimizer
    if not args.data:
        raise UsageError("a network that was not trained yet needs DATA", args.parser)
    kind = tasks.find(args.data, args.task, args.name)
    recipe = zoo.Recipe("gradient_descent(0.1)") if is_file(args.name) else zoo.find(args.name).recipe
    none_held_out = {"validation": 0, "test": 0, "seed": 0}
    described: dict[str, Any] = {
        "data": reading(args, standardize=recipe.standardize),
        "split": none_held_out if kind.kind == "examples" else {"validation": 0.1, "test": 0.1, "seed": 0},
    }
    if kind.kind != "examples":
        described["task"] = {"kind": kind.kind}
    task = tasks.made(described)
    return task.network(args.name, {}, {}), task.rows("train"), recipe.optimizer
