"""Is one group more variable than another over an interval of layers?"""

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from store.analysis.changes import stage_of
from store.analysis.components import Floats
from store.analysis.groups import Against, read_groups
from store.analysis.inference import CONFIDENCE
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data
from store.analysis.permutation import PERMUTATIONS, share_at_least, signs
from store.analysis.resampling import RESAMPLES, pigeonhole
from store.analysis.results import MISSING, add_adjusted, by_level, labelled
from store.errors import StoreError

TESTS = {
    "levene": "p value of Levene's test",
    "brown_forsythe": "p value of Brown and Forsythe's test",
    "fligner_killeen": "p value of Fligner and Killeen's test",
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
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Compare the variance over examples of a variable, averaged over an interval of layers, between groups.

    Groups are the levels of the factor `by` (such as the data set), held against `reference` (default: the
    first). With `factor` the values are its differences, level − baseline, so that "is the entropy difference
    over layers 15–30 more variable for one set" is one call. A value is an example's mean over the layers
    (both ends included) and seeds. Result, by (level, position): `variance`, `variance_ratio` to the
    reference with bootstrap `low` and `high`, and p values of Levene's test (means), Brown and Forsythe's
    (medians) and Fligner and Killeen's (ranks), each also corrected across levels as `…_adjusted`. Where
    levels share their examples these tests' scores are exchanged within examples, since their usual
    distributions assume independent groups.
    """
    against = Against(factor, baseline, level) if factor else None
    groups = read_groups(
        data, variable, by, stage_of(variable), reduce=_mean_over(layers), against=against, paired=paired
    ).comparable()
    base = groups.find(reference)
    x = base.values.mean(axis=0)
    parts = []
    for group in groups.groups:
        y = group.values.mean(axis=0)
        columns = _compare(x, y, groups.paired, resamples, permutations, seed, confidence)
        if group is base:  # nothing to test against itself
            columns |= {name: np.full_like(columns[name], np.nan) for name in ("low", "high", *TESTS)}
        parts.append(labelled(group.like, _described(columns, base.like.attrs.get("units", ""), base.level)))
    result = by_level(parts, groups.coordinate)
    words = {add_adjusted(result, name, correction, "level") for name in TESTS}.pop()
    subject = f"differences in {variable} ({factor})" if factor else variable
    tested = f" by {permutations} exchanges within examples (random seed {seed})" if groups.paired else ""
    result.attrs["method"] = (
        f"Variance over examples of {subject}, averaged over layers {layers[0]}–{layers[1]} and "
        f"{groups.seeds} ({groups.sizes}), against {base.level}: Levene, "
        f"Brown–Forsythe and Fligner–Killeen tests{tested}, {words}; variance ratios with {confidence:.0%} "
        f"intervals by the studentised bootstrap of examples ({resamples} resamples, random seed {seed}), "
        "for these models (the variation between trainings is not covered); "
        f"{int(result['missing'].sum())} values missing."
    )
    return result


def variance_tests(
    x: Floats, y: Floats, paired: bool, permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, float]:
    """Return p values of equal variances of two groups [example], by the names in TESTS."""
    if not paired:
        return {
            "levene": float(stats.levene(x, y, center="mean").pvalue),
            "brown_forsythe": float(stats.levene(x, y, center="median").pvalue),
            "fligner_killeen": float(stats.fligner(x, y).pvalue),
        }
    flips = signs(len(x), permutations, seed)
    from_median = np.stack([abs(v - np.median(v)) for v in (x, y)])
    ranks = stats.rankdata(from_median, axis=None).reshape(2, -1)
    scores = {
        "levene": np.stack([abs(v - v.mean()) for v in (x, y)]),
        "brown_forsythe": from_median,
        "fligner_killeen": stats.norm.ppf(0.5 + ranks / (2 * (ranks.size + 1))),
    }
    return {name: float(share_at_least(np.abs(flips @ (s[1] - s[0])))) for name, s in scores.items()}


def variance_ratio(
    x: Floats,
    y: Floats,
    paired: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[float, float, float]:
    """Return var(y) / var(x) of two groups [example] and its bootstrap interval; paired: drawn together.

    The log ratio is studentised by its delta-method standard error, which takes the kurtosis into account
    (Efron & Tibshirani, 1993, chapter 12): plain percentiles are too narrow for variances.
    """
    first = pigeonhole(1, len(x), resamples, seed).examples
    second = first if paired else pigeonhole(1, len(y), resamples, seed + 1).examples
    with np.errstate(divide="ignore", invalid="ignore"):
        (estimate,), (error,) = _log_ratio(x, y, np.ones((1, len(x))), np.ones((1, len(y))), paired)
        drawn, errors = _log_ratio(x, y, first, second, paired)
        t = (drawn - estimate) / errors
    t = t[np.isfinite(t)]
    if not t.size:
        return float(np.exp(estimate)), float("nan"), float("nan")
    upper, lower = np.quantile(t, [(1 + confidence) / 2, (1 - confidence) / 2])
    return (
        float(np.exp(estimate)),
        float(np.exp(estimate - upper * error)),
        float(np.exp(estimate - lower * error)),
    )


def _mean_over(layers: tuple[int, int]) -> Any:
    def reduce(cell: xr.DataArray) -> xr.DataArray:
        chosen = cell.sel(layer=slice(*layers))
        if not chosen.sizes["layer"]:
            there = f"{cell['layer'].values[0]} to {cell['layer'].values[-1]}"
            raise StoreError(f"layers {layers}: none of them is in the store, which has {there}")
        return chosen.mean("layer", skipna=False, keep_attrs=True)

    return reduce


def _compare(
    a: Floats, b: Floats, paired: bool, resamples: int, permutations: int, seed: int, confidence: float
) -> dict[str, Floats]:
    """Return the statistics [*rest] of group b against a, both [example, *rest]."""
    rest = a.shape[1:]
    names = ("variance", "variance_ratio", "low", "high", *TESTS, "examples", "missing")
    found = {name: np.full(rest, np.nan) for name in names}
    for place in np.ndindex(*rest):
        x, y = a[(..., *place)], b[(..., *place)]
        there = [np.isfinite(x), np.isfinite(y)]
        if paired:
            there = [there[0] & there[1]] * 2
        x, kept = x[there[0]], y[there[1]]
        own = {"examples": float(len(kept)), "missing": float(len(y) - len(kept))}
        if min(len(x), len(kept)) >= 3 and x.std() + kept.std() > 0:
            ratio = variance_ratio(x, kept, paired, resamples, seed, confidence)
            own |= dict(zip(("variance_ratio", "low", "high"), ratio, strict=True))
            own |= {"variance": float(kept.var(ddof=1))}
            own |= variance_tests(x, kept, paired, permutations, seed)
        for name, value in own.items():
            found[name][place] = value
    return found


def _log_ratio(x: Floats, y: Floats, wx: Floats, wy: Floats, paired: bool) -> tuple[Floats, Floats]:
    """Return log var(y) − log var(x) and its standard error for weights [resample, example]."""
    logs, influences = [], []
    for values, weights in ((x, wx), (y, wy)):
        n = weights.sum(axis=1, keepdims=True)
        centred = values - weights @ values[:, None] / n
        variance = (weights * centred**2).sum(axis=1, keepdims=True) / (n - 1)
        logs.append(np.log(variance[:, 0]))
        influences.append((centred**2 / variance - 1) / n)
    if paired:
        square = (wx * (influences[1] - influences[0]) ** 2).sum(axis=1)
    else:
        square = sum((w * i**2).sum(axis=1) for w, i in zip((wx, wy), influences, strict=True))
    return logs[1] - logs[0], np.sqrt(square)


def _described(columns: dict[str, Floats], units: str, base: Any) -> dict[str, tuple[Any, str, str]]:
    titles = {
        "variance": (f"{units}²" if units else "", "variance over examples"),
        "variance_ratio": ("1", f"variance in proportion to {base}"),
        "low": ("1", "variance ratio, lower bound"),
        "high": ("1", "variance ratio, upper bound"),
        "examples": ("1", "examples with a value"),
        "missing": ("1", MISSING),
    } | {name: ("1", title) for name, title in TESTS.items()}
    return {name: (columns[name], *titles[name]) for name in columns}
