"""The section on interventions: effects by changed layers, heads or positions, and shares of a difference."""

import json

import numpy as np
import xarray as xr
from attrs import frozen
from numpy.typing import NDArray

from store.analysis import intervention_effects, mediation
from store.analysis.declared import looks_of
from store.analysis.grids import AXES, axes_of
from store.analysis.intervention_outcomes import takes_labels
from store.analysis.interventions import entries, of_condition, sweep_of
from store.analysis.monitoring import Looks
from store.backend.records import Json
from store.errors import FAULTS, StoreError
from store.report.encode import rounded
from store.report.stages import Places, datasets

OUTCOMES = ("log_odds", "correct", "logit_difference")
EFFECT = ("effect", "low", "high", "p_adjusted")
ALPHA = 0.05
MOST_BYTES = 2 * 2**20  # of one experiment's effects
Order = NDArray[np.intp]
TOLD = (
    "kind", "cells", "alpha", "modules", "donor", "input", "stream", "positions", "ablation", "sender",
    "receiver", "onto", "strength", "from_layer", "from_positions", "random_directions",
)  # fmt: skip
_COLUMNS = {
    "receiver": "end of path", "head": "head", "strength": "strength", "direction": "direction",
    "position": "position",
}  # fmt: skip
_BEFORE = {"receiver": " to ", "head": ", head ", "strength": ", ", "direction": " × ", "position": ", "}
"""What stands before each in a change's name."""


def interventions(node: xr.DataTree, spec: Json, places: Places) -> Json:
    """Return each intervention's effects by condition, and the shares of the layers that it changes.

    Conditions beyond `MOST_BYTES` are left out, all but the first one of an intervention, and counted.
    """
    datasets(node, "intervene", "no complete cell has interventions")
    settings = {settings_of["name"]: settings_of for settings_of in spec.get("interventions", [])}
    sections, room = [], MOST_BYTES
    for name in entries(node):
        results = _results(node, name, looks_of(spec.get("analysis", {})))
        told = {key: value for key, value in settings.get(name, {}).items() if key in TOLD}
        section = results.described() | {"name": name, "settings": told, "conditions": [], "left_out": 0}
        for condition in results.conditions:
            effects = results.of(condition) | {"condition": places[condition]}
            size = len(json.dumps(effects))
            if section["conditions"] and size > room:
                section["left_out"] += 1
            else:
                section["conditions"].append(effects)
                room -= size
        sections.append(section)
    return {"entries": sections}


@frozen
class _Results:
    """What is known of one intervention, by condition."""

    effects: dict[str, xr.Dataset]
    """By outcome; of maps without entropy, for that would be too much."""
    shares: dict[str, xr.Dataset]
    unshared: str
    """Why there are no shares, else ""."""

    @property
    def conditions(self) -> list[str]:
        return [str(condition) for condition in self.effects["correct"]["condition"].values]

    def described(self) -> Json:
        return {
            "methods": {outcome: result.attrs["method"] for outcome, result in self.effects.items()},
            "share_methods": {outcome: result.attrs["method"] for outcome, result in self.shares.items()},
            "unshared": self.unshared,
        }

    def of(self, condition: str) -> Json:
        """Return one condition's changes in the order of the sweep, with all that is known of them."""
        effects_of = {outcome: of_condition(result, condition) for outcome, result in self.effects.items()}
        changed = effects_of["correct"]
        sweep = sweep_of(changed)
        order = np.lexsort((np.arange(len(sweep.place)), changed["head"], sweep.place, sweep.spans))
        return {
            "source": str(changed["source"].values[0]),
            "changed": [str(name).partition(", ")[2] for name in changed["intervention"].values[order]],
            "first": [int(layer) for layer in changed["first"].values[order]],
            "last": [int(layer) for layer in changed["last"].values[order]],
            "map": _places(changed, order),
            "axis": sweep.axis,
            "place": rounded(sweep.place[order]),
            "line": [sweep.lines[number] for number in order],
            "effects": {
                outcome: _columns(effects_of[outcome], order, *EFFECT)
                for outcome in OUTCOMES
                if outcome in effects_of
            },
            "entropy": _map(effects_of["entropy"], order) if "entropy" in effects_of else None,
            "shares": {
                outcome: _shares(of_condition(result, condition), order)
                for outcome, result in self.shares.items()
            },
        }


def _results(node: xr.DataTree, entry: str, looks: Looks) -> _Results:
    outcomes = [outcome for outcome in OUTCOMES if outcome != "logit_difference" or takes_labels(node, entry)]
    effects = {outcome: intervention_effects(node, entry, outcome, looks=looks) for outcome in outcomes}
    if not set(_COLUMNS) & set(axes_of(effects["correct"])):
        effects["entropy"] = intervention_effects(node, entry, "entropy", looks=looks)
    try:
        return _Results(effects, {outcome: mediation(node, entry, outcome) for outcome in outcomes}, "")
    except FAULTS:
        raise
    except StoreError as error:  # it takes from no other model
        return _Results(effects, {}, str(error))


def _places(changed: xr.Dataset, order: Order) -> Json | None:
    """Return the row and the column of each change in a map; None where layers alone tell changes apart."""
    axes = axes_of(changed)
    if not axes:
        return None
    names = [str(name).partition(", ")[2] for name in changed["intervention"].values[order]]
    told = {axis: [_word(axis, value) for value in changed[axis].values[order].tolist()] for axis in axes}
    within = [axis for axis in _COLUMNS if axis in axes and not (axis == "head" and "receiver" in axes)]
    rows, columns = [], []
    for number, name in enumerate(names):
        columns.append(", ".join(filter(None, (told[axis][number] for axis in within))))
        for axis in reversed(within):
            name = name.removesuffix(f"{_BEFORE[axis]}{told[axis][number]}")
        rows.append(name)
    return {"columns": ", ".join(_COLUMNS[axis] for axis in within), "row": rows, "column": columns}


def _word(axis: str, value: str | float) -> str:
    """Return an axis's value of a change in words, "" where it has none."""
    if value == AXES[axis]:
        return ""
    return value if isinstance(value, str) else f"{value:g}"


def _columns(result: xr.Dataset, order: Order, *names: str) -> Json:
    return {name: rounded(result[name][order]) for name in names}


def _map(result: xr.Dataset, order: Order) -> Json:
    """Return effects as [changed][layer], and where they are significant."""
    turned = result.transpose("intervention", "layer").isel(intervention=order)
    return {
        "layer": [int(layer) for layer in result["layer"].values],
        "effect": rounded(turned["effect"]),
        "sure": (turned["p_adjusted"].values < ALPHA).astype(int).tolist(),
    }


def _shares(result: xr.Dataset, order: Order) -> Json:
    return _columns(result, order, "share", "low", "high") | {"total": rounded(result["total"][0])}
