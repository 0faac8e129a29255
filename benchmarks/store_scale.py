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

from engine.cli import status_tables as render
from store import (
    Coordinate,
    Family,
    Ledger,
    StoreWriter,
    Variable,
    open_store,
    read_manifests,
    write_manifest,
)
from store.arrays.layout import group_name, open_array, stacks

EXAMPLES, LAYERS, POSITIONS, STEPS = 64, 32, 8, 20
AXES = ("example", "layer", "position")
STATISTICS = ("entropy", "max_prob")
SEEDS = 10
WHERE = {
    "packages": {f"package-{number}": "1.2.3" for number in range(10)}, "python": "3.11.2", "git": "0" * 40,
    "hardware": {"machine": "x86_64", "system": "Linux", "cpus": 2, "threads": 2, "gpus": []},
}  # fmt: skip
WHERE["packages"]["ablation-engine"] = "0.1.0"


def probe_family(examples: int = EXAMPLES) -> Family:
    """Give the layout of a cell's probe: some of its statistics, at full size."""
    return Family(
        "probe",
        (
            Coordinate("example", "example", [f"example-{number}" for number in range(examples)]),
            Coordinate("layer", "layer", range(LAYERS)),
            Coordinate("position", "position", [f"p{number}" for number in range(POSITIONS)]),
        ),
        tuple(Variable(name, AXES, "float32", "nat", name) for name in STATISTICS),
    )


