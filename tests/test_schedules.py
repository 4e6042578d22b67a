from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import schedules
from pellucid.errors import ParameterError
from pellucid.registry import config
from pellucid.schedules import Constant, Cosine, Exponential, OneCycle, Piecewise, ReduceOnPlateau, Step, WarmUp

EVERY = [
    Constant(0.3),
    Step(0.1, every=3, factor=0.5),
    Exponential(0.1, 0.9),
    Cosine(0.1, final=0.01),
    WarmUp(2, then=Cosine(0.1)),
    WarmUp(0.5, then=ReduceOnPlateau(0.1), start=0.0),
    OneCycle(0.4, rise=0.25),
    Piecewise([0.4, 0.1, 0.2], [2, 3.5]),
    ReduceOnPlateau(0.1, factor=0.5, patience=1, minimum=0.001, threshold=0.0),
]


def test_every_schedule_is_tested_here():
    tested = {each.registered_name for each in EVERY}
    assert tested == set(schedules.schedules)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_round_trip_through_json(schedule):
    assert schedules.get(json.loads(json.dumps(config(schedule)))) == schedule


@given(
    kind=st.sampled_from([Constant, Step, Exponential, Cosine, OneCycle, ReduceOnPlateau]),
    rate=st.floats(0, 10),
    warm=st.floats(0.01, 10),
)
def test_round_trip_of_random_rates(kind, rate, warm):
    schedule = WarmUp(warm, then=kind(rate))
    assert schedules.get(config(schedule)) == schedule
    assert config(schedules.get(config(schedule))) == config(schedule)


def test_text_numbers_and_nesting_are_read():
    assert schedules.get(0.1) == schedules.get("constant(0.1)") == Constant(0.1)
    assert schedules.get("warm_up(3, then=cosine(0.2, final=0.01))") == WarmUp(3.0, Cosine(0.2, 0.01))
    assert schedules.get("plateau(0.1)") == ReduceOnPlateau(0.1)


@pytest.mark.parametrize(
    ("schedule", "epoch", "expected"),
    [
        (Constant(0.3), 0, 0.3),
        (Constant(0.3), 9.75, 0.3),
        (Step(1.0, every=3, factor=0.5), 0, 1.0),
        (Step(1.0, every=3, factor=0.5), 2.75, 1.0),
        (Step(1.0, every=3, factor=0.5), 3.0, 0.5),
        (Step(1.0, every=3, factor=0.5), 9.75, 0.125),
        (Exponential(1.0, 0.5), 0, 1.0),
        (Exponential(1.0, 0.5), 0.5, math.sqrt(0.5)),
        (Exponential(1.0, 0.5), 3, 0.125),
        (Cosine(1.0), 0, 1.0),
        (Cosine(1.0, final=0.2), 5, 0.6),
        (Cosine(1.0, final=0.2), 9.75, 0.2 + 0.4 * (1 + math.cos(math.pi * 0.975))),
        (Cosine(1.0, final=0.2), 10, 0.2),
        (WarmUp(2, then=1.0, start=0.1), 0, 0.1),
        (WarmUp(2, then=1.0, start=0.1), 1, 0.55),
        (WarmUp(2, then=1.0, start=0.1), 2, 1.0),
        (WarmUp(2, then=Cosine(1.0), start=0.1), 1.75, 0.1 + 0.9 * 0.875),
        (WarmUp(2, then=Cosine(1.0)), 2, 1.0),
        (WarmUp(2, then=Cosine(1.0)), 6, 0.5),
        (WarmUp(2, then=Cosine(1.0)), 10, 0.0),
        (WarmUp(20, then=Cosine(1.0), start=0.0), 10, 0.5),
        (Piecewise([0.5, 0.2, 0.1], [2, 5]), 1.99, 0.5),
        (Piecewise([0.5, 0.2, 0.1], [2, 5]), 2, 0.2),
        (Piecewise([0.5, 0.2, 0.1], [2, 5]), 9, 0.1),
        (OneCycle(1.0, rise=0.25, start=0.04), 0, 0.04),
        (OneCycle(1.0, rise=0.25, start=0.04), 1.25, 0.52),
        (OneCycle(1.0, rise=0.25), 2.5, 1.0),
        (OneCycle(1.0, rise=0.25, final=0.0), 6.25, 0.5),
        (OneCycle(1.0, final=0.001), 10, 0.001),
    ],
)
def test_the_rate_at_a_moment_of_ten_epochs(schedule, epoch, expected):
    assert schedule.rate(epoch, 10, schedule.initial_state()) == pytest.approx(expected, rel=1e-14, abs=1e-16)


