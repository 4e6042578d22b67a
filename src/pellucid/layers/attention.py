"""Attention: each step of one sequence reads all the steps of another, most from those that fit it best."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from pellucid.engines.base import Array
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import PREDICT, Layer, find_rules, positive_integer


class _Cache(NamedTuple):
    """What the backward block reads."""

    queries: Array  # (T_q, n, m)
    values: Array  # (T_v, n_v, m)
    keys: Array | None  # (T_v, n_k, m); None where the values are the keys
    weights: Array  # α (T_q, T_v, m)
    scored: Array  # what the scores were made of: see the layer


@dataclass(frozen=True, eq=False, repr=False)
class _Attention(Layer):
    """Base: scores to weights to context, and back to the scores' gradient."""

    several_inputs: ClassVar[bool | None] = True
    any_length: ClassVar[bool] = True
    causal: ClassVar[bool] = False

    Cache = _Cache  # type: ignore[assignment]

    def output_shape(self, input_shape):
        if len(input_shape) not in (2, 3):
            raise ShapeError(
                "takes queries and values, and keys where they are not the values",
                expected="2 or 3 inputs",
                got=f"{len(input_shape)}",
            )
        for name, shape in zip(("queries", "values", "keys"), input_shape, strict=False):
            if len(shape) != 2:
                raise ShapeError("takes sequences of vectors", expected=f"{name} (T, n)", got=shape)
        queries, values, *keys = input_shape
        if keys and keys[0][0] != values[0]:
            raise ShapeError("a key for each value", expected=f"{values[0]} keys", got=f"{keys[0][0]}")
        self._check_sizes(queries[1], (keys[0] if keys else values)[1])
        return (queries[0], values[1])

    def _check_sizes(self, n: int, n_k: int) -> None:
        """Refuse queries and keys that no score fits."""

    def forward(self, ops, params, A_prev, *, mode=PREDICT):
        queries, values, *given = A_prev
        keys = given[0] if given else values
        mask = mode.mask[1] if isinstance(mode.mask, tuple) else None
        if len(keys) != len(values):
            raise ShapeError("a key for each value", where=repr(self), expected=len(values), got=len(keys))

        scores, scored = self._scores(ops, params, queries, keys)
        if mask is not None:
            scores = ops.xp.where(mask, scores, -ops.xp.inf)
        weights = ops.softmax(scores, axis=1)
        A = ops.xp.einsum("qvm,vnm->qnm", weights, values)
        return A, _Cache(queries, values, keys if given else None, weights, scored)

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        queries, values, keys, weights, scored = cache
        d_scores = self._d_scores(ops, cache, dA)
        d_queries, d_keys, grads = self._scores_backward(
            ops, params, queries, values if keys is None else keys, scored, d_scores, input_gradient
        )
        if not input_gradient:
            return (None,) * (2 if keys is None else 3), grads
        d_values = ops.xp.einsum("qvm,qnm->vnm", weights, dA)
        return (d_queries, d_values + d_keys) if keys is None else (d_queries, d_values, d_keys), grads

    def _d_scores(self, ops: Any, cache: _Cache, dA: Array) -> Array:
        d_weights = ops.xp.einsum("qnm,vnm->qvm", dA, cache.values)
        return ops.softmax_backward(d_weights, cache.weights, axis=1)

    def _scores(self, ops: Any, params: Any, queries: Array, keys: Array) -> tuple[Array, Array]:
        """Scores (T_q, T_v, m), and what `_scores_backward` wants kept."""
        raise NotImplementedError

    def _scores_backward(
        self, ops: Any, params: Any, queries: Array, keys: Array, scored: Array, d_scores: Array, input_gradient: bool
    ) -> tuple[Array, Array, dict[str, Array]]:
        """The gradients of queries, keys and parameters."""
        raise NotImplementedError

    def output_mask(self, mask):
        return mask[0] if isinstance(mask, tuple) else mask

    def equations(self, *, train=True):
        return {
            "alpha": "softmax over s of scores[t, s]",
            "A": "Σ_s alpha[t, s] V[s]",
            "dalpha": "dA[t]ᵀ V[s]",
            "dscores": "alpha * (dalpha - Σ_s dalpha * alpha)",
        }

    def intermediates(self, ops, params, cache, dA):
        keys = cache.values if cache.keys is None else cache.keys
        return {
            "scores": self._scores(ops, params, cache.queries, keys)[0],
            "alpha": cache.weights,
            "dalpha": ops.xp.einsum("qnm,vnm->qvm", dA, cache.values),
            "dscores": self._d_scores(ops, cache, dA),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Attention(_Attention):
    """Dot-product attention: a query's score with a key is their inner product.

        forward    S[t, s] = Q[t]ᵀ K[s] / √n      α[t, ·] = softmax(S[t, ·])     A[t] = Σ_s α[t, s] V[s]
        backward   dα[t, s] = dA[t]ᵀ V[s]         dS = α * (dα - Σ_s dα * α)     dV[s] = Σ_t α[t, s] dA[t]
                   dQ[t] = Σ_s dS[t, s] K[s] / √n                                dK[s] = Σ_t dS[t, s] Q[t] / √n

    Shapes: queries Q (T_q, n, m) · values V (T_v, n_v, m) · keys K (T_v, n, m), V where not given · A (T_q, n_v, m) ·
    α (T_q, T_v, m)

        context = pl.Attention()(queries, values)               # or (queries, values, keys)

    Values at which their mask is False have weight 0. The mask of A is that of the queries.

    Arguments:
        score: ``"scaled_dot"``; ``"dot"`` without the 1/√n; or ``"general"``, Q[t]ᵀ W K[s] with W (n, n_k), for keys of
            another size or meaning than the queries.
        initializer: how W starts.
        regularizer: of W; None takes the network's.

    Source: dot and general: Luong, Pham and Manning 2015, section 3.1; scaled: Vaswani et al. 2017, section 3.2.1.
    """

    score: str = "scaled_dot"
    initializer: Any = field(default="xavier_uniform", kw_only=True)
    regularizer: Any = field(default=None, kw_only=True)

    def __post_init__(self):
        if self.score not in ("scaled_dot", "dot", "general"):
            raise ParameterError(
                "no such score",
                where="Attention",
                expected="scaled_dot, dot or general",
                got=repr(self.score),
                hint="pl.AdditiveAttention(units) is a layer of its own",
            )
        find_rules(self)

    @property
    def regularized(self) -> tuple[str, ...]:  # type: ignore[override]
        """W, where there is one."""
        return ("W",) if self.score == "general" else ()

    def _check_sizes(self, n, n_k):
        if n != n_k and self.score != "general":
            raise ShapeError(
                "queries and keys of different sizes have no inner product",
                expected=f"keys (T, {n})",
                got=f"(T, {n_k})",
                hint='score="general", or pl.AdditiveAttention(units)',
            )

    def init(self, rng, input_shape, dtype="float32"):
        if self.score != "general":
            return {}
        n, n_k = input_shape[0][1], input_shape[-1][1]
        return {"W": self.initializer(rng, (n, n_k), fan_in=n_k, fan_out=n, dtype=dtype)}

    def _scale(self, n: int) -> float:
        return n**-0.5 if self.score == "scaled_dot" else 1.0

    def _scores(self, ops, params, queries, keys):
        keys = ops.affine(params["W"], keys, None) if self.score == "general" else keys
        return ops.xp.einsum("qnm,vnm->qvm", queries, keys) * self._scale(queries.shape[1]), keys

    def _scores_backward(self, ops, params, queries, keys, scored, d_scores, input_gradient):
        d_scores = d_scores * self._scale(queries.shape[1])
        d_queries = ops.xp.einsum("qvm,vnm->qnm", d_scores, scored) if input_gradient else None
        if self.score != "general" and not input_gradient:
            return None, None, {}
        d_scored = ops.xp.einsum("qvm,qnm->vnm", d_scores, queries)
        if self.score != "general":
            return d_queries, d_scored, {}
        d_keys = ops.affine_dA(params["W"], d_scored) if input_gradient else None
        return d_queries, d_keys, {"W": ops.affine_dW(d_scored, keys)}

    def equations(self, *, train=True):
        W, scale = " W" * (self.score == "general"), " / √n" * (self.score == "scaled_dot")
        W_T = " Wᵀ" * (self.score == "general")
        return {
            "scores": f"Q[t]ᵀ{W} K[s]{scale}",
            **super().equations(train=train),
            **({"dW": "(1/m) Σ_t,s Q[t] dscores[t, s] K[s]ᵀ"} if W else {}),
            "dA_prev": f"of Q: Σ_s dscores[t, s]{W} K[s]{scale} · of V: Σ_t alpha[t, s] dA[t] · "
            f"of K: Σ_t dscores[t, s]{W_T} Q[t]{scale}",
        }

    def multiply_adds(self, input_shape):
        (T_q, n), (T_v, n_v), *_ = input_shape
        projected = T_v * n * input_shape[-1][1] if self.score == "general" else 0
        return T_q * T_v * (n + n_v) + projected


@dataclass(frozen=True, eq=False, repr=False)
class AdditiveAttention(_Attention):
    """Additive attention: a query's score with a key is what a small network of one hidden layer says of the two.

        forward    H[t, s] = tanh(W Q[t] + U K[s])    S[t, s] = v H[t, s]
                   α[t, ·] = softmax(S[t, ·])         A[t] = Σ_s α[t, s] V[s]
        backward   dS, dV as in `Attention`           dP[t, s] = vᵀ dS[t, s] * (1 - H²)
                   dQ[t] = Wᵀ Σ_s dP[t, s]            dK[s] = Uᵀ Σ_t dP[t, s]
                   dW = (1/m) Σ_t,s dP Q[t]ᵀ          dU = (1/m) Σ_t,s dP K[s]ᵀ      dv = (1/m) Σ_t,s dS Hᵀ

    Shapes: queries Q (T_q, n, m) · values V (T_v, n_v, m) · keys K (T_v, n_k, m), V where not given · W (units, n) ·
    U (units, n_k) · v (1, units) · A (T_q, n_v, m) · α (T_q, T_v, m)

    It keeps H, of T_q T_v units m numbers; `Attention` has nothing of that size.

    Arguments:
        units: of the hidden layer.
        initializer: how W, U and v start.
        regularizer: of W, U and v; None takes the network's.

    Source: Bahdanau, Cho and Bengio 2015, appendix A.1.2.
    """

    units: int
    initializer: Any = field(default="xavier_uniform", kw_only=True)
    regularizer: Any = field(default=None, kw_only=True)

    regularized: ClassVar[tuple[str, ...]] = ("W", "U", "v")

    def __post_init__(self):
        positive_integer(self.units, "units", self)
        find_rules(self)

    def init(self, rng, input_shape, dtype="float32"):
        shapes = {"W": (self.units, input_shape[0][1]), "U": (self.units, input_shape[-1][1]), "v": (1, self.units)}
        return {
            name: self.initializer(rng, (n, n_prev), fan_in=n_prev, fan_out=n, dtype=dtype)
            for name, (n, n_prev) in shapes.items()
        }

    def _scores(self, ops, params, queries, keys):
        P = ops.affine(params["W"], queries, None)[:, None] + ops.affine(params["U"], keys, None)
        H = ops.xp.tanh(P)
        T_q, T_v, units, m = H.shape
        return ops.affine(params["v"], H.reshape(T_q * T_v, units, m), None).reshape(T_q, T_v, m), H

    def _scores_backward(self, ops, params, queries, keys, scored, d_scores, input_gradient):
        T_q, T_v, units, m = scored.shape
        flat = d_scores.reshape(T_q * T_v, 1, m)
        dP = ops.affine_dA(params["v"], flat).reshape(scored.shape) * (1.0 - scored * scored)
        of_queries, of_keys = dP.sum(axis=1), dP.sum(axis=0)
        grads = {
            "W": ops.affine_dW(of_queries, queries),
            "U": ops.affine_dW(of_keys, keys),
            "v": ops.affine_dW(flat, scored.reshape(T_q * T_v, units, m)),
        }
        if not input_gradient:
            return None, None, grads
        return ops.affine_dA(params["W"], of_queries), ops.affine_dA(params["U"], of_keys), grads

    def equations(self, *, train=True):
        return {
            "scores": "v tanh(W Q[t] + U K[s])",
            **super().equations(train=train),
            "dW": "(1/m) Σ_t,s dP[t, s] Q[t]ᵀ, dP being vᵀ dscores * (1 - tanh²)",
            "dU": "(1/m) Σ_t,s dP[t, s] K[s]ᵀ",
            "dv": "(1/m) Σ_t,s dscores[t, s] tanh(W Q[t] + U K[s])ᵀ",
            "dA_prev": "of Q: Wᵀ Σ_s dP[t, s] · of V: Σ_t alpha[t, s] dA[t] · of K: Uᵀ Σ_t dP[t, s]",
        }

    def multiply_adds(self, input_shape):
        (T_q, n), (T_v, n_v), *_ = input_shape
        return self.units * (T_q * n + T_v * input_shape[-1][1] + T_q * T_v) + T_q * T_v * n_v
