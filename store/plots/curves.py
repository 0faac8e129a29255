"""Curves that are not over layers: calibration and training."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from store.analysis.nodes import Data, by_condition, levels, stage_nodes, variable
from store.plots.style import COLUMN, QUIET, drawing, legend, lines, need, shortened, title_of


def calibration_curve(result: xr.Dataset, ax: Axes | None = None, *, key: bool = True) -> Axes:
    """Draw accuracy against confidence (a reliability diagram), one line per level, with its ECE.

    The area of a marker is in proportion to the share of the level's examples in its bin; on the diagonal a
    model is as often right as it says.

    Args:
        result: the result of the analysis `calibration_curve`.
    """
    need(result, "confidence", "accuracy", "count", "ece", source="calibration_curve")
    with drawing(ax, (COLUMN, COLUMN)) as ax:
        ax.plot([0, 1], [0, 1], color=QUIET, linewidth=0.6, zorder=1)
        handles = []
        names, title = shortened(result["level"].values)
        for number, look in enumerate(lines(result.sizes["level"])):
            of_level = result.isel(level=number)
            filled = of_level["count"].values > 0
            x, y, count = (of_level[name].values[filled] for name in ("confidence", "accuracy", "count"))
            label = f"{names[number]} (ECE {float(of_level['ece']):.2f})"
            handles += ax.plot(x, y, label=label, linewidth=0.8, **look)
            ax.scatter(
                x, y, s=120 * count / count.sum(), color=look["color"], alpha=0.6, linewidth=0, zorder=3
            )
        ax.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1, anchor="W")
        ax.set_xlabel("confidence (highest label probability)")
        ax.set_ylabel("accuracy")
        if key:
            legend(ax, handles, title)
    return ax


def training(data: Data, ax: Axes | None = None, *, name: str = "loss", key: bool = True) -> Axes:
    """Draw a training curve per condition: the mean over seeds, each seed thin behind it.

    Args:
        data: an experiment, or its stage `train`.
        name: loss, learning_rate or grad_norm.
    """
    with drawing(ax, (COLUMN, 2.5)) as ax:
        conditions = [
            (level, dataset.isel(cell=dataset.indexes["cell"].get_level_values("condition") == level))
            for dataset in map(by_condition, stage_nodes(data, "train").values())
            for level in levels(dataset, "condition")
        ]
        names, title = shortened([level for level, _ in conditions])
        handles = []
        for (_, curve), label, look in zip(conditions, names, lines(len(conditions)), strict=True):
            curves = variable(curve, name).transpose("cell", "step")
            step = curves["step"].values
            if len(curves) > 1:
                ax.plot(step, curves.values.T, linewidth=0.4, alpha=0.5, **look)
            handles += ax.plot(step, np.nanmean(curves.values, axis=0), label=label, zorder=3, **look)
        ax.set_xlabel(str(curves["step"].attrs.get("long_name") or "step"))
        ax.set_ylabel(title_of(curves))
        ax.margins(x=0)
        if key:
            legend(ax, handles, title)
    return ax
