"""The sections on layers, by condition: lens statistics, and when examples saturate."""

from collections.abc import Iterator
from typing import Any

import xarray as xr

from specs.common.names import LENS, LENS_STATISTICS, STREAM
from specs.common.thresholds import SATURATED
from store.analysis import lens_agreement, means, saturation
from store.analysis.declared import chosen_contrasts
from store.analysis.layer_variables import layer_variable
from store.analysis.nodes import first_lens, levels, stage_nodes
from store.backend.records import Json
from store.errors import FAULTS, StoreError
from store.ledger.levels import level_text
from store.report.encode import rounded
from store.report.stages import Places, datasets

STATISTICS = ("entropy", "kl_final", "max_prob", "watch_mass")
DIVERGENCES = {
    "kl_against": "KL divergence, on the same input, from",
    "js_against": "Jensen-Shannon divergence, on the same input, from",
    "cka_against": "CKA of residual streams, on the same input, with",
    "procrustes_against": "Procrustes distance of residual streams, on the same input, from",
}
LABEL_ATTRIBUTION = "label_attribution"
TESTED = ("difference", "difference_low", "difference_high", "p_adjusted")
POINTS = ("mean", "low", "high")


def layers(node: xr.DataTree, places: Places) -> Json:
    """Return the mean of each lens statistic by condition, position and layer, with intervals."""
    curves: list[Json] = []
    methods: dict[str, str] = {}
    for dataset in probes(node):
        for name, title, averages in _averages(dataset):
            methods[name] = averages.attrs["method"]
            for level, position in _product(averages):
                curve = averages.sel(level=level, position=position)
                curves.append(
                    {
                        "condition": places[str(level)],
                        "position": str(position),
                        "statistic": name,
                        "title": title,
                        "units": str(averages["mean"].attrs["units"]),
                        "layer": [int(layer) for layer in curve["layer"].values],
                        **{column: rounded(curve[column]) for column in POINTS},
                    }
                )
    if not curves:
        raise StoreError("the probe recorded none of " + ", ".join(STATISTICS))
    return {"curves": curves, "methods": methods}


def _averages(dataset: xr.Dataset) -> Iterator[tuple[str, str, xr.Dataset]]:
    """Yield name, title and means of what is drawn by layer: statistics, and divergences of each model.

    Through each lens, where there are several; the first has the name alone.
    """
    for name in _drawn(dataset):
        averages = means(dataset, name)
        yield from _by_lens(name, str(averages["mean"].attrs["long_name"]), averages)
    for name, dim in _parted(dataset):
        averages = means(dataset, name)
        title = str(averages["mean"].attrs["long_name"])
        for part in averages[dim].values:
            of_part = averages.sel({dim: part}).assign_attrs(averages.attrs)
            yield f"{name}: {part}", f"{title}: {part}", of_part
    for name, title in DIVERGENCES.items():
        if name not in dataset:
            continue
        averages = means(dataset, name)
        for other in averages["against"].values:
            of_other = averages.sel(against=other).assign_attrs(averages.attrs)
            titled = f"{title} {'the untrained model' if other == 'base' else other}"
            yield from _by_lens(f"{name}: {other}", titled, of_other)
    yield from _agreements(dataset)


def _agreements(dataset: xr.Dataset) -> Iterator[tuple[str, str, xr.Dataset]]:
    """Yield how much the other lenses read as the first does."""
    if LENS not in dataset.dims or "top_id" not in dataset:
        return
    for measure in ("top", "overlap"):
        agreed = lens_agreement(dataset, measure)
        for lens in agreed[LENS].values:
            of_lens = agreed.sel({LENS: lens}, drop=True).assign_attrs(agreed.attrs)
            title = str(agreed["mean"].attrs["long_name"])
            yield f"lens agreement, {measure}: {lens} lens", f"{title}: {lens} lens", of_lens


def _by_lens(name: str, title: str, averages: xr.Dataset) -> Iterator[tuple[str, str, xr.Dataset]]:
    if LENS not in averages.dims:
        yield name, title, averages
        return
    for number, lens in enumerate(averages[LENS].values):
        through = averages.isel({LENS: number}, drop=True).assign_attrs(averages.attrs)
        yield f"{name}: {lens} lens" if number else name, f"{title}, {lens} lens", through


def _drawn(dataset: xr.Dataset) -> list[str]:
    """Return the statistics of layers that are drawn: some of the lens's, and all others."""
    beside = (
        str(name)
        for name, values in dataset.data_vars.items()
        if name not in LENS_STATISTICS
        and set(values.dims) - {LENS} == {"cell", "example", "layer", "position"}
    )
    return [*(name for name in STATISTICS if name in dataset), *beside]


def _parted(dataset: xr.Dataset) -> Iterator[tuple[str, str]]:
    """Yield what is drawn for each stream within a block, or each part of a logit, with the dim of these."""
    yield from ((name, "stream") for name in (f"{STREAM}{known}" for known in STATISTICS) if name in dataset)
    if layer_variable(dataset, LABEL_ATTRIBUTION) is not None:
        yield LABEL_ATTRIBUTION, "component"


def saturations(node: xr.DataTree, spec: Json, places: Places) -> Json:
    """Return the share of examples not yet saturated by condition, position and layer; and each contrast."""
    probes(node)
    # Its tests are those against declared baselines, below.
    saturated = first_lens(saturation(node, permutations=1))
    curves = []
    for level, position in _product(saturated):
        shown = saturated.sel(level=level, position=position)
        curves.append(
            {
                "condition": places[str(level)],
                "position": str(position),
                "layer": [int(layer) for layer in shown["layer"].values],
                "mean": rounded(shown["survival"]),
                "low": rounded(shown["low"]),
                "high": rounded(shown["high"]),
                **{name: rounded(shown[name]) for name in ("median_layer", "censored")},
            }
        )
    if all(curve["censored"] == 1 for curve in curves):
        raise StoreError(
            f"no example saturates: no top probability stays at {SATURATED} or more to the last layer"
        )
    return {"curves": curves, "method": saturated["survival"].attrs["method"], **_against(node, spec)}


def _against(node: xr.DataTree, spec: Json) -> Json:
    """Return the differences in the mean saturation layer between levels and their baselines."""
    summary = next(iter(stage_nodes(node, "summary").values()))
    tests, methods = [], []
    for factor, baseline in (
        (contrast.factor, contrast.baseline) for contrast in chosen_contrasts(spec, summary)
    ):
        try:
            saturated = first_lens(saturation(node, factor, baseline, permutations=1))
        except FAULTS:
            raise
        except StoreError:  # a contrast need not exist among the probed cells
            continue
        base = levels(summary, factor)[0] if baseline is None else baseline
        methods.append(saturated["difference"].attrs["method"])
        for level, position in _product(saturated):
            if str(level) != str(base):
                tested = saturated.sel(level=level, position=position)
                names = {"factor": factor, "level": level_text(level), "baseline": level_text(base)}
                numbers = {name: rounded(tested[name]) for name in TESTED}
                tests.append(names | {"position": str(position)} | numbers)
    return {"tests": tests, "test_methods": methods}


def probes(node: xr.DataTree) -> list[xr.Dataset]:
    """Return the probe's datasets, one per shape; StoreError when there is none."""
    return datasets(node, "probe", "no complete cell was probed")


def _product(result: xr.Dataset) -> list[tuple[Any, Any]]:
    return [(level, position) for level in result["level"].values for position in result["position"].values]
