"""Which layers tell the levels of a factor apart?"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from store.analysis.between import common_seeds, separations
from store.analysis.changes import stage_of
from store.analysis.components import Components, Floats
from store.analysis.families import STARTS, add_adjusted
from store.analysis.groups import Groups, read_groups
from store.analysis.inference import CONFIDENCE, inferred
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data, layer_blocks, stage_nodes, variable
from store.analysis.permutation import CHUNK, share_at_least
from store.analysis.results import MISSING, labelled
from store.errors import StoreError

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

    Reads layers by blocks.

    Returns:
        `auc` (level, layer, position, …), the chance that a value of the level is above one of the others
            (one against the rest), a mean over seeds, with `low`, `high`, `auc_p`, `auc_p_adjusted` (over all
            of these), over seeds and examples as in `change`. `mutual_information` (layer, …) of level and
            value in `bins` quantile bins of a seed, in nat, a mean over seeds, beside its mean under
            permutation, `mutual_information_null` (the plug-in estimate is never 0, and trainings that differ
            by chance raise it, too). `mutual_information_p` asks over seeds and examples whether levels
            differ in location or in spread (the first two components of Pearson's chi-squared; Best & Rayner,
            1996, Biometrics 52), by the AUC of values and that of their distances from the seed's median,
            corrected for the number of both. For these trained models alone: `auc_p_these_models` and
            `mutual_information_p_these_models` by permutation of the levels within examples, or their groups
            (between them where levels have examples of their own). `…_adjusted`: corrected over the layers.
            `missing` (level): examples left out.
    """
    stage = stage_of(name)
    parts, seedwise, spreads = [], [], []
    for layers in layer_blocks(variable(next(iter(stage_nodes(data, stage).values())), name)):
        groups = read_groups(data, name, factor, stage, layers=layers, paired=paired).comparable()
        parts.append(_separated(groups, bins, permutations, seed))
        seedwise.append(separations(groups.groups, groups.paired))
        spreads.append(separations(groups.groups, groups.paired, spread=True))
    result = xr.concat(parts, "layer", data_vars="minimal") if len(parts) > 1 else parts[0]
    like = result["auc_p_these_models"]
    axis = like.dims.index("layer") - 1 if "layer" in like.dims else None
    inferred_auc, apart = (
        [
            inferred(
                Components.join(blocks, axis or 0),
                family=axis,
                confidence=confidence,
                bounded=True,
                within=(-1.0, 1.0),
            )
            for blocks in zip(*parts_, strict=True)
        ]
        for parts_ in (seedwise, spreads)
    )
    columns = {
        "auc": (
            [(1 + one.mean) / 2 for one in inferred_auc],
            "chance that a value of the level is above one of the others",
        ),
        "low": ([(1 + one.low) / 2 for one in inferred_auc], "AUC, lower bound"),
        "high": ([(1 + one.high) / 2 for one in inferred_auc], "AUC, upper bound"),
        "auc_p": ([one.p for one in inferred_auc], "p value of the AUC, two-sided"),
        STARTS: ([one.p_family for one in inferred_auc], "p value, variances between seeds shared"),
    }
    for column, (values, title) in columns.items():
        result[column] = like.copy(data=np.stack(values)).assign_attrs(units="1", long_name=title)
    words = add_adjusted(result, "auc_p", correction, factor)
    like = result["mutual_information"]
    for column, which in (("mutual_information_p", "p"), (STARTS, "p_family")):
        p = _either([getattr(one, which) for one in (*inferred_auc, *apart)], len(inferred_auc))
        title = "p value of the mutual information, by location and spread"
        result[column] = like.copy(data=p).assign_attrs(units="1", long_name=title)
    for column in ("mutual_information_p", "auc_p_these_models", "mutual_information_p_these_models"):
        add_adjusted(result, column, correction, factor, family="layers")
    exchanged = f"of levels within {groups.units}" if groups.paired else f"of {groups.units} between levels"
    result.attrs["method"] = (
        f"Separation of the levels of {factor} by {name}, {groups.sizes}, {groups.seeds}: area under the ROC "
        f"curve by seed, one level against the rest, over seeds and {groups.units} as random factors, "
        f"{words}; mutual information by seed with {bins} quantile bins, its p values by the same inference "
        f"of location and spread; {permutations} permutations {exchanged} (random seed {seed}) for these "
        f"trained models; {int(result['missing'].sum())} values missing."
    )
    return result


