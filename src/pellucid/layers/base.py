"""What a layer is: a specification with a forward block that keeps a cache and a backward block that reads it."""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pellucid import initializers, regularizers
from pellucid.engines.base import Array, Ops
from pellucid.errors import EngineError, ParameterError, ShapeError
from pellucid.registry import Registry, config
from pellucid.schedules import check_numbers
from pellucid.trees import Tree, tree_map

Shape = tuple[int, ...]
Params = Tree
Grads = Tree
State = Tree

layers: Registry[Layer] = Registry("layer")


class Mode(NamedTuple):
    """How a block is being run.

    Attributes:
        train: True in training, False in prediction.
        key: the random stream of this layer at this update; None where nothing is drawn.
        state: this layer's state, such as the running mean of BatchNorm.
        mask: which steps of the input count, (T, m) booleans, where its sequences have different lengths; a tuple of
            them, or of None, for several inputs; None where all steps do. In a network's pass, masks by label.
    """

    train: bool
    key: Any = None
    state: State = {}  # noqa: RUF012  a NamedTuple's default, never written to
    mask: Any = None


PREDICT = Mode(train=False)


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A layer: hyperparameters only. Parameters, state and caches go in and come out.

    A layer of the library is a frozen dataclass with `output_shape`, `init`, `forward` and `backward`. A layer of
    your own can be written the same way, or as in the notes: ``build`` asks for weights by `add_weight`, ``call``
    computes, ``backward`` returns the gradients.

        class LinearBuild(pl.Layer):
            def __init__(self, units=32):
                super().__init__()
                self.units = units

            def build(self, input_shape):
                self.w = self.add_weight(shape=(self.units, input_shape[0]), initializer="random_normal")
                self.b = self.add_weight(shape=(self.units, 1), initializer="random_normal")

            def call(self, inputs):
                return self.w @ inputs + self.b

            def backward(self, ops, params, cache, dA, *, input_gradient=True):
                m = dA.shape[-1]
                grads = {"w": dA @ cache.A_prev.T / m, "b": dA.mean(axis=1, keepdims=True)}
                return params["w"].T @ dA if input_gradient else None, grads

    Two layers are equal only if they are the same object: one object used twice shares its weights.

    Arguments:
        name: what the layer is called in parameters and messages; numbered by class when not given.
    """

    name: str | None = field(default=None, kw_only=True)

    several_inputs: ClassVar[bool | None] = False  # None: one or several, several as a tuple
    any_length: ClassVar[bool] = False  # its input's first axis may be steps of any number, some of them masked
    causal: ClassVar[bool] = True  # no step of its output reads a later one of its input
    needs_batch: ClassVar[bool] = False  # a batch of one example says nothing in training
    takes_example_mask: ClassVar[bool] = False  # in training, with `mode.mask` (m,) of 0 and 1, it is as of those alone
    regularized: ClassVar[tuple[str, ...]] = ()  # the parameters that a regularizer applies to
    registered_name: ClassVar[str] = ""

    class Cache(NamedTuple):
        """What `backward` reads."""

        A_prev: Array  # the input, its own shape and m

    def __init_subclass__(cls, *, names: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__name__.startswith("_"):  # a base of layers, no layer itself
            return
        names = names or (cls.__name__,)
        taken = layers.lookup(names[0])
        if taken is not None and taken.__module__.startswith("pellucid.") and cls.__module__ != taken.__module__:
            raise ParameterError(
                f"{cls.__name__} is the name of a layer of pellucid", hint="give your class another name"
            )
        layers.register(*names)(cls)

    def __repr__(self) -> str:
        parts = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name == "name" or not hasattr(self, name):
                continue
            value = config(getattr(self, name))
            if value != config(parameter.default):
                value = getattr(self, name) if name == "layer" else value  # a layer around another
                parts.append(repr(value) if parameter.default is parameter.empty else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __post_init__(self) -> None:
        check_numbers(self)

    # --- the contract -------------------------------------------------------------------------------------------

    def output_shape(self, input_shape: Any) -> Any:
        """The shape of A without the example axis, from the shape of A_prev without it.

        Raises:
            ShapeError: the layer cannot take such an input.
        """
        probe = copy.copy(self)
        params, state = probe._build(np.random.default_rng(0), input_shape, np.float32)
        try:
            A = probe._bound(params, state).call(np.zeros((*input_shape, 1), np.float32))
        except ValueError as problem:
            raise ShapeError(f"call cannot take such an input: {problem}", got=input_shape) from problem
        return tuple(A.shape[:-1])

    def init(self, rng: np.random.Generator, input_shape: Any, dtype: Any = np.float32) -> Params:
        """The parameters at the start, drawn from ``rng``."""
        return self._build(rng, input_shape, dtype)[0]

    def init_state(self, input_shape: Any, dtype: Any = np.float32) -> State:
        """The state at the start; empty for most layers."""
        if type(self).build is Layer.build:
            return {}
        return copy.copy(self)._build(np.random.default_rng(0), input_shape, dtype)[1]

    def forward(self, ops: Ops, params: Params, A_prev: Any, *, mode: Mode = PREDICT) -> tuple[Any, Any]:
        """The forward block: (A, cache) from A_prev."""
        A = self._bound(params, mode.state).call(A_prev)
        return ops.asarray(A, np.dtype(A_prev.dtype).name), Layer.Cache(A_prev)

    def backward(
        self, ops: Ops, params: Params, cache: Any, dA: Any, *, input_gradient: bool = True
    ) -> tuple[Any, Grads]:
        """The backward block: (dA_prev, gradients) from dA; dA_prev is None where ``input_gradient`` is False."""
        raise EngineError(
            f"{type(self).__name__} has no backward, and the {ops.name} engine does not derive one",
            hint="write backward(self, ops, params, cache, dA, *, input_gradient=True) -> (dA_prev, gradients)",
        )

    def next_state(self, ops: Ops, state: State, cache: Any) -> State:
        """The state after an update whose forward block left ``cache``."""
        return state

    def state_cache(self, cache: Any) -> Any:
        """Of a cache what `next_state` reads, where a layer around this one keeps no more; None for nothing."""
        return None if type(self).next_state is Layer.next_state else cache

    def penalized(self) -> dict[str, Any]:
        """The regularizer of each parameter that one applies to, by path; None stands for the network's."""
        return dict.fromkeys(self.regularized, getattr(self, "regularizer", None))

    # --- sequences ----------------------------------------------------------------------------------------------

    def output_mask(self, mask: Any) -> Any:
        """Which steps of A count, from which of A_prev do (see `Mode.mask`): by default the same.

        Raises:
            ShapeError: sequences of different lengths cannot go through this layer.
        """
        masks = [each for each in (mask if isinstance(mask, tuple) else (mask,)) if each is not None]
        if not masks:
            return None
        if not self.any_length:
            raise ShapeError(
                "sequences of different lengths cannot go through it: padding would count as steps",
                where=repr(self),
                expected="a layer that knows of masks before it, such as a recurrent one with return_sequences=False",
                hint="pl.TimeDistributed runs a layer at every step by itself",
            )
        if any(each.shape != masks[0].shape or (each != masks[0]).any() for each in masks[1:]):
            raise ShapeError(
                "sequences of different lengths cannot be joined step by step",
                where=repr(self),
                expected="the same steps in all its inputs",
                got=" and ".join(f"up to {len(each)} steps" for each in masks),
                hint="pl.Attention reads sequences of other lengths than its queries",
            )
        return masks[0]

    def start(self, dtype: Any = np.float32) -> State:
        """What the layer carries along a sequence, before its first step; empty for layers without memory."""
        return {}

    def state_at(self, cache: Any, step: int | None) -> State:
        """What it carries after ``step`` steps of the sequence that left ``cache``; None is all."""
        return {}

    # --- seeing it ----------------------------------------------------------------------------------------------

    def equations(self, *, train: bool = True) -> dict[str, str]:
        """The formula of each value that `pl.trace` shows, by name; of the values that are its own, no others.

        Arguments:
            train: False for what holds in prediction, where that differs.
        """
        return {"A": f"{type(self).__name__}(A_prev)"}

    def intermediates(self, ops: Ops, params: Params, cache: Any, dA: Any) -> dict[str, Array]:
        """Values between input and output worth seeing, such as Z and dZ, by name."""
        return {}

    def multiply_adds(self, input_shape: Any) -> int:
        """Multiplications (each with its addition) of one example's forward block."""
        return 0

    # --- layers of your own -------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Ask for weights by ``self.w = self.add_weight(...)``. For layers written as in the notes."""

    def call(self, inputs: Any) -> Any:
        """A from A_prev; here ``self.w`` is the weight's array. For layers written as in the notes."""
        raise NotImplementedError(f"{type(self).__name__} needs either forward and backward, or call")

    def add_weight(
        self,
        *,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        trainable: bool = True,
    ) -> Any:
        """A weight of this layer, to be kept as an attribute; that attribute's name is the parameter's.

        Arguments:
            shape: its shape, (units out, units in) for a matrix.
            initializer: how it starts.
            trainable: False for a value that no gradient changes; it is kept in the state.
        """
        return _Weight(tuple(shape), initializers.get(initializer), trainable)

    def _build(self, rng: np.random.Generator, input_shape: Any, dtype: Any) -> tuple[Params, State]:
        self.build(input_shape)
        params: Params = {}
        state: State = {}
        for name, weight in vars(self).items():
            if isinstance(weight, _Weight):
                fan_out, fan_in = fans(weight.shape)
                value = weight.initializer(rng, weight.shape, fan_in=fan_in, fan_out=fan_out, dtype=dtype)
                (params if weight.trainable else state)[name] = value
        return params, state

    def _bound(self, params: Params, state: State) -> Layer:
        bound = copy.copy(self)
        bound.__dict__.update(params)
        bound.__dict__.update(state)
        return bound

    # --- in a graph ---------------------------------------------------------------------------------------------

    def __call__(self, *inputs: Any) -> Any:
        """Apply the layer to nodes of a graph; returns a node, or a tuple of nodes for a layer with several outputs."""
        from_sequence = len(inputs) == 1 and isinstance(inputs[0], (list, tuple))
        nodes: tuple[Node, ...] = tuple(inputs[0]) if from_sequence else inputs
        for node in nodes:
            if not isinstance(node, Node):
                raise ParameterError(
                    f"{self!r} was called on something that is not a node of a graph",
                    expected="pl.Input(shape) or what a layer returned for one",
                    got=type(node).__name__,
                    hint="to compute with arrays use net.forward(X)",
                )
        return Call(self, nodes).outputs


