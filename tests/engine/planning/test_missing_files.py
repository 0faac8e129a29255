"""A file that is not there is told in the same words by every command, with place and nearest name."""

from __future__ import annotations

import shutil
from pathlib import Path

import annotate_spec
import pytest
from commands import engine
from facts import told

from engine.errors import DataError
from engine.planning.harness import tasks_identity
from specs.tables.evaluate import Evaluate
from specs.toml.paths import near_file, no_such

EVALUATED = '[evaluate.data]\nsource = "{test}"\n'


@pytest.fixture
def spec(write_spec, tmp_path: Path, rated_file: Path) -> Path:
    """A spec whose test data are in a folder beside it."""
    (tmp_path / "sets").mkdir()
    shutil.copy(rated_file, tmp_path / "rated.jsonl")
    shutil.copy(rated_file, tmp_path / "sets/tested.jsonl")
    file: Path = write_spec(EVALUATED.format(test="sets/tested.jsonl"))
    file.write_text(file.read_text().replace(str(rated_file), "rated.jsonl"))
    return file


def test_every_misspelled_source_is_named_with_its_line(spec: Path) -> None:
    text = spec.read_text().replace('"rated.jsonl"', '"ratd.jsonl"').replace('"sets/', '"stes/')
    spec.write_text(text)
    lines = [text[: text.index(name)].count("\n") + 1 for name in ("ratd", "stes")]
    said = engine("data", spec, code=2).output.splitlines()
    assert [line.removeprefix(f"{spec.parent}/") for line in said] == [
        f'small.toml:{lines[0]}:1  data.source: found "{spec.parent}/ratd.jsonl", which is no file or '
        'folder; did you mean "rated.jsonl"?',
        f'small.toml:{lines[1]}:1  evaluate.data.source: found "{spec.parent}/stes/tested.jsonl", which is '
        'no file or folder; did you mean "sets/tested.jsonl"?',
    ]


def test_commands_that_need_the_file_say_the_same_of_it(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec.write_text(spec.read_text().replace('"rated.jsonl"', '"ratd.jsonl"'))
    found, near = f'found "{tmp_path}/ratd.jsonl", which is no file or folder', 'did you mean "rated.jsonl"?'
    output = engine("execute", spec, code=1).output
    failed = [line.partition("data: ")[2] for line in output.splitlines() if line.startswith("failed: ")]
    assert failed and all(line.startswith(f"DataError: data.source: {found}") for line in failed)
    assert all(line.endswith(near) for line in failed) and near in engine("plan", spec).output
    asked = annotate_spec.write_spec(tmp_path, "http://localhost")
    asked.write_text(asked.read_text().replace("asked.jsonl", "ratd.jsonl"))
    assert (
        f"spec.toml:4:6  data.source: {found}; {near}" in engine("annotate", asked, "--plan", code=2).output
    )
    monkeypatch.chdir(tmp_path)
    output = engine("init", "ratd.jsonl", code=2).output
    assert output == f'error: init: found "ratd.jsonl", which is no file or folder; {near}\n'


def test_results_of_other_data_stay_and_the_reason_is_the_missing_file(spec: Path) -> None:
    engine("execute", spec)
    spec.write_text(spec.read_text().replace('"rated.jsonl"', '"ratd.jsonl"'))
    output = engine("execute", spec, code=2).output
    assert f'found "{spec.parent}/ratd.jsonl", which is no file or folder' in output
    assert "4 finished cells" in output and output.endswith('did you mean "rated.jsonl"?\n')
    assert "before" not in output  # nothing is wrong with what the store notes


@pytest.mark.parametrize("command", ["plan", "execute", "data"])
def test_a_missing_neutral_text_is_looked_for_beside_the_spec(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "neutral.txt").write_text("some text\n")
    spec.write_text(spec.read_text().replace("[evaluate]\n", '[evaluate]\nneutral_text = "nutral.txt"\n'))
    line = spec.read_text().split("neutral_text =")[0].count("\n") + 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert engine(command, spec, code=2).output == (
        f'{spec}:{line}:1  evaluate.neutral_text: found "{tmp_path}/nutral.txt", which is no file, nor '
        '"builtin"; did you mean "neutral.txt"?\n'
    )


def test_a_missing_folder_of_tasks_is_named_with_its_place(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    lines = 'tasks = ["a"]\ntask_folder = "taks"\n'
    spec.write_text(spec.read_text().replace("[evaluate]\n", f"[evaluate]\n{lines}"))
    output = engine("plan", spec, code=2).output
    assert (
        f'evaluate.task_folder: found "{tmp_path}/taks", which is no folder; did you mean "tasks"?' in output
    )


def test_a_missing_model_has_the_same_words(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    output = engine("plan", spec, "--set", "model.id=./tinny", code=2).output
    assert f'model.id: found "{tmp_path}/tinny", which is no file or folder; did you mean "tiny"?' in output


def test_a_name_that_may_be_meant_for_a_file_is_told_beside_the_hubs_answer(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("init", "rated.jsnl"), ("data", spec, "--set", "data.source=rated.jsnl")):
        assert engine(*command, code=2).output.endswith('did you mean "rated.jsonl"?\n')


def test_the_nearest_file_may_be_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "data/sets").mkdir(parents=True)
    (tmp_path / "data/sets/rows.csv").touch()
    assert near_file(tmp_path / "data/sets/row.csv") == "rows.csv"
    assert near_file(tmp_path / "dta/sets/rows.csv") == "data/sets/rows.csv"
    assert near_file(tmp_path / "data/set/rows.csv") == "sets/rows.csv"
    assert near_file(tmp_path / "dta/sets/other.csv") == "data/sets"
    assert near_file(tmp_path / "zzzz/sets/rows.csv") == ""
    assert no_such(tmp_path / "zz") == f'found "{tmp_path}/zz", which is no file or folder'


def test_what_goes_missing_behind_the_plan_is_told_so_too(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(DataError, match="which is no folder"):
        tasks_identity(Evaluate(tasks=["a"], task_folder=str(tmp_path / "tasks")))


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("evaluate.neutral_text", "buildin", "builtin"),
        ("evaluate.neutral_text", "built_in", "builtin"),
        ("evaluate.neutral_text", "builtin.tx", "builtin.txt"),  # a file that is there comes nearer
        ("probe.tuned.corpus", "trian", "train"),
        ("probe.tuned.corpus", "buildin", "builtin"),
    ],
)
def test_a_word_that_may_be_meant_is_told(
    spec: Path, tmp_path: Path, key: str, written: str, meant: str
) -> None:
    (tmp_path / "builtin.txt").write_text("some text\n")
    if written != "builtin.tx":
        (tmp_path / "builtin.txt").unlink()
    sets = ("--set", f'{key}="{written}"', "--set", 'probe.lens="tuned"')
    output = engine("plan", spec, *sets, code=2).output
    assert told(output, key, written, "no file", f'did you mean "{meant}"?')
