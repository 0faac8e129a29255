"""How predictions fare: transfer between sets, confusion of labels, calibration."""

from typing import Any, Literal

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr

from store.analysis.nodes import (
    Data,
    by_condition,
    group_seeds,
    levels,
    numbers,
    stage_node,
    stage_nodes,
    variable,
)
from store.analysis.resampling import CONFIDENCE, Floats, share_interval, two_way
from store.analysis.wording import described, spell_count
from store.calibration import BINS, calibration_bins
from store.errors import StoreError

SHARES = {"accuracy": "correct", "generated_accuracy": "generated_correct"}


def transfer_matrix(
    data: xr.DataTree, train: str, test: str, metric: str = "accuracy", *, confidence: float = CONFIDENCE
) -> xr.Dataset:
    """Return a metric for every pair of a training and a test level, dims (train, test).

    train, test: the factors of what was trained and tested on; others are averaged. Result: `value`, `low`,
    `high`, `seeds`, `examples`. accuracy and generated_accuracy come with intervals over seeds and
    examples, other metrics of the summary with intervals over seeds alone (NaN for one seed). NaN where the
    design has no such pair.
    """
    summary = stage_node(data, "summary")
    rows, columns = levels(summary, train), levels(summary, test)
    found = np.full((5, len(rows), len(columns)), np.nan)
    for name, dataset in _parts(data, metric):
        index = dataset.indexes["cell"]
        for i, j in np.ndindex(len(rows), len(columns)):
            chosen = (index.get_level_values(train) == rows[i]) & (index.get_level_values(test) == columns[j])
            if chosen.any():
                part = variable(dataset.isel(cell=chosen), name)
                found[:, i, j] = _level(part, index[chosen], confidence)
    units = summary[metric].attrs.get("units", "1") if metric in summary else "1"
    titles = ("value", "low", "high", "seeds", "examples")
    result = xr.Dataset(
        coords={"train": _coordinate(rows, train, "train"), "test": _coordinate(columns, test, "test")}
    )
    for name, table in zip(titles, found, strict=True):
        attrs = {"units": units if name in titles[:3] else "1", "long_name": f"{metric}, {name}"}
        result[name] = (("train", "test"), table, attrs)
    seeds = int(np.nanmin(found[3]))
    result.attrs["method"] = (
        f"Mean {metric} by {train} (trained on) and {test} (tested on), {spell_count(seeds, 'seed')}; "
        + (f"Wilson {described(seeds, None, 0, confidence)}." if metric in SHARES
           else f"{confidence:.0%} t intervals over seeds, examples held fixed.")
    )  # fmt: skip
    return result


def _parts(data: xr.DataTree, metric: str) -> list[tuple[str, xr.Dataset]]:
    if metric in SHARES:
        return [(SHARES[metric], dataset) for dataset in stage_nodes(data, "evaluate").values()]
    return [(metric, stage_node(data, "summary"))]


