"""Whether a difference is too small to matter: two one-sided tests (TOST; Schuirmann, 1987).

They turn the intervals of the one inference round, so that p is below α just where the interval with
confidence 1 − 2α lies within ± the smallest difference of interest.
"""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.components import Components, Floats
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data, spec_of
from store.analysis.proportions import Floor
from store.analysis.results import FAMILY, Columns, add_adjusted
from store.analysis.widths import moderated, plain_widths
from store.errors import StoreError

NAME = "p_equivalence"
START = "p_equivalence_family"
"""What the correction starts from; no part of a result."""
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


def one_sided(found: Components, smallest: float, family: int | None, share: bool) -> Columns:
    """Return the p values of TOST, plain and (for `add_verdict`) with what a family shares, as columns.

    p is the larger one of the two that the mean is at least `smallest`, and at most −`smallest`. NaN where
    there is no interval.
    """
    plain = plain_widths(found.variances, found.seeds, found.df_examples)
    shared, used = moderated(found, family) if family is not None else (None, np.zeros((), bool))
    floor = Floor.of(found) if share else None
    still = (plain.variances == 0).all(axis=0) & (found.mean != 0) & (floor is None)
    p, p_family = [], []
    for side in (1, -1):
        distance = side * found.mean - smallest  # below 0 where the mean is smaller
        own = plain.p(distance)
        moderate = np.where(used, shared.p(distance), own) if shared is not None else own
        at_least = np.zeros(found.mean.shape)
        if floor is not None:
            beyond = side * floor.centre - smallest
            at_least = _one_side(floor.p(side * smallest), beyond)
        p.append(np.maximum(_one_side(own, distance), at_least))
        p_family.append(np.maximum(_one_side(moderate, distance), at_least))
    values = (np.where(still, np.nan, np.maximum(*both)) for both in (p, p_family))
    return {name: (own, "1", TITLE.format(smallest)) for name, own in zip((NAME, START), values, strict=True)}


def add_verdict(result: xr.Dataset, smallest: float, correction: Correction, confidence: float) -> str:
    """Add the corrected p values and, by these and `p_adjusted`, a verdict; return how, in words."""
    result[FAMILY] = result[START]
    del result[START]
    words = add_adjusted(result, NAME, correction)
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


def _one_side(p: Floats, distance: Any) -> Floats:
    """Return the one-sided p value of what is `distance` above its bound, from the two-sided one."""
    return np.asarray(np.where(distance < 0, p / 2, 1 - p / 2))
