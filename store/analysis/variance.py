"""Is one group more variable than another over an interval of layers?"""

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from store.analysis.changes import stage_of
from store.analysis.groups import Against, Groups, read_groups
from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import Data
from store.analysis.permutation import PERMUTATIONS, share_at_least, signs
from store.analysis.resampling import CONFIDENCE, RESAMPLES, Floats, pigeonhole
from store.analysis.wording import spell_count
from store.errors import StoreError

TESTS = ("levene", "brown_forsythe", "fligner_killeen")


def variance_by_interval(
    data: Data,
    variable: str,
    layers: tuple[int, int] = (15, 30),
    *,
    by: str,
    baseline: Any = None,
    factor: str | None = None,
    factor_baseline: Any = None,
    factor_level: Any = None,
    paired: bool | None = None,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Compare the variance over examples of a variable, averaged over an interval of layers, between groups.

    Groups are the levels of the factor `by` (such as the data set), against `baseline` (default: the first).
    With `factor` the values are its differences, factor_level − factor_baseline, so that "is the entropy
    difference over layers 15–30 more variable for one set" is one call. A value is an example's mean over
    the layers (both ends included) and seeds. Result, by (level, position): `variance`, `variance_ratio` to
    the baseline with bootstrap `low` and `high`, and p values of Levene's test (means), Brown and Forsythe's
    (medians) and Fligner and Killeen's (ranks), each also corrected across levels as `…_adjusted`. Where
    levels share their examples these tests' statistics are referred to permutations within examples instead
    of their usual distributions, which assume independent groups.
    """
    against = Against(factor, factor_baseline, factor_level) if factor else None
    low_layer, high_layer = layers

    def reduce(cell: xr.DataArray) -> xr.DataArray:
        chosen = cell.sel(layer=slice(low_layer, high_layer))
        if not chosen.sizes["layer"]:
            raise StoreError(f"layers {layers}: the store has none of them, only {cell['layer'].values}")
        return chosen.mean("layer", skipna=False)

    groups = read_groups(
        data, variable, by, stage_of(variable), reduce=reduce, against=against, paired=paired
    )
    base = groups.groups[0] if baseline is None else groups.find(baseline)
    results = [
        _compare(
            base.values.mean(axis=0),
            group.values.mean(axis=0),
            groups.paired,
            resamples,
            permutations,
            seed,
            confidence,
        )
        for group in groups.groups
    ]
    result = _dataset(groups, base.like, results, base.level)
    for test in TESTS:
        p = result[test]
        p[groups.groups.index(base)] = np.nan
        title = f"{p.attrs['long_name']}, {NAMES[correction]} across levels"
        result[f"{test}_adjusted"] = p.copy(data=adjust(p.values, 0, correction)).assign_attrs(
            long_name=title
        )
    subject = f"differences in {variable} ({factor})" if factor else variable
    result.attrs["method"] = (
        f"Variance over examples of {subject}, averaged over layers {low_layer}–{high_layer} and "
        f"{spell_count(groups.seeds, 'seed')} ({groups.sizes} examples), against {base.level}: Levene, Brown–Forsythe "
        f"and Fligner–Killeen tests{_reference(groups, permutations, seed)}, {NAMES[correction]} across levels; variance "
        f"ratios with {confidence:.0%} intervals from {resamples} bootstrap resamples of examples (random seed {seed}), "
        f"which do not cover the variation between trainings; {int(result['missing'].sum())} values missing."
    )
    return result


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
        found["missing"][place] = len(y) - there[1].sum()
        x, y = x[there[0]], y[there[1]]
        found["examples"][place] = len(y)
        if min(len(x), len(y)) < 3:
            continue
        found["variance"][place] = y.var(ddof=1)
        ratio = variance_ratio(x, y, paired, resamples, seed, confidence)
        for name, value in zip(("variance_ratio", "low", "high"), ratio, strict=True):
            found[name][place] = value
        for name, value in variance_tests(x, y, paired, permutations, seed).items():
            found[name][place] = value
    return found


def variance_ratio(
    x: Floats,
    y: Floats,
    paired: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[float, float, float]:
    """Return var(y) / var(x) of two groups [example] and its bootstrap interval; paired: drawn together.

    The log ratio is studentised by its delta-method standard error, which draws the kurtosis in (Efron &
    Tibshirani, 1993, chapter 12): plain percentiles are too narrow for variances.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.ones(len(x))[None], np.ones(len(y))[None]
        estimate, error = _log_ratio(x, y, *one, paired)
        first = pigeonhole(1, len(x), resamples, seed).examples
        second = first if paired else pigeonhole(1, len(y), resamples, seed + 1).examples
        drawn, errors = _log_ratio(x, y, first, second, paired)
        t = (drawn - estimate) / errors
    t = t[np.isfinite(t)]
    if not t.size:
        return float(np.exp(estimate[0])), float("nan"), float("nan")
    tails = np.quantile(t, [(1 + confidence) / 2, (1 - confidence) / 2])
    low, high = np.exp(estimate[0] - tails * error[0])
    return float(np.exp(estimate[0])), float(low), float(high)


def _log_ratio(x: Floats, y: Floats, wx: Floats, wy: Floats, paired: bool) -> tuple[Floats, Floats]:
    """Return log var(y) − log var(x) and its standard error for weights [resample, example]."""
    parts = []
    for values, weights in ((x, wx), (y, wy)):
        n = weights.sum(axis=1, keepdims=True)
        centred = values - weights @ values[:, None] / n
        variance = (weights * centred**2).sum(axis=1, keepdims=True) / (n - 1)
        parts.append((np.log(variance[:, 0]), centred**2 / variance - 1, weights, n[:, 0]))
    (log_x, i_x, _, n_x), (log_y, i_y, _, n_y) = parts
    if paired:
        square = (wx * (i_y - i_x) ** 2).sum(axis=1) / n_x**2
    else:
        square = (wx * i_x**2).sum(axis=1) / n_x**2 + (wy * i_y**2).sum(axis=1) / n_y**2
    return log_y - log_x, np.sqrt(square)


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
    flips, _ = signs(len(x), permutations, seed)
    scores = {
        "levene": np.stack([abs(v - v.mean()) for v in (x, y)]),
        "brown_forsythe": np.stack([abs(v - np.median(v)) for v in (x, y)]),
    }
    ranks = stats.rankdata(scores["brown_forsythe"], axis=None).reshape(2, -1)
    scores["fligner_killeen"] = stats.norm.ppf(0.5 + ranks / (2 * (ranks.size + 1)))
    return {name: float(share_at_least(np.abs(flips @ (s[1] - s[0])))) for name, s in scores.items()}


def _dataset(groups: Groups, like: xr.DataArray, results: list[dict[str, Floats]], base: Any) -> xr.Dataset:
    units = str(like.attrs.get("units", ""))
    titles = {
        "variance": (f"{units}²" if units else "", "variance over examples"),
        "variance_ratio": ("1", f"variance in proportion to {base}"),
        "low": ("1", "variance ratio, lower bound"),
        "high": ("1", "variance ratio, upper bound"),
        "levene": ("1", "p value of Levene's test"),
        "brown_forsythe": ("1", "p value of Brown and Forsythe's test"),
        "fligner_killeen": ("1", "p value of Fligner and Killeen's test"),
        "examples": ("1", "examples with a value"),
        "missing": ("1", "examples left out for a missing value"),
    }
    coordinates = {n: c for n, c in like.coords.items() if n in like.dims}
    result = xr.Dataset(coords={"level": groups.coordinate, **coordinates})
    for name, (unit, title) in titles.items():
        stacked = np.stack([found[name] for found in results])
        result[name] = (("level", *like.dims), stacked, {"units": unit, "long_name": title})
    return result


def _reference(groups: Groups, permutations: int, seed: int) -> str:
    if not groups.paired:
        return ""
    return f" by {permutations} permutations of levels within examples (random seed {seed})"
