"""Processes below this one import its packages, whatever lies where they start; what fails in one is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ran
from small_study import small_spec

from engine.errors import LostRankError
from engine.progress import StopRequest
from engine.running.executors.base import Job, Work
from engine.running.executors.imports import python_environment
from engine.running.executors.launch import Launcher

ROOT = Path(__file__).parents[4]
# As an editable install does it: folders on the path come first, and so a folder of the working directory.
FINDER = """
import importlib.machinery, importlib.util, sys

class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("specs", "engine", "store", "kernels"):
            return importlib.util.spec_from_file_location(name, {root!r} + "/" + name + "/__init__.py")

sys.meta_path.insert(1 + sys.meta_path.index(importlib.machinery.PathFinder), Editable)
"""
SCRIPT = """
from engine.cli.main import main

if __name__ == "__main__":
    main()
"""
KINDS = {
    "ranks": ["executor.ranks=2"],
    "local": ['executor.kind="local"', "executor.workers=1"],
    "ray": ['executor.kind="ray"', "executor.workers=1"],
    "slurm": ['executor.kind="slurm"', 'executor.cluster="local"'],
}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    """The command as an editable install starts it, and its environment."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "bin").mkdir()
    (folder / "site").mkdir()
    (folder / "bin" / "engine").write_text(SCRIPT)
    (folder / "site" / "sitecustomize.py").write_text(FINDER.format(root=str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
    return [sys.executable, str(folder / "bin" / "engine")], environment


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_folders_of_the_same_names_are_no_packages(
    kind: str, command: tuple[list[str], dict[str, str]], tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    pytest.importorskip({"slurm": "submitit", "ray": "ray"}.get(kind, "engine"))
    words, environment = command
    spec = small_spec(tmp_path, tiny_model, rated_file)
    for name in ("specs", "engine", "store/deeper", "kernels"):
        (tmp_path / "work" / name).mkdir(parents=True)
    (tmp_path / "work" / "engine" / "__init__.py").write_text("raise ImportError('a foreign engine')\n")
    settings = [word for setting in KINDS[kind] for word in ("--set", setting)]
    ended = subprocess.run(
        [*words, "execute", str(spec), "--store", str(tmp_path / "store"), "--max-cells", "1", *settings],
        cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ran(ended.stdout) == dict.fromkeys(("data", "base", "train", "evaluate", "probe"), 1)


class _Unreadable:
    """What fails where it is unpickled, by a built-in that every process has."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("no number",)


def test_what_fails_before_a_rank_has_begun_is_told(tmp_path: Path) -> None:
    job = Job(_Unreadable(), tmp_path, None, 60.0, ranks=2)  # type: ignore[arg-type]
    with pytest.raises(LostRankError, match=r"rank \d of 2: ValueError: invalid literal .*'no number'"):
        Launcher(job, StopRequest()).run(Work((), "model"))


def test_an_installed_package_needs_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/one", str(ROOT)]))
    assert python_environment() == {
        "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), "/one"])
    }  # fmt: skip
    monkeypatch.setattr("engine.running.executors.imports.ROOT", Path("/usr/lib/python3/site-packages"))
    assert python_environment() == {"PYTHONSAFEPATH": "1"}
