"""The report in a real browser: clicks, keys, downloads, hostile text, contrast, stores that lack things."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import needs_chromium, running_browser
from facts import told
from playwright.sync_api import Browser, Page
from report_store import LABELS, WORDS, Design, write_synthetic

import store
from engine.planning.changes import Entry, ModelShape
from engine.planning.sweeps import expand
from specs.checks.interventions import intervention_problems
from specs.tables.interventions import Intervention
from specs.toml.convert import structure
from store import open_store
from store.analysis import intervention_effects, mediation, patching_grid
from store.report import write_report

pytestmark = needs_chromium

TARGETS = ["label", "label+explanation"]
GRID = {
    "name": "grid", "kind": "patch", "donor": "own", "input": "other label", "grid": True,
    "positions": ["prompt_end", -2, -6],
}  # fmt: skip
HOSTILE = """</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'"&\u2028\u202e"""
SHOWN = HOSTILE.replace("\u2028", r"\u2028").replace("\u202e", r"\u202e")
# A colour as the screen has it, and the contrast of two (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const pen = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
    .getContext("2d", {willReadFrequently: true});
  const light = (colour) => {
    pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let own = node; own; own = own.parentElement) {
      const colour = getComputedStyle(own).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
  };
  const found = new Map();
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (!node.checkVisibility() || node.closest("script, noscript, .skip")) continue;
    const style = getComputedStyle(node);
    const text = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    found.set(`${text} on ${behind(node)}`, [text, behind(node)]);
  }
  return [...found].map(([name, pair]) => {
    const [a, b] = pair.map(light).sort((x, y) => y - x);
    return [name, (a + 0.05) / (b + 0.05)];
  });
}"""

# A cell of every share and sign.
SHADES = """() => {
  for (const sign of ["none", "up", "down"]) for (let share = 0; share <= 100; share += 0.5) {
    const cell = document.createElement("b");
    Object.assign(cell, { className: `shaded ${sign}`, textContent: share });
    cell.style.setProperty("--share", `${share}%`);
    document.body.append(cell);
  }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = Design(
        {"target": TARGETS, "rank": [8, 16]},
        contrasts=[{"factor": "target", "baseline": "label"}],
        examples=6,
        layers=5,
        failed=(7,),
        interventions=[
            {"name": "off", "kind": "mask", "width": [1, 2]},
            {"name": "heads", "kind": "heads"},
            GRID,
        ],
    )
    return write_synthetic(tmp_path_factory.mktemp("page") / "store", design)


@pytest.fixture(scope="module")
def report(store_root: Path) -> Path:
    return write_report(store_root, store_root.parent / "report.html")


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Give a function that opens a file; nothing may have been fetched, no script have failed."""
    contexts, requests, complaints = [], [], []

    def show(file: Path, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(file.as_uri())
        page.wait_for_selector("#provenance")
        return page

    yield show
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(("file:", "blob:"))] == []
    assert complaints == []


def rows(page: Page, section: str) -> list[str]:
    return page.locator(f"#{section} tbody th").all_inner_texts()


def download(page: Page, name: str) -> list[dict[str, str]]:
    with page.expect_download() as caught:
        page.click(f'[data-csv="{name}"]')
    text = caught.value.path().read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_filter_acts_on_all_sections(show: Callable[..., Page], report: Path) -> None:
    page = show(report)
    every = [f"target={target} · rank={rank}" for target in TARGETS for rank in (8, 16)]
    references = ["most frequent label", "uniform guess"]
    assert rows(page, "results") == [*every, *references] and rows(page, "matrix") == every
    page.click("summary:has-text('rank')")
    page.uncheck(".filter[open] label:has-text('16') input")
    kept = [every[0], every[2]]
    for section in ("matrix", "calibration"):
        assert rows(page, section) == kept
    assert rows(page, "results") == [*kept, *references]
    assert page.locator("#lens .panel").count() == 2
    assert page.locator("#confusion figcaption").all_inner_texts() == kept
    for section in ("layers", "saturation", "training"):
        assert page.locator(f"#{section} .legend li").all_inner_texts() == kept
    # The contrast over both ranks rests on cells that are hidden now; that within rank 8 is left.
    assert rows(page, "contrasts")[0] == "target: label+explanation against label (rank=8)"
    assert told(page.inner_text("#contrasts"), "2 contrasts", "filters hide")
    assert {row["rank"] for row in download(page, "results")} == {"8"}
    assert page.inner_text("#filter-count") == "2 of 4 conditions shown"
    page.click("text=Show all")
    assert rows(page, "results") == [*every, *references]


def test_downloads_hold_the_numbers_of_the_store(
    show: Callable[..., Page], report: Path, store_root: Path
) -> None:
    page = show(report)
    summary = open_store(store_root)["synthetic/summary"].to_dataset()
    accuracy = [row for row in download(page, "results") if row["metric"] == "accuracy"]
    for row in accuracy:
        expected = summary["accuracy"].sel(target=row["target"], rank=int(row["rank"])).mean()
        assert float(row["mean"]) == pytest.approx(float(expected), rel=1e-3)
    assert [row["state"] for row in download(page, "matrix")] == ["done"] * 7 + ["failed"]
    layers = download(page, "layers")
    assert {row["statistic"] for row in layers} == {"entropy", "kl_final", "max_prob", "watch_mass"}
    assert len(download(page, "entropy")) == 3 * 5 * 2  # contrasts × layers × positions
    assert len(download(page, "lens")) == 4 * 6 * 5 * 2  # conditions × examples × layers × positions


def test_cells_of_layers_and_tokens_speak_to_keys_and_pointer(
    show: Callable[..., Page], report: Path, store_root: Path
) -> None:
    page = show(report)
    probe = open_store(store_root)["synthetic/probe"].to_dataset()
    own = probe.sel(target="label", rank=8, seed=0).isel(example=0)
    first = page.locator("#lens td[tabindex='0']")
    first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    detail = page.inner_text("#lens .detail")
    here = own.isel(layer=-2, position=1)
    assert detail.startswith("Layer 3, label\n")
    assert f"{here['entropy'].item():.2f} nat" in detail
    token = page.inner_text("#lens td[tabindex='0']")
    texts = [text.replace(" ", "·") for text in [*LABELS, *WORDS]]
    assert token == texts[here["top_id"].values[0]]
    table = page.locator("#lens .detail .mini").nth(1).locator("td:nth-child(2)").all_inner_texts()
    assert [int(rank) for rank in table] == here["watch_rank"].values.tolist()
    page.hover("#lens tbody tr:last-child td >> nth=0")
    assert page.inner_text("#lens .detail").startswith("Layer 0, prompt_end\n")
    page.select_option("[data-choice$='-mode']", "watch")
    shown = page.locator("#lens tbody tr:first-child td").all_inner_texts()[:5]
    ranks = own["watch_rank"].isel(layer=-1, position=0).values
    assert [int(rank) for rank in shown] == ranks.tolist()
    page.click("#lens [aria-label='Next example']")
    assert page.input_value("[data-choice$='-example']") == "1"


def test_charts_read_out_values_by_key(show: Callable[..., Page], report: Path, store_root: Path) -> None:
    page = show(report)
    page.locator("#layers .picture svg").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    read = page.inner_text("#layers .readout >> nth=0")
    probe = open_store(store_root)["synthetic/probe"].to_dataset()
    mean = probe["entropy"].sel(target="label", rank=8, layer=1, position="prompt_end").mean().item()
    assert read.startswith("layer 1") and f"target=label · rank=8: {mean:.2f} [" in " ".join(read.split())


def test_effects_of_interventions_are_read_by_layer_and_by_head(
    show: Callable[..., Page], report: Path, store_root: Path
) -> None:
    page = show(report)
    section = page.locator("#interventions")
    page.wait_for_selector("#interventions .picture svg")
    assert section.locator(".chart figcaption").all_inner_texts() == ["Single layers", "2 layers"]
    node = open_store(store_root)["synthetic"]
    found = intervention_effects(node, "off", "log_odds").sel(condition="target=label, rank=8")
    section.locator(".picture svg").nth(1).focus()
    page.keyboard.press("ArrowRight")
    read = " ".join(section.locator(".readout").nth(1).inner_text().split())
    effect = found["effect"].sel(intervention="off, layers 1-2").item()
    assert read.startswith("layers 1-2") and f"target=label · rank=8: {effect:+.2f}".replace("-", "−") in read
    shares = section.locator("table", has_text="Share of the difference")
    for outcome in ("correct", "log_odds"):
        page.select_option("[data-choice='intervention-outcome']", outcome)
        known = np.isfinite(mediation(node, "off", outcome)["share"].values)
        rows = np.where(known.any(axis=1), known.shape[1], 1)  # one where the whole difference may be 0
        assert shares.locator("tbody tr").count() == rows.sum()
        assert shares.get_by_text("the whole difference may be 0").count() == (rows == 1).sum()
    assert section.locator("table.heat tbody tr").count() == 4 + 3  # changes, of one condition
    page.select_option("[data-choice='intervention']", "heads")
    assert section.locator("table.heat tbody tr").count() == 4
    page.select_option("[data-choice='intervention-map']", label="target=label+explanation · rank=8")
    head = intervention_effects(node, "heads", "log_odds")["effect"].sel(
        condition="target=label+explanation, rank=8"
    )
    shown = section.locator("table.heat tbody tr").nth(2).locator("td").nth(1).inner_text().rstrip("*")
    value = head.sel(intervention="heads, layer 3, head 1").item()
    assert float(shown.replace("−", "-")) == pytest.approx(value, abs=0.006)
    heads = intervention_effects(node, "heads", "log_odds")["effect"]
    largest = section.locator("table:not(.heat) tbody tr").first.locator("td").nth(1).inner_text()
    strongest = heads.values.flat[np.abs(heads.values).argmax()]
    assert largest == f"{strongest:+.2f}".replace("-", "−")
    rows = [row for row in download(page, "interventions") if row["measure"] == "change in log_odds"]
    assert len(rows) == 4 * (7 + 16 + 12)
    page.click("summary:has-text('rank')")
    page.uncheck(".filter[open] label:has-text('16') input")
    assert page.locator("[data-choice='intervention-map'] option").count() == 2
    assert page.input_value("[data-choice='intervention']") == "heads"


def test_steering_is_read_by_layer_strength_and_direction(show: Callable[..., Page], tmp_path: Path) -> None:
    steer = {"name": "steer", "kind": "steer", "strength": [1.0, -0.5], "random_directions": 1}
    design = Design({"target": TARGETS[:1]}, examples=6, layers=4, interventions=[steer])
    root = write_synthetic(tmp_path / "store", design)
    page = show(write_report(root, tmp_path / "report.html"))
    section = page.locator("#interventions")
    heat = section.locator("table.heat")
    columns = ["1, mean difference", "-0.5, mean difference", "1, random 1", "-0.5, random 1"]
    assert heat.locator("thead th").all_inner_texts()[1:] == columns
    assert heat.locator("tbody th").all_inner_texts() == ["layer 1", "layer 2", "layer 3"]
    text = section.inner_text()
    assert (
        "multiples of the mean difference" in text
        and "random directions as long, added to the donor's" in text
    )
    found = intervention_effects(open_store(root)["synthetic"], "steer", "log_odds").isel(condition=0)
    shown = heat.locator("tbody tr").nth(1).locator("td").nth(1).inner_text().rstrip("*")
    value = found["effect"].sel(intervention="steer, layer 2, -0.5 × mean difference").item()
    assert float(shown.replace("−", "-")) == pytest.approx(value, abs=0.006)


def test_a_grid_is_read_by_layer_and_position(
    show: Callable[..., Page], report: Path, store_root: Path
) -> None:
    page = show(report)
    section = page.locator("#interventions")
    page.select_option("[data-choice='intervention']", "grid")
    page.select_option("[data-choice='intervention-outcome']", "logit_difference")
    heat = section.locator("table.heat")
    assert heat.locator("thead th").all_inner_texts()[1:] == ["prompt_end", "-2", "-6"]
    assert heat.locator("tbody th").all_inner_texts() == [f"layer {layer}" for layer in range(1, 5)]
    found = patching_grid(open_store(store_root)["synthetic"], "grid", "logit_difference")
    effect = found["effect"].sel(condition="target=label, rank=8").values
    shown = heat.locator("td").all_inner_texts()
    assert [float(text.rstrip("*").replace("−", "-")) for text in shown] == pytest.approx(
        effect.ravel(), abs=0.006
    )
    assert told(section.inner_text(), "residual stream for an example of another label", "put in")
    shares = section.locator("table", has_text="Share of the difference").locator("tbody tr")
    assert 4 <= shares.count() <= 4 * 12


def test_the_next_spec_is_copied_for_the_layers_and_positions_chosen(
    show: Callable[..., Page], report: Path, store_root: Path
) -> None:
    page = show(report, permissions=["clipboard-read", "clipboard-write"])
    page.select_option("[data-choice='intervention']", "grid")

    def copied() -> list[Intervention]:
        page.click("#interventions [data-copy='spec']")
        page.wait_for_selector("#interventions .next .told:has-text('copied')")
        text = page.evaluate("navigator.clipboard.readText()")
        assert text.split() == page.inner_text("#interventions pre.spec").split()
        tables = tomllib.loads(text)["interventions"]
        found, problems = structure(tables, list[Intervention], "interventions")
        assert not problems and not list(intervention_problems(found))
        return found

    strongest, finer = copied()
    assert [strongest.stream, finer.stream] == ["attention", "mlp"] and strongest.grid
    effect = np.abs(patching_grid(open_store(store_root)["synthetic"], "grid", "log_odds")["effect"])
    at = effect.isel(effect.argmax(("condition", "layer", "position")))
    layer, position = int(at["layer"]), str(at["position"].item())
    assert strongest.layers == [near for near in (layer - 1, layer, layer + 1) if 1 <= near <= 4]
    assert position == "prompt_end" and strongest.positions == [-3, -2, -1]
    assert (strongest.donor, strongest.input) == ("own", "other label")
    page.select_option("[data-choice='next-from']", "1")
    page.select_option("[data-choice='next-to']", "2")
    page.select_option("[data-choice='next-kind']", "heads")
    page.select_option("[data-choice='next-position']", label="-6")
    (paths,) = copied()
    assert (paths.kind, paths.sender, paths.layers) == ("path", "heads", [1, 2])
    assert paths.positions == [-8, -7, -6, -5, -4]
    changes = expand([Entry(paths, "", "own", paths.reads)], ModelShape(4, 4))
    assert len({change.name for change in changes if change.kind == "path"}) == 8
    page.select_option("[data-choice='next-position']", label="all of these")
    assert copied()[0].positions == GRID["positions"]
    page.select_option("[data-choice='intervention']", "off")
    assert {own.donor for own in copied()} == {"base"}
    odd = {'a "b"\\\n\x7f': ["\u2028", 1.5, True]}
    code = (Path(store.__file__).parent / "report/template/next_spec.js").read_text("utf-8")
    spelled = page.evaluate("([code, value]) => new Function(`${code}; return toml`)()(value)", [code, odd])
    assert tomllib.loads(f"key = {spelled}")["key"] == odd


def test_lenses_stand_side_by_side_where_there_is_a_tuned_one(
    show: Callable[..., Page], report: Path, tmp_path: Path
) -> None:
    design = Design(
        {"target": TARGETS, "lens": ["logit", "tuned"]},
        paths={"lens": "probe.lens"},
        examples=4,
        layers=3,
        positions=["prompt_end"],
    )
    page = show(write_report(write_synthetic(tmp_path / "store", design), tmp_path / "page.html"))
    section = page.locator("#tuned")
    assert page.locator("#contents a[href='#tuned']").count() == 1
    page.wait_for_selector("#tuned .picture svg")
    assert section.locator("figcaption").all_inner_texts() == [
        "KL to the final layer, position prompt_end",
        "Entropy, position prompt_end",
        "KL to the final layer by layer: target=label · lens=tuned",
        "KL to the final layer by step, mean over layers",
    ]
    page.select_option("[data-choice='tuned']", label="target=label+explanation · lens=tuned")
    legends = section.locator(".legend").all_inner_texts()
    assert legends[0].split("\n") == [
        "target=label+explanation · lens=logit",
        "target=label+explanation · lens=tuned",
    ]
    kl = open_store(tmp_path / "store")["synthetic/lens"].to_dataset()["translator_kl"].astype(float)
    section.locator(".picture svg").nth(2).focus()
    page.keyboard.press("ArrowRight")
    last = kl.sel(target="label+explanation").isel(step=-1, layer=0).mean().item()
    assert f"last step: {last:.2f} nat" in section.locator(".readout").nth(2).inner_text()
    assert len(download(page, "tuned")) == 2 * (2 * 2 + 30)
    page.click("summary:has-text('lens')")
    page.uncheck(".filter[open] label:has-text('logit') input")
    assert told(section.inner_text(), "filters hide", "logit lens")
    assert show(report).locator("#tuned, #contents a[href='#tuned']").count() == 0


def test_contrasts_by_layer_are_drawn_in_every_statistic_that_the_analysis_names(
    show: Callable[..., Page], tmp_path: Path
) -> None:
    design = Design(
        {"target": TARGETS},
        analysis={"primary": "max_prob", "smallest_difference_of_interest": {"kl_final": 0.5}},
        examples=6,
        layers=3,
        positions=["prompt_end"],
    )
    page = show(write_report(write_synthetic(tmp_path / "store", design), tmp_path / "page.html"))
    section = page.locator("#entropy")
    page.wait_for_selector("#entropy .picture svg")
    assert "lens entropy (nat)" in section.locator(".picture").inner_html()
    page.select_option("[data-choice='contrasted']", label="kl final")
    section.locator(".picture svg", has_text="kl final (nat)").wait_for()
    assert "0.5 nat" in section.inner_text()
    written = download(page, "entropy")
    assert {row["statistic"] for row in written} == {"entropy", "max_prob", "kl_final"}
    differs = open_store(tmp_path / "store")["synthetic"].ablation.change("kl_final", "target")["difference"]
    shown = [float(row["difference"]) for row in written if row["statistic"] == "kl_final"]
    np.testing.assert_allclose(shown, differs.values.ravel(), rtol=1e-2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(show: Callable[..., Page], report: Path, scheme: str) -> None:
    page = show(report, color_scheme={"light": "dark", "dark": "light"}[scheme])
    page.click("#theme")
    assert page.get_attribute("html", "data-theme") == scheme
    page.wait_for_selector("#layers .picture text")
    page.evaluate(SHADES)
    faint = {name: ratio for name, ratio in page.evaluate(CONTRAST) if ratio < 4.5}
    assert faint == {}


def test_nothing_is_cut_off_on_a_narrow_screen(show: Callable[..., Page], report: Path) -> None:
    page = show(report, viewport={"width": 420, "height": 800})
    page.wait_for_selector("#layers .picture svg")
    assert page.evaluate("document.documentElement.scrollWidth") == 420


def test_everything_reachable_has_a_name(show: Callable[..., Page], report: Path) -> None:
    page = show(report)
    nameless = """() => [...document.querySelectorAll("button, select, a, input, [tabindex='0']")]
      .filter((n) => !(n.getAttribute("aria-label") || n.textContent.trim() || n.labels?.[0]?.textContent))
      .map((n) => n.outerHTML.slice(0, 80))"""
    assert page.evaluate(nameless) == []
    assert page.locator("[id]").count() == page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map((n) => n.id)).size"
    )


def test_hostile_text_stays_text(show: Callable[..., Page], tmp_path: Path) -> None:
    design = Design(
        {"target": ["label", HOSTILE], f"__proto__{HOSTILE}".replace("/", ""): ["a", "b"]},
        name="safe",
        examples=3,
        layers=2,
        seeds=(0,),
        vocabulary=[HOSTILE] * 20,
        positions=[HOSTILE],
        contrasts=[{"factor": "target", "baseline": "label"}],
    )
    page = show(write_report(write_synthetic(tmp_path / "<b>store", design), tmp_path / "page.html"))
    page.click("summary >> nth=0")
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2 and page.locator("img, b b").count() == 0
    assert SHOWN in page.evaluate("document.getElementById('results').textContent")
    assert page.evaluate("document.querySelector('#lens td bdi').textContent") == SHOWN.replace(" ", "·")
    assert {row["target"] for row in download(page, "results")} == {"label", HOSTILE}
    spec = tomllib.loads(page.evaluate("document.querySelector('#provenance pre').textContent"))
    assert HOSTILE in spec["factors"]["target"]["levels"]


LACKING = {
    "one condition, one seed": (
        Design({"target": ["label"]}, seeds=(0,), examples=3, layers=2),
        {
            "short": "only one condition",
            "transfer": "no pair of factors",
            "results": "accuracy",
            "interventions": "Not in this store: no complete cell has interventions",
        },
    ),
    "no probe": (
        Design({"target": TARGETS}, seeds=(0,), examples=3, probe=False),
        {
            "lens": "no complete cell was probed",
            "saturation": "no complete cell was probed",
            "entropy": "No contrast",
        },
    ),
    "no complete cell": (
        Design({"target": TARGETS}, seeds=(0,), examples=3, layers=2, failed=(0,), pending=(1,)),
        {"results": "no cell is complete yet", "short": "no cell is complete yet", "matrix": "failed: 1"},
    ),
    "only some cells": (
        Design(
            {"target": TARGETS},
            seeds=(0, 1),
            examples=3,
            layers=2,
            failed=(0, 1),
            contrasts=[{"factor": "target", "baseline": "label"}],
        ),
        {
            "short": "no cell of label has results yet|no two cells differ in it alone",
            "failures": "Found|measured",
        },
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_the_page_says_what_a_store_lacks(case: str, show: Callable[..., Page], tmp_path: Path) -> None:
    design, expected = LACKING[case]
    page = show(write_report(write_synthetic(tmp_path / "store", design), tmp_path / "page.html"))
    for section, words in expected.items():
        text = page.inner_text(f"#{section}")
        assert any(word in text for word in words.split("|")), text


def test_a_store_without_texts_of_tokens_shows_their_ids(show: Callable[..., Page], tmp_path: Path) -> None:
    design = Design({"target": TARGETS, "rank": [8, 16]}, examples=6, layers=5, texts=False)
    old = write_synthetic(tmp_path / "old", design)
    page = show(write_report(old, tmp_path / "page.html"))
    probe = open_store(old)["synthetic/probe"].to_dataset()
    top = probe["top_id"].sel(target="label", rank=8, seed=0).isel(example=0, layer=-1, position=0, top=0)
    assert page.inner_text("#lens tbody td >> nth=0") == f"#{top.item()}"
    assert "no texts of tokens" in page.inner_text("#lens")
    assert np.isfinite(probe["entropy"].values).all()


@pytest.fixture(scope="module")
def wide_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of six conditions side by side, with changes of 31 layers."""
    design = Design(
        {"target": ["label", "label+explanation", "label+shuffled"], "instruction": ["none", "original"]},
        contrasts=[{"factor": "target", "baseline": "label+shuffled"}],
        examples=4,
        layers=31,
        interventions=[{"name": "off", "kind": "mask"}],
    )
    folder = tmp_path_factory.mktemp("wide")
    return write_report(write_synthetic(folder / "store", design), folder / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_changes_up_and_down_differ_in_colour(
    show: Callable[..., Page], wide_report: Path, scheme: str
) -> None:
    page = show(wide_report, color_scheme=scheme)
    cells = page.locator("#interventions table.heat td")
    shown = cells.evaluate_all(
        "nodes => nodes.map((n) => [n.textContent, getComputedStyle(n).backgroundColor, n.className])"
    )
    up = {colour for text, colour, _ in shown if text.startswith("+")}
    down = {colour for text, colour, _ in shown if text.startswith("−")}
    assert up and down and not up & down
    assert {name.split()[1] for text, _, name in shown if text.startswith("−")} == {"down"}
    low, high = page.locator("#interventions figure.heat .scale span").all_inner_texts()[::2]
    assert low.startswith("−") and high == f"+{low[1:]} nat"
    assert "darker" not in page.inner_text("main")


def test_what_lies_off_screen_has_a_cue_and_is_reached_by_keys(
    show: Callable[..., Page], wide_report: Path
) -> None:
    page = show(wide_report, viewport={"width": 1000, "height": 800})
    cue = page.locator("#lens .cue", has_text="more ▸")
    assert cue.is_visible()
    last = page.locator("#lens table.grid tbody tr").first.locator("td").last
    assert last.bounding_box()["x"] > 1000  # type: ignore[index]
    page.locator("#lens table.grid td[tabindex='0']").focus()
    page.keyboard.press("End")
    box = page.locator("#lens .scroll").bounding_box()
    found = last.bounding_box()
    assert box and found and found["x"] + found["width"] <= box["x"] + box["width"] + 1
    detail = page.inner_text("#lens .detail").replace(" · instruction=original", "")
    assert "target=label+shuffled, seed" in detail
    page.wait_for_selector("#lens .cue:last-child:not(.there)", state="attached")
    assert page.locator("#lens .cue", has_text="◂ more").is_visible()


def test_paper_is_as_wide_as_a_sheet(show: Callable[..., Page], wide_report: Path) -> None:
    page = show(wide_report)
    page.wait_for_selector("#layers .picture svg")
    page.set_viewport_size({"width": 688, "height": 1000})  # what A4 leaves within the margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.scrollWidth") == 688
    assert page.locator("#interventions details.method").first.get_attribute("open") is not None
    assert not page.locator("#lens .cue").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".scroll > table[style*='zoom: 0']").count() == 0


def test_saturation_is_held_against_the_declared_baseline(
    show: Callable[..., Page], wide_report: Path
) -> None:
    page = show(wide_report)
    found = page.locator("#saturation table", has_text="Difference in the mean layer").locator("tbody th")
    assert set(found.all_inner_texts()) == {
        f"target: {level} against label+shuffled" for level in ("label", "label+explanation")
    }


def test_bins_of_few_examples_have_small_marks(show: Callable[..., Page], wide_report: Path) -> None:
    page = show(wide_report)
    page.wait_for_selector("#calibration .picture svg")
    sizes = page.locator("#calibration .picture .series:not(.sample) .mark").evaluate_all(
        "nodes => nodes.map((n) => n.getBBox().width)"
    )
    assert min(sizes) < 0.8 * max(sizes)


def test_sentences_name_outcomes_by_their_titles(show: Callable[..., Page], wide_report: Path) -> None:
    page = show(wide_report)
    page.evaluate("document.querySelectorAll('details').forEach((own) => { own.open = true; })")
    text = page.inner_text("main").partition("\nProvenance")[0]
    assert "log_odds" not in text and "in correct " not in text and "learning_rate" not in text
