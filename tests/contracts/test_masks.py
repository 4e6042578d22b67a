"""The contract of masks, on every engine: what stands in a step that does not count changes nothing.

Every layer of `test_layers.TABLE` that takes sequences of any length, and every loss of `test_losses.TABLE`.
"""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from contracts import STEPWISE, test_layers, test_losses
from contracts.gradients import assert_gradient, assert_network_gradients
from contracts.test_layers import Bench, as_list
from pellucid import engines
from pellucid.layers import Mode
from pellucid.sequences import Sequences
from pellucid.trees import leaves, tree_map

M = 5


@pytest.fixture(params=STEPWISE)
def engine(request) -> str:
    return request.param


def takes_masks(row: test_layers.Row) -> bool:
    """Whether its first axis is steps."""
    shape = row.input_shape[0] if isinstance(row.input_shape[0], tuple) else row.input_shape
    return row.layer.any_length and shape[0] > 1


ROWS = [row for row in test_layers.TABLE if takes_masks(row)]
rows = pytest.mark.parametrize("row", ROWS, ids=[repr(row.layer).replace(" ", "") for row in ROWS])
modes = pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])


class Masked(Bench):
    """A bench whose inputs have masks: of sequences that are joined the first, the third, … have one, the same."""

    def __init__(self, row, engine, masks, *, train, m=M):
        self.masks = masks if isinstance(row.input_shape[0], tuple) else masks[0]
        super().__init__(row, engine, "float64", m, train=train)

    def mode(self):
        return super().mode()._replace(mask=self.masks)

    @property
    def counted(self):
        """Of every output, which steps count; None is all."""
        made = self.layer.output_mask(self.masks)
        return made if isinstance(made, tuple) else (made,) * self.outputs


def masks_of(row, rng, *, tails=False, m=M):
    """Random masks with a True in every column: with holes, or as sequences of different lengths are padded."""
    shapes = row.input_shape if isinstance(row.input_shape[0], tuple) else (row.input_shape,)
    masks = []
    for index, shape in enumerate(shapes):
        T = shape[0]
        mask = np.arange(T)[:, None] < rng.integers(1, T + 1, m) if tails else rng.random((T, m)) < 0.6
        mask[0 if tails else rng.integers(T, size=m), np.arange(m)] = True
        masks.append((masks or [mask])[0] if index % 2 == 0 else None)
    if isinstance(row.layer, (pl.Attention, pl.AdditiveAttention)):  # a key goes with its value
        masks[1:] = [np.roll(np.resize(masks[0], (shapes[1][0], m)), 1, axis=1)] * (len(masks) - 1)
        masks[1][0] = True
    if row.layer.several_inputs is None:  # a sequence and the state that it starts from
        masks[1:] = [None] * (len(masks) - 1)
    return tuple(masks)


def shaped(mask, A):
    return mask.reshape(len(A), *(1,) * (A.ndim - 2), A.shape[-1])


@rows
@modes
def test_backward_is_the_gradient_of_forward(row, engine, train, rng):
    bench = Masked(row, engine, masks_of(row, rng), train=train)
    d_inputs, grads = bench.backward(bench.forward()[1])
    for index, (A_prev, dA_prev) in enumerate(zip(bench.inputs, d_inputs, strict=True)):
        if not row.levels:
            assert_gradient(bench.J, A_prev, dA_prev, rng, f"dA_prev {index}")
    for name, W in leaves(bench.params):
        assert_gradient(lambda: bench.J() / M, W, grads[name], rng, f"d{name}")


@rows
@modes
def test_what_stands_in_a_masked_step_changes_nothing(row, engine, train, rng):
    masks = masks_of(row, rng)
    bench = Masked(row, engine, masks, train=train)
    for dA, counted in zip(bench.dA, bench.counted, strict=True):
        if counted is not None:  # as the losses and layers above hand it down
            dA *= shaped(counted, dA)
    A, cache = bench.forward()
    d_inputs, grads = bench.backward(cache)
    state = bench.layer.next_state(bench.ops, bench.on_engine(bench.state), cache)
    for A_prev, mask in zip(bench.inputs, masks, strict=True):
        if mask is not None:
            garbage = 1e4 * rng.choice([-1.0, 1.0], A_prev.shape)
            garbage = rng.integers(row.levels, size=A_prev.shape) if row.levels else garbage
            A_prev[...] = np.where(shaped(mask, A_prev), A_prev, garbage)
    again, cache = bench.forward()
    d_again, grads_again = bench.backward(cache)
    for one, other, counted in zip(A, again, bench.counted, strict=True):
        where = np.ones(one.shape, bool) if counted is None else np.broadcast_to(shaped(counted, one), one.shape)
        np.testing.assert_array_equal(other[where], one[where])
    for one, other, mask in zip(d_inputs, d_again, masks, strict=True):
        where = True if mask is None else shaped(mask, one)
        np.testing.assert_array_equal(other * where, one * where)
        assert not (other * ~np.asarray(where)).any(), "a masked step has a gradient"
    for name, dW in grads.items():
        np.testing.assert_array_equal(grads_again[name], dW, err_msg=name)
    for (_, one), (_, other) in zip(
        leaves(state), leaves(bench.layer.next_state(bench.ops, bench.on_engine(bench.state), cache)), strict=True
    ):
        np.testing.assert_array_equal(bench.ops.to_numpy(other), bench.ops.to_numpy(one))


