"""Optima go stale: the old one measured again, beside neighbours and fresh samples, on today's data and hardware."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pellucid import tasks
from pellucid.errors import ParameterError, PellucidError, TrainingError, need
from pellucid.files import atomic_write, to_json
from pellucid.runs import environment
from pellucid.tune.search import Plan, train
from pellucid.tune.space import Settings
from pellucid.tune.splits import drawn

if TYPE_CHECKING:
    from pellucid.tune.study import Study

LEVEL = 0.95
WORTH = 0.01  # a relative gain below this is not worth a change


@dataclass(frozen=True)
class Candidate:
    """Settings, measured with several seeds.

    Attributes:
        kind: ``"optimum"``, ``"runner-up"``, ``"neighbour"``, ``"fresh"`` or ``"recipe"``.
        what: how it differs.
        settings: by hyperparameter.
        losses: validation loss for each seed; None where it diverged or failed.
        mean, interval: of the losses, a t-interval at 95 %; None where a seed has none.
        gain: the mean difference to the optimum, seed by seed; negative is better.
        gain_interval: its t-interval, at a level that counts how many are compared (Bonferroni).
        seconds: of one training, the median.
        reason: why it has no mean.
    """

    kind: str
    what: str
    settings: Settings
    losses: list[float | None]
    mean: float | None
    interval: tuple[float, float] | None
    gain: float | None
    gain_interval: tuple[float, float] | None
    seconds: float
    reason: str | None = None

    @property
    def better(self) -> bool:
        """Whether it is surely better than the optimum, by more than is worth nothing."""
        assert self.mean is not None or self.gain is None
        if self.gain is None or self.gain_interval is None or self.mean is None:
            return False
        return self.gain_interval[1] < 0 and -self.gain > WORTH * (self.mean - self.gain)


@dataclass(frozen=True)
class Recheck:
    """What a recheck found.

    Attributes:
        verdict: ``"keep"``, ``"adjust"`` or ``"search again"``.
        why: one sentence each.
        candidates: the optimum first.
        changed: what of data, engine, hardware and versions is not as it was: name, then, now.
        then: the loss that the study recorded.
        seeds: of the trainings.
        settings: what to use now; None where a new search must say.
        command: that trains it.
        date: of the recheck.
    """

    verdict: str
    why: list[str]
    candidates: list[Candidate]
    changed: list[tuple[str, Any, Any]]
    then: float
    seeds: list[int]
    settings: Settings | None
    command: str | None
    date: str

    def document(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "candidates": [{**asdict(e), "better": e.better} for e in self.candidates]}


def recheck(
    study: Study,
    data: Any = None,
    *,
    seeds: int = 5,
    neighbours: int = 4,
    fresh: int = 4,
    told: Callable[[str], None] = lambda text: None,
) -> Recheck:
    """Train the optimum, the second best, neighbours, fresh samples and the bare recipe again, and judge.

    The seeds are new, since the old optimum was chosen for its luck with the old one; all candidates have the same, and
    are compared seed by seed. Where a study draws its validation examples several times, each seed has a draw of its
    own. The test examples stay those of the study, unseen.

        keep          no candidate is surely better
        adjust        the second best or a neighbour is
        search again  a fresh sample or the bare recipe is, or the optimum cannot be trained any more

    Arguments:
        study: with a best trial.
        data: other data to measure on, as `tune` takes them; None is the study's source as it is now.
        seeds: how many trainings of each candidate, at least 2.
        neighbours, fresh: how many of each; neighbours differ in what mattered most.
        told: called with a line for each candidate.

    Returns:
        What was found; it is kept in ``recheck.json`` of the study's folder, the earlier ones before it.

    Raises:
        ParameterError: fewer than two seeds.
        DataError: data that cannot be trained on.
        EngineError: SciPy is not installed.
    """
    if seeds < 2:
        raise ParameterError("an interval needs two seeds or more", where="recheck", got=seeds)
    best, plan = study.best, {**study.plan}
    if data is not None:
        source = os.path.abspath(data) if os.path.exists(data) else os.fspath(data)
        plan["data"] = {**plan["data"], "source": source}
    task = tasks.made(plan)
    plan["fingerprint"] = task.fingerprint
    draws = drawn(task, plan["splits"], plan["seed"])
    chosen: list[tuple[str, str, Settings]] = [("optimum", f"trial {best.number}", best.settings)]
    importances = study.importances()
    names = [*importances, *(name for name in study.space.searched if name not in importances)]
    leading = [each.trial for each in study.confirmed] or study.complete
    others = [each for each in leading if each.settings and each.number != best.number]
    chosen += [("runner-up", f"trial {each.number}", each.settings) for each in others[:1]]
    around = study.space.neighbours(best.settings, names) if best.settings else _around_recipe(study, names)
    near = list(around)[: max(0, neighbours)]
    chosen += [("neighbour", what, settings) for what, settings in near]
    taken = [settings for _, _, settings in chosen]
    samples = study.space.sample(fresh, seed=plan["seed"] + len(study.trials)) if study.space.searched else []
    chosen += [("fresh", f"sample {i}", settings) for i, settings in enumerate(samples, 1) if settings not in taken]
    if best.settings:
        chosen.append(("recipe", "as it stands", {}))
    numbers = [plan["seed"] + 1 + i for i in range(seeds)]
    candidates: list[Candidate] = []
    for kind, what, settings in chosen:
        reference = candidates[0].losses if candidates else None
        found = _measured(study, draws, plan, kind, what, settings, numbers, reference, len(chosen) - 1)
        candidates.append(found)
        told(_line(found))
    net, _ = task.settled(plan["net"], plan["fixed"])
    now = environment(engine=net.ops.name, seed=plan["seed"], data_fingerprint=plan["fingerprint"])
    verdict, why, use = _judged(best.loss or math.nan, (best.seconds or 0.0) / max(1, len(best.losses)), candidates)
    result = Recheck(
        verdict,
        why,
        candidates,
        _changed(best.environment, now),
        best.loss or math.nan,
        numbers,
        use,
        None if use is None else _command(study, plan, use),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _keep(study, result)
    return result


def _around_recipe(study: Study, names: list[str]) -> Iterator[tuple[str, Settings]]:
    """The recipe with one hyperparameter a little different, and what has to be said beside it."""
    update = ("optimizer", "schedule", "learning_rate", "momentum")
    together = (update, ("regularizer", "regularization"), ("layers", "units"))
    start: Settings = study.plan["start"]
    for name in names:
        for what, settings in study.space.neighbours(start, [name]):
            group = next((each for each in together if name in each), (name,))
            yield what, {each: settings[each] for each in group if each in settings}


def _measured(
    study: Study,
    draws: list[tasks.Task],
    plan: Plan,
    kind: str,
    what: str,
    settings: Settings,
    seeds: list[int],
    reference: list[float | None] | None,
    compared: int,
) -> Candidate:
    losses: list[float | None] = []
    seconds, reason = [], None
    for number, seed in enumerate(seeds):
        try:
            done = train(draws[number % len(draws)], plan, study.space.wanted(settings), seed=seed)
            losses.append(done.validation["loss"])
            seconds.append(done.seconds)
        except (PellucidError, MemoryError) as problem:
            losses.append(None)
            known = "diverged" if isinstance(problem, TrainingError) else "failed"
            reason = "out of memory" if isinstance(problem, MemoryError) else f"{known} with seed {seed}"
            break  # settings that work with some seeds only are no candidate
    whole = [loss for loss in losses if loss is not None]
    mean = interval = gain = gain_interval = None
    if len(whole) == len(seeds):
        mean, interval = _t_interval(whole, LEVEL)
        before = [loss for loss in reference or [] if loss is not None]
        if len(before) == len(seeds):
            level = 1 - (1 - LEVEL) / max(1, compared)
            gain, gain_interval = _t_interval([a - b for a, b in zip(whole, before, strict=True)], level)
    typical = statistics.median(seconds) if seconds else math.nan
    return Candidate(kind, what, settings, losses, mean, interval, gain, gain_interval, typical, reason)


def _t_interval(values: list[float], level: float) -> tuple[float, tuple[float, float]]:
    """The mean, and mean ± t · s / √n with Student's t for n - 1 degrees of freedom."""
    need("scipy", extra="tune")
    from scipy import stats

    mean, count = statistics.fmean(values), len(values)
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return mean, (mean - half, mean + half)


