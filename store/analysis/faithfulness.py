"""Do labels follow the explanations before them? Effects of others in the place of the model's own.

An explanation that has led to its label moves the label when another one stands there: Turpin et al.
(arXiv 2305.04388), Lanham et al. (arXiv 2307.13702), Atanasova et al. (2023, ACL).
"""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from specs.common.spelling import hint
from store.analysis.changes import BOUNDS, summary
from store.analysis.components import Components, Floats
from store.analysis.counterfactuals import outcome_behind
from store.analysis.families import STARTS, add_adjusted, together
from store.analysis.inference import CONFIDENCE, Estimate, among
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data, by_condition, levels, stage_nodes
from store.analysis.proportions import share_bounds
from store.analysis.results import (
    SCORE,
    SKEWED,
    UNEVEN,
    grouped,
    intervals,
    most_seeds,
    seeds_of,
    units,
)
from store.analysis.runs import by_seed, check_values, example_groups, standardised
from store.errors import StoreError

GENERATED = "generated"
"""The model's own explanation, as beside the kinds of others."""
OUTCOMES = {
    "log_odds": ("nat", "log-odds of the true label among the labels"),
    "argued_log_odds": ("nat", "log-odds of the label that the explanation argues for"),
    "correct": ("1", "accuracy"),
    "flipped": ("1", "share of labels other than behind the model's own explanation"),
    "followed": ("1", "share of labels that are those that the explanation argues for"),
}
SHARES = ("correct", "flipped", "followed")
READ = (
    "prediction", "label_logprob", "counterfactual_prediction", "counterfactual_logprob", "argued_label",
)  # fmt: skip


