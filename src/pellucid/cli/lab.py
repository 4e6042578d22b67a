"""``pellucid lab``: experiments that predict, measure and draw."""

from __future__ import annotations

import argparse
from pathlib import Path

from pellucid.cli.common import Answer, common_flags, heading, indented, natural, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``lab`` takes."""
    parser.add_argument("name", metavar="NAME|list", help="an experiment; list: what there is")
    parser.add_argument("--out", metavar="DIR", help="where its picture goes (default: lab/NAME)")
    parser.add_argument("--seed", type=natural, default=0, help="of everything random (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a small version, to try it")
    common_flags(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from pellucid import lab

    if args.name == "list":
        known = lab.experiments().values()
        rows = [[each.name, each.title] for each in known]
        document = {"experiments": [{"name": e.name, "title": e.title, "question": e.question} for e in known]}
        return Answer(document, table(rows, ["experiment", ""], left=2))
    experiment = lab.find(args.name)
    result = experiment.run(Path(args.out or f"lab/{args.name}"), seed=args.seed, quick=args.quick)
    findings = [
        [each.what, each.predicted, each.measured, "agrees" if each.agrees else "DIFFERS"] for each in result.findings
    ]
    parts = [
        f"{heading(experiment.title)}\n{experiment.question}",
        "\n".join(result.notes),
        table(result.rows, result.head),
        table(findings, ["what theory foretells", "predicted", "measured", ""]),
        f"drawn in {result.picture}",
    ]
    text = "\n\n".join([parts[0], *map(indented, parts[1:4]), parts[4]])
    named = {"experiment": experiment.name, "question": experiment.question, "seed": args.seed}
    return Answer({**named, **result.document()}, text, 0 if all(each.agrees for each in result.findings) else 1)
