"""What a task is: how data become parts, which network learns them, what is measured, and what people are told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pellucid import losses, zoo
from pellucid.errors import ParameterError, unknown
from pellucid.history import History
from pellucid.network.base import Network
from pellucid.network.saving import read_toml
from pellucid.tasks.building import (
    OF_NETWORK,
    augmentations_of,
    build,
    complete,
    from_file,
    is_file,
    layers_of,
    optimizer_of,
    recipe_of,
)
from pellucid.training.callbacks import Callback, EarlyStopping, WeightAveraging

PARTS = ("train", "validation", "test")


class Finding(NamedTuple):
    """What a look at some examples came to.

    Attributes:
        values: loss and metrics by name, in the task's own language.
        document: what ``--json`` says beside them.
        title, text: the same for people.
        note: a line on what the values mean.
        pictures: by file name, what draws one at a path and answers what to say of it.
    """

    values: dict[str, float]
    document: dict[str, Any] = {}  # noqa: RUF012  a NamedTuple's default, never written to
    title: str = ""
    text: str = ""
    note: str = ""
    pictures: Mapping[str, Callable[[Path], str]] = {}


class Said(NamedTuple):
    """What a network says of new data.

    Attributes:
        columns: of a table, all of one length, by name.
        document: the same for ``--json``.
        report: sentences on how the data were read.
    """

    columns: dict[str, list[Any]]
    document: dict[str, Any]
    report: Sequence[str] = ()


class Task(ABC):
    """What is learned from some data.

    A run's config describes a task, and from the config the same task is made again: ``data`` says what is read,
    ``split`` which share is held out, ``task`` the `kind` and the task's own `options`. A module of this folder with a
    ``TASK``, a subclass, is a member: `pellucid.tasks.find` asks each whether it `takes` what the user gave.

    Arguments:
        described: the run's config.

    Attributes:
        kind: as in ``--task kind`` and in the config.
        title: what it does, in a few words that follow "for".
        net: the network that learns it where nobody names one.
        options: the flags of ``pellucid train`` that are the task's own, with their defaults.
        metrics_by_default: names of what is measured beside the loss during training.
        shuffle: whether the order of the training examples is drawn anew in every epoch.
        settings: the options of this one.
        name: of the data.
        fingerprint: SHA-256 of their source.
        report: sentences on how the data were read.
        official_test: how many test examples the data bring themselves.
        task: what an answer calls it: the kind, or classification, regression.
        sizes: how many examples each part has.
        input_shape: of one example, None for steps of any number.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    net: ClassVar[str] = "mlp"
    options: ClassVar[Mapping[str, Any]] = {}
    metrics_by_default: Sequence[str] = ()
    shuffle: ClassVar[bool] = True

    name: str
    fingerprint: str
    report: Sequence[str] = ()
    official_test: int = 0
    task: str
    sizes: dict[str, int]
    input_shape: tuple[Any, ...]

    def __init__(self, described: Mapping[str, Any]) -> None:
        own = {name: value for name, value in described.get("task", {}).items() if name != "kind"}
        for name in own:
            if name not in self.options:
                raise unknown(f"option of {self.kind}", name, self.options, where="task")
        self.settings: dict[str, Any] = {**self.options, **own}
        self.task = self.kind

    def reading(self, described: Mapping[str, Any], **known: Any) -> tuple[Any, ...]:
        """The source, and of each option of reading that the task knows what was said, or what stands here.

        Raises:
            ParameterError: something was said that this task makes nothing of.
        """
        said = {**described["data"]}
        source = said.pop("source")
        usual = {"standardize": True, "categories_as": "one-hot"}
        for name, value in said.items():
            if name not in known and value != usual.get(name):
                flag = {"standardize": "no-standardize", "categories_as": "categorical", "categorical": "categories"}
                raise ParameterError(
                    f"{self.kind} makes nothing of it",
                    where=f"--{flag.get(name, name).replace('_', '-')}",
                    expected=", ".join(f"--{each}" for each in known) or "no such flag",
                )
        return (source, *(said.get(name, value) for name, value in known.items()))

    # --- what the data are --------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def takes(cls, source: str) -> bool:
        """Whether this is what to learn from a file, a folder or a set of the catalog where nobody says."""

    @abstractmethod
    def rows(self, part: str) -> Any:
        """The examples of ``"train"``, ``"validation"`` or ``"test"``, fetched as they are asked for: `Rows`."""

    def arrays(self, part: str) -> tuple[Any, Any]:
        """x and y of a part as `fit` takes them; y is None where x are the `rows`."""
        return self.rows(part), None

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """What makes inputs of raw data and words of outputs, as plain values; it is saved with the network.

        Its ``task`` is a table with the `kind`, by which `pellucid.tasks.of` knows the network's task again.
        """

    @abstractmethod
    def described(self) -> str:
        """One line: what the data are."""

    # --- the network, and how it is trained ---------------------------------------------------------------------

    @abstractmethod
    def loss(self, named: Any) -> losses.Loss:
        """The loss, the task's usual one where ``named`` is None.

        Raises:
            ParameterError: one that does not fit the task.
        """

    @abstractmethod
    def outputs(self, loss: losses.Loss) -> int:
        """How many units the last layer has."""

    def network_options(self) -> dict[str, Any]:
        """What a network of the zoo is told beside shape and outputs, by the names of its hyperparameters."""
        return {}

    def network(self, net: str, wanted: dict[str, Any], hyperparameters: dict[str, Any]) -> Network:
        """The network of that name or file, fitted to the data.

        Arguments:
            net: a name of the zoo, or a TOML file.
            wanted: loss, regularizer, seed, dtype, precision, engine, class_weight; None where nobody said.
            hyperparameters: of the zoo's network, such as ``hidden``; see `pellucid.tasks.building.OF_NETWORK`.
        """
        wanted = {name: value for name, value in wanted.items() if value is not None}
        weighting = wanted.pop("class_weight", None)
        said = read_toml(net) if is_file(net) else vars(zoo.find(net).recipe)
        loss = self.loss(wanted.pop("loss", said.get("loss")))
        if weighting:
            loss = self.weighted(loss)
        outputs = self.outputs(loss)
        if is_file(net):
            if hyperparameters:
                flag = next(iter(hyperparameters)).replace("_", "-")
                raise ParameterError(f"--{flag} is for networks of the zoo", where=net, hint="write it into the file")
            every_step = bool(self.network_options().get("every_step"))
            return from_file(net, said, self.input_shape, outputs, loss, wanted, self.name, every_step)
        if said["regularizer"] is not None:
            wanted.setdefault("regularizer", said["regularizer"])
        if loss.reads != "identity":
            better = "sigmoid_cross_entropy" if outputs == 1 else "softmax_cross_entropy"
            raise ParameterError(
                f"{loss.registered_name} reads probabilities, and {net} gives logits",
                where="--loss",
                hint=f"--loss {better}",
            )
        needed = self.network_options()
        return build(net, self.input_shape, outputs, needed=needed, loss=loss, **wanted, **hyperparameters)

    def weighted(self, loss: losses.Loss) -> losses.Loss:
        """The loss with rare classes counting as much as frequent ones, for ``--class-weight balanced``."""
        raise ParameterError("--class-weight is for examples of one class each", where=self.name, got=self.kind)

    def metrics(self, names: Sequence[str]) -> list[Any]:
        """The metrics of these names, as `fit` takes them.

        Raises:
            ParameterError: one that does not fit the task.
        """
        if names:
            raise ParameterError(
                f"{self.kind} is measured by what belongs to it", where="--metrics", got=", ".join(names)
            )
        return []

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
        wanted |= layers_of(net_name, wanted)
        recipe = recipe_of(net_name)
        optimizer = optimizer_of(wanted.get("optimizer", recipe.optimizer), wanted.get("learning_rate"))
        of_all = ("loss", "regularizer", "dtype", "precision", "engine", "mesh", "class_weight", "seed")
        net = self.network(
            net_name,
            {name: wanted.get(name) for name in of_all},
            {name: wanted[name] for name in OF_NETWORK if name in wanted},
        )
        names = wanted.get("metrics", list(self.metrics_by_default))
        self.metrics(names)
        count = self.sizes["train"]
        batch_size = wanted.get("batch_size", recipe.batch_for(count))
        truncate = wanted.get("truncate", recipe.truncate)
        averaging = {"averaging": wanted["averaging"]} if "averaging" in wanted else {}
        patience = wanted.get("patience", 0 if averaging else recipe.patience or 0)
        return net, {
            "epochs": wanted.get("epochs", recipe.epochs),
            "batch_size": count if batch_size == "all" else batch_size,
            "optimizer": complete(optimizer),
            "patience": patience if self.sizes["validation"] or wanted.get("patience") else 0,
            "class_weight": wanted.get("class_weight", "none"),
            "metrics": names,
            "seed": net.seed,
            "shuffle": self.shuffle,
            "augment": [complete(each) for each in augmentations_of(wanted.get("augment") or recipe.augment)],
            "layer_statistics": bool(wanted.get("layer_statistics")),
            "engine": net.ops.name,
            **({"truncate": list(truncate)} if truncate else {}),
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
        net.preprocessing = self.preprocessing()
        x, y = self.arrays("train")
        validation = None
        if self.sizes["validation"]:
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
            shuffle=training.get("shuffle", True),
            seed=training["seed"],
            layer_statistics=training["layer_statistics"],
            truncate=tuple(training["truncate"]) if "truncate" in training else None,
            **options,
        )

    # --- what comes of it ---------------------------------------------------------------------------------------

    @abstractmethod
    def measure(self, net: Network, rows: Any, names: Sequence[str]) -> Finding:
        """How good the network is on examples of the task.

        Arguments:
            net: the network.
            rows: of `rows`; those of the test set come out of the run's vault.
            names: of metrics.
        """

    @classmethod
    @abstractmethod
    def evaluate(cls, net: Network, source: str, names: Sequence[str] | None, **reading: Any) -> tuple[Finding, int]:
        """How good a saved network is on other data, and how many examples those are.

        Arguments:
            net: of this task.
            source: what the user named.
            names: of metrics; None for the usual ones.
            reading: flags that say how the data are read.

        Raises:
            DataError: data without answers, or that the network cannot read.
        """

    @classmethod
    @abstractmethod
    def predict(cls, net: Network, source: str, **reading: Any) -> Said:
        """What a saved network says of new data. Arguments as in `evaluate`."""

    @classmethod
    def refuse(cls, **given: Any) -> None:
        """Refuse a flag of reading or answering, by its name, that this task makes nothing of.

        Raises:
            ParameterError: one has a value.
        """
        for name, value in given.items():
            if value:
                raise ParameterError(f"{cls.kind} makes nothing of it", where=f"--{name}")

    def next_steps(self, run: Path) -> list[tuple[str, str]]:
        """Commands to try after training, each with what it shows."""
        return [
            (f"pellucid predict {run} DATA", "what it says of new data"),
            (f"pellucid show {run}", "layers, hyperparameters, parameters"),
            (f"pellucid step {run} --example 0", "one iteration, every value laid open"),
            (f"pellucid evaluate {run} DATA", "measure it on other labelled data"),
        ]
