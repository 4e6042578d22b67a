"""scikit-learn's classifier and regressor with a network inside: for pipelines, cross-validation and grid search."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from pellucid import losses
from pellucid.errors import DataError, ParameterError, need
from pellucid.layers import BatchNorm, Dense, Dropout, Flatten, Layer
from pellucid.network import Network, Sequential
from pellucid.training.batches import Source
from pellucid.training.callbacks import Callback, EarlyStopping
from pellucid.training.loop import Training, checked_callbacks
from pellucid.training.progress import shown
from pellucid.training.split import split_indices

need("sklearn", extra="sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.preprocessing import LabelEncoder  # noqa: E402
from sklearn.utils import check_random_state, column_or_1d, compute_class_weight  # noqa: E402
from sklearn.utils.metaestimators import available_if  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

__all__ = ["PellucidClassifier", "PellucidRegressor"]


class _SparseRows:
    """A sparse matrix, made dense batch by batch."""

    def __init__(self, X: Any, y: np.ndarray | None = None) -> None:
        self.X, self.y = X, y

    def __len__(self) -> int:
        return self.X.shape[0]

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        return self.X[indices].toarray(), None if self.y is None else self.y[indices]


class _Converged(EarlyStopping):
    """scikit-learn's rule: stop after epochs in a row that are not each ``min_delta`` below the lowest cost before."""

    def __init__(self, patience: int, *, min_delta: float) -> None:
        super().__init__(patience, monitor="loss", min_delta=min_delta, restore_best=False)

    def on_epoch(self, training: Training, record: dict[str, Any]) -> None:
        cost = record["train"].get("cost", record["train"]["loss"])
        if not cost > self.best_value - self.min_delta:  # true of the first epoch, which is compared with NaN
            self.best_epoch = record["epoch"]
        elif record["epoch"] - self.best_epoch >= self.patience:
            training.stop(f"the training loss has not fallen by {self.min_delta:g} an epoch since {self.best_epoch}")
        self.best_value = float(np.fmin(cost, self.best_value))


