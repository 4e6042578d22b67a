from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.history import History
from pellucid.inspect import curves
from pellucid.inspect.curves import confusion_png, png, terminal


def history(losses, validation=None, **more) -> History:
    records = [{"epoch": i, "train": {"loss": loss}} for i, loss in enumerate(losses, 1)]
    for record, loss in zip(records, validation or [], strict=False):
        record["validation"] = {"loss": loss}
    for name, values in more.items():
        for record, value in zip(records, values, strict=True):
            record[name] = value
    return History(records)


def dots(text: str) -> set[tuple[int, int]]:
    """The braille dots of a drawing as (row, column), the plot's upper left corner at (0, 0)."""
    bits = {1: (0, 0), 2: (1, 0), 4: (2, 0), 8: (0, 1), 16: (1, 1), 32: (2, 1), 64: (3, 0), 128: (3, 1)}
    found = set()
    for row, line in enumerate(text.splitlines()[1:-2]):
        area = re.split("[┤│]", line, maxsplit=1)[1]
        for column, character in enumerate(area):
            for bit, (down, right) in bits.items():
                if 0x2800 <= ord(character) < 0x2900 and (ord(character) - 0x2800) & bit:
                    found.add((4 * row + down, 2 * column + right))
    return found


def test_the_dots_are_the_curve():
    values = 3 + np.cos(np.arange(60) / 6)
    drawn = dots(terminal(history(values), width=80, height=13, color=False, ascii=False))
    last = max(column for _, column in drawn)
    at = np.interp(np.linspace(1, 60, last + 1), np.arange(1, 61), values)
    expected = (values.max() - at) / (values.max() - values.min()) * 39
    for row, column in drawn:
        nearby = expected[max(column - 1, 0) : column + 2]
        assert nearby.min() - 1 <= row <= nearby.max() + 1
    assert {column for _, column in drawn} == set(range(last + 1))
    assert {row for row, _ in drawn} >= {0, 39}


def test_ascii_places_each_curve():
    text = terminal(history([4.0, 3.0, 2.0, 1.0], [4.0] * 4), width=60, height=7, color=False, ascii=True)
    lines = text.splitlines()
    assert text.isascii()
    assert lines[0] == "loss"
    assert lines[1].startswith("4 +o")
    assert lines[1].endswith("validation 4")
    assert "*" not in lines[1].split("+", 1)[1][10:]
    assert lines[4].startswith("1 +")
    assert lines[4].endswith("* train 1")
    assert "o" not in lines[4].removesuffix("train 1")
    assert lines[5].strip().startswith("+---")
    assert lines[6].split() == ["1", "epoch", "4"]
    stars = [line.split("|", 1)[-1].find("*") for line in lines[2:4]]
    assert stars == sorted(stars)


@pytest.mark.parametrize("width", [10, 40, 80, 133])
@pytest.mark.parametrize("height", [1, 6, 12, 30])
def test_size_is_kept(width, height):
    falling = history(1 / np.arange(1, 30), list(2 / np.arange(1, 30)))
    lines = terminal(falling, width=width, height=height, color=False, ascii=False).splitlines()
    assert len(lines) == max(height, 6)
    assert max(map(len, lines)) <= max(width, 40)


def test_names_stand_at_the_ends_also_when_these_meet():
    for last, validation in ((0.1, 0.1001), (0.1001, 0.1)):
        lines = terminal(history([1.0, last], [1.0, validation]), color=False, ascii=False).splitlines()
        at = {part: i for i, line in enumerate(lines) for part in ("train", "validation") if part in line}
        assert sorted(at) == ["train", "validation"]
        assert (at["train"] < at["validation"]) == (last > validation)


def test_color_only_where_wanted(monkeypatch):
    curve = history([2.0, 1.0], [2.5, 1.5])
    colored = terminal(curve, color=True, ascii=False)
    assert "\033[38;5;33m" in colored
    assert "\033[38;5;208m" in colored
    plain = terminal(curve, color=False, ascii=False)
    assert "\033" not in plain
    assert re.sub(r"\033\[[0-9;]*m", "", colored) == plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033" in terminal(curve)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in terminal(curve)


