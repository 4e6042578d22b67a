"""A chain of layers: a list forward, the list reversed backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.base import Layer, as_shape, backward, named, output_shape, relocated
from pellucid.network.base import Network, Step, in_order
from pellucid.network.parameters import added
from pellucid.registry import config


class Sequential(Network):
    """A chain: A[0] = X, layer l makes A[l] from A[l-1], A[L] = Ŷ.

    One layer object used at several places shares its parameters there; its gradient is the sum over the places.

    Arguments:
        layers: the layers, from the input to the output.
        input_shape: of one example: ``(n_x,)``, ``(channels, height, width)``, or ``(T, n_x)`` for sequences, with None
            (in a file ``"T"``) for T where it may be any.
        loss: by name or as an object; None for a network that is only run.
        loss_weights: as in `Graph`.
        seed: of the parameters and of dropout.
        engine: ``"auto"``, ``"numpy"``, ``"native"`` or ``"jax"``.
        dtype: ``"float32"``, or ``"float64"`` for checks.
        precision: ``"bfloat16"`` to round what dense and convolutional layers multiply to bfloat16, and sum in float32;
            parameters, gradients and everything else stay in ``dtype``. ``"tensorfloat32"``, on the jax engine, lets
            GPUs that can multiply in TF32. None multiplies as it is.
        regularizer: of every weight whose layer names none of its own.
        mesh: devices that the parameters are spread over as they are drawn, with ``engine="jax"``; as in
            `pellucid.fit`, which takes it from here. None is one device.

    Raises:
        ShapeError: layers that do not fit together, naming the layer and the shapes up to it.
    """

    def __init__(
        self,
        *layers: Layer | Sequence[Layer],
        input_shape: int | Sequence[int | str | None],
        loss: Any = None,
        loss_weights: Any = None,
        seed: int = 0,
        engine: str = "auto",
        dtype: str = "float32",
        precision: str | None = None,
        regularizer: Any = None,
        mesh: Any = None,
    ) -> None:
        chain = layers[0] if len(layers) == 1 and isinstance(layers[0], (list, tuple)) else layers
        self.layers: tuple[Layer, ...] = tuple(chain)  # type: ignore[arg-type]
        if not self.layers:
            raise ParameterError("a network needs a layer", where="Sequential")
        for index, layer in enumerate(self.layers, 1):
            if not isinstance(layer, Layer):
                hint = "write pl.Dense(10), not pl.Dense" if isinstance(layer, type) else None
                raise ParameterError("not a layer", where=f"layer {index}", got=repr(layer), hint=hint)
        self.inputs = {"input": as_shape(input_shape, "input_shape", any_length=True)}
        self.names = named(self.layers, self.inputs)
        self.shapes = self._follow(self.inputs["input"])
        self.outputs = {"output": self.shapes[-1]}
        self.steps = self._steps()
        self.ends = {"output": self.steps[-1].label}
        self._prepare(
            loss=loss,
            loss_weights=loss_weights,
            seed=seed,
            engine=engine,
            dtype=dtype,
            precision=precision,
            regularizer=regularizer,
            mesh=mesh,
            single=True,
        )
        trained = [index for index, layer in enumerate(self.layers) if self.names[layer] in self.parameters]
        self._first_trained = trained[0] if trained else len(self.layers)

    def _follow(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Every layer's output shape, from the input's."""
        shapes, path = [shape], f"input {shape}"
        self.input_shapes = {}
        for index, layer in enumerate(self.layers, 1):
            where = f"layer {index} ({self.names[layer]})"
            if layer.several_inputs:
                raise ShapeError("joins several inputs", where=where, hint="use pl.Graph for branches")
            if self.input_shapes.setdefault(layer, shapes[-1]) != shapes[-1]:
                raise ShapeError(
                    "one layer at two places with inputs of different shapes",
                    where=where,
                    expected=self.input_shapes[layer],
                    got=shapes[-1],
                )
            try:
                shapes.append(output_shape(layer, shapes[-1]))
            except ShapeError as problem:
                raise relocated(problem, where, path) from None
            if shapes[-1] and isinstance(shapes[-1][0], tuple):
                raise ShapeError("has several outputs", where=where, hint="use pl.Graph for branches")
            path += f" → {self.names[layer]} {shapes[-1]}"
        return shapes

    def _steps(self) -> tuple[Step, ...]:
        steps: list[Step] = []
        uses: Counter[str] = Counter()
        for index, layer in enumerate(self.layers):
            name = self.names[layer]
            uses[name] += 1
            label = name if uses[name] == 1 else f"{name}@{uses[name]}"
            source = steps[-1].label if steps else "input"
            steps.append(Step(label, name, layer, (source,), (label,), self.shapes[index], self.shapes[index + 1]))
        return tuple(steps)

    def forward_pass(self, params, state, inputs, mode, *, observer=None):
        A, caches = inputs["input"], []
        for index, layer in enumerate(self.layers):
            name = self.names[layer]
            A_prev = A
            own = self._own_mode(index, state, mode)
            with self.ops.scope(f"{self.steps[index].label}/forward"):
                A, cache = layer.forward(self.ops, self.ops.fetched(params.get(name, {})), A_prev, mode=own)
            caches.append(cache)
            if observer:
                observer.forward(index, A_prev, A, cache)
        return {"output": A}, caches

    def backward_pass(self, params, caches, d_outputs, *, input_gradient, observer=None):
        dA = d_outputs["output"]
        grads: dict[str, Any] = {}
        last = 0 if input_gradient else self._first_trained
        for index in range(len(self.layers) - 1, last - 1, -1):
            layer = self.layers[index]
            name = self.names[layer]
            wanted = input_gradient or index > last
            with self.ops.scope(f"{self.steps[index].label}/backward"):
                weights = self.ops.fetched(params.get(name, {}), dA)
                dA_prev, own = backward(layer, self.ops, weights, caches[index], dA, input_gradient=wanted)
            if own:
                grads[name] = added(grads[name], own) if name in grads else own
            if observer:
                observer.backward(index, dA, dA_prev, own)
            dA = dA_prev
        return {"input": dA if input_gradient else None}, in_order(grads, params)

    def _caches(self, caches):
        return caches

    def next_state(self, state, caches):
        new = dict(state)
        for layer, cache in zip(self.layers, caches, strict=True):
            name = self.names[layer]
            if name in new:
                new[name] = layer.next_state(self.ops, new[name], cache)
        return new

    def config(self):
        chain = []
        first_use: dict[Layer, str] = {}
        for layer in self.layers:
            if layer in first_use:
                chain.append({"shared": first_use[layer]})
                continue
            first_use[layer] = self.names[layer]
            described = config(layer)
            fields = {"type": described} if isinstance(described, str) else described
            chain.append({**fields, "name": layer.name} if layer.name else fields)
        return {
            "network": "Sequential",
            "input_shape": self._listed("input"),
            "layers": chain,
            **self._shared_config(),
        }

    @classmethod
    def from_config(cls, document: dict[str, Any], **options: Any) -> Sequential:
        """The network that `config` described."""
        from pellucid.network.saving import layer_from

        members: dict[str, Layer] = {}
        chain: list[Layer] = []
        for index, each in enumerate(document["layers"], 1):
            chain.append(layer_from(each, members, f"layer {index}"))
            members.update({name: layer for layer, name in named(chain).items()})
        return cls(*chain, input_shape=document["input_shape"], **options)

    def __repr__(self) -> str:
        inside = ", ".join(map(repr, self.layers))
        return f"Sequential({inside}, input_shape={self.inputs['input']})"
