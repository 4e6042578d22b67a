"""Every example runs, on real data where it has data, and shows what it says it shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def single_neuron(module):
    with_b, with_w0 = module.main(updates=20)
    one, other = with_b.parameters["dense_1"], with_w0.parameters["dense_1"]
    np.testing.assert_allclose(other["W"], np.hstack([one["b"], one["W"]]), rtol=1e-12)
    X, Y = module.zeros_and_ones()
    assert ((with_b.forward(X)[0] > 0.5) == Y).mean() > 0.99
    return "J with w₀"


def two_neurons(module):
    for closed, computed in module.main().values():
        assert computed == pytest.approx(closed, rel=1e-13)
    return "δ₂ a₁"


def linear_build(module):
    assert module.main(epochs=8) > 0.93
    return "held-out digits"


def branches(module):
    measures = module.main(epochs=8)
    assert measures["gradient error"] < 1e-6
    assert measures["correct"] > 0.93
    assert measures["ink error"] < 0.06
    return "mean error of the ink"


CHECKS = {check.__name__: check for check in (single_neuron, two_neurons, linear_build, branches)}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_the_example_runs_and_shows_what_it_says(name, capsys):
    shown = CHECKS[name](example(name))
    assert shown in capsys.readouterr().out
