"""Several processes on one store, and processes that are killed in the middle of it."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from store import Coordinate, Family, Ledger, StoreWriter, Variable, open_store, write_manifest
from store.arrays import layout
from store.backend.locate import place_of

ROOT = Path(__file__).parents[3]
SIZE, BLOCK = 50, 8


def example_family():
    return Family(
        "probe",
        (Coordinate("example", "example", range(SIZE)), Coordinate("layer", "layer", range(4))),
        (
            Variable("entropy", ("example", "layer"), "float32"),
            Variable("rank", ("example", "layer"), "int32"),
            Variable("answer", ("example",), "string"),
        ),
    )


def values(seed):
    rng = np.random.default_rng(seed)
    return {
        "entropy": rng.normal(size=(SIZE, 4)).astype("f4"),
        "rank": rng.integers(0, 99, (SIZE, 4)).astype("i4"),
        "answer": [f"é{n}" for n in rng.integers(0, 99, SIZE)],
    }


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    small = BLOCK * (16 + 16 + layout.STRING_BYTES)
    monkeypatch.setattr(layout, "BLOCK_BYTES", small)


def write(root, key, seed, stop=SIZE, step=3):
    """Stream items up to `stop` as one stage would; the full size closes and commits the cell."""
    shape, data = example_family(), values(seed)
    cell = StoreWriter(root).cell(shape, key)
    start = cell.start
    for i in range(start, stop, step):
        cell.append({name: column[i : min(i + step, stop)] for name, column in data.items()})
    if stop == SIZE:
        cell.close()
        Ledger(root).commit("probe", key, {"family": shape.key})
    return start


def in_process(call):
    """Start a process that makes `call` with this module's functions and small blocks."""
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
import os, signal
from test_processes import *
layout.BLOCK_BYTES = BLOCK * (32 + layout.STRING_BYTES)
{call}
"""
    return subprocess.Popen([sys.executable, "-c", code])


def finish(*processes):
    assert [process.wait(60) for process in processes] == [0] * len(processes)


def manifest(root, keys):
    listed = [{"levels": {"seed": s}, "keys": {"probe": key}} for s, key in enumerate(keys)]
    write_manifest(root, "study", {"factors": ["seed"], "cells": listed})


def assert_written(root, seeds):
    ds = open_store(root)["study/probe"].ds
    assert ds.sizes["cell"] == len(seeds)
    for seed in seeds:
        for name, column in values(seed).items():
            np.testing.assert_array_equal(ds[name].sel(seed=seed), column)


@pytest.mark.parametrize("stop", [5, 29, 48])
def test_a_killed_writer_is_continued(tmp_path, stop):
    manifest(tmp_path, ["k0"])
    killed = in_process(
        f"write({str(tmp_path)!r}, 'k0', 0, stop={stop}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert killed.wait(60) == -signal.SIGKILL
    assert open_store(tmp_path)["study"].attrs["cells_complete"] == 0
    stray = tmp_path / "results.zarr/probe" / example_family().key / "float32-example-layer"
    for row in (0, 1):
        (stray / f"c.{row}.0.1.77.partial").write_bytes(b"torn")
        (stray / f".c.{row}.0.1.77.tmp").write_bytes(b"torn")
    assert write(tmp_path, "k0", 0) == stop // BLOCK * BLOCK
    assert_written(tmp_path, [0])
    assert {path.name for path in stray.glob("*.1.0.1.77.*")} == {"c.1.0.1.77.partial", ".c.1.0.1.77.tmp"}
    assert not list(stray.glob("*.0.0.1.77.*"))
    assert list((tmp_path / "progress").iterdir()) == []


def test_a_writer_killed_between_close_and_commit_has_nothing_left_to_write(tmp_path):
    shape = example_family()
    writer = StoreWriter(tmp_path)
    with writer.cell(shape, "k0") as cell:
        cell.append(values(0))
    with writer.cell(shape, "k0") as cell:
        assert cell.start == SIZE
    with pytest.raises(RuntimeError, match="stop"), writer.cell(shape, "k0", resume=False) as cell:
        assert cell.start == 0
        cell.append({name: column[: BLOCK + 2] for name, column in values(1).items()})
        raise RuntimeError("stop")
    assert writer.cell(shape, "k0").start == BLOCK
    Ledger(tmp_path).clear("probe", "k0")
    assert writer.cell(shape, "k0").start == 0


def test_two_processes_write_different_cells(tmp_path):
    manifest(tmp_path, ["k0", "k1"])
    finish(*(in_process(f"write({str(tmp_path)!r}, 'k{s}', {s}, step=1)") for s in (0, 1)))
    assert_written(tmp_path, [0, 1])


def test_four_processes_allocate_at_once(tmp_path):
    call = "for i in range(10): StoreWriter({!r}).allocate(example_family(), ['{}'+str(i), 'shared'])"
    finish(*(in_process(call.format(str(tmp_path), name)) for name in "abcd"))
    keys = ["shared", *(f"{name}{i}" for name in "abcd" for i in range(10))]
    assert sorted(StoreWriter(tmp_path).allocate(example_family(), keys).values()) == list(range(41))


def test_an_allocation_cut_off_midway_is_made_good(tmp_path):
    code = (
        "from store.arrays import layout; grow = layout._grow; "
        "layout._grow = lambda *arguments: (grow(*arguments), os._exit(9)); "
        f"StoreWriter({str(tmp_path)!r}).allocate(example_family(), ['a', 'b', 'c'])"
    )
    assert in_process(code).wait(60) == 9
    manifest(tmp_path, ["k0"])
    write(tmp_path, "k0", 0)
    assert_written(tmp_path, [0])
    assert StoreWriter(tmp_path).allocate(example_family(), ["k0"]) == {"k0": 0}


def publish(root, kind, content, ready):
    """Make a file or folder and, when all are ready, publish it."""
    made = root / f"{content}.partial"
    if kind == "folder":
        made.mkdir()
        (made / "inside").write_text(content)
    else:
        made.write_text(content)
    ready.wait()
    return place_of(root).publish(made, "published")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_several_publishers_the_first_stays(tmp_path, kind):
    names = [f"own {n}" for n in range(8)]
    ready = threading.Barrier(len(names))
    with ThreadPoolExecutor(len(names)) as pool:
        firsts = list(pool.map(lambda name: publish(tmp_path, kind, name, ready), names))
    assert firsts.count(True) == 1
    found = tmp_path / "published" / "inside" if kind == "folder" else tmp_path / "published"
    assert found.read_text() == names[firsts.index(True)]
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
