"""The pictures of augmentation and of features, from real data: ``python docs/images/make_seeing.py``.

The photographs are scikit-learn's samples, china.jpg and flower.jpg (both CC BY 2.0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image

import pellucid as pl
from pellucid.data.prepared import Prepared
from pellucid.training.augment import augmentations
from pellucid.training.batches import Batch

HERE = Path(__file__).parent
SIDE, ACROSS = 64, 9


def augmentation() -> None:
    """A photograph changed by each augmentation; mixup mixes it with another."""
    crops = [load_sample_image("china.jpg")[150:366, 120:336], load_sample_image("flower.jpg")[60:276, 230:446]]
    photos = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BOX)) for each in crops]
    X = np.stack([np.moveaxis(each, 2, 0) for each in photos], -1).astype(np.float32) / 255 - 0.5
    shown = [
        *("shift(10)", "random_crop(10)", "horizontal_flip", "rotate(20)", "scale(0.3)", "elastic(90, 6)"),
        *("color_jitter(0.2, 0.5, 0.8)", "pca_jitter(0.5)", "cutout(28)", "mixup(1.0)"),
    ]
    net = pl.Sequential(pl.Flatten(), pl.Dense(2), input_shape=X.shape[:3], loss="softmax_cross_entropy")
    gap, left = 6, 214
    canvas = np.full((len(shown) * (SIDE + gap), left + (ACROSS + 1) * (SIDE + gap) + gap, 3), 255, np.uint8)
    for row, name in enumerate(shown):
        each = augmentations.get(name)
        images = X[..., np.arange(ACROSS) % 2 * name.startswith("mixup")]
        batch = Batch({"input": images}, {"output": np.arange(ACROSS) % 2}, None)
        made = each.batch(lambda: np.random.default_rng(4), batch, net).inputs["input"]
        for column, image in enumerate([X[..., 0], *np.moveaxis(made, -1, 0)]):
            top, start = row * (SIDE + gap), left + column * (SIDE + gap) + gap * (column > 0)
            pixels = ((np.moveaxis(image, 0, -1) + 0.5).clip(0, 1) * 255).round().astype(np.uint8)
            canvas[top : top + SIDE, start : start + SIDE] = pixels
    height, width, _ = canvas.shape
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(canvas, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    axes.axis("off")
    for row, name in enumerate(shown):
        axes.text(2, row * (SIDE + gap) + SIDE / 2, name, va="center", fontsize=8, family="monospace")
    figure.savefig(HERE / "augmentation.png")
    smaller(HERE / "augmentation.png", 128)


def smaller(path: Path, colours: int) -> None:
    """The picture with so many colours."""
    Image.open(path).convert("RGB").quantize(colours).save(path, optimize=True)


def features() -> None:
    """What the units of a small network respond to after a minute or two on photographs of clothes."""
    clothes = pl.data.load("fashion-mnist")
    rows = np.random.default_rng(0).permutation(60_000)[:31_000]
    prepare = pl.data.Preprocessor.fit(clothes, rows[:30_000])
    (x, y), (held_out, labels) = (Prepared(clothes, prepare, each).arrays() for each in np.split(rows, [30_000]))
    net = pl.Sequential(
        *(pl.Conv2D(12, 5, "relu", padding="same"), pl.MaxPool2D(2)),
        *(pl.Conv2D(24, 5, "relu", padding="same"), pl.MaxPool2D(2)),
        *(pl.Conv2D(32, 3, "relu", padding="same"), pl.Flatten(), pl.Dropout(0.3), pl.Dense(10)),
        input_shape=prepare.input_shape,
        loss="softmax_cross_entropy",
        regularizer="l2(2e-3)",
        seed=0,
    )
    options = {"optimizer": "adam(one_cycle(5e-3))", "batch_size": 64, "augment": ["shift(2)", "horizontal_flip"]}
    net.fit(x, y, epochs=8, validation=(held_out, labels), **options)
    path = pl.features_sheet(net, held_out, HERE / "features.png", y=labels, classes=prepare.classes)
    smaller(path, 192)


if __name__ == "__main__":
    augmentation()
    features()
