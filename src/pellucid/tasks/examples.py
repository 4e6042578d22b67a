"""Examples with one answer each, a class or values: rows of a table, images, sequences, plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import data, losses, metrics
from pellucid.data.prepared import Prepared
from pellucid.data.preprocessor import Preprocessor
from pellucid.errors import DataError, ParameterError
from pellucid.inspect import curves
from pellucid.metrics import confusion_matrix, default_for, predicted_classes, render_confusion
from pellucid.network.base import Network
from pellucid.tasks.base import PARTS, Finding, Said, Task
from pellucid.training.split import Split, split_indices


class Examples(Task):
    """Data, parts and preprocessing of a run on examples. Arguments as in `Task`.

    Raises:
        DataError, ParameterError: the data cannot be used, or is not there.
    """

    kind = "examples"
    title = "a class or values for each example"
    options = {"symbols": "word"}  # noqa: RUF012

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
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
            unit=self.settings["symbols"],
        )
        if "symbols" in described.get("task", {}) and self.preprocessor.kind != "text":
            raise ParameterError("these are no texts", where="--symbols", got=f"data of kind {self.preprocessor.kind}")
        self.task = self.dataset.task or "classification"
        self.classes = self.preprocessor.classes
        self.name, self.fingerprint = self.dataset.name, self.dataset.fingerprint
        self.input_shape = tuple(self.preprocessor.input_shape)
        self.sizes = dict(zip(PARTS, map(len, self.split), strict=True))
        self.official_test = 0 if self.dataset.test_rows is None else len(self.dataset.test_rows)
        self.report = list(dict.fromkeys([*self.dataset.report, *self.preprocessor.report]))
        self.metrics_by_default = [each.registered_name for each in default_for(self.task)]
        self._targets = y
        self._arrays: dict[str, tuple[Any, Any]] = {}
        if self.task == "classification" and len(np.unique(y[self.split.train])) < 2:
            raise DataError(
                "the training examples are all of one class",
                where=self.dataset.name,
                hint="another --seed draws others; is this the target? target= chooses another column",
            )

    @classmethod
    def takes(cls, source: str) -> bool:
        return False  # what is nothing else is examples

    def rows(self, part: str) -> Prepared:
        return Prepared(self.dataset, self.preprocessor, getattr(self.split, part))

    def arrays(self, part: str) -> tuple[Any, Any]:
        """x and y of a part, prepared once; see `Prepared.arrays`."""
        if part not in self._arrays:
            self._arrays[part] = self.rows(part).arrays()
        return self._arrays[part]

    def preprocessing(self) -> dict[str, Any]:
        return self.preprocessor.document()

    def described(self) -> str:
        what = f"{len(self.classes or ())} classes" if self.task == "classification" else "regression"
        if self.preprocessor.kind == "text":
            return f"texts, {what}"
        if self.input_shape[:1] == (None,):
            steps = "×".join(map(str, self.input_shape[1:])) or "1"
            return f"sequences of steps of {steps} numbers, {what}"
        return f"examples of {'×'.join(map(str, self.input_shape))} numbers, {what}"

    # --- the network --------------------------------------------------------------------------------------------

    def loss(self, named: Any) -> losses.Loss:
        named = named or ("softmax_cross_entropy" if self.task == "classification" else "mean_squared_error")
        loss = losses.get(named, where="--loss")
        if loss.of_classes != (self.task == "classification"):
            fit = [
                each for each in losses.losses if losses.losses.find(each).of_classes == (self.task == "classification")
            ]
            raise ParameterError(
                f"{loss.registered_name} does not fit {self.task}",
                where="--loss",
                expected=", ".join(fit),
                hint="--task says which task it is",
            )
        return loss

    def outputs(self, loss: losses.Loss) -> int:
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

    def network_options(self) -> dict[str, Any]:
        if self.preprocessor.kind == "text":
            return {"symbols": self.preprocessor.embedding_sizes["text"]}
        if self.preprocessor.categorical != "embedding":
            return {}
        sizes = self.preprocessor.embedding_sizes.values()
        levels = dict(enumerate(sizes, start=len(self.preprocessor.columns)))
        return {"levels": levels} if levels else {}

    def weighted(self, loss: Any) -> losses.Loss:
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

    # --- what comes of it ---------------------------------------------------------------------------------------

    def measure(self, net: Network, rows: Prepared, names: Sequence[str]) -> Finding:
        return measured(net, rows, self.metrics(names))

    @classmethod
    def evaluate(cls, net: Network, source: str, names: Sequence[str] | None, **reading: Any) -> tuple[Finding, int]:
        preprocessor = Preprocessor.from_document(net.preprocessing or {})
        if names is None:
            names = [each.registered_name for each in default_for(preprocessor.task or "classification")]
        chosen = chosen_metrics(names, preprocessor)
        dataset = data.load(source, like=preprocessor, **reading)
        if dataset.y is None:
            raise DataError("there are no labels to measure against", where=source, hint="pellucid predict needs none")
        return measured(net, Prepared(dataset, preprocessor), chosen), len(dataset)

    @classmethod
    def predict(cls, net: Network, source: str, *, probabilities: bool = False, **reading: Any) -> Said:
        preprocessor = Preprocessor.from_document(net.preprocessing or {})
        # a set of the catalog is read as its card says; in a file of one's own labels are neither needed nor looked at
        unlabelled = {"target": False} if Path(source).exists() or source not in data.names() else {}
        dataset = data.load(source, like=preprocessor, **reading, **unlabelled)
        rows = Prepared(dataset, preprocessor)
        made = predictions(net, rows, rows.arrays()[0])
        columns = _columns(made, preprocessor, net, probabilities=probabilities)
        return Said(columns, _document(columns), dataset.report)

    def next_steps(self, run: Path) -> list[tuple[str, str]]:
        data = "DATA" if self.dataset.kind != "table" else "NEW.csv"
        return [(command.replace("DATA", data), what) for command, what in super().next_steps(run)]


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


def measured(net: Network, rows: Prepared, chosen: list[metrics.Metric]) -> Finding:
    """Loss and metrics, and for classes which was taken for which."""
    x, y = rows.arrays()
    values = net.evaluate(x, y, metrics=chosen)
    preprocessor = rows.preprocessor
    if preprocessor.task != "classification":
        names = ", ".join(preprocessor.target_names) or "the target"
        return Finding(values, note=f"the loss is of the standardised target; all else is in the unit of {names}")
    classes = preprocessor.classes or []

    def draw(path: Path) -> str:
        curves.confusion_png(confusion, classes, path)
        lacking = curves.missing_letters(classes)
        return f"confusion.png numbers the classes from 0: no font here has {lacking[:20]!r}" if lacking else ""

    labels = y if y is not None else np.concatenate([rows.take(part)[1] for part in _parts_of(len(rows))])
    confusion = confusion_matrix(predicted_classes(predictions(net, rows, x)), labels, len(classes))
    return Finding(
        values,
        {"classes": classes, "confusion": confusion},
        "Which class was taken for which",
        render_confusion(confusion, classes),
        pictures={"confusion.png": draw},
    )


def predictions(net: Network, rows: Prepared, x: Any) -> Any:
    """What the network says of every row (k, outputs), a part at a time where ``x`` is not in memory."""
    if x is not rows:
        return net.predict(x)
    return np.concatenate([net.predict(rows.take(part)[0]) for part in _parts_of(len(rows))])


def _parts_of(count: int, size: int = 8192) -> Iterator[np.ndarray]:
    """The indices 0 … count - 1, ``size`` at a time."""
    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))


def _columns(made: Any, preprocessor: Any, net: Any, *, probabilities: bool) -> dict[str, list[Any]]:
    """The CSV's columns: the predicted class or values, and the probabilities asked for."""
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


TASK = Examples
