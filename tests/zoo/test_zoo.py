"""The networks of the zoo: as their papers have them, right in their gradients, and able to learn."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pellucid as pl
from pellucid import data, zoo
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers.rbf import digit_codes
from pellucid.trees import leaves

SMALL = {
    "mlp": {"hidden": (8,)},
    "lenet5": {},
    "lenet5-1998": {},
    "cnn": {"width": 4, "dropout": 0.0},
    "alexnet-small": {"width": 0.06, "dropout": 0.0},
    "vgg-small": {"width": 0.06, "hidden": (16,), "dropout": 0.0},
    "resnet": {"depth": 8, "width": 4},
    "resnet-v2": {"depth": 8, "width": 4, "shortcut": "projection"},
}


def built(name: str, **options):
    entry = zoo.find(name)
    loss = entry.recipe.loss or "softmax_cross_entropy"
    return entry.build((1, 28, 28), 10, loss=loss, **SMALL[name], **options)


@pytest.fixture(scope="module")
def digits():
    """140 digits, 28×28 from 0 to 1: each of the 8×8 pixels three times as large, with a border."""
    dataset = data.load("digits")
    x, y = dataset.take(np.arange(140))
    x = np.asarray(x, np.float32).reshape(-1, 8, 8) / 16
    return np.pad(np.kron(x, np.ones((3, 3), np.float32)), ((0, 0), (2, 2), (2, 2)))[:, None], y


@pytest.mark.parametrize("name", [name for name in SMALL if name != "mlp"])
def test_gradients(name, rng):
    net = built(name)
    X, Y = rng.normal(size=(1, 28, 28, 2)), np.array([3, 7])
    pl.check_gradients(net, X, Y, entries=1).assert_passed()


@pytest.mark.parametrize("name", SMALL)
def test_it_learns(name, digits):
    """Some fifty updates are enough to see the cost of a network whose backward is right fall to a part of it."""
    x, y = digits
    net = built(name)
    x = x if not zoo.find(name).recipe.standardize else (x - x.mean()) / x.std()
    before = net.evaluate(x, y)["loss"]
    rate = 1e-3 if name == "alexnet-small" else 5e-3
    net.fit(x, y, optimizer=pl.Adam(rate), batch_size=20, epochs=8, progress=False)
    after = net.evaluate(x, y)
    assert after["loss"] < 0.7 * before
    assert after["accuracy"] > 0.4


def test_every_entry_says_where_it_comes_from_and_what_it_changes():
    assert set(SMALL) <= set(zoo.entries())
    for entry in zoo.entries().values():
        assert re.search(r"(19|20)\d\d", entry.source), f"{entry.name}: the year of its paper"
        assert entry.deviations
        assert entry.title
        pl.optimizers.get(entry.recipe.optimizer)
        document = entry.document()
        assert document["recipe"]["epochs"] == entry.recipe.epochs


# --- LeNet-5 of 1998 ------------------------------------------------------------------------------------------------


def test_lenet5_reads_paper_and_ink_as_published(rng):
    net = built("lenet5-1998")
    X = np.zeros((1, 28, 28, 1), np.float32)
    X[0, 4, 5] = 1
    assert [step.name for step in net.steps[:2]] == ["zero_pad2d_1", "rescale_1"]
    A = X
    for step in net.steps[:2]:
        A, _ = step.layer.forward(net.ops, {}, A)
    assert A.shape == (1, 32, 32, 1)
    np.testing.assert_allclose(A[0, 6, 7], 1.175, rtol=1e-6)
    np.testing.assert_allclose(np.delete(A.reshape(-1), 6 * 32 + 7), -0.1, rtol=1e-6)


def test_lenet5_starts_as_published():
    net = built("lenet5-1998")
    fan_in = {"C1": 25, "S2": 4, "C3": 100, "S4": 4, "C5": 400, "F6": 120}
    for name, n in fan_in.items():
        W = np.concatenate([W.reshape(-1) for _, W in leaves(net.parameters[name])])
        assert np.abs(W).max() <= 2.4 / n
        assert np.abs(W).max() > 0.5 * 2.4 / n
    assert np.abs(net.parameters["F6"]["W"]).max() > 0.99 * 2.4 / 120


def test_the_codes_are_ten_different_pictures():
    codes = digit_codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    apart = (codes[:, None] != codes[None]).sum(axis=-1)
    assert apart[~np.eye(10, dtype=bool)].min() >= 6
    pictures = codes.reshape(10, 12, 7)
    assert (pictures[8] == pictures[8][:, ::-1]).all(), "an 8 is its own mirror image"
    assert (pictures[1] != pictures[1][:, ::-1]).any()


def test_a_code_is_recognised_as_its_digit():
    """F6 at the code of a digit: penalty 0 for it, four for each pixel in which the others differ."""
    net = built("lenet5-1998")
    layer, codes = net.steps[-1].layer, digit_codes()
    A, _ = layer.forward(net.ops, {}, codes.T)
    np.testing.assert_allclose(A, 4.0 * (codes[:, None] != codes[None]).sum(axis=-1))
    np.testing.assert_array_equal(net.losses["output"].predict(net.ops, A).argmax(axis=0), np.arange(10))


def test_its_learning_rate_plan_has_the_published_proportions():
    plan = pl.optimizers.get(zoo.find("lenet5-1998").recipe.optimizer).schedule
    rates = [plan.rate(epoch, 20, {}) for epoch in range(20)]
    published = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
    np.testing.assert_allclose(rates, 4 * np.array(published))


# --- AlexNet --------------------------------------------------------------------------------------------------------


def test_alexnet_starts_as_published():
    net = zoo.find("alexnet").build((3, 227, 227), 10, width=0.05)
    for name, tree in net.parameters.items():
        assert (tree["b"] == (0 if name in ("conv1", "conv3", "fc8") else 1)).all(), name
        np.testing.assert_allclose(tree["W"].std(), 0.01, rtol=0.2)
        assert abs(tree["W"].mean()) < 0.002
    norms = [step.layer for step in net.steps if isinstance(step.layer, pl.LocalResponseNorm)]
    assert [(each.k, each.n, each.alpha, each.beta, each.alpha_over_n, each.groups) for each in norms] == [
        (2, 5, 1e-4, 0.75, False, 2)
    ] * 2


def test_the_towers_meet_in_conv3_only(rng):
    """A change of the upper tower's maps reaches the lower tower in conv3 and not in conv2, conv4 or conv5."""
    net = zoo.find("alexnet-small").build((3, 32, 32), 10, width=0.05)
    for number, meets in ((2, False), (3, True), (4, False), (5, False)):
        step = next(each for each in net.steps if each.name == f"conv{number}")
        A_prev = rng.random((*step.input_shape, 1)).astype(np.float32)
        changed = A_prev.copy()
        changed[: len(changed) // 2] += 1
        params = net.parameters[step.name]
        one, other = (step.layer.forward(net.ops, params, each)[0] for each in (A_prev, changed))
        half = len(one) // 2
        assert (one[:half] != other[:half]).any()
        assert (one[half:] != other[half:]).any() == meets


# --- residual networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet", "resnet-v2"])
def test_blocks_add_to_their_input(name, rng):
    """With every convolution of the blocks at zero, what remains are the shortcuts: subsampled, with zero channels."""
    net = zoo.find(name).build((1, 8, 8), 3, depth=8, width=2)
    for layer, tree in net.parameters.items():
        if layer.startswith("conv") and layer != "conv2d_1":
            tree["W"][...] = 0
    X = rng.normal(size=(1, 8, 8, 4)).astype(np.float32)
    outputs = {}

    class Recorder(pl.network.base.Observer):
        def forward(self, index, A_prev, A, cache):
            outputs[net.steps[index].label] = A

    net.forward_pass(net.parameters, net.state, net.checked(X), pl.layers.PREDICT, observer=Recorder())
    first = outputs["re_lu_1" if "re_lu_1" in outputs else "relu_1"] if name == "resnet" else outputs["conv2d_1"]
    last = outputs["add_3"]
    np.testing.assert_allclose(last[:2], first[:, ::4, ::4], rtol=1e-6)
    assert not last[2:].any()


# --- what they refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lenet5", "lenet5-1998", "cnn", "alexnet", "vgg-d", "resnet"])
def test_images_with_channels_last_are_told(name):
    with pytest.raises(ShapeError, match=r"the last axis looks like the channels(.|\n)*\(3, 32, 28\)(.|\n)*transpose"):
        zoo.find(name).build((32, 28, 3), 10)
    with pytest.raises(ShapeError, match=r"reads images(.|\n)*add the channel axis: \(1, 28, 28\)"):
        zoo.find(name).build((28, 28), 10)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((4, 28, 28, 1), r"np\.moveaxis\(x, -1, 1\)"), ((4, 28, 28), r"x\[:, None\]")],
    ids=["channels last", "no channels"],
)
def test_arrays_of_the_wrong_order_are_told(shape, hint):
    net = built("lenet5")
    with pytest.raises(ShapeError, match=rf"expected: +\(m, 1, 28, 28\)(.|\n)*got: (.|\n)*hint: (.|\n)*{hint}"):
        net.predict(np.zeros(shape))


