"""How much an experiment's paired differences vary, as a pilot for the power of a larger one."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, frozen
from scipy import special

from store.analysis.changes import contrast, pair_values, stage_of
from store.analysis.components import Components, Floats, excess
from store.analysis.nodes import Data, stage_nodes
from store.analysis.power import Variation
from store.analysis.runs import by_seed, example_groups
from store.analysis.value_ranges import is_share
from store.errors import FAULTS, StoreError

MOST_VALUES = 2 * 10**7  # read of one variable; beyond them the first examples stand for all
BOUNDS = 0.8  # confidence of the range of the seeds' standard deviation


@frozen
class Pilot:
    """What a pilot tells of one contrast in one outcome: typical values over layers and positions."""

    variation: Variation
    low: Variation
    """With the least and the largest standard deviation between seeds that go with the pilot's, at 80 %."""
    high: Variation
    seeds: int
    examples: int
    groups: float | None
    """Groups of equal size that say as much as the pilot's; None where each example is its own."""


def read_pilot(
    data: Data, variable: str, factor: str, baseline: Any, level: Any, assumed: Variation
) -> Pilot:
    """Estimate how the differences between a level and its baseline vary in an experiment.

    Components are of `change`, their medians over layers and positions, means over test sets. With one seed
    neither seeds nor the share that examples have in all else are known: these are as assumed. StoreError
    where the experiment lacks the variable, a level, or two cells to compare.
    """
    parts_of_pilot, reason = [], ""
    for node in stage_nodes(data, stage_of(variable), variable).values():
        try:
            parts_of_pilot.append(_read(node, variable, factor, baseline, level, assumed))
        except FAULTS:
            raise
        except StoreError as error:  # a contrast need not exist on every test set
            reason = str(error)
    if not parts_of_pilot:
        raise StoreError(reason)
    first = max(parts_of_pilot, key=lambda pilot: pilot.seeds)
    same = [pilot for pilot in parts_of_pilot if pilot.seeds == first.seeds]
    return evolve(
        first,
        variation=_mean([pilot.variation for pilot in same]),
        low=_mean([pilot.low for pilot in same]),
        high=_mean([pilot.high for pilot in same]),
    )


def _mean(variations: list[Variation]) -> Variation:
    """Return the root mean square of standard deviations, and the mean of all else."""
    return Variation(
        seed=_root_mean_square([variation.seed for variation in variations]),
        example=_root_mean_square([variation.example for variation in variations]),
        rest=_root_mean_square([variation.rest for variation in variations]),
        within_group=float(np.mean([variation.within_group for variation in variations])),
        between_layers=float(np.mean([variation.between_layers for variation in variations])),
        discordant=_mean_known([variation.discordant for variation in variations]),
    )


def _root_mean_square(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _read(node: Data, variable: str, factor: str, baseline: Any, level: Any, assumed: Variation) -> Pilot:
    paired = contrast(node, variable, factor, baseline, level)["difference"].isel(level=0, drop=True)
    if "example" not in paired.dims:
        raise StoreError(f"{variable}: expected a variable by example, found {paired.dims}")
    block = max(1, MOST_VALUES * paired.sizes["example"] // max(1, 2 * paired.size))
    paired = paired.isel(example=slice(block))
    values, index = pair_values(paired)
    runs = by_seed(values, index)
    groups = example_groups(paired)
    pairs = float(np.median(runs.counts[runs.counts > 0])) if runs.counts.any() else 1.0
    alone, whole = Components.of(runs.values), Components.of(runs.values, groups)
    if not (alone.examples > 1).any():
        raise StoreError(f"{variable}: expected two examples with values in {factor}, found fewer")
    if not (np.nan_to_num(alone.variances) > 0).any():
        raise StoreError(f"{variable}: the differences do not vary")
    seeds, examples = int(alone.seeds.max()), int(alone.examples.max())
    units = _typical(whole.df_examples) + 1
    grouped = units < examples - 0.5
    like = evolve(
        assumed,
        within_group=_shared(alone, whole, examples, units) if grouped else assumed.within_group,
        between_layers=_between_layers(whole, paired.dims[2:], assumed.between_layers),
        discordant=_typical(alone.size) if is_share(variable, paired) else None,
    )
    if seeds < 2:
        total = np.sqrt(_typical(alone.variances[1]) * examples)
        known = max(np.hypot(assumed.example, assumed.rest), 1e-300)
        one = evolve(
            like, example=float(total * assumed.example / known), rest=float(total * assumed.rest / known)
        )
        return Pilot(one, one, one, seeds, examples, units if grouped else None)
    _, example, rest = (_typical(variance) for variance in alone.variances)

    def beyond(square: float, expected: float) -> float:
        size = np.asarray(_typical(alone.size))
        return float(excess(np.asarray(square), np.asarray(expected), size, seeds * examples))

    like = evolve(
        like,
        example=float(np.sqrt(beyond(example, rest) * examples)),
        rest=float(np.sqrt(rest * seeds * examples * pairs)),
    )
    square, noise = (_typical(whole.variances[part]) * seeds for part in (0, 2))
    limits = [
        evolve(like, seed=float(np.sqrt(beyond(variance, noise) * pairs)))
        for variance in (square, *_bounds(square, seeds - 1))
    ]
    return Pilot(
        limits[0],
        limits[1],
        limits[2],
        seeds,
        examples,
        units if grouped else None,
    )


def _typical(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else 0.0


def _shared(alone: Components, whole: Components, examples: int, units: float) -> float:
    """Return how alike examples of a group are: by how much more groups vary than examples by themselves."""
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = _typical(whole.variances[1] / alone.variances[1])
    return float(np.clip((effect - 1) / max(examples / units - 1, 1e-9), 0, 1))


def _between_layers(components: Components, dims: tuple[Any, ...], assumed: float) -> float:
    """Return the correlation of neighbouring layers' residuals; what is assumed where there are none."""
    if "layer" not in dims:
        return assumed
    sketch = np.moveaxis(components.sketch, 1 + dims.index("layer"), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = sketch / np.sqrt((sketch**2).mean(axis=0))
        near = (scaled[..., 1:] * scaled[..., :-1]).mean(axis=0)
    return float(np.clip(_typical(near), 0, 0.99)) if near.size else assumed


def _bounds(square: float, df: int) -> tuple[float, float]:
    """Return the least and the largest mean square that go with one that was found, by chi-square."""
    tail = (1 - BOUNDS) / 2
    low, high = (square * df / float(special.chdtri(df, share)) for share in (tail, 1 - tail))
    return low, high
