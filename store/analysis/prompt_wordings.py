"""Results over several wordings of a test prompt, which count as draws from all that could have been asked.

What a model answers hangs on the wording (FormatSpread: Sclar et al., arXiv 2310.11324). A difference that is
to hold for other wordings has to be sure over wordings as well as over seeds and groups of examples: three
crossed random factors, or more where several factors vary the prompt.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import evolve, frozen
from numpy.typing import NDArray

from store.analysis.changes import BOUNDS, contrast, stage_of, summary
from store.analysis.components import Components, Deviations, Floats, excess
from store.analysis.families import add_adjusted, together
from store.analysis.inference import CONFIDENCE, Estimate
from store.analysis.monitoring import FIXED
from store.analysis.multiplicity import Correction
from store.analysis.nodes import (
    SEED,
    Data,
    check_factor,
    in_words,
    levels,
    numbers,
    seed_values,
    spell,
    stage_node,
)
from store.analysis.nodes import variable as variable_of
from store.analysis.proportions import Score, share_bounds
from store.analysis.results import (
    EXAMPLES,
    GROUPS,
    SEEDS,
    by_level,
    count,
    labelled,
    level_coordinate,
    most_seeds,
    seeds_of,
    units,
)
from store.analysis.runs import by_seed, check_values, example_groups, standardised
from store.analysis.skewness import skewness
from store.analysis.value_ranges import change_range, is_share, value_range
from store.analysis.widths import Widths, crossed_width
from store.errors import StoreError
from store.ledger.levels import level_text

TITLES = {
    "wording_sd": "standard deviation between wordings, noise taken out",
    "spread": "highest less lowest mean of a wording",
}
ENDS = {"lowest": "wording of the lowest mean", "highest": "wording of the highest mean"}


def wordings(
    data: Data,
    variable: str,
    random: str | Sequence[str],
    factor: str | None = None,
    baseline: Any = None,
    level: Any = None,
    *,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return means over wordings of the test prompt, or differences, that hold for other wordings, too.

    Args:
        variable: as for `change`.
        random: the factor, or factors, whose levels are wordings: draws of a random factor, like seeds.
        factor: the factor of a contrast; without one the result is of each condition.
        baseline: of the contrast, by default the first level.
        level: one or several, by default all others.

    Returns:
        Result, by (level, layer, position, …), a level being a condition (all factors but the seed and
            `random`) or a level of `factor`: `mean` or `difference` with `low` and `high`, whose width covers
            new wordings, new trainings and new examples; of differences `p_value`, `p_adjusted`,
            `simultaneous_low`, `simultaneous_high`, `effect_size`. `wording_sd`: how far wordings differ in
            it, without what seeds and examples make of that (of a difference: how far the effect hangs on the
            wording). `spread`: the highest less the lowest wording's mean, and `lowest` and `highest`, which
            wordings these are. `seeds`, `examples`, `groups`, `missing`.

    Raises:
        StoreError: for unknown names, for the seed as `random`, and where no level has two wordings or more
            with a seed in all of them; levels that lack these beside others are named in `method`.
    """
    names = [random] if isinstance(random, str) else list(random)
    if SEED in names:
        raise StoreError(
            f"random: found {SEED!r}, which is no wording; expected factors that vary the prompt"
        )
    parts, attrs = (
        _conditions(data, variable, names)
        if factor is None
        else _differences(data, variable, names, factor, baseline, level)
    )
    blocks, lacking = _complete(parts, names)
    estimated = [
        (block, Crossed.of(block, variable, factor is not None, share=attrs["share"])) for block in blocks
    ]
    starts = [crossed.estimate.p_family() for _, crossed in estimated]
    divided = together(starts, "contrast", None, correction, 1 - confidence)
    results = []
    for (block, crossed), by in zip(estimated, divided, strict=True):
        made = summary(crossed.estimate, crossed.size, block.like, confidence, by)
        if factor is None:
            made = crossed.means(block.like, confidence, share=attrs["share"])
        results.append(made.merge(crossed.spreads(block)))
    title = "condition" if factor is None else f"{factor}, against {attrs['baseline']}"
    result = by_level(results, level_coordinate([block.level for block in blocks], title))
    subject = "mean" if factor is None else "difference"
    for name in (subject, "wording_sd", "spread", *(name for name in BOUNDS if name in result)):
        long_name = TITLES.get(name, f"{subject if name == subject else name} of {in_words(variable)}")
        result[name].attrs.update(units=attrs["units"] or "1", long_name=long_name.replace("_", " "))
    result.attrs = {"random": ", ".join(names)}
    words = ""
    if factor is not None:
        corrected = add_adjusted(result, "p_value", correction, factor)
        words = f"; two-sided p values by the same intervals, {corrected}"
        result.attrs |= {"factor": factor, "baseline": str(attrs["baseline"])}
    fewest, most = (end(len(block.names) for block in blocks) for end in (min, max))
    counted = f"{fewest} to {most} wordings" if fewest < most else count(most, "wording")
    covered = ", seeds" if int(result["seeds"].max()) > 1 else ""
    alone = "" if covered else " (one seed: the variation between trainings is not covered)"
    result.attrs["method"] = (
        f"{subject.capitalize()} of {in_words(variable)} over {counted} ({', '.join(names)}), "
        f"{units(result)} and {seeds_of(result)}; {confidence:.0%} intervals over wordings{covered} and "
        f"examples as crossed random factors (the widest t interval of all and of each alone){alone}{words}"
        f"{_at_bound(result)}"
        f"{'; left out for missing wordings: ' * bool(lacking)}{', '.join(map(str, lacking))}."
    )
    most_seeds(result, "level")
    return result


