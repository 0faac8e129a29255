"""`[evaluate.spellings]`: what it may hold, what is wrong with it, and as a factor."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import facts, told

from specs import Matrix, SpecError, load_spec, resolve

BASE = """\
name = "demo"
model.id = "m"
data.source = "s"
[evaluate]
labels = ["1", "2", "10"]
"""
FIRST = BASE.count("\n") + 1


def matrix_of(folder: Path, text: str) -> Matrix:
    path = folder / "demo.toml"
    path.write_text(BASE + text)
    return resolve(load_spec(path))


def test_a_table_of_texts_by_label(tmp_path: Path) -> None:
    text = 'spellings = { "1" = ["one", "ONE"], "10" = ["ten", "10/10", "Ten"] }'
    matrix = matrix_of(tmp_path, text)
    assert matrix.table("evaluate", matrix.cells[0]).spellings == {
        "1": ["one", "ONE"], "10": ["ten", "10/10", "Ten"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "key", "message", "hint"),
    [
        (
            'spellings = { 11 = ["x"] }', 0, "evaluate.spellings.11",
            'unknown label "11"; expected "1", "2" or "10"', "1",
        ),
        ('spellings = { 2 = ["two", "Ten"], 10 = ["ten"] }', 0, "evaluate.spellings.10[0]",
         '"ten" … "2"', ""),
        ('[evaluate.spellings]\n1 = ["10"]', 1, "evaluate.spellings.1[0]",
         '"10" means the label "10" already', ""),
        ('spellings = { 2 = "two" }', 0, "evaluate.spellings.2",
         'list of strings … "two"', ""),
        ('spellings = { 2 = ["two", " two"] }', 0, "evaluate.spellings.2[1]",
         'expected a string without spaces around it', ""),
        ('spellings = { 2 = [""] }', 0, "evaluate.spellings.2[0]", 'expected … without spaces around it', ""),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, text: str, line: int, key: str, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        matrix_of(tmp_path, text)
    (problem,) = caught.value.problems
    assert (problem.key, problem.line, problem.hint) == (key, FIRST + line, hint)
    assert told(problem.message, message) and problem.file == tmp_path / "demo.toml"


def test_a_factor_sets_spellings(tmp_path: Path) -> None:
    text = '[factors.words.levels]\nnone = {}\nten = { evaluate.spellings.10 = ["ten"] }\n'
    matrix = matrix_of(tmp_path, text)
    found = [matrix.table("evaluate", cell).spellings for cell in matrix.cells]
    assert found == [{}, {"10": ["ten"]}]
    for wrong, message in [
        ("evaluate.spellings.10 = [1]", "expected a string without spaces around it"),
        ('evaluate.spellings.11 = ["x"]', 'unknown label "11"'),
        ('evaluate.spellings.10.x = ["x"]', "holds a value, not a table"),
    ]:
        with pytest.raises(SpecError, match=message):
            matrix_of(tmp_path, f"[factors.words.levels]\nnone = {{}}\nten = {{ {wrong} }}\n")


def test_labels_that_a_level_renames_need_spellings_of_their_own(tmp_path: Path) -> None:
    text = 'spellings = { 2 = ["two"] }\n[factors.scale]\npath = "evaluate.labels"\n'
    text += 'values = [["1", "2"], ["a", "b"]]'
    with pytest.raises(SpecError, match=facts("evaluate.spellings.2", '"2"', '"a" or "b"')):
        matrix_of(tmp_path, text)
