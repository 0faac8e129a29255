"""How much of an effect one direction carries: mean differences that are added, beside random directions."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.grids import patching_grid
from store.analysis.inference import CONFIDENCE
from store.analysis.intervention_outcomes import OUTCOMES
from store.analysis.nodes import Data

DIFFERENCE = "mean difference"
_EXCESS = {
    "effect": "excess", "low": "excess_low", "high": "excess_high", "p_adjusted": "excess_p_adjusted",
}  # fmt: skip
_OVER_DRAWS: dict[str, Any] = {"": np.mean, "_lowest": np.min, "_highest": np.max}


def steering(
    data: Data,
    entry: str,
    outcome: str = "log_odds",
    *,
    width: int = 1,
    confidence: float = CONFIDENCE,
    **options: Any,
) -> xr.Dataset:
    """Return what adding the mean difference of two models does, and what random directions as long do.

    `share` is the share of the whole difference between the two models that the direction carries:
    (outcome with the direction added − outcome without) / (outcome of the model that it leads to − outcome
    without), by means over seeds and examples. What random directions do shows how much of that comes of a
    change of this length alone.

    Args:
        entry: an intervention of the spec of the kind `steer`, by name.
        outcome: as in `intervention_effects`, but for entropy.
        width: layers of a set, where there are sets of several sizes; each stands at its lowest layer.
        options: as in `intervention_effects`.

    Returns:
        Result, by (condition, layer, strength[, position]): all variables of `patching_grid`, of the mean
            difference; where random directions were drawn, `random_effect` and `random_share`, the means over
            them, each with its `_lowest` and `_highest`; and `excess`, the effect less `random_effect`, with
            `excess_low`, `excess_high` and `excess_p_adjusted`, over seeds and examples, for these very
            directions. p values are corrected over the mean difference's changes alone.

    Raises:
        StoreError: for unknown names, entropy, an intervention that adds no direction, and where no set of
            layers has this width.
    """
    options |= {"width": width, "confidence": confidence}
    result = patching_grid(data, entry, outcome, direction=DIFFERENCE, **options)
    result = result.isel(direction=0, drop=True)
    every = patching_grid(data, entry, outcome, **options)
    random = every.sel(direction=every["direction"] != DIFFERENCE)
    units = OUTCOMES[outcome][0]
    for name, unit in (("effect", units), ("share", "1")) if random.sizes["direction"] else ():
        for suffix, reduce in _OVER_DRAWS.items():
            words = {"": "mean", "_lowest": "lowest", "_highest": "highest"}[suffix]
            title = f"random_{name}{suffix}"
            result[title] = random[name].reduce(reduce, "direction")
            result[title].attrs = {"units": unit, "long_name": f"{words} {name} of random directions"}
    if random.sizes["direction"]:
        beyond = patching_grid(data, entry, outcome, direction=DIFFERENCE, reference="random", **options)
        for name, title in _EXCESS.items():
            result[title] = beyond[name].isel(direction=0, drop=True)
        result["excess"].attrs = {"units": units, "long_name": "effect beyond that of random directions"}
        count = random.sizes["direction"]
        result.attrs["method"] += f" Random: {count} random directions of the same length."
    return result
