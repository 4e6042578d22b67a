"""What is searched: for each hyperparameter a range, choices or a fixed value; and what that says to a training."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import initializers, optimizers, regularizers, schedules, zoo
from pellucid.errors import DataError, ParameterError, unknown
from pellucid.layers.activations import activations
from pellucid.tasks.building import OF_NETWORK, augmentations_of, is_file, optimizer_of, recipe_of

Settings = dict[str, Any]
Wanted = dict[str, Any]

GRID_LIMIT = 10_000
TOGETHER = " + "  # between augmentations of one choice


@dataclass(frozen=True)
class Kind:
    """What a hyperparameter may be.

    Arguments:
        interval: of a number, such as ``"[0, 1)"``; None for one that is chosen by name.
        whole: whether it counts something.
        check: reads one value, and raises where it cannot be one.
    """

    interval: str | None = None
    whole: bool = False
    check: Callable[[str], Any] = str


def _rated(schedule: str) -> Any:
    return schedules.get(_call(schedule, "0.1"))


def _changed(images: str) -> Any:
    return augmentations_of(images.split(TOGETHER))


KNOWN: dict[str, Kind] = {
    "optimizer": Kind(check=optimizers.get),
    "schedule": Kind(check=_rated),
    "learning_rate": Kind("(0, inf)"),
    "momentum": Kind("[0, 1)"),
    "epochs": Kind("[1, inf)", whole=True),
    "batch_size": Kind("[1, inf)", whole=True),
    "patience": Kind("[0, inf)", whole=True),
    "layers": Kind("[0, inf)", whole=True),
    "units": Kind("[1, inf)", whole=True),
    "width": Kind("(0, inf)"),
    "activation": Kind(check=activations.get),
    "initializer": Kind(check=initializers.get),
    "dropout": Kind("[0, 1)"),
    "regularizer": Kind(check=lambda name: name if name == "none" else regularizers.get(name)),
    "regularization": Kind("[0, inf)"),
    "augment": Kind(check=_changed),
}
"""Every hyperparameter that can be searched, in the order of deciding: what depends on another comes later."""


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter: its choices, or from ``low`` to ``high``.

    Arguments:
        name: of `KNOWN`.
        choices: the values, of which one is taken; a single one is fixed; () for a range.
        low, high: the range, both ends included.
        log: True draws the logarithm evenly.
        step: the distance between the values of a range; None allows all.
        whole: whether the values are whole numbers.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to search."""
        return len(self.choices) == 1

    def suggest(self, trial: Any) -> Any:
        """A value, drawn by an Optuna trial where there is something to draw."""
        if self.fixed:
            return self.choices[0]
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        options: dict[str, Any] = {"log": self.log} | ({"step": self.step} if self.step else {})
        if self.whole:
            return trial.suggest_int(self.name, self.low, self.high, **options)
        drawn = trial.suggest_float(self.name, self.low, self.high, **options)
        return min(max(float(f"{drawn:.4g}"), self.low), self.high)  # more digits say nothing, and have to be typed

    def grid(self) -> list[Any]:
        """Every value.

        Raises:
            ParameterError: there is no end of them.
        """
        if self.choices:
            return list(self.choices)
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            raise ParameterError(
                "a grid needs every value",
                where=self._where,
                expected="a list, or low and high with step",
                got=self.document(),
            )
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [self.low + i * step for i in range(count)]

    def near(self, value: Any) -> list[Any]:
        """The next values on both sides: an eighth of the range away, of its logarithm where that is drawn."""
        if self.choices and not all(map(_is_number, self.choices)):
            return [each for each in self.choices if each != value]
        if self.choices:
            order = sorted(self.choices)
            at = order.index(value)
            return order[max(0, at - 1) : at] + order[at + 1 : at + 2]
        if self.log:
            factor = (self.high / self.low) ** 0.125
            sides = [value / factor, value * factor]
        else:
            distance = max((self.high - self.low) / 8, self.step or 0)
            sides = [value - distance, value + distance]
        if self.step:
            sides = [self.low + round((side - self.low) / self.step) * self.step for side in sides]
        if self.whole:
            sides = [math.floor(sides[0]), math.ceil(sides[1])]
        clipped = [min(max(side, self.low), self.high) for side in sides]
        return [side for side in dict.fromkeys(clipped) if side != value]

    def nearest(self, value: Any) -> Any:
        """The value here that comes nearest to one from elsewhere; None where none is like it."""
        if self.choices and not _is_number(value):
            return value if value in self.choices else None
        if self.choices:
            numbers = [each for each in self.choices if _is_number(each)]
            return min(numbers, key=lambda each: abs(each - value), default=None)
        inside = min(max(value, self.low), self.high)
        return self.low + round((inside - self.low) / self.step) * self.step if self.step else inside

    def share(self, value: Any) -> float:
        """Where a value lies between the ends, from 0 to 1; for choices their place in the list."""
        if self.choices:
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        ends = (self.low, self.high, value)
        low, high, at = map(math.log, ends) if self.log else ends
        return (at - low) / ((high - low) or 1.0)

    def document(self) -> Any:
        """As it stands in a space's file."""
        if self.choices:
            return self.choices[0] if self.fixed else list(self.choices)
        options = {"log": True} if self.log else {"step": self.step} if self.step else {}
        return {"low": self.low, "high": self.high, **options}

    @property
    def _where(self) -> str:
        return f"space, {self.name}"


