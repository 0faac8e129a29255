"""Shards written and read by `store.arrays.shards` and by zarr itself, in one run: zarr's time over ours.

Syncs to the disk are left out on both sides. zarr reads and writes by its default pipeline and, where the
release has it, by its synchronous one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import zarr
from zarr.core import codec_pipeline

from store.arrays.layout import create_array
from store.arrays.shards import ShardReader, write_block
from store.backend.folder import Folder

PIPELINES = [name for name in ("BatchedCodecPipeline", "FusedCodecPipeline") if hasattr(codec_pipeline, name)]
STATISTICS, LAYERS, ROWS, CALLS = 7, 33, 64, 10


def seconds(action: Callable[[int], object], rounds: int) -> float:
    """Give the median time of a call, of `rounds` times CALLS calls."""
    times = []
    for start in range(0, (rounds + 1) * CALLS, CALLS):
        began = time.perf_counter()
        for number in range(start, start + CALLS):
            action(number)
        times.append((time.perf_counter() - began) / CALLS)
    return median(times[1:])


def new_array(folder: Path, examples: int) -> zarr.Array:
    """Make an array as the store lays one out."""
    size = (examples, LAYERS, 1)
    return create_array(
        zarr.open_group(folder, mode="w", zarr_format=3),
        "array",
        shape=(ROWS, STATISTICS, *size),
        chunks=(1, 1, *size),
        shards=(1, STATISTICS, *size),
        dtype="float32",
        fill_value=float("nan"),
    )


def compare(folder: Path, examples: int, rounds: int) -> None:
    """Print the ratios for cells of so many examples."""
    place, name = Folder(folder), "ours/array"
    values = np.random.default_rng(0).standard_normal((STATISTICS, examples, LAYERS, 1), "float32")
    ours, everything, rows = new_array(folder / "ours", examples), (slice(None),) * 3, np.arange(ROWS)
    times = {"write a shard": seconds(lambda n: write_block(place, name, ours, n % ROWS, 0, values), rounds)}
    for row in rows.tolist():
        write_block(place, name, ours, row, 0, values)
    reader = ShardReader.of(ours)
    assert reader is not None

    def read(chosen: np.ndarray, number: int) -> object:
        return reader.read(chosen, number % STATISTICS, everything)

    times["read a cell"] = seconds(lambda n: read(rows[n % ROWS, None], n), rounds)
    times[f"read {ROWS} cells"] = seconds(lambda n: read(rows, n), rounds)
    for pipeline in PIPELINES:
        with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{pipeline}"}):
            written = new_array(folder / pipeline, examples)
            kept = zarr.open_array(folder / name, mode="r")
            actions: dict[str, Callable[[int], object]] = {
                "write a shard": lambda n, to=written: to.__setitem__(n % ROWS, values),
                "read a cell": lambda n, of=kept: of[n % ROWS, n % STATISTICS],
                f"read {ROWS} cells": lambda n, of=kept: of[:, n % STATISTICS],
            }
            ratios = {what: seconds(action, rounds) / times[what] for what, action in actions.items()}
        row = " | ".join(f"{ratios[what]:.1f}" for what in times)
        print(f"| {examples} examples, {pipeline} | {row} |", flush=True)


def main() -> None:
    """Print a table: zarr's time over this store's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    os.fsync = lambda _: None  # type: ignore[assignment]
    print(f"| zarr {zarr.__version__} / ours | write a shard | read a cell | read {ROWS} cells |")
    print("| --- | --- | --- | --- |")
    for examples in (48, 400):
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), examples, rounds)


if __name__ == "__main__":
    main()
