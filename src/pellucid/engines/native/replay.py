"""A training step written down while it runs once, and from then on run as one straight list of calls.

A small network's step is over in some tens of microseconds; the Python of layers, loss and optimizer around its kernels
takes longer than they do. That Python decides the same each time: which kernel is called, with which arrays. So the
step is run once on values that note what is done with them, and what was noted is made a function:

    def step(given, leaves):
        [_1, _2, _3, …] = leaves
        _20 = affine(_1, _16, _2, False)
        _21, _22 = softmax_cross_entropy(_20, _17, 0.0)
        …

A step that looks at numbers to decide what to do, whose shapes follow from numbers, or that does anything else that
cannot be noted, is not written down and runs as it was. ``replayed.structures[0].steps`` has what was written down, the
text of each as its ``source``.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from keyword import iskeyword
from typing import Any

import numpy as np

from pellucid.trees import leaves

AFTER = 16  # steps, and then as many of the same kind: to write one down takes as long as some 40 replays save
MOST = 64  # kinds of arguments, such as batches of different lengths, for which a step is written down
MOST_BYTES = 1 << 26  # of what is updated: of larger networks the Python is the least part, and the copy of them large
_ONE_AT_A_TIME = threading.RLock()
if hasattr(os, "register_at_fork"):  # no process begins in the midst of writing down, which would never end there
    os.register_at_fork(
        before=_ONE_AT_A_TIME.acquire, after_in_parent=_ONE_AT_A_TIME.release, after_in_child=_ONE_AT_A_TIME.release
    )


class Replayed:
    """A step of an engine, which is written down when arguments of one kind have come often enough.

    Arguments:
        ops: the engine.
        step: reads and makes trees of arrays; what it calls is the same for all arguments of one kind.
        given_away: the names of arguments whose arrays it may write to.
        static: the names of those that are no arrays.
    """

    def __init__(self, ops: Any, step: Callable, given_away: Sequence[str], static: Sequence[str]) -> None:
        self.ops, self.step, self.named = ops, step, (tuple(given_away), tuple(static))
        names = list(signature(step).parameters)
        self.given_away = frozenset(names.index(each) for each in given_away)
        self.static = frozenset(names.index(each) for each in static)
        self.calls = 0  # as far as they are counted
        self.structures: list[Structure] = []
        self.latest = Structure("[]", "False")

    def __reduce__(self) -> Any:
        """Pickled as it was before its first call: what is written down calls the kernels of this process."""
        return Replayed, (self.ops, self.step, *self.named)

    def __call__(self, *given: Any) -> Any:
        if self.calls < AFTER or sys.gettrace():  # a debugger, which stops in the blocks themselves
            self.calls += 1
            return self.step(*given)
        found = self.latest.leaves(given)
        if found is None:
            found = self._leaves(given)
            if found is None:
                return self.step(*given)
        known, kind = self.latest.steps, tuple([_kind(each) for each in found])
        written = known.get(kind, 0 if len(known) < MOST else self.step)
        if written is self.step:
            return self.step(*given)
        if isinstance(written, int):
            if written < AFTER:
                known[kind] = written + 1
                return self.step(*given)
            known[kind], made = self._written(given)
            return made
        try:
            return written(given, found)
        except MemoryError:  # perhaps in the midst of an update, which is not to be made twice
            raise
        except Exception:  # before the update: running the step itself says what is wrong
            return self.step(*given)

    def _leaves(self, given: tuple[Any, ...]) -> list[Any] | None:
        """The leaves of arguments that are not built as those before; None where not all are arrays or numbers."""
        for known in self.structures:
            found = known.leaves(given)
            if found is not None:
                self.latest = known
                return found
        made = self._structure(given)
        found = made.leaves(given)
        if found is not None:
            self.structures.append(made)
            self.latest = made
        return found

    def _structure(self, given: tuple[Any, ...]) -> Structure:
        paths: list[str] = []
        checks = [f"len(given) == {len(given)}"]
        for i, each in enumerate(given):
            if i in self.static:
                checks.append(f"given[{i}] == {each!r}")
            else:
                _look(each, f"given[{i}]", paths, checks)
        return Structure(f"[{', '.join(paths)}]", " and ".join(checks))

    def _written(self, given: tuple[Any, ...]) -> tuple[Callable, Any]:
        """The step written down, or as it is where it cannot be; and what it makes."""
        # What it may write to is copied first: where it cannot be written down it starts over.
        arrays = [A for i in self.given_away for _, A in leaves(given[i]) if _is_array(A) and A.flags.writeable]
        if sum(A.nbytes for A in arrays) > MOST_BYTES:
            return self.step, self.step(*given)
        before = [A.copy() for A in arrays]
        with _ONE_AT_A_TIME:
            kernels, tape = self.ops.kernels, Tape()
            self.ops.kernels = _Noting(tape, kernels)
            try:
                own = [each if i in self.static else tape.argument(i, each) for i, each in enumerate(given)]
                made = self.step(*own)
                return tape.written(made), _real(made)
            except Exception:  # of whatever kind: where something is wrong, running the step says what
                for A, was in zip(arrays, before, strict=True):
                    A[...] = was
            finally:
                self.ops.kernels = kernels
                tape.trees.clear()  # which hold values, which hold the tape: nobody would free their arrays at once
        return self.step, self.step(*given)


class Structure:
    """How arguments are built of leaves, and the steps for each kind of these.

    Arguments:
        paths, check: expressions of ``given``: the list of its leaves, and whether it is built so.

    Attributes:
        leaves: makes the list of the leaves of arguments; None where they are built otherwise.
        steps: how often a kind has come until it is written down; the step itself where it cannot be.
    """

    def __init__(self, paths: str, check: str) -> None:
        self._leaves = eval(f"lambda given: {paths} if {check} else None")
        self.steps: dict[tuple[Any, ...], Callable | int] = {}

    def leaves(self, given: tuple[Any, ...]) -> list[Any] | None:
        try:
            return self._leaves(given)
        except (IndexError, KeyError, TypeError):
            return None


class Value:
    """A number or an array on its way through a step that is being written down."""

    __slots__ = ("name", "real", "tape")
    __hash__ = object.__hash__

    def __init__(self, tape: Tape, name: str, real: Any) -> None:
        self.tape, self.name, self.real = tape, name, real

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("shape", "dtype", "ndim", "size", "flags"):
            return getattr(self.real, name)
        if not callable(getattr(self.real, name)):
            return self.tape.call(getattr, self, name)
        return lambda *given, **options: self.tape.call(_method(name), self, *given, **options)

    def __len__(self) -> int:
        return len(self.real)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tape.call(operator.setitem, self, index, value)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        if out:
            if not all(isinstance(each, Value) for each in out):
                raise TypeError("what is written to is no part of the step")
            options["out"] = out
        return self.tape.call(ufunc if method == "__call__" else getattr(ufunc, method), *inputs, **options)

    def __array_function__(self, function: Any, types: Any, given: Any, options: Any) -> Any:
        if function.__name__ in ("copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"):
            raise TypeError("what is written to may be no part of the step")
        return self.tape.call(function, *given, **options)

    def _unknown(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a value of a step that is being written down decides nothing")

    __array__ = __bool__ = __float__ = __int__ = __index__ = __complex__ = __iter__ = __contains__ = _unknown


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_OTHERS = ("neg", "pos", "abs", "invert", "lt", "le", "eq", "ne", "gt", "ge", "getitem")


def _operators() -> Iterator[tuple[str, Callable]]:
    def straight(function: Callable) -> Callable:
        return lambda self, *others: self.tape.call(function, self, *others)

    def turned(function: Callable) -> Callable:
        return lambda self, other: self.tape.call(function, other, self)

    for name in _BINARY:
        yield f"__{name}__", straight(getattr(operator, f"__{name}__"))
        yield f"__r{name}__", turned(getattr(operator, f"__{name}__"))
        yield f"__i{name}__", straight(getattr(operator, f"__i{name}__"))
    for name in _OTHERS:
        yield f"__{name}__", straight(getattr(operator, f"__{name}__"))


for _name, _function in _operators():
    setattr(Value, _name, _function)


class Tape:
    """What is noted of a step: lines of a function, which values each reads and makes, and the constants in them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, set[str], list[str]]] = []
        self.names: dict[str, Any] = {}
        self.given: list[str] = []  # leaves
        # The arguments as the step sees them, by identity: each with its text before the step ran, and its place.
        self.trees: dict[int, tuple[Any, str, str]] = {}
        self.count = 0

    def argument(self, index: int, tree: Any) -> Any:
        """The tree of an argument with a value for every leaf, in the order of `_look`."""
        traced = self._traced(tree)
        self.trees[id(traced)] = (traced, self._text(traced, set()), f"given[{index}]")
        return traced

    def call(self, function: Callable, *given: Any, **options: Any) -> Any:
        """``function(*given, **options)``, noted."""
        if _shaped_by_numbers(function, given, options):
            raise TypeError("the shape of what is made is another for other numbers")
        real = function(*_real(given), **_real(options))
        used: set[str] = set()
        written = [self._text(each, used) for each in given]
        written += [f"{name}={self._text(each, used)}" for name, each in options.items()]
        text = f"{self._named(function)}({', '.join(written)})"
        if isinstance(real, (tuple, list)):
            made: Any = type(real)([None if each is None else self._value(each) for each in real])
            names = [each.name if each is not None else "_" for each in made]
            comma = "," * (len(names) == 1)
            self.lines.append((f"{', '.join(names)}{comma} = {text}", used, [each for each in names if each != "_"]))
            return made
        same = (
            next((each for each in _values((given, options)) if each.real is real), None) if _is_array(real) else None
        )
        if real is None or same is not None:
            self.lines.append((text, used, []))
            return same
        value = self._value(real)
        self.lines.append((f"{value.name} = {text}", used, [value.name]))
        return value

    def written(self, made: Any) -> Callable:
        """The step as a function of its arguments and their leaves, which makes what ``made`` stands for."""
        result: set[str] = set()
        returned = self._text(made, result)
        last: dict[str, int] = {}
        for index, (_, used, makes) in enumerate(self.lines):
            last |= dict.fromkeys((*used, *makes), index)
        body = [f"[{', '.join(self.given)}] = leaves"]
        for index, (text, used, makes) in enumerate(self.lines):
            body.append(text)
            # As in the step itself: memory is free for the next kernel as soon as nobody reads it any more.
            ended = [each for each in dict.fromkeys((*used, *makes)) if last[each] == index and each not in result]
            if ended:
                body.append(f"del {', '.join(sorted(ended))}")
        source = "\n    ".join(["def step(given, leaves):", *body, f"return {returned}"])
        exec(compile(source, "<a step written down>", "exec"), self.names)
        step = self.names.pop("step")
        step.source = source
        return step

    def _traced(self, tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: self._traced(each) for name, each in tree.items()}
        if isinstance(tree, tuple):
            return tuple(map(self._traced, tree))
        if _is_leaf(tree):
            value = self._value(tree)
            self.given.append(value.name)
            return value
        return tree

    def _value(self, real: Any) -> Value:
        self.count += 1
        return Value(self, f"_{self.count}", real)

    def _named(self, thing: Any) -> str:
        """The name by which the lines know a function or a constant."""
        name = getattr(thing, "__name__", "constant")
        name = name if name.isidentifier() and not iskeyword(name) else "constant"
        for number in itertools.count():
            known = f"{name}_{number}" if number or name in ("given", "leaves", "step", "_") else name
            if self.names.setdefault(known, thing) is thing:
                return known
        raise AssertionError

    def _text(self, thing: Any, used: set[str]) -> str:
        """What stands in a line for a value, a constant or a container of them; the values' names go to ``used``."""
        if isinstance(thing, Value):
            if thing.tape is not self:
                raise TypeError("a value of another step")
            used.add(thing.name)
            return thing.name
        if isinstance(thing, dict):
            inside: set[str] = set()
            text = f"{{{', '.join(f'{name!r}: {self._text(each, inside)}' for name, each in thing.items())}}}"
            _, before, given = self.trees.get(id(thing), (None, "", ""))
            if text == before:  # an argument, into which the step has put nothing else
                return given
            used |= inside
            return text
        if type(thing) in (tuple, list):
            text = ", ".join(self._text(each, used) for each in thing)
            return f"[{text}]" if isinstance(thing, list) else f"({text}{',' * (len(thing) == 1)})"
        if _has_values((thing,)):
            raise TypeError(f"a {type(thing).__name__} of values")
        if thing is None or thing is Ellipsis or type(thing) in (bool, int, str):
            return repr(thing)
        if type(thing) is float and math.isfinite(thing):
            return repr(thing)
        if _is_array(thing):  # made of nothing that was given; nobody is to change it between two steps
            thing = thing.copy()
            thing.flags.writeable = False
        return self._named(thing)


