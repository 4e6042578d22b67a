"""Losses: one number per example, and the gradient that starts the backward pass.

`forward` gives each example's own loss and `backward` the gradient of that loss, unscaled by the batch:
``dA[:, i]`` belongs to example i. The cost J is the mean over the examples, and 1/m enters with
the parameters' gradients.
Classes lie along axis -2, just before the examples: axis 0 of (n, m), axis 1 of a sequence (T, n, m).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid.engines.base import Array, Ops
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.registry import Registry
from pellucid.schedules import check_numbers, number
from pellucid.sequences import examples_as_steps, fits, steps_as_examples, written

losses: Registry[Loss] = Registry("loss")
get = losses.get


class Cache(NamedTuple):
    """What a loss's backward reads."""

    A: Array  # the outputs, or what a fused loss made of them: probabilities, or dA itself
    Y: Array  # the targets as `targets` returned them
    weight: Array | None  # class weight of each loss, or None


@dataclass(frozen=True)
class Loss:
    """Base of the losses.

    Attributes:
        of_classes: the targets are class indices (or distributions over classes).
        binary: each output answers yes or no; two classes are one output.
        reads: what the last layer's activation must make for it: ``"identity"`` for logits and values, or the name of
            the activation that makes probabilities.
        mean: the loss of an example is a mean over its outputs, not a sum.
    """

    of_classes: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    reads: ClassVar[str] = "identity"
    mean: ClassVar[bool] = False
    registered_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_numbers(self)

    def forward(self, ops: Ops, A: Array, Y: Array) -> tuple[Array, Cache]:
        """Each example's loss, shape (m,), and the cache.

        Arguments:
            A: the network's outputs, (n, m).
            Y: targets as `targets` returns them.
        """
        raise NotImplementedError

    def backward(self, ops: Ops, cache: Cache) -> Array:
        """dA, the gradient of each example's own loss, of A's shape."""
        raise NotImplementedError

    def masked_forward(self, ops: Ops, A: Array, Y: Array, mask: Array | None) -> tuple[Array, Cache]:
        """`forward` of sequences A (T, n, m): L is the sum over the steps at which the mask (T, m) is True.

        For a loss that is a mean over the outputs it is the mean over these steps too. A mask of None is all True; of
        floats it is what each step's loss counts, see `shares`.
        """
        if mask is None:
            return self.forward(ops, A, Y)
        each, cache = self.forward(ops, steps_as_examples(ops.xp, A), steps_as_examples(ops.xp, Y))
        return (each.reshape(mask.shape) * self.shares(mask, A.dtype)).sum(axis=0), cache

    def masked_backward(self, ops: Ops, cache: Cache, mask: Array | None) -> Array:
        """`backward` after `masked_forward`: dA is 0 at the steps at which the mask is False."""
        dA = self.backward(ops, cache)
        if mask is None:
            return dA
        dA, (T, m) = examples_as_steps(ops.xp, dA, len(mask)), mask.shape
        return dA * self.shares(mask, dA.dtype).reshape(T, *(1,) * (dA.ndim - 2), m)

    def shares(self, mask: Array, dtype: Any) -> Array:
        """What each step's own loss counts in its example's, (T, m): 1, or 1/T of the steps where the mask is True."""
        if not self.mean or mask.dtype != bool:
            return mask.astype(dtype)
        count = mask.sum(axis=0)
        return (mask / (count + (count == 0))).astype(dtype)  # of no step, no loss

    def equations(self) -> dict[str, str]:
        """The formula of the loss L of one example, and of its gradient dA, as `pl.trace` shows them."""
        return {"L": f"{type(self).__name__}(A, Y)"}

    def targets(self, Y: Any, output_shape: tuple[int, ...], dtype: Any, *, where: str = "Y") -> np.ndarray:
        """The targets checked and in the form `forward` reads, examples last.

        Arguments:
            Y: targets, examples last; (m,) stands for (1, m), and (T, m) for (T, 1, m).
            output_shape: of the network's output, without the example axis.
            dtype: of the network.

        Raises:
            DataError, ShapeError: saying what does not fit.
        """
        Y = np.asarray(Y)
        if Y.dtype.kind not in "fiub":
            raise DataError("targets must be numbers", where=where, got=f"dtype {Y.dtype}")
        if Y.ndim == 1 and None not in output_shape and math.prod(output_shape) == 1:
            Y = Y.reshape(*output_shape, Y.shape[0])
        elif output_shape[-1] == 1 and Y.ndim == len(output_shape):  # one value at each step
            Y = Y[..., None, :]
        if not fits(Y.shape[:-1], output_shape):
            hint = "examples are columns: Y has shape (n[L], m)" if Y.shape[1:] == output_shape else None
            raise ShapeError(
                "the targets do not have the outputs' shape",
                where=where,
                expected=written(*output_shape, "m"),
                got=Y.shape,
                hint=hint,
            )
        Y = Y.astype(dtype, copy=False)
        if not np.isfinite(Y).all():
            bad = tuple(int(i) for i in np.argwhere(~np.isfinite(Y))[0])
            raise DataError("the targets are not finite", where=f"{where}, example {bad[-1]}", got=Y[bad])
        return Y

    def predict(self, ops: Ops, A: Array) -> Array:
        """What the outputs mean to a user: probabilities for a loss on logits, the outputs themselves otherwise."""
        return A

    def judged(self, ops: Ops, A: Array, Y: Array) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and targets as `pellucid.metrics` reads them, examples first.

        Arguments:
            A: the network's outputs.
            Y: targets as `targets` returned them.
        """
        return _examples_first(ops, A), _examples_first(ops, Y)


def _examples_first(ops: Ops, A: Array) -> np.ndarray:
    return np.moveaxis(ops.to_numpy(A), -1, 0).reshape(A.shape[-1], -1)


def _per_example(losses_: Array) -> Array:
    """Sum over everything but the examples."""
    return losses_.sum(axis=tuple(range(losses_.ndim - 1))) if losses_.ndim > 1 else losses_


# --- values ---------------------------------------------------------------------------------------------------------


@losses.register("squared_error", "sum_of_squared_errors", "sse")
@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the sum of squared errors: L = ½ Σ (A - Y)², dA = A - Y.

    Source: the notes' S3.
    """

    def forward(self, ops, A, Y):
        return _per_example(0.5 * ops.xp.square(A - Y)), Cache(A, Y, None)

    def backward(self, ops, cache):
        return cache.A - cache.Y

    def equations(self):
        return {"L": "½ Σ (A - Y)²", "dA": "A - Y"}


