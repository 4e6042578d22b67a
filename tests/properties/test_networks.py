"""Whatever layers are strung together: they fit as promised, or the misfit is named before any arithmetic."""

# ruff: noqa: PT017  both outcomes are right here: which one, the drawn case decides
from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from contracts.gradients import assert_network_gradients
from pellucid.errors import DataError, PellucidError, ShapeError
from pellucid.layers import activations, layers
from pellucid.registry import config
from pellucid.trees import leaves

sizes = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(sizes, min_size=1, max_size=3).map(tuple)
names = st.sampled_from([name for name in activations if activations.find(name).__module__.startswith("pellucid.")])
any_layer = st.one_of(
    st.builds(pl.Dense, st.integers(1, 6), names, use_bias=st.booleans()),
    st.builds(pl.Dropout, st.sampled_from([0.0, 0.3])),
    st.builds(pl.BatchNorm),
    st.builds(pl.LayerNorm, st.sampled_from([None, 1, 2])),
    st.builds(
        pl.Reshape,
        st.lists(st.sampled_from([-1, 1, 2, 3, 4, 6]), min_size=1, max_size=3).filter(
            lambda sizes: sizes.count(-1) < 2
        ),
    ),
    st.builds(pl.Flatten),
    st.builds(pl.Softmax, st.integers(-3, 2)),
    st.builds(pl.Maxout, st.integers(1, 3)),
    st.builds(pl.Conv2D, st.integers(1, 3), kernel=st.integers(1, 3), stride=st.integers(1, 2)),
    st.builds(pl.MaxPool2D, st.integers(1, 3)),
    names.map(activations.get),
)


@settings(max_examples=300)
@given(st.lists(any_layer, min_size=1, max_size=5), shapes, st.sampled_from([1, 4]), seeds)
def test_any_chain_fits_as_promised_or_names_the_layer_that_does_not(chain, input_shape, m, seed):
    try:
        net = pl.Sequential(*chain, input_shape=input_shape, seed=seed)
    except ShapeError as problem:
        assert problem.where.startswith("layer ")
        assert f"path:     input {input_shape}" in str(problem)
        return
    X = np.random.default_rng(seed).normal(size=(*input_shape, m)).astype("float32")
    A, caches = net.forward(X, train=True)
    assert A.shape == (*net.outputs["output"], m)
    assert A.dtype == "float32"
    dX, grads = net.backward(caches, A)
    assert dX.shape == X.shape
    assert [(n, g.shape) for n, g in leaves(grads)] == [(n, W.shape) for n, W in leaves(net.parameters)]
    again = pl.from_config(json.loads(json.dumps(net.config())))
    assert again.config() == net.config()
    np.testing.assert_array_equal(again.forward(X, train=True)[0], A)


def fitting(draw, shape):
    """A layer that takes ``shape``, drawn; and its output's shape."""
    made = draw(any_layer)
    try:
        return made, made.output_shape(shape)
    except ShapeError:
        return pl.Flatten(), pl.Flatten().output_shape(shape)


@st.composite
def chains(draw):
    input_shape = shape = draw(shapes)
    chain = []
    for _ in range(draw(st.integers(1, 4))):
        layer, shape = fitting(draw, shape)
        chain.append(layer)
    return pl.Sequential(
        *chain, input_shape=input_shape, loss="squared_error", dtype="float64", engine="numpy", seed=draw(seeds)
    )


@given(chains(), st.sampled_from([2, 5]), seeds, st.booleans())
def test_gradients_of_any_chain(net, m, seed, train):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(*net.inputs["input"], m))
    Y = rng.normal(size=(*net.outputs["output"], m))
    assert_network_gradients(net, X, Y, rng, train=train)


