"""The code blocks of the documentation, run page by page.

A page's ``python`` blocks share one namespace and one working folder. A ``text`` block right after one is what it
prints, or the message of the error it must raise when the comment ``<!-- raises NAME -->`` stands before the code.
In a ``console`` block each ``$ pellucid …`` is run, and what follows is what it prints; ``<!-- exit N -->`` before
the block is its exit code. ``…`` in an expected text stands for anything. Blocks in ``sh`` are for readers only.

    python tests/pages.py PAGE…     writes what the blocks really print into the pages
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = {"python", "text", "console", "sh", "toml", "json"}  # each block says what it is
_FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (raises|exit) (\w+) -->\s*$")


def pages() -> list[Path]:
    """Every page a reader may copy code from."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    language: str
    code: str
    line: int
    raises: str | None
    exit: int
    expected: tuple[int, int] | None  # where in the page the text it must print stands


def blocks(page: str) -> list[Block]:
    """The blocks of a page, expected texts joined to their code."""
    found = list(_FENCE.finditer(page))
    done = []
    for index, fence in enumerate(found):
        behind = found[index + 1] if index + 1 < len(found) else None
        printed = behind and behind[3].strip() == "text" and not page[fence.end() : behind.start()].strip()
        said = _COMMENT.search(page[: fence.start()])
        note = (said[1], said[2]) if said else ("", "")
        done.append(
            Block(
                fence[3].strip(),
                fence[4],
                page.count("\n", 0, fence.start()) + 2,
                note[1] if note[0] == "raises" else None,
                int(note[1]) if note[0] == "exit" else 0,
                behind.span(4) if behind and printed else None,
            )
        )
    return done


def agrees(expected: str, got: str) -> bool:
    """Whether a text is the expected one, ``…`` standing for anything and spaces at line ends for nothing."""
    tidy = [re.sub(r"[ \t]+$", "", text.strip("\n"), flags=re.MULTILINE) for text in (expected, got)]
    return re.fullmatch(".*?".join(map(re.escape, tidy[0].split("…"))), tidy[1], re.DOTALL) is not None


def run_page(path: Path, folder: Path) -> str:
    """Run a page's blocks in ``folder``; returns the page with the texts that its blocks really print.

    Raises:
        AssertionError: a block failed that should not, or did not fail as it should.
    """
    page = path.read_text("utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    changes: list[tuple[tuple[int, int], str]] = []
    for block in blocks(page):
        place = f"{path.name}:{block.line}"
        if block.language == "python":
            printed = run_python(block, place, namespace, folder)
            if block.expected and not agrees(page[slice(*block.expected)], printed):
                changes.append((block.expected, printed.strip("\n") + "\n"))
        elif block.language == "console":
            start = page.index(block.code)
            now = run_console(block, place, folder)
            if not agrees(block.code, now):
                changes.append(((start, start + len(block.code)), now))
    for (start, end), text in reversed(changes):
        page = page[:start] + text + page[end:]
    return page


def run_python(block: Block, place: str, namespace: dict[str, Any], folder: Path) -> str:
    """What the block prints, or the message of the error it must raise."""
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.code, place, "exec")
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            exec(code, namespace)
    except Exception as problem:
        if block.raises != type(problem).__name__:
            raise AssertionError(f"{place}:\n{traceback.format_exc()}") from problem
        return f"{type(problem).__name__}: {problem}"
    assert not block.raises, f"{place}: should have raised {block.raises}"
    return printed.getvalue()


def run_console(block: Block, place: str, folder: Path) -> str:
    """The block with what its commands really print."""
    now = []
    for line in block.code.splitlines():
        if not line.startswith("$ "):
            continue
        now.append(line)
        assert line.startswith("$ pellucid "), f"{place}: only pellucid's own commands are run; write others in sh"
        done = subprocess.run(
            line[2:].replace("pellucid", f"'{sys.executable}' -m pellucid", 1),
            shell=True,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        )
        assert done.returncode == block.exit, f"{place}: {line} ended with {done.returncode}\n{done.stderr}"
        now += (done.stdout or done.stderr).rstrip("\n").splitlines()
    return "\n".join(now) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or map(str, pages()):
        with tempfile.TemporaryDirectory() as folder:
            text = run_page(Path(name).resolve(), Path(folder))
        if text != Path(name).read_text("utf-8"):
            Path(name).write_text(text, "utf-8")
            print(f"changed: {name}")
