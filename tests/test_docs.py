"""Links of every page lead somewhere, and pages that name files of this project name files that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# A path in code font; an ellipsis, a star, a name in capitals or a missing suffix makes it an example.
TOPS = "engine|specs|store|kernels|tests|benchmarks|docs"
NAMED = re.compile(rf"`((?:{TOPS})/[a-z0-9_./-]+\.(?:py|md|toml|json|ipynb))`")
WITHOUT_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page: Path) -> Iterator[str]:
    """Give the links of a page that lead nowhere in this repository."""
    for link in LINK.findall(WITHOUT_CODE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    tests = {file.name for file in ROOT.glob("tests/**/test_*.py")}
    assert [name for name in NAMED.findall(text) if not (ROOT / name).exists()] == []
    assert [name for name in re.findall(r"`(test_\w+\.py)`", text) if name not in tests] == []


def test_every_page_of_the_documentation_can_be_reached() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")]:
        others = "".join(other.read_text("utf-8") for other in PAGES if other != page)
        assert re.search(rf"\((docs/)?{page.name}[)#]", others), page.name
        assert f": {page.name}\n" in menu, page.name
