"""``pellucid train``: from data to a measured network and a run that holds all of it."""

from __future__ import annotations

import argparse
import os
import shlex
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
    with_flags,
)
from pellucid.errors import counted

if TYPE_CHECKING:
    from pellucid.network.base import Network
    from pellucid.runs import Run
    from pellucid.tasks import Finding, Task

_EPILOG = """\
examples
  pellucid train digits
  pellucid train houses.csv --target price --drop id
  pellucid train fashion-mnist --hidden 512,256 --epochs 20
  pellucid train digits --net mynet.toml --optimizer "momentum(0.1)"
  pellucid train --resume latest

a network file says its layers; what it leaves out is taken from the data: input_shape, the units of a last Dense layer,
the loss
  layers = [{type = "flatten"}, {type = "dense", units = 64, activation = "relu"}, {type = "dense"}]
"""


_OF_TRAINING = (
    *("loss", "regularizer", "dtype", "precision", "engine", "class_weight", "seed", "epochs", "batch_size"),
    *("optimizer", "learning_rate", "patience", "averaging", "augment", "metrics", "layer_statistics"),
    *("truncate", "units", "layers"),
)
_OF_TASKS = ("length", "horizon", "season", "symbols")
"""Flags that belong to one task or another; see `pellucid.tasks.base.Task.options`."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``train`` takes. Flags that are not given are None: then the network's recipe decides."""
    parser.usage, parser.epilog = "%(prog)s DATA [flags]\n       %(prog)s --resume RUN", _EPILOG
    parser.add_argument("data", nargs="?", metavar="DATA", help="a file, a folder, or a name of `pellucid data list`")
    add = parser.add_argument_group("network").add_argument
    add("--net", metavar="NAME|FILE.toml", help="a network of `pellucid zoo list`, or a file (default: by the data)")
    add("--hidden", metavar="128,64", help="units of each hidden layer")
    add("--units", type=integer, metavar="N", help="of each hidden layer, all alike")
    add("--layers", type=natural, metavar="K", help="how many hidden layers; 0: none, which is no memory either")
    add("--embedding", type=integer, metavar="N", help="units that stand for a word or a character")
    add("--bidirectional", action="store_const", const=True, help="recurrent layers that read both ways")
    add("--activation", metavar="NAME", help="of the hidden layers")
    add("--dropout", type=float, metavar="RATE", help="the probability of dropping")
    add("--initializer", metavar="NAME", help="of the weights, such as he_normal, xavier_uniform")
    add("--width", type=_width, metavar="N", help="maps of a convolutional network, or the factor on them")
    add("--regularizer", metavar="R", help='of the weights, such as "l2(1e-4)"')
    add("--loss", metavar="NAME", help="default: softmax_cross_entropy, or mean_squared_error")
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=integer, metavar="N", help="how often every example is seen, at most")
    add("--batch-size", type=_batch_size, metavar="N|all", help="examples per update")
    add("--optimizer", metavar="O", help='such as "adam(1e-3)", "momentum(cosine(0.1), momentum=0.9)"')
    add("--learning-rate", metavar="R", help='a number, or a schedule such as "cosine(1e-3)"')
    add("--patience", type=natural, metavar="N", help="stop after N epochs without a lower validation loss; 0: never")
    add(
        "--averaging",
        nargs="?",
        const=0.75,
        type=_share,
        metavar="START",
        help="end with the mean of the weights after START, a share or number of the epochs (default: 0.75)",
    )
    add("--truncate", type=_truncation, metavar="K1[,K2]", help="update every K1 steps, going back through K2")
    training_examples_flags(add)
    add("--metrics", type=items, metavar="A,B", help="measured besides the loss, such as accuracy,f1")
    add(
        "--validation",
        type=_share,
        metavar="SHARE",
        help="share or number of the examples to validate on (default: 0.1)",
    )
    add("--test", type=_share, metavar="SHARE", help="share or number of the examples kept for the test (default: 0.1)")
    add("--seed", type=natural, metavar="S", help="of the split, the parameters, the order and dropout (default: 0)")
    add("--engine", metavar="E", help="numpy, … (see `pellucid show --engines`)")
    add("--dtype", choices=["float32", "float64"], help="of all arithmetic (default: float32)")
    add(
        "--precision", choices=["float32", "bfloat16", "tensorfloat32"], help="of what layers multiply (default: dtype)"
    )
    add("--mesh", metavar="M", help="devices of the jax engine: data=4, data=2,model=2 or data=4,sharded")
    add("--threads", type=integer, metavar="N", help="threads of the matrix products")
    add("--layer-statistics", action="store_const", const=True, help="record every layer's gradient and weight norms")
    reading_flags(parser)
    add = parser.add_argument_group("sequences").add_argument
    add("--length", type=integer, metavar="T", help="steps of an example that is cut from a text or a series")
    add("--horizon", type=integer, metavar="T", help="steps to forecast")
    add("--season", type=integer, metavar="T", help="steps after which a series comes round again")
    add("--symbols", choices=["character", "word", "jamo"], help="of which text consists")
    add = parser.add_argument_group("several processes, each started with the same command").add_argument
    add(
        "--distributed",
        nargs="?",
        const="",
        metavar="HOST:PORT",
        help="train on the devices of all; where process 0 listens (default: by SLURM, Open MPI, Kubernetes)",
    )
    add("--processes", type=integer, metavar="N", help="how many there are, where nothing else says it")
    add("--process", type=natural, metavar="K", help="which of them this is, from 0")
    add = parser.add_argument_group("run").add_argument
    add("--out", metavar="DIR", help="the run's folder (default: runs/DATA-NET-DATE)")
    add("--resume", metavar="RUN", help="go on with a run; only --epochs may be another, and larger")
    add("--no-plot", action="store_true", help="draw no pictures")
    add("--quiet", action="store_true", help="show no progress")
    common_flags(parser)
    parser.set_defaults(run=run, first=True)


