from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.trees import flatten, leaves, tree_map, unflatten

NAMES = st.text("abW_1", min_size=1, max_size=3)
TREES = st.recursive(
    st.dictionaries(NAMES, st.integers(), min_size=1, max_size=3),
    lambda branch: st.dictionaries(NAMES, branch | st.integers(), min_size=1, max_size=3),
    max_leaves=8,
)


def test_tree_map_by_hand():
    tree = {"dense_1": {"W": 1, "b": 2}, "scale": 3}
    other = {"scale": 30, "dense_1": {"b": 20, "W": 10}, "unused": 0}
    assert tree_map(lambda a, b: a + b, tree, other) == {"dense_1": {"W": 11, "b": 22}, "scale": 33}
    assert tree == {"dense_1": {"W": 1, "b": 2}, "scale": 3}


def test_paths():
    tree = {"dense_1": {"W": 1, "b": 2}, "scale": 3}
    assert list(leaves(tree)) == [("dense_1/W", 1), ("dense_1/b", 2), ("scale", 3)]


def test_arrays_are_leaves_and_are_not_copied():
    W = np.zeros(2)
    assert unflatten(flatten({"a": {"W": W}}))["a"]["W"] is W
    assert tree_map(lambda leaf: leaf, {"W": W})["W"] is W


def test_a_missing_name_is_an_error():
    with pytest.raises(KeyError, match="b"):
        tree_map(lambda a, b: a, {"a": 1, "b": 2}, {"a": 1})


@given(TREES)
def test_flatten_and_unflatten_are_inverse(tree):
    assert unflatten(flatten(tree)) == tree
    assert list(flatten(tree)) == list(flatten(unflatten(flatten(tree))))


@given(TREES)
def test_tree_map_maps_each_leaf_once(tree):
    doubled = tree_map(lambda leaf: 2 * leaf, tree)
    assert flatten(doubled) == {path: 2 * leaf for path, leaf in leaves(tree)}
    assert tree_map(lambda a, b: b - a, tree, doubled) == tree
