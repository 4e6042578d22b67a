"""The zoo's shipped recipes on the data they are meant for, by ``pellucid train``; the test set is opened once each.

    python benchmarks/zoo_accuracy.py                       all three, seed 0
    python benchmarks/zoo_accuracy.py --net lenet5 --seeds 0 1 2 3 4

Prints one row of a Markdown table for each run; exits 1 where a goal is missed. Recorded results: docs/zoo/results.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

GOALS = {"lenet5": ("fashion-mnist", 0.900), "cnn": ("fashion-mnist", 0.920), "lenet5-1998": ("mnist", 0.988)}


def train(net: str, data: str, seed: int, more: list[str]) -> dict:
    """What ``pellucid train`` found out."""
    command = [sys.executable, "-m", "pellucid", "train", data, "--net", net, "--seed", str(seed), *more]
    done = subprocess.run([*command, "--json", "--no-plot"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}")
    return json.loads(done.stdout)


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--train", nargs=argparse.REMAINDER, default=[], help="further flags of `pellucid train`")
    args = parser.parse_args()
    missed = 0
    print("| net | data | seed | parameters | epochs | seconds | validation | test | goal |")
    print("|---|---|---|---|---|---|---|---|---|")
    for net in args.net:
        data, goal = GOALS[net]
        for seed in args.seeds:
            found = train(net, data, seed, args.train)
            accuracy = {part: found[part]["accuracy"] for part in ("validation", "test")}
            missed += accuracy["test"] < goal
            shares = " | ".join(f"{100 * share:.2f} %" for share in (*accuracy.values(), goal))
            row = f"| {net} | {data} | {seed} | {found['parameters']:,} | {found['epochs']} | {found['seconds']:.0f} |"
            print(f"{row} {shares} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
