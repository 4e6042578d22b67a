"""A label at every step of a sequence: which digit each frame of a video shows, which way it goes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import data, losses, metrics
from pellucid.data.dataset import Dataset
from pellucid.data.prepared import MEMORY_LIMIT
from pellucid.data.preprocessor import Preprocessor
from pellucid.errors import DataError, ParameterError, unknown
from pellucid.inspect.pictures import new_figure, save
from pellucid.metrics import confusion_matrix, render_confusion
from pellucid.network.base import Network
from pellucid.tasks.base import PARTS, Finding, Said, Task
from pellucid.training.split import split_indices

MOVING = {"moving-digits": "digits", "moving-mnist": "mnist"}
CLIPS = 2500  # of moving digits, in all parts together
SHOWN = 6  # sequences in the picture


class Labelled:
    """Sequences in memory: raw x (m, T, …), whose steps the preprocessor makes inputs of, and y (m, T) classes."""

    def __init__(self, x: np.ndarray, y: np.ndarray | None, preprocessor: Preprocessor, rows: np.ndarray) -> None:
        self.x, self.y, self.preprocessor, self.rows = x, y, preprocessor, rows

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Any) -> tuple[np.ndarray, np.ndarray | None]:
        rows = self.rows[indices]
        return self.preprocessor.x(self.x[rows]), None if self.y is None else self.y[rows]


class Labelling(Task):
    """The label of every step. Arguments as in `Task`.

    The data are clips of moving digits (`MOVING`), or an NPZ file with arrays x (m, T, …) and y (m, T).
    """

    kind = "labelling"
    title = "a label at every step"
    net = "frames"
    options = {"length": None}  # noqa: RUF012
    metrics_by_default = ("accuracy",)

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
        source, target, keys = self.reading(described, target=None, keys=None)
        split = described["split"]
        self.preprocessor: Preprocessor | None = None
        if source in MOVING:
            self._move(source, target, split)
        else:
            if self.settings["length"] or target:
                flag = "length" if self.settings["length"] else "target"
                raise ParameterError("the sequences of a file are as they are", where=f"--{flag}", got=source)
            self._read(source, keys, split)
        x, _ = self.parts["train"].take(np.arange(1))
        self.sizes = {name: len(part) for name, part in self.parts.items()}
        self.input_shape = (None, *x.shape[2:])
        self.length = x.shape[1]
        self._arrays: dict[str, tuple[Any, Any]] = {}

    def _move(self, source: str, target: Any, split: Mapping[str, Any]) -> None:
        held_out = {part: _count(split[part]) for part in ("validation", "test")}
        counts = (CLIPS - sum(held_out.values()), *held_out.values())
        own = {"length": self.settings["length"], "target": target}
        clips = data.moving_digits(
            counts,
            source=MOVING[source],
            seed=split["seed"],
            **{name: value for name, value in own.items() if value is not None},
        )
        self.name, self.classes, self.what = source, clips.train.classes, clips.train.target
        self.parts: dict[str, Any] = dict(zip(PARTS, clips, strict=True))
        self.fingerprint = hashlib.sha256(repr([source, own, counts, split["seed"]]).encode()).hexdigest()
        self.report = ["the digits were written by people, their motion is made; no digit is in two parts"]

    def _read(self, source: str, keys: Any, split: Mapping[str, Any]) -> None:
        x, y = _arrays_of(source, keys)
        if y is None or y.shape != x.shape[:2] or y.dtype.kind not in "iub" or y.min() < 0:
            raise DataError(
                "there is no label at every step",
                where=source,
                expected=f"y of whole numbers from 0, {x.shape[:2]}",
                got="no y" if y is None else f"{y.dtype} {y.shape}",
            )
        if x.dtype.kind == "f" and not (finite := np.isfinite(x)).all():
            first = tuple(map(int, np.argwhere(~finite)[0]))
            raise DataError(
                "a value that is not finite",
                where=f"{source}, x{list(first)}",
                expected="finite numbers",
                got=float(x[first]),
                hint="fill it in, or leave its sequence out",
            )
        parts = split_indices(len(x), validation=split["validation"], test=split["test"], seed=split["seed"])
        if len(np.unique(y[parts.train])) < 2:
            raise DataError("the steps of the training sequences are all of one class", where=source)
        dataset = Dataset(x, name=Path(source).stem, sequences=True)
        self.preprocessor = Preprocessor.fit(dataset, parts.train)
        self.name, self.what = dataset.name, "label"
        self.classes = [str(label) for label in range(int(y.max()) + 1)]
        self.fingerprint = hashlib.sha256(dataset.fingerprint.encode() + y.tobytes()).hexdigest()
        y = y.astype(np.int64)
        self.parts = {name: Labelled(x, y, self.preprocessor, rows) for name, rows in zip(PARTS, parts, strict=True)}

    @classmethod
    def takes(cls, source: str) -> bool:
        return source in MOVING and not Path(source).is_file()

    def rows(self, part: str) -> Any:
        return self.parts[part]

    def arrays(self, part: str) -> tuple[Any, Any]:
        if part not in self._arrays:
            rows = self.rows(part)
            small = 4 * len(rows) * self.length * math.prod(self.input_shape[1:]) <= MEMORY_LIMIT
            self._arrays[part] = rows.take(np.arange(len(rows))) if small else (rows, None)
        return self._arrays[part]

    def preprocessing(self) -> dict[str, Any]:
        steps = self.preprocessor.document() if self.preprocessor else None
        return {"task": {"kind": self.kind}, "steps": steps, "classes": self.classes, "target": self.what}

    def described(self) -> str:
        steps = "×".join(map(str, self.input_shape[1:])) or "1"
        return f"sequences of {self.length} steps of {steps} numbers, to each step one of {len(self.classes)} classes"

    # --- the network --------------------------------------------------------------------------------------------

    def loss(self, named: Any) -> losses.Loss:
        if named not in (None, "softmax_cross_entropy"):
            raise ParameterError(
                "a step is of one class of several", where="--loss", expected="softmax_cross_entropy", got=named
            )
        return losses.get("softmax_cross_entropy")

    def outputs(self, loss: losses.Loss) -> int:
        return len(self.classes)

    def network_options(self) -> dict[str, Any]:
        return {"every_step": True}

    def network(self, net: str, wanted: dict[str, Any], hyperparameters: dict[str, Any]) -> Network:
        share = {"output": 1 / self.length}  # the loss is then that of one step
        return super().network(net, {**wanted, "loss_weights": share}, hyperparameters)

    def metrics(self, names: Sequence[str]) -> list[metrics.Metric]:
        chosen = [metrics.get(name, where="--metrics") for name in names]
        for metric in chosen:
            if metric.task != "classification":
                raise ParameterError(f"{metric.name} is for {metric.task}, and labels are classes", where="--metrics")
        return chosen

    # --- what comes of it ---------------------------------------------------------------------------------------

    def measure(self, net: Network, rows: Any, names: Sequence[str]) -> Finding:
        x, y = rows.take(np.arange(len(rows)))
        values = net.evaluate(x, y, metrics=self.metrics(names))
        if rows is not self.parts["test"]:
            return Finding(values)
        said = net.predict(x).argmax(axis=-1)
        right = said == y
        confusion = confusion_matrix(said.reshape(-1), y.reshape(-1), len(self.classes))
        by_step = right.mean(axis=0)
        changed = np.diff(y, axis=1, prepend=y[:, :1]) != 0
        just, later = (float(right[each].mean()) if each.any() else None for each in (changed, ~changed))
        text = render_confusion(confusion, self.classes)
        text += "\n\nright at step " + ", ".join(f"{t} {100 * share:.0f} %" for t, share in enumerate(by_step))
        document = {
            **{"classes": self.classes, "confusion": confusion, "accuracy_by_step": by_step.tolist()},
            **{"accuracy_after_a_change": just, "accuracy_elsewhere": later},
        }
        pictures = {"steps.png": lambda path: self._draw(x, said, y, path)} if x.ndim == 5 else {}
        return Finding(values, document, "Which class was taken for which", text, pictures=pictures)

    def _draw(self, x: np.ndarray, said: np.ndarray, y: np.ndarray, path: Path) -> str:
        """Frames of some clips, what the network says above each; wrong ones in red with the truth."""
        T = x.shape[1]
        figure = new_figure(0.85 * T, 1.05 * SHOWN)
        for row in range(min(SHOWN, len(x))):
            for t in range(T):
                axes = figure.add_subplot(SHOWN, T, row * T + t + 1)
                axes.imshow(x[row, t, 0], cmap="gray")
                right = said[row, t] == y[row, t]
                label = self.classes[said[row, t]] + ("" if right else f" ({self.classes[y[row, t]]})")
                axes.set_title(label, fontsize=8, color="black" if right else "#D55E00", pad=2)
                axes.set_xticks([])
                axes.set_yticks([])
        save(figure, path)
        return ""

    @classmethod
    def evaluate(cls, net: Network, source: str, names: Sequence[str] | None, **reading: Any) -> tuple[Finding, int]:
        x, y = _read_again(net, source, reading.get("keys"))
        if y is None:
            raise DataError("there are no labels to measure against", where=source, hint="pellucid predict needs none")
        chosen = [metrics.get(name, where="--metrics") for name in names or ("accuracy",)]
        return Finding(net.evaluate(x, y, metrics=chosen)), len(x)

    @classmethod
    def predict(cls, net: Network, source: str, *, probabilities: bool = False, **reading: Any) -> Said:
        x, _ = _read_again(net, source, reading.get("keys"))
        p = net.predict(x)
        classes = (net.preprocessing or {})["classes"]
        labels = [[classes[label] for label in each] for each in p.argmax(axis=-1).tolist()]
        m, T = p.shape[:2]
        columns: dict[str, list[Any]] = {
            "example": np.repeat(np.arange(m), T).tolist(),
            "step": np.tile(np.arange(T), m).tolist(),
            (net.preprocessing or {})["target"]: [label for each in labels for label in each],
        }
        document: dict[str, Any] = {"predictions": labels}
        if probabilities:
            columns |= {f"p({name})": p[..., i].reshape(-1).tolist() for i, name in enumerate(classes)}
            document["probabilities"] = p.tolist()
        return Said(columns, document)


def _arrays_of(source: str, keys: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """x (m, T, …) and y of an NPZ file; x alone of an NPY file.

    Raises:
        DataError: no such file, or no sequences in it.
    """
    path = Path(source)
    if not path.is_file() or path.suffix not in (".npz", ".npy"):
        expected = f"an .npz file with x (m, T, …) and y (m, T), or {', '.join(MOVING)}"
        raise DataError("no sequences with a label at every step", where=source, expected=expected)
    try:
        found = np.load(path, allow_pickle=False)
        arrays = {"x": found} if path.suffix == ".npy" else dict(found)
    except (ValueError, OSError) as problem:
        raise DataError("the file cannot be read", where=source, got=str(problem)) from None
    names = list(keys or ("x", "y"))
    if names[0] not in arrays:
        raise unknown("array", names[0], arrays, where=source)
    x, y = arrays[names[0]], arrays.get(names[1]) if len(names) > 1 else None
    if x.ndim < 3 or x.dtype.kind not in "fiub":
        raise DataError(
            "these are no sequences", where=source, expected="numbers (m, T, …)", got=f"{x.dtype} {x.shape}"
        )
    return x, y


def _read_again(net: Network, source: str, keys: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Inputs for a trained network, and the labels where the file has them.

    Raises:
        DataError: steps of another shape, or labels that the network does not know.
    """
    said = net.preprocessing or {}
    x, y = _arrays_of(source, keys)
    steps = tuple(next(iter(net.inputs.values()))[1:])
    if x.shape[2:] != steps:
        raise DataError(
            "the steps have another shape than in training",
            where=source,
            expected=f"(m, T, {', '.join(map(str, steps))})",
            got=f"{x.shape}",
        )
    if y is not None and (y.dtype.kind not in "iub" or y.shape != x.shape[:2] or y.max() >= len(said["classes"])):
        raise DataError(
            "labels that the network does not know",
            where=source,
            expected=f"whole numbers 0 … {len(said['classes']) - 1}, {x.shape[:2]}",
            got=f"{y.dtype} {y.shape} up to {y.max()}",
        )
    if said["steps"]:
        x = Preprocessor.from_document(said["steps"] | {"input_shape": list(x.shape[1:])}).x(x)
    return x.astype(np.float32), None if y is None else y.astype(np.int64)


def _count(size: float | int) -> int:
    return round(size * CLIPS) if isinstance(size, float) else size


TASK = Labelling