def _judged(then: float, seconds: float, candidates: list[Candidate]) -> tuple[str, list[str], Settings | None]:
    optimum, others = candidates[0], candidates[1:]
    if optimum.mean is None or optimum.interval is None:
        return "search again", [f"the old optimum cannot be trained any more: {optimum.reason}"], None
    why = [f"the optimum's loss now is {_spoken(optimum)}; the study recorded {then:.4g}"]
    if not optimum.interval[0] <= then <= optimum.interval[1]:
        side = "worse" if then < optimum.interval[0] else "better"
        lucky = ", as the winner of many trials often is: its seed was part of the choice" if side == "worse" else ""
        why.append(f"that is {side} than it was then{lucky}")
    if seconds and max(optimum.seconds / seconds, seconds / max(optimum.seconds, 1e-9)) > 2:
        why.append(f"one training takes {optimum.seconds:.2g} s; it took {seconds:.2g} s then")
    better = sorted((each for each in others if each.better), key=lambda each: each.mean or math.inf)
    elsewhere = [each for each in better if each.kind in ("fresh", "recipe")]
    if not better:
        why.append(f"none of {len(others)} others is surely better by {100 * WORTH:g} % or more")
        return "keep", why, optimum.settings
    first = (elsewhere or better)[0]
    why.append(f"{first.kind} ({first.what}) is better: {_spoken(first)}, {_gain(first)} against the optimum")
    if elsewhere:
        why.append("a point drawn at random should not beat an optimum: the best is elsewhere now")
        return "search again", why, None
    return "adjust", why, first.settings


