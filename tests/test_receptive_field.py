"""The field a unit is said to see against the pixels whose gradient is not zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import pellucid as pl
from pellucid.errors import ParameterError, ShapeError
from pellucid.inspect.receptive_field import Link, overlay_png, reads, receptive_field


def dependence(net: pl.Sequential | pl.Graph, output: str | None, unit: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Which values of each input change the unit: a gradient of positive weights and inputs never cancels to zero."""
    net.parameters = {
        layer: {name: np.full(value.shape, 0.5) for name, value in own.items()} for layer, own in net.parameters.items()
    }
    rng = np.random.default_rng(0)
    X = {name: rng.uniform(1.0, 2.0, (*shape, 1)) for name, shape in net.inputs.items()}
    _, caches = net.forward(X if len(X) > 1 else X["input"])
    dA = {name: np.zeros((*shape, 1)) for name, shape in net.outputs.items()}
    name = output or next(iter(dA))
    dA[name][(*unit, 0)] = 1.0
    dX, _ = net.backward(caches, dA if len(dA) > 1 else dA[name])
    dX = dX if isinstance(dX, dict) else {"input": dX}
    return {name: d[..., 0] != 0 for name, d in dX.items()}


def hull(pixels):
    if not pixels.any():
        return None
    seen = [np.flatnonzero(pixels.any(axis=tuple(set(range(pixels.ndim)) - {a}))) for a in range(1, pixels.ndim)]
    return tuple((each[0], each[-1] + 1) for each in seen)


small = st.integers(1, 3)
pads = st.tuples(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.tuples(st.integers(0, 2), st.integers(0, 2)))
paddings = st.one_of(st.sampled_from(["valid", "same"]), pads)


@st.composite
def slid_layers(draw, channels: int):
    """A layer with a geometry, of everything there is, that takes so many channels."""
    both = st.tuples(small, small)
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
    conv = {"stride": draw(both), "dilation": draw(both), "groups": groups, "padding": draw(paddings)}
    connections = [sorted(draw(st.sets(st.integers(0, channels - 1), min_size=1))) for _ in range(4)]
    pool = {"size": draw(both), "stride": draw(both), "ceil": draw(st.booleans())}
    return draw(
        st.sampled_from(
            [
                pl.Conv2D(4, draw(both), draw(st.sampled_from(["identity", "relu"])), **conv),
                pl.Conv2D(4, draw(both), stride=draw(both), connections=connections),
                pl.ConvTranspose2D(4, draw(both), **conv),
                pl.AveragePool2D(**pool, padding=draw(st.sampled_from(["valid", "same"]))),
                pl.LpPool2D(**pool),
                pl.Subsample2D(**pool),
                pl.ZeroPad2D(draw(pads)),
                pl.Crop2D(draw(pads)),
                pl.Upsample2D(draw(both)),
                pl.LocalResponseNorm(draw(small), alpha=0.1),
                pl.BatchNorm(),
                pl.PReLU(),
                pl.layers.Shortcut2D(channels + 1, draw(small)),
            ]
        )
    )


