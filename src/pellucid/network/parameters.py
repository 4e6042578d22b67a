"""Parameters as named trees: counted, checked, copied, cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid.errors import ShapeError
from pellucid.trees import Tree, leaves, tree_map


def count(params: Tree) -> int:
    """How many numbers the tree holds."""
    return sum(int(np.prod(leaf.shape)) for _, leaf in leaves(params))


def copied(params: Tree) -> Tree:
    """A tree of copies."""
    return tree_map(lambda leaf: leaf.copy(), params)


def fitted(params: Tree, like: Tree, placed: Callable[[Any], Any], *, where: str = "parameters") -> Tree:
    """``params`` with the names and shapes of ``like``, one copy after the other ``placed`` where it belongs.

    Raises:
        ShapeError: naming the first parameter that is missing, unknown or of another shape.
    """
    if not isinstance(params, dict):
        raise ShapeError("not a tree", where=where, expected="a dictionary by layer", got=type(params).__name__)
    given, wanted = dict(leaves(params)), dict(leaves(like))
    for name in [*wanted, *given]:
        if name not in given or name not in wanted:
            problem = "is missing" if name in wanted else "is not a parameter of this network"
            strange = ", ".join(each for each in given if each not in wanted)
            raise ShapeError(
                f"{name} {problem}",
                where=where,
                expected=", ".join(wanted) or "none",
                got=f"unknown: {strange}" if strange else None,
            )
        if np.shape(given[name]) != wanted[name].shape:
            raise ShapeError(
                f"{name} has another shape", where=where, expected=wanted[name].shape, got=np.shape(given[name])
            )
    return tree_map(lambda new: placed(np.array(new)), _ordered(params, like))


def _ordered(tree: Tree, like: Tree) -> Tree:
    return {
        name: _ordered(tree[name], value) if isinstance(value, dict) else tree[name] for name, value in like.items()
    }


def added(one: Tree, other: Tree) -> Tree:
    """The sum of two trees of one shape: the gradients of a layer that is used at two places."""
    return tree_map(lambda a, b: a + b, one, other)