def _level(part: xr.DataArray, index: Any, confidence: float) -> tuple[float, ...]:
    """Return value, low, high, seeds and examples of some cells."""
    if "example" in part.dims:
        values, seeds = group_seeds(numbers(part.transpose("cell", "example")).values, index)
        found = two_way(values)
        low, high = share_interval(found, confidence)
        return float(found.mean), float(low), float(high), len(seeds), float(found.examples)
    # A number per cell: the seeds are the only units there are.
    values, seeds = group_seeds(numbers(part).values[:, None], index)
    found = two_way(values.T[None, 0])
    low, high = found.interval(confidence)
    return float(found.mean), float(low), float(high), len(seeds), float("nan")


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
    found: dict[Any, Any] = {}
    for whole in stage_nodes(data, "evaluate").values():
        dataset = by_condition(whole) if by == "condition" else whole
        guesses = _text(dataset, prediction)
        for level in levels(dataset, by):
            cells = dataset.indexes["cell"].get_level_values(by) == level
            guess = guesses.isel(cell=cells).transpose("cell", "example").values
            truth = np.broadcast_to(dataset["gold"].values, guess.shape)
            table = pd.crosstab(truth.ravel(), guess.ravel())
            found[level] = found[level].add(table, fill_value=0) if level in found else table
    labels = sorted({str(label) for table in found.values() for label in [*table.index, *table.columns]})
    gold = [label for label in labels if any(label in table.index for table in found.values())]
    stacked = np.stack(
        [t.reindex(index=gold, columns=labels, fill_value=0).to_numpy(float) for t in found.values()]
    )
    axes = {"gold": 2, "prediction": 1, "all": (1, 2)}
    if normalize is not None and normalize not in axes:
        raise StoreError(f"normalize: expected gold, prediction or all, found {normalize!r}")
    name = "count" if normalize is None else "share"
    if normalize is not None:
        with np.errstate(invalid="ignore"):
            stacked = stacked / stacked.sum(axis=axes[normalize], keepdims=True)
    result = xr.Dataset(
        {name: (("level", "gold", "predicted"), stacked, {"units": "1", "long_name": f"{name} of examples"})},
        {"level": _coordinate(list(found), by, "level"), "gold": gold, "predicted": labels},
    )
    total = f", as shares of {normalize}" if normalize else ""
    result.attrs["method"] = (
        f"Counts of true and predicted labels by {by}, over all its cells and examples{total}."
    )
    return result


def calibration_curve(data: Data, by: str = "condition", bins: int = BINS) -> xr.Dataset:
    """Return accuracy against confidence by bins of equal width, dims (level, bin), and the calibration error.

    `confidence` and `accuracy` are means of the bin (NaN when empty), `count` its examples over all cells;
    `ece` (level) is their gap, weighted by count (Guo et al., arXiv 1706.04599). `bin`: its midpoint.
    """
    sums: dict[Any, Floats] = {}
    for whole in stage_nodes(data, "evaluate").values():
        dataset = by_condition(whole) if by == "condition" else whole
        if "label_logprob" not in dataset:
            raise StoreError(
                "calibration needs label_logprob, which evaluate.scoring lacking loglikelihood leaves out"
            )
        logprobs = dataset["label_logprob"].transpose("cell", "example", "label")
        names = dataset.indexes["cell"].get_level_values(by)
        for cell, level in enumerate(names):
            own = calibration_bins(
                dataset["gold"].values,
                numbers(logprobs.isel(cell=cell)).values,
                list(dataset["label"].values),
                bins,
            )
            sums[level] = sums.get(level, np.zeros((3, bins))) + np.stack(own)
    table = np.stack([sums[level] for level in sums])
    count = table[:, 0]
    with np.errstate(invalid="ignore"):
        confidence, accuracy = table[:, 1] / count, table[:, 2] / count
    ece = np.abs(table[:, 2] - table[:, 1]).sum(axis=1) / count.sum(axis=1)
    attrs = {"units": "1"}
    dims = ("level", "bin")
    result = xr.Dataset(
        {
            "confidence": (dims, confidence, attrs | {"long_name": "mean highest label probability"}),
            "accuracy": (dims, accuracy, attrs | {"long_name": "accuracy"}),
            "count": (dims, count, attrs | {"long_name": "examples"}),
            "ece": ("level", ece, attrs | {"long_name": "expected calibration error"}),
        },
        {"level": _coordinate(list(sums), by, "level"), "bin": (np.arange(bins) + 0.5) / bins},
    )
    result.attrs["method"] = (
        f"Calibration of label probabilities, renormalised among the labels, in {bins} bins of equal width, over all "
        f"cells and examples of each level of {by}."
    )
    return result


def _text(dataset: xr.Dataset, name: str) -> xr.DataArray:
    if name not in dataset:
        raise StoreError(f"no variable {name!r}; there are {', '.join(map(str, dataset.data_vars))}")
    return dataset[name]


def _coordinate(items: list[Any], title: str, dim: str) -> tuple[str, Any, dict[str, str]]:
    kind = object if any(isinstance(item, str) for item in items) else None
    return dim, np.array(items, kind), {"long_name": title}