@losses.register("mean_squared_error", "mse")
@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """L = (1/n) Σ (A - Y)² over the n outputs, dA = (2/n) (A - Y)."""

    mean: ClassVar[bool] = True

    def forward(self, ops, A, Y):
        return _per_example(ops.xp.square(A - Y)) * (A.shape[-1] / A.size), Cache(A, Y, None)

    def backward(self, ops, cache):
        A = cache.A
        return (A - cache.Y) * (2.0 * A.shape[-1] / A.size)

    def equations(self):
        return {"L": "(1/n) Σ (A - Y)²", "dA": "(2/n) (A - Y)"}


@losses.register("absolute_error", "mean_absolute_error", "mae")
@dataclass(frozen=True)
class AbsoluteError(Loss):
    """L = (1/n) Σ |A - Y|, dA = (1/n) sign(A - Y)."""

    mean: ClassVar[bool] = True

    def forward(self, ops, A, Y):
        return _per_example(ops.xp.abs(A - Y)) * (A.shape[-1] / A.size), Cache(A, Y, None)

    def backward(self, ops, cache):
        A = cache.A
        return ops.xp.sign(A - cache.Y) * (A.shape[-1] / A.size)

    def equations(self):
        return {"L": "(1/n) Σ |A - Y|", "dA": "(1/n) sign(A - Y)"}


@losses.register("huber")
@dataclass(frozen=True)
class Huber(Loss):
    """L = (1/n) Σ ½ e² where |e| ≤ δ, δ (|e| - ½ δ) elsewhere, with e = A - Y; dA = (1/n) clip(e, -δ, δ).

    Arguments:
        delta: δ, the error beyond which the loss grows only linearly, in the targets' unit.

    Source: Huber 1964.
    """

    delta: float = number("(0, inf)", 1.0)

    mean: ClassVar[bool] = True

    def forward(self, ops, A, Y):
        e = A - Y
        c = ops.xp.clip(e, -self.delta, self.delta)
        return _per_example(c * (e - 0.5 * c)) * (A.shape[-1] / A.size), Cache(A, Y, None)

    def backward(self, ops, cache):
        A = cache.A
        return ops.xp.clip(A - cache.Y, -self.delta, self.delta) * (A.shape[-1] / A.size)

    def equations(self):
        delta = f"{self.delta:g}"
        return {"L": f"(1/n) Σ huber(A - Y, {delta})", "dA": f"(1/n) clip(A - Y, -{delta}, {delta})"}


