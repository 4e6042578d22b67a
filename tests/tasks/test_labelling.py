"""A label at every step: clips that move, arrays of one's own, and what a network without memory cannot tell."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.network import load
from pellucid.tasks.labelling import Labelling
from pellucid.zoo import find

SPLIT = {"validation": 0.2, "test": 0.2, "seed": 0}


@pytest.fixture
def parities(tmp_path):
    """Steps of 0 and 1 in the first of two numbers; the label says whether the ones so far are odd in number."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (160, 7))
    x = np.stack([5.0 * bits + 100, rng.normal(size=bits.shape)], axis=-1)
    np.savez(tmp_path / "parity.npz", x=x, y=bits.cumsum(axis=1) % 2)
    return tmp_path / "parity.npz"


def task(source, split=SPLIT, **data) -> Labelling:
    return Labelling({"data": {"source": str(source), **data}, "split": split, "task": {"kind": "labelling"}})


def test_what_a_step_alone_does_not_say_is_learned_with_memory_only(parities):
    accuracy = {}
    for layers in (1, 0):
        made = task(parities)
        wanted = {"layers": layers, "units": 24, "epochs": 60, "optimizer": "adam(2e-2)", "dropout": 0.0, "patience": 0}
        net, training = made.settled("frames", wanted | ({} if layers else {"epochs": 5}))
        made.fit(net, training, progress=False)
        found = made.measure(net, made.rows("test"), ["accuracy"])
        accuracy[layers] = found.values["accuracy"]
        assert np.mean(found.document["accuracy_by_step"]) == pytest.approx(accuracy[layers])
        assert found.document["confusion"].sum() == 32 * 7
    assert accuracy[1] > 0.95
    assert accuracy[0] < 0.75


def test_the_loss_is_of_one_step(parities):
    made = task(parities)
    net, _ = made.settled("gru", {"hidden": [4]})
    x, y = made.rows("test").take(np.arange(32))
    p = net.predict(x)
    own = -np.log(np.take_along_axis(p, y[..., None], axis=-1)).mean()
    assert made.measure(net, made.rows("test"), []).values["loss"] == pytest.approx(own, rel=1e-5)


def test_steps_are_standardised_by_the_training_part_and_again_for_new_data(parities, tmp_path):
    made = task(parities)
    x, _ = made.rows("train").take(np.arange(96))
    assert x.reshape(-1, 2).mean(0) == pytest.approx([0, 0], abs=1e-5)
    assert x.reshape(-1, 2).std(0) == pytest.approx([1, 1], abs=1e-5)
    net, _ = made.settled("lstm", {"hidden": [4]})
    net.preprocessing = made.preprocessing()
    net.save(tmp_path / "net.pellucid")
    net = load(tmp_path / "net.pellucid")
    raw = np.load(parities)
    rows = made.rows("test").rows
    np.savez(tmp_path / "test.npz", x=raw["x"][rows], y=raw["y"][rows])
    found, count = Labelling.evaluate(net, str(tmp_path / "test.npz"), None)
    assert count == len(rows)
    assert found.values == pytest.approx(made.measure(net, made.rows("test"), ["accuracy"]).values, rel=1e-5)


def test_every_step_of_new_sequences_gets_a_label(parities, tmp_path):
    made = task(parities)
    net, _ = made.settled("lstm", {"hidden": [4]})
    net.preprocessing = made.preprocessing()
    longer = np.random.default_rng(1).normal(size=(3, 11, 2)) + 100  # than in training
    np.save(tmp_path / "new.npy", longer)
    said = Labelling.predict(net, str(tmp_path / "new.npy"), probabilities=True)
    assert said.columns["example"] == sorted([0, 1, 2] * 11)
    assert said.columns["step"] == [*range(11)] * 3
    p = np.array([said.columns["p(0)"], said.columns["p(1)"]])
    assert p.sum(0) == pytest.approx(np.ones(33), abs=1e-5)
    assert said.columns["label"] == [str(label) for label in p.argmax(0)]
    assert np.array(said.document["predictions"]).shape == (3, 11)


