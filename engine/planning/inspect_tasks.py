"""The tasks of Inspect that a spec asks for, as stage keys know them."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

from attrs import frozen

from engine.errors import DataError, UsageError
from engine.planning.identities import digest
from engine.planning.inspect_files import KEY, content_of, tasks_of
from specs.common.spelling import nearest, one_of
from specs.tables.inspect_tasks import InspectTasks
from specs.toml.describe import value as spell
from specs.toml.paths import near_file

PACKAGE = "inspect-ai"
ENTRY_POINTS = "inspect_ai"  # by which packages tell Inspect of their tasks
FORMS = '"FILE.py@TASK", "FILE.py" or "PACKAGE/TASK"'


@frozen
class Reference:
    """One entry of `evaluate.inspect.tasks`: a file, or a package."""

    text: str
    task: str | None  # None: all tasks of the file
    file: Path | None = None
    package: str | None = None

    @classmethod
    def of(cls, text: str) -> Reference:
        """Read an entry; UsageError where it is of neither form."""
        if in_file := re.fullmatch(r"(.+\.py)(?:@(.+))?", text):
            return cls(text, in_file[2], file=Path(in_file[1]))
        if in_package := re.fullmatch(r"([\w.-]+)/([\w.-]+)", text):
            return cls(text, in_package[2], package=in_package[1])
        raise UsageError(f"{KEY}: found {spell(text)}, expected {FORMS}")

    @property
    def names(self) -> list[str]:
        """The names of its tasks."""
        return [self.task] if self.task is not None else tasks_of(self._existing())

    def identity(self) -> list[Any]:
        """Identify what it says: a file by what it holds and reads, a package by its version."""
        if self.package is not None:
            return [self.text, _version_of(self)]
        file = self._existing()
        known = tasks_of(file)
        if self.task not in (None, *known):
            near = nearest(str(self.task), known)
            hint = f"did you mean {spell(near)}?" if near else f"expected {_listed(known)}"
            raise UsageError(f"{KEY}: {file} has no task {spell(self.task)}; {hint}")
        if not known:
            raise UsageError(f"{KEY}: {file} has no function under @task")
        return [self.task, content_of(file)]

    def _existing(self) -> Path:
        assert self.file is not None
        if not self.file.is_file():
            near = near_file(self.file)
            hint = f"; did you mean {spell(near)}?" if near else ""
            raise DataError(f"{KEY}: no such file: {spell(str(self.file))}{hint}")
        return self.file


def inspect_identity(settings: InspectTasks) -> str:
    """Identify tasks, how they are asked, and the Inspect that asks them; "" where there is no task.

    Raises UsageError where Inspect is not installed, or lacks a task; DataError where a file is missing.
    """
    if not settings.tasks:
        return ""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"{KEY}: tasks of Inspect need the package {PACKAGE}, which is not installed; expected: "
            "pip install 'ablation-engine[inspect]'"
        ) from None
    asked = {digest(reference.identity()) for reference in map(Reference.of, settings.tasks)}
    return digest([version, sorted(asked), settings.samples, settings.max_tokens, settings.seed])


def _version_of(reference: Reference) -> str:
    """Give the version of a reference's package."""
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    point = points.get(reference.package or "")
    if point is None or point.dist is None:
        near = nearest(reference.package or "", points)
        hint = f"did you mean {spell(near)}?" if near else f"expected {_listed(list(points))}"
        message = f"no installed package gives Inspect tasks as {spell(reference.package)}; {hint}"
        raise UsageError(f"{KEY}: found {spell(reference.text)}, but {message}")
    return f"{point.dist.name} {point.dist.version}"


def _listed(names: list[str]) -> str:
    return one_of(map(spell, sorted(names))) if names else f"one that is installed, or a file, {FORMS}"
