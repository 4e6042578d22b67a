"""Chains: whole networks against finite differences, and what a network promises besides its numbers."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from contracts.gradients import assert_network_gradients
from pellucid import engines
from pellucid.errors import ParameterError
from pellucid.layers import activations
from pellucid.trees import leaves, tree_map

M = 9
options = {"dtype": "float64"}


def classes(rng, n=3, m=M):
    return rng.integers(n, size=m)


CHAINS = {
    "everything": lambda: pl.Sequential(
        pl.Dense(7, "tanh"),
        pl.BatchNorm(),
        pl.Dropout(0.3),
        pl.Dense(6, "prelu"),
        pl.LayerNorm(),
        pl.Reshape((2, 3)),
        pl.Softmax(axis=1),
        pl.Flatten(),
        pl.Dense(8, "maxout(2)"),
        pl.Dense(3),
        input_shape=5,
        loss=pl.SoftmaxCrossEntropy(class_weight=[1, 2, 0.5], label_smoothing=0.1),
        regularizer="elastic(0.01, 0.1)",
        **options,
    ),
    "images": lambda: pl.Sequential(
        pl.BatchNorm(), pl.PReLU(), pl.Flatten(), pl.Dense(3, "gelu"), input_shape=(2, 2, 3), loss="hinge", **options
    ),
    "softmax and its cross-entropy apart": lambda: pl.Sequential(
        pl.Dense(4, "elu"), pl.Dense(3, "softmax"), input_shape=5, loss="cross_entropy", **options
    ),
    "own regularizers": lambda: pl.Sequential(
        pl.Dense(4, "selu", regularizer="l2(0.3)"), pl.Dense(3), input_shape=5, loss="mse", regularizer="l1", **options
    ),
    "nothing to train at the start": lambda: pl.Sequential(
        pl.Tanh(), pl.Dropout(0.2), pl.Dense(3, use_bias=False), pl.Softplus(), input_shape=5, loss="huber", **options
    ),
}


def shared_chain(**more):
    twice = pl.Dense(5, "tanh", regularizer="l2(0.1)")
    norm = pl.BatchNorm()
    return pl.Sequential(twice, norm, twice, norm, twice, pl.Dense(3), input_shape=5, loss="mse", **options, **more)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])
@pytest.mark.parametrize("m", [M, 1])
def test_gradients_of_chains(name, train, m, rng):
    net = CHAINS[name]()
    X = rng.normal(size=(*net.inputs["input"], m))
    Y = classes(rng, m=m) if net.losses["output"].of_classes else rng.normal(size=(3, m))
    assert_network_gradients(net, X, Y, rng, train=train)


@pytest.mark.parametrize("g", sorted(set(activations) - {"maxout"}))
def test_gradients_through_every_activation_twice(g, rng):
    net = pl.Sequential(pl.Dense(4, g), pl.Dense(4, g), pl.Dense(3), input_shape=5, loss="mse", **options)
    assert_network_gradients(net, rng.normal(size=(5, M)), rng.normal(size=(3, M)), rng)


def test_gradients_of_a_layer_used_three_times(rng):
    net = shared_chain()
    assert list(net.parameters) == ["dense_1", "batch_norm_1", "dense_2"]
    assert_network_gradients(net, rng.normal(size=(5, M)), rng.normal(size=(3, M)), rng)


def test_a_shared_layer_sums_the_gradients_of_its_places(rng):
    shared = shared_chain()
    apart = pl.Sequential(
        *(layer for _ in range(2) for layer in (pl.Dense(5, "tanh", regularizer="l2(0.1)"), pl.BatchNorm())),
        pl.Dense(5, "tanh", regularizer="l2(0.1)"),
        pl.Dense(3),
        input_shape=5,
        loss="mse",
        **options,
    )
    one, norm, last = shared.parameters.values()
    apart.parameters = dict(zip(apart.parameters, (one, norm, one, norm, one, last), strict=True))
    X, Y = rng.normal(size=(5, M)), rng.normal(size=(3, M))
    _, grads = shared.gradients(X, Y)
    _, each = apart.gradients(X, Y)
    penalty = 0.1 * one["W"]  # counted once in the shared network, three times in the other
    total = sum(each[name]["W"] for name in ("dense_1", "dense_2", "dense_3")) - 2 * penalty
    np.testing.assert_allclose(grads["dense_1"]["W"], total, rtol=1e-10)
    np.testing.assert_allclose(grads["dense_1"]["b"], sum(each[f"dense_{i}"]["b"] for i in (1, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(
        grads["batch_norm_1"]["gamma"], sum(each[f"batch_norm_{i}"]["gamma"] for i in (1, 2)), rtol=1e-10
    )


def test_sample_weights_are_gradient_checked(rng):
    net = CHAINS["everything"]()
    X, Y, w = rng.normal(size=(5, M)), classes(rng), rng.random(M)
    assert_network_gradients(net, X, Y, rng, sample_weight=w)


def test_weight_two_is_the_example_twice(rng):
    net = pl.Sequential(pl.Dense(4, "tanh"), pl.Dense(3), input_shape=5, loss="softmax_cross_entropy", **options)
    X, Y = rng.normal(size=(5, 4)), classes(rng, m=4)
    w = np.array([1.0, 2.0, 1.0, 3.0])
    again = np.repeat(np.arange(4), w.astype(int))
    J, grads = net.gradients(X, Y, sample_weight=w * 4 / w.sum())
    J_again, grads_again = net.gradients(X[:, again], Y[again])
    assert pytest.approx(J_again, rel=1e-12) == J
    assert net.cost(X, Y, sample_weight=w * 4 / w.sum()) == pytest.approx(J, rel=1e-12)
    for (name, one), (_, other) in zip(leaves(grads), leaves(grads_again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14, err_msg=name)


def test_weight_zero_is_the_example_left_out(rng):
    net = pl.Sequential(pl.Dense(3, "tanh"), pl.Dense(1), input_shape=5, loss="squared_error", **options)
    X, Y = rng.normal(size=(5, 4)), rng.normal(size=4)
    _, grads = net.gradients(X, Y, sample_weight=[2, 0, 2, 0])
    _, fewer = net.gradients(X[:, ::2], Y[::2])
    for (name, one), (_, other) in zip(leaves(grads), leaves(fewer), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14, err_msg=name)


def test_parameter_gradients_are_means_and_activation_gradients_are_per_example(rng):
    net = pl.Sequential(pl.Dense(4, "tanh"), pl.Dense(3), input_shape=5, loss="softmax_cross_entropy", **options)
    X, Y = rng.normal(size=(5, M)), classes(rng)
    whole = net.checked_iteration(X, Y, input_gradient=True)
    single = [net.checked_iteration(X[:, [i]], Y[[i]], input_gradient=True) for i in range(M)]
    np.testing.assert_allclose(
        whole.d_inputs["input"], np.hstack([each.d_inputs["input"] for each in single]), rtol=1e-11
    )
    np.testing.assert_allclose(whole.losses, np.hstack([each.losses for each in single]), rtol=1e-12)
    mean = tree_map(lambda *dW: sum(dW) / M, *(each.grads for each in single))
    for (name, one), (_, other) in zip(leaves(whole.grads), leaves(mean), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14, err_msg=name)


def test_forward_and_backward_by_hand_are_the_iteration(rng):
    net = CHAINS["everything"]()
    X, Y = rng.normal(size=(5, M)), classes(rng)
    done = net.checked_iteration(X, Y, update=4, input_gradient=True)
    A, caches = net.forward(X, train=True, update=4)
    np.testing.assert_array_equal(A, done.outputs["output"])
    loss = net.losses["output"]
    dA = loss.backward(net.ops, loss.forward(net.ops, A, net.checked_targets(Y)["output"])[1])
    dX, grads = net.backward(caches, dA)
    np.testing.assert_array_equal(dX, done.d_inputs["input"])
    for name, layer, rule in net.penalties:
        grads[name][layer] = grads[name][layer] + rule.gradient(np, net.parameters[name][layer])
    for (name, one), (_, other) in zip(leaves(grads), leaves(done.grads), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    declined, same = net.backward(caches, dA, input_gradient=False)
    assert declined is None
    np.testing.assert_array_equal(same["dense_1"]["b"], grads["dense_1"]["b"])


def test_backward_takes_any_numbers_and_keeps_the_float_type(rng):
    net = pl.Sequential(pl.Dense(3, "tanh"), input_shape=5)
    A, caches = net.forward(rng.normal(size=(5, M)))
    dX, grads = net.backward(caches, np.ones(A.shape, int))
    assert A.dtype == dX.dtype == grads["dense_1"]["W"].dtype == np.float32


@pytest.mark.parametrize("engine", engines.available())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_bits(engine, dtype, rng):
    def run(seed):
        net = pl.Sequential(
            pl.Dense(16, "relu"),
            pl.Dropout(0.5),
            pl.Dense(3),
            input_shape=5,
            loss="softmax_cross_entropy",
            seed=seed,
            dtype=dtype,
            engine=engine,
        )
        done = net.checked_iteration(X, Y, update=2)
        return [net.ops.to_numpy(leaf) for _, leaf in leaves({"W": net.parameters, "dW": done.grads})]

    X, Y = rng.normal(size=(5, 40)), classes(rng, m=40)
    for one, again in zip(run(7), run(7), strict=True):
        assert one.dtype == dtype
        np.testing.assert_array_equal(one, again)
    assert not np.array_equal(run(7)[0], run(8)[0])


def test_dropout_draws_anew_at_each_update_and_place(rng):
    drop = pl.Dropout(0.5)
    net = pl.Sequential(drop, drop, input_shape=40)
    X = np.ones((40, 10))
    first, again, later = (net.forward(X, train=True, update=u)[0] for u in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert set(np.unique(first)) == {0, 4}
    assert 0.15 < (first > 0).mean() < 0.35, "the two places drop independently"
    np.testing.assert_array_equal(net.forward(X)[0], X)


def test_adding_a_layer_leaves_the_earlier_ones_as_they_were():
    short = pl.Sequential(pl.Dense(4, "relu"), pl.Dense(3, "tanh"), input_shape=5)
    longer = pl.Sequential(pl.Dense(4, "relu"), pl.Dense(3, "tanh"), pl.BatchNorm(), pl.Dense(8), input_shape=5)
    for name, tree in short.parameters.items():
        for parameter, W in tree.items():
            np.testing.assert_array_equal(longer.parameters[name][parameter], W)


def test_parameters_are_not_drawn_from_the_stream_data_is():
    """Data made by default_rng(seed) must not be correlated with the first layer of a network of that seed."""
    net = pl.Sequential(pl.Dense(30, initializer="normal(1.0)"), input_shape=30, seed=5, dtype="float64")
    data = np.random.default_rng(5).normal(size=(30, 30))
    assert abs(np.corrcoef(net.parameters["dense_1"]["W"].ravel(), data.ravel())[0, 1]) < 0.15


def test_initialize_draws_anew_and_resets_the_state(rng):
    net = pl.Sequential(pl.Dense(4), pl.BatchNorm(), input_shape=5, loss="mse", **options)
    W = net.parameters["dense_1"]["W"].copy()
    net.state = net.checked_iteration(rng.normal(size=(5, M)), rng.normal(size=(4, M))).state
    assert net.state["batch_norm_1"]["mean"].any()
    net.initialize(1)
    assert not np.array_equal(net.parameters["dense_1"]["W"], W)
    assert not net.state["batch_norm_1"]["mean"].any()
    net.initialize(0)
    np.testing.assert_array_equal(net.parameters["dense_1"]["W"], W)


def test_batch_norm_state_follows_the_running_average(rng):
    net = pl.Sequential(pl.BatchNorm(momentum=0.8), input_shape=3, loss="mse", **options)
    X = rng.normal(2.0, 3.0, size=(3, M))
    done = net.checked_iteration(X, X)
    np.testing.assert_allclose(done.state["batch_norm_1"]["mean"], 0.2 * X.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(done.state["batch_norm_1"]["variance"], 0.8 + 0.2 * X.var(axis=1, keepdims=True, ddof=1))
    assert not net.state["batch_norm_1"]["mean"].any(), "an iteration changes nothing"
    assert net.checked_iteration(X, X, train=False).state is net.state
    net.state = done.state
    mean, variance = done.state["batch_norm_1"]["mean"], done.state["batch_norm_1"]["variance"]
    np.testing.assert_allclose(net.forward(X)[0], (X - mean) / np.sqrt(variance + 1e-5))


def test_a_shared_batch_norm_updates_its_state_at_each_place(rng):
    norm = pl.BatchNorm(momentum=0.5)
    net = pl.Sequential(norm, pl.Dense(3, initializer="identity"), norm, input_shape=3, loss="mse", **options)
    X = rng.normal(2.0, 3.0, size=(3, M))
    state = net.checked_iteration(X, X).state["batch_norm_1"]
    np.testing.assert_allclose(state["mean"], 0.25 * X.mean(axis=1, keepdims=True), atol=1e-12)


def test_cost_and_penalty(rng):
    net = pl.Sequential(pl.Dense(1, regularizer="l2(0.5)"), input_shape=2, loss="squared_error", **options)
    net.parameters = {"dense_1": {"W": [[1.0, 2.0]], "b": [[3.0]]}}
    # Ŷ = 1·1 + 2·1 + 3 = 6 and 3; losses ½·5² and ½·3²; penalty 0.25 · (1 + 4)
    X, Y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1.0, 0.0])
    assert net.cost(X, Y) == (12.5 + 4.5) / 2 + 1.25
    J, grads = net.gradients(X, Y)
    assert net.cost(X, Y) == J
    assert grads["dense_1"]["W"].tolist() == [[2.5 + 0.5, 2.5 + 1.0]]
    assert grads["dense_1"]["b"].tolist() == [[4.0]]


def test_max_norm_is_projected():
    net = pl.Sequential(pl.Dense(2, regularizer="max_norm(1.0)"), input_shape=2, **options)
    net.parameters = {"dense_1": {"W": [[3.0, 4.0], [0.3, 0.4]], "b": [[5.0], [6.0]]}}
    projected = net.projected(net.parameters)
    np.testing.assert_allclose(projected["dense_1"]["W"], [[0.6, 0.8], [0.3, 0.4]])
    assert projected["dense_1"]["b"].tolist() == [[5], [6]]


def test_float32_networks_stay_float32_whatever_the_user_hands_over(rng):
    """NumPy scalars as hyperparameters would turn every array they touch into float64."""
    f = np.float64
    net = pl.Sequential(
        pl.Dense(np.int64(4), pl.LeakyReLU(f(0.1)), regularizer=pl.regularizers.L2(f(0.1))),
        pl.Dropout(f(0.5)),
        pl.BatchNorm(momentum=f(0.5), epsilon=f(0.1)),
        pl.Dense(4, pl.ELU(f(0.5))),
        pl.PReLU(f(0.5)),
        pl.LayerNorm(epsilon=f(1e-3)),
        pl.Dense(3),
        input_shape=np.array([5]),
        loss=pl.SoftmaxCrossEntropy(class_weight=np.array([1.0, 2.0, 3.0]).tolist(), label_smoothing=f(0.1)),
        loss_weights={"output": f(0.5)},
        seed=np.int64(3),
    )
    done = net.checked_iteration(
        rng.normal(size=(5, M)), classes(rng), sample_weight=rng.random(M), input_gradient=True
    )
    everything = {"state": done.state, "grads": done.grads, "out": done.outputs, "in": done.d_inputs}
    assert {leaf.dtype for _, leaf in leaves(everything)} == {np.dtype("float32")}
    assert done.losses.dtype == done.cost.dtype == np.float32


def test_repr_can_be_read():
    net = pl.Sequential(pl.Dense(4, "relu", use_bias=False), pl.Dropout(0.5), pl.Tanh(), input_shape=5)
    assert repr(net) == (
        "Sequential(Dense(4, activation='relu', use_bias=False), Dropout(0.5), Tanh(), input_shape=(5,))"
    )


@pytest.mark.parametrize(
    ("last", "loss", "said"),
    [
        (pl.Dense(3, "softmax"), "softmax_cross_entropy", "reads logits, and dense_1 ends in softmax.*'cross_entropy'"),
        (pl.Dense(1, "sigmoid"), "sigmoid_cross_entropy", "reads logits.*loss='binary_cross_entropy'"),
        (pl.Dense(1), "binary_cross_entropy", "reads probabilities, .*ends in identity.*activation='sigmoid'"),
        (pl.Dense(3, "relu"), "cross_entropy", "reads probabilities, and dense_1 ends in relu.*activation='softmax'"),
    ],
)
def test_a_loss_that_reads_other_than_the_last_layer_gives_is_refused(last, loss, said):
    with pytest.raises(ParameterError, match="(?s)" + said):
        pl.Sequential(last, input_shape=2, loss=loss)
