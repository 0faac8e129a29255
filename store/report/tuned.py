"""The section on tuned lenses: their training, and the conditions that the logit lens reads alike."""

import xarray as xr

from store.analysis.nodes import by_condition, factors, levels, spell
from store.backend.records import Json
from store.report.outcomes import over_seeds, step_curves
from store.report.roles import paths_of
from store.report.stages import Places, datasets

LENS = ("probe.lens", "probe.tuned")  # what a factor of lenses sets


def tuned(node: xr.DataTree, spec: Json, places: Places) -> Json:
    """Return the training of each tuned lens, over steps and by layer, and which condition is its logit twin.

    The first step of a training is the logit lens. The curves of the twins are those of the section on
    layers.
    """
    curves: list[Json] = []
    layers: list[Json] = []
    for whole in datasets(node, "lens", "no complete cell has a tuned lens"):
        dataset = by_condition(whole)
        kl = dataset["translator_kl"].transpose("cell", "step", "layer").astype(float)
        curves += list(step_curves(kl.mean("layer"), places))
        words = dataset.indexes["cell"].get_level_values("condition")
        for level in levels(dataset, "condition"):
            of_level = kl.values[words == level]
            layers.append(
                {
                    "condition": places[str(level)],
                    "layer": [int(layer) for layer in dataset["layer"].values],
                    "first": over_seeds(of_level[:, 0]),
                    "last": over_seeds(of_level[:, -1]),
                }
            )
    twins = _twins(node, spec, places, {layer["condition"] for layer in layers})
    return {"curves": curves, "layers": layers, "twins": twins}


def _twins(node: xr.DataTree, spec: Json, places: Places, trained: set[int]) -> dict[str, int]:
    """Return by condition with a tuned lens the one without that differs in factors of the lens alone."""
    summary = datasets(node, "summary")[0]
    names = factors(summary)
    of_lens = {name for name, factor in spec.get("factors", {}).items() if _of_lens(paths_of(factor))}
    index = summary.indexes["cell"]
    conditions = dict.fromkeys(zip(*(index.get_level_values(name) for name in names), strict=True))
    rests = {
        places[spell(names, key)]: tuple(
            level for n, level in zip(names, key, strict=True) if n not in of_lens
        )
        for key in conditions
    }
    logit = {rest: place for place, rest in rests.items() if place not in trained}
    return {str(place): logit[rest] for place, rest in rests.items() if place in trained and rest in logit}


def _of_lens(paths: list[str]) -> bool:
    return bool(paths) and all(path.startswith(LENS) for path in paths)