@dataclass
class _Weight:
    shape: Shape
    initializer: Any
    trainable: bool


def fans(shape: Shape) -> tuple[int, int]:
    """(fan out, fan in) of a weight: the first axis counts units out, the others what feeds one unit."""
    return (shape[0] if shape else 1), math.prod(shape[1:])


def backward(layer: Layer, ops: Ops, params: Params, cache: Any, dA: Any, *, input_gradient: bool) -> tuple[Any, Grads]:
    """A layer's backward block; what a user's own returns is checked, and brought to dA's float type.

    Raises:
        ParameterError: it returned no pair, or no dA_prev where one is needed.
    """
    done = layer.backward(ops, params, cache, dA, input_gradient=input_gradient)
    if type(layer).__module__.startswith("pellucid."):
        return done
    where = f"{type(layer).__name__}.backward"
    if not (isinstance(done, tuple) and len(done) == 2 and isinstance(done[1], dict)):
        raise ParameterError(
            "must return two things", where=where, expected="dA_prev, {name: gradient}", got=type(done).__name__
        )
    dA_prev, grads = done
    if input_gradient and dA_prev is None:
        raise ParameterError(
            "returned no dA_prev, and the layers before it need one", where=where, expected="an array of A_prev's shape"
        )
    if isinstance(dA_prev, tuple) or isinstance(dA, tuple):
        return done
    dtype = np.dtype(dA.dtype).name
    return (
        None if dA_prev is None else ops.asarray(dA_prev, dtype),
        tree_map(lambda gradient: ops.asarray(gradient, dtype), grads),
    )


