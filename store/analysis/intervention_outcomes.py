"""What is measured of changed models, by example: answers, their probabilities, entropies of layers."""

import numpy as np
import xarray as xr
from scipy.special import expit

from specs.common.spelling import hint
from store.analysis.components import Floats
from store.analysis.counterfactuals import log_odds
from store.analysis.nodes import Data, numbers, stage_nodes, variable
from store.errors import StoreError

OUTCOMES = {
    "correct": ("1", "accuracy"),
    "log_odds": ("nat", "log-odds of the true label among the labels"),
    "probability": ("1", "probability of the true label among the labels"),
    "logit_difference": ("nat", "log-likelihood of the true label less that of the label taken from"),
    "entropy": ("nat", "entropy of the lens distribution where the label is predicted"),
}
SCALARS = tuple(name for name in OUTCOMES if name != "entropy")
"""Outcomes of which an example has one number, not one for each layer."""


def check_outcome(outcome: str) -> None:
    """Raise StoreError where nothing is measured by this name."""
    if outcome not in OUTCOMES:
        raise StoreError(f"no outcome {outcome!r}{hint(outcome, OUTCOMES)}")


def outcome_of(cells: xr.Dataset, entry: str, outcome: str) -> Floats:
    """Return an outcome of all changes as an intervention's effects need it.

    [cell, example, intervention], of `entropy` with [layer] behind. NaN where a change had nothing to change
    in an example, and of `logit_difference` where both examples have one label.

    Raises:
        StoreError: for an unknown outcome, or one that the intervention has not.
    """
    check_outcome(outcome)
    if outcome == "entropy":
        values = variable(cells, "entropy")
    elif outcome == "logit_difference":
        values = _difference(cells, entry)
    else:
        odds = log_odds(cells["label_logprob"], cells["gold"])
        if outcome == "correct":
            values = variable(cells, "correct").where(cells["label_logprob"].notnull().any("label"))
        else:
            values = odds if outcome == "log_odds" else odds.copy(data=expit(odds.values))
    return numbers(values.transpose("cell", "example", "intervention", ...)).values


def takes_labels(data: Data, entry: str) -> bool:
    """Tell whether an intervention takes from other examples, and so has a label of each to compare with."""
    nodes = stage_nodes(data, "intervene").values()
    return any("other_label" in node and bool((_other(node, entry) != "").any()) for node in nodes)


def _other(cells: xr.Dataset, entry: str) -> xr.DataArray:
    """Return the label of the example that an intervention takes from, "" where from none."""
    places = np.flatnonzero(cells["entry"].values == entry)
    if not len(places):
        return xr.DataArray("")
    return cells["other_label"].isel(intervention=places[0], drop=True)


def _difference(cells: xr.Dataset, entry: str) -> xr.DataArray:
    """Return the true label's log-likelihood less that of the label of the example taken from."""
    other = _other(cells, entry) if "other_label" in cells else None
    if other is None or (other.values == "").all():
        raise StoreError(
            f"{entry}: takes from no other example, so there is no label to hold against the true one; "
            "expected another outcome, or an intervention whose input is another example"
        )
    scores, labels = cells["label_logprob"].astype(float), cells["label"]
    true, taken = (scores.where(labels == label).max("label") for label in (cells["gold"], other))
    return (true - taken).where(other != cells["gold"])
