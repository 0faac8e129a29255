"""Which layers tell the levels of a factor apart?"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from store.analysis.changes import stage_of
from store.analysis.groups import Groups, read_groups
from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import Data
from store.analysis.permutation import share_at_least
from store.analysis.resampling import Floats
from store.analysis.wording import spell_count

PERMUTATIONS = 999
CHUNK = 100  # permutations at a time, so that memory stays small


def layer_specialisation(
    data: Data,
    factor: str,
    variable: str = "entropy",
    *,
    bins: int = 8,
    paired: bool | None = None,
    correction: Correction = "holm",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Return how well a variable separates each level of a factor from the others, layer by layer.

    Result: `auc` (level, layer, position, …), the chance that a value of the level is above one of the others
    (one against the rest); `mutual_information` (layer, …) of the level and the value in `bins` quantile bins,
    in nat, beside its mean under permutation, `mutual_information_null` (the plug-in estimate is never 0);
    `auc_p` and `mutual_information_p` by permutation of the levels within examples (between them where levels
    have examples of their own), and `…_p_adjusted`, corrected across layers. Values are examples' means
    over seeds: the tests speak of these models.
    """
    groups = read_groups(data, variable, factor, stage_of(variable), paired=paired)
    values, missing, rest = _pooled(groups)
    found = separation(values, _counts(groups, values), groups.paired, bins, permutations, seed)
    like = groups.groups[0].like
    coordinates = {n: c for n, c in like.coords.items() if n in like.dims}
    result = xr.Dataset(coords={"level": groups.coordinate, **coordinates})
    titles = {
        "auc": ("1", "chance that a value of the level is above one of the others"),
        "auc_p": ("1", "p value of the AUC, two-sided"),
        "mutual_information": ("nat", "mutual information of level and value"),
        "mutual_information_null": ("nat", "mean mutual information under permutation"),
        "mutual_information_p": ("1", "p value of the mutual information"),
    }
    for name, (units, title) in titles.items():
        dims = ("level", *like.dims) if name.startswith("auc") else like.dims
        column = found[name].reshape(*found[name].shape[:-1], *rest)
        result[name] = (dims, column, {"units": units, "long_name": title})
    across = "layer" if "layer" in like.dims else "level"
    for name in ("auc_p", "mutual_information_p"):
        p = result[name]
        axis = p.dims.index(across) if across in p.dims else None
        adjusted = p.values if axis is None else adjust(p.values, axis, correction)
        title = f"{p.attrs['long_name']}, {NAMES[correction]} across {across}s"
        result[f"{name}_adjusted"] = p.copy(data=adjusted).assign_attrs(long_name=title)
    result["missing"] = ((), missing, {"units": "1", "long_name": "examples left out for a missing value"})
    result.attrs["method"] = (
        f"Separation of the levels of {factor} by {variable}, {groups.sizes} examples, means over "
        f"{spell_count(groups.seeds, 'seed')}: area under the ROC curve, one level against the rest, and mutual "
        f"information with {bins} quantile bins; p values from {permutations} permutations "
        f"{'of levels within examples' if groups.paired else 'of examples between levels'} (random seed {seed}), "
        f"for these models, {NAMES[correction]} across {across}s; {missing} examples left out for missing values."
    )
    return result


def separation(
    values: Floats,
    counts: list[int],
    paired: bool,
    bins: int,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Floats]:
    """Return AUC [group, column] and mutual information [column] with permutation p values.

    values: [examples of all groups, one group after the other, columns], without NaN.
    """
    total = sum(counts)
    ranks = _ranks(values)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], axis=0)
    place = (values[None] > edges[:, None]).sum(axis=0)
    one_hot = (place[..., None] == np.arange(bins)).reshape(total, -1).astype(np.float32)
    auc, information = [], []
    for members in _memberships(counts, paired, permutations, seed):
        n = np.array(counts, float)[:, None, None]
        u = np.stack([own @ ranks for own in members]) - n * (n + 1) / 2
        auc.append(u / (n * (total - n)))
        joint = (
            np.stack([own @ one_hot for own in members]).reshape(len(counts), -1, values.shape[1], bins)
            / total
        )
        information.append(_mutual_information(joint))
    auc_null = np.concatenate(auc, axis=1)
    information_null = np.concatenate(information, axis=0)
    return {
        "auc": auc_null[:, 0],
        "auc_p": np.stack([share_at_least(np.abs(null - 0.5)) for null in auc_null]),
        "mutual_information": information_null[0],
        "mutual_information_null": information_null[1:].mean(axis=0),
        "mutual_information_p": share_at_least(information_null),
    }


def _memberships(counts: list[int], paired: bool, permutations: int, seed: int) -> Iterator[list[Any]]:
    """Yield chunks of memberships, per group [permutation, examples of all groups]; the first is the data's."""
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(counts)), counts)
    yield [(own == group)[None].astype(np.float32) for group in range(len(counts))]
    for start in range(0, permutations, CHUNK):
        rows = min(CHUNK, permutations - start)
        if paired:
            drawn = np.tile(np.arange(len(counts))[:, None], (rows, 1, counts[0]))
            drawn = rng.permuted(drawn, axis=1).reshape(rows, -1)
        else:
            drawn = rng.permuted(np.tile(own, (rows, 1)), axis=1)
        yield [(drawn == group).astype(np.float32) for group in range(len(counts))]


def _mutual_information(joint: Floats) -> Floats:
    """Return the mutual information [permutation, column] of joint [group, permutation, column, bin], nat."""
    marginal = joint.sum(axis=0, keepdims=True) * joint.sum(axis=3, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(joint > 0, joint * np.log(joint / marginal), 0).sum(axis=(0, 3))  # type: ignore[no-any-return]


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=0), dtype=float)


def _pooled(groups: Groups) -> tuple[Floats, int, tuple[int, ...]]:
    """Return all groups' values [example, column], examples with a NaN left out, and how many those are."""
    parts = [group.values.mean(axis=0) for group in groups.groups]
    rest = parts[0].shape[1:]
    flat = [part.reshape(len(part), -1) for part in parts]
    there = [np.isfinite(part).all(axis=1) for part in flat]
    if groups.paired:
        there = [np.logical_and.reduce(there)] * len(there)
    missing = sum(int((~kept).sum()) for kept in there)
    return np.concatenate([part[kept] for part, kept in zip(flat, there, strict=True)]), missing, rest


def _counts(groups: Groups, values: Floats) -> list[int]:
    parts = [np.isfinite(group.values.mean(axis=0)) for group in groups.groups]
    there = [part.reshape(len(part), -1).all(axis=1) for part in parts]
    if groups.paired:
        there = [np.logical_and.reduce(there)] * len(there)
    return [int(kept.sum()) for kept in there]
