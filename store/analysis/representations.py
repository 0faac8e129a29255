"""How similar the residual streams of any two cells are, from the inner products that a probe keeps."""

from itertools import product
from typing import Any, Literal

import numpy as np
import xarray as xr

from specs.common.names import GRAM, SIMILARITIES
from store.analysis.components import Components
from store.analysis.gram import Floats, similarity_values
from store.analysis.inference import CONFIDENCE, inferred
from store.analysis.nodes import Data, by_condition, levels, read_cell, stage_node, variable
from store.analysis.results import EXAMPLES, GROUPS, labelled, level_coordinate
from store.analysis.runs import example_groups


def similarity(
    data: Data,
    measure: Literal["cka", "procrustes"] = "cka",
    by: str = "condition",
    *,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return how similar residual streams are between conditions, and between trainings of one condition.

    Means are over all pairs of two different cells, one of each level, on the examples that both have. Where
    trainings of one condition are as far apart as those of two, the conditions do not differ in this. Reads
    two cells at a time; needs `"gram"` in `probe.geometry`.

    Args:
        measure: "cka", linear CKA by unbiased HSIC, or "procrustes", the Procrustes distance.

    Returns:
        Result, by (level, other, layer, position): `mean`, `low`, `high`, `examples`, `groups`; by (level,
            other): `pairs` of cells. Intervals are the jackknife's over examples, or their groups, for these
            models. NaN without a pair, or with fewer than five examples.

    Raises:
        StoreError: for unknown names, and where no inner products were kept.
    """
    dataset = stage_node(data, "probe")
    dataset = by_condition(dataset) if by == "condition" else dataset
    gram = variable(dataset, GRAM).transpose("cell", "layer", "position", "example", "neighbour")
    of_cells, names = dataset.indexes["cell"].get_level_values(by), levels(dataset, by)
    groups = example_groups(gram)
    parts: dict[tuple[Any, Any], xr.Dataset] = {}
    for level, other in product(names, names):
        if (other, level) in parts:
            parts[level, other] = parts[other, level]
            continue
        cells = [np.flatnonzero(of_cells == name) for name in (level, other)]
        pairs = sorted({(min(a, b), max(a, b)) for a, b in product(*cells) if a != b})
        values = [_of_pair(measure, read_cell(gram, int(a)), read_cell(gram, int(b))) for a, b in pairs]
        shape = [gram.sizes[dim] for dim in ("example", "layer", "position")]
        mean = np.mean(values, axis=0) if values else np.full(shape, np.nan)
        components = Components.of(mean[None], groups)
        inference = inferred(components, confidence=confidence)
        units, long_name = SIMILARITIES[measure]
        like = gram.isel(cell=0, example=0, neighbour=0, drop=True)
        columns = {
            "mean": (components.mean, units, long_name),
            "low": (inference.low, units, long_name),
            "high": (inference.high, units, long_name),
            "examples": (components.examples, "1", EXAMPLES),
            "groups": (components.groups, "1", GROUPS),
        }
        parts[level, other] = labelled(like, columns).assign(
            pairs=((), len(values), {"units": "1", "long_name": "pairs of cells"})
        )
    axes = [level_coordinate(names, by), level_coordinate(names, f"{by}, of the other cell", "other")]
    units_of_intervals = "examples" if groups is None else "groups of examples"
    rows = [xr.concat([parts[level, other] for other in names], axes[1]) for level in names]
    result = xr.concat(rows, axes[0])
    result.attrs["method"] = (
        f"Mean {SIMILARITIES[measure][1]}, over pairs of two different cells by {by}; {confidence:.0%} "
        f"intervals by the jackknife over {units_of_intervals}, for these models."
    )
    return result


def _of_pair(measure: str, one: Floats, other: Floats) -> Floats:
    """Return values [example, layer, position] from two cells' inner products [layer, position, n, n]."""
    values = np.full((one.shape[2], *one.shape[:2]), np.nan)
    for layer, position in np.ndindex(one.shape[:2]):
        grams = one[layer, position], other[layer, position]
        rows = np.flatnonzero(np.isfinite(np.diag(grams[0]) + np.diag(grams[1])))
        square = np.ix_(rows, rows)
        values[rows, layer, position] = similarity_values(measure, grams[0][square], grams[1][square])
    return values
