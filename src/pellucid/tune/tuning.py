"""`tune`: from data and a network's name to a study."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time as clock
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import tasks
from pellucid.errors import DataError, EngineError, ParameterError, unknown
from pellucid.files import atomic_write
from pellucid.network.base import Network
from pellucid.tasks.building import is_file, recipe_of
from pellucid.tune.progress import Shown
from pellucid.tune.search import LEADERS, Plan, Search
from pellucid.tune.space import Space
from pellucid.tune.splits import drawn, usual
from pellucid.tune.storage import SCHEMES
from pellucid.tune.study import Study, check_folder, folder_of, note_in, write_privately

TRIALS = 50
FIXED = ("loss", "class_weight", "augment", "engine", "dtype", "precision", "metrics")
"""What every trial has alike, by the names of the flags of ``pellucid train``."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LOOK = 0.5  # seconds between two looks at what the workers have done
JOB = "job.json"


def tune(
    x: Any,
    y: Any = None,
    *,
    net: str | Network | None = None,
    task: str | Mapping[str, Any] | None = None,
    space: Any = "defaults",
    trials: int | None = None,
    time: float | None = None,
    jobs: int = 1,
    storage: str | None = None,
    study: str | None = None,
    sampler: str = "tpe",
    pruner: str = "median",
    confirm: int = LEADERS,
    seed: int = 0,
    validation: float | int = 0.1,
    splits: int | None = None,
    test: float | int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool | str = "auto",
    reading: dict[str, Any] | None = None,
    **fixed: Any,
) -> Study:
    """Search for the hyperparameters with the lowest validation loss.

    Every trial is the training that ``pellucid train`` would do with the same settings, data, split and seed; the first
    is the network's recipe as it stands, the second what the space has of it. A trial that does badly is ended early;
    one that diverges, runs out of memory or whose process is killed is recorded as such, and the search goes on. The
    same call again goes on with the same study, and any number of processes may work on one. The test examples are
    never looked at.

    The lowest of many losses is low by luck too. So the recipe and the leading trials are trained again at the end,
    with fresh seeds and fresh draws of the validation examples, and the best of them by these losses alone is the
    study's `best` if its gain over the recipe is above its standard error; otherwise it is the recipe.

    Arguments:
        x: a file, a folder or a name of the catalog; or arrays, examples first (m, …), which are kept in the study's
            folder.
        y: the targets (m,) where x is an array.
        net: a name of the zoo, a network file, or a network, of which the layers are taken; None is the task's own.
        task: what is learned, where the data do not say it: a kind such as ``"regression"``, or a table with the
            ``kind`` and options of its own.
        space: ``"defaults"``, a TOML file or a dictionary; see `Space`.
        trials: how many there are to be in all, whoever trains them, those that are trained again included; None is 50,
            or no bound where there is a ``time``.
        time: seconds after which no further trial is begun, nor trained again.
        jobs: processes to work in. The threads are shared out among them.
        storage: where the study is kept; None is a journal file in ``out``. See `open_storage`.
        study: its name in the storage; None is made of data and network.
        sampler: ``"tpe"``, ``"random"``, ``"cmaes"``, ``"gp"``, ``"grid"`` or ``"qmc"``.
        pruner: ``"median"``, ``"hyperband"``, ``"asha"`` or ``"none"``.
        confirm: how many leading trials are trained again at the end, beside the recipe; fewer where that would take
            more than a quarter of the trials, or half of the time. 0 chooses by the losses of the search alone.
        seed: of the split, of every training and of the sampler.
        validation: share or number of the examples to validate on.
        splits: how often these are drawn, other ones each time; a trial is trained with each draw, and its loss is the
            mean. None is as often as makes 1,000 validations, or until each example had its turn (cross-validation),
            10 at most.
        test: share or number of the examples that are kept out of it all; None is 0.1, and none for arrays.
        out: the folder for the reports; None is ``tuning/DATA-NET``.
        progress: ``"auto"`` or False.
        reading: how the data are read, as options of `pellucid.data.load`, and ``standardize``, ``categories_as``.
        fixed: what every trial has alike: loss, class_weight, augment, engine, dtype, precision, metrics.

    Returns:
        The study.

    Raises:
        ParameterError: a setting that cannot be used; the study in this place is about something else.
        DataError: data that cannot be trained on.
        TrainingError: no trial came to its end.
    """
    for name in fixed:
        if name not in FIXED:
            raise unknown("argument", name, FIXED, where="tune")
    for name, value, least in (
        ("jobs", jobs, 1),
        ("trials", trials, 1),
        ("splits", splits, 1),
        ("seed", seed, 0),
        ("confirm", confirm, 0),
    ):
        whole = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
        if not (whole or (value is None and name in ("trials", "splits"))):
            expected = f"a whole number from {least}"
            raise ParameterError("is out of range", where=f"tune, {name}", expected=expected, got=repr(value))
    if time is not None and not (isinstance(time, Real) and time > 0):
        raise ParameterError("is out of range", where="tune, time", expected="seconds, above 0", got=repr(time))
    if not validation > 0:
        raise ParameterError("a search compares validation losses", where="tune, validation", got=repr(validation))
    trials = TRIALS if trials is None and time is None else trials
    of_arrays = not isinstance(x, (str, os.PathLike))
    named = "arrays" if of_arrays else os.fspath(x)
    own = dict(task) if isinstance(task, Mapping) else {"kind": task}
    learned = tasks.find(named, own.get("kind"))
    net = learned.net if net is None else net
    folder = Path(out) if out is not None else folder_of(named, net if isinstance(net, str) else "network")
    if of_arrays:
        named = _kept(x, y, folder)
    elif y is not None:
        raise ParameterError("these data have targets of their own", where="tune, y", hint="reading={'target': column}")
    net_name = _network(net, folder)
    plan: Plan = {
        "data": _reading(named, net_name, reading or {}),
        "split": {"validation": validation, "test": (0 if of_arrays else 0.1) if test is None else test, "seed": seed},
        "net": net_name,
        "fixed": {name: value for name, value in fixed.items() if value is not None},
        "seed": seed,
    }
    if learned.kind != "examples":
        plan["task"] = {**own, "kind": learned.kind}
    elif own.get("kind") is not None:
        plan["data"]["task"] = own["kind"]
    if is_file(net_name):
        plan["network"] = Path(net_name).read_text("utf-8")
    made = tasks.made(plan)
    if "task" in plan:
        plan["task"] |= made.settings
    if test is not None and made.official_test:
        raise ParameterError("the data have a test set of their own", where="tune, test", hint="leave test out")
    shape = made.input_shape
    side = min(shape[1:]) if len(shape) == 3 and None not in shape and "augment" not in plan["fixed"] else None
    searched = Space.read(space, net_name, made.sizes["train"], side)
    if "augment" in searched.dimensions and side is None:
        if fixed_too := plan["fixed"].get("augment"):
            hint = "leave it out of the space, or out of what is fixed"
            raise ParameterError("both fixed and searched", where="space, augment", got=fixed_too, hint=hint)
        expected, got = "examples of channels, height, width", f"examples of {shape}"
        raise ParameterError("only images can be augmented", where="space, augment", expected=expected, got=got)
    plan |= {"space": searched.document(), "start": searched.start(made.sizes["train"])}
    plan["fingerprint"] = made.fingerprint
    plan["splits"] = usual(made) if splits is None else splits
    drawn(made, plan["splits"], seed)
    made.settled(net_name, {**plan["fixed"], "seed": seed})  # what is wrong for every trial is said at once
    url = _url(storage, folder)
    name = study or folder_of("arrays" if of_arrays else named, net if isinstance(net, str) else "network").name
    check_folder(folder, url, name)
    search = Search(url, name, plan, sampler=sampler, pruner=pruner)
    note_in(folder, url, name)
    found = Study(folder, url, name)
    with Shown(found, trials, progress) as shown:
        shown.look()
        until = math.inf if time is None else clock.monotonic() + time
        if jobs == 1:
            search.work(made, trials=trials, until=until, confirm=confirm, told=shown.look)
        else:
            _work_together(search, folder, url, name, jobs, trials, until, confirm, (sampler, pruner), shown)
        shown.look()
    found.exhausted = search.exhausted
    found.best  # noqa: B018  raises where there is none
    return found


