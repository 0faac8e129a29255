"""The report as a place to work: addresses, search, pins, copies, links to examples, specs compared."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chromium import needs_chromium, running_browser
from playwright.sync_api import Browser, Page
from report_store import Design, write_synthetic

from store import open_store
from store.report import write_report

pytestmark = needs_chromium
TARGETS = ["label", "label+explanation"]
CLIPBOARD = ["clipboard-read", "clipboard-write"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two experiments, whose specs differ in a seed, a contrast and a factor's levels."""
    root = tmp_path_factory.mktemp("work") / "store"
    sizes = {"examples": 6, "layers": 5, "steps": 5}
    contrasts = [{"factor": "target", "baseline": "label"}]
    write_synthetic(root, Design({"target": TARGETS, "rank": [8, 16]}, contrasts=contrasts, **sizes))
    write_synthetic(root, Design({"target": TARGETS, "rank": [4]}, name="other", seeds=(0,), **sizes))
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> Path:
    return write_report(root, root.parent / "report.html", None)


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Give a function that opens an address; no script may fail."""
    complaints: list[str] = []
    context = browser.new_context(permissions=CLIPBOARD)

    def show(file: Path, address: str = "") -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(file.as_uri() + address)
        page.wait_for_selector("#provenance")
        return page

    yield show
    context.close()
    assert complaints == []


def address(page: Page) -> str:
    return str(page.evaluate("location.hash"))


def top(page: Page, section: str) -> float:
    """How far a section's head is from the window's."""
    page.wait_for_timeout(300)  # charts are drawn once their width is known
    return float(page.evaluate(f"document.getElementById('{section}').getBoundingClientRect().top"))


def clipped(page: Page, kind: str) -> bytes:
    """What the clipboard holds of a kind."""
    read = f"navigator.clipboard.read().then((items) => items[0].getType('{kind}'))"
    whole = f"{read}.then((blob) => blob.arrayBuffer()).then((buffer) => [...new Uint8Array(buffer)])"
    return bytes(page.evaluate(whole))


def conditions(page: Page, section: str = "matrix") -> list[str]:
    return page.locator(f"#{section} tbody th").all_inner_texts()


def at_synthetic(page: Page) -> Page:
    """The page with the experiment of four conditions, whichever comes first."""
    if page.inner_text("#title") != "synthetic":
        page.select_option("#experiment", label="synthetic")
    return page


def test_what_is_shown_is_in_the_address_and_comes_back_with_it(
    show: Callable[..., Page], report: Path
) -> None:
    page = at_synthetic(show(report))
    page.click("summary:has-text('rank')")
    page.uncheck(".filter[open] label:has-text('16') input")
    page.fill("#search", "explan")
    page.locator("#filter-count:has-text('1 of 4')").wait_for()
    page.select_option("[data-choice='training']", index=1)
    kept = conditions(page)
    chosen = page.input_value("[data-choice='training']")
    assert kept == ["target=label+explanation · rank=8"]
    again = show(report, address(page))
    assert conditions(again) == kept and again.input_value("#search") == "explan"
    assert again.input_value("[data-choice='training']") == chosen
    assert again.inner_text("#title") == "synthetic"
    again.reload()
    again.wait_for_selector("#provenance")
    assert conditions(again) == kept
    again.click("text=Show all")
    assert "hide" not in address(again) and "search" not in address(again) and len(conditions(again)) == 4


def test_a_section_of_the_list_keeps_what_is_shown(show: Callable[..., Page], report: Path) -> None:
    page = at_synthetic(show(report))
    page.fill("#search", "rank=16")
    page.locator("#filter-count:has-text('2 of 4')").wait_for()
    page.click("#contents a:has-text('Confusion')")
    page.wait_for_function("location.hash.startsWith('#confusion?')")
    assert "search=rank%3D16" in address(page) and len(conditions(page)) == 2
    linked = show(report, address(page))
    assert abs(top(linked, "confusion")) < 300


@pytest.mark.parametrize(
    "text", ["#nothing?hide=x%3Dy&pin=z&example=q&choose+training=none", "#%00?search=zzz", "#x?%"]
)
def test_an_address_of_another_report_is_taken_as_far_as_it_goes(
    show: Callable[..., Page], report: Path, text: str
) -> None:
    page = show(report, text)
    assert page.locator("#matrix").count() == 1


def test_two_conditions_are_pinned_by_keys_and_stand_side_by_side(
    show: Callable[..., Page], report: Path, root: Path
) -> None:
    page = at_synthetic(show(report))
    assert page.locator("#pair").count() == 0
    for name in ("target=label · rank=16", "target=label+explanation · rank=8"):
        page.focus(f"#matrix [data-pin][aria-label='Pin {name}, to compare']")
        page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    header = page.locator("#pair table").first.locator("thead th").all_inner_texts()
    assert header == ["Factor", "target=label · rank=16", "target=label+explanation · rank=8"]
    accuracy = open_store(root)["synthetic"].ablation.means("correct")["mean"]
    shown = [float(100 * accuracy.sel(level=level)) for level in accuracy["level"].values[[1, 2]]]
    row = (
        page.locator("#pair tr:has(th:text-matches('^accuracy', 'i'))").first.locator("td").all_inner_texts()
    )
    assert [float(row[0].split()[0]), float(row[1].split()[0])] == pytest.approx(shown, abs=0.06)
    assert float(row[2].replace("−", "-")) == pytest.approx(shown[1] - shown[0], abs=0.06)
    assert page.locator("#confusion figcaption").all_inner_texts()[:2] == header[1:]
    assert page.locator("#training .legend li").all_inner_texts()[:2] == header[1:]
    again = show(report, address(page))
    assert again.locator("#pair table").first.locator("thead th").all_inner_texts() == header
    again.click("#matrix [data-pin][aria-pressed='true'] >> nth=0")
    assert again.locator("#pair").count() == 0


def test_a_third_pin_says_whose_place_it_takes(show: Callable[..., Page], report: Path) -> None:
    page = at_synthetic(show(report))
    for place in (0, 1):
        page.click(f"#matrix [data-pin='{place}']")
    assert page.locator("#matrix [role='status']").count() == 0
    page.click("#matrix [data-pin='2']")
    said = page.inner_text("#matrix [role='status']")
    assert "target=label · rank=8" in said and "no longer" in said
    pinned = page.locator("#matrix [data-pin][aria-pressed='true']")
    assert [pin.get_attribute("data-pin") for pin in pinned.all()] == ["1", "2"]
    page.click("#matrix [data-pin='2']")
    assert page.locator("#matrix [role='status']").count() == 0


def test_the_matrix_counts_what_the_filters_leave(show: Callable[..., Page], report: Path) -> None:
    page = at_synthetic(show(report))
    assert "complete: 8" in page.inner_text("#matrix .states")
    page.fill("#search", "rank=16")
    page.locator("#filter-count:has-text('2 of 4')").wait_for()
    assert "complete: 4" in page.inner_text("#matrix .states")


def test_a_figure_is_copied_as_a_drawing_and_as_a_picture(show: Callable[..., Page], report: Path) -> None:
    page = at_synthetic(show(report))
    figure = page.locator("#training figure.chart").first
    figure.scroll_into_view_if_needed()
    figure.locator("[data-copy='SVG']").click()
    figure.get_by_text("copied").wait_for()
    drawing = clipped(page, "text/plain").decode()
    parsed = ElementTree.fromstring(drawing)
    texts = ["".join(node.itertext()) for node in parsed.iter("{http://www.w3.org/2000/svg}text")]
    assert figure.locator("figcaption").inner_text() in texts and "target=label · rank=8" in texts
    lines = [
        node
        for node in parsed.iter("{http://www.w3.org/2000/svg}path")
        if node.get("stroke", "").startswith("rgb")
    ]
    assert len(lines) >= 8 and "class=" not in drawing and "var(" not in drawing

    figure.locator("[data-copy='PNG']").click()
    figure.locator(".copy:has([data-copy='PNG']) .told:has-text('copied')").wait_for()
    picture = clipped(page, "image/png")
    width, height = struct.unpack(">II", picture[16:24])
    assert picture[:4] == b"\x89PNG" and width > 600 and height > 400


def test_a_table_is_copied_as_csv(show: Callable[..., Page], report: Path) -> None:
    page = at_synthetic(show(report))
    page.locator("#results [data-copy='CSV']").click()
    page.locator("#results .told:has-text('copied')").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][0] == "Condition" and rows[1][0] == "target=label · rank=8" and len(rows) == 7
    assert [len(row) for row in rows] == [len(rows[0])] * len(rows)


def test_without_a_clipboard_copies_become_files(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete Navigator.prototype.clipboard")
    page.goto(report.as_uri())
    page.wait_for_selector("#provenance")
    figure = page.locator("#training figure.chart").first
    figure.scroll_into_view_if_needed()
    for name, ending in (("SVG", ".svg"), ("PNG", ".png")):
        with page.expect_download() as caught:
            figure.locator(f"[data-copy='{name}']").click()
        assert caught.value.suggested_filename.endswith(ending)
    page.close()


def test_a_link_leads_to_an_example(show: Callable[..., Page], report: Path) -> None:
    page = at_synthetic(show(report))
    page.click("#lens [aria-label='Next example']")
    page.click("#lens [aria-label='Next example']")
    chosen = page.locator("#lens [data-choice$='-example'] option:checked").inner_text()
    page.click("#lens .permalink a")
    page.locator("#lens .permalink:has-text('link copied')").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    link = page.get_attribute("#lens .permalink a", "href")
    assert link is not None and link.startswith("#lens?") and copied == report.as_uri() + link
    linked = show(report, link)
    assert linked.locator("#lens [data-choice$='-example'] option:checked").inner_text() == chosen
    assert abs(top(linked, "lens")) < 300 and linked.locator("#lost").count() == 0


def test_without_a_clipboard_a_link_is_shown_to_be_copied(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete Navigator.prototype.clipboard")
    page.goto(report.as_uri())
    page.wait_for_selector("#provenance")
    at_synthetic(page).click("#lens .permalink a")
    field = page.locator("#lens .permalink input")
    href = page.get_attribute("#lens .permalink a", "href")
    assert field.input_value() == f"{report.as_uri()}{href}"
    assert page.evaluate("document.activeElement.selectionEnd") == len(field.input_value())
    page.close()


def test_what_an_address_names_and_the_report_lacks_is_said(show: Callable[..., Page], report: Path) -> None:
    page = show(report, "#lens?experiment=synthetic&example=example-99&pin=nobody&hide=rank%3D99")
    said = page.inner_text("#lost")
    assert all(name in said for name in ("“example-99”", "“nobody”", "rank=99"))
    assert page.locator("#lens [data-choice$='-example']").count() == 1  # the rest is shown
    assert "“other-store”" in show(report, "#lens?experiment=other-store").inner_text("#lost")
    page = show(report, "#lens?experiment=synthetic&example=example-1&pin=" + "target%3Dlabel%2C%20rank%3D8")
    assert page.locator("#lost").count() == 0, page.inner_text("#lost")


def test_how_sure_names_layers_only_where_there_are_some(
    show: Callable[..., Page], tmp_path: Path, report: Path
) -> None:
    words = at_synthetic(show(report)).locator("#short tbody tr")
    for row in words.all():
        _, layers, sure = row.locator("td").all_inner_texts()
        assert ("no layers at p < 0.05" in sure) == ("entropy in layers" not in layers)
    contrasts = [{"factor": "target", "baseline": "label"}]
    design = Design({"target": TARGETS}, contrasts=contrasts, examples=6, layers=3, probe=False)
    root = write_synthetic(tmp_path / "store", design)
    sure = show(write_report(root, tmp_path / "page.html")).inner_text("#short tbody td:last-child")
    assert "layers" not in sure and sure.startswith("accuracy p ") and ", corrected;" in sure


def test_the_specs_of_two_experiments_are_compared(show: Callable[..., Page], report: Path) -> None:
    page = at_synthetic(show(report))
    page.select_option("[data-choice='spec']", "other")
    rows = {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in page.locator("#provenance tbody tr").all()
    }
    assert rows["seeds"] == ["[0, 1]", "[0]"]
    assert rows["contrasts"][1] == "[]"
    assert "name" not in rows
    linked = show(report, address(page))
    assert linked.locator("#provenance tbody tr").count() == len(rows)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_known_barriers(browser: Browser, report: Path, scheme: str) -> None:
    """By the rules of axe-core, two conditions pinned and all that is folded open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector("#provenance")
    at_synthetic(page)
    for place in (0, 3):
        page.click(f"#matrix [data-pin='{place}']")
    page.evaluate("document.querySelectorAll('main details').forEach((own) => { own.open = true; })")
    page.wait_for_timeout(300)
    violations = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in violations] == []
    context.close()
