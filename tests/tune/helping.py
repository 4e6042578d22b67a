"""A space to search, other processes, and waiting for what they do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPACE = {
    "optimizer": ["adam", "momentum"],
    "learning_rate": {"low": 1e-3, "high": 0.3, "log": True},
    "momentum": {"low": 0.5, "high": 0.95},
    "units": {"low": 4, "high": 32, "log": True},
    "layers": 1,
    "epochs": 4,
}


def python(script: str, *, cwd: Path) -> subprocess.Popen[str]:
    """Another process, which begins at once."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait for something to be true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")
