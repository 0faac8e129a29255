"""Effects of interventions as grids: layers by positions, heads, receivers of paths or what is added."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.inference import CONFIDENCE
from store.analysis.interventions import OUTER, intervention_effects, mediation, of_condition
from store.analysis.nodes import Data
from store.errors import StoreError

AXES = {"head": -1, "receiver": "", "strength": 0.0, "direction": "", "position": ""}
"""What a grid can have beside layers, and its value where a change has none."""
_SHARES = {"total": "total", "share": "share", "low": "share_low", "high": "share_high"}


def patching_grid(
    data: Data,
    entry: str,
    outcome: str = "log_odds",
    *,
    width: int = 1,
    confidence: float = CONFIDENCE,
    **options: Any,
) -> xr.Dataset:
    """Return the effects of an intervention by layer and by position, head, receiver or what is added.

    Args:
        entry: an intervention of the spec, by name, whose sets of layers do not grow.
        outcome: as in `intervention_effects`, but for entropy.
        width: layers of a set, where there are sets of several sizes; each stands at its lowest layer.
        options: as in `intervention_effects`.

    Returns:
        Result, by (condition, layer), and those of (head, receiver, strength, direction, position) that
            changes have: all variables of `intervention_effects`, and, where another run is taken from,
            `total`, `share`, `share_low` and `share_high` of `mediation`: 0 is the run that is changed, 1 the
            other. NaN where a condition has no such change.

    Raises:
        StoreError: for unknown names, entropy, and where no set of layers has this width.
    """
    if outcome == "entropy":
        raise StoreError("outcome: expected one with one number for each change, found entropy")
    found = intervention_effects(data, entry, outcome, confidence=confidence, **options)
    method = found.attrs["method"]
    if any(str(source) for source in np.unique(found["source"].values.astype(str)) if source != "nan"):
        shares = mediation(data, entry, outcome, direction=options.get("direction"), confidence=confidence)
        found = found.assign({new: shares[old].variable for old, new in _SHARES.items()})
        method = f"{method} {shares.attrs['method']}"
    parts = [_grid(of_condition(found, condition), width, entry) for condition in found["condition"].values]
    result = xr.concat(parts, "condition", **OUTER)
    result.attrs = {**found.attrs, "method": method}
    for name, variable in found.data_vars.items():
        if name in result:
            result[name].attrs = variable.attrs
    return result


def axes_of(changes: xr.Dataset) -> list[str]:
    """Return what tells some changes apart beside their layers: names of `AXES`."""
    known = {name: changes[name].values.ravel().tolist() for name in AXES if name in changes.coords}
    return [
        name
        for name, values in known.items()
        if any(value == value and value != AXES[name] for value in values)  # NaN: another condition's change
    ]


def _grid(changes: xr.Dataset, width: int, entry: str) -> xr.Dataset:
    """Set out the changes of a condition by their layers and what else tells them apart."""
    spans = (changes["last"] - changes["first"] + 1).values
    chosen = changes.isel(intervention=spans == width)
    if not chosen.sizes["intervention"]:
        known = ", ".join(str(int(span)) for span in sorted(set(spans)))
        raise StoreError(f"{entry}: no changes of {width} layers; expected width = one of {known}")
    columns: dict[str, list[Any]] = {"layer": [int(layer) for layer in chosen["first"].values]}
    columns |= {axis: chosen[axis].values.tolist() for axis in axes_of(chosen)}
    if len(set(zip(*columns.values(), strict=True))) < chosen.sizes["intervention"]:
        raise StoreError(
            f"{entry}: several changes at one place; expected sets of layers that do not grow, and one of "
            "positions at a time (grid = true)"
        )
    labels = {name: list(dict.fromkeys(values)) for name, values in columns.items()}
    labels["layer"].sort()
    places = tuple([labels[name].index(value) for value in values] for name, values in columns.items())
    shape, kept = [len(several) for several in labels.values()], {}
    for variable in chosen.data_vars:
        if chosen[variable].dims == ("intervention",):
            values = np.full(shape, np.nan)
            values[places] = chosen[variable].values
            kept[variable] = (list(labels), values)
    coordinates = {
        name: np.array(several, object if isinstance(several[0], str) else type(several[0]))
        for name, several in labels.items()
    }
    return xr.Dataset(kept, coordinates).expand_dims(condition=[chosen["condition"].item()])
