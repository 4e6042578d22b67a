"""``pellucid runs``: the runs there are, and what tells them apart."""

from __future__ import annotations

import argparse
from typing import Any

from pellucid.cli.common import Answer, common_flags, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``runs`` takes."""
    verbs = parser.add_subparsers(metavar="list|compare", required=True, parser_class=type(parser))
    verb = verbs.add_parser("list", help="every run", description="Every run below a folder.")
    verb.add_argument("folder", nargs="?", default="runs", metavar="FOLDER", help="where the runs are (default: runs)")
    common_flags(verb)
    verb.set_defaults(run=_list, parser=verb)
    verb = verbs.add_parser(
        "compare", help="what differs, and what came of it", description="What differs between runs."
    )
    verb.add_argument("names", nargs="+", metavar="RUN", help="two or more")
    verb.add_argument("--png", metavar="FILE", help="draw the curves over one another")
    common_flags(verb)
    verb.set_defaults(run=_compare, parser=verb)


def _list(args: argparse.Namespace) -> Answer:
    from pellucid.runs import compare, list_runs

    runs = list_runs(args.folder)
    if not runs:
        return Answer({"runs": []}, f"no runs in {args.folder}; `pellucid train digits` makes one")
    rows = compare(runs)
    shown = [
        [row["run"], row["status"], f"{row['epochs']}", _short(row["best"], "validation_"), _short(row["test"])]
        for row in rows
    ]
    text = table(shown, ["run", "status", "epochs", "best validation", "test"], left=5)
    keys = ("run", "status", "epochs", "best", "test")
    return Answer({"runs": [{key: row[key] for key in keys} for row in rows]}, text)


def _compare(args: argparse.Namespace) -> Answer:
    from pellucid.inspect.curves import png
    from pellucid.runs import Run, compare

    runs = [Run.open(name) for name in args.names]
    rows = compare(runs)
    if args.png:
        png({run.name: run.history() for run in runs}, args.png)
    differ = list(rows[0]["config"])
    measures = [[row["epochs"], _short(row["best"], "validation_"), _short(row["test"])] for row in rows]
    lines = [[name, *(_value(row["config"][name]) for row in rows)] for name in differ]
    lines += [
        [name, *values]
        for name, values in zip(("epochs", "best validation", "test"), zip(*measures, strict=True), strict=True)
    ]
    text = table(
        [[_value(each) for each in line] for line in lines], ["", *(run.name for run in runs)], left=len(runs) + 1
    )
    return Answer({"runs": rows, "picture": args.png}, text + (f"\n\ndrawn in {args.png}" if args.png else ""))


def _short(values: dict[str, Any], prefix: str = "") -> str:
    own = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in own.items() if isinstance(value, float))


def _value(value: Any, widest: int = 40) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= widest else text[: widest - 1] + "…"