def counterfactual_effects(
    data: Data,
    outcome: str = "log_odds",
    against: str = GENERATED,
    *,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return what explanations in the place of the model's own do to its labels, by kind of explanation.

    Differences are paired by example and cell: the outcome behind a kind of explanation less that behind
    `against`, of which the label that is argued for is that of the former.

    Args:
        outcome: log_odds (of the true label), argued_log_odds (of the label of the example that the
            explanation is of), correct, flipped (the label is another than behind the model's own one;
            against that it is a share, with its interval and no p value), followed (the label is the one
            that is argued for).
        against: "generated", the model's own explanation, or another kind: "agreeing" beside "contradicting"
            tells the label that is argued for from the exchange alone.

    Returns:
        Result, by (condition, counterfactual): `effect`, `low`, `high`, `simultaneous_low`,
            `simultaneous_high`, `p_value` (two-sided, seeds and examples random), `p_adjusted` (corrected
            over all kinds and conditions), `seeds`, `examples`, `groups`, `missing`.

    Raises:
        StoreError: for unknown names, and where no cell has counterfactuals.
    """
    measured, uneven = [], False
    for condition, cells in _conditions(data):
        values = _outcome(cells, outcome)
        kinds = [str(kind) for kind in cells["counterfactual"].values]
        if against not in (GENERATED, *kinds):
            raise StoreError(f"no explanation {against!r}{hint(against, (GENERATED, *kinds))}")
        compared = [kind for kind in kinds if kind != against]
        behind = values.sel(against=against, counterfactual=compared).values
        difference = values.sel(against="itself", counterfactual=compared).values - behind
        names = cells["counterfactual"].sel(counterfactual=compared)
        like = xr.DataArray(difference[0, 0], {"counterfactual": names.variable}, ("counterfactual",))
        runs = by_seed(difference, cells.indexes["cell"])
        components = Components.of(runs.values, example_groups(cells))
        check_values(components.mean, outcome)
        within = (-1.0, 1.0) if outcome in SHARES else (-np.inf, np.inf)
        estimate = Estimate.of(components, share=outcome in SHARES, within=within)
        measured.append((estimate, standardised(components, runs.spread), like, condition))
        uneven |= runs.uneven
    known = among([estimate for estimate, *_ in measured])
    divided = together(
        [estimate.p_family() for estimate in known], "contrast", None, correction, 1 - confidence
    )
    parts = [
        _summary(estimate, size, like, confidence, by, share=outcome == "flipped" and against == GENERATED)
        .rename(difference="effect")
        .expand_dims(condition=[condition])
        for estimate, (_, size, like, condition), by in zip(known, measured, divided, strict=True)
    ]
    result = xr.concat(parts, "condition", join="outer")
    units_, title = OUTCOMES[outcome]
    result["effect"].attrs = {"units": units_, "long_name": f"change in {title}"}
    for name in BOUNDS:
        result[name].attrs = {"units": units_, "long_name": name.replace("_", " ")}
    words = add_adjusted(result, "p_value", correction, "explanations", axis="counterfactual")
    result.attrs = {
        "outcome": outcome,
        "against": against,
        "method": f"Changes in {title} behind other explanations, against the same models behind "
        f"{'their own' if against == GENERATED else against} ones, paired by example and cell; mean over "
        f"{units(result)} and {seeds_of(result)}{UNEVEN * uneven}, "
        f"{intervals(result, confidence, grouped(result), withheld=True)}"
        f"{SCORE if outcome in SHARES else SKEWED}; two-sided p values by the same intervals, {words}.",
    }
    most_seeds(result, "condition")
    return result


def _summary(
    estimate: Estimate,
    size: Floats,
    like: xr.DataArray,
    confidence: float,
    divided: Floats | None,
    *,
    share: bool,
) -> xr.Dataset:
    """Return what `summary` gives; a share, which is no difference, with Wilson's interval and no test."""
    result = summary(estimate, size, like, confidence, divided)
    if share:
        low, high = share_bounds(estimate.components, confidence)
        for names, values in ((("low", "simultaneous_low"), low), (("high", "simultaneous_high"), high)):
            for name in names:
                result[name].values[:] = values
        for name in ("p_value", STARTS):
            result[name].values[:] = np.nan
    return result


def _conditions(data: Data) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the cells of each condition that has counterfactuals."""
    nodes = [
        by_condition(node)
        for node in stage_nodes(data, "evaluate").values()
        if all(name in node.data_vars for name in READ)
    ]
    if not nodes:
        raise StoreError(
            "no complete cell has labels behind other explanations: evaluate.counterfactuals asks for them"
        )
    for node in nodes:
        for condition in levels(node, "condition"):
            chosen = node.indexes["cell"].get_level_values("condition") == condition
            yield str(condition), node[list(READ)].isel(cell=np.flatnonzero(chosen))


def _outcome(cells: xr.Dataset, outcome: str) -> xr.DataArray:
    """Return an outcome as [cell, example, counterfactual, against].

    Behind each kind itself, behind the model's own explanation and behind each other kind, all of the label
    that the first argues for.
    """
    if outcome not in OUTCOMES:
        raise StoreError(f"no outcome {outcome!r}{hint(outcome, OUTCOMES)}")
    kinds = [str(kind) for kind in cells["counterfactual"].values]
    sides = {
        "itself": ("counterfactual_prediction", "counterfactual_logprob", None),
        GENERATED: ("prediction", "label_logprob", None),
        **{kind: ("counterfactual_prediction", "counterfactual_logprob", kind) for kind in kinds},
    }
    columns = [
        outcome_behind(cells, outcome, *(_at(cells[name], kind) for name in names))
        for *names, kind in sides.values()
    ]
    like = cells["counterfactual_prediction"]
    stacked = xr.concat([column.broadcast_like(like) for column in columns], "against")
    return stacked.assign_coords(against=list(sides)).transpose(
        "cell", "example", "counterfactual", "against"
    )


def _at(values: xr.DataArray, kind: str | None) -> xr.DataArray:
    return values if kind is None else values.sel(counterfactual=kind, drop=True)