# --- yes or no ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Binary(Loss):
    """Losses of outputs that each say yes or no."""

    class_weight: Any = field(default=None, kw_only=True)
    label_smoothing: float = number("[0, 1)", 0.0, kw_only=True)

    of_classes: ClassVar[bool] = True
    binary: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "class_weight", _class_weights(self.class_weight, type(self).__name__))

    def targets(self, Y, output_shape, dtype, *, where="Y"):
        _check_classes(self.class_weight, 2, type(self).__name__)
        Y = super().targets(Y, output_shape, dtype, where=where)
        if Y.size and (Y.min() < 0 or Y.max() > 1):
            bad = tuple(int(i) for i in np.argwhere((Y < 0) | (Y > 1))[0])
            raise DataError(
                "a yes-or-no target out of range",
                where=f"{where}, example {bad[-1]}",
                expected="0 to 1",
                got=Y[bad],
                hint="for classes 0 … k-1 use k outputs and loss='softmax_cross_entropy'" if Y.max() > 1 else None,
            )
        return Y

    def judged(self, ops, A, Y):
        """Each output is a question of its own: probabilities (m n, 1) and classes (m n,)."""
        P, classes = _examples_first(ops, self.predict(ops, A)), _examples_first(ops, Y)
        return P.reshape(-1, 1), np.rint(classes).astype(np.int64).reshape(-1)

    def _smoothed(self, Y):
        return Y * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing if self.label_smoothing else Y

    def _weight(self, Y):
        if self.class_weight is None:
            return None
        w = dict(self.class_weight)
        return w.get(0, 1.0) + (w.get(1, 1.0) - w.get(0, 1.0)) * Y


@losses.register("binary_cross_entropy", "bce")
@dataclass(frozen=True)
class BinaryCrossEntropy(_Binary):
    """On probabilities: L = -Σ Y log A + (1-Y) log(1-A), and the notes' start dA = -Y/A + (1-Y)/(1-A).

    A is kept away from 0 and 1 by the float's own resolution. With a logistic last layer prefer logits and
    ``"sigmoid_cross_entropy"``: the same cost, exact everywhere.

    Arguments:
        class_weight: weight of each class's losses, ``{0: 1.0, 1: 5.0}`` or ``[1.0, 5.0]``.
        label_smoothing: ε, targets become (1-ε) Y + ε/2.

    Source: the notes' S1 and S4.
    """

    reads: ClassVar[str] = "sigmoid"

    def forward(self, ops, A, Y):
        xp = ops.xp
        tiny = float(np.finfo(np.dtype(A.dtype).name).eps) / 2
        A = xp.clip(A, tiny, 1.0 - tiny)
        weight, Y = self._weight(Y), self._smoothed(Y)
        losses_ = -(Y * xp.log(A) + (1.0 - Y) * xp.log1p(-A))
        return _per_example(losses_ if weight is None else weight * losses_), Cache(A, Y, weight)

    def backward(self, ops, cache):
        A, Y, weight = cache
        dA = -Y / A + (1.0 - Y) / (1.0 - A)
        return dA if weight is None else weight * dA

    def equations(self):
        return {"L": "-Σ (Y log A + (1-Y) log(1-A))", "dA": "-Y/A + (1-Y)/(1-A)"}


@losses.register("sigmoid_cross_entropy", "binary_cross_entropy_with_logits", "logistic")
@dataclass(frozen=True)
class SigmoidCrossEntropy(_Binary):
    """On logits, fused with the logistic function: L = Σ log(1 + e^Z) - Y Z, dZ = σ(Z) - Y.

    Arguments:
        class_weight: weight of each class's losses, ``{0: 1.0, 1: 5.0}`` or ``[1.0, 5.0]``.
        label_smoothing: ε, targets become (1-ε) Y + ε/2.
    """

    def forward(self, ops, A, Y):
        xp = ops.xp
        weight, Y = self._weight(Y), self._smoothed(Y)
        losses_ = xp.maximum(A, 0.0) - A * Y + xp.log1p(xp.exp(-xp.abs(A)))
        return _per_example(losses_ if weight is None else weight * losses_), Cache(A, Y, weight)

    def backward(self, ops, cache):
        dZ = self.predict(ops, cache.A) - cache.Y
        return dZ if cache.weight is None else cache.weight * dZ

    def equations(self):
        return {"L": "Σ log(1 + e^A) - Y A", "dA": "sigmoid(A) - Y"}

    def predict(self, ops, A):
        return ops.sigmoid(A)


