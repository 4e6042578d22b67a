"""Folders of images, one folder for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data.storage import Rows, RowWriter, Shelf
from pellucid.errors import DataError, ParameterError, counted, need

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "train",
    "valid": "train",
    "validation": "train",
    "test": "test",
}
_GREY_MODES = {"1", "L", "LA", "I", "F", "I;16"}


def image_files(folder: Path) -> list[Path]:
    """The images right in ``folder``, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")


def list_classes(folder: Path, report: list[str]) -> tuple[list[Path], list[str], int | None]:
    """The images below ``folder``, by class.

    Returns:
        files, the class of each, and how many at the end are the official test set (a folder ``test``), or None.
    """
    below = _folders(folder)
    if below and all(path.name.lower() in SPLITS for path in below):
        parts: dict[str, list[Path]] = {"train": [], "test": []}
        for path in below:
            parts[SPLITS[path.name.lower()]].append(path)
        joined = [path.name for path in parts["train"] if not path.name.lower().startswith("train")]
        if joined:
            report.append(f"folder {', '.join(joined)} is joined to the training images")
        files: list[Path] = []
        labels: list[str] = []
        for part in parts["train"]:
            _add_classes(part, files, labels, report)
        trained = set(labels)
        count = len(files)
        for part in parts["test"]:
            _add_classes(part, files, labels, report)
        unknown = sorted(set(labels) - trained)
        if unknown and trained:
            raise DataError(
                "the test images have classes that the training images lack",
                where=str(folder),
                expected=", ".join(sorted(trained)),
                got=", ".join(unknown),
            )
        return files, labels, len(files) - count if parts["test"] and trained else None
    files, labels = [], []
    _add_classes(folder, files, labels, report)
    return files, labels, None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _add_classes(folder: Path, files: list[Path], labels: list[str], report: list[str]) -> None:
    for path in _folders(folder):
        images = image_files(path)
        if not images:
            raise DataError(
                "this class has no images",
                where=str(path),
                expected=f"files ending in {', '.join(sorted(ENDINGS))}",
                hint="remove the folder, or say which folder holds one folder for each class",
            )
        others = sum(1 for each in path.iterdir() if each.name[0] != ".") - len(images)
        if others:
            what = counted(others, "other file or folder", "other files or folders")
            report.append(f"not used, because no image: {what} in {path.name}")
        files += images
        labels += [path.name] * len(images)


def read_images(
    files: Sequence[Path],
    *,
    channels: str | None,
    image_size: tuple[int, int] | None,
    shelf: Shelf,
    report: list[str],
) -> Rows:
    """Images as (m, C, H, W) uint8.

    Arguments:
        channels: ``"grey"`` or ``"rgb"``; None when they agree among themselves.
        image_size: (height, width) to bring them to; None when they agree among themselves.
        shelf: keeps the pixels.

    Raises:
        DataError: images of different size or kind and nobody said what to make of them; one that cannot be read.
    """
    need("PIL", extra="images")
    from PIL import Image

    if channels not in (None, "grey", "rgb"):
        raise ParameterError("unknown channels=", expected="'grey' or 'rgb'", got=repr(channels))
    sizes: Counter[tuple[int, int]] = Counter()
    kinds: Counter[str] = Counter()
    example: dict[object, Path] = {}
    transparent = 0
    for path in files:
        try:
            with Image.open(path) as image:
                size, kind = image.size[::-1], "grey" if image.mode in _GREY_MODES else "rgb"
                transparent += _is_transparent(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as failure:
            raise _broken(path, failure) from None
        sizes[size] += 1
        kinds[kind] += 1
        example.setdefault(size, path)
        example.setdefault(kind, path)
    if image_size is None and len(sizes) > 1:
        raise DataError(
            f"the images have {len(sizes)} different sizes",
            where=str(files[0].parent.parent),
            expected="one size, or image_size=(H, W) to bring them to",
            got=", ".join(f"{h}×{w} ({n:,}, such as {example[h, w].name})" for (h, w), n in sizes.most_common(3)),
        )
    if channels is None and len(kinds) > 1:
        raise DataError(
            "some images are grey and some are in colour",
            where=str(files[0].parent.parent),
            expected="one kind, or channels='grey' or 'rgb' to bring them to",
            got=", ".join(f"{n:,} {kind} (such as {example[kind].name})" for kind, n in kinds.items()),
        )
    channels = channels or next(iter(kinds))
    height, width = image_size or next(iter(sizes))
    mode, count = ("L", 1) if channels == "grey" else ("RGB", 3)

    def fill(writer: RowWriter) -> None:
        for path in files:
            try:
                with Image.open(path) as image:
                    image.load()
                    picture: Any = image
                    if _is_transparent(image):
                        white = Image.new("RGBA", image.size, "white")
                        picture = Image.alpha_composite(white, image.convert("RGBA"))
                    elif image.mode in ("I", "F", "I;16"):
                        picture = _to_eight_bits(path, np.asarray(image))
                    picture = picture.convert(mode)
                    if picture.size != (width, height):
                        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
                    writer.append(np.asarray(picture).reshape(1, height, width, count).transpose(0, 3, 1, 2))
            except DataError:
                raise
            except (OSError, ValueError, SyntaxError) as failure:
                raise _broken(path, failure) from None

    rows = shelf.rows(np.uint8, (count, height, width), fill)
    report.append(f"{counted(len(files), 'image', 'images')}, {channels}, {height}×{width}")
    if transparent:
        report.append(f"{counted(transparent, 'image', 'images')} with transparency: laid on white")
    if resized := len(files) - sizes[height, width]:
        report.append(f"{counted(resized, 'image is', 'images are')} resized to {height}×{width}")
    return rows


def _is_transparent(image: Any) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _to_eight_bits(path: Path, values: np.ndarray) -> Any:
    from PIL import Image

    top = 65535 if values.max(initial=0) > 255 else 255
    if values.min(initial=0) < 0 or values.max(initial=0) > top or values.dtype.kind == "f":
        raise DataError(
            "this image has grey values that do not fit 8 or 16 bits",
            where=str(path),
            expected=f"0 … {top}",
            got=f"{values.min()} … {values.max()}",
            hint="store such measurements as NPZ",
        )
    return Image.fromarray((values.astype(np.float64) * (255 / top)).round().astype(np.uint8))


def _broken(path: Path, failure: Exception) -> DataError:
    return DataError(
        f"this image cannot be read: {failure}",
        where=str(path),
        expected="an image that Pillow opens",
        hint="replace or remove the file",
    )
