"""Tests of runs of contiguous layers."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from store.analysis.changes import contrast, pair_values, without_units
from store.analysis.components import Components, Floats
from store.analysis.inference import inferred
from store.analysis.nodes import Data
from store.analysis.permutation import PERMUTATIONS, Unit, flips_in_words, signs, units_of
from store.analysis.results import Columns, by_level, count, labelled
from store.analysis.runs import by_seed, check_values, example_groups
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
    """Test runs of contiguous layers.

    A cluster: neighbouring layers whose differences pass the two-sided level `alpha`, each alone, with one
    sign.

    Args:
        unit: "auto" is random over seeds and examples, as `change`: a cluster's p value is the smallest of
            its layers' ones after Holm's correction (one seed: as "example"). "seed" and "example" flip the
            signs of whole trainings or of examples and compare a cluster's mass, the sum of |t|, with the
            largest one of each flip (Maris & Oostenveld, 2007, J. Neurosci. Methods 164); they speak of these
            examples, or of these trained models alone, and leave out a unit with a missing value (`missing`,
            by level).

    Returns:
        Result, by (level, …, layer): `t`, `cluster` (1, 2, … from the first layer; 0 outside) and `p_value`
            of the layer's cluster, NaN outside; `missing`. It holds for all layers of one position together;
            a cluster's exact borders are not tested.
    """
    paired = contrast(data, variable, factor, baseline, level)
    if "layer" not in paired["difference"].dims:
        raise StoreError(f"{variable}: expected a variable by layer, found {paired['difference'].dims}")
    parts, words = [], ""
    for of_level in paired["difference"].transpose("level", ..., "layer"):
        values, index = pair_values(of_level)
        runs = by_seed(values, index)
        if unit == "auto" and len(runs.seeds) > 1:
            check_values(values, variable)
            part, words = _inferred(runs.values, of_level, alpha)
        else:
            part, words = _flipped(of_level, variable, unit, alpha, permutations, seed)
        parts.append(part)
    result = by_level(parts, paired["level"])
    result.attrs = paired.attrs | {
        "method": f"{paired.attrs['method'].removesuffix('.')}; {words}; "
        f"{int(result['missing'].sum())} units left out."
    }
    return result


def _inferred(values: Floats, paired: xr.DataArray, alpha: float) -> tuple[xr.Dataset, str]:
    """Return clusters of differences [seed, example, *rest, layer] over random seeds and examples."""
    components = Components.of(values, example_groups(paired))
    inference_of_layers = inferred(components, family=components.mean.ndim - 1, confidence=1 - alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = inference_of_layers.mean / np.sqrt(components.variances.max(axis=0))
    side = np.where(inference_of_layers.p < alpha, np.sign(inference_of_layers.mean), 0)
    label = np.apply_along_axis(_numbered, -1, side)
    p = np.full(label.shape, np.nan)
    for place in np.ndindex(*label.shape[:-1]):
        for number in range(1, label[place].max() + 1):
            chosen = label[place] == number
            p[place][chosen] = inference_of_layers.p_adjusted[place][chosen].min()
    most = int(inference_of_layers.missing.max()) if inference_of_layers.missing.size else 0
    lost = ((), most, {"units": "1", "long_name": "examples left out, at most"})
    words = (
        f"runs of contiguous layers of which each passes two-sided p < {alpha} alone, "
        f"{count(len(values), 'seed')} and {count(values.shape[1], 'example')} random, p values the smallest "
        "of each run after Holm's correction across layers (variances between seeds shared among layers)"
    )
    return labelled(without_units(paired), _columns(t, label, p)).assign(missing=lost), words


def _flipped(
    paired: xr.DataArray, variable: str, unit: Unit, alpha: float, permutations: int, seed: int
) -> tuple[xr.Dataset, str]:
    """Return clusters of differences (pair, example, *rest, layer) by sign flips."""
    _, values, chosen = units_of(paired, unit)
    whole = values[np.isfinite(values).reshape(len(values), -1).all(axis=1)]
    if len(whole) < 2:
        raise StoreError(
            f"{variable}: expected two units ({chosen}) without missing values, found {len(whole)}"
        )
    flips = signs(len(whole), permutations, seed)
    t, label, p = cluster_p(whole.reshape(len(whole), -1, whole.shape[-1]), flips, alpha)
    shape = whole.shape[1:]
    lost = ((), len(values) - len(whole), {"units": "1", "long_name": f"units ({chosen}) left out"})
    words = (
        f"cluster-based permutation test over contiguous layers (threshold two-sided p < {alpha}, statistic "
        "the largest sum of |t|), which corrects across layers, "
        f"{flips_in_words({(len(whole), chosen)}, permutations, seed)}"
    )
    return labelled(
        without_units(paired), _columns(t.reshape(shape), label.reshape(shape), p.reshape(shape))
    ).assign(missing=lost), words


def _columns(t: Floats, label: NDArray[np.int32], p: Floats) -> Columns:
    return {
        "t": (t, "1", "t of the difference"),
        "cluster": (label, "1", "cluster of layers, 0 = none"),
        "p_value": (p, "1", "p value of the cluster, two-sided"),
    }


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
            in_cluster = label[series] == number
            p[series, in_cluster] = (largest >= mass[0, in_cluster].max() * (1 - 1e-9)).mean()
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
    return _numbered(np.where(np.abs(t) > bound, np.sign(t), 0))


def _numbered(side: Floats) -> NDArray[np.int32]:
    """Return the number of the run of each layer of one sign [layer], 0 where there is none."""
    starts = (side != 0) & (side != np.concatenate([[0], side[:-1]]))
    return np.where(side != 0, np.cumsum(starts), 0).astype(np.int32)
