"""The state that a stateful layer starts from."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid.errors import ShapeError


@pytest.mark.parametrize("layer", [pl.SimpleRNN, pl.LSTM, pl.GRU])
def test_the_state_of_one_sequence_is_not_that_of_three(layer, rng):
    net = pl.Sequential(layer(4, stateful=True), input_shape=(None, 2), seed=0)
    x = rng.normal(size=(3, 5, 2))
    fresh = net.predict(x)
    net.reset_state()
    net.predict(x[:1])
    with pytest.raises(ShapeError, match="another batch"):
        net.predict(x)
    net.reset_state()
    assert np.array_equal(net.predict(x), fresh)
