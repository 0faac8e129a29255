"""Cluster-based permutation tests over contiguous layers."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from store.analysis.changes import contrast
from store.analysis.nodes import Data
from store.analysis.permutation import PERMUTATIONS, Unit, columns_like, covered, signs, units_of
from store.analysis.resampling import Floats
from store.analysis.wording import spell_count
from store.errors import StoreError


def clusters(
    data: Data,
    variable: str,
    factor: str,
    baseline: Any = None,
    level: Any = None,
    *,
    unit: Unit = "auto",
    alpha: float = 0.05,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Test runs of contiguous layers by their mass (Maris & Oostenveld, 2007, J. Neurosci. Methods 164).

    A cluster: neighbouring layers whose |t| passes the two-sided level `alpha`, of one sign; its mass: the
    sum of |t|. Result, by (level, position, layer): `t`, `cluster` (1, 2, … from the first layer; 0 outside)
    and `p_value` of the layer's cluster against the largest mass of each sign flip, NaN outside. It holds for
    all layers of one position together; a cluster's exact borders are not tested. unit: as in `sign_flip`.
    """
    paired = contrast(data, variable, factor, baseline, level)
    if "layer" not in paired["difference"].dims:
        raise StoreError(f"{variable}: expected a variable by layer, found {paired['difference'].dims}")
    found, used, counts = [], set(), set()
    for number in range(paired.sizes["level"]):
        difference = paired["difference"].isel(level=number)
        values, template, chosen = units_of(difference.transpose(..., "layer"), unit)
        used.add(chosen)
        values = values[np.isfinite(values).reshape(len(values), -1).all(axis=1)]
        counts.add(len(values))
        flips, _ = signs(len(values), permutations, seed)
        t, label, p = cluster_p(values.reshape(len(values), -1, values.shape[-1]), flips, alpha)
        shape = values.shape[1:]
        columns = {"t": t.reshape(shape), "cluster": label.reshape(shape), "p_value": p.reshape(shape)}
        found.append(columns_like(template, columns))
    result = xr.concat(found, "level").assign_coords(level=paired["level"])
    result["cluster"].attrs["long_name"] = "cluster of layers, 0 = none"
    result.attrs["method"] = (
        f"{paired.attrs['method'].removesuffix('.')}; cluster-based permutation test over contiguous layers "
        f"(threshold two-sided p < {alpha}, statistic the largest sum of |t|, "
        f"{permutations} sign flips of {spell_count(max(counts), ' or '.join(sorted(used)))}, random seed "
        f"{seed}), which corrects across layers{covered(used)}."
    )
    return result


def cluster_p(values: Floats, flips: Floats, alpha: float) -> tuple[Floats, NDArray[np.int32], Floats]:
    """Return t, cluster numbers and cluster p values [series, layer] of differences [unit, series, layer]."""
    units = len(values)
    bound = stats.t.ppf(1 - alpha / 2, units - 1)
    t = np.empty(values.shape[1:])
    label = np.zeros(values.shape[1:], np.int32)
    p = np.full(values.shape[1:], np.nan)
    for series in range(values.shape[1]):
        x = values[:, series]
        means = flips @ x / units
        with np.errstate(divide="ignore", invalid="ignore"):
            every = means / np.sqrt(np.maximum((x**2).mean(axis=0) - means**2, 0) / (units - 1))
        every = np.nan_to_num(every, nan=0.0, posinf=1e9, neginf=-1e9)
        mass = _running_mass(every, bound)
        t[series] = every[0]
        largest = mass.max(axis=1)
        label[series], totals = _label(every[0], mass[0], bound)
        for number, total in enumerate(totals, start=1):
            p[series, label[series] == number] = (largest >= total * (1 - 1e-9)).mean()
    return t, label, p


def _running_mass(t: Floats, bound: float) -> Floats:
    """Return, at each layer, the sum of |t| of the cluster so far [permutation, layer]."""
    mass = np.zeros_like(t)
    active = np.abs(t) > bound
    for layer in range(t.shape[1]):
        own = np.where(active[:, layer], np.abs(t[:, layer]), 0)
        if layer:
            goes_on = active[:, layer] & (np.sign(t[:, layer]) == np.sign(t[:, layer - 1]))
            own = own + np.where(goes_on, mass[:, layer - 1], 0)
        mass[:, layer] = own
    return mass


def _label(t: Floats, mass: Floats, bound: float) -> tuple[NDArray[np.int32], list[float]]:
    label = np.zeros(len(t), np.int32)
    totals: list[float] = []
    for layer in range(len(t)):
        if abs(t[layer]) > bound:
            if layer and label[layer - 1] and np.sign(t[layer]) == np.sign(t[layer - 1]):
                totals[-1] = mass[layer]
            else:
                totals.append(mass[layer])
            label[layer] = len(totals)
    return label, totals
