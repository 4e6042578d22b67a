"""Names for things: one way to write an activation, a loss, an optimizer … as text, and to read it back."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Generic, TypeVar, cast

import numpy as np

from pellucid.errors import ParameterError, unknown

T = TypeVar("T")


def members(room: str, *attributes: str) -> dict[str, Any]:
    """What the modules of a room define under these names, by each thing's own ``name``: a file put there is a member.

    Arguments:
        room: a package, such as ``"pellucid.zoo"``.
        attributes: what modules call their one thing, or their tuple or list of several.
    """
    modules = pkgutil.iter_modules(importlib.import_module(room).__path__)
    found: list[Any] = []
    for module in [importlib.import_module(f"{room}.{each.name}") for each in modules]:
        for value in (getattr(module, attribute, ()) for attribute in attributes):
            found += value if isinstance(value, (tuple, list)) else [value]
    return {each.name: each for each in found}


def own(thing: Any) -> bool:
    """Whether it and all that it holds is the library's, and nothing a user's that may do what it likes.

    Arguments:
        thing: a class, a function, an object of fields, a number, an array or a container of them.
    """
    if thing is None or isinstance(thing, (bool, int, float, str, bytes, np.generic, np.ndarray, np.dtype)):
        return True
    if isinstance(thing, (tuple, list, set, frozenset, dict)):
        return all(map(own, thing)) and (not isinstance(thing, dict) or all(map(own, thing.values())))
    fields = {} if isinstance(thing, (type, FunctionType)) else getattr(thing, "__dict__", {})
    module = (thing if isinstance(thing, (type, FunctionType)) else type(thing)).__module__
    return module.partition(".")[0] == "pellucid" and own(fields)


class Registry(Generic[T]):
    """The known classes of one kind, found by name.

    A value is given as an instance, a class, a name (``"relu"``), a call (``"leaky_relu(0.2)"``,
    ``"adam(learning_rate=1e-3)"``) or the dictionary that `config` wrote. Case, ``_`` and ``-`` do not matter.

    Arguments:
        kind: what the names name, for messages: ``"activation"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}  # by canonical name
        self._lookup: dict[str, str] = {}  # normalised name or alias -> canonical name

    def register(self, name: str, *aliases: str) -> Callable[[type], type]:
        """Class decorator: make a class known under ``name`` and ``aliases``."""

        def add(cls: type) -> type:
            self._classes[name] = cls
            for each in (name, *aliases):
                self._lookup[_normalised(each)] = name
            cls.registered_name = name  # type: ignore[attr-defined]
            return cls

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def lookup(self, name: str) -> type[T] | None:
        """The class known as ``name``, or None."""
        canonical = self._lookup.get(_normalised(name))
        return None if canonical is None else self._classes[canonical]

    def find(self, name: str, *, where: str | None = None) -> type[T]:
        """The class known as ``name``.

        Raises:
            ParameterError: nobody knows the name; the message lists the known ones.
        """
        cls = self.lookup(name)
        if cls is None:
            raise unknown(self.kind, name, self._classes, where=where)
        return cls

    def get(self, value: Any, *, where: str | None = None) -> T:
        """The instance that ``value`` describes.

        Raises:
            ParameterError: an unknown name, or arguments the class does not take.
        """
        if isinstance(value, str):
            name, args, kwargs = _parse_call(value, self.kind)
            return self._build(self.find(name, where=where), args, kwargs, where)
        if isinstance(value, dict):
            fields = dict(value)
            name = fields.pop("type", None)
            if not isinstance(name, str):
                raise ParameterError(f"this {self.kind} has no 'type' that is a name", where=where, got=value)
            return self._build(self.find(name, where=where), (), fields, where)
        if isinstance(value, type) and value in self._classes.values():
            return self._build(value, (), {}, where)
        if isinstance(value, tuple(self._classes.values())):
            return cast(T, value)
        own = value if isinstance(value, type) else type(value)
        raise ParameterError(
            f"cannot be used as {self.kind}",
            where=where,
            expected=f"one of {', '.join(self)}",
            got=repr(value),
            hint=None if own.__module__ == "builtins" else f"register {own.__name__} under a name of its own",
        )

    def _build(self, cls: type[T], args: tuple, kwargs: dict[str, Any], where: str | None) -> T:
        known = inspect.signature(cls).parameters
        try:
            inspect.signature(cls).bind(*args, **kwargs)
        except TypeError as mismatch:
            strange = next((name for name in kwargs if name not in known), None)
            near = [] if strange is None else difflib.get_close_matches(strange, known, n=1)
            near = near or [name for name in known if "".join(part[:1] for part in name.split("_")) == strange]  # lr
            said = [p.name if p.default is p.empty else f"{p.name}={config(p.default)!r}" for p in known.values()]
            raise ParameterError(
                f"{self.kind} {cls.__name__}: {mismatch if strange is None else f'unknown argument {strange!r}'}",
                where=where,
                expected=f"{cls.__name__}({', '.join(said)})",
                hint=f"did you mean {near[0]}?" if near else None,
            ) from None
        return cls(*args, **kwargs)


