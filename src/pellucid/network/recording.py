"""Predictions of a few examples by one call of the engine: what Python adds to every layer is then paid once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pellucid.layers.base import Mode
from pellucid.registry import own

if TYPE_CHECKING:
    from pellucid.network.base import Network

FEW = 256  # examples: of more, what Python adds is little beside the arithmetic


class Recording:
    """A network's prediction as its engine recorded it, and the objects that it was recorded from.

    Arguments:
        net: the network; of one input and one output, and of the library's own layers, or nothing is recorded.

    Attributes:
        program: what `Ops.recorded` returned; None where nothing was recorded.
    """

    def __init__(self, net: Network) -> None:
        # Noted before they are read: if another thread changes one meanwhile, the recording is no longer valid.
        self._attributes = {name: value for name, value in vars(net).items() if name != "_recording"}
        self._trees = [(each, dict(each)) for tree in (net.parameters, net.state, net.losses) for each in _dicts(tree)]
        shape = next(iter(net.inputs.values()))
        self.program = None
        if net.single and not net.stateful and None not in shape and own((type(net), net.names, net.losses)):
            self.program = net.ops.recorded(lambda ops, X: _prediction(net, ops, X), shape, net.dtype)

    def valid(self, net: Network) -> bool:
        """Whether the network still has what was recorded: every attribute, and every array of its trees."""
        return self.program is None or self.program.unchanged(vars(net), self._attributes, self._trees)

    def __reduce__(self) -> Any:
        """Copied and pickled as None: it reads memory of this network in this process."""
        return type(None), ()


def _prediction(net: Network, ops: Any, X: Any) -> Any:
    run = copy.copy(net)
    run.ops = ops
    name = next(iter(net.inputs))
    outputs, _ = run.forward_pass(net.parameters, net.state, {name: X}, Mode(False, mask={}))
    ((name, A),) = outputs.items()
    return net.losses[name].predict(ops, A) if name in net.losses else A


def _dicts(tree: Any) -> Iterator[dict[str, Any]]:
    """The dictionary and all within it."""
    if isinstance(tree, dict):
        yield tree
        for each in tree.values():
            yield from _dicts(each)