class Space:
    """The hyperparameters that are searched, and the network they are for.

    Arguments:
        given: by name a range ``{"low": 1e-4, "high": 1e-1, "log": True}`` (or with ``"step"``), a list of choices, or
            one fixed value.
        net: a name of the zoo, or a network file.

    Raises:
        ParameterError: an unknown name, an impossible range, or a hyperparameter that would have no effect; the message
            says which there are.
    """

    def __init__(self, given: Mapping[str, Any], net: str = "mlp") -> None:
        self.net = net
        known = known_for(net)
        for name in given:
            if name not in known:
                hint = f"{net} has none" if name in KNOWN else None
                problem = unknown("hyperparameter", name, known, where="space")
                raise ParameterError(
                    problem.problem, where="space", expected=problem.expected, got=repr(name), hint=hint or problem.hint
                )
        self.dimensions = {name: _dimension(name, given[name]) for name in KNOWN if name in given}
        self._check_together()
        for name in ("optimizer", "learning_rate", "momentum"):
            if name in self.dimensions:
                self._check_optimizers()
                break

    @classmethod
    def read(cls, given: Any, net: str = "mlp", m: int | None = None, side: int | None = None) -> Space:
        """The space that is meant.

        Arguments:
            given: ``"defaults"``, a TOML file, a dictionary, or a space.
            net: a name of the zoo, or a network file.
            m: how many training examples there are, which bounds the default batch sizes.
            side: pixels of the shorter side of images, which by default are augmented too; None for other examples.

        Raises:
            ParameterError, DataError: as for `Space`; the file is not there or is not TOML.
        """
        if isinstance(given, Space):
            return cls(given.document(), net)
        if isinstance(given, Mapping):
            return cls(given, net)
        if given == "defaults":
            return cls(defaults(net, m, side), net)
        if not isinstance(given, (str, os.PathLike)):
            raise ParameterError(
                "cannot be used as a space", where="space", expected="'defaults', a TOML file, a dict", got=repr(given)
            )
        try:
            document = tomllib.loads(Path(given).read_text(encoding="utf-8"))
        except OSError as missing:
            hint = "defaults is a space of pellucid's own" if not str(given).endswith(".toml") else None
            raise DataError(f"cannot be read: {missing.strerror}", where=str(given), hint=hint) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise DataError(f"not a TOML file: {problem}", where=str(given)) from None
        return cls(document, net)

    @property
    def searched(self) -> list[str]:
        """The names of what is not fixed."""
        return [name for name, each in self.dimensions.items() if not each.fixed]

    def suggest(self, trial: Any) -> Settings:
        """One setting of everything that has an effect, drawn by an Optuna trial.

        What depends on another is drawn only where that has it: momentum for optimizers with a momentum, the strength
        of a regularisation where there is one, units where there are hidden layers.
        """
        settings: Settings = {}
        for name, dimension in self.dimensions.items():
            if self._acts(name, settings):
                settings[name] = dimension.suggest(trial)
        return settings

    def start(self, m: int) -> Settings:
        """The settings of the network's recipe as far as the space has them: a good place to begin.

        Arguments:
            m: how many training examples there are.
        """
        recipe = recipe_of(self.net)
        optimizer: Any = optimizers.get(recipe.optimizer)
        rate = getattr(optimizer.schedule, fields(optimizer.schedule)[0].name)
        usual: Settings = {
            "optimizer": optimizer.registered_name,
            "schedule": optimizer.schedule.registered_name,
            "learning_rate": rate if _is_number(rate) else None,
            "momentum": getattr(optimizer, "momentum", None),
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_for(m),
            "patience": recipe.patience or 0,
            "regularizer": "none",
            "augment": TOGETHER.join(recipe.augment) or "none",
        }
        if recipe.regularizer:
            penalty: Any = regularizers.get(recipe.regularizer)
            usual |= {"regularizer": penalty.registered_name, "regularization": getattr(penalty, "rate", None)}
        if not is_file(self.net):
            takes = {name: each.default for name, each in _arguments_of(self.net).items()}
            hidden = takes.get("hidden") or ()
            usual |= {"layers": len(hidden), "units": max(hidden, default=None)}
            usual |= {name: takes[name] for name in ("activation", "initializer", "dropout", "width") if name in takes}
        found: Settings = {}
        for name, dimension in self.dimensions.items():
            near = None if usual.get(name) is None else dimension.nearest(usual[name])
            if near is not None and (name not in ("momentum", "regularization", "units") or self._acts(name, usual)):
                found[name] = near
        return found

    def sample(self, count: int, seed: int) -> list[Settings]:
        """Settings drawn at random, evenly."""
        from pellucid.tune.storage import optuna

        study = optuna().create_study(sampler=optuna().samplers.RandomSampler(seed=seed))
        return [self.suggest(study.ask()) for _ in range(count)]

    def grid(self) -> list[Settings]:
        """Every setting once.

        Raises:
            ParameterError: there are too many, or no end of them.
        """
        values = {name: each.grid() for name, each in self.dimensions.items()}
        count = math.prod(map(len, values.values()))
        if count > GRID_LIMIT:
            raise ParameterError(
                "the grid is too large",
                where="space",
                expected=f"at most {GRID_LIMIT:,}",
                got=f"{count:,}",
                hint="fewer values, or another sampler",
            )
        found: dict[tuple, Settings] = {}
        for row in itertools.product(*values.values()):
            settings: Settings = {}
            for name, value in zip(values, row, strict=True):
                if self._acts(name, settings):
                    settings[name] = value
            found.setdefault(tuple(settings.items()), settings)
        return list(found.values())

    def neighbours(self, settings: Settings, names: Sequence[str]) -> Iterator[tuple[str, Settings]]:
        """Settings that differ in one of these names by a little, with what differs."""
        unsaid = self._missing(settings)  # an initializer, say, of which the recipe has none by name
        for name in names:
            if name not in settings or name not in self.dimensions:
                continue
            for value in self.dimensions[name].near(settings[name]):
                other = {**settings, name: value}
                kept = {each: other[each] for each in other if self._acts(each, other)}
                if self._missing(kept) - unsaid:
                    continue  # another optimizer, say, may need a momentum that was never drawn
                yield f"{name} {_short(settings[name])} → {_short(value)}", kept

    def wanted(self, settings: Settings) -> Wanted:
        """Settings by the names of the flags of ``pellucid train``; see `pellucid.tasks.Task.settled`."""
        recipe = recipe_of(self.net)
        same = ("epochs", "batch_size", "patience", "activation", "dropout", "initializer", "width")
        wanted: Wanted = {name: settings[name] for name in same if name in settings}
        if "layers" in settings or "units" in settings:
            usual = _arguments_of(self.net)["hidden"].default
            units = settings.get("units", usual[0])
            wanted["hidden"] = [units] * settings.get("layers", len(usual))
        if "regularizer" in settings:
            kind = settings["regularizer"]
            strength = [settings["regularization"]] if "regularization" in settings else []
            none = "l2(0.0)" if recipe.regularizer else None  # nothing said would be the recipe's
            wanted["regularizer"] = none if kind == "none" else _call(kind, *strength)
        if "optimizer" in settings:
            named = {"momentum": settings["momentum"]} if "momentum" in settings else {}
            wanted["optimizer"] = _call(settings["optimizer"], **named)
        if "augment" in settings and settings["augment"] != (TOGETHER.join(recipe.augment) or "none"):
            wanted["augment"] = settings["augment"].split(TOGETHER)
        if "learning_rate" in settings:
            rate = repr(settings["learning_rate"])
            wanted["learning_rate"] = _call(settings["schedule"], rate) if "schedule" in settings else rate
        return {name: value for name, value in wanted.items() if value is not None}

    def document(self) -> dict[str, Any]:
        """The space as plain values, as in a file."""
        return {name: each.document() for name, each in self.dimensions.items()}

    def _acts(self, name: str, settings: Settings) -> bool:
        if name == "momentum":
            return _has_momentum(settings["optimizer"])
        if name == "regularization":
            return settings["regularizer"] != "none"
        if name == "units" and "layers" in self.dimensions:
            return settings["layers"] > 0
        return True

    def _missing(self, settings: Settings) -> set[str]:
        return {name for name in self.dimensions if name not in settings and self._acts(name, settings)}

    def _check_together(self) -> None:
        needs = {"momentum": "optimizer", "regularization": "regularizer", "schedule": "learning_rate"}
        for name, other in needs.items():
            if name in self.dimensions and other not in self.dimensions:
                raise ParameterError(f"{name} needs {other} beside it", where="space", expected=other, got=name)
        if "regularization" in self.dimensions:
            for kind in self.dimensions["regularizer"].choices:
                if kind != "none":
                    regularizers.get(_call(kind, 0.1), where="space, regularizer")
        if "momentum" in self.dimensions:
            named = self.dimensions["optimizer"].choices
            if not any(map(_has_momentum, named)):
                having = [each for each in optimizers.optimizers if _has_momentum(each)]
                raise ParameterError(
                    "none of the optimizers has a momentum",
                    where="space, momentum",
                    expected=f"one of {', '.join(having)} among them",
                    got=", ".join(named),
                )

    def _check_optimizers(self) -> None:
        """Every optimizer takes a learning rate and the momentum beside what it was given."""
        kinds = self.dimensions["optimizer"].choices if "optimizer" in self.dimensions else (None,)
        for kind in kinds:
            text = kind or recipe_of(self.net).optimizer
            if kind and "learning_rate" in self.dimensions and _says_rate(kind):
                raise ParameterError(
                    "the learning rate is a hyperparameter of its own",
                    where="space, optimizer",
                    expected=f"{kind.partition('(')[0]} without it",
                    got=kind,
                )
            if kind and "momentum" in self.dimensions and _has_momentum(kind):
                text = _call(kind, momentum=0.5)
            optimizer_of(text, "0.1" if "learning_rate" in self.dimensions else None)


