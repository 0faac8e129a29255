"""How predictions fare: transfer between sets, confusion of labels."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from numpy.typing import NDArray

from store.analysis.condition_means import OVER_SEEDS, mean_bounds
from store.analysis.inference import CONFIDENCE
from store.analysis.nodes import (
    Data,
    by_condition,
    levels,
    numbers,
    stage_node,
    stage_nodes,
    variable,
)
from store.analysis.results import grouped, intervals, labelled, level_coordinate, seeds_of
from store.errors import StoreError

ACCURACIES = {"accuracy": "correct", "generated_accuracy": "generated_correct"}
AXES: dict[str, tuple[int, ...]] = {"gold": (2,), "prediction": (1,), "all": (1, 2)}


def transfer_matrix(
    data: xr.DataTree, train: str, test: str, metric: str = "accuracy", *, confidence: float = CONFIDENCE
) -> xr.Dataset:
    """Return a metric for every pair of a training and a test level, dims (train, test).

    accuracy and generated_accuracy come with intervals over seeds and examples, other metrics of the summary
    with intervals over seeds alone (NaN for one seed). NaN where the design has no such pair.

    Args:
        train: the factor of what was trained on; others than these two are averaged.
        test: the factor of what was tested on.

    Returns:
        `value`, `low`, `high`, `seeds`, `examples`, `groups`.
    """
    summary = stage_node(data, "summary")
    rows, columns = levels(summary, train), levels(summary, test)
    cells_of_matrix = np.full((6, len(rows), len(columns)), np.nan)
    if metric in ACCURACIES:
        parts = [
            variable(part, ACCURACIES[metric])
            for part in stage_nodes(data, "evaluate", ACCURACIES[metric]).values()
        ]
    else:
        parts = [variable(summary, metric)]
    for part in parts:
        index = part.indexes["cell"]
        pairs = list(zip(index.get_level_values(train), index.get_level_values(test), strict=True))
        cells: dict[tuple[Any, Any], list[int]] = {}
        for cell, pair in enumerate(pairs):
            cells.setdefault(pair, []).append(cell)
        found = _means(numbers(part), [np.array(own) for own in cells.values()], confidence)
        for (row, column), values in zip(cells, found, strict=True):
            cells_of_matrix[:, rows.index(row), columns.index(column)] = values
    like = xr.DataArray(
        np.empty(cells_of_matrix.shape[1:]),
        {
            "train": level_coordinate(rows, train, "train"),
            "test": level_coordinate(columns, test, "test"),
        },
        ("train", "test"),
    )
    units = str(summary[metric].attrs.get("units", "1")) if metric in summary else "1"
    names = {"value": units, "low": units, "high": units, "seeds": "1", "examples": "1", "groups": "1"}
    columns_ = {n: (v, u, f"{metric}: {n}") for (n, u), v in zip(names.items(), cells_of_matrix, strict=True)}
    result = labelled(like, columns_)
    how = f"Wilson {intervals(result, confidence, grouped(result))}"
    if metric not in ACCURACIES:
        how = OVER_SEEDS.format(f"{confidence:.0%}")
    result.attrs["method"] = (
        f"Mean {metric} by {train} (trained) and {test} (tested), {seeds_of(result)}; {how}."
    )
    return result


def _means(block: xr.DataArray, cells: Sequence[NDArray[np.intp]], confidence: float) -> NDArray[np.float64]:
    """Return mean, low, high, seeds, examples and groups of sets of values (cell, example) or (cell,).

    [sets, 6].
    """
    middle, low, high = mean_bounds(block, cells, confidence)
    counts: tuple[Any, ...] = (middle.seeds, middle.examples, middle.groups)
    if "example" not in block.dims:
        nothing = np.full(len(cells), np.nan)
        counts = (middle.examples, nothing, nothing)
    return np.stack([middle.mean, low, high, *counts], axis=1)


def confusion(
    data: Data,
    by: str = "condition",
    *,
    prediction: str = "prediction",
    normalize: Literal["gold", "prediction", "all"] | None = None,
) -> xr.Dataset:
    """Return the confusion of true and predicted labels, dims (level, gold, predicted).

    `share` sums to 1 over what `normalize` names (each gold label's row, each prediction's column, or all);
    without it the result is `count`, examples over all cells of a level. A prediction that is no label
    stands under "".
    """
    if normalize is not None and normalize not in AXES:
        raise StoreError(f"normalize: expected gold, prediction or all, found {normalize!r}")
    counts: dict[Any, Any] = {}
    for level, part in by_levels(data, by, prediction):
        guess = variable(part, prediction).transpose("cell", "example")
        truth = part["gold"].broadcast_like(guess).transpose("cell", "example")
        table = pd.crosstab(truth.values.ravel(), guess.values.ravel())
        counts[level] = counts[level].add(table, fill_value=0) if level in counts else table
    gold = sorted({str(label) for table in counts.values() for label in table.index})
    labels = sorted({*gold, *(str(label) for table in counts.values() for label in table.columns)})
    tables = [table.reindex(index=gold, columns=labels, fill_value=0) for table in counts.values()]
    stacked = np.nan_to_num(np.stack([table.to_numpy(float) for table in tables]))
    name = "count"
    if normalize is not None:
        name = "share"
        with np.errstate(invalid="ignore"):
            stacked = stacked / stacked.sum(axis=AXES[normalize], keepdims=True)
    coordinates = {
        "level": level_coordinate(list(counts), by),
        "gold": level_coordinate(gold, "true label", "gold"),
        "predicted": level_coordinate(labels, "predicted label", "predicted"),
    }
    like = xr.DataArray(stacked, coordinates, ("level", "gold", "predicted"))
    result = labelled(like, {name: (stacked, "1", f"{name} of examples")})
    shares = f", as shares of {normalize}" if normalize else ""
    result.attrs["method"] = (
        f"Counts of true and predicted labels by {by}, over all cells and examples{shares}."
    )
    return result


def by_levels(data: Data, by: str, name: str) -> Iterator[tuple[Any, xr.Dataset]]:
    """Yield every level with that variable of its cells; one in several shapes comes once for each."""
    for whole in stage_nodes(data, "evaluate", name).values():
        named = whole.drop_vars(set(whole.data_vars) - {name}) if name in whole.data_vars else whole
        dataset = by_condition(named) if by == "condition" else named
        for level in levels(dataset, by):
            yield level, dataset.isel(cell=dataset.indexes["cell"].get_level_values(by) == level)