class Node:
    """A value in a graph: an input, or an output of a layer's call.

    Attributes:
        shape: without the example axis.
        call: the call it came from; None for an input.
        index: which of the call's outputs it is.
    """

    def __init__(self, shape: Shape, call: Call | None = None, index: int = 0) -> None:
        self.shape, self.call, self.index = shape, call, index

    @property
    def path(self) -> str:
        """The shapes from the input to here, along the first inputs."""
        if self.call is None:
            return f"Input {self.shape}"
        return f"{self.call.inputs[0].path} → {type(self.call.layer).__name__} {self.shape}"

    def __repr__(self) -> str:
        return f"<node {self.path}>"


class Call:
    """One application of a layer to nodes."""

    def __init__(self, layer: Layer, inputs: tuple[Node, ...]) -> None:
        self.layer, self.inputs = layer, inputs
        if layer.several_inputs is False and len(inputs) != 1:
            raise ShapeError(
                "takes one input", where=repr(layer), got=f"{len(inputs)} inputs", hint="join them with pl.Concat()"
            )
        try:
            shape = output_shape(layer, self.input_shape)
        except ShapeError as problem:
            raise relocated(problem, repr(layer), " and ".join(node.path for node in inputs)) from None
        if shape and isinstance(shape[0], tuple):
            self.nodes = tuple(Node(each, self, index) for index, each in enumerate(shape))
            self.outputs: Any = self.nodes
        else:
            self.nodes = (Node(shape, self),)
            self.outputs = self.nodes[0]

    @property
    def input_shape(self) -> Any:
        """The input's shape, or the tuple of the inputs' shapes for a layer that joins several."""
        return self.as_input(tuple(node.shape for node in self.inputs))

    def as_input(self, values: tuple[Any, ...]) -> Any:
        """What the layer is given for its inputs' values: the tuple, or the one value for a layer of one input."""
        return values if self.layer.several_inputs or len(values) > 1 else values[0]


