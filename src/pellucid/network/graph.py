"""Branches: topological order forward, reverse order backward, gradients summed where paths meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.errors import ParameterError, ShapeError, unknown
from pellucid.layers.base import Call, Input, Layer, Node, backward, named
from pellucid.network.base import Network, Step, in_order
from pellucid.network.parameters import added
from pellucid.registry import config


class Graph(Network):
    """A network of several inputs, outputs and losses, its layers called on nodes.

        a, b = pl.Input(64), pl.Input((1, 28, 28))
        h = pl.Concat()(pl.Dense(32, "relu")(a), pl.Dense(32, "relu")(pl.Flatten()(b)))
        net = pl.Graph(inputs={"a": a, "b": b}, outputs={"kind": pl.Dense(10)(h)}, loss="softmax_cross_entropy")

    A value that feeds several layers gets the sum of their gradients: the chain rule along every path. A layer object
    called at several places shares its parameters.

    Arguments:
        inputs: nodes from `pl.Input` by name, or one node.
        outputs: nodes by name, or one node.
        loss: one for each output, by name; or one for the only output.
        loss_weights: factor of each output's loss in J; 1 where not named.
        seed, engine, dtype, precision, regularizer, mesh: as in `Sequential`.

    Raises:
        ShapeError, ParameterError: an input the outputs do not need, or one they need and that is not named.
    """

    def __init__(
        self,
        *,
        inputs: Mapping[str, Node] | Node,
        outputs: Mapping[str, Node] | Node,
        loss: Any = None,
        loss_weights: Mapping[str, float] | None = None,
        seed: int = 0,
        engine: str = "auto",
        dtype: str = "float32",
        precision: str | None = None,
        regularizer: Any = None,
        mesh: Any = None,
    ) -> None:
        single = isinstance(inputs, Node) and isinstance(outputs, Node)
        self.input_nodes = {"input": inputs} if isinstance(inputs, Node) else dict(inputs)
        self.output_nodes = {"output": outputs} if isinstance(outputs, Node) else dict(outputs)
        for name, node in [*self.input_nodes.items(), *self.output_nodes.items()]:
            if not isinstance(node, Node):
                raise ParameterError("not a node of a graph", where=f"{name!r}", got=type(node).__name__)
        if not self.output_nodes:
            raise ParameterError("a network needs an output", where="Graph")
        self.calls = _topological(list(self.output_nodes.values()))
        self._check_inputs()
        self.names = named([call.layer for call in self.calls], self.input_nodes)
        self.input_shapes = {}
        for call in self.calls:
            if self.input_shapes.setdefault(call.layer, call.input_shape) != call.input_shape:
                raise ShapeError(
                    "one layer at two places with inputs of different shapes",
                    where=self.names[call.layer],
                    expected=self.input_shapes[call.layer],
                    got=call.input_shape,
                )
        self.inputs = {name: node.shape for name, node in self.input_nodes.items()}
        self.outputs = {name: node.shape for name, node in self.output_nodes.items()}
        self.steps, self.ends = self._steps()
        self._prepare(
            loss=loss,
            loss_weights=loss_weights,
            seed=seed,
            engine=engine,
            dtype=dtype,
            precision=precision,
            regularizer=regularizer,
            mesh=mesh,
            single=single,
        )
        self._trained: set[Node] = set()  # nodes with parameters somewhere before them
        for call in self.calls:
            if self.names[call.layer] in self.parameters or self._trained.intersection(call.inputs):
                self._trained.update(call.nodes)

    def _check_inputs(self) -> None:
        used = {node for call in self.calls for node in call.inputs if node.call is None}
        used.update(node for node in self.output_nodes.values() if node.call is None)
        known = {node: name for name, node in self.input_nodes.items()}
        for name, node in self.input_nodes.items():
            if node.call is not None:
                raise ParameterError("inputs are made by pl.Input", where=f"input {name!r}", got=repr(node))
            if node not in used:
                raise ParameterError(f"no output depends on input {name!r}", where="Graph", hint="leave it out")
        for node in used:
            if node not in known:
                raise ParameterError(
                    f"the outputs depend on an Input {node.shape} that is not among the inputs",
                    where="Graph",
                    expected="every pl.Input that leads to an output, by name",
                    got=", ".join(self.input_nodes),
                )

    def _steps(self) -> tuple[tuple[Step, ...], dict[str, str]]:
        labels: dict[Node, str] = {node: name for name, node in self.input_nodes.items()}
        taken, steps = set(labels.values()), []
        for call in self.calls:
            name = label = self.names[call.layer]
            again = 1
            while label in taken:
                again += 1
                label = f"{name}@{again}"
            taken.add(label)
            outputs = tuple(label if len(call.nodes) == 1 else f"{label}:{node.index}" for node in call.nodes)
            labels.update(zip(call.nodes, outputs, strict=True))
            shapes = tuple(node.shape for node in call.nodes)
            steps.append(
                Step(
                    label,
                    name,
                    call.layer,
                    tuple(labels[node] for node in call.inputs),
                    outputs,
                    call.input_shape,
                    shapes if len(shapes) > 1 else shapes[0],
                )
            )
        return tuple(steps), {name: labels[node] for name, node in self.output_nodes.items()}

    def forward_pass(self, params, state, inputs, mode, *, observer=None):
        values = {node: inputs[name] for name, node in self.input_nodes.items()}
        caches = []
        for index, call in enumerate(self.calls):
            layer, name = call.layer, self.names[call.layer]
            A_prev = call.as_input(tuple(values[node] for node in call.inputs))
            own = self._own_mode(index, state, mode)
            with self.ops.scope(f"{self.steps[index].label}/forward"):
                A, cache = layer.forward(self.ops, self.ops.fetched(params.get(name, {})), A_prev, mode=own)
            values.update(zip(call.nodes, A if len(call.nodes) > 1 else (A,), strict=True))
            caches.append(cache)
            if observer:
                observer.forward(index, A_prev, A, cache)
        # Of a layer's several outputs some may lead nowhere: their gradient is zeros of their shape.
        parts = {node: values[node] for call in self.calls if len(call.nodes) > 1 for node in call.nodes}
        return {name: values[node] for name, node in self.output_nodes.items()}, (caches, parts)

    def backward_pass(self, params, caches, d_outputs, *, input_gradient, observer=None):
        kept, parts = caches
        d_values: dict[Node, Any] = {}
        for name, node in self.output_nodes.items():
            d_values[node] = d_values[node] + d_outputs[name] if node in d_values else d_outputs[name]
        grads: dict[str, Any] = {}
        for index in range(len(self.calls) - 1, -1, -1):
            call = self.calls[index]
            layer, name = call.layer, self.names[call.layer]
            wanted = input_gradient or not self._trained.isdisjoint(call.inputs)
            if not (wanted or name in params):
                continue
            dA = tuple(
                d_values[node] if node in d_values else self.ops.xp.zeros_like(parts[node]) for node in call.nodes
            )
            dA = dA if len(dA) > 1 else dA[0]
            with self.ops.scope(f"{self.steps[index].label}/backward"):
                weights = self.ops.fetched(params.get(name, {}), dA)
                dA_prev, own = backward(layer, self.ops, weights, kept[index], dA, input_gradient=wanted)
            if observer:
                observer.backward(index, dA, dA_prev, own)
            if own:
                grads[name] = added(grads[name], own) if name in grads else own
            if wanted:
                for node, d in zip(call.inputs, dA_prev if isinstance(dA_prev, tuple) else (dA_prev,), strict=True):
                    d_values[node] = d_values[node] + d if node in d_values else d
        d_inputs = {name: d_values.get(node) if input_gradient else None for name, node in self.input_nodes.items()}
        return d_inputs, in_order(grads, params)

    def _caches(self, caches):
        return caches[0]

    def next_state(self, state, caches):
        new = dict(state)
        for call, cache in zip(self.calls, caches[0], strict=True):
            name = self.names[call.layer]
            if name in new:
                new[name] = call.layer.next_state(self.ops, new[name], cache)
        return new

    def config(self):
        steps = []
        first_use: dict[Layer, str] = {}
        for step in self.steps:
            described = config(step.layer)
            fields = {"type": described} if isinstance(described, str) else dict(described)
            if step.layer in first_use:
                fields = {"shared": first_use[step.layer]}
            first_use.setdefault(step.layer, step.label)
            steps.append({**fields, "name": step.label, "inputs": list(step.sources)})
        return {
            "network": "Graph",
            "single": self.single,
            "inputs": {name: self._listed(name) for name in self.inputs},
            "layers": steps,
            "outputs": dict(self.ends),
            **self._shared_config(),
        }

    @classmethod
    def from_config(cls, document: dict[str, Any], **options: Any) -> Graph:
        """The network that `config` described."""
        from pellucid.network.saving import layer_from

        inputs = {name: Input(shape) for name, shape in document["inputs"].items()}
        nodes: dict[str, Node] = dict(inputs)
        members: dict[str, Layer] = {}

        def find(label: str, where: str) -> Node:
            if label not in nodes:
                raise unknown("node", label, nodes, where=where)
            return nodes[label]

        for index, step in enumerate(document["layers"], 1):
            fields = dict(step)
            label = fields.get("name") or f"layer_{index}"
            where = f"layer {index} ({label})"
            sources = [find(each, where) for each in fields.pop("inputs", [])]
            if not sources:
                raise ParameterError("a layer of a graph needs inputs", where=where, expected=list(nodes))
            if "shared" in fields:
                fields.pop("name", None)
            else:
                fields["name"] = label
            layer = members[label] = layer_from(fields, members, where)
            made = layer(*sources)
            if isinstance(made, Node):
                nodes[label] = made
            else:
                nodes.update({f"{label}:{i}": node for i, node in enumerate(made)})
        outputs = {name: find(label, f"output {name!r}") for name, label in document["outputs"].items()}
        if document.get("single"):
            return cls(inputs=inputs["input"], outputs=outputs["output"], **options)
        return cls(inputs=inputs, outputs=outputs, **options)

    def __repr__(self) -> str:
        return f"Graph({len(self.calls)} calls, inputs={self.inputs}, outputs={self.outputs})"


def _topological(outputs: list[Node]) -> list[Call]:
    """Every call that leads to the outputs, each after those it depends on."""
    order: list[Call] = []
    done: set[Call] = set()
    stack = [(node.call, False) for node in reversed(outputs)]
    while stack:
        call, ready = stack.pop()
        if call is None or call in done:
            continue
        if ready:
            done.add(call)
            order.append(call)
        else:
            stack.append((call, True))
            stack.extend((node.call, False) for node in reversed(call.inputs))
    return order
