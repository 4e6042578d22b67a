"""Training on the JAX engine: the reference's numbers, in compiled steps and in one loop over resident data."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines
from pellucid.engines.mesh import Placement
from pellucid.errors import EngineError
from pellucid.layers.base import Mode
from pellucid.runs import Run
from pellucid.training.batches import Batch, Source, ahead
from pellucid.training.loop import Training
from pellucid.training.resident import Resident
from pellucid.trees import leaves

jax = pytest.importorskip("jax", reason="JAX is not installed")

DATA = np.random.default_rng(3)
X, Y = DATA.normal(size=(70, 6)), DATA.integers(3, size=70)
X[np.arange(70), Y] += 2.0
WEIGHT = DATA.uniform(0.5, 1.5, 70)


class EveryUpdate(pl.Callback):
    """Has to see every update, so there is no loop over them."""

    def __init__(self):
        self.seen = []

    def on_update(self, training):
        self.seen.append(training.t)


def mlp(engine, dtype="float64", **options):
    hidden = [pl.Dense(8, "tanh", regularizer="l2(0.01)"), pl.BatchNorm(), pl.Dense(3)]
    return pl.Sequential(*hidden, input_shape=6, loss="softmax_cross_entropy", engine=engine, dtype=dtype, **options)


def trained(net, *, x=X, y=Y, **options):
    given = {"epochs": 3, "batch_size": 16, "optimizer": "adam(cosine(0.05))", "progress": False, **options}
    return net, net.fit(x, y, **given)


def assert_same_trees(one, other, tolerance):
    assert [path for path, _ in leaves(one)] == [path for path, _ in leaves(other)]
    for (path, W), (_, V) in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(W), np.asarray(V), rtol=tolerance, atol=tolerance, err_msg=path)


@pytest.mark.parametrize("callbacks", [[], [EveryUpdate()]], ids=["in one loop", "step by step"])
def test_training_gives_the_references_numbers(callbacks):
    options = {"validation": 0.2, "layer_statistics": True}
    net, history = trained(mlp("jax"), callbacks=callbacks, **options)
    twin, expected = trained(mlp("numpy"), **options)
    assert_same_trees(net.parameters, twin.parameters, 1e-9)
    assert_same_trees(net.state, twin.state, 1e-9)
    for mine, theirs in zip(history, expected, strict=True):
        assert mine["step"] == theirs["step"]
        for part in ("train", "validation", "layers"):
            assert_same_trees(mine[part], theirs[part], 1e-9)
    np.testing.assert_allclose(net.predict(X), twin.predict(X), rtol=1e-9)
    if callbacks:
        assert callbacks[0].seen == list(range(1, 1 + history.records[-1]["step"]))


def test_weights_and_float32_in_the_loop_as_step_by_step():
    in_loop, history = trained(mlp("jax", "float32"), sample_weight=WEIGHT)
    by_step, expected = trained(mlp("jax", "float32"), sample_weight=WEIGHT, callbacks=[EveryUpdate()])
    assert_same_trees(in_loop.parameters, by_step.parameters, 2e-4)
    assert {W.dtype for _, W in leaves(in_loop.parameters)} == {np.dtype("float32")}
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    assert history["accuracy"] == pytest.approx(expected["accuracy"])


def test_sequences_of_many_lengths_are_padded_to_few():
    ops = engines.get("jax")
    padded = {ops.padded_steps(T) for T in range(1, 400)}
    assert all(T <= ops.padded_steps(T) <= max(T, 1.25 * T + 1) for T in range(1, 400))
    assert len(padded) < 36
    rng = np.random.default_rng(0)
    x = pl.Sequences([rng.normal(size=(T, 2)) for T in rng.integers(3, 30, 24)])
    y = rng.integers(2, size=24)

    def net(engine):
        layers = [pl.LSTM(4), pl.Dense(2)]
        return pl.Sequential(
            *layers, input_shape=(None, 2), loss="softmax_cross_entropy", engine=engine, dtype="float64"
        )

    mine, _ = trained(net("jax"), x=x, y=y, batch_size=8)
    twin, _ = trained(net("numpy"), x=x, y=y, batch_size=8)
    assert_same_trees(mine.parameters, twin.parameters, 1e-9)
    np.testing.assert_allclose(mine.predict(x), twin.predict(x), rtol=1e-9)


def test_a_run_interrupted_between_loops_goes_on_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.training.resident.MOST", 2)
    whole, _ = trained(mlp("jax"))

    class Stop(pl.Callback):
        every_update = False

        def on_update(self, training):
            if training.t == 9:
                raise KeyboardInterrupt

    Run.create(tmp_path / "run", config={}, environment={}).close()
    with pytest.raises(KeyboardInterrupt):
        trained(mlp("jax"), run=tmp_path / "run", checkpoint_seconds=0.0, callbacks=[Stop()])
    resumed, history = trained(mlp("jax"), run=tmp_path / "run", resume=True)
    assert len(history) == 3
    assert_same_trees(resumed.parameters, whole.parameters, 0.0)


def test_a_run_that_stopped_amid_a_loop_is_gone_on_with_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.training.resident.MOST", 3)
    x, y = np.tile(X, (3, 1)), np.tile(Y, 3)  # 13 batches: calls of 2 or 3 updates
    whole, _ = trained(mlp("jax"), x=x, y=y)

    class Stop(EveryUpdate):
        def on_update(self, training):
            if training.t == 18:
                raise KeyboardInterrupt

    Run.create(tmp_path / "run", config={}, environment={}).close()
    with pytest.raises(KeyboardInterrupt):
        trained(mlp("jax"), x=x, y=y, run=tmp_path / "run", checkpoint_seconds=0.0, callbacks=[Stop()])
    resumed, history = trained(mlp("jax"), x=x, y=y, run=tmp_path / "run", resume=True)
    assert history.records[-1]["step"] == 42
    assert_same_trees(resumed.parameters, whole.parameters, 1e-9)


def test_a_cost_that_is_not_finite_names_its_update_in_the_loop():
    x = X.copy()
    x[40] = 1e200
    for callbacks in ([], [EveryUpdate()]):
        net = pl.Sequential(pl.Dense(1), input_shape=6, loss="mse", engine="jax", dtype="float64")
        with pytest.raises(pl.errors.TrainingError, match="at update 3 "):
            trained(net, x=x, y=X[:, 0], shuffle=False, callbacks=callbacks)


def test_a_training_that_is_run_in_parts_keeps_what_the_network_has():
    net = mlp("jax")
    options = {"callbacks": [], "metrics": (), "validation": None, "layer_statistics": False, "run": None}
    training = Training(
        net,
        Source(net, X, Y),
        epochs=3,
        batch_size=16,
        optimizer="adam",
        shuffle=True,
        seed=0,
        checkpoint_seconds=60.0,
        **options,
    )
    training.run(until=1)
    before = net.predict(X)
    training.callbacks.append(Reads(net))
    training.run(until=2)
    assert np.array_equal(training.callbacks[0].read, before)
    assert not np.array_equal(net.predict(X), before)


class Reads(pl.Callback):
    """Asks the network amid its training."""

    def __init__(self, net):
        self.net = net

    def on_epoch(self, training, record):
        self.read = self.net.predict(X)


def test_a_stateful_network_trains_without_a_warning(recwarn):
    x, y = DATA.normal(size=(6, 4, 2)), DATA.normal(size=(6, 3))
    nets = []
    for engine in ("jax", "numpy"):
        net = pl.Sequential(pl.LSTM(3, stateful=True), input_shape=(4, 2), loss="mse", engine=engine, dtype="float64")
        nets.append(trained(net, x=x, y=y, batch_size=3, shuffle=False)[0])
    assert not [str(each.message) for each in recwarn]
    assert_same_trees(nets[0].parameters, nets[1].parameters, 1e-9)


def test_what_cannot_stay_on_the_device_is_run_step_by_step(monkeypatch):
    made = []
    monkeypatch.setattr(Resident, "__init__", lambda self, training: made.append(training))
    ops = engines.get("jax")
    monkeypatch.setattr(type(ops), "resident_bytes", lambda self, convolutions: X.nbytes - 1)
    trained(mlp("jax"), epochs=1)
    assert not made
    _, history = trained(mlp("jax"), epochs=1, callbacks=[EveryUpdate()])
    assert history.records[0]["step"] == 5


def test_what_fits_is_counted_as_it_would_be_kept(monkeypatch):
    made = []
    ops = engines.get("jax")
    monkeypatch.setattr(
        Resident, "__init__", lambda self, training: vars(self).update(calls=0, updates=1) or made.append(1)
    )
    x = np.tile(X, (2, 1)).astype("float64")
    y = np.tile(Y, 2)
    kept = 112 * (6 * 4 + 8) + 112 * 4  # of 140 examples 28 are for validation; float32, class numbers, weights
    options = {"epochs": 1, "validation": 28, "sample_weight": np.ones(140)}
    for limit, loops in ((kept - 1, 0), (kept, 1)):
        monkeypatch.setattr(type(ops), "resident_bytes", lambda self, convolutions, limit=limit: limit)
        trained(mlp("jax", "float32"), x=x, y=y, **options)
        assert len(made) == loops


def test_the_keys_of_many_updates_are_those_of_each():
    ops = engines.get("jax")
    many = ops.random_key(5, np.arange(3, 3000))
    assert many.shape == (2997, 2)
    assert many.dtype == np.uint32
    np.testing.assert_array_equal(many, [ops.random_key(5, t) for t in range(3, 3000)])
    assert len({tuple(key) for key in [*many, *ops.random_key(6, np.arange(3000))]}) == 5997


def test_the_loop_is_left_out_where_another_process_cannot_take_it(monkeypatch):
    asked = []

    def agreed(self, wanted, at, since=-1):
        asked.append(wanted)
        return wanted or len(asked) == 1

    monkeypatch.setattr(Placement, "agreed", agreed)
    monkeypatch.setattr(Resident, "run", lambda *given: pytest.fail("the loop was taken"))
    trained(mlp("jax"), epochs=1)
    assert asked[0] is False


def test_batches_made_ahead_are_the_same_and_their_failures_are_raised():
    batches = [Batch({"input": np.full(2, i)}, {}, None) for i in range(5)]
    assert [b.inputs["input"][0] for b in ahead(iter(batches), 2)] == [0, 1, 2, 3, 4]

    def failing():
        yield batches[0]
        raise OSError("the disk is gone")

    made = ahead(failing(), 2)
    next(made)
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)
    begun = []

    def endless():
        while True:
            begun.append(1)
            yield batches[0]

    made = ahead(endless(), 2)
    next(made)
    made.close()
    assert len(begun) < 10


def test_the_device_out_of_memory_says_what_to_do():
    def step(A):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore")

    with pytest.raises(EngineError, match=r"(?s)out of memory.*99 bytes.*smaller batch_size"):
        engines.get("jax").compile(step)(np.zeros(2))


def decides(A):
    return A if A.sum() > 0 else -A


def calls_numpy(A):
    return np.tanh(A)


def writes(A):
    A[A < 0] = 0
    return A


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (decides, r"(?s)in decides: a layer reads the numbers.*ops.xp.where.*native"),
        (calls_numpy, r"(?s)in calls_numpy: a layer calls NumPy.*ops.xp in the place"),
        (writes, r"(?s)in writes: a layer writes into an array"),
    ],
)
def test_a_layer_that_cannot_be_compiled_is_told_so(function, said):
    class Looking(pl.Layer):
        def output_shape(self, input_shape):
            return input_shape

        def forward(self, ops, params, A_prev, *, mode=None):
            return function(A_prev), None

        def backward(self, ops, params, cache, dA, *, input_gradient=True):
            return dA, {}

    net = pl.Sequential(pl.Dense(4), Looking(), pl.Dense(3), input_shape=6, loss="mse", engine="jax")
    with pytest.raises(EngineError, match=said):
        net.fit(X, np.eye(3)[Y], epochs=1, progress=False)


def test_without_jax_the_message_says_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "jax" else real(name, *rest))
    engines.known.cache_clear()
    try:
        with pytest.raises(EngineError, match=r"(?s)jax engine cannot run here.*pellucid\[jax\]"):
            pl.Sequential(pl.Dense(1), input_shape=1, engine="jax")
    finally:
        monkeypatch.undo()
        engines.known.cache_clear()


@pytest.mark.parametrize("precision", [None, "tensorfloat32", "bfloat16"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_every_product_of_a_step_is_asked_for_in_the_precision_that_was_chosen(recurrent, precision):
    layers = [pl.LSTM(4)] if recurrent else [pl.Conv2D(3, 3), pl.Flatten(), pl.Dense(5, "relu")]
    options = {"loss": "mse", "engine": "jax", "precision": precision}
    net = pl.Sequential(*layers, pl.Dense(2), input_shape=(6, 3) if recurrent else (1, 6, 6), **options)
    batch = Source(net, DATA.normal(size=(8, *net.inputs["input"])), DATA.normal(size=(8, 2))).batch(np.arange(8))

    def step(params, inputs, targets):
        return net.iteration(params, net.state, inputs, targets, mode=Mode(True)).grads

    text = jax.jit(step).lower(net.parameters, batch.inputs, batch.targets).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
    assert len(products) >= 6  # forward, dW and dA of two layers and more, but for dA of the first
    asked = "HIGH" if precision == "tensorfloat32" else "HIGHEST"
    for line in products:
        assert re.findall(r"\b(?:HIGH|HIGHEST|DEFAULT)\b", line) == [asked, asked], line
    assert net.predict(DATA.normal(size=(4, *net.inputs["input"]))).dtype == np.float32


@pytest.mark.parametrize("engine", ["numpy", "native"])
def test_other_engines_refuse_tensorfloat32(engine):
    if engine not in engines.available():
        pytest.skip(f"the {engine} engine cannot run here")
    with pytest.raises(pl.errors.ParameterError, match=f"(?s)the {engine} engine does not multiply in.*engine='jax'"):
        pl.Sequential(pl.Dense(1), input_shape=1, engine=engine, precision="tensorfloat32")


def test_a_network_of_tensorfloat32_predicts_in_float32_elsewhere(tmp_path):
    net = mlp("jax", "float32", precision="tensorfloat32")
    net.save(tmp_path / "net.pellucid")
    assert pl.load(tmp_path / "net.pellucid", engine="jax").precision == "tensorfloat32"
    there = pl.load(tmp_path / "net.pellucid", engine="numpy")
    assert there.precision == "float32"
    np.testing.assert_allclose(there.predict(X), net.predict(X), rtol=1e-5)


def test_batch_normalisation_of_ragged_sequences_is_compiled():
    x = pl.Sequences([DATA.normal(size=(T, 3)) for T in (4, 1, 6, 2, 5, 3, 3, 1, 2)])
    y = DATA.integers(2, size=9)

    def net(engine):
        layers = [pl.TimeDistributed(pl.Dense(4)), pl.TimeDistributed(pl.BatchNorm()), pl.LSTM(3), pl.Dense(2)]
        options = {"loss": "softmax_cross_entropy", "engine": engine, "dtype": "float64"}
        return pl.Sequential(*layers, input_shape=(None, 3), **options)

    mine, history = trained(net("jax"), x=x, y=y, batch_size=4)
    twin, expected = trained(net("numpy"), x=x, y=y, batch_size=4)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-9)
    assert_same_trees(mine.parameters, twin.parameters, 1e-9)
    assert_same_trees(mine.state, twin.state, 1e-9)
