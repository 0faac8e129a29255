"""Which layers tell the levels of a factor apart?"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from store.analysis.between import separations
from store.analysis.changes import stage_of
from store.analysis.components import Components, Floats
from store.analysis.families import STARTS, add_adjusted
from store.analysis.groups import Groups, read_groups
from store.analysis.inference import CONFIDENCE, inferred
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data, layer_blocks, stage_nodes, variable
from store.analysis.permutation import CHUNK, share_at_least
from store.analysis.results import MISSING, labelled
from store.analysis.runs import over_seeds

PERMUTATIONS = 999


def layer_specialisation(
    data: Data,
    factor: str,
    name: str = "entropy",
    *,
    bins: int = 8,
    paired: bool | None = None,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Return how well the variable `name` separates each level of a factor from the others, layer by layer.

    Result: `auc` (level, layer, position, …), the chance that a value of the level is above one of the others
    (one against the rest), a mean over seeds, with `low`, `high`, `auc_p`, `auc_p_adjusted` (over all of
    these), over seeds and examples as in `change`. For these trained models alone, on examples' means over
    seeds: `mutual_information` (layer, …) of level and value in `bins` quantile bins, in nat, beside its mean
    under permutation, `mutual_information_null` (the plug-in estimate is never 0); `auc_p_these_models` and
    `mutual_information_p` by permutation of the levels within examples, or their groups (between them where
    levels have examples of their own), and `…_p_adjusted`, corrected over the layers. `missing` (level):
    examples left out. Reads layers by blocks.
    """
    stage = stage_of(name)
    parts, seedwise = [], []
    for layers in layer_blocks(variable(next(iter(stage_nodes(data, stage).values())), name)):
        groups = read_groups(data, name, factor, stage, layers=layers, paired=paired).comparable()
        parts.append(_separated(groups, bins, permutations, seed))
        seedwise.append(separations(groups.groups, groups.paired))
    result = xr.concat(parts, "layer", data_vars="minimal") if len(parts) > 1 else parts[0]
    like = result["auc_p_these_models"]
    axis = like.dims.index("layer") - 1 if "layer" in like.dims else None
    own = [
        inferred(
            Components.join(blocks, axis or 0),
            family=axis,
            confidence=confidence,
            share=True,
            within=(-1.0, 1.0),
        )
        for blocks in zip(*seedwise, strict=True)
    ]
    columns = {
        "auc": (
            [(1 + one.mean) / 2 for one in own],
            "chance that a value of the level is above one of the others",
        ),
        "low": ([(1 + one.low) / 2 for one in own], "AUC, lower bound"),
        "high": ([(1 + one.high) / 2 for one in own], "AUC, upper bound"),
        "auc_p": ([one.p for one in own], "p value of the AUC, two-sided"),
        STARTS: ([one.p_family for one in own], "p value, variances between seeds shared"),
    }
    for name, (values, title) in columns.items():
        result[name] = like.copy(data=np.stack(values)).assign_attrs(units="1", long_name=title)
    words = add_adjusted(result, "auc_p", correction, factor)
    for title in ("auc_p_these_models", "mutual_information_p"):
        add_adjusted(result, title, correction, factor, family="layers")
    exchanged = f"of levels within {groups.units}" if groups.paired else f"of {groups.units} between levels"
    result.attrs["method"] = (
        f"Separation of the levels of {factor} by {name}, {groups.sizes}, "
        f"{groups.seeds}: area under the ROC curve by seed, one level against the rest, "
        f"over seeds and {groups.units} as random factors, {words}; mutual information with {bins} quantile "
        f"bins, its p values from {permutations} permutations {exchanged} (random seed {seed}) for these "
        f"trained models; {int(result['missing'].sum())} values missing."
    )
    return result


