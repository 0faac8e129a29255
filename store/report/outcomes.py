"""The sections on what was trained and predicted, by condition, from the analysis functions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from store.analysis import (
    calibration_curve,
    confusion,
    detect_failures,
    means,
    references,
    select,
    transfer_matrix,
)
from store.analysis.nodes import SEED, by_condition, factors, other_levels, stage_nodes
from store.analysis.task_scores import lower_is_better, task_scores, task_stage
from store.backend.records import Json
from store.errors import FAULTS, StoreError
from store.ledger.levels import level_text
from store.report.encode import rounded
from store.report.roles import roles
from store.report.stages import Places, datasets

POINTS = 200  # of a training curve
CALIBRATION = ("confidence", "accuracy", "count", "ece", "rmsce", "rmsce_low", "rmsce_high")
OF_EXAMPLES = {
    "accuracy": "correct",
    "mae": "absolute_error",
    "generated_accuracy": "generated_correct",
    "majority_accuracy": "majority_correct",
    "sampled_accuracy": "pass_at_1",
    "self_consistency": "self_consistency",
    "brier": "brier",
    "nll": "nll",
}
SCORES = ("brier", "nll")  # of the labels' probabilities; no summary holds them
TITLES = {
    "accuracy": "accuracy",
    "generated_accuracy": "accuracy, generated",
    "majority_accuracy": "accuracy of sampled majorities",
    "sampled_accuracy": "accuracy of single samples",
    "pass_at_n": "some sample right",
    "self_consistency": "samples that agree with their majority",
    "macro_f1": "macro-F1",
    "mae": "mean absolute error",
    "qwk": "quadratic weighted kappa",
    "brier": "Brier score",
    "nll": "negative log-likelihood (nat)",
    "ece": "calibration error",
    "unparsed_share": "unparsed answers",
    "train_accuracy": "accuracy on training examples",
    "train_loss": "training loss",
    "neutral_perplexity": "perplexity on neutral text",
    "neutral_kl": "KL from the model without adapter on neutral text (nat)",
}
SHARES = (
    "accuracy", "generated_accuracy", "majority_accuracy", "sampled_accuracy", "pass_at_n",
    "self_consistency", "unparsed_share", "train_accuracy",
)  # fmt: skip
LOWER_IS_BETTER = (
    "mae", "brier", "nll", "ece", "unparsed_share", "train_loss", "neutral_perplexity", "neutral_kl",
)  # fmt: skip


def results(node: xr.DataTree, places: Places) -> Json:
    """Return the metrics that the store has, each as [condition, mean, low, high, seeds, examples]."""
    summary = datasets(node, "summary")[0]
    scored = any("label_logprob" in part for part in stage_nodes(node, "evaluate").values())
    metrics = []
    for name, title in (TITLES | task_scores(summary)).items():
        if name not in summary and not (name in SCORES and scored):
            continue
        averages = _averages(node, name)
        columns = ("mean", "low", "high", "seeds", "examples")
        levels = [places[str(level)] for level in averages["level"].values]
        numbers = [rounded(averages[column].transpose("level", ...)) for column in columns]
        rows = [list(row) for row in zip(levels, *numbers, strict=True)]
        metrics.append(
            {
                "name": name,
                "title": title,
                "share": name in SHARES,
                "lower_is_better": name in LOWER_IS_BETTER or lower_is_better(name),
                "method": averages.attrs["method"],
                "rows": rows,
            }
        )
    known = references(node)
    for metric in metrics:
        metric["references"] = rounded(known.get(metric["name"], []))
    if not metrics:
        raise StoreError("the summary holds none of the known metrics")
    return {"metrics": metrics, "references": [str(name) for name in known["reference"].values]}


def _averages(node: xr.DataTree, name: str) -> xr.Dataset:
    """Return the means of a metric by condition: over examples, too, where these are known."""
    if name in OF_EXAMPLES:
        return means(node, OF_EXAMPLES[name], stage="evaluate")
    if task_stage(name):
        try:
            return means(node, name)
        except FAULTS:
            raise
        except StoreError:  # a number that is no mean of its documents
            pass
    return means(node, name, stage="summary")


def confusions(node: xr.DataTree, places: Places) -> Json:
    """Return counts [condition, gold, predicted] of the scored labels, else of the generated ones."""
    known = {str(name) for part in datasets(node, "evaluate") for name in part.data_vars}
    prediction = "prediction" if "prediction" in known else "generated_label"
    matrices = confusion(node, prediction=prediction)
    return {
        "prediction": prediction,
        "conditions": _conditions(matrices, places),
        "gold": [str(label) for label in matrices["gold"].values],
        "predicted": [str(label) for label in matrices["predicted"].values],
        "count": rounded(matrices["count"]),
        "method": matrices.attrs["method"],
    }


def calibration(node: xr.DataTree, places: Places) -> Json:
    """Return the reliability curve and calibration error of each condition."""
    datasets(node, "evaluate")
    curves = calibration_curve(node)
    return {
        "conditions": _conditions(curves, places),
        "bin": rounded(curves["bin"]),
        **{name: rounded(curves[name]) for name in CALIBRATION},
        "method": curves.attrs["method"],
    }


def training(node: xr.DataTree, places: Places) -> Json:
    """Return curves by condition: the mean over seeds, and the lowest and highest seed, of means of steps."""
    curves = []
    for whole in datasets(node, "train"):
        dataset = by_condition(whole)
        for name in (str(name) for name, values in dataset.data_vars.items() if values.dims[-1] == "step"):
            attrs = dataset[name].attrs
            words_of = {"title": str(attrs.get("long_name") or name), "units": str(attrs.get("units") or "1")}
            curves += [{"variable": name} | words_of | curve for curve in step_curves(dataset[name], places)]
    return {"curves": curves}


def step_curves(values: xr.DataArray, places: Places) -> Iterator[Json]:
    """Yield the curve over steps of each condition, of values (cell, step) that have conditions."""
    steps = np.array_split(values["step"].values, min(POINTS, values.sizes["step"]))
    all_cells = values.transpose("cell", "step").values.astype(float)
    binned = np.stack([part.mean(1) for part in np.array_split(all_cells, len(steps), 1)], axis=1)
    words = values.indexes["cell"].get_level_values("condition")
    for level in dict.fromkeys(words):
        chosen = binned[words == level]
        yield {
            "condition": places[str(level)],
            "step": rounded([part.mean() for part in steps]),
            **over_seeds(chosen),
            "seeds": len(chosen),
            "steps": values.sizes["step"],
        }


def over_seeds(values: NDArray[np.float64]) -> Json:
    """Return the mean over seeds of values [seed, point], and the lowest and highest seed."""
    return {
        "mean": rounded(values.mean(0)),
        "low": rounded(values.min(0)),
        "high": rounded(values.max(0)),
    }


def transfer(node: xr.DataTree, spec: Json) -> Json:
    """Return a matrix of each metric by training and test level, for every combination of other factors."""
    summary = datasets(node, "summary")[0]
    role_factors = roles(spec, summary)
    if role_factors.train is None or role_factors.test is None:
        raise StoreError(
            "the experiment has no pair of factors that sets what is trained and what is tested on"
        )
    matrices = []
    for within in other_levels(summary, [role_factors.train, role_factors.test]):
        part = select(node, **within) if within else node
        for metric in (name for name in ("accuracy", "generated_accuracy", "mae", "qwk") if name in summary):
            matrix = transfer_matrix(part, role_factors.train, role_factors.test, metric)
            matrices.append(
                {
                    "within": {name: level_text(level) for name, level in within.items()},
                    "metric": metric,
                    "title": TITLES[metric],
                    "share": metric in SHARES,
                    "train": [level_text(level) for level in matrix["train"].values],
                    "test": [level_text(level) for level in matrix["test"].values],
                    **{name: rounded(matrix[name]) for name in ("value", "low", "high")},
                    "method": matrix.attrs["method"],
                }
            )
    return {"train": role_factors.train, "test": role_factors.test, "matrices": matrices}


def signatures(node: xr.DataTree, spec: Json, places: Places) -> Json:
    """Return which failure signatures were found, in which cells, and why others cannot be measured."""
    summary = datasets(node, "summary")[0]
    by_role = roles(spec, summary)
    screened = detect_failures(node, train=by_role.train, test=by_role.test, dimension=by_role.dimension)
    names = factors(summary)
    seeds = summary.indexes["cell"].get_level_values(SEED) if SEED in summary.indexes["cell"].names else None
    words = by_condition(summary).indexes["cell"].get_level_values("condition") if names else None
    rows: list[Json] = []
    reasons: dict[str, list[str]] = {}
    for (s, c), measurable in np.ndenumerate(screened["measurable"].values):
        name, sentence = str(screened["signature"].values[s]), str(screened["sentence"].values[s, c])
        if not measurable:
            known = reasons.setdefault(name, [])
            known.extend([sentence] if sentence not in known else [])
            continue
        rows.append(
            {
                "signature": name,
                "condition": places[str(words[c]) if words is not None else "all"],
                "seed": "" if seeds is None else str(seeds[c]),
                "found": bool(screened["found"].values[s, c]),
                "value": rounded(screened["value"].values[s, c]),
                "sentence": sentence,
            }
        )
    thresholds = dict(zip(screened["signature"].values, rounded(screened["threshold"]), strict=True))
    method = screened.attrs["method"]
    return {"thresholds": thresholds, "rows": rows, "not_measurable": reasons, "method": method}


def _conditions(result: xr.Dataset, places: Places) -> list[Any]:
    return [places[str(level)] for level in result["level"].values]
