"""What a run's config describes, made real: the data, its parts, their preprocessing, the network, the training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import data, losses, metrics, optimizers, schedules, zoo
from pellucid.data.prepared import Prepared
from pellucid.data.preprocessor import Preprocessor
from pellucid.errors import CheckpointError, DataError, ParameterError, ShapeError, unknown
from pellucid.history import History
from pellucid.layers.base import layers
from pellucid.network.base import Network
from pellucid.network.saving import from_config, load, read_toml, restored
from pellucid.registry import config
from pellucid.runs import Run
from pellucid.training.augment import augmentations
from pellucid.training.callbacks import Callback, EarlyStopping, WeightAveraging
from pellucid.training.split import Split, split_indices

MODEL = "model.pellucid"
OF_NETWORK = ("hidden", "activation", "dropout", "initializer", "width")
"""Hyperparameters of the zoo's networks that ``pellucid train`` has a flag for."""


class Experiment:
    """Data, parts and preprocessing of a run.

    Arguments:
        described: the run's config; its ``data`` and ``split`` are read.

    Raises:
        DataError, ParameterError: the data cannot be used, or is not there.
    """

    def __init__(self, described: dict[str, Any]) -> None:
        options = dict(described["data"])
        standardize, encoding = options.pop("standardize"), options.pop("categories_as")
        if "image_size" in options:
            options["image_size"] = tuple(options["image_size"])
        self.dataset = data.load(options.pop("source"), **options)
        y = self.dataset.y
        if y is None:
            raise DataError(
                "there is nothing to learn: no targets", where=self.dataset.name, hint="name them by --target"
            )
        self.split = _split(self.dataset, described["split"])
        missing = options.get("missing")
        self.preprocessor = Preprocessor.fit(
            self.dataset,
            self.split.train,
            standardize=standardize,
            categorical=encoding,
            missing=None if missing == "drop" else missing,
        )
        self.task: str = self.dataset.task or "classification"
        self.classes = self.preprocessor.classes
        self._targets = y
        self._arrays: dict[str, tuple[Any, Any]] = {}
        if self.task == "classification" and len(np.unique(y[self.split.train])) < 2:
            raise DataError(
                "the training examples are all of one class",
                where=self.dataset.name,
                hint="another --seed draws others; is this the target? target= chooses another column",
            )

    def rows(self, part: str) -> Prepared:
        """The examples of ``"train"``, ``"validation"`` or ``"test"``."""
        return Prepared(self.dataset, self.preprocessor, getattr(self.split, part))

    def arrays(self, part: str) -> tuple[Any, Any]:
        """x and y of a part, prepared once; see `Prepared.arrays`."""
        if part not in self._arrays:
            self._arrays[part] = self.rows(part).arrays()
        return self._arrays[part]

    def settled(self, net_name: str, wanted: dict[str, Any]) -> tuple[Network, dict[str, Any]]:
        """The network, and how it is trained: as wanted, and where nothing is, as its recipe has it.

        Arguments:
            net_name: a name of the zoo, or a TOML file.
            wanted: by the names of the flags of ``pellucid train``, such as ``{"hidden": [64], "epochs": 5}``; None
                where nobody said.

        Returns:
            The network, and what a run's config holds under ``training``.
        """
        wanted = {name: value for name, value in wanted.items() if value is not None}
        recipe = recipe_of(net_name)
        optimizer = optimizer_of(wanted.get("optimizer", recipe.optimizer), wanted.get("learning_rate"))
        net = self.network(
            net_name,
            {name: wanted.get(name) for name in ("loss", "regularizer", "dtype", "engine", "class_weight", "seed")},
            {name: wanted[name] for name in OF_NETWORK if name in wanted},
        )
        names = wanted.get("metrics", [each.registered_name for each in metrics.default_for(self.task)])
        self.metrics(names)
        count = len(self.split.train)
        batch_size = wanted.get("batch_size", recipe.batch_for(count))
        averaging = {"averaging": wanted["averaging"]} if "averaging" in wanted else {}
        patience = wanted.get("patience", 0 if averaging else recipe.patience)
        return net, {
            "epochs": wanted.get("epochs", recipe.epochs),
            "batch_size": count if batch_size == "all" else batch_size,
            "optimizer": complete(optimizer),
            "patience": patience if len(self.split.validation) or wanted.get("patience") else 0,
            "class_weight": wanted.get("class_weight", "none"),
            "metrics": names,
            "seed": net.seed,
            "shuffle": True,
            "augment": [
                complete(augmentations.get(each, where="--augment")) for each in wanted.get("augment") or recipe.augment
            ],
            "layer_statistics": bool(wanted.get("layer_statistics")),
            "engine": net.ops.name,
            **averaging,
        }

    def fit(
        self, net: Network, training: dict[str, Any], *, callbacks: Iterable[Callback] = (), **options: Any
    ) -> History:
        """Train as the config's ``training`` says, and give the network the preprocessing.

        Arguments:
            net: of `settled`, or of the config.
            training: of `settled`, or of the config.
            callbacks: beside those that the config asks for.
            options: of `pellucid.training.loop.fit`: progress, run, resume.
        """
        net.preprocessing = self.preprocessor.document()
        x, y = self.arrays("train")
        validation = None
        if len(self.split.validation):
            held_out, targets = self.arrays("validation")
            validation = held_out if targets is None else (held_out, targets)
        ending: list[Callback] = [EarlyStopping(training["patience"])] if training["patience"] else []
        if "averaging" in training:
            ending.append(WeightAveraging(training["averaging"]))
        return net.fit(
            x,
            y,
            epochs=training["epochs"],
            batch_size=training["batch_size"],
            optimizer=training["optimizer"],
            validation=validation,
            metrics=self.metrics(training["metrics"]),
            callbacks=[*ending, *callbacks],
            augment=training.get("augment", ()),
            seed=training["seed"],
            layer_statistics=training["layer_statistics"],
            **options,
        )

    def network(self, net: str, wanted: dict[str, Any], hyperparameters: dict[str, Any]) -> Network:
        """The network of that name or file, fitted to the data.

        Arguments:
            net: a name of the zoo, or a TOML file.
            wanted: loss, regularizer, seed, dtype, engine; None where nobody said.
            hyperparameters: of the zoo's network, such as ``hidden``; see `OF_NETWORK`.
        """
        wanted = {name: value for name, value in wanted.items() if value is not None}
        weighting = wanted.pop("class_weight", None)
        said = read_toml(net) if is_file(net) else vars(zoo.find(net).recipe)
        loss = _loss(wanted.pop("loss", said.get("loss")), self.task)
        if weighting:
            loss = self._weighted(loss)
        outputs = self._outputs(loss)
        shape = self.preprocessor.input_shape
        if is_file(net):
            if hyperparameters:
                flag = next(iter(hyperparameters)).replace("_", "-")
                raise ParameterError(f"--{flag} is for networks of the zoo", where=net, hint="write it into the file")
            return _from_file(net, said, shape, outputs, loss, wanted, data_name=self.dataset.name)
        if said["regularizer"] is not None:
            wanted.setdefault("regularizer", said["regularizer"])
        if loss.reads != "identity":
            better = "sigmoid_cross_entropy" if outputs == 1 else "softmax_cross_entropy"
            raise ParameterError(
                f"{loss.registered_name} reads probabilities, and {net} gives logits",
                where="--loss",
                hint=f"--loss {better}",
            )
        return build(net, shape, outputs, loss=loss, levels=self._levels(), **wanted, **hyperparameters)

    def _outputs(self, loss: Any) -> int:
        if self.task == "regression":
            return len(self.preprocessor.target_mean)
        count = len(self.classes or ())
        if not loss.binary:
            return count
        if count != 2:
            raise ParameterError(
                f"{loss.registered_name} tells two classes apart, and the data have {count}",
                where="--loss",
                hint="--loss softmax_cross_entropy",
            )
        return 1

    def _levels(self) -> dict[int, int]:
        if self.preprocessor.categorical != "embedding":
            return {}
        sizes = self.preprocessor.embedding_sizes.values()
        return dict(enumerate(sizes, start=len(self.preprocessor.columns)))

    def _weighted(self, loss: Any) -> Any:
        """Every class weighs m / (k m_c), as scikit-learn's ``class_weight="balanced"`` has it."""
        if self.task != "classification":
            raise ParameterError("--class-weight is for classes", where=self.dataset.name, got="regression")
        if not hasattr(loss, "class_weight"):
            raise ParameterError(f"{loss.registered_name} takes no class weights", where="--class-weight")
        counts = np.bincount(self._targets[self.split.train], minlength=len(self.classes or ()))
        weight = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return replace(loss, class_weight=dict(enumerate(weight.tolist())))

    def metrics(self, names: Sequence[str]) -> list[metrics.Metric]:
        """The metrics of these names; those of values speak in the target's own unit."""
        return chosen_metrics(names, self.preprocessor)