def test_an_image_too_small_says_the_sizes_on_the_way():
    with pytest.raises(
        ShapeError, match=r"layer 3 \(C3\)(.|\n)*path: +input \(1, 8, 8\) → C1 \(6, 8, 8\) → S2 \(6, 4, 4\)"
    ):
        zoo.find("lenet5").build((1, 8, 8), 10)
    with pytest.raises(ShapeError, match=r"kernel is larger(.|\n)*path"):
        zoo.find("alexnet-small").build((3, 8, 8), 10)


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "options", "error", "message"),
    [
        ("lenet5-1998", (3, 28, 28), 10, {}, ShapeError, r"reads grey images(.|\n)*--channels grey"),
        ("lenet5-1998", (1, 40, 40), 10, {}, ShapeError, r"expected: \(1, 20, 20\) to \(1, 32, 32\)"),
        ("lenet5-1998", (1, 8, 8), 10, {}, ShapeError, r"images of digits(.|\n)*--image-size 28x28"),
        ("cnn", (4,), 3, {}, ShapeError, r"reads images(.|\n)*--net mlp"),
        ("lenet5-1998", (1, 28, 28), 7, {}, ParameterError, r"ten digits(.|\n)*--net lenet5"),
        ("lenet5-1998", (1, 28, 28), 10, {"loss": "softmax_cross_entropy"}, ParameterError, "outputs are penalties"),
        ("vgg-a", (3, 32, 32), 10, {"configuration": "F"}, ParameterError, "unknown configuration 'F'"),
        ("resnet", (3, 32, 32), 10, {"depth": 21}, ParameterError, r"expected: 8, 14, 20"),
        ("resnet", (3, 32, 32), 10, {"shortcut": "none"}, ParameterError, "'identity' or 'projection'"),
    ],
)
def test_messages(name, shape, outputs, options, error, message):
    with pytest.raises(error, match=message):
        zoo.find(name).build(shape, outputs, **options)


def test_codes_that_cannot_be_used():
    for codes in ("letters", [[1, 2], [3]], [1, 2, 3], [], [[np.nan]]):
        with pytest.raises(ParameterError, match="codes are a row of numbers for each class"):
            pl.RBF(codes)
    with pytest.raises(ShapeError, match=r"not as long as the codes(.|\n)*expected: \(84,\)"):
        pl.Sequential(pl.RBF(), input_shape=80)
    with pytest.raises(ShapeError, match="only adds channels"):
        pl.Sequential(pl.Shortcut2D(2), input_shape=(3, 4, 4))


def test_they_come_back_from_a_file(tmp_path, rng):
    X = rng.random((3, 1, 28, 28)).astype(np.float32)
    for name in ("lenet5-1998", "resnet"):
        net = built(name)
        net.save(tmp_path / name)
        np.testing.assert_array_equal(pl.load(tmp_path / name).predict(X), net.predict(X))
