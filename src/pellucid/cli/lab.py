"""``pellucid lab``: experiments that predict, measure and draw."""

from __future__ import annotations

import argparse
import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.cli.common import Answer, common_flags, failure, heading, indented, natural, note, table
from pellucid.errors import PellucidError
from pellucid.files import cannot_write

if TYPE_CHECKING:
    from pellucid.lab import Experiment, Result


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``lab`` takes."""
    what = "an experiment; all: every one; list: what there is (default)"
    parser.add_argument("name", metavar="NAME|all|list", nargs="?", default="list", help=what)
    parser.add_argument("--out", metavar="DIR", default="lab", help="where the pictures go (default: lab)")
    parser.add_argument("--seed", type=natural, default=0, help="of everything random (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a small version, to try it")
    common_flags(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from pellucid import lab

    known = lab.experiments()
    if args.name == "list":
        rows = [[each.name, each.title] for each in known.values()]
        document = [{"name": e.name, "title": e.title, "question": e.question} for e in known.values()]
        return Answer({"experiments": document}, table(rows, ["experiment", ""], left=2))
    chosen = None if args.name == "all" else lab.find(args.name)
    _check_folder(Path(args.out))  # before minutes of measuring
    return _all(list(known.values()), args) if chosen is None else _one(chosen, args)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as failure:
        raise cannot_write(folder, failure) from None


def _one(experiment: Experiment, args: argparse.Namespace) -> Answer:
    result = experiment.run(Path(args.out), seed=args.seed, quick=args.quick)
    named = {"experiment": experiment.name, "question": experiment.question, "seed": args.seed}
    return Answer({**named, **result.document()}, _text(experiment, result), 0 if result.agrees else 1)


def _all(experiments: list[Experiment], args: argparse.Namespace) -> Answer:
    """Every experiment, whatever becomes of the others."""
    documents, texts, rows = [], [], []
    for experiment in experiments:
        started = time.monotonic()
        try:
            document, text, code = _one(experiment, args)
            outcome = "DIFFERS" if code else "agrees"
        except PellucidError as problem:
            error, text, code = failure(problem)
            document, outcome = {"experiment": experiment.name, "error": error}, "FAILED"
        rows.append([experiment.name, outcome, round(time.monotonic() - started)])
        note("{}: {}, {} s".format(*rows[-1]))
        documents.append({**document, "agrees": not code})
        texts.append(text)
    agrees = all(each["agrees"] for each in documents)
    texts.append(table(rows, ["experiment", "theory", "seconds"], left=2))
    return Answer({"experiments": documents, "agrees": agrees}, "\n\n\n".join(texts), 0 if agrees else 1)


def _text(experiment: Experiment, result: Result) -> str:
    findings = [
        [each.what, each.predicted, each.measured, "agrees" if each.agrees else "DIFFERS"] for each in result.findings
    ]
    parts = [
        "\n".join(result.notes),
        table(result.rows, result.head),
        table(findings, ["what theory foretells", "predicted", "measured", ""]),
    ]
    first, last = f"{heading(experiment.title)}\n{experiment.question}", f"drawn in {result.picture}"
    return "\n\n".join([first, *map(indented, parts), last])
