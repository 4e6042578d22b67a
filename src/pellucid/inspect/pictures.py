"""What every picture shares: a figure without a window, an image in it, the file."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import need, unknown
from pellucid.files import atomic_write


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches, drawn without a display.

    Raises:
        EngineError: matplotlib is not installed.
    """
    need("matplotlib", extra="plot")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def show_image(axes: Any, image: np.ndarray, **options: Any) -> None:
    """Draw an image into ``axes``, without ticks.

    Arguments:
        axes: matplotlib's.
        image: (height, width), or (channels, height, width) with 1 or 3 channels; of others the mean is shown. Without
            ``vmin`` and ``vmax`` among the options its smallest value is black and its largest white.
        options: of matplotlib's ``imshow``.
    """
    if image.ndim == 3 and image.shape[0] == 3:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) / ((high - low) or 1.0)).transpose(1, 2, 0)
    elif image.ndim == 3:
        image = image.mean(axis=0)
    axes.imshow(image, **{"cmap": "gray", "interpolation": "nearest", **options})
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def save(figure: Any, path: str | os.PathLike) -> Path:
    """Write a figure; the path's ending says the format: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ParameterError: another ending.
        CheckpointError: the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".png", ".svg", ".pdf"):
        raise unknown("picture format", ending, [".png", ".svg", ".pdf"], where=str(path))
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script no font here has
        figure.savefig(picture, format=ending[1:])
    return atomic_write(path, picture.getvalue())
