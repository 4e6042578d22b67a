"""``pellucid tune``: the search for hyperparameters, and whether an old optimum still is one."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

from pellucid.cli.common import (
    Answer,
    Interrupted,
    UsageError,
    common_flags,
    heading,
    indented,
    integer,
    items,
    natural,
    note,
    table,
    training_examples_flags,
)

if TYPE_CHECKING:
    from pellucid.tune import Study, Trial
    from pellucid.tune.recheck import Recheck

_EPILOG = """\
examples
  pellucid tune digits --trials 30
  pellucid tune houses.csv --target price --space space.toml --time 1h --jobs 4
  pellucid tune fashion-mnist --net cnn --storage postgresql://user:word@host/tuning     on every machine
  pellucid tune --recheck tuning/digits-mlp

a space file says for each hyperparameter a range, some choices or a value; what it leaves out is the recipe's
  learning_rate = {low = 1e-4, high = 1e-1, log = true}
  units = {low = 16, high = 256, step = 16}
  activation = ["relu", "tanh"]
  epochs = 20

the same command again goes on with the same study, and so does the same command at the same time
"""
_SHOWN = 10  # trials of the table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``tune`` takes."""
    from pellucid.cli.train import _share, reading_flags

    parser.usage, parser.epilog = "%(prog)s DATA [flags]\n       %(prog)s --recheck STUDY [DATA]", _EPILOG
    parser.add_argument("data", nargs="?", metavar="DATA", help="a file, a folder, or a name of `pellucid data list`")
    add = parser.add_argument_group("search").add_argument
    add("--net", metavar="NAME|FILE.toml", help="a network of `pellucid zoo list` (default: mlp), or a file")
    add("--space", metavar="FILE.toml|defaults", help="what is searched (default: defaults)")
    add("--trials", type=integer, metavar="N", help="how many there are to be in all (default: 50)")
    add("--time", type=_seconds, metavar="T", help="begin none after T, such as 90s, 10m, 2h")
    add("--jobs", type=integer, metavar="J", help="processes, which share the threads (default: 1)")
    add("--sampler", metavar="NAME", help="tpe, random, cmaes, gp, grid or qmc (default: tpe)")
    add("--pruner", metavar="NAME", help="median, hyperband, asha or none (default: median)")
    add("--confirm", type=natural, metavar="N", help="leading trials that are trained again at the end (default: 4)")
    add("--seed", type=natural, metavar="S", help="of the split, of every training, of the sampler (default: 0)")
    add("--storage", metavar="URL", help="journal:FILE, sqlite:///FILE, postgresql://…, … (default: a file in --out)")
    add("--study", metavar="NAME", help="its name in the storage (default: DATA-NET)")
    add("--out", metavar="DIR", help="where the reports go (default: tuning/DATA-NET)")
    add = parser.add_argument_group("what every trial has alike").add_argument
    add("--loss", metavar="NAME", help="default: softmax_cross_entropy, or mean_squared_error")
    add("--metrics", type=items, metavar="A,B", help="measured besides the loss, such as accuracy,f1")
    training_examples_flags(add)
    add("--validation", type=_share, metavar="SHARE", help="of the examples, to compare trials by (default: 0.1)")
    add(
        "--splits",
        type=integer,
        metavar="N",
        help="draws of these, over which a trial's loss is the mean (default: 1 to 10)",
    )
    add("--test", type=_share, metavar="SHARE", help="of the examples, that are never looked at (default: 0.1)")
    add("--engine", metavar="E", help="numpy, … (see `pellucid show --engines`)")
    add("--dtype", choices=["float32", "float64"], help="of all arithmetic (default: float32)")
    add(
        "--precision", choices=["float32", "bfloat16", "tensorfloat32"], help="of what layers multiply (default: dtype)"
    )
    add("--threads", type=integer, metavar="N", help="of all jobs together")
    reading_flags(parser)
    add = parser.add_argument_group("an old optimum").add_argument
    add("--recheck", metavar="STUDY", help="measure the optimum of this folder again: keep, adjust or search again")
    add("--seeds", type=integer, metavar="N", help="trainings of each candidate (default: 5)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Search, or measure again."""
    if args.threads:  # read by the matrix library when NumPy is imported, which has not happened yet
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(args.threads)
    if args.recheck:
        return _recheck(args)
    if not args.data:
        raise UsageError("give DATA to search on, or --recheck STUDY", args.parser)
    if args.seeds:
        raise UsageError("--seeds is for --recheck", args.parser)
    return _tune(args)


def _tune(args: argparse.Namespace) -> Answer:
    from pellucid import tasks
    from pellucid.cli.train import reading
    from pellucid.tasks.building import recipe_of
    from pellucid.tune.tuning import FIXED, tune

    kind = tasks.find(args.data, args.task)
    net = args.net or kind.net
    own = {name: value for name in kind.options if (value := getattr(args, name, None)) is not None}
    options = reading(args, standardize=recipe_of(net).standardize)
    source = options.pop("source")
    try:
        study = tune(
            source,
            net=net,
            task=args.task if kind.kind == "examples" else {"kind": kind.kind, **own},
            space=args.space or "defaults",
            trials=args.trials,
            time=args.time,
            jobs=args.jobs or 1,
            storage=args.storage,
            study=args.study,
            sampler=args.sampler or "tpe",
            pruner=args.pruner or "median",
            **({} if args.confirm is None else {"confirm": args.confirm}),
            seed=args.seed or 0,
            validation=0.1 if args.validation is None else args.validation,
            splits=args.splits,
            test=args.test,
            out=args.out,
            progress=False if args.quiet else "auto",
            reading=options,
            **{name: getattr(args, name) for name in FIXED},
        )
    except (KeyboardInterrupt, SystemExit) as stopped:
        command = shlex.join(["pellucid", *sys.argv[1:]])
        note(f"interrupted; every trial that has ended is kept. To go on: {command}")
        code = 130 if isinstance(stopped, KeyboardInterrupt) else int(stopped.code or 1)
        raise Interrupted(command, code) from None
    return _answer(study)


def _answer(study: Study) -> Answer:
    document = study.report()
    best, base = study.best, study.baseline
    names = study.space.searched
    rows = [
        [each.number, each.loss, each.seconds, each.best_epoch, *(_text(each.settings.get(name, "")) for name in names)]
        for each in study.complete[:_SHOWN]
    ]
    if base and base.number in (shown := [row[0] for row in rows]):
        rows[shown.index(base.number)][0] = f"{base.number}, the recipe"
    states = ", ".join(f"{count} {state}" for state, count in document["states"].items())
    seconds = document["seconds"]
    settings = [[name.replace("_", " "), _text(value)] for name, value in best.settings.items()]
    parts = [
        heading(f"The best of {len(study.complete)} complete trials"),
        table(rows, ["trial", "loss", "seconds", "epoch", *(name.replace("_", " ") for name in names)]),
        f"{states}; {seconds['all']:.1f} s in all, {seconds['mean']:.2f} s each",
        "",
        heading(f"Trial {best.number}: validation loss {best.loss:.4f}"),
        indented(table(settings, ["", ""], left=2).partition("\n")[2] if settings else "the recipe as it stands"),
        *([f"the recipe as it stands: {base.loss:.4f}"] if base and base.number != best.number else []),
        *([_of_draws(best)] if len(best.losses) > 1 else []),
        "",
        heading("How it was chosen"),
        f"  {document['verdict']}",
        *([indented(table(_again(study), ["", "search", "again", "gain", "error"]))] if study.confirmed else []),
        "",
    ]
    if document["importances"]:
        shares = [[name.replace("_", " "), share] for name, share in document["importances"].items()]
        drawn = [each.settings for each in study.complete if each.settings]
        some = [name.replace("_", " ") for name in document["importances"] if any(name not in each for each in drawn)]
        among = f"\n{', '.join(some)}: among the trials that have it" if some else ""
        parts += [heading("What mattered"), indented(table(shares, ["", "share"]) + among), ""]
    if getattr(study, "exhausted", False):
        parts += ["every setting of the space has been tried", ""]
    pictures = ", ".join(os.path.basename(path) for path in document["pictures"])
    parts += [heading("Kept in"), f"  {study.folder}" + (f"   ({pictures}, report.json)" if pictures else ""), ""]
    parts += [heading("To train it, and open the test set"), f"  {document['command']}"]
    return Answer(document, "\n".join(parts))


def _of_draws(best: Trial) -> str:
    each = ", ".join(f"{loss:.4f}" for loss in best.losses)
    return (
        f"the mean over {len(best.losses)} draws of the validation examples: {each}\n"
        f"as the command measures: {best.validation['loss']:.4f}"
    )


def _again(study: Study) -> list[list[Any]]:
    return [
        [
            "the recipe" if each.trial.baseline else f"trial {each.trial.number}",
            each.trial.loss,
            each.loss,
            "" if each.gain is None else f"{each.gain:+.4f}",
            "" if each.error is None else f"{each.error:.4f}",
        ]
        for each in study.confirmed
    ]


def _recheck(args: argparse.Namespace) -> Answer:
    from pellucid.tune import Study
    from pellucid.tune.recheck import recheck

    free = {"recheck", "seeds", "data", "json", "debug", "quiet", "threads", "run", "parser", "no_standardize"}
    for name, value in vars(args).items():
        if name not in free and value is not None and value is not False:
            raise UsageError(f"--{name.replace('_', '-')} is the study's, and stays", args.parser)
    study = Study.open(args.recheck)
    say = (lambda text: None) if args.quiet else note
    found = recheck(study, args.data, seeds=args.seeds or 5, told=say)
    return Answer(found.document(), _spoken(found, study))


def _spoken(found: Recheck, study: Study) -> str:
    rows = [
        [
            each.kind,
            each.what,
            each.mean if each.mean is not None else each.reason,
            "" if each.interval is None else f"{each.interval[0]:.4f} to {each.interval[1]:.4f}",
            "" if each.gain is None else f"{each.gain:+.4f}",
            each.seconds,
        ]
        for each in found.candidates
    ]
    changed = [[name, _short(then), _short(now)] for name, then, now in found.changed]
    parts = [
        heading(f"Verdict: {found.verdict}"),
        *found.why,
        "",
        heading(f"Measured with {len(found.seeds)} seeds"),
        indented(table(rows, ["", "", "loss", "95 % interval", "above the optimum", "seconds"], left=2)),
        "",
        heading("What has changed since"),
        indented(table(changed, ["", "then", "now"], left=3) if changed else "nothing"),
    ]
    if found.command:
        parts += ["", heading("To train it"), f"  {found.command}"]
    else:
        again = [study.plan["data"]["source"], "--net", study.plan["net"], "--out", f"{study.folder}-again"]
        parts += ["", heading("To search again"), f"  pellucid tune {shlex.join(again)} …"]
    return "\n".join([*parts, "", f"kept in {study.folder / 'recheck.json'}"])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:16]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 10m, 2h, got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
