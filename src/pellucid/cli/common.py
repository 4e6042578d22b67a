"""What the verbs share: parsing, answering, saying what went wrong. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import ast
import codecs
import difflib
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from pellucid.errors import PellucidError


class Answer(NamedTuple):
    """What a verb found out: for ``--json``, for people, and the exit code."""

    document: dict[str, Any]
    text: str
    code: int = 0


class UsageError(Exception):
    """A command that cannot be understood."""

    def __init__(self, problem: str, parser: argparse.ArgumentParser) -> None:
        super().__init__(problem)
        self.problem, self.usage, self.prog = problem, parser.format_usage().strip(), parser.prog


class Interrupted(BaseException):
    """Stopped by the user after everything was kept; ``hint`` says how to go on."""

    def __init__(self, hint: str, code: int) -> None:
        super().__init__(hint)
        self.hint, self.code = hint, code


class Parser(argparse.ArgumentParser):
    """Arguments whose errors are raised, so that ``--json`` can answer them too; flags are never abbreviated."""

    def __init__(self, *, metavar_of_verbs: str = "", **options: Any) -> None:
        options = {"allow_abbrev": False, "formatter_class": _Help, **options}
        super().__init__(**options)
        self._metavar_of_verbs = metavar_of_verbs

    def verbs(self) -> Any:
        """Where the verbs below this one are added."""
        return self.add_subparsers(metavar=self._metavar_of_verbs or "VERB", title="verbs", parser_class=Parser)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unread = self.parse_known_args(args, namespace)
        if unread:
            inner = getattr(parsed, "parser", self)
            known = [flag for action in inner._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unread[0].partition("=")[0], known, n=1) if unread[0][:1] == "-" else []
            what = "argument" if unread[0][:1] != "-" else "option"
            raise UsageError(f"unknown {what} {unread[0]!r}" + (f", did you mean {near[0]}?" if near else ""), inner)
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            near = difflib.get_close_matches(str(value), map(str, action.choices), n=1)
            mend = f"did you mean {near[0]}?" if near else f"choose from {', '.join(map(str, action.choices))}"
            raise argparse.ArgumentError(action, f"unknown: {value!r}; {mend}")


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(100, _columns()))


def common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that every verb takes."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    group.add_argument("--debug", action="store_true", help="show where in the program an error comes from")


def training_examples_flags(add: Callable[..., Any]) -> None:
    """What is done to the examples that are trained on, alike for one training and for many."""
    add(
        "--augment",
        nargs="+",
        action="extend",
        metavar="A",
        help='change training images: "shift(2)" horizontal_flip; none',
    )
    add("--class-weight", choices=["balanced"], help="rare classes count as much as frequent ones")


def integer(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def items(text: str) -> list[str]:
    """Names between commas that stand in no brackets: ``accuracy,top_k(3)``."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def failure(problem: Exception) -> tuple[dict[str, Any], str, int]:
    """An error as a document, as text and as exit code."""
    if isinstance(problem, UsageError):
        text = f"{problem.usage}\n{problem.prog}: {problem.problem}"
        return {"type": "UsageError", "problem": problem.problem, "usage": problem.usage}, text, 2
    if isinstance(problem, PellucidError):
        parts = {name: getattr(problem, name) for name in ("problem", "where", "expected", "got", "hint")}
        said = {name: str(value) for name, value in parts.items() if value is not None}
        said |= {name: with_flags(said[name]) for name in ("problem", "where", "expected", "hint") if name in said}
        return {"type": type(problem).__name__, **said}, f"{color('error:', 'red')} {with_flags(str(problem))}", 1
    if isinstance(problem, MemoryError):
        hint = "a smaller --batch-size, or fewer columns"
        return (
            {"type": "MemoryError", "problem": "not enough memory", "hint": hint},
            f"error: not enough memory; {hint}",
            1,
        )
    line = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else 'no message'}"
    document = {"type": type(problem).__name__, "problem": str(problem), "hint": "this is a bug; --debug shows where"}
    return document, f"error: {line}\nthis is a bug; --debug shows where", 1


