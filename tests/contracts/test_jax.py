"""The JAX engine keeps the contracts: each row of the tables as one compiled function.

Its numbers are the reference engine's, and its backward blocks give what `jax.vjp` of its forward blocks gives.
"""

from __future__ import annotations

import numpy as np
import pytest

from contracts import test_layers, test_losses, test_masks
from contracts.test_layers import run
from pellucid import engines
from pellucid.trees import flatten

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy

JAX, REFERENCE = engines.get("jax"), engines.get("numpy")
M = 5


def both(layer, mode, params, inputs, dA, *, levels):
    """What `run` makes, and the gradients that JAX finds of its forward half."""

    def forward(params, inputs):
        return run(JAX, layer, mode, params, inputs, dA)[0]

    made = run(JAX, layer, mode, params, inputs, dA)
    if levels:
        d_params = jax.vjp(lambda params: forward(params, inputs), params)[1](dA)[0]
        return made, (flatten(d_params), None)
    d_params, d_inputs = jax.vjp(forward, params, inputs)[1](dA)
    return made, (flatten(d_params), d_inputs)


def random(layer) -> bool:
    """Whether it draws numbers in training, which on every engine are others."""
    text = repr(layer)
    return any(name in text for name in ("Dropout", "StochasticPool"))


def check(bench, row):
    given = {name: tuple(map(np.asarray, getattr(bench, name))) for name in ("inputs", "dA")}
    mode = bench.mode()
    key = None if mode.key is None else JAX.random_key(3, 1)

    @jax.jit
    def compiled(params, state, inputs, dA):
        return both(row.layer, mode._replace(key=key, state=state), params, inputs, dA, levels=row.levels)

    made, (d_params, d_inputs) = compiled(bench.params, bench.state, given["inputs"], given["dA"])
    assert made[2].keys() == d_params.keys()
    for name, dW in made[2].items():
        np.testing.assert_allclose(dW * bench.inputs[0].shape[-1], d_params[name], rtol=1e-9, atol=1e-9, err_msg=name)
    for ours, its in zip(made[1], d_inputs or (), strict=not row.levels):
        np.testing.assert_allclose(ours, its, rtol=1e-9, atol=1e-9)
    if random(row.layer) and bench.train:
        return
    expected = run(REFERENCE, row.layer, mode, bench.params, given["inputs"], given["dA"])
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])
@test_layers.rows
def test_a_layer(row, train):
    check(test_layers.Bench(row, "numpy", "float64", M, train=train), row)


@test_masks.rows
def test_a_layer_of_masked_sequences(row, rng):
    if "BatchNorm" in repr(row.layer):
        pytest.skip("statistics over the steps that count alone have no fixed size, and are not compiled")
    check(test_masks.Masked(row, "numpy", test_masks.masks_of(row, rng), train=True), row)


@test_layers.rows
def test_float32_stays_float32(row):
    bench = test_layers.Bench(row, "numpy", "float32", M, train=True)
    mode = bench.mode()._replace(key=JAX.random_key(3, 1))
    shapes = jax.eval_shape(
        lambda params, state, inputs, dA: run(JAX, row.layer, mode._replace(state=state), params, inputs, dA),
        *(bench.params, bench.state, tuple(bench.inputs), tuple(bench.dA)),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} <= {np.dtype("float32")}
    assert [each.shape for each in shapes[1]] == [each.shape for each in bench.inputs]


@test_losses.rows
def test_a_loss(row, rng):
    bench = test_losses.Bench(row, REFERENCE, M, rng)

    @jax.jit
    def compiled(A, Y):
        def total(A):
            return row.loss.forward(JAX, A, Y)[0].sum()

        losses, cache = row.loss.forward(JAX, A, Y)
        return losses, row.loss.backward(JAX, cache), jax.grad(total)(A)

    losses, dA, expected = compiled(bench.A, bench.Y)
    np.testing.assert_allclose(losses, bench.forward()[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dA, bench.gradient(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dA, expected, rtol=1e-9, atol=1e-9)