def reading_flags(parser: argparse.ArgumentParser) -> None:
    """How the data are read and prepared."""
    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--target", metavar="COLUMN", help="what to predict: a column, or a file with the targets")
    add("--text", metavar="COLUMN", help="the column of texts to learn from")
    add("--task", metavar="TASK", help="classification, regression, … (default: told by the data)")
    add("--drop", nargs="+", action="extend", metavar="COL", help="columns to leave out")
    add("--categories", nargs="+", action="extend", metavar="COL", help="columns of numbers to take as categories")
    add("--categorical", choices=["one-hot", "embedding"], help="how categories enter the network (default: one-hot)")
    add("--missing", choices=["mean", "median", "most_frequent", "drop"], help="what to do with missing values")
    add("--dates", choices=["numeric"], help="take dates as days")
    add("--no-standardize", action="store_const", const=True, help="leave the numbers as they are")
    add("--delimiter", metavar="C", help="between columns")
    add("--header", choices=["yes", "no"], help="whether the first line names the columns")
    add("--encoding", metavar="NAME", help="of the text (default: utf-8)")
    add("--decimal", choices=[".", ","], help="the decimal mark")
    add("--image-size", type=_image_size, metavar="HxW", help="bring images to one size")
    add("--channels", choices=["grey", "rgb"], help="of images")
    keys_flag(group)


def keys_flag(parser: Any) -> None:
    """Which arrays of an NPZ file are meant."""
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="of an NPZ file: the arrays of inputs and of targets")


def run(args: argparse.Namespace) -> Answer:
    """Train, measure, keep."""
    if args.threads:  # read by the matrix library when NumPy is imported, which has not happened yet
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(args.threads)
    if bool(args.data) == bool(args.resume):
        raise UsageError("give DATA to train on, or --resume RUN", args.parser)
    if args.mesh is not None:
        from pellucid.engines.mesh import Mesh

        args.mesh = str(Mesh.of(args.mesh))
        if not args.resume:
            args.engine = args.engine or "jax"
    if args.distributed is None and (args.processes is not None or args.process is not None):
        raise UsageError("--processes and --process go with --distributed HOST:PORT", args.parser)
    try:
        if args.distributed is not None:
            _distribute(args)
        say = (lambda text: None) if args.quiet else note
        return _resume(args, say) if args.resume else _start(args, say)
    except BaseException as failure:
        if args.distributed is not None:
            from pellucid.engines.jax import machines

            machines.failed(_exit_status(failure))
        raise


