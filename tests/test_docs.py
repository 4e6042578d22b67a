"""What the documentation says is what happens: blocks run, rooms and layers have their place, links lead somewhere."""

from __future__ import annotations

import re

import pytest

from pages import LANGUAGES, ROOT, agrees, blocks, pages, run_page
from pellucid.layers import layers


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_does_what_the_page_says(page, tmp_path):
    text = page.read_text("utf-8")
    assert run_page(page, tmp_path) == text, "see tests/pages.py for how to write what the blocks print"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page):
    languages = {block.language for block in blocks(page.read_text("utf-8"))}
    assert {each for each in languages if not each.startswith("{")} <= LANGUAGES


@pytest.mark.parametrize("page", [page for page in pages() if page.parent == ROOT], ids=lambda page: page.name)
def test_links_of_pages_outside_the_docs(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_room_has_its_reference():
    named = re.findall(r"^@modules (.+)$", "".join(page.read_text("utf-8") for page in pages()), re.MULTILINE)
    documented = {module.split(".")[1] for names in named for module in names.split()}
    rooms = {path.stem for path in (ROOT / "src/pellucid").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - documented == {"__init__", "__main__", "__pycache__", "cli"} & rooms


def test_every_layer_has_its_place_in_the_docs():
    text = "".join(page.read_text("utf-8") for page in pages() if page.parent != ROOT)
    mine = {layers.find(name) for name in layers if layers.find(name).__module__.startswith("pellucid.")}
    assert {cls.__name__ for cls in mine if f":pyobject: {cls.__name__}\n" not in text} == set()


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("J = 0.5\n", "J = 0.5", True),
        ("J = 0.5\n", "J = 0.51", False),
        ("J = …\ndone", "J = 0.51  \ndone\n", True),
        ("J = …\ndone", "J = 0.51\nfailed", False),
        ("a.c", "abc", False),
    ],
)
def test_expected_texts(expected, got, same):
    assert agrees(expected, got) is same


def test_a_wrong_page_is_found(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("```python\nprint(2)\n```\n\n```text\n3\n```\n", "utf-8")
    assert run_page(path, tmp_path) == "```python\nprint(2)\n```\n\n```text\n2\n```\n"
    path.write_text("```python\n1 / 0\n```\n", "utf-8")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_page(path, tmp_path)
    path.write_text("<!-- raises ValueError -->\n```python\nint('1')\n```\n", "utf-8")
    with pytest.raises(AssertionError, match="should have raised"):
        run_page(path, tmp_path)
    path.write_text("```console\n$ rm -rf everything\n```\n", "utf-8")
    with pytest.raises(AssertionError, match="only pellucid's own"):
        run_page(path, tmp_path)
