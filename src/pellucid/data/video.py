"""Clips of moving digits, with a label for every frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pellucid.data import catalog
from pellucid.errors import DataError, ParameterError, unknown

DIRECTIONS = ("right", "left", "down", "up", "still")
_STEPS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])  # rows and columns, as in DIRECTIONS
TARGETS = ("digit", "direction")


class MovingDigits:
    """Clips made when they are asked for: a handwritten digit glides over a dark field, now and then as another one.

    The digit rests in the first frame, then moves ``speed`` pixels a frame to the right, left, down or up, and turns
    back at the edge. Before each frame after the first it becomes a picture of another digit with chance ``change``,
    and takes another direction with the same chance. What a frame shows says which digit it is; only the frame before
    says where it goes. Clip i depends on ``seed`` and i alone.

    What `fit`, `evaluate` and `predict` take as ``x``.

    Arguments:
        pictures: (k, h, w) ink from 0 to 1.
        labels: (k,) the digit on each.
        count: clips.
        length: T, frames in a clip.
        size: H and W of a frame.
        target: ``"digit"`` or ``"direction"``, which the labels tell.
        speed: pixels a frame.
        change: chance of each change, 0 to 1.
        blank: chance that a frame after the first does not show the digit; its label is as if it did.
        seed: of all that is drawn.

    Raises:
        ParameterError: another target, a chance outside 0 … 1, a number below its least.
        DataError: pictures larger than the frame, or of one digit only.
    """

    def __init__(
        self,
        pictures: np.ndarray,
        labels: np.ndarray,
        count: int,
        *,
        length: int = 12,
        size: int = 24,
        target: str = "digit",
        speed: int = 2,
        change: float = 0.15,
        blank: float = 0.0,
        seed: int = 0,
    ) -> None:
        if target not in TARGETS:
            raise unknown("target", target, TARGETS, where="MovingDigits")
        for what, chance in (("change", change), ("blank", blank)):
            if not 0 <= chance <= 1:
                raise ParameterError(f"{what} is a chance", where="MovingDigits", expected="0 … 1", got=chance)
        room = min(size - pictures.shape[1], size - pictures.shape[2])
        for what, number in (("count", count), ("length", length), ("speed", speed)):
            if number < 1:
                raise ParameterError(f"{what} is 1 or more", where="MovingDigits", got=number)
        if room < 2 * speed - 1:  # else there are places from which no step is possible
            raise DataError(
                "the pictures have no room to move",
                where="MovingDigits",
                expected=f"size of {size - room + 2 * speed - 1} or more",
                got=f"{pictures.shape[1]}×{pictures.shape[2]} in {size}×{size}, at {speed} pixels a frame",
            )
        self.pictures, self.labels, self.count = pictures, np.asarray(labels, np.int64), count
        self.length, self.size, self.target, self.speed = length, size, target, speed
        self.change, self.blank, self.seed = change, blank, seed
        self._of = {digit: np.flatnonzero(self.labels == digit) for digit in np.unique(self.labels).tolist()}
        if len(self._of) < 2:
            raise DataError("a digit cannot become another one", where="MovingDigits", got="pictures of one digit")

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<{len(self):,} clips of {self.length} frames {self.size}×{self.size}, {self.target} of each>"

    @property
    def classes(self) -> list[str]:
        """What the labels stand for."""
        return list(DIRECTIONS) if self.target == "direction" else [str(digit) for digit in range(10)]

    def take(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """The clips at ``indices``: x (k, T, 1, H, W) float32 from 0 to 1, y (k, T) int64 classes."""
        chosen = np.arange(self.count)[indices]
        x = np.zeros((len(chosen), self.length, 1, self.size, self.size), np.float32)
        y = np.empty((len(chosen), self.length), np.int64)
        for clip, frames, labels in zip(chosen, x, y, strict=True):
            self._draw(np.random.default_rng([self.seed, int(clip)]), frames[:, 0], labels)
        return x, y

    def _draw(self, rng: np.random.Generator, frames: np.ndarray, labels: np.ndarray) -> None:
        _, h, w = self.pictures.shape
        room = np.array([self.size - h, self.size - w])
        place = rng.integers(0, room + 1)
        picture, heading = int(rng.integers(len(self.pictures))), int(rng.integers(4))
        for t, frame in enumerate(frames):
            shown = True
            if t:
                changes, turns, blanks = rng.random(3) < (self.change, self.change, self.blank)
                if changes:
                    picture = self._another(rng, picture)
                if turns:
                    heading = (heading + int(rng.integers(1, 4))) % 4
                if not self._fits(place, heading, room):
                    heading ^= 1  # right and left, down and up are each other's neighbours
                place = place + self.speed * _STEPS[heading]
                shown = not blanks
            if shown:
                frame[place[0] : place[0] + h, place[1] : place[1] + w] = self.pictures[picture]
            labels[t] = self.labels[picture] if self.target == "digit" else heading if t else DIRECTIONS.index("still")

    def _another(self, rng: np.random.Generator, picture: int) -> int:
        others = [digit for digit in self._of if digit != self.labels[picture]]
        return int(rng.choice(self._of[int(rng.choice(others))]))

    def _fits(self, place: np.ndarray, heading: int, room: np.ndarray) -> bool:
        after = place + self.speed * _STEPS[heading]
        return bool(((after >= 0) & (after <= room)).all())


class Clips(NamedTuple):
    """The clips of each part; no picture is in two of them."""

    train: MovingDigits
    validation: MovingDigits
    test: MovingDigits


def moving_digits(
    counts: Sequence[int] = (2000, 250, 250), *, source: str = "digits", seed: int = 0, **options: Any
) -> Clips:
    """Training, validation and test clips of real handwritten digits that move.

    The motion is made, the digits are written by people; no digit of one part is seen in another.

    Arguments:
        counts: clips of each part.
        source: ``"digits"``, 8×8 drawn twice as large in frames of 24×24; or ``"mnist"``, 28×28 in frames of 40×40,
            whose official test set is the test part.
        seed: of the parts and the clips.
        options: ``length``, ``size``, ``target``, ``speed``, ``change``, ``blank`` of `MovingDigits`.

    Raises:
        ParameterError: another source, or as `MovingDigits`.
        DataError: the set is not on this machine.
    """
    if source not in ("digits", "mnist"):
        raise unknown("source", source, ("digits", "mnist"), where="moving_digits")
    ds = catalog.open_set(source)
    rng = np.random.default_rng([seed, 0xC11F])
    rows = rng.permutation(len(ds))
    test = rows[: len(ds) // 10] if ds.test_rows is None else ds.test_rows
    rest = np.setdiff1d(rows, test)
    rng.shuffle(rest)
    options.setdefault("size", 24 if source == "digits" else 40)
    made = []
    for part, (count, chosen) in enumerate(
        zip(counts, (rest[len(ds) // 10 :], rest[: len(ds) // 10], test), strict=True)
    ):
        x, y = ds.take(np.sort(chosen))
        pictures = x[:, 0].astype(np.float32) / (16 if source == "digits" else 255)
        if source == "digits":
            pictures = pictures.repeat(2, axis=1).repeat(2, axis=2)
        made.append(MovingDigits(pictures, np.asarray(y), count, seed=3 * seed + part, **options))
    return Clips(*made)