GEOMETRIES = {
    "strided": pl.Conv2D(4, (2, 3), stride=(3, 2), padding=((1, 0), (2, 1))),
    "dilated": pl.Conv2D(2, 2, dilation=(2, 3), padding=2),
    "two groups": pl.Conv2D(4, 2, groups=2),
    "depthwise": pl.Conv2D(8, 2, "relu", groups=4),
    "connected by a table": pl.Conv2D(3, 2, connections=[(0, 1), (3,), (0, 2, 3)]),
    "transposed": pl.ConvTranspose2D(4, 3, stride=2, padding="same", groups=2),
    "transposed, with gaps": pl.ConvTranspose2D(4, 2, stride=3, dilation=2, padding=1, groups=4),
    "overlapping pools": pl.AveragePool2D(3, 2, padding="same"),
    "an incomplete last pool": pl.LpPool2D((2, 3), (3, 2), ceil=True),
    "subsampled": pl.Subsample2D(2),
    "padded": pl.ZeroPad2D(((1, 0), (0, 2))),
    "cropped": pl.Crop2D(((1, 0), (0, 2))),
    "repeated": pl.Upsample2D((2, 3)),
    "even neighbourhood": pl.LocalResponseNorm(2, alpha=0.1),
    "odd neighbourhood": pl.LocalResponseNorm(3, alpha=0.1),
    "shortcut": pl.layers.Shortcut2D(6, 2),
    "flattened": pl.Flatten(),
    "pooled away": pl.GlobalAveragePool(),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_unit_of_every_layer(name):
    """One example for each unit of the output, each with the gradient of its own unit."""
    net = pl.Sequential(GEOMETRIES[name], input_shape=(4, 5, 6), dtype="float64", engine="numpy")
    net.parameters = {
        layer: {each: np.full(value.shape, 0.5) for each, value in own.items()} for layer, own in net.parameters.items()
    }
    shape = net.outputs["output"]
    units = int(np.prod(shape))
    X = np.random.default_rng(0).uniform(1, 2, (4, 5, 6, 1)) * np.ones(units)
    dX, _ = net.backward(net.forward(X)[1], np.eye(units).reshape(*shape, units))
    for number, unit in enumerate(np.ndindex(shape)):
        field = receptive_field(net, net.steps[0].label, unit)
        np.testing.assert_array_equal(field.pixels, dX[..., number] != 0, err_msg=str(unit))
        assert field.region == hull(field.pixels)
        if field.region is not None:
            spans = [stop - first for first, stop in field.region]
            assert all(span <= size for span, size in zip(spans, field.size, strict=True))


def fits(layer, shape):
    try:
        made = layer.output_shape(shape)
    except ShapeError:
        return None
    return made if max(made[1:]) <= 24 else None


def some_unit(draw, shape):
    return tuple(draw(st.integers(0, n - 1)) for n in shape)


@given(st.data())
def test_a_random_chain_sees_the_pixels_with_a_gradient(data):
    shape = image = (
        data.draw(st.sampled_from([1, 2, 4])),
        data.draw(st.integers(3, 14)),
        data.draw(st.integers(3, 14)),
    )
    chain = []
    for _ in range(data.draw(st.integers(1, 5))):
        layer = data.draw(slid_layers(shape[0]))
        made = fits(layer, shape)
        if made:
            chain.append(layer)
            shape = made
    assume(chain)
    net = pl.Sequential(*chain, input_shape=image, dtype="float64", engine="numpy")
    unit = some_unit(data.draw, shape)
    field = receptive_field(net, net.steps[-1].label, unit)
    seen = dependence(net, None, unit)["input"]
    np.testing.assert_array_equal(field.pixels, seen)
    assert field.region == hull(seen)


@given(st.data())
def test_a_random_graph_sees_along_every_path(data):
    image = (2, data.draw(st.integers(6, 14)), data.draw(st.integers(6, 14)))
    x = pl.Input(image)
    nodes = [x, pl.Conv2D(4, 3, padding="same")(x)]
    for _ in range(data.draw(st.integers(2, 7))):
        node = data.draw(st.sampled_from(nodes))
        others = [each for each in nodes if each.shape == node.shape]
        join = data.draw(st.sampled_from(["layer", "layer", "add", "concat", "split"]))
        if join == "layer":
            layer = data.draw(slid_layers(node.shape[0]))
            if fits(layer, node.shape):
                nodes.append(layer(node))
        elif join == "split" and node.shape[0] > 1:
            nodes += pl.Split([1, node.shape[0] - 1])(node)
        elif len(others) > 1:
            nodes.append((pl.Add() if join == "add" else pl.Concat())(others[0], others[-1], node))
    end = nodes[-1]
    net = pl.Graph(inputs=x, outputs=end, dtype="float64", engine="numpy")
    unit = some_unit(data.draw, end.shape)
    seen = dependence(net, None, unit)["input"]
    field = receptive_field(net, net.ends["output"], unit)
    np.testing.assert_array_equal(field.pixels, seen)
    assert field.region == hull(seen)


@given(st.data())
def test_the_closed_form_says_where_each_unit_inside_the_image_looks(data):
    """Where no padding is in sight, first and last pixel are start + i · jump and size further."""
    image = shape = (1, data.draw(st.integers(9, 30)), data.draw(st.integers(9, 30)))
    chain = []
    for _ in range(data.draw(st.integers(1, 4))):
        both = st.tuples(small, small)
        layer = data.draw(
            st.sampled_from(
                [
                    pl.Conv2D(
                        1,
                        data.draw(both),
                        stride=data.draw(both),
                        dilation=data.draw(both),
                        padding=data.draw(paddings),
                    ),
                    pl.AveragePool2D(data.draw(both), data.draw(both)),
                    pl.ZeroPad2D(data.draw(pads)),
                ]
            )
        )
        if fits(layer, shape):
            chain.append(layer)
            shape = layer.output_shape(shape)
    assume(chain)
    net = pl.Sequential(*chain, input_shape=image, dtype="float64", engine="numpy")
    closed = receptive_field(net, net.steps[-1].label)
    unit = some_unit(data.draw, shape)
    seen = hull(dependence(net, None, unit)["input"])
    first = [start + i * jump for start, i, jump in zip(closed.start, unit[1:], closed.jump, strict=True)]
    own = receptive_field(net, net.steps[-1].label, unit)
    nominal = [(a, a + size) for a, size in zip(first, closed.size, strict=True)]
    # what lies outside the image is said to lie in the padding
    assert own.padding == tuple((max(0, -a), max(0, b - n)) for (a, b), n in zip(nominal, image[1:], strict=True))
    if all(a >= 0 and b <= n for (a, b), n in zip(nominal, image[1:], strict=True)):
        assert seen == tuple(nominal)
        middle = [c + i * jump for c, i, jump in zip(closed.centre, unit[1:], closed.jump, strict=True)]
        assert middle == [(a + b - 1) / 2 for a, b in seen]


@given(st.data())
def test_a_signal_of_one_axis(data):
    T = data.draw(st.integers(5, 30))
    chain, shape = [], (2, T)
    for _ in range(data.draw(st.integers(1, 4))):
        padding = data.draw(st.sampled_from(["valid", "same", "causal"]))
        kernel, stride, dilation = data.draw(small), data.draw(small), data.draw(small)
        conv = pl.Conv1D(2, kernel, stride=stride, dilation=dilation, padding=padding)
        layer = data.draw(st.sampled_from([conv, pl.AveragePool1D(kernel, stride)]))
        try:
            shape = layer.output_shape(shape)
        except ShapeError:
            continue
        chain.append(layer)
    assume(chain)
    net = pl.Sequential(*chain, input_shape=(2, T), dtype="float64", engine="numpy")
    unit = some_unit(data.draw, shape)
    np.testing.assert_array_equal(
        receptive_field(net, net.steps[-1].label, unit).pixels, dependence(net, None, unit)["input"]
    )


def test_causal_convolutions_see_no_later_sample():
    chain = [pl.Conv1D(2, 2, dilation=2**i, padding="causal") for i in range(4)]
    net = pl.Sequential(*chain, input_shape=(1, 40))
    field = receptive_field(net, "conv1d_4", (0, 30))
    assert (field.size, field.jump, field.start) == ((16,), (1,), (-15,))
    assert (field.region, field.padding) == (((15, 31),), ((0, 0),))
    assert receptive_field(net, "conv1d_4", (1, 3)).padding == ((12, 0),)


@pytest.mark.parametrize("pool", [pl.MaxPool2D, pl.StochasticPool2D], ids=["max", "stochastic"])
def test_a_maximum_sees_its_window_though_one_pixel_gets_the_gradient(pool, rng):
    net = pl.Sequential(
        pl.Conv2D(1, 3, padding=1),
        pool(3, 2),
        pl.Conv2D(1, 2),
        input_shape=(1, 12, 12),
        dtype="float64",
        engine="numpy",
    )
    net.parameters = {name: {"W": np.ones_like(p["W"]), "b": p["b"]} for name, p in net.parameters.items()}
    field = receptive_field(net, "conv2d_2", (0, 1, 2))
    X = rng.uniform(1, 2, (1, 12, 12, 400))
    _, caches = net.forward(X, train=True)
    dA = np.zeros((1, *net.outputs["output"][1:], 400))
    dA[0, 1, 2] = 1
    dX, _ = net.backward(caches, dA)
    seen = (dX != 0).any(axis=-1)
    assert not (seen & ~field.pixels).any()  # never a pixel outside, on any of 400 images
    assert hull(seen) == field.region == ((1, 8), (3, 10))  # and on some image each side of it


def test_maxout_sees_all_its_pieces(rng):
    """Each of four groups sees a channel of its own; a unit is the larger of two neighbours."""
    net = pl.Sequential(pl.Conv2D(4, 2, "maxout(2)", groups=4), input_shape=(4, 5, 6), dtype="float64", engine="numpy")
    dA = np.zeros((2, 4, 5, 200))
    dA[1, 2, 3] = 1
    dX, _ = net.backward(net.forward(rng.normal(size=(4, 5, 6, 200)))[1], dA)
    seen = (dX != 0).any(axis=-1)
    np.testing.assert_array_equal(receptive_field(net, "conv2d_1", (1, 2, 3)).pixels, seen)
    assert list(np.flatnonzero(seen.any(axis=(1, 2)))) == [2, 3]


def test_published_numbers():
    """VGG-16, of which others have worked it out: conv5_3 sees 196 pixels, pool5 212 at jump 32, fc6 404."""
    widths = [2, 2, 3, 3, 3]
    chain = [layer for n in widths for layer in (*(pl.Conv2D(1, 3, padding=1) for _ in range(n)), pl.MaxPool2D(2))]
    net = pl.Sequential(*chain, pl.Conv2D(1, 7), input_shape=(3, 224, 224))
    conv5_3, pool5 = receptive_field(net, "conv2d_13"), receptive_field(net, "max_pool2d_5")
    assert (conv5_3.size, conv5_3.jump) == ((196, 196), (16, 16))
    assert (pool5.size, pool5.jump, pool5.start) == ((212, 212), (32, 32), (-90, -90))
    assert receptive_field(net, "conv2d_14").size == (404, 404)


def test_alexnet_before_its_vectors():
    """195 pixels, jump 32."""
    net = pl.Sequential(
        pl.Conv2D(1, 11, stride=4), pl.MaxPool2D(3, 2), pl.Conv2D(1, 5, padding=2), pl.MaxPool2D(3, 2),
        *(pl.Conv2D(1, 3, padding=1) for _ in range(3)), pl.MaxPool2D(3, 2), input_shape=(3, 227, 227),
    )  # fmt: skip
    field = receptive_field(net, "max_pool2d_3")
    assert (field.size, field.jump) == ((195, 195), (32, 32))


def lenet():
    return pl.Sequential(
        pl.Conv2D(6, 5, "tanh", padding=2), pl.AveragePool2D(2), pl.Conv2D(16, 5, "tanh"), pl.AveragePool2D(2),
        pl.Flatten(), pl.Dense(10, "softmax"), input_shape=(1, 28, 28),
    )  # fmt: skip


def test_vectors_see_everything_and_one_of_flatten_its_own():
    net = lenet()
    field = receptive_field(net, "dense_1", 3)
    assert (field.size, field.jump) == ((32, 32), (0, 0))  # the image with its padding
    assert (field.region, field.padding) == (((0, 28), (0, 28)), ((2, 2), (2, 2)))
    of_flat = receptive_field(net, "flatten_1", 16 * 25 - 1)
    np.testing.assert_array_equal(of_flat.pixels, receptive_field(net, "average_pool2d_2", (15, 4, 4)).pixels)
    whole = receptive_field(
        pl.Sequential(pl.Conv2D(2, 3), pl.GlobalAveragePool(), input_shape=(1, 9, 7)), "global_average_pool_1", 1
    )
    assert (whole.size, whole.region) == ((9, 7), ((0, 9), (0, 7)))


@pytest.mark.parametrize(
    "layer",
    [
        pl.Softmax(),
        pl.LayerNorm(),
        pl.LayerNorm(2),
        pl.Softmax(axis=1),
        pl.Flatten(),
        pl.Dropout(0.5),
        pl.layers.Rescale(2.0),
    ],
    ids=repr,
)
def test_what_mixes_channels_or_places(layer, rng):
    """Signs differ here: weights at random, and gradients that cancel by chance alone."""
    net = pl.Sequential(pl.Conv2D(3, 2), layer, input_shape=(2, 5, 6), dtype="float64", engine="numpy")
    unit = tuple(n - 2 for n in net.outputs["output"])
    _, caches = net.forward(rng.normal(size=(2, 5, 6, 1)))
    dA = np.zeros((*net.outputs["output"], 1))
    dA[(*unit, 0)] = 1
    dX, _ = net.backward(caches, dA)
    field = receptive_field(net, net.steps[-1].label, unit)
    np.testing.assert_array_equal(field.pixels, np.abs(dX[..., 0]) > 1e-14)


def test_after_upsampling_jumps_are_fractions():
    net = pl.Sequential(pl.Upsample2D(2), pl.Conv2D(1, 3, padding=1), input_shape=(1, 8, 8), dtype="float64")
    field = receptive_field(net, "conv2d_1")
    assert (field.jump, field.size, field.centre) == ((0.5, 0.5), (2, 2), (-0.25, -0.25))
    sizes = [hull(dependence(net, None, (0, i, 8))["input"])[0] for i in (6, 7)]
    assert sizes == [(2, 4), (3, 5)]


def test_a_hidden_layer_sees_what_it_sees_at_the_end_of_a_shorter_chain():
    net = lenet()
    short = pl.Sequential(*lenet().layers[:3], input_shape=(1, 28, 28))
    ours, theirs = receptive_field(net, net.layers[2], (5, 9, 0)), receptive_field(short, "conv2d_2", (5, 9, 0))
    assert (ours.size, ours.jump, ours.start, ours.region) == (theirs.size, theirs.jump, theirs.start, theirs.region)
    assert ours.region == ((16, 28), (0, 12))
    assert ours.padding == ((0, 2), (2, 0))


def test_a_unit_that_sees_nothing():
    net = pl.Sequential(pl.ConvTranspose2D(1, 1, stride=3), input_shape=(1, 4, 4))
    field = receptive_field(net, "conv_transpose2d_1", (0, 1, 1))
    assert field.region is None
    assert not field.pixels.any()
    assert "sees nothing" in str(field)
    assert receptive_field(net, "conv_transpose2d_1", (0, 3, 6)).region == ((1, 2), (2, 3))
    # cut down to what lies between the places that see anything, no unit sees anything
    cut = pl.Sequential(*net.layers, pl.Crop2D(((1, 8), (1, 8))), input_shape=(1, 4, 4))
    assert receptive_field(cut, "crop2d_1").size == (0, 0)
    assert receptive_field(cut, "crop2d_1", (0, 0, 0)).region is None


def two_images():
    a, b, v = pl.Input((1, 8, 8)), pl.Input((1, 12, 12)), pl.Input(3)
    left, right = pl.Conv2D(2, 3, name="left")(a), pl.Conv2D(2, 5, stride=2, name="right")(b)
    joined = pl.Concat(name="both")(pl.Flatten()(left), pl.Flatten()(right), pl.Dense(2, name="numbers")(v))
    return pl.Graph(inputs={"a": a, "b": b, "v": v}, outputs=pl.Dense(2, name="end")(joined))


def test_several_inputs():
    net = two_images()
    assert receptive_field(net, "left").input == "a"
    assert receptive_field(net, "right").size == (5, 5)
    assert receptive_field(net, "end", input="b").size == (11, 11)  # the last column is in no window
    with pytest.raises(ParameterError, match=r"end sees several images[^$]*input='a' or 'b'"):
        receptive_field(net, "end")
    with pytest.raises(ParameterError, match="numbers sees no image"):
        receptive_field(net, "numbers")
    with pytest.raises(ParameterError, match="end sees several images"):
        receptive_field(net, "end", input="v")


def test_paths_of_different_strides():
    x = pl.Input((1, 8, 8))
    net = pl.Graph(inputs=x, outputs=pl.Add(name="sum")(pl.Conv2D(1, 2, stride=2)(x), pl.Crop2D(2)(x)), dtype="float64")
    field = receptive_field(net, "sum")
    assert field.jump == (None, None)
    assert field.size == (3, 3)  # unit 0 sees 0 and 1 along one path, 2 along the other; unit 3 sees 6, 7 and 5
    for i in range(4):
        own = receptive_field(net, "sum", (0, i, 0))
        assert own.region == hull(dependence(net, None, (0, i, 0))["input"])
    assert "varying" in str(field)


class Unknown(pl.Layer):
    def output_shape(self, input_shape):
        return input_shape

    def init(self, rng, input_shape, dtype=np.float32):
        return {}

    def forward(self, ops, params, A_prev, *, mode=None):
        return A_prev, None

    def backward(self, ops, params, cache, dA, *, input_gradient=True):
        return dA, {}


def test_what_has_no_geometry_says_so():
    net = pl.Sequential(pl.Conv2D(1, 3), Unknown(), pl.Conv2D(1, 3), input_shape=(1, 9, 9))
    with pytest.raises(ParameterError, match=r"Unknown: no receptive field goes through it[^$]*reads.register"):
        receptive_field(net, "conv2d_2")
    assert receptive_field(net, "conv2d_1").size == (3, 3)  # it lies behind
    moved = pl.Sequential(pl.Reshape((1, 4, 16)), pl.Conv2D(1, 2), input_shape=(1, 8, 8))
    with pytest.raises(ParameterError, match="moves pixels"):
        receptive_field(moved, "conv2d_1")
    x = pl.Input((1, 8, 8))
    stacked = pl.Graph(inputs=x, outputs=pl.Concat(axis=1)(x, pl.ReLU()(x)))
    with pytest.raises(ParameterError, match=r"concat_1: no receptive field.*another axis"):
        receptive_field(stacked, "concat_1")
    with pytest.raises(ParameterError, match=r"unknown layer 'conv2d_3'[^$]*conv2d_2"):
        receptive_field(net, "conv2d_3")
    for unit in [(0, 7, 0), (0, 0), 0, (0, -1, 0), (0, 0.5, 0)]:
        with pytest.raises(ShapeError, match=r"conv2d_1: there is no such unit\n.*\(1, 7, 7\)"):
            receptive_field(net, "conv2d_1", unit)


def test_a_layer_of_ones_own_can_say_what_it_reads():
    class Known(Unknown):
        pass

    @reads.register(Known)
    def _(layer, shape):
        return (Link(shape),)

    net = pl.Sequential(pl.Conv2D(1, 3), Known(), pl.Conv2D(1, 3), input_shape=(1, 9, 9))
    assert receptive_field(net, "conv2d_2").size == (5, 5)


def test_it_says_what_it_found():
    assert str(receptive_field(lenet(), "conv2d_2", (0, 0, 9))) == (
        "conv2d_2 sees 14 × 14 pixels of input (1, 28, 28)\n"
        "  jump 2 × 2, first at (-2, -2)\n"
        "  unit (0, 0, 9): rows 0 to 11, columns 16 to 27; in the padding 2 before and 0 after, 0 before and 2 after"
    )


def test_the_overlay_is_bright_where_the_unit_looks(tmp_path):
    from PIL import Image

    net = pl.Sequential(pl.Conv2D(1, 5, stride=3), input_shape=(1, 20, 20))
    image = np.full((1, 20, 20), 0.5)
    image[0, 0, 0], image[0, 19, 0] = 0.0, 1.0
    path = overlay_png(net, "conv2d_1", (0, 2, 4), image, tmp_path / "field.png")
    pixels = np.asarray(Image.open(path).convert("L"), float)
    # orange is the outline; inside it the image is grey as it was, outside it is darkened
    grey = (pixels > 120) & (pixels < 135)
    rows, columns = np.flatnonzero(grey.sum(1) > 50), np.flatnonzero(grey.sum(0) > 50)
    assert abs((rows[-1] - rows[0]) - (columns[-1] - columns[0])) <= 2  # a square of 5 by 5 pixels
    assert grey.sum() > 0.95 * (rows[-1] - rows[0]) * (columns[-1] - columns[0])
    assert columns.mean() > rows.mean()  # columns 12 to 16, rows 6 to 10
    with pytest.raises(ShapeError, match=r"not an image of the input's size\n.*\(1, 20, 20\)\n.*\(20, 21\)"):
        overlay_png(net, "conv2d_1", (0, 2, 4), np.ones((20, 21)), tmp_path / "field.png")
    with pytest.raises(ParameterError, match=r"unknown picture format '\.jpg'"):
        overlay_png(net, "conv2d_1", (0, 2, 4), image, tmp_path / "field.jpg")
