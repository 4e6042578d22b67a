"""``pellucid predict``: what a trained network says of new data."""

from __future__ import annotations

import argparse
import csv
import io

from pellucid.cli.common import Answer, common_flags, note, with_flags


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``predict`` takes."""
    from pellucid.cli.train import keys_flag

    parser.add_argument("name", metavar="RUN", help="a run, the beginning of its name, `latest`, or a saved network")
    parser.add_argument("data", metavar="DATA", help="raw data as in training; columns are found by name")
    parser.add_argument("--out", metavar="FILE.csv", help="write the CSV there instead of to standard output")
    parser.add_argument("--probabilities", action="store_true", help="add the probability of every class")
    keys_flag(parser)
    parser.add_argument("--engine", default="auto", metavar="E", help="where it runs (see `pellucid show --engines`)")
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Predict."""
    from pellucid import tasks
    from pellucid.experiment import opened
    from pellucid.files import atomic_write

    net, run = opened(args.name, engine=args.engine)
    said = tasks.of(net).predict(net, args.data, keys=args.keys, probabilities=args.probabilities)
    for line in said.report:
        note(with_flags(line))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(said.columns)
    rows = list(zip(*said.columns.values(), strict=True))
    writer.writerows(rows)
    document = {"run": str(run.path) if run else args.name, "examples": len(rows), **said.document}
    if not args.out:
        return Answer(document, text.getvalue())
    atomic_write(args.out, text.getvalue())
    return Answer(document | {"file": args.out}, f"{len(rows):,} predictions written to {args.out}")