def whole_family(examples: int) -> Family:
    """Give the layout of a cell's probe with all that it records: 7 statistics, 5 labels, the top 5."""
    probe = probe_family(examples)
    names = ("logsumexp", "entropy", "max_prob", "kl_final", "js_final", "watch_mass", "watch_entropy")
    further = [
        Variable(f"{dim}_{kind}", (*AXES, dim), "float32", "nat", kind)
        for dim in ("watch", "top")
        for kind in ("logprob", "rank")
    ]
    dims = [Coordinate(dim, dim, range(5)) for dim in ("watch", "top")]
    return Family(
        "probe",
        (*probe.coordinates, *dims),
        (*(Variable(name, AXES, "float32", "nat", name) for name in names), *further),
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
    return {
        variable.name: rng.normal(size=[family.sizes[dim] for dim in variable.dims]).astype(np.float32)
        for variable in family.variables
    }


@contextmanager
def without_sync() -> Iterator[None]:
    """Skip the disk's syncs while the store is built; no measurement runs under this."""
    sync, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = sync


def read_bytes(root: Path) -> int:
    """Read the bytes of all shards once, with a second statistic, which a reader leaves out."""
    return sum(len(file.read_bytes()) for file in root.glob("results.zarr/probe/*/float32-*/c.*"))


def seconds(action: Callable[[], object]) -> float:
    """Give the seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def medians(
    rounds: int, before: Callable[[], object] = lambda: None, **actions: Callable[[], object]
) -> dict[str, tuple[float, float]]:
    """Run the actions in turn, several rounds of them; give the median seconds by clock and processor."""
    wall: dict[str, list[float]] = {name: [] for name in actions}
    processor: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            before()
            started = time.process_time()
            wall[name].append(seconds(action))
            processor[name].append(time.process_time() - started)
    return {name: (statistics.median(wall[name]), statistics.median(processor[name])) for name in actions}


def ratio(times: dict[str, tuple[float, float]], name: str, base: str) -> str:
    """Give two medians and their ratio, by the clock and by processor seconds."""
    (wall, processor), (base_wall, base_processor) = times[name], times[base]
    by_processor = processor / base_processor
    return f"{wall:.2f} / {base_wall:.2f} s = {wall / base_wall:.1f}; processor {by_processor:.1f}"


def forget(root: Path) -> None:
    """Have the system drop the shards from its memory, so that they come from the disk again."""
    for file in root.glob("results.zarr/probe/*/float32-*/c.*"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def show(name: str, value: str, target: str) -> None:
    """Print one row of the table."""
    print(f"| {name} | {value} | {target} |", flush=True)


def reading(root: Path, cells: int, rounds: int) -> None:
    """Measure what a reader waits for."""
    times = medians(rounds, status=lambda: render.status_facts(root), open_store=lambda: open_store(root))
    for name, (wall, processor) in times.items():
        show(f"{name}, {cells:,} cells", f"{wall:.2f} s; processor {processor:.2f} s", "< 1 s")
    tree = open_store(root)
    entropy = tree["bench/probe"]["entropy"]
    what = f"{cells:,} cells of one statistic ({entropy.size * 4 / 1e6:.0f} MB)"
    for name, before, target in (
        ("from the disk", lambda: forget(root), "≤ 2"),
        ("from memory", lambda: None, ""),
    ):
        times = medians(
            rounds, before, bytes=lambda: read_bytes(root), ready=lambda: np.asarray(entropy),
            means=lambda: tree["bench"].ablation.means("entropy", by="seed"),
            mean=lambda: entropy.mean("cell").load(),
        )  # fmt: skip
        show(
            f"means by seed over {what} / the bytes of its shards, {name}",
            ratio(times, "means", "bytes"),
            target,
        )
        show(f"xarray's mean over {what} / the same, {name}", ratio(times, "mean", "bytes"), target)
        show(f"reading {what} / the same, {name}", ratio(times, "ready", "bytes"), "")
    files = sum(len(names) for _, _, names in os.walk(root))
    show("files per cell", f"{files / cells:.2f}", "bounded")


def growing(root: Path) -> None:
    """Add a level and see what of the old is written again."""
    cells = len(read_manifests(root)["bench"]["cells"])
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}
    with without_sync():
        fill(root, range(cells, cells + SEEDS))
    declare(root, cells + SEEDS)
    changed = [file for file, time_ns in before.items() if file.stat().st_mtime_ns != time_ns]
    chunks = [file for file in changed if file.name not in ("zarr.json", "bench.json", ".lock")]
    show(f"files of old cells written again for {SEEDS} more", str(len(chunks)), "0")


def writing(folder: Path, rounds: int, examples: int, count: int) -> None:
    """Compare a cell's writing with that of the same arrays by zarr alone: no progress, no syncs, no lock."""
    probe, rng = whole_family(examples), np.random.default_rng(0)
    batch = values(probe, rng)
    for name in ("ours", "bare"):
        StoreWriter(folder / name).allocate(probe, [f"k{n}" for n in range(2 * rounds * count)])
    writer, place = StoreWriter(folder / "ours"), {"ours": 0, "bare": 0}
    group = zarr.open_group(folder / "bare" / group_name("probe", probe.key))
    stacked = [
        (open_array(group, stack.name), np.stack([batch[variable.name] for variable in stack.variables]))
        for stack in stacks(probe)
    ]

    def ours() -> None:
        for _ in range(count):
            with writer.cell(probe, f"k{place['ours']}", resume=False) as sink:
                sink.append(batch)
            place["ours"] += 1

    def bare() -> None:
        for _ in range(count):
            for array, content in stacked:
                array[place["bare"]] = content
            place["bare"] += 1

    def unsynced() -> None:
        with without_sync():
            ours()

    times = medians(rounds, bare=bare, ours=ours, unsynced=unsynced)
    size = sum(content.nbytes for content in batch.values()) / 1e6
    show(f"zarr alone / a cell of {size:.1f} MB, {count} of each", ratio(times, "bare", "ours"), "≥ 0.8")
    show("the same without our syncs to the disk", ratio(times, "bare", "unsynced"), "≥ 0.8")


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
        for examples, count in ((EXAMPLES, 10), (8 * EXAMPLES, 2)):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                writing(Path(scratch), arguments.rounds, examples, count)
        reading(root, arguments.cells, arguments.rounds)
        growing(root)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
