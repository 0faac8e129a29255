"""Is one group more variable than another over an interval of layers?"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from store.analysis.between import difference, log_variances
from store.analysis.changes import stage_of
from store.analysis.components import Components, Floats
from store.analysis.families import add_adjusted
from store.analysis.groups import Against, LevelValues, read_groups
from store.analysis.inference import CONFIDENCE, inferred
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data, in_words
from store.analysis.permutation import PERMUTATIONS, share_at_least, signs
from store.analysis.results import (
    EXAMPLES,
    GROUPS,
    MISSING,
    SEEDS,
    by_level,
    grouped,
    intervals,
    labelled,
    most_seeds,
    seeds_of,
)
from store.analysis.runs import over_groups, over_seeds
from store.errors import StoreError

TESTS = {
    "brown_forsythe": "p value of Brown and Forsythe's test for these trained models",
    "levene": "p value of Levene's test for these trained models",
    "fligner_killeen": "p value of Fligner and Killeen's test for these trained models",
}


def variance_by_interval(
    data: Data,
    variable: str,
    layers: tuple[int, int] = (15, 30),
    *,
    by: str,
    reference: Any = None,
    factor: str | None = None,
    baseline: Any = None,
    level: Any = None,
    paired: bool | None = None,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Compare the variance over examples of a variable, averaged over an interval of layers, between groups.

    Groups are the levels of the factor `by` (such as the data set), compared with `reference` (default: the
    first). With `factor` the values are its differences, level − baseline, so that "is the entropy difference
    over layers 15–30 more variable for one set" is one call. A value is an example's mean over the layers
    (both ends included).

    Returns:
        Result, by (level, position): `variance` (over examples of a run, the geometric mean of the seeds'),
            `variance_ratio` to the reference with `low`, `high`, `p_value` and `p_adjusted`: log variances by
            seed (Miller's jackknife, 1968), over seeds and examples as in `change`. For these trained models
            alone, on examples' means over seeds: p values of Brown and Forsythe's test (medians: the one for
            skewed values), Levene's (means) and Fligner and Killeen's (ranks), each also corrected, as
            `…_adjusted`. Where levels share their examples, or examples share groups, these tests' scores are
            exchanged within examples, or between levels by groups, since their usual distributions assume
            independent examples.
    """
    against = Against(factor, baseline, level) if factor else None
    groups = read_groups(
        data, variable, by, stage_of(variable), reduce=_mean_over(layers), against=against, paired=paired
    ).comparable()
    base = groups.find(reference)
    parts = []
    for group in groups.groups:
        columns = _ratio(base, group, groups.paired, confidence) | _tests(
            base, group, groups.paired, permutations, seed
        )
        parts.append(labelled(group.like, _described(columns, base.like.attrs.get("units", ""), base.level)))
    result = by_level(parts, groups.coordinate)
    words = add_adjusted(result, "p_value", correction, by)
    for name in TESTS:
        add_adjusted(result, name, correction, by)
    subject = f"differences in {in_words(variable)} ({factor})" if factor else in_words(variable)
    exchanged = groups.paired or groups.units != "examples"
    tested = f" by {permutations} exchanges of {groups.units} (random seed {seed})" if exchanged else ""
    result.attrs["method"] = (
        f"Variance over examples of {subject} in a run, averaged over layers {layers[0]}–{layers[1]} "
        f"({groups.sizes}), against {base.level}: log variances by seed, {seeds_of(result)}, "
        f"{intervals(result, confidence, grouped(result))}, {words}; Brown–Forsythe, Levene and "
        f"Fligner–Killeen tests{tested} for these trained models; "
        f"{int(result['missing'].sum())} values missing."
    )
    most_seeds(result, "level")
    return result


def _ratio(base: LevelValues, group: LevelValues, paired: bool, confidence: float) -> dict[str, Floats]:
    """Return the variance of a group and its ratio to that of the base, with bounds and p value."""
    ratio = difference(base, group, paired, log_variances)
    inference = inferred(ratio, confidence=confidence)
    values = group.values
    counted, alone = (Components.of(x, group.labels) for x in (values, log_variances(values)))
    columns = {
        "variance": np.exp(alone.mean),
        "variance_ratio": np.exp(inference.mean),
        "low": np.exp(inference.low),
        "high": np.exp(inference.high),
        "p_value": inference.p,
        "seeds": ratio.seeds,
        "examples": counted.examples,
        "groups": counted.groups,
        "missing": counted.missing,
    }
    if group is base:  # nothing to test against itself
        columns |= {name: np.full_like(inference.p, np.nan) for name in ("low", "high", "p_value")}
        columns["variance_ratio"] = np.where(np.isfinite(alone.mean), 1.0, np.nan)
        columns["seeds"] = alone.seeds
    return columns