def with_flags(text: str) -> str:
    """Options as the command line writes them: ``missing='mean'`` becomes ``--missing mean``."""
    names = (
        "missing target task drop dates delimiter header encoding decimal channels image_size categorical batch_size "
        "validation test keys text engine mesh"
    )
    value = r"'([^'\n]*)'|(\[[^\]\n]*\]|\('[^)\n]*\))|\((\w+), (\w+)\)|(\w+(?:\.\d+)?)|(?=\W|$)"
    pattern = rf"(?<![\w.-])({'|'.join(names.split())})=(?:{value})"

    def flag(match: re.Match[str]) -> str:
        name, quoted, several, height, width, bare = match.groups()
        said = [quoted] if quoted else _texts(several) if several else [bare] if bare else []
        if height:
            said = ["HxW" if height[0].isalpha() else f"{height}x{width}"]
        if name == "header":
            said = [{"True": "yes", "False": "no"}.get(each, each) for each in said]
        option = "categories" if name == "categorical" and several else name.replace("_", "-")
        return " ".join([f"--{option}", *map(shlex.quote, said)])

    def line_with_flags(line: str) -> str:
        line = line.replace("force=True", "--again").replace("standardize=False", "--no-standardize")
        return re.sub(pattern, flag, line)

    return "\n".join(line if line.startswith("  got:") else line_with_flags(line) for line in text.split("\n"))


def _texts(written: str) -> list[str]:
    """The texts of a list as Python writes it."""
    try:
        return [str(each) for each in ast.literal_eval(written)]
    except (SyntaxError, ValueError):  # a name with a bracket in it cuts the list short
        return written.strip("[()]").replace("'", "").split(", ")


_PLAIN = {"·": ".", "×": "x", "…": "...", "→": "->", "←": "<-", "‖": "||", "≤": "<=", "≥": ">=", "Ŷ": "Y", "⋮": ":"}
_PLAIN |= dict.fromkeys("–−─", "-") | dict.fromkeys("│┤⎢⎥", "|") | dict.fromkeys("⎡⎣", "[") | dict.fromkeys("⎤⎦", "]")


def speak_plainly() -> None:
    """Write what a terminal that is not UTF-8 cannot show in other letters, instead of failing."""

    def substitute(problem: UnicodeError) -> tuple[str, int]:
        assert isinstance(problem, UnicodeEncodeError)
        letters = problem.object[problem.start : problem.end]
        return "".join(_PLAIN.get(letter, "?") for letter in letters), problem.end

    codecs.register_error("pellucid", substitute)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="pellucid")


def note(text: str = "") -> None:
    """Say something on standard error: it is no result."""
    print(text, file=sys.stderr, flush=True)


def dumps(document: Any) -> str:
    """One line of JSON that every reader takes: NaN and infinities become null."""
    from pellucid.files import to_json

    return json.dumps(_finite(json.loads(to_json(document))))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32"}


def color(text: str, name: str, stream: Any = None) -> str:
    """``text`` in a colour, where the stream is a terminal and ``NO_COLOR`` is not set."""
    stream = stream or (sys.stderr if name == "red" else sys.stdout)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{_CODES[name]}m{text}\033[0m"


def heading(text: str) -> str:
    """The title of a part of the answer."""
    return color(text, "bold")


def table(rows: Sequence[Sequence[Any]], head: Sequence[str], *, left: int = 1) -> str:
    """Columns that line up: the first ``left`` to the left, the others, which hold numbers, to the right."""
    cells = [list(head), *([_cell(each) for each in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([color(lines[0].rstrip(), "dim"), *(line.rstrip() for line in lines[1:])])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if math.isnan(value) else f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.split("\n"))


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns
