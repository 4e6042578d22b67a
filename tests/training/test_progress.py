"""What a training shows, and where."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import pellucid as pl

SCRIPT = """
import numpy as np, pellucid as pl
x = np.random.default_rng(0).normal(size=(40, 4)); y = (x[:, 0] > 0).astype(int)
class Slow(pl.Callback):
    def on_update(self, training):
        import time; time.sleep(0.06)
net = pl.Sequential(pl.Dense(2), input_shape=4, loss="softmax_cross_entropy")
net.fit(x, y, epochs=2, batch_size=20, validation=0.25, callbacks=[Slow()])
"""
LINE = r"epoch {}/2  \d\.\d s   train  loss \d\.\d{{4}} accuracy \d\.\d{{4}}   validation  loss \d\.\d{{4}} accuracy"


def on_a_terminal(**environment) -> tuple[str, bytes]:
    """What the script writes to a terminal on stderr, and to stdout."""
    import pty

    master, slave = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=slave,
        stdin=slave,
        env={**env, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30", **environment},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    out, _ = process.communicate(timeout=30)
    os.close(master)
    assert process.returncode == 0, shown.decode()
    return shown.decode(), out


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("no_color", ["", "1"], ids=["colour", "NO_COLOR"])
def test_a_bar_on_a_terminal(no_color):
    shown, out = on_a_terminal(**({"NO_COLOR": no_color} if no_color else {}))
    assert out == b""
    assert "━" in shown
    assert re.search(r"[1-4]/4", shown)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(LINE.format(1), plain)
    assert re.search(LINE.format(2), plain)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor comes back
    coloured = re.search(r"\x1b\[[0-9;]*3[0-9]", shown)
    assert (coloured is None) == bool(no_color)


def test_lines_elsewhere_and_nothing_on_stdout():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert re.match(LINE.format(1), lines[0])
    assert re.match(LINE.format(2), lines[1])


@pytest.fixture
def data():
    x = np.random.default_rng(0).normal(size=(40, 4))
    return x, (x[:, 0] > 0).astype(int)


def make():
    return pl.Sequential(pl.Dense(2), input_shape=4, loss="softmax_cross_entropy")


def test_silence(data, capfd):
    make().fit(*data, epochs=1, progress=False)
    assert capfd.readouterr() == ("", "")


def test_why_it_stopped_is_said(data, capfd):
    make().fit(*data, epochs=9, optimizer="sgd(0)", shuffle=False, callbacks=pl.EarlyStopping(1, monitor="loss"))
    out, error = capfd.readouterr()
    assert out == ""
    assert error.splitlines()[-1] == "stopped: loss has not improved since epoch 1"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ZeroDivisionError])
def test_the_bar_gives_the_cursor_back_whatever_happens(data, monkeypatch, failure):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())

    class Fails(pl.Callback):
        def on_update(self, training):
            raise failure

    with pytest.raises(failure):
        make().fit(*data, callbacks=Fails())
    assert sys.stderr.getvalue().count("\x1b[?25l") == sys.stderr.getvalue().count("\x1b[?25h") == 1
