"""Learning-rate schedules: the rate of gradient descent as a function of time, measured in epochs.

Time is a float: updates done so far, divided by the updates of one epoch. So the first update of a run is at epoch 0,
and the last of ``epochs`` epochs with ``U`` updates each is at ``epochs - 1/U``.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from pellucid.errors import ParameterError
from pellucid.registry import Registry

schedules: Registry[Schedule] = Registry("schedule")


def get(value: float | str | dict | Schedule, where: str | None = None) -> Schedule:
    """The schedule that ``value`` describes; a plain number is a `Constant` rate.

    Arguments:
        value: a number, a name or call such as ``"cosine(0.1)"``, a schedule, or the dictionary of its `config`.
        where: the place to name in an error.

    Returns:
        The schedule.

    Raises:
        ParameterError: an unknown name, or arguments out of range.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        return Constant(value)  # type: ignore[arg-type]
    return schedules.get(value, where=where)


def number(interval: str, default: Any = MISSING, *, whole: bool = False, **options: Any) -> Any:
    """A dataclass field that `check_numbers` holds to an interval such as ``"[0, 1)"``; default None allows None."""
    return field(default=default, metadata={"interval": interval, "whole": whole}, **options)


def check_numbers(thing: Any) -> None:
    """Hold every field declared with `number` to its interval, and store it as a plain Python number.

    Plain, because a NumPy float64 scalar would silently turn float32 arrays into float64.

    Raises:
        ParameterError: a field that is no finite number, or lies outside its interval.
    """
    for each in fields(thing):
        if "interval" not in each.metadata:
            continue
        value = getattr(thing, each.name)
        if value is None and each.default is None:
            continue
        interval, whole = each.metadata["interval"], each.metadata["whole"]
        kind: Any = Integral if whole else Real
        low, high = (float(end) for end in interval[1:-1].split(","))
        fits = (
            isinstance(value, kind)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (value > low or (value == low and interval[0] == "["))
            and (value < high or (value == high and interval[-1] == "]"))
        )
        if not fits:
            raise ParameterError(
                f"{each.name} is out of range",
                where=type(thing).__name__,
                expected=f"a {'whole ' * whole}number in {interval}{' or None' * (each.default is None)}",
                got=repr(value),
            )
        object.__setattr__(thing, each.name, int(value) if whole else float(value))


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules. What a schedule learns while training lives in a state that JSON can hold."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        """The learning rate of the next update.

        Arguments:
            epoch: updates done / updates per epoch, 0 at the first update.
            epochs: the length of the whole run.
            state: of `initial_state` or the last `observe`.
        """
        raise NotImplementedError

    def initial_state(self) -> dict[str, Any]:
        """The state before the first epoch."""
        return {}

    def observe(self, state: dict[str, Any], validation_loss: float | None) -> dict[str, Any]:
        """The state after an epoch that ended with ``validation_loss``; the given state is left as it is."""
        return state


@schedules.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate throughout: α(t) = value.

    Arguments:
        value: the learning rate, ≥ 0.
    """

    value: float = number("[0, inf)")

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        return self.value