def _distribute(args: argparse.Namespace) -> None:
    """Become one of a job's processes; all but the first are silent."""
    import sys

    from pellucid.engines.jax import machines

    if args.engine not in (None, "jax"):
        raise UsageError(f"--distributed is the jax engine's, not {args.engine}'s", args.parser)

    machines.distribute(args.distributed or None, processes=args.processes, process=args.process)
    args.first = machines.is_first()
    args.own_mesh = args.mesh
    args.mesh = args.mesh or f"data={machines.devices()}"
    if not args.resume:
        args.engine = "jax"
    # What gloo prints would stand amid the results.
    results = os.dup(1)
    os.dup2(2 if args.first else os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = os.fdopen(results, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    if not args.first:
        args.quiet, args.json = True, False


def _start(args: argparse.Namespace, say: Any) -> Answer:
    from pellucid import tasks
    from pellucid.runs import Run, environment
    from pellucid.tasks.building import OF_NETWORK, complete_network, is_file, recipe_of

    kind = tasks.find(args.data, args.task, args.net)
    net_name = args.net or kind.net
    described: dict[str, Any] = {
        "net": os.path.abspath(net_name) if is_file(net_name) else net_name,
        "data": reading(args, standardize=recipe_of(net_name).standardize),
        "split": {
            "validation": 0.1 if args.validation is None else args.validation,
            "test": 0.1 if args.test is None else args.test,
            "seed": args.seed or 0,
        },
    }
    if kind.takes(args.data) and not os.path.isfile(args.data):
        described["data"]["source"] = args.data  # a set of this name, whatever folder has it too
    own = _own_options(args, kind)
    if own or kind.kind != "examples":
        described["task"] = {"kind": kind.kind, **own}
    if args.averaging is not None and args.patience:
        raise UsageError("--patience goes back to the best epoch, --averaging to none: give one of them", args.parser)
    wanted = {name: getattr(args, name) for name in (*OF_NETWORK, *_OF_TRAINING)}
    if args.hidden is not None:
        wanted["hidden"] = _units(args)
    wanted["mesh"] = args.mesh
    task = tasks.made(described)
    if args.net is None and task.input_shape[:1] == (None,) and net_name == "mlp":
        args.net = "lstm"  # nobody named a network, and what was read are sequences
        return _start(args, say)
    if "task" in described:
        described["task"] |= task.settings
    _check_test(args, task)
    net, described["training"] = task.settled(net_name, wanted)
    described["network"] = complete_network(net)
    if args.mesh:
        described["training"]["mesh"] = args.mesh
    _describe(task, net, described, say)

    def create() -> Run:
        return Run.create(
            args.out,
            config=described,
            environment=environment(engine=net.ops.name, seed=net.seed, data_fingerprint=task.fingerprint),
            name=f"{_stem(task.name)}-{_stem(os.path.basename(net_name))}",
        )

    return _train(args, task, net, described, create, say, resume=False)


def _own_options(args: argparse.Namespace, kind: type[Task]) -> dict[str, Any]:
    """What was given of the flags that belong to one task."""
    from pellucid import tasks
    from pellucid.errors import ParameterError

    given = {name: value for name in _OF_TASKS if (value := getattr(args, name)) is not None}
    for name in given:
        if name not in kind.options:
            having = ", ".join(task.kind for task in tasks.known().values() if name in task.options)
            raise ParameterError(
                f"there is no {name} to choose", where=f"--{name}", expected=f"a task of {having}", got=kind.kind
            )
    return given


def _resume(args: argparse.Namespace, say: Any) -> Answer:
    import tomli_w

    from pellucid import tasks
    from pellucid.errors import DataError, ParameterError
    from pellucid.files import atomic_write
    from pellucid.network.saving import from_config
    from pellucid.runs import Run

    free = {"resume", "epochs", "json", "debug", "quiet", "no_plot", "threads", "run", "parser", "first", "own_mesh"}
    free |= {"mesh", "distributed", "processes", "process"}
    for name, value in vars(args).items():
        if name not in free and value is not None and value is not False:
            raise UsageError(
                f"--{name.replace('_', '-')} cannot be another than the run's: only --epochs and --mesh can",
                args.parser,
            )
    run = Run.open(args.resume)
    if args.first:
        run.claim()
    described = run.config
    training = described.get("training")
    if not training or "network" not in described:
        raise DataError("this run was not made by `pellucid train`", where=str(run.path))
    if args.epochs and args.epochs < training["epochs"]:
        raise ParameterError(
            "a run can only grow", where="--epochs", expected=f"{training['epochs']} or more", got=args.epochs
        )
    if args.epochs and args.epochs > training["epochs"]:
        training["epochs"] = args.epochs
        if args.first:
            atomic_write(run.path / "config.toml", tomli_w.dumps(described))
    if args.mesh:
        training["mesh"] = args.mesh
    task = tasks.made(described)
    then = run.environment.get("data_fingerprint")
    if task.fingerprint != then:
        raise DataError(
            "the data have changed since the run was made",
            where=described["data"]["source"],
            expected=f"SHA-256 {str(then)[:16]}…",
            got=f"{task.fingerprint[:16]}…",
            hint="put the old data back, or start a new run",
        )
    where = str(run.path / "config.toml")
    net = from_config(described["network"], engine=training["engine"], mesh=training.get("mesh"), where=where)
    _describe(task, net, described, say)
    return _train(args, task, net, described, lambda: run, say, resume=True)


def _train(
    args: argparse.Namespace,
    task: Task,
    net: Network,
    described: dict[str, Any],
    create: Any,
    say: Any,
    resume: bool,
) -> Answer:
    import shutil

    from pellucid.errors import EngineError
    from pellucid.experiment import MODEL
    from pellucid.training.callbacks import Callback

    class Begun(Callback):
        """Whether anything was learned: a run in which nothing was is not kept."""

        every_update = False
        updates = False

        def on_update(self, training: Any) -> None:
            self.updates = True

    training = described["training"]
    begun = Begun()
    run = _shared(args, create)
    with run:
        try:
            history = task.fit(
                net,
                training,
                callbacks=[begun],
                progress=False if args.quiet else "auto",
                run=run,
                resume=resume,
                mesh=training.get("mesh"),
            )
        except BaseException as failure:
            unused = not (resume or begun.updates or run.checkpoint_path("latest").exists())
            if args.first and unused and not (args.distributed is not None and isinstance(failure, EngineError)):
                shutil.rmtree(run.path, ignore_errors=True)
                raise
            if isinstance(failure, (KeyboardInterrupt, SystemExit)) and args.first:
                raise _interrupted(failure, run) from None
            raise
        say("")
        try:
            with net.placement.active():
                net.save(run.path / MODEL)
                measured, finding, closed = _measure(task, net, training["metrics"], run)
            if args.distributed is not None:
                from pellucid.engines.jax import machines

                machines.leave()
            if not args.first:
                return Answer({}, "")
            pictures = [] if args.no_plot else _pictures(run, history, finding, say)
        except KeyboardInterrupt as failure:
            if not args.first:
                raise
            raise _interrupted(failure, run) from None
    return _answer(task, net, run, history, measured, finding, closed, pictures)


def _shared(args: argparse.Namespace, create: Any) -> Run:
    """The run: the first process makes it, the others watch it."""
    from pathlib import Path

    from pellucid.runs import Watched

    if args.distributed is None:
        return create()
    from pellucid.engines.jax import machines

    run: Run
    if args.first:
        run = create()
        machines.told("run", str(run.path.resolve()))
    else:
        run = Watched(Path(machines.told("run")))
    again = ["pellucid", "train", "--resume", str(run.path.resolve()), "--distributed", args.distributed]
    for name, value in {"processes": args.processes, "process": args.process, "mesh": args.own_mesh}.items():
        again += [] if value is None else [f"--{name}", str(value)]
    machines.keep(run.path.resolve() / "checkpoints" / "latest.pellucid", shlex.join(filter(None, again)))
    return run


def _measure(task: Task, net: Network, names: list[str], run: Run) -> tuple[dict[str, Any], Finding | None, str]:
    """Loss and metrics of every part, what the test set came to, and why it stayed closed if it did."""
    from pellucid.training.split import TestVault

    measured: dict[str, Any] = {}
    for part in ("train", "validation"):
        if task.sizes[part]:
            measured[part] = task.measure(net, task.rows(part), names).values
    if not task.sizes["test"]:
        return measured, None, "no examples were kept for the test"
    vault, first = TestVault(task.rows("test"), run), net.placement.first
    if net.placement.agreed(bool(vault.openings), 0):  # asked of all before the first process opens it
        when = vault.openings[-1]["when"]
        return (
            measured,
            None,
            f"the test set was seen on {when}: `pellucid evaluate {run.path} --again` looks once more",
        )
    finding = task.measure(net, vault.open(reason="train") if first else task.rows("test"), names)
    measured["test"] = finding.values
    if first:
        vault.record(finding.values)
    return measured, finding, ""


def _pictures(run: Run, history: Any, finding: Finding | None, say: Any) -> list[str]:
    from pellucid.errors import EngineError
    from pellucid.inspect import curves

    try:
        drawn = [str(curves.png(history, run.path / "curves.png"))]
        for name, draw in (finding.pictures if finding else {}).items():
            if note := draw(run.path / name):
                say(note)
            drawn.append(str(run.path / name))
    except EngineError as missing:
        say(f"no pictures: {missing.problem}; {missing.hint}")
        return []
    return drawn


def _answer(
    task: Task,
    net: Network,
    run: Run,
    history: Any,
    measured: dict[str, Any],
    finding: Finding | None,
    closed: str,
    pictures: list[str],
) -> Answer:
    from pellucid.experiment import MODEL
    from pellucid.inspect.curves import terminal
    from pellucid.network.parameters import count

    document = {
        "run": str(run.path),
        "engine": net.ops.name,
        "seconds": round(sum(history["seconds"]), 3),
        "memory": history.memory,
        "epochs": len(history),
        "best_epoch": history.restored_epoch or len(history),
        "stopped": history.stopped,
        "task": task.task,
        "seed": net.seed,
        "parameters": count(net.parameters),
        "examples": task.sizes,
        **{part: measured.get(part) for part in ("train", "validation", "test")},
        "model": str(run.path / MODEL),
        "pictures": pictures,
    }
    parts = [heading("Learning"), terminal(history), ""]
    if finding:
        document |= finding.document
        parts += (
            [heading(f"Test set: {finding.title[0].lower()}{finding.title[1:]}"), finding.text, ""]
            if finding.text
            else []
        )
    names = list(next(iter(measured.values())))
    rows = [[part, task.sizes[part], *values.values()] for part, values in measured.items()]
    parts += [heading("Results"), table(rows, ["", "examples", *(name.replace("_", " ") for name in names)])]
    parts += [f"({closed})"] if closed else []
    parts += [finding.note] if finding and finding.note else []
    parts += ["", _summary_line(document, history), "", heading("Kept in"), f"  {run.path}", ""]
    names = [os.path.basename(each) for each in [document["model"], *pictures]] + ["config.toml", "metrics.jsonl"]
    parts[-2] += f"   ({', '.join(names)})"
    parts += [heading("Next"), indented(_next(run, task))]
    return Answer(document, "\n".join(parts))


def _summary_line(document: dict[str, Any], history: Any) -> str:
    from pellucid.inspect.text import byte_size

    epochs = counted(document["epochs"], "epoch", "epochs")
    line = f"{epochs} in {document['seconds']:.1f} s on the {document['engine']} engine"
    on_devices, memory = document["engine"] == "jax", {of: byte_size(most) for of, most in history.memory.items()}
    if "process" in memory:
        line += f" with {memory['process']} of memory at most"
    if "engine" in memory:
        where = "on the fullest device" if on_devices else "in the engine's arrays"
        line += f" ({memory['engine']} {where})"
    elif on_devices:
        line += " in the process, as its devices do not say theirs"
    if history.restored_epoch:
        line += f"; kept: epoch {history.restored_epoch}, the lowest validation loss"
    test = document["test"] or {}
    if "accuracy" in test:
        line += "\n" + heading(f"test accuracy {100 * test['accuracy']:.2f} %")
    return line


def _next(run: Run, task: Task) -> str:
    lines = task.next_steps(run.path)
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"{command:<{width}}   {what}" for command, what in lines)


def _describe(task: Task, net: Network, described: dict[str, Any], say: Any) -> None:
    from pellucid.network.parameters import count

    counts = ", ".join(f"{count:,} {part}" for part, count in task.sizes.items())
    say(f"{task.name}: {sum(task.sizes.values()):,} {task.described()} ({counts})")
    for line in task.report:
        say(f"  {with_flags(line)}")
    training = described["training"]
    optimizer = training["optimizer"]["type"]
    say(
        f"{os.path.basename(described['net'])}: {count(net.parameters):,} parameters; {optimizer}, batches of "
        f"{training['batch_size']:,}, at most {counted(training['epochs'], 'epoch', 'epochs')}, {net.ops.name} engine"
        + (f", products in {net.precision}" if net.precision != net.dtype else "")
        + (", weights averaged at the end" if "averaging" in training else "")
        + (f", mesh {training['mesh']}" if "mesh" in training else "")
    )
    say("")


def _interrupted(failure: BaseException, run: Run) -> Interrupted:
    command = f"pellucid train --resume {run.path}"
    note(f"interrupted; everything so far is kept. To go on: {command}")
    run.close("interrupted")
    return Interrupted(command, _exit_status(failure))


def _exit_status(failure: BaseException) -> int:
    """What a process ends with: 130 after Ctrl-C, what was asked for by an exit, otherwise 1."""
    code = 130 if isinstance(failure, KeyboardInterrupt) else getattr(failure, "code", 1)
    return code if isinstance(code, int) and code else 1


def reading(args: argparse.Namespace, *, standardize: bool = True) -> dict[str, Any]:
    """How the data are read, as a run's config holds it; ``standardize`` is what the network wants."""
    options = {
        "source": os.path.abspath(args.data) if os.path.exists(args.data) else args.data,
        "target": os.path.abspath(args.target) if args.target and os.path.isfile(args.target) else args.target,
        "task": args.task if args.task in ("classification", "regression") else None,
        "text": args.text,
        "drop": args.drop,
        "categorical": args.categories,
        "missing": args.missing,
        "dates": args.dates,
        "delimiter": args.delimiter,
        "header": None if args.header is None else args.header == "yes",
        "encoding": args.encoding,
        "decimal": args.decimal,
        "image_size": args.image_size,
        "channels": args.channels,
        "keys": args.keys,
    }
    if args.target and args.target.lstrip("-").isdigit():
        options["target"] = int(args.target)
    return {name: value for name, value in options.items() if value is not None} | {
        "standardize": standardize and not args.no_standardize,
        "categories_as": args.categorical or "one-hot",
    }


def _check_test(args: argparse.Namespace, task: Task) -> None:
    from pellucid.errors import ParameterError

    if args.test is not None and task.official_test:
        raise ParameterError(
            "the data have a test set of their own",
            where="--test",
            got=f"{task.official_test:,} official test examples",
            hint="leave --test out",
        )


def _units(args: argparse.Namespace) -> list[int]:
    try:
        units = [int(each) for each in args.hidden.split(",") if each.strip()]
    except ValueError:
        units = [0]
    if any(each < 1 for each in units):
        raise UsageError(f"--hidden: expected numbers of units such as 128,64, got {args.hidden!r}", args.parser)
    return units


def _width(text: str) -> float | int:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def _batch_size(text: str) -> int | str:
    return "all" if text == "all" else integer(text)


def _truncation(text: str) -> tuple[int, int]:
    numbers = text.split(",")
    if len(numbers) > 2 or not all(each.isdigit() and int(each) for each in numbers):
        raise argparse.ArgumentTypeError(f"expected steps such as 32 or 32,64, got {text!r}")
    return int(numbers[0]), int(numbers[-1])


def _share(text: str) -> float | int:
    try:
        number = int(text) if text.isdigit() else float(text)
    except ValueError:
        number = -1
    if number < 0 or (isinstance(number, float) and not 0 <= number < 1):
        raise argparse.ArgumentTypeError(f"expected a share such as 0.1, or a number such as 100, got {text!r}")
    return number


def _image_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected height x width such as 64x64, got {text!r}")
    return int(height), int(width)


def _stem(name: str) -> str:
    return name.partition(".")[0] or name
