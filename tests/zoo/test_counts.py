"""Every count of the zoo, from the networks as they are built."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import zoo
from pellucid.trees import leaves
from pellucid.zoo.lenet5_1998 import C3, connections

COLOUR = (3, 224, 224)


def count(net) -> int:
    return sum(W.size for _, W in leaves(net.parameters))


def by_layer(net) -> dict[str, int]:
    return {name: sum(W.size for _, W in leaves(tree)) for name, tree in net.parameters.items()}


def maps(net) -> dict[str, tuple[int, ...]]:
    return {step.name: step.output_shape for step in net.steps}


def test_lenet5_of_1998():
    net = zoo.find("lenet5-1998").build((1, 28, 28), 10)
    expected = {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}
    assert by_layer(net) == expected
    assert count(net) == 60_000
    linked = {"C1": 122_304, "S2": 5_880, "C3": 151_600, "S4": 2_000, "C5": 48_120, "F6": 10_164, "output": 840}
    assert connections(net) == linked
    assert sum(connections(net).values()) == 340_908
    sizes = maps(net)
    assert [sizes[name] for name in ("C1", "S2", "C3", "S4", "C5", "F6", "output")] == [
        *[(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,), (10,)]
    ]


def test_c3_sees_what_the_table_says():
    rows = "012 123 234 345 450 501 0123 1234 2345 3450 4501 5012 0134 1245 0235 012345"
    assert [set(row) for row in C3] == [set(map(int, row)) for row in rows.split()]


def test_lenet5_modern():
    net = zoo.find("lenet5").build((1, 28, 28), 10)
    expected = {"C1": 156, "C3": 2416, "C5": 48120, "F6": 10164, "output": 850}
    assert by_layer(net) == expected
    assert count(net) == 61_706
    assert count(zoo.find("lenet5").build((1, 32, 32), 10)) == 61_706, "32×32 images are not padded"


def test_the_small_network_has_less_than_100_000():
    net = zoo.find("cnn").build((1, 28, 28), 10)
    assert count(net) == 72_666
    assert maps(net)["global_average_pool_1"] == (64,)


@pytest.mark.parametrize("size", [227, 224])
def test_alexnet(size):
    net = zoo.find("alexnet").build((3, size, size), 1000, initializer="zeros")
    assert by_layer(net) == {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }
    assert count(net) == 60_965_224
    sizes = maps(net)
    assert [sizes[f"conv{i}"] for i in range(1, 6)] == [
        *[(96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    ]
    assert sizes["flatten_1"] == (9216,)


def test_alexnet_on_one_device():
    assert count(zoo.find("alexnet").build((3, 227, 227), 1000, groups=1, initializer="zeros")) == 62_378_344


@pytest.mark.parametrize(
    ("configuration", "parameters", "layers"),
    [
        ("a", 132_863_336, 11),
        ("a-lrn", 132_863_336, 11),
        ("b", 133_047_848, 13),
        ("c", 133_638_952, 16),
        ("d", 138_357_544, 16),
        ("e", 143_667_240, 19),
    ],
)
def test_vgg(configuration, parameters, layers):
    net = zoo.find(f"vgg-{configuration}").build(COLOUR, 1000, initializer="zeros")
    assert count(net) == parameters
    assert len(net.parameters) == layers
    assert [shape for name, shape in maps(net).items() if name.startswith("max_pool")] == [
        *[(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]
    ]
    kernels = {tree["W"].shape[-1] for name, tree in net.parameters.items() if name.startswith("conv")}
    assert kernels == ({1, 3} if configuration == "c" else {3})
    assert ("local_response_norm_1" in maps(net)) == (configuration == "a-lrn")


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 269_722),
        ({"shortcut": "projection"}, 272_474),
        ({"depth": 32}, 464_154),
        ({"depth": 56}, 853_018),
        ({"pre_activation": True}, 269_722),
    ],
    ids=str,
)
def test_residual_networks(options, parameters):
    """0.27, 0.46 and 0.85 million in the paper's table 6."""
    net = zoo.find("resnet").build((3, 32, 32), 10, **options)
    assert count(net) == parameters
    weighted = [W for name, W in leaves(net.parameters) if name.endswith("W")]
    assert len(weighted) == options.get("depth", 20) + 2 * (options.get("shortcut") == "projection")


@pytest.mark.parametrize("name", ["vgg-small", "alexnet-small", "cnn", "resnet", "resnet-v2"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)], ids=str)
def test_the_scaled_forms_take_small_images(name, shape):
    net = zoo.find(name).build(shape, 10, initializer="zeros") if "small" in name else zoo.find(name).build(shape, 10)
    A, _ = net.forward(np.ones((*shape, 2), np.float32))
    assert A.shape == (10, 2)
    assert np.isfinite(A).all()
