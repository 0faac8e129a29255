"""The ensemble against a golden set: matching, errors by hand, and the merge that they choose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotate_spec import lines, number_of, write_spec
from chat_server import Reply, rated, serving
from commands import engine
from facts import told

# Ratings by model and conversation; the true ones are 4, 2 and, outside of the source, 5.
SAID = {"small": [4, 2, 5], "second": [4, 2, 5], "third": [1, 5, 1]}


def annotators(url: str) -> str:
    return "".join(
        f'[[annotate.annotators]]\nname = "{name}"\nendpoint = "{url}"\nmodel = "{name}"\n'
        for name in ("second", "third")
    )


def script(body: dict[str, Any], _before: int) -> Reply:
    return rated(SAID[body["model"]][number_of(body)], body["model"])


def test_the_best_merge_is_chosen_on_the_golden_set(tmp_path: Path) -> None:
    table = 'merge = "best"\ngolden = "golden.jsonl"\nexplanations = "nearest"'
    golden = [
        {"id": "row-1", "naturalness": 4},
        {"id": "row-2", "naturalness": "2"},
        {"context": "message 2", "response": "reply 2", "naturalness": 5},
        {"context": "message 2", "response": "reply 2", "naturalness": None},
    ]
    (tmp_path / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in golden))
    with serving(script) as server:
        spec = write_spec(tmp_path, server.url, conversations=2, table=table, more=annotators(server.url))
        output = engine("annotate", spec).output
    assert len(server.requests) == 3 * 3  # the golden conversation outside of the source, too, and once
    rows = {
        name.strip(): [cell.strip() for cell in cells]
        for line in output.splitlines()
        if line.startswith("│ ")
        for name, *cells in [line.strip("│").split("│")]
    }
    assert rows["annotator one"] == ["0.000", "0.000", "3"]
    assert rows["annotator third"] == ["3.333", f"{(9 + 9 + 16) / 3:.3f}", "3"]
    assert rows["mean of all, rounded"] == ["1.000", "1.000", "3"]
    assert rows["median of all, rounded (in use)"] == ["0.000", "0.000", "3"]
    assert rows["majority of all, rounded"] == ["0.000", "0.000", "3"]
    written = lines(tmp_path / "rated.jsonl")
    assert [(row["naturalness"], row["naturalness_mean"]) for row in written] == [(4, 3.0), (2, 3.0)]
    assert [row["naturalness_explanation"] for row in written] == ["small", "small"]


def test_too_few_answers_leave_a_conversation_out(tmp_path: Path) -> None:
    def cut(body: dict[str, Any], before: int) -> Reply:
        broken = body["model"] != "small" and number_of(body) == 1
        return Reply("no") if broken else script(body, before)

    table = 'min_answers = 2\nattempts = 1\nexplanations = "longest"'
    with serving(cut) as server:
        spec = write_spec(tmp_path, server.url, conversations=3, table=table, more=annotators(server.url))
        assert "2 of 3 conversations written" in engine("annotate", spec).output
        # The answers are all there: asking for less gives more, and asks nothing.
        spec.write_text(spec.read_text().replace("min_answers = 2", "min_answers = 1"))
        assert "3 of 3 conversations written" in engine("annotate", spec).output
    assert len(server.requests) == 9
    assert [row["naturalness_answers"] for row in lines(tmp_path / "rated.jsonl")] == [3, 1, 3]
    assert lines(tmp_path / "rated.jsonl")[1]["naturalness_explanation"] == "small"


def test_an_explanation_that_cannot_be_merged_leaves_its_conversation_out(tmp_path: Path) -> None:
    def refusing(body: dict[str, Any], before: int) -> Reply:
        merging = "Their explanations" in body["messages"][0]["content"]
        if merging and number_of(body) == 0:
            return Reply("I would rather not.")
        return Reply('{"explanation": "both"}') if merging else script(body, before)

    with serving(refusing) as server:
        spec = write_spec(tmp_path, server.url, conversations=2, more=annotators(server.url))
        assert "1 of 2 conversations written" in engine("annotate", spec).output
    assert [row["id"] for row in lines(tmp_path / "rated.jsonl")] == ["row-2"]
    assert len(server.requests) == 6 + 3 + 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("g.jsonl", '{"id": "row-9", "naturalness": 3}\n', "row 1 … `context` … `response`"),
        ("g.jsonl", '\n{"id": "row-1", "naturalness": 6}', "row 1, naturalness … from 1"),
        ("g.csv", "id,naturalness\nrow-1,3\nrow-2,good\n", "row 2, naturalness … from 1"),
        ("g.jsonl", "{", "line 1: not JSON"),
        ("g.jsonl", "[1]\n", "line 1: found … expected one object"),
        ("g.txt", "", ".jsonl, .json, .csv"),
    ],
)  # fmt: skip
def test_a_golden_set_that_does_not_fit_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    spec = write_spec(tmp_path, "http://127.0.0.1:9", table=f'golden = "{name}"')
    (tmp_path / name).write_text(text)
    output = engine("annotate", spec, code=2).output
    assert told(output, said) and str(tmp_path / name) in output
