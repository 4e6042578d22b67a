"""Networks and optimizers as a command or a run's config describes them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pellucid import optimizers, schedules, zoo
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import layers
from pellucid.network.base import Network
from pellucid.network.saving import from_config, read_toml
from pellucid.registry import config
from pellucid.sequences import written
from pellucid.training.augment import Augmentation, augmentations

OF_NETWORK = ("hidden", "activation", "dropout", "initializer", "width", "embedding", "bidirectional")
"""Hyperparameters of the zoo's networks that ``pellucid train`` has a flag for."""


def recipe_of(net: str) -> zoo.Recipe:
    """How a network of the zoo is trained unless somebody says otherwise; a file's network as most are."""
    return zoo.Recipe() if is_file(net) else zoo.find(net).recipe


def layers_of(net: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """``units`` and ``layers``, where they are wanted, as ``hidden``: so many layers of as many units.

    Raises:
        ParameterError: the network has no such layers, or both ways of saying it are used.
    """
    given = [name for name in ("units", "layers") if name in wanted]
    if not given:
        return {}
    if "hidden" in wanted:
        raise ParameterError("--hidden says it all", where=f"--{given[0]}", hint="give one of them")
    usual = None if is_file(net) else inspect.signature(zoo.find(net).build).parameters.get("hidden")
    if usual is None:
        raise ParameterError(f"{net} has no {given[0]} to choose", where=f"--{given[0]}")
    units = wanted.get("units", usual.default[0])
    return {"hidden": [units] * wanted.get("layers", len(usual.default))}


def augmentations_of(named: Sequence[str]) -> list[Augmentation]:
    """The changes of training images of these names; ``none`` alone is no change, also where the recipe has one.

    Raises:
        ParameterError: an unknown name, or ``none`` beside others.
    """
    if "none" in named and len(named) > 1:
        raise ParameterError("none stands alone", where="--augment", got=" ".join(named))
    return [augmentations.get(each, where="--augment") for each in named if each != "none"]


def is_file(net: str) -> bool:
    """Whether ``--net`` names a file rather than a network of the zoo."""
    return net.endswith(".toml") or os.sep in net or Path(net).is_file()


def build(name: str, shape: Sequence[Any], outputs: int, *, needed: Mapping[str, Any], **options: Any) -> Network:
    """A network of the zoo.

    Arguments:
        name: of the entry.
        shape: of one example.
        outputs: units of the last layer.
        needed: what the task tells the network beside that.
        options: hyperparameters and what every network takes; where one is None the entry's own counts.

    Raises:
        ParameterError: a hyperparameter that the network does not have, or a network that is not for the task.
    """
    entry = zoo.find(name)
    options = {key: value for key, value in options.items() if value is not None}
    takes = inspect.signature(entry.build).parameters
    common = {"loss", "loss_weights", "seed", "engine", "mesh", "dtype", "precision", "regularizer"}
    for option in options:
        if option not in takes and option not in common:
            own = ", ".join(f"--{each}" for each in takes if each in OF_NETWORK)
            raise ParameterError(f"{name} has no {option}", where=f"--{option}", expected=own or "no such flags")
    if missing := [each for each in needed if each not in takes]:
        if missing == ["levels"]:
            raise ParameterError(f"{name} embeds no categories", where="--categorical", hint="--categorical one-hot")
        fit = [
            each for each, other in zoo.entries().items() if {*needed} <= {*inspect.signature(other.build).parameters}
        ]
        raise ParameterError(f"{name} cannot read these data", where="--net", expected=", ".join(fit), got=name)
    if "every_step" in takes:
        needed = {"every_step": False, **needed}  # one answer for a sequence, where the task asks for no more
    try:
        return entry.build(shape, outputs, **needed, **options)
    except ShapeError as problem:
        if None not in shape:
            raise
        fit = [each for each, other in zoo.entries().items() if other.task is None and _takes(other, "every_step")]
        raise ParameterError(
            f"{name} reads no sequences of different lengths",
            where="--net",
            expected=", ".join(fit),
            got=f"{problem.where}: {problem.problem}",
        ) from None


def _takes(entry: zoo.Entry, option: str) -> bool:
    return option in inspect.signature(entry.build).parameters


def from_file(
    path: str,
    said: dict[str, Any],
    shape: Sequence[int],
    outputs: int,
    loss: Any,
    wanted: dict[str, Any],
    data_name: str,
    every_step: bool = False,
) -> Network:
    """A network file with what it leaves open taken from the data: input shape, units of the last layer, loss."""
    described = dict(said)
    chain = described.get("layers")
    if "inputs" not in described:
        described.setdefault("input_shape", ["T" if n is None else n for n in shape])
    if isinstance(chain, list) and chain and "inputs" not in described:
        described["layers"] = [*chain[:-1], _with_units(chain[-1], outputs)]
    net = from_config(described, where=path, **{**wanted, "loss": loss})
    answer = (shape[0], outputs) if every_step else (outputs,)
    for what, made, needed in (("input", net.inputs, tuple(shape)), ("output", net.outputs, answer)):
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
            hint = f"leave {mend} out of the file: then the data decide"
            if what == "output" and len(got) != len(needed):
                ending = "return_sequences = true in every recurrent layer, and a TimeDistributed Dense at the end"
                hint = ending if every_step else "one answer for each example: return_sequences = false"
            raise ShapeError(
                f"the network's {what} does not fit {data_name}",
                where=path,
                expected=written(*needed),
                got=written(*got),
                hint=hint,
            )
    return net


def _with_units(layer: Any, outputs: int) -> Any:
    """A last layer's description; where it is a Dense, at every step or not, that leaves its units open, with them."""
    fields = {"type": layer} if isinstance(layer, str) else dict(layer)
    kind = str(fields.get("type", "")).lower()
    if kind == "dense":
        return {"units": outputs, **fields}
    if kind in ("timedistributed", "time_distributed") and "layer" in fields:
        return {**fields, "layer": _with_units(fields["layer"], outputs)}
    return layer


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
