"""How far several lenses read the same in a layer, from the top tokens that a probe stores of each."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from specs.common.names import LENS
from specs.common.spelling import alike
from store.analysis.condition_means import means_of
from store.analysis.inference import CONFIDENCE
from store.analysis.nodes import Data, stage_nodes
from store.analysis.results import grouped, intervals, seeds_of
from store.analysis.value_ranges import AGREEMENT, OVERLAP
from store.errors import StoreError

TITLES = {
    AGREEMENT: "same top token as through the {} lens",
    OVERLAP: "share of the {k} top tokens that the {} lens has, too",
}


def lens_agreement(
    data: Data,
    measure: Literal["top", "overlap"] = "top",
    by: str = "condition",
    *,
    reference: str | None = None,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return how much of what one lens reads in a layer the others read there, too.

    They read the same residual streams. Only the top tokens of their distributions are stored, so it is of
    these: two lenses that agree in none can still put much the same probability elsewhere. In the last layer
    all lenses are one.

    Args:
        measure: "top", whether both name the same most likely token; "overlap", the share of the kept top
            tokens (`probe.top_k`) that are among the other's, in whatever order.
        reference: the lens that the others are held against; by default the first of `probe.lens`.

    Returns:
        Result as of `means`, also by `lens`, the others: shares between 0 and 1. Examples that a lens cannot
            read are left out.

    Raises:
        StoreError: where layers were read through one lens, or no top tokens are kept.
    """
    nodes = [node for node in stage_nodes(data, "probe").values() if LENS in node.dims and "top_id" in node]
    if not nodes:
        raise StoreError("lens_agreement: expected several lenses in probe.lens, and a probe.top_k above 0")
    name = {"top": AGREEMENT, "overlap": OVERLAP}.get(measure)
    if name is None:
        raise StoreError(f'measure: found {measure!r}; expected "top" or "overlap"')
    known = [str(lens) for lens in nodes[0][LENS].values]
    reference = known[0] if reference is None else reference
    if any(reference not in node[LENS].values for node in nodes):
        raise StoreError(
            f"reference: found {reference!r}; expected {' or '.join(known)}{alike(reference, known)}"
        )
    title = TITLES[name].format(reference, k=nodes[0].sizes["top"])

    def values(cells: xr.Dataset) -> xr.DataArray:
        return _agreement(cells["top_id"], name, reference).assign_attrs(units="1", long_name=title)

    result = means_of(nodes, values, by, confidence)
    result.attrs["method"] = (
        f"Mean over examples by {by} of the {title}, {seeds_of(result)}; "
        f"{intervals(result, confidence, grouped(result))}."
    )
    return result


def _agreement(top_ids: xr.DataArray, name: str, reference: str) -> xr.DataArray:
    """Return shares (cell, example, …, lens) of the other lenses, NaN where one of both has no token."""
    ids = top_ids.transpose(..., LENS, "top").load()
    own = ids.sel({LENS: reference}, drop=True)
    others = ids.sel({LENS: [lens for lens in ids[LENS].values if lens != reference]})
    if name == AGREEMENT:
        same = (others.isel(top=0) == own.isel(top=0)).astype(float)
    else:
        found: Any = (others.values[..., :, None] == own.values[..., None, None, :]).any(axis=-1)
        same = others.copy(data=found).mean("top")
    lacking = (others.isel(top=0) < 0) | (own.isel(top=0) < 0)
    return same.where(~lacking, np.nan).rename(name).drop_vars("top", errors="ignore")
