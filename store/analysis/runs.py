"""Values by cell or pair as values by seed, of which any may lack some; and the groups of examples."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import frozen
from numpy.typing import NDArray

from store.analysis.components import Components, Floats
from store.analysis.nodes import seed_values
from store.errors import StoreError

GROUP = "group"


@frozen
class SeedValues:
    """Values by seed: [seed, example, *rest]; NaN where a seed lacks an example or has no value at all."""

    values: Floats
    seeds: list[Any]
    counts: NDArray[np.intp]
    """Cells or pairs with a value, [seed, *rest]."""
    spread: Floats
    """Standard deviation over examples within a single cell or pair, pooled over them [*rest]."""

    @property
    def uneven(self) -> bool:
        """Whether some seed has fewer cells than another."""
        counts = self.counts[self.counts > 0]
        return bool(counts.size and counts.min() < counts.max())


def by_seed(values: Floats, index: pd.MultiIndex) -> SeedValues:
    """Return values [cell, example, *rest] as means by seed over the cells that the seed has.

    A cell without a single value in an outcome is not there for it. Each seed has equal weight, and counts
    by the cells that it has: what the others have in more shows as variation between seeds.
    """
    finite = np.isfinite(values)
    valid_examples = np.asarray(finite.any(axis=1))
    complete = finite | ~valid_examples[:, None]
    filled = np.where(finite, values, 0.0)
    names: dict[Any, list[int]] = {}
    for cell, name in enumerate(seed_values(index)):
        names.setdefault(name, []).append(cell)
    counts = np.stack([valid_examples[cells].sum(axis=0) for cells in names.values()])
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [
            np.where(complete[cells].all(axis=0), filled[cells].sum(axis=0), np.nan) / number
            for cells, number in zip(names.values(), counts, strict=True)
        ]
    return SeedValues(np.stack(means), list(names), counts, _spread(filled, finite, valid_examples))


def _spread(filled: Floats, finite: NDArray[np.bool_], valid_examples: NDArray[np.bool_]) -> Floats:
    n = finite.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = np.where(finite, filled - (filled.sum(axis=1) / n)[:, None], 0.0)
        squares = np.where(n > 1, (centred**2).sum(axis=1) / (n - 1), 0.0)
        return np.asarray(np.sqrt(squares.sum(axis=0) / valid_examples.sum(axis=0)))


def over_seeds(values: Floats) -> Floats:
    """Return values [seed, example, *rest] as means over the seeds that have any [example, *rest]."""
    finite = np.isfinite(values)
    present = np.asarray(finite.any(axis=1))
    complete = (finite | ~present[:, None]).all(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.where(finite, values, 0.0).sum(axis=0) / present.sum(axis=0)
    return np.where(complete, total, np.nan)


def over_groups(values: Floats, groups: NDArray[Any] | None) -> Floats:
    """Return sums of values [example, *rest] over each group's examples [group, *rest], a missing one as 0.

    A group without a value is NaN.
    """
    if groups is None:
        return values
    valid = np.isfinite(values)
    member = (np.arange(groups.max() + 1)[:, None] == groups).astype(float)
    sums = np.tensordot(member, np.where(valid, values, 0.0), 1)
    return np.where(np.tensordot(member, valid, 1) > 0, sums, np.nan)


def standardised(components: Components, spread: Floats) -> Floats:
    """Return means in standard deviations of a single run's examples; NaN where these do not vary."""
    with np.errstate(divide="ignore", invalid="ignore"):
        still = spread <= 1e-10 * np.abs(components.mean)
        return np.where(components.mean == 0, 0.0, np.where(still, np.nan, components.mean / spread))


def example_groups(array: xr.DataArray | xr.Dataset) -> NDArray[Any] | None:
    """Return the group of each example, None where none is known: each is its own then.

    Examples with an empty group are each their own.
    """
    if GROUP not in array.coords or array[GROUP].dims != ("example",):
        return None
    known = [str(group) for group in array[GROUP].values]
    names = {name: number for number, name in enumerate(dict.fromkeys(known))}
    return np.array(
        [names[name] if name else len(names) + place for place, name in enumerate(known)], dtype=int
    )


def check_values(values: Floats, name: str) -> None:
    """Raise StoreError where there is not one value."""
    if not np.isfinite(values).any():
        raise StoreError(f"{name}: not one value: all are missing")
