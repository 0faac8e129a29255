"""All contrasts of an experiment, tested and corrected together as its spec asks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from attrs import evolve, frozen

from specs.common.contrast_names import contrast_names
from specs.common.names import CORRECTED_OUTCOMES, CORRECTION_FAMILIES
from store.analysis.changes import TESTED, Changes, stage_of
from store.analysis.families import add_adjusted, put_adjusted, sharing, together
from store.analysis.inference import CONFIDENCE
from store.analysis.monitoring import Looks, Monitoring
from store.analysis.multiplicity import NAMES, Correction, adjust, check
from store.analysis.nodes import (
    Data,
    at,
    factors,
    first_lens,
    levels,
    other_levels,
    spec_of,
    spell,
    stage_nodes,
)
from store.errors import FAULTS, StoreError
from store.ledger.levels import level_text

MOST_DETAILED = 100


@frozen
class Part:
    """Cells in which a contrast is made."""

    cells: xr.Dataset
    within: dict[str, str]
    """Other factors held at one level."""
    over: tuple[str, ...]
    """Other factors averaged over."""
    detailed: bool
    """Whether this is one of several combinations of levels that lie in one whole."""


@frozen
class DeclaredContrast:
    """A factor's levels against its baseline; `levels` None: all others."""

    factor: str
    baseline: Any
    levels: tuple[str, ...] | None
    declared: bool

    def joined(self, other: "DeclaredContrast") -> "DeclaredContrast":
        """Return this contrast with another's levels, of the same factor against the same baseline."""
        if self.levels is None or other.levels is None:
            return evolve(self, levels=None)
        return evolve(self, levels=(*self.levels, *other.levels))

    def chosen(self, known: Sequence[Any]) -> list[Any] | None:
        """Return the levels to compare among those that there are."""
        if self.levels is None:
            return None
        return [seeds for seeds in known if str(seeds) in self.levels]

    def lacking(self, known: Sequence[Any]) -> str:
        """Say which side of the contrast has no cell with results, where `known` have; else ""."""
        others = [level_text(level) for level in known if level != self.baseline]
        if self.baseline not in known:
            return f"{self.factor}: no cell of {level_text(self.baseline)} has results yet"
        if self.levels is not None and not {*self.levels} & {*map(str, known)}:
            return f"{self.factor}: no cell of {', '.join(self.levels)} has results yet"
        return "" if others else f"{self.factor}: no cell of another level has results yet"


@frozen
class DeclaredTest:
    """A contrast in an outcome, in some cells."""

    contrast: DeclaredContrast
    outcome: str
    part: Part
    changes: Changes

    def family(self, kind: str) -> tuple[Any, ...]:
        """Return what names the family that this is tested in; details have families of their own."""
        families = {"outcome": (self.outcome,), "spec": ()}
        named = (self.contrast.factor, str(self.contrast.baseline), self.outcome)
        return self.part.detailed, *families.get(kind, named)


def contrasts(
    data: Data,
    analysis: Mapping[str, Any] | None = None,
    *,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
) -> xr.DataTree:
    """Return every declared contrast of an experiment in every outcome, corrected over the spec's family.

    Outcomes: correct, generated_correct, absolute_error, brier, nll, entropy, and what `[analysis]` names.
    Without declared contrasts every factor is compared with its first level. Layers are read through the
    spec's first lens.

    Args:
        analysis: what stands in place of the spec's `[analysis]`, as {"family": "spec"}: `contrast` corrects
            over the levels, positions and layers of one contrast in one outcome, `outcome` over all contrasts
            in an outcome, `spec` over all contrasts in all outcomes; `monitoring` and `looks` are heeded.

    Returns:
        nodes /FACTOR/OUTCOME as `change` gives (below it one node per test set, where there are several).

    Raises:
        StoreError: where nothing can be compared.
    """
    if analysis is not None and not isinstance(analysis, Mapping):
        raise StoreError(f"analysis: expected a table such as {{'family': 'spec'}}, found {analysis!r}")
    spec = spec_of(data)
    asked = dict(spec.get("analysis", {})) | dict(analysis or {})
    questions = list(ask(data, spec | {"analysis": asked}))
    if not questions:
        raise StoreError("no contrast has cells to compare in any outcome")
    results = answer(questions, asked, correction=correction, confidence=confidence)
    nodes: dict[str, xr.Dataset] = {}
    alone = [(question.contrast, question.outcome) for question in questions]
    asked_for = list(dict.fromkeys(question.contrast for question in questions))
    names = contrast_names([(contrast.factor, str(contrast.baseline)) for contrast in asked_for])
    name_of = dict(zip(asked_for, names, strict=True))
    for question, result in zip(questions, results, strict=True):
        path = [name_of[question.contrast], question.outcome]
        if alone.count((question.contrast, question.outcome)) > 1:
            path.append(spell(list(question.part.within), list(question.part.within.values())))
        nodes["/".join(part.replace("/", "_") for part in path)] = result
    return xr.DataTree.from_dict(nodes)


