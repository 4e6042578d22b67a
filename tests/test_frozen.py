"""Numbers recorded once: the loss, the outputs and every gradient of tiny networks, per float type.

They hold what no formula beside them can: that tomorrow's arithmetic is today's. `record` wrote the files under
``tests/frozen``; run this file as a script to write them anew, and say in the change why the numbers moved.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines
from pellucid.trees import leaves, unflatten

FOLDER = Path(__file__).parent / "frozen"
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def wave(*shape: int) -> np.ndarray:
    """Numbers of no pattern that no generator's version can change."""
    return np.sin(1.7 * np.arange(1, 1 + int(np.prod(shape))) ** 1.3).reshape(shape)


def chain(**options):
    net = pl.Sequential(
        pl.Dense(6, "relu"),
        pl.BatchNorm(),
        pl.Dense(4, "prelu"),
        pl.LayerNorm(),
        pl.Dense(3),
        input_shape=5,
        loss=pl.SoftmaxCrossEntropy(class_weight=[1, 2, 0.5], label_smoothing=0.1),
        regularizer="l2(0.01)",
        **options,
    )
    return net, wave(5, 7), np.array([0, 1, 2, 2, 1, 0, 1])


def activations(**options):
    names = ("sigmoid", "tanh", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "hard_sigmoid", "maxout(2)")
    net = pl.Sequential(*(pl.Dense(4, g) for g in names), input_shape=3, loss="huber", **options)
    return net, 2 * wave(3, 5), wave(2, 5)


def graph(**options):
    a, b = pl.Input(3), pl.Input((1, 2, 2))
    shared = pl.Dense(4, "tanh")
    h = pl.Concat()(shared(a), pl.Dense(4, "softplus")(pl.Flatten()(b)))
    p, q = pl.Split(2)(h)
    joined = pl.Add()(shared(a), pl.Multiply()(p, q))
    net = pl.Graph(
        inputs={"a": a, "b": b},
        outputs={"kind": pl.Dense(1)(joined), "size": pl.Dense(2)(h)},
        loss={"kind": "sigmoid_cross_entropy", "size": "squared_error"},
        loss_weights={"size": 0.3},
        **options,
    )
    return net, {"a": wave(3, 4), "b": wave(1, 2, 2, 4)}, {"kind": np.array([0, 1, 1, 0]), "size": wave(2, 4)}


NETWORKS = {make.__name__: make for make in (chain, activations, graph)}


def measured(name: str, dtype: str, engine: str) -> dict[str, list]:
    """What one iteration computes, as nested lists by name."""
    net, X, Y = NETWORKS[name](dtype=dtype, engine=engine)
    # Parameters of no generator either, so that only the arithmetic is held.
    weights = {path: 0.7 * wave(*W.shape) + 0.1 * (-1) ** i for i, (path, W) in enumerate(leaves(net.parameters))}
    net.parameters = unflatten(weights)
    done = net.checked_iteration(X, Y, input_gradient=True)
    values = {"cost": done.cost, "losses": done.losses}
    for kind in ("outputs", "d_inputs", "grads", "state"):
        values |= {f"{kind}/{path}": leaf for path, leaf in leaves(getattr(done, kind))}
    return {path: np.asarray(net.ops.to_numpy(value), dtype="float64").tolist() for path, value in values.items()}


def record() -> None:
    """Write the files from the numpy engine."""
    FOLDER.mkdir(exist_ok=True)
    for name in NETWORKS:
        for dtype in TOLERANCE:
            numbers = measured(name, dtype, "numpy")
            lines = ",\n".join(f" {json.dumps(path)}: {json.dumps(value)}" for path, value in numbers.items())
            (FOLDER / f"{name}_{dtype}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


@pytest.mark.parametrize("engine", engines.available())
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", NETWORKS)
def test_numbers_are_what_they_were(name, dtype, engine):
    frozen = json.loads((FOLDER / f"{name}_{dtype}.json").read_text(encoding="utf-8"))
    now = measured(name, dtype, engine)
    assert list(now) == list(frozen)
    for path, value in now.items():
        scale = max(np.abs(frozen[path]).max(), 1e-3)
        np.testing.assert_allclose(value, frozen[path], rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=path)


def test_the_two_float_types_tell_the_same_story():
    for name in NETWORKS:
        narrow, wide = (json.loads((FOLDER / f"{name}_{dtype}.json").read_text()) for dtype in ("float32", "float64"))
        for path, value in narrow.items():
            np.testing.assert_allclose(value, wide[path], rtol=1e-3, atol=1e-5, err_msg=f"{name} {path}")


if __name__ == "__main__":
    record()