def _spoken(candidate: Candidate) -> str:
    assert candidate.mean is not None
    assert candidate.interval is not None
    low, high = candidate.interval
    return f"{candidate.mean:.4g} ({100 * LEVEL:g} % interval {low:.4g} to {high:.4g})"


def _gain(candidate: Candidate) -> str:
    assert candidate.gain is not None
    assert candidate.gain_interval is not None
    low, high = candidate.gain_interval
    return f"{candidate.gain:+.4g} ({low:+.4g} to {high:+.4g})"


def _line(candidate: Candidate) -> str:
    found = f"loss {candidate.mean:.4f}" if candidate.mean is not None else candidate.reason
    return f"{candidate.kind} ({candidate.what}): {found}"


def _changed(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    names = (
        "data_fingerprint",
        "engine",
        "cpu",
        "cores",
        "threads",
        "memory",
        "platform",
        "pellucid",
        "python",
        "blas",
    )
    changed = [(name, then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)]
    before, after = then.get("packages", {}), now.get("packages", {})
    return changed + [
        (name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _command(study: Study, plan: Plan, settings: Settings) -> str:
    import shlex

    from pellucid.tune.study import train_arguments

    return shlex.join(["pellucid", "train", *train_arguments(plan, study.space.wanted(settings))])


def _keep(study: Study, result: Recheck) -> None:
    import json

    path = study.folder / "recheck.json"
    try:
        before = json.loads(path.read_text("utf-8"))["rechecks"]
    except (OSError, ValueError, KeyError):
        before = []
    study.folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, to_json({"rechecks": [*before, result.document()]}, indent=2) + "\n")