def _split(dataset: data.Dataset, asked: dict[str, Any]) -> Split:
    labels = dataset.y if dataset.task == "classification" else None
    names = None if labels is None else dataset.classes
    options: dict[str, Any] = {"validation": asked["validation"], "seed": asked["seed"], "classes": names}
    if dataset.test_rows is None:
        return split_indices(len(dataset), test=asked["test"], labels=labels, **options)
    rest = np.setdiff1d(np.arange(len(dataset)), dataset.test_rows)
    parts = split_indices(len(rest), test=0, labels=None if labels is None else labels[rest], **options)
    return Split(rest[parts.train], rest[parts.validation], dataset.test_rows)


def chosen_metrics(names: Sequence[str], preprocessor: Preprocessor) -> list[metrics.Metric]:
    """The metrics of these names, checked to fit the task; those of values speak in the target's own unit."""
    task = preprocessor.task or "classification"
    chosen = [metrics.get(name, where="--metrics") for name in names]
    for metric in chosen:
        if metric.task != task:
            known = sorted(each for each in metrics.metrics if metrics.metrics.find(each).task == task)
            raise ParameterError(
                f"{metric.name} is for {metric.task}, and this is {task}", where="--metrics", expected=", ".join(known)
            )
    return chosen if task == "classification" else [_in_units(each, preprocessor) for each in chosen]


