"""What this process may not read is named as that, and not called damaged, by every command."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from children import start
from commands import command, engine
from facts import told

from store import Ledger
from store.backend.records import read_json, write_json
from store.upkeep.garbage import find_garbage
from store.upkeep.verify import verify

NOBODY = 65534


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Take all rights to a path away, from root as well."""
    mode, root = path.stat().st_mode, os.geteuid() == 0
    path.chmod(0)
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.fixture(scope="module")
def root(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that everybody may read and write, below folders that everybody may pass."""
    root = shutil.copytree(small_store, tmp_path_factory.mktemp("rights") / "store")
    for path in (root, *root.rglob("*")):
        path.chmod(0o777)
    if os.geteuid() == 0:
        for folder in root.parents:
            if not folder.stat().st_mode & 1:
                folder.chmod(0o755)
    return root


@pytest.mark.parametrize(
    "name",
    ["", "store.json", "experiments", "experiments/small.json", "ledger/train", "results.zarr", "chunk"],
)
def test_a_place_that_may_not_be_read_is_named(root: Path, name: str) -> None:
    chunk = next(root.glob("results.zarr/probe/*/float32-example-layer-position/c.0.*"))
    path = chunk if name == "chunk" else root / name
    commands = [
        ("status", root),
        ("results", root),
        ("report", root),
        ("show", root, "--cell", "target=label,seed=0"),
    ]
    if name == "chunk":
        commands = commands[1:]
    engine("status", root)  # all imports are done, from folders that may be root's alone
    with unreadable(path):
        for words in [*commands, ("export", root, "--to", "csv"), ("verify", root)]:
            code, output = command(*words)
            assert code == 1 and "Traceback" not in output, (words, output)
            said = output.splitlines()[-1]
            assert said.startswith(f"error: {root}"), (words, output)
            assert told(said, "Permission denied"), (words, output)
            assert "damaged" not in output and "--fix" not in output, (words, output)
    assert not verify(root).troubles


def test_what_a_killed_export_leaves_is_garbage_once_it_is_old(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "store")
    child = start(tmp_path, "export", tmp_path / "store", "--to", "csv", before_event=2, among=".tmp")
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    (left,) = (tmp_path / "store").glob("export/**/*.tmp")
    assert not find_garbage(tmp_path / "store")
    os.utime(left, (0, time.time() - 7200))
    assert told(output := engine("gc", tmp_path / "store").output, "killed") and left.name in output, output
    engine("gc", tmp_path / "store", "--delete")
    assert not left.exists()


def test_cells_of_other_versions_are_told_beside_the_results(root: Path, tmp_path: Path) -> None:
    """In the table of `engine results`, and on the report's page."""
    shutil.copytree(root, tmp_path / "store")
    ledger = Ledger(tmp_path / "store")
    key = min(ledger.done("train"))
    name = f"ledger/train/{key}.done.json"
    record = read_json(ledger.place, name)
    own = record["provenance"]["packages"]["torch"]
    record["provenance"]["packages"]["torch"] = "2.11.0"
    write_json(ledger.place, name, record)
    said = f"torch {min(own, '2.11.0')} ("
    output = " ".join(engine("results", tmp_path / "store").output.split())
    assert "different versions: " in output and said in output and "2.11.0" in output
    engine("report", tmp_path / "store")
    page = (tmp_path / "store/report.html").read_text()
    assert "different versions: " in page and "2.11.0" in page
    assert "different versions" not in engine("results", root).output
