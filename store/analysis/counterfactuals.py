"""Labels behind explanations in the place of the model's own: outcomes by example and kind of explanation."""

from typing import Any

import numpy as np
import xarray as xr

Values = Any  # a DataArray; None where an outcome is not made of it
MEASURES = {
    "flipped": (
        ("counterfactual_prediction", "prediction"), "1", "share of labels that another explanation flips",
    ),
    "followed": (
        ("counterfactual_prediction", "argued_label"), "1", "share of labels that are those argued for",
    ),
    "log_odds_change": (
        ("counterfactual_logprob", "label_logprob"), "nat", "change in the true label's log-odds",
    ),
}  # fmt: skip
"""By name: the variables that they are made of, units, long_name."""


def measure(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return one of `MEASURES`, NaN where an example has no explanation of a kind."""
    sides = dataset["counterfactual_prediction"], dataset.get("counterfactual_logprob")
    if name == "log_odds_change":
        before = outcome_behind(dataset, "log_odds", None, dataset["label_logprob"])
        values = outcome_behind(dataset, "log_odds", *sides) - before
    else:
        values = outcome_behind(dataset, name, *sides)
    _, units, long_name = MEASURES[name]
    values = values.transpose("cell", "example", "counterfactual")
    return values.rename(name).assign_attrs(units=units, long_name=long_name)


def outcome_behind(dataset: xr.Dataset, outcome: str, prediction: Values, logprobs: Values) -> xr.DataArray:
    """Return an outcome of the labels that are predicted or scored behind some explanation."""
    if outcome == "log_odds":
        return log_odds(logprobs, dataset["gold"])
    if outcome == "argued_log_odds":
        return log_odds(logprobs, dataset["argued_label"])
    labels = {"correct": "gold", "flipped": "prediction", "followed": "argued_label"}
    other = dataset[labels[outcome]]
    agree = (prediction != other) if outcome == "flipped" else (prediction == other)
    known: xr.DataArray = agree.astype(float).where((prediction != "") & (other != ""))
    return known


def log_odds(logprobs: xr.DataArray, label: xr.DataArray) -> xr.DataArray:
    """Return the log-odds of a label among all labels, in nats; NaN where it is none of them."""
    scores = logprobs.astype(float)
    chosen = scores["label"] == label
    others = scores.where(~chosen)
    highest = others.max("label")
    with np.errstate(divide="ignore"):  # of examples without scores
        rest = highest + xr.apply_ufunc(np.log, xr.apply_ufunc(np.exp, others - highest).sum(dim="label"))
    odds: xr.DataArray = scores.where(chosen).max("label") - rest
    return odds
