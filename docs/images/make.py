"""The pictures of the documentation, from real runs.

python docs/images/make.py                      all of them; some of the lab's experiments take long
python docs/images/make.py digits parity        some: digits, receptive-field, or a name of `pellucid lab list`
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import pellucid as pl
from pellucid.errors import unknown
from pellucid.inspect.receptive_field import overlay_png
from pellucid.lab import experiments, find
from pellucid.lab.filters import photograph

HERE = Path(__file__).parent


def digits(folder: Path) -> None:
    """What `pellucid train digits` draws."""
    run = folder / "digits"
    subprocess.run([sys.executable, "-m", "pellucid", "train", "digits", "--out", run, "--quiet"], check=True)
    for name in ("curves.png", "confusion.png"):
        shutil.copy(run / name, HERE / f"digits-{name}")


def receptive_field(folder: Path) -> Path:
    """The first four blocks of VGG-16; its numbers of channels do not matter here."""
    net = pl.Sequential(
        *(each for n in (2, 2, 3, 3) for each in (*(pl.Conv2D(1, 3, padding=1) for _ in range(n)), pl.MaxPool2D(2))),
        input_shape=(1, 224, 224),
    )
    return overlay_png(net, "conv2d_10", (0, 9, 4), photograph()[100:324, 170:394], folder / "field.png")


known = ["digits", "receptive-field", *experiments()]
for name in sys.argv[1:] or known:
    if name not in known:
        raise SystemExit(str(unknown("picture", name, known)))
    with tempfile.TemporaryDirectory() as place:
        if name == "digits":
            digits(Path(place))
            continue
        made = receptive_field(Path(place)) if name == "receptive-field" else find(name).run(Path(place)).picture
        with Image.open(made) as picture:
            picture.thumbnail((1300, 700) if name in ("filters", "receptive-field") else (1500, 1200))
            picture.convert("RGB").quantize(256, kmeans=2).save(HERE / f"{name}.png", optimize=True)
