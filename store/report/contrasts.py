"""Every contrast of a spec: overall, and within each combination of the other factors' levels."""

from collections.abc import Iterator
from typing import Any

import xarray as xr
from attrs import frozen

from store.analysis import change
from store.analysis.nodes import by_condition, factors, levels, stage_nodes
from store.analysis.pairs import Pairs, find_pairs
from store.errors import FAULTS, StoreError
from store.files import Json
from store.report.encode import rounded
from store.report.roles import at, baselines, other_levels
from store.report.stages import Places

OUTCOMES = {
    "correct": "accuracy",
    "absolute_error": "absolute error",
    "generated_correct": "accuracy, generated",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}
MOST_WITHIN = 100
COLUMNS = ("difference", "low", "high", "p_value", "p_adjusted", "effect_size", "examples")


Rows = dict[tuple[str, str, tuple[tuple[str, str], ...], tuple[str, ...]], Json]
"""By factor, level, levels of other factors, and factors averaged over."""


@frozen
class Part:
    """Cells in which a contrast is made."""

    cells: xr.Dataset
    within: dict[str, str]
    """Other factors held at one level."""
    over: tuple[str, ...]
    """Other factors averaged over."""


def contrasts(node: xr.DataTree, spec: Json, places: Places) -> Json:
    """Return the changes of each contrast in outcomes and, by layer and position, in lens entropy."""
    if "summary" not in node.children:
        raise StoreError("no cell is complete yet")
    summary = next(iter(stage_nodes(node, "summary").values()))
    chosen = baselines(spec, summary)
    if not chosen:
        raise StoreError("there is only one condition, so nothing can be held against it")
    smallest = spec.get("analysis", {}).get("smallest_difference_of_interest", {})
    rows: Rows = {}
    reasons: list[str] = []
    for factor, baseline in chosen:
        reason = ""
        for stage in (stage for stage in ("evaluate", "probe") if stage in node.children):
            for whole in stage_nodes(node, stage).values():
                reason = _add(rows, whole, summary, factor, baseline, places, smallest) or reason
        if factor not in {row["factor"] for row in rows.values()}:
            reasons.append(reason)
    if not rows:
        raise StoreError("; ".join(reasons))
    kept = [row for row in rows.values() if row["outcomes"] or "entropy" in row]
    left_out = len(rows) - len(kept)
    return {"declared": bool(spec.get("contrasts")), "rows": kept, "left_out": left_out, "reasons": reasons}


def _add(
    rows: Rows,
    whole: xr.Dataset,
    summary: xr.Dataset,
    factor: str,
    baseline: Any,
    places: Places,
    smallest: dict[str, float],
) -> str:
    """Add a contrast's changes to the rows; return why a part of the matrix lacks it, "" if none does."""
    reason = ""
    for part in _parts(whole, summary, factor):
        try:
            pairs = find_pairs(part.cells, factor, baseline)
        except FAULTS:
            raise
        except StoreError as error:  # a contrast need not exist in every part of the matrix
            reason = str(error)
            continue
        detailed = sum(bool(row["within"]) for row in rows.values())
        found = {}
        if not part.within or detailed < MOST_WITHIN:
            found = _changes(part.cells, factor, baseline, smallest)
        for level, own in _rows(part, pairs, places):
            row = rows.setdefault((factor, str(level), tuple(part.within.items()), part.over), own)
            for name, result in found.items():
                changed = result.sel(level=level)
                if name == "entropy":
                    row["entropy"] = _by_layer(changed)
                else:
                    row["outcomes"][name] = _numbers(changed) | {"title": OUTCOMES[name], **_notes(changed)}
    return reason


def _rows(part: Part, pairs: Pairs, places: Places) -> Iterator[tuple[Any, Json]]:
    """Yield each level that has pairs, with its row as yet without changes."""
    words = by_condition(part.cells).indexes["cell"].get_level_values("condition")
    for number, level in enumerate(pairs.levels):
        there = pairs.condition[number] >= 0
        if there.any():
            conditions, references = (
                sorted({places[str(words[cell])] for cell in own[number][there]})
                for own in (pairs.condition, pairs.reference)
            )
            yield (
                level,
                {
                    "factor": pairs.factor,
                    "level": str(level),
                    "baseline": str(pairs.baseline),
                    "within": part.within,
                    "over": list(part.over),
                    "conditions": conditions,
                    "references": references,
                    "outcomes": {},
                },
            )


def _parts(whole: xr.Dataset, summary: xr.Dataset, factor: str) -> Iterator[Part]:
    """Yield the cells as a whole and, where there are several, each combination of the other factors."""
    varying = [name for name in factors(summary) if name != factor and len(levels(summary, name)) > 1]
    held = {name: str(levels(whole, name)[0]) for name in varying if len(levels(whole, name)) == 1}
    yield Part(whole, held, tuple(name for name in varying if name not in held))
    combinations = other_levels(whole, [factor])
    if len(combinations) > 1:
        for own in combinations:
            yield Part(at(whole, own), {name: str(own[name]) for name in varying}, ())


def _changes(
    cells: xr.Dataset, factor: str, baseline: Any, smallest: dict[str, float]
) -> dict[str, xr.Dataset]:
    """Return the changes in each variable that the cells have."""
    found = {}
    for name in (*OUTCOMES, "entropy"):
        if (name in OUTCOMES) == ("gold" in cells.coords and "layer" not in cells.dims):
            try:
                found[name] = change(cells, name, factor, baseline, equivalence=smallest.get(name))
            except FAULTS:
                raise
            except StoreError:  # not every study scores, generates and rates by numbers
                continue
    return found


def _numbers(own: xr.Dataset) -> Json:
    return {name: rounded(own[name]) for name in COLUMNS} | _verdict(own)


def _by_layer(own: xr.Dataset) -> Json:
    """Return numbers as [position][layer]."""
    turned = own.transpose("position", "layer")
    return {
        "layer": [int(layer) for layer in own["layer"].values],
        "position": [str(position) for position in own["position"].values],
        **{name: rounded(turned[name]) for name in ("difference", "low", "high", "p_adjusted")},
        **_verdict(turned),
        **_notes(own),
    }


def _verdict(own: xr.Dataset) -> Json:
    """Return what is said of the smallest difference of interest, where there is one."""
    if "verdict" not in own:
        return {}
    return {
        "equivalence": own.attrs["equivalence"],
        "p_equivalence": rounded(own["p_equivalence_adjusted"]),
        "verdict": own["verdict"].values.tolist(),
    }


def _notes(own: xr.Dataset) -> Json:
    return {"seeds": int(own["seeds"]), "method": str(own.attrs.get("method", ""))}
