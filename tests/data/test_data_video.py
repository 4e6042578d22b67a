"""Moving digits: what a clip shows is what its labels say, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import data
from pellucid.data.video import DIRECTIONS, MovingDigits
from pellucid.errors import DataError, ParameterError

PICTURES = np.stack([np.full((3, 2), 0.1 * (digit + 1), np.float32) for digit in range(4)])
DIGITS = np.arange(4)


def clips(**options):
    return MovingDigits(PICTURES, DIGITS, 40, **{"length": 15, "size": 9, "change": 0.3, **options})


def corner(frame):
    rows, columns = np.nonzero(frame)
    return np.array([rows.min(), columns.min()])


@pytest.mark.parametrize("speed", [1, 2, 3])
def test_each_frame_is_labelled_with_what_it_shows(speed):
    x, of_digit = clips(speed=speed).take(np.arange(40))
    _, of_direction = clips(speed=speed, target="direction").take(np.arange(40))
    assert (x.shape, x.dtype) == ((40, 15, 1, 9, 9), np.float32)
    steps = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}
    for frames, digits, directions in zip(x[:, :, 0], of_digit, of_direction, strict=True):
        assert np.allclose(frames.max((1, 2)), 0.1 * (digits + 1))
        assert np.allclose(frames.sum((1, 2)), 6 * frames.max((1, 2)), rtol=1e-5)  # the whole picture, inside
        assert DIRECTIONS[directions[0]] == "still"
        for t in range(1, 15):
            assert np.array_equal((corner(frames[t]) - corner(frames[t - 1])) / speed, steps[DIRECTIONS[directions[t]]])


def test_changes_come_as_often_as_asked():
    _, digits = clips(change=0.3, length=400).take(np.arange(20))
    assert abs((digits[:, 1:] != digits[:, :-1]).mean() - 0.3) < 0.02
    _, same = clips(change=0.0).take(np.arange(20))
    assert (same == same[:, :1]).all()
    assert set(np.unique(digits)) == {0, 1, 2, 3}


def test_a_blank_frame_keeps_its_label():
    x, y = clips(blank=0.4, length=300).take([0])
    seen, all_seen = x[0, :, 0].any((1, 2)), clips(length=300).take([0])
    assert seen[0]
    assert abs(1 - seen.mean() - 0.4) < 0.06
    assert np.array_equal(y, all_seen[1])
    assert np.array_equal(x[0, seen], all_seen[0][0, seen])


def test_a_clip_depends_on_its_number_and_the_seed_alone():
    some, other = clips(seed=3), clips(seed=4)
    x, y = some.take([7, 2])
    again, labels = some.take(slice(2, 8, 5))
    assert np.array_equal(x[::-1], again)
    assert np.array_equal(y[::-1], labels)
    assert not np.array_equal(x, other.take([7, 2])[0])
    with pytest.raises(IndexError):
        some.take([40])


def test_real_digits_in_parts_that_share_no_picture():
    parts = data.moving_digits((6, 2, 2), length=4, seed=1)
    pictures = [{picture.tobytes() for picture in part.pictures} for part in parts]
    assert not pictures[0] & pictures[2]
    assert not pictures[0] & pictures[1]
    assert sum(len(part.pictures) for part in parts) == 1797
    assert [len(part) for part in parts] == [6, 2, 2]
    assert parts.train.take([0])[0].shape == (1, 4, 1, 24, 24)
    assert len({part.take([0])[0].tobytes() for part in parts}) == 3
    original, labels = data.load("digits").take(slice(None))
    small = (original[:, 0] / np.float32(16)).astype(np.float32)
    known = {picture.tobytes(): label for picture, label in zip(small, labels, strict=True)}
    for picture, label in zip(parts.test.pictures, parts.test.labels, strict=True):
        assert known[picture[::2, ::2].tobytes()] == label
    assert parts.train.classes == list("0123456789")
    assert data.moving_digits((1, 1, 1), target="direction").train.classes == list(DIRECTIONS)


def test_clips_that_cannot_be_made():
    with pytest.raises(ParameterError, match=r"unknown target 'digits'(.|\n)*'digit'"):
        clips(target="digits")
    with pytest.raises(ParameterError, match=r"change is a chance(.|\n)*1\.5"):
        clips(change=1.5)
    with pytest.raises(ParameterError, match="length is 1 or more"):
        clips(length=0)
    with pytest.raises(DataError, match=r"no room to move(.|\n)*size of 6 or more(.|\n)*3×2 in 4×4"):
        clips(size=4)
    with pytest.raises(DataError, match="cannot become another"):
        MovingDigits(PICTURES[:1], DIGITS[:1], 3, size=9)
    with pytest.raises(ParameterError, match=r"unknown source 'mnits'(.|\n)*'mnist'"):
        data.moving_digits(source="mnits")


def test_the_official_test_digits_move_in_the_test_clips(have):
    have("mnist")
    parts = data.moving_digits((2, 2, 2), source="mnist", length=3)
    assert [len(part.pictures) for part in parts] == [53_000, 7_000, 10_000]
    assert parts.test.take([0])[0].shape == (1, 3, 1, 40, 40)
