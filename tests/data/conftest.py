"""What the tests of the data share."""

from __future__ import annotations

import pytest

from pellucid import data
from pellucid.errors import DataError


@pytest.fixture
def have():
    """Skips where a set is not on this machine."""

    def have(name):
        try:
            return data.catalog.locate(data.card(name))
        except DataError:
            pytest.skip(f"the data set {name} is not on this machine: pellucid data fetch {name}")

    return have
