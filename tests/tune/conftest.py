"""A small problem, and a search on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helping import SPACE

pytest.importorskip("optuna", reason="the search is Optuna's")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Two noisy clouds (90, 3) and which of them each point is of."""
    rng = np.random.default_rng(3)
    y = np.arange(90) % 2
    return rng.standard_normal((90, 3)).astype(np.float32) + 1.2 * y[:, None], y


@pytest.fixture
def small(folder, arrays) -> Callable[..., Any]:
    """``small(trials=5)``: a study of the clouds."""
    from pellucid.tune import tune

    def search(**options: Any) -> Any:
        return tune(
            *arrays,
            **{"space": SPACE, "trials": 4, "progress": False, "out": "study", "splits": 1, "confirm": 0, **options},
        )

    return search