@given(st.integers(1, 30), st.integers(1, 50))
def test_the_last_update_lies_one_step_before_the_end(epochs, updates):
    last = (epochs * updates - 1) / updates
    expected = 0.5 * (1 + math.cos(math.pi * (1 - 1 / (epochs * updates))))
    assert Cosine(1.0).rate(last, epochs, {}) == pytest.approx(expected, rel=1e-9, abs=1e-15)


@given(st.floats(0, 40), st.integers(1, 30))
def test_rates_stay_between_nothing_and_the_highest(epoch, epochs):
    for schedule in EVERY:
        assert 0 <= schedule.rate(min(epoch, epochs), epochs, schedule.initial_state()) <= 0.4


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.integers(0, 4))
def test_plateaus_are_found_as_pytorch_finds_them(losses, patience):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ours = ReduceOnPlateau(0.5, factor=0.5, patience=patience, minimum=0.01, threshold=0.05)
    descent = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        descent, factor=0.5, patience=patience, min_lr=0.01, threshold=0.05, threshold_mode="abs", eps=0
    )
    state = ours.initial_state()
    for loss in losses:
        theirs.step(loss)
        before = dict(state)
        after = ours.observe(state, loss)
        assert state == before, "the state that was given must stay as it was"
        state = json.loads(json.dumps(after))
        assert ours.rate(0, 1, state) == descent.param_groups[0]["lr"]


def test_a_plateau_by_hand():
    schedule = WarmUp(1, then=ReduceOnPlateau(1.0, factor=0.1, patience=1, minimum=0.05))
    state, rates = schedule.initial_state(), []
    for loss in [3.0, 2.0, math.nan, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]:
        state = schedule.observe(state, loss)
        rates.append(schedule.rate(5.0, 20, state))
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05])


def test_other_schedules_remember_nothing():
    for schedule in EVERY[:5]:
        assert schedule.initial_state() == {}
        assert schedule.observe({}, None) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1), r"Constant: value is out of range\n  expected: a number in \[0, inf\)\n  got:      -1"),
        (lambda: Constant(math.nan), "Constant: value"),
        (lambda: Constant(True), "Constant: value"),
        (lambda: Constant("fast"), "got:      'fast'"),
        (lambda: Step(0.1, every=1.5), r"Step: every is out of range\n  expected: a whole number in \[1, inf\)"),
        (lambda: Step(0.1, factor=0), r"Step: factor is out of range\n  expected: a number in \(0, 1\]"),
        (lambda: Exponential(0.1, 1.1), "Exponential: decay"),
        (lambda: Cosine(0.1, -0.1), "Cosine: final"),
        (lambda: WarmUp(0), "WarmUp: epochs"),
        (lambda: WarmUp(1, then="cosin(1)"), "WarmUp, then: unknown schedule 'cosin'(.|\n)*did you mean 'cosine'"),
        (lambda: OneCycle(0.1, rise=1), "OneCycle: rise"),
        (lambda: Piecewise([0.1, 0.2], [3, 2]), "Piecewise: cannot be used as ends"),
        (lambda: Piecewise([0.1, -0.2], [3]), "Piecewise: cannot be used as rates"),
        (lambda: Piecewise([0.1, 0.2], [3, 4]), "an end of each but the last(.|\n)*expected: 3 rates"),
        (lambda: ReduceOnPlateau(0.1, factor=1), "ReduceOnPlateau: factor"),
        (lambda: ReduceOnPlateau(0.1, minimum=0.2), "minimum is above the initial rate"),
        (lambda: ReduceOnPlateau(0.1).observe({}, None), "no validation loss(.|\n)*fit"),
        (lambda: schedules.get("cosine"), r"missing a required argument: 'initial'(.|\n)*Cosine\(initial"),
        (lambda: schedules.get(True), "cannot be used as schedule"),
        (lambda: schedules.get("linear", where="here"), "here: unknown schedule 'linear'"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_numbers_are_kept_as_plain_python_numbers():
    schedule = Step(np.float64(0.1), every=np.int64(2), factor=np.float32(0.5))
    assert [type(each) for each in (schedule.initial, schedule.every, schedule.factor)] == [float, int, float]
