"""Predicting and measuring: what a network says of data, and how good that is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pellucid import metrics
from pellucid.engines.mesh import Placement
from pellucid.errors import ParameterError, unknown
from pellucid.network.base import Network
from pellucid.optimizers import global_norm
from pellucid.sequences import Sequences, steps_as_examples
from pellucid.training.batches import Batch, Source, consecutive, whole_number
from pellucid.trees import Tree, tree_map


class Seen(NamedTuple):
    """What metrics are computed from, of one batch.

    Attributes:
        outputs, targets: by name of the output.
        weight: of the examples (m,), or None.
        masks: which steps of the outputs count, (T, m), of those where not all do.
    """

    outputs: dict[str, Any]
    targets: dict[str, Any]
    weight: Any
    masks: dict[str, Any]


def predict(net: Network, x: Any, *, batch_size: int = 1024) -> Any:
    """What the network says of examples-first data; see `Network.predict`."""
    source = Source(net, x, predicting=True)
    made: dict[str, list[np.ndarray]] = {name: [] for name in net.outputs}
    lengths: dict[str, list[np.ndarray | None]] = {name: [] for name in net.outputs}
    state = net.state
    for batch in consecutive(source, whole_number("batch_size", batch_size)):
        masks = net.masks(batch.masks)
        outputs, state = net.predicted(net.parameters, state, batch.inputs, masks)
        for name, A in outputs.items():
            said = net.losses[name].predict(net.ops, A) if name in net.losses else A
            made[name].append(np.moveaxis(net.ops.to_numpy(said), -1, 0))
            mask = masks.get(net.ends[name])
            lengths[name].append(None if mask is None else net.ops.to_numpy(mask).sum(axis=0))
    whole = {name: _whole(parts, lengths[name]) for name, parts in made.items()}
    if net.stateful:
        net.adopt(net.parameters, state)
    return whole["output"] if net.single else whole


def _whole(parts: list[np.ndarray], lengths: list[np.ndarray | None]) -> Any:
    """The batches' outputs as one array; as `Sequences` where there is an output for each of differing steps."""
    if all(each is None for each in lengths) and len({part.shape[1:] for part in parts}) == 1:
        return np.ascontiguousarray(np.concatenate(parts))
    padded = zip(parts, lengths, strict=True)
    each = [Sequences.padded(A, np.full(len(A), A.shape[1]) if n is None else n) for A, n in padded]
    return Sequences.joined(
        np.concatenate([part.values for part in each]), np.concatenate([part.lengths for part in each])
    )


def evaluate(
    net: Network, x: Any, y: Any = None, *, sample_weight: Any = None, metrics: Any = "auto", batch_size: int = 1024
) -> dict[str, float]:
    """Loss and metrics, as in prediction: ``{"loss": …, "accuracy": …}``.

    Arguments:
        net: the network.
        x, y, sample_weight, metrics: as in `fit`.
        batch_size: examples at a time; changes nothing but memory, or where stateful layers go on from batch to batch.

    Returns:
        values by name; for several outputs with the output's name before: ``"kind_accuracy"``.
    """
    source = Source(net, x, y, sample_weight=sample_weight)
    return measured(net, source, metrics_of(net, metrics), whole_number("batch_size", batch_size))


def measured(
    net: Network,
    source: Source,
    chosen: dict[str, list[metrics.Metric]],
    batch_size: int,
    *,
    params: Tree | None = None,
    state: Tree | None = None,
    placement: Placement | None = None,
) -> dict[str, float]:
    """Mean loss and metrics of a source, with the network's own parameters or those given, lying as ``placement``."""
    params, state = net.parameters if params is None else params, net.state if state is None else state
    if net.stateful:  # these are other sequences than those that were run before
        state = {**state, **net.fresh_state()}
    totals: dict[str, float] = dict.fromkeys(net.losses, 0.0)
    batches = []
    for batch in consecutive(source, batch_size, placement):
        masks = net.masks(batch.masks)
        outputs, state = net.predicted(params, state, batch.inputs, masks)
        for name, loss in net.losses.items():
            mask = net.loss_mask(masks, name)
            each, _ = loss.masked_forward(net.ops, outputs[name], batch.targets[name], mask)
            each = net.ops.to_numpy(each if batch.weight is None else each * batch.weight)
            totals[name] += float(each.sum(dtype=np.float64))
        if chosen:
            batches.append(seen(net, batch, outputs, masks))
    means = {name: total / len(source) for name, total in totals.items()}
    values = {"loss": sum(net.loss_weights[name] * mean for name, mean in means.items())}
    if len(means) > 1:
        values |= {f"{name}_loss": mean for name, mean in means.items()}
    return values | judged(net, chosen, batches if placement is None else [placement.home(each) for each in batches])


