"""Every contrast of a spec: overall, and within each combination of the other factors' levels."""

from collections.abc import Iterator
from typing import Any

import xarray as xr

from store.analysis.declared import DeclaredTest, Part, answer, ask, chosen_contrasts, outcomes, parts
from store.analysis.nodes import by_condition, levels, stage_nodes
from store.analysis.pairs import Pairs, find_pairs
from store.backend.records import Json
from store.errors import FAULTS, StoreError
from store.ledger.history import History
from store.ledger.levels import level_text
from store.report.asked import cells_of, notes, one_condition, standing
from store.report.encode import rounded
from store.report.stages import Places

TITLES = {
    "correct": "accuracy",
    "absolute_error": "absolute error",
    "generated_correct": "accuracy, generated",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
    "entropy": "lens entropy",
}
COLUMNS = ("difference", "low", "high", "p_value", "p_adjusted", "effect_size", "examples")
Place = tuple[str, str, tuple[tuple[str, str], ...], tuple[str, ...]]
"""Factor, level, levels of other factors, and factors averaged over."""


def contrasts(node: xr.DataTree, spec: Json, places: Places, history: History) -> Json:
    """Return the changes of each contrast in outcomes, and by layer and position in statistics of layers.

    Of these: lens entropy, and what `[analysis]` names, plug-in ones too.

    With each goes whether it is confirmatory, and with all how they are to be read.
    """
    if "summary" not in node.children:
        raise StoreError("no cell is complete yet")
    summary = next(iter(stage_nodes(node, "summary").values()))
    chosen = chosen_contrasts(spec, summary)
    complete, total = cells_of(node)
    if not chosen:
        raise StoreError(one_condition(complete, total))
    rows: dict[Place, Json] = {}
    reasons: list[str] = []
    for contrast in chosen:
        reason = ""
        for outcome in outcomes(spec.get("analysis", {})):
            for part in parts(node, outcome, summary, contrast.factor):
                try:
                    known = levels(part.cells, contrast.factor)
                    pairs = find_pairs(part.cells, contrast.factor, contrast.baseline, contrast.chosen(known))
                except FAULTS:
                    raise
                except StoreError as error:  # a contrast need not exist in every part of the matrix
                    reason = str(error)
                    continue
                for level, level_row in _rows(part, pairs, places):
                    rows.setdefault(_place(contrast.factor, level, part), level_row)
        if contrast.factor not in {row["factor"] for row in rows.values()}:
            waiting = contrast.lacking(levels(summary, contrast.factor)) if complete < total else ""
            reasons.append(waiting or reason)
    if not rows:
        raise StoreError("; ".join(reasons))
    analysis = spec.get("analysis", {})
    questions = list(ask(node, spec, detailed=True))
    answers = list(zip(questions, answer(questions, analysis), strict=True))
    for question, result in answers:
        _fill(rows, question, result, history)
    kept = [row for row in rows.values() if row["outcomes"] or row["layers"]]
    left_out = len(rows) - len(kept)
    notes_said = notes(analysis, history, answers, cells_of(node)) if answers else []
    data = {"declared": chosen[0].declared, "primary": analysis.get("primary"), "notes": notes_said}
    return data | {"rows": kept, "left_out": left_out, "reasons": reasons}


def _fill(rows: dict[Place, Json], question: DeclaredTest, result: xr.Dataset, history: History) -> None:
    """Put the changes in one outcome into the rows of their levels."""
    name = question.outcome
    for level in result["level"].values:
        row = rows.get(_place(question.contrast.factor, level, question.part))
        if row is None:
            continue
        changed = result.sel(level=level)
        title = TITLES.get(name, name.replace("_", " "))
        if not changed["difference"].dims:
            numbers = _numbers(changed) | {"title": title, **_notes(changed)}
            row["outcomes"][name] = numbers | standing(history, question, level)
        elif set(changed["difference"].dims) == {"position", "layer"}:
            if name not in TITLES:
                title = str(question.part.cells[name].attrs.get("long_name") or title)
            words = {"title": title, "units": str(changed["difference"].attrs.get("units") or "1")}
            row["layers"][name] = _by_layer(changed) | words | standing(history, question, level)


def _place(factor: str, level: Any, part: Part) -> Place:
    return factor, level_text(level), tuple(part.within.items()), part.over


def _rows(part: Part, pairs: Pairs, places: Places) -> Iterator[tuple[Any, Json]]:
    """Yield each level that has pairs, with its row as yet without changes."""
    words = by_condition(part.cells).indexes["cell"].get_level_values("condition")
    for number, level in enumerate(pairs.levels):
        present = pairs.condition[number] >= 0
        if present.any():
            conditions, references = (
                sorted({places[str(words[cell])] for cell in side[number][present]})
                for side in (pairs.condition, pairs.reference)
            )
            yield (
                level,
                {
                    "factor": pairs.factor,
                    "level": level_text(level),
                    "baseline": level_text(pairs.baseline),
                    "within": part.within,
                    "over": list(part.over),
                    "conditions": conditions,
                    "references": references,
                    "outcomes": {},
                    "layers": {},
                },
            )


def _numbers(change: xr.Dataset) -> Json:
    return {name: rounded(change[name]) for name in COLUMNS} | _verdict(change)


def _by_layer(change: xr.Dataset) -> Json:
    """Return numbers as [position][layer]."""
    turned = change.transpose("position", "layer")
    return {
        "layer": [int(layer) for layer in change["layer"].values],
        "position": [str(position) for position in change["position"].values],
        **{name: rounded(turned[name]) for name in ("difference", "low", "high", "p_adjusted")},
        **_verdict(turned),
        **_notes(change),
    }


def _verdict(change: xr.Dataset) -> Json:
    """Return what is said of the smallest difference of interest, where there is one."""
    if "verdict" not in change:
        return {}
    return {
        "equivalence": change.attrs["equivalence"],
        "p_equivalence": rounded(change["p_equivalence_adjusted"]),
        "verdict": change["verdict"].values.tolist(),
    }


def _notes(change: xr.Dataset) -> Json:
    corrected = str(change["p_adjusted"].attrs["long_name"]).removeprefix("p value, two-sided, ")
    return {
        "seeds": int(change["seeds"]),
        "method": str(change.attrs.get("method", "")),
        "corrected": corrected,
    }
