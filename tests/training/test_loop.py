"""The loop against the loop anyone would write by hand: equal to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid import optimizers
from pellucid.network.parameters import copied
from pellucid.training.batches import order
from pellucid.training.split import split_indices
from pellucid.trees import flatten, tree_map


def blobs(m: int = 60, n: int = 5, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes around centres of their own, unequal in size."""
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.geometric(0.5, m) - 1, classes - 1)
    return (rng.normal(size=(m, n)) + 2 * rng.normal(size=(classes, n))[y]).astype(np.float32), y


def make_net(*, dropout: float = 0.0, **options) -> pl.Sequential:
    layers = [pl.Dense(8, "tanh"), *([pl.Dropout(dropout)] if dropout else []), pl.Dense(3)]
    return pl.Sequential(
        *layers, input_shape=5, **{"loss": "softmax_cross_entropy", "seed": 3, "engine": "numpy", **options}
    )


def by_hand(net, x, y, *, epochs, batch_size, optimizer="gradient_descent(0.1)", shuffle=True, weight=None, rates=None):
    """Forward, loss, backward, update, spelled out; returns the parameters and leaves the network alone."""
    optimizer = optimizers.get(optimizer)
    ours = pl.from_config(net.config(), engine=net.engine)
    params = copied(net.parameters)
    slots = tree_map(np.copy, optimizer.init(params))
    t = 0
    for epoch in range(epochs):
        chosen = order(len(x), seed=net.seed, epoch=epoch, shuffle=shuffle)
        for start in range(0, len(x), batch_size):
            batch = chosen[start : start + batch_size]
            ours.parameters = params
            w = None if weight is None else (weight * (len(x) / weight.sum()))[batch]
            _, grads = ours.gradients(x[batch].T, y[batch], sample_weight=w, update=t)
            if optimizer.clip_norm:
                grads, _ = optimizers.clip_by_norm(np, grads, optimizer.clip_norm)
            rate = rates[epoch] if rates else optimizer.learning_rate.value
            t += 1
            for layer, names in params.items():
                for name, W in names.items():
                    own = {slot: tree[layer][name] for slot, tree in slots.items()}
                    params[layer][name], own = optimizer.rule(np, W, grads[layer][name], own, learning_rate=rate, t=t)
                    for slot, value in own.items():
                        slots[slot][layer][name] = value
            params = net.projected(params)
    return params


def assert_same(tree, other) -> None:
    """The same names and the same bits."""
    one, two = flatten(tree), flatten(other)
    assert list(one) == list(two)
    for path in one:
        assert one[path].dtype == two[path].dtype
        np.testing.assert_array_equal(one[path], two[path], err_msg=path)


@pytest.mark.parametrize("batch_size", [None, 7, 1], ids=["batch", "mini-batch", "stochastic"])
@pytest.mark.parametrize("optimizer", ["gradient_descent(0.1)", "adam(0.01)", "momentum(0.1, clip_norm=0.2)"])
def test_equals_the_loop_written_by_hand(batch_size, optimizer):
    x, y = blobs()
    net = make_net()
    expected = by_hand(net, x, y, epochs=3, batch_size=batch_size or len(x), optimizer=optimizer)
    before = copied(net.parameters)
    history = net.fit(x, y, epochs=3, batch_size=batch_size, optimizer=optimizer, progress=False)
    assert_same(net.parameters, expected)
    assert any((net.parameters[layer]["W"] != before[layer]["W"]).any() for layer in before)
    assert history.records[-1]["step"] == 3 * int(np.ceil(60 / (batch_size or 60)))


def test_dropout_draws_from_the_stream_of_each_update():
    x, y = blobs()
    net = make_net(dropout=0.5)
    expected = by_hand(net, x, y, epochs=3, batch_size=16, optimizer="adam(0.01)")
    net.fit(x, y, epochs=3, batch_size=16, optimizer="adam(0.01)", progress=False)
    assert_same(net.parameters, expected)


@pytest.mark.parametrize("regularizer", ["l2(0.1)", "max_norm(0.5)"])
def test_regularizers_act_in_every_update(regularizer):
    x, y = blobs()
    net = make_net(regularizer=regularizer)
    expected = by_hand(net, x, y, epochs=3, batch_size=16)
    history = net.fit(x, y, epochs=3, batch_size=16, optimizer="gradient_descent(0.1)", progress=False)
    assert_same(net.parameters, expected)
    if regularizer.startswith("max_norm"):
        norms = [np.linalg.norm(each["W"], axis=1).max() for each in net.parameters.values()]
        assert max(norms) == pytest.approx(0.5, rel=1e-6)
    else:
        assert history["cost"][-1] > history["loss"][-1]


def test_sample_weights_are_scaled_to_mean_1():
    x, y = blobs()
    weight = np.random.default_rng(1).uniform(0, 5, 60).astype(np.float32)
    net = make_net()
    expected = by_hand(net, x, y, epochs=3, batch_size=16, weight=weight)
    again = make_net()
    net.fit(x, y, epochs=3, batch_size=16, optimizer="sgd(0.1)", sample_weight=weight, progress=False)
    again.fit(x, y, epochs=3, batch_size=16, optimizer="sgd(0.1)", sample_weight=weight * 8, progress=False)
    for got in (net, again):
        for path, W in flatten(got.parameters).items():
            np.testing.assert_allclose(W, flatten(expected)[path], rtol=1e-4, atol=1e-6)


