"""What a plan says of tasks' cost: what was counted, what files or a table tell, or what is assumed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import inspect_tasks
import pytest
from commands import engine
from trainings import load

import engine as api
import store
from engine.planning import inspect_files
from engine.planning.estimate import estimate
from engine.planning.task_documents import Documents, harness_documents, inspect_documents
from engine.stages import tasks
from specs.tables.evaluate import Evaluate
from specs.tables.inspect_tasks import InspectTasks


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tasks._manager.cache_clear()
    harness.stand_in(tmp_path / "packages", monkeypatch)
    yield
    tasks._manager.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        del sys.modules[name]


def test_tasks_cost_what_was_counted_and_before_that_what_is_assumed(
    write_spec, tmp_path: Path, stand_in: None
) -> None:
    """What is assumed is named, until a run of the same tasks has been counted."""
    spec = write_spec(train="steps = 2")
    asked = 'evaluate.tasks=["hellaswag", "arc"]'
    flags = ("--set", asked)
    output = " ".join(engine("plan", spec, *flags).output.split())
    assert "documents of tasks counted by a table, until they have run once: hellaswag" in output
    assert "1,000 documents, of 4 × 160 tokens each, of arc" in output
    told = json.loads(engine("plan", spec, *flags, "--json").output)
    assert told["task_sizes"] == {"from_table": ["hellaswag"], "assumed": ["arc"], "assumed_answers": []}
    once = 10042 * 4 * (60 + 30) + 1000 * 4 * 160
    assert told["estimate"]["base_tasks"]["tokens"] == once
    assert told["estimate"]["tasks"]["tokens"] == 4 * once
    assert "documents" not in engine("plan", spec).output

    engine("execute", spec, *flags, "--only", "seed=0", "--only", "target=label")
    plan = api.plan(spec, [asked])
    (key,) = {
        cell.keys["tasks"] for cell in plan.cells if plan.states["tasks"][cell.keys["tasks"]] == "cached"
    }
    counted = store.Ledger(plan.root).record("tasks", key)["work"]
    assert counted == {"passes": 1, "tokens": 8, "steps": 0}
    costs = estimate(plan)
    assert costs is not None and costs["tasks"].tokens == 3 * counted["tokens"]
    assert costs["tasks"].flops > 0 and costs["base_tasks"].tokens == 0  # it has run
    assert "documents" not in engine("plan", spec, *flags).output
    other = estimate(api.plan(spec, [asked, "evaluate.task_examples=3"]))
    assert other is not None and other["tasks"].tokens == 4 * 3 * (4 * 90 + 4 * 160)


CHOICES = """
task: choices
dataset_kwargs: { data_files: { test: "DATA", train: "none.jsonl" } }
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}?"
doc_to_choice: ["yes", "no", "maybe so"]
process_docs: !function helper.made
"""
WRITTEN = """
include: base.yaml
task: written
output_type: generate_until
doc_to_text: text
generation_kwargs: { max_gen_toks: 10 }
num_fewshot: 2
"""
BASE = 'include: loop.yaml\ndataset_kwargs: { data_files: "DATA" }\nvalidation_split: train\n'
OTHERS = """
task: rolling
include: base.yaml
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"text": "a" * length, "more": "b" * 20} for length in (10, 20, 30)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "tasks"
    folder.mkdir()
    texts = {
        "choices": CHOICES,
        "written": WRITTEN,
        "base": BASE,
        "loop": "include: base.yaml",
        "rolling": OTHERS,
        "broken": "a: [",
        "list": "- a",
    }
    texts["far"] = "task: far\ndataset_path: someone/far\noutput_type: multiple_choice\n"
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
    return folder


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("choices", {}, Documents(3, 3.0, 3 * (21 + 13 / 3) / 4, 0.0)),
        ("choices", {"task_examples": 2, "task_shots": 1}, Documents(2, 3.0, 3 * (42 + 13 / 3) / 4, 0.0)),
        ("written", {}, Documents(3, 1.0, 60 / 4, 10.0)),
        ("rolling", {}, Documents(3, 1.0, (40 + 20) / 4, 0.0)),
    ],
)
def test_documents_of_own_tasks_are_read_off_their_files(
    folder: Path, name: str, more: dict[str, Any], expected: Documents
) -> None:
    """A text that is no template of columns counts as all of a row."""
    (found,) = harness_documents(Evaluate(tasks=[name], task_folder=str(folder), **more)).values()
    assert found.told_by == "file"
    assert (found.count, found.passes, found.written) == (expected.count, expected.passes, expected.written)
    assert found.tokens == pytest.approx(expected.tokens)


