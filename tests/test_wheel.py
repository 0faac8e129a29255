"""The wheel holds what the commands need, a demo without a clone; no folder hides an installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from facts import told

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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a package is built of."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
            shutil.copytree(source, folder / "source" / name, ignore=ignored)
        else:
            shutil.copy(source, folder / "source" / name)
    return folder / "source"


@pytest.fixture(scope="module")
def site(source: Path) -> Path:
    """What the built wheel puts into a folder of packages."""
    folder = source.parent
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, *map(str, command), str(source)], check=True)
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


@pytest.fixture(scope="module")
def editable(source: Path) -> Path:
    """What an editable install puts into a folder of packages."""
    folder = source.parent / "editable"
    folder.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_editable({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


READING = """
import site, sys
sys.path.remove(sys.argv[2])  # where the environment of the tests has its own install
site.addsitedir(sys.argv[1])
import engine
from store import open_store
engine.plan, engine.execute, engine.load_adapter, open_store
print(engine.__file__)
"""


@pytest.mark.parametrize("installed", ["site", "editable"])
def test_folders_of_the_names_of_packages_hide_none(
    installed: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for name in ("engine", "kernels", "specs", "store"):
        (tmp_path / name / "mine").mkdir(parents=True)
    place = request.getfixturevalue(installed)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", READING, str(place), str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    home = place if installed == "site" else request.getfixturevalue("source")
    assert done.stdout.startswith(str(home)), done.stdout + done.stderr


@pytest.mark.parametrize("name", ["specs", "store"])
def test_a_module_that_takes_the_name_of_a_package_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("")
    command = [sys.executable, "-c", "import engine"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError") and told(last, str(tmp_path / f"{name}.py"), str(ROOT / name))


@pytest.mark.demo
def test_the_demo_needs_no_clone(site: Path, tmp_path: Path) -> None:
    few = ("train.steps=1", "data.train=8", "data.test=4", "seeds=[0]")
    done = run(site, tmp_path, "demo", "tried", *(part for key in few for part in ("--set", key)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Results by condition" in done.stdout and "label+shuffled" in done.stdout
    assert (tmp_path / "tried" / "stores" / "demo" / "store.json").is_file()
    again = run(site, tmp_path, "report", "tried/demo.toml")
    assert again.returncode == 0 and Path(again.stdout.strip()).name == "report.html"
