"""The section on what happens along a training: accuracy and lens statistics by step."""

from collections.abc import Iterator
from typing import Any

import xarray as xr

from store.analysis import means
from store.analysis.nodes import first_lens
from store.backend.records import Json
from store.errors import FAULTS, StoreError
from store.report.encode import rounded
from store.report.stages import Places, datasets

OF_ANSWERS = ("correct", "generated_correct")
OF_LAYERS = ("entropy", "kl_final", "max_prob", "watch_mass")


def along(node: xr.DataTree, places: Places) -> Json:
    """Return means over the steps of a training, by condition; of statistics also by layer and position."""
    curves: list[Json] = []
    methods: dict[str, str] = {}
    for dataset in datasets(node, "along", "no complete cell was measured along its training"):
        for name, averages in _averages(dataset):
            methods[name] = averages.attrs["method"]
            attrs = averages["mean"].attrs
            about = {"variable": name, "title": str(attrs["long_name"]), "units": str(attrs["units"])}
            for curve in _curves(averages):
                columns = {column: rounded(curve[column]) for column in ("mean", "low", "high")}
                place = {"condition": places[str(curve["level"].item())], **_place(curve)}
                curves.append(about | place | {"step": rounded(curve["step"])} | columns)
    if not curves:
        raise StoreError("along its trainings the study measured no accuracy and none of these statistics")
    return {"curves": curves, "methods": methods}


def _averages(dataset: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    for name in (*OF_ANSWERS, *OF_LAYERS):
        try:
            yield name, first_lens(means(dataset, name, stage="along"))
        except FAULTS:
            raise
        except StoreError:  # not every study scores, generates and records all
            continue


def _curves(averages: xr.Dataset) -> Iterator[xr.Dataset]:
    """Yield the means of one level, layer and position each."""
    dims = [dim for dim in ("level", "layer", "position") if dim in averages["mean"].dims]
    whole = averages[["mean", "low", "high"]]
    for number in range(whole.stack(curve=dims, create_index=False).sizes["curve"]):
        yield whole.stack(curve=dims, create_index=False).isel(curve=number)


def _place(curve: xr.Dataset) -> dict[str, Any]:
    layer = int(curve["layer"].item()) if "layer" in curve.coords else None
    return {"layer": layer, "position": str(curve["position"].item()) if "position" in curve.coords else ""}
