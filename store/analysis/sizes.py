"""Effect sizes, and the exact test of paired accuracies."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_test

from store.analysis.changes import contrast, stage_of, without_units
from store.analysis.components import Components, Floats
from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import Data, in_words, numbers, read_cell, stage_node, variable
from store.analysis.pairs import find_pairs
from store.analysis.permutation import sign_flip_p
from store.analysis.results import STANDARDISED, by_level, count, labelled
from store.analysis.runs import by_seed, example_groups, over_groups, standardised


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

    Returns:
        Result, by (level, pair): `gained` and `lost` (examples that are right only in the condition, only in
            the baseline), `odds_ratio` (gained / lost, each + ½), `p_value` and `p_adjusted` across all pairs
            of all levels. Where examples share groups, p is that of flipping the signs of whole groups. Each
            test speaks of one pair of trained models; for all seeds together see `change`.
    """
    dataset = stage_node(data, "evaluate", outcome)
    pairs = find_pairs(dataset, factor, baseline, level)
    right = variable(dataset, outcome)
    groups = example_groups(right)
    gained, lost, p = (np.full(pairs.condition.shape, np.nan) for _ in range(3))
    for place in zip(*np.nonzero(pairs.condition >= 0), strict=True):
        a, b = read_cell(right, pairs.condition[place]), read_cell(right, pairs.reference[place])
        gained[place], lost[place] = np.sum((a == 1) & (b == 0)), np.sum((a == 0) & (b == 1))
        if groups is None:
            p[place] = mcnemar_test([[0, gained[place]], [lost[place], 0]], exact=True).pvalue
        else:
            p[place] = sign_flip_p(over_groups(a - b, groups))
    adjusted = adjust(p.ravel(), 0, correction).reshape(p.shape)
    like = contrast(data, outcome, factor, baseline, level)["difference"].isel(example=0, drop=True)
    columns = {
        "gained": (gained, "1", "examples right in the condition only"),
        "lost": (lost, "1", "examples right in the baseline only"),
        "odds_ratio": ((gained + 0.5) / (lost + 0.5), "1", "odds ratio of the discordant examples"),
        "p_value": (p, "1", "p value, two-sided, exact"),
        "p_adjusted": (adjusted, "1", f"p value, {NAMES[correction]} across pairs and levels"),
    }
    test = "McNemar's exact test" if groups is None else "Sign flips of groups of examples in differences"
    result = labelled(like.reset_index("pair"), columns).assign_coords(like["pair"].coords)
    result.attrs["method"] = (
        f"{test} of {in_words(outcome)} between levels of {factor} and {pairs.baseline} for each of "
        f"{count(int((pairs.condition >= 0).sum()), 'pair')} of models on {right.sizes['example']} examples, "
        f"{NAMES[correction]}."
    )
    return result


def effect_sizes(
    data: Data, variable: str, factor: str, baseline: Any = None, level: Any = None
) -> xr.Dataset:
    """Return how large differences are, by (level, layer, …), without test.

    All are of single runs and do not grow with the number of seeds. `d_z`: Cohen's, the mean paired
    difference in standard deviations of a single run's examples. `cliffs_delta`: the chance that a value of
    the condition is above one of the baseline, less the reverse (Cliff, 1993), a mean over pairs of cells.
    `odds_ratio`, for outcomes of 0 and 1 alone: the odds of 1 in the condition over those in the baseline,
    each count + ½ (Haldane, 1956).
    """
    paired = contrast(data, variable, factor, baseline, level)
    dataset = stage_node(data, stage_of(variable), variable)
    pairs = find_pairs(dataset, factor, baseline, level)
    parts = []
    for number, of_level in enumerate(paired["difference"].transpose("level", "pair", "example", ...)):
        present = pairs.condition[number] >= 0
        cells = pairs.condition[number][present], pairs.reference[number][present]
        index = pairs.index[present]
        parts.append(labelled(without_units(of_level), _sizes(dataset, variable, *cells, index)))
    result = by_level(parts, paired["level"])
    result.attrs = paired.attrs | {
        "method": f"Effect sizes of {factor} against {pairs.baseline} on {in_words(variable)}, over "
        f"{count(paired.sizes['example'], 'example')} of a single run, averaged over "
        f"{count(int(paired['pairs'].max()), 'pair')} of cells."
    }
    return result


def _sizes(
    dataset: xr.Dataset, name: str, condition: Any, reference: Any, index: pd.MultiIndex
) -> dict[str, tuple[Any, str, str]]:
    a, b = (
        numbers(variable(dataset.isel(cell=cells), name).transpose("cell", "example", ...)).values
        for cells in (condition, reference)
    )
    runs = by_seed(a - b, index)
    columns = {
        "d_z": (standardised(Components.of(runs.values), runs.spread), "1", STANDARDISED),
        "cliffs_delta": (_mean([_delta(x, y) for x, y in zip(a, b, strict=True)]), "1", "Cliff's delta"),
    }
    if {*np.unique(np.concatenate([a, b]))} <= {0.0, 1.0}:
        odds = [(side.sum(axis=(0, 1)) + 0.5) / ((1 - side).sum(axis=(0, 1)) + 0.5) for side in (a, b)]
        columns["odds_ratio"] = (odds[0] / odds[1], "1", "odds ratio, each count + 1/2")
    return columns


def _delta(a: Floats, b: Floats) -> Floats:
    """Return Cliff's delta of two sets of values [example, *rest]; NaN where one has none."""
    u = np.asarray(stats.mannwhitneyu(a, b, axis=0, nan_policy="omit").statistic)
    n = np.isfinite(a).sum(axis=0) * np.isfinite(b).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(n > 0, 2 * u / n - 1, np.nan))


def _mean(values: list[Floats]) -> Floats:
    valid = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(valid, values, 0.0).sum(axis=0) / valid.sum(axis=0))