@dataclass(eq=False, repr=False)
class _Estimator(BaseEstimator):
    """What the two share. The constructor only stores; everything is checked by ``fit``."""

    hidden: int | Sequence[int | Layer] = (100,)
    _: KW_ONLY
    activation: Any = "relu"
    dropout: float = 0.0
    batch_norm: bool = False
    network: str | Callable[..., Network] | None = None
    loss: Any = None
    optimizer: Any = "adam(1e-3)"
    regularizer: Any = None
    batch_size: int | str | None = "auto"
    epochs: int = 200
    patience: int | None = 10
    tol: float = 1e-4
    validation: float = 0.0
    engine: str = "auto"
    dtype: str = "float32"
    precision: str | None = None
    random_state: Any = None
    warm_start: bool = False
    callbacks: Iterable[Callback] = ()
    verbose: bool = False

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _checked(self, X: Any, y: Any, *, first: bool, **checks: Any) -> tuple[Any, np.ndarray]:
        X, y = validate_data(self, X, y, reset=first, accept_sparse="csr", allow_nd=True, multi_output=True, **checks)
        y = y.toarray() if hasattr(y, "toarray") else y
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _learn(self, net: Network, X: Any, y: np.ndarray, weight: Any, *, one_epoch: bool) -> None:
        rows = (_SparseRows(X, y),) if hasattr(X, "toarray") else (X, y)
        before = self._progress if one_epoch and self.__sklearn_is_fitted__() else None
        validation = 0 if one_epoch else self.validation
        stopping: list[Callback] = []
        if self.patience is not None and not one_epoch:
            stopping = [(EarlyStopping if validation else _Converged)(self.patience, min_delta=self.tol)]
        if weight is not None and not np.asarray(weight).any():
            raise DataError("every weight is zero: nothing would count", where="sample_weight")
        training = Training(
            net,
            Source(net, *rows, sample_weight=weight),
            epochs=max(self.epochs, before.epoch + 1) if before else self.epochs,
            batch_size=self._batch_size(len(y), validation),
            optimizer=self.optimizer,
            validation=validation,
            metrics="auto",
            callbacks=[*checked_callbacks(self.callbacks), *stopping, *shown("auto" if self.verbose else False)],
            shuffle=True,
            seed=None,
            layer_statistics=False,
            run=None,
            checkpoint_seconds=60.0,
        )
        if before:
            if self._optimizer != training.optimizer:
                before = before._replace(schedule_state=training.schedule_state)
            if type(self._optimizer) is not type(training.optimizer):
                before = before._replace(slots=training.slots, t=0)
            training.progress = before
        try:
            training.run(until=training.epoch + 1 if one_epoch else None)
        except KeyboardInterrupt:  # what was learned until then is kept, as by `Network.fit`
            self._keep(training)
            raise
        self._keep(training)
        if stopping and not training.history.stopped:
            warnings.warn(
                f"the loss still fell when all {self.epochs} epochs were over: raise epochs, or give patience=None",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _keep(self, training: Training) -> None:
        self.network_, self.history_, self.n_iter_ = training.net, training.history, len(training.history)
        self._optimizer, self._progress = training.optimizer, training.progress

    def _batch_size(self, m: int, validation: float) -> int | None:
        if self.batch_size != "auto":
            return self.batch_size  # type: ignore[return-value]
        if validation:
            m = len(split_indices(m, validation=validation, test=0).train)
        # A last batch of a single example is all noise, and batch normalisation cannot take it.
        return next(size for size in range(min(200, m), 0, -1) if m % size != 1 or size == 1)

    def _build(self, input_shape: tuple[int, ...], outputs: int, loss: losses.Loss) -> Network:
        options = {
            "loss": loss,
            "seed": check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
            "engine": self.engine,
            "dtype": self.dtype,
        }
        if self.precision is not None:
            options["precision"] = self.precision
        if self.regularizer is not None:
            options["regularizer"] = self.regularizer
        if self.network is not None:
            from pellucid import zoo

            build = zoo.find(self.network).build if isinstance(self.network, str) else self.network
            return build(input_shape, outputs, **options)
        hidden: Any = self.hidden if isinstance(self.hidden, (list, tuple, np.ndarray)) else [self.hidden]
        own = any(isinstance(each, Layer) for each in hidden)
        chain: list[Layer] = [Flatten()] if len(input_shape) > 1 and not own else []
        for each in hidden:
            if isinstance(each, Layer):
                chain.append(each)
                continue
            chain.append(Dense(each, self.activation))
            chain += [BatchNorm()] if self.batch_norm else []
            chain += [Dropout(self.dropout)] if self.dropout else []
        # From zero the first outputs are 0 for every example; a random layer's noise costs wide networks many epochs.
        last = Dense(outputs, loss.reads, initializer="zeros")
        return Sequential(*chain, last, input_shape=input_shape, **options)

    def _said(self, X: Any) -> np.ndarray:
        """What the network says of each example, (m, outputs), in scikit-learn's float64."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, accept_sparse="csr", allow_nd=True)
        return self.network_.predict(_SparseRows(X) if hasattr(X, "toarray") else X).astype(np.float64)


def _gives_probabilities(estimator: PellucidClassifier) -> bool:
    return estimator.loss is None or losses.get(estimator.loss).registered_name != "hinge"


@dataclass(eq=False, repr=False)
class PellucidClassifier(ClassifierMixin, _Estimator):
    """A network that tells classes apart, as a scikit-learn classifier.

    Two classes are told apart by one logit, more by one each; several labels at once (y of 0 and 1, (m, labels)) by one
    each, too.

    Arguments:
        hidden: the units of each hidden layer; or layers of your own in their place, such as
            ``[pl.Conv2D(8, 3), pl.Flatten(), 64]`` for X (m, channels, height, width). The output layer is added.
        activation: of the hidden layers given by their units.
        dropout: the probability of dropping, after each of them.
        batch_norm: normalise the output of each of them.
        network: a whole network instead: a name of the zoo, or ``build(input_shape, outputs, *, loss, seed, engine,
            dtype)`` that returns one; ``precision`` and ``regularizer`` are passed on where they are given.
        loss: None is ``"sigmoid_cross_entropy"`` for two classes and for labels, ``"softmax_cross_entropy"`` otherwise.
        optimizer: by name, as ``"adam(1e-3)"``, or as an object.
        regularizer: of the weights, as ``"l2(1e-4)"``.
        batch_size: examples per update; ``"auto"`` is 200 or all where there are fewer, None is all of them.
        epochs: how often every example is seen, at most.
        patience: stop when the loss has not fallen by more than ``tol`` for so many epochs; None never stops.
        tol: the least fall of the loss that counts.
        validation: a share (0, 1) or number of the examples to hold out, stratified by class unless X is sparse;
            stopping then watches their loss and goes back to the best parameters. 0 watches the training loss.
        engine: ``"auto"``, ``"numpy"``, ``"native"`` or ``"jax"``.
        dtype: ``"float32"`` or ``"float64"``: what is computed in.
        precision: ``"bfloat16"`` or None: of what layers multiply; see `Sequential`.
        random_state: of the first parameters, of shuffling, of the split and of dropout.
        warm_start: True makes ``fit`` go on from the parameters of the last one.
        callbacks: such as `EarlyStopping`.
        verbose: show the epochs.
        class_weight: ``{class: weight}``, or ``"balanced"``: m / (classes · examples of the class).

    Attributes:
        classes_: the classes, in the order of ``predict_proba``'s columns.
        network_: the trained `Network`, for everything else pellucid does.
        history_: the `History` of every epoch; that of ``partial_fit`` goes on.
        n_iter_: how many epochs there were.
        n_features_in_, feature_names_in_: of X.
    """

    class_weight: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PellucidClassifier:
        """Train.

        Arguments:
            X: (m, features), dense or sparse; or (m, …) for a network that takes it.
            y: the class of each example (m,): numbers or strings; or labels of 0 and 1, (m, labels).
            sample_weight: how much each example counts, (m,).

        Raises:
            DataError, ShapeError, ValueError: data that cannot be trained on.
            ParameterError: a setting that cannot be used.
            TrainingError: the cost is no longer finite.
        """
        return self._fit(X, y, sample_weight, first=not (self.warm_start and self.__sklearn_is_fitted__()))

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> PellucidClassifier:
        """One epoch over these examples, going on from what was learned before, the optimizer's memory included.

        There is no validation and no early stopping. The optimizer's settings may change between calls; one of
        another kind begins with an empty memory.

        Arguments:
            X, y, sample_weight: as in `fit`.
            classes: every class there will ever be; needed in the first call, but for labels.

        Raises:
            as `fit`.
        """
        first = not self.__sklearn_is_fitted__()
        if not first and classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ParameterError(
                "other classes than before", where="partial_fit", expected=self.classes_, got=unique_labels(classes)
            )
        return self._fit(X, y, sample_weight, first=first, classes=classes, one_epoch=True)

    def _fit(
        self, X: Any, y: Any, weight: Any, *, first: bool, classes: Any = None, one_epoch: bool = False
    ) -> PellucidClassifier:
        X, y = self._checked(X, y, first=first)
        check_classification_targets(y)
        if y.ndim == 2 and type_of_target(y) != "multilabel-indicator":
            raise DataError(
                "several classes for each example", where="y", expected="(m,), or labels of 0 and 1", got=y.shape
            )
        if first:
            self._several = y.ndim == 2
            if self._several:
                self.classes_ = np.arange(y.shape[1])
            elif one_epoch and classes is None:
                raise ParameterError("classes must be given in the first call", where="partial_fit")
            else:
                self.classes_ = unique_labels(classes if one_epoch else y)
            if len(self.classes_) < 2:
                raise DataError(
                    "there is one class only: nothing to tell apart", where="y", got=f"all are {self.classes_[0]!r}"
                )
        if self._several:
            targets = y
            if self.class_weight is not None:
                raise ParameterError("labels have no class_weight", where=type(self).__name__, got=self.class_weight)
        else:
            encoder = LabelEncoder()
            encoder.classes_ = self.classes_
            targets = encoder.transform(y)
            if self.class_weight is not None:
                if one_epoch and self.class_weight == "balanced":
                    raise ParameterError(
                        "'balanced' needs all examples at once",
                        where="partial_fit, class_weight",
                        expected="{class: weight}",
                        hint="compute_class_weight of sklearn.utils makes one",
                    )
                each = compute_class_weight(self.class_weight, classes=self.classes_, y=y)[targets]
                weight = each if weight is None else each * np.asarray(weight)
        net = self._build(X.shape[1:], *self._end()) if first else self.network_
        self._learn(net, X, targets, weight, one_epoch=one_epoch)
        return self

    def _end(self) -> tuple[int, losses.Loss]:
        """How many outputs, and the loss on them."""
        n = len(self.classes_)
        two = n == 2 and not self._several
        loss = losses.get(self.loss or ("sigmoid_cross_entropy" if two or self._several else "softmax_cross_entropy"))
        if not loss.of_classes or (loss.binary and not two) != self._several:
            problem = "is no loss of classes"
            if loss.of_classes:
                problem = f"is no loss for {'labels' if self._several else f'{n} classes'}"
            raise ParameterError(
                f"{loss.registered_name} {problem}",
                where=f"{type(self).__name__}, loss",
                expected="sigmoid_cross_entropy" if self._several else "softmax_cross_entropy",
            )
        return 1 if two and (loss.binary or loss.registered_name == "hinge") else n, loss

    def _scores(self, X: Any) -> np.ndarray:
        """For each class its probability, or its margin, (m, classes)."""
        said, probabilities = self._said(X), _gives_probabilities(self)
        if said.shape[1] == 1:
            return np.hstack([1 - said if probabilities else -said, said])
        return said / said.sum(axis=1, keepdims=True) if probabilities and not self._several else said

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each example, (m,); or its labels, (m, labels)."""
        scores = self._scores(X)
        return (scores > 0.5).astype(np.int64) if self._several else self.classes_[scores.argmax(axis=1)]

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (m, classes); of each label, (m, labels)."""
        return self._scores(X)

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`; -∞ where that is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


@dataclass(eq=False, repr=False)
class PellucidRegressor(RegressorMixin, _Estimator):
    """A network that predicts one value or several, as a scikit-learn regressor.

    Scale targets that are far from 0 or 1 by `sklearn.compose.TransformedTargetRegressor`, as features by a
    `StandardScaler`.

    Arguments:
        loss: None is ``"mean_squared_error"``.
        others: as in `PellucidClassifier`.

    Attributes:
        network_, history_, n_iter_, n_features_in_, feature_names_in_: as in `PellucidClassifier`.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PellucidRegressor:
        """Train.

        Arguments:
            X: (m, features), dense or sparse; or (m, …) for a network that takes it.
            y: values, (m,) or (m, outputs).
            sample_weight: how much each example counts, (m,).

        Raises:
            as `PellucidClassifier.fit`.
        """
        return self._fit(X, y, sample_weight, first=not (self.warm_start and self.__sklearn_is_fitted__()))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> PellucidRegressor:
        """One epoch over these examples, going on from what was learned before; as `PellucidClassifier.partial_fit`."""
        return self._fit(X, y, sample_weight, first=not self.__sklearn_is_fitted__(), one_epoch=True)

    def _fit(self, X: Any, y: Any, weight: Any, *, first: bool, one_epoch: bool = False) -> PellucidRegressor:
        X, y = self._checked(X, y, first=first, y_numeric=True)
        loss = losses.get(self.loss or "mean_squared_error")
        if loss.of_classes:
            raise ParameterError(
                f"{loss.registered_name} is a loss of classes",
                where="PellucidRegressor, loss",
                expected="mean_squared_error, absolute_error, huber, …",
            )
        outputs = 1 if y.ndim == 1 else y.shape[1]
        net = self._build(X.shape[1:], outputs, loss) if first else self.network_
        self._learn(net, X, y, weight, one_epoch=one_epoch)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The value of each example, (m,), or its values, (m, outputs)."""
        said = self._said(X)
        return said[:, 0] if said.shape[1] == 1 else said
