"""Statistics of each seed's values, compared between levels by the one inference over seeds and examples.

A statistic such as a variance is no mean, but each run's has pseudo-values whose mean it is and whose spread
over examples shows how unsure it is; those are inferred like any other values.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from store.analysis.components import Components, Floats
from store.analysis.groups import LevelValues

Pseudo = Callable[[Floats], Floats]


def difference(base: LevelValues, group: LevelValues, paired: bool, pseudo: Pseudo) -> Components:
    """Return the components of a statistic of `group` less that of `base`, seed by seed.

    pseudo: from values [seed, example, *rest], NaN for an example without a value in every seed, to
    pseudo-values of the same shape. Seeds that only one of them has are left out.
    """
    x, y = (_whole(level_values) for level_values in common_seeds([base, group]))
    if paired:
        valid = np.isfinite(x) & np.isfinite(y)
        x, y = np.where(valid, x, np.nan), np.where(valid, y, np.nan)
        return Components.of(pseudo(y) - pseudo(x), group.labels)
    return Components.of(pseudo(y), group.labels).minus(Components.of(pseudo(x), base.labels))


def separations(groups: Sequence[LevelValues], paired: bool, *, spread: bool = False) -> list[Components]:
    """Return, of each group, the components of Cliff's delta against all others together: 2 AUC − 1.

    By seed; pseudo-values are the placements of DeLong et al. (1988, Biometrics 44). spread: of the distance
    of values from the seed's median, which tells groups apart that lie alike and spread unlike.
    """
    values = [_whole(level_values) for level_values in common_seeds(groups)]
    if spread:
        centre = np.nanmedian(np.concatenate(values, axis=1), axis=1, keepdims=True)
        values = [np.abs(level_values - centre) for level_values in values]
    if paired:
        valid = np.isfinite(np.stack(values)).all(axis=0)
        values = [np.where(valid, level_values, np.nan) for level_values in values]
    components = []
    for number, group in enumerate(groups):
        others = [level_values for place, level_values in enumerate(values) if place != number]
        above, below = _placements(values[number], np.concatenate(others, axis=1))
        known = np.isfinite(above)
        with np.errstate(divide="ignore", invalid="ignore"):
            auc = np.where(known, above, 0.0).sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True)
        if paired:
            rest = np.mean(np.split(below, len(others), axis=1), axis=0)
            components.append(Components.of(2 * (above + rest - auc) - 1, group.labels))
        else:
            names = [other for place, other in enumerate(groups) if place != number]
            components.append(
                Components.of(2 * above - 1, group.labels).minus(
                    Components.of(2 * (auc - below), _joined(names))
                )
            )
    return components


def log_variances(values: Floats) -> Floats:
    """Return Miller's (1968) jackknife pseudo-values of log variances over examples, as `values`.

    values: [seed, example, *rest].
    """
    valid = np.isfinite(values)
    n = valid.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(valid, values, 0.0)
        square = np.where(valid, values - x.sum(axis=1, keepdims=True) / n, 0.0) ** 2
        total = square.sum(axis=1, keepdims=True)
        without = np.maximum(total - square * n / (n - 1), 0) / (n - 2)
        pseudo_values = n * np.log(total / (n - 1)) - (n - 1) * np.log(without)
    return np.where(valid & np.isfinite(pseudo_values), pseudo_values, np.nan)


def common_seeds(groups: Sequence[LevelValues]) -> list[Floats]:
    """Return the groups' values by seed [seed, example, *rest], of the seeds that all have."""
    runs = [group.runs for group in groups]
    seeds = [name for name in runs[0].seeds if all(name in run.seeds for run in runs)]
    if not seeds:
        return [np.full_like(run.values[:1], np.nan) for run in runs]
    return [run.values[[run.seeds.index(name) for name in seeds]] for run in runs]


def _whole(values: Floats) -> Floats:
    """Return values with NaN for an example that lacks one in a seed which has others."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(values))
    return np.where((finite | ~np.asarray(finite.any(axis=1))[:, None]).all(axis=0), values, np.nan)


def _placements(values: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return the share of others below each own value, and of own above each other [seed, example, *rest]."""
    both = np.concatenate([values, others], axis=1)
    count = values.shape[1]
    ranked = stats.rankdata(both, axis=1, nan_policy="omit")
    alone = [stats.rankdata(part, axis=1, nan_policy="omit") for part in (values, others)]
    n, m = (np.isfinite(part).sum(axis=1, keepdims=True) for part in (values, others))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (ranked[:, :count] - alone[0]) / m, 1 - (ranked[:, count:] - alone[1]) / n


def _joined(groups: Sequence[LevelValues]) -> NDArray[Any] | None:
    """Return the groups of examples of several levels, one after the other."""
    if not any(group.grouped for group in groups):
        return None
    return np.concatenate([group.units + 10**9 * place for place, group in enumerate(groups)])