def separation(
    values: Floats,
    counts: Sequence[int],
    paired: bool,
    bins: int,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    units: NDArray[np.intp] | None = None,
) -> dict[str, Floats]:
    """Return AUC [group, column] and mutual information [column] with permutation p values.

    values: [examples of all groups, one group after the other, columns], without NaN. units: of each of
    these, examples that are exchanged together (default: each alone); equal ones of paired groups are one.
    """
    total = sum(counts)
    ranks = np.asarray(rankdata(values, axis=0))
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], axis=0)
    place = (values[None] > edges[:, None]).sum(axis=0)
    one_hot = (place[..., None] == np.arange(bins)).reshape(total, -1).astype(np.float32)
    auc, information = [], []
    for members in _memberships(
        counts, paired, permutations, seed, np.arange(total) if units is None else units
    ):
        n = members.sum(axis=2)[..., None].astype(float)
        auc.append((members @ ranks - n * (n + 1) / 2) / (n * (total - n)))
        joint = (members.astype(np.float32) @ one_hot).astype(float) / total
        information.append(_mutual_information(joint.reshape(*joint.shape[:2], -1, bins)))
    auc_null, information_null = np.concatenate(auc, axis=1), np.concatenate(information)
    return {
        "auc": auc_null[:, 0],
        "auc_p": np.stack([share_at_least(np.abs(null - 0.5)) for null in auc_null]),
        "mutual_information": information_null[0],
        "mutual_information_null": information_null[1:].mean(axis=0),
        "mutual_information_p": share_at_least(information_null),
    }


def _memberships(
    counts: Sequence[int], paired: bool, permutations: int, seed: int, units: NDArray[np.intp]
) -> Iterator[NDArray[np.bool_]]:
    """Yield chunks of memberships [group, permutation, examples of all groups], the data's own first."""
    rng = np.random.default_rng(seed)
    groups = np.arange(len(counts))[:, None, None]
    own = np.repeat(np.arange(len(counts)), counts)
    yield own[None] == groups
    if paired:  # the levels of a unit's examples change places
        place = np.unique(units[: counts[0]], return_inverse=True)[1]
        labels = np.tile(np.arange(len(counts))[:, None], place.max() + 1)
    else:  # units change levels
        first, place = np.unique(units, return_index=True, return_inverse=True)[1:]
        labels = own[first]
    for start in range(0, permutations, CHUNK):
        rows = min(CHUNK, permutations - start)
        if paired:
            drawn = rng.permuted(np.tile(labels, (rows, 1, 1)), axis=1)
            yield drawn[:, :, place].reshape(rows, -1) == groups
        else:
            yield rng.permuted(np.tile(labels, (rows, 1)), axis=1)[:, place] == groups


def _mutual_information(joint: Floats) -> Floats:
    """Return the mutual information [permutation, column] of joint [group, permutation, column, bin], nat."""
    marginal = joint.sum(axis=0, keepdims=True) * joint.sum(axis=3, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(joint > 0, joint * np.log(joint / marginal), 0).sum(axis=(0, 3)))


def _separated(groups: Groups, bins: int, permutations: int, seed: int) -> xr.Dataset:
    values = [over_seeds(group.values) for group in groups.groups]
    there = [np.asarray(np.isfinite(own).reshape(len(own), -1).all(axis=1)) for own in values]
    if groups.paired:
        there = [np.logical_and.reduce(there)] * len(there)
    kept = [own[whole].reshape(whole.sum(), -1) for own, whole in zip(values, there, strict=True)]
    counts = [len(own) for own in kept]
    exchanged = np.concatenate(
        [
            group.units[whole] + (0 if groups.paired else 10**9 * place)
            for place, (group, whole) in enumerate(zip(groups.groups, there, strict=True))
        ]
    )
    found = separation(np.concatenate(kept), counts, groups.paired, bins, permutations, seed, exchanged)
    found["auc_p_these_models"] = found.pop("auc_p")
    del found["auc"]
    like = groups.groups[0].like
    titles = {
        "auc_p_these_models": ("1", "p value of the AUC for these trained models, two-sided"),
        "mutual_information": ("nat", "mutual information of level and value"),
        "mutual_information_null": ("nat", "mean mutual information under permutation"),
        "mutual_information_p": ("1", "p value of the mutual information for these trained models"),
    }
    by_level = like.expand_dims(level=groups.coordinate)
    result = xr.Dataset()
    for name, (units, title) in titles.items():
        template = by_level if name.startswith("auc") else like
        result = result.merge(labelled(template, {name: (found[name].reshape(template.shape), units, title)}))
    lost = [len(whole) - number for whole, number in zip(there, counts, strict=True)]
    result = result.assign_coords(level=groups.coordinate)
    return result.assign(missing=("level", lost, {"units": "1", "long_name": MISSING}))
