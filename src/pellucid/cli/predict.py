"""``pellucid predict``: what a trained network says of new data."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

from pellucid.cli.common import Answer, common_flags, note, with_flags


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``predict`` takes."""
    from pellucid.cli.train import keys_flag

    parser.add_argument("name", metavar="RUN", help="a run, the beginning of its name, `latest`, or a saved network")
    parser.add_argument("data", metavar="DATA", help="raw data as in training; columns are found by name")
    parser.add_argument("--out", metavar="FILE.csv", help="write the CSV there instead of to standard output")
    parser.add_argument("--probabilities", action="store_true", help="add the probability of every class")
    keys_flag(parser)
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Predict."""
    from pellucid import data
    from pellucid.cli.evaluate import predictions
    from pellucid.data.prepared import Prepared
    from pellucid.experiment import trained
    from pellucid.files import atomic_write

    net, preprocessor, run = trained(args.name)
    # a set of the catalog is read as its card says; in a file of one's own labels are neither needed nor looked at
    unlabelled = {"target": False} if Path(args.data).exists() or args.data not in data.names() else {}
    dataset = data.load(args.data, like=preprocessor, keys=args.keys, **unlabelled)
    for line in dataset.report:
        note(with_flags(line))
    rows = Prepared(dataset, preprocessor)
    made = predictions(net, rows, rows.arrays()[0])
    columns = _columns(made, preprocessor, net, probabilities=args.probabilities)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    document = {"run": str(run.path) if run else args.name, "examples": len(dataset), **_document(columns)}
    if not args.out:
        return Answer(document, text.getvalue())
    atomic_write(args.out, text.getvalue())
    return Answer(document | {"file": args.out}, f"{len(dataset):,} predictions written to {args.out}")


def _columns(made: Any, preprocessor: Any, net: Any, *, probabilities: bool) -> dict[str, list[Any]]:
    """The CSV's columns: the predicted class or values, and the probabilities asked for."""
    from pellucid.errors import ParameterError
    from pellucid.metrics import predicted_classes

    names = preprocessor.target_names
    if preprocessor.task == "regression":
        if probabilities:
            raise ParameterError("a regression has no probabilities", where="--probabilities")
        values = preprocessor.inverse_y(made).T.tolist()
        names = names if len(names) == len(values) else [f"prediction {i}" for i in range(1, len(values) + 1)]
        return dict(zip(names if len(values) > 1 else names or ["prediction"], values, strict=True))
    classes = preprocessor.classes
    columns = {names[0] if names else "prediction": [classes[i] for i in predicted_classes(made).tolist()]}
    if probabilities:
        loss = next(iter(net.losses.values()))
        if loss.registered_name == "hinge":
            raise ParameterError("a network trained with hinge gives scores, no probabilities", where="--probabilities")
        both = [1 - made[:, 0], made[:, 0]] if made.shape[1] == 1 else made.T
        columns |= {f"p({name})": [float(f"{p:.6g}") for p in each] for name, each in zip(classes, both, strict=True)}
    return columns


def _document(columns: dict[str, list[Any]]) -> dict[str, Any]:
    names = list(columns)
    shares = {name[2:-1]: values for name, values in columns.items() if name.startswith("p(")}
    if shares:
        return {"predictions": columns[names[0]], "probabilities": shares}
    return {"predictions": columns[names[0]] if len(names) == 1 else columns}