def _either(p: list[Floats], levels: int) -> Floats:
    """Return the p value that any of some tests is not null (Bonferroni's); of two levels one says all."""
    tests = p[:1] + p[levels : levels + 1] if levels == 2 else p
    known = np.stack(tests)
    smallest = np.where(np.isnan(known), np.inf, known).min(axis=0)
    return np.where(np.isfinite(smallest), np.minimum(len(tests) * smallest, 1.0), np.nan)


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

    values: [seed, examples of all groups, one group after the other, columns], without NaN; both are means
    over seeds, all exchanged alike. units: of each example, those that are exchanged together (default: each
    alone); equal ones of paired groups are one.
    """
    total = sum(counts)
    ranks = np.asarray(rankdata(values, axis=1)).mean(axis=0)
    hots = []
    for group_values in values:
        edges = np.quantile(group_values, np.linspace(0, 1, bins + 1)[1:-1], axis=0)
        place = (group_values[None] > edges[:, None]).sum(axis=0)
        hots.append((place[..., None] == np.arange(bins)).reshape(total, -1).astype(np.float32))
    auc, information = [], []
    for members in _memberships(
        counts, paired, permutations, seed, np.arange(total) if units is None else units
    ):
        n = members.sum(axis=2)[..., None].astype(float)
        auc.append((members @ ranks - n * (n + 1) / 2) / (n * (total - n)))
        whole = members.astype(np.float32)
        joints = ((whole @ one_hot).astype(float) / total for one_hot in hots)
        informations = [_mutual_information(joint.reshape(*joint.shape[:2], -1, bins)) for joint in joints]
        information.append(np.mean(informations, axis=0))
    auc_null, information_null = np.concatenate(auc, axis=1), np.concatenate(information)
    return {
        "auc": auc_null[:, 0],
        "auc_p": np.stack([share_at_least(np.abs(null - 0.5)) for null in auc_null]),
        "mutual_information": information_null[0],
        "mutual_information_null": information_null[1:].mean(axis=0),
        "mutual_information_p_these_models": share_at_least(information_null),
    }


def _memberships(
    counts: Sequence[int], paired: bool, permutations: int, seed: int, units: NDArray[np.intp]
) -> Iterator[NDArray[np.bool_]]:
    """Yield chunks of memberships [group, permutation, examples of all groups], the data's own first."""
    rng = np.random.default_rng(seed)
    groups = np.arange(len(counts))[:, None, None]
    members = np.repeat(np.arange(len(counts)), counts)
    yield members[None] == groups
    if paired:  # the levels of a unit's examples change places
        place = np.unique(units[: counts[0]], return_inverse=True)[1]
        labels = np.tile(np.arange(len(counts))[:, None], place.max() + 1)
    else:  # units change levels
        first, place = np.unique(units, return_index=True, return_inverse=True)[1:]
        labels = members[first]
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
    values = common_seeds(groups.groups)
    valid = [
        np.asarray(np.isfinite(level_values).all(axis=(0, *range(2, level_values.ndim))))
        for level_values in values
    ]
    if groups.paired:
        valid = [np.logical_and.reduce(valid)] * len(valid)
    if not all(whole.any() for whole in valid):
        raise StoreError(
            "layer_specialisation: a level has no example with a value in every layer and position; select "
            "those layers and positions that have values"
        )
    kept = [
        level_values[:, whole].reshape(len(level_values), whole.sum(), -1)
        for level_values, whole in zip(values, valid, strict=True)
    ]
    counts = [level_values.shape[1] for level_values in kept]
    exchanged = np.concatenate(
        [
            group.units[whole] + (0 if groups.paired else 10**9 * place)
            for place, (group, whole) in enumerate(zip(groups.groups, valid, strict=True))
        ]
    )
    apart = separation(
        np.concatenate(kept, axis=1), counts, groups.paired, bins, permutations, seed, exchanged
    )
    apart["auc_p_these_models"] = apart.pop("auc_p")
    del apart["auc"]
    like = groups.groups[0].like
    titles = {
        "auc_p_these_models": ("1", "p value of the AUC for these trained models, two-sided"),
        "mutual_information": ("nat", "mutual information of level and value"),
        "mutual_information_null": ("nat", "mean mutual information under permutation"),
        "mutual_information_p_these_models": (
            "1",
            "p value of the mutual information for these trained models",
        ),
    }
    by_level = like.expand_dims(level=groups.coordinate)
    result = xr.Dataset()
    for name, (units, title) in titles.items():
        template = by_level if name.startswith("auc") else like
        result = result.merge(labelled(template, {name: (apart[name].reshape(template.shape), units, title)}))
    lost = [len(whole) - number for whole, number in zip(valid, counts, strict=True)]
    result = result.assign_coords(level=groups.coordinate)
    return result.assign(missing=("level", lost, {"units": "1", "long_name": MISSING}))
