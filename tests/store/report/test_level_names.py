"""Levels by name: as in the spec wherever they stand, with their factors; contrasts that wait for cells."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from chromium import needs_chromium, running_browser
from commands import engine
from playwright.sync_api import Browser, Page
from report_store import Design, write_synthetic

from store import open_store
from store.analysis.untrained import _named
from store.report import write_report

SIZES = {"examples": 6, "layers": 3, "steps": 3}
CHATS = Design(
    {"rank": [4, 16], "chat": [False, True]},
    contrasts=[{"factor": "rank", "baseline": 4}, {"factor": "chat", "baseline": False}],
    **SIZES,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("named") / "store", CHATS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


def test_booleans_are_written_as_in_the_spec(root: Path) -> None:
    """By analyses, by commands and in what the page holds."""
    tree = open_store(root)["synthetic"]
    assert "True" not in json.dumps(engine("results", root).output)
    means = tree.ablation.means("correct")
    assert [str(name) for name in means["condition" if "condition" in means.coords else "level"].values] == [
        f"rank={rank}, chat={chat}" for rank in (4, 16) for chat in ("false", "true")
    ]
    page = write_report(root, root.parent / "page.html").read_text("utf-8")
    (text,) = re.findall(r'id="report-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    data = json.loads(text)
    told = json.dumps(data["experiments"][0]["conditions"]) + json.dumps(data["experiments"][0]["contrasts"])
    assert "chat=true" in told and '"true"' in told and "True" not in told
    assert [factor["levels"] for factor in data["experiments"][0]["factors"]] == [
        ["4", "16"],
        ["false", "true"],
    ]


@needs_chromium
def test_conditions_are_named_by_the_factors_that_vary(root: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(write_report(root, root.parent / "page.html").as_uri())
    page.wait_for_selector("#provenance")
    names = page.locator("#matrix tbody th").all_inner_texts()
    assert names == [f"rank={rank} · chat={chat}" for rank in (4, 16) for chat in ("false", "true")]
    with page.expect_download() as caught:
        page.click('[data-csv="results"]')
    text = caught.value.path().read_text("utf-8")
    assert {row["chat"] for row in csv.DictReader(io.StringIO(text, newline=""))} == {"false", "true"}


@needs_chromium
@pytest.mark.parametrize("address", ["#x=%ZZ", "#%", "#results?hide=%ZZ&pin=%", "#results?%E0%A4%A"])
def test_a_broken_address_shows_the_whole_report(root: Path, browser: Browser, address: str) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    file = write_report(root, root.parent / "page.html").as_uri()

    def is_whole(page: Page) -> None:
        page.wait_for_selector("#provenance", timeout=20_000)
        assert page.locator("#matrix tbody tr").count() and not complaints, complaints

    page.goto(file + address)
    is_whole(page)
    page.evaluate(f"location.hash = {json.dumps(address)} + '%'")
    page.wait_for_timeout(200)
    is_whole(page)


def test_references_are_told_apart_by_what_tells_all_of_them_apart() -> None:
    """A factor that only some of them hold (cells of the others are still to come) is no part of names."""
    cells = [(4, False, 0), (4, True, 0), (16, True, 0)]
    index = pd.MultiIndex.from_tuples(cells, names=["rank", "chat", "seed"])
    known = {cell: ({"accuracy": 0.5}, cell[1]) for cell in cells}
    names = [name for name, _ in _named(index, "untrained model", known)]
    assert names == ["untrained model, chat=false", "untrained model, chat=true"]


WAITING = {
    "the baseline": ((0, 1), "chat: no cell of false has results yet"),
    "the others": ((2, 3), "chat: no cell of another level has results yet"),
}


@pytest.mark.parametrize("case", WAITING)
def test_a_level_without_results_is_not_said_to_be_unknown(case: str, tmp_path: Path) -> None:
    pending, expected = WAITING[case]
    contrasts = [{"factor": "chat", "baseline": False}]
    design = Design({"chat": [False, True]}, contrasts=contrasts, pending=pending, **SIZES)
    root = write_synthetic(tmp_path / "store", design)
    page = write_report(root, tmp_path / "page.html").read_text("utf-8")
    assert expected in page and "no level" not in page and "there is only one condition" not in page
    output = engine("results", root).output
    assert expected in output and "no level" not in output and "there is only one" not in output


def test_a_level_is_named_where_other_contrasts_have_results(tmp_path: Path) -> None:
    factors = {"rank": [4, 16], "chat": [False, True]}
    contrasts = [{"factor": "rank", "baseline": 4}, {"factor": "chat", "baseline": True}]
    waiting = [number for number, _ in enumerate([*range(8)]) if number % 4 >= 2]  # all with chat
    root = write_synthetic(tmp_path / "store", Design(factors, contrasts=contrasts, pending=waiting, **SIZES))
    page = write_report(root, tmp_path / "page.html").read_text("utf-8")
    assert "chat: no cell of true has results yet" in page and "no level" not in page