@rows
def test_a_padded_batch_is_its_examples_one_by_one(row, engine, rng):
    masks = masks_of(row, rng, tails=True)
    if isinstance(row.layer, (pl.Attention, pl.AdditiveAttention)):
        pytest.skip("queries and values have lengths of their own: see tests/recurrent/test_attention.py")
    bench = Masked(row, engine, masks, train=False)
    for dA, counted in zip(bench.dA, bench.counted, strict=True):
        if counted is not None:
            dA *= shaped(counted, dA)
    A, cache = bench.forward()
    d_inputs, grads = bench.backward(cache)
    lengths, whole = masks[0].sum(axis=0), (bench.inputs, bench.dA)
    several = row.layer.several_inputs is True  # then all the inputs have the steps
    totals = tree_map(np.zeros_like, grads)
    bench.masks, state = None, bench.state
    for i, T in enumerate(lengths):

        def cut(arrays, like, T=T, i=i):
            return [B[: T if step else None, ..., [i]] for B, step in zip(arrays, like, strict=True)]

        steps_in = [several or index == 0 for index in range(len(d_inputs))]
        steps_out = [counted is not None for counted in Masked.counted.fget(_with(bench, masks))]
        bench.inputs, bench.dA = cut(whole[0], steps_in), cut(whole[1], steps_out)
        bench.state = tree_map(lambda W, i=i: W[..., [i % W.shape[-1]]], state)
        own, own_cache = bench.forward()
        d_own, own_grads = bench.backward(own_cache)
        for one, other in zip(cut(A, steps_out), own, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)
        for one, other in zip(cut(d_inputs, steps_in), d_own, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)
        totals = {name: total + own_grads[name] for name, total in totals.items()}
    for name, total in totals.items():
        np.testing.assert_allclose(grads[name], total / M, rtol=1e-12, atol=1e-12, err_msg=name)


def _with(bench, masks):
    """The same bench, asked what its outputs' masks would be."""
    asked = object.__new__(Masked)
    asked.layer, asked.outputs = bench.layer, bench.outputs
    asked.masks = masks if isinstance(bench.input_shape[0], tuple) else masks[0]
    return asked


def test_batch_norm_of_steps_sees_those_that_count_and_no_others(engine, rng):
    ops = engines.get(engine)
    X, mask = rng.normal(2.0, 3.0, size=(6, 4, M)), rng.random((6, M)) < 0.5
    mask[0] = True
    one, folded = pl.TimeDistributed(pl.BatchNorm()), X.transpose(1, 0, 2)[:, mask]
    params, state = one.init(rng, (6, 4), np.float64), one.init_state((6, 4), np.float64)
    A, cache = one.forward(ops, params, X, mode=Mode(True, None, state, mask))
    expected, expected_cache = pl.BatchNorm().forward(ops, params, folded, mode=Mode(True, None, state))
    np.testing.assert_allclose(ops.to_numpy(A).transpose(1, 0, 2)[:, mask], ops.to_numpy(expected), rtol=1e-12)
    kept, as_kept = one.next_state(ops, state, cache), pl.BatchNorm().next_state(ops, state, expected_cache)
    np.testing.assert_allclose(kept["variance"], as_kept["variance"], rtol=1e-12)
    assert not np.allclose(kept["mean"], state["mean"])


# --- losses ---------------------------------------------------------------------------------------------------------

LOSSES = [row for row in test_losses.TABLE if len(row.output_shape) == 2]
loss_rows = pytest.mark.parametrize(
    "row", LOSSES, ids=[f"{row.loss!r}-{row.output_shape}-{row.targets}".replace(" ", "") for row in LOSSES]
)
LAST = {"probabilities": "sigmoid", "softmax": "softmax", "penalties": "softplus"}


