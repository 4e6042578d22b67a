"""Recurrent networks laid open, written to files and back, in graphs and under regularizers."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pellucid as pl
from pellucid.cli import main
from pellucid.errors import ParameterError, ShapeError
from pellucid.inspect.receptive_field import receptive_field
from pellucid.layers import layers
from pellucid.network.saving import from_config, read_toml
from pellucid.registry import config
from pellucid.sequences import Sequences
from pellucid.trees import flatten, leaves

CELLS = [pl.SimpleRNN, pl.LSTM, pl.GRU]
cells = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
GATES = {pl.SimpleRNN: (), pl.LSTM: ("i", "f", "g", "o", "C"), pl.GRU: ("r", "z", "v", "n")}


def a_mask(rng, T=5, m=4):
    mask = rng.random((T, m)) < 0.6
    mask[rng.integers(T, size=m), np.arange(m)] = True
    return mask


def net_around(*layers, loss="softmax_cross_entropy", **options):
    options = {"input_shape": (None, 3), "dtype": "float64", "seed": 2, **options}
    return pl.Sequential(*layers, loss=loss, **options)


# --- the trace ------------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("every_step", [False, True])
def test_the_gradient_is_the_sum_over_the_steps(cell, reverse, masked, every_step, rng):
    net = net_around(
        cell(2, return_sequences=every_step, reverse=reverse),
        pl.TimeDistributed(pl.Dense(3)) if every_step else pl.Dense(3),
    )
    X, mask = rng.normal(size=(5, 3, 4)), a_mask(rng) if masked else None
    Y = rng.integers(3, size=(5, 4) if every_step else 4)
    t = pl.trace(net, X, Y, mask=mask)[1]
    np.testing.assert_allclose(t.dW_steps.sum(axis=0), t.dW, rtol=1e-12)
    np.testing.assert_allclose(t.dU_steps.sum(axis=0), t.dU, rtol=1e-12)
    np.testing.assert_allclose(t.dZ.sum(axis=(0, 2))[:, None] / 4, t.db, rtol=1e-12)
    if masked:
        assert not (t.dZ * ~mask[:, None]).any()
        assert not t.dW_steps[~mask.any(axis=1)].any()
    shapes = {"h": (5, 2, 4), "dh": (5, 2, 4), "dW_steps": (5, len(t.W), 3), **dict.fromkeys(GATES[cell], (5, 2, 4))}
    assert {name: t.shapes[name] for name in shapes} == shapes


@cells
@pytest.mark.parametrize("reverse", [False, True])
def test_the_equations_hold_of_the_values(cell, reverse, rng):
    """Every value of every step from the values before it, as the trace writes it."""
    net = net_around(cell(2, return_sequences=True, reverse=reverse), pl.TimeDistributed(pl.Dense(2)), loss="mse")
    t = pl.trace(net, rng.normal(size=(5, 3, 4)), rng.normal(size=(5, 2, 4)))[1]
    step = 1 if reverse else -1
    sigmoid = lambda Z: 1 / (1 + np.exp(-Z))  # noqa: E731
    for k in range(1, 4):
        before = t.h[k + step]
        WX, Uh = t.W @ t.A_prev[k] + t.b, t.U @ before
        if cell is pl.SimpleRNN:
            expected = {"h": np.tanh(WX + Uh), "dZ": t.dh[k] * (1 - t.h[k] ** 2)}
        elif cell is pl.LSTM:
            i, f, g, o = np.split(WX + Uh, 4)
            expected = {"i": sigmoid(i), "f": sigmoid(f), "g": np.tanh(g), "o": sigmoid(o)}
            expected |= {"C": t.f[k] * t.C[k + step] + t.i[k] * t.g[k], "h": t.o[k] * np.tanh(t.C[k])}
        else:
            (r, z, n), (Ur, Uz, v) = np.split(WX, 3), np.split(Uh, 3)
            expected = {"r": sigmoid(r + Ur), "z": sigmoid(z + Uz), "v": v + t.c, "n": np.tanh(n + t.r[k] * t.v[k])}
            expected |= {"h": (1 - t.z[k]) * t.n[k] + t.z[k] * before}
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(t, name)[k], value, rtol=1e-10, err_msg=name)
        np.testing.assert_allclose(t.dA_prev[k], t.W.T @ t.dZ[k], rtol=1e-10)


@cells
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("every_step", [False, True])
def test_dh_is_the_gradient_by_every_state(cell, masked, every_step, rng):
    """What J changes by when h of one step does, the steps after it running on from there."""
    net = net_around(
        cell(2, return_sequences=every_step), pl.TimeDistributed(pl.Dense(2)) if every_step else pl.Dense(2), loss="mse"
    )
    X, mask = rng.normal(size=(5, 3, 4)), a_mask(rng) if masked else np.ones((5, 4), bool)
    mask[3:] = True
    Y = rng.normal(size=(5, 2, 4) if every_step else (2, 4))
    t = pl.trace(net, X, Y, mask=mask if masked else None)[1]
    params, dense = net.parameters.values()

    def J(k, h):
        """Losses of the steps from k on, summed over the examples, from the state after step k with this h."""
        start = {"h": h, "C": t.C[k]} if cell is pl.LSTM else {"h": h}
        after = pl.layers.Mode(True, mask=mask[k + 1 :], state=start)
        one = cell(2, return_sequences=True)
        later, _ = one.forward(net.ops, params, X[k + 1 :], mode=after)
        states = np.concatenate([h[None], later])
        if every_step:
            said = np.stack([dense["W"] @ state + dense["b"] for state in states])
            share = net.losses["output"].shares(mask, np.float64)[k:]
            return (((said - Y[k:]) ** 2).mean(axis=1) * share).sum()
        return ((dense["W"] @ states[-1] + dense["b"] - Y) ** 2).mean(axis=0).sum()

    for k in range(4):
        u = rng.normal(size=t.h[k].shape)
        slope = (J(k, t.h[k] + 1e-5 * u) - J(k, t.h[k] - 1e-5 * u)) / 2e-5
        np.testing.assert_allclose((t.dh[k] * u).sum(), slope, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("layer", ["simple_rnn", "bidirectional", "gru"])
def test_it_prints_every_value_with_its_equation_and_shape(layer, rng):
    made = {
        "simple_rnn": pl.SimpleRNN(2, return_sequences=True),
        "bidirectional": pl.Bidirectional(pl.LSTM(2, return_sequences=True)),
        "gru": pl.GRU(2, return_sequences=True, reverse=True),
    }[layer]
    net = net_around(made, pl.MeanOverTime(), pl.Dense(2))
    t = pl.trace(net, rng.normal(size=(4, 3, 3)), np.array([0, 1, 1]))
    text, own = str(t), t[1]
    forward, _, backward = text.partition("backward, right to left")
    for name in own.values:
        if name not in ("A_prev", "A", "dA", "dA_prev", *net.parameters[own.name]):
            assert own.equations.get(name), f"{name} has no equation"
            line = f"{own.titles[name]} = {own.equations[name]}"
            assert line in (backward if name.startswith("d") else forward)
            assert line not in (forward if name.startswith("d") else backward)
    said = {
        "simple_rnn": ["h[1] = tanh(W[1] A[0][t] + U[1] h[1][t-1] + b[1])", "dh[1] = dA[1][t] + U[1]ᵀ dZ[1][t+1]"],
        "bidirectional": ["A[1] = [h_forward[1]; h_backward[1]] at every t", "C_backward[1] = f_backward[1][t] * C"],
        "gru": ["h[1] = (1 - z[1][t]) * n[1][t] + z[1][t] * h[1][t+1]", "dU[1] = (1/m) Σ_t dV[t] h[1][t+1]ᵀ"],
    }[layer]
    for each in said:
        assert each in text
    assert "A[2] = (1/T) Σ_t A[1][t]" in text
    assert "(4, 2, 3)" in text
    one = t.show(1)
    assert f"{own.titles['A']} = {own.equations['A']}" in one
    assert "(4, 2, 1)" in one or "(4, 4, 1)" in one


def test_shares_of_the_steps_have_no_example_axis(rng):
    net = net_around(pl.SimpleRNN(2), pl.Dense(2))
    t = pl.trace(net, rng.normal(size=(4, 3, 3)), np.array([0, 1, 1]))
    assert "[0, :, :] of (4, 2, 3)" in t[1].show(2)
    assert t[1].dW_steps.shape == (4, 2, 3)


def test_norms_and_dead_units_of_sequences(rng):
    net = net_around(pl.LSTM(4, return_sequences=True), pl.TimeDistributed(pl.Dense(5, "relu")), pl.GRU(3), pl.Dense(2))
    t = pl.trace(net, rng.normal(size=(5, 3, 4)), np.array([0, 1, 1, 0]), mask=a_mask(rng))
    for norm, each in zip(t.norms(), t, strict=True):
        assert pytest.approx(np.sqrt((each.A**2).sum() / 4)) == norm.A
        assert norm.dW > 0


# --- summary, receptive field, gradient check -----------------------------------------------------------------------


def test_a_summary_says_T_where_it_may_be_any():
    net = net_around(
        pl.LSTM(4, return_sequences=True), pl.TimeDistributed(pl.Dense(5, "relu")), pl.Bidirectional(pl.GRU(3))
    )
    text = str(net.summary())
    for said in ("(T, 3)", "(T, 4)", "(T, 5)", "(6,)", "TimeDistributed(Dense(5, activation='relu'))", "any number T"):
        assert said in text
    assert "None" not in text
    rows = net.summary().rows
    assert [row.parameters for row in rows] == [4 * 4 * (3 + 4 + 1), 25, 2 * (9 * (5 + 3 + 1) + 3)]
    assert [row.multiply_adds for row in rows] == [4 * 4 * 7, 20, 2 * 9 * 8], "of one step"
    known = net_around(pl.LSTM(4), pl.Dense(2), input_shape=(7, 3)).summary()
    assert [row.multiply_adds for row in known.rows] == [7 * 4 * 4 * 7, 8]
    assert "T)" not in str(known)


def test_a_receptive_field_of_a_sequence_is_refused():
    for layer, said in (
        (pl.SimpleRNN(3, return_sequences=True), "SimpleRNN(.|\n)*a step sees every step up to its own"),
        (pl.Bidirectional(pl.GRU(3, return_sequences=True)), "Bidirectional(.|\n)*before it and behind it"),
        (pl.TimeDistributed(pl.Dense(3)), "TimeDistributed(.|\n)*its own step alone"),
    ):
        net = net_around(layer, pl.Tanh(), input_shape=(6, 3))
        with pytest.raises(ParameterError, match=said):
            receptive_field(net, "tanh_1")
        with pytest.raises(ParameterError, match=r"any number of steps(.|\n)*a number for T"):
            receptive_field(net_around(layer), net.names[layer])


def test_features_of_a_frame_by_frame_network(rng):
    net = pl.Sequential(
        pl.TimeDistributed(pl.Conv2D(2, 3, "tanh")),
        pl.TimeDistributed(pl.Flatten()),
        pl.LSTM(3),
        pl.Dense(2),
        input_shape=(None, 1, 5, 5),
        loss="softmax_cross_entropy",
        dtype="float64",
    )
    X = rng.normal(size=(4, 1, 5, 5, 3))
    assert pl.check_gradients(net, X, np.array([0, 1, 0]), mask=a_mask(rng, 4, 3)).passed
    assert net.summary().rows[0].output_shape == (None, 2, 3, 3)


@cells
def test_a_wrong_backward_is_found_and_blamed(cell, rng):
    class Wrong(cell):
        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            dX, grads = super().backward(ops, params, cache, dA, input_gradient=input_gradient)
            return dX, {**grads, "U": 1.01 * grads["U"]}

    net = net_around(Wrong(2), pl.Dense(2))
    report = pl.check_gradients(net, rng.normal(size=(4, 3, 3)), np.array([0, 1, 1]), mask=a_mask(rng, 4, 3))
    assert {each.path.partition("/")[2] for each in report.wrong} == {"U"}
    assert len(report.blame) == 1
    assert "wrong_1" in report.blame[0]


# --- files ----------------------------------------------------------------------------------------------------------

DEEP = [
    pl.Embedding(9, 4),
    pl.Bidirectional(pl.LSTM(3, return_sequences=True, forget_bias=0.5, regularizer="l2(0.1)"), "sum"),
    pl.TimeDistributed(pl.Dense(4, "leaky_relu(0.2)", regularizer="l1(0.1)")),
    pl.TimeDistributed(pl.PReLU()),
    pl.GRU(3, return_sequences=True, reverse=True, use_bias=False),
    pl.SimpleRNN(3, "relu", recurrent_initializer="identity"),
    pl.Repeat(2),
    pl.MeanOverTime(),
    pl.Dense(2),
]


def deep():
    rebuilt = [layers.get(config(layer)) for layer in DEEP]
    return pl.Sequential(*rebuilt, input_shape=(None,), loss="softmax_cross_entropy", dtype="float64", seed=3)


def test_saved_and_loaded(tmp_path, rng):
    net = deep()
    x, y = [rng.integers(9, size=T) for T in (3, 1, 4, 4)], np.array([0, 1, 1, 0])
    net.fit(Sequences(x), y, epochs=1, progress=False)
    net.save(tmp_path / "net.pellucid")
    loaded = pl.load(tmp_path / "net.pellucid")
    assert repr(loaded) == repr(net)
    assert loaded.inputs == {"input": (None,)}
    np.testing.assert_array_equal(loaded.predict(Sequences(x)), net.predict(Sequences(x)))
    assert loaded.evaluate(Sequences(x), y) == net.evaluate(Sequences(x), y)
    assert json.loads(json.dumps(net.config())) == net.config()


def test_to_toml_and_back(tmp_path):
    import tomli_w

    net = deep()
    path = tmp_path / "net.toml"
    path.write_text(tomli_w.dumps(net.config()))
    assert 'input_shape = [\n    "T",\n]' in path.read_text()
    again = from_config(read_toml(path))
    assert again.config() == net.config()
    assert repr(again) == repr(net)
    for name, W in flatten(net.parameters).items():
        np.testing.assert_array_equal(flatten(again.parameters)[name], W)


def test_a_network_written_by_hand(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(
        """
        input_shape = ["T", 12]
        loss = "softmax_cross_entropy"
        [[layers]]
        type = "Bidirectional"
        layer = {type = "LSTM", units = 8, return_sequences = true}
        merge = "average"
        [[layers]]
        type = "TimeDistributed"
        layer = {type = "Dense", units = 5, activation = "relu"}
        [[layers]]
        type = "MeanOverTime"
        [[layers]]
        type = "Dense"
        units = 9
        """
    )
    net = from_config(read_toml(path))
    assert net.shapes == [(None, 12), (None, 8), (None, 5), (5,), (9,)]
    for wrong in ('["t", 12]', '[12, "T"]', '"T"', "[-1, 12]", "[0, 12]"):
        path.write_text(path.read_text().replace('["T", 12]', wrong))
        with pytest.raises(ShapeError, match="a shape is made of positive integers"):
            from_config(read_toml(path))
        path.write_text(path.read_text().replace(wrong, '["T", 12]'))


def test_a_graph_with_states_saved_and_loaded(tmp_path, rng):
    net = encoder_decoder("float32")
    net.save(tmp_path / "net.pellucid")
    loaded = pl.load(tmp_path / "net.pellucid")
    x = {"source": rng.normal(size=(3, 5, 2)), "target": rng.normal(size=(3, 4, 3))}
    np.testing.assert_array_equal(loaded.predict(x)["said"], net.predict(x)["said"])
    assert loaded.config() == net.config()


# --- graphs ---------------------------------------------------------------------------------------------------------


def encoder_decoder(dtype="float64", cell=pl.LSTM):
    """All the input first, then the output: the decoder starts from the state that the encoder ends with."""
    source, target = pl.Input((None, 2)), pl.Input((None, 3))
    _, *states = cell(4, return_state=True, name="encoder")(source)
    A = cell(4, return_sequences=True, name="decoder")(target, *states)
    return pl.Graph(
        inputs={"source": source, "target": target},
        outputs={"said": pl.TimeDistributed(pl.Dense(3))(A)},
        loss="softmax_cross_entropy",
        dtype=dtype,
    )


@cells
def test_states_go_from_layer_to_layer(cell, rng):
    net = encoder_decoder(cell=cell)
    X = {"source": rng.normal(size=(5, 2, 4)), "target": rng.normal(size=(3, 3, 4))}
    masks = {"source": a_mask(rng), "target": a_mask(rng, 3)}
    Y = rng.integers(3, size=(3, 4))
    assert pl.check_gradients(net, X, Y, mask=masks).passed
    J, grads = net.gradients(X, Y, mask=masks)
    alone = []
    for i in range(4):
        own = {name: A[masks[name][:, i], :, i : i + 1] for name, A in X.items()}
        alone.append(net.gradients(own, Y[masks["target"][:, i], i : i + 1]))
    assert pytest.approx(np.mean([cost for cost, _ in alone]), rel=1e-12) == J
    for name, dW in leaves(grads):
        np.testing.assert_allclose(dW, np.mean([dict(leaves(g))[name] for _, g in alone], axis=0), atol=1e-12)
    assert all(np.abs(dW).max() > 0 for _, dW in leaves(grads["encoder"])), "the encoder learns through its last state"


def test_an_encoder_and_decoder_of_different_lengths_train(rng):
    net = encoder_decoder()
    lengths = [(4, 2), (1, 3), (3, 3), (5, 1)]
    x = {
        "source": Sequences([rng.normal(size=(a, 2)) for a, _ in lengths]),
        "target": Sequences([rng.normal(size=(b, 3)) for _, b in lengths]),
    }
    y = Sequences([rng.integers(3, size=b) for _, b in lengths])
    before = net.evaluate(x, y)
    net.fit(x, y, epochs=30, batch_size=2, optimizer="adam(0.05)", progress=False)
    assert net.evaluate(x, y)["loss"] < 0.5 * before["loss"]
    said = net.predict(x, batch_size=3)
    assert [len(each) for each in said["said"]] == [2, 3, 3, 1]


# --- regularizers and dropout ---------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("around", ["bare", "bidirectional", "network's"])
def test_regularizers_reach_W_and_U(cell, around, rng):
    own = None if around == "network's" else "l2(0.3)"
    layer = cell(2, regularizer=own)
    layer = pl.Bidirectional(layer) if around == "bidirectional" else layer
    net = net_around(layer, pl.Dense(2), regularizer="l2(0.3)" if own is None else None)
    X, Y = rng.normal(size=(4, 3, 3)), np.array([0, 1, 1])
    plain = net_around(pl.Bidirectional(cell(2)) if around == "bidirectional" else cell(2), pl.Dense(2))
    plain.parameters = net.parameters
    (J, grads), (J_plain, grads_plain) = net.gradients(X, Y), plain.gradients(X, Y)
    ways = ["_forward", "_backward"] if around == "bidirectional" else [""]
    name = net.names[layer]
    weights = {f"{W}{way}" for W in "WU" for way in ways}
    own = net.parameters[name]
    penalty = sum((own[W] ** 2).sum() for W in weights)
    if around == "network's":
        penalty += (net.parameters["dense_1"]["W"] ** 2).sum()
    assert pytest.approx(0.15 * penalty, rel=1e-9) == J - J_plain
    for path, dW in grads[name].items():
        expected = 0.3 * own[path] if path in weights else 0.0
        np.testing.assert_allclose(dW - grads_plain[name][path], expected + 0 * dW, atol=1e-12, err_msg=path)
    assert pl.check_gradients(net, X, Y).passed


def test_regularizers_reach_inside_time_distributed(rng):
    net = net_around(pl.TimeDistributed(pl.Dense(2, regularizer="l1(0.2)")), pl.GRU(2), pl.Dense(2))
    assert [(layer, W) for layer, W, _ in net.penalties] == [("time_distributed_1", "W")]
    assert pl.check_gradients(net, rng.normal(size=(4, 3, 3)), np.array([0, 1, 1])).passed
    deep = net_around(pl.TimeDistributed(pl.Recompute(pl.Dense(2, regularizer="l1(0.2)"))), pl.GRU(2), pl.Dense(2))
    assert [(layer, W) for layer, W, _ in deep.penalties] == [("time_distributed_1", "dense_1/W")]
    assert pl.check_gradients(deep, rng.normal(size=(4, 3, 3)), np.array([0, 1, 1])).passed


def test_dropout_inside_draws_anew_at_every_step(rng):
    net = net_around(pl.TimeDistributed(pl.Dropout(0.5)), loss=None)
    kept, _ = net.forward(np.ones((6, 3, 40)), train=True)
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert not (kept == kept[0]).all(), "one draw for all the steps"
    again, _ = net.forward(np.ones((6, 3, 40)), train=True)
    np.testing.assert_array_equal(again, kept)
    assert not (net.forward(np.ones((6, 3, 40)), train=True, update=1)[0] == kept).all()
    np.testing.assert_array_equal(net.forward(np.ones((6, 3, 40)))[0], 1)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_lays_a_recurrent_network_open(tmp_path, capsys):
    (tmp_path / "net.toml").write_text(
        'input_shape = ["T", 2]\nloss = "softmax_cross_entropy"\n'
        '[[layers]]\ntype = "SimpleRNN"\nunits = 3\n[[layers]]\ntype = "Dense"\nunits = 2\n'
    )
    (tmp_path / "walks.ts").write_text("@classLabel true up down\n@data\n1,2,3:10,20,30:up\n4,5:40,50:down\n7:8:up\n")
    code = main(["step", str(tmp_path / "net.toml"), str(tmp_path / "walks.ts"), "--batch", "2"])
    text = capsys.readouterr().out
    assert code == 0, text
    assert "h[1] = tanh(W[1] A[0][t] + U[1] h[1][t-1] + b[1])" in text
    assert "dU[1] = (1/m) Σ_t dZ[1][t] h[1][t-1]ᵀ" in text
    code = main(["step", str(tmp_path / "net.toml"), str(tmp_path / "walks.ts"), "--example", "2", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert "dW_steps" in json.dumps(document)