def _tests(
    base: LevelValues, group: LevelValues, paired: bool, permutations: int, seed: int
) -> dict[str, Floats]:
    """Return p values [*rest] of the tests that hold for these trained models, by the names in TESTS."""
    a, b = (over_seeds(part.values) for part in (base, group))
    p_values = {name: np.full(a.shape[1:], np.nan) for name in TESTS}
    for place in np.ndindex(*a.shape[1:]) if group is not base else ():
        x, y = a[(..., *place)], b[(..., *place)]
        valid = [np.isfinite(x), np.isfinite(y)]
        if paired:
            valid = [valid[0] & valid[1]] * 2
        x, y = x[valid[0]], y[valid[1]]
        units = None
        if base.grouped or group.grouped:
            units = base.units[valid[0]], group.units[valid[1]]
        if min(len(x), len(y)) >= 3 and x.std() + y.std() > 0:
            for name, value in variance_tests(x, y, paired, permutations, seed, units).items():
                p_values[name][place] = value
    return p_values


def variance_tests(
    x: Floats,
    y: Floats,
    paired: bool,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    units: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
) -> dict[str, float]:
    """Return p values of equal variances of two groups [example], by the names in TESTS.

    units: the group of each example, where some share one; these are exchanged together.
    """
    if not paired and units is None:
        return {
            "brown_forsythe": float(stats.levene(x, y, center="median").pvalue),
            "levene": float(stats.levene(x, y, center="mean").pvalue),
            "fligner_killeen": float(stats.fligner(x, y).pvalue),
        }
    from_median = [abs(v - np.median(v)) for v in (x, y)]
    ranks = stats.rankdata(np.concatenate(from_median))
    normal = stats.norm.ppf(0.5 + ranks / (2 * (ranks.size + 1)))
    scores = {
        "brown_forsythe": from_median,
        "levene": [abs(v - v.mean()) for v in (x, y)],
        "fligner_killeen": [normal[: len(x)], normal[len(x) :]],
    }
    if paired:
        groups = None if units is None else np.unique(units[0], return_inverse=True)[1]
        sums = {name: over_groups(s[1] - s[0], groups) for name, s in scores.items()}
        flips = signs(len(sums["levene"]), permutations, seed)
        return {name: float(share_at_least(np.abs(flips @ of_unit))) for name, of_unit in sums.items()}
    numbers = [np.unique(names, return_inverse=True)[1] for names in units or ()]
    sizes = [over_groups(np.ones(len(number)), number) for number in numbers]
    first = np.arange(sum(map(len, sizes))) < len(sizes[0])
    rng = np.random.default_rng(seed)
    members = np.concatenate([first[None], rng.permuted(np.tile(first, (permutations, 1)), axis=1)])
    p_values = {}
    for name, pair_of_scores in scores.items():
        sums_ = np.concatenate([over_groups(s, n) for s, n in zip(pair_of_scores, numbers, strict=True)])
        size = np.concatenate(sizes)
        means = [(side @ sums_) / (side @ size) for side in (members, ~members)]
        p_values[name] = float(share_at_least(np.abs(means[0] - means[1])))
    return p_values


def _mean_over(layers: tuple[int, int]) -> Any:
    def reduce(cells: xr.DataArray) -> xr.DataArray:
        chosen = cells.sel(layer=slice(*layers))
        if not chosen.sizes["layer"]:
            layer_range = f"{cells['layer'].values[0]} to {cells['layer'].values[-1]}"
            raise StoreError(f"layers {layers}: none of them is in the store, which has {layer_range}")
        return chosen.mean("layer", skipna=False, keep_attrs=True)

    return reduce


def _described(columns: dict[str, Floats], units: str, base: Any) -> dict[str, tuple[Any, str, str]]:
    titles = {
        "variance": (f"{units}²" if units else "", "variance over examples of a run"),
        "variance_ratio": ("1", f"variance in proportion to {base}"),
        "low": ("1", "variance ratio, lower bound"),
        "high": ("1", "variance ratio, upper bound"),
        "p_value": ("1", "p value of the log ratio, two-sided"),
        "seeds": ("1", SEEDS),
        "examples": ("1", EXAMPLES),
        "groups": ("1", GROUPS),
        "missing": ("1", MISSING),
    } | {name: ("1", title) for name, title in TESTS.items()}
    return {name: (columns[name], *titles[name]) for name in columns}
