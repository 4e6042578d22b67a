"""What a history says of an epoch is what `evaluate` and scikit-learn say of the predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

import pellucid as pl
from pellucid.training import measuring
from pellucid.training.split import split_indices

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4)).astype(np.float32)
LABELS = (X[:, 0] + RNG.normal(size=90) > 0).astype(int) + (X[:, 1] > 0.5)
VALUES = np.stack([X[:, 0] * 2 + 1, X[:, 1] - X[:, 2]], 1) + RNG.normal(size=(90, 2)) * 0.1
WEIGHT = RNG.uniform(0.1, 3, 90)


def log_loss(y, P, sample_weight=None):
    """Scikit-learn's, of probabilities that sum to 1 in float64 too."""
    P = np.asarray(P, np.float64)
    return sk.log_loss(y, P if P.ndim == 1 else P / P.sum(1, keepdims=True), sample_weight=sample_weight)


def make(units, loss, **options):
    return pl.Sequential(pl.Dense(8, "tanh"), pl.Dense(units), input_shape=4, loss=loss, seed=2, **options)


def frozen(net, x, y, **options):
    """The history of an epoch in which nothing is learned, so that its training values are those of the network."""
    return net.fit(x, y, **{"epochs": 1, "optimizer": "sgd(0)", "batch_size": 16, "progress": False, **options})


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("units", "loss", "y"),
    [
        (3, "softmax_cross_entropy", LABELS),
        (3, pl.SoftmaxCrossEntropy(label_smoothing=0.1, class_weight=[1, 2, 3]), LABELS),
        (3, "hinge", LABELS),
        (1, "hinge", LABELS > 0),
        (1, "sigmoid_cross_entropy", LABELS > 0),
        (2, "squared_error", VALUES),
        (1, "huber", VALUES[:, 0]),
    ],
    ids=["softmax", "smoothed", "hinge", "hinge 1", "binary", "regression", "one value"],
)
def test_training_and_validation_values_are_those_of_evaluate(units, loss, y, weight):
    net = make(units, loss)
    validation = (X[:31], y[:31]) if weight is None else (X[:31], y[:31], weight[:31])
    record = frozen(net, X, y, sample_weight=weight, validation=validation).records[0]
    train = net.evaluate(X, y, sample_weight=weight)
    held_out = net.evaluate(X[:31], y[:31], sample_weight=None if weight is None else weight[:31])
    assert set(train) == set(record["train"])
    assert record["train"] == pytest.approx(train, rel=1e-6)
    assert record["validation"] == pytest.approx(held_out, rel=1e-12)


def test_a_held_out_share_is_weighted_within_itself():
    net = make(3, "softmax_cross_entropy")
    record = frozen(net, X, LABELS, sample_weight=WEIGHT, validation=0.3).records[0]
    parts = split_indices(90, validation=0.3, test=0, labels=LABELS, seed=2)
    for name, part in (("train", parts.train), ("validation", parts.validation)):
        alone = net.evaluate(X[part], LABELS[part], sample_weight=WEIGHT[part])
        assert record[name] == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_classification_is_scikit_learns(weight):
    net = make(3, "softmax_cross_entropy")
    wanted = ["accuracy", "balanced_accuracy", "log_loss", "roc_auc", "top_k_accuracy(2)", "f1(macro)"]
    net.fit(X, LABELS, epochs=5, progress=False)
    got = net.evaluate(X, LABELS, metrics=wanted, sample_weight=weight, batch_size=7)
    P = net.predict(X)
    np.testing.assert_allclose(P.sum(1), 1, rtol=1e-6)
    called = P.argmax(1)
    expected = {
        "loss": log_loss(LABELS, P, sample_weight=weight),
        "accuracy": sk.accuracy_score(LABELS, called, sample_weight=weight),
        "balanced_accuracy": sk.balanced_accuracy_score(LABELS, called, sample_weight=weight),
        "log_loss": log_loss(LABELS, P, sample_weight=weight),
        "top_2_accuracy": sk.top_k_accuracy_score(LABELS, P, k=2, sample_weight=weight),
        "f1_macro": sk.f1_score(LABELS, called, average="macro", sample_weight=weight),
        "roc_auc": np.mean([sk.roc_auc_score(k == LABELS, P[:, k], sample_weight=weight) for k in range(3)]),
    }
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_regression_is_scikit_learns(weight):
    net = make(2, "squared_error")
    net.fit(X, VALUES, epochs=20, progress=False)
    got = net.evaluate(X, VALUES, metrics=["mae", "mse", "rmse", "r2"], sample_weight=weight, batch_size=11)
    A = net.predict(X).astype(float)
    each = 0.5 * ((A - VALUES) ** 2).sum(1)
    expected = {
        "loss": np.average(each, weights=weight),
        "mean_absolute_error": sk.mean_absolute_error(VALUES, A, sample_weight=weight),
        "mean_squared_error": sk.mean_squared_error(VALUES, A, sample_weight=weight),
        "root_mean_squared_error": sk.root_mean_squared_error(VALUES, A, sample_weight=weight),
        "r2": sk.r2_score(VALUES, A, sample_weight=weight),
    }
    assert got == pytest.approx(expected, rel=1e-5)