# --- one of many ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Categorical(Loss):
    """Losses of n outputs of which one is right."""

    class_weight: Any = field(default=None, kw_only=True)

    of_classes: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "class_weight", _class_weights(self.class_weight, type(self).__name__))

    def targets(self, Y, output_shape, dtype, *, where="Y"):
        """Class indices, (m,) or (T, m), as integers; or distributions of the outputs' shape."""
        Y = np.asarray(Y)
        n = output_shape[-1]
        if n < 2:
            raise ShapeError(
                f"{type(self).__name__} needs an output for each class",
                expected="2 or more outputs",
                got=output_shape,
                hint="with one output use loss='sigmoid_cross_entropy'",
            )
        _check_classes(self.class_weight, n, type(self).__name__)
        index_shape = output_shape[:-1]
        if fits(Y.shape[:-1], (*index_shape, 1)) and Y.ndim == len(index_shape) + 2:
            Y = Y[..., 0, :]
        if Y.ndim == len(output_shape) + 1:
            Y = super().targets(Y, output_shape, dtype, where=where)
            wrong = (Y.min(axis=-2) < 0) | (abs(Y.sum(axis=-2) - 1) > 1e-3)
            if wrong.any():
                bad = np.argwhere(wrong)[0]
                raise DataError(
                    "a target distribution must be ≥ 0 and sum to 1",
                    where=f"{where}, example {bad[-1]}",
                    got=Y[(*bad[:-1], slice(None), bad[-1])].tolist(),
                )
            return Y
        if not fits(Y.shape[:-1], index_shape):
            raise ShapeError(
                "the targets do not fit the outputs",
                where=where,
                expected=f"class indices {written(*index_shape, 'm')}",
                got=Y.shape,
            )
        if Y.dtype.kind not in "iubf":
            raise DataError("class indices must be whole numbers", where=where, got=f"dtype {Y.dtype}")
        wrong = ~np.isin(Y, np.arange(n))
        if wrong.any():
            bad = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise DataError(
                "no class index of this network",
                where=f"{where}, example {bad[-1]}",
                expected=f"0 … {n - 1} (the network has {n} outputs)",
                got=Y[bad],
            )
        return Y.astype(np.int64)

    def judged(self, ops, A, Y):
        """Probabilities, or class indices where there are none, and classes (m,); the steps of sequences one by one."""
        classes = ops.to_numpy(Y if Y.ndim < A.ndim else Y.argmax(axis=-2))
        P = np.moveaxis(ops.to_numpy(self.predict(ops, A)), -1, 0)
        return P.reshape(-1, P.shape[-1]), np.moveaxis(classes, -1, 0).reshape(-1)

    def _weight(self, ops, A, Y):
        if self.class_weight is None:
            return None
        given = dict(self.class_weight)
        w = ops.asarray([given.get(k, 1.0) for k in range(A.shape[-2])], np.dtype(A.dtype).name)
        if Y.ndim == A.ndim:
            return (w[:, None] * Y).sum(axis=-2)
        return ops.xp.take_along_axis(w, Y.ravel(), 0).reshape(Y.shape)


@losses.register("softmax_cross_entropy", "categorical_cross_entropy_with_logits")
@dataclass(frozen=True)
class SoftmaxCrossEntropy(_Categorical):
    """On logits, fused with softmax: L = -Σ q log softmax(Z), dZ = softmax(Z) - q.

    Arguments:
        class_weight: weight of each class's losses: a mapping, or a sequence in class order.
        label_smoothing: ε, q = (1-ε) Y + ε/n.

    Source: Bridle 1990; label smoothing: Szegedy et al. 2016, section 7.
    """

    label_smoothing: float = number("[0, 1)", 0.0, kw_only=True)

    def forward(self, ops, A, Y):
        losses_, P = ops.softmax_cross_entropy(A, Y, self.label_smoothing, -2)
        weight = self._weight(ops, A, Y)
        return _per_example(losses_ if weight is None else weight * losses_), Cache(P, Y, weight)

    def backward(self, ops, cache):
        dZ = ops.softmax_cross_entropy_backward(cache.A, cache.Y, self.label_smoothing, -2)
        return dZ if cache.weight is None else dZ * cache.weight[..., None, :]

    def equations(self):
        return {"L": "-Σ Y log softmax(A)", "dA": "softmax(A) - Y"}

    def predict(self, ops, A):
        return ops.softmax(A, -2)


