"""The pictures of the documentation, from a real run: ``python docs/images/make.py``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

with tempfile.TemporaryDirectory() as folder:
    run = Path(folder) / "digits"
    subprocess.run([sys.executable, "-m", "pellucid", "train", "digits", "--out", run, "--quiet"], check=True)
    for name in ("curves.png", "confusion.png"):
        shutil.copy(run / name, HERE / f"digits-{name}")
