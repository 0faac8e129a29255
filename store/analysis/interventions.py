"""What interventions change: effects by layer, and how much of a difference runs through a set of layers."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import xarray as xr
from attrs import frozen
from numpy.typing import NDArray

from specs.common.spelling import hint
from store.analysis.changes import BOUNDS, summary
from store.analysis.components import Components, Floats
from store.analysis.families import Family, add_adjusted, together
from store.analysis.inference import CONFIDENCE, Estimate, among
from store.analysis.intervention_outcomes import OUTCOMES, SCALARS, check_outcome, outcome_of
from store.analysis.monitoring import Looks, Monitoring
from store.analysis.multiplicity import Correction
from store.analysis.nodes import (
    Data,
    by_condition,
    levels,
    stage_nodes,
)
from store.analysis.ratios import ratio_interval
from store.analysis.results import (
    EXAMPLES,
    GROUPS,
    MISSING,
    SCORE,
    SEEDS,
    SKEWED,
    UNEVEN,
    grouped,
    intervals,
    labelled,
    most_seeds,
    seeds_of,
    units,
)
from store.analysis.runs import by_seed, example_groups, standardised
from store.analysis.value_ranges import SHARES, change_range
from store.errors import StoreError

UNCHANGED, SOURCE = "none", "source"
"""Entries that are no interventions: the model as it is, and those that others take from."""
DESCRIBED = (
    "first", "last", "source", "head", "position", "stream", "receiver", "strength", "direction", "unchanged",
)  # fmt: skip
"""Coordinates of changes: those that all have, and those that some have."""

_REFERENCES = {
    "unchanged": "the same models unchanged",
    "random": "the mean of the same models with the random directions drawn",
}
_TAKEN = "goes when what is taken is put in"
_ADDED = "is there when its direction is added to the latter"

OUTER: Any = {
    "join": "outer",
    "coords": "different",
    "compat": "equals",
}  # conditions have changes of their own


@frozen
class Sweep:
    """How the changes of an intervention are set out: where each stands among the layers, and its line."""

    axis: str
    place: Floats
    spans: NDArray[np.intp]
    """Layers from the lowest to the highest changed one; all 0 where sets grow, for they are one line."""

    @property
    def lines(self) -> list[str]:
        """The line of each change, by its name."""
        names = {0: "growing sets", 1: "single layers"}
        return [names.get(span, f"{span} layers") for span in self.spans.tolist()]


def sweep_of(changed: xr.Dataset) -> Sweep:
    """Set out changes by their coordinates `first` and `last`.

    Sets that grow from one end stand at the end that moves; all others at their middle, by their span.
    """
    first, last = (changed[name].values.astype(int) for name in ("first", "last"))
    count = len(first)
    for fixed, moving, axis in (
        (first, last, "changed up to layer"),
        (last, first, "changed from layer"),
    ):
        if count > 1 and len(set(fixed)) == 1 and len(set(moving)) == count:
            return Sweep(axis, moving.astype(float), np.zeros(count, int))
    axis = "changed layer" if (first == last).all() else "changed layers (middle)"
    return Sweep(axis, (first + last) / 2, last - first + 1)


def of_condition(result: xr.Dataset, condition: str) -> xr.Dataset:
    """Return the changes of one condition from a result in which others may have had others."""
    condition_part = result.sel(condition=condition)
    return condition_part.isel(intervention=np.isfinite(condition_part["first"].values))


def entries(data: Data) -> list[str]:
    """Return the names of the interventions that were done."""
    nodes = stage_nodes(data, "intervene").values()
    known = (str(name) for node in nodes for name in node["entry"].values)
    return [name for name in dict.fromkeys(known) if name not in (UNCHANGED, SOURCE)]


def intervention_effects(
    data: Data,
    entry: str,
    outcome: str = "correct",
    *,
    direction: str | None = None,
    reference: Literal["unchanged", "random"] = "unchanged",
    correction: Correction = "holm",
    family: Family = "contrast",
    looks: Looks = None,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return what each change of an intervention does to an outcome, against the unchanged model.

    Differences are paired by example and cell. What is added to a donor's streams is held against the donor.

    Args:
        entry: an intervention of the spec, by name.
        outcome: correct, log_odds or probability (of the true label among the labels), logit_difference (of
            the true label and that of the example taken from, where it is another one) or entropy (of the
            lens, by layer).
        direction: of an intervention that adds directions, the changes of this one alone: "mean difference",
            "random 1", ….
        reference: what changes are held against: the model that they change, or, of a direction that is
            added, the mean of all random ones in its place.
        looks: as in `change`.

    Returns:
        Result, by (condition, intervention[, layer]): `effect`, `low`, `high`, `simultaneous_low`,
            `simultaneous_high`, `p_value` (two-sided, seeds and examples random), `p_adjusted` (corrected
            over all changes, layers and conditions; with family="layers" over the changes of each condition
            and layer), `seeds`, `examples`, `groups`, `missing`; `first`, `last` (layers), `source`, `head`
            and, where there are such, `position`, `stream`, `receiver`, `strength`, `direction` and
            `unchanged` (the run that is changed) are coordinates of `intervention`.

    Raises:
        StoreError: for unknown names.
    """
    measured, uneven = [], False
    monitoring = Monitoring.of(looks)
    share = outcome in SHARES and reference == "unchanged"  # a mean of several is neither 0 nor 1
    options: Any = {"share": share, "bounded": outcome in SHARES and not share}
    options |= {"within": change_range(outcome), "monitoring": monitoring}
    for condition, cells_of in _conditions(data, entry):
        chosen = _chosen(cells_of, entry, direction)
        changed = cells_of.isel(intervention=chosen)
        values = outcome_of(cells_of, entry, outcome)
        if reference == "random":
            without = np.stack([values[:, :, draws].mean(axis=2) for draws in _draws(cells_of, chosen)], 2)
        else:
            without = values[:, :, [cells_of.get_index("intervention").get_loc(_unchanged(changed))]]
        difference = np.take(values, chosen, axis=2) - without
        like = xr.DataArray(difference[0, 0], coords=_axes(changed, outcome), dims=_dims(outcome))
        runs = by_seed(difference, cells_of.indexes["cell"])
        estimate = Components.of(runs.values, example_groups(cells_of))
        own_estimate = Estimate.of(estimate, 0, **options)
        measured.append((own_estimate, standardised(estimate, runs.spread), like, changed, condition))
        uneven |= runs.uneven
    known = among([estimate for estimate, *_ in measured])
    measured = [(estimate, *rest[1:]) for estimate, rest in zip(known, measured, strict=True)]
    starts = [estimate.p_family() for estimate in known]
    divided = together(starts, family, 0, correction, 1 - confidence)
    parts = [
        summary(estimate, size, like, confidence, by)
        .rename(difference="effect")
        .assign_coords(_described(changed))
        .expand_dims(condition=[condition])
        for (estimate, size, like, changed, condition), by in zip(measured, divided, strict=True)
    ]
    result = xr.concat(parts, "condition", **OUTER)
    units_, title = OUTCOMES[outcome]
    result["effect"].attrs = {"units": units_, "long_name": f"change in {title}"}
    for name in BOUNDS:
        words = f"{name.rpartition('_')[2].replace('low', 'lower').replace('high', 'upper')} bound"
        simultaneous = ", simultaneous" if name.startswith("simultaneous") else ""
        result[name].attrs = {"units": units_, "long_name": f"{words}{simultaneous}"}
    words = add_adjusted(result, "p_value", correction, entry, family=family, axis="intervention")
    result.attrs = {
        "entry": entry,
        "outcome": outcome,
        "method": f"Changes in {title} by the intervention {entry}, against {_REFERENCES[reference]}, "
        f"paired by example and cell; mean over {units(result)} and {seeds_of(result)}{UNEVEN * uneven}, "
        f"{intervals(result, confidence, grouped(result), withheld=True)}"
        f"{SCORE if share else SKEWED}; two-sided p values by the same intervals, {words}"
        f"{monitoring.described(result['seeds'].values)}.",
    }
    most_seeds(result, "condition")
    return result


