"""Whether a difference is too small to matter: two one-sided tests (TOST; Schuirmann, 1987).

They turn the intervals of the one inference round, so that p is below α just where the interval with
confidence 1 − 2α lies within ± the smallest difference of interest.
"""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.components import Floats
from store.analysis.inference import Estimate
from store.analysis.nodes import Data, spec_of
from store.analysis.results import Columns
from store.errors import StoreError

NAME = "p_equivalence"
START = "p_equivalence_family"
"""What the correction starts from; no part of a result."""
SKEWED, FEWEST = 1.0, 5
"""From which skewness of how many trainings on `method` speaks of it."""
SIZE = 0.09
"""How often a difference on the border is called smaller at 0.05 then, at most, by simulation."""
TITLE = "p value of a difference of {:g} or more, the larger of two one-sided"


def smallest_difference(data: Data, variable: str, given: float | None) -> float | None:
    """Return the smallest difference of interest: the given one, else the spec's; None for none.

    StoreError for one that is not above 0.
    """
    if given is None:
        known = spec_of(data).get("analysis", {}).get("smallest_difference_of_interest", {})
        given = known.get(variable)
    if given is not None and not given > 0:
        raise StoreError(f"equivalence: expected a difference above 0, found {given!r}")
    return given


def one_sided(estimate: Estimate, smallest: float) -> Columns:
    """Return the p values of TOST, plain and (for corrections) with what a family shares, as columns.

    p is the larger one of the two that the mean is at least `smallest`, and at most −`smallest`. NaN where
    there is no interval.
    """
    components = estimate.components
    p, p_family = [], []
    for side in (1, -1):
        distance = side * components.mean - smallest  # below 0 where the mean is smaller
        p.append(_one_side(estimate.p(side * smallest), distance))
        p_family.append(_one_side(estimate.p_family(side * smallest), distance))
    values = (np.maximum(*both) for both in (p, p_family))
    return {
        name: (p_values, "1", TITLE.format(smallest))
        for name, p_values in zip((NAME, START), values, strict=True)
    }


def add_verdict(result: xr.Dataset, smallest: float, confidence: float, words: str) -> str:
    """Add a verdict by both corrected p values; words: of the correction. Return how, in words."""
    alpha = 1 - confidence
    small, different = result[f"{NAME}_adjusted"] < alpha, result["p_adjusted"] < alpha
    verdict = np.select(
        [small & different, small, different, np.isfinite(result["p_adjusted"])],
        [f"different, but smaller than {smallest:g}", f"no difference larger than {smallest:g}", "different",
         "undecided"],
        "",
    )  # fmt: skip
    attrs = {"units": "", "long_name": f"verdict by {alpha:g} of both p values, {words}"}
    result["verdict"] = result[NAME].copy(data=verdict.astype(object)).assign_attrs(attrs)
    result.attrs["equivalence"] = smallest
    return (
        f"two one-sided tests (TOST) of a difference of {smallest:g} or more by the same intervals (p below "
        f"{alpha:g} just where the {1 - 2 * alpha:.0%} interval lies within ±{smallest:g}), {words}"
    )


def skewed_trainings(estimate: Estimate) -> str:
    """Return what is to be said where differences of trainings are skewed; "" where they are not.

    Shares alone: a training that fails now and then is seldom among five or ten, and docs/honesty.md has how
    often a difference on the border is called smaller then.
    """
    most = np.abs(_skewness(estimate)).max(initial=0.0)
    if most <= SKEWED:
        return ""
    return (
        f"; differences of trainings are skewed ({most:.1f}): where trainings fail now and then, a "
        f"difference on the border is called smaller in up to {SIZE:.0%} of studies"
    )


def _skewness(estimate: Estimate) -> Floats:
    """Return the skewness of the trainings' differences, 0 for fewer than `FEWEST` of them."""
    deviations, n = estimate.components.seed, estimate.components.seeds
    with np.errstate(divide="ignore", invalid="ignore"):
        moments = [(deviations**power).sum(axis=0) / n for power in (2, 3)]
        skewness = moments[1] / moments[0] ** 1.5
    return np.where((n >= FEWEST) & np.isfinite(skewness), skewness, 0.0)


def _one_side(p: Floats, distance: Any) -> Floats:
    """Return the one-sided p value of what is `distance` above its bound, from the two-sided one."""
    return np.asarray(np.where(distance < 0, p / 2, 1 - p / 2))