def _in_units(metric: metrics.Metric, preprocessor: Preprocessor) -> metrics.Metric:
    """The metric, computed of targets and predictions in the unit they have in the data."""
    kind = type(metric)

    class InUnits(kind):  # type: ignore[misc, valid-type]
        registered_name = kind.registered_name

        def compute(self, predictions: Any, targets: Any, sample_weight: Any = None) -> float:
            back = preprocessor.inverse_y
            return super().compute(back(predictions), back(targets), sample_weight)

    return InUnits(**{each.name: getattr(metric, each.name) for each in fields(metric)})


def recipe_of(net: str) -> zoo.Recipe:
    """How a network of the zoo is trained unless somebody says otherwise; a file's network as most are."""
    return zoo.Recipe() if is_file(net) else zoo.find(net).recipe


def is_file(net: str) -> bool:
    """Whether ``--net`` names a file rather than a network of the zoo."""
    return net.endswith(".toml") or os.sep in net or Path(net).is_file()


def build(name: str, shape: Sequence[int], outputs: int, *, levels: Any = None, **options: Any) -> Network:
    """A network of the zoo with the hyperparameters given, its own where they are None."""
    import inspect

    entry = zoo.find(name)
    options = {key: value for key, value in options.items() if value is not None}
    takes = inspect.signature(entry.build).parameters
    common = {"loss", "seed", "engine", "dtype", "regularizer"}
    for option in options:
        if option not in takes and option not in common:
            own = ", ".join(f"--{each}" for each in takes if each in OF_NETWORK)
            raise ParameterError(f"{name} has no {option}", where=f"--{option}", expected=own or "no such flags")
    if levels:
        if "levels" not in takes:
            raise ParameterError(f"{name} embeds no categories", where="--categorical", hint="--categorical one-hot")
        options["levels"] = levels
    return entry.build(shape, outputs, **options)


def _from_file(
    path: str,
    said: dict[str, Any],
    shape: Sequence[int],
    outputs: int,
    loss: Any,
    wanted: dict[str, Any],
    data_name: str,
) -> Network:
    """A network file with what it leaves open taken from the data: input shape, units of the last layer, loss."""
    described = dict(said)
    chain = described.get("layers")
    if "inputs" not in described:
        described.setdefault("input_shape", list(shape))
    if isinstance(chain, list) and chain and "inputs" not in described:
        last = {"type": chain[-1]} if isinstance(chain[-1], str) else dict(chain[-1])
        if str(last.get("type", "")).lower() == "dense":
            last.setdefault("units", outputs)
            described["layers"] = [*chain[:-1], last]
    net = from_config(described, where=path, **{**wanted, "loss": loss})
    for what, made, needed in (("input", net.inputs, tuple(shape)), ("output", net.outputs, (outputs,))):
        if len(made) != 1:
            raise ParameterError(
                f"the network has several {what}s",
                where=path,
                expected=f"one {what}",
                hint="train it in Python, by net.fit",
            )
        got = next(iter(made.values()))
        if got != needed:
            mend = "input_shape" if what == "input" else "the units of the last Dense layer"
            raise ShapeError(
                f"the network's {what} does not fit {data_name}",
                where=path,
                expected=needed,
                got=got,
                hint=f"leave {mend} out of the file: then the data decide",
            )
    return net