def test_ascii_where_output_is_not_utf_8():
    program = (
        "from pellucid.inspect.curves import terminal; from pellucid.history import History\n"
        "print(terminal(History([{'epoch': 1, 'train': {'loss': 2.0}}, {'epoch': 2, 'train': {'loss': 1.0}}])))"
    )
    for encoding, is_ascii in (("latin-1", True), ("utf-8", False)):
        done = subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONIOENCODING": encoding}, capture_output=True, check=True
        )
        assert done.stdout.decode(encoding).isascii() is is_ascii


def test_steep_losses_are_drawn_logarithmically():
    text = terminal(history(10.0 ** -np.arange(9)), height=12, color=False, ascii=True)
    assert text.startswith("loss (logarithmic)")
    drawn = [re.split(r"[|+]", line, maxsplit=1)[1] for line in text.splitlines()[1:10]]
    middles = [(line.find("*") + line.rfind("*")) / 2 for line in drawn]
    np.testing.assert_allclose(middles[1:-1], np.linspace(0, drawn[-1].rfind("*"), 9)[1:-1], atol=1)
    assert [line.split()[0] for line in text.splitlines() if re.match(r" *[\d.e-]+ \+", line)] == [
        "1",
        "0.0001",
        "1e-08",
    ]


def test_values_that_are_not_finite_are_said():
    text = terminal(history([1.0, np.nan, 0.5, np.inf]), color=False, ascii=True)
    assert text.startswith("loss (not finite at epoch 2 and others)")
    assert "train 0.5" in text
    assert terminal(history([np.nan])) == "loss: nothing to draw (not finite at epoch 1)"
    assert terminal(History()) == "loss: nothing to draw"
    assert "train 3" in terminal(history([3.0]))
    with pytest.raises(ParameterError, match=r"(?s)curves: unknown metric 'los'.*did you mean 'loss'"):
        terminal(history([1.0]), metric="los")


@pytest.fixture
def figures(monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    kept, save = [], curves.save
    monkeypatch.setattr(curves, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])
    return kept


def lines(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 1 and line.get_linestyle() != ":"]


def test_picture_holds_the_curves(tmp_path, figures):
    norms = [{"dense_1": {"gradient_norm": 0.1}, "dense_2": {"gradient_norm": 1.0 + i}} for i in range(3)]
    curve = history([3.0, 2.0, 1.0], [3.1, 2.1, 2.5], learning_rate=[0.1, 0.1, 0.01], layers=norms)
    path = png(curve, tmp_path / "curves.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [each.name for each in tmp_path.iterdir()] == ["curves.png"]
    loss, rate, gradients = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (loss, rate)] == ["loss", "learning rate"]
    train, validation = lines(loss)
    assert train.get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert validation.get_ydata().tolist() == [3.1, 2.1, 2.5]
    assert validation.get_label() == "validation (best 2.1, epoch 2)"
    assert validation.get_markevery() == [1]
    assert lines(rate)[0].get_ydata().tolist() == [0.1, 0.1, 0.01]
    assert [line.get_ydata().tolist() for line in lines(gradients)] == [[0.1] * 3, [1.0, 2.0, 3.0]]
    assert gradients.get_yscale() == "log"
    assert loss.get_yscale() == "linear"


def test_constant_learning_rate_and_absent_norms_take_no_room(tmp_path, figures):
    png(history([100.0, 1.0], learning_rate=[0.1, 0.1]), tmp_path / "a.png")
    (loss,) = figures[0].axes
    assert loss.get_yscale() == "log"


def test_gaps_do_not_break_the_line(tmp_path, figures):
    sparse = History(
        {"epoch": i, "train": {"loss": 1.0}} | ({"validation": {"loss": 2.0 - i / 10}} if i % 3 == 0 else {})
        for i in range(1, 10)
    )
    png(sparse, tmp_path / "a.png")
    assert lines(figures[0].axes[0])[1].get_xdata().tolist() == [3, 6, 9]