@losses.register("cross_entropy", "categorical_cross_entropy")
@dataclass(frozen=True)
class CrossEntropy(_Categorical):
    """On probabilities, such as softmax's: L = -Σ Y log A, dA = -Y/A.

    A is kept away from 0 by the float's own resolution. Prefer logits and ``"softmax_cross_entropy"``.

    Arguments:
        class_weight: weight of each class's losses: a mapping, or a sequence in class order.
    """

    reads: ClassVar[str] = "softmax"

    def forward(self, ops, A, Y):
        xp = ops.xp
        A = xp.maximum(A, float(np.finfo(np.dtype(A.dtype).name).tiny))
        weight = self._weight(ops, A, Y)
        losses_ = -(xp.log(A) * self._distribution(xp, A, Y)).sum(axis=-2)
        return _per_example(losses_ if weight is None else weight * losses_), Cache(A, Y, weight)

    def backward(self, ops, cache):
        dA = -self._distribution(ops.xp, cache.A, cache.Y) / cache.A
        return dA if cache.weight is None else dA * cache.weight[..., None, :]

    def equations(self):
        return {"L": "-Σ Y log A", "dA": "-Y/A"}

    @staticmethod
    def _distribution(xp, A, Y):
        if Y.ndim == A.ndim:
            return Y
        return (xp.arange(A.shape[-2])[:, None] == Y[..., None, :]).astype(A.dtype)


@dataclass(frozen=True)
class _Penalties(_Categorical):
    """Losses of outputs that are penalties, such as `RBF`'s: the smallest wins."""

    def predict(self, ops, A):
        """Probabilities: softmax(-A)."""
        return ops.softmax(-A, -2)

    def _right(self, xp, A, Y):
        return CrossEntropy._distribution(xp, A, Y)


@losses.register("code_distance", "rbf_mse")
@dataclass(frozen=True)
class CodeDistance(_Penalties):
    """The penalty of the right class alone: L = A_y, dA = Y.

    With LeNet-5's radial basis functions the squared distance of F6 from the code of the right class.

    Arguments:
        class_weight: weight of each class's losses: a mapping, or a sequence in class order.

    Source: LeCun et al. 1998, equation 8.
    """

    def forward(self, ops, A, Y):
        right, weight = self._right(ops.xp, A, Y), self._weight(ops, A, Y)
        losses_ = (A * right).sum(axis=-2)
        return _per_example(losses_ if weight is None else weight * losses_), Cache(A, Y, weight)

    def backward(self, ops, cache):
        dA = self._right(ops.xp, cache.A, cache.Y)
        return dA if cache.weight is None else dA * cache.weight[..., None, :]

    def equations(self):
        return {"L": "Σ Y A", "dA": "Y"}


@losses.register("maximum_a_posteriori", "map")
@dataclass(frozen=True)
class MaximumAPosteriori(_Penalties):
    """The penalty of the right class against those of the others: L = A_y + log(e^-j + Σ_i e^-A_i).

    dA_i = Y_i - e^-A_i / (e^-j + Σ_k e^-A_k). The classes compete, and e^-j stands for all that is none of them: a
    wrong penalty already larger than j is pushed no further.

    Arguments:
        rubbish: j, the penalty of belonging to no class, > 0. The paper does not give its value.
        class_weight: weight of each class's losses: a mapping, or a sequence in class order.

    Source: LeCun et al. 1998, equation 9.
    """

    rubbish: float = number("(0, inf)", 10.0, kw_only=True)

    def forward(self, ops, A, Y):
        xp = ops.xp
        right, weight = self._right(xp, A, Y), self._weight(ops, A, Y)
        top = xp.maximum(-A.min(axis=-2), -self.rubbish)
        terms = xp.exp(-A - top[..., None, :])
        total = terms.sum(axis=-2) + xp.exp(-self.rubbish - top)
        losses_ = (A * right).sum(axis=-2) + top + xp.log(total)
        d_losses = right - terms / total[..., None, :]
        return _per_example(losses_ if weight is None else weight * losses_), Cache(d_losses, Y, weight)

    def backward(self, ops, cache):
        return cache.A if cache.weight is None else cache.A * cache.weight[..., None, :]

    def equations(self):
        j = f"{self.rubbish:g}"
        return {"L": f"Σ Y A + log(e^-{j} + Σ e^-A)", "dA": f"Y - e^-A / (e^-{j} + Σ e^-A)"}


