"""A process that works on a study: ``python -m pellucid.tune.worker JOB NUMBER SECONDS PARENT``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from pellucid import tasks
from pellucid.errors import PellucidError
from pellucid.tune.search import Search


def main(job: str, number: str, seconds: str, parent: str) -> int:
    """Train trials until there are enough, the time is over, or the process that began this one is gone."""
    said = json.loads(Path(job).read_text("utf-8"))
    until = time.monotonic() + float(seconds)
    try:
        search = Search(
            said["storage"], said["study"], sampler=said["sampler"], pruner=said["pruner"], worker=int(number)
        )
        search.work(
            tasks.made(search.plan),
            trials=said["trials"],
            until=until,
            confirm=said["confirm"],
            wanted=lambda: os.getppid() == int(parent),
        )
    except PellucidError as problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 0  # the process that began this one says so
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
