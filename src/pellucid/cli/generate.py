"""``pellucid generate``: what a network that learned a text writes."""

from __future__ import annotations

import argparse

from pellucid.cli.common import Answer, common_flags, integer, natural

_EPILOG = """\
examples
  pellucid train fortunes --task text --out writer
  pellucid generate writer --seed-text "The secret of " --length 300 --temperature 0.7
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``generate`` takes."""
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="RUN", help="a run, the beginning of its name, `latest`, or a saved network")
    add = parser.add_argument
    add("--seed-text", metavar="TEXT", help="what it reads before it writes (default: the most frequent symbol)")
    add("--length", type=integer, default=200, metavar="N", help="symbols to write (default: 200)")
    add("--temperature", type=_temperature, default=1.0, metavar="T", help="0: always the most probable (default: 1)")
    add("--seed", type=natural, default=0, metavar="S", help="of the draws (default: 0)")
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Write."""
    from pellucid.experiment import opened
    from pellucid.tasks.text import generate

    net, run = opened(args.name)
    how = {"length": args.length, "temperature": args.temperature, "seed": args.seed}
    text = generate(net, args.seed_text, **how)
    document = {"run": str(run.path) if run else args.name, "seed_text": args.seed_text, **how, "text": text}
    return Answer(document, (args.seed_text or "") + text)


def _temperature(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return number