def chosen_contrasts(spec: Mapping[str, Any], summary: xr.Dataset) -> list[DeclaredContrast]:
    """Return the contrasts that a spec declares; without any, every factor against its first level."""
    asked: dict[tuple[str, str], DeclaredContrast] = {}
    for entry in spec.get("contrasts") or ():
        base = next(
            (at for at in levels(summary, entry["factor"]) if str(at) == str(entry["baseline"])), None
        )
        named = entry.get("levels")
        chosen = None if named is None else tuple(map(str, named))
        one = DeclaredContrast(entry["factor"], entry["baseline"] if base is None else base, chosen, True)
        key = one.factor, str(one.baseline)
        # Levels that are declared apart against one baseline are one contrast, and one family.
        asked[key] = asked[key].joined(one) if key in asked else one
    several = (name for name in factors(summary) if len(levels(summary, name)) > 1)
    return [*asked.values()] or [
        DeclaredContrast(name, levels(summary, name)[0], None, False) for name in several
    ]


def looks_of(analysis: Mapping[str, Any]) -> Looks:
    """Return when a spec says that results are looked at, as `change` takes it."""
    kind = analysis.get("monitoring", "fixed")
    return {"spending": analysis.get("looks", ()), "anytime": "anytime"}.get(kind)


def outcomes(analysis: Mapping[str, Any]) -> list[str]:
    """Return the outcomes that contrasts are made in."""
    named = [analysis.get("primary"), *analysis.get("smallest_difference_of_interest", {})]
    return list(dict.fromkeys([*CORRECTED_OUTCOMES, *(str(outcome) for outcome in named if outcome)]))


def ask(data: Data, spec: Mapping[str, Any], *, detailed: bool = False) -> Iterator[DeclaredTest]:
    """Yield each contrast in each outcome that the cells have; detailed: also by other factors' levels."""
    summary = next(iter(stage_nodes(data, "summary").values()))
    smallest = spec.get("analysis", {}).get("smallest_difference_of_interest", {})
    monitoring = Monitoring.of(looks_of(spec.get("analysis", {})))
    seen: set[tuple[Any, ...]] = set()
    for contrast in chosen_contrasts(spec, summary):
        for outcome in outcomes(spec.get("analysis", {})):
            for part in parts(data, outcome, summary, contrast.factor):
                place = (contrast, *part.within.items())
                if part.detailed and (not detailed or (place not in seen and len(seen) >= MOST_DETAILED)):
                    continue
                seen |= {place} if part.detailed else set()
                try:
                    chosen = contrast.chosen(levels(part.cells, contrast.factor))
                    base = contrast.baseline
                    options: Any = {"monitoring": monitoring, "smallest": smallest.get(outcome)}
                    made = Changes.of(part.cells, outcome, contrast.factor, base, chosen, **options)
                except FAULTS:
                    raise
                except StoreError:  # not every study scores, generates and rates by numbers; nor every part
                    continue
                yield DeclaredTest(contrast, outcome, part, made)


