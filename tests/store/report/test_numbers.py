"""Numbers of the report at any size: none is shown as 0 that is not, and ticks differ, in full view."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, running_browser
from playwright.sync_api import Browser, Page
from report_store import Design, write_synthetic

from store.report.collect import collect
from store.report.encode import rounded
from store.report.page import page as written

pytestmark = needs_chromium
TARGETS = ["label", "label+explanation"]
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
# The texts of a chart: those of its vertical axis, with where they begin, and its title.
CHART = """(figure) => {
  const svg = figure.querySelector("svg.chart, .picture svg");
  const left = svg.getBoundingClientRect().left;
  const texts = [...svg.querySelectorAll(".axes text")];
  const ticks = texts.filter((text) => text.getAttribute("text-anchor") === "end");
  return {
    ticks: ticks.map((text) => [text.textContent, text.getBoundingClientRect().left - left]),
    title: texts.filter((text) => text.classList.contains("axis-title")).at(-1).textContent,
  };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The data of a report, to be scaled."""
    design = Design(
        {"target": TARGETS}, contrasts=[{"factor": "target", "baseline": "label"}], examples=6, layers=5,
        interventions=[{"name": "off", "kind": "mask"}],
    )  # fmt: skip
    return collect(write_synthetic(tmp_path_factory.mktemp("numbers") / "store", design))


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Page]]:
    opened: list[Page] = []

    def show(content: dict[str, Any]) -> Page:
        (tmp_path / "report.html").write_text(written(content), "utf-8")
        opened.append(page := browser.new_page())
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("#provenance")
        page.wait_for_timeout(300)  # charts are drawn once their width is known
        return page

    yield show
    for page in opened:
        page.close()


def scaled(value: Any, factor: float, shift: float = 0.0) -> Any:
    """Give numbers of a report times a factor, rounded as it rounds them, but for what is added to them."""
    if isinstance(value, list):
        return [scaled(part, factor, shift) for part in value]
    return None if value is None else rounded(value * factor) + shift


def with_contrasts(data: dict[str, Any], factor: float, shift: float = 0.0) -> dict[str, Any]:
    """Give a report whose contrasts and curves by layer are of another size."""
    (own,) = data["experiments"]
    changed = ("difference", "low", "high")
    rows = []
    for row in own["contrasts"]["rows"]:
        outcomes = {
            name: {key: scaled(value, factor) if key in changed else value for key, value in known.items()}
            for name, known in row["outcomes"].items()
        }
        layers = {
            name: {
                key: scaled(value, factor, shift) if key in changed else value for key, value in known.items()
            }
            for name, known in row["layers"].items()
        }
        rows.append(row | {"outcomes": outcomes, "layers": layers})
    curves = [
        curve | {name: scaled(curve[name], factor, shift) for name in ("mean", "low", "high")}
        for curve in own["layers"]["curves"]
    ]
    experiment = own | {
        "contrasts": own["contrasts"] | {"rows": rows}, "layers": own["layers"] | {"curves": curves},
    }  # fmt: skip
    return data | {"experiments": [experiment]}


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", "").rstrip("*, ]").lstrip("["))


@pytest.mark.parametrize(
    ("factor", "shift"),
    [(1, 0), (1e-2, 0), (1e-5, 0), (1e-9, 0), (1e4, 0), (1e8, 0), (1e-6, 2.5), (1e-4, -7)],
)
def test_ticks_are_in_full_view_and_tell_neighbours_apart(
    data: dict[str, Any], show: Callable[[dict[str, Any]], Page], factor: float, shift: float
) -> None:
    page = show(with_contrasts(data, factor, shift))
    # Differences are drawn with 0, far from which there is nothing to tell apart.
    sections = ("#layers",) if shift else ("#entropy", "#layers")
    figures = page.locator(", ".join(f"{section} figure.chart" for section in sections)).all()
    assert len(figures) == 2 * len(sections)
    for figure in figures:
        drawn = figure.evaluate(CHART)
        texts = [text for text, _ in drawn["ticks"]]
        assert len(texts) >= 3 and len(set(texts)) == len(texts), texts
        assert all(left >= 0 for _, left in drawn["ticks"]), drawn
        power = re.search(r"\(10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", drawn["title"])
        unit = 10.0 ** int(power[1].translate(RAISED)) if power else 1.0
        assert drawn["title"].endswith("nat)")
        steps = [unit * (number(b) - number(a)) for a, b in pairwise(texts)]
        assert steps == pytest.approx([steps[0]] * len(steps), rel=0.01)
        assert 0.1 * factor < abs(steps[0]) < 10 * factor  # of the size of what is drawn


@pytest.mark.parametrize("factor", [1, 1e-2, 1e-5, 1e-8])
def test_no_difference_is_shown_as_0_that_is_not(
    data: dict[str, Any], show: Callable[[dict[str, Any]], Page], factor: float
) -> None:
    content = with_contrasts(data, factor)
    (row,) = content["experiments"][0]["contrasts"]["rows"]
    page = show(content)
    tables = page.locator("#contrasts table").all()
    assert len(tables) == len(row["outcomes"])
    for table, (name, own) in zip(tables, row["outcomes"].items(), strict=True):
        scale = 100 if name.endswith("correct") else 1
        difference, interval = table.locator("tbody td").all_inner_texts()[:2]
        # Two significant digits at the least, so half a step of the second is 5 % of the first at the most.
        assert number(difference) == pytest.approx(scale * own["difference"], rel=0.05, abs=1e-13)
        ends = [number(end) for end in interval.split(", ")]
        assert ends == pytest.approx([scale * own[end] for end in ("low", "high")], rel=0.05, abs=1e-13)
    entropy = row["layers"]["entropy"]
    largest = max(entropy["difference"][0], key=abs)
    (said,) = re.findall(r"largest (\S+) nat", page.inner_text("#short li:first-child"))
    assert number(said) == pytest.approx(largest, rel=0.05)
    page.locator("#entropy svg[role='img']").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    (read,) = re.findall(r": (\S+) nat", page.locator("#entropy .readout").first.inner_text())
    assert number(read) == pytest.approx(entropy["difference"][0][3], rel=0.05, abs=1e-13)


def test_what_is_0_but_for_rounding_is_0(
    data: dict[str, Any], show: Callable[[dict[str, Any]], Page]
) -> None:
    page = show(with_contrasts(data, 1e-16))
    shown = [
        cell for row in page.locator("#contrasts tbody tr").all() for cell in row.locator("td").all()[:1]
    ]
    assert {cell.inner_text() for cell in shown} <= {"0.0", "0.00", "0.000"}


def test_maps_of_small_effects_have_digits_of_one_scale(
    data: dict[str, Any], show: Callable[[dict[str, Any]], Page]
) -> None:
    (own,) = data["experiments"]
    entries = own["interventions"]["entries"]
    (condition, *_) = entries[0]["conditions"]
    small = scaled(condition["entropy"]["effect"], 1e-4)
    changed = condition | {"entropy": condition["entropy"] | {"effect": small}}
    entry = entries[0] | {"conditions": [changed]}
    page = show(
        data | {"experiments": [own | {"interventions": own["interventions"] | {"entries": [entry]}}]}
    )
    cells = page.locator("#interventions table.heat td").all_inner_texts()
    flat = [value for row in small for value in row]
    most = max(map(abs, flat))
    assert [number(cell) for cell in cells] == pytest.approx(flat, abs=0.05 * most)
    assert len({len(cell.strip("*").lstrip("+−")) for cell in cells}) == 1