@st.composite
def graphs(draw):
    """Nodes of one width joined at random, so that paths part and meet in many ways."""
    n = draw(sizes)
    x = pl.Input(n)
    nodes = [x, pl.Dense(n, "tanh")(x)]
    shared = pl.Dense(n, "sigmoid", name="shared")
    for _ in range(draw(st.integers(1, 5))):
        one, other = (draw(st.sampled_from(nodes)) for _ in range(2))
        join = draw(st.sampled_from(["dense", "shared", "add", "multiply", "concat", "split"]))
        if join == "dense":
            nodes.append(pl.Dense(n, draw(st.sampled_from(["tanh", "softplus", "identity"])))(one))
        elif join == "shared":
            nodes.append(shared(one))
        elif join == "concat":
            nodes.append(pl.Dense(n)(pl.Concat()(one, other)))
        elif join == "split":
            nodes.append(pl.Split(2)(pl.Concat()(one, other))[draw(st.integers(0, 1))])
        else:
            nodes.append({"add": pl.Add, "multiply": pl.Multiply}[join]()(one, other))
    outputs = {f"y{i}": node for i, node in enumerate(draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3)))}
    return pl.Graph(
        inputs={"x": x},
        outputs=outputs,
        loss=dict.fromkeys(outputs, "squared_error"),
        loss_weights={"y0": draw(st.sampled_from([1.0, 0.5]))},
        dtype="float64",
        engine="numpy",
        seed=draw(seeds),
    )


@given(graphs(), seeds)
def test_gradients_of_any_graph(net, seed):
    rng = np.random.default_rng(seed)
    X = {"x": 0.5 * rng.normal(size=(*net.inputs["x"], 4))}
    Y = {name: rng.normal(size=(*shape, 4)) for name, shape in net.outputs.items()}
    assert_network_gradients(net, X, Y, rng)
    again = pl.from_config(json.loads(json.dumps(net.config())))
    assert again.config() == net.config()
    assert again.cost(X, Y) == pl.from_config(net.config()).cost(X, Y)


@given(
    st.lists(st.integers(0, 4), max_size=4).map(tuple), shapes, st.sampled_from(["float32", "float64", "int64", "bool"])
)
def test_an_input_of_any_shape_is_taken_or_refused_by_name(given_shape, input_shape, dtype):
    net = pl.Sequential(pl.Flatten(), pl.Dense(2), input_shape=input_shape)
    X = np.ones(given_shape, dtype)
    if given_shape[:-1] == input_shape and given_shape[-1] > 0:
        assert net.forward(X)[0].shape == (2, given_shape[-1])
        return
    try:
        net.forward(X)
    except ShapeError as problem:
        assert problem.where == "X"
        assert problem.got == given_shape
    except DataError as problem:
        assert given_shape[-1] == 0
        assert "no examples" in str(problem)
    else:
        raise AssertionError("an input that does not fit was taken")


@given(shapes, shapes, st.sampled_from([pl.Add, pl.Multiply, pl.Concat]))
def test_branches_of_any_shapes_join_or_are_refused_by_name(one, other, join):
    try:
        node = join()(pl.Input(one), pl.Input(other))
    except ShapeError as problem:
        assert problem.where.startswith(f"{join.__name__}()")
        assert f"Input {one} and Input {other}" in str(problem)
    else:
        same = one[1:] == other[1:] if join is pl.Concat else one == other
        assert same
        assert node.shape == ((one[0] + other[0], *one[1:]) if join is pl.Concat else one)


@given(any_layer)
def test_a_layer_comes_back_from_its_description(layer):
    described = json.loads(json.dumps(config(layer)))
    assert config(layers.get(described)) == config(layer)
    assert repr(layers.get(described)) == repr(layer)


@settings(max_examples=200)
@given(st.one_of(st.text(), st.text("reluadm_- ()[]{},.=*0123456789'\"", max_size=30)))
def test_any_text_is_an_activation_or_refused(text):
    try:
        assert isinstance(activations.get(text), pl.Activation)
    except PellucidError as problem:
        assert "activation" in str(problem)


@given(st.floats(1e-6, 1e6), st.sampled_from(["leaky_relu", "LeakyReLU", "leaky-relu", " Leaky ReLU "]))
def test_a_call_written_as_text_is_the_call(slope, name):
    for text in (f"{name}({slope!r})", f"{name}(slope={slope!r})", f"{name} ( slope = {slope!r} ) "):
        assert config(activations.get(text)) == config(pl.LeakyReLU(slope))
