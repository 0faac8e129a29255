"""Effect sizes, and the exact test of paired accuracies."""

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_table  # type: ignore[import-untyped]

from store.analysis.changes import contrast, stage_of
from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import Data, read_cell, stage_node, variable
from store.analysis.pairs import Pairs, find_pairs
from store.analysis.permutation import columns_like
from store.analysis.resampling import d_z


def mcnemar(
    data: Data,
    factor: str,
    baseline: Any = None,
    level: Any = None,
    *,
    outcome: str = "correct",
    correction: Correction = "holm",
) -> xr.Dataset:
    """Compare paired accuracies cell by cell with McNemar's exact test (McNemar, 1947).

    Result, by (level, pair): `gained` and `lost` (examples that are right only in the condition, only in the
    baseline), `odds_ratio` (gained / lost, each + ½), `p_value` and `p_adjusted` across all pairs of all
    levels. Each test speaks of one pair of trained models; for all seeds together see `change`.
    """
    dataset = stage_node(data, "evaluate")
    pairs = find_pairs(dataset, factor, baseline, level)
    right = variable(dataset, outcome)
    shape = pairs.condition.shape
    gained, lost, p = (np.full(shape, np.nan) for _ in range(3))
    for place in zip(*np.nonzero(pairs.condition >= 0), strict=True):
        a, b = read_cell(right, pairs.condition[place]), read_cell(right, pairs.reference[place])
        gained[place], lost[place] = np.sum((a == 1) & (b == 0)), np.sum((a == 0) & (b == 1))
        p[place] = mcnemar_table([[0, gained[place]], [lost[place], 0]], exact=True).pvalue
    adjusted = adjust(p.ravel(), 0, correction).reshape(shape)
    columns = {
        "gained": (gained, "examples right in the condition only"),
        "lost": (lost, "examples right in the baseline only"),
        "odds_ratio": ((gained + 0.5) / (lost + 0.5), "odds ratio of the discordant examples"),
        "p_value": (p, "p value, two-sided, exact"),
        "p_adjusted": (adjusted, f"p value, {NAMES[correction]} across pairs and levels"),
    }
    like = contrast(data, outcome, factor, baseline, level)
    result = xr.Dataset(coords={"level": like["level"]}).assign_coords(like["pair"].coords)
    for name, (column, title) in columns.items():
        result[name] = (("level", "pair"), column, {"units": "1", "long_name": title})
    result.attrs["method"] = (
        f"McNemar's exact test of {outcome} between levels of {factor} and {pairs.baseline} for each of "
        f"{int((pairs.condition >= 0).sum())} pairs of models on {right.sizes['example']} examples, {NAMES[correction]}."
    )
    return result


def effect_sizes(
    data: Data, variable: str, factor: str, baseline: Any = None, level: Any = None
) -> xr.Dataset:
    """Return how large differences are, by (level, layer, …), without test.

    `d_z`: Cohen's d of the examples' paired mean differences. `cliffs_delta`: the chance that a value of the
    condition is above one of the baseline, less the reverse (Cliff, 1993), of the examples' means over seeds.
    `odds_ratio`, for outcomes of 0 and 1 alone: the odds of 1 in the condition over those in the baseline,
    each count + ½ (Haldane, 1956).
    """
    dataset = stage_node(data, stage_of(variable))
    pairs = find_pairs(dataset, factor, baseline, level)
    paired = contrast(data, variable, factor, baseline, level)
    found = [_sizes(dataset, variable, pairs, number, paired) for number in range(len(pairs.levels))]
    result = xr.concat(found, "level").assign_coords(level=paired["level"])
    titles = {"d_z": "Cohen's d_z", "cliffs_delta": "Cliff's delta", "odds_ratio": "odds ratio"}
    for name in result.data_vars:
        result[name].attrs.update(units="1", long_name=titles[str(name)])
    examples = paired.sizes["example"]
    result.attrs["method"] = (
        f"Effect sizes of {factor} against {pairs.baseline} on {variable}, over {examples} examples, values "
        f"averaged over {int(paired['pairs'].max())} pairs of cells."
    )
    return result


def _sizes(dataset: xr.Dataset, name: str, pairs: Pairs, number: int, paired: xr.Dataset) -> xr.Dataset:
    values = variable(dataset, name).transpose("cell", "example", ...)
    there = pairs.condition[number] >= 0
    sides = []
    for cells in (pairs.condition[number][there], pairs.reference[number][there]):
        sides.append(np.stack([read_cell(values, cell) for cell in cells]))
    a, b = (side.mean(axis=0) for side in sides)
    u = stats.mannwhitneyu(a, b, axis=0, nan_policy="omit").statistic
    n = np.isfinite(a).sum(axis=0) * np.isfinite(b).sum(axis=0)
    columns = {"d_z": d_z(a - b), "cliffs_delta": 2 * np.asarray(u) / n - 1}
    if {*np.unique(np.concatenate(sides))} <= {0.0, 1.0}:
        odds = [(side.sum(axis=(0, 1)) + 0.5) / ((1 - side).sum(axis=(0, 1)) + 0.5) for side in sides]
        columns["odds_ratio"] = odds[0] / odds[1]
    like = paired["difference"].isel(level=number, pair=0, drop=True).transpose("example", ...)
    return columns_like(like.isel(example=0, drop=True), columns)
