"""Accuracies by a logistic mixed model: a check of what the one inference says, by other assumptions.

logit P(correct) = condition + training + example (+ group) + what the example (or group) reacts by to the
condition: crossed random effects, normal on the scale of log odds. Without the last, intervals are too
narrow where examples react, the more so the more seeds there are (Barr et al., 2013, J. Memory and Language
68). The random effects and the fixed ones are integrated out by Laplace's approximation (Breslow & Clayton,
1993, JASA 88), the latter with a flat prior, as REML does; the interval is Wald's, with t at the degrees of
freedom of the trainings or of the examples (or groups), the fewer of both.
"""

from typing import Any

import numpy as np
import xarray as xr
from attrs import frozen
from numpy.typing import NDArray
from scipy import optimize, sparse, special

from store.analysis.changes import change
from store.analysis.components import Floats
from store.analysis.inference import CONFIDENCE
from store.analysis.nodes import Data, read_cell, stage_node, variable
from store.analysis.pairs import find_pairs
from store.analysis.results import by_level, count, labelled, level_coordinate
from store.analysis.runs import example_groups
from store.analysis.widths import t_p, t_quantile

SMALLEST, LARGEST = np.log(1e-3), np.log(10.0)  # of standard deviations
STEPS = 50  # of Newton's method


