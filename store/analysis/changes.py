"""What a factor's levels change: paired differences, and their means with intervals and tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import frozen

from specs.common.names import NEUTRAL_OUTCOMES
from store.analysis.components import Components, Floats
from store.analysis.counterfactuals import MEASURES
from store.analysis.equivalence import NAME as EQUIVALENCE
from store.analysis.equivalence import START as EQUIVALENCE_STARTS
from store.analysis.equivalence import add_verdict, one_sided, skewed_trainings, smallest_difference
from store.analysis.families import STARTS, Family, add_adjusted, together
from store.analysis.inference import CONFIDENCE, Estimate, among
from store.analysis.monitoring import FIXED, Looks, Monitoring
from store.analysis.multiplicity import Correction
from store.analysis.nodes import (
    DERIVED,
    Data,
    blocks,
    in_words,
    layer_blocks,
    stage_node,
)
from store.analysis.pairs import Pairs, differences, find_pairs
from store.analysis.results import (
    EXAMPLES,
    GROUPS,
    MISSING,
    SCORE,
    SEEDS,
    SKEWED,
    STANDARDISED,
    UNEVEN,
    count,
    grouped,
    intervals,
    labelled,
    most_seeds,
    seeds_of,
    units,
)
from store.analysis.runs import by_seed, check_values, example_groups, standardised
from store.analysis.samples import of_samples
from store.analysis.task_scores import task_stage
from store.analysis.value_ranges import change_range, is_share
from store.errors import StoreError

TESTED = {"p_value": STARTS, EQUIVALENCE: EQUIVALENCE_STARTS}
"""p values that are corrected, and what their corrections start from."""
BOUNDS = ("low", "high", "simultaneous_low", "simultaneous_high")


def contrast(data: Data, variable: str, factor: str, baseline: Any = None, level: Any = None) -> xr.Dataset:
    """Return the differences of a variable between levels of a factor and its baseline, pair by pair.

    NaN where a level lacks a pair or a value is missing.

    Args:
        variable: any numeric one of the stage, or correct, generated_correct, absolute_error.
        baseline: by default the first level.
        level: one or several, by default all others.

    Returns:
        `difference` (level, pair, *the variable's dims), in the variable's units and read when asked for;
            `pair` is the index of the other factors and the seed; `pairs` (level) counts them.

    Raises:
        StoreError: for unknown names and when no two cells differ in the factor alone.
    """
    dataset = stage_node(data, stage_of(variable), variable)
    pairs = find_pairs(dataset, factor, baseline, level)
    result = xr.Dataset({"difference": differences(dataset, variable, pairs)})
    counts = (pairs.condition >= 0).sum(axis=1)
    result["pairs"] = ("level", counts, {"units": "1", "long_name": "pairs of cells"})
    result.attrs = {"factor": factor, "baseline": str(pairs.baseline)}
    result.attrs["method"] = (
        f"Differences in {in_words(variable)} between levels of {factor} and {pairs.baseline}, paired by "
        f"seed, example and all other factors ({count(int(counts.sum()), 'pair')} of cells){_moved(pairs)}."
    )
    return result


@frozen
class Changes:
    """Differences of a variable from a factor's baseline, estimated and not yet corrected."""

    paired: xr.Dataset
    """What `contrast` gives."""
    variable: str
    estimate: Estimate
    """[level, *rest]"""
    size: Floats
    """Means in standard deviations of a single run's examples [level, *rest]."""
    like: xr.DataArray
    """Without values: the rest's dims and coordinates."""
    uneven: bool
    smallest: float | None
    """The smallest difference of interest."""
    lost: int
    """Seeds of a level, at most, that were run and have no finite value."""
    share: bool
    """Whether the variable is 0 or 1 of every example."""

    @classmethod
    def of(
        cls,
        data: Data,
        variable: str,
        factor: str,
        baseline: Any = None,
        level: Any = None,
        monitoring: Monitoring = FIXED,
        smallest: float | None = None,
    ) -> "Changes":
        """Read and estimate differences: some levels at a time, or layers of one by blocks."""
        paired = contrast(data, variable, factor, baseline, level)
        difference = paired["difference"]
        if "example" not in difference.dims:
            raise StoreError(f"{variable}: expected a variable by example, found {difference.dims}")
        groups = example_groups(difference)
        share = is_share(variable, difference)
        options: Any = {
            "share": share,
            "within": change_range(variable, share=share),
            "monitoring": monitoring,
        }
        like = without_units(difference.isel(level=0, drop=True))
        axis = like.dims.index("layer") if "layer" in like.dims else None
        estimates, sizes, uneven, lost = [], [], False, 0
        index = difference.indexes["pair"]
        difference = difference.transpose("level", "pair", "example", ...)
        for some_levels in blocks(difference, "level"):
            several = difference.isel(level=some_levels)
            of_layers: list[list[Components]] = [[] for _ in range(several.sizes["level"])]
            spreads: list[list[Floats]] = [[] for _ in of_layers]
            for layers in layer_blocks(several.isel(level=0)):
                values = (several.isel(layer=layers) if axis is not None else several).values
                for place, of_level in enumerate(values):
                    runs = by_seed(of_level, index)
                    of_layers[place].append(Components.of(runs.values, groups))
                    spreads[place].append(runs.spread)
                    uneven |= runs.uneven
                    known = of_layers[place][-1].seeds[of_layers[place][-1].seeds > 0]
                    lost = max(lost, len(runs.values) - int(known.min()) if known.size else 0)
            for parts, spread in zip(of_layers, spreads, strict=True):
                components = Components.join(parts, axis or 0)
                check_values(components.mean, variable)
                joined = np.concatenate(spread, axis) if axis is not None else spread[0]
                sizes.append(standardised(components, joined))
                estimates.append(Estimate.of(components, axis, **options))
        estimate = Estimate.stack(among(estimates))
        return cls(paired, variable, estimate, np.stack(sizes), like, uneven, smallest, lost, share)

    @property
    def axis(self) -> int | None:
        """The axis of the layers."""
        return self.like.dims.index("layer") if "layer" in self.like.dims else None

    def _without_values(self) -> str:
        if not self.lost:
            return ""
        left_out = f"left out are up to {count(self.lost, 'seed')} without any finite value"
        return f"; {left_out}, as of a training that diverged"

    def results(self, confidence: float, divided: Sequence[Floats | None]) -> xr.Dataset:
        """Return all that `change` gives but the corrected p values; divided: by level, as `together`."""
        known = [by for by in divided if by is not None]
        columns = tests(self.estimate, self.size, confidence, np.stack(known, axis=1) if known else None)
        if self.smallest is not None:
            columns |= one_sided(self.estimate, self.smallest)
        result = labelled(self.like, columns, self.paired["level"])
        for name in ("difference", *BOUNDS):
            result[name].attrs.update(self.paired["difference"].attrs)
        result.attrs = dict(self.paired.attrs)
        return result

    def described(
        self, result: xr.Dataset, confidence: float, words: str, words_of_equivalence: str
    ) -> xr.Dataset:
        """Add verdicts, and say in `method` how the results were made; words: of the corrections."""
        tost = ""
        if self.smallest is not None:
            tost = f"; {add_verdict(result, self.smallest, confidence, words_of_equivalence)}"
            tost += skewed_trainings(self.estimate) * self.share
        looked = self.estimate.monitoring.described(result["seeds"].values)
        result.attrs["method"] = (
            f"{self.paired.attrs['method'].removesuffix('.')}; mean over {units(result)} "
            f"and {seeds_of(result)}{UNEVEN * self.uneven}, "
            f"{intervals(result, confidence, grouped(result), withheld=True)}"
            f"{SCORE if self.share else SKEWED}; two-sided p values by the same intervals, "
            f"{words}{tost}{looked}; "
            f"{int(result['missing'].sum())} values missing{self._without_values()}."
        )
        most_seeds(result, "level")
        return result


def change(
    data: Data,
    variable: str,
    factor: str,
    baseline: Any = None,
    level: Any = None,
    *,
    correction: Correction = "holm",
    family: Family = "contrast",
    looks: Looks = None,
    confidence: float = CONFIDENCE,
    equivalence: float | None = None,
) -> xr.Dataset:
    """Return the mean difference of a variable from a factor's baseline, with interval, test and effect size.

    Means are over examples, seeds and the levels of the other factors, each with equal weight; to keep a
    factor apart, select one of its levels first. Where cells are missing, a seed counts by the pairs that it
    has. Seeds and examples (or groups, where the data has a coordinate `group` along `example`) are random.
    For several contrasts or outcomes together: `contrasts`. Reads two cells at a time, layers by blocks.

    Args:
        family: "contrast", all levels, positions and layers of this call; "layers", only the layers of each
            level and position (without layers, the levels).
        looks: None where results are looked at once; [3, 5, 10], at these numbers of seeds; "anytime", at
            every number from 2 on: p values and bounds then hold over all looks together (NaN at a number of
            seeds that is none of them).
        equivalence: the smallest difference of interest, by default that of the spec of an experiment; where
            there is one, the result has `p_equivalence` (of two one-sided tests by the same intervals),
            corrected as `p_equivalence_adjusted`, and `verdict`: "no difference larger than 0.02",
            "different", "different, but smaller than 0.02", "undecided" (by the corrected p values; "" where
            nothing was measured).

    Returns:
        Result, by (level, layer, position, …): `difference`, `low`, `high` (in the variable's units,
            pointwise), `p_value` (two-sided, below 1 − confidence just where the interval leaves out 0),
            `p_adjusted` (corrected over the family), `simultaneous_low` and `simultaneous_high` (leave out 0
            just where `p_adjusted` is below 1 − confidence; with correction="none" the same as `low` and
            `high`), `effect_size` (the mean in standard deviations of a single run's examples), `examples`,
            `groups`, `missing`; by level: `seeds`. A difference other than 0 that is the same everywhere has
            no interval (NaN).
    """
    smallest = smallest_difference(data, variable, equivalence)
    changes = Changes.of(data, variable, factor, baseline, level, Monitoring.of(looks), smallest)
    starts = changes.estimate.p_family()
    result = changes.results(
        confidence, together(list(starts), family, changes.axis, correction, 1 - confidence)
    )
    words, of_equivalence = (
        add_adjusted(result, name, correction, factor, family=family, start=start) if name in result else ""
        for name, start in TESTED.items()
    )
    return changes.described(result, confidence, words, of_equivalence)


def relative_entropy(data: Data, factor: str, baseline: Any = None, **options: Any) -> xr.Dataset:
    """Return the lens entropy relative to a baseline (condition minus baseline, nat) per layer and position.

    This is `change` of the variable `entropy`, with its result and its options; it is a difference of
    entropies, not a Kullback-Leibler divergence.
    """
    return change(data, "entropy", factor, baseline, **options)


def stage_of(variable: str) -> str:
    """Return the stage that holds a variable."""
    if stage := task_stage(variable):
        return stage
    if variable in (*NEUTRAL_OUTCOMES, "base_cross_entropy"):
        return "neutral"
    evaluated = of_samples(variable) or variable in {*DERIVED, *MEASURES, "label_logprob"}
    return "evaluate" if evaluated else "probe"


def pair_values(paired: xr.DataArray) -> tuple[Floats, pd.MultiIndex]:
    """Read differences as [pair, example, *rest], with the other factors and the seed of each pair."""
    return paired.transpose("pair", "example", ...).values, paired.indexes["pair"]


def without_units(paired: xr.DataArray) -> xr.DataArray:
    """Return the dims and coordinates (of one pair and example) that results by layer and position have."""
    return paired.isel(pair=0, example=0, drop=True)


def summary(
    estimate: Estimate, size: Floats, like: xr.DataArray, confidence: float, divided: Floats | None
) -> xr.Dataset:
    """Return `tests` with the labels of `like`."""
    return labelled(like, tests(estimate, size, confidence, divided))


def tests(
    estimate: Estimate, size: Floats, confidence: float, divided: Floats | None
) -> dict[str, tuple[Any, str, str]]:
    """Return mean, interval, test and effect size of differences, as columns.

    divided: by what the level of simultaneous bounds is, as of `together`.
    """
    components = estimate.components
    low, high = estimate.bounds(1 - confidence)
    simultaneous_low, simultaneous_high = estimate.together(1 - confidence, divided)
    return {
        "difference": (components.mean, "", ""),
        "low": (low, "", ""),
        "high": (high, "", ""),
        "simultaneous_low": (simultaneous_low, "", ""),
        "simultaneous_high": (simultaneous_high, "", ""),
        "p_value": (estimate.p(), "1", "p value, two-sided"),
        STARTS: (estimate.p_family(), "1", "p value, variances between seeds shared"),
        "effect_size": (size, "1", STANDARDISED),
        "seeds": (components.seeds, "1", SEEDS),
        "examples": (components.examples, "1", EXAMPLES),
        "groups": (components.groups, "1", GROUPS),
        "missing": (components.missing, "1", MISSING),
    }


def _moved(pairs: Pairs) -> str:
    return f"; {' and '.join(pairs.moving)} moves with {pairs.factor}" if pairs.moving else ""
