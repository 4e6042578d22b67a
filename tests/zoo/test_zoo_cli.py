"""The zoo through the command line: its recipes reach the run, and what does not fit is told."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.cli import main
from pellucid.network.saving import load
from pellucid.runs import Run


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Writes 80 images of 28×28 bytes of ten classes into an empty folder: a bar that is lower for each class."""
    monkeypatch.chdir(tmp_path)

    def write(channels_last: bool = False, channels: int = 1):
        rng = np.random.default_rng(0)
        y = np.arange(80) % 10
        x = rng.integers(0, 40, (80, channels, 28, 28))
        for image, label in zip(x, y, strict=True):
            image[:, 3 + 2 * label : 6 + 2 * label, 4:24] = 255
        x = x.astype(np.uint8)
        np.savez(tmp_path / "bars.npz", x=x.transpose(0, 2, 3, 1) if channels_last else x, y=y)
        return "bars.npz"

    return write


def test_the_recipe_of_1998_reaches_the_run(images, tmp_path):
    code = main(["train", images(), "--net", "lenet5-1998", "--epochs", "1", "--out", "run", "--quiet", "--no-plot"])
    assert code == 0
    config = Run.open("run").config
    assert config["data"]["standardize"] is False
    assert config["network"]["loss"]["type"] == "maximum_a_posteriori"
    assert [each["type"] for each in config["training"]["augment"]] == ["shift"]
    assert config["training"]["optimizer"]["learning_rate"]["ends"] == [2.0, 5.0, 8.0, 12.0]
    with np.load("bars.npz") as archive:
        x = archive["x"]
    net = load("run/model.pellucid")
    first = [step.layer for step in net.steps[:2]]
    A = np.moveaxis(x / 255, 0, -1)
    for layer in first:
        A, _ = layer.forward(net.ops, {}, A)
    assert (A.min(), A.max()) == (pytest.approx(-0.1), pytest.approx(1.175)), "bytes become paper and ink"


def test_weight_decay_of_the_recipe_reaches_the_network(images):
    main(["train", images(), "--net", "resnet", "--epochs", "1", "--out", "run", "--quiet", "--no-plot"])
    assert Run.open("run").config["network"]["regularizer"] == {"type": "l2", "rate": 0.0001}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--net", "lenet5"], ["layer 3 (C3)", "input (1, 8, 8) → C1 (6, 8, 8) → S2 (6, 4, 4)"]),
        (["digits", "--net", "lenet5-1998"], ["reads grey images of digits", "got:      (1, 8, 8)", "--image-size"]),
        (["bars.npz", "--net", "lenet5-1998", "--loss", "softmax_cross_entropy"], ["outputs are penalties"]),
        (["bars.npz", "--net", "alexnett"], ["unknown net 'alexnett'", "did you mean 'alexnet'"]),
    ],
)
def test_what_does_not_fit_is_told(images, capsys, arguments, message):
    images()
    assert main(["train", *arguments]) == 1
    said = capsys.readouterr().err
    for part in message:
        assert part in said


def test_a_network_of_the_zoo_is_shown_and_checked_for_its_own_images(capsys):
    assert main(["show", "lenet5-1998"]) == 0
    said = capsys.readouterr().out
    assert "inputs (1, 28, 28) and 10 classes" in said
    assert "60,000" in said
    assert main(["check", "lenet5-1998", "--batch", "1", "--entries", "1"]) == 0
