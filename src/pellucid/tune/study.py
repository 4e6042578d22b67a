"""What a study found: its trials, the best of them, what mattered, and how to train the winner."""

from __future__ import annotations

import json
import math
import os
import shlex
import warnings
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pellucid import tasks
from pellucid.errors import DataError, ParameterError, TrainingError
from pellucid.files import atomic_write, to_json
from pellucid.network.base import Network
from pellucid.tune.search import Plan, Search, train
from pellucid.tune.space import Settings, Space, Wanted
from pellucid.tune.storage import optuna, without_password

NOTE = "study.json"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: in the order of beginning.
        state: ``"complete"``, ``"confirmed"`` (it trained another one again), ``"pruned"``, ``"diverged"``,
            ``"out of memory"``, ``"failed"``, ``"killed"``, ``"interrupted"``, ``"repeat"``, ``"not needed"``,
            ``"running"`` or ``"waiting"``.
        settings: by hyperparameter; {} is the recipe of the network as it stands.
        loss: validation loss, the mean over the draws of the validation examples; None unless complete or confirmed.
        losses: of each draw; see `pellucid.tune.splits.judged`.
        reason: why it did not come to its end.
        seconds: it took.
        epochs, best_epoch: that were trained with the first draw, and the one that is kept.
        parameters: how many the network has.
        validation: loss and metrics of the epoch that is kept, of the first draw: what ``pellucid train`` measures.
        curve: validation loss by epoch, of the first draw.
        environment: engine, versions, hardware, data fingerprint and date; see `pellucid.runs.environment`.
        counts: False for one that was begun again later, or repeats another.
        confirms: the number of the trial that it trains again, with fresh seeds and draws; None: it is of the search.
        ratio: of one that confirms: validation examples for each training example.
    """

    number: int
    state: str
    settings: Settings
    loss: float | None = None
    losses: tuple[float, ...] = ()
    reason: str | None = None
    seconds: float | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    parameters: int | None = None
    validation: dict[str, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    counts: bool = True
    confirms: int | None = None
    ratio: float | None = None

    @property
    def baseline(self) -> bool:
        """Whether it is the network's recipe as it stands."""
        return not self.settings and self.state != "waiting" and self.confirms is None

    def row(self) -> dict[str, Any]:
        """The trial as one line of a table."""
        said = {"trial": self.number, "state": self.state, "loss": self.loss, "seconds": self.seconds}
        return {**said, "epochs": self.epochs, **self.settings, "reason": self.reason}


@dataclass(frozen=True)
class Confirmation:
    """A trial, trained again with fresh seeds on fresh draws of the validation examples.

    Attributes:
        trial: as it was in the search.
        loss: the mean over the fresh draws.
        losses: of each.
        gain: how much less than the recipe's, the mean difference draw by draw; None where the recipe has none.
        error: the standard error of the gain, √(1/n + n_validation/n_train) · s: the draws share their training
            examples, so their plain s/√n would be too sure.

    Source:
        Nadeau and Bengio 2003, "Inference for the Generalization Error", Machine Learning 52.
    """

    trial: Trial
    loss: float
    losses: tuple[float, ...]
    gain: float | None
    error: float | None

    @property
    def above_error(self) -> bool:
        """Whether the gain is above its standard error."""
        return self.gain is not None and self.error is not None and self.gain > self.error


