"""The command line: one module for each verb, imported when its verb is used.

Results go to standard output, progress to standard error. The exit code is 0, 1 for a failure, 2 for a command that
cannot be understood, 130 after Ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from pellucid.cli.common import Answer, Interrupted, Parser, UsageError, dumps, failure, note, speak_plainly

VERBS = {
    "train": "train a network on data, measure it, and keep all of it in a run",
    "predict": "what a trained network says of new data",
    "generate": "what a network that learned a text writes",
    "evaluate": "measure a trained network on labelled data",
    "show": "a run's or a network's layers, hyperparameters, parameters, curves; the engines",
    "step": "one iteration laid open: every Z, A, dA, dZ, dW, db",
    "check": "compare a network's gradients with finite differences",
    "data": "the data sets that are known: list, card, fetch",
    "runs": "the runs there are: list, compare",
    "zoo": "the networks that have a name: list",
    "tune": "search for the best hyperparameters, and check an old optimum again",
    "lab": "experiments that predict, measure and draw: list, filters, …",
}

_EPILOG = """\
begin with
  pellucid train digits
  pellucid train table.csv --target price
  pellucid VERB --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Arguments:
        arguments: what stands after ``pellucid``; None takes them from the process.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    speak_plainly()
    as_json, debug = "--json" in given, "--debug" in given
    try:
        try:
            args = _parsed(given)
            answer = args.run(args)
            _print(answer, args)
            return answer.code
        except Exception as problem:
            if debug and not isinstance(problem, (UsageError, BrokenPipeError)):
                raise
            return _failed(problem, as_json)
    except BrokenPipeError:  # the reader has gone, as in `pellucid … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Interrupted as stopped:
        if as_json:
            print(dumps({"error": {"type": "Interrupted", "problem": "interrupted", "hint": stopped.hint}}))
        return stopped.code
    except KeyboardInterrupt:
        note("interrupted")
        if as_json:
            print(dumps({"error": {"type": "Interrupted", "problem": "interrupted"}}))
        return 130


def _parsed(given: list[str]) -> Namespace:
    parser = Parser(
        prog="pellucid", description="Deep learning you can see through.", epilog=_EPILOG, metavar_of_verbs="VERB"
    )
    parser.add_argument("--version", action="store_true", help="say the version and end")
    verbs = parser.verbs()
    for name, line in VERBS.items():
        verb = verbs.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if given[:1] == [name]:
            importlib.import_module(f"pellucid.cli.{name}").arguments(verb)
            verb.set_defaults(parser=verb)
    args = parser.parse_args(given)
    if args.version:
        args.run, args.json, args.out = _version, False, None
    elif "run" not in args:
        parser.print_help()
        raise SystemExit(0)
    return args


def _version(args: Namespace) -> Answer:
    from pellucid import __version__

    return Answer({"pellucid": __version__}, f"pellucid {__version__}")


def _print(answer: Answer, args: Namespace) -> None:
    text = dumps(answer.document) if args.json else answer.text.rstrip("\n")
    if text:
        print(text, flush=True)


def _failed(problem: Exception, as_json: bool) -> int:
    """Say on standard error what went wrong, or with ``--json`` on standard output."""
    if isinstance(problem, BrokenPipeError):
        raise problem
    document, text, code = failure(problem)
    if as_json:
        print(dumps({"error": document}), flush=True)
    else:
        print(text, file=sys.stderr, flush=True)
    return code