def test_binary_is_scikit_learns():
    net = make(1, "sigmoid_cross_entropy")
    y = (LABELS > 0).astype(int)
    net.fit(X, y, epochs=10, progress=False)
    got = net.evaluate(X, y, metrics=["accuracy", "precision", "recall", "roc_auc"])
    P = net.predict(X)[:, 0]
    expected = {
        "loss": log_loss(y, P),
        "accuracy": sk.accuracy_score(y, P > 0.5),
        "precision": sk.precision_score(y, P > 0.5),
        "recall": sk.recall_score(y, P > 0.5),
        "roc_auc": sk.roc_auc_score(y, P),
    }
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("units", "y"), [(3, LABELS), (1, np.where(LABELS > 0, 1, -1))], ids=["three", "two"])
def test_hinge_is_judged_by_its_margins(units, y):
    net = make(units, "hinge")
    net.fit(X, y, epochs=20, progress=False)
    A = net.predict(X)
    called = A.argmax(1) if units == 3 else np.where(A[:, 0] > 0, 1, -1)
    got = net.evaluate(X, y)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, called))
    if units == 1:
        assert got["loss"] == pytest.approx(np.maximum(0, 1 - y * A[:, 0]).mean(), rel=1e-6)


def test_several_outputs_are_named():
    a, b = pl.Input((4,)), pl.Input((2,))
    h = pl.Concat()(pl.Dense(5, "tanh")(a), pl.Dense(5, "tanh")(b))
    net = pl.Graph(
        inputs={"a": a, "b": b},
        outputs={"kind": pl.Dense(3)(h), "size": pl.Dense(2)(h)},
        loss={"kind": "softmax_cross_entropy", "size": "squared_error"},
        loss_weights={"size": 0.25},
    )
    x, y = {"a": X, "b": VALUES}, {"kind": LABELS, "size": VALUES}
    history = frozen(net, x, y, validation=(x, y), metrics={"kind": "accuracy", "size": ["r2", "mae"]})
    made = net.predict(x)
    got = net.evaluate(x, y, metrics={"kind": ["accuracy"], "size": ["r2", "mae"]})
    expected = {
        "kind_loss": log_loss(LABELS, made["kind"]),
        "size_loss": 0.5 * ((made["size"] - VALUES) ** 2).sum(1).mean(),
        "kind_accuracy": sk.accuracy_score(LABELS, made["kind"].argmax(1)),
        "size_r2": sk.r2_score(VALUES, made["size"]),
        "size_mean_absolute_error": sk.mean_absolute_error(VALUES, made["size"]),
    }
    expected["loss"] = expected["kind_loss"] + 0.25 * expected["size_loss"]
    assert got == pytest.approx(expected, rel=1e-5)
    assert history.records[0]["validation"] == pytest.approx(expected, rel=1e-5)
    assert history.records[0]["train"] == pytest.approx(
        {name: value for name, value in expected.items() if name in history.records[0]["train"]}, rel=1e-5
    )
    assert {"loss", "kind_accuracy", "size_r2"} <= set(history.records[0]["train"])
    assert "validation_kind_loss" in history
    assert set(net.evaluate(x, y)) >= {"kind_accuracy", "size_r2", "size_mean_absolute_error"}


def test_a_graph_of_one_output_is_named_too():
    a = pl.Input((4,))
    net = pl.Graph(inputs={"a": a}, outputs={"kind": pl.Dense(3)(a)}, loss={"kind": "softmax_cross_entropy"})
    got = net.evaluate({"a": X}, {"kind": LABELS})
    assert got["accuracy"] == sk.accuracy_score(LABELS, net.predict({"a": X})["kind"].argmax(1))


