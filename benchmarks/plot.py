"""Time and peak memory of the contenders against rows and vocabulary."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.shapes import MODELS

SHOWN = ("bare product", "c", "c + KL, JS", "torch", "eager", "vocabulary chunks", "triton")


def plot(results: dict[str, list[dict]], path: Path) -> None:
    """Draw float32: two panels against R for the first model, two against V at one R."""
    cases = [case for case in results["cases"] if case["dtype"] == "float32"]
    model = next(iter(MODELS))
    by_rows = [case for case in cases if case["model"] == model]
    by_model = [case for case in cases if case["rows"] == 448]
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), constrained_layout=True)
    for column, (chosen, of, label) in enumerate(
        (
            (by_rows, lambda case: case["rows"], f"R (rows), {model}, float32"),
            (by_model, lambda case: MODELS[case["model"]][1], "V (vocabulary), R = 448, float32"),
        )
    ):
        for row, (field, factor, unit) in enumerate(
            (("seconds", 1e3, "time (ms)"), ("peak_extra_mib", 1, "peak extra memory (MiB)"))
        ):
            axis = axes[row][column]
            for name in SHOWN:
                points = [
                    (of(case), max(0, factor * (case["runs"][name][field] or 0)))
                    for case in sorted(chosen, key=of)
                    if name in case["runs"]
                ]
                if points:
                    axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
            axis.set(
                xlabel=label, ylabel=unit, xscale="log", yscale="log" if field == "seconds" else "symlog"
            )
            if row:
                axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
    if axes[0][0].lines:
        axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
