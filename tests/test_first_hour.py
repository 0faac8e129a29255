"""The first hour with data of one's own: from a CSV of word labels to a report and a published model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import CHROMIUM, running_browser
from commands import engine
from facts import told
from peft import PeftModel
from rich.cells import cell_len
from transformers import AutoModelForCausalLM

import engine as python

OPINIONS = {
    "positive": ["a lovely evening", "great food and kind staff", "we will surely come back"],
    "neutral": ["it was open on monday", "the menu has two pages", "we sat by the window"],
    "negative": ["cold soup and rude staff", "far too dear for this", "never again in my life"],
}
LABELS = ["negative", "neutral", "positive"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV file of reviews, word labels and reasons, as somebody may have it."""
    folder = tmp_path_factory.mktemp("first")
    with (folder / "reviews.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "review", "sentiment", "reason"])
        for number in range(60):
            label = LABELS[number % 3]
            text = f"{OPINIONS[label][number // 3 % 3]}, visit {number}"
            writer.writerow([number, text, label, f"it sounds {label} on visit {number}"])
    return folder


def test_the_first_hour(folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    output = engine("init", "reviews.csv", "--model", tiny_model).output
    assert told(output, "sentiment", "negative (20)", "neutral (20)", "positive (20)")
    (following,) = [line.split("engine ")[1] for line in output.splitlines() if line.startswith("next:")]
    assert following == "plan reviews.toml"
    spec = Path("reviews.toml")
    spec.write_text(spec.read_text().replace("seeds = [0, 1, 2]", "seeds = [0, 1]"))  # an hour is short

    planned = engine(*following.split(), "--cells", columns=80).output
    assert "reviews: 6 cells" in planned and "warning" not in planned
    assert "label+shuffled" in planned.replace("\n", "")

    dry = engine("execute", spec, "--dry-run").output
    assert told(dry, "6 of 6 cells would run")
    done = engine("execute", spec, "--set", "train.steps=2").output
    assert told(done, "Ran", "6 train")

    # What was executed with a key set is asked for with the same key.
    same = ("--set", "train.steps=2")
    states = json.loads(engine("status", spec, *same, "--json").output)["experiments"][0]
    assert {cell["state"] for cell in states["cells"]} == {"done"} and states["failures"] == []
    assert told(engine("status", spec, *same, columns=80).output, "train", "6", "0", "0", "0")

    shown = engine("results", spec, *same, columns=80).output
    assert all(cell_len(line) <= 80 for line in shown.splitlines() if line[:1] in "│┃┏┡└├")
    facts = json.loads(engine("results", spec, *same, "--json").output)["experiments"][0]
    assert [condition["levels"]["target"] for condition in facts["conditions"]] == [
        "label", "label+explanation", "label+shuffled",
    ]  # fmt: skip
    for condition in facts["conditions"]:
        assert condition["cells"] == 2
        for measure, form in (("accuracy", "{:.1%}"), ("train_loss", "{:.3f}")):
            assert form.format(condition["measures"][measure]["mean"]) in shown
    assert {row["outcome"] for row in facts["contrasts"]} >= {"correct", "entropy"}

    page = engine("report", spec, *same).output.strip()
    assert Path(page).name == "report.html" and b"reviews" in Path(page).read_bytes()
    if CHROMIUM is not None:
        click_through(Path(page), facts["conditions"])

    published = engine(
        "publish", spec, *same, "--cell", "target=label,seed=0", "--to", "folder", "-o", "adapter"
    )
    assert published.output.strip() == "adapter"
    accuracy = facts["conditions"][0]["measures"]["accuracy"]["mean"]  # of two seeds, as in the card
    assert f"| target=label | accuracy | {accuracy:.3f} |" in Path("adapter/README.md").read_text()

    ours, tokenizer = python.load_adapter("stores/reviews", "target=label, seed=0")
    tokens = tokenizer("Text: a lovely evening", return_tensors="pt")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=ours.dtype)
    theirs = PeftModel.from_pretrained(base, "adapter").eval()  # by peft alone
    with torch.no_grad():
        scores = [model(input_ids=tokens["input_ids"]).logits for model in (ours, theirs)]
    assert bool(torch.isfinite(scores[0]).all()) and torch.equal(*scores)


def click_through(file: Path, conditions: list[dict[str, Any]]) -> None:
    """Read the report as a person does: find a condition, pin two, look at an example, send the link."""
    with running_browser() as browser:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.resolve().as_uri())
        page.wait_for_selector("#provenance")
        assert page.inner_text("#title") == "reviews"
        shown = page.inner_text("#results")
        for condition in conditions:
            assert f"{100 * condition['measures']['accuracy']['mean']:.1f}" in shown
        page.click("#contents a:has-text('Layer × token')")
        page.click("#lens [aria-label='Next example']")
        for place in (0, 2):
            page.click(f"#matrix [data-pin='{place}']")
        assert page.locator("#pair table").first.locator("thead th").all_inner_texts()[1:] == [
            "label", "label+shuffled",
        ]  # fmt: skip
        page.fill("#search", "shuffled")
        page.locator("#filter-count:has-text('1 of 3')").wait_for()
        link = page.url
        page.close()
        page = browser.new_page()
        page.goto(link)
        page.wait_for_selector("#provenance")
        assert page.locator("#matrix tbody th").all_inner_texts() == ["label+shuffled"]
        assert complaints == []
