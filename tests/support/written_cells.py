"""Cells of one family with drawn values: written, listed in a manifest, read and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from store import Coordinate, Family, Ledger, StoreWriter, Variable, open_store, write_manifest

SIZE = 64
FAMILY = Family(
    "probe",
    (Coordinate("example", "example", range(SIZE)), Coordinate("layer", "layer", range(512))),
    (
        Variable("entropy", ("example", "layer"), "float32"),
        Variable("answer", ("example",), "string"),
    ),
)


def values(seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    entropy = rng.normal(size=(SIZE, 512)).astype("f4")
    return {"entropy": entropy, "answer": [f"é{n}" for n in rng.integers(0, 99, SIZE)]}


def write(root: Path, key: str, seed: int) -> None:
    ledger = Ledger(root)
    claim = ledger.start("probe", key)
    try:
        with StoreWriter(root).cell(FAMILY, key, claim=claim) as cell:
            cell.append({name: column[cell.start :] for name, column in values(seed).items()})
        ledger.commit("probe", key, cell.placement)
    finally:
        ledger.release("probe", key)


def listed(root: Path, keys: int) -> None:
    cells = [{"levels": {"seed": n}, "keys": {"probe": f"k{n}"}} for n in range(keys)]
    write_manifest(root, "study", {"factors": ["seed"], "cells": cells})


def assert_reads(root: Path, seeds: range) -> None:
    ds = open_store(root)["study/probe"].ds
    assert list(ds["seed"].values) == list(seeds)
    for seed in seeds:
        for name, column in values(seed).items():
            np.testing.assert_array_equal(ds[name].sel(seed=seed), column)
