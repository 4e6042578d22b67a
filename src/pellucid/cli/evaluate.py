"""``pellucid evaluate``: loss and metrics of a trained network on a run's test set, or on any labelled data."""

from __future__ import annotations

import argparse
from typing import Any

from pellucid.cli.common import Answer, common_flags, heading, items, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``evaluate`` takes."""
    from pellucid.cli.train import keys_flag

    parser.add_argument("name", metavar="RUN", help="a run, the beginning of its name, `latest`, or a saved network")
    parser.add_argument("data", nargs="?", metavar="DATA", help="labelled data; without it the run's own test set")
    parser.add_argument("--again", action="store_true", help="look at the test set once more; this is recorded")
    parser.add_argument("--metrics", type=items, metavar="A,B", help="default: those of the run")
    keys_flag(parser)
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Measure."""
    from pellucid import data
    from pellucid.cli.train import unit_note
    from pellucid.data.prepared import Prepared
    from pellucid.errors import DataError, ParameterError
    from pellucid.experiment import Experiment, chosen_metrics, trained
    from pellucid.metrics import default_for, render_confusion
    from pellucid.training.split import TestVault

    net, preprocessor, run = trained(args.name)
    config = run.config if run else {}
    default = [each.registered_name for each in default_for(preprocessor.task or "classification")]
    names = config.get("training", {}).get("metrics", default) if args.metrics is None else args.metrics
    metrics = chosen_metrics(names, preprocessor)
    vault = None
    if args.data:
        dataset = data.load(args.data, like=preprocessor, keys=args.keys)
        if dataset.y is None:
            raise DataError(
                "there are no labels to measure against", where=args.data, hint="pellucid predict needs none"
            )
        rows, what = Prepared(dataset, preprocessor), args.data
    elif run is None:
        raise ParameterError("a saved network has no test set", where=args.name, hint="give DATA")
    else:
        experiment = Experiment(config)
        if experiment.dataset.fingerprint != run.environment.get("data_fingerprint"):
            raise DataError("the data have changed since the run was made", where=config["data"]["source"])
        if not len(experiment.split.test):
            raise DataError("no examples were kept for the test", where=str(run.path), hint="give DATA")
        vault = TestVault(experiment.rows("test"), run)
        rows, what = vault.open(reason="evaluate", force=args.again), "test set"
    measured, confusion = measure(net, rows, metrics)
    if vault:
        vault.record(measured)
    document = {"run": str(run.path) if run else args.name, "engine": net.ops.name, "data": what, "examples": len(rows)}
    document |= {"test" if vault else "metrics": measured}
    lines = [table([[what, len(rows), *measured.values()]], ["", "examples", *(n.replace("_", " ") for n in measured)])]
    if preprocessor.task == "regression":
        lines.append(unit_note(preprocessor))
    if confusion is not None:
        document |= {"classes": preprocessor.classes, "confusion": confusion}
        lines = [
            heading("Which class was taken for which"),
            render_confusion(confusion, preprocessor.classes),
            "",
            *lines,
        ]
    return Answer(document, "\n".join(lines))


def measure(net: Any, rows: Any, metrics: list[Any]) -> tuple[dict[str, float], Any]:
    """Loss and metrics, and for classes the confusion matrix; None for values."""
    import numpy as np

    from pellucid.metrics import confusion_matrix, predicted_classes

    x, y = rows.arrays()
    measured = net.evaluate(x, y, metrics=metrics)
    classes = rows.preprocessor.classes
    if rows.preprocessor.task != "classification" or not classes:
        return measured, None
    labels = y if y is not None else np.concatenate([rows.take(part)[1] for part in parts_of(len(rows))])
    return measured, confusion_matrix(predicted_classes(predictions(net, rows, x)), labels, len(classes))


def predictions(net: Any, rows: Any, x: Any) -> Any:
    """What the network says of every row (k, outputs), a part at a time where ``x`` is not in memory."""
    import numpy as np

    if x is not rows:
        return net.predict(x)
    return np.concatenate([net.predict(rows.take(part)[0]) for part in parts_of(len(rows))])


def parts_of(count: int, size: int = 8192) -> Any:
    """The indices 0 … count - 1, ``size`` at a time."""
    import numpy as np

    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))
