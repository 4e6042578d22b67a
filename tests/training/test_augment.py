"""Augmentation: exact on images made by hand, nothing at zero strength, labels that follow, resumed to the bit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import pellucid as pl
from pellucid.cli import main
from pellucid.errors import ParameterError, ShapeError
from pellucid.registry import config
from pellucid.runs import Run, environment
from pellucid.training import augment
from pellucid.training.augment import augmentations, pixels_at, sampled, turned
from pellucid.training.batches import Batch, Source
from pellucid.trees import flatten

STILL = [
    *(pl.Shift(0), pl.RandomCrop(0), pl.HorizontalFlip(0.0), pl.Rotate(0.0), pl.Rotate(0.0, fill=7.0), pl.Scale(0.0)),
    *(pl.ElasticDistortion(0.0), pl.ColorJitter(0.0, 0.0, 0.0), pl.PCAJitter(0.0), pl.Cutout(0)),
]
STRONG = [
    *(pl.Shift(3), pl.RandomCrop(2), pl.HorizontalFlip(0.5), pl.Rotate(30.0), pl.Scale(0.3), pl.Scale(0.3, fill=0.0)),
    *(pl.ElasticDistortion(20.0, 3.0), pl.ColorJitter(0.3, 0.3, 0.3), pl.PCAJitter(0.5), pl.Cutout(3)),
]


def shapes(m=6, channels=3, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, 7, 9, m)).astype(dtype)


def make(loss="softmax_cross_entropy", outputs=3, input_shape=(2, 6, 6), **options):
    layers = [pl.Conv2D(4, 3, "relu"), pl.BatchNorm(), pl.Flatten(), pl.Dropout(0.2), pl.Dense(outputs)]
    return pl.Sequential(*layers, input_shape=input_shape, loss=loss, seed=1, **options)


def data(m=50):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, m)
    return (rng.normal(size=(m, 2, 6, 6)) + y[:, None, None, None]).astype(np.float32), y


def batch_of(net, x, y, **options):
    return Source(net, x, y, **options)._gathered(np.arange(len(y)))


# --- exact --------------------------------------------------------------------------------------------------------


def test_places_outside_the_image():
    X = np.arange(6.0).reshape(1, 2, 3, 1)
    rows, columns = np.array([-1, 0, 1, 2])[:, None, None], np.array([-2, 0, 2, 5])[:, None]
    edge = [[0, 0, 2, 2], [0, 0, 2, 2], [3, 3, 5, 5], [3, 3, 5, 5]]
    np.testing.assert_array_equal(pixels_at(X, rows, columns, "edge")[0, ..., 0], edge)
    filled = [[9, 9, 9, 9], [9, 0, 2, 9], [9, 3, 5, 9], [9, 9, 9, 9]]
    np.testing.assert_array_equal(pixels_at(X, rows, columns, 9.0)[0, ..., 0], filled)


def test_between_pixels_is_bilinear():
    X = np.array([[0.0, 1.0], [10.0, 21.0]]).reshape(1, 2, 2, 1)

    def at(row, column, fill="edge"):
        return float(sampled(X, np.full((1, 1, 1), row), np.full((1, 1, 1), column), fill).item())

    assert at(0, 0.25) == 0.25
    assert at(0.5, 0) == 5.0
    assert at(0.5, 0.5) == 8.0
    assert at(0.25, 0.75) == pytest.approx(0.75 * 0.75 + 0.25 * (0.25 * 10 + 0.75 * 21))
    assert at(-0.5, 0) == 0.0
    assert at(1.0, 1.5, fill=1.0) == 11.0


def test_bilinear_as_scipy_has_it(rng):
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is the oracle")
    X = rng.normal(size=(2, 6, 8, 3))
    rows, columns = rng.uniform(-2, 7, (5, 4, 3)), rng.uniform(-2, 9, (5, 4, 3))
    for fill, mode in (("edge", "nearest"), (0.5, "constant")):
        made = sampled(X, rows, columns, fill)
        for c in range(2):
            for i in range(3):
                # a frame of the fill, or SciPy would not blend with what lies outside
                image = X[c, ..., i] if fill == "edge" else np.pad(X[c, ..., i], 3, constant_values=fill)
                frame = 0 if fill == "edge" else 3
                places = np.array([rows[..., i], columns[..., i]]) + frame
                expected = ndimage.map_coordinates(image, places, order=1, mode=mode, cval=0.5)
                np.testing.assert_allclose(made[c, ..., i], expected, atol=1e-12)


@pytest.mark.parametrize("fill", ["edge", 0.0])
def test_every_shift_is_a_shift_and_each_comes_up(rng, fill):
    image = np.arange(1.0, 13.0).reshape(3, 4)
    X = np.repeat(image[None, :, :, None], 300, axis=3)
    padded = np.pad(image, 1, mode="edge") if fill == "edge" else np.pad(image, 1, constant_values=fill)
    possible = {padded[i : i + 3, j : j + 4].tobytes() for i in range(3) for j in range(3)}
    assert len(possible) == 9
    for each in (pl.Shift(1, fill=fill), pl.RandomCrop(1, fill=fill)):
        made = each.images(np.random.default_rng(3), X)[0]
        assert {np.ascontiguousarray(made[..., i]).tobytes() for i in range(300)} == possible


def test_flips_swap_left_and_right_only():
    X = shapes(400)
    np.testing.assert_array_equal(pl.HorizontalFlip(1.0).images(np.random.default_rng(0), X), X[:, :, ::-1])
    made = pl.HorizontalFlip(0.25).images(np.random.default_rng(0), X)
    flipped = (made == X[:, :, ::-1]).all(axis=(0, 1, 2))
    assert (flipped | (made == X).all(axis=(0, 1, 2))).all()
    assert flipped.mean() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_exact(quarters):
    X = np.random.default_rng(1).normal(size=(2, 5, 5, 3))
    made = turned(X, np.full(3, quarters * math.pi / 2), 1.0, 0.0)
    np.testing.assert_allclose(made, np.rot90(X, quarters, axes=(1, 2)), atol=1e-12)


def test_twice_as_large_shows_the_middle():
    X = np.zeros((1, 5, 5, 2))
    X[0, 2, 1:4] = 1.0  # a bar of three pixels becomes one of five, as high as two
    made = turned(X, 0.0, np.array([2.0, 1.0]), 0.0)
    np.testing.assert_allclose(made[0, 2, :, 0], 1.0)
    np.testing.assert_allclose(made[0, :, 2, 0], [0, 0.5, 1, 0.5, 0])
    np.testing.assert_array_equal(made[..., 1], X[..., 1])


def test_turns_and_sizes_are_drawn_from_the_whole_range():
    # the bright pixel of a large image tells the angle and the factor
    X = np.zeros((1, 81, 81, 300))
    X[0, 40, 68:73] = 1.0
    rows, columns = np.arange(81)[:, None, None] - 40, np.arange(81)[:, None] - 40

    def bright(made):
        return (made[0] * rows).sum((0, 1)) / made[0].sum((0, 1)), (made[0] * columns).sum((0, 1)) / made[0].sum((0, 1))

    down, right = bright(pl.Rotate(20.0, fill=0.0).images(np.random.default_rng(0), X))
    angles = np.rad2deg(np.arctan2(down, right))
    np.testing.assert_allclose(np.hypot(down, right), 30, atol=0.5)
    assert -20.5 < angles.min() < -18
    assert 18 < angles.max() < 20.5
    down, right = bright(pl.Scale(0.2, fill=0.0).images(np.random.default_rng(0), X))
    assert 23.5 < right.min() < 25
    assert 35 < right.max() < 36.5
    np.testing.assert_allclose(down, 0, atol=1e-6)


def test_elastic_displacements_are_smooth_noise_of_the_size_that_theory_gives():
    ramp = np.broadcast_to(np.arange(60.0)[:, None, None], (1, 60, 60, 20))  # a pixel's value is its row
    made = pl.ElasticDistortion(alpha=10.0, sigma=3.0).images(np.random.default_rng(0), ramp)
    moved = (made - ramp)[0, 20:40, 20:40]
    assert moved.std() == pytest.approx(10 * math.sqrt(1 / 3) / (2 * math.sqrt(math.pi) * 3), rel=0.1)
    neighbours = np.corrcoef(moved[1:].ravel(), moved[:-1].ravel())[0, 1]
    assert neighbours == pytest.approx(math.exp(-1 / (4 * 3**2)), abs=0.01)


def test_elastic_smooths_as_scipy_does():
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is the oracle")
    X = np.broadcast_to(np.arange(12.0)[:, None, None], (1, 12, 15, 2))
    rng = np.random.default_rng(5)
    noise = 2 * rng.random((2, 12, 15, 2)) - 1
    down = [ndimage.gaussian_filter(noise[0, ..., i], 2.0, mode="constant", truncate=8) for i in range(2)]
    made = pl.ElasticDistortion(1.5, 2.0).images(np.random.default_rng(5), X)
    expected = (np.arange(12.0)[:, None, None] + 1.5 * np.stack(down, -1)).clip(0, 11)
    np.testing.assert_allclose(made[0], expected, atol=1e-10)


def test_cutout_blanks_squares_whose_centre_is_in_the_image():
    X = np.ones((2, 6, 8, 500), np.float32)
    made = pl.Cutout(4, fill=-1.0).images(np.random.default_rng(0), X)
    blank = made[0] == -1
    np.testing.assert_array_equal(made[1], made[0])
    assert set(np.unique(made)) == {-1.0, 1.0}
    heights, widths = blank.any(axis=1).sum(axis=0), blank.any(axis=0).sum(axis=0)
    np.testing.assert_array_equal(blank.sum(axis=(0, 1)), heights * widths)  # a rectangle
    assert set(heights) == set(widths) == {2, 3, 4}
    assert blank.any(axis=2).all()


def test_brightness_contrast_and_saturation():
    X = shapes(200, dtype=np.float64)
    rng = np.random.default_rng
    added = pl.ColorJitter(0.5, 0.0, 0.0).images(rng(0), X) - X
    assert np.ptp(added, axis=(0, 1, 2)).max() < 1e-12
    assert 0.45 < added.max() < 0.5
    made = pl.ColorJitter(0.0, 0.5, 0.0).images(rng(0), X)
    np.testing.assert_allclose(made.mean(axis=(0, 1, 2)), X.mean(axis=(0, 1, 2)), atol=1e-12)
    ratio = made.std(axis=(0, 1, 2)) / X.std(axis=(0, 1, 2))
    assert 0.5 < ratio.min() < 0.55
    assert 1.45 < ratio.max() < 1.5
    made = pl.ColorJitter(0.0, 0.0, 1.0).images(rng(0), X)
    np.testing.assert_allclose(made.mean(axis=0), X.mean(axis=0), atol=1e-12)  # grey stays
    grey = X[:1]
    np.testing.assert_array_equal(pl.ColorJitter(0.0, 0.0, 1.0).images(rng(0), grey), grey)


def test_pca_jitter_adds_one_colour_to_an_image_along_the_training_colours():
    rng = np.random.default_rng(2)
    mixing = np.array([[2.0, 0.5, 0.0], [1.0, 1.0, 0.2], [0.0, 0.3, 0.5]])
    x = np.einsum("cd,mdhw->mchw", mixing, rng.normal(size=(400, 3, 6, 6))).astype(np.float32)
    net = make(input_shape=(3, 6, 6))
    augmenter = augment.Augmenter("pca_jitter(0.5)", net, Source(net, x, np.arange(400) % 3), seed=0)
    X = np.zeros((3, 6, 6, 20000), np.float32)
    (made,) = augmenter(Batch({"input": X}, {}, None), 0, 0).inputs.values()
    light = made[:, 0, 0]
    np.testing.assert_array_equal(made, np.broadcast_to(light[:, None, None], made.shape))
    np.testing.assert_allclose(np.cov(light), 0.25 * mixing @ mixing.T, atol=0.06)
    assert augmenter.given == [pl.PCAJitter(0.5)]


# --- identity, types, inputs left alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("each", STILL, ids=repr)
def test_nothing_happens_at_zero_strength(each):
    X = shapes()
    np.testing.assert_array_equal(each.images(np.random.default_rng(0), X), X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("each", STRONG, ids=repr)
def test_type_is_kept_the_input_left_alone_and_every_image_has_its_own_draw(each, dtype):
    X = np.repeat(shapes(1, dtype=dtype), 40, axis=-1)
    before = X.copy()
    made = each.images(np.random.default_rng(0), X)
    np.testing.assert_array_equal(X, before)
    assert made.dtype == dtype
    assert made.shape == X.shape
    assert not np.shares_memory(made, X)
    assert len(np.unique(made.reshape(-1, 40), axis=1).T) > 1
    single = each.images(np.random.default_rng(0), np.asfortranarray(X)[..., :1])
    assert single.shape == (3, 7, 9, 1)
    strided = each.images(np.random.default_rng(0), np.asfortranarray(X))  # means are summed in another order
    np.testing.assert_allclose(strided, made, atol=1e-5)


@pytest.mark.parametrize("each", [*STILL, *STRONG, pl.Mixup(0.3)], ids=repr)
def test_written_and_read_back(each):
    assert augmentations.get(json.loads(json.dumps(config(each)))) == each


def test_names():
    assert augmentations.get("shift(2)") == pl.Shift(2)
    assert augmentations.get("horizontal_flip") == augmentations.get("flip") == pl.HorizontalFlip()
    assert augmentations.get("elastic(8, sigma=2)") == pl.ElasticDistortion(8.0, 2.0)
    assert augmentations.get("rotate(5, fill=edge)") == pl.Rotate(5.0, "edge")


# --- mixup --------------------------------------------------------------------------------------------------------


def test_mixup_mixes_targets_as_it_mixes_images():
    net = make()
    # images that say their class: channel 0 holds the class's number, channel 1 its square
    y = np.arange(60) % 3
    x = np.stack([np.full((60, 6, 6), y[:, None, None]), np.full((60, 6, 6), (y**2)[:, None, None])], 1)
    batch = batch_of(net, x.astype(np.float32), y)
    mixed = pl.Mixup(1.0).batch(lambda: np.random.default_rng(0), batch, net)
    X, Y = mixed.inputs["input"], mixed.targets["output"]
    assert X.dtype == Y.dtype == np.float32
    np.testing.assert_allclose(Y.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(X[0, 3, 3], np.arange(3) @ Y, atol=1e-6)
    np.testing.assert_allclose(X[1, 0, 5], np.arange(3) ** 2 @ Y, atol=1e-6)
    assert ((Y > 0.01) & (Y < 0.99)).any(axis=0).mean() > 0.4
    assert batch.targets["output"].dtype == np.int64  # left as it was
    assert pl.Mixup(0.0).batch(lambda: np.random.default_rng(0), batch, net) is batch


def test_mixup_draws_from_the_beta_distribution():
    net = make()
    y = np.zeros(20000, int)
    y[10000:] = 1
    x = np.broadcast_to(y[:, None, None, None], (20000, 2, 6, 6)).astype(np.float32)
    for alpha in (0.4, 2.0):
        X = pl.Mixup(alpha).batch(lambda: np.random.default_rng(1), batch_of(net, x, y), net).inputs["input"]
        share = X[0, 0, 0][(X[0, 0, 0] > 0) & (X[0, 0, 0] < 1)].astype(np.float64)
        assert share.mean() == pytest.approx(0.5, abs=0.01)
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_mixup_of_weighted_examples_weighs_their_losses():
    net = make(dtype="float64")
    x, y = data(12)
    weight = np.linspace(0.0, 2.0, 12)
    batch = batch_of(net, x, y, sample_weight=weight)
    mixed = pl.Mixup(1.0).batch(lambda: np.random.default_rng(4), batch, net)
    draw = np.random.default_rng(4)
    partner, share = draw.permutation(12), draw.beta(1.0, 1.0, 12)
    A, loss = np.random.default_rng(0).normal(size=(3, 12)), pl.SoftmaxCrossEntropy()
    own, other = (loss.forward(net.ops, A, y[each])[0] for each in (np.arange(12), partner))
    expected = share * batch.weight * own + (1 - share) * batch.weight[partner] * other
    made = mixed.weight * loss.forward(net.ops, A, mixed.targets["output"])[0]
    np.testing.assert_allclose(made, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "outputs", "y"),
    [("mean_squared_error", 1, np.linspace(0, 1, 50)), ("sigmoid_cross_entropy", 1, np.arange(50) % 2)],
)
def test_mixup_of_values_and_of_yes_and_no(loss, outputs, y):
    net = make(loss, outputs)
    mixed = pl.Mixup(1.0).batch(lambda: np.random.default_rng(0), batch_of(net, data()[0], y), net)
    draw = np.random.default_rng(0)
    partner, share = draw.permutation(50), draw.beta(1.0, 1.0, 50)
    np.testing.assert_allclose(mixed.targets["output"][0], share * y + (1 - share) * y[partner], atol=1e-6)
    history = net.fit(data()[0], y, epochs=1, augment=pl.Mixup(1.0), progress=False)
    assert math.isfinite(history["loss"][-1])


# --- in a training ------------------------------------------------------------------------------------------------

ALL = [*STRONG[:5], "elastic(5, 2)", "color_jitter", "pca_jitter", "cutout(2)", "mixup(0.4)"]


def new_run(folder):
    with Run.create(folder, config={}, environment=environment(engine="numpy")):
        return folder


class Dies(pl.Callback):
    def on_update(self, training):
        if training.t == 9:  # in the middle of the second epoch
            raise ZeroDivisionError


def test_a_resumed_training_is_augmented_to_the_bit(tmp_path):
    x, y = data()
    options = {"epochs": 3, "batch_size": 8, "augment": ALL, "progress": False, "validation": 0.1}
    straight, resumed = make(), make()
    whole = straight.fit(x, y, **options)
    with pytest.raises(ZeroDivisionError):
        make().fit(x, y, run=new_run(tmp_path / "run"), checkpoint_seconds=0, callbacks=[Dies()], **options)
    history = resumed.fit(x, y, run=tmp_path / "run", resume=True, **options)
    for path, leaf in flatten(straight.parameters).items():
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(flatten(resumed.parameters)[path], leaf)
    for name in ("loss", "accuracy", "validation_loss"):
        assert history[name] == whole[name]


def test_a_run_is_not_resumed_with_other_augmentation(tmp_path):
    x, y = data()
    options = {"epochs": 1, "batch_size": 8, "progress": False, "run": new_run(tmp_path / "run")}
    make().fit(x, y, augment="shift(1)", **options)
    for other in ((), ["shift(2)"], ["shift(1)", "flip"]):
        with pytest.raises(ParameterError, match="another augment"):
            make().fit(x, y, augment=other, resume=True, **options)
    make().fit(x, y, augment=[pl.Shift(1)], resume=True, **options)


def test_every_epoch_batch_and_seed_has_draws_of_its_own():
    net, (x, y) = make(), data()
    source = Source(net, x, y)
    batch = source.batch(np.arange(8))

    def made(seed, epoch, index):
        return augment.Augmenter("shift(3)", net, source, seed)(batch, epoch, index).inputs["input"].tobytes()

    assert len({made(*key) for key in np.ndindex(2, 3, 4)}) == 24
    assert made(1, 2, 3) == made(1, 2, 3)


def test_only_what_is_trained_on_is_changed():
    x, y = data()
    seen = {"train": [], "other": []}

    class Net(pl.Sequential):
        def forward_pass(self, params, state, inputs, mode, **options):
            seen["train" if mode.train else "other"].append(inputs["input"])
            return super().forward_pass(params, state, inputs, mode, **options)

    net = Net(pl.Flatten(), pl.Dense(3), input_shape=(2, 6, 6), loss="softmax_cross_entropy")
    known = {each.tobytes() for each in x}

    def share(batches):
        images = [np.ascontiguousarray(X[..., i]).tobytes() for X in batches for i in range(X.shape[-1])]
        return np.mean([image in known for image in images])

    net.fit(x, y, epochs=2, validation=0.2, augment="color_jitter", progress=False)
    net.evaluate(x, y)
    net.predict(x)
    assert share(seen["train"]) == 0
    assert share(seen["other"]) == 1


def test_rows_that_are_fetched_are_augmented_as_arrays_are():
    x, y = data()

    class Rows:
        def __len__(self):
            return len(y)

        def take(self, indices):
            return x[indices], y[indices]

    one, other = make(), make()
    one.fit(x, y, epochs=2, augment=ALL, progress=False)
    other.fit(Rows(), epochs=2, augment=ALL, progress=False)
    np.testing.assert_array_equal(one.parameters["dense_1"]["W"], other.parameters["dense_1"]["W"])


def test_several_images_move_together_and_what_is_no_image_stays():
    a, b, c = pl.Input((1, 6, 6)), pl.Input((2, 6, 6)), pl.Input((4,))
    h = pl.Concat()(pl.Flatten()(a), pl.Flatten()(b), c)
    net = pl.Graph(inputs={"a": a, "b": b, "c": c}, outputs=pl.Dense(3)(h), loss="softmax_cross_entropy")
    rng = np.random.default_rng(0)
    image = rng.normal(size=(30, 1, 6, 6)).astype(np.float32)
    x = {"a": image, "b": np.concatenate([image, -image], 1), "c": rng.normal(size=(30, 4)).astype(np.float32)}
    source = Source(net, x, np.arange(30) % 3)
    batch = source.batch(np.arange(30))
    made = augment.Augmenter(["shift(2)", "rotate(20)"], net, source, seed=0)(batch, 0, 0).inputs
    assert not np.array_equal(made["a"], batch.inputs["a"])
    np.testing.assert_array_equal(made["b"], np.concatenate([made["a"], -made["a"]]))
    np.testing.assert_array_equal(made["c"], batch.inputs["c"])
    with pytest.raises(ParameterError, match=r"mixes images only[\s\S]*got: +c \(4,\)"):
        net.fit(x, np.arange(30) % 3, augment="mixup")
    with pytest.raises(ParameterError, match=r"differ in their channels[\s\S]*1 and 2"):
        net.fit(x, np.arange(30) % 3, augment="pca_jitter")


# --- refused ------------------------------------------------------------------------------------------------------


def test_what_is_no_image_is_refused():
    net = pl.Sequential(pl.Dense(3), input_shape=4, loss="softmax_cross_entropy")
    with pytest.raises(ParameterError, match=r"only images can be augmented[\s\S]*got: +input \(4,\)[\s\S]*Flatten"):
        net.fit(np.zeros((9, 4)), np.arange(9) % 3, augment="shift(2)")


def test_targets_that_are_images_would_have_to_move_along():
    net = pl.Sequential(pl.Conv2D(1, 3, padding="same"), input_shape=(1, 6, 6), loss="mean_squared_error")
    x = np.random.default_rng(0).normal(size=(9, 1, 6, 6))
    with pytest.raises(ParameterError, match=r"move along[\s\S]*output \(1, 6, 6\)"):
        net.fit(x, x, augment="horizontal_flip")
    net.fit(x, x, epochs=1, augment=["cutout(2)", "mixup"], progress=False)


def test_mixup_and_hinge():
    with pytest.raises(ParameterError, match="hinge takes no distributions"):
        make("hinge").fit(*data(), augment="mixup")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("shft(2)", r"augment: unknown augmentation[\s\S]*did you mean 'shift'"),
        ("shift(1.5)", "pixels is out of range"),
        ("shift(-1)", "pixels is out of range"),
        ("shift(2, fill='mirror')", r"cannot fill[\s\S]*'edge' or a finite number"),
        ("shift(2, fill=nan)", "cannot fill"),
        ("scale(1.0)", "amount is out of range"),
        ("cutout(2, fill=inf)", "fill is out of range"),
        ("mixup(-1)", "alpha is out of range"),
        ("elastic(sigma=0)", "sigma is out of range"),
        (3, r"augment: cannot be used as augmentation[\s\S]*cutout, elastic"),
        (None, "cannot be used as augmentation"),
    ],
)
def test_settings_that_cannot_be_used(given, said):
    with pytest.raises(ParameterError, match=said):
        make().fit(*data(), augment=given)


def test_a_covariance_of_other_channels():
    with pytest.raises(ShapeError, match=r"PCAJitter[\s\S]*\(2, 2\)[\s\S]*\(3, 3\)"):
        make().fit(*data(), augment=pl.PCAJitter(0.1, covariance=np.eye(3).tolist()), progress=False)


def test_a_base_without_images():
    with pytest.raises(NotImplementedError, match="images"):
        augment.Augmentation().images(np.random.default_rng(0), np.zeros((1, 2, 2, 3)))


# --- from the command line ----------------------------------------------------------------------------------------


def test_pellucid_train_augments_and_records_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["train", "digits", "--hidden", "16", "--epochs", "1", "--quiet", "--no-plot", "--json"]
    assert main([*common, "--out", "plain"]) == 0
    plain = json.loads(capsys.readouterr().out)
    recipe = ["--augment", "shift(1)", "pca_jitter", "--learning-rate", "one_cycle(0.01)"]
    recipe += ["--loss", "softmax_cross_entropy(label_smoothing=0.1)"]
    assert main([*common, *recipe, "--out", "run"]) == 0
    document = json.loads(capsys.readouterr().out)
    recorded = Run.open("run").config
    assert recorded["training"]["augment"] == [
        {"type": "shift", "pixels": 1, "fill": "edge"},
        {"type": "pca_jitter", "deviation": 0.1},
    ]
    assert recorded["training"]["optimizer"]["learning_rate"]["type"] == "one_cycle"
    assert recorded["network"]["loss"]["label_smoothing"] == 0.1
    assert document["train"] != plain["train"]
    assert main(["train", "--resume", "run", "--epochs", "2", "--quiet", "--no-plot", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 2
    assert main(["train", "digits", "--augment", "shft", "--json"]) == 1
    assert "did you mean" in capsys.readouterr().out