def _at_bound(result: xr.Dataset) -> str:
    """Say where no variation between wordings is left."""
    at_zero = result["wording_sd"] == 0
    names = [level_text(level) for level, zero in zip(result["level"], at_zero, strict=True) if zero.any()]
    if not names:
        return ""
    return (
        f"; wording_sd is at its bound, 0, for {', '.join(names)}: wordings differ no more than seeds and "
        "examples alone let expect"
    )


@frozen
class Part:
    """One level's values by cell."""

    level: Any
    values: Floats
    """[cell, example, *rest]"""
    index: pd.MultiIndex
    """Of the cells."""
    groups: NDArray[Any] | None
    like: xr.DataArray


class IncompleteError(StoreError):
    """A level lacks wordings, or a seed that has all of them."""


@frozen
class Block:
    """One level's values by seed and wording."""

    level: Any
    values: Floats
    """[seed, *each random factor, example, *rest]"""
    names: list[str]
    """Of the wordings, in the order of the values."""
    spread: Floats
    groups: NDArray[Any] | None
    like: xr.DataArray


@frozen
class Crossed:
    """An estimate over crossed seeds, wordings and groups of examples."""

    estimate: Estimate
    size: Floats
    by_wording: Floats
    """[wording, *rest]: deviations of the wordings' means."""
    component: Floats
    """Variance between wordings [*rest], without what seeds and examples make of it; 0 or more."""

    @classmethod
    def of(cls, block: Block, variable: str, differences: bool, *, share: bool) -> "Crossed":
        """Estimate from a level's values.

        The variance of the mean is that of the residuals and what each random factor has in excess of it.
        Interplay of two random factors counts in both, so it is never too small on average.
        """
        seeds, *sizes = block.values.shape[: block.values.ndim - 1 - len(block.like.dims)]
        flat = block.values.reshape(-1, *block.values.shape[1 + len(sizes) :])
        spread, components = Deviations.of(flat, block.groups), Components.of(flat, block.groups)
        check_values(components.mean, variable)
        runs = spread.seed.reshape(seeds, *sizes, *spread.seed.shape[1:])
        example, rest = components.variances[1:]
        parts = [(example, components.df_examples)]
        for axis, number in enumerate((seeds, *sizes)):
            if number > 1:
                margin = runs.mean(tuple(other for other in range(1 + len(sizes)) if other != axis))
                parts.append(((margin**2).sum(axis=0) / (number * (number - 1)), np.asarray(number - 1.0)))
        total = crossed_width(rest, (len(flat) - 1) * components.df_examples, parts)
        rows = [total, *parts]
        widths = Widths(*(np.stack(np.broadcast_arrays(*column)) for column in zip(*rows, strict=True)))
        within = (change_range if differences else value_range)(variable, share=share)
        components = evolve(
            components, seeds=np.full(components.mean.shape, seeds), sketch=components.sketch[:0]
        ).within(within)
        estimate = Estimate(
            components, widths, None, np.zeros(components.mean.shape, bool),
            Score(components, widths) if share and differences else None, within, FIXED,
            skewness(components, np.sqrt(total[0])),
        )  # fmt: skip
        number = int(np.prod(sizes))
        runs = runs.reshape(seeds, number, *runs.shape[1 + len(sizes) :])
        residuals = spread.rest.reshape(seeds, number, *spread.rest.shape[1:])
        return cls(
            estimate,
            standardised(components, block.spread),
            runs.mean(axis=0),
            _between_wordings(runs, residuals, spread),
        )

    def means(self, like: xr.DataArray, confidence: float, *, share: bool) -> xr.Dataset:
        """Return the mean with its interval, within the variable's range."""
        components, plain = self.estimate.components, self.estimate.plain
        low, high = self.estimate.bounds(1 - confidence)
        if share:
            low, high = share_bounds(components, confidence, plain)
        columns = {
            "mean": (components.mean, "", ""),
            "low": (low, "", ""),
            "high": (high, "", ""),
            "seeds": (components.seeds, "1", SEEDS),
            "examples": (components.examples, "1", EXAMPLES),
            "groups": (components.groups, "1", GROUPS),
        }
        return labelled(like, columns)

    def spreads(self, block: Block) -> xr.Dataset:
        """Return how far the wordings lie apart, and which are at the ends."""
        ends = {"lowest": self.by_wording.argmin(axis=0), "highest": self.by_wording.argmax(axis=0)}
        columns = {
            "wording_sd": (np.sqrt(self.component), "", ""),
            "spread": (np.ptp(self.by_wording, axis=0), "", ""),
            **{name: (np.array(block.names, object)[place], "", ENDS[name]) for name, place in ends.items()},
        }
        return labelled(block.like, columns)


