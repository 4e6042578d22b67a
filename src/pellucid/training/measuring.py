"""Predicting and measuring: what a network says of data, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid import metrics
from pellucid.errors import ParameterError, unknown
from pellucid.layers.base import Mode
from pellucid.network.base import Network
from pellucid.optimizers import global_norm
from pellucid.training.batches import Source, consecutive, whole_number
from pellucid.trees import Tree, tree_map

Seen = tuple[dict[str, Any], dict[str, Any], Any]
"""Outputs and targets by name and the weights (or None) of a batch, which metrics are computed from."""


def predict(net: Network, x: Any, *, batch_size: int = 1024) -> Any:
    """What the network says of examples-first data; see `Network.predict`."""
    source = Source(net, x, predicting=True)
    made: dict[str, list[np.ndarray]] = {name: [] for name in net.outputs}
    for batch in consecutive(source, whole_number("batch_size", batch_size)):
        outputs, _ = net.forward_pass(net.parameters, net.state, batch.inputs, Mode(False))
        for name, A in outputs.items():
            said = net.losses[name].predict(net.ops, A) if name in net.losses else A
            made[name].append(np.moveaxis(net.ops.to_numpy(said), -1, 0))
    whole = {name: np.ascontiguousarray(np.concatenate(parts)) for name, parts in made.items()}
    return whole["output"] if net.single else whole


def evaluate(
    net: Network, x: Any, y: Any = None, *, sample_weight: Any = None, metrics: Any = "auto", batch_size: int = 1024
) -> dict[str, float]:
    """Loss and metrics, as in prediction: ``{"loss": …, "accuracy": …}``.

    Arguments:
        net: the network.
        x, y, sample_weight, metrics: as in `fit`.
        batch_size: examples at a time; changes nothing but memory.

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
) -> dict[str, float]:
    """Mean loss and metrics of a source, with the network's own parameters or those given."""
    params, state = net.parameters if params is None else params, net.state if state is None else state
    totals: dict[str, float] = dict.fromkeys(net.losses, 0.0)
    seen = []
    for inputs, targets, weight in consecutive(source, batch_size):
        outputs, _ = net.forward_pass(params, state, inputs, Mode(False))
        for name, loss in net.losses.items():
            each, _ = loss.forward(net.ops, outputs[name], targets[name])
            each = net.ops.to_numpy(each if weight is None else each * weight)
            totals[name] += float(each.sum(dtype=np.float64))
        if chosen:
            seen.append((outputs, targets, weight))
    means = {name: total / len(source) for name, total in totals.items()}
    values = {"loss": sum(net.loss_weights[name] * mean for name, mean in means.items())}
    if len(means) > 1:
        values |= {f"{name}_loss": mean for name, mean in means.items()}
    return values | judged(net, chosen, seen)


def joined(seen: list[Seen]) -> Seen:
    """Batches as one."""

    def join(arrays: Sequence[Any]) -> np.ndarray:
        return np.concatenate([np.asarray(each) for each in arrays], axis=-1)

    outputs, targets, weights = zip(*seen, strict=True)
    weight = None if weights[0] is None else join(weights)
    by_name = [{name: join([each[name] for each in trees]) for name in trees[0]} for trees in (outputs, targets)]
    return by_name[0], by_name[1], weight


def judged(net: Network, chosen: dict[str, list[metrics.Metric]], seen: list[Seen]) -> dict[str, float]:
    """The metrics of what was seen batch by batch."""
    values: dict[str, float] = {}
    if not chosen or not seen:
        return values
    outputs, targets, weight = joined(seen)
    for output, wanted in chosen.items():
        A, Y = net.ops.asarray(outputs[output]), net.ops.asarray(targets[output])
        predictions, truth = net.losses[output].judged(net.ops, A, Y)
        each_weight = None if weight is None else np.repeat(weight, len(truth) // len(weight))
        for metric in wanted:
            name = metric.name if len(net.outputs) == 1 else f"{output}_{metric.name}"
            values[name] = float(metric.compute(predictions, truth, sample_weight=each_weight))
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
