"""The estimators by scikit-learn's own checks, against its own networks, and against the library they stand on."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import pellucid as pl
from pellucid.errors import DataError, ParameterError, ShapeError, TrainingError
from pellucid.estimators import PellucidClassifier, PellucidRegressor, _Converged
from pellucid.trees import leaves

QUICK = {"epochs": 30, "patience": None, "optimizer": "adam(1e-2)"}
BOTH = (PellucidClassifier, PellucidRegressor)

_ROUNDING = "the check asks for 7 digits, and float32 has 7: with dtype='float64' the same check passes"
ROUNDING = {
    "check_sample_weight_equivalence_on_dense_data": _ROUNDING,
    "check_sample_weight_equivalence_on_sparse_data": _ROUNDING,
    "check_methods_sample_order_invariance": _ROUNDING,
    "check_methods_subset_invariance": _ROUNDING,
}


@parametrize_with_checks([estimator(dtype="float64", **QUICK) for estimator in BOTH])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", BOTH)
def test_scikit_learns_checks_in_float32(estimator):
    results = check_estimator(estimator(**QUICK), expected_failed_checks=ROUNDING, on_skip=None, on_fail=None)
    assert {each["check_name"] for each in results if each["status"] == "xfail"} <= set(ROUNDING)
    assert not [(each["check_name"], each["exception"]) for each in results if each["status"] == "failed"]


# --- data -----------------------------------------------------------------------------------------------------------


def scaled(load, *, test_size=0.3):
    X, y = load(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=test_size, random_state=0)
    scaler = StandardScaler().fit(X)
    return scaler.transform(X), scaler.transform(X_test), y, y_test


@pytest.fixture(scope="module")
def wine():
    return scaled(load_wine)


@pytest.fixture(scope="module")
def cancer():
    return scaled(load_breast_cancer)


def settled(estimator, **changes):
    """A quick estimator that trains for just as long as it is told."""
    return estimator(**{"hidden": (8,), "epochs": 4, "patience": None, "random_state": 3, **changes})


def same_parameters(one, other):
    mine, theirs = dict(leaves(one.network_.parameters)), dict(leaves(other.network_.parameters))
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


# --- as good as scikit-learn's own networks -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("load", [load_digits, load_breast_cancer, load_wine])
def test_as_accurate_as_scikit_learns_classifier(load):
    X, X_test, y, y_test = scaled(load)
    ours = PellucidClassifier(epochs=100, random_state=0).fit(X, y).score(X_test, y_test)
    theirs = MLPClassifier(max_iter=100, random_state=0).fit(X, y).score(X_test, y_test)
    assert ours >= max(0.95, theirs - 0.02)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_as_accurate_as_scikit_learns_regressor():
    X, y = load_diabetes(return_X_y=True)
    ours, theirs = (
        cross_val_score(
            TransformedTargetRegressor(make_pipeline(StandardScaler(), each), transformer=StandardScaler()), X, y
        ).mean()
        for each in (PellucidRegressor(epochs=50, random_state=0), MLPRegressor(max_iter=50, random_state=0))
    )
    assert ours >= max(0.4, theirs - 0.04)


# --- the library they stand on --------------------------------------------------------------------------------------


def test_fit_is_the_librarys_fit(wine):
    X, X_test, y, _ = wine
    ours = settled(PellucidClassifier, dropout=0.2, batch_norm=True, regularizer="l2(1e-3)", batch_size=16).fit(X, y)
    net = pl.Sequential(
        pl.Dense(8, "relu"),
        pl.BatchNorm(),
        pl.Dropout(0.2),
        pl.Dense(3, initializer="zeros"),
        input_shape=13,
        loss="softmax_cross_entropy",
        regularizer="l2(1e-3)",
        seed=ours.network_.seed,
    )
    net.fit(X, y, epochs=4, batch_size=16, optimizer="adam(1e-3)", progress=False)
    assert same_parameters(ours, SimpleNamespace(network_=net))
    np.testing.assert_allclose(ours.predict_proba(X_test), net.predict(X_test), rtol=1e-6)
    assert ours.n_iter_ == len(ours.history_) == 4


def test_two_classes_are_told_apart_by_one_logit(cancer):
    X, X_test, y, _ = cancer
    names = np.array(["malignant", "benign"])[y]
    ours = settled(PellucidClassifier, epochs=20).fit(X, names)
    assert ours.network_.outputs == {"output": (1,)}
    assert list(ours.classes_) == ["benign", "malignant"]
    P = ours.predict_proba(X_test)
    np.testing.assert_allclose(P[:, 1], ours.network_.predict(X_test)[:, 0])
    assert P.shape == (len(X_test), 2)
    np.testing.assert_array_equal(P.sum(axis=1), 1.0)
    np.testing.assert_array_equal(ours.predict(X_test) == "malignant", P[:, 1] > 0.5)
    np.testing.assert_allclose(ours.predict_log_proba(X_test), np.log(P))


def test_probabilities_are_fit_for_scikit_learns_log_loss(wine):
    X, X_test, y, y_test = wine
    ours = settled(PellucidClassifier, epochs=40, optimizer="adam(1e-2)").fit(X, y)
    assert log_loss(y_test, ours.predict_proba(X_test)) < 0.3  # it warns of rows that do not sum to 1


def test_a_probability_of_0_has_an_infinite_logarithm():
    X = np.array([[-1.0], [1.0]] * 10)
    ours = PellucidClassifier(hidden=(), epochs=300, optimizer="sgd(10)", patience=None, random_state=0)
    ours.fit(X, X[:, 0] > 0)
    assert ours.predict_log_proba([[-1e4]])[0].tolist() == [0.0, -np.inf]


def test_several_labels_at_once(rng):
    X = rng.standard_normal((300, 4))
    Y = (X[:, :3] > 0).astype(int)
    ours = PellucidClassifier((16,), epochs=60, optimizer="adam(1e-2)", patience=None, random_state=0).fit(X, Y)
    assert ours.score(X, Y) > 0.9
    assert ours.predict_proba(X).shape == (300, 3)
    np.testing.assert_array_equal(ours.predict(X), ours.predict_proba(X) > 0.5)
    assert ours.network_.losses["output"].registered_name == "sigmoid_cross_entropy"
    np.testing.assert_array_equal(clone(ours).fit(X, sparse.csr_matrix(Y)).predict(X), ours.predict(X))


def test_several_values_at_once(rng):
    X = rng.standard_normal((300, 3))
    Y = np.stack([X[:, 0] + 1.0, X[:, 1] - X[:, 2]], axis=1)
    ours = PellucidRegressor((32,), epochs=100, optimizer="adam(1e-2)", patience=None, random_state=0).fit(X, Y)
    assert ours.predict(X).shape == (300, 2)
    assert ours.score(X, Y) > 0.99
    assert settled(PellucidRegressor).fit(X, Y[:, 0]).predict(X).shape == (300,)


def test_float32_is_computed_in_and_float64_comes_out(wine):
    X, _, y, _ = wine
    for estimator in (settled(PellucidClassifier), settled(PellucidRegressor)):
        estimator.fit(X.astype(np.float32), y)
        assert {leaf.dtype for _, leaf in leaves(estimator.network_.parameters)} == {np.dtype("float32")}
        said = estimator.predict if isinstance(estimator, PellucidRegressor) else estimator.predict_proba
        assert said(X.astype(np.float32)).dtype == np.float64


# --- partial_fit, warm_start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer", ["adam(1e-2)", "momentum(cosine(0.1))", "gradient_descent(reduce_on_plateau(0.1))"]
)
def test_partial_fit_again_and_again_is_fit(wine, optimizer):
    X, _, y, _ = wine
    options = {"dropout": 0.2, "batch_norm": True, "batch_size": 20, "optimizer": optimizer, "epochs": 5}
    whole, stepwise = settled(PellucidClassifier, **options).fit(X, y), settled(PellucidClassifier, **options)
    for _ in range(2):
        stepwise.partial_fit(X, y, classes=[0, 1, 2])
    stepwise = pickle.loads(pickle.dumps(stepwise))  # its memory of the optimizer survives
    for _ in range(3):
        stepwise.partial_fit(X, y)
    assert same_parameters(whole, stepwise)
    assert stepwise.history_["loss"] == whole.history_["loss"]
    assert stepwise.n_iter_ == 5


def test_partial_fit_goes_on_after_fit_even_when_that_was_stopped_early(wine):
    X, _, y, _ = wine
    ours = settled(PellucidRegressor, epochs=50, patience=1, tol=1e9).fit(X, y)
    epochs = ours.n_iter_
    assert epochs < 50
    before = pickle.loads(pickle.dumps(ours))
    assert ours.partial_fit(X, y).n_iter_ == epochs + 1
    assert not same_parameters(ours, before)


@pytest.mark.parametrize("then", ["momentum(0.02)", "momentum(reduce_on_plateau(0.02))", "adagrad(0.02)"])
def test_partial_fit_keeps_the_memory_of_one_kind_of_optimizer(wine, then):
    X, _, y, _ = wine
    ours = settled(PellucidRegressor, epochs=2, optimizer="momentum(0.01)").fit(X, y)
    net, v = pickle.loads(pickle.dumps((ours.network_, ours._progress.slots["v"]["dense_1"]["W"])))
    order = pl.training.batches.order(len(X), seed=net.seed, epoch=2, shuffle=True)
    _, grads = net.gradients(X[order].T.astype(np.float32), y[order].astype(np.float32))
    W, dW = net.parameters["dense_1"]["W"], grads["dense_1"]["W"]
    expected = W + 0.9 * v - 0.02 * dW if then.startswith("momentum") else W - 0.02 * np.sign(dW)
    ours.set_params(optimizer=then).partial_fit(X, y)
    np.testing.assert_allclose(ours.network_.parameters["dense_1"]["W"], expected, rtol=1e-4, atol=1e-6)
    assert ours.history_.epochs == [1, 2, 3]


def test_partial_fit_takes_examples_of_one_class_at_a_time(cancer):
    X, X_test, y, y_test = cancer
    ours = PellucidClassifier((16,), optimizer="adam(3e-3)", random_state=0)
    for _ in range(10):
        for chunk in range(0, len(X), 20):
            for label in (0, 1):
                chosen = np.flatnonzero(y[chunk : chunk + 20] == label) + chunk
                if len(chosen):
                    ours.partial_fit(X[chosen], y[chosen], classes=[1, 0])
    assert ours.score(X_test, y_test) > 0.9


def test_partial_fit_refuses_classes_it_was_not_told_of(wine):
    X, _, y, _ = wine
    with pytest.raises(ParameterError, match=r"partial_fit: classes must be given in the first call"):
        PellucidClassifier().partial_fit(X, y)
    ours = settled(PellucidClassifier).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ParameterError, match=r"other classes than before(.|\n)*\[0 1 2\](.|\n)*\[0 1\]"):
        ours.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"previously unseen labels: .*7"):
        ours.partial_fit(X, y + 7)


def test_warm_start_goes_on_from_the_parameters(wine):
    X, _, y, _ = wine
    ours = settled(PellucidClassifier, warm_start=True).fit(X, y)
    first = ours.network_
    loss = first.evaluate(X, y)["loss"]
    assert ours.fit(X, y).network_ is first
    assert ours.n_iter_ == 4
    assert first.evaluate(X, y)["loss"] < loss
    assert settled(PellucidClassifier).fit(X, y).fit(X, y).network_ is not first
    with pytest.raises(ValueError, match="previously unseen labels"):
        ours.fit(X, y + 1)


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["balanced", {"a": 3.0, "b": 0.5, "c": 2.0}])
def test_class_weights_are_sample_weights(wine, weights):
    X, _, y, _ = wine
    names = np.array(["a", "b", "c"])[y]
    own = np.linspace(0.5, 2.0, len(X))
    counts = {name: np.mean(names == name) for name in "abc"}
    each = np.array([1 / (3 * counts[name]) if weights == "balanced" else weights[name] for name in names])
    ours = settled(PellucidClassifier, class_weight=weights).fit(X, names, sample_weight=own)
    expected = settled(PellucidClassifier).fit(X, names, sample_weight=own * each)
    np.testing.assert_allclose(ours.predict_proba(X), expected.predict_proba(X), rtol=1e-4)
    unweighted = settled(PellucidClassifier).fit(X, names)
    assert abs(ours.predict_proba(X) - unweighted.predict_proba(X)).max() > 1e-3


def test_weights_that_cannot_be_used_are_refused(wine):
    X, _, y, _ = wine
    with pytest.raises(ParameterError, match=r"partial_fit, class_weight: 'balanced' needs all examples at once"):
        PellucidClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ParameterError, match="labels have no class_weight"):
        PellucidClassifier(class_weight="balanced").fit(X, np.eye(3, dtype=int)[y])
    with pytest.raises(DataError, match="sample_weight: every weight is zero"):
        PellucidRegressor().fit(X, y, sample_weight=np.zeros(len(X)))
    with pytest.raises(ShapeError, match="one weight per example"):
        PellucidRegressor().fit(X, y, sample_weight=np.ones((len(X), 2)))


# --- when training ends ---------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1).map(lambda x: round(x, 2)), min_size=1, max_size=30),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.05]),
)
def test_convergence_is_scikit_learns(costs, patience, tol):
    best, count, stop = np.inf, 0, None  # as in scikit-learn's _update_no_improvement_count
    for epoch, cost in enumerate(costs, 1):
        count = count + 1 if cost > best - tol else 0
        best = min(best, cost)
        if count >= patience and stop is None:
            stop = epoch
    reasons = []
    rule, training = _Converged(patience, min_delta=tol), SimpleNamespace(epoch=0, validation=None, stop=reasons.append)
    rule.on_start(training)
    stopped = None
    for epoch, cost in enumerate(costs, 1):
        rule.on_epoch(training, {"epoch": epoch, "train": {"loss": -1.0, "cost": cost}})
        if reasons and stopped is None:
            stopped = epoch
    assert stopped == stop


def test_a_training_that_has_not_converged_warns(wine):
    X, _, y, _ = wine
    with pytest.warns(ConvergenceWarning, match=r"all 3 epochs(.|\n)*raise epochs") as caught:
        PellucidClassifier(epochs=3).fit(X, y)
    assert caught[0].filename == __file__
    PellucidClassifier(epochs=3, patience=None).fit(X, y)
    PellucidClassifier(epochs=3).partial_fit(X, y, classes=[0, 1, 2])
    ours = PellucidClassifier(epochs=500, optimizer="adam(1e-2)", random_state=0).fit(X, y)
    assert ours.n_iter_ < 500
    assert "training loss" in ours.history_.stopped


def test_validation_stops_early_and_goes_back_to_the_best(cancer):
    X, _, y, _ = cancer
    ours = PellucidClassifier(
        validation=0.3, patience=np.int64(3), tol=0.0, epochs=400, optimizer="adam(1e-2)", random_state=1
    ).fit(X, y)
    best = ours.history_.best()
    assert best["epoch"] == ours.n_iter_ - 3 < 397
    held_out = len(X) - round(0.3 * len(X))
    assert ours.history_.records[0]["step"] == -(-held_out // 200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        shorter = clone(ours).set_params(epochs=best["epoch"]).fit(X, y)
    assert same_parameters(ours, shorter)


def test_ctrl_c_keeps_what_was_learned_and_divergence_does_not(wine):
    X, _, y, _ = wine

    class Impatient(pl.Callback):
        def on_epoch(self, training, record):
            if record["epoch"] == 2:
                raise KeyboardInterrupt

    ours = settled(PellucidClassifier, callbacks=(Impatient(),))
    with pytest.raises(KeyboardInterrupt):
        ours.fit(X, y)
    assert ours.n_iter_ == 2
    assert same_parameters(ours, settled(PellucidClassifier, epochs=2).fit(X, y))
    diverging = settled(PellucidRegressor, optimizer="sgd(1e6)", epochs=50)
    with pytest.raises(TrainingError), np.errstate(all="ignore"):
        diverging.fit(X, y)
    with pytest.raises(NotFittedError):
        diverging.predict(X)


def test_verbose_shows_the_epochs(wine, capsys):
    X, _, y, _ = wine
    settled(PellucidClassifier).fit(X, y)
    assert capsys.readouterr().err == ""
    settled(PellucidClassifier, verbose=True).fit(X, y)
    assert "epoch 4/4" in capsys.readouterr().err


@given(st.integers(2, 100_000))
def test_no_batch_of_one_example_is_left_over(m):
    size = PellucidClassifier()._batch_size(m, 0)
    assert m % size != 1
    assert min(m, 200) - 3 <= size <= min(m, 200)


def test_batch_normalisation_takes_any_number_of_examples(rng):
    for m in (201, 401):
        X = rng.standard_normal((m, 2))
        settled(PellucidClassifier, batch_norm=True, epochs=1).fit(X, X[:, 0] > 0)
    settled(PellucidRegressor, batch_norm=True, epochs=1, validation=1).fit(X[:202], X[:202, 0])


# --- what can be given ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_sparse_is_dense(wine, kind):
    X, X_test, y, _ = wine
    X, X_test = np.where(X > 0, X, 0.0), np.where(X_test > 0, X_test, 0.0)
    weight = np.linspace(1, 2, len(X))
    dense = settled(PellucidClassifier, batch_size=32).fit(X, y, sample_weight=weight)
    ours = settled(PellucidClassifier, batch_size=32).fit(kind(X), y, sample_weight=weight)
    assert same_parameters(dense, ours)
    np.testing.assert_array_equal(ours.predict_proba(kind(X_test)), dense.predict_proba(X_test))
    settled(PellucidRegressor, validation=0.2).fit(kind(X), y)


def test_networks_of_your_own(rng):
    X = rng.standard_normal((40, 1, 6, 6))
    y = X.mean(axis=(1, 2, 3)) > 0
    layers = settled(PellucidClassifier, hidden=[pl.Flatten(), pl.Dense(5, "tanh"), 4]).fit(X, y)
    assert [type(each).__name__ for each in layers.network_.layers] == ["Flatten", "Dense", "Dense", "Dense"]
    assert [layers.network_.shapes[i] for i in (0, 1, 2, 3, 4)] == [(1, 6, 6), (36,), (5,), (4,), (1,)]
    assert settled(PellucidClassifier).fit(X, y).predict(X).shape == (40,)
    asked = {}

    def build(input_shape, outputs, **options):
        asked.update(options, input_shape=input_shape, outputs=outputs)
        return pl.Sequential(pl.Flatten(), pl.Dense(outputs), input_shape=input_shape, **options)

    own = settled(PellucidClassifier, network=build, regularizer="l2(0.1)", dtype="float64").fit(X, y)
    assert (asked["input_shape"], asked["outputs"], asked["dtype"]) == ((1, 6, 6), 1, "float64")
    assert asked["regularizer"] == "l2(0.1)"
    assert "precision" not in asked
    assert settled(PellucidClassifier, precision="bfloat16").fit(X, y).network_.precision == "bfloat16"
    assert len(own.network_.layers) == 2
    named = settled(PellucidRegressor, network="mlp", epochs=1).fit(X, y.astype(float))
    assert any(isinstance(each, pl.BatchNorm) for each in named.network_.layers)
    assert len(settled(PellucidRegressor, hidden=7).fit(X, y.astype(float)).network_.layers) == 3
    with pytest.raises(ShapeError, match=r"expected: +\(m, 1, 6, 6\)"):
        named.predict(X[:, :, :5])


def test_losses(wine):
    X, X_test, y, y_test = wine
    fit = {"epochs": 60, "optimizer": "adam(1e-2)", "hidden": (16,)}
    for loss in ("cross_entropy", "softmax_cross_entropy(label_smoothing=0.1)", "hinge"):
        ours = settled(PellucidClassifier, loss=loss, **fit).fit(X, y)
        assert ours.score(X_test, y_test) > 0.9
    assert not hasattr(ours, "predict_proba")
    for loss, outputs in {"hinge": 1, "binary_cross_entropy": 1, "softmax_cross_entropy": 2}.items():
        two = settled(PellucidClassifier, loss=loss, **fit).fit(X, y == 0)
        assert two.network_.outputs == {"output": (outputs,)}
        assert two.score(X_test, y_test == 0) > 0.9
    smoothed = settled(PellucidClassifier, loss=pl.SigmoidCrossEntropy(label_smoothing=0.4), **fit).fit(X, y == 0)
    assert 0.6 < smoothed.predict_proba(X).max(axis=1).mean() < 0.9
    assert settled(PellucidRegressor, loss="huber", **fit).fit(X, y).score(X_test, y_test) > 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "mean_squared_error is no loss of classes"),
        (
            {"loss": "sigmoid_cross_entropy"},
            r"sigmoid_cross_entropy is no loss for 3 classes(.|\n)*softmax_cross_entropy",
        ),
        ({"loss": "squared"}, "unknown loss 'squared'"),
        ({"hidden": "100"}, "units must be a positive integer"),
        ({"hidden": None}, "units must be a positive integer"),
        ({"hidden": (10, 0)}, "units must be a positive integer"),
        ({"activation": "rely"}, r"unknown activation 'rely'(.|\n)*relu"),
        ({"dropout": 1.5}, "rate is out of range"),
        ({"network": "lenet-500"}, "unknown net 'lenet-500'"),
        ({"optimizer": "adm"}, r"unknown optimizer 'adm'(.|\n)*adam"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": "all"}, "batch_size must be"),
        ({"patience": 0.5}, "patience counts epochs"),
        ({"tol": -1.0}, "min_delta must be ≥ 0"),
        ({"validation": 1.5}, "validation"),
        ({"engine": "cuda"}, "unknown engine 'cuda'"),
        ({"dtype": "float16"}, "unknown dtype"),
        ({"callbacks": (print,)}, "not a callback"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_fit(wine, options, message):
    X, _, y, _ = wine
    with pytest.raises(ParameterError, match=message):
        settled(PellucidClassifier, **{"patience": 3, **options}).fit(X, y)


def test_losses_of_the_other_kind_are_refused(wine):
    X, _, y, _ = wine
    with pytest.raises(ParameterError, match=r"hinge is a loss of classes(.|\n)*mean_squared_error"):
        PellucidRegressor(loss="hinge").fit(X, y)
    with pytest.raises(ParameterError, match="softmax_cross_entropy is no loss for labels"):
        PellucidClassifier(loss="softmax_cross_entropy").fit(X, np.eye(3, dtype=int)[y])


def test_targets_that_cannot_be_used_are_refused(wine):
    X, _, y, _ = wine
    with pytest.raises(DataError, match=r"there is one class only(.|\n)*all are"):
        PellucidClassifier().fit(X, np.ones(len(X)))
    with pytest.raises(DataError, match="several classes for each example"):
        PellucidClassifier().fit(X, np.stack([y, y], axis=1))
    with pytest.raises(ValueError, match="Unknown label type"):
        PellucidClassifier().fit(X, y + 0.5)
    ours = settled(PellucidRegressor).fit(X, y)
    with pytest.raises(ShapeError, match="outputs' shape"):
        ours.partial_fit(X, np.stack([y, y], axis=1))
    with pytest.raises(ValueError, match="X has 12 features, but PellucidRegressor is expecting 13 features"):
        ours.predict(X[:, 1:])


def test_feature_names():
    pd = pytest.importorskip("pandas", reason="names of features come from data frames, which need pandas")
    X = pd.DataFrame({"height": [1.0, 2.0, 3.0, 4.0], "width": [0.0, 1.0, 0.0, 1.0]})
    ours = settled(PellucidClassifier).fit(X, pd.Series(["no", "yes", "no", "yes"]))
    assert list(ours.feature_names_in_) == ["height", "width"]
    assert set(ours.predict(X)) <= {"no", "yes"}
    with pytest.raises(ValueError, match="feature names should match"):
        ours.predict(X.rename(columns={"width": "depth"}))


# --- among scikit-learn's tools -------------------------------------------------------------------------------------


def test_random_state(wine):
    X, _, y, _ = wine
    assert same_parameters(settled(PellucidClassifier).fit(X, y), settled(PellucidClassifier).fit(X, y))
    other = settled(PellucidClassifier, random_state=4).fit(X, y)
    assert not same_parameters(settled(PellucidClassifier).fit(X, y), other)
    drawn = [settled(PellucidClassifier, random_state=np.random.RandomState(3)).fit(X, y) for _ in range(2)]
    assert same_parameters(*drawn)


def test_pickle_and_clone(wine):
    X, X_test, y, _ = wine
    ours = settled(PellucidClassifier, hidden=[pl.Dense(5, "gelu"), pl.LayerNorm()], optimizer=pl.Adam(1e-2)).fit(X, y)
    again = pickle.loads(pickle.dumps(ours))
    assert again.network_.ops is pl.engines.get(ours.network_.ops.name)
    np.testing.assert_array_equal(again.predict_proba(X_test), ours.predict_proba(X_test))
    fresh = clone(ours)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert same_parameters(fresh.fit(X, y), ours)


def test_grid_search_in_a_pipeline():
    X, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), PellucidClassifier(patience=None, random_state=0))
    grid = {"pellucidclassifier__epochs": [1, 40], "pellucidclassifier__optimizer": ["adam(1e-2)"]}
    search = GridSearchCV(pipeline, grid, cv=3, scoring="neg_log_loss").fit(X, y)
    assert search.best_params_["pellucidclassifier__epochs"] == 40
    assert search.best_estimator_.score(X, y) > 0.97


def test_cross_validation_in_two_processes():
    X, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), settled(PellucidClassifier, epochs=30, optimizer="adam(1e-2)"))
    parallel = cross_val_score(pipeline, X, y, cv=3, n_jobs=2)
    np.testing.assert_array_equal(parallel, cross_val_score(pipeline, X, y, cv=3))
    assert parallel.mean() > 0.9


def test_calibration(cancer):
    X, X_test, y, y_test = cancer
    calibrated = CalibratedClassifierCV(settled(PellucidClassifier, epochs=40, optimizer="adam(1e-2)"), cv=3).fit(X, y)
    assert log_loss(y_test, calibrated.predict_proba(X_test)) < 0.2


# --- without scikit-learn -------------------------------------------------------------------------------------------


def test_without_scikit_learn():
    code = """
import sys
import pellucid as pl
assert "sklearn" not in sys.modules
sys.modules["sklearn"] = None
try:
    pl.estimators
except pl.errors.EngineError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "sklearn is not installed\n  hint:     pip install 'pellucid[sklearn]'\n"
    assert pl.estimators.PellucidClassifier is PellucidClassifier
