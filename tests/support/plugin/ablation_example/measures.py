"""A statistic of every layer, and a metric of the evaluation."""

from typing import Any

import numpy as np

from engine.plugins import LayerStates, Metric, Predictions, Statistic


def norms(states: LayerStates) -> Any:
    """Give the length of each row of the residual stream."""
    return states.hidden.norm(dim=-1)


def off_by_one(found: Predictions) -> dict[str, float]:
    """Give the share of predictions whose rating is at most one away."""
    places = {label: place for place, label in enumerate(found.labels)}
    away = [
        abs(places[gold] - places.get(guess, 99))
        for gold, guess in zip(found.gold, found.predicted, strict=True)
    ]
    return {"off_by_one": float(np.mean(np.array(away) <= 1))}


HIDDEN_NORM = Statistic("1", "length of the residual stream", norms, version="1")
OFF_BY_ONE = Metric(off_by_one, names=("off_by_one",), version="1")