@losses.register("hinge")
@dataclass(frozen=True)
class Hinge(_Categorical):
    """The margin loss of support-vector machines.

    One output, targets 0 or 1 (or -1 or 1): L = max(0, 1 - t A) with t = ±1. Several outputs, class indices:
    L = Σ_{j≠y} max(0, 1 + A_j - A_y).

    Arguments:
        class_weight: weight of each class's losses: a mapping, or a sequence in class order.

    Source: Cortes and Vapnik 1995; Weston and Watkins 1999 for several classes.
    """

    def targets(self, Y, output_shape, dtype, *, where="Y"):
        if output_shape[-1] > 1:
            Y = super().targets(Y, output_shape, dtype, where=where)
            return Y if Y.ndim < len(output_shape) + 1 else Y.argmax(axis=-2)
        Y = Loss.targets(self, Y, output_shape, dtype, where=where)
        _check_classes(self.class_weight, 2, "Hinge")
        if not np.isin(Y, (-1, 0, 1)).all():
            bad = tuple(int(i) for i in np.argwhere(~np.isin(Y, (-1, 0, 1)))[0])
            raise DataError(
                "a hinge target out of range",
                where=f"{where}, example {bad[-1]}",
                expected="0 or 1, or -1 or 1",
                got=Y[bad],
            )
        return np.where(Y > 0, 1, -1).astype(dtype)

    def judged(self, ops, A, Y):
        """Class indices: margins are not probabilities."""
        if Y.ndim == A.ndim:
            decided, classes = _examples_first(ops, A) > 0, _examples_first(ops, Y) > 0
            return decided.reshape(-1).astype(np.int64), classes.reshape(-1).astype(np.int64)
        margins, classes = super().judged(ops, A, Y)
        return margins.argmax(axis=-1), classes

    def forward(self, ops, A, Y):
        xp = ops.xp
        if Y.ndim == A.ndim:
            w = dict(self.class_weight or {})
            weight = xp.where(Y > 0, w.get(1, 1.0), w.get(0, 1.0)).astype(A.dtype) if w else None
            losses_ = xp.maximum(1.0 - Y * A, 0.0)
        else:
            weight = self._weight(ops, A, Y)
            losses_ = xp.maximum(self._margins(xp, A, Y), 0.0).sum(axis=-2)
        return _per_example(losses_ if weight is None else weight * losses_), Cache(A, Y, weight)

    def backward(self, ops, cache):
        xp, (A, Y, weight) = ops.xp, cache
        if Y.ndim == A.ndim:
            dA = xp.where(Y * A < 1.0, -Y, xp.zeros_like(Y))
            return dA if weight is None else weight * dA
        inside = (self._margins(xp, A, Y) > 0.0).astype(A.dtype)
        dA = xp.where(self._right(xp, A, Y), -inside.sum(axis=-2, keepdims=True), inside)
        return dA if weight is None else dA * weight[..., None, :]

    @staticmethod
    def _right(xp, A, Y):
        return xp.arange(A.shape[-2])[:, None] == Y[..., None, :]

    def _margins(self, xp, A, Y):
        A_y = xp.take_along_axis(A, Y[..., None, :], -2)
        return xp.where(self._right(xp, A, Y), xp.zeros_like(A), 1.0 + A - A_y)


def _class_weights(given: Any, where: str) -> tuple[tuple[int, float], ...] | None:
    """Class weights as pairs (class, weight), which can be hashed and written to a file."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        pairs = [(int(k), float(w)) for k, w in given.items()]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        paired = all(isinstance(each, (list, tuple)) for each in given)
        pairs = [(int(k), float(w)) for k, w in (given if paired else enumerate(given))]
    else:
        raise ParameterError(
            "cannot read class_weight", where=where, expected="{class: weight} or [w0, w1, …]", got=repr(given)
        )
    if any(not (w >= 0 and math.isfinite(w)) or k < 0 for k, w in pairs):
        raise ParameterError("a class weight must be ≥ 0", where=where, got=pairs)
    return tuple(sorted(pairs))


def _check_classes(weights: tuple[tuple[int, float], ...] | None, n: int, where: str) -> None:
    beyond = [k for k, _ in weights or () if k >= n]
    if beyond:
        raise ParameterError(
            "class_weight names a class that is not there", where=where, expected=f"0 … {n - 1}", got=beyond[0]
        )
