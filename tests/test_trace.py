"""One iteration laid open: the values are the network's own, to the bit, and they satisfy the equations beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pellucid as pl
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.trees import flatten, leaves


def _bits(one, other):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def chain(**options):
    return pl.Sequential(
        pl.Dense(6, "tanh"),
        pl.BatchNorm(),
        pl.Dropout(0.4),
        pl.Dense(6, "prelu"),
        pl.LayerNorm(),
        pl.Dense(3),
        **{"input_shape": 4, "loss": "softmax_cross_entropy", "regularizer": "elastic(0.01, 0.1)", **options},
    )


def branches(**options):
    a, b = pl.Input(4), pl.Input((1, 2, 3))
    shared = pl.Dense(6, "relu", name="shared")
    h = pl.Concat()(shared(a), shared(pl.Dense(4, "tanh", name="inside")(pl.Flatten()(b))))
    p, q = pl.Split(2)(h)
    s = pl.Dropout(0.3)(pl.Add()(shared(a), pl.Multiply()(p, q)))
    return pl.Graph(
        inputs={"a": a, "b": b},
        outputs={"kind": pl.Dense(3)(s), "size": pl.Dense(1, name="head")(h), "inner": h},
        loss={"kind": "softmax_cross_entropy", "size": "huber(0.5)", "inner": "squared_error"},
        loss_weights={"size": 0.3},
        regularizer="l2(0.1)",
        **options,
    )


def batch(net, rng, m=7):
    X = {name: rng.normal(size=(*shape, m)) for name, shape in net.inputs.items()}
    Y = {
        name: rng.integers(0, 3, m) if "softmax" in loss.registered_name else rng.normal(size=(*net.outputs[name], m))
        for name, loss in net.losses.items()
    }
    return (X, Y) if not net.single else (X["input"], Y["output"])


@pytest.mark.parametrize("make", [chain, branches])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_values_are_the_networks_own_to_the_bit(make, dtype, train, weighted, rng):
    net = make(dtype=dtype)
    X, Y = batch(net, rng)
    options = {"train": train, "update": 3, "sample_weight": rng.random(7) if weighted else None}
    plain = net.checked_iteration(X, Y, input_gradient=True, **options)
    without_dX = net.checked_iteration(X, Y, **options)
    t = pl.trace(net, X, Y, **options)

    assert t.cost == float(plain.cost) == float(without_dX.cost)
    for path, grad in leaves(t.grads):
        _bits(grad, flatten(plain.grads)[path])
        _bits(grad, flatten(without_dX.grads)[path])
    for name, dX in plain.d_inputs.items():
        _bits(t[0].dA if net.single else t[0].values[f"dA_{name}"], dX)
    for name, A in plain.outputs.items():
        _bits(t[net.ends[name]].A, A)
    _bits(sum(loss.L for loss in t.loss.values()), plain.losses)


@pytest.mark.parametrize("make", [chain, branches])
def test_every_value_satisfies_its_equation(make, rng):
    net = make(dtype="float64")
    X, Y = batch(net, rng)
    t = pl.trace(net, X, Y, update=2)
    for each in t:
        if not isinstance(each.layer, pl.Dense):
            continue
        np.testing.assert_allclose(each.Z, each.W @ each.A_prev + each.b, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(each.dW, each.dZ @ each.A_prev.T / 7, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(each.db, each.dZ.sum(axis=1, keepdims=True) / 7, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(each.dA_prev, each.W.T @ each.dZ, rtol=1e-13, atol=1e-15)
        slope = {"tanh": 1 - each.A**2, "relu": each.Z > 0, "identity": 1.0}.get(each.layer.activation.registered_name)
        if slope is not None:
            np.testing.assert_allclose(each.dZ, each.dA * slope, rtol=1e-13, atol=1e-15)
    dropped = t["dropout_1"]
    rate = dropped.layer.rate
    np.testing.assert_allclose(dropped.A, dropped.A_prev * dropped.D / (1 - rate), rtol=1e-6)
    assert 0 < dropped.D.mean() < 1


def test_neighbours_in_a_chain_agree(rng):
    net = chain()
    t = pl.trace(net, *batch(net, rng))
    for before, after in zip([t[0], *t], t, strict=False):
        _bits(before.A, after.A_prev)
        _bits(before.dA, after.dA_prev)
    _bits(t[-1].dA, t.loss["output"].dA)


def test_gradients_are_summed_over_the_paths_and_over_a_layers_uses(rng):
    net = branches(dtype="float64")
    t = pl.trace(net, *batch(net, rng))
    joined, inner = t["concat_1"], t.loss["inner"]
    through = t["split_1"].dA_prev + t["head"].dA_prev + inner.dA
    np.testing.assert_allclose(joined.dA, through, rtol=1e-14)
    assert joined.equations["dA"] == "sum of the gradients through split_1, head, the loss of inner"

    uses = [each for each in t if each.layer.name == "shared"]
    assert sorted(each.name for each in uses) == ["shared", "shared@2", "shared@3"]
    np.testing.assert_allclose(sum(each.db for each in uses), t.grads["shared"]["b"], rtol=1e-14)
    np.testing.assert_allclose(sum(each.dW for each in uses) + uses[0].dW_penalty, t.grads["shared"]["W"], rtol=1e-14)
    for each in uses:
        _bits(each.dW_total, t.grads["shared"]["W"])
    assert uses[0].equations["dW_total"] == "dW[shared] + dW[shared@2] + dW[shared@3] + dW_penalty[shared]"
    of_a = [each.dA_prev for each in uses if each.sources == ("a",)]
    assert len(of_a) == 2
    np.testing.assert_allclose(t[0].dA_a, sum(of_a), rtol=1e-14)


def test_the_penalty_is_shown_apart_from_dW(rng):
    net = chain(dtype="float64")
    t = pl.trace(net, *batch(net, rng))
    W = t[1].W
    np.testing.assert_allclose(t[1].dW_penalty, 0.01 * np.sign(W) + 0.1 * W, rtol=1e-14)
    np.testing.assert_allclose(t[1].dW_total, t[1].dW + t[1].dW_penalty, rtol=1e-14)
    assert "db_total" not in t[1].values
    assert t.penalty == pytest.approx(sum(0.01 * abs(W).sum() + 0.05 * (W**2).sum() for W in (t[1].W, t[4].W, t[6].W)))
    assert t.cost == pytest.approx(t.loss["output"].L.mean() + t.penalty)
    unpenalised = pl.trace(chain(regularizer="max_norm(1)"), *batch(net, rng))
    assert not [name for name in unpenalised[1].values if "penalty" in name or "total" in name]


def test_the_trace_is_a_copy_and_changes_nothing(rng):
    net = chain()
    X, Y = batch(net, rng)
    state, params = flatten(net.state), {path: leaf.copy() for path, leaf in leaves(net.parameters)}
    before = {path: leaf.copy() for path, leaf in state.items()}
    t = pl.trace(net, X, Y)
    for path, leaf in leaves(net.parameters):
        _bits(leaf, params[path])
    for path, leaf in leaves(net.state):
        _bits(leaf, before[path])
    W = t[1].W.copy()
    net.parameters["dense_1"]["W"][...] = 0
    X[...] = 0
    _bits(t[1].W, W)
    assert t[0].A.any()


def test_equations_carry_the_layers_number_in_a_chain():
    net = pl.Sequential(pl.Dense(3, "sigmoid"), pl.Dense(1, "sigmoid"), input_shape=2, loss="binary_cross_entropy")
    t = pl.trace(net, np.ones((2, 4)), np.ones((1, 4)))
    assert {name: f"{t[2].titles[name]} = {t[2].equations[name]}" for name in t[2].equations} == {
        "Z": "Z[2] = W[2] A[1] + b[2]",
        "A": "A[2] = sigmoid(Z[2])",
        "dA": "dA[2] = -Y/A[2] + (1-Y)/(1-A[2])",
        "dZ": "dZ[2] = dA[2] * sigmoid'(Z[2])",
        "dW": "dW[2] = (1/m) dZ[2] A[1]ᵀ",
        "db": "db[2] = (1/m) Σ_columns dZ[2]",
        "dA_prev": "dA[1] = W[2]ᵀ dZ[2]",
    }
    assert t[1].equations["dA"] == "W[2]ᵀ dZ[2]"
    assert t[0].equations["dA"] == "W[1]ᵀ dZ[1]"
    assert t[2].shapes == {
        "W": (1, 3), "b": (1, 1), "A_prev": (3, 4), "Z": (1, 4), "A": (1, 4), "dA": (1, 4), "dZ": (1, 4),
        "dW": (1, 3), "db": (1, 1), "dA_prev": (3, 4),
    }  # fmt: skip


def test_equations_carry_names_in_a_graph(rng):
    net = branches()
    t = pl.trace(net, *batch(net, rng), sample_weight=np.ones(7))
    assert t["inside"].equations["Z"] == "W[inside] A[flatten_1] + b[inside]"
    assert t["concat_1"].equations["A"] == "concat(A[shared@2], A[shared@3])"
    assert t["multiply_1"].equations["A"] == "product(A[split_1:0], A[split_1:1])"
    assert t["add_1"].equations["A"].startswith("sum(A[shared")
    assert t.loss["size"].equations["L"].startswith("0.3 w (")
    assert t["split_1"].titles["A"] == "A[split_1:0], A[split_1:1]"
    assert t["split_1"].titles["dA_prev"] == "dA[concat_1] through split_1"


def test_a_graph_without_branches_is_numbered_and_one_with_several_outputs_is_not():
    x = pl.Input(3)
    straight = pl.Graph(inputs=x, outputs=pl.Dense(1)(pl.Dense(2)(x)), loss="squared_error")
    t = pl.trace(straight, np.ones((3, 2)), np.ones(2))
    assert t[2].equations["Z"] == "W[2] A[1] + b[2]"

    x = pl.Input(4)
    part, _ = pl.Split(2)(x)
    forked = pl.Graph(inputs={"x": x}, outputs={"all": x, "part": part}, loss={"all": "mse", "part": "squared_error"})
    X = np.arange(8.0).reshape(4, 2)
    t = pl.trace(forked, {"x": X}, {"all": np.zeros((4, 2)), "part": np.zeros((2, 2))})
    assert t[0].equations == {"A": "X", "dA": "sum of the gradients through split_1, the loss of all"}
    assert t["split_1"].titles["A"] == "A[split_1:0], A[split_1:1]"
    assert t.loss["part"].titles["dA"] == "dA[split_1:0]"
    np.testing.assert_array_equal(t[0].dA, X / 2 + np.vstack([X[:2], 0 * X[2:]]))


def test_batch_norm_shows_the_statistics_it_used(rng):
    net = pl.Sequential(pl.BatchNorm(), pl.Dense(1), input_shape=3, loss="squared_error", dtype="float64")
    X, Y = rng.normal(size=(3, 8)), rng.normal(size=(1, 8))
    t = pl.trace(net, X, Y)
    np.testing.assert_allclose(t[1].mean, X.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(t[1].variance, X.var(axis=1, keepdims=True))
    assert t[1].titles["dgamma"] == "dγ[1]"
    assert t[1].equations["A"] == "γ[1] A_hat[1] + β[1]"
    predicting = pl.trace(net, X, Y, train=False)
    np.testing.assert_array_equal(predicting[1].mean, np.zeros((3, 1)))
    assert predicting[1].equations["dA_prev"] == "dA_hat[1] / √(σ²[1] + ε)"
    np.testing.assert_allclose(predicting[1].dA_prev, predicting[1].dA_hat / np.sqrt(1 + 1e-5))


def test_the_text_for_one_example_is_column_vectors():
    net = pl.Sequential(pl.Dense(1), input_shape=3, loss="squared_error", dtype="float64")
    net.parameters = {"dense_1": {"W": np.array([[2.0, -1.0, 0.5]]), "b": np.array([[1.0]])}}
    text = pl.trace(net, np.array([[1.0], [2.0], [-4.0]]), np.array([[0.5]])).show()
    forward = text[text.index("layer 0") : text.index("loss ")].rstrip("\n─ ")
    assert forward == "\n".join(
        [
            "layer 0 · input",
            f"  {'A[0] = X':<56}  (3, 1)",
            "      ⎡  1 ⎤",
            "      ⎢  2 ⎥",
            "      ⎣ -4 ⎦",
            "layer 1 · dense_1 = Dense(1)",
            f"  {'W[1]':<56}  (1, 3)",
            "      [ 2.0000  -1.0000  0.5000 ]",
            f"  {'b[1]':<56}  (1, 1)",
            "      [ 1 ]",
            f"  {'Z[1] = W[1] A[0] + b[1]':<56}  (1, 1)",
            "      [ -1 ]",
            f"  {'A[1] = Z[1]':<56}  (1, 1)",
            "      [ -1 ]",
        ]
    )
    assert "J = (1/m) Σ L = 1.125" in text
    assert "X (3, 1) → dense_1 (1, 1) = Ŷ" in text
    assert "dA[0] = W[1]ᵀ dZ[1]" in text


def test_one_example_of_a_batch_and_the_abbreviation_of_large_matrices(rng):
    net = pl.Sequential(pl.Dense(20, "relu"), pl.Dense(3), input_shape=30, loss="softmax_cross_entropy")
    X, Y = rng.normal(size=(30, 9)), rng.integers(0, 3, 9)
    t = pl.trace(net, X, Y)
    text = t.show(example=4, precision=2, max_items=4)
    assert "example 4 shown; dW and its like are means over all 9" in text
    assert f"      ⎡ {X[0, 4]:5.2f} ⎤" in text
    assert f"{'A[0] = X':<56}  (30, 1)" in text
    assert f"      ⎢ {'⋮':>5} ⎥" in text
    assert f"{'dW[2] = (1/m) dZ[2] A[1]ᵀ':<56}  (3, 20)" in text
    assert max(map(len, text.splitlines())) <= 110
    with pytest.raises(ParameterError, match=r"no such example\n  expected: 0 … 8\n  got:      9"):
        t.show(example=9)


def test_an_image_is_shown_by_one_plane(rng):
    net = pl.Sequential(pl.Flatten(), pl.Dense(1), input_shape=(2, 3, 3), loss="squared_error")
    X = rng.normal(size=(2, 3, 3, 5))
    text = pl.trace(net, X, np.zeros(5)).show(example=2)
    assert f"⎡ {X[0, 0, 0, 2]:7.4f}".split()[1] in text
    assert "[0, :, :, 0] of (2, 3, 3, 1)" in text


def test_norms_find_dead_and_saturated_units():
    net = pl.Sequential(pl.Dense(2, "relu"), pl.Dense(2, "sigmoid"), pl.Dense(1), input_shape=1, loss="squared_error")
    net.parameters = {
        "dense_1": {"W": np.array([[1.0], [-1.0]]), "b": np.array([[0.0], [0.0]])},
        "dense_2": {"W": np.array([[0.0, 0.0], [1.0, 0.0]]), "b": np.zeros((2, 1))},
        "dense_3": {"W": np.array([[3.0, 4.0]]), "b": np.zeros((1, 1))},
    }
    first, second, last = pl.trace(net, np.array([[1.0, 10.0]]), np.zeros(2)).norms()
    assert (first.name, first.dead, first.saturated) == ("dense_1", 0.5, None)
    assert (second.dead, second.saturated) == (0.0, 0.25)  # σ'(10) alone is below 5 % of 1/4
    assert (last.dead, last.saturated) == (None, None)
    np.testing.assert_allclose(first.A, np.sqrt((1 + 100) / 2))
    np.testing.assert_allclose(last.W, 5.0)
    assert last.ratio == pytest.approx(last.dW / 5.0)


@pytest.mark.parametrize("rule", ["gradient_descent(0.1)", "adam(0.01)", "momentum(0.1)"])
def test_update_shows_what_the_optimizer_would_do(rule, rng):
    net = chain(dtype="float64")
    t = pl.trace(net, *batch(net, rng))
    update = t.update(rule)
    assert list(update) == [path for path, _ in leaves(net.parameters)]
    for path, change in update.items():
        _bits(change["before"], flatten(net.parameters)[path])
        _bits(change["gradient"], flatten(t.grads)[path])
        if rule != "adam(0.01)":  # the first step of momentum, from rest, is gradient descent's
            np.testing.assert_allclose(change["after"], change["before"] - 0.1 * change["gradient"], atol=1e-15)
        else:
            step = change["after"] - change["before"]
            np.testing.assert_allclose(step, -0.01 * np.sign(change["gradient"]), atol=1e-6)
    text = str(update)
    assert "W[1] after the update" in text
    assert "dγ[2]" in text
    assert f"α = {update.learning_rate:g}" in text


def test_update_keeps_to_the_constraints(rng):
    net = pl.Sequential(pl.Dense(3), input_shape=4, loss="squared_error", regularizer="max_norm(0.5)")
    after = pl.trace(net, rng.normal(size=(4, 6)), rng.normal(size=(3, 6))).update("gradient_descent(1.0)")
    assert np.linalg.norm(after["dense_1/W"]["after"], axis=1).max() <= 0.5 + 1e-6


def test_the_document_survives_json(rng):
    net = branches()
    t = pl.trace(net, *batch(net, rng))
    document = json.loads(json.dumps(t.document(), allow_nan=False))
    layers = {each["name"]: each for each in document["layers"]}
    W = layers["inside"]["values"]["W"]
    _bits(np.array(W["value"], np.float32), t["inside"].W)
    assert W["shape"] == [4, 6]
    assert layers["inside"]["values"]["Z"]["equation"] == "W[inside] A[flatten_1] + b[inside]"
    assert [np.array(part).shape for part in layers["split_1"]["values"]["A"]["value"]] == [(6, 7), (6, 7)]
    assert document["cost"] == t.cost
    assert {each["name"] for each in document["losses"]} == {"kind", "size", "inner"}
    assert set(document["gradients"]) == {path for path, _ in leaves(net.parameters)}


def test_a_layer_of_your_own_is_traced_by_its_weights_names():
    class TracedLinear(pl.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(2, input_shape[0]))

        def call(self, inputs):
            return self.w @ inputs

        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            return params["w"].T @ dA, {"w": dA @ cache.A_prev.T / dA.shape[-1]}

    net = pl.Sequential(TracedLinear(), input_shape=3, loss="squared_error")
    t = pl.trace(net, np.ones((3, 2)), np.ones((2, 2)))
    _bits(t[1].dw, t.grads["traced_linear_1"]["w"])
    assert t[1].equations["A"] == "TracedLinear(A[0])"


def test_what_is_not_there_is_refused_by_name(rng):
    net = chain()
    X, Y = batch(net, rng)
    t = pl.trace(net, X, Y)
    with pytest.raises(
        AttributeError, match=r"layer 1 · dense_1 = .*unknown value 'dZZ'\n  expected: one of A, A_prev"
    ):
        _ = t[1].dZZ
    assert not hasattr(t[3], "W")
    with pytest.raises(ParameterError, match=r"trace: unknown layer 'dense_9'[\s\S]*did you mean"):
        _ = t["dense_9"]
    with pytest.raises(ParameterError, match=r"expected: 0 \(the input\) … 6, or a name\n  got:      7"):
        _ = t[7]
    with pytest.raises(ShapeError, match="A\\[0\\]"):
        pl.trace(net, X.T, Y)
    with pytest.raises(DataError, match="not finite"):
        pl.trace(net, X * np.inf, Y)
    with pytest.raises(ParameterError, match="has no loss"):
        pl.trace(pl.Sequential(pl.Dense(1), input_shape=4), X, Y)
    assert [each.name for each in t] == [step.label for step in net.steps]
    assert len(t) == 6
    assert "dZ" in dir(t[1])
