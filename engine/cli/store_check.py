"""A small store, written and read back: what `engine doctor` asks of the packages that a store needs.

Zarr and xarray move parts of their interfaces within a major release, which no version number foretells.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from store import Coordinate, Family, Ledger, StoreWriter, Variable, open_store, write_manifest
from store.report import write_report
from store.upkeep.verify import verify

EXAMPLES, LAYERS, BATCH = 40, 3, 16  # written in several batches, the last one incomplete


def store_trouble() -> str:
    """Say in a sentence why a store cannot be written, or read as written, here; "" where it can."""
    doing = "made"
    try:
        with TemporaryDirectory(prefix="ablation-engine-doctor-") as folder:
            family, values = _results()
            doing = "written"
            _write(Path(folder), family, values)
            doing = "read"
            dataset = open_store(folder)["check/values"].to_dataset()
            for name, expected in values.items():
                read_back = dataset[name].sel(target="label", seed=0).values
                if read_back.dtype.kind != expected.dtype.kind or not _same(read_back, expected):
                    return f"a small store was written, but its {name} came back as other values"
            if troubles := verify(folder).troubles:
                return f"a small store was written, but {troubles[0].path}: {troubles[0].message}"
            doing = "reported on"
            if b"check" not in write_report(folder, Path(folder) / "report.html").read_bytes():
                return "a small store was written, but its report is empty"
    except Exception as error:  # whatever a package may raise that has changed, a person shall read of it
        return f"a small store cannot be {doing}: {type(error).__name__}: {error}"
    return ""


def _results() -> tuple[Family, dict[str, np.ndarray]]:
    """Give a family with a variable of every type, and drawn values that hold fill values too."""
    dims = ("example", "layer")
    family = Family(
        "values",
        (
            Coordinate("example", "example", range(EXAMPLES)),
            Coordinate("text", "example", [f"message {number}" for number in range(EXAMPLES)]),
            Coordinate("layer", "layer", range(LAYERS), "1", "layer"),
        ),
        (
            Variable("entropy", dims, "float32", "nat", "entropy"),
            Variable("missing", dims, "float32", "nat", "nothing but fill values"),
            Variable("rank", dims, "int32", "1", "rank"),
            Variable("count", ("example",), "int16", "1", "count"),
            Variable("correct", ("example",), "bool", "1", "correct"),
            Variable("answer", ("example",), "string", "1", "answer"),
        ),
    )
    draw, shape = np.random.default_rng(0), (EXAMPLES, LAYERS)
    return family, {
        "entropy": draw.normal(size=shape).astype("float32"),
        "missing": np.full(shape, np.nan, "float32"),
        "rank": draw.integers(-1, 50_000, shape, "int32"),
        "count": draw.integers(-1, 500, EXAMPLES, "int16"),
        "correct": draw.integers(0, 2, EXAMPLES).astype(bool),
        "answer": np.array([f"é {number}" for number in range(EXAMPLES)], object),
    }


def _write(folder: Path, family: Family, values: dict[str, np.ndarray]) -> None:
    """Write one whole cell, as a stage does: streamed, then its record, then the manifest."""
    with StoreWriter(folder).cell(family, "key") as cell:
        for start in range(0, EXAMPLES, BATCH):
            cell.append({name: value[start : start + BATCH] for name, value in values.items()})
    Ledger(folder).commit(
        "values", "key", {"family": family.key, "summary": {"steps": 1.0}, **cell.placement}
    )
    cells: list[dict[str, Any]] = [{"levels": {"target": "label", "seed": 0}, "keys": {"values": "key"}}]
    write_manifest(folder, "check", {"factors": ["target", "seed"], "cells": cells})


def _same(read_back: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.array_equal(read_back, expected, equal_nan=expected.dtype.kind == "f"))
