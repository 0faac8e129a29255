"""Examples without an explanation: an error, left out or trained on the label alone, and always counted."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told
from hypothesis import given
from hypothesis import strategies as st
from small_study import WORDS, writer

from engine.data.missing_explanations import explained
from engine.data.prepare import SPLITS, load, prepare
from engine.data.reading import read_source
from engine.errors import DataError
from specs.tables.data import Columns, Data
from specs.tables.target import Target
from store import Ledger
from store.backend.locate import place_of

CONTENTS = (
    "label+explanation",
    "label+shuffled",
    "label+bag_of_words",
    "label+random_tokens",
    "label+filler",
)
BLANK = ("", " \t\n", None, "\u200b", "\ufeff \u2060\u00ad", "\u3164\u2800\ufe0f\x00")


def write(file: Path, blank: Callable[[int], bool], column: str | None = "explanation") -> Path:
    """Write 48 rated replies; those with `blank` numbers have no explanation, in one of several ways."""
    rows: list[dict[str, Any]] = []
    for n in range(48):
        row = {"context": f"message {n}", "response": WORDS[n % 7], "rating": str(1 + n % 3)}
        if column:
            row[column] = (
                BLANK[n // 2 % len(BLANK)] if blank(n) else f"because {WORDS[n % 5]} is {WORDS[n % 11]}"
            )
        rows.append(row)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


SPEC = """
name = "few"
[model]
id = "{model}"
dtype = "float32"
[data]
source = "rated.jsonl"
columns = {{ label = "rating" }}
{data}
[prompt]
chat_template = false
template = "{{context}} {{response}}:"
[target]
content = "{content}"
[lora]
r = 2
[train]
steps = 1
batch_size = 4
precision = "float32"
[evaluate]
labels = ["1", "2", "3"]
[probe]
enabled = false
"""


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    def made(content: str = "label+explanation", data: str = "", more: str = "") -> Path:
        file = tmp_path / "few.toml"
        file.write_text(SPEC.format(model=tiny_model, content=content, data=data) + more)
        return file

    return made


def summaries(spec: Path, stage: str) -> list[dict[str, float]]:
    ledger = Ledger(place_of(spec.with_name("store")))
    return [ledger.record(stage, key)["summary"] for key in sorted(ledger.done(stage))]


def run(spec: Path, *options: object, code: int = 0) -> str:
    return engine("execute", spec, "--store", spec.with_name("store"), *options, code=code).output


def test_the_column_explanation_is_read_where_there_is_one(tmp_path: Path) -> None:
    columns = Columns(label="rating")
    file = write(tmp_path / "rated.jsonl", lambda n: n == 3)
    rows = read_source(Data(source=str(file), columns=columns))
    assert rows[0]["explanation"] == "because the is the" and rows[3]["explanation"] == ""
    write(file, lambda n: False, column=None)
    assert read_source(Data(source=str(file), columns=columns))[0]["explanation"] == ""
    with pytest.raises(DataError, match=r'no column "why" \(data.columns.explanation\)'):
        read_source(Data(source=str(file), columns=Columns(label="rating", explanation="why")))


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "blank", [lambda n: True, lambda n: n % 2 == 0, lambda n: n == 17], ids=["all", "half", "one"]
)
def test_by_default_a_target_that_needs_explanations_is_not_trained_without(
    tmp_path: Path, spec: Callable[..., Path], content: str, blank: Callable[[int], bool]
) -> None:
    write(tmp_path / "rated.jsonl", blank)
    file = spec(content, "holdout = 0.01\nvalidation_share = 0.01")
    output = run(file, code=1)
    assert told(output, "examples", "no explanation", "row-", f'target.content = "{content}"')
    assert summaries(file, "train") == [] and len(summaries(file, "data")) == 1


def test_a_file_without_the_column_is_as_one_whose_cells_are_empty(
    tmp_path: Path, spec: Callable[..., Path]
) -> None:
    write(tmp_path / "rated.jsonl", lambda n: False, column=None)
    assert told(run(spec(), code=1), '"explanation"')
    run(spec("label"))


def test_rows_left_out_are_left_out_under_every_condition(tmp_path: Path, spec: Callable[..., Path]) -> None:
    write(tmp_path / "rated.jsonl", lambda n: n % 3 == 0)
    levels = "".join(f'"{name}" = {{ target.content = "{name}" }}\n' for name in ("label", *CONTENTS))
    file = spec(data='empty_explanations = "drop"', more=f"[factors.target.levels]\n{levels}")
    output = run(file)
    assert told(output, "16 rows", "explanation")
    (data,) = summaries(file, "data")
    assert data["dropped_unexplained"] == 16
    assert sum(data[f"{split}_examples"] for split in SPLITS) == 32
    assert all(data[f"{split}_examples_without_explanation"] == 0 for split in SPLITS)
    trained = summaries(file, "train")
    assert len(trained) == 6 and len({each["train_examples"] for each in trained}) == 1
    assert all(each["train_examples_label_alone"] == 0 for each in trained)


def test_a_row_that_is_left_out_hides_no_later_one_that_is_the_same(tmp_path: Path) -> None:
    rows = [{"context": "m", "response": "r", "label": "1", "explanation": text} for text in (" ", "so")]
    (tmp_path / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Data(source=str(tmp_path / "rated.jsonl"), empty_explanations="drop")
    assert [row["id"] for row in read_source(data)] == ["row-2"]


@pytest.mark.parametrize("content", CONTENTS)
def test_labels_alone_are_trained_on_and_counted(
    tmp_path: Path, spec: Callable[..., Path], content: str
) -> None:
    write(tmp_path / "rated.jsonl", lambda n: n % 2 == 0)
    file = spec(content, 'empty_explanations = "label"', "[train.x]\n".replace("[train.x]\n", ""))
    early = ("--set", "train.early_stopping=1", "--set", "train.validate_every=1", "--set", "data.train=20")
    assert "without explanation" in run(file, *early, "--set", "data.validation_share=0.3")
    (data,), (trained,) = summaries(file, "data"), summaries(file, "train")
    assert data["dropped_unexplained"] == 0
    assert sum(data[f"{split}_examples_without_explanation"] for split in SPLITS) == 24
    home = place_of(file.with_name("store")).under(
        "data/" + next(iter(Ledger(place_of(file.with_name("store"))).done("data")))
    )
    used = {"train": load(home, "train", 20), "validation": load(home, "validation", None)}
    for split, rows in used.items():
        alone = sum(not row["explanation"].strip() for row in rows)
        assert trained[f"{split}_examples_label_alone"] == alone > 0
    # An explained target is longer than a label and the end of the sequence.
    assert trained["completion_tokens"] > 2 * 4 * trained["train_steps"]  # batches of four


def test_validation_examples_need_theirs_only_where_they_are_read(
    tmp_path: Path, spec: Callable[..., Path]
) -> None:
    data = Data(source=str(tmp_path / "rated.jsonl"), columns=Columns(label="rating"), validation_share=0.3)
    write(tmp_path / "rated.jsonl", lambda n: False)
    prepare(data, list("123"), tmp_path / "data")
    validated = {row["id"] for row in load(tmp_path / "data", "validation", None)}
    write(tmp_path / "rated.jsonl", lambda n: f"row-{n + 1}" in validated)
    file = spec(data="validation_share = 0.3")
    run(file)
    output = run(file, "--set", "train.early_stopping=1", code=1)
    assert told(output, f"{len(validated)} of {len(validated)}", "validation")


AT_END = '[probe]\nenabled = true\npositions = ["completion_end"]\n'


def test_test_examples_need_theirs_only_where_they_are_read(
    tmp_path: Path, spec: Callable[..., Path]
) -> None:
    data = Data(source=str(tmp_path / "rated.jsonl"), columns=Columns(label="rating"))
    write(tmp_path / "rated.jsonl", lambda n: False)
    prepare(data, list("123"), tmp_path / "data")
    tested = {row["id"] for row in load(tmp_path / "data", "test", None)}
    write(tmp_path / "rated.jsonl", lambda n: f"row-{n + 1}" in tested)
    file = spec()
    run(file)  # the prompt alone is read
    run(file, "--set", "probe.enabled=true")
    behind = ("--set", "probe.enabled=true", "--set", 'probe.positions=["completion_end"]')
    output = run(file, *behind, code=1)
    assert told(output, f"{len(tested)} of {len(tested)}", "test")
    run(file, *behind, "--set", "data.empty_explanations=label")
    assert max(each.get("probed_examples_label_alone", 0) for each in summaries(file, "probe")) == len(tested)
    before = (
        "--set",
        "target.placement=before",
        "--set",
        "probe.enabled=true",
        "--set",
        'probe.positions=["label"]',
    )
    assert told(run(file, *before, code=1), "test", "no explanation")


def test_what_needs_no_explanation_is_trained_once_whatever_the_key_says(
    tmp_path: Path, spec: Callable[..., Path]
) -> None:
    write(tmp_path / "rated.jsonl", lambda n: n % 2 == 0)
    levels = (
        '[factors.target.levels]\na = { target.content = "label" }\nb = { target.content = "label+filler" }\n'
    )
    file = spec(more=levels)
    run(file, code=1)
    assert len(summaries(file, "train")) == 1
    output = run(file, "--set", "data.empty_explanations=label")
    assert "Ran 1 train, 1 evaluate" in output and len(summaries(file, "train")) == 2


def test_the_report_on_data_counts_what_has_no_explanation(tmp_path: Path, spec: Callable[..., Path]) -> None:
    write(tmp_path / "rated.jsonl", lambda n: n % 2 == 0)
    lines = engine("data", spec()).output.splitlines()
    (line,) = (line for line in lines if "without an explanation" in line)
    assert sum(int(cell) for cell in line.split("│")[2:-1]) == 24
    output = engine("data", spec(data='empty_explanations = "drop"')).output
    assert any("without an explanation" in line and " 24 " in line for line in output.splitlines())


def test_the_plan_says_what_has_no_explanation(tmp_path: Path, spec: Callable[..., Path]) -> None:
    write(tmp_path / "rated.jsonl", lambda n: n % 2 == 0)

    def warnings(file: Path) -> list[str]:
        found = json.loads(engine("plan", file, "--json").output)["warnings"]
        return [text for text in found if text.startswith("data.")]

    def notes(file: Path) -> str:
        (said, *more) = warnings(file)
        assert not more and said in " ".join(engine("plan", file).output.split())
        return said

    said = notes(spec())
    assert told(said, "no explanation", "label+explanation")
    assert sum(int(word) for word in said.split() if word.isdigit()) == 24
    assert "the label alone" in notes(spec("label+filler", 'empty_explanations = "label"'))
    dropping = spec(data='empty_explanations = "drop"')
    assert told(notes(dropping), "24 rows", "explanation")
    run(dropping)
    assert told(engine("plan", dropping, "--store", tmp_path / "store").output, "24 rows", "explanation")
    for quiet in (spec("label"), spec("label", 'empty_explanations = "label"')):
        assert not [text for text in warnings(quiet) if "changes no result" not in text]
    write(tmp_path / "rated.jsonl", lambda n: False)
    assert warnings(spec()) == []


@pytest.mark.parametrize(("separator", "code"), [(" is the", 1), (" is not", 0)])
@pytest.mark.parametrize("content", ["label+explanation", "label+shuffled"])
def test_an_explanation_that_holds_the_separator_is_not_trained_on_where_it_comes_first(
    tmp_path: Path, spec: Callable[..., Path], content: str, separator: str, code: int
) -> None:
    write(tmp_path / "rated.jsonl", lambda n: False)
    file = spec(content)
    own = f'content = "{content}"\nplacement = "before"\nseparator = "{separator}"'
    file.write_text(file.read_text().replace(f'content = "{content}"', own))
    output = " ".join(run(file, code=code).split())
    assert (told(output, "target.separator", "' is the'")) == bool(code)
    assert len(summaries(file, "train")) == 1 - code


@given(st.text(min_size=1, max_size=8))
def test_a_text_says_something_where_a_character_can_be_seen(text: str) -> None:
    hidden = {"Zs", "Zl", "Zp", "Cc", "Cf"}
    kinds = {unicodedata.category(letter) for letter in text}
    if kinds <= hidden:
        assert not explained({"explanation": text})
    elif kinds - hidden - {"Mn", "Lo", "So"}:
        assert explained({"explanation": text})


@pytest.mark.parametrize("blank", BLANK[1:])
def test_a_target_with_an_invisible_explanation_is_the_label_alone(tokenizer: Any, blank: str | None) -> None:
    own = writer(tokenizer, target=Target(content="label+explanation"))
    row = {"id": "1", "context": "a", "response": "reply", "label": "2"}
    assert own.encode({**row, "explanation": blank or ""}) == own.encode({**row, "explanation": ""})


@pytest.mark.parametrize("column", ["response", "rating"])
def test_a_response_or_label_that_cannot_be_seen_is_empty(tmp_path: Path, column: str) -> None:
    file = write(tmp_path / "rated.csv", lambda n: False)
    rows = [json.loads(line) | ({column: "\u200b"} if n == 4 else {}) for n, line in enumerate(file.open())]
    file.write_text(
        "context,response,rating\n" + "".join(f"{r['context']},{r['response']},{r['rating']}\n" for r in rows)
    )
    with pytest.raises(DataError, match=rf'column "{column}" is empty'):
        read_source(Data(source=str(file), columns=Columns(label="rating")))
