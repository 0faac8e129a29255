"""Cluster-based permutation tests over contiguous layers."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from store.analysis.changes import contrast, without_units
from store.analysis.nodes import Data
from store.analysis.permutation import PERMUTATIONS, Unit, flips_in_words, signs, units_of
from store.analysis.resampling import Floats
from store.analysis.results import by_level, labelled
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
    sum of |t|. Result, by (level, …, layer): `t`, `cluster` (1, 2, … from the first layer; 0 outside) and
    `p_value` of the layer's cluster against the largest mass of each sign flip, NaN outside. It holds for
    all layers of one position together; a cluster's exact borders are not tested. unit: as in `sign_flip`;
    one with a missing value anywhere is left out (`missing`, by level).
    """
    paired = contrast(data, variable, factor, baseline, level)
    if "layer" not in paired["difference"].dims:
        raise StoreError(f"{variable}: expected a variable by layer, found {paired['difference'].dims}")
    parts, used = [], set()
    for own in paired["difference"].transpose("level", ..., "layer"):
        values, chosen = units_of(own, unit)
        whole = values[np.isfinite(values).reshape(len(values), -1).all(axis=1)]
        if len(whole) < 2:
            raise StoreError(f"{variable}: expected two {chosen}s without missing values, found {len(whole)}")
        used.add((len(whole), chosen))
        flips = signs(len(whole), permutations, seed)
        found = cluster_p(whole.reshape(len(whole), -1, whole.shape[-1]), flips, alpha)
        t, label, p = (column.reshape(whole.shape[1:]) for column in found)
        columns = {
            "t": (t, "1", "t of the difference"),
            "cluster": (label, "1", "cluster of layers, 0 = none"),
            "p_value": (p, "1", "p value of the cluster, two-sided"),
        }
        lost = ((), len(values) - len(whole), {"units": "1", "long_name": f"{chosen}s left out"})
        parts.append(labelled(without_units(own), columns).assign(missing=lost))
    result = by_level(parts, paired["level"])
    result.attrs = paired.attrs | {
        "method": f"{paired.attrs['method'].removesuffix('.')}; cluster-based permutation test over "
        f"contiguous layers (threshold two-sided p < {alpha}, statistic the largest sum of |t|), which "
        f"corrects across layers, {flips_in_words(used, permutations, seed)}; "
        f"{int(result['missing'].sum())} units left out."
    }
    return result


def cluster_p(values: Floats, flips: Floats, alpha: float) -> tuple[Floats, NDArray[np.int32], Floats]:
    """Return t, cluster numbers and cluster p values [series, layer] of differences [unit, series, layer]."""
    units = len(values)
    bound = stats.t.ppf(1 - alpha / 2, units - 1)
    t, p = (np.full(values.shape[1:], np.nan) for _ in range(2))
    label = np.zeros(values.shape[1:], np.int32)
    for series in range(values.shape[1]):
        x = values[:, series]
        means = flips @ x / units
        spread = np.maximum((x**2).mean(axis=0) - means**2, 0) / (units - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            every = np.nan_to_num(means / np.sqrt(spread), posinf=1e9, neginf=-1e9)
        mass = _running_mass(every, bound)
        t[series] = every[0]
        label[series] = _label(every[0], bound)
        largest = mass.max(axis=1)
        for number in range(1, label[series].max() + 1):
            own = label[series] == number
            p[series, own] = (largest >= mass[0, own].max() * (1 - 1e-9)).mean()
    return t, label, p


def _running_mass(t: Floats, bound: float) -> Floats:
    """Return, at each layer, the sum of |t| of the cluster so far [permutation, layer]."""
    mass = np.where(np.abs(t) > bound, np.abs(t), 0.0)
    for layer in range(1, t.shape[1]):
        goes_on = (mass[:, layer] > 0) & (np.sign(t[:, layer]) == np.sign(t[:, layer - 1]))
        mass[:, layer] += np.where(goes_on, mass[:, layer - 1], 0)
    return mass


def _label(t: Floats, bound: float) -> NDArray[np.int32]:
    """Return the number of each layer's cluster [layer], 0 outside."""
    side = np.where(np.abs(t) > bound, np.sign(t), 0)
    starts = (side != 0) & (side != np.concatenate([[0], side[:-1]]))
    return np.where(side != 0, np.cumsum(starts), 0).astype(np.int32)
