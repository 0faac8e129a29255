"""What a spec asked of its results, when it was said, and how often they were looked at: in sentences."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.changes import stage_of
from store.analysis.declared import DeclaredTest, looks_of
from store.analysis.monitoring import Monitoring
from store.analysis.results import count
from store.backend.records import Json
from store.ledger.history import NOT_RECORDED, History

FAMILIES = {
    "contrast": "each contrast in each outcome",
    "outcome": "all contrasts in each outcome",
    "spec": "all contrasts in all outcomes",
}


WORDS = (
    "Confirmatory: declared, in the primary outcome, before there were results. Exploratory: all else; its p "
    "values suggest what a next study may test."
)


ONE_SEED = (
    "Where there is one seed, p values and intervals speak of these trained models alone: how much another "
    "training would differ is not in them."
)


def notes(
    analysis: Json, history: History, asked: list[tuple[DeclaredTest, xr.Dataset]], cells: tuple[int, int]
) -> list[str]:
    """Return how p values and intervals are to be read, by the spec and by the history.

    cells: how many are complete, and how many there are to be.
    """
    family = FAMILIES.get(analysis.get("family", "contrast"), "")
    lines = [
        *_unfinished(*cells),
        f"p values are corrected over the levels, positions and layers of {family}; details by themselves.",
    ]
    if any((result["seeds"].values == 1).any() for _, result in asked):
        lines.append(ONE_SEED)
    monitoring = Monitoring.of(looks_of(analysis))
    if monitoring.fixed:
        lines.append("Monitoring: fixed. p values and intervals hold for a single look, with all seeds.")
        lines += _earlier(history, asked)
    else:
        seeds = np.unique(np.concatenate([np.ravel(result["seeds"].values) for _, result in asked]))
        kind = "anytime" if monitoring.anytime else "spending"
        words = monitoring.described(seeds).removeprefix("; ")
        lines.append(f"Monitoring: {kind}. {words[:1].upper()}{words[1:]}.")
    if not history.records:
        lines.append(
            f"When contrasts were declared, and looks before this one: {NOT_RECORDED} in this store."
        )
    else:
        lines.append(WORDS)
    return [*lines, *(f"Declared otherwise on {change}." for change in history.changes())]


def cells_of(experiment: xr.DataTree) -> tuple[int, int]:
    """Return how many cells of an experiment are complete, and how many there are to be."""
    return experiment.attrs["cells_complete"], experiment.attrs["cells_total"]


def one_condition(complete: int, total: int) -> str:
    """Say why nothing can be compared, where so many of an experiment's cells are complete."""
    if complete < total:
        return "only one condition has complete cells yet, so there is nothing to compare it with"
    return "there is only one condition, so there is nothing to compare it with"


def _unfinished(complete: int, total: int) -> list[str]:
    if complete == total:
        return []
    lack = total - complete
    return [
        f"Not finished: {lack} of {count(total, 'cell')} {'lacks' if lack == 1 else 'lack'} results, so all "
        "numbers may change. Testing now and again when all are there is looking twice."
    ]


def standing(history: History, question: DeclaredTest, level: Any) -> Json:
    """Return whether a level's contrast in an outcome is confirmatory, and why."""
    contrast, outcome = question.contrast, question.outcome
    standing_now = history.standing(contrast.factor, contrast.baseline, level, outcome, stage_of(outcome))
    if question.part.detailed and standing_now.mark == "confirmatory":
        return {"standing": "exploratory", "why": "a detail of the declared contrast"}
    return {"standing": standing_now.mark, "why": standing_now.why}


def shown(asked: list[DeclaredTest]) -> list[tuple[str, Any]]:
    """Return factor and baseline of the contrasts that are shown."""
    return list(dict.fromkeys((question.contrast.factor, question.contrast.baseline) for question in asked))


def _earlier(history: History, asked: list[tuple[DeclaredTest, xr.Dataset]]) -> list[str]:
    """Return a warning for each contrast that was looked at with fewer seeds."""
    most: dict[str, int] = {}
    for question, result in asked:
        factor = question.contrast.factor
        most[factor] = max(most.get(factor, 0), int(result["seeds"].max()))
    lines = []
    for factor, seeds in most.items():
        if before := history.looked(factor, seeds):
            *first, last = map(str, before)
            numbers = f"{', '.join(first)} and {last}" if first else last
            lines.append(
                f"{factor}: looked at with {numbers} seeds before; "
                "the error rate of 5 % does not hold over looks."
            )
    return lines
