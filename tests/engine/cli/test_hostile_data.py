"""Names and values of data that are no plain words: what a spec is written from them, and what is told."""

from __future__ import annotations

import csv
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told
from hypothesis import assume, example, given
from hypothesis import strategies as st

import engine as python
from engine.cli.new_spec import NewSpec, Roles, label_mistakes
from engine.data.looking import look
from engine.data.visible import visible
from engine.terminal import shown

COMMAND = "touch broken-out"
TABLE = f"x\ntrain = 40\n[executor]\nnotify = '''{COMMAND}\n"
QUOTES = "\"'''\n[evaluate]\n#\""
# What ends a line or a string of TOML, escapes of a terminal, turns of the writing direction, any letter.
HOSTILE = st.text(
    st.sampled_from("ab \n\r\t\x1b\x7f\x85\u2028\u202e\"'#=[]{},.\\$") | st.characters(codec="utf-8"),
    min_size=1,
    max_size=20,
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_rows(file: Path, labels: list[str], label: str = "label", text: str = "text", *more: str) -> Path:
    rows = [
        [f"the soup was cold on day {n}", labels[n % len(labels)], *("x" for _ in more)] for n in range(40)
    ]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([[text, label, *more], *rows])
    return file


def keys_of(table: Mapping[str, Any], at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Give the path of every key in nested tables."""
    inner = [
        keys_of(value, (*at, key)) if isinstance(value, Mapping) else {(*at, key)}
        for key, value in table.items()
    ]
    return set().union(*inner)


def new_spec(folder: Path, labels: list[str], label: str, text: str, other: str) -> NewSpec:
    """Give the spec of rows with these labels and columns."""
    file = folder / "rows.jsonl"
    rows = (
        {text: f"the soup was cold on day {n}", label: labels[n % len(labels)], other: "x"} for n in range(40)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = look(str(file), "quality")
    assume(not label_mistakes(seen, label))
    kept = list(seen.columns[label].labels)
    roles = Roles(label, text)
    return NewSpec("hostile", "./rows.jsonl", str(file), seen, roles, "a/model", True, kept, label)


@given(
    st.lists(HOSTILE.filter(visible), min_size=2, max_size=4, unique=True),
    st.lists(HOSTILE, min_size=3, max_size=3, unique=True),
)
@example(["good", QUOTES], ["label", "text", TABLE])
@example(["good", "new\nline"], ["l\rabel", "te\x1bxt", "x\ny"])
@example(["a\u2028b", "c\x85d"], ["{label}", "{}", "#"])
def test_a_spec_of_any_data_holds_its_own_keys_alone(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], columns: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    assume(not any("\0" in name for name in columns))
    label, text, _ = columns
    made = new_spec(folder, labels, *columns)
    written = made.text()
    spec = tomllib.loads(written)
    plain = new_spec(folder, [f"label{n}" for n in range(len(made.labels))], "label", "text", "other")
    assert keys_of(spec) == keys_of(tomllib.loads(plain.text()))
    assert written.count("\n") == plain.text().count("\n")  # each line is one of the engine's own
    comments = [line for line in written.split("\n") if line.startswith("#")]
    assert all(shown(line) == line for line in comments)
    assert spec["evaluate"]["labels"] == made.labels
    assert spec["data"]["columns"] == {"label": label, "response": text, "context": ""}


def test_no_name_or_label_becomes_a_command(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "evil.csv", ["good", QUOTES], "label", "text", TABLE)
    engine("init", "evil.csv", "--model", tiny_model, "--yes")
    planned = python.plan("evil.toml")
    assert planned.matrix.experiment.executor.notify is None
    assert {*planned.matrix.experiment.evaluate.labels} == {"good", QUOTES}
    engine("execute", "evil.toml", "--max-cells", 1, "-q")
    assert not (tmp_path / "broken-out").exists()


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (["good", "new\nline"], ("label", "text")),
        (["good", "bad"], ("label", "text", "x\ny")),
        (["good\x1b[31m", "bad"], ("la\x1bbel", "te\x1bxt")),
        (["\u202egood", "b\u2028d"], ("label", "text")),
    ],
)
def test_control_characters_in_data_make_a_spec_that_plans(
    labels: list[str], columns: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.csv", labels, *columns)
    output = engine("init", "rows.csv", "--model", tiny_model, "--yes").output
    assert "\x1b" not in output
    settings = python.plan("rows.toml").matrix.experiment
    assert {*settings.evaluate.labels} == {*labels} and settings.data.columns.label == columns[0]


def test_a_nul_character_is_named_with_file_and_column(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"the soup was cold on day {n}", "la\0bel": ["good", "b\0d"][n % 2]} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = engine("init", "rows.jsonl", "--model", tiny_model, "--yes", code=2).output
    assert told(output, "rows.jsonl", "column", '"la\\u0000bel"', "expected")
    assert told(output, "rows.jsonl", "column", '"b\\u0000d"', "expected")


@pytest.mark.parametrize("label", ['a "b" it\'s', "back\\slash'", "two\nlines", "{x} = #", "a\x1b\x7f"])
def test_the_labels_to_paste_are_toml(label: str, tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", [label, "other"])
    engine("init", "rows.csv", "--model", tiny_model, "--yes")
    output = engine("data", "rows.toml", "--set", 'evaluate.labels=["x","y"]', code=2).output
    (line,) = [line.strip() for line in output.splitlines() if "evaluate.labels = " in line]
    assert {*tomllib.loads(line)["evaluate"]["labels"]} == {label, "other"}
    engine("data", "rows.toml", "--set", line)  # as it stands


def test_labels_that_a_spec_leaves_to_its_data_may_hold_any_quotes(tiny_model: Path, tmp_path: Path) -> None:
    labels = ['a "b" it\'s', "two\nlines"]
    write_rows(tmp_path / "rows.csv", labels)
    engine("init", "rows.csv", "--model", tiny_model, "--yes")
    spec = tmp_path / "rows.toml"
    lines = [line for line in spec.read_text().splitlines() if not line.startswith("labels = ")]
    spec.write_text("\n".join(lines))
    assert {*python.plan(spec).matrix.experiment.evaluate.labels} == {*labels}


def test_labels_that_do_not_match_are_told_line_by_line_and_once(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", ["good", "two\nlines"])
    engine("init", "rows.csv", "--model", tiny_model, "--yes")
    for command, code in (("plan", 0), ("execute", 1)):
        output = engine(
            command, "rows.toml", "--set", 'evaluate.labels=["x","y"]', code=code, columns=80
        ).output
        lines = output.splitlines()
        assert lines.count('  evaluate.labels = ["good", "two\\nlines"]') == 1, output
        assert sum("row 1" in line for line in lines) == 1 and not any(line == "lines" for line in lines)


def test_a_question_at_a_terminal_shows_names_without_control_characters(
    tiny_model: Path, tmp_path: Path
) -> None:
    import pty
    import subprocess
    import sys

    rows = [
        {"text": f"the soup was cold on day {n}", "mo\x1b[31mod": "ab"[n % 2], "to\x1bne": "cd"[n % 2]}
        for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "engine", "init", "rows.jsonl", "--model", str(tiny_model)],
        stdin=slave, stdout=slave, stderr=slave,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "dumb"},
    )  # fmt: skip
    os.close(slave)
    seen, answers = b"", [b"tone\n", b"to\\x1bne\n"]
    while True:
        try:
            seen += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if answers and seen.count(b"]:") == 3 - len(answers):
            os.write(master, answers.pop(0))
    assert child.wait(120) == 0, seen.decode()
    assert b"expected one of" in seen and b"\x1b" not in seen
    assert tomllib.loads((tmp_path / "rows.toml").read_text())["data"]["columns"]["label"] == "to\x1bne"
