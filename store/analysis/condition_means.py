"""Plain means by level or condition, each with its interval: what a table of results shows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from store.analysis.changes import stage_of
from store.analysis.components import Components, Floats
from store.analysis.inference import CONFIDENCE, inferred
from store.analysis.nodes import (
    BLOCK_BYTES,
    Data,
    by_condition,
    in_words,
    levels,
    numbers,
    stage_nodes,
    variable,
)
from store.analysis.proportions import share_bounds
from store.analysis.results import (
    EXAMPLES,
    GROUPS,
    SEEDS,
    grouped,
    intervals,
    labelled,
    level_coordinate,
    most_seeds,
    seeds_of,
)
from store.analysis.runs import by_seed, example_groups
from store.analysis.value_ranges import is_share, value_range
from store.errors import StoreError

COPIES = 8  # of values, while their components are taken apart
OVER_SEEDS = "{} t intervals over seeds, for these examples"


def means(
    data: Data,
    name: str,
    by: str = "condition",
    *,
    stage: str | None = None,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return the mean of a variable by level of a factor, or by condition (all factors but the seed).

    Reads some levels at a time.

    Args:
        name: as for `contrast`, or with stage="summary" a number of the summary.

    Returns:
        Result, by (level, layer, …): `mean`, `low`, `high` (in the variable's units and range), `examples`,
            `groups`; by level: `seeds`. The bounds cover seeds and examples; those of summary numbers seeds
            alone (NaN for one seed).

    Raises:
        StoreError: for unknown names, and for a level that lies in several shapes.
    """
    stage = stage or stage_of(name)
    nodes = stage_nodes(data, stage, name)
    result = means_of(nodes.values(), lambda cells: variable(cells, name), by, confidence)
    how = intervals(result, confidence, grouped(result))
    if stage == "summary":
        how = OVER_SEEDS.format(f"{confidence:.0%}")
    result.attrs["method"] = f"Mean {in_words(name)} by {by}, {seeds_of(result)}; {how}."
    return result


def means_of(
    nodes: Iterable[xr.Dataset],
    values_of: Callable[[xr.Dataset], xr.DataArray],
    by: str,
    confidence: float,
) -> xr.Dataset:
    """Return the means of what is read of some cells, by level, as `means`, but without its `method`.

    values_of: gives the values of some cells, dims (cell, example, …), named as `value_range` knows it.
    """
    parts: list[xr.Dataset] = []
    known: list[Any] = []
    for whole in nodes:
        dataset = by_condition(whole) if by == "condition" else whole
        own = levels(dataset, by)
        if twice := [level for level in own if level in known]:
            raise StoreError(f"{by}: the cells of {twice[0]!r} come in several shapes; select one")
        known += own
        parts += _parts(dataset, own, values_of, by, confidence)
    result = xr.concat(parts, "level", join="outer", combine_attrs="override")
    result = result.assign_coords(level=level_coordinate(known, by))
    most_seeds(result, "level")
    return result


def _parts(
    dataset: xr.Dataset,
    own: Sequence[Any],
    values_of: Callable[[xr.Dataset], xr.DataArray],
    by: str,
    confidence: float,
) -> Iterator[xr.Dataset]:
    """Yield the means of a dataset's levels, of as many at a time as memory is to hold the values of."""
    of_cells = dataset.indexes["cell"].get_level_values(by)
    places: dict[Any, list[int]] = {}
    for cell, level in enumerate(of_cells):
        places.setdefault(level, []).append(cell)
    start, step = 0, 1  # of the first level it is seen how large one is
    while start < len(own):
        cells = [places[level] for level in own[start : start + step]]
        values = values_of(dataset.isel(cell=[cell for one in cells for cell in one]))
        crossed = "example" in values.dims
        block = numbers(values.transpose("cell", *(["example"] if crossed else []), ...))
        ends = np.cumsum([len(one) for one in cells])
        yield _means(block, np.split(np.arange(ends[-1]), ends[:-1]), confidence)
        start += len(cells)
        step = max(1, BLOCK_BYTES // COPIES * len(cells) // max(1, block.nbytes))


def divergence_from(
    data: Data,
    reference: str,
    measure: Literal["kl", "js", "cka", "procrustes"] = "kl",
    *,
    by: str = "condition",
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return how far each condition is from another model, by layer and position.

    The other model has run on the same inputs (`probe.against`), so prompts and answers play no part.

    Args:
        reference: "base", or the levels of the other cell, as "target=label".
        measure: of lens distributions: "kl", KL(reference ‖ condition), or "js", the Jensen-Shannon
            divergence. Of residual streams (where `probe.geometry` names them): "cka", a similarity, 1 for
            equal ones, or "procrustes", a distance.

    Returns:
        Result as of `means`; divergences in nats. The model itself is 0 from itself. Trainings that differ by
            their seed alone are apart, too; so compare conditions by `change` in `kl_against`.

    Raises:
        StoreError: where nothing was compared with this reference.
    """
    name = f"{measure}_against"
    result = means(data, name, by, confidence=confidence)
    known = result["against"].values.tolist()
    if reference not in known:
        raise StoreError(f"reference: found {reference!r}; {name} has {', '.join(known)}")
    return result.sel(against=reference).assign_attrs(result.attrs)


def _means(block: xr.DataArray, cells: Sequence[NDArray[np.intp]], confidence: float) -> xr.Dataset:
    crossed = "example" in block.dims
    middle, low, high = mean_bounds(block, cells, confidence)
    like = block.isel(cell=0, example=0, drop=True) if crossed else block.isel(cell=0, drop=True)
    like = like.expand_dims(level=len(cells))
    nothing = np.full(like.shape, np.nan)
    unit = block.attrs.get("units") or "1", block.attrs.get("long_name", str(block.name))
    columns = {
        "mean": (middle.mean, *unit),
        "low": (low, *unit),
        "high": (high, *unit),
        "seeds": (middle.seeds if crossed else middle.examples, "1", SEEDS),
        "examples": (middle.examples if crossed else nothing, "1", EXAMPLES),
        "groups": (middle.groups if crossed else nothing, "1", GROUPS),
    }
    return labelled(like, columns)


def mean_bounds(
    block: xr.DataArray, cells: Sequence[NDArray[np.intp]], confidence: float
) -> tuple[Components, Floats, Floats]:
    """Return the means of values (cell, example, *rest) over sets of cells, with low and high, [set, *rest].

    They stay within the values' range. Without `example` (numbers of the summary) the seeds are the only
    units there are.
    """
    values = block.values if "example" in block.dims else block.values[:, None]
    index = block.indexes["cell"]
    runs = [by_seed(values[own], index[own]) for own in cells]
    seeds = {
        seed: place for place, seed in enumerate(dict.fromkeys(seed for run in runs for seed in run.seeds))
    }
    of_seeds = np.full((len(seeds), values.shape[1], len(runs), *values.shape[2:]), np.nan)
    for place, run in enumerate(runs):
        of_seeds[[seeds[seed] for seed in run.seeds], :, place] = run.values
    if "example" not in block.dims:
        return _inferred(Components.of(of_seeds[:, 0][None]), block, confidence)
    return _inferred(Components.of(of_seeds, example_groups(block)), block, confidence)


def _inferred(
    components: Components, block: xr.DataArray, confidence: float
) -> tuple[Components, Floats, Floats]:
    name, share = str(block.name), is_share(str(block.name), block)
    within = value_range(name, share=share)
    components = components.within(within)
    if share:
        return components, *share_bounds(components, confidence)
    inference = inferred(components, confidence=confidence, within=within)
    return components, inference.low, inference.high
