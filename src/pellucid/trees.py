"""Named trees: nested dictionaries whose leaves are arrays: parameters, gradients, state, optimizer slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Tree = dict[str, Any]
"""A dictionary from names to arrays or further trees."""


def tree_map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """``function`` applied to every leaf of ``tree`` and the leaves at the same place in ``others``.

    Raises:
        KeyError: another tree lacks a name that ``tree`` has.
    """
    return {
        name: tree_map(function, value, *(other[name] for other in others))
        if isinstance(value, dict)
        else function(value, *(other[name] for other in others))
        for name, value in tree.items()
    }


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path, such as ``("dense_1/W", array)``, in the tree's order."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def at(tree: Tree, path: str) -> Any:
    """What stands at a path."""
    for name in path.split("/"):
        tree = tree[name]
    return tree


def put(tree: Tree, path: str, value: Any) -> None:
    """Set what stands at a path."""
    above, _, name = path.rpartition("/")
    (at(tree, above) if above else tree)[name] = value


def flatten(tree: Tree) -> dict[str, Any]:
    """The tree as one flat dictionary from path to leaf; `unflatten` is the inverse."""
    return dict(leaves(tree))


def unflatten(flat: dict[str, Any]) -> Tree:
    """The tree whose leaves stand at the given paths."""
    tree: Tree = {}
    for path, leaf in flat.items():
        *above, name = path.split("/")
        branch = tree
        for step in above:
            branch = branch.setdefault(step, {})
        branch[name] = leaf
    return tree