def Input(shape: int | Sequence[int | str | None]) -> Node:
    """An input of a graph.

    Arguments:
        shape: without the example axis: ``(64,)``, ``(channels, height, width)``, or ``(T, n_x)`` for sequences, with
            None (or ``"T"``) for T where it may be any.
    """
    return Node(as_shape(shape, "Input", any_length=True))


def as_shape(shape: Any, where: str, *, any_length: bool = False) -> Shape:
    """``shape`` as a tuple of positive integers; the first may be None or "T" for sequences of ``any_length``.

    Raises:
        ShapeError: it is not one.
    """
    listed = isinstance(shape, Iterable) and not isinstance(shape, str)
    sizes = tuple(shape) if listed else (shape,)
    known = sizes[1:] if any_length and listed and sizes[:1] in ((None,), ("T",)) else sizes
    if not sizes or not all(isinstance(n, (int, np.integer)) and n > 0 for n in known):
        raise ShapeError("a shape is made of positive integers", where=where, got=repr(shape))
    steps: Any = (None,) * (len(sizes) - len(known))
    return (*steps, *(int(n) for n in known))


def output_shape(layer: Layer, input_shape: Any) -> Any:
    """The layer's output shape.

    Raises:
        ShapeError: it cannot take such an input, or needs to know how many steps there are.
    """
    shapes = input_shape if input_shape and isinstance(input_shape[0], tuple) else (input_shape,)
    if not layer.any_length and any(None in shape for shape in shapes):
        raise ShapeError(
            "needs to know the number of steps",
            expected="a number for T",
            got=input_shape,
            hint="pl.TimeDistributed runs it at every step; a recurrent layer makes one vector of them"
            if max(map(len, shapes)) > 1
            else "input_shape has no axis for the examples: (n_x,)",
        )
    return layer.output_shape(input_shape)


