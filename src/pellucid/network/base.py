"""What every network can do: run forward, run backward, say what it costs, learn, be saved."""

from __future__ import annotations

import math
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from pellucid import engines, losses, regularizers
from pellucid.engines.base import Array, Ops
from pellucid.engines.mesh import Mesh
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.layers.activations import Activation, Identity
from pellucid.layers.base import Layer, Mode, Shape, relocated
from pellucid.layers.recompute import Recompute
from pellucid.network import parameters
from pellucid.network.recording import FEW, Recording
from pellucid.registry import config
from pellucid.sequences import Sequences, fits, written
from pellucid.trees import Tree, at, flatten, put, tree_map

_TWINS = {
    "softmax_cross_entropy": "cross_entropy",
    "sigmoid_cross_entropy": "binary_cross_entropy",
    "cross_entropy": "softmax_cross_entropy",
    "binary_cross_entropy": "sigmoid_cross_entropy",
}


class Iteration(NamedTuple):
    """One pass forward and backward.

    Attributes:
        cost: J, the mean loss with the regularizers' penalties.
        losses: each example's loss, weighted, (m,).
        outputs: the outputs by name.
        caches: what the forward blocks kept.
        d_inputs: dA[0] by input name; None where it was not asked for.
        grads: a tree of the parameters' shape.
        state: the layers' state after this pass.
    """

    cost: Array
    losses: Array
    outputs: dict[str, Array]
    caches: Any
    d_inputs: dict[str, Array | None]
    grads: Tree
    state: Tree


class Step(NamedTuple):
    """One application of a layer.

    Attributes:
        label: the layer's name; ``dense_1@2`` where it is used a second time.
        name: the layer's name, as in `Network.parameters`.
        layer: the layer.
        sources: labels of what it reads: an input's name, or another step's output.
        outputs: labels of what it makes: its own label, or ``split_1:0``, ``split_1:1``, …
        input_shape, output_shape: without the example axis; tuples of shapes for several inputs or outputs.
    """

    label: str
    name: str
    layer: Layer
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    input_shape: Any
    output_shape: Any


class Observer:
    """Told every value of an iteration as it is computed; this one does nothing. ``index`` counts `Network.steps`."""

    def forward(self, index: int, A_prev: Any, A: Any, cache: Any) -> None:
        """A forward block ran; tuples for several inputs or outputs."""

    def loss(self, name: str, losses: Array, dA: Array) -> None:
        """A loss ran on output ``name``: each example's loss and its gradient, weighted as they enter J."""

    def backward(self, index: int, dA: Any, dA_prev: Any, grads: Tree) -> None:
        """A backward block ran; ``grads`` is this application's own share."""


