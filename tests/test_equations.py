"""The notes' every equation, each against plain NumPy written out beside it. S0 … S4 are the notes by number."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from contracts.gradients import assert_gradient
from pellucid.trees import leaves, tree_map

SIZES = (4, 5, 3, 1)  # n[0] … n[L]
SLOPES = {
    "tanh": (np.tanh, lambda Z: 1 - np.tanh(Z) ** 2),
    "relu": (lambda Z: np.maximum(Z, 0), lambda Z: (Z > 0) * 1.0),
    "sigmoid": (lambda Z: 1 / (1 + np.exp(-Z)), lambda Z: np.exp(-Z) / (1 + np.exp(-Z)) ** 2),
}
G = ("tanh", "relu", "sigmoid")  # g[1] … g[L]


def course_network() -> pl.Sequential:
    return pl.Sequential(
        *(pl.Dense(n, g, bias_initializer="normal(0.3)") for n, g in zip(SIZES[1:], G, strict=True)),
        input_shape=SIZES[0],
        loss="binary_cross_entropy",
        dtype="float64",
        engine="numpy",
    )


def batch(rng, m):
    return rng.normal(size=(SIZES[0], m)), rng.integers(0, 2, size=(1, m)).astype(float)


def weights(net):
    """W[1] … W[L] and b[1] … b[L], with a None first so that the index is the notes' own."""
    by_layer = [net.parameters[net.names[layer]] for layer in net.layers]
    return [None, *(p["W"] for p in by_layer)], [None, *(p["b"] for p in by_layer)]


def forward_by_hand(net, X):
    """Z[l] = W[l] A[l-1] + b[l], A[l] = g[l](Z[l]), entry by entry."""
    W, b = weights(net)
    A, Z = [X], [None]
    for l, name in enumerate(G, 1):
        z = np.zeros((SIZES[l], X.shape[1]))
        for unit in range(SIZES[l]):
            for example in range(X.shape[1]):
                z[unit, example] = b[l][unit, 0]
                for k in range(SIZES[l - 1]):
                    z[unit, example] += W[l][unit, k] * A[l - 1][k, example]
        Z.append(z)
        A.append(SLOPES[name][0](z))
    return Z, A


def backward_by_hand(net, X, Y):
    """The four equations of S1 and S4, from the start dA[L] = -Y/A + (1-Y)/(1-A) to dA[0]."""
    W, _ = weights(net)
    Z, A = forward_by_hand(net, X)
    L, m = len(G), X.shape[1]
    dA, dZ, dW, db = ([None] * (L + 1) for _ in range(4))
    dA[L] = -Y / A[L] + (1 - Y) / (1 - A[L])
    for l in range(L, 0, -1):
        dZ[l] = dA[l] * SLOPES[G[l - 1]][1](Z[l])
        dW[l] = sum(np.outer(dZ[l][:, i], A[l - 1][:, i]) for i in range(m)) / m
        db[l] = sum(dZ[l][:, [i]] for i in range(m)) / m
        dA[l - 1] = W[l].T.dot(dZ[l])
    return dA, dZ, dW, db


@pytest.mark.parametrize("m", [1, 7])
def test_forward(m, rng):
    net = course_network()
    X, _ = batch(rng, m)
    Z, A = forward_by_hand(net, X)
    Y_hat, caches = net.forward(X)
    np.testing.assert_allclose(Y_hat, A[-1], rtol=1e-13)
    for l, (layer, cache) in enumerate(zip(net.layers, caches, strict=True), 1):
        np.testing.assert_allclose(cache.A_prev, A[l - 1], rtol=1e-13)
        params = net.parameters[net.names[layer]]
        values = layer.intermediates(net.ops, params, cache, np.zeros_like(A[l]))
        np.testing.assert_allclose(values["Z"], Z[l], rtol=1e-13)