def relocated(problem: ShapeError, where: str, path: str) -> ShapeError:
    """The same problem, saying in which layer it is and which shapes lead there."""
    inside = f" ({problem.where})" if problem.where and problem.where not in where else ""
    return ShapeError(
        f"{problem.problem}\n  {'path:':<9} {path}",
        where=where + inside,
        expected=problem.expected,
        got=problem.got,
        hint=problem.hint,
    )


def vector_length(input_shape: Shape, layer: Layer) -> int:
    """n of an input (n,).

    Raises:
        ShapeError: the input is not a vector.
    """
    if len(input_shape) != 1:
        raise ShapeError(
            "takes a vector per example",
            expected="(n,)",
            got=input_shape,
            hint="put pl.Flatten() before it, or pl.TimeDistributed around it for each step of a sequence",
        )
    return input_shape[0]


def check_width(layer: Layer, A_prev: Array, n_prev: int) -> None:
    """Refuse an input whose width does not fit the weights, before any arithmetic.

    Raises:
        ShapeError: A_prev is neither (n_prev, m) nor the steps (T, n_prev, m) of a sequence.
    """
    if A_prev.ndim not in (2, 3) or A_prev.shape[-2] != n_prev:
        hint = "examples are columns: X has shape (n[0], m)" if A_prev.shape[-1:] == (n_prev,) else None
        raise ShapeError(
            "the input does not fit the weights",
            where=repr(layer),
            expected=f"A_prev ({n_prev}, m)",
            got=tuple(A_prev.shape),
            hint=hint,
        )


def positive_integer(value: Any, what: str, layer: Layer) -> None:
    """Refuse a size that is not a positive integer.

    Raises:
        ParameterError: naming the layer and the argument.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ParameterError(
            f"{what} must be a positive integer", where=type(layer).__name__, expected="1, 2, 3, …", got=repr(value)
        )


def set_field(layer: Layer, name: str, value: Any) -> None:
    """Set a field of a frozen layer while it is being made."""
    object.__setattr__(layer, name, value)


def find_rules(layer: Layer) -> None:
    """Put objects in the place of the names of a layer's initializers and regularizer; None stays None.

    Raises:
        ParameterError: nobody knows a name.
    """
    rules: dict[str, Any] = dict.fromkeys(("initializer", "recurrent_initializer", "bias_initializer"), initializers)
    rules["regularizer"] = regularizers
    for name, known in rules.items():
        if getattr(layer, name, None) is not None:
            set_field(layer, name, known.get(getattr(layer, name), where=type(layer).__name__))


def snake_case(name: str) -> str:
    """``BatchNorm`` → ``batch_norm``, ``Conv2D`` → ``conv2d``, ``SimpleRNN`` → ``simple_rnn``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z](?:[a-z]|[A-Z]{2}))", "_", name).lower()


def named(members: Sequence[Layer], inputs: Iterable[str] = ()) -> dict[Layer, str]:
    """A unique name for each distinct layer, in order: its own, or its class's with a number.

    Raises:
        ParameterError: two layers were given one name, or one the name of an input.
    """
    names: dict[Layer, str] = {}
    counts: dict[str, int] = {}
    for layer in members:
        if layer in names:
            continue
        kind = snake_case(type(layer).__name__)
        counts[kind] = counts.get(kind, 0) + 1
        name = layer.name or f"{kind}_{counts[kind]}"
        if "/" in name or name in names.values() or name in inputs:
            raise ParameterError(
                "each layer needs a name of its own, no input's and without '/'",
                where=f"layer {len(names) + 1}",
                got=repr(name),
            )
        names[layer] = name
    return names