def sequences(row, rng):
    """A small network under the loss, and examples of different lengths: lists of x and y, examples first."""
    n = row.output_shape[-1]
    net = pl.Sequential(
        pl.GRU(3, return_sequences=True),
        pl.TimeDistributed(pl.Dense(n, LAST.get(row.outputs, "identity"))),
        input_shape=(None, 2),
        loss=row.loss,
        dtype="float64",
        seed=3,
    )
    x, y = [], []
    for T in (3, 1, 5, 2, 5):
        _, Y = test_losses.outputs_and_targets(row._replace(output_shape=(T, n)), 1, rng, "float64")
        x.append(rng.normal(size=(T, 2)))
        y.append(Y[..., 0])
    return net, x, y


def last(example):
    """An example alone, examples last."""
    return np.asarray(example)[..., None]


@loss_rows
def test_a_padded_batch_costs_what_its_examples_do(row, rng):
    net, x, y = sequences(row, rng)
    alone = [net.gradients(last(a), last(b)) for a, b in zip(x, y, strict=True)]
    J = np.mean([cost for cost, _ in alone])
    mean = {name: np.mean([dict(leaves(grads))[name] for _, grads in alone], axis=0) for name, _ in leaves(alone[0][1])}
    for batch_size in (1, 2, 5):
        measured = net.evaluate(Sequences(x), Sequences(y), metrics=(), batch_size=batch_size)
        np.testing.assert_allclose(measured["loss"], J, rtol=1e-12)
    X, mask = Sequences(x).batch(np.arange(5))
    Y = Sequences(y).batch(np.arange(5))[0].astype(float)
    Y[np.broadcast_to(~mask if Y.ndim == 2 else ~mask[:, None], Y.shape)] = np.nan  # no target of any kind
    padded, grads = net.gradients(X, Y, mask=mask)
    np.testing.assert_allclose(padded, J, rtol=1e-12)
    for name, dW in leaves(grads):
        np.testing.assert_allclose(dW, mean[name], rtol=1e-9, atol=1e-12, err_msg=name)
    before = dict(leaves(tree_map(np.array, net.parameters)))
    options = {"optimizer": "gradient_descent(0.5)", "metrics": (), "progress": False}
    net.fit(Sequences(x), Sequences(y), epochs=1, batch_size=None, shuffle=False, **options)
    for name, W in leaves(net.parameters):
        np.testing.assert_allclose(W, before[name] - 0.5 * mean[name], rtol=1e-9, atol=1e-12, err_msg=name)


@loss_rows
def test_padding_and_holes_are_gradient_checked_through_the_loss(row, rng):
    if row.loss in (pl.AbsoluteError(), pl.Huber(), pl.Huber(0.3)) or isinstance(row.loss, pl.Hinge):
        pytest.skip("its kinks lie wherever the outputs of a network happen to be")
    net, x, y = sequences(row, rng)
    X, mask = Sequences(x).batch(np.arange(5))
    mask = mask & (rng.random(mask.shape) < 0.7)
    mask[0] = True
    assert_network_gradients(net, X, Sequences(y).batch(np.arange(5))[0], rng, mask=mask)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse", "sigmoid_cross_entropy", "hinge"])
def test_weights_count_examples_and_not_their_steps(loss, rng):
    row = next(row for row in LOSSES if row.loss.registered_name == pl.losses.get(loss).registered_name)
    net, x, y = sequences(row, rng)
    w = np.array([0.2, 3.0, 0.0, 1.0, 0.8])
    alone = [net.cost(last(a), last(b)) for a, b in zip(x, y, strict=True)]
    measured = net.evaluate(Sequences(x), Sequences(y), sample_weight=w, metrics=(), batch_size=2)
    np.testing.assert_allclose(measured["loss"], np.average(alone, weights=w), rtol=1e-12)


# --- metrics and predictions ----------------------------------------------------------------------------------------


