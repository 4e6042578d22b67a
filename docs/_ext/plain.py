"""Small helps for the documentation: pellucid's docstrings, whole rooms at once, formulas without a network."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

_SECTIONS = re.compile(r"(Arguments|Attributes|Returns|Raises|Source|Shapes):\s*(.*)")
SOURCES = Path(__file__).resolve().parents[2] / "src"
_FORMULA = re.compile(r"(forward|backward)  +\S")  # the beginning of equations that stand in columns
_LITERAL = re.compile(r"(``.+?``|`[^`]+`)")


def setup(app: Any) -> dict[str, Any]:
    app.connect("source-read", with_rooms)
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("autodoc-skip-member", skipped)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    return {"parallel_read_safe": True}


def with_rooms(app: Any, page: str, source: list[str]) -> None:
    """What changes as the house grows is listed when the pages are read.

    ``@modules NAME …`` becomes the reference of these modules, and of every module in those that are rooms;
    ``@pages PATTERN …`` the list of the pages there are.
    """
    source[0] = re.sub(
        r"^@modules (.+)$",
        lambda line: "\n".join(_reference(module) for name in line[1].split() for module in modules(name)),
        source[0],
        flags=re.MULTILINE,
    )
    source[0] = re.sub(
        r"^@pages (.+)$",
        lambda line: "\n".join(
            str(path.relative_to(app.srcdir).with_suffix(""))
            for pattern in line[1].split()
            for path in sorted(Path(app.srcdir).glob(pattern))
        ),
        source[0],
        flags=re.MULTILINE,
    )


def modules(name: str) -> list[str]:
    """The module, or the modules of the room, that define anything, by their full names."""
    place = SOURCES.joinpath(*name.split("."))
    files = [*place.parent.glob(f"{place.name}.py"), *sorted(place.rglob("*.py"))]
    defining = (ast.FunctionDef, ast.ClassDef)
    found = [file for file in files if any(isinstance(node, defining) for node in ast.parse(file.read_bytes()).body)]
    return [".".join(file.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__") for file in found]


def _reference(module: str) -> str:
    return f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"


def inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(str(tex2mathml(node.astext(), as_block=False)))
    raise nodes.SkipNode


def block_math(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def skipped(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """A named tuple's fields say nothing but their number; what they hold stands in the comment beside them."""
    if (getattr(member, "__doc__", None) or "").startswith("Alias for field number"):
        return True
    return None


def as_rst(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Sections become lists, indented blocks are shown as they are written, and no sign is read as markup."""
    done: list[str] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        section = _SECTIONS.fullmatch(line)
        if section and section[2]:
            done += ["", f"**{section[1]}:** {_escaped(section[2])}"]
            position += 1
        elif section:
            block, position = _indented(lines, position + 1)
            done += ["", f"**{section[1]}**", "", *_items(block, section[1]), ""]
        elif (line.startswith(" ") and not (done and done[-1].strip())) or _FORMULA.match(line):
            block, position = _indented(lines, position)
            done += ["", "::", "", *(f"   {each}" for each in block), ""]
        else:
            paragraph = []
            while position < len(lines) and lines[position].strip() and not _SECTIONS.fullmatch(lines[position]):
                paragraph.append(lines[position].strip())
                position += 1
            done.append(_escaped(" ".join(paragraph)))
            position += not paragraph
    lines[:] = done


def _indented(lines: list[str], start: int) -> tuple[list[str], int]:
    """The indented block that begins at ``start``, and where it ends."""
    end = start
    while end < len(lines) and _FORMULA.match(lines[end]):
        end += 1
    while end < len(lines) and (lines[end].startswith(" ") or not lines[end].strip()):
        end += 1
    block = lines[start:end]
    while block and not block[-1].strip():
        block.pop()
    return block, end


def _items(block: list[str], title: str) -> list[str]:
    """``name: text`` at the first level of a section as a list; other text as a paragraph."""
    level = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
    listed = title in ("Arguments", "Attributes", "Raises")
    done: list[tuple[str, str]] = []
    for line in block:
        text, begins = line.strip(), len(line) - len(line.lstrip()) == level
        item = re.fullmatch(r"([\w*, ]+): (.*)", text) if listed and begins else None
        if item:
            done.append((f"- ``{item[1]}``: ", item[2]))
        elif done:
            done[-1] = (done[-1][0], f"{done[-1][1]} {text}")
        else:
            done.append(("", text))
    return [mark + _escaped(text) for mark, text in done]


def _escaped(text: str) -> str:
    parts = _LITERAL.split(text)
    parts[::2] = [re.sub(r"([\\*|`]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part.strip('`')}``" for part in parts[1::2]]
    return "".join(parts)
