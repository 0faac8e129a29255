"""Does a store of 10,000 cells still answer at once? Times, files and ratios to the bare operation.

Every ratio's two sides run in turn in this process; the table gives medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from engine import render
from store import Coordinate, Family, Ledger, StoreWriter, Variable, open_store, write_manifest
from store.layout import CODECS

EXAMPLES, LAYERS, POSITIONS, STEPS = 64, 32, 8, 20
AXES = ("example", "layer", "position")
STATISTICS = ("entropy", "max_prob")
SEEDS = 10
WHERE = {
    "packages": {f"package-{number}": "1.2.3" for number in range(10)}, "python": "3.11.2", "git": "0" * 40,
    "hardware": {"machine": "x86_64", "system": "Linux", "cpus": 2, "threads": 2, "gpus": []},
}  # fmt: skip
WHERE["packages"]["ablation-engine"] = "0.1.0"


def probe_family() -> Family:
    """Give the layout of a cell's probe: some of its statistics, at full size."""
    return Family(
        "probe",
        (
            Coordinate("example", "example", [f"example-{number}" for number in range(EXAMPLES)]),
            Coordinate("layer", "layer", range(LAYERS)),
            Coordinate("position", "position", [f"p{number}" for number in range(POSITIONS)]),
        ),
        tuple(Variable(name, AXES, "float32", "nat", name) for name in STATISTICS),
    )


def curve_family() -> Family:
    """Give the layout of a cell's training curve."""
    return Family(
        "train",
        (Coordinate("step", "step", range(STEPS)),),
        (Variable("loss", ("step",), "float32", "nat", "loss"),),
    )


def keys_of(cell: int) -> dict[str, str]:
    """Give a cell's stage keys, as long as real ones."""
    return {stage: f"{number}{cell:031x}" for number, stage in enumerate(("train", "evaluate", "probe"))}


