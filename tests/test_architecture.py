"""Three leaves and one root, an order inside each, and whose the name `kernels` is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path

import pytest
from facts import facts
from transformers.utils import import_utils

import kernels
from engine.errors import EngineError
from engine.running.kernels_owner import check_kernels
from specs.tables.experiment import STAGES

ROOT = Path(__file__).parents[1]
LEAVES = ("specs", "kernels", "store")
# Whoever stands in a row imports from its own folder and from rows above it. "" are the files of the package
# itself, but for those that stand in a row of their own.
ORDER = {
    "engine": (
        "errors terminal quantities fingerprints full_memory", "cpu_share", "progress", "process_group",
        "models", "data", "planning", "text", "stages", "running", "annotation", "publishing", "api",
        "cli", "",
    ),
    "store": (
        "errors tokens quality calibration sampling follow", "backend", "lease", "ledger", "arrays",
        "reader writer accessor", "export_card", "export upkeep analysis", "pooling plots notebook", "report",
        "",
    ),
    "specs": (
        "common", "errors", "registry", "tables", "toml", "checks", "axes", "rules", "load", "matrix",
        "reference", "",
    ),
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Give every module of the project by its name."""
    files = (file for top in ("engine", *LEAVES) for file in (ROOT / top).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def inner_imports(file: Path, known: Collection[str]) -> set[str]:
    """Give the project's modules that a file imports, also inside functions, but not for types alone."""
    found: set[str] = set()
    waiting = list(ast.parse(file.read_text("utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            waiting += ast.iter_child_nodes(node)
    return found & set(known)


def imported(package: str) -> dict[str, set[str]]:
    """Give the top-level names that each module of a package imports."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / package).rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
        found[str(file.relative_to(ROOT))] = names
    return found


@pytest.mark.parametrize("package", LEAVES)
def test_a_leaf_imports_neither_its_siblings_nor_the_root(package: str) -> None:
    """But for `specs.common`, which all may import, and which imports nothing of the project."""
    known = modules()
    foreign = {
        (name, other)
        for name, file in known.items()
        for other in inner_imports(file, known)
        if name.split(".")[0] == package != other.split(".")[0] and not other.startswith("specs.common")
    }
    assert foreign == set()


def test_what_all_share_imports_the_standard_library_alone() -> None:
    files = {name: found for name, found in imported("specs").items() if name.startswith("specs/common/")}
    foreign = {name: names - set(sys.stdlib_module_names) for name, names in files.items()}
    assert foreign and not any(foreign.values())
    code = "import sys, store.errors, kernels.lens_result; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "specs.load" not in done.stdout


PUBLIC = ("engine", "engine.plugins", "kernels", "specs", "store", "store.analysis", "store.plots")


@pytest.mark.parametrize("package", PUBLIC)
def test_completion_knows_what_a_package_exports_and_nothing_else(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    shown = {name for name in dir(module) if not name.startswith("__")}
    assert shown == {name for name in module.__all__ if not name.startswith("__")}
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=facts(package, "'nothing'")):
        module.nothing  # noqa: B018


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    graph = {name: inner_imports(file, known) - {name} for name, file in known.items()}
    while free := [name for name, others in graph.items() if not others]:
        for name in free:
            del graph[name]
        graph = {name: others - set(free) for name, others in graph.items()}
    assert graph == {}  # whatever is left here is in a circle, or imports one


@pytest.mark.parametrize("top", ORDER)
def test_folders_import_in_one_order(top: str) -> None:
    rows = {name: number for number, row in enumerate(ORDER[top]) for name in row.split() or [""]}
    known = modules()
    assert {name.split(".")[1] for name in known if name.count(".") > 1 and name.startswith(top)} <= set(rows)

    def row_of(name: str) -> int:
        part = name.split(".")[1] if "." in name else ""
        return rows.get(part, rows[""])

    upward = [
        (name, other)
        for name, file in known.items()
        for other in inner_imports(file, known)
        if name.split(".")[0] == other.split(".")[0] == top and row_of(other) > row_of(name)
    ]
    assert upward == []


@pytest.mark.parametrize("package", ["specs", "store"])
def test_planning_and_reading_need_no_torch(package: str) -> None:
    heavy = {"torch", "transformers", "peft", "datasets", "triton"}
    assert {file: names & heavy for file, names in imported(package).items() if names & heavy} == {}


def test_transformers_does_not_take_our_kernels_for_the_hubs() -> None:
    assert not import_utils.is_kernels_available()


def test_foreign_kernels_are_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    check_kernels()
    monkeypatch.setattr(kernels, "__file__", "/elsewhere/kernels/__init__.py")
    with pytest.raises(EngineError, match=facts("/elsewhere/kernels", "pip uninstall kernels")):
        check_kernels()


def test_a_second_owner_of_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both wheels write site-packages/kernels: the place is then right, and files of both are in it."""
    info = tmp_path / "kernels-0.11.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.11.2\n")
    (info / "RECORD").write_text("kernels/__init__.py,,\nkernels/layer.py,,\n")
    check_kernels()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineError, match=facts("kernels", "pip uninstall kernels")):
        check_kernels()


def test_no_handler_takes_damage_for_a_lack_of_data() -> None:
    """Whoever catches StoreError lets pass, or names, what says that the store is damaged or out of reach."""
    last = {"engine/cli/main.py", "engine/cli/parameters.py"}  # where errors become messages
    found = []
    for file in (file for top in ("engine", "store") for file in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            caught = [ast.unparse(h.type) for h in getattr(node, "handlers", ()) if h.type is not None]
            if "StoreError" in caught and str(file.relative_to(ROOT)) not in last:
                before = caught[: caught.index("StoreError")]
                if not {"FAULTS", "UnreachableError"} & set(before):
                    found.append(f"{file.name}:{node.lineno}")
    assert found == []


def test_the_page_names_the_four_parts_of_every_stage() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8").partition("### The four parts of a stage")[2]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("| ").split("|")]
        for line in page.partition("\n## ")[0].splitlines()
        if line.startswith("| ")
    ][2:]
    assert [stage for stage, *_ in rows] == list(STAGES)
    wrong = []
    for stage, *parts in rows:
        assert len(parts) == 4, stage
        for file, _, name in (part.partition(":") for part in parts if part != "none"):
            body: list[ast.stmt] = ast.parse((ROOT / "engine" / file).read_text("utf-8")).body
            for step in name.split("."):
                found = [
                    own
                    for own in body
                    if isinstance(own, ast.FunctionDef | ast.ClassDef) and own.name == step
                ]
                body = found[0].body if found else []
            wrong += [f"{stage}: {file}:{name}"] * (not body)
    assert wrong == []


def test_the_distribution_holds_these_packages() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.partition(".")[0] for name in packages} == {"engine", *LEAVES}
    folders = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("engine", *LEAVES)
        for file in (ROOT / top).rglob("*.py")
        if file.parent.name != "csrc"  # used at build time only
    }
    assert folders == set(packages)


