"""Every contrast of a spec: overall, and within each combination of the other factors' levels."""

from collections.abc import Iterator
from typing import Any

import xarray as xr
from attrs import frozen

from store.analysis import change
from store.analysis.nodes import by_condition, check_factor, factors, levels, stage_nodes
from store.analysis.pairs import find_pairs
from store.errors import StoreError
from store.files import Json
from store.report.encode import rounded
from store.report.roles import at, other_levels

OUTCOMES = {
    "correct": "accuracy",
    "absolute_error": "absolute error",
    "generated_correct": "accuracy, generated",
}
MOST_WITHIN = 100
COLUMNS = ("difference", "low", "high", "p_value", "p_adjusted", "effect_size", "examples")


@frozen
class Part:
    """Cells in which a contrast is made."""

    cells: xr.Dataset
    within: dict[str, str]
    """Other factors held at one level."""
    over: tuple[str, ...]
    """Other factors averaged over."""


def contrasts(node: xr.DataTree, spec: Json, places: dict[str, int]) -> Json:
    """Return the changes of each contrast in outcomes and, by layer and position, in lens entropy."""
    if "summary" not in node.children:
        raise StoreError("no cell is complete yet")
    summary = next(iter(stage_nodes(node, "summary").values()))
    declared = [(own["factor"], own.get("baseline")) for own in spec.get("contrasts", [])]
    chosen = declared or [(name, None) for name in factors(summary) if len(levels(summary, name)) > 1]
    if not chosen:
        raise StoreError("there is only one condition, so nothing can be held against it")
    rows: dict[Any, Json] = {}
    reasons = []
    for factor, baseline in chosen:
        try:
            check_factor(summary, factor)
            for stage in (stage for stage in ("evaluate", "probe") if stage in node.children):
                for whole in stage_nodes(node, stage).values():
                    _add(rows, whole, summary, factor, baseline, places)
        except StoreError as error:
            reasons.append(str(error))
    if not rows:
        raise StoreError("; ".join(dict.fromkeys(reasons)) or "no contrast can be made")
    within = [row for row in rows.values() if row["within"]]
    left_out = {id(row) for row in within[MOST_WITHIN:]}
    kept = [row for row in rows.values() if id(row) not in left_out]
    return {"declared": bool(declared), "rows": kept, "left_out": len(left_out), "reasons": reasons}


def _add(
    rows: dict[Any, Json],
    whole: xr.Dataset,
    summary: xr.Dataset,
    factor: str,
    baseline: Any,
    places: dict[str, int],
) -> None:
    base = _level(summary, factor, baseline)
    for part in _parts(whole, summary, factor):
        try:
            pairs = find_pairs(part.cells, factor, base)
        except StoreError:  # a contrast need not exist in every part of the matrix
            continue
        words = by_condition(part.cells).indexes["cell"].get_level_values("condition")
        found = _changes(part.cells, factor, base)
        for number, level in enumerate(pairs.levels):
            there = pairs.condition[number] >= 0
            if not there.any():
                continue
            sides = [
                sorted({places[str(words[cell])] for cell in own[number][there]})
                for own in (pairs.condition, pairs.reference)
            ]
            key = (factor, str(level), tuple(part.within.items()), part.over)
            row = rows.setdefault(
                key,
                {
                    "factor": factor,
                    "level": str(level),
                    "baseline": str(pairs.baseline),
                    "within": part.within,
                    "over": list(part.over),
                    "conditions": sides[0],
                    "references": sides[1],
                    "outcomes": {},
                },
            )
            for name, result in found.items():
                own = result.sel(level=level)
                if name == "entropy":
                    row["entropy"] = _by_layer(own)
                else:
                    row["outcomes"][name] = _numbers(own) | {"title": OUTCOMES[name], **_notes(own)}


def _parts(whole: xr.Dataset, summary: xr.Dataset, factor: str) -> Iterator[Part]:
    """Yield the cells as a whole and, where there are several, each combination of the other factors."""
    varying = [name for name in factors(summary) if name != factor and len(levels(summary, name)) > 1]
    held = {name: str(levels(whole, name)[0]) for name in varying if len(levels(whole, name)) == 1}
    yield Part(whole, held, tuple(name for name in varying if name not in held))
    combinations = other_levels(whole, [factor])
    if len(combinations) > 1:
        for own in combinations:
            yield Part(at(whole, own), {name: str(own[name]) for name in varying}, ())


def _changes(cells: xr.Dataset, factor: str, baseline: Any) -> dict[str, xr.Dataset]:
    """Return the changes in each variable that the cells have."""
    found = {}
    for name in (*OUTCOMES, "entropy"):
        if (name in OUTCOMES) == ("gold" in cells.coords and "layer" not in cells.dims):
            try:
                found[name] = change(cells, name, factor, baseline)
            except StoreError:  # not every study scores, generates and rates by numbers
                continue
    return found


def _level(summary: xr.Dataset, factor: str, baseline: Any) -> Any:
    """Return the level that a spec means: there it may be a number, here text, or the reverse."""
    return next((own for own in levels(summary, factor) if str(own) == str(baseline)), baseline)


def _numbers(own: xr.Dataset) -> Json:
    return {name: rounded(own[name]) for name in COLUMNS}


def _by_layer(own: xr.Dataset) -> Json:
    """Return numbers as [position][layer]."""
    turned = own.transpose("position", "layer")
    return {
        "layer": [int(layer) for layer in own["layer"].values],
        "position": [str(position) for position in own["position"].values],
        **{name: rounded(turned[name]) for name in ("difference", "low", "high", "p_adjusted")},
        **_notes(own),
    }


def _notes(own: xr.Dataset) -> Json:
    return {"seeds": int(own["seeds"]), "method": str(own.attrs.get("method", ""))}