class Study:
    """A search, finished or not: made by `tune`, found again by `Study.open`.

    Arguments:
        folder: where its reports are.
        storage: the URL of the storage.
        name: of the study in it.

    Attributes:
        exhausted: whether the latest search ended because every setting of the space had been tried.
    """

    def __init__(self, folder: str | os.PathLike[str], storage: str, name: str) -> None:
        self.folder, self.storage, self.name = Path(folder), storage, name
        self.exhausted = False
        self._search = Search(storage, name)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Study:
        """The study whose reports are in ``folder``.

        Raises:
            DataError: there is none.
        """
        path = Path(folder) / NOTE
        try:
            note = json.loads(path.read_text("utf-8"))
            storage, name = note["storage"], note["study"]
        except (FileNotFoundError, NotADirectoryError):
            raise DataError("there is no study here", where=str(folder), expected=f"a folder with {NOTE}") from None
        except (ValueError, KeyError, OSError) as broken:
            raise DataError(f"cannot be read: {broken}", where=str(path)) from None
        if storage.startswith("journal:") and not Path(storage.removeprefix("journal:")).exists():
            moved = Path(folder) / Path(storage.removeprefix("journal:")).name
            if not moved.exists():
                raise DataError("the study's storage is gone", where=storage)
            storage = f"journal:{moved.resolve()}"
        return cls(folder, storage, name)

    @property
    def plan(self) -> Plan:
        """What the study is about."""
        return self._search.plan

    @property
    def space(self) -> Space:
        """What was searched."""
        return self._search.space

    @property
    def trials(self) -> list[Trial]:
        """Every trial, also those that do not count."""
        counted = {each.number for each in self._search.counted()}
        return [_trial(each, each.number in counted) for each in self._search.study.get_trials(deepcopy=False)]

    @property
    def counted(self) -> list[Trial]:
        """The trials that count."""
        return [each for each in self.trials if each.counts]

    @property
    def complete(self) -> list[Trial]:
        """The trials that came to their end, the best first."""
        done = [each for each in self.trials if each.state == "complete" and each.loss is not None]
        return sorted(done, key=lambda each: (each.loss, each.number))

    @property
    def confirmed(self) -> list[Confirmation]:
        """The recipe and the leading trials by their fresh losses, the lowest first; [] where none was trained again.

        The lowest of many losses is lower than it would be the next time. Fresh ones had no part in the choice of the
        leading trials, so they compare them with the recipe fairly.
        """
        trials = self.trials
        again = {each.confirms: each for each in trials if each.state == "confirmed" and each.confirms is not None}
        recipe = next((again[each.number] for each in trials if each.baseline and each.number in again), None)
        found = []
        for number, fresh in again.items():
            gain = error = None
            if recipe is not None and fresh is not recipe:
                gains = [before - after for before, after in zip(recipe.losses, fresh.losses, strict=True)]
                gain, error = fmean(gains), stdev(gains) * math.sqrt(1 / len(gains) + (fresh.ratio or 0.0))
            found.append(Confirmation(trials[number], fmean(fresh.losses), fresh.losses, gain, error))
        return sorted(found, key=lambda each: each.loss)

    @property
    def _leader(self) -> Confirmation | None:
        """The trial, not the recipe, with the lowest fresh loss."""
        return next((each for each in self.confirmed if not each.trial.baseline), None)

    @property
    def _unreached(self) -> bool:
        """Whether nothing is known against training the recipe again: the time may have been over before its turn."""
        recipe, failed = self.baseline, ("diverged", "out of memory", "failed")
        return recipe is not None and not any(
            each.confirms == recipe.number and each.state in failed for each in self.trials
        )

    @property
    def verdict(self) -> str:
        """One sentence: how the best trial was chosen."""
        leader, count = self._leader, len(self.confirmed)
        if leader is None:
            return "chosen by the losses of the search alone, which flatter the lowest of them"
        fresh = f"of {count} trained again with {len(leader.losses)} fresh draws and seeds"
        if leader.gain is None:
            lowest = f"trial {leader.trial.number} has the lowest loss {fresh}"
            if self._unreached:
                return f"the recipe stands: {lowest}, but the recipe was not trained again"
            if self._stands:
                return f"the recipe stands: {lowest}, but more than the recipe in the search, which failed again"
            return f"{lowest}; the recipe could not be trained again"
        if leader.gain <= 0:
            return f"the recipe stands: its loss is the lowest {fresh}"
        best = f"trial {leader.trial.number} is the best {fresh}"
        gain = f"its gain over the recipe, {leader.gain:.4g}, is"
        if leader.above_error:
            return f"{best}: {gain} above its standard error, {leader.error:.4g}"
        return f"the recipe stands: {best}, but {gain} within chance (standard error {leader.error:.4g})"

    @property
    def best(self) -> Trial:
        """The trial with the lowest loss when it was trained again, if its gain over the recipe is above its standard
        error, and otherwise the recipe, unless that could not be trained again and had more loss in the search; see
        `confirmed`. Where none was trained again, the lowest validation loss.

        Raises:
            TrainingError: no trial came to its end; the message says why.
        """
        if not self.complete:
            reasons = [f"{each.state}: {each.reason}" for each in self.counted if each.reason]
            raise TrainingError(
                "no trial came to its end",
                where=f"study {self.name}",
                got="; ".join(dict.fromkeys(reasons)) or "no trials",
            )
        leader, recipe = self._leader, self.baseline
        if leader is None:
            return self.complete[0]
        return recipe if recipe is not None and self._stands else leader.trial

    @property
    def _stands(self) -> bool:
        """Whether the recipe is kept; also where it was not trained again, unless that failed and it had more loss."""
        leader, recipe = self._leader, self.baseline
        assert leader is not None
        if leader.gain is not None:
            return not leader.above_error
        losses = [each.loss for each in (recipe, leader.trial) if each is not None and each.loss is not None]
        return self._unreached or (len(losses) == 2 and losses[0] <= losses[1])

    @property
    def baseline(self) -> Trial | None:
        """The trial of the network's recipe as it stands; None before it is complete."""
        return next((each for each in self.complete if each.baseline), None)

    @cached_property
    def task(self) -> tasks.Task:
        """The data and their parts, read again.

        Raises:
            DataError: they are not there, or have changed since.
        """
        found = tasks.made(self.plan)
        if found.fingerprint != self.plan["fingerprint"]:
            raise DataError(
                "the data have changed since the study was made",
                where=str(self.plan["data"]["source"]),
                expected=f"SHA-256 {self.plan['fingerprint'][:16]}…",
                got=f"{found.fingerprint[:16]}…",
                hint="study.recheck() measures the old optimum on the present data",
            )
        return found

    def table(self) -> list[dict[str, Any]]:
        """The trials that count as rows: trial, state, loss, seconds, epochs, each hyperparameter, reason."""
        return [each.row() for each in self.counted]

    def wanted(self, trial: Trial | None = None) -> Wanted:
        """What a trial asks of a training, by the names of the flags of ``pellucid train``; None is the best trial."""
        return self.space.wanted((trial or self.best).settings)

    def best_network(self) -> Network:
        """The winner, trained again: the same settings, data, split and seed."""
        return train(self.task, self.plan, self.wanted()).net

    def command(self, trial: Trial | None = None) -> str:
        """The command that trains a trial's network as the study did; None is the best trial."""
        return shlex.join(["pellucid", "train", *train_arguments(self.plan, self.wanted(trial))])

    def importances(self) -> dict[str, float]:
        """Which share of the variation among complete trials each searched hyperparameter explains, largest first.

        What varies is the rank of the loss, so that a few very bad trials do not decide. Hyperparameters that only some
        trials have, such as momentum, are judged among those. Functional ANOVA with a forest; PED-ANOVA where
        scikit-learn is not installed. {} where fewer than four trials are complete.

        Source:
            Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance".
        """
        package, study = optuna(), self._search.study
        rank = {each.number: float(index) for index, each in enumerate(self.complete)}
        drawn = [each for each in study.get_trials(deepcopy=False) if each.number in rank and each.params]
        names = [name for name in self.space.searched if len({each.params.get(name) for each in drawn}) > 1]
        everywhere = [name for name in names if all(name in each.params for each in drawn)]

        def shares(params: list[str]) -> dict[str, float]:
            having = [each for each in drawn if all(name in each.params for name in params)]
            varied = [name for name in params if len({each.params[name] for each in having}) > 1]
            if len(having) < 4 or not varied:
                return {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna calls the second experimental
                try:
                    evaluator: Any = package.importance.FanovaImportanceEvaluator(seed=0)
                except ImportError:
                    evaluator = package.importance.PedAnovaImportanceEvaluator()
                return package.importance.get_param_importances(
                    study, evaluator=evaluator, params=varied, target=lambda trial: rank.get(trial.number, len(rank))
                )

        found = shares(everywhere)
        for name in names:
            if name not in everywhere:
                share = shares([*everywhere, name])
                found |= {name: share[name]} if name in share else {}
        return {name: float(share) for name, share in sorted(found.items(), key=lambda item: -item[1])}

    def report(self) -> dict[str, Any]:
        """Write ``report.json`` and the pictures into the folder.

        Returns:
            the document, with the pictures' paths; without pictures where matplotlib is not installed.
        """
        from pellucid.errors import EngineError
        from pellucid.tune import pictures

        document = self.document()
        try:
            document["pictures"] = [str(path) for path in pictures.draw(self, document["importances"], self.folder)]
        except EngineError as missing:
            document["pictures"] = []
            document["note"] = str(missing)
        atomic_write(self.folder / "report.json", to_json(document, indent=2) + "\n")
        return document

    def document(self) -> dict[str, Any]:
        """All that was found, as plain values."""
        best, base, counted = self.best, self.baseline, self.counted
        seconds = [each.seconds for each in counted if each.seconds is not None]
        return {
            "study": self.name,
            "folder": str(self.folder),
            "storage": without_password(self.storage),
            "data": self.plan["data"]["source"],
            "net": self.plan["net"],
            "best": asdict(best),
            "default_loss": None if base is None else base.loss,
            "verdict": self.verdict,
            "confirmed": [_plain(each) for each in self.confirmed],
            "states": {state: sum(e.state == state for e in counted) for state in sorted({e.state for e in counted})},
            "seconds": {"all": round(math.fsum(seconds), 3), "mean": math.fsum(seconds) / max(1, len(seconds))},
            "importances": self.importances(),
            "command": self.command(),
            "trials": self.table(),
        }

    def recheck(self, data: Any = None, **options: Any) -> Any:
        """Whether the optimum still is one; see `pellucid.tune.recheck.recheck`."""
        from pellucid.tune.recheck import recheck

        return recheck(self, data, **options)

    def __repr__(self) -> str:
        done = self.complete
        found = f", best loss {done[0].loss:.4g} (trial {done[0].number})" if done else ""
        return f"Study({str(self.folder)!r}: {len(self.counted)} trials{found})"


def _trial(frozen: Any, counts: bool) -> Trial:
    result, attributes = frozen.user_attrs.get("result", {}), frozen.user_attrs
    state = result.get("outcome") if frozen.state.is_finished() else frozen.state.name.lower()
    losses = tuple(result.get("losses", ()))
    return Trial(
        number=frozen.number,
        state=state or "failed",
        settings=attributes.get("settings", {}),
        loss=fmean(losses) if state in ("complete", "confirmed") else None,
        losses=losses,
        reason=result.get("reason"),
        seconds=result.get("seconds"),
        epochs=result.get("epochs"),
        best_epoch=result.get("best_epoch"),
        parameters=result.get("parameters"),
        validation=result.get("validation", {}),
        curve=dict(sorted(frozen.intermediate_values.items())),
        environment=attributes.get("environment", {}),
        counts=counts,
        confirms=attributes.get("confirms"),
        ratio=result.get("ratio"),
    )


def _plain(each: Confirmation) -> dict[str, Any]:
    said = {"trial": each.trial.number, "loss": each.loss, "losses": each.losses, "gain": each.gain}
    return {**said, "error": each.error, "above_error": each.above_error}


def train_arguments(plan: Plan, wanted: Wanted) -> list[str]:
    """What stands after ``pellucid train`` for a training of a plan with these flags."""
    options = dict(plan["data"])
    source, standardize, encoding = options.pop("source"), options.pop("standardize"), options.pop("categories_as")
    said: dict[str, Any] = {"net": plan["net"], **plan["fixed"], **wanted}
    same = ("target", "text", "task", "drop", "missing", "dates", "delimiter", "encoding", "decimal", "channels")
    said |= {name: options[name] for name in (*same, "keys") if name in options}
    said |= {name: value for name, value in plan.get("task", {}).items() if name != "kind"}
    if "task" in plan:
        said["task"] = plan["task"]["kind"]
    if "categorical" in options:
        said["categories"] = options["categorical"]
    if "header" in options:
        said["header"] = "yes" if options["header"] else "no"
    if "image_size" in options:
        said["image_size"] = "x".join(map(str, options["image_size"]))
    said |= {"no_standardize": not standardize, "categorical": None if encoding == "one-hot" else encoding}
    said |= {name: plan["split"][name] for name in ("validation", "test") if plan["split"][name] != 0.1}
    said["seed"] = plan["seed"] or None
    if "hidden" in said:
        said["hidden"] = ",".join(map(str, said["hidden"]))
    if "metrics" in said:
        said["metrics"] = ",".join(said["metrics"])
    arguments = [source]
    for name, value in said.items():
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        values = [] if value is True else value if isinstance(value, (list, tuple)) else [value]
        arguments += [flag, *map(str, values)]
    return arguments


def folder_of(data: str, net: str) -> Path:
    """Where a study of these data is kept when nobody says where."""

    def stem(name: str) -> str:
        base = os.path.basename(os.path.normpath(name))
        return base.partition(".")[0] or base

    return Path("tuning") / f"{stem(data)}-{stem(net)}"


def check_folder(folder: Path, storage: str, name: str) -> None:
    """Whether the reports of a study may go into a folder.

    Raises:
        ParameterError: another study's reports are in it.
    """
    path = folder / NOTE
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text("utf-8"))
    except ValueError:
        return
    if there != {"storage": storage, "study": name}:
        raise ParameterError(
            "there is another study here",
            where=str(folder),
            expected=f"{there.get('study')} in {without_password(str(there.get('storage')))}",
            got=f"{name} in {without_password(storage)}",
            hint="another --out",
        )


def note_in(folder: Path, storage: str, name: str) -> None:
    """Note in a folder where the study is that its reports are of."""
    folder.mkdir(parents=True, exist_ok=True)
    write_privately(folder / NOTE, {"storage": storage, "study": name})


def write_privately(path: Path, note: dict[str, Any]) -> None:
    """Write a note that may hold the password of a storage."""
    if not path.exists():
        path.touch(mode=0o600)
    atomic_write(path, to_json(note) + "\n")