def _between_wordings(runs: Floats, residuals: Floats, spread: Deviations) -> Floats:
    """Return the variance between wordings, from deviations of runs [seed, wording, *rest] and residuals.

    residuals: [seed, wording, group, *rest], times the groups' weights. By the expected mean squares of the
    crossed design; with one seed, what wordings and the training have together counts as the wordings'.
    """
    seeds, number = runs.shape[:2]
    terms = seeds * number * residuals.shape[2]
    by_wording = runs.mean(axis=0)
    of_wordings = (by_wording**2).sum(axis=0) / (number - 1)
    reactions = residuals.mean(axis=0)  # of examples to wordings
    of_reactions = spread.scale * (reactions**2).sum(axis=(0, 1)) / (number - 1)
    if seeds == 1:
        return excess(of_wordings, of_reactions, spread.size, terms)
    together_ = runs - by_wording - runs.mean(axis=1, keepdims=True)
    df = seeds * (seeds - 1) * (number - 1)
    of_both = (together_**2).sum(axis=(0, 1)) / df
    rest = residuals - reactions - residuals.mean(axis=1, keepdims=True)
    of_rest = spread.scale * (rest**2).sum(axis=(0, 1, 2)) / df
    return excess(of_wordings + of_rest, of_both + of_reactions, spread.size, terms)