def answer(
    questions: Sequence[DeclaredTest],
    analysis: Mapping[str, Any],
    *,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
) -> list[xr.Dataset]:
    """Return the results of some questions, as `change` gives them, corrected over their families."""
    kind = analysis.get("family", "contrast")
    if kind not in CORRECTION_FAMILIES:
        raise StoreError(f"family {kind!r}: expected one of {', '.join(CORRECTION_FAMILIES)}")
    families: dict[tuple[Any, ...], list[int]] = {}
    for number, question in enumerate(questions):
        families.setdefault(question.family(kind), []).append(number)
    results: dict[int, xr.Dataset] = {}
    for members in families.values():
        asked = [questions[number] for number in members]
        results |= zip(members, _together(asked, kind, correction, confidence), strict=True)
    return [results[number] for number in range(len(questions))]


def _together(
    questions: Sequence[DeclaredTest], kind: str, correction: Correction, confidence: float
) -> list[xr.Dataset]:
    """Return the results of one family."""
    starts = [level for question in questions for level in question.changes.estimate.p_family()]
    divided = iter(together(starts, "contrast", None, correction, 1 - confidence))
    results = [
        question.changes.results(confidence, [next(divided) for _ in question.changes.size])
        for question in questions
    ]
    if len(questions) == 1:
        asked, result = questions[0], results[0]
        words, of_equivalence = (
            add_adjusted(result, name, correction, asked.contrast.factor, start=start)
            if name in result
            else ""
            for name, start in TESTED.items()
        )
        return [asked.changes.described(result, confidence, words, of_equivalence)]
    subject = f"{NAMES[check(correction)]} over all {{}} tests of {_subject(questions, kind)}"
    words, of_equivalence = (
        _adjust(results, name, start, correction, subject) for name, start in TESTED.items()
    )
    for asked, result in zip(questions, results, strict=True):
        shared = sharing("layer") if asked.changes.axis is not None and correction != "none" else ""
        asked.changes.described(result, confidence, words + shared, of_equivalence + shared)
    return results


def _adjust(results: Sequence[xr.Dataset], name: str, start: str, correction: Correction, words: str) -> str:
    """Add p values corrected over all results that have them; return the words, with the number of tests."""
    tested = [result for result in results if name in result]
    if not tested:
        return ""
    starts = [result[start].values for result in tested]
    flat = np.concatenate([values.ravel() for values in starts])
    ends = np.cumsum([values.size for values in starts])[:-1]
    words = words.format(int(np.isfinite(flat).sum()))
    for result, corrected in zip(tested, np.split(adjust(flat, 0, correction), ends), strict=True):
        put_adjusted(result, name, corrected.reshape(result[name].shape), correction, words)
        del result[start]
    return words


def _subject(questions: Sequence[DeclaredTest], kind: str) -> str:
    """Return what a family of several questions is about."""
    made = len({question.contrast for question in questions})
    named = list(dict.fromkeys(question.outcome for question in questions))
    about = questions[0].contrast.factor if made == 1 else f"{made} contrasts"
    places = len({tuple(question.part.within.items()) for question in questions})
    each = "combinations of other factors' levels" if questions[0].part.detailed else "test sets"
    within = f", {places} {each}" if places > 1 else ""
    return f"{about} in {named[0] if len(named) == 1 else f'{len(named)} outcomes'}{within}"


def parts(data: Data, outcome: str, summary: xr.Dataset, factor: str) -> Iterator[Part]:
    """Yield an outcome's cells as wholes, one per test set, and their combinations of other factors."""
    try:
        wholes = stage_nodes(data, stage_of(outcome), outcome).values()
    except FAULTS:
        raise
    except StoreError:
        return
    for whole in map(first_lens, wholes):
        varying = [name for name in factors(summary) if name != factor and len(levels(summary, name)) > 1]
        held = {name: level_text(levels(whole, name)[0]) for name in varying if len(levels(whole, name)) == 1}
        yield Part(whole, held, tuple(name for name in varying if name not in held), False)
        combinations = other_levels(whole, [factor])
        if len(combinations) > 1:
            for fixed in combinations:
                yield Part(at(whole, fixed), {name: level_text(fixed[name]) for name in varying}, (), True)
