"""``pellucid evaluate``: loss and metrics of a trained network on a run's test set, or on any labelled data."""

from __future__ import annotations

import argparse

from pellucid.cli.common import Answer, common_flags, heading, items, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``evaluate`` takes."""
    from pellucid.cli.train import keys_flag

    parser.add_argument("name", metavar="RUN", help="a run, the beginning of its name, `latest`, or a saved network")
    parser.add_argument("data", nargs="?", metavar="DATA", help="labelled data; without it the run's own test set")
    parser.add_argument("--again", action="store_true", help="look at the test set once more; this is recorded")
    parser.add_argument("--metrics", type=items, metavar="A,B", help="default: those of the run")
    keys_flag(parser)
    parser.add_argument("--engine", default="auto", metavar="E", help="where it runs (see `pellucid show --engines`)")
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Measure."""
    from pellucid import tasks
    from pellucid.errors import DataError, ParameterError
    from pellucid.experiment import opened
    from pellucid.training.split import TestVault

    net, run = opened(args.name, engine=args.engine)
    names = run.config.get("training", {}).get("metrics") if run and args.metrics is None else args.metrics
    if args.data:
        finding, count = tasks.of(net).evaluate(net, args.data, names, keys=args.keys)
        what, part = args.data, "metrics"
    elif run is None:
        raise ParameterError("a saved network has no test set", where=args.name, hint="give DATA")
    else:
        task = tasks.made(run.config)
        if task.fingerprint != run.environment.get("data_fingerprint"):
            raise DataError("the data have changed since the run was made", where=run.config["data"]["source"])
        if not task.sizes["test"]:
            raise DataError("no examples were kept for the test", where=str(run.path), hint="give DATA")
        vault = TestVault(task.rows("test"), run)
        finding = task.measure(net, vault.open(reason="evaluate", force=args.again), names or [])
        vault.record(finding.values)
        what, count, part = "test set", task.sizes["test"], "test"
    document = {"run": str(run.path) if run else args.name, "engine": net.ops.name, "data": what, "examples": count}
    document |= {part: finding.values} | finding.document
    names = [name.replace("_", " ") for name in finding.values]
    lines = [heading(finding.title), finding.text, ""] if finding.text else []
    lines.append(table([[what, count, *finding.values.values()]], ["", "examples", *names]))
    lines += [finding.note] if finding.note else []
    return Answer(document, "\n".join(lines))