def complete_file(path: str, **defaults: Any) -> Network:
    """The network of a file that leaves nothing open."""
    said = {**defaults, **read_toml(path)}
    if "inputs" not in said and "input_shape" not in said:
        raise ParameterError(
            "the file leaves the input's shape open, and there are no data to take it from",
            where=path,
            hint="write input_shape = [4], say, into it, or give DATA to `pellucid step` or `pellucid check`",
        )
    return from_config(said, where=path)


def _loss(named: Any, task: str) -> Any:
    named = named or ("softmax_cross_entropy" if task == "classification" else "mean_squared_error")
    loss = losses.get(named, where="--loss")
    if loss.of_classes != (task == "classification"):
        fit = [each for each in losses.losses if losses.losses.find(each).of_classes == (task == "classification")]
        raise ParameterError(
            f"{loss.registered_name} does not fit {task}",
            where="--loss",
            expected=", ".join(fit),
            hint="--task says which task it is",
        )
    return loss


def optimizer_of(text: str, learning_rate: str | None) -> optimizers.Optimizer:
    """The optimizer, with another learning rate where one is given: a number keeps the form of its schedule."""
    made = optimizers.get(text, where="--optimizer")
    if learning_rate is None:
        return made
    try:
        number = float(learning_rate)
    except ValueError:
        return replace(made, learning_rate=schedules.get(learning_rate, where="--learning-rate"))
    first = fields(made.schedule)[0].name
    if first in ("initial", "value", "max_rate"):
        return replace(made, learning_rate=replace(made.schedule, **{first: number}))
    return replace(made, learning_rate=number)


def complete(thing: Any) -> Any:
    """As `pellucid.registry.config`, but with the arguments that stand at their default: nothing is left unsaid."""
    import inspect

    if isinstance(thing, (list, tuple)):
        return [complete(each) for each in thing]
    if hasattr(thing, "registered_name"):
        names = inspect.signature(type(thing)).parameters
        return {"type": thing.registered_name, **{name: complete(getattr(thing, name)) for name in names}}
    return config(thing)


def complete_network(net: Network) -> dict[str, Any]:
    """The network's config with every argument of every layer."""
    described = net.config()
    chain = []
    for each in described["layers"]:
        if "shared" in each:
            chain.append(each)
            continue
        wiring = {"inputs": each["inputs"]} if "inputs" in each else {}
        layer = layers.get({name: value for name, value in each.items() if name != "inputs"})
        chain.append({**complete(layer), **wiring})
    described["layers"] = chain
    if len(net.losses) == 1:
        described["loss"] = complete(next(iter(net.losses.values())))
    if net.regularizer:
        described["regularizer"] = complete(net.regularizer)
    return described


def trained(name: str, *, engine: str = "auto") -> tuple[Network, Preprocessor, Run | None]:
    """The network of a run or of a saved file, its preprocessing, and the run.

    Of a run that has not ended the last checkpoint is taken.

    Raises:
        DataError: there is no such run.
        CheckpointError: nothing was saved yet, it is damaged, or it holds no preprocessing.
    """
    from pellucid import files

    if Path(name).is_file():
        net, run = load(name, engine=engine), None
    else:
        run = Run.open(name)
        path = run.path / MODEL
        if path.exists():
            net = load(path, engine=engine)
        elif (path := run.checkpoint_path("latest")).exists():
            net = restored(*files.read_arrays(path), engine=engine, where=str(path))
        else:
            raise CheckpointError(
                "this run has saved no network yet", where=str(run.path), hint=f"pellucid train --resume {run.path}"
            )
    if net.preprocessing is None:
        raise CheckpointError(
            "this network was saved without preprocessing, so it cannot read raw data",
            where=name,
            hint="networks trained by `pellucid train` have it; in Python use pl.load(…).predict(x)",
        )
    return net, Preprocessor.from_document(net.preprocessing), run


def is_run(name: str) -> bool:
    """Whether ``name`` is a run or a saved network, and no network of the zoo or file."""
    if name in zoo.entries() or name.endswith(".toml"):
        return False
    try:
        return Path(name).is_file() or bool(Run.open(name))
    except DataError:
        if Path(name).exists() or name == "latest":
            raise
        from pellucid.runs import list_runs

        if any(run.name.startswith(name) for run in list_runs()):
            raise
        raise unknown("run or network", name, [*zoo.entries(), *(run.name for run in list_runs())]) from None
