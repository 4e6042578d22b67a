"""The pictures of the documentation, from real runs: ``python docs/images/make.py``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import pellucid as pl
from pellucid.inspect.receptive_field import overlay_png
from pellucid.lab import find
from pellucid.lab.filters import photograph

HERE = Path(__file__).parent


def filters(folder: Path) -> Path:
    return find("filters").run(folder).picture


def receptive_field(folder: Path) -> Path:
    """The first four blocks of VGG-16; its numbers of channels do not matter here."""
    net = pl.Sequential(
        *(each for n in (2, 2, 3, 3) for each in (*(pl.Conv2D(1, 3, padding=1) for _ in range(n)), pl.MaxPool2D(2))),
        input_shape=(1, 224, 224),
    )
    return overlay_png(net, "conv2d_10", (0, 9, 4), photograph()[100:324, 170:394], folder / "field.png")


with tempfile.TemporaryDirectory() as folder:
    run = Path(folder) / "digits"
    subprocess.run([sys.executable, "-m", "pellucid", "train", "digits", "--out", run, "--quiet"], check=True)
    for name in ("curves.png", "confusion.png"):
        shutil.copy(run / name, HERE / f"digits-{name}")

    for name, make in {"filters": filters, "receptive-field": receptive_field}.items():
        with Image.open(make(Path(folder))) as picture:
            picture.thumbnail((1300, 700))
            picture.convert("RGB").quantize(256, kmeans=2).save(HERE / f"{name}.png", optimize=True)