class Network(ABC):
    """Base of `Sequential` and `Graph`.

    Attributes:
        names: each layer's name.
        steps: every application of a layer, in the order they run.
        ends: which of the steps' outputs each output of the network is, by label.
        parameters: the tree of parameters, ``{"dense_1": {"W": …, "b": …}, …}``.
        state: the tree of what changes without gradients, such as running means.
        inputs, outputs: shapes by name, without the example axis.
        penalties: (layer, parameter, regularizer) for each parameter that one applies to.
        ops: the engine's primitives.
        placement: where parameters and state lie.
        dtype, precision: of its arrays, and of the operands of products.
    """

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    names: dict[Layer, str]
    steps: tuple[Step, ...]
    ends: dict[str, str]
    input_shapes: dict[Layer, Any]
    _recording: Recording | None = None  # of `predict`

    def _prepare(
        self,
        *,
        loss: Any,
        loss_weights: Mapping[str, float] | None,
        seed: int,
        engine: str,
        dtype: str,
        precision: str | None,
        regularizer: Any,
        mesh: Any,
        single: bool,
    ) -> None:
        """What the two kinds of network share of being made, once layers, names and shapes stand."""
        if dtype not in ("float32", "float64"):
            raise ParameterError("unknown dtype", where="network", expected="float32 or float64", got=repr(dtype))
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ParameterError("seed must be an integer ≥ 0", where="network", got=repr(seed))
        if precision not in (None, dtype) and dtype != "float32":
            raise ParameterError(
                "float64 is multiplied as it is",
                where="network, precision",
                expected="dtype='float32'",
                got=f"precision={precision!r} with dtype={dtype!r}",
            )
        self.ops: Ops = engines.get(engine, None if precision == dtype else precision)
        self.placement = self.ops.placement(Mesh.of(mesh))
        self.precision = precision or dtype
        self.engine, self.seed, self.dtype, self.single = engine, int(seed), dtype, single
        self.regularizer = regularizer and regularizers.get(regularizer, where="network")
        self.losses = self._losses(loss)
        self._check_last_activations()
        unknown_weights = set(loss_weights or {}) - set(self.outputs)
        if unknown_weights:
            raise ParameterError(
                "loss_weights names no output", expected=", ".join(self.outputs), got=", ".join(sorted(unknown_weights))
            )
        for name, share in (loss_weights or {}).items():
            if not (isinstance(share, Real) and 0 <= share < math.inf):
                raise ParameterError(
                    "a loss weight is a number", where=f"loss_weights, {name!r}", expected="≥ 0", got=repr(share)
                )
        for step in self.steps:
            if step.label != step.name and step.name in self.stateful:
                raise ParameterError(
                    "a stateful layer at two places would go on in one where the other ended",
                    where=step.label,
                    expected="a layer for each place, or stateful=False",
                )
        self.loss_weights = {name: float((loss_weights or {}).get(name, 1.0)) for name in self.outputs}
        self.preprocessing: dict[str, Any] | None = None  # how to make inputs from raw data; saved with the network
        self.penalties = [
            (name, path, rule)
            for layer, name in self.names.items()
            for path, own in layer.penalized().items()
            if (rule := own or self.regularizer)
        ]
        self._compile()
        self.initialize()

    def _losses(self, loss: Any) -> dict[str, losses.Loss]:
        if loss is None:
            return {}
        by_output = dict(loss) if isinstance(loss, Mapping) and "type" not in loss else {}
        if not by_output:
            if len(self.outputs) > 1:
                raise ParameterError(
                    "one loss for several outputs", expected=f"a loss for each of {list(self.outputs)}"
                )
            by_output = {next(iter(self.outputs)): loss}
        if set(by_output) != set(self.outputs):
            raise ParameterError("each output needs a loss", expected=list(self.outputs), got=list(by_output))
        return {name: losses.get(by_output[name], where=f"output {name!r}") for name in self.outputs}

    def _check_last_activations(self) -> None:
        """Refuse a loss on logits behind a softmax, and one on probabilities behind a layer that gives none."""
        makers = {label: step for step in self.steps for label in step.outputs}
        for name, loss in self.losses.items():
            step = makers.get(self.ends[name])
            if step is None:  # an output that is an input
                continue
            layer = step.layer.layers[-1] if isinstance(step.layer, Recompute) else step.layer
            g = getattr(layer, "activation", layer)
            if not isinstance(g, Activation) or isinstance(layer, Identity):
                continue
            twin, probable = (
                _TWINS.get(loss.registered_name),
                g.registered_name in ("sigmoid", "softmax", "hard_sigmoid"),
            )
            if twin is None or probable == (loss.reads != "identity"):
                continue
            logits = loss.reads == "identity"
            raise ParameterError(
                f"{loss.registered_name} reads {'logits' if logits else 'probabilities'}, "
                f"and {step.label} ends in {g.registered_name}",
                where=f"output {name!r}",
                expected="no activation there" if logits else f"activation={loss.reads!r} there",
                got=repr(step.layer),
                hint=f"or loss={twin!r}, which reads {'probabilities' if logits else 'logits'}",
            )

    def initialize(self, seed: int | None = None) -> None:
        """Draw all parameters anew and reset the state.

        Arguments:
            seed: of the draws; None for the network's own. Each layer has a stream of its own, so adding a layer
                leaves the layers before it as they were.
        """
        self.seed = self.seed if seed is None else int(seed)
        params: Tree = {}
        state: Tree = {}
        for index, (layer, name) in enumerate(self.names.items()):
            # Without the last number, layer 0 would be drawn from default_rng(seed)'s stream, as users' data often is.
            rng = np.random.default_rng([self.seed, index, 1])
            # Placed at once: of a network that is spread over devices there is never more than a layer at one place.
            params[name] = self._on_engine(layer.init(rng, self.input_shapes[layer], np.dtype(self.dtype)))
            state[name] = self._on_engine(layer.init_state(self.input_shapes[layer], np.dtype(self.dtype)))
        self._recording = None
        self._parameters = {name: tree for name, tree in params.items() if tree}
        self.state = {name: tree for name, tree in state.items() if tree}

    def _on_engine(self, tree: Tree) -> Tree:
        return tree_map(self.placed, tree)

    def placed(self, leaf: Any) -> Array:
        """A parameter or a leaf of the state on the engine, where it belongs."""
        return self.placement.placed(leaf, self.dtype)

    @property
    def parameters(self) -> Tree:
        """The tree ``{layer: {"W": (n, n_prev), "b": (n, 1), …}, …}``. Setting it checks every shape."""
        return self._parameters

    @parameters.setter
    def parameters(self, params: Tree) -> None:
        self._recording = None  # which keeps the arrays alive that it reads
        self._parameters = parameters.fitted(params, self._parameters, self.placed)

    def _compile(self) -> None:
        """Have the engine compile what predictions run; for a weak reference, as networks would not be freed else."""
        self._predicted = self.ops.compile(partial(_predicted, weakref.proxy(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_predicted", "placement")}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        vars(self).update(attributes)
        self.placement = self.ops.placement(None)
        self._compile()

    def adopt(self, params: Tree, state: Tree) -> None:
        """Take over trees that came from a training of this network, unchecked and not copied."""
        self._recording = None
        self._parameters, self.state = params, state

    # --- forward and backward, as pure functions of what goes in ------------------------------------------------

    @abstractmethod
    def forward_pass(
        self, params: Tree, state: Tree, inputs: dict[str, Array], mode: Mode, *, observer: Observer | None = None
    ) -> tuple[dict[str, Array], Any]:
        """All forward blocks in order: outputs by name, and the caches."""

    @abstractmethod
    def backward_pass(
        self,
        params: Tree,
        caches: Any,
        d_outputs: dict[str, Array],
        *,
        input_gradient: bool,
        observer: Observer | None = None,
    ) -> tuple[dict[str, Array | None], Tree]:
        """All backward blocks in reverse order: dA[0] by input name, and the gradients."""

    @abstractmethod
    def next_state(self, state: Tree, caches: Any) -> Tree:
        """The layers' state after a forward pass that left ``caches``."""

    def predicted(
        self, params: Tree, state: Tree, inputs: dict[str, Array], masks: dict[str, Array]
    ) -> tuple[dict[str, Array], Tree]:
        """The outputs by name as in prediction, compiled where the engine compiles, and the layers' state after it.

        Arguments:
            params, state: trees as `parameters` and `state`.
            inputs: X by input name, examples last.
            masks: which steps count, by label, as `masks` returns them.
        """
        with self.placement.active() if params is self._parameters else nullcontext():
            return self._predicted(params, state, inputs, masks)

    def iteration(
        self,
        params: Tree,
        state: Tree,
        inputs: dict[str, Array],
        targets: dict[str, Array],
        *,
        weight: Array | None = None,
        mode: Mode,
        input_gradient: bool = False,
        observer: Observer | None = None,
    ) -> Iteration:
        """Forward, loss, backward: one iteration of the notes without its update.

        Arguments:
            params, state: trees as `parameters` and `state`.
            inputs: X by input name, examples last.
            targets: Y by output name, as the loss's `targets` returned them.
            weight: w of each example (m,): J = (1/m) Σ wᵢ Lᵢ.
            mode: training or prediction, with the random stream.
            input_gradient: True to have dA[0] too.
            observer: is shown every value on the way.
        """
        outputs, caches = self.forward_pass(params, state, inputs, mode, observer=observer)
        total: Any = 0.0
        d_outputs: dict[str, Array] = {}
        for name, loss in self.losses.items():
            mask = self.loss_mask(mode.mask, name)
            each, cache = loss.masked_forward(self.ops, outputs[name], targets[name], mask)
            dA = loss.masked_backward(self.ops, cache, mask)
            share = self.loss_weights[name]
            if weight is not None:
                each, dA = each * weight, dA * weight
            if share != 1.0:
                each, dA = each * share, dA * share
            total, d_outputs[name] = total + each, dA
            if observer:
                observer.loss(name, each, dA)
        d_inputs, grads = self.backward_pass(
            params, caches, d_outputs, input_gradient=input_gradient, observer=observer
        )
        for layer, name, rule in self.penalties:
            dW, W = at(grads[layer], name), at(params[layer], name)
            put(grads[layer], name, dW + rule.gradient(self.ops.xp, W))
        # Not total.mean(), whose Python is, after large kernels, in no cache.
        cost = self.ops.xp.add.reduce(total) / total.size + self.penalty(params)
        new_state = self.next_state(state, caches) if mode.train else state
        return Iteration(cost, total, outputs, caches, d_inputs, grads, new_state)

    def objective(
        self,
        params: Tree,
        state: Tree,
        inputs: dict[str, Array],
        targets: dict[str, Array],
        *,
        weight: Array | None = None,
        mode: Mode,
    ) -> Array:
        """J alone, without the backward half. Arguments as in `iteration`."""
        outputs, _ = self.forward_pass(params, state, inputs, mode)
        total: Any = 0.0
        for name, loss in self.losses.items():
            mask = self.loss_mask(mode.mask, name)
            each, _ = loss.masked_forward(self.ops, outputs[name], targets[name], mask)
            total = total + self.loss_weights[name] * each
        if weight is not None:
            total = total * weight
        return total.mean() + self.penalty(params)

    def penalty(self, params: Tree) -> Any:
        """The sum of the regularizers' penalties."""
        return sum((rule.penalty(self.ops.xp, at(params[layer], name)) for layer, name, rule in self.penalties), 0.0)

    def projected(self, params: Tree) -> Tree:
        """The parameters after the regularizers that constrain them, such as a largest norm; others unchanged."""
        for layer, name, rule in self.penalties:
            put(params[layer], name, rule.project(self.ops.xp, at(params[layer], name)))
        return params

    def start(self) -> Tree:
        """What the layers with memory carry along a sequence, before its first step: zeros by layer name.

        In place of (or beside) `state`, a pass starts from it and `carried` is where it ended, so that a long sequence
        can be run in parts.
        """
        tree = {name: own for layer, name in self.names.items() if (own := layer.start(np.dtype(self.dtype)))}
        return self._on_engine(tree)

    def carried(self, caches: Any, step: int | None = None) -> Tree:
        """What the layers with memory carry after ``step`` steps of the pass that left ``caches``; None is all.

        Raises:
            ParameterError: a layer with memory is used twice, or runs backwards.
        """
        found: Tree = {}
        for each, cache in zip(self.steps, self._caches(caches), strict=True):
            if each.layer.start():
                if each.name in found:
                    raise ParameterError("a layer with memory at two places cannot be run in parts", where=each.name)
                if not each.layer.causal:
                    raise ParameterError("a layer that runs backwards cannot be run in parts", where=each.name)
                found[each.name] = each.layer.state_at(cache, step)
        return found

    @abstractmethod
    def _caches(self, caches: Any) -> Sequence[Any]:
        """The caches of `steps`, in their order."""

    @property
    def stateful(self) -> frozenset[str]:
        """The names of the layers that start each batch where the batch before ended."""
        return frozenset(name for layer, name in self.names.items() if getattr(layer, "stateful", False))

    def fresh_state(self, m: int = 1) -> Tree:
        """What the stateful layers start from before a first batch: zeros, for m examples; for 1, of any number."""
        fresh = {name: own for name, own in self.start().items() if name in self.stateful}
        return tree_map(lambda zeros: self.ops.xp.repeat(zeros, m, axis=-1), fresh)

    def reset_state(self) -> None:
        """Let the stateful layers start anew, as before a first batch."""
        self.state = {**self.state, **self.fresh_state()}

    # --- the same for users: arrays checked, own parameters -----------------------------------------------------

    def forward(self, X: Any, *, mask: Any = None, train: bool = False, update: int = 0) -> tuple[Any, Any]:
        """Forward propagation, layer by layer: ``A, caches = net.forward(X)``.

        Arguments:
            X: (n[0], m), (channels, height, width, m), or (T, n_x, m): examples last; by name for several inputs.
            mask: which steps of sequences count, (T, m) booleans; by name for several inputs.
            train: True to run as in training (dropout drops, normalisation uses the batch).
            update: which update's random stream to draw from when training.

        Returns:
            the output A[L] (by name for several outputs) and the caches that `backward` reads.

        Raises:
            ShapeError, DataError: X does not fit, or is not finite.
        """
        inputs = self.checked(X)
        mode = self._mode(train, update, self.checked_masks(mask, inputs))
        outputs, caches = self.forward_pass(self.parameters, self.state, inputs, mode)
        return self._unnamed(outputs), caches

    def backward(self, caches: Any, dA: Any, *, input_gradient: bool = True) -> tuple[Any, Tree]:
        """Backward propagation from dA[L]: ``dX, grads = net.backward(caches, dA)``.

        Arguments:
            caches: from `forward`.
            dA: the gradient of each example's own loss, of the output's shape; by name for several outputs.
            input_gradient: False to leave out dA[0], which training never uses.

        Returns:
            dA[0] (by name for several inputs) and the gradients, a tree of the parameters' shape: means over the batch.

        Raises:
            ShapeError: dA does not have the outputs' shape.
        """
        d_outputs = {}
        for name, value in self.named(dA, self.outputs, "dA").items():
            place = "dA" if self.single else f"dA[{name!r}]"
            check_input(value, self.outputs[name], place, "the gradient does not have the output's shape")
            d_outputs[name] = self.ops.asarray(value, self.dtype)
        _same_count(d_outputs, {})
        d_inputs, grads = self.backward_pass(self.parameters, caches, d_outputs, input_gradient=input_gradient)
        return self._unnamed(d_inputs), grads

    def cost(self, X: Any, Y: Any, *, sample_weight: Any = None, mask: Any = None) -> float:
        """J = (1/m) Σ L(Ŷ, Y) + the regularizers' penalties, as in prediction.

        Arguments:
            X: inputs, examples last.
            Y: class indices (m,), or values (n[L], m).
            sample_weight: wᵢ of each example, (m,).
            mask: as in `forward`.
        """
        inputs = self.checked(X)
        mode = self._mode(False, 0, self.checked_masks(mask, inputs))
        targets = self.checked_targets(Y, masks=mode.mask)
        self._check_counts(inputs, targets)
        weight = self._checked_weight(sample_weight, next(iter(targets.values())).shape[-1])
        return float(self.objective(self.parameters, self.state, inputs, targets, weight=weight, mode=mode))

    def gradients(
        self, X: Any, Y: Any, *, sample_weight: Any = None, mask: Any = None, train: bool = True, update: int = 0
    ) -> tuple[float, Tree]:
        """J and its gradients: ``J, grads = net.gradients(X, Y)``. Arguments as in `cost` and `forward`."""
        done = self.checked_iteration(X, Y, sample_weight=sample_weight, mask=mask, train=train, update=update)
        return float(done.cost), done.grads

    def checked_iteration(
        self,
        X: Any,
        Y: Any,
        *,
        sample_weight: Any = None,
        mask: Any = None,
        train: bool = True,
        update: int = 0,
        input_gradient: bool = False,
        observer: Observer | None = None,
    ) -> Iteration:
        """`iteration` on users' arrays with the network's own parameters; changes nothing."""
        inputs = self.checked(X)
        mode = self._mode(train, update, self.checked_masks(mask, inputs))
        targets = self.checked_targets(Y, masks=mode.mask)
        self._check_counts(inputs, targets)
        return self.iteration(
            self.parameters,
            self.state,
            inputs,
            targets,
            weight=self._checked_weight(sample_weight, next(iter(targets.values())).shape[-1]),
            mode=mode,
            input_gradient=input_gradient,
            observer=observer,
        )

    def _check_counts(self, inputs: Mapping[str, Array], targets: Mapping[str, Array]) -> None:
        """Refuse targets of other numbers of examples or steps than the inputs."""
        _same_count(inputs, targets)
        steps = {name: len(A) for name, A in inputs.items() if self.inputs[name][0] is None}
        for name, Y in targets.items():
            if self.outputs[name][0] is None and len(Y) not in steps.values():
                raise ShapeError(
                    "inputs and targets of different lengths",
                    where="Y" if self.single else f"Y[{name!r}]",
                    expected=" or ".join(f"{T} steps" for T in steps.values()),
                    got=f"{len(Y)} steps",
                )

    def _checked_weight(self, weight: Any, m: int) -> Array | None:
        if weight is None:
            return None
        weight = np.asarray(weight)
        if weight.shape != (m,):
            raise ShapeError("one weight for each example", where="sample_weight", expected=f"({m},)", got=weight.shape)
        if weight.dtype.kind not in "fiub" or not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise DataError("sample weights are finite numbers ≥ 0", where="sample_weight")
        return self.ops.asarray(weight, self.dtype)

    def _mode(self, train: bool, update: int, masks: Mapping[str, Array] | None = None) -> Mode:
        key = self.ops.random_key(self.seed, update) if train else None
        return Mode(train, key, mask=self.masks(masks))

    def masks(self, inputs: Mapping[str, Array] | None) -> dict[str, Array]:
        """Which steps count, by label of every value in the network, from the masks of the inputs that have one.

        Arguments:
            inputs: masks (T, m) by input name.

        Raises:
            ShapeError: sequences of different lengths meet a layer that cannot take them.
        """
        found = dict(inputs or {})
        if not found:
            return found
        for index, step in enumerate(self.steps, 1):
            mask = self._mask_of(step, found)
            try:
                made = step.layer.output_mask(mask)
            except ShapeError as problem:
                raise relocated(problem, f"layer {index} ({step.label})", f"from {', '.join(step.sources)}") from None
            parts = made if isinstance(made, tuple) else (made,) * len(step.outputs)
            found |= {label: part for label, part in zip(step.outputs, parts, strict=True) if part is not None}
        return found

    def loss_mask(self, masks: Mapping[str, Array] | None, output: str) -> Array | None:
        """Which steps of an output its loss counts, of masks by label: its own, or what ``loss/output`` says."""
        return None if not masks else masks.get(f"loss/{output}", masks.get(self.ends[output]))

    @staticmethod
    def _mask_of(step: Step, masks: Mapping[str, Array]) -> Any:
        """The mask of what a step reads; a tuple where it reads several values."""
        own = tuple(masks.get(label) for label in step.sources)
        if not any(each is not None for each in own):
            return None
        return own if step.layer.several_inputs or len(own) > 1 else own[0]

    def _own_mode(self, index: int, state: Tree, mode: Mode) -> Mode:
        """How the step of that index is run."""
        step = self.steps[index]
        mask = self._mask_of(step, mode.mask) if mode.mask else None
        return Mode(mode.train, self._key(mode, index), state.get(step.name, {}), mask)

    def _key(self, mode: Mode, index: int) -> Any:
        return None if mode.key is None else self.ops.fold_in(mode.key, index)

    def checked(self, X: Any, *, where: str = "X") -> dict[str, Array]:
        """The inputs by name as the engine's arrays, refused before any arithmetic where they do not fit.

        Raises:
            ShapeError: another shape than the network's input, or different numbers of examples.
            DataError: values that are not numbers or not finite.
        """
        inputs = {}
        for name, value in self.named(X, self.inputs, where).items():
            place = where if self.single else f"{where}[{name!r}]"
            check_input(value, self.inputs[name], place)
            inputs[name] = self.ops.asarray(value, self.dtype)
            if not bool(self.ops.xp.isfinite(inputs[name]).all()):
                A = self.ops.to_numpy(inputs[name])
                bad = tuple(int(i) for i in np.argwhere(~np.isfinite(A))[0])
                raise DataError("the input is not finite", where=f"{place}, example {bad[-1]}", got=A[bad])
        _same_count(inputs, {})
        return inputs

    def checked_masks(self, mask: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The masks by input name; of an input without one, all steps count.

        Raises:
            ShapeError: a mask that is not (T, m).
            DataError: one that is not True and False, or an example without a True.
        """
        if mask is None:
            return {}
        named = mask if isinstance(mask, Mapping) else self.named(mask, self.inputs, "mask")
        found = {}
        for name, value in named.items():
            place = "mask" if self.single else f"mask[{name!r}]"
            if name not in inputs:
                raise ShapeError("a mask of no input", where=place, expected=list(inputs), got=name)
            value, shape = np.asarray(value), inputs[name].shape
            if value.shape != (shape[0], shape[-1]):
                raise ShapeError(
                    "the mask does not fit the input",
                    where=place,
                    expected=f"(T, m) = {(shape[0], shape[-1])}",
                    got=value.shape,
                    hint="steps first, examples last: mask.T" if value.T.shape == (shape[0], shape[-1]) else None,
                )
            if not ((value == 0) | (value == 1)).all():
                raise DataError("a mask is made of True and False", where=place, got=f"dtype {value.dtype}")
            empty = np.flatnonzero(~value.astype(bool).any(axis=0))
            if empty.size:
                raise DataError(
                    "a mask without a single True: an example of no steps",
                    where=f"{place}, example {empty[0]}",
                    expected="1 step or more that counts",
                    got=f"{len(value)} times False",
                    hint="leave the example out",
                )
            found[name] = self.ops.asarray(value.astype(bool))
        return found

    def checked_targets(
        self, Y: Any, *, masks: Mapping[str, Array] | None = None, where: str = "Y"
    ) -> dict[str, Array]:
        """The targets by output name, as the losses read them; whatever they are at steps that do not count.

        Arguments:
            Y: targets, examples last.
            masks: which steps count, by label, as `masks` returns them.
            where: what to call Y in messages.
        """
        if not self.losses:
            raise ParameterError("the network has no loss", hint="make it with loss='softmax_cross_entropy', say")
        named = self.named(Y, self.outputs, where)
        return {
            name: self.ops.asarray(
                loss.targets(
                    self._counted(named[name], self.loss_mask(masks, name)),
                    self.outputs[name],
                    np.dtype(self.dtype),
                    where=where if self.single else f"{where}[{name!r}]",
                )
            )
            for name, loss in self.losses.items()
        }

    def _counted(self, Y: Any, mask: Array | None) -> Any:
        """The targets with those of a step that counts in the place of those that do not."""
        Y = np.asarray(Y)
        if mask is None or Y.ndim < 2 or (Y.shape[0], Y.shape[-1]) != mask.shape:
            return Y
        mask = self.ops.to_numpy(mask)
        steps = np.where(mask, np.arange(len(mask))[:, None], mask.argmax(axis=0))
        return np.take_along_axis(Y, steps.reshape(len(mask), *(1,) * (Y.ndim - 2), -1), axis=0)

    def named(self, values: Any, names: Mapping[str, Any], where: str) -> dict[str, Any]:
        """``values`` by name: a mapping with exactly these names, or the one value for the one name.

        Raises:
            ShapeError: other names than these, or one value for several.
        """
        if not isinstance(values, Mapping):
            if len(names) > 1:
                raise ShapeError(
                    f"the network has several: {', '.join(names)}", where=where, expected="a dictionary by name"
                )
            return {next(iter(names)): values}
        if set(values) != set(names):
            raise ShapeError("other names than the network's", where=where, expected=list(names), got=list(values))
        return {name: values[name] for name in names}

    def _unnamed(self, values: dict[str, Any]) -> Any:
        return next(iter(values.values())) if self.single else values

    # --- what a network is made of ------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What `pellucid.network.from_config` rebuilds the network from, parameters aside."""

    def _listed(self, name: str) -> list[int | str]:
        """An input's shape as files have it, which have no None."""
        return ["T" if n is None else n for n in self.inputs[name]]

    def _shared_config(self) -> dict[str, Any]:
        one = next(iter(self.losses.values()), None)
        shared: dict[str, Any] = {"seed": self.seed, "dtype": self.dtype}
        if self.precision != self.dtype:
            shared["precision"] = self.precision
        if self.losses:
            shared["loss"] = config(one if len(self.losses) == 1 else self.losses)
        if self.regularizer:
            shared["regularizer"] = config(self.regularizer)
        if any(share != 1.0 for share in self.loss_weights.values()):
            shared["loss_weights"] = self.loss_weights
        return shared

    # --- doors to the rooms above, opened only when used --------------------------------------------------------

    def fit(self, x: Any, y: Any = None, **options: Any) -> Any:
        """Train on examples-first data; see `pellucid.training.loop.fit` for the arguments. Returns the `History`."""
        from pellucid.training.loop import fit

        return fit(self, x, y, **options)

    def predict(self, x: Any, *, batch_size: int = 1024) -> Any:
        """What the network says of examples-first data: probabilities for a loss on classes, values otherwise.

        Arguments:
            x: (m, …), examples first; by name for several inputs.
            batch_size: examples at a time.

        Returns:
            (m, n[L]), or (m, T, n[L]) where there is an output at every step, as `Sequences` where T differs; by name
            for several outputs. Stateful layers go on from what was run before, see `reset_state`.
        """
        recording = self._recording
        if recording is None or not recording.valid(self):
            recording = self._recording = Recording(self)
        if recording.program is not None and type(batch_size) is int and batch_size > 0:
            A = recording.program(x, min(batch_size, FEW))
            if A is not None:  # otherwise x is more, or has to be converted or refused
                return A
        from pellucid.training.measuring import predict

        return predict(self, x, batch_size=batch_size)

    def evaluate(self, x: Any, y: Any = None, **options: Any) -> dict[str, float]:
        """Loss and metrics on examples-first data; see `pellucid.training.measuring.evaluate`."""
        from pellucid.training.measuring import evaluate

        return evaluate(self, x, y, **options)

    def summary(self) -> Any:
        """Layers, output shapes, parameters, multiply–adds and cache memory; prints as a table."""
        from pellucid.inspect.summary import summary

        return summary(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network, its parameters, state and preprocessing to one file (safetensors); `pl.load` reads it."""
        from pellucid.network.saving import save

        save(self, path)


def _predicted(
    net: Network, params: Tree, state: Tree, inputs: dict[str, Array], masks: dict[str, Array]
) -> tuple[dict[str, Array], Tree]:
    outputs, caches = net.forward_pass(params, state, inputs, Mode(False, mask=masks))
    return outputs, net.next_state(state, caches) if net.stateful else state


def check_input(
    value: Any, shape: Shape, where: str, problem: str = "the input does not fit the network's input (A[0])"
) -> None:
    """Refuse an array that is not (*shape, m), as ``problem`` says.

    Raises:
        ShapeError: saying which axis looks swapped where one does.
        DataError: it does not hold numbers.
    """
    if isinstance(value, Sequences):
        raise DataError(
            "sequences are for fit, predict and evaluate; here they are an array and a mask",
            where=where,
            expected=f"an array {written(*shape, 'm')}",
            hint="X, mask = x.batch(range(len(x)))",
        )
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is None:
        raise DataError(
            "not an array", where=where, expected=f"an array {written(*shape, 'm')}", got=type(value).__name__
        )
    if kind not in "fiub":
        raise DataError("not numbers", where=where, expected="a float or integer array", got=f"dtype {value.dtype}")
    got = tuple(value.shape)
    if fits(got[:-1], shape) and got:
        return
    hint = None
    if None in shape and 0 in got:
        hint = "a sequence of length 0 has nothing to go through; give it 1 step or more"
    elif got[1:] == shape:
        hint = "examples come last here (columns): give X.T, or np.moveaxis(X, 0, -1); fit and predict take (m, …)"
    elif got == shape:
        hint = "one example is a batch of one: X[..., None]"
    elif len(got) == 4 and len(shape) == 3 and (got[1], got[2], got[0]) == shape:
        hint = "the channel axis comes first: (channels, height, width, m)"
    raise ShapeError(problem, where=where, expected=written(*shape, "m"), got=got, hint=hint)


def in_order(grads: Tree, params: Tree) -> Tree:
    """The layers' gradients in the parameters' order.

    Raises:
        ParameterError: a layer returned no gradients, or others than it has parameters.
    """
    for name, own in params.items():
        found, own = flatten(grads.get(name, {})), flatten(own)
        if found.keys() != own.keys():
            raise ParameterError(
                "backward returned other gradients than the layer has parameters",
                where=name,
                expected=", ".join(own),
                got=", ".join(found) or "none",
                hint=f"end it with: return dA_prev, {{{', '.join(f'{each!r}: …' for each in own)}}}",
            )
        for path, W in own.items():
            gradient = found[path]
            if gradient.shape != W.shape:
                turned = gradient.shape == W.shape[::-1]
                raise ShapeError(
                    f"backward returned a gradient of another shape than its parameter {path}",
                    where=name,
                    expected=W.shape,
                    got=gradient.shape,
                    hint="transpose it" if turned else "a parameter's gradient is the mean over the examples alone",
                )
    return {name: grads[name] for name in params}


def _same_count(inputs: Mapping[str, Array], targets: Mapping[str, Array]) -> None:
    counts = {name: int(value.shape[-1]) for name, value in [*inputs.items(), *targets.items()]}
    if len(set(counts.values())) > 1:
        raise ShapeError("different numbers of examples m", got=", ".join(f"{k}: {n}" for k, n in counts.items()))
    if not all(counts.values()):
        raise DataError("there are no examples", got="m = 0")