def _conditions(data: Data, variable: str, random: list[str]) -> tuple[list[Part], dict[str, Any]]:
    """Return the values of each condition: all factors but the seed and the wordings."""
    dataset = stage_node(data, stage_of(variable), variable)
    index = dataset.indexes["cell"]
    for name in random:
        check_factor(dataset, name)
    values = variable_of(dataset, variable)
    names = [str(name) for name in index.names if name not in (SEED, *random)]
    columns = [index.get_level_values(name) for name in names]
    words = [spell(names, [column[cell] for column in columns]) for cell in range(len(index))]
    parts = []
    for condition in dict.fromkeys(words):
        chosen = np.flatnonzero(np.array(words) == condition)
        part = numbers(values.isel(cell=chosen).transpose("cell", "example", ...))
        like = part.isel(cell=0, example=0, drop=True)
        parts.append(Part(condition, part.values, index[chosen], example_groups(values), like))
    return parts, {"units": values.attrs.get("units", ""), "share": is_share(variable, values)}


def _differences(
    data: Data, variable: str, random: list[str], factor: str, baseline: Any, level: Any
) -> tuple[list[Part], dict[str, Any]]:
    """Return the differences of each level of a contrast, paired within each wording and seed."""
    paired = contrast(data, variable, factor, baseline, level)
    difference = paired["difference"].transpose("level", "pair", "example", ...)
    index = difference.indexes["pair"]
    if unpaired := [name for name in random if name not in index.names]:
        dataset = stage_node(data, stage_of(variable), variable)
        check_factor(dataset, unpaired[0])
        raise StoreError(
            f"{unpaired[0]}: moves with {factor}, so no wording has two of its levels; expected all levels "
            f"in each wording ({', '.join(map(str, levels(dataset, unpaired[0])))})"
        )
    groups, parts = example_groups(difference), []
    for place, name in enumerate(difference["level"].values):
        part = difference.isel(level=place, drop=True)
        like = part.isel(pair=0, example=0, drop=True)
        parts.append(Part(name, part.values, index, groups, like))
    described = {"units": difference.attrs.get("units", ""), "share": is_share(variable, difference)}
    return parts, {**described, "baseline": paired.attrs["baseline"]}


def _complete(parts: list[Part], random: list[str]) -> tuple[list[Block], list[Any]]:
    """Arrange the parts that have wordings enough, and name the levels of the others."""
    blocks, errors = [], {}
    for part in parts:
        try:
            blocks.append(_block(part, random))
        except IncompleteError as error:
            errors[part.level] = error
    if not blocks:
        raise next(iter(errors.values()))
    return blocks, list(errors)


def _block(part: Part, random: list[str]) -> Block:
    """Arrange the values by seed and wording, other factors averaged.

    Cells without any value are none, and seeds that lack a wording are left out.
    """
    measured = np.isfinite(part.values).any(axis=tuple(range(1, part.values.ndim)))
    values, index = part.values[measured], part.index[measured]
    by_factor = [list(dict.fromkeys(index.get_level_values(name))) for name in random]
    if max(map(len, by_factor), default=0) < 2 or min(map(len, by_factor), default=0) < 2:
        raise IncompleteError(
            f"{', '.join(random)}: expected two levels or more of each in {part.level}, found "
            f"{' and '.join(str(len(known)) for known in by_factor)}"
        )
    keys = list(zip(*(index.get_level_values(name) for name in random), strict=True))
    wanted = list(pd.MultiIndex.from_product(by_factor))
    runs: dict[Any, list[Floats]] = {}
    for seed in dict.fromkeys(seed_values(index)):
        for key in wanted:
            cells = np.flatnonzero((seed_values(index) == seed) & np.array([known == key for known in keys]))
            if cells.size:
                runs.setdefault(seed, []).append(values[cells].mean(axis=0))
    complete = [of_seed for of_seed in runs.values() if len(of_seed) == len(wanted)]
    if not complete:
        raise IncompleteError(f"{', '.join(random)}: no seed of {part.level} has all {len(wanted)} wordings")
    stacked = np.stack([np.stack(of_seed) for of_seed in complete])
    shaped = stacked.reshape(len(complete), *map(len, by_factor), *stacked.shape[2:])
    spread = by_seed(values, index).spread
    words = [spell(random, key) if len(random) > 1 else level_text(key[0]) for key in wanted]
    return Block(part.level, shaped, words, spread, part.groups, part.like)
