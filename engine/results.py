"""The first look at a store: a table of results per condition and a figure of entropy by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

from store import StoreError
from store.errors import FAULTS

# Summary numbers shown as columns, where the store has them: (title, format, whether with its range).
COLUMNS = {
    "accuracy": ("accuracy", "{:.1%}", True),
    "constrained_accuracy": ("constrained", "{:.1%}", True),
    "generated_accuracy": ("generated", "{:.1%}", True),
    "mae": ("abs. error", "{:.2f}", True),
    "train_loss": ("train loss", "{:.3f}", False),
}


def conditions(data: xr.Dataset, factors: list[str]) -> dict[str, xr.Dataset]:
    """Split a dataset with a `cell` dim by condition: all factors but the seed."""
    names = [name for name in factors if name != "seed"]
    labels = np.array(
        [", ".join(str(data[name].values[i]) for name in names) or "all" for i in range(data.sizes["cell"])]
    )
    return {str(label): data.isel(cell=labels == label) for label in dict.fromkeys(labels)}


def results_table(summary: xr.Dataset, factors: list[str]) -> Table:
    """Give the mean over seeds per condition; for outcomes, the lowest and highest seed beside it."""
    table = Table(title="Results by condition: mean over seeds (lowest to highest)")
    table.add_column("condition", no_wrap=True)
    table.add_column("n", justify="right")
    shown = {name: column for name, column in COLUMNS.items() if name in summary}
    for title, *_ in shown.values():
        table.add_column(title, justify="right")
    for label, part in conditions(summary, factors).items():
        cells = [_spread(part[name].values, form, ranged) for name, (_, form, ranged) in shown.items()]
        table.add_row(label, str(part.sizes["cell"]), *cells)
    return table


def _spread(values: Any, form: str, ranged: bool) -> str:
    low, high = (form.format(value).rstrip("%") for value in (np.min(values), np.max(values)))
    mean = form.format(np.mean(values))
    return f"{mean} ({low}–{high})" if ranged and low != high else mean


def verdicts_table(experiment: xr.DataTree) -> Table | None:
    """Give what each contrast changes in the outcomes that have a smallest difference of interest.

    None where the spec names none, or nothing can be held against it yet.
    """
    from store.analysis import change
    from store.analysis.nodes import factors, levels, spec_of, stage_node

    spec = spec_of(experiment)
    names = factors(stage_node(experiment, "summary"))
    declared = {own["factor"]: own.get("baseline") for own in spec.get("contrasts", [])}
    varying = [name for name in names if len(levels(stage_node(experiment, "summary"), name)) > 1]
    table = Table(title="Smallest differences of interest")
    for title in ("contrast", "outcome", "difference", "95 % interval", "verdict"):
        table.add_column(title, overflow="fold")
    for factor, baseline in (declared or dict.fromkeys(varying)).items():
        for outcome in spec.get("analysis", {}).get("smallest_difference_of_interest", {}):
            try:
                found = change(experiment, outcome, factor, baseline)
            except FAULTS:
                raise
            except StoreError:  # not every study has every outcome, nor every contrast a pair of cells yet
                continue
            for level in found["level"].values:
                name = f"{factor}: {level} against {found.attrs['baseline']}"
                for row in _verdicts(found.sel(level=level)):
                    table.add_row(name, outcome, *row)
    return table if table.rows else None


def _verdicts(found: xr.Dataset) -> Iterator[tuple[str, str, str]]:
    """Yield difference, interval and verdict; by layer, how many have each verdict at each position."""
    if not found["verdict"].dims:
        low, high = float(found["low"]), float(found["high"])
        yield f"{float(found['difference']):+.3g}", f"{low:+.3g} to {high:+.3g}", found["verdict"].item()
        return
    for part in found["verdict"].transpose(..., "layer").values.reshape(-1, found.sizes["layer"]):
        counts = Counter(verdict for verdict in part if verdict)
        words = (f"{number} layers: {verdict}" for verdict, number in counts.most_common())
        yield "", "", "; ".join(words)


def entropy_figure(experiment: xr.DataTree) -> bytes:
    """Draw, as PNG, lens entropy by layer, one line per condition and panel per watch position.

    Line: mean over examples and seeds; band: its 95 % interval. StoreError when the store has no entropy.
    """
    from store import plots
    from store.analysis import means

    found = means(experiment, "entropy")
    width = min(plots.WIDE, 1.3 * plots.COLUMN * found.sizes["position"])
    with TemporaryDirectory() as folder:
        figure = plots.panels(plots.means, found, "position", width=width)
        return plots.save(figure, Path(folder) / "figure.png").read_bytes()
