"""`tree.ablation` and `result.ablation` in a notebook: an experiment at a glance, a result as a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from specs.common.markup import Markup, element, quiet, sparkline, table
from store.analysis.condition_means import means
from store.analysis.nodes import SEED, factors, first_lens, levels, stage_node
from store.errors import FAULTS, StoreError

MOST_CONDITIONS, MOST_ROWS = 24, 40


def html_of(data: xr.Dataset | xr.DataTree) -> str | None:
    """Return an experiment or a result as HTML; None for anything else."""
    if isinstance(data, xr.Dataset):
        return _result(data) if "method" in data.attrs else None
    if "summary" in data.children:
        return _experiment(data)
    experiments = [node for node in data.children.values() if "summary" in node.children]
    return element("div", *map(_experiment, experiments)) if experiments else None


def _experiment(node: xr.DataTree) -> Markup:
    """Return factors and levels, and for each condition accuracy and entropy by layer."""
    summary = stage_node(node, "summary")
    names = [name for name in factors(summary) if name != SEED]
    listed = [(name, ", ".join(map(str, levels(summary, name)))) for name in factors(summary)]
    accuracy, entropy = _means(node, "correct"), _means(node, "entropy")
    conditions = _conditions(accuracy, entropy)
    rows = [
        (condition, _interval(accuracy, condition), _lines(entropy, condition))
        for condition in conditions[:MOST_CONDITIONS]
    ]
    complete, total = node.attrs.get("cells_complete", "?"), node.attrs.get("cells_total", "?")
    parts = [
        element("p", element("b", node.name or "experiment"), f": {complete} of {total} cells complete"),
        table(("factor", "levels"), listed),
    ]
    if rows:
        title = " · ".join(names) or "condition"
        parts.append(table((title, "accuracy [95%]", "entropy by layer (nat), one scale"), rows))
    if len(conditions) > MOST_CONDITIONS:
        parts.append(quiet(f"and {len(conditions) - MOST_CONDITIONS} more conditions"))
    parts.append(quiet("Questions it answers: print(….ablation), docs/analysis.md"))
    return element("div", *parts)


def _means(node: xr.DataTree, name: str) -> xr.Dataset | None:
    try:
        return first_lens(means(node, name))
    except FAULTS:
        raise
    except StoreError:  # not recorded, or in several shapes
        return None


def _conditions(*results: xr.Dataset | None) -> list[str]:
    return list(
        dict.fromkeys(str(level) for part in results if part is not None for level in part["level"].values)
    )


def _interval(accuracy: xr.Dataset | None, condition: str) -> str:
    if accuracy is None or condition not in accuracy["level"].values:
        return "–"
    row = accuracy.sel(level=condition)
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"


def _lines(entropy: xr.Dataset | None, condition: str) -> object:
    """Return a line of entropy over layers for each watch position."""
    if entropy is None or condition not in entropy["level"].values:
        return "–"
    values = entropy["mean"]
    low, high = float(values.min()), float(values.max())
    row = values.sel(level=condition)
    lines = []
    for position in row["position"].values:
        of_position = row.sel(position=position).values.astype(float)
        ends = f"{position}: {of_position[0]:.2f} to {of_position[-1]:.2f} nat"
        lines.append(element("span", sparkline(of_position.tolist(), low, high, ends), quiet(ends)))
    return element("span", *lines, style="display:flex; gap:1em")


def _result(data: xr.Dataset) -> str:
    """Return a result's values as a table, and how they were made."""
    size = int(np.prod(list(data.sizes.values()), initial=1))
    shown = data if size <= MOST_ROWS else data.isel(_first(data.sizes))
    frame = (shown.to_dataframe() if shown.sizes else shown.expand_dims("").to_dataframe()).reset_index()
    header = [_titled(data, str(name)) for name in frame.columns]
    rows = [[_written(value) for value in row] for row in frame.head(MOST_ROWS).itertuples(index=False)]
    more = [quiet(f"the first {len(rows):,} of {size:,} rows")] if size > len(rows) else []
    return element("div", table(header, rows), *more, quiet(data.attrs["method"]))


def _first(sizes: Mapping[Any, int]) -> dict[str, slice]:
    """Return slices of dims that leave at least the rows that are shown."""
    slices, rows = {}, 1
    for name in reversed(list(sizes)):
        kept = min(sizes[name], max(1, MOST_ROWS // rows))
        slices[str(name)], rows = slice(kept), rows * kept
    return slices


def _titled(data: xr.Dataset, name: str) -> str:
    units = data[name].attrs.get("units", "1") if name in data.variables else "1"
    return name if units in ("1", "") else f"{name} ({units})"


def _written(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4g}"
    return str(value)
