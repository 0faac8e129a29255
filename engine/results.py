"""The first look at a store: a table of results per condition and a figure of entropy by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

# Summary numbers shown as columns, where the store has them: (title, format, whether with its range).
COLUMNS = {
    "accuracy": ("accuracy", "{:.1%}", True),
    "constrained_accuracy": ("constrained", "{:.1%}", True),
    "generated_accuracy": ("generated", "{:.1%}", True),
    "mae": ("abs. error", "{:.2f}", True),
    "train_loss": ("train loss", "{:.3f}", False),
}
# Okabe and Ito's palette, distinguishable with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


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


def entropy_figure(probe: xr.Dataset, factors: list[str], file: Path) -> None:
    """Save a PNG of lens entropy by layer, one line per condition and panel per watch position.

    Line: mean over examples and seeds; band: lowest to highest seed's mean.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    positions = [str(position) for position in probe["position"].values]
    figure, axes = plt.subplots(
        1, len(positions), figsize=(1.5 + 5 * len(positions), 4), sharey=True, squeeze=False
    )
    for place, (axis, position) in enumerate(zip(axes[0], positions, strict=True)):
        for (label, part), colour in zip(conditions(probe, factors).items(), _cycle(COLOURS), strict=False):
            by_seed = part["entropy"].isel(position=place).mean("example")
            layer = by_seed["layer"].values
            axis.plot(layer, by_seed.mean("cell"), label=label, color=colour)
            axis.fill_between(
                layer, by_seed.min("cell"), by_seed.max("cell"), color=colour, alpha=0.2, linewidth=0
            )
        axis.set_title(f"position {position}")
        axis.set_xlabel("layer (0 = embedding)")
    axes[0][0].set_ylabel("lens entropy (nat)")
    axes[0][0].set_ylim(bottom=0)
    axes[0][-1].legend(frameon=False)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _cycle(colours: tuple[str, ...]) -> list[str]:
    return list(colours) * 8
