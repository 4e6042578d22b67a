"""Every padding, stride, dilation and group combination that cannot be is refused, with the sizes along the path."""

from __future__ import annotations

import pytest

import pellucid as pl
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers import layers
from pellucid.registry import config


def refused(error: type[Exception], *parts: str):
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


def test_a_kernel_larger_than_what_is_left_names_layer_and_path():
    with refused(
        ShapeError, r"layer 3 \(conv2d_2\)", "larger than the image", r"→ max_pool2d_1 \(6, 4, 4\)", "5 pixels"
    ):
        pl.Sequential(pl.Conv2D(6, 5), pl.MaxPool2D(2), pl.Conv2D(6, 5), input_shape=(1, 12, 12))


def test_dilation_and_padding_are_part_of_the_message():
    with refused(ShapeError, r"9 pixels or more \(kernel 5, dilation 2\)", r"6 \+ padding 1 \+ 1"):
        pl.Conv2D(2, 5, dilation=2, padding=1).output_shape((1, 6, 6))


def test_channels_that_do_not_divide():
    with refused(ShapeError, "do not divide into groups", "multiple of 2", r"\(3, 8, 8\)"):
        pl.Conv2D(4, 3, groups=2).output_shape((3, 8, 8))
    with refused(ParameterError, "units do not divide", "multiple of 3"):
        pl.Conv2D(4, 3, groups=3)


def test_an_image_without_channels_says_how_to_add_the_axis():
    with refused(ShapeError, r"takes \(channels, height, width\)", r"add the channel axis: \(1, 28, 28\)"):
        pl.Sequential(pl.Conv2D(6, 5), input_shape=(28, 28))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: pl.Conv2D(0, 3), "units must be a positive integer"),
        (lambda: pl.Conv2D(2, 0), "kernel is a positive integer"),
        (lambda: pl.Conv2D(2, (3, 3, 3)), "kernel is a positive integer"),
        (lambda: pl.Conv2D(2, 3, stride=0), "stride is a positive integer"),
        (lambda: pl.Conv2D(2, 3, dilation=1.5), "dilation is a positive integer"),
        (lambda: pl.Conv2D(2, 3, padding=-1), "cannot be used as padding"),
        (lambda: pl.Conv2D(2, 3, padding="causal"), "cannot be used as padding"),
        (lambda: pl.Conv2D(2, 3, padding=((1, 2, 3), 1)), "cannot be used as padding"),
        (lambda: pl.Conv2D(2, 3, connections=((0,),)), "2 rows of different channels"),
        (lambda: pl.Conv2D(2, 3, connections=((0, 0), (1,))), "2 rows of different channels"),
        (lambda: pl.Conv2D(2, 3, groups=2, connections=((0,), (1,))), "exclude each other"),
        (lambda: pl.MaxPool2D(2, padding=2), "see padding alone"),
        (lambda: pl.MaxPool2D(0), "size is a positive integer"),
        (lambda: pl.LpPool2D(2, p=0.5), r"\[1, inf\)"),
        (lambda: pl.LocalResponseNorm(k=0), r"\(0, inf\)"),
        (lambda: pl.LocalResponseNorm(groups=0), r"\[1, inf\)"),
        (lambda: pl.ZeroPad2D("same"), "takes numbers of pixels"),
        (lambda: pl.Upsample2D(0), "scale is a positive integer"),
    ],
)
def test_arguments_that_cannot_be(make, part):
    with refused(ParameterError, part):
        make()


def test_what_leaves_nothing_of_an_image():
    with refused(ShapeError, "multiple of 2 channels"):
        pl.LocalResponseNorm(groups=2).output_shape((5, 2, 2))
    with refused(ShapeError, "nothing is left"):
        pl.Crop2D(2).output_shape((1, 4, 4))
    with refused(ShapeError, "cuts everything off"):
        pl.ConvTranspose2D(1, 1, padding=2).output_shape((1, 3, 3))
    with refused(ShapeError, "a channel that is not there", "3 or more"):
        pl.Conv2D(1, 3, connections=((0, 2),)).output_shape((2, 5, 5))


def test_an_input_of_the_wrong_channels_is_refused_before_arithmetic(rng):
    layer = pl.Conv2D(2, 3)
    ops = pl.engines.get("numpy")
    params = layer.init(rng, (3, 5, 5))
    with refused(ShapeError, "does not fit the weights", r"A_prev \(3, height, width, m\)", "channels come first"):
        layer.forward(ops, params, rng.normal(size=(5, 5, 3, 2)))


@pytest.mark.parametrize(
    ("layer", "written"),
    [
        (pl.Conv2D(6, 5, padding=2), {"type": "Conv2D", "units": 6, "kernel": [5, 5], "padding": 2}),
        (pl.Conv2D(6, (5, 3), stride=(2, 1)), {"type": "Conv2D", "units": 6, "kernel": [5, 3], "stride": [2, 1]}),
        (pl.MaxPool2D(2), {"type": "MaxPool2D", "size": 2}),
        (pl.MaxPool2D((3, 2), stride=1), {"type": "MaxPool2D", "size": [3, 2], "stride": 1}),
        (pl.Crop2D(((1, 2), 0)), {"type": "Crop2D", "border": [[1, 2], 0]}),
        (pl.Upsample2D(3), {"type": "Upsample2D", "scale": 3}),
    ],
    ids=repr,
)
def test_a_layer_is_described_as_it_was_written(layer, written):
    assert config(layer) == written
    again = layers.get(written)
    assert repr(again) == repr(layer)
    assert again.output_shape((2, 12, 10)) == layer.output_shape((2, 12, 10))