def seen(net: Network, batch: Batch, outputs: dict[str, Any], masks: dict[str, Any]) -> Seen:
    """What metrics are computed from, of a batch and the outputs for it, with the masks by label."""
    own = {name: net.loss_mask(masks, name) for name in net.losses}
    return Seen(
        outputs, batch.targets, batch.weight, {name: mask > 0 for name, mask in own.items() if mask is not None}
    )


def told(net: Network, output: str, batches: list[Seen]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Predictions, truth and weights of an output, for metrics: one row for each example, or step of a sequence."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    weights: list[np.ndarray | None] = []
    for outputs, targets, weight, masks in batches:
        A, Y = net.ops.asarray(outputs[output]), net.ops.asarray(targets[output])
        weight = None if weight is None else net.ops.to_numpy(weight)
        if A.ndim == 3:
            mask = masks.get(output)
            if weight is not None:
                weight = np.broadcast_to(weight, (len(A), len(weight)))
                weight = weight.reshape(-1) if mask is None else weight[net.ops.to_numpy(mask)]
            A, Y = (steps_as_examples(net.ops.xp, each, mask) for each in (A, Y))
        parts.append((net.ops.to_numpy(A), net.ops.to_numpy(Y)))
        weights.append(weight)
    # Judged once: of many small batches, judging each would cost Python more than the arithmetic costs.
    A, Y = (net.ops.asarray(np.concatenate(each, axis=-1)) for each in zip(*parts, strict=True))
    said, true = net.losses[output].judged(net.ops, A, Y)
    if weights[0] is None:
        return said, true, None
    weight = np.concatenate([each for each in weights if each is not None])
    return said, true, np.repeat(weight, len(true) // len(weight))


def judged(net: Network, chosen: dict[str, list[metrics.Metric]], batches: list[Seen]) -> dict[str, float]:
    """The metrics of what was seen batch by batch."""
    values: dict[str, float] = {}
    for output, wanted in chosen.items() if batches else ():
        predictions, truth, weight = told(net, output, batches)
        for metric in wanted:
            name = metric.name if len(net.outputs) == 1 else f"{output}_{metric.name}"
            values[name] = float(metric.compute(predictions, truth, sample_weight=weight))
    return values


def layer_norms(xp: Any, before: Tree, after: Tree, grads: Tree) -> dict[str, dict[str, Any]]:
    """For every layer ‖dW‖ of all its parameters together, ‖W‖ and ‖ΔW‖/‖W‖ of one update."""
    norms = {}
    for name, params in before.items():
        weight = global_norm(xp, params)
        moved = global_norm(xp, tree_map(lambda new, old: new - old, after[name], params))
        norms[name] = {
            "gradient_norm": global_norm(xp, grads[name]),
            "weight_norm": weight,
            "update_ratio": moved / xp.maximum(weight, np.finfo(np.float32).tiny),
        }
    return norms


def metrics_of(net: Network, wanted: Any) -> dict[str, list[metrics.Metric]]:
    """The metrics of each output that has any."""
    by_output = wanted if isinstance(wanted, dict) else dict.fromkeys(net.losses, wanted)
    chosen = {}
    for output, names in by_output.items():
        if output not in net.losses:
            raise unknown("output", output, net.losses, where="metrics")
        task = "classification" if net.losses[output].of_classes else "regression"
        if isinstance(names, str) and names == "auto":
            chosen[output] = list(metrics.default_for(task))
            continue
        one = isinstance(names, (str, metrics.Metric))
        chosen[output] = [metrics.get(each, where="metrics") for each in ((names,) if one else names)]
        for metric in chosen[output]:
            if metric.task != task:
                raise ParameterError(
                    f"{metric.name} is a metric of {metric.task}",
                    where="metrics",
                    expected=f"a metric of {task}",
                    hint=f"the loss {net.losses[output].registered_name!r} makes it {task}",
                )
    return {output: each for output, each in chosen.items() if each}
