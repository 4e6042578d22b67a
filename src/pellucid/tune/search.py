"""The search: trials claimed one by one from a study that any number of processes share, trained, and recorded."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np

from pellucid.errors import EngineError, ParameterError, PellucidError, TrainingError, unknown
from pellucid.history import History
from pellucid.network import parameters
from pellucid.network.base import Network
from pellucid.runs import environment
from pellucid.tasks import Task
from pellucid.tasks.building import recipe_of
from pellucid.training.callbacks import Callback
from pellucid.tune.space import Settings, Space, Wanted
from pellucid.tune.splits import drawn, fresh, judged
from pellucid.tune.storage import BEAT, GRACE, is_dead, open_storage, optuna, sign, without_password

SAMPLERS = ("tpe", "random", "cmaes", "gp", "grid", "qmc")
LEARNING = ("tpe", "cmaes", "gp")  # samplers that learn from the trials
PRUNERS = ("median", "hyperband", "asha", "none")
ATTEMPTS = 2  # how often a trial whose process was killed is begun at most
FIRST = 8  # trials that are trained to their end before others are compared with them
LEADERS = 4  # trials that are trained again beside the recipe before one is chosen
AGAIN = 10_000  # from the seed of the search to those of these trainings
NEAR = 8  # neighbours of the recipe that are tried before a sampler that learns draws by itself
REPEATS = 100  # settings in a row that were all tried before: then the space counts as searched through

Plan = dict[str, Any]
"""What a study is about, as plain values: data, task, split, splits, net, fixed, space, start, seed, fingerprint,
and ``network`` where the net is a file: its text."""


class Trained(NamedTuple):
    """What a training came to.

    Attributes:
        net: the network, with the parameters that are kept.
        history: of its epochs.
        epoch: whose parameters are kept.
        patient: whether it was to go back to the best epoch.
        validation, train: loss and metrics of that epoch.
        seconds: it took.
    """

    net: Network
    history: History
    epoch: int
    patient: bool
    validation: dict[str, float]
    train: dict[str, float]
    seconds: float


def train(
    task: Task, plan: Plan, wanted: Wanted, *, seed: int | None = None, callbacks: Iterable[Callback] = ()
) -> Trained:
    """Train once, as ``pellucid train`` does with the same flags.

    Arguments:
        task: the data, and what is learned of them.
        plan: of the study.
        wanted: by the names of the flags, beside what the plan fixes.
        seed: of parameters, order and dropout; None is the plan's. The split stays the plan's.
        callbacks: to watch it.

    Raises:
        TrainingError: the loss is no longer finite.
        ParameterError: settings that cannot be used together.
    """
    begun = time.monotonic()
    seeds = {"seed": plan["seed"] if seed is None else seed}
    net, training = task.settled(plan["net"], {**plan["fixed"], **wanted, **seeds})
    history = task.fit(net, training, callbacks=callbacks, progress=False)
    epoch = history.restored_epoch or len(history)
    record = history.records[epoch - 1]
    validation = record["validation"]
    if not math.isfinite(validation["loss"]):
        raise TrainingError("the validation loss is no longer finite", where=f"epoch {epoch}", got=validation["loss"])
    return Trained(
        net, history, epoch, bool(training["patience"]), validation, record["train"], time.monotonic() - begun
    )


class _Watcher(Callback):
    """Tells the study how a trial does, and ends one that does badly."""

    every_update = False

    def __init__(self, trial: Any, prune: bool) -> None:
        self.trial, self.prune, self.pruned, self.again = trial, prune, False, False
        self._beaten = time.monotonic()

    def on_update(self, training: Any) -> None:
        if time.monotonic() - self._beaten > BEAT:
            self._beaten = time.monotonic()
            self.trial.set_user_attr("by", sign())

    def on_epoch(self, training: Any, record: dict[str, Any]) -> None:
        loss = record["validation"]["loss"]
        if not math.isfinite(loss):
            raise TrainingError("the validation loss is no longer finite", where=f"epoch {record['epoch']}", got=loss)
        if self.again:
            return  # an epoch of another draw says nothing beside the same epoch of the first
        self.trial.report(loss, record["epoch"])
        self.pruned = self.prune and self.trial.should_prune()
        if self.pruned:
            training.stop("pruned")


class Search:
    """A study open for work.

    Arguments:
        storage: its URL; see `pellucid.tune.storage.open_storage`.
        name: of the study in it.
        plan: what it is about; None for a study that is there already.
        sampler, pruner: of `SAMPLERS` and `PRUNERS`.
        worker: the number of this process among those that were started together; each draws its own settings.

    Raises:
        ParameterError: an unknown sampler or pruner; the study is about something else.

    Attributes:
        clock: by which trials are measured and the time is bounded, in seconds.
    """

    clock = staticmethod(time.monotonic)

    def __init__(
        self,
        storage: str,
        name: str,
        plan: Plan | None = None,
        *,
        sampler: str = "tpe",
        pruner: str = "median",
        worker: int = 0,
    ) -> None:
        for kind, given, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
            if given not in known:
                raise unknown(kind, given, known, where=f"--{kind}")
        package = optuna()
        self._states = package.trial.TrialState
        self.storage, self.sampler = open_storage(storage), sampler
        if plan is None:
            try:
                self.study = package.load_study(study_name=name, storage=self.storage)
            except KeyError:
                there = [each.study_name for each in self.storage.get_all_studies()]
                raise unknown("study", name, there, where=without_password(storage)) from None
            plan = self.study.user_attrs["plan"]
        else:
            self.study = package.create_study(
                study_name=name, storage=self.storage, direction="minimize", load_if_exists=True
            )
            self._agree(plan, f"study {name} in {without_password(storage)}")
        self.plan: Plan = plan
        self.space = Space(plan["space"], plan["net"])
        self.pruning = pruner != "none"
        self.study.pruner = _pruner(pruner, self._most_epochs())
        self._grid = self.space.grid() if sampler == "grid" else None
        self.exhausted = False
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial({}, user_attrs={"baseline": True, "settings": {}})
            start = {name: value for name, value in plan["start"].items() if name in self.space.searched}
            if start and sampler != "grid":
                self.study.enqueue_trial(start, user_attrs={"start": True})
        rate, *others = sorted(self.space.searched, key=lambda name: name != "learning_rate") or [""]
        np.random.default_rng(plan["seed"]).shuffle(others)
        near = [settings for _, settings in self.space.neighbours(plan["start"], [rate, *others])]
        self._near = near[:NEAR]
        count = len(self.study.get_trials(deepcopy=False))
        seeds = np.random.SeedSequence([plan["seed"], *([] if sampler == "qmc" else [worker, count])]).generate_state(2)
        self._drawing, self._other = _sampler(sampler, int(seeds[0])), _sampler("random", int(seeds[1]))
        self.study.sampler = self._drawing

    def _agree(self, plan: Plan, where: str) -> None:
        there = self.study.user_attrs.get("plan")
        if there is None:
            self.study.set_user_attr("plan", plan)
            return
        for part in plan:
            if part not in ("data", "net") and plan[part] != there.get(part):
                what = {"fingerprint": "other data", "network": "another network file"}.get(part, f"another {part}")
                recheck = "--recheck measures an old optimum on new data"
                raise ParameterError(
                    f"this study is about {what}",
                    where=where,
                    expected=_brief(there.get(part)),
                    got=_brief(plan[part]),
                    hint=recheck if part == "fingerprint" else "another --out, or --study, begins a new one",
                )
        for part, mine, theirs in (
            ("net", os.path.basename(plan["net"]), os.path.basename(there["net"])),
            ("reading of the data", _reading(plan), _reading(there)),
        ):
            if mine != theirs:
                raise ParameterError(
                    f"this study is about another {part}",
                    where=where,
                    expected=_brief(theirs),
                    got=_brief(mine),
                    hint="another --out, or --study, begins a new one",
                )

    def _most_epochs(self) -> int:
        dimension = self.space.dimensions.get("epochs")
        if dimension is None:
            return recipe_of(self.plan["net"]).epochs
        return int(max(dimension.choices) if dimension.choices else dimension.high)

    # --- the loop -----------------------------------------------------------------------------------------------

    def work(
        self,
        task: Task,
        *,
        trials: int | None = None,
        until: float = math.inf,
        confirm: int = LEADERS,
        told: Callable[[], None] = lambda: None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Train trial after trial; at last the recipe and the leading trials again, with fresh seeds and draws.

        Arguments:
            task: the data, and what is learned of them, with the plan's split.
            trials: the study's, by all processes, those that are trained again included; None is no bound.
            until: nothing is begun after this moment of `clock`.
            confirm: how many leading trials are trained again: at most, for it takes up to half of the time and a
                quarter of the trials. 0: none, nor the recipe.
            told: called after each trial.
            wanted: whether to go on.
        """
        draws = drawn(task, self.plan["splits"], self.plan["seed"])
        others = fresh(task, self.plan["seed"] + AGAIN)
        if trials is not None:
            confirm = min(confirm, max(0, trials // 4 - 1))
        begun, late = self.clock(), False

        def going() -> bool:
            return wanted() and self.clock() < until

        def searching() -> bool:
            nonlocal late
            if self.exhausted or (trials is not None and len(self.counted()) + self._reserved(confirm) >= trials):
                return False
            if not confirm or math.isinf(until):
                return True
            late = late or self.clock() >= max((begun + until) / 2, until - self._cost(confirm, len(others)))
            return not late

        while going():
            self.recover()
            claimed = self._claim(trials, confirm, searching, going)
            if claimed is None:
                return
            trial, settings, again = claimed
            self._attempt(others if again else draws, trial, settings, again=again)
            told()

    def counted(self) -> list[Any]:
        """The trials that count, begun or ended: not those that were begun again, or found to repeat another."""
        trials = self.study.get_trials(deepcopy=False)
        again = {each.user_attrs["retries"] for each in trials if "retries" in each.user_attrs}
        return [
            each
            for each in trials
            if each.state != self._states.WAITING and each.number not in again and not each.user_attrs.get("void")
        ]

    def _complete(self) -> list[Any]:
        """The trials that came to their end, the best first."""
        done = [each for each in self.counted() if each.user_attrs.get("result", {}).get("outcome") == "complete"]
        return sorted(done, key=lambda each: (fmean(each.user_attrs["result"]["losses"]), each.number))

    def _candidates(self, confirm: int) -> list[Any]:
        """The recipe and the leading trials, among which is chosen at the end."""
        done = self._complete() if confirm else []
        recipe = [each for each in done if each.user_attrs.get("baseline")]
        return recipe + [each for each in done if not each.user_attrs.get("baseline")][:confirm]

    def _again(self, *, waiting: bool = False) -> list[Any]:
        """The trainings that confirm a trial: those that count, and of those only that wait."""
        states = (self._states.WAITING,)
        these = self.study.get_trials(deepcopy=False, states=states) if waiting else self.counted()
        return [each for each in these if "confirms" in each.user_attrs]

    def _unconfirmed(self, confirm: int) -> list[Any]:
        taken = {each.user_attrs["confirms"] for each in [*self._again(), *self._again(waiting=True)]}
        return [each for each in self._candidates(confirm) if each.number not in taken]

    def _reserved(self, confirm: int) -> int:
        """How many trials are kept for confirming."""
        confirmed = len(self._candidates(confirm)) - len(self._unconfirmed(confirm))
        return confirm + 1 - confirmed if confirm else 0

    def _cost(self, confirm: int, draws: int) -> float:
        """The seconds that confirming will take, with all the processes that are at work now, after one more trial."""
        results = [each.user_attrs["result"] for each in self._unconfirmed(confirm)]
        longest = max((each.user_attrs["result"]["seconds"] for each in self._complete()), default=0.0)
        running = self.study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        every = draws * math.fsum(each["seconds"] / len(each["losses"]) for each in results)
        return longest + every / (1 + len(running))

    def recover(self) -> int:
        """Find trials whose process was killed; each is begun again once. Returns how many there were."""
        lost = 0
        for trial in self.study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            by = trial.user_attrs.get("by")
            if by is None:  # killed within the instant before it could sign, or about to sign
                dead = (datetime.now() - trial.datetime_start).total_seconds() > GRACE
            else:
                dead = is_dead(by)
            if dead:
                who = f"process {by['process']} on {by['host']}" if by else "the process"
                lost += self._lost(trial, "killed", f"{who} is gone", attempt=trial.user_attrs.get("attempt", 1) + 1)
        return lost

    def _lost(self, trial: Any, outcome: str, reason: str, *, attempt: int) -> bool:
        """End a trial that nobody works on, and put its settings back into the queue; False: another was faster."""
        finished = optuna().exceptions.UpdateFinishedTrialError
        try:
            self._note(trial, outcome, reason)
            self.storage.set_trial_state_values(trial._trial_id, self._states.FAIL)
        except finished:
            return False
        if attempt <= ATTEMPTS:
            kept = {
                name: trial.user_attrs[name]
                for name in ("baseline", "settings", "confirms")
                if name in trial.user_attrs
            }
            self.study.enqueue_trial(
                trial.params, user_attrs={**kept, "attempt": attempt, "retries": trial.number}, skip_if_exists=False
            )
        return True

    def _claim(
        self, trials: int | None, confirm: int, searching: Callable[[], bool], going: Callable[[], bool]
    ) -> tuple[Any, Settings, bool] | None:
        """A trial that is this process's alone and repeats no other, and whether it confirms one; None: all is done."""
        for repeats in range(REPEATS):
            search = searching()
            if search and self._grid is not None and not self._offer():
                self.exhausted, search = True, False
            if not search and not self._offer_again(confirm, going):
                return None
            if search:
                self._offer_near()
            # A sampler that has learned nothing since would draw the same again.
            self.study.sampler = self._other if repeats else self._drawing
            trial = self.study.ask()
            said = trial.user_attrs  # of one that was put into the queue
            trial.set_user_attr("by", sign())
            if "confirms" in said:
                rivals = [*self._again(), *self._again(waiting=True)]
                confirms = said["confirms"]
                first = min(each.number for each in rivals if each.user_attrs["confirms"] == confirms)
                if first == trial.number:
                    return trial, said["settings"], True
                self._void(trial, "repeat", f"trial {first} confirms trial {confirms} already")
                continue
            settings = {} if said.get("baseline") else self.space.suggest(trial)
            trial.set_user_attr("settings", settings)
            most = math.inf if trials is None else trials - self._reserved(confirm)
            before = [each for each in self.counted() if each.number <= trial.number]
            if not (search or said) or len(before) > most:
                self._void(trial, "not needed", "another process began the last trial")
                continue
            twin = self._twin(trial.number, settings)
            if twin is None:
                return trial, settings, False
            self._void(trial, "repeat", f"the settings of trial {twin}")
        if self.exhausted:
            return None
        self.exhausted = True
        return self._claim(trials, confirm, searching, going)

    def _offer_again(self, confirm: int, going: Callable[[], bool]) -> bool:
        """Put a candidate that is to be confirmed into the queue; False where there is none.

        Which trials lead is known when no process searches any more; the recipe is one of them in any case.
        """
        while confirm and going():
            self.recover()
            if self._again(waiting=True):
                return True
            running = self.study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
            searched = [each for each in running if "confirms" not in each.user_attrs]
            due = self._unconfirmed(confirm) if len(self._candidates(confirm)) > 1 or searched else []
            if due and (not searched or due[0].user_attrs.get("baseline")):
                kept = {"confirms": due[0].number, "settings": due[0].user_attrs["settings"]}
                self.study.enqueue_trial({}, user_attrs=kept, skip_if_exists=False)
                return True
            if not searched:
                return False
            time.sleep(0.1)
        return False

    def _offer_near(self) -> None:
        """Put a neighbour of the recipe into the queue while a sampler has nothing to learn from.

        The recipe is good on many data, so the best is more often near it than where chance would begin.
        """
        done = [each for each in self.counted() if "confirms" not in each.user_attrs]
        waiting = self.study.get_trials(deepcopy=False, states=(self._states.WAITING,))
        at = len(done) - 2  # after the recipe, and what the space has of it
        if self.sampler in LEARNING and not waiting and 0 <= at < len(self._near):
            near = {name: value for name, value in self._near[at].items() if name in self.space.searched}
            self.study.enqueue_trial(near, user_attrs={"start": True})

    def _offer(self) -> bool:
        """Put the next point of the grid into the queue; False where every one was tried."""
        if self.study.get_trials(deepcopy=False, states=(self._states.WAITING,)):
            return True
        tried = [each.user_attrs.get("settings") for each in self.counted()]
        for point in self._grid or ():
            if point not in tried:
                searched = {name: point[name] for name in self.space.searched if name in point}
                self.study.enqueue_trial(searched, user_attrs={"settings": point}, skip_if_exists=False)
                return True
        return False

    def _twin(self, number: int, settings: Settings) -> int | None:
        """The earlier trial with the same settings.

        Of two that draw the same at the same moment the later must see the earlier's settings, so it waits until all
        earlier ones have written theirs down (Lamport's bakery).
        """
        until = time.monotonic() + 30
        while True:
            waiting = self.study.get_trials(deepcopy=False, states=(self._states.WAITING,))
            both = [each for each in [*self.counted(), *waiting] if "confirms" not in each.user_attrs]
            earlier = [each for each in both if each.number < number]
            drawing = [e for e in earlier if e.state == self._states.RUNNING and "settings" not in e.user_attrs]
            if not drawing or time.monotonic() > until:
                return next((each.number for each in earlier if each.user_attrs.get("settings") == settings), None)
            time.sleep(0.01)

    def _attempt(self, draws: list[Task], trial: Any, settings: Settings, *, again: bool) -> None:
        """Train with every draw of the validation examples; the trial's loss is the mean over them, see `judged`."""
        states, begun, prune = self._states, self.clock(), bool(settings) and not again
        watcher = _Watcher(trial, prune)
        watcher.again = again
        outcome, reason, done = "confirmed" if again else "complete", None, None
        curves: list[list[float]] = []
        losses: list[float] = []
        try:
            for number, task in enumerate(draws):
                seed = self.plan["seed"] + AGAIN + number if again else None
                watched = train(task, self.plan, self.space.wanted(settings), seed=seed, callbacks=[watcher])
                done = done or watched  # the first draw is that of `pellucid train`
                curves.append(watched.history["validation_loss"])
                losses = judged(curves, patient=watched.patient)
                watcher.again = True
                if watcher.pruned:
                    outcome, reason = "pruned", f"worse than others after epoch {len(done.history)}"
                    break
                if number + 1 < len(draws) and prune and self._behind(losses):
                    outcome, reason = "pruned", f"worse than others after {number + 1} of {len(draws)} draws"
                    break
        except (KeyboardInterrupt, SystemExit):
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            self._lost(frozen, "interrupted", "begun again later", attempt=frozen.user_attrs.get("attempt", 1))
            raise
        except TrainingError as problem:
            outcome, reason = "diverged", problem.problem
        except MemoryError as problem:
            outcome, reason = "out of memory", str(problem) or "there was not enough"
        except Exception as problem:
            outcome, reason = "failed", problem.problem if isinstance(problem, PellucidError) else repr(problem)
        result: dict[str, Any] = {"seconds": round(self.clock() - begun, 3)}
        if again:
            result["ratio"] = draws[0].sizes["validation"] / draws[0].sizes["train"]
        if done is not None:
            result |= {"epochs": len(done.history), "best_epoch": done.epoch, "engine": done.net.ops.name}
            result |= {"validation": done.validation, "train": done.train, "losses": losses}
            result["parameters"] = parameters.count(done.net.parameters)
        state = {"complete": states.COMPLETE, "failed": states.FAIL}.get(outcome, states.PRUNED)
        if not settings or again:
            state = states.FAIL  # for Optuna: of a trial without drawn settings GP and CMA-ES would learn to draw none
        value = fmean(losses) if done and state == states.COMPLETE else None
        try:
            engine = done.net.ops.name if done else self.plan["fixed"].get("engine", "auto")
            where = environment(engine=engine, seed=self.plan["seed"], data_fingerprint=self.plan["fingerprint"])
            trial.set_user_attr("environment", where)
            self._note(trial, outcome, reason, **result)
            self.study.tell(trial, value, state=state, skip_if_finished=True)
        except optuna().exceptions.UpdateFinishedTrialError:
            pass  # this process was silent for so long that another took it for dead and began the trial again

    def _behind(self, losses: list[float]) -> bool:
        """Whether the mean over some draws is worse than the median of complete trials' over the same draws."""
        results = [each.user_attrs["result"] for each in self.counted() if "result" in each.user_attrs]
        others = [fmean(each["losses"][: len(losses)]) for each in results if each["outcome"] == "complete"]
        return self.pruning and len(others) >= FIRST and fmean(losses) > median(others)

    def _void(self, trial: Any, outcome: str, reason: str) -> None:
        trial.set_user_attr("void", True)
        self._note(trial, outcome, reason)
        self.study.tell(trial, state=self._states.FAIL)

    def _note(self, trial: Any, outcome: str, reason: str | None, **more: Any) -> None:
        result = {"outcome": outcome, "reason": reason, **more}
        self.storage.set_trial_user_attr(trial._trial_id, "result", result)


def _sampler(name: str, seed: int) -> Any:
    samplers = optuna().samplers
    needs = {"cmaes": "cmaes", "gp": "torch", "qmc": "scipy"}
    if name in needs:
        _need(needs[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls some of them experimental
        if name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, group=True)
        kinds = {"cmaes": samplers.CmaEsSampler, "gp": samplers.GPSampler, "qmc": samplers.QMCSampler}
        return kinds.get(name, samplers.RandomSampler)(seed=seed)


def _need(module: str) -> None:
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise EngineError(f"this sampler needs {module}, which is not installed", hint=f"pip install {module}")


def _pruner(name: str, epochs: int) -> Any:
    pruners = optuna().pruners
    if name == "median":
        # Schedules that rise first look bad first, so a third of the epochs is waited for.
        return pruners.MedianPruner(n_startup_trials=FIRST, n_warmup_steps=epochs // 3, n_min_trials=5)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    if name == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=max(1, epochs // 9), reduction_factor=3)
    return pruners.NopPruner()


def _reading(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in plan["data"].items() if name != "source"}


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) < 200 else text[:200] + "…"