def test_several_runs_share_the_axes(tmp_path, figures):
    runs = {"iris $1$": history([3.0, 2.0], [3.0, 2.5]), "wine": history([1.0, 0.5]), "empty": History()}
    png(runs, tmp_path / "a.png")
    (loss,) = figures[0].axes
    assert len(lines(loss)) == 3
    names = [text.get_text() for text in loss.get_legend().get_texts()]
    assert names == [r"iris \$1\$ (best 2.5, epoch 2)", "wine (best 0.5, epoch 2)"]
    first_train, first_validation, second = lines(loss)
    assert first_train.get_color() == first_validation.get_color() != second.get_color()
    assert first_train.get_linestyle() == "--"


def test_history_draws_itself_in_the_format_of_the_ending(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    monkeypatch.chdir(tmp_path)
    curve = history([2.0, 1.0])
    assert curve.plot().name == "curves.png"
    assert curve.plot("curves.svg").read_bytes().startswith(b"<?xml")
    with pytest.raises(ParameterError, match=r"(?s)unknown picture format '\.jpgg'.*\.pdf, \.png, \.svg"):
        curve.plot("curves.jpgg")
    for nothing in (History(), History([{"epoch": 1, "seconds": 2.0}])):
        with pytest.raises(DataError, match=r"x\.png: there is no curve to draw"):
            nothing.plot("x.png")


def test_pictures_leave_pyplot_alone(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    program = (
        "import sys; from pellucid.inspect.curves import confusion_png, png\n"
        "from pellucid.history import History\n"
        "assert 'matplotlib' not in sys.modules\n"
        "png(History([{'epoch': 1, 'train': {'loss': 2.0}}]), sys.argv[1]); confusion_png([[1]], 'a', sys.argv[2])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.png", tmp_path / "b.png"], check=True)


def test_confusion_matrix_shows_counts_and_recall(tmp_path, figures):
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    confusion_png(matrix, ["cat", "dog $5$ or $6$", "없음"], tmp_path / "confusion.png")
    (axes,) = figures[0].axes
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "8", (0, 1): "2", (1, 0): "1", (1, 1): "9"}
    (recall,) = axes.child_axes
    assert [label.get_text() for label in recall.get_yticklabels()] == ["80.0%", "90.0%", "–"]
    assert axes.get_title(loc="left") == "85.00% of 20 correct"
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [0.1, 0.9, 0], [0, 0, 0]])
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")


def test_classes_whose_letters_no_font_has_are_numbered(tmp_path, figures, monkeypatch):
    monkeypatch.setattr(curves, "_fonts", lambda: ["DejaVu Sans"])
    assert curves.missing_letters(["고양이", "cat é"]) == "고양이"
    confusion_png([[5, 1], [2, 9]], ["고양이", "개"], tmp_path / "confusion.png")
    assert [label.get_text() for label in figures[0].axes[0].get_yticklabels()] == ["0", "1"]
    assert "no font here has the letters" in figures[0].get_supxlabel()
    confusion_png([[5, 1], [2, 9]], ["é", ""], tmp_path / "confusion.png")
    assert [label.get_text() for label in figures[1].axes[0].get_yticklabels()] == ["é", ""]
    assert not figures[1].get_supxlabel()


def test_confusion_matrix_of_many_classes(tmp_path, figures):
    confusion_png(np.eye(120, dtype=int), range(120), tmp_path / "confusion.png")
    assert not figures[0].axes[0].texts
    assert len(figures[0].axes[0].get_xticks()) == 40


def test_what_is_no_confusion_matrix(tmp_path):
    with pytest.raises(ShapeError, match=r"(?s)row and a column for each class.*\(2, 2\).*\(2, 3\)"):
        confusion_png(np.zeros((2, 3)), "ab", tmp_path / "a.png")
    with pytest.raises(ShapeError, match=r"at least one class"):
        confusion_png(np.zeros((0, 0)), [], tmp_path / "a.png")
    for bad in (-1, np.nan):
        with pytest.raises(DataError, match=r"holds counts"):
            confusion_png([[bad]], "a", tmp_path / "a.png")