class EachStep(pl.Layer):
    """The same dense map at every step of a sequence (T, n, m)."""

    def init(self, rng, input_shape, dtype=np.float32):
        return {"W": rng.normal(size=(3, input_shape[1])).astype(dtype)}

    def output_shape(self, input_shape):
        return (input_shape[0], 3)

    def forward(self, ops, params, A_prev, *, mode=None):
        return np.einsum("ij,tjm->tim", params["W"], A_prev), pl.Layer.Cache(A_prev)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        dW = np.einsum("tim,tjm->ij", dA, cache.A_prev) / dA.shape[-1]
        return np.einsum("ij,tim->tjm", params["W"], dA) if input_gradient else None, {"W": dW}


@pytest.mark.parametrize("weight", [None, WEIGHT[:30]], ids=["unweighted", "weighted"])
def test_every_step_of_a_sequence_is_judged(weight):
    x, y = X[:90].reshape(30, 3, 4), LABELS.reshape(30, 3)
    net = pl.Sequential(EachStep(), input_shape=(3, 4), loss="softmax_cross_entropy")
    record = frozen(net, x, y, validation=(x, y) if weight is None else (x, y, weight), sample_weight=weight).records[0]
    P = net.predict(x)
    assert P.shape == (30, 3, 3)
    each = None if weight is None else np.repeat(weight, 3)
    accuracy = sk.accuracy_score(y.reshape(-1), P.reshape(90, 3).argmax(1), sample_weight=each)
    loss = 3 * log_loss(y.reshape(-1), P.reshape(90, 3), sample_weight=each)
    expected = {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(accuracy)}
    assert record["train"] == expected
    assert record["validation"] == expected


def test_the_cost_is_recorded_where_it_is_not_the_loss():
    assert "cost" not in frozen(make(3, "softmax_cross_entropy"), X, LABELS)
    net = make(3, "softmax_cross_entropy", regularizer="l2(0.1)")
    history = frozen(net, X, LABELS)
    assert history["cost"][0] == pytest.approx(net.cost(X.T, LABELS), rel=1e-6)
    assert history["loss"][0] == pytest.approx(net.evaluate(X, LABELS)["loss"], rel=1e-6)


def test_no_metrics_cost_nothing(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("outputs were looked at")

    monkeypatch.setattr(measuring, "told", refused)
    for metrics in ((), [], {}, {"output": ()}):
        kept = []

        class Watch(pl.Callback):
            def on_update(self, training, kept=kept):
                kept.extend(training._tally.seen)

        net = make(3, "softmax_cross_entropy")
        record = frozen(net, X, LABELS, validation=0.2, metrics=metrics, callbacks=Watch()).records[0]
        assert list(record["train"]) == list(record["validation"]) == ["loss"]
        assert kept == []


def test_layer_statistics_are_the_norms_of_each_update():
    net = make(3, "softmax_cross_entropy")
    _, grads = net.gradients(X.T, LABELS)
    before = {name: {k: v.copy() for k, v in each.items()} for name, each in net.parameters.items()}
    history = net.fit(
        X, LABELS, epochs=1, batch_size=None, shuffle=False, optimizer="sgd(0.1)", layer_statistics=True, progress=False
    )

    def norm(tree):
        return np.sqrt(sum(np.square(each, dtype=np.float64).sum() for each in tree.values()))

    for name, each in before.items():
        got = history.records[0]["layers"][name]
        moved = {k: net.parameters[name][k] - each[k] for k in each}
        assert got["gradient_norm"] == pytest.approx(norm(grads[name]), rel=1e-5)
        assert got["weight_norm"] == pytest.approx(norm(each), rel=1e-5)
        assert got["update_ratio"] == pytest.approx(norm(moved) / norm(each), rel=1e-4)
    assert history.layers("gradient_norm").keys() == before.keys()


def test_layer_statistics_of_gradients_whose_squares_overflow():
    W = {"layer": {"W": np.full((2, 2), 1e30, np.float32)}}
    assert measuring.layer_norms(np, W, W, W)["layer"]["gradient_norm"] == pytest.approx(2e30)


def test_predictions_do_not_depend_on_the_batches():
    net = pl.Sequential(
        pl.Dense(8), pl.BatchNorm(), pl.Dropout(0.5), pl.Dense(3), input_shape=4, loss="softmax_cross_entropy"
    )
    net.fit(X, LABELS, epochs=2, progress=False)
    whole = net.predict(X)
    for batch_size in (1, 7, 90):
        np.testing.assert_allclose(net.predict(X, batch_size=batch_size), whole, rtol=1e-5)
        assert net.evaluate(X, LABELS, batch_size=batch_size) == pytest.approx(net.evaluate(X, LABELS), rel=1e-6)