def defaults(net: str, m: int | None = None, side: int | None = None) -> dict[str, Any]:
    """The space that is searched when nobody says another: what the network has of everything in `KNOWN`.

    Arguments as in `Space.read`.
    """
    recipe, known = recipe_of(net), known_for(net)
    sizes = [size for size in (16, 32, 64, 128, 256) if m is None or (size <= m // 2 and m % size != 1)]
    pixels = max(1, (side or 0) // 28)
    shift, further = f"shift({pixels})", f"shift({2 * pixels})"
    changes = ["none", TOGETHER.join(recipe.augment) or "none", shift, further, f"{shift}{TOGETHER}horizontal_flip"]
    space: dict[str, Any] = {
        "optimizer": ["adam", "rmsprop", "momentum", "nesterov"],
        "schedule": ["constant", "cosine", "one_cycle"],
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "momentum": {"low": 0.5, "high": 0.99},
        "epochs": {"low": max(1, recipe.epochs // 2), "high": recipe.epochs * 3, "log": True},
        "batch_size": sizes or recipe.batch_for(m or 1),
        "patience": [0, recipe.patience or 8],
        "layers": {"low": 1, "high": 3},
        "units": {"low": 16, "high": 512, "log": True},
        "activation": _usable(net, "activation", ["relu", "leaky_relu", "tanh", "gelu"]),
        "initializer": ["he_normal", "xavier_uniform", "lecun_normal", "orthogonal"],
        "dropout": {"low": 0.0, "high": 0.6},
        "regularizer": ["none", "l1", "l2"],
        "regularization": {"low": 1e-6, "high": 1e-2, "log": True},
        "augment": list(dict.fromkeys(["none", *filter(None, [TOGETHER.join(recipe.augment)]), *changes]))
        if side
        else [],
    }
    if "width" in known:
        usual = _arguments_of(net)["width"].default
        space["width"] = {"low": usual // 2 if isinstance(usual, int) else usual / 2, "high": usual * 2, "log": True}
    return {name: value for name, value in space.items() if name in known and value != []}


def _usable(net: str, name: str, choices: list[str]) -> list[str]:
    """The choices that this network can be built with: a recurrent one, say, takes few activations."""

    def fits(choice: str) -> bool:
        try:
            zoo.find(net).example(**{name: choice})
        except ParameterError:
            return False
        return True

    return [each for each in choices if fits(each)] if name in known_for(net) else []


def known_for(net: str) -> list[str]:
    """The hyperparameters that this network has: all of training, and of those of the network what it takes."""
    takes = set() if is_file(net) else set(_arguments_of(net))
    takes |= {"layers", "units"} if "hidden" in takes else set()
    own = {*OF_NETWORK, "layers", "units"}
    return [name for name in KNOWN if name not in own or name in takes]


def _arguments_of(net: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(zoo.find(net).build).parameters


def _has_momentum(optimizer: str) -> bool:
    return hasattr(optimizers.get(optimizer), "momentum")


def _says_rate(optimizer: str) -> bool:
    inside = optimizer.partition("(")[2]
    return bool(inside.rstrip(") ")) and ("learning_rate" in inside or "=" not in inside.partition(",")[0])


def _call(text: str, *first: Any, **named: Any) -> str:
    """A name, or a name with some arguments, with more of them: ``momentum`` becomes ``momentum(0.1)``."""
    name, bracket, inside = text.strip().partition("(")
    given = inside.strip().removesuffix(")").strip() if bracket else ""
    arguments = [*map(str, first), *([given] if given else []), *(f"{key}={value!r}" for key, value in named.items())]
    return f"{name}({', '.join(arguments)})" if arguments else name


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _dimension(name: str, given: Any) -> Dimension:
    kind, where = KNOWN[name], f"space, {name}"
    if isinstance(given, Mapping):
        return _range(name, given)
    choices = list(given) if isinstance(given, (list, tuple)) else [given]
    if not choices:
        raise ParameterError("there is nothing to choose from", where=where, expected="one value or more", got="[]")
    values = [_value(kind, each, where) for each in choices]
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ParameterError("a choice is there twice", where=where, got=repr(value))
    return Dimension(name, tuple(values))


def _range(name: str, given: Mapping[str, Any]) -> Dimension:
    kind, where = KNOWN[name], f"space, {name}"
    if kind.interval is None:
        raise ParameterError("is chosen by name, and has no range", where=where, expected="a list of names", got=given)
    for key in given:
        if key not in ("low", "high", "log", "step"):
            raise unknown("part of a range", key, ["low", "high", "log", "step"], where=where)
    for key in ("low", "high"):
        if key not in given:
            raise ParameterError(f"a range needs {key}", where=where, expected="low and high", got=dict(given))
    low, high = (_value(kind, given[key], where) for key in ("low", "high"))
    log, step = given.get("log", False), given.get("step")
    whole = kind.whole or (name == "width" and isinstance(low, int) and isinstance(high, int))
    problem = None
    if low > high:
        problem = "low is above high"
    elif not isinstance(log, bool):
        problem = "log is true or false"
    elif log and low <= 0:
        problem = "a logarithmic range begins above 0"
    elif step is not None and log:
        problem = "a range has log or step, not both"
    elif step is not None and not (_is_number(step) and 0 < step <= high - low and (not whole or step == int(step))):
        problem = "step does not fit into the range"
    if problem:
        raise ParameterError(problem, where=where, got=dict(given))
    if low == high:
        return Dimension(name, (low,))
    if step is not None:
        step = int(step) if whole else float(step)
        high = low + math.floor((high - low) / step + 1e-9) * step
    return Dimension(name, (), low, high, log, step, whole)


def _value(kind: Kind, value: Any, where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if kind.interval is None:
        if not isinstance(value, str):
            raise ParameterError("is chosen by name", where=where, expected="text", got=repr(value))
        try:
            kind.check(value)
        except ParameterError as wrong:
            raise ParameterError(
                wrong.problem, where=where, expected=wrong.expected, got=repr(value), hint=wrong.hint
            ) from None
        return value
    low, high = (float(end) for end in kind.interval[1:-1].split(","))
    inside = _is_number(value) and (value > low or (value == low and kind.interval[0] == "[")) and value < high
    if not inside or (kind.whole and value != int(value)):
        raise ParameterError(
            "is out of range",
            where=where,
            expected=f"a {'whole ' * kind.whole}number in {kind.interval}",
            got=repr(value),
        )
    return int(value) if kind.whole else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
