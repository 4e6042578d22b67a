"""Spaces: what they refuse, what they draw, and that all of it reaches the training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import DataError, ParameterError
from pellucid.tasks.examples import Examples as Experiment
from pellucid.tune.space import KNOWN, Space, defaults, known_for

IRIS = {
    "data": {"source": "iris", "standardize": True, "categories_as": "one-hot"},
    "split": {"validation": 0.2, "test": 0.2, "seed": 0},
}


@pytest.fixture(scope="module")
def iris() -> Experiment:
    return Experiment(IRIS)


@pytest.mark.parametrize(
    ("given_space", "message"),
    [
        ({"learning_rat": 0.1}, "unknown hyperparameter 'learning_rat'.*activation.*did you mean 'learning_rate'"),
        ({"width": 2}, "mlp has none"),
        ({"learning_rate": {"low": 0.1, "high": 0.01}}, "low is above high"),
        ({"learning_rate": {"low": 0.0, "high": 0.01}}, "out of range"),
        ({"regularizer": "l2", "regularization": {"low": 0.0, "high": 0.1, "log": True}}, "begins above 0"),
        ({"dropout": {"low": 0.0, "high": 1.0}}, r"\[0, 1\)"),
        ({"units": {"low": 4.5, "high": 9}}, "whole number"),
        ({"units": {"low": 4}}, "needs high"),
        ({"units": {"low": 4, "high": 8, "stp": 2}}, "unknown part of a range 'stp'"),
        ({"units": {"low": 4, "high": 8, "step": 5}}, "step does not fit"),
        ({"units": {"low": 4, "high": 8, "step": 2, "log": True}}, "log or step, not both"),
        ({"units": {"low": 4, "high": 8, "log": 1}}, "log is true or false"),
        ({"activation": {"low": 1, "high": 2}}, "has no range"),
        ({"activation": ["relu", "rleu"]}, "unknown activation 'rleu'.*did you mean 'relu'"),
        ({"activation": [3]}, "chosen by name"),
        ({"activation": []}, "nothing to choose"),
        ({"activation": ["relu", "relu"]}, "there twice"),
        ({"epochs": True}, "out of range"),
        ({"optimizer": "adam(0.1)", "learning_rate": 0.1}, "hyperparameter of its own"),
        ({"optimizer": "adam(learning_rate=0.1)", "learning_rate": 0.1}, "hyperparameter of its own"),
        ({"momentum": 0.5}, "momentum needs optimizer"),
        ({"momentum": 0.5, "optimizer": "adam"}, "none of the optimizers has a momentum.*momentum, nesterov"),
        ({"schedule": "cosine"}, "schedule needs learning_rate"),
        ({"regularization": 0.1}, "regularization needs regularizer"),
        ({"optimizer": "momentum(momentum=0.8)", "momentum": 0.5}, "momentum"),
        ({"regularizer": "l2(0.1)", "regularization": 0.1}, "L2"),
    ],
)
def test_what_cannot_be_searched_is_refused(given_space, message):
    with pytest.raises(ParameterError, match=f"(?s){message}"):
        Space(given_space)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Space.read("default")
    path = tmp_path / "space.toml"
    path.write_text("units = {")
    with pytest.raises(DataError, match="not a TOML file"):
        Space.read(path)
    with pytest.raises(ParameterError, match="cannot be used as a space"):
        Space.read(3)


def test_a_file_reads_as_the_dictionary_it_is(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        'learning_rate = {low = 1e-4, high = 1e-1, log = true}\nactivation = ["relu", "tanh"]\nepochs = 3\n'
    )
    space = Space.read(path)
    assert space.document() == {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "epochs": 3,
        "activation": ["relu", "tanh"],
    }
    assert space.searched == ["learning_rate", "activation"]
    assert Space.read(space.document()).document() == space.document() == Space.read(space).document()


def test_what_depends_on_another_is_drawn_only_with_it():
    space = Space.read("defaults")
    drawn = space.sample(60, seed=1)
    assert all(("momentum" in each) == (each["optimizer"] in ("momentum", "nesterov")) for each in drawn)
    assert all(("regularization" in each) == (each["regularizer"] != "none") for each in drawn)
    flat = Space({"layers": [0, 1], "units": {"low": 2, "high": 9}}).sample(20, seed=0)
    assert {("units" in each, each["layers"]) for each in flat} == {(False, 0), (True, 1)}


@given(st.integers(0, 10_000), st.floats(1e-6, 1.0), st.floats(1.0, 1e6))
def test_draws_stay_within_their_range_and_are_short(seed, low, ratio):
    space = Space({"learning_rate": {"low": low, "high": low * ratio, "log": True}, "units": {"low": 3, "high": 8}})
    for each in space.sample(2, seed):
        assert low <= each["learning_rate"] <= low * ratio
        if each["learning_rate"] not in (low, low * ratio):
            assert len(repr(each["learning_rate"]).partition("e")[0].replace(".", "").strip("0")) <= 4
        assert 3 <= each["units"] <= 8


def test_steps_are_kept():
    space = Space({"units": {"low": 4, "high": 11, "step": 3}, "dropout": {"low": 0.0, "high": 0.5, "step": 0.2}})
    drawn = space.sample(40, seed=0)
    assert {each["units"] for each in drawn} == {4, 7, 10}
    assert {each["dropout"] for each in drawn} == {0.0, 0.2, 0.4}


def test_the_defaults_have_everything_that_a_network_takes():
    assert set(defaults("mlp")) == set(KNOWN) - {"augment", "width"}
    assert set(defaults("cnn", side=8)) == set(KNOWN) - {"layers", "units"}
    assert not {"dropout", "activation", "width"} & set(known_for("lenet5-1998"))
    for net in ("mlp", "cnn", "lenet5", "vgg-small", "resnet"):
        assert Space.read("defaults", net, 1000).searched
    assert defaults("mlp", m=130)["batch_size"] == [16, 32, 64]  # an epoch has two updates or more,
    assert defaults("mlp", m=1025)["batch_size"] == 63  # and none of a single example
    assert defaults("mlp", side=64)["augment"] == ["none", "shift(2)", "shift(4)", "shift(2) + horizontal_flip"]
    assert defaults("lenet5", side=28)["augment"][:2] == ["none", "shift(1)"]  # which is its recipe's


def test_a_network_file_has_the_hyperparameters_of_training_alone(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text('layers = [{type = "dense", units = 4, activation = "relu"}, {type = "dense"}]')
    space = Space.read("defaults", str(path))
    assert "learning_rate" in space.dimensions
    assert not {"units", "layers", "activation", "dropout", "initializer"} & set(space.dimensions)
    with pytest.raises(ParameterError, match="unknown hyperparameter 'units'"):
        Space({"units": 3}, str(path))


# --- every option reaches the training ------------------------------------------------------------------------------


def hidden(net):
    return [layer for layer in net.config()["layers"] if layer["type"] == "Dense"][:-1]


@pytest.mark.parametrize(
    ("given_space", "read", "expected"),
    [
        ({"learning_rate": 0.03}, lambda net, t: t["optimizer"]["learning_rate"]["initial"], 0.03),
        ({"epochs": 7}, lambda net, t: t["epochs"], 7),
        ({"batch_size": 24}, lambda net, t: t["batch_size"], 24),
        ({"patience": 3}, lambda net, t: t["patience"], 3),
        ({"optimizer": "rmsprop"}, lambda net, t: t["optimizer"]["type"], "rmsprop"),
        ({"optimizer": "nesterov", "momentum": 0.7}, lambda net, t: t["optimizer"]["momentum"], 0.7),
        ({"optimizer": "adam(beta1=0.8)", "learning_rate": 0.02}, lambda net, t: t["optimizer"]["beta1"], 0.8),
        (
            {"optimizer": "momentum", "momentum": 0.6, "learning_rate": 0.02, "schedule": "step(every=3)"},
            lambda net, t: t["optimizer"]["learning_rate"],
            {"type": "step", "initial": 0.02, "every": 3, "factor": 0.1},
        ),
        (
            {"schedule": "one_cycle", "learning_rate": 0.2},
            lambda net, t: t["optimizer"]["learning_rate"]["max_rate"],
            0.2,
        ),
        ({"layers": 3, "units": 5}, lambda net, t: [each["units"] for each in hidden(net)], [5, 5, 5]),
        ({"layers": 1}, lambda net, t: [each["units"] for each in hidden(net)], [256]),
        ({"units": 6}, lambda net, t: [each["units"] for each in hidden(net)], [6, 6]),
        ({"layers": 0}, lambda net, t: hidden(net), []),
        ({"activation": "tanh"}, lambda net, t: {"tanh"} & {each["type"] for each in net.config()["layers"]}, {"tanh"}),
        ({"initializer": "orthogonal"}, lambda net, t: hidden(net)[0]["initializer"], "orthogonal"),
        (
            {"dropout": 0.45},
            lambda net, t: [each["rate"] for each in net.config()["layers"] if each["type"] == "Dropout"],
            [0.45] * 2,
        ),
        (
            {"regularizer": "l1", "regularization": 0.25},
            lambda net, t: (net.regularizer.registered_name, net.regularizer.rate),
            ("l1", 0.25),
        ),
        ({"regularizer": "none"}, lambda net, t: net.regularizer, None),
    ],
)
def test_every_hyperparameter_reaches_the_training(iris, given_space, read, expected):
    space = Space(given_space)
    net, training = iris.settled("mlp", space.wanted(space.sample(1, 0)[0]))
    assert read(net, training) == expected


def test_the_width_reaches_a_convolutional_network():
    digits = Experiment({**IRIS, "data": {**IRIS["data"], "source": "digits"}})
    space = Space({"width": 5, "initializer": "lecun_normal"}, "cnn")
    net, _ = digits.settled("cnn", space.wanted(space.sample(1, 0)[0]))
    first = net.config()["layers"][0]
    assert first["initializer"] == "lecun_normal"
    assert net.parameters["conv2d_1"]["W"].shape[0] == 5


def test_augmentations_reach_the_training_of_images():
    digits = Experiment({**IRIS, "data": {**IRIS["data"], "source": "digits"}})

    def said(net, choice):
        wanted = Space({"augment": [choice]}, net).wanted({"augment": choice})
        return [each["type"] for each in digits.settled("mlp", wanted)[1]["augment"]]

    assert said("mlp", "shift(1) + horizontal_flip") == ["shift", "horizontal_flip"]
    assert said("mlp", "none") == []
    assert Space({"augment": "none"}, "lenet5").wanted({"augment": "none"}) == {
        "augment": ["none"]
    }  # its recipe shifts
    with pytest.raises(ParameterError, match=r"none stands alone(?s:.*)none \+ shift\(1\)"):
        Space({"augment": ["none + shift(1)"]})
    with pytest.raises(ParameterError, match="unknown augmentation 'shfit'"):
        Space({"augment": ["none", "shfit(1)"]})


def test_no_regularizer_means_none_where_the_recipe_has_one():
    assert Space({"regularizer": "none"}, "vgg-a").wanted({"regularizer": "none"})["regularizer"] == "l2(0.0)"
    assert "regularizer" not in Space({"regularizer": "none"}).wanted({"regularizer": "none"})


def test_the_search_begins_where_the_recipe_is():
    space = Space.read("defaults", "mlp", 1000)
    assert space.start(1000) == {
        "optimizer": "adam", "schedule": "cosine", "learning_rate": 0.002, "epochs": 30, "batch_size": 64,
        "patience": 8, "layers": 2, "units": 256, "activation": "relu", "dropout": 0.3, "regularizer": "none",
    }  # fmt: skip
    far = {"optimizer": ["nesterov"], "momentum": 0.5, "learning_rate": {"low": 0.01, "high": 1.0}, "epochs": [7, 50]}
    assert Space(far | {"units": {"low": 10, "high": 101, "step": 30}}).start(100) == {
        "learning_rate": 0.01, "epochs": 50, "units": 100,
    }  # fmt: skip
    resnet = Space.read("defaults", "resnet", 1000).start(1000)
    assert (resnet["optimizer"], resnet["momentum"], resnet["regularization"]) == ("momentum", 0.9, 1e-4)


# --- grids and neighbours -------------------------------------------------------------------------------------------


def test_a_grid_has_every_setting_once():
    space = Space(
        {
            "optimizer": ["adam", "momentum"],
            "momentum": [0.5, 0.9],
            "units": {"low": 2, "high": 6, "step": 2},
            "layers": [0, 1],
            "epochs": 3,
        }
    )
    grid = space.grid()
    assert len(grid) == 3 * (1 + 3)  # adam, momentum 0.5, momentum 0.9; no layer, or one of 2, 4, 6
    assert len({str(each) for each in grid}) == len(grid)
    assert {"optimizer": "adam", "epochs": 3, "layers": 0} in grid


def test_a_grid_without_end_is_refused():
    with pytest.raises(ParameterError, match="a grid needs every value"):
        Space({"dropout": {"low": 0.0, "high": 0.5}}).grid()
    with pytest.raises(ParameterError, match=r"too large(?s:.*)10,000"):
        Space({"units": {"low": 1, "high": 200}, "epochs": {"low": 1, "high": 200}}).grid()


def test_neighbours_differ_in_one_thing_and_stay_inside():
    space = Space.read("defaults")
    settings = space.sample(1, seed=4)[0]
    near = list(space.neighbours(settings, space.searched))
    assert len(near) > 15
    for what, other in near:
        changed = {name for name in {**settings, **other} if settings.get(name) != other.get(name)}
        assert what.split()[0] in changed
        assert changed <= {what.split()[0], "regularization", "momentum"}
        for name, value in other.items():
            assert 0 <= space.dimensions[name].share(value) <= 1 + 1e-12
        space.wanted(other)
    assert settings not in [other for _, other in near]


def test_neighbours_of_a_number_among_choices_are_the_next_ones():
    sizes = Space({"batch_size": [64, 16, 32, 128]}).dimensions["batch_size"]
    assert [sizes.near(size) for size in (16, 32, 128)] == [[32], [16, 64], [64]]


def test_neighbours_of_an_end_are_on_one_side():
    dimension = Space({"learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}).dimensions["learning_rate"]
    (only,) = dimension.near(1e-1)
    assert only == pytest.approx(1e-1 / 100**0.125)
    assert dimension.share(1e-2) == pytest.approx(0.5)
    assert np.isclose(dimension.share(1e-1), 1)
