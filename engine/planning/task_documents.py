"""How many documents tasks have, and how long these are: by files, else by a table, else assumed.

Files on this machine tell it of tasks of lm-evaluation-harness in `evaluate.task_folder` whose YAML file
names a file of data, and of tasks of Inspect whose file names a single one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from engine.data.table_files import read_file
from engine.errors import DataError
from engine.planning.common_tasks import ASSUMED, COMMON_TASKS, CommonTask
from engine.planning.example_lengths import CHARACTERS_PER_TOKEN
from engine.planning.inspect_files import content_of
from engine.planning.inspect_tasks import Reference
from specs.tables.evaluate import Evaluate
from specs.tables.inspect_tasks import InspectTasks
from specs.toml.paths import data_suffix

WRITTEN = 256  # tokens of an answer where neither a task nor the spec sets the most
ROWS = 200  # whose mean length stands for all
MOST_BYTES = 32 * 2**20  # of a file that is read for a plan
SPLITS = ("test_split", "validation_split")  # of the harness, the first that a task has
FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")

ToldBy = Literal["file", "table", "nothing"]


@frozen
class Documents:
    """The documents of a task."""

    count: int
    passes: float
    """Of the model for each, generation left out."""
    tokens: float
    """Of each, that are read."""
    written: float
    """Tokens of each that are written, at most."""
    told_by: ToldBy = "file"
    answer_assumed: bool = False
    """Whether nothing sets how long an answer may be."""


def harness_documents(evaluate: Evaluate) -> dict[str, Documents]:
    """Give the documents of each of `evaluate.tasks`."""
    own = dict(_configurations(Path(evaluate.task_folder))) if evaluate.task_folder else {}
    found = {}
    for name in evaluate.tasks:
        documents = _of_harness(own[name], evaluate) if name in own else None
        found[name] = documents or _of_table(None if name in own else COMMON_TASKS.get(name), evaluate)
    return found


def _of_table(known: CommonTask | None, evaluate: Evaluate) -> Documents:
    """Give what a table says of a task of the harness; what is assumed where it says nothing."""
    task = known or ASSUMED
    shots = task.shots if evaluate.task_shots is None else evaluate.task_shots
    written = 0.0 if task.choices else task.answer
    read = task.passes * (task.context * (1 + shots) + task.answer - written)
    count = min(task.documents, evaluate.task_examples or task.documents)
    return Documents(count, task.passes, read, written, "table" if known else "nothing")


def _configurations(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the tasks of a folder's YAML files by name, what they include laid under them."""
    for file in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.yml"))):
        content = _read_yaml(file)
        if isinstance(content.get("task"), str):
            yield content["task"], content


def _read_yaml(file: Path, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads tags such as `!function` as nothing."""

    Loader.add_multi_constructor("!", lambda *_: None)
    try:
        content = yaml.load(file.read_text("utf-8"), Loader)
    except (OSError, ValueError, yaml.YAMLError):  # which the harness will tell
        return {}
    if not isinstance(content, dict):
        return {}
    included = content.get("include")
    names = included if isinstance(included, list) else [included] * isinstance(included, str)
    inner: dict[str, Any] = {}
    for name in names:
        other = (file.parent / str(name)).resolve()
        if other.is_file() and other not in (*including, file.resolve()):
            inner |= _read_yaml(other, (*including, file.resolve()))
    return inner | content


def _of_harness(task: Mapping[str, Any], evaluate: Evaluate) -> Documents | None:
    options = task.get("dataset_kwargs")
    files = options.get("data_files") if isinstance(options, dict) else None
    split = next((task[name] for name in SPLITS if isinstance(task.get(name), str)), None)
    path = files.get(split) if isinstance(files, dict) else files
    rows = _rows(Path(path)) if isinstance(path, str) else None
    if not rows:
        return None
    shots = task.get("num_fewshot") if evaluate.task_shots is None else evaluate.task_shots
    context = _length(task.get("doc_to_text"), rows) * (1 + (shots if isinstance(shots, int) else 0))
    kind, passes, written = task.get("output_type", "generate_until"), 1.0, 0.0
    if kind == "multiple_choice":
        choices = task.get("doc_to_choice")
        if isinstance(choices, str):
            choices = rows[0].get(choices)
        if not isinstance(choices, list) or not choices:
            return None
        passes = len(choices)
        behind = sum(len(str(choice)) for choice in choices) / passes
    elif kind == "generate_until":
        settings = task.get("generation_kwargs")
        most = settings.get("max_gen_toks") if isinstance(settings, dict) else None
        behind, written = 0.0, float(most if isinstance(most, int) else WRITTEN)
    else:
        behind = _length(task.get("doc_to_target"), rows)
    count = min(len(rows), evaluate.task_examples or len(rows))
    return Documents(count, passes, passes * (context + behind) / CHARACTERS_PER_TOKEN, written)


def inspect_documents(evaluate: Evaluate) -> dict[str, Documents]:
    """Give the samples of each of `evaluate.inspect.tasks`."""
    return {text: _of_inspect(Reference.of(text), evaluate.inspect) for text in evaluate.inspect.tasks}


def _of_inspect(reference: Reference, asked: InspectTasks) -> Documents:
    rows = None if reference.file is None else _only_data(reference.file)
    known = None if reference.package is None else COMMON_TASKS.get(reference.task or "")
    told_by: ToldBy = "table" if known else "nothing"
    task = known or ASSUMED
    count, length = task.documents, task.context + task.choices * task.answer
    if rows:
        count, length, told_by = len(rows), _length("input", rows) / CHARACTERS_PER_TOKEN, "file"
    count = min(count, asked.samples or count) * (1 if reference.file is None else len(reference.names))
    written = asked.max_tokens or WRITTEN
    return Documents(count, 1.0, length, written, told_by, answer_assumed=asked.max_tokens is None)


def _only_data(file: Path) -> list[Mapping[str, Any]] | None:
    """Read the one file of data that a file of tasks names; None where there is not just one."""
    read = [file.parent / name for name in content_of(file)]
    files = [path for path in read if data_suffix(path)]
    return _rows(files[0]) if len(files) == 1 else None


def _rows(path: Path) -> list[Mapping[str, Any]] | None:
    """Read a file of data; None where it is not there, or none that is read here."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        return [row for _, row in read_file(path).rows]
    except (DataError, OSError, ValueError):  # which the harness will tell
        return None


def _length(template: Any, rows: Sequence[Mapping[str, Any]]) -> float:
    """Give the mean characters of a text of rows: of a column, or of a template's fields and words.

    All of a row where the template says more than that.
    """
    rows = rows[:ROWS]
    text = template if isinstance(template, str) else ""
    columns = [text] if text in rows[0] else FIELD.findall(text)
    words = FIELD.sub("", text)
    if text and "{" not in words and all(column in rows[0] for column in columns):
        around = 0 if text in rows[0] else len(words)
        return around + sum(len(str(row.get(name, ""))) for row in rows for name in columns) / len(rows)
    return sum(len(str(value)) for row in rows for value in row.values()) / len(rows)
