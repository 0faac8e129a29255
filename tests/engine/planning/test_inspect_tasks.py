"""Which tasks of Inspect a spec asks for: told by a plan, without running them, and part of their keys."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from commands import engine
from facts import told

from engine.planning import inspect_tasks as planned
from engine.planning.inspect_files import content_of, tasks_of
from engine.planning.inspect_tasks import Reference, inspect_identity
from specs import load_spec, resolve
from specs.tables.inspect_tasks import InspectTasks

TASKS = """
import helper
from . import beside
from inspect_ai import Task, task

DATA = "rows.jsonl"

@task
def plain(): ...

@task(name="called so", version=2)
def other(): ...

@task()
def bare(): ...

def no_task(): ...
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    version = metadata.version
    monkeypatch.setattr(
        planned.metadata, "version", lambda name: "1" if name == planned.PACKAGE else version(name)
    )
    folder = tmp_path / "evals"
    (folder / "package").mkdir(parents=True)
    for name, text in {
        "tasks.py": TASKS,
        "rows.jsonl": "{}",
        "helper.py": 'import package\nFOLDER = "texts"',
        **dict.fromkeys(("beside.py", "package/__init__.py", "unread.jsonl", "unread.py"), ""),
    }.items():
        (folder / name).write_text(text)
    (folder / "texts").mkdir()
    (folder / "texts" / "one.txt").write_text("one")
    return folder / "tasks.py"


def identity(file: Path, task: str = "plain", **more: object) -> str:
    return inspect_identity(InspectTasks(tasks=[f"{file}@{task}"], **more))


def test_tasks_of_a_file_are_those_that_inspect_finds(file: Path) -> None:
    assert tasks_of(file) == ["plain", "called so", "bare"]
    assert Reference.of(f"{file}").names == ["plain", "called so", "bare"]
    try:
        from inspect_ai._util.decorator import parse_decorators
    except ImportError:
        return
    assert tasks_of(file) == [name for name, _ in parse_decorators(file, "task")]


def test_a_file_counts_with_what_it_reads(file: Path) -> None:
    assert set(content_of(file)) == {
        "tasks.py", "rows.jsonl", "helper.py", "beside.py", "package/__init__.py", "texts/one.txt"
    }  # fmt: skip
    known = identity(file)
    for name in ("unread.jsonl", "unread.py", "texts/.hidden"):
        (file.parent / name).write_text("other")
        assert identity(file) == known, name
    for name in ("rows.jsonl", "helper.py", "package/__init__.py", "texts/two.txt", "tasks.py"):
        before, path = identity(file), file.parent / name
        path.write_text(f"{path.read_text() if path.exists() else ''}\n# more")
        assert identity(file) != before, name
    moved = file.parent.rename(file.parent.with_name("moved")) / "tasks.py"
    assert identity(moved) != known  # for what was written
    assert identity(moved) == identity(moved)


def test_what_is_asked_is_in_the_identity(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = identity(file)
    for change in ({"samples": 3}, {"max_tokens": 5}, {"seed": 1}, {"task": "bare"}):
        assert identity(file, **change) != known, change
    both = [f"{file}@plain", f"{file}@bare"]
    assert inspect_identity(InspectTasks(tasks=both)) == inspect_identity(
        InspectTasks(tasks=[*both[::-1], both[0]])
    )
    monkeypatch.setattr(planned.metadata, "version", lambda _: "2")
    assert identity(file) != known
    assert inspect_identity(InspectTasks()) == ""


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("evals/tasks.py@plan", ('no task "plan"', '"plain"')),
        ("evals/tasks.py@zzzzzz", ('no task "zzzzzz"', '"bare"', '"called so" or "plain"')),
        ("evals/task.py@plain", ("no such file", "evals/task.py", "tasks.py")),
        ("evals/helper.py", ("helper.py", "no function under @task")),
        ("evals/rows.jsonl", ("rows.jsonl", "FILE.py@TASK", "PACKAGE/TASK")),
        ("inspect_eval/gsm8k", ("inspect_eval/gsm8k", "no installed package")),
        ("evals/broken.py", ("broken.py", "line 2", "no Python")),
    ],
)
def test_what_is_no_task_is_told_by_the_plan(
    file: Path, write_spec, task: str, said: tuple[str, ...]
) -> None:
    (file.parent / "broken.py").write_text("import os\ndef (\n")
    output = engine("plan", write_spec(), "--set", f'evaluate.inspect.tasks=["{task}"]', code=2).output
    assert told(output, "evaluate.inspect.tasks", *said), output


def test_without_inspect_a_plan_says_what_to_install(
    file: Path, write_spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(planned, "PACKAGE", "no-such-package")
    flags = ("--set", f'evaluate.inspect.tasks=["{file}@plain"]')
    output = engine("plan", write_spec(), *flags, code=2).output
    assert told(output, "evaluate.inspect.tasks", "no-such-package", "pip install 'ablation-engine[inspect]'")


def test_a_package_is_known_by_its_version(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(version: str) -> None:
        info = tmp_path / "site" / "some_evals-1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: some-evals\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[inspect_ai]\nsome_evals = some_evals._registry\n")

    install("1.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    asked = InspectTasks(tasks=["some_evals/sums"])
    known = inspect_identity(asked)
    assert known != inspect_identity(InspectTasks(tasks=["some_evals/words"]))
    install("1.1")
    assert inspect_identity(asked) != known
    with pytest.raises(planned.UsageError, match='"some_eval"; did you mean "some_evals"'):
        inspect_identity(InspectTasks(tasks=["some_eval/sums"]))


def test_paths_are_relative_to_the_spec(file: Path, write_spec) -> None:
    spec = write_spec('[evaluate.inspect]\ntasks = ["evals/tasks.py@plain", "some_evals/sums"]\n')
    (spec.parent / "some_evals" / "sums").mkdir(parents=True)
    matrix = resolve(load_spec(spec))
    known = matrix.table("evaluate", matrix.cells[0]).inspect.tasks
    assert known == [f"{file}@plain", "some_evals/sums"]