class _Noting:
    """The kernels, as functions that are noted where they are given values."""

    def __init__(self, tape: Tape, kernels: Any) -> None:
        self._tape, self._kernels = tape, kernels

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._kernels, name)
        if isinstance(function, type) or not callable(function):
            return function

        def noted(*given: Any, **options: Any) -> Any:
            if _has_values((given, options)):
                return self._tape.call(function, *given, **options)
            return function(*given, **options)

        return noted


def whole(function: Callable) -> Callable:
    """A function which is noted as one call, not by what it does."""

    def called(*given: Any) -> Any:
        value = next(_values(given), None)
        return function(*given) if value is None else value.tape.call(function, *given)

    return called


_SHAPED = ("argwhere", "bincount", "compress", "extract", "flatnonzero", "nonzero", "trim_zeros")


def _shaped_by_numbers(function: Callable, given: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether what a function of NumPy's makes has another shape where values have other numbers."""
    name = getattr(function, "__name__", "")
    if function is operator.getitem:  # a mask chooses as many as it has True
        return any(getattr(each.real, "dtype", None) == np.bool_ for each in _values(given[1:]))
    if name in ("delete", "insert", "repeat"):
        return _has_values((given[1:], options))
    return name in _SHAPED or name.startswith("unique") or (name == "where" and len(given) == 1)


def _method(name: str) -> Callable:
    def method(thing: Any, *given: Any, **options: Any) -> Any:
        return getattr(thing, name)(*given, **options)

    method.__name__ = name
    return _METHODS.setdefault(name, method)


_METHODS: dict[str, Callable] = {}


def _look(tree: Any, path: str, paths: list[str], checks: list[str]) -> None:
    """Where the leaves of a tree lie, in the order of `Tape.argument`, and what tells that it is built so."""
    if isinstance(tree, (dict, tuple)):
        kind = "dict" if isinstance(tree, dict) else "tuple"
        checks.append(f"isinstance({path}, {kind}) and len({path}) == {len(tree)}")
        for name, each in tree.items() if isinstance(tree, dict) else enumerate(tree):
            _look(each, f"{path}[{name!r}]", paths, checks)
    elif _is_leaf(tree):
        paths.append(path)
    elif tree is None or isinstance(tree, bool):
        checks.append(f"{path} is {tree}")
    else:
        checks.append("False")


def _kind(leaf: Any) -> Any:
    """What is the same in two leaves of one kind."""
    return (leaf.shape, leaf.dtype, leaf.flags.carray) if isinstance(leaf, np.ndarray) else type(leaf)


def _is_array(thing: Any) -> bool:
    return isinstance(thing, np.ndarray)


def _is_leaf(thing: Any) -> bool:
    return isinstance(thing, (np.ndarray, np.generic, int, float)) and not isinstance(thing, bool)


def _values(things: Any) -> Iterator[Any]:
    """The values among things and in the containers among them."""
    for each in things.values() if isinstance(things, dict) else things:
        if isinstance(each, Value):
            yield each
        elif isinstance(each, (tuple, list, dict)):
            yield from _values(each)
        elif isinstance(each, slice):
            yield from _values((each.start, each.stop, each.step))


def _has_values(things: Any) -> bool:
    return next(_values(things), None) is not None


def _real(things: Any) -> Any:
    """The same with what the values stand for."""
    if isinstance(things, Value):
        return things.real
    if isinstance(things, dict):
        return {name: _real(each) for name, each in things.items()}
    if type(things) in (tuple, list):
        return type(things)(map(_real, things))
    return things
