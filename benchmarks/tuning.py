"""The tuner against the recipe as it stands, and against random search at the same cost; the test set is opened once.

    python benchmarks/tuning.py                                  three sets, as many splits of each as are recorded
    python benchmarks/tuning.py --sets digits --seeds 12 13

For each set and seed (of split, training and sampler) two searches get the same processor seconds on one thread, their
samplers and confirmations included: one by Optuna's TPE, one at random, all else as it is where nobody says. Then the
recipe and both winners are trained five times each, as ``pellucid train`` would, first with the search's seed and then
with others on the same split; all are measured on the test examples at once: a fifth of the examples, or all 10,000
test pictures of Fashion-MNIST, of which each seed has 5,000 training pictures of its own. Prints a Markdown table for
all, and one of means with 95 % intervals of the differences to the recipe, split by split. Protocol and record:
docs/tuning/results.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read when NumPy is imported, which comes next

import numpy as np  # noqa: E402

import pellucid as pl  # noqa: E402
from pellucid.tune.recheck import _t_interval  # noqa: E402
from pellucid.tune.search import Search, train  # noqa: E402

Search.clock = staticmethod(time.process_time)
SETS = {"breast-cancer": (40, range(14, 24)), "digits": (100, range(12, 18)), "fashion-5k": (100, (2, 3, 4, 5, 10))}
"""Processor seconds of each search, and the seeds."""
TRAININGS = 5


def source(name: str, seed: int, folder: Path) -> str:
    """The data: of Fashion-MNIST 500 training pictures of each class, others for each seed, and all test pictures."""
    if name != "fashion-5k":
        return name
    path = folder / f"fashion-5k-{seed}.npz"
    if not path.exists():
        whole = pl.data.load("fashion-mnist")
        rows = np.setdiff1d(np.arange(len(whole)), whole.test_rows)
        labels = np.asarray(whole.y)[rows]
        own = slice(500 * seed, 500 * (seed + 1))
        chosen = np.sort(np.concatenate([rows[labels == label][own] for label in np.unique(labels)]))
        (x_train, y_train), (x_test, y_test) = whole.take(chosen), whole.take(whole.test_rows)
        np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return str(path)


def searched(
    data: str, seed: int, sampler: str, seconds: float, parts: dict, folder: Path
) -> tuple[pl.tune.Study, float]:
    """A study of so many processor seconds, and how many it took."""
    begun = time.process_time()
    study = pl.tune(data, trials=1, confirm=0, sampler=sampler, seed=seed, out=folder, progress=False, **parts)
    search = Search(study.storage, study.name, sampler=sampler, pruner="median")
    search.work(study.task, until=begun + seconds)
    return study, time.process_time() - begun


def tested(study: pl.tune.Study, trial: pl.tune.Trial) -> dict[str, float]:
    """Mean loss and accuracy on the test examples of networks that differ in the seed of their training alone."""
    x, y = study.task.rows("test").arrays()
    seeds = [study.plan["seed"] + number for number in range(TRAININGS)]
    nets = [train(study.task, study.plan, study.wanted(trial), seed=seed).net for seed in seeds]
    measured = [net.evaluate(x, y, metrics=["accuracy"]) for net in nets]
    return {name: fmean(each[name] for each in measured) for name in ("loss", "accuracy")}


def difference(values: list[float], before: list[float], shared: float, digits: int) -> str:
    """The mean difference, Student's interval, and the one that allows for examples that the splits share."""
    gains = [a - b for a, b in zip(values, before, strict=True)]
    if len(gains) < 2:
        return ""
    mean, (low, _) = _t_interval(gains, 0.95)
    half, wider = mean - low, (mean - low) * (1 + len(gains) * shared) ** 0.5
    return f"{mean:+.{digits}f} ± {half:.{digits}f}" + (f" (± {wider:.{digits}f})" if shared else "")


def main() -> None:
    """Search, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those that are recorded")
    parser.add_argument("--scale", type=float, default=1.0, help="of the seconds")
    parser.add_argument("--no-test", action="store_true", help="the test sets stay closed")
    args = parser.parse_args()
    rows = "| data | seed | | trials | seconds | search | again | gain, standard error | test loss | test accuracy |"
    print(f"{rows}\n|{'---|' * 10}")
    for data in args.sets:
        seconds, seeds = SETS[data]
        found: dict[str, list[dict]] = {"recipe": [], "random": [], "tpe": []}
        for seed in args.seeds or seeds:
            with tempfile.TemporaryDirectory() as name:
                one(data, seed, seconds * args.scale, Path(name), found, closed=args.no_test)
        if not args.no_test:
            summary(data, found)


def one(data: str, seed: int, seconds: float, folder: Path, found: dict[str, list[dict]], *, closed: bool) -> None:
    """Two searches of one split, and the test of what they chose."""
    parts = {"validation": 0.2} if data == "fashion-5k" else {"validation": 0.2, "test": 0.2}
    path = source(data, seed, folder)
    tests: dict[str, dict] = {}
    for kind in ("random", "tpe"):
        study, spent = searched(path, seed, kind, seconds, parts, folder / kind)
        again = {each.trial.number: each for each in study.confirmed}
        assert study.baseline is not None
        for name, trial in (("recipe", study.baseline), (kind, study.best)):
            if name == "recipe" and kind == "tpe":
                continue  # as before
            command = study.command(trial)
            if command not in tests and not closed:
                tests[command] = tested(study, trial)
            test = {} if closed else tests[command]
            fresh = again.get(trial.number)
            found[name].append(test)
            cells = [
                data,
                seed,
                name,
                len(study.counted) if name == kind else "",
                f"{spent:.0f}" if name == kind else "",
            ]
            cells += [f"{trial.loss:.4f}", f"{fresh.loss:.4f}" if fresh else ""]
            leader = next((each for each in study.confirmed if not each.trial.baseline), None)
            known = leader is not None and leader.gain is not None and name == kind
            cells += [f"{leader.gain:+.4f}, {leader.error:.4f}" if known else ""]
            cells += [f"{test['loss']:.4f}", f"{100 * test['accuracy']:.1f} %"] if test else ["", ""]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def summary(data: str, found: dict[str, list[dict]]) -> None:
    """Means, and differences to the recipe, split by split."""
    shared = 0.0 if data == "fashion-5k" else 0.25  # test examples for each other one
    print("\n| data | | test loss | to the recipe | test accuracy, % | to the recipe | less loss, same, more |")
    print("|---|---|---|---|---|---|---|")
    for kind, tests in found.items():
        cells = []
        for name, factor, digits in (("loss", 1, 4), ("accuracy", 100, 1)):
            values, before = ([factor * each[name] for each in these] for these in (tests, found["recipe"]))
            compared = "" if kind == "recipe" else difference(values, before, shared, digits)
            cells += [f"{fmean(values):.{digits}f}", compared]
        signs = [np.sign(a["loss"] - b["loss"]) for a, b in zip(tests, found["recipe"], strict=True)]
        cells.append("" if kind == "recipe" else ", ".join(str(signs.count(sign)) for sign in (-1, 0, 1)))
        print(f"| {data} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