def test_no_module_grows_beyond_what_one_reads_in_one_go() -> None:
    files = [file for top in ("engine", *LEAVES) for file in (ROOT / top).rglob("*.py")]
    assert {file.name: size for file in files if (size := len(file.read_text().splitlines())) > 400} == {}


@pytest.mark.parametrize("package", ["engine", "kernels", "store", "store.analysis", "store.plots"])
def test_docstrings_of_public_functions_name_their_own_arguments(package: str) -> None:
    module = importlib.import_module(package)
    functions = [own for own in (getattr(module, name) for name in module.__all__) if inspect.isfunction(own)]
    sections = {own.__name__: inspect.getdoc(own).partition("\nArgs:\n")[2] for own in functions}
    assert any(sections.values())
    for function in functions:
        own = re.findall(r"^    \**(\w+): ", sections[function.__name__].partition("\n\n")[0], re.MULTILINE)
        assert set(own) <= set(inspect.signature(function).parameters), function.__name__


@pytest.mark.parametrize("package", PUBLIC)
def test_docstrings_of_public_methods_name_every_argument(package: str) -> None:
    module = importlib.import_module(package)
    for exported in (getattr(module, name) for name in module.__all__):
        for name, member in vars(exported).items() if inspect.isclass(exported) else ():
            method = getattr(member, "__func__", member)  # that of a class, too
            if name.startswith("_") or not inspect.isfunction(method):
                continue
            section = inspect.getdoc(method).partition("\nArgs:\n")[2].partition("\n\n")[0]
            told = re.findall(r"^    \**(\w+): ", section, re.MULTILINE)
            assert told == [arg for arg in inspect.signature(method).parameters if arg not in ("self", "cls")]


@pytest.mark.parametrize("package", ["kernels", "store", "store.analysis"])
def test_no_module_has_the_name_of_a_function(package: str) -> None:
    """Where names are imported when first used, importing such a module would take the function's place."""
    modules = {path.stem for path in (ROOT / package.replace(".", "/")).glob("*.py")}
    assert not modules & set(importlib.import_module(package).__all__)
