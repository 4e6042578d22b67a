"""What every test shares: quick, repeatable property tests, and a random generator of its own for each test."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.fixture
def rng(request) -> np.random.Generator:
    """Seeded by the test's own name: no test's numbers depend on which tests ran before it."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))