def test_moving_digits_come_in_parts_of_the_asked_sizes():
    described = {"source": "moving-digits", "target": "direction"}
    made = Labelling(
        {
            "data": described,
            "split": {"validation": 20, "test": 0.004, "seed": 0},
            "task": {"kind": "labelling", "length": 5},
        }
    )
    assert made.sizes == {"train": 2470, "validation": 20, "test": 10}
    assert made.classes == ["right", "left", "down", "up", "still"]
    x, y = made.arrays("test")
    assert x.shape == (10, 5, 1, 24, 24)
    assert (y[:, 0] == 4).all()
    net, _ = made.settled("frames", {"hidden": [4], "width": 2})
    assert net.predict(x).shape == (10, 5, 5)
    assert net.predict(x[:, :3]) == pytest.approx(net.predict(x)[:, :3], abs=1e-5)  # nothing is known of later frames


def test_a_picture_shows_what_is_said_of_each_frame(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from PIL import Image

    made = Labelling(
        {
            "data": {"source": "moving-digits"},
            "split": {"validation": 5, "test": 4, "seed": 0},
            "task": {"kind": "labelling", "length": 3},
        }
    )
    net, _ = made.settled("frames", {"hidden": [4], "width": 2})
    found = made.measure(net, made.rows("test"), [])
    found.pictures["steps.png"](tmp_path / "steps.png")
    pixels = np.asarray(Image.open(tmp_path / "steps.png").convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - (0xD5, 0x5E, 0)).sum(1) < 20).any()  # what it gets wrong
    assert (pixels == 0).all(1).mean() > 0.1  # the dark field


def test_what_has_no_label_at_every_step_is_refused(parities, tmp_path):
    raw = dict(np.load(parities))
    with pytest.raises(DataError, match="no sequences with a label at every step"):
        task(tmp_path / "nowhere.npz")
    for broken in ({"x": raw["x"]}, {"x": raw["x"], "y": raw["y"][:, 0]}, {"x": raw["x"], "y": raw["y"] - 1}):
        np.savez(tmp_path / "broken.npz", **broken)
        with pytest.raises(DataError, match="there is no label at every step"):
            task(tmp_path / "broken.npz")
    np.savez(tmp_path / "flat.npz", x=np.zeros((4, 3)), y=np.zeros(4, int))
    x = np.zeros((20, 5, 2), np.float32)
    np.savez(tmp_path / "one.npz", x=x, y=np.zeros((20, 5), int))
    with pytest.raises(DataError, match="all of one class"):
        task(tmp_path / "one.npz")
    x[3, 4, 0] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(100).reshape(20, 5) % 2)
    with pytest.raises(DataError, match=r"nan\.npz, x\[3, 4, 0\]: a value that is not finite(.|\n)*got: +nan"):
        task(tmp_path / "nan.npz")
    with pytest.raises(DataError, match="these are no sequences"):
        task(tmp_path / "flat.npz")
    with pytest.raises(ParameterError, match=r"unknown array 'a'"):
        task(parities, keys=["a", "y"])
    with pytest.raises(ParameterError, match="the sequences of a file are as they are"):
        task(parities, target="digit")
    made = task(parities)
    with pytest.raises(ParameterError, match="is for regression"):
        made.metrics(["mae"])
    with pytest.raises(ParameterError, match="a step is of one class of several"):
        made.loss("mean_squared_error")
    net, _ = made.settled("lstm", {"hidden": [4]})
    net.preprocessing = made.preprocessing()
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 3, 5)), y=np.zeros((4, 3), int))
    with pytest.raises(DataError, match="another shape than in training"):
        Labelling.evaluate(net, str(tmp_path / "wide.npz"), None)
    np.savez(tmp_path / "more.npz", x=np.zeros((4, 3, 2)), y=np.full((4, 3), 2))
    with pytest.raises(DataError, match="labels that the network does not know"):
        Labelling.evaluate(net, str(tmp_path / "more.npz"), None)
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 2)))
    with pytest.raises(DataError, match="no labels to measure against"):
        Labelling.evaluate(net, str(tmp_path / "x.npy"), None)
    with pytest.raises(ShapeError, match="reads videos"):
        find("frames").build((5,), 2)
