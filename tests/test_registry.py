from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from pellucid.errors import ParameterError
from pellucid.registry import Registry, config, own

shapes: Registry[Any] = Registry("shape")


class Square:
    """Nobody registered it."""


@shapes.register("circle", "disc")
@dataclass(frozen=True)
class Circle:
    radius: float
    name: str = "plain"


@shapes.register("frame_of")
@dataclass(frozen=True)
class FrameOf:
    inner: Any = "circle(1)"
    sizes: tuple = (1, 2)

    def __post_init__(self):
        object.__setattr__(self, "inner", shapes.get(self.inner))
        object.__setattr__(self, "sizes", tuple(self.sizes))


@shapes.register("plain")
@dataclass(frozen=True)
class Plain:
    size: int = 1


class Oval(Circle):
    pass


@pytest.mark.parametrize(
    "value",
    ["circle(2)", "disc(radius=2)", " Circle( 2 ) ", "CIRCLE(2.0)", {"type": "disc", "radius": 2}, Circle(2)],
)
def test_ways_to_say_the_same(value):
    assert shapes.get(value) == Circle(2)


@pytest.mark.parametrize("name", ["frame_of", "FrameOf", "frame-of", "frame of", FrameOf, "frame-of()", "frame of()"])
def test_case_and_joints_do_not_matter(name):
    assert shapes.get(name) == FrameOf(Circle(1), (1, 2))


def test_an_instance_is_given_back_as_it_is():
    circle = Circle(1)
    assert shapes.get(circle) is circle


def test_nested_calls_and_literals():
    frame = shapes.get("frame_of(inner=frame_of(disc(3, name='a(b)'), sizes=[4]), sizes=(5, -6))")
    assert frame == FrameOf(FrameOf(Circle(3, "a(b)"), (4,)), (5, -6))
    assert shapes.get("circle(inf)") == Circle(float("inf"))
    assert shapes.get("circle(1, name=word)") == Circle(1, "word")


def test_names_are_known_in_order():
    assert list(shapes) == ["circle", "frame_of", "plain"]
    assert shapes.find("disc") is shapes.lookup("Disc") is Circle
    assert shapes.lookup("square") is None


def test_config_leaves_defaults_out():
    assert config(Circle(2)) == {"type": "circle", "radius": 2}
    assert config(Circle(2, "x")) == {"type": "circle", "radius": 2, "name": "x"}
    assert config(FrameOf()) == {"type": "frame_of", "inner": {"type": "circle", "radius": 1}}
    assert config(Plain()) == "plain"
    assert config([Circle(2), {"a": (1, np.float32(0.5))}, np.arange(2)]) == [
        config(Circle(2)),
        {"a": [1, 0.5]},
        [0, 1],
    ]


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5), st.lists(st.integers(), max_size=3))
def test_round_trip_through_json(radius, name, sizes):
    for thing in (Circle(radius, name), FrameOf(Circle(radius), sizes), FrameOf(FrameOf(Circle(radius, name)))):
        assert shapes.get(json.loads(json.dumps(config(thing)))) == thing


@given(st.text(max_size=12))
def test_any_text_is_either_understood_or_refused(text):
    for value in (text, f"circle({text}", f"circle({text})"):
        try:
            assert isinstance(shapes.get(value), (Circle, FrameOf, Plain))
        except ParameterError:
            continue


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "circel",
            "^here: unknown shape 'circel'\n  expected: one of circle, frame_of, plain\n(.|\n)*did you mean 'circle'",
        ),
        ("circle", "^here: shape Circle: missing a required argument: 'radius'\n  expected: Circle\\(radius"),
        ("circle(1, size=2)", "unknown argument 'size'"),
        ("circle(1, 2, 3)", "too many positional arguments"),
        ("circle(radius=1, radius=2)", "cannot read this shape"),
        ("circle(**{'radius': 1})", "cannot read this shape"),
        ("circle(1", "cannot read this shape\n  expected: name or name"),
        ("circle(1) + 1", "cannot read this shape"),
        ("circle(1)(2)", "cannot read this shape"),
        ("circle(__import__('os').name)", "cannot read this shape"),
        ({"radius": 1}, "this shape has no 'type' that is a name"),
        ({"type": 3}, "this shape has no 'type' that is a name"),
        ({"type": "circle", "size": 1}, "unknown argument 'size'"),
        (3, "^here: cannot be used as shape"),
        (None, "cannot be used as shape"),
        (int, "cannot be used as shape"),
        (Square, "cannot be used as shape(.|\\n)*hint: .*register Square under a name"),
        (Square(), "cannot be used as shape(.|\\n)*hint: .*register Square under a name"),
    ],
)
def test_messages(value, message):
    with pytest.raises(ParameterError, match=message):
        shapes.get(value, where="here")


def test_a_class_that_only_inherits_a_name_is_not_written_as_its_parent():
    with pytest.raises(ParameterError, match=r"Oval has no name of its own\n  hint: .*'circle'"):
        config(Oval(1))


def test_what_is_the_librarys_own():
    class Mine(pl.Dense):
        pass

    def doubled(A):
        return 2 * A

    assert own(
        (pl.Dense(3, "gelu"), [pl.Bidirectional(pl.LSTM(3))], {"loss": pl.SquaredError()}, np.ones(3), None, 2.5)
    )
    assert own((pl.Sequential, pl.Adam("cosine(0.1)")))
    for users in (
        Mine(3),
        Mine,
        doubled,
        [pl.Dense(3), Mine(2)],
        {"a": {"b": doubled}},
        pl.TimeDistributed(Mine(3)),
        np.tanh,
    ):
        assert not own(users)
