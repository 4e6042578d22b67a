"""What happened in each epoch of a training run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pellucid.errors import DataError, ParameterError, unknown
from pellucid.files import to_json

_SMALLER_IS_BETTER = ("loss", "error", "deviance", "perplexity", "mae", "mse", "rmse")


class History:
    """The record of each epoch, in order, and its metrics as curves.

    A record is ``{"epoch": 1, "step": updates so far, "seconds": s, "learning_rate": α, "train": {"loss": J, …},
    "validation": {…}, "layers": {name: {"gradient_norm": …, "weight_norm": …, "update_ratio": …}},
    "memory": {"process": bytes, "engine": bytes}}``; all but the epoch may be absent. ``history["loss"]`` is the
    training loss of every epoch, ``history["validation_loss"]`` that on the validation examples.

    Arguments:
        records: the records to start with. Of several for one epoch, as a resumed run writes them, the last counts.

    Attributes:
        records: the records.
        stopped: why training ended before its last epoch, or None.
        restored_epoch: the epoch whose parameters the network went back to at the end; None where it kept the last.
    """

    def __init__(self, records: Iterable[dict[str, Any]] = ()) -> None:
        self.records: list[dict[str, Any]] = []
        self.stopped: str | None = None
        self.restored_epoch: int | None = None
        for record in records:
            while self.records and _epoch(record) <= self.records[-1]["epoch"]:
                self.records.pop()
            self.append(record)

    def append(self, record: dict[str, Any]) -> None:
        """Add the record of the next epoch; NumPy numbers in it become plain ones.

        Raises:
            ParameterError: it has no epoch, one not after the last, or values that are not plain.
        """
        if self.records and _epoch(record) <= self.records[-1]["epoch"]:
            raise ParameterError(
                "epochs are recorded in order",
                where="history",
                expected=f"an epoch after {self.records[-1]['epoch']}",
                got=record["epoch"],
            )
        _epoch(record)
        self.records.append(json.loads(to_json(record)))

    @property
    def epochs(self) -> list[int]:
        """The number of each recorded epoch."""
        return [record["epoch"] for record in self.records]

    @property
    def metrics(self) -> list[str]:
        """The names that ``history[name]`` knows, in the order they first came."""
        return list(dict.fromkeys(name for record in self.records for name in flat(record)))

    @property
    def memory(self) -> dict[str, int]:
        """The most bytes held at one time up to the last epoch; empty where that is not known.

        ``"process"``: by the whole process since it began. ``"engine"``: by arrays of the engine's own, in training.
        """
        recorded = [record.get("memory") or {} for record in self.records]
        return {
            of: max(each.get(of, 0) for each in recorded)
            for of in dict.fromkeys(of for each in recorded for of in each)
        }

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __getitem__(self, name: str) -> list[float]:
        """One value for each epoch, NaN where an epoch has none.

        Raises:
            ParameterError: no epoch has this name; the message lists the known ones.
        """
        values = [flat(record).get(name, math.nan) for record in self.records]
        if name not in self.metrics:
            raise unknown("metric", name, self.metrics, where="history")
        return values

    def __contains__(self, name: str) -> bool:
        return name in self.metrics

    def layers(self, quantity: str = "gradient_norm") -> dict[str, list[float]]:
        """One quantity of every layer, a value for each epoch, NaN where it was not recorded.

        Raises:
            ParameterError: no layer has this quantity; the message lists the known ones.
        """
        recorded = [record.get("layers") or {} for record in self.records]
        known = {each for layers in recorded for values in layers.values() for each in values}
        if quantity not in known:
            raise unknown("layer quantity", quantity, known, where="history")
        names = dict.fromkeys(name for layers in recorded for name, values in layers.items() if quantity in values)
        return {name: [layers.get(name, {}).get(quantity, math.nan) for layers in recorded] for name in names}

    def best(self, metric: str | None = None, *, mode: str | None = None) -> dict[str, Any]:
        """The record of the epoch with the best value; the earliest of equals, NaN never.

        Arguments:
            metric: the name; None is ``"validation_loss"``, or ``"loss"`` where nothing was validated.
            mode: ``"min"`` or ``"max"``; None is min for losses and errors and max for all else.

        Raises:
            ParameterError: an unknown metric or mode.
            DataError: no epoch has a finite value.
        """
        if metric is None:
            metric = "validation_loss" if "validation_loss" in self else "loss"
        if mode not in ("min", "max", None):
            raise unknown("mode", mode, ["min", "max"], where="history")
        smaller = mode == "min" or (mode is None and smaller_is_better(metric))
        finite = [(value, record) for value, record in zip(self[metric], self, strict=True) if math.isfinite(value)]
        if not finite:
            raise DataError(
                f"no epoch has a finite {metric}",
                where="history",
                hint="the run diverged: try a smaller learning rate, or check the data for extreme values",
            )
        return (min if smaller else max)(finite, key=lambda pair: pair[0])[1]

    def to_document(self) -> dict[str, Any]:
        """A plain dictionary that JSON can hold and `from_document` reads back exactly."""
        ending = {"stopped": self.stopped, "restored_epoch": self.restored_epoch}
        return {"records": json.loads(to_json(self.records)), **ending}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> History:
        """The history that `to_document` described.

        Raises:
            DataError: the document is not one.
        """
        try:
            history = cls(document["records"])
            history.stopped, history.restored_epoch = document.get("stopped"), document.get("restored_epoch")
            return history
        except (KeyError, TypeError, ParameterError) as broken:
            raise DataError(
                f"this is no history ({broken})", expected='{"records": [{"epoch": 1, …}, …]}', got=repr(document)[:80]
            ) from None

    def plot(self, path: str | Path = "curves.png") -> Path:
        """Draw the curves as a picture (see `pellucid.inspect.curves.png`); returns its path."""
        from pellucid.inspect.curves import png

        return png(self, path)

    def __repr__(self) -> str:
        if not self.records:
            return "History: no epochs"
        names = ["epoch", *(name for name in self.metrics if name not in ("epoch", "step"))]
        try:
            best: Any = self.best()["epoch"]
        except (DataError, ParameterError):
            best = None
        shown = self.records if len(self) <= 12 else [*self.records[:3], None, *self.records[-8:]]
        rows = [[_short(flat(record).get(name)) if record else "…" for name in names] for record in shown]
        widths = [max(len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(names)]
        lines = ["  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
        for record, row in zip(shown, rows, strict=True):
            mark = "  best" if record and record["epoch"] == best else ""
            lines.append("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + mark)
        return "\n".join([*lines, *([f"stopped: {self.stopped}"] if self.stopped else [])])


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record's numbers by name: those of ``train`` bare, those of ``validation`` with ``validation_`` before."""
    numbers: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[key] = value
        elif isinstance(value, dict) and key not in ("layers", "memory"):
            prefix = "" if key == "train" else f"{key}_"
            numbers |= {prefix + name: each for name, each in value.items() if isinstance(each, (int, float))}
    return numbers


def smaller_is_better(metric: str) -> bool:
    """Whether a metric of this name falls as the network gets better: losses and errors do, scores do not."""
    return metric.endswith(_SMALLER_IS_BETTER)


def _epoch(record: Any) -> int:
    epoch = record.get("epoch") if isinstance(record, dict) else None
    if isinstance(epoch, bool) or not hasattr(epoch, "__index__") or epoch < 1:  # type: ignore[operator]
        raise ParameterError(
            "this is no record of an epoch", where="history", expected='{"epoch": 1, …}', got=repr(record)[:80]
        )
    return int(epoch)  # type: ignore[arg-type]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