def declare(root: Path, cells: int) -> None:
    """Write the manifest of so many cells."""
    listed = [{"levels": {"f": n // SEEDS, "seed": n % SEEDS}, "keys": keys_of(n)} for n in range(cells)]
    write_manifest(root, "bench", {"factors": ["f", "seed"], "cells": listed, "contrasts": [], **WHERE})


def fill(root: Path, cells: range) -> None:
    """Write the cells' arrays and records as the engine does."""
    writer, ledger, rng = StoreWriter(root), Ledger(root), np.random.default_rng(cells.start)
    probe, curve = probe_family(), curve_family()
    for family in (probe, curve):
        writer.allocate(family, [keys_of(n)[family.stage] for n in cells])
    for number in cells:
        keys = keys_of(number)
        for family in (probe, curve):
            with writer.cell(family, keys[family.stage], resume=False) as sink:
                sink.append(values(family, rng))
            record = {"summary": {f"{family.stage}_loss": 1.0, "steps": 3.0}, "attributes": {"backend": "c"}}
            record |= {**sink.placement, "started": 0.0, "seconds": 1.0, "provenance": WHERE}
            ledger.commit(family.stage, keys[family.stage], record)
        record = {"summary": {"accuracy": 0.5, "mae": 1.0}, "started": 0.0, "provenance": WHERE}
        ledger.commit("evaluate", keys["evaluate"], record)


def values(family: Family, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Draw a cell's values: noise, which hardly compresses, and so costs the most to read."""
    shape = tuple(family.sizes.values())
    return {variable.name: rng.normal(size=shape).astype(np.float32) for variable in family.variables}


@contextmanager
def without_sync() -> Iterator[None]:
    """Skip the disk's syncs while the store is built; no measurement runs under this."""
    sync, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = sync


def read_bytes(root: Path) -> int:
    """Read the bytes of all shards once, and nothing else."""
    return sum(len(file.read_bytes()) for file in root.glob("results.zarr/probe/*/float32-*/c.*"))


def seconds(action: Callable[[], object]) -> float:
    """Give the seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def medians(rounds: int, **actions: Callable[[], object]) -> dict[str, float]:
    """Run the actions in turn, several rounds of them; give the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return {name: statistics.median(found) for name, found in times.items()}


def show(name: str, value: str, target: str) -> None:
    """Print one row of the table."""
    print(f"| {name} | {value} | {target} |", flush=True)


def reading(root: Path, cells: int, rounds: int) -> None:
    """Measure what a reader waits for."""
    times = medians(
        rounds, status=lambda: list(render.status_tables(root)), open_store=lambda: open_store(root)
    )
    for name, found in times.items():
        show(f"{name}, {cells:,} cells", f"{found:.2f} s", "< 1 s")
    entropy = open_store(root)["bench/probe"]["entropy"]
    size = entropy.size * 4 / 1e6
    times = medians(
        rounds,
        bytes=lambda: read_bytes(root),
        mean=lambda: entropy.mean("cell").load(),
        ready=lambda: np.asarray(entropy),
    )
    show(
        f"mean over {cells:,} cells of one statistic ({size:.0f} MB) / reading all shards' bytes",
        f"{times['mean']:.2f} s / {times['bytes']:.2f} s = {times['mean'] / times['bytes']:.1f}", "≤ 2",
    )  # fmt: skip
    show("the same without the mean", f"{times['ready'] / times['bytes']:.1f}", "")
    files = sum(len(names) for _, _, names in os.walk(root))
    show("files per cell", f"{files / cells:.2f}", "bounded")


def growing(root: Path, cells: int) -> None:
    """Add a level and see what of the old is written again."""
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}
    with without_sync():
        fill(root, range(cells, cells + SEEDS))
    declare(root, cells + SEEDS)
    changed = [file for file, time_ns in before.items() if file.stat().st_mtime_ns != time_ns]
    chunks = [file for file in changed if file.name not in ("zarr.json", "bench.json", ".lock")]
    show(f"files of old cells written again for {SEEDS} more", str(len(chunks)), "0")


def writing(folder: Path, rounds: int) -> None:
    """Compare a cell's write, syncs and claims apart, with the bare write of the same arrays by zarr."""
    probe, rng = probe_family(), np.random.default_rng(0)
    writer, batch, count = StoreWriter(folder / "store"), values(probe_family(), rng), 50
    writer.allocate(probe, [f"k{number}" for number in range(rounds * count)])
    shape = (rounds * count, len(STATISTICS), EXAMPLES, LAYERS, POSITIONS)
    bare = zarr.open_group(folder / "bare.zarr", mode="w").create_array(
        "probe", shape=shape, chunks=(1, 1, *shape[2:]), shards=(1, *shape[1:]), dtype="float32",
        compressors=CODECS, fill_value=float("nan"),
    )  # fmt: skip
    stacked, place = np.stack(list(batch.values())), {"store": 0, "bare": 0}

    def ours() -> None:
        for _ in range(count):
            with writer.cell(probe, f"k{place['store']}", resume=False) as sink:
                sink.append(batch)
            place["store"] += 1

    def plain() -> None:
        for _ in range(count):
            bare[place["bare"]] = stacked
            place["bare"] += 1

    def synced() -> None:
        with without_sync():
            ours()

    place_before = rounds * count
    writer.allocate(probe, [f"k{number}" for number in range(2 * place_before)])
    times = medians(rounds, bare=plain, ours=ours, unsynced=synced)
    show("bare write / write of a cell", f"{times['bare'] / times['ours']:.2f}", "≥ 0.8")
    show("the same without syncs", f"{times['bare'] / times['unsynced']:.2f}", "≥ 0.8")
    each = {name: f"{1000 * found / count:.1f}" for name, found in times.items()}
    show("milliseconds per cell: bare, ours, ours without syncs", ", ".join(each.values()), "")


def main() -> None:
    """Build the store and print one row per question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="Keep the store here, and use the one that is here.")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    root = folder / "store"
    try:
        if not root.exists():
            with without_sync():
                print(f"built in {seconds(lambda: fill(root, range(arguments.cells))):.0f} s", flush=True)
                declare(root, arguments.cells)
        print("| | measured | target |\n| --- | --- | --- |")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            writing(Path(scratch), arguments.rounds)
        reading(root, arguments.cells, arguments.rounds)
        growing(root, arguments.cells)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
