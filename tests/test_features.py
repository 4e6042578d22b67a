"""Seeing features: filters, maps, exciting patches, preferred inputs and saliency against what they must be."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from pellucid import zoo
from pellucid.cli import main
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.inspect import features
from pellucid.inspect.receptive_field import receptive_field
from pellucid.inspect.sheet import png_bytes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2, 9, 8)).astype(np.float32)


def chain(**options):
    layers = [pl.Conv2D(4, 3, "relu"), pl.MaxPool2D(2), pl.Conv2D(5, 2, "tanh", padding=1), pl.Flatten(), pl.Dense(3)]
    return pl.Sequential(*layers, input_shape=(2, 9, 8), loss="softmax_cross_entropy", seed=3, **options)


def branching(**options):
    x = pl.Input((2, 9, 8))
    left, right = pl.Conv2D(3, 3, padding="same")(x), pl.Conv2D(3, 5, "relu", padding="same")(x)
    joined = pl.Concat()(pl.ReLU()(pl.BatchNorm()(left)), right)
    last = pl.Dense(3)(pl.Flatten()(pl.Conv2D(4, 3, "tanh", stride=2)(pl.Add()(joined, joined))))
    return pl.Graph(inputs=x, outputs=last, loss="softmax_cross_entropy", seed=2, **options)


def value(net, block, x):
    return features.Prefix(net, block.Z, before_activation=True).forward(features.checked_images(net, x))[0]


# --- a part of a network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [chain, branching])
def test_a_prefix_computes_what_the_network_does(make):
    net = make()
    maps = features.feature_maps(net, X)
    for step in net.steps:
        A, _ = features.Prefix(net, step.label).forward(features.checked_images(net, X))
        if step.label in maps:
            np.testing.assert_array_equal(np.moveaxis(A, -1, 0), maps[step.label])
    np.testing.assert_array_equal(A, net.forward(np.moveaxis(X, 0, -1))[0])


@pytest.mark.parametrize("make", [chain, branching])
@pytest.mark.parametrize("before", [False, True])
def test_its_backward_is_the_gradient_at_every_layer(make, before):
    net, rng = make(dtype="float64"), np.random.default_rng(0)
    x = {"input": np.moveaxis(X[:4].astype(np.float64), 0, -1)}
    direction = rng.normal(size=x["input"].shape)
    for step in net.steps:
        prefix = features.Prefix(net, step.label, before_activation=before)
        A, caches = prefix.forward(x)
        dA = rng.normal(size=A.shape)
        dX = prefix.backward(caches, dA)["input"]
        h = 1e-6
        ahead, behind = (prefix.forward({"input": x["input"] + s * h * direction})[0] for s in (1, -1))
        numeric = ((ahead - behind) * dA).sum() / (2 * h)
        assert (dX * direction).sum() == pytest.approx(numeric, rel=1e-5, abs=1e-7), step.label


def test_what_follows_is_not_run():
    net = chain()
    assert [step.label for step in features.Prefix(net, "max_pool2d_1").steps] == ["conv2d_1", "max_pool2d_1"]
    net = branching()
    assert [step.label for step in features.Prefix(net, "conv2d_2").steps] == ["conv2d_2"]


def test_blocks_end_at_their_activation():
    names = [(block.name, block.Z, block.A) for block in features.blocks(branching())]
    assert names == [
        ("conv2d_1", "batch_norm_1", "relu_1"),
        ("conv2d_2", "conv2d_2", "conv2d_2"),
        ("conv2d_3", "conv2d_3", "conv2d_3"),
        ("dense_1", "dense_1", "dense_1"),
    ]
    assert [block.shape for block in features.blocks(chain())] == [(4, 7, 6), (5, 4, 4), (3,)]


# --- filters and maps ---------------------------------------------------------------------------------------------


def test_filters_are_the_weights():
    net = chain()
    np.testing.assert_array_equal(pl.filters(net, "conv2d_1"), net.parameters["conv2d_1"]["W"])
    mlp = pl.Sequential(pl.Flatten(), pl.Dense(5), input_shape=(2, 9, 8))
    np.testing.assert_array_equal(
        (pl.filters(mlp, "dense_1") * X[0]).sum(axis=(1, 2, 3)),
        np.sum(mlp.parameters["dense_1"]["W"].reshape(5, 2, 9, 8) * X[0], axis=(1, 2, 3)),
    )
    table = ((0,), (1, 0))
    net = pl.Sequential(pl.Conv2D(2, 3, connections=table), input_shape=(2, 9, 8))
    W = net.parameters["conv2d_1"]["W"]
    np.testing.assert_array_equal(pl.filters(net, "conv2d_1"), [[W[0], 0 * W[0]], [W[2], W[1]]])


def test_feature_maps_of_some_layers():
    net = chain()
    maps = pl.feature_maps(net, X, ["conv2d_2"])
    assert list(maps) == ["conv2d_2"]
    assert list(pl.feature_maps(net, X)) == ["conv2d_1", "max_pool2d_1", "conv2d_2"]
    one = pl.feature_maps(net, X[7:8])["conv2d_2"]
    np.testing.assert_allclose(one[0], maps["conv2d_2"][7], atol=1e-6)


# --- patches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [chain, branching])
def test_exciting_patches_are_the_best_and_excite(make, monkeypatch):
    net = make()
    monkeypatch.setattr(features, "_AT_ONCE", 2000)  # a few images at a time
    for block in features.blocks(net):
        found = pl.exciting_patches(net, X, block.name, count=4)
        Z = value(net, block, X)
        flat = Z.reshape(block.shape[0], -1, len(X)).max(axis=1)
        np.testing.assert_allclose(found.Z, -np.sort(-flat, axis=1)[:, :4], atol=1e-5)
        for unit, rank in np.ndindex(found.Z.shape):
            example, place = found.examples[unit, rank], found.places[unit, rank]
            at = Z[(unit, *place, example)] if len(block.shape) == 3 else Z[unit, example]
            assert at == pytest.approx(found.Z[unit, rank], abs=1e-5)


def test_a_patch_is_what_the_unit_sees():
    net = chain()
    found = pl.exciting_patches(net, X, "conv2d_1", count=2)
    W, b = net.parameters["conv2d_1"]["W"], net.parameters["conv2d_1"]["b"]
    assert found.images.shape == (4, 2, 2, 3, 3)
    by_hand = (found.images * W[:, None]).sum(axis=(2, 3, 4)) + b.reshape(4, 1)
    np.testing.assert_allclose(by_hand, found.Z, atol=1e-5)


@pytest.mark.parametrize("make", [chain, branching])
def test_nothing_outside_the_patch_matters_and_the_padding_is_blank(make):
    net = make()
    rng = np.random.default_rng(5)
    blank = False
    for block in features.blocks(net)[:-1]:
        found = pl.exciting_patches(net, X, block.name, count=3)
        for unit, rank in np.ndindex(found.Z.shape):
            patch, image = found.images[unit, rank], X[found.examples[unit, rank]]
            inside = ~np.isnan(patch[0])
            blank |= not inside.all()
            rows, columns = inside.any(axis=1).sum(), inside.any(axis=0).sum()
            core = patch[:, inside].reshape(2, rows, columns)
            # find the patch in the image by its values, then change everything around it
            places = [
                (i, j)
                for i in range(9 - rows + 1)
                for j in range(8 - columns + 1)
                if np.array_equal(image[:, i : i + rows, j : j + columns], core)
            ]
            assert len(places) == 1
            (i, j) = places[0]
            other = rng.normal(size=image.shape).astype(np.float32)
            other[:, i : i + rows, j : j + columns] = core
            excited = value(net, block, other[None])[(unit, *found.places[unit, rank], 0)]
            assert excited == pytest.approx(found.Z[unit, rank], abs=1e-4)
    assert blank


# --- preferred inputs ---------------------------------------------------------------------------------------------


def test_the_preferred_input_of_the_first_layer_is_the_filter_itself():
    net = chain()
    found = pl.maximising_input(net, "conv2d_1", x=X) - X.mean(axis=(0, 2, 3))[:, None, None]
    W = net.parameters["conv2d_1"]["W"]
    window = found[:, :, 3:6, 3:6]
    assert np.count_nonzero(np.abs(found) > 1e-6) == np.count_nonzero(np.abs(window) > 1e-6)
    for unit in range(4):
        cosine = (window[unit] * W[unit]).sum() / np.linalg.norm(window[unit]) / np.linalg.norm(W[unit])
        assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("make", [chain, branching])
def test_the_preferred_input_beats_real_images_of_the_same_length(make):
    net = make()
    mean = X.mean(axis=(0, 2, 3))[:, None, None]
    for block in features.blocks(net):
        units = [1, 2]
        found = pl.maximising_input(net, block.name, units, x=X)
        middle = tuple(n // 2 for n in block.shape[1:])
        Z = value(net, block, np.concatenate([found, X]))
        for i, unit in enumerate(units):
            assert Z[(unit, *middle, i)] > Z[(unit, *middle, slice(2, None))].max()
        seen = receptive_field(net, block.name, (0, *middle)).pixels.any(axis=0)
        expected = np.sqrt(np.square((X - mean) * seen).sum() / len(X))
        np.testing.assert_allclose(np.linalg.norm((found - mean).reshape(2, -1), axis=1), expected, rtol=1e-4)


def test_without_images_and_with_smoothing():
    net = chain()
    found = pl.maximising_input(net, "dense_1", [0])
    assert np.linalg.norm(found) == pytest.approx(np.sqrt(2 * 8 * 8), rel=1e-3)  # pooling drops the last row
    assert not found[:, :, 8].any()
    rough = [np.abs(np.diff(pl.maximising_input(net, "dense_1", [0], smooth=n), axis=-1)).mean() for n in (0, 2)]
    assert rough[1] < 0.7 * rough[0]
    np.testing.assert_array_equal(found, pl.maximising_input(net, "dense_1", [0]))


def test_a_unit_that_is_off_still_says_what_it_prefers():
    net = chain()
    params = net.parameters
    params["conv2d_1"]["b"] = params["conv2d_1"]["b"] - 100
    net.parameters = params
    found = pl.maximising_input(net, "conv2d_1", [0], x=X) - X.mean(axis=(0, 2, 3))[:, None, None]
    W = net.parameters["conv2d_1"]["W"][0]
    assert (found[0, :, 3:6, 3:6] * W).sum() == pytest.approx(np.linalg.norm(found) * np.linalg.norm(W), rel=1e-4)


# --- saliency -----------------------------------------------------------------------------------------------------


def test_saliency_is_the_gradient_of_the_class_score():
    net = chain(dtype="float64")
    x = X[:3].astype(np.float64)
    made = pl.saliency(net, x, [0, 2, 1])
    assert made.shape == (3, 9, 8)
    h = 1e-6
    for i, k in enumerate([0, 2, 1]):
        for place in [(0, 0), (4, 4), (8, 7), (2, 6)]:
            slopes = []
            for c in range(2):
                moved = np.repeat(x[i][None], 2, axis=0)
                moved[:, c, *place] += [h, -h]
                scores = net.forward(np.moveaxis(moved, 0, -1))[0][k]
                slopes.append(abs(scores[0] - scores[1]) / (2 * h))
            assert made[i][place] == pytest.approx(max(slopes), abs=1e-6)
    guessed = net.predict(x).argmax(axis=1)
    np.testing.assert_array_equal(pl.saliency(net, x), pl.saliency(net, x, guessed))


def test_nothing_is_changed():
    net, before = branching(), X.copy()
    state = {name: {key: A.copy() for key, A in tree.items()} for name, tree in net.state.items()}
    pl.saliency(net, X)
    pl.exciting_patches(net, X, "conv2d_1")
    pl.maximising_input(net, "conv2d_3", x=X)
    np.testing.assert_array_equal(X, before)
    for name, tree in state.items():
        for key, A in tree.items():
            np.testing.assert_array_equal(net.state[name][key], A)


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "problem", "said"),
    [
        (lambda net: pl.filters(net, "conv"), ParameterError, r"unknown layer 'conv'[\s\S]*conv2d_1"),
        (lambda net: pl.filters(net, "dense_1"), ParameterError, "no filters that can be seen"),
        (lambda net: pl.filters(net, "flatten_1"), ParameterError, "no filters that can be seen"),
        (lambda net: pl.feature_maps(net, X, ["pool"]), ParameterError, "unknown layer 'pool'"),
        (lambda net: pl.feature_maps(net, X[0]), ShapeError, r"\(m, 2, 9, 8\)[\s\S]*x\[None\]"),
        (lambda net: pl.feature_maps(net, X[:, :1]), ShapeError, "do not fit the network"),
        (lambda net: pl.feature_maps(net, X[:0]), ShapeError, "do not fit the network"),
        (lambda net: pl.feature_maps(net, X * np.nan), DataError, "not finite"),
        (lambda net: pl.exciting_patches(net, X, "flatten_1"), ParameterError, "unknown convolution or dense layer"),
        (lambda net: pl.maximising_input(net, "conv2d_1", [4]), ParameterError, r"no such unit[\s\S]*0 … 3"),
        (lambda net: pl.saliency(net, X, [0, 1]), DataError, "30 classes 0 … 2"),
        (lambda net: pl.saliency(net, X[:2], [0, 3]), DataError, "2 classes 0 … 2"),
        (lambda net: features.Prefix(net, "x"), ParameterError, "unknown layer"),
        (lambda net: pl.features_sheet(net, X, "sheet.gif"), ParameterError, r"unknown format[\s\S]*\.html"),
        (lambda net: pl.features_sheet(net, X, "sheet.html", units=0), ParameterError, "number of units"),
        (lambda net: pl.features_sheet(net, X, "sheet.html", y=[1]), ShapeError, r"\(30,\)"),
    ],
)
def test_what_cannot_be_shown(call, problem, said):
    with pytest.raises(problem, match=said):
        call(chain())


def test_networks_that_read_no_image():
    net = pl.Sequential(pl.Dense(3), input_shape=4)
    with pytest.raises(ParameterError, match=r"networks on images[\s\S]*input \(4,\)"):
        pl.saliency(net, np.zeros((2, 4)))


# --- sheets -------------------------------------------------------------------------------------------------------


def images_of(page: str) -> list[np.ndarray]:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow reads the PNG files")
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(pillow.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_a_png_file_is_read_back():
    pillow = pytest.importorskip("PIL.Image", reason="Pillow reads the PNG files")
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(pillow.open(io.BytesIO(png_bytes(image)))), image)


def test_the_page_stands_alone_and_shows_the_filters_as_they_are(tmp_path):
    net = pl.Sequential(pl.Conv2D(3, 3, "relu"), pl.Flatten(), pl.Dense(2), input_shape=(1, 6, 6))
    x = np.random.default_rng(0).normal(size=(20, 1, 6, 6)).astype(np.float32)
    path = tmp_path / "sheet.html"
    assert pl.features_sheet(net, x, path, classes=["<cat>", "dog"], title="a & b") == path
    page = path.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<h1>a &amp; b</h1>" in page
    assert "&lt;cat&gt;" in page
    assert "<cat>" not in page
    assert "3 units of 3×3, maps 4×4; each sees 3×3 pixels" in page
    assert "2 units; each sees the whole image" in page
    images = images_of(page)
    assert len(images) == 10 * 2 + 3 * 4 + 2 * 2
    W = net.parameters["conv2d_1"]["W"][0, 0]
    shown = images[20].astype(int)
    red = shown[..., 0] - shown[..., 2]
    assert (np.sign(W[np.abs(W) > 0.1]) == np.sign(red[np.abs(W) > 0.1])).all()
    assert shown.shape == (3, 3, 3)
    assert images[22].shape == (11, 11, 3)  # nine patches of 3 × 3 with lines between them
    original = x[0, 0]
    assert np.corrcoef(images[0][..., 0].ravel(), original.ravel())[0, 1] > 0.999


def test_units_that_never_respond_are_counted_not_shown(tmp_path):
    net = chain()
    params = net.parameters
    params["conv2d_1"]["b"] = params["conv2d_1"]["b"] + np.array([0, -1000, 0, -1000], np.float32).reshape(4, 1, 1, 1)
    net.parameters = params
    page = pl.features_sheet(net, X, tmp_path / "sheet.html").read_text(encoding="utf-8")
    first = page.split("<h2>conv2d_1</h2>")[1].split("<h2>")[0]
    assert "2 never respond" in first
    assert re.findall(r"<figcaption>(.*?)<", first) == ["unit 0", "unit 2"]
    params["conv2d_1"]["b"] -= 1000
    net.parameters = params
    assert "4 never respond" in pl.features_sheet(net, X, tmp_path / "sheet.html").read_text(encoding="utf-8")


def test_examples_are_one_of_each_class_and_mistakes_are_marked(tmp_path):
    net = chain()
    y = net.predict(X).argmax(axis=1)
    y = np.where(np.arange(30) < 25, y, (y + 1) % 3)[::-1]
    page = pl.features_sheet(net, X[::-1], tmp_path / "sheet.html", y=y).read_text(encoding="utf-8")
    examples = re.findall(r"<figcaption>(.*?)<", page.split("<h2>conv2d_1</h2>")[0])
    assert len(examples) == len(np.unique(y))
    assert any("✗" in each for each in examples)


@pytest.mark.parametrize("make", [chain, branching])
def test_the_picture(make, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib draws the picture")
    pillow = pytest.importorskip("PIL.Image", reason="Pillow reads the PNG files")
    net = make()
    path = pl.features_sheet(net, X, tmp_path / "sheet.png", units=3)
    picture = np.asarray(pillow.open(path).convert("RGB")).astype(int)
    assert picture.shape[1] == 128 + 10 * 100 + 24
    colours = {tuple(each) for each in picture.reshape(-1, 3)[::7]}
    assert len(colours) > 100


def test_of_a_deep_network_some_layers_or_those_asked_for(tmp_path):
    deep = [pl.Conv2D(2, 3, "relu", padding="same") for _ in range(10)]
    net = pl.Sequential(*deep, pl.Flatten(), pl.Dense(3), input_shape=(2, 9, 8), loss="softmax_cross_entropy")
    page = pl.features_sheet(net, X, tmp_path / "sheet.html", units=1).read_text(encoding="utf-8")
    shown = re.findall("<h2>(.*?)</h2>", page)
    assert len(shown) == 1 + 8
    assert (shown[1], shown[-1]) == ("conv2d_1", "dense_1")
    assert "8 of 11 layers of units" in page
    chosen = {"layers": ["conv2d_2", "dense_1"], "classes": ["a", "b", "c"]}
    page = pl.features_sheet(net, X, tmp_path / "sheet.html", **chosen).read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Examples", "conv2d_2", "dense_1"]
    assert "<figcaption>b</figcaption>" in page.split("dense_1")[1]
    with pytest.raises(ParameterError, match="unknown convolution or dense layer 'conv'"):
        pl.features_sheet(net, X, tmp_path / "sheet.html", layers=["conv"])


def test_pellucid_show_features(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib draws the picture")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.toml").write_text(
        'layers = [{type = "conv2d", units = 3, kernel = 3, activation = "relu"}, {type = "flatten"}, {type = "dense"}]'
    )
    train = ["train", "digits", "--net", "net.toml", "--epochs", "1", "--quiet", "--no-plot", "--out", "run", "--json"]
    assert main(train) == 0
    capsys.readouterr()
    assert main(["show", "run", "--features", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [Path(name).name for name in document["files"]] == ["features.html", "features.png"]
    page = (tmp_path / "run" / "features.html").read_text(encoding="utf-8")
    assert "run: what its units respond to" in page
    assert page.count("<figcaption>3") >= 1
    assert main(["show", "run/model.pellucid", "--features", "--data", "digits", "--out", "own.html"]) == 0
    assert (tmp_path / "own.html").exists()
    assert main(["show", "run/model.pellucid", "--features"]) == 2
    assert main(["show", "run", "--out", "own.html"]) == 2


def test_a_class_is_what_the_loss_reads_as_one():
    net = zoo.find("lenet5-1998").build((1, 32, 32), 10)
    x = np.random.default_rng(0).normal(size=(12, *net.inputs["input"])).astype(np.float32)
    expected = net.predict(x).argmax(axis=1)
    np.testing.assert_array_equal(features.guessed(net, net.forward(np.moveaxis(x, 0, -1))[0]), expected)
    np.testing.assert_array_equal(pl.saliency(net, x), pl.saliency(net, x, expected))