def accuracy_model(
    data: Data,
    factor: str,
    baseline: Any = None,
    level: Any = None,
    *,
    outcome: str = "correct",
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return what a factor's levels change in the odds of a right answer, by a logistic mixed model.

    Args:
        outcome: correct or generated_correct.

    Returns:
        Result, by level: `odds_ratio` against the baseline, `low`, `high`, `p_value`; `training_sd`,
            `example_sd`, (where examples have groups) `group_sd`, and `reaction_sd` of what examples (or
            groups) react by to the level, standard deviations in log odds; `agrees`: 1 where `change` points
            the same way and both or neither leave out no change. Assumed are random effects that are normal.
            NaN for one seed, whose trainings cannot be told from the level.

    Raises:
        StoreError: for an outcome that is not 0 or 1.
    """
    dataset = stage_node(data, "evaluate", outcome)
    right = variable(dataset, outcome)
    pairs = find_pairs(dataset, factor, baseline, level)
    groups = example_groups(right)
    held = change(data, outcome, factor, baseline, level, confidence=confidence)
    parts = []
    for place, compared in enumerate(pairs.levels):
        present = pairs.condition[place] >= 0
        cells = [*pairs.reference[place][present], *pairs.condition[place][present]]
        models = fitted(np.stack([read_cell(right, cell) for cell in cells]), cells, groups, confidence)
        other = held.sel(level=compared)
        columns = {name: (models[name], "1", title) for name, title in TITLES.items() if name in models}
        same = _same(models, float(other["difference"]), float(other["p_value"]), 1 - confidence)
        columns["agrees"] = (same, "1", "whether `change` says the same")
        parts.append(labelled(xr.DataArray(0.0), columns))
    result = by_level(parts, level_coordinate(pairs.levels, f"{factor}, against {pairs.baseline}"))
    result.attrs = {"factor": factor, "baseline": str(pairs.baseline)}
    result.attrs["method"] = (
        f"Logistic mixed model of {outcome} by {factor} against {pairs.baseline}, with crossed random "
        f"intercepts of trainings and {'groups and ' if groups is not None else ''}examples, and random "
        f"reactions of {'groups' if groups is not None else 'examples'} to the level, "
        f"{count(right.sizes['example'], 'example')}, {count(pairs.condition.shape[1], 'pair')} of cells at "
        f"most; Laplace's approximation, {confidence:.0%} Wald intervals with t at the degrees of freedom of "
        f"the trainings or of the {'groups' if groups is not None else 'examples'}, the fewer of both."
    )
    return result


TITLES = {
    "odds_ratio": "odds ratio of a right answer",
    "low": "odds ratio, lower bound",
    "high": "odds ratio, upper bound",
    "p_value": "p value of an odds ratio of 1, two-sided",
    "training_sd": "standard deviation of trainings, in log odds",
    "example_sd": "standard deviation of examples, in log odds",
    "group_sd": "standard deviation of groups of examples, in log odds",
    "reaction_sd": "standard deviation of the reactions to the level of examples or groups, in log odds",
}


def _same(model: dict[str, float], difference: float, p: float, alpha: float) -> float:
    """Return 1 where both leave out no change in the same direction, or neither does, else 0."""
    if not np.isfinite(model["p_value"]):
        return np.nan
    sure = model["p_value"] < alpha
    same_side = (difference > 0) == (model["odds_ratio"] > 1)
    return float(sure == (p < alpha) and (same_side or not sure))


def fitted(
    right: Floats, cells: list[Any], groups: NDArray[Any] | None, confidence: float
) -> dict[str, float]:
    """Return the odds ratio of the second half of the rows of answers [cell, example] against the first."""
    half = len(cells) // 2
    cell, example = np.nonzero(np.isfinite(right))
    training = np.unique(np.asarray(cells), return_inverse=True)[1]
    terms, reacts = {"training_sd": training[cell], "example_sd": example}, example
    if groups is not None and len(set(groups.tolist())) < len(groups):
        terms["group_sd"] = reacts = np.asarray(groups)[example]
    terms["reaction_sd"] = 2 * reacts + (cell >= half)
    model = LogisticModel.of(right[cell, example], (cell >= half).astype(float), list(terms.values()))
    estimate, error, deviations = model.fit()
    deviations[-1] *= np.sqrt(2)  # of the difference between two levels
    df = min(len(set(training.tolist())) - 2, len(set(reacts.tolist())) - 1)
    wide = float(t_quantile(1 - confidence, max(df, 1))) * error if df > 0 else np.nan
    p = float(t_p(estimate, error**2, max(df, 1))) if df > 0 else np.nan
    numbers = {"odds_ratio": estimate, "low": estimate - wide, "high": estimate + wide}
    return {
        **{name: float(np.exp(np.clip(value, -700, 700))) for name, value in numbers.items()},
        **dict(zip(terms, deviations, strict=True)),
        "p_value": p,
    }


@frozen
class LogisticModel:
    """A logistic regression with an intercept, one predictor, and random intercepts of some groupings."""

    y: Floats
    design: Any
    """[row, coefficient], sparse: intercept, predictor, then one column for each unit of each grouping."""
    grouping: NDArray[np.intp]
    """Of each random coefficient, the number of its grouping."""

    @classmethod
    def of(cls, y: Floats, predictor: Floats, units: list[NDArray[Any]]) -> "LogisticModel":
        """Make the design of outcomes 0 or 1 [row]."""
        columns, grouping = [sparse.csr_array(np.column_stack([np.ones(len(y)), predictor]))], []
        for number, labels in enumerate(units):
            names, place = np.unique(labels, return_inverse=True)
            ones = (np.ones(len(y)), (np.arange(len(y)), place))
            columns.append(sparse.csr_array(ones, shape=(len(y), len(names))))
            grouping += [number] * len(names)
        return cls(y, sparse.hstack(columns).tocsr(), np.array(grouping))

    def fit(self) -> tuple[float, float, list[float]]:
        """Return the predictor's coefficient, its standard error, and the groupings' standard deviations."""
        start = np.zeros(self.design.shape[1])
        share = np.clip(self.y.mean(), 1e-3, 1 - 1e-3)
        start[0] = special.logit(share)
        state = {"coefficients": start}

        def loss(logs: Floats) -> float:
            value, state["coefficients"], _ = self._laplace(logs, state["coefficients"])
            return -value

        count = int(self.grouping.max()) + 1
        minimum = optimize.minimize(
            loss,
            np.log(np.full(count, 0.5)),
            method="L-BFGS-B",
            bounds=[(SMALLEST, LARGEST)] * count,
            options={"eps": 0.01, "ftol": 1e-6, "maxiter": 30},
        )
        _, coefficients, curvature = self._laplace(minimum.x, state["coefficients"])
        variance = np.linalg.inv(curvature)[1, 1]
        return float(coefficients[1]), float(np.sqrt(variance)), np.exp(minimum.x).tolist()

    def _laplace(self, logs: Floats, start: Floats) -> tuple[float, Floats, Floats]:
        """Return the log marginal likelihood, the coefficients where the integrand peaks, its curvature."""
        penalty = np.concatenate([np.full(2, 1e-6), np.exp(-2 * logs)[self.grouping]])
        coefficients = start

        def height(at: Floats) -> float:
            eta = self.design @ at
            return float((self.y * eta - np.logaddexp(0, eta)).sum() - (penalty * at**2).sum() / 2)

        best = height(coefficients)
        for _ in range(STEPS):
            p = special.expit(self.design @ coefficients)
            weight = np.maximum(p * (1 - p), 1e-10)
            curvature = (self.design.T @ (self.design * weight[:, None])).toarray() + np.diag(penalty)
            step = np.linalg.solve(curvature, self.design.T @ (self.y - p) - penalty * coefficients)
            while (now := height(coefficients + step)) < best - 1e-9:
                step = step / 2
            coefficients, gained, best = coefficients + step, now - best, now
            if gained < 1e-8:
                break
        logdet = np.linalg.slogdet(curvature)[1]
        return best + np.log(penalty[2:]).sum() / 2 - logdet / 2, coefficients, curvature