@schedules.register("step")
@dataclass(frozen=True)
class Step(Schedule):
    """Falls by a factor every few epochs: α(t) = initial · factor^⌊t / every⌋.

    Arguments:
        initial: the rate of the first epochs.
        every: epochs between two falls.
        factor: what the rate is multiplied by, in (0, 1].
    """

    initial: float = number("[0, inf)")
    every: int = number("[1, inf)", 10, whole=True)
    factor: float = number("(0, 1]", 0.1)

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        return self.initial * self.factor ** (epoch // self.every)


@schedules.register("piecewise")
@dataclass(frozen=True)
class Piecewise(Schedule):
    """A rate for each part of the run, as written down beforehand: α(t) = rates[i] between ends[i-1] and ends[i].

    Arguments:
        rates: of each part.
        ends: epochs at which all parts but the last end, rising.

    Source:
        As LeCun et al. 1998, section III.A, lower LeNet-5's.
    """

    rates: Any = (0.01, 0.001)
    ends: Any = (10,)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rates", "ends"):
            values = getattr(self, name)
            plain = isinstance(values, (tuple, list)) and all(isinstance(n, Real) and float(n) >= 0 for n in values)
            if not plain or (name == "ends" and list(values) != sorted(set(values))):
                raise ParameterError(
                    f"cannot be used as {name}", where="Piecewise", expected="numbers ≥ 0, the ends rising", got=values
                )
            object.__setattr__(self, name, tuple(map(float, values)))
        if len(self.rates) != len(self.ends) + 1:
            raise ParameterError(
                "one rate for each part, and an end of each but the last",
                where="Piecewise",
                expected=f"{len(self.ends) + 1} rates",
                got=self.rates,
            )

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        return self.rates[bisect.bisect_right(self.ends, epoch)]


@schedules.register("exponential")
@dataclass(frozen=True)
class Exponential(Schedule):
    """Falls a little at every update: α(t) = initial · decay^t.

    Arguments:
        initial: the rate of the first update.
        decay: what the rate is multiplied by over one epoch, in (0, 1].
    """

    initial: float = number("[0, inf)")
    decay: float = number("(0, 1]", 0.95)

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        return self.initial * self.decay**epoch


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine wave from one rate to another: α(t) = final + (initial - final) · (1 + cos(π t / epochs)) / 2.

    Arguments:
        initial: the rate of the first update.
        final: the rate that is reached as the last epoch ends.

    Source:
        Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5, without restarts.
    """

    initial: float = number("[0, inf)")
    final: float = number("[0, inf)", 0.0)

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        return _half_cosine(self.initial, self.final, epoch, epochs)


@schedules.register("warm_up")
@dataclass(frozen=True)
class WarmUp(Schedule):
    """Rises in a straight line, then hands over to another schedule, whose clock starts at the handing over.

    α(t) = α_then(0) · (start + (1 - start) · t / epochs) while t < epochs; after that α_then(t - epochs).

    Arguments:
        epochs: length of the rise, may be a fraction of an epoch.
        then: the schedule that follows; a number is a constant rate.
        start: the rate of the first update, as a fraction of the rate risen to. Not 0, which would waste that update.

    Source:
        Goyal et al. 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", section 2.2.
    """

    epochs: float = number("(0, inf)")
    then: float | str | dict | Schedule = 0.001
    start: float = number("[0, 1]", 0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "then", get(self.then, where="WarmUp, then"))

    @property
    def _next(self) -> Schedule:
        return get(self.then)

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        remaining = max(epochs - self.epochs, 0.0)
        if epoch >= self.epochs:
            return self._next.rate(epoch - self.epochs, remaining, state)
        return self._next.rate(0.0, remaining, state) * (self.start + (1 - self.start) * epoch / self.epochs)

    def initial_state(self) -> dict[str, Any]:
        return self._next.initial_state()

    def observe(self, state: dict[str, Any], validation_loss: float | None) -> dict[str, Any]:
        return self._next.observe(state, validation_loss)


@schedules.register("one_cycle")
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up in a straight line to a rate that is too high to stay at, then down half a cosine wave to almost nothing.

    Arguments:
        max_rate: the highest rate.
        rise: the part of the run spent rising.
        start: the first rate, as a fraction of the highest.
        final: the rate that is reached as the last epoch ends, as a fraction of the highest.

    Source:
        Smith & Topin 2018, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
        section 3, where both ways are straight; the cosine way down is fast.ai's and PyTorch's.
    """

    max_rate: float = number("[0, inf)")
    rise: float = number("(0, 1)", 0.3)
    start: float = number("[0, 1]", 0.04)
    final: float = number("[0, 1]", 4e-6)

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        top = self.rise * epochs
        if epoch < top:
            return self.max_rate * (self.start + (1 - self.start) * epoch / top)
        return _half_cosine(self.max_rate, self.max_rate * self.final, epoch - top, epochs - top)


@schedules.register("reduce_on_plateau", "plateau")
@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Falls by a factor when the validation loss has stopped falling.

    An epoch is an improvement when its loss < best - threshold; a loss that is NaN never is one.

    Arguments:
        initial: the rate until the first plateau.
        factor: what the rate is multiplied by at a plateau, in (0, 1).
        patience: epochs in a row without improvement that are let pass; the next one is a plateau.
        minimum: the rate never falls below this.
        threshold: how much the loss must fall to count, in the loss's own unit.
    """

    initial: float = number("[0, inf)")
    factor: float = number("(0, 1)", 0.1)
    patience: int = number("[0, inf)", 10, whole=True)
    minimum: float = number("[0, inf)", 0.0)
    threshold: float = number("[0, inf)", 1e-4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minimum > self.initial:
            raise ParameterError(
                "minimum is above the initial rate",
                where="ReduceOnPlateau",
                expected=f"at most {self.initial}",
                got=self.minimum,
            )

    def rate(self, epoch: float, epochs: float, state: dict[str, Any]) -> float:
        return state["rate"]

    def initial_state(self) -> dict[str, Any]:
        return {"rate": self.initial, "best": None, "waited": 0}

    def observe(self, state: dict[str, Any], validation_loss: float | None) -> dict[str, Any]:
        if validation_loss is None:
            raise ParameterError(
                "there is no validation loss to watch",
                where="ReduceOnPlateau",
                hint="train with validation data, such as fit(..., validation=0.1), or choose another schedule",
            )
        loss, best, waited = float(validation_loss), state["best"], state["waited"] + 1
        if loss < (math.inf if best is None else best - self.threshold):
            return {**state, "best": loss, "waited": 0}
        if waited <= self.patience:
            return {**state, "waited": waited}
        return {**state, "rate": max(state["rate"] * self.factor, self.minimum), "waited": 0}


def _half_cosine(start: float, end: float, time: float, duration: float) -> float:
    progress = min(time / duration, 1.0) if duration > 0 else 0.0
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
