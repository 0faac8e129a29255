"""Are probabilities honest: accuracy against confidence, and the calibration error without its bias."""

from typing import Any

import numpy as np
import xarray as xr
from attrs import frozen
from numpy.typing import NDArray

from store.analysis.components import Components, Floats
from store.analysis.evaluation import by_levels
from store.analysis.inference import CONFIDENCE
from store.analysis.nodes import Data, numbers, variable
from store.analysis.results import intervals, labelled, level_coordinate, seeds_of
from store.analysis.runs import SeedValues, by_seed, example_groups
from store.analysis.widths import plain_widths
from store.calibration import BINS, calibration_bins, confidences, debiased_squares

RMSCE = "root-mean-square calibration error, debiased"


def calibration_curve(
    data: Data, by: str = "condition", bins: int = BINS, *, confidence: float = CONFIDENCE
) -> xr.Dataset:
    """Return accuracy against confidence by bins of equal width, dims (level, bin), and its mean gap.

    `confidence` and `accuracy` are means of the bin (NaN when empty), `count` its examples over all cells;
    `ece` (level) is their mean absolute gap, weighted by count (Guo et al., arXiv 1706.04599), which is above
    0 for the best calibrated model, the more so the fewer the examples. `rmsce`, `rmsce_low`, `rmsce_high`
    (level) are the root-mean-square gap without that bias (`store.calibration.debiased_squares`), in bins of
    equal numbers of examples, and its bounds over seeds and examples (or their groups). `bin`: its midpoint.
    """
    sums: dict[Any, Floats] = {}
    squares: dict[Any, list[_Squares]] = {}
    for level, part in by_levels(data, by, "label_logprob"):
        labels = list(part["label"].values) if "label" in part.coords else []
        cells = variable(part, "label_logprob").transpose("cell", "example", "label")
        groups = example_groups(part)
        units = np.arange(part.sizes["example"]) if groups is None else groups
        errors = []
        for cell in cells:
            answers = cell["gold"].values, numbers(cell).values, labels
            sums[level] = sums.get(level, 0) + np.stack(calibration_bins(*answers, bins))
            errors.append(debiased_squares(*confidences(*answers), units, bins))
        runs = by_seed(np.stack([values for values, _ in errors]), part.indexes["cell"])
        biases = [bias for _, bias in errors]
        squares.setdefault(level, []).append(_Squares(runs, units, float(np.mean(biases))))
    number, sure, correct = np.moveaxis(np.stack(list(sums.values())), 1, 0)
    middle = level_coordinate(
        ((np.arange(bins) + 0.5) / bins).tolist(), "confidence, middle of the bin", "bin"
    )
    coordinates = {"level": level_coordinate(list(sums), by), "bin": middle}
    like = xr.DataArray(number, coordinates, ("level", "bin"))
    with np.errstate(invalid="ignore"):
        columns = {
            "confidence": (np.minimum(sure / number, 1.0), "1", "mean highest label probability"),
            "accuracy": (correct / number, "1", "accuracy"),
            "count": (number, "1", "examples"),
        }
    result = labelled(like, columns)
    ece = np.abs(correct - sure).sum(axis=1) / number.sum(axis=1)
    result["ece"] = ("level", ece, {"units": "1", "long_name": "expected calibration error"})
    inferences = [_inferred(of_level, confidence) for of_level in squares.values()]
    for place, (name, title) in enumerate(
        {"": "", "_low": ", lower bound", "_high": ", upper bound"}.items()
    ):
        values = [bounds[place] for bounds, _ in inferences]
        result[f"rmsce{name}"] = ("level", values, {"units": "1", "long_name": RMSCE + title})
    counts = xr.Dataset({"seeds": ("level", [int(parts_of_mean.seeds) for _, parts_of_mean in inferences])})
    grouped = any(len(set(one.units)) < len(one.units) for of_level in squares.values() for one in of_level)
    result.attrs["method"] = (
        f"Calibration of label probabilities, renormalised among the labels, in {bins} bins of equal width, "
        f"over all cells and examples of each level of {by}; {RMSCE}, in at most {bins} bins of as many "
        f"examples each, {seeds_of(counts)}, {intervals(counts, confidence, grouped)}."
    )
    return result


@frozen
class _Squares:
    """Squared calibration errors of one shape."""

    runs: SeedValues
    units: NDArray[np.intp]
    """The group of each example."""
    bias: float


def _inferred(parts: list[_Squares], confidence: float) -> tuple[Floats, Components]:
    """Return the root of the mean square with its bounds [3], over the shapes that a level comes in.

    The root of the square with its bias is close to normal, as a distance is; that of the square alone is
    not, where it is near 0. So the bounds are made there.
    """
    seeds = [name for name in parts[0].runs.seeds if all(name in part.runs.seeds for part in parts)]
    values = [part.runs.values[[part.runs.seeds.index(name) for name in seeds]] for part in parts]
    labels = [part.units + 10**9 * place for place, part in enumerate(parts)]
    components = Components.of(np.concatenate(values, axis=1), np.concatenate(labels))
    sizes = [len(part.units) for part in parts]
    bias = max(0.0, float(np.average([part.bias for part in parts], weights=sizes)))
    root = np.sqrt(np.maximum(components.mean, 0) + bias)
    half = plain_widths(components.variances, components.seeds, components.df_examples).half(
        1 - confidence
    ) / (2 * root)
    squares = np.stack([components.mean, np.maximum(root - half, 0) ** 2 - bias, (root + half) ** 2 - bias])
    return np.sqrt(np.clip(squares, 0, 1)), components
