"""The wheel holds what the commands need: a demo without a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    "engine",
    "kernels",
    "specs",
    "store",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the built wheel puts into a folder of packages."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
            shutil.copytree(source, folder / "source" / name, ignore=ignored)
        else:
            shutil.copy(source, folder / "source" / name)
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, *map(str, command), str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the wheel's command in a folder where nothing else of this project is."""
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"}
    command = [sys.executable, "-P", "-m", "engine", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
    )


def test_the_wheel_holds_every_module_and_what_is_read_of_packages(site: Path) -> None:
    for package in ("engine", "kernels", "specs", "store"):
        theirs = {file.relative_to(site) for file in (site / package).rglob("*") if file.is_file()}
        ours = {
            file.relative_to(ROOT)
            for file in (ROOT / package).rglob("*")
            if file.suffix in {".py", ".toml", ".js", ".css", ".html"} and "__pycache__" not in file.parts
        }
        lacking = {str(file) for file in ours - theirs}
        assert lacking <= {"kernels/csrc/binding.py"}
    assert {path.name for path in site.iterdir() if "-" not in path.name} == {
        "engine",
        "kernels",
        "specs",
        "store",
    }


def test_it_runs_outside_the_clone(site: Path, tmp_path: Path) -> None:
    code = "import engine, specs; print(engine.__file__, specs.__file__)"
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert all(path.startswith(str(site)) for path in done.stdout.split())
    assert run(site, tmp_path, "--version").stdout.strip().endswith("0.1.0")


@pytest.mark.demo
def test_the_demo_needs_no_clone(site: Path, tmp_path: Path) -> None:
    few = ("train.steps=1", "data.train=8", "data.test=4", "seeds=[0]")
    done = run(site, tmp_path, "demo", "tried", *(part for key in few for part in ("--set", key)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Results by condition" in done.stdout and "label+shuffled" in done.stdout
    assert (tmp_path / "tried" / "stores" / "demo" / "store.json").is_file()
    again = run(site, tmp_path, "report", "tried/demo.toml")
    assert again.returncode == 0 and Path(again.stdout.strip()).name == "report.html"
