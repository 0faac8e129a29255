"""Numbers of tasks of benchmarks: how they are called, and what is known of single documents."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from specs.common.names import TASK_STAGES
from store.analysis.value_ranges import FLAGS

_LOWER = ("perplexity", "bits_per_byte", "brier_score", "_ter")


def task_stage(name: str) -> str | None:
    """Return the stage that a task's number is of, None for other names."""
    return next((stage for prefix, stage in TASK_STAGES.items() if name.startswith(prefix)), None)


def task_scores(names: Iterable[object]) -> dict[str, str]:
    """Return the numbers by their names, each with its title; standard errors are none of them."""
    scores = (str(name) for name in names if task_stage(str(name)))
    return {name: name.partition("_")[2] for name in scores if not name.endswith("_stderr")}


def lower_is_better(name: str) -> bool:
    """Return whether a task's number is better where it is lower."""
    return task_stage(name) is not None and name.endswith(_LOWER)


def on_own_documents(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Return a task's number, alone, on the documents that it is the mean of; `dataset` has those of all.

    Those are the documents with a value in some cell, which are read for it, one cell at a time. The
    attribute `flag_values` says where all are 0 or 1.
    """
    values = dataset[name].transpose("cell", "example")
    known = np.zeros(values.sizes["example"], bool)
    binary = True
    for cell in range(values.sizes["cell"]):
        of_cell = np.asarray(values.isel(cell=cell).values)
        finite = np.isfinite(of_cell)
        known |= finite
        binary &= bool(np.isin(of_cell[finite], (0, 1)).all())
    alone = dataset[[name]].isel(example=np.flatnonzero(known))
    if binary and known.any():
        alone[name].attrs[FLAGS] = [0, 1]
    return alone