def config(thing: Any) -> Any:
    """What recreates ``thing`` through `Registry.get`: plain values that JSON and TOML can hold.

    A registered object becomes ``{"type": name, argument: value, …}``, arguments at their default left out, and just
    its name when all are.

    Raises:
        ParameterError: an object whose class only inherits a name, and would come back as the class it inherits from.
    """
    if isinstance(thing, (list, tuple)):
        return [config(each) for each in thing]
    if isinstance(thing, dict):
        return {key: config(value) for key, value in thing.items()}
    if hasattr(thing, "registered_name"):
        if "registered_name" not in vars(type(thing)):
            raise ParameterError(
                f"{type(thing).__name__} has no name of its own",
                hint=f"register it under one, as {thing.registered_name!r} is",
            )
        fields = {"type": thing.registered_name}
        for name, parameter in inspect.signature(type(thing)).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if not hasattr(thing, name):
                raise ParameterError(
                    f"{type(thing).__name__} does not keep its argument {name!r}",
                    hint=f"write self.{name} = {name} in __init__",
                )
            value = getattr(thing, name)
            default = parameter.default
            if default is inspect.Parameter.empty or config(value) != config(default):
                fields[name] = config(value)
        return fields if len(fields) > 1 else fields["type"]
    if hasattr(thing, "item") and getattr(thing, "ndim", None) == 0:
        return thing.item()
    if hasattr(thing, "tolist"):
        return thing.tolist()
    return thing


def _normalised(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _parse_call(text: str, kind: str) -> tuple[str, tuple, dict[str, Any]]:
    """``"adam(1e-3, beta1=0.8)"`` as name, arguments and keyword arguments; only literals are read."""
    name, bracket, arguments = text.partition("(")
    if not bracket:
        return text.strip(), (), {}
    try:
        call = ast.parse(f"name({arguments.strip()}", mode="eval").body  # a name such as leaky-relu is no Python name
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        args = tuple(_literal(each) for each in call.args)
        kwargs = {each.arg: _literal(each.value) for each in call.keywords if each.arg}
        if len(kwargs) < len(call.keywords):
            raise ValueError  # an argument given twice, or **
    except (SyntaxError, ValueError):
        raise ParameterError(
            f"cannot read this {kind}", expected="name or name(value, argument=value)", got=repr(text)
        ) from None
    return name.strip(), args, kwargs


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) or (isinstance(node, ast.Name) and node.id not in {"inf", "nan"}):
        return ast.unparse(node)  # a nested name such as cosine(0.1), read by the field's own registry
    if isinstance(node, ast.Name):
        return float(node.id)
    return ast.literal_eval(node)