@pytest.mark.parametrize("m", [1, 7])
def test_backward_and_its_start(m, rng):
    net = course_network()
    X, Y = batch(rng, m)
    dA, dZ, dW, db = backward_by_hand(net, X, Y)

    Y_hat, caches = net.forward(X)
    loss = net.losses["output"]
    each, cache = loss.forward(net.ops, Y_hat, Y)
    np.testing.assert_allclose(each, (-Y * np.log(Y_hat) - (1 - Y) * np.log(1 - Y_hat))[0], rtol=1e-13)
    start = loss.backward(net.ops, cache)
    np.testing.assert_allclose(start, dA[-1], rtol=1e-12)

    d = start
    for l in range(len(G), 0, -1):
        layer = net.layers[l - 1]
        params = net.parameters[net.names[layer]]
        values = layer.intermediates(net.ops, params, caches[l - 1], d)
        d, grads = layer.backward(net.ops, params, caches[l - 1], d)
        np.testing.assert_allclose(values["dZ"], dZ[l], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(grads["W"], dW[l], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(grads["b"], db[l], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(d, dA[l - 1], rtol=1e-11, atol=1e-15)

    dX, grads = net.backward(caches, start)  # the whole chain at once, dA[0] included
    np.testing.assert_allclose(dX, dA[0], rtol=1e-11, atol=1e-15)
    for l, layer in enumerate(net.layers, 1):
        np.testing.assert_allclose(grads[net.names[layer]]["W"], dW[l], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(grads[net.names[layer]]["b"], db[l], rtol=1e-11, atol=1e-15)


def test_joined_form(rng):
    """dZ[l] = W[l+1]ᵀ dZ[l+1] * g[l]'(Z[l]) (S4)."""
    net = course_network()
    X, Y = batch(rng, 6)
    W, _ = weights(net)
    Z, A = forward_by_hand(net, X)
    dZ = A[3] - Y  # the logistic start times its slope
    for l in (2, 1):
        dZ = W[l + 1].T @ dZ * SLOPES[G[l - 1]][1](Z[l])
        _, grads = net.gradients(X, Y)
        name = net.names[net.layers[l - 1]]
        np.testing.assert_allclose(grads[name]["W"], dZ @ A[l - 1].T / 6, rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(grads[name]["b"], dZ.mean(axis=1, keepdims=True), rtol=1e-11, atol=1e-15)


def test_update(rng):
    """W[l] := W[l] - α dW[l], b[l] := b[l] - α db[l] (S0)."""
    net = course_network()
    X, Y = batch(rng, 5)
    _, grads = net.gradients(X, Y)
    before = tree_map(np.copy, net.parameters)
    after, _ = pl.GradientDescent(0.3).update(net.ops, net.parameters, grads, {}, learning_rate=0.3, t=1)
    for (name, W), (_, old), (_, dW) in zip(leaves(after), leaves(before), leaves(grads), strict=True):
        np.testing.assert_allclose(W, old - 0.3 * dW, rtol=1e-14, err_msg=name)


@pytest.mark.parametrize("m", [1, 7])
def test_shapes(m, rng):
    """X (n[0], m) · Y (1, m) · W, dW (n[l], n[l-1]) · b, db (n[l], 1) · Z, A, dZ, dA (n[l], m) (S1)."""
    net = course_network()
    X, Y = batch(rng, m)
    done = net.checked_iteration(X, Y, input_gradient=True)
    assert done.outputs["output"].shape == Y.shape == (1, m)
    assert done.losses.shape == (m,)
    assert done.d_inputs["input"].shape == X.shape == (SIZES[0], m)
    dA = np.zeros((1, m))
    for l in range(len(G), 0, -1):
        layer = net.layers[l - 1]
        params, cache = net.parameters[net.names[layer]], done.caches[l - 1]
        values = layer.intermediates(net.ops, params, cache, dA)
        assert values["Z"].shape == values["dZ"].shape == dA.shape == (SIZES[l], m)
        dA, grads = layer.backward(net.ops, params, cache, dA)
        assert params["W"].shape == grads["W"].shape == (SIZES[l], SIZES[l - 1])
        assert params["b"].shape == grads["b"].shape == (SIZES[l], 1)
        assert cache.A_prev.shape == dA.shape == (SIZES[l - 1], m)


def test_slip_of_s4(rng):
    """S4 prints (1/m) np.sum(dZ, axis=1, keepdims=True) beside the name dW. It is db, and not dW."""
    net = course_network()
    X, Y = batch(rng, 6)
    _, dZ, dW, _ = backward_by_hand(net, X, Y)
    W, b = weights(net)
    for l in (1, 2, 3):
        printed = np.sum(dZ[l], axis=1, keepdims=True) / 6
        assert_gradient(lambda: net.cost(X, Y), b[l], printed, rng, f"db[{l}]")
        assert_gradient(lambda: net.cost(X, Y), W[l], dW[l], rng, f"dW[{l}]")
        with pytest.raises(AssertionError, match="derivative"):
            assert_gradient(lambda: net.cost(X, Y), W[l], np.broadcast_to(printed, W[l].shape), rng)


def test_one_iteration_by_hand():
    """Two inputs, two ReLU neurons, one linear neuron, half the squared error, two examples; α = 1."""
    net = pl.Sequential(
        pl.Dense(2, "relu"), pl.Dense(1), input_shape=2, loss="squared_error", dtype="float64", engine="numpy"
    )
    X = np.array([[1.0, 2.0], [-1.0, 1.0]])  # examples (1, -1) and (2, 1)
    Y = np.array([[1.0, 6.0]])
    net.parameters = {
        "dense_1": {"W": np.array([[1.0, 0.0], [1.0, 2.0]]), "b": np.array([[0.0], [-1.0]])},
        "dense_2": {"W": np.array([[2.0, -1.0]]), "b": np.array([[1.0]])},
    }
    # Z1 = [1·1 + 0·-1 + 0,   1·2 + 0·1 + 0]  = [ 1, 2]        A1 = [1, 2]
    #      [1·1 + 2·-1 - 1,   1·2 + 2·1 - 1]  = [-2, 3]             [0, 3]
    # Z2 = [2·1 - 1·0 + 1,    2·2 - 1·3 + 1]  = [ 3, 2] = A2
    # L  = [½ (3 - 1)²,       ½ (2 - 6)²]     = [ 2, 8]        J  = (2 + 8) / 2 = 5
    done = net.checked_iteration(X, Y, input_gradient=True)
    assert done.outputs["output"].tolist() == [[3, 2]]
    assert done.losses.tolist() == [2, 8]
    assert done.cost == 5
    assert done.caches[1].A_prev.tolist() == [[1, 2], [0, 3]]
    # dA2 = A2 - Y = [2, -4] = dZ2
    # dW2 = ½ [2·1 - 4·2,     2·0 - 4·3]      = [-3, -6]       db2 = ½ (2 - 4) = -1
    # dA1 = [ 2·2,  2·-4] = [ 4, -8]          dZ1 = [4, -8]    (ReLU's slope is 0 where Z1 = -2)
    #       [-1·2, -1·-4] = [-2,  4]                [0,  4]
    # dW1 = ½ [4·1 - 8·2,     4·-1 - 8·1]     = [-6, -6]       db1 = ½ (4 - 8) = -2
    #         [0·1 + 4·2,     0·-1 + 4·1]     = [ 4,  2]             ½ (0 + 4) =  2
    # dA0 = [1·4 + 1·0,       1·-8 + 1·4]     = [ 4, -4]
    #       [0·4 + 2·0,       0·-8 + 2·4]     = [ 0,  8]
    as_lists = tree_map(np.ndarray.tolist, done.grads)
    assert as_lists == {
        "dense_1": {"W": [[-6, -6], [4, 2]], "b": [[-2], [2]]},
        "dense_2": {"W": [[-3, -6]], "b": [[-1]]},
    }
    assert done.d_inputs["input"].tolist() == [[4, -4], [0, 8]]
    # W := W - dW
    new, _ = pl.GradientDescent(1.0).update(net.ops, net.parameters, done.grads, {}, learning_rate=1.0, t=1)
    assert tree_map(np.ndarray.tolist, new) == {
        "dense_1": {"W": [[7, 6], [-3, 0]], "b": [[2], [-3]]},
        "dense_2": {"W": [[5, 5]], "b": [[2]]},
    }


def test_single_neuron_in_both_forms(rng):
    """Part 3 (S3): z = Σᵢ₌₁ wᵢxᵢ + b, and z = Σᵢ₌₀ wᵢxᵢ with x₀ = 1 and w₀ = b."""
    common = {"loss": "binary_cross_entropy", "dtype": "float64", "engine": "numpy"}
    with_b = pl.Sequential(pl.Dense(1, "logistic"), input_shape=3, **common)
    with_w0 = pl.Sequential(pl.Dense(1, "logistic", use_bias=False), input_shape=4, **common)
    w, b = rng.normal(size=(1, 3)), rng.normal(size=(1, 1))
    with_b.parameters = {"dense_1": {"W": w, "b": b}}
    with_w0.parameters = {"dense_1": {"W": np.hstack([b, w])}}
    X, Y = rng.normal(size=(3, 8)), rng.integers(0, 2, (1, 8))
    X1 = np.vstack([np.ones((1, 8)), X])

    a = with_b.forward(X)[0]
    by_hand = [1 / (1 + np.exp(-(sum(w[0, i] * X[i, k] for i in range(3)) + b[0, 0]))) for k in range(8)]
    np.testing.assert_allclose(a[0], by_hand, rtol=1e-13)
    np.testing.assert_allclose(with_w0.forward(X1)[0], a, rtol=1e-13)
    (J, one), (J0, other) = with_b.gradients(X, Y), with_w0.gradients(X1, Y)
    assert pytest.approx(J0, rel=1e-13) == J
    np.testing.assert_allclose(other["dense_1"]["W"], np.hstack([one["dense_1"]["b"], one["dense_1"]["W"]]), rtol=1e-12)
    np.testing.assert_allclose(one["dense_1"]["W"], ((a - Y) * X).mean(axis=1, keepdims=True).T, rtol=1e-12)


def test_two_neuron_chain(rng):
    """Part 4 (S3): δ₂ = (a₂ - t₂) a₂ (1 - a₂), δ₁ = δ₂ w₂ a₁ (1 - a₁), w₂ -= η δ₂ a₁, w₁ -= η δ₁ x."""
    net = pl.Sequential(
        *(pl.Dense(1, "logistic", use_bias=False, name=name) for name in ("neuron_1", "neuron_2")),
        input_shape=1,
        loss="sum_of_squared_errors",
        dtype="float64",
        engine="numpy",
    )
    x, t2, w1, w2, eta = 0.7, 0.1, -1.3, 2.1, 0.5
    net.parameters = {"neuron_1": {"W": np.array([[w1]])}, "neuron_2": {"W": np.array([[w2]])}}
    X, T = np.array([[x]]), np.array([[t2]])

    a1 = 1 / (1 + np.exp(-w1 * x))
    a2 = 1 / (1 + np.exp(-w2 * a1))
    delta2 = (a2 - t2) * a2 * (1 - a2)
    delta1 = delta2 * w2 * a1 * (1 - a1)

    done = net.checked_iteration(X, T)
    assert float(done.outputs["output"][0, 0]) == pytest.approx(a2, rel=1e-14)
    assert float(done.cost) == pytest.approx(0.5 * (t2 - a2) ** 2, rel=1e-13)
    neuron1, neuron2 = net.layers
    p1, p2 = net.parameters["neuron_1"], net.parameters["neuron_2"]
    dA2 = done.outputs["output"] - T
    assert neuron2.intermediates(net.ops, p2, done.caches[1], dA2)["dZ"][0, 0] == pytest.approx(delta2, rel=1e-13)
    dA1, _ = neuron2.backward(net.ops, p2, done.caches[1], dA2)
    assert neuron1.intermediates(net.ops, p1, done.caches[0], dA1)["dZ"][0, 0] == pytest.approx(delta1, rel=1e-13)
    new, _ = pl.GradientDescent(eta).update(net.ops, net.parameters, done.grads, {}, learning_rate=eta, t=1)
    assert new["neuron_2"]["W"][0, 0] == pytest.approx(w2 - eta * delta2 * a1, rel=1e-13)
    assert new["neuron_1"]["W"][0, 0] == pytest.approx(w1 - eta * delta1 * x, rel=1e-13)


def test_branches_sum_the_chains_of_every_path(rng):
    """Part 7 (S3): with several paths from w to the error, dE/dw is the sum of the chains along each of them.

    x ─ w1 ─ a ┬─ w2 ─ b ─┬─ add ─ c ─ w4 ─ y
               └─ w3 ─ d ─┘└───────────────── z     (b is an output too)
    """
    x = pl.Input(1)
    neuron = {name: pl.Dense(1, "tanh", use_bias=False, name=name) for name in ("w1", "w2", "w3", "w4")}
    a = neuron["w1"](x)
    b, d = neuron["w2"](a), neuron["w3"](a)
    net = pl.Graph(
        inputs={"x": x},
        outputs={"y": neuron["w4"](pl.Add()(b, d)), "z": b},
        loss={"y": "squared_error", "z": "squared_error"},
        dtype="float64",
        engine="numpy",
    )
    w1, w2, w3, w4 = (float(net.parameters[name]["W"][0, 0]) for name in ("w1", "w2", "w3", "w4"))
    X, Y, T = 0.8, 0.3, -0.4
    A = np.tanh(w1 * X)
    B, D = np.tanh(w2 * A), np.tanh(w3 * A)
    y = np.tanh(w4 * (B + D))
    slope = {"a": 1 - A**2, "b": 1 - B**2, "d": 1 - D**2, "y": 1 - y**2}

    through_b_to_y = (y - Y) * slope["y"] * w4 * slope["b"] * w2 * slope["a"] * X
    through_d_to_y = (y - Y) * slope["y"] * w4 * slope["d"] * w3 * slope["a"] * X
    through_b_to_z = (B - T) * slope["b"] * w2 * slope["a"] * X

    _, grads = net.gradients({"x": np.array([[X]])}, {"y": np.array([[Y]]), "z": np.array([[T]])})
    assert grads["w1"]["W"][0, 0] == pytest.approx(through_b_to_y + through_d_to_y + through_b_to_z, rel=1e-12)
    assert grads["w2"]["W"][0, 0] == pytest.approx(
        (y - Y) * slope["y"] * w4 * slope["b"] * A + (B - T) * slope["b"] * A, rel=1e-12
    )


def test_logistic_slope_bounds_the_gradient_of_deep_chains(rng):
    """Part 15 (S3): the slope is ≤ 0.25, so each layer back multiplies ‖dA‖ by at most 0.25 ‖W‖₂."""
    depth, n = 12, 8
    net = pl.Sequential(
        *(pl.Dense(n, "logistic") for _ in range(depth)), input_shape=n, dtype="float64", engine="numpy", seed=3
    )
    A, caches = net.forward(rng.normal(size=(n, 1)))
    dA = rng.normal(size=A.shape)
    start = np.linalg.norm(dA)
    bound = start
    for layer, cache in zip(reversed(net.layers), reversed(caches), strict=True):
        params = net.parameters[net.names[layer]]
        values = layer.intermediates(net.ops, params, cache, dA)
        slopes = values["dZ"] / dA
        assert slopes.max() <= 0.25
        before = np.linalg.norm(dA)
        dA, _ = layer.backward(net.ops, params, cache, dA)
        factor = 0.25 * np.linalg.norm(params["W"], 2)
        bound *= factor
        assert 0 < np.linalg.norm(dA) <= factor * before
    assert np.linalg.norm(dA) <= bound < start / 100
    peak = pl.Sigmoid()
    assert peak.derivative(net.ops, peak.g(net.ops, np.zeros(1)))[0] == 0.25