def mediation(
    data: Data,
    entry: str,
    outcome: str = "correct",
    *,
    direction: str | None = None,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return how much of the difference between a run and that taken from runs through each set of layers.

    The total is the unchanged model's outcome less that of the model taken from, on the same inputs, or of
    the run on the other input; the part that a set of layers carries is the unchanged outcome less that with
    what is taken put in there. So 0 is the unchanged run, and 1 the other one: a normalised metric of
    activation patching (Heimersheim and Nanda, 2024, arXiv 2404.15255), its means taken before the ratio.
    Where a direction is added to the donor, 0 is the donor and 1 the cell's own model.

    Args:
        entry: a mask, graft, patch, path or steer, or a resampling.
        outcome: as in `intervention_effects`, but for entropy.
        direction: as in `intervention_effects`.

    Returns:
        Result, by (condition, intervention): `total`, `part`, `share` = part / total and its bounds `low` and
            `high`, Fieller's (1954) over seeds and examples. Where the t test of the total does not reject 0
            there may be nothing to share out: `share` is NaN, the bounds −inf and inf. Where a share of
            `correct` is the same in every example, it has no bounds (NaN). Shares of overlapping or
            interacting sets need not add up to 1.

    Raises:
        StoreError: where the intervention takes from no other model.
    """
    check_outcome(outcome)
    if outcome not in SCALARS:
        raise StoreError(f"mediation: expected one of {', '.join(SCALARS)}, found {outcome}")
    parts, what = [], _TAKEN
    for condition, cells_of in _conditions(data, entry):
        chosen = _chosen(cells_of, entry, direction)
        changed = cells_of.isel(intervention=chosen)
        values = outcome_of(cells_of, entry, outcome)
        names = cells_of.get_index("intervention")
        source = str(changed["source"].values[0])
        if not source:
            raise StoreError(f"{entry}: takes from no other model, so there is no difference to share out")
        start, end = UNCHANGED, f"all of {source}"
        if _unchanged(changed) == end:
            start, end, what = end, start, _ADDED
        unchanged = values[:, :, [names.get_loc(start)]]
        total = unchanged - values[:, :, [names.get_loc(end)]]
        part = unchanged - values[:, :, chosen]
        valid = np.isfinite(total) & np.isfinite(part)
        sides = [by_seed(np.where(valid, x, np.nan), cells_of.indexes["cell"]).values for x in (total, part)]
        columns = _shares(sides[0], sides[1], example_groups(cells_of), outcome, confidence)
        like = xr.DataArray(columns["part"][0], coords=_axes(changed, outcome), dims=_dims(outcome))
        mediated = labelled(like, columns).assign_coords(_described(changed))
        parts.append(mediated.expand_dims(condition=[condition]))
    result = xr.concat(parts, "condition", **OUTER)
    result.attrs = {
        "entry": entry,
        "outcome": outcome,
        "method": f"Share of the difference in {OUTCOMES[outcome][1]} between each model's run and the one "
        f"that {entry} takes from that {what}; "
        f"{units(result)}, {seeds_of(result)}, {intervals(result, confidence, grouped(result))}, Fieller's "
        "for a ratio of means; where the test of the whole difference does not reject 0, there is no share "
        "and its interval has no bounds.",
    }
    most_seeds(result, "condition")
    return result


def _shares(
    total: Floats, part: Floats, groups: NDArray[Any] | None, outcome: str, confidence: float
) -> dict[str, tuple[Any, str, str]]:
    whole, carried = (Components.of(values, groups).within(change_range(outcome)) for values in (total, part))
    low, high = ratio_interval(part, total, groups, confidence=confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.isfinite(low), carried.mean / whole.mean, np.nan)
    if outcome in SHARES:  # that some examples agree does not show that all would
        still = (Components.of(part - share * total, groups).variances[1] == 0) & np.isfinite(share)
        low, high = (np.where(still, np.nan, bound) for bound in (low, high))
    units_ = OUTCOMES[outcome][0]
    return {
        "total": (whole.mean, units_, "difference between the model and the one taken from"),
        "part": (carried.mean, units_, "difference that goes with the changed layers"),
        "share": (share, "1", "share of the difference"),
        "low": (low, "1", "lower bound of the share"),
        "high": (high, "1", "upper bound of the share"),
        "seeds": (whole.seeds, "1", SEEDS),
        "examples": (whole.examples, "1", EXAMPLES),
        "groups": (whole.groups, "1", GROUPS),
        "missing": (whole.missing, "1", MISSING),
    }


def _conditions(data: Data, entry: str) -> Iterator[tuple[str, xr.Dataset]]:
    """Give the cells of each condition that has the intervention."""
    if entry not in (known := entries(data)):
        raise StoreError(f"no intervention {entry!r}{hint(entry, known)}")
    for node in stage_nodes(data, "intervene").values():
        if entry in node["entry"].values:
            dataset = by_condition(node)
            for condition in levels(dataset, "condition"):
                chosen = dataset.indexes["cell"].get_level_values("condition") == condition
                yield str(condition), dataset.isel(cell=chosen)


def _chosen(cells: xr.Dataset, entry: str, direction: str | None) -> NDArray[np.intp]:
    """Return the places of an intervention's changes, of one direction alone where it is given."""
    chosen = np.flatnonzero(cells["entry"].values == entry)
    if direction is None:
        return chosen
    known = cells["direction"].values[chosen].tolist() if "direction" in cells.coords else []
    if not any(known):
        raise StoreError(f"{entry}: adds no directions; expected an intervention of the kind steer")
    if direction not in known:
        raise StoreError(f"{entry}: no direction {direction!r}{hint(direction, dict.fromkeys(known))}")
    return chosen[[one == direction for one in known]]


def _draws(cells: xr.Dataset, chosen: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return, for each of some changes, the places of those that add random directions in its place."""
    if "direction" not in cells.coords:
        raise StoreError("reference: found random, but no direction is added; expected unchanged")
    like = ("entry", "first", "last", "strength", "position")
    columns = [cells[name].values for name in like if name in cells.coords]
    random = np.char.startswith(cells["direction"].values.astype(str), "random ")
    found = [
        np.flatnonzero(random & np.all([column == column[place] for column in columns], axis=0))
        for place in chosen
    ]
    if not all(len(draws) for draws in found):
        raise StoreError("reference: no random directions were drawn; expected random_directions above 0")
    return found


def _unchanged(changed: xr.Dataset) -> str:
    """Return the name of the run that an intervention changes."""
    return str(changed["unchanged"].values[0]) if "unchanged" in changed.coords else UNCHANGED


def _dims(outcome: str) -> tuple[str, ...]:
    return ("intervention", "layer") if outcome == "entropy" else ("intervention",)


def _axes(changed: xr.Dataset, outcome: str) -> dict[str, Any]:
    return {dim: changed[dim].variable for dim in _dims(outcome)}


def _described(changed: xr.Dataset) -> dict[str, Any]:
    return {name: changed[name].variable for name in DESCRIBED if name in changed.coords}
