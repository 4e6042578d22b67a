"""A chain that is computed again is the chain: every value, gradient and state to the bit, and less memory."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from pellucid import engines, zoo
from pellucid.engines.base import Ops
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers import Mode
from pellucid.trees import flatten, leaves, tree_map

EXACT = [name for name in engines.available() if name != "jax"]  # whose compiler fuses the two programs differently
MEMBERS = {
    "dense": lambda: pl.Dense(4, "relu"),
    "prelu": lambda: pl.Dense(3, "prelu"),
    "norm": pl.BatchNorm,
    "dropout": lambda: pl.Dropout(0.5),
    "gelu": pl.GELU,
    "layer norm": pl.LayerNorm,
}


@pytest.mark.parametrize("engine", EXACT)
@given(
    chain=st.lists(st.sampled_from(sorted(MEMBERS)), min_size=1, max_size=6),
    train=st.booleans(),
    seed=st.integers(0, 9),
)
def test_it_is_the_chain_to_the_bit(engine, chain, train, seed):
    ops, rng = engines.get(engine), np.random.default_rng(seed)
    layer = pl.Recompute(*(MEMBERS[name]() for name in chain))
    params, state, key = layer.init(rng, (5,)), layer.init_state((5,)), ops.random_key(seed, 1)
    X = ops.asarray(rng.normal(size=(5, 7)).astype(np.float32))
    A, cache = layer.forward(ops, params, X, mode=Mode(train, key, state))

    own_A, caches = X, []
    for index, (name, member) in enumerate(layer.members.items()):
        mode = Mode(train, ops.fold_in(key, index), state.get(name, {}))
        own_A, own = member.forward(ops, params.get(name, {}), own_A, mode=mode)
        caches.append(own)
    np.testing.assert_array_equal(A, own_A)

    dA = d = rng.normal(size=A.shape).astype(np.float32)
    grads = {}
    for (name, member), own in reversed(list(zip(layer.members.items(), caches, strict=True))):
        d, grads[name] = member.backward(ops, params.get(name, {}), own, d)
    for _ in range(2):  # nothing is used up by the first time
        dA_prev, found = layer.backward(ops, params, cache, dA)
        np.testing.assert_array_equal(dA_prev, d)
        assert list(flatten(found)) == list(flatten(params))
        for path, dW in leaves(found):
            np.testing.assert_array_equal(dW, flatten(grads)[path], err_msg=path)
    for (name, member), own in zip(layer.members.items(), caches, strict=True):
        if name in state:
            after = member.next_state(ops, state[name], own)
            for path, value in leaves(after):
                np.testing.assert_array_equal(flatten(layer.next_state(ops, state, cache)[name])[path], value)


def images(recompute, *, engine="numpy", **options):
    """Two blocks of convolutions, plain or recomputed, with the same parameters."""
    blocks = [
        [pl.Conv2D(6, 3, padding="same", name="a"), pl.BatchNorm(name="b"), pl.ReLU(), pl.MaxPool2D(2, name="p")],
        [pl.Conv2D(4, 3, "relu", padding="same", name="c"), pl.Conv2D(4, 3, "tanh", name="d")],
    ]
    options = {"input_shape": (2, 12, 12), "loss": "softmax_cross_entropy", "regularizer": "l2(0.1)", **options}
    ends = [pl.Flatten(), pl.Dense(3)]
    plain = pl.Sequential(*blocks[0], *blocks[1], *ends, engine=engine, **options)
    if not recompute:
        return plain
    net = pl.Sequential(*(pl.Recompute(*block) for block in blocks), *ends, engine=engine, **options)
    own = plain.parameters
    net.parameters = {
        "recompute_1": {"a": own["a"], "b": own["b"]}, "recompute_2": {"c": own["c"], "d": own["d"]},
        "dense_1": own["dense_1"],
    }  # fmt: skip
    return net


@pytest.mark.parametrize("engine", EXACT)
def test_a_network_trains_to_the_same_numbers(engine, rng):
    x, y = rng.normal(size=(20, 2, 12, 12)).astype(np.float32), rng.integers(3, size=20)
    fits = []
    for recompute in (False, True):
        net = images(recompute, engine=engine)
        net.fit(x, y, epochs=2, batch_size=8, optimizer="adam(0.01)", progress=False)
        arrays = {**flatten(net.parameters), **flatten(net.state)}
        fits.append({path.removeprefix("recompute_1/").removeprefix("recompute_2/"): W for path, W in arrays.items()})
    assert fits[0].keys() == fits[1].keys()
    for path, W in fits[0].items():
        np.testing.assert_array_equal(fits[1][path], W, err_msg=path)
    assert not np.allclose(fits[0]["b/mean"], 0)


def test_gradients_penalties_and_names_through_a_network(rng):
    net = images(True, dtype="float64")
    X, Y = rng.normal(size=(2, 12, 12, 4)), np.array([0, 2, 1, 1])
    assert pl.check_gradients(net, X, Y).passed
    assert [(layer, path) for layer, path, _ in net.penalties] == [
        ("recompute_1", "a/W"), ("recompute_2", "c/W"), ("recompute_2", "d/W"), ("dense_1", "W"),
    ]  # fmt: skip
    plain = images(False, dtype="float64")
    assert net.cost(X, Y) == plain.cost(X, Y)
    own = pl.Sequential(
        pl.Recompute(pl.Dense(2, regularizer="l1(0.5)"), pl.Dense(2)), input_shape=3, loss="mse", regularizer="l2(1.0)"
    )
    W = own.parameters["recompute_1"]
    expected = 0.5 * np.abs(W["dense_1"]["W"]).sum() + 0.5 * (W["dense_2"]["W"] ** 2).sum()
    assert float(own.penalty(own.parameters)) == pytest.approx(expected, rel=1e-6)
    capped = pl.Sequential(pl.Recompute(pl.Dense(2, regularizer="max_norm(0.1)")), input_shape=3, loss="mse")
    projected = capped.projected(tree_map(np.copy, capped.parameters))["recompute_1"]["dense_1"]["W"]
    assert np.linalg.norm(projected, axis=1).max() <= 0.1 + 1e-6


def test_saved_and_described(tmp_path, rng):
    net = images(True)
    net.fit(rng.normal(size=(8, 2, 12, 12)), np.arange(8) % 3, epochs=1, progress=False)
    net.save(tmp_path / "net.pellucid")
    again = pl.load(tmp_path / "net.pellucid", engine="numpy")
    assert again.config() == net.config()
    assert list(again.layers[0].members) == ["a", "b", "relu_1", "p"]
    x = rng.normal(size=(3, 2, 12, 12)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    written = {"type": "Recompute", "layers": [{"type": "Dense", "units": 4, "activation": "relu"}, "Flatten"]}
    read = pl.from_config({"input_shape": [3], "layers": [written]})
    assert repr(read.layers[0]) == "Recompute(Dense(4, activation='relu'), Flatten())"


def test_padded_sequences_are_those_of_the_chain(rng):
    layers = [pl.TimeDistributed(pl.Dense(3, "tanh")), pl.GRU(4, return_sequences=True), pl.LSTM(3), pl.Dense(2)]
    plain = pl.Sequential(*layers, input_shape=(None, 2), loss="mse", dtype="float64", engine="numpy")
    net = pl.Sequential(pl.Recompute(*layers), input_shape=(None, 2), loss="mse", dtype="float64", engine="numpy")
    net.parameters = {"recompute_1": plain.parameters}
    X, Y, mask = rng.normal(size=(5, 2, 4)), rng.normal(size=(2, 4)), np.arange(5)[:, None] < [1, 5, 3, 2]
    J, grads = net.gradients(X, Y, mask=mask)
    plain_J, plain_grads = plain.gradients(X, Y, mask=mask)
    assert J == plain_J != plain.gradients(X, Y)[0]
    for path, dW in leaves(plain_grads):
        np.testing.assert_array_equal(flatten(grads["recompute_1"])[path], dW, err_msg=path)


def test_memory_of_the_caches_is_what_the_summary_foretells(rng):
    X = rng.normal(size=(2, 12, 12, 400)).astype(np.float32)
    kept, said = {}, {}
    for recompute in (False, True):
        net = images(recompute)
        said[recompute] = net.summary()
        gc.collect()
        tracemalloc.start()
        A, caches = net.forward(X, train=True)
        gc.collect()
        kept[recompute] = tracemalloc.get_traced_memory()[0] - A.nbytes
        tracemalloc.stop()
        del A, caches
    for recompute, s in said.items():
        held = 400 * s.cache_bytes_per_example + s.cache_bytes_fixed - X.nbytes
        assert kept[recompute] == pytest.approx(held, rel=0.02)
    assert said[True].recomputed_bytes_per_example == (
        said[False].cache_bytes_per_example - said[True].cache_bytes_per_example
    )
    # of the network's multiply–adds all but the last layer's, and a training step is three forward passes
    last = said[True].rows[-1].multiply_adds
    assert said[True].recomputed_multiply_adds == said[True].multiply_adds - last
    assert said[True].multiply_adds == said[False].multiply_adds
    share = (said[True].multiply_adds - last) / (3 * said[True].multiply_adds)
    assert f"less per example, {share:.0%} more multiply–adds in a training step" in str(said[True])
    assert "recomputed" not in str(said[False])


@pytest.mark.skipif("jax" not in engines.available(), reason="JAX is not installed")
def test_a_compiled_step_does_not_keep_what_it_will_compute_again(rng, monkeypatch):
    import jax

    blocks = [pl.Recompute(pl.Dense(64, "tanh"), pl.Dropout(0.5), pl.Dense(64, "tanh")) for _ in range(4)]
    net = pl.Sequential(*blocks, pl.Dense(3), input_shape=8, loss="softmax_cross_entropy", engine="jax")
    X, Y = net.checked(rng.normal(size=(8, 4096))), net.checked_targets(rng.integers(3, size=4096))
    temporary, grads = [], []
    for apart in (Ops.apart, type(net.ops).apart):
        monkeypatch.setattr(type(net.ops), "apart", apart)

        def step(params, X, Y, key):
            return net.iteration(params, {}, X, Y, mode=Mode(True, key, mask={})).grads

        arguments = (net.parameters, X, Y, net.ops.random_key(0, 1))
        compiled = jax.jit(step).lower(*arguments).compile()
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
        grads.append(flatten(compiled(*arguments)))
    assert temporary[1] < 0.6 * temporary[0], temporary
    for path, dW in grads[0].items():
        np.testing.assert_allclose(grads[1][path], dW, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("train", [True, False])
def test_a_trace_shows_every_member(rng, train):
    net, plain = images(True, dtype="float64"), images(False, dtype="float64")
    X, Y = rng.normal(size=(2, 12, 12, 3)), np.array([0, 2, 1])
    t, whole = (pl.trace(each, X, Y, train=train) for each in (net, plain))
    for name, member in (("a", 1), ("c", 5)):
        for value in ("Z", "dZ", "dW", "W"):
            of_chain = t[1 if name == "a" else 2]
            np.testing.assert_allclose(
                getattr(of_chain, f"{value}_{name}"), getattr(whole[member], value), rtol=1e-12, atol=1e-15
            )
    np.testing.assert_allclose(t[1].dA_a, whole[1].dA, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(t[1].mean_b, whole[2].mean, rtol=1e-12)
    assert t[2].equations["Z_d"] == "Σ_c W_d[2][o, c] ⋆ A_c[2][c] + b_d[2][o]"
    assert t[2].equations["dA_c"] == "Σ_o W_d[2][o, c] * dZ_d[2][o], true convolution"
    assert t[2].equations["dW_c"] == "(1/m) Σ_columns dZ_c[2][o] ⋆ A[1][c]"
    assert t[1].equations["A_hat_b"] == "(A_a[1] - μ_b[1]) / √(σ²_b[1] + ε)"
    assert t[2].equations["dW_c_penalty"] == "gradient of L2(rate=0.1)"
    assert "dW_c_total[2] = dW_c[2] + dW_c_penalty[2]" in str(t)
    assert t.update("gradient_descent(0.1)")["recompute_1/a/W"]["after"].shape == (6, 2, 3, 3)


def test_a_unit_sees_through_it():
    assert pl.receptive_field(images(True), "recompute_2").size == pl.receptive_field(images(False), "d").size


def test_averaged_weights_have_their_own_statistics(rng):
    x, y = rng.normal(size=(20, 2, 12, 12)), rng.integers(3, size=20)
    states = []
    for recompute in (False, True):
        net = images(recompute)
        net.fit(x, y, epochs=2, batch_size=8, callbacks=[pl.WeightAveraging()], progress=False)
        states.append(net.state["recompute_1"]["b"] if recompute else net.state["b"])
    np.testing.assert_array_equal(states[1]["mean"], states[0]["mean"])
    np.testing.assert_array_equal(states[1]["variance"], states[0]["variance"])


def test_gradients_that_nobody_asked_for_are_not_computed(rng):
    class Counted(pl.Layer):
        runs = 0

        def output_shape(self, input_shape):
            return input_shape

        def forward(self, ops, params, A_prev, *, mode=None):
            Counted.runs += 1
            return A_prev, ()

        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            raise AssertionError("nothing before it is trained")

    ops, X = engines.get("numpy"), rng.normal(size=(3, 5))
    bare = pl.Recompute(Counted(), pl.Tanh())
    _, cache = bare.forward(ops, {}, X)
    assert bare.backward(ops, {}, cache, X, input_gradient=False) == (None, {})
    assert Counted.runs == 1
    layer = pl.Recompute(Counted(), pl.Dense(2))
    params = layer.init(rng, (3,))
    A, cache = layer.forward(ops, params, X)
    dX, grads = layer.backward(ops, params, cache, A, input_gradient=False)
    assert dX is None
    np.testing.assert_allclose(grads["dense_1"]["W"], A @ X.T / 5)


def test_what_cannot_be_recomputed_is_refused():
    shared = pl.Dense(3)
    for layers, problem in (
        ([], "one layer or more"),
        ([shared, shared], "each at one place"),
        ([pl.Add()], "joins several inputs"),
        ([pl.GRU(2, stateful=True)], "starts where the batch before ended"),
        ([3], "cannot be used as layer"),
    ):
        with pytest.raises(ParameterError, match=problem):
            pl.Recompute(layers)
    with pytest.raises(ParameterError, match="a name of its own"):
        pl.Recompute(pl.Dense(2, name="x"), pl.Dense(2, name="x"))
    with pytest.raises(ShapeError, match=r"layer 1 \(recompute_1\) \(conv2d_1\)"):
        pl.Sequential(pl.Recompute(pl.Dense(4), pl.Conv2D(2, 3)), input_shape=3)
    with pytest.raises(ShapeError, match="has several outputs"):
        pl.Sequential(pl.Recompute(pl.Split(2)), input_shape=4)
    with pytest.raises(ParameterError, match="sigmoid_cross_entropy reads logits, and recompute_1 ends in sigmoid"):
        pl.Sequential(pl.Recompute(pl.Dense(1, "sigmoid")), input_shape=4, loss="sigmoid_cross_entropy")


def test_a_memory_inside_sees_whole_sequences(rng):
    chain = [pl.Recompute(pl.GRU(3, return_sequences=True), pl.TimeDistributed(pl.Dense(2)))]
    net = pl.Sequential(*chain, input_shape=(None, 2), loss="mse", engine="numpy")
    x, y = rng.normal(size=(6, 8, 2)), rng.normal(size=(6, 8, 2))
    with pytest.raises(ParameterError, match="recompute_1 needs the whole sequence"):
        net.fit(x, y, epochs=1, truncate=4, progress=False)
    net.fit(x, y, epochs=1, progress=False)


def test_vgg_in_recomputed_blocks():
    plain, net = (zoo.find("vgg-small").build((3, 32, 32), 10, width=0.1, recompute=each) for each in (False, True))
    assert [type(layer).__name__ for layer in net.layers[:6]] == ["Recompute"] * 5 + ["Flatten"]
    assert net.summary().parameters == plain.summary().parameters
    assert net.summary().cache_bytes_per_example < 0.3 * plain.summary().cache_bytes_per_example
