"""The tasks of lm-evaluation-harness that a spec asks for, as stage keys know them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from engine.errors import DataError, UsageError
from engine.planning.identities import digest
from specs.tables.evaluate import Evaluate
from specs.toml.paths import no_such
from store.backend.records import hash_file

PACKAGE = "lm-eval"


def tasks_identity(evaluate: Evaluate) -> str:
    """Identify tasks, how much of each is asked, and the harness that asks it; "" where there is no task.

    Raises UsageError where the harness is not installed, DataError where the folder of tasks is missing.
    """
    if not evaluate.tasks:
        return ""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"evaluate.tasks: tasks need the package {PACKAGE}, which is not installed; expected: "
            "pip install 'ablation-engine[harness]'"
        ) from None
    files = _files(evaluate.task_folder) if evaluate.task_folder else {}
    asked = [sorted(set(evaluate.tasks)), evaluate.task_examples, evaluate.task_shots]
    return digest([version, asked, files])


def _files(folder: str) -> dict[str, str]:
    """Hash the files of a folder by name, but for those that Python and editors make there."""
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"evaluate.task_folder: {no_such(path, 'folder')}")
    names = {file: file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()}
    return {
        name.as_posix(): hash_file(file)
        for file, name in names.items()
        if not any(part.startswith((".", "__pycache__")) for part in name.parts)
    }
