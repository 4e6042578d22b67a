"""Bad input never reaches the arithmetic: every refusal of the core says where, what was expected and what came."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines, errors, losses
from pellucid.errors import DataError, EngineError, ParameterError, PellucidError, ShapeError

X, Y = np.ones((4, 6)), np.array([0, 1, 2, 0, 1, 2])


def net(**options):
    chain = pl.Sequential(pl.Dense(5, "relu"), pl.Dense(3), input_shape=4, loss="softmax_cross_entropy", **options)
    return chain


def image_net():
    return pl.Sequential(pl.Flatten(), pl.Dense(2), input_shape=(1, 4, 3), loss="mse")


def two_inputs():
    a, b = pl.Input(2), pl.Input(3)
    outputs = {"u": pl.Dense(1)(pl.Concat()(a, b)), "v": pl.Dense(2)(b)}
    return pl.Graph(inputs={"a": a, "b": b}, outputs=outputs, loss={"u": "mse", "v": "softmax_cross_entropy"})


def with_value(array, index, value):
    array = np.array(array, float)
    array[index] = value
    return array


def loss_of(loss, targets, outputs):
    """The chain whose only layer hands its input to the loss."""
    shape = outputs if isinstance(outputs, tuple) else (outputs,)
    return pl.Sequential(pl.Identity(), input_shape=shape, loss=loss).checked_targets(targets)


BATCH = {"a": np.ones((2, 5)), "b": np.ones((3, 5))}
TARGETS = {"u": np.ones(5), "v": np.zeros(5, int)}

REFUSED = {
    # inputs
    "width": (ShapeError, lambda: net().forward(np.ones((5, 6))), "X: the input does not fit", "(4, m)", "(5, 6)"),
    "swapped axes": (ShapeError, lambda: net().forward(X.T), "(4, m)", "(6, 4)", "examples come last", "X.T"),
    "one example": (ShapeError, lambda: net().forward(np.ones(4)), "(4, m)", "(4,)", "X[..., None]"),
    "images first": (
        ShapeError,
        lambda: image_net().forward(np.ones((7, 1, 4, 3))),
        "(1, 4, 3, m)",
        "(7, 1, 4, 3)",
        "np.moveaxis(X, 0, -1)",
    ),
    "channels last": (
        ShapeError,
        lambda: image_net().forward(np.ones((3, 1, 4, 9))),
        "(1, 4, 3, m)",
        "(3, 1, 4, 9)",
        "(channels, height, width, m)",
    ),
    "NaN": (
        DataError,
        lambda: net().forward(with_value(X, (2, 3), np.nan)),
        "X, example 3",
        "not finite",
        "nan",
    ),
    "infinity": (DataError, lambda: net().cost(with_value(X, (0, 5), -np.inf), Y), "X, example 5", "-inf"),
    "no examples": (DataError, lambda: net().forward(np.ones((4, 0))), "there are no examples", "m = 0"),
    "a list": (DataError, lambda: net().forward([[1.0]] * 4), "X: not an array", "(4, m)", "list"),
    "text": (DataError, lambda: net().forward(np.full((4, 6), "a")), "X: not numbers", "dtype <U1"),
    "complex": (DataError, lambda: net().forward(X * 1j), "X: not numbers", "complex128"),
    "one of several inputs": (ShapeError, lambda: two_inputs().forward(X), "several: a, b", "a dictionary by name"),
    "other names": (
        ShapeError,
        lambda: two_inputs().forward({"a": X, "c": X}),
        "other names",
        "['a', 'b']",
        "['a', 'c']",
    ),
    "counts differ": (
        ShapeError,
        lambda: two_inputs().forward({**BATCH, "b": np.ones((3, 4))}),
        "different numbers of examples",
        "a: 5, b: 4",
    ),
    "a named input": (
        DataError,
        lambda: two_inputs().forward({**BATCH, "b": with_value(BATCH["b"], (1, 2), np.nan)}),
        "X['b'], example 2",
    ),
    # targets
    "counts of targets": (ShapeError, lambda: net().cost(X, Y[:5]), "different numbers", "output: 5"),
    "label out of range": (
        DataError,
        lambda: net().cost(X, with_value(Y, 4, 3).astype(int)),
        "Y, example 4",
        "0 … 2 (the network has 3 outputs)",
        "got:      3",
    ),
    "negative label": (DataError, lambda: net().cost(X, Y - 1), "Y, example 0", "got:      -1"),
    "label with a fraction": (DataError, lambda: net().cost(X, with_value(Y, 2, 1.5)), "Y, example 2", "1.5"),
    "label that is NaN": (DataError, lambda: net().cost(X, with_value(Y, 5, np.nan)), "Y, example 5", "nan"),
    "labels as text": (DataError, lambda: net().cost(X, np.array(list("abcabc"))), "whole numbers", "<U1"),
    "labels in another shape": (
        ShapeError,
        lambda: net().cost(X, np.zeros((2, 6), int)[:, None, None]),
        "Y: the targets do not fit",
        "class indices (m,)",
    ),
    "one-hot with examples first": (
        ShapeError,
        lambda: net().cost(X, np.eye(3)[Y]),
        "Y: ",
        "(3, m)",
        "(6, 3)",
        "examples are columns",
    ),
    "no distribution": (
        DataError,
        lambda: net().cost(X, with_value(np.eye(3)[Y].T, (0, 4), 0.5)),
        "Y, example 4",
        "sum to 1",
        "[0.5, 1.0, 0.0]",
    ),
    "negative distribution": (
        DataError,
        lambda: loss_of("cross_entropy", [[2.0], [-1.0]], 2),
        "Y, example 0",
        "≥ 0 and sum to 1",
        "[2.0, -1.0]",
    ),
    "one output for classes": (
        ShapeError,
        lambda: loss_of("softmax_cross_entropy", [0], 1),
        "SoftmaxCrossEntropy needs an output for each class",
        "2 or more outputs",
        "sigmoid_cross_entropy",
    ),
    "values in another shape": (ShapeError, lambda: loss_of("mse", np.ones((2, 6)), 3), "(3, m)", "(2, 6)"),
    "values with swapped axes": (ShapeError, lambda: loss_of("mse", np.ones((6, 3)), 3), "examples are columns"),
    "values that are not finite": (DataError, lambda: loss_of("mse", [1.0, np.inf, 2.0], 1), "Y, example 1", "inf"),
    "values that are no numbers": (DataError, lambda: loss_of("mse", ["a"], 1), "targets must be numbers", "<U1"),
    "a probability above 1": (
        DataError,
        lambda: loss_of("bce", [0, 1, 2], 1),
        "Y, example 2",
        "0 to 1",
        "2",
        "softmax_cross_entropy",
    ),
    "a probability below 0": (DataError, lambda: loss_of("logistic", [0, -1], 1), "Y, example 1", "0 to 1", "-1"),
    "a hinge target": (DataError, lambda: loss_of("hinge", [1, -1, 3], 1), "Y, example 2", "-1 or 1", "3"),
    "a named target": (
        DataError,
        lambda: two_inputs().cost(BATCH, {**TARGETS, "v": TARGETS["v"] + 2}),
        "Y['v'], example 0",
    ),
    "targets of other names": (ShapeError, lambda: two_inputs().cost(BATCH, {"u": TARGETS["u"]}), "Y: ", "['u', 'v']"),
    "no loss": (
        ParameterError,
        lambda: pl.Sequential(pl.Dense(3), input_shape=4).cost(X, Y),
        "the network has no loss",
        "loss=",
    ),
    # weights and gradients handed in
    "weights of another shape": (
        ShapeError,
        lambda: net().cost(X, Y, sample_weight=np.ones((6, 1))),
        "sample_weight: one weight for each example",
        "(6,)",
        "(6, 1)",
    ),
    "a negative weight": (DataError, lambda: net().gradients(X, Y, sample_weight=-np.ones(6)), "sample_weight", "≥ 0"),
    "a weight that is NaN": (DataError, lambda: net().cost(X, Y, sample_weight=[np.nan] * 6), "sample_weight"),
    "dA of another shape": (
        ShapeError,
        lambda: net().backward(net().forward(X)[1], np.ones((2, 6))),
        "dA: the gradient does not have the output's shape",
        "(3, m)",
        "(2, 6)",
    ),
    "dA by other names": (
        ShapeError,
        lambda: two_inputs().backward(two_inputs().forward(BATCH)[1], {"u": X}),
        "dA: other names",
        "['u', 'v']",
    ),
    # parameters
    "a parameter that is missing": (
        ShapeError,
        lambda: set_parameters({"dense_1": net().parameters["dense_1"]}),
        "parameters: dense_2/W is missing",
        "dense_1/W, dense_1/b, dense_2/W, dense_2/b",
    ),
    "a parameter nobody knows": (
        ShapeError,
        lambda: set_parameters({**net().parameters, "dense_3": {"W": X}}),
        "dense_3/W is not a parameter of this network",
    ),
    "a parameter of another shape": (
        ShapeError,
        lambda: set_parameters({**net().parameters, "dense_1": {"W": X, "b": np.ones((5, 1))}}),
        "dense_1/W has another shape",
        "(5, 4)",
        "(4, 6)",
    ),
    "a parameter that is a number": (
        ShapeError,
        lambda: set_parameters({**net().parameters, "dense_1": {"W": 1.0, "b": 2.0}}),
        "dense_1/W has another shape",
        "()",
    ),
    "no tree": (ShapeError, lambda: set_parameters([X]), "parameters: not a tree", "a dictionary by layer", "list"),
    # networks
    "layers that do not fit": (
        ShapeError,
        lambda: pl.Sequential(pl.Dense(3), pl.BatchNorm(), pl.Reshape((2, 2)), input_shape=5),
        "layer 3 (reshape_1)",
        "input (5,) → dense_1 (3,) → batch_norm_1 (3,)",
        "4 values",
        "3 values",
    ),
    "images into a dense layer": (
        ShapeError,
        lambda: pl.Sequential(pl.Dense(3), input_shape=(1, 4, 3)),
        "layer 1 (dense_1): takes a vector per example",
        "(1, 4, 3)",
        "pl.Flatten()",
    ),
    "units that do not divide": (
        ShapeError,
        lambda: pl.Sequential(pl.Dense(5, "maxout(2)"), input_shape=4),
        "layer 1 (dense_1)",
        "a multiple of pieces = 2",
        "(5,)",
    ),
    "branches in a chain": (
        ShapeError,
        lambda: pl.Sequential(pl.Add(), input_shape=4),
        "layer 1 (add_1): joins several inputs",
        "pl.Graph",
    ),
    "several outputs in a chain": (
        ShapeError,
        lambda: pl.Sequential(pl.Split(2), input_shape=4),
        "layer 1 (split_1): has several outputs",
        "pl.Graph",
    ),
    "one layer, two shapes": (
        ShapeError,
        lambda: (lambda layer: pl.Sequential(layer, layer, input_shape=4))(pl.Dense(3)),
        "layer 2 (dense_1): one layer at two places",
        "(4,)",
        "(3,)",
    ),
    "softmax along no axis": (
        ShapeError,
        lambda: pl.Sequential(pl.Softmax(2), input_shape=(3, 4)),
        "layer 1 (softmax_1",
        "no such axis",
        "got:      2",
    ),
    "fewer axes than normalised": (
        ShapeError,
        lambda: pl.Sequential(pl.LayerNorm(axes=2), input_shape=4),
        "layer 1 (layer_norm_1)",
        "2 or more",
        "(4,)",
    ),
    "no layers": (ParameterError, lambda: pl.Sequential(input_shape=4), "Sequential: a network needs a layer"),
    "a class for a layer": (
        ParameterError,
        lambda: pl.Sequential(pl.Tanh(), pl.Dense, input_shape=4),
        "layer 2: not a layer",
        "pl.Dense(10), not pl.Dense",
    ),
    "a name twice": (
        ParameterError,
        lambda: pl.Sequential(pl.Dense(3, name="a"), pl.Dense(3, name="a"), input_shape=4),
        "layer 2",
        "a name of its own",
        "'a'",
    ),
    "a name with a slash": (ParameterError, lambda: pl.Sequential(pl.Dense(3, name="a/b"), input_shape=4), "'a/b'"),
    "an input's name": (ParameterError, lambda: pl.Sequential(pl.Dense(3, name="input"), input_shape=4), "'input'"),
    "a width of zero": (ShapeError, lambda: pl.Sequential(pl.Dense(3), input_shape=0), "input_shape", "positive", "0"),
    "no width": (ShapeError, lambda: pl.Sequential(pl.Dense(3), input_shape=None), "input_shape", "None"),
    "an empty shape": (ShapeError, lambda: pl.Input(()), "Input: a shape is made of positive integers", "()"),
    "half a unit": (ShapeError, lambda: pl.Input((3, 2.5)), "Input", "(3, 2.5)"),
    "dtype": (ParameterError, lambda: net(dtype="float16"), "unknown dtype", "float32 or float64", "'float16'"),
    "a seed below zero": (ParameterError, lambda: net(seed=-1), "seed must be an integer ≥ 0", "-1"),
    "a seed with a fraction": (ParameterError, lambda: net(seed=1.5), "seed", "1.5"),
    "engine": (ParameterError, lambda: net(engine="nunpy"), "unknown engine 'nunpy'", "'numpy'", "auto"),
    "regularizer": (ParameterError, lambda: net(regularizer="l22"), "network: unknown regularizer 'l22'", "'l2'"),
    "loss": (
        ParameterError,
        lambda: pl.Sequential(pl.Dense(1), input_shape=1, loss="squared_eror"),
        "output 'output': unknown loss 'squared_eror'",
        "did you mean 'squared_error'",
    ),
    "losses of other outputs": (
        ParameterError,
        lambda: pl.Sequential(pl.Dense(1), input_shape=1, loss={"y": "mse"}),
        "each output needs a loss",
        "['output']",
        "['y']",
    ),
    # layers
    "no units": (ParameterError, lambda: pl.Dense(0), "Dense: units must be a positive integer", "0"),
    "units with a fraction": (ParameterError, lambda: pl.Dense(2.5), "Dense", "2.5"),
    "units that are yes": (ParameterError, lambda: pl.Dense(True), "Dense", "True"),
    "activation": (
        ParameterError,
        lambda: pl.Dense(3, "rellu"),
        "Dense: unknown activation 'rellu'",
        "softplus",
        "did you mean 'relu'",
    ),
    "an activation's argument": (ParameterError, lambda: pl.Dense(3, "relu(3)"), "activation ReLU", "Dense"),
    "no activation": (ParameterError, lambda: pl.Dense(3, 7), "Dense: cannot be used as activation", "7"),
    "initializer": (ParameterError, lambda: pl.Dense(3, initializer="he"), "Dense: unknown initializer", "he_normal"),
    "slope": (ParameterError, lambda: pl.LeakyReLU(0), "LeakyReLU: slope is out of range", "(0, inf)", "0"),
    "slope of text": (ParameterError, lambda: pl.PReLU("a"), "PReLU: slope", "'a'"),
    "alpha": (ParameterError, lambda: pl.ELU(float("nan")), "ELU: alpha is out of range", "nan"),
    "approximation": (ParameterError, lambda: pl.GELU("sigmoid"), "GELU: unknown approximation", "'none' or 'tanh'"),
    "pieces": (ParameterError, lambda: pl.Maxout(0), "Maxout: pieces must be a positive integer"),
    "rate of 1": (ParameterError, lambda: pl.Dropout(1), "Dropout: rate is out of range", "[0, 1)", "1"),
    "rate below 0": (ParameterError, lambda: pl.Dropout(-0.1), "Dropout: rate", "-0.1"),
    "momentum": (ParameterError, lambda: pl.BatchNorm(momentum=1.0), "BatchNorm: momentum", "[0, 1)"),
    "epsilon": (ParameterError, lambda: pl.LayerNorm(epsilon=0), "LayerNorm: epsilon", "(0, inf)"),
    "axes": (ParameterError, lambda: pl.LayerNorm(axes=0), "LayerNorm: axes", "whole number"),
    "two open sizes": (ParameterError, lambda: pl.Reshape((-1, -1)), "only one size can be left open"),
    "a size of zero": (ShapeError, lambda: pl.Reshape((3, 0)), "Reshape: a shape is made of positive integers"),
    "one part": (ParameterError, lambda: pl.Split(1), "Split: a split makes 2 or more parts", "1"),
    "one size": (ParameterError, lambda: pl.Split([4]), "Split", "(4,)"),
    "padding of yes": (ParameterError, lambda: pl.Conv2D(2, 3, padding=True), "Conv2D: cannot be used as padding"),
    "a number of connections": (
        ParameterError,
        lambda: pl.Conv2D(2, 3, connections=5),
        "expected: 2 rows",
        "got:      5",
    ),
    "connections of letters": (ParameterError, lambda: pl.Conv2D(1, 3, connections=["a"]), "1 rows of different"),
    "connections without rows": (ParameterError, lambda: pl.Conv2D(2, 3, connections=[0, 1]), "[0, 1]"),
    "a width that does not fit the weights": (
        ShapeError,
        lambda: pl.Dense(3).forward(engines.get("numpy"), {"W": np.ones((3, 4)), "b": np.ones((3, 1))}, X.T),
        "Dense(3): the input does not fit the weights",
        "A_prev (4, m)",
        "(6, 4)",
        "examples are columns",
    ),
    "an id without a vector": (
        DataError,
        lambda: pl.Sequential(pl.Embedding(3, 2), input_shape=2).forward(np.array([[0, 1], [2, 3]])),
        "Embedding(3, 2), example 1, position 1",
        "0 … 2",
        "3",
    ),
    # losses
    "delta": (ParameterError, lambda: pl.Huber(0), "Huber: delta is out of range", "(0, inf)"),
    "smoothing": (ParameterError, lambda: pl.SoftmaxCrossEntropy(label_smoothing=1), "label_smoothing", "[0, 1)"),
    "smoothing of text": (ParameterError, lambda: pl.BinaryCrossEntropy(label_smoothing="a"), "label_smoothing"),
    "a negative class weight": (ParameterError, lambda: pl.Hinge(class_weight=[1, -1]), "Hinge: a class weight", "≥ 0"),
    "class weights of text": (
        ParameterError,
        lambda: pl.SigmoidCrossEntropy(class_weight="balanced"),
        "cannot read class_weight",
        "{class: weight}",
        "'balanced'",
    ),
    "a class that is not there": (
        ParameterError,
        lambda: loss_of(pl.SoftmaxCrossEntropy(class_weight={3: 2.0}), [0, 1], 3),
        "SoftmaxCrossEntropy: class_weight names a class that is not there",
        "0 … 2",
        "3",
    ),
    "a third class of two": (
        ParameterError,
        lambda: loss_of(pl.BinaryCrossEntropy(class_weight=[1, 2, 3]), [0, 1], 1),
        "0 … 1",
        "2",
    ),
    "an argument of no loss": (
        ParameterError,
        lambda: losses.get("huber(epsilon=2)"),
        "loss Huber",
        "epsilon",
        "delta",
    ),
}


def set_parameters(tree):
    net().parameters = tree


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_saying_why(case):
    kind, action, *words = REFUSED[case]
    with pytest.raises(PellucidError) as caught:
        action()
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


def test_an_error_is_laid_out_in_lines():
    full = ShapeError("does not fit", where="layer 2", expected="(3, m)", got=(4, 5), hint="turn it")
    assert str(full).splitlines() == [
        "layer 2: does not fit",
        "  expected: (3, m)",
        "  got:      (4, 5)",
        "  hint:     turn it",
    ]
    assert str(DataError("empty")) == "empty"
    assert str(DataError("a zero", got=0)).endswith("got:      0")


@pytest.mark.parametrize("kind", [PellucidError, *PellucidError.__subclasses__()])
def test_errors_survive_pickling(kind):
    error = kind("wrong", where="here", expected=1, got=2, hint="mend")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.where, again.hint) == (str(error), "here", "mend")


def test_unknown_names_list_the_known_with_the_nearest_first():
    error = errors.unknown("net", "lenet6", ["vgg", "lenet5", "alexnet"], where="--net")
    assert str(error).splitlines() == [
        "--net: unknown net 'lenet6'",
        "  expected: one of alexnet, lenet5, vgg",
        "  got:      'lenet6'",
        "  hint:     did you mean 'lenet5' or 'alexnet'?",
    ]
    assert "hint" not in str(errors.unknown("net", "zzz", ["vgg"]))
    assert errors.unknown("layer", "dens", ["Dense", "Dropout"]).hint == "did you mean 'Dense'?"
    assert errors.unknown("column", "PRICE", ["Price", "size"]).hint == "did you mean 'Price'?"


def test_the_preferred_engine_is_one_engine():
    assert engines.get("auto") is engines.get(engines.available()[0])


def test_a_dependency_that_is_missing_names_its_extra():
    assert errors.need("json", extra="plot").dumps([]) == "[]"
    with pytest.raises(EngineError, match="no_such_module_here is not installed") as caught:
        errors.need("no_such_module_here", extra="plot")
    assert "pip install 'pellucid[plot]'" in str(caught.value)


def test_nothing_is_wrong_with_what_is_right():
    assert np.isfinite(net().cost(X, Y))
    assert np.isfinite(two_inputs().cost(BATCH, TARGETS))