def test_what_no_file_tells_comes_from_a_table_or_is_assumed(folder: Path) -> None:
    (folder / "hellaswag.yaml").write_text("task: hellaswag\ndataset_path: someone/other\n")
    names = ["choices", "far", "arc_easy", "gsm8k", "boolq", "mine"]
    found = harness_documents(Evaluate(tasks=names, task_folder=str(folder)))
    assert [documents.told_by for documents in found.values()] == [
        "file", "nothing", "table", "table", "table", "nothing",
    ]  # fmt: skip
    assert found["arc_easy"] == Documents(2376, 4, 4 * (30 + 6), 0.0, "table")
    assert found["gsm8k"] == Documents(1319, 1, 6 * 150, 256, "table")
    assert found["boolq"] == Documents(3270, 1, 140 + 1, 0.0, "table")  # choices of one token share a pass
    assert found["far"] == found["mine"] == Documents(1000, 4, 640, 0.0, "nothing")
    some = harness_documents(Evaluate(tasks=["gsm8k", "hellaswag"], task_examples=5, task_shots=0))
    assert some["gsm8k"] == Documents(5, 1, 150, 256, "table") and some["hellaswag"].told_by == "table"
    of_own = Evaluate(tasks=["hellaswag"], task_folder=str(folder))  # which is another of that name
    assert harness_documents(of_own)["hellaswag"].told_by == "nothing"


def test_samples_of_inspect_are_those_of_the_file_that_it_names(tmp_path: Path) -> None:
    file = inspect_tasks.write_tasks(tmp_path / "evals")

    def found(task: str = f"{file}@letters", **more: Any) -> Documents:
        (documents,) = inspect_documents(Evaluate(inspect=InspectTasks(tasks=[task], **more))).values()
        return documents

    documents = found(max_tokens=12)
    rows = [json.loads(line) for line in (file.parent / "questions.jsonl").read_text().splitlines()]
    mean = sum(len(row["input"]) for row in rows) / len(rows)
    assert (documents.count, documents.written, documents.told_by) == (9, 12, "file")
    assert documents.tokens == pytest.approx(mean / 4) and not documents.answer_assumed
    assert found(max_tokens=12, samples=4).count == 4
    assert (found().written, found().answer_assumed) == (256, True)
    assert found(str(file)).count == 9 * len(inspect_files.tasks_of(file))
    (file.parent / "other.csv").write_text("a\n1\n")
    file.write_text(file.read_text() + '\nOTHER = "other.csv"\n')
    assert (found().told_by, found().count) == ("nothing", 1000)
    assert (found("inspect_evals/gsm8k").told_by, found("inspect_evals/gsm8k").count) == ("table", 1319)
    assert found("mine/gsm").told_by == "nothing"


def test_the_harness_takes_about_what_its_files_tell(
    tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    folder = harness.write_tasks(tmp_path / "tasks")
    settings = Evaluate(tasks=["choices", "written"], task_folder=str(folder), batch_size=4)
    _, work = tasks.ask(load(tiny_model), tokenizer, settings, lambda: None)
    told = sum(part.count * (part.tokens + part.written) for part in harness_documents(settings).values())
    # The harness runs a choice of one token once for all that have its context.
    assert work.tokens / 3 < told < 3 * work.tokens
