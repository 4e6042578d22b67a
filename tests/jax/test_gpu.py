"""What only a GPU can show; each says when it was skipped."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines

jax = pytest.importorskip("jax", reason="JAX is not installed")

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU is at hand")


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_training_on_a_gpu_learns_what_the_reference_learns(precision):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(256, 1, 12, 12)).astype("float32"), rng.integers(4, size=256)
    x[np.arange(256), 0, y * 3, y * 3] += 4.0

    def trained(engine):
        layers = [pl.Conv2D(8, 3, "relu"), pl.MaxPool2D(2), pl.Flatten(), pl.Dense(16, "tanh"), pl.Dense(4)]
        net = pl.Sequential(
            *layers, input_shape=(1, 12, 12), loss="softmax_cross_entropy", engine=engine, precision=precision
        )
        return net.fit(x, y, epochs=3, batch_size=32, progress=False)["loss"]

    np.testing.assert_allclose(trained("jax"), trained("numpy"), rtol=1e-3 if precision is None else 3e-2)


def test_a_gpu_says_what_its_memory_holds():
    ops = engines.get("jax")
    assert ops.peak_bytes() > 0
    assert ops.resident_bytes(convolutions=True) > 1 << 28
