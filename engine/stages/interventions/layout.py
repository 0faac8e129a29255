"""The store's layout of what changes make of a cell's test examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.planning.changes import OTHERS, Change
from engine.stages.example_coordinates import example_coordinates
from engine.text.targets import Example
from specs.checks.interventions import UNCHANGED
from store import Coordinate, Family, Variable


def _strength(change: Change) -> float:
    return change.addition.strength if change.addition else 0.0


def _direction(change: Change) -> str:
    return change.addition.direction if change.addition else ""


# Coordinates of `intervention` that results have where some change has another value than the last ones here:
# what gives it, and what it means.
_WHERE_THERE: dict[str, tuple[Callable[[Change], str | float], str, tuple[str | float, ...]]] = {
    "position": (lambda change: change.position, "the one token position of a grid's change", ("",)),
    "stream": (lambda change: change.written, "what of the layers is put in or ablated", ("", "residual")),
    "receiver": (lambda change: change.received, "what reads at a path's end", ("",)),
    "strength": (_strength, "multiple of what is added", (0.0,)),
    "direction": (_direction, "what is added: a mean difference, or a random direction as long", ("",)),
    "unchanged": (lambda change: change.unchanged, "the run that is changed", (UNCHANGED,)),
}


def takes_from_others(changes: Sequence[Change]) -> bool:
    """Tell whether some changes take from runs on other examples."""
    return any(change.input in OTHERS for change in changes)


def intervention_family(
    rows: Sequence[Example], changes: Sequence[Change], layers: int, labels: Sequence[str]
) -> Family:
    """Give the store's layout of the results of these changes for these examples."""
    dims = ("example", "intervention")

    def described(name: str, values: Sequence[Any], meaning: str) -> Coordinate:
        return Coordinate(name, "intervention", values, long_name=meaning)

    more = [
        described(name, values, meaning)
        for name, (value, meaning, usual) in _WHERE_THERE.items()
        if not set(values := [value(change) for change in changes]) <= set(usual)
    ]
    others = [Variable("other_label", dims, "string", "", "true label of the example that is taken from")]
    return Family(
        stage="intervene",
        coordinates=(
            *example_coordinates(rows),
            described("intervention", [change.name for change in changes], "change to the model"),
            described("entry", [change.entry for change in changes], "intervention of the spec"),
            described("kind", [change.kind for change in changes], "kind of intervention"),
            described("first", [min(change.layers, default=0) for change in changes], "lowest changed layer"),
            described("last", [max(change.layers, default=0) for change in changes], "highest changed layer"),
            described("source", [change.source_name for change in changes], "what it takes from"),
            described("head", [_only_head(change) for change in changes], "ablated head, -1: not one"),
            *more,
            Coordinate("label", "label", list(labels), long_name="label"),
            Coordinate("layer", "layer", list(range(layers + 1)), long_name="layer, 0 = embedding"),
        ),
        variables=(
            Variable("prediction", dims, "string", "", "label of the highest log-likelihood"),
            Variable(
                "label_logprob", (*dims, "label"), "float32", "nat", "log-likelihood of the label's tokens"
            ),
            Variable(
                "entropy",
                (*dims, "layer"),
                "float32",
                "nat",
                "entropy of the lens distribution where the label is predicted",
            ),
            *(others if takes_from_others(changes) else ()),
        ),
    )


def _only_head(change: Change) -> int:
    return change.heads[0] if len(change.heads) == 1 else -1