def test_a_weight_counts_like_that_many_copies():
    x, y = blobs()
    repeats = np.random.default_rng(1).integers(0, 4, 60)
    net, copies = make_net(dtype="float64"), make_net(dtype="float64")
    options = {"epochs": 5, "batch_size": None, "optimizer": "sgd(0.1)", "progress": False}
    weighted = net.fit(x, y, sample_weight=repeats, **options)
    repeated = copies.fit(np.repeat(x, repeats, 0), np.repeat(y, repeats), **options)
    np.testing.assert_allclose(weighted["loss"], repeated["loss"], rtol=1e-12)
    np.testing.assert_allclose(weighted["accuracy"], repeated["accuracy"], rtol=1e-12)
    np.testing.assert_allclose(net.parameters["dense_1"]["W"], copies.parameters["dense_1"]["W"], rtol=1e-10)


def test_shuffling_is_a_function_of_seed_and_epoch():
    one = order(100, seed=1, epoch=2, shuffle=True)
    assert sorted(one) == list(range(100))
    np.testing.assert_array_equal(one, order(100, seed=1, epoch=2, shuffle=True))
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        assert (one != order(100, seed=seed, epoch=epoch, shuffle=True)).any()
    np.testing.assert_array_equal(order(5, seed=1, epoch=2, shuffle=False), range(5))


def test_the_seed_of_a_fit_decides_the_shuffling():
    x, y = blobs()
    nets = [make_net() for _ in range(3)]
    for net, seed in zip(nets, (None, 3, 4), strict=True):
        net.fit(x, y, epochs=1, batch_size=8, seed=seed, progress=False)
    assert_same(nets[0].parameters, nets[1].parameters)
    assert (nets[0].parameters["dense_1"]["W"] != nets[2].parameters["dense_1"]["W"]).any()


def test_validation_examples_are_stratified_and_never_trained_on():
    x, y = blobs(200)
    parts = split_indices(200, validation=0.2, test=0, labels=y, seed=3)
    assert np.abs(np.bincount(y[parts.validation]) - np.bincount(y) * 0.2).max() < 1
    poisoned = x.copy()
    poisoned[parts.validation] = 1e3
    nets = [make_net(), make_net()]
    histories = [
        net.fit(each, y, epochs=2, validation=0.2, progress=False)
        for net, each in zip(nets, (x, poisoned), strict=True)
    ]
    assert_same(nets[0].parameters, nets[1].parameters)
    assert histories[0]["loss"] == histories[1]["loss"]
    assert histories[0]["validation_loss"] != histories[1]["validation_loss"]
    expected = by_hand(make_net(), x[parts.train], y[parts.train], epochs=2, batch_size=32, optimizer="adam")
    assert_same(nets[0].parameters, expected)


def test_schedules_reach_the_optimizer():
    x, y = blobs()
    net = make_net()
    expected = by_hand(net, x, y, epochs=3, batch_size=16, rates=[0.4, 0.2, 0.1])
    history = net.fit(
        x, y, epochs=3, batch_size=16, optimizer=pl.GradientDescent(pl.Step(0.4, every=1, factor=0.5)), progress=False
    )
    assert_same(net.parameters, expected)
    assert history["learning_rate"] == [0.4, 0.2, 0.1]


@pytest.mark.parametrize("validation", [None, 0.25], ids=["loss", "validation loss"])
def test_a_plateau_lowers_the_rate(validation):
    x, y = blobs()
    schedule = pl.ReduceOnPlateau(0.5, factor=0.5, patience=1, threshold=1e9)  # after the first, every epoch is flat
    history = make_net().fit(
        x, y, epochs=6, optimizer=pl.GradientDescent(schedule), validation=validation, progress=False
    )
    assert history["learning_rate"] == [0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_float32_stays_float32(monkeypatch):
    from pellucid.engines.numpy import NumpyOps
    from pellucid.network.base import Network, Observer

    seen = {}

    class Spy(Observer):
        def forward(self, index, A_prev, A, cache):
            seen[f"A{index}"] = A

        def loss(self, name, losses, dA):
            seen["losses"], seen["dA"] = losses, dA

        def backward(self, index, dA, dA_prev, grads):
            seen.update({f"grads{index}/{path}": each for path, each in flatten(grads).items()})
            if dA_prev is not None:
                seen[f"dA{index}"] = dA_prev

    iteration, update = Network.iteration, NumpyOps.update

    def spied_iteration(self, params, state, *arguments, **options):
        done = iteration(self, params, state, *arguments, **{**options, "observer": Spy()})
        seen.update({"cost": done.cost, **flatten({"params": params, "state": done.state, "in": arguments[0]})})
        return done

    def spied_update(self, rule, params, grads, slots, **now):
        params, slots = update(self, rule, params, grads, slots, **now)
        seen.update(flatten({"slots": slots, "after": params, "clipped": grads}))
        return params, slots

    monkeypatch.setattr(Network, "iteration", spied_iteration)
    monkeypatch.setattr(NumpyOps, "update", spied_update)
    net = pl.Sequential(
        pl.Dense(8, "gelu"),
        pl.BatchNorm(),
        pl.Dropout(0.2),
        pl.Dense(6, "leaky_relu"),
        pl.LayerNorm(),
        pl.Dense(3),
        input_shape=5,
        loss=pl.SoftmaxCrossEntropy(label_smoothing=0.1, class_weight=[1.0, 2.0, 3.0]),
        regularizer="elastic(0.01, 0.01)",
        engine="numpy",
    )
    x, y = blobs()
    optimizer = pl.AdamW(pl.WarmUp(0.5, pl.Cosine(np.float64(0.01))), clip_norm=1.0)
    net.fit(x.astype(np.float64), y, epochs=2, optimizer=optimizer, sample_weight=np.ones(60), progress=False)
    assert len(seen) > 40
    assert {path: each.dtype.name for path, each in seen.items() if each.dtype != np.float32} == {}
    assert net.predict(x).dtype == np.float32