def _work_together(
    search: Search,
    folder: Path,
    url: str,
    name: str,
    jobs: int,
    trials: int | None,
    until: float,
    confirm: int,
    kinds: tuple[str, str],
    shown: Shown,
) -> None:
    """Let processes work, and put others in the place of those that are killed."""
    from pellucid.runs import environment

    threads = str(max(1, environment(engine="")["threads"] // jobs))
    job = {"storage": url, "study": name, "sampler": kinds[0], "pruner": kinds[1], "trials": trials, "confirm": confirm}
    path = folder / JOB
    write_privately(path, job)
    variables = {**os.environ, **dict.fromkeys(_THREADS, threads)}

    def begin(number: int) -> subprocess.Popen[bytes]:
        left = "inf" if math.isinf(until) else str(max(0.0, until - clock.monotonic()))
        command = [sys.executable, "-m", "pellucid.tune.worker", str(path), str(number), left, str(os.getpid())]
        return subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    workers = [begin(number) for number in range(jobs)]
    begun, failed, counted = jobs, 0, -1
    try:
        while workers:
            clock.sleep(_LOOK)
            shown.look()
            for worker in list(workers):
                code = worker.poll()
                if code is None:
                    continue
                workers.remove(worker)
                if code > 0:
                    failed += 1
                elif code < 0 and search.recover() + len(search.counted()) > counted:
                    counted = len(search.counted())
                    workers.append(begin(begun))
                    begun += 1
    except BaseException:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        raise
    finally:
        for worker in workers:
            worker.wait()
    if failed == jobs:
        raise EngineError("every worker failed", where="tune", hint="jobs=1 shows why")


def _kept(x: Any, y: Any, folder: Path) -> str:
    """The arrays in a file of the study's folder, from which every process reads them."""
    x, y = np.asarray(x), np.asarray(y)
    if y.dtype == object or x.dtype == object or not y.ndim or len(x) != len(y):
        raise DataError("arrays of the same length are needed", where="tune", got=f"x {x.shape}, y {y.shape}")
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / "data.npz").resolve()
    if path.exists():
        with np.load(path) as there:
            if np.array_equal(there["x"], x) and np.array_equal(there["y"], y):
                return str(path)
        raise ParameterError("there is a study of other arrays here", where=str(folder), hint="another out")
    with open(path, "wb") as file:
        np.savez(file, x=x, y=y)
    return str(path)


def _network(net: str | Network, folder: Path) -> str:
    """The name of a network of the zoo, or the absolute path of a file."""
    if isinstance(net, str):
        if is_file(net):
            if not Path(net).is_file():
                raise ParameterError("there is no such network file", where=net)
            return os.path.abspath(net)
        recipe_of(net)
        return net
    if not isinstance(net, Network):
        raise ParameterError("cannot be used as a network", where="tune, net", expected="a name, a file, a network")
    import tomli_w

    described = {name: value for name, value in net.config().items() if name not in ("seed", "engine")}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.toml"
    atomic_write(path, tomli_w.dumps(described))
    return os.path.abspath(path)


def _reading(source: str, net: str, given: dict[str, Any]) -> dict[str, Any]:
    options = {"standardize": recipe_of(net).standardize, "categories_as": "one-hot", **given}
    return {"source": os.path.abspath(source) if os.path.exists(source) else source, **options}


def _url(storage: str | None, folder: Path) -> str:
    if storage is None:
        return f"journal:{(folder / 'study.journal').resolve()}"
    scheme = re.match(r"[A-Za-z][\w+]+:", storage)
    if scheme is None and storage.endswith((".journal", ".log")):
        return f"journal:{os.path.abspath(storage)}"
    if scheme is None:
        raise ParameterError(
            "not the URL of a storage",
            where="--storage",
            expected="journal:FILE, sqlite:///FILE, postgresql://…, mysql://…, redis://…",
            got=storage,
        )
    if scheme[0] == "journal:":
        return f"journal:{os.path.abspath(storage.removeprefix('journal:').removeprefix('//'))}"
    if scheme[0].partition("+")[0].rstrip(":") not in SCHEMES:
        raise unknown("storage", scheme[0].rstrip(":"), SCHEMES, where="--storage")
    return storage