def test_metrics_count_every_step_once_and_no_padding(rng):
    row = next(row for row in LOSSES if isinstance(row.loss, pl.SoftmaxCrossEntropy))
    net, x, y = sequences(row._replace(targets="index"), rng)
    said = np.concatenate([net.predict(a[None])[0].argmax(axis=-1) for a in x])
    right = np.mean(said == np.concatenate(y))
    for batch_size in (1, 2, 5):
        measured = net.evaluate(Sequences(x), Sequences(y), batch_size=batch_size)
        assert measured["accuracy"] == pytest.approx(right, rel=1e-12)
    w = np.array([1.0, 0.0, 2.0, 0.5, 0.0])
    weighted = np.average(said == np.concatenate(y), weights=np.repeat(w, [len(each) for each in y]))
    assert net.evaluate(Sequences(x), Sequences(y), sample_weight=w)["accuracy"] == pytest.approx(weighted, rel=1e-12)
    history = net.fit(Sequences(x), Sequences(y), epochs=1, optimizer="gradient_descent(0.0)", progress=False)
    assert history["accuracy"][-1] == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("metric", ["mean_absolute_error", "r2", "mean_squared_error"])
def test_metrics_of_values(metric, rng):
    net, x, y = sequences(next(row for row in LOSSES if isinstance(row.loss, pl.MeanSquaredError)), rng)
    said, true = np.concatenate([net.predict(a[None])[0] for a in x]), np.concatenate(y)
    expected = pl.metrics.get(metric).compute(said, true, sample_weight=None)
    assert net.evaluate(Sequences(x), Sequences(y), metrics=metric, batch_size=2)[metric] == pytest.approx(expected)


def test_predictions_of_padded_examples(rng):
    row = next(row for row in LOSSES if isinstance(row.loss, pl.SoftmaxCrossEntropy))
    net, x, _ = sequences(row, rng)
    for batch_size in (1, 2, 5):
        said = net.predict(Sequences(x), batch_size=batch_size)
        assert isinstance(said, Sequences)
        for i, example in enumerate(x):
            np.testing.assert_allclose(said[i], net.predict(example[None])[0], rtol=1e-12)
    vectors = pl.Sequential(pl.LSTM(4), pl.Dense(3), input_shape=(None, 2), dtype="float64")
    np.testing.assert_allclose(
        vectors.predict(Sequences(x), batch_size=2), [vectors.predict(each[None])[0] for each in x], rtol=1e-12
    )


@pytest.mark.parametrize("trained", [True, False])
def test_a_deep_network_of_many_kinds_of_layers(trained, engine, rng):
    """Ids to vectors, both ways, at every step, on top of each other: cut, garbled and checked by differences."""
    net = pl.Sequential(
        pl.Embedding(7, 4),
        pl.Dropout(0.3),
        pl.Bidirectional(pl.LSTM(3, return_sequences=True), "sum"),
        pl.TimeDistributed(pl.Dense(4, "tanh")),
        pl.LayerNorm(axes=1),
        pl.GRU(3, return_sequences=True, reverse=True),
        pl.Tanh(),
        pl.SimpleRNN(4),
        pl.Dense(3),
        input_shape=(None,),
        loss="softmax_cross_entropy",
        dtype="float64",
        engine=engine,
    )
    X, Y = rng.integers(7, size=(6, 4)).astype(float), np.array([0, 2, 1, 1])
    mask = rng.random((6, 4)) < 0.6
    mask[2] = True
    J, grads = net.gradients(X, Y, mask=mask, train=trained)
    garbled = np.where(mask, X, rng.integers(7, size=X.shape))
    assert not (garbled == X).all()
    again, grads_again = net.gradients(garbled, Y, mask=mask, train=trained)
    assert again == J
    for (name, dW), (_, other) in zip(leaves(grads), leaves(grads_again), strict=True):
        np.testing.assert_array_equal(net.ops.to_numpy(other), net.ops.to_numpy(dW), err_msg=name)
    assert pl.check_gradients(net, X, Y, mask=mask, train=trained).passed
    if not trained:  # holes are as if the steps had never been
        alone = [net.gradients(X[mask[:, i], i : i + 1], Y[i : i + 1], train=False) for i in range(4)]
        assert pytest.approx(J, rel=1e-12) == np.mean([cost for cost, _ in alone])
        for name, dW in leaves(grads):
            np.testing.assert_allclose(dW, np.mean([dict(leaves(g))[name] for _, g in alone], axis=0), atol=1e-12)


def test_every_step_counts_without_a_mask(rng):
    """A mask of True everywhere is no mask."""
    for row in ROWS:
        whole = tuple(None if mask is None else np.ones_like(mask) for mask in masks_of(row, rng))
        for train in (True, False):
            one, other = Bench(row, "numpy", "float64", M, train=train), Masked(row, "numpy", whole, train=train)
            np.testing.assert_allclose(
                np.concatenate([A.ravel() for A in as_list(tuple(one.forward()[0]))]),
                np.concatenate([A.ravel() for A in as_list(tuple(other.forward()[0]))]),
                rtol=1e-12,
            )
