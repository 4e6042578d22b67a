"""Networks to files and back: one safetensors file with the architecture, or a TOML file to write by hand."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import files
from pellucid.engines.base import Ops
from pellucid.errors import CheckpointError, ParameterError, unknown
from pellucid.layers.base import Layer, layers, set_field
from pellucid.network.base import Network
from pellucid.network.graph import Graph
from pellucid.network.parameters import fitted
from pellucid.network.sequential import Sequential
from pellucid.trees import flatten, leaves, unflatten

_COMMON = {"network", "loss", "loss_weights", "seed", "dtype", "precision", "regularizer", "layers"}
_KEYS = {"Sequential": _COMMON | {"input_shape"}, "Graph": _COMMON | {"inputs", "outputs", "single"}}
_NEEDED: dict[str, tuple[str, ...]] = {
    "Sequential": ("input_shape", "layers"),
    "Graph": ("inputs", "layers", "outputs"),
}


def from_config(
    document: dict[str, Any], *, engine: str = "auto", mesh: Any = None, where: str = "network", **changes: Any
) -> Network:
    """The network that a document describes: what `Network.config` returned, or a TOML file said.

    Arguments:
        document: the description. ``network`` is ``"Sequential"`` (the default) or ``"Graph"``.
        engine, mesh: where it runs.
        where: the document's place, for messages.
        changes: entries that replace the document's, such as ``seed=3``.

    Raises:
        ParameterError: an unknown key, a missing one, or an unknown layer; all name the known ones.
    """
    if not isinstance(document, dict):
        raise ParameterError("a network is described by a table", where=where, got=type(document).__name__)
    document = {**document, **changes}
    kind = document.get("network", "Graph" if "inputs" in document else "Sequential")
    if kind not in _KEYS:
        raise unknown("network", kind, _KEYS, where=where)
    for key in document:
        if key not in _KEYS[kind]:
            raise unknown("key", key, _KEYS[kind], where=where)
    for key in _NEEDED[kind]:
        if key not in document:
            raise ParameterError(f"{key!r} is missing", where=where, expected=", ".join(_NEEDED[kind]))
    names = ("loss", "loss_weights", "seed", "dtype", "precision", "regularizer")
    cls = Graph if kind == "Graph" else Sequential
    return cls.from_config(
        document, engine=engine, mesh=mesh, **{key: document[key] for key in names if key in document}
    )


def layer_from(described: Any, members: dict[str, Layer], where: str) -> Layer:
    """One layer from its description; ``{"shared": name}`` is the layer already known by that name."""
    if isinstance(described, dict) and "shared" in described:
        if described["shared"] not in members:
            raise unknown("layer", described["shared"], members, where=where)
        return members[described["shared"]]
    if not isinstance(described, dict) or "name" not in described:
        return layers.get(described, where=where)
    fields = dict(described)
    name = fields.pop("name")
    layer = layers.get(fields, where=where)
    set_field(layer, "name", name)  # set and not passed: a layer of a user's own may have a constructor without it
    return layer


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A network's description from a TOML file.

    Raises:
        ParameterError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError("there is no such network file", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ParameterError(f"not a TOML file: {problem}", where=str(path)) from None


def contents(net: Network) -> tuple[dict[str, Any], dict[str, Any]]:
    """A network as named arrays of its engine and a JSON document; `restored` is the inverse."""
    arrays = flatten({"parameters": net.parameters, "state": net.state})
    return arrays, {"config": net.config(), "preprocessing": net.preprocessing}


def restored(
    arrays: dict[str, Any],
    document: dict[str, Any],
    *,
    engine: str = "auto",
    mesh: Any = None,
    where: str = "network",
) -> Network:
    """The network that `contents` took apart.

    Raises:
        CheckpointError: the document has no network in it.
    """
    if "config" not in document:
        raise CheckpointError("there is no network in this file", where=where)
    described = document["config"]
    if described.get("precision") == "tensorfloat32" and engine != "jax":
        described = {**described, "precision": None}  # float32: what the other engines have, and more exact
    try:
        net = from_config(described, engine=engine, mesh=mesh, where=where)
    except ParameterError as problem:
        if not problem.problem.startswith("unknown layer "):
            raise
        own = problem.problem.removeprefix("unknown layer ")
        hint = f"if it is a class of your own, import the module that defines {own} first"
        raise ParameterError(
            problem.problem, where=problem.where, expected=problem.expected, got=problem.got, hint=hint
        ) from None
    fill(net, arrays, where=where)
    net.preprocessing = document.get("preprocessing")
    return net


def fill(net: Network, arrays: dict[str, Any], *, where: str) -> None:
    """Set a network's parameters and state from named arrays.

    Raises:
        ShapeError: they are another network's.
    """
    trees: dict[str, dict[str, Any]] = {"parameters": {}, "state": {}}
    for path, array in arrays.items():
        tree, _, rest = path.partition("/")
        if tree in trees:
            trees[tree][rest] = array
    params = fitted(unflatten(trees["parameters"]), net.parameters, net.placed, where=where)
    state, like = unflatten(trees["state"]), dict(net.state)
    for name, fresh in net.fresh_state().items():  # of as many examples as the last batch had
        m = max((np.shape(each)[-1:] for _, each in leaves(state.get(name, {}))), default=(1,))
        like[name] = {key: np.broadcast_to(column, (len(column), *m)) for key, column in fresh.items()}
    net.adopt(params, fitted(state, like, net.placed, where=where))


def save(net: Network, path: str | os.PathLike[str]) -> None:
    """Write the network to one file, whole or not at all; of several processes that have it the first does."""
    arrays, document = contents(net)
    if net.placement.first:
        files.write_arrays(path, arrays, document, net.ops.to_numpy)
    else:
        gather(net.ops, arrays)


def gather(ops: Ops, arrays: Mapping[str, Any]) -> None:
    """Help to gather what the first process writes, one array after the other in the same order."""
    for A in arrays.values():
        ops.to_numpy(A)


def load(path: str | os.PathLike[str], *, engine: str = "auto", mesh: Any = None) -> Network:
    """A network from the file that `Network.save` wrote.

    Arguments:
        path: the file.
        engine: where it will run.
        mesh: devices that it is spread over as it is read, as in `Sequential`.

    Raises:
        CheckpointError: the file is missing, corrupt, truncated or not a pellucid network.
    """
    arrays, document = files.read_arrays(path, mapped=True)
    return restored(arrays, document, engine=engine, mesh=mesh, where=str(path))
