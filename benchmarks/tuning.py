"""The tuner against the recipe as it stands, and against random search at the same cost; the test set is opened once.

    python benchmarks/tuning.py                                  three sets, seeds 0 to 3
    python benchmarks/tuning.py --sets digits --seeds 0 --scale 2

For each set and seed (of split, training and sampler) two searches get the same processor seconds on one thread, their
samplers included: one by Optuna's TPE, one at random, both over the default space, with the same pruner and the same
draws of the validation examples, over which the validation loss is the mean. Then
``pellucid train`` trains the recipe and both winners, and opens the test set. Prints a Markdown table for all, and one
of means with 95 % intervals of the differences to the recipe, seed by seed. Recorded: docs/tuning/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read when NumPy is imported, which comes next

import numpy as np  # noqa: E402

import pellucid as pl  # noqa: E402
from pellucid.tune.recheck import _t_interval  # noqa: E402
from pellucid.tune.search import Search  # noqa: E402

SECONDS = {"breast-cancer": 20, "digits": 60, "fashion-5k": 40}  # of the processor, for each search
PARTS = {"validation": 0.2, "test": 0.2}


def source(name: str, folder: Path) -> str:
    """The data: of Fashion-MNIST 500 training pictures of each class."""
    if name != "fashion-5k":
        return name
    path = folder / "fashion-5k.npz"
    if not path.exists():
        whole = pl.data.load("fashion-mnist")
        official = whole.test_rows if whole.test_rows is not None else []
        rows = np.setdiff1d(np.arange(len(whole)), official)
        labels = np.asarray(whole.y)[rows]
        chosen = np.sort(np.concatenate([rows[labels == label][:500] for label in np.unique(labels)]))
        x, y = whole.take(chosen)
        np.savez(path, x=x, y=y)
    return str(path)


def searched(data: str, seed: int, sampler: str, seconds: float, folder: Path) -> pl.tune.Study:
    """A study of so many processor seconds."""
    options = {"seed": seed, "out": folder, "progress": False, **PARTS}
    begun = time.process_time()
    study = pl.tune(data, trials=1, sampler=sampler, **options)  # the recipe as it stands is the first of both
    search = Search(study.storage, study.name, sampler=sampler, pruner="median")
    search.work(study.task, wanted=lambda: time.process_time() - begun < seconds)
    return study


def trained(command: str, out: Path) -> dict:
    """What ``pellucid train`` says."""
    words = [sys.executable, "-m", "pellucid", *shlex.split(command)[1:], "--json", "--quiet", "--no-plot"]
    done = subprocess.run([*words, "--out", str(out)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}")
    return json.loads(done.stdout)


def main() -> None:
    """Search, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--scale", type=float, default=1.0, help="of the seconds")
    args = parser.parse_args()
    parts = " ".join(f"--{part} {share}" for part, share in PARTS.items())
    found: dict[tuple[str, str], list[dict]] = {}
    print("| data | seed | | trials | validation loss | test loss | test accuracy |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in args.seeds:
            for data in args.sets:
                path = source(data, folder)
                runs = {}
                for sampler in ("random", "tpe"):
                    place = folder / f"{data}-{seed}-{sampler}"
                    study = searched(path, seed, sampler, SECONDS[data] * args.scale, place)
                    runs["recipe"] = (f"pellucid train {path} {parts} --seed {seed}", 1, study.baseline.loss)
                    runs[sampler] = (study.command(), len(study.counted), study.best.loss)
                for kind, (command, trials, loss) in runs.items():
                    said = trained(command, folder / f"run-{data}-{seed}-{kind}")
                    said["validation"]["loss"] = loss
                    found.setdefault((data, kind), []).append(said)
                    losses = f"{loss:.4f} | {said['test']['loss']:.4f}"
                    share = f"{100 * said['test']['accuracy']:.2f} %"
                    print(f"| {data} | {seed} | {kind} | {trials} | {losses} | {share} |", flush=True)
    print("\n| data | | validation loss | less than the recipe | test loss | less than the recipe | test accuracy |")
    print("|---|---|---|---|---|---|---|")
    for (data, kind), said in found.items():
        cells = []
        for part in ("validation", "test"):
            losses = [each[part]["loss"] for each in said]
            before = [each[part]["loss"] for each in found[data, "recipe"]]
            cells.append(f"{fmean(losses):.4f}")
            gains = [b - a for a, b in zip(losses, before, strict=True)]
            if kind == "recipe" or len(gains) < 2:
                cells.append("")
            else:
                mean, (low, high) = _t_interval(gains, 0.95)
                cells.append(f"{mean:.4f} ({low:.4f} to {high:.4f})")
        accuracy = fmean(each["test"]["accuracy"] for each in said)
        print(f"| {data} | {kind} | {' | '.join(cells)} | {100 * accuracy:.2f} % |")


if __name__ == "__main__":
    main()
