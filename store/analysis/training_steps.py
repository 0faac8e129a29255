"""What happens along a training: its steps as a factor, and from which step on a variable has changed."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr

from store.analysis.changes import change
from store.analysis.inference import CONFIDENCE
from store.analysis.nodes import SEED, Data, in_words, stage_node, stage_nodes
from store.analysis.shapes import joined, merge_shapes

STEP = "step"


def along(data: Data) -> xr.Dataset:
    """Return what was measured along trainings (`probe.at`) with `step` as one more factor of the cells.

    So each step is a level: `along().ablation.means("correct", "step")`, `along().ablation.change("entropy",
    "step")`, both with intervals over seeds and examples. Nothing is read. Variables that some
    cells lack are left out.

    Raises:
        StoreError: where no cell was measured along its training, or cells have several shapes.
    """
    nodes = stage_nodes(data, "along")
    shared = [name for name in next(iter(nodes.values())) if all(name in node for node in nodes.values())]
    # What one target alone has, such as texts that it generates, does not keep the others apart.
    merged = merge_shapes({name: node[shared] for name, node in nodes.items()})
    dataset = next(iter(merged.values())) if len(merged) == 1 else stage_node(data, "along")
    if STEP not in dataset.dims:
        return dataset
    parts = []
    for place, step in enumerate(dataset[STEP].values.tolist()):
        part = dataset.isel(step=place, drop=True)
        index = part.indexes["cell"]
        names = [*(name for name in index.names if name != SEED), STEP, *({SEED} & {*index.names})]
        columns = [[step] * len(index) if name == STEP else index.get_level_values(name) for name in names]
        whole = pd.MultiIndex.from_arrays(columns, names=names)
        bare = part.drop_vars(["cell", *index.names])
        parts.append(bare.assign_coords(xr.Coordinates.from_pandas_multiindex(whole, "cell")))
    method = f"Measured along trainings; the {len(parts)} steps are levels of the factor {STEP}."
    return joined(parts).assign_attrs(method=method)


def onset(data: Data, variable: str, *, confidence: float = CONFIDENCE, **options: Any) -> xr.Dataset:
    """Return the first step from which on a variable differs from what it was at the first one measured.

    Reads two steps at a time. A variable that varies more needs a larger change to be seen, so compare the
    shares of the change as well.

    Args:
        variable: as for `change`, such as correct or entropy.
        options: those of `change`.

    Returns:
        Result, by (layer, position, …): `onset`, the first step whose simultaneous interval leaves out 0, and
            those of all later steps do (NaN: none); by `level` (the step) also what `change` gives, and
            `share`, the part of the last step's difference that is reached.
    """
    changes = change(along(data), variable, STEP, confidence=confidence, **options)
    steps = np.asarray(changes["level"].values, float)
    apart = ((changes["simultaneous_low"] > 0) | (changes["simultaneous_high"] < 0)).transpose("level", ...)
    lasting = np.logical_and.accumulate(apart.values[::-1])[::-1]
    first = steps[lasting.argmax(0)]
    last = changes["difference"].isel(level=-1, drop=True)
    words = f"step from which on {in_words(variable)} differs from that at {changes.attrs['baseline']}"
    result = changes.assign(
        onset=(apart.dims[1:], np.where(lasting.any(0), first, np.nan), {"units": "1", "long_name": words}),
        share=(changes["difference"] / last.where(last != 0)).assign_attrs(
            units="1", long_name="share of the last step's difference"
        ),
    )
    result.attrs["method"] = (
        f"{changes.attrs['method'].removesuffix('.')}; onset: the first step from which on all simultaneous "
        "intervals leave out 0."
    )
    return result
