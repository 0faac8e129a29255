"""Which setting of a spec makes a stage or a variable of the results, for messages about lacking ones."""

from __future__ import annotations

from specs.common.names import (
    ATTRIBUTION,
    GEOMETRY,
    GRAM,
    HEAD_ATTRIBUTION,
    OUTCOME_KEYS,
    SIMILARITIES,
    STREAM,
)

_STAGES = {
    "along": "probe.at",
    "differences": "probe.differences",
    "inspect": "evaluate.inspect.tasks",
    "intervene": "[[interventions]]",
    "jacobian": 'probe.lens with "jacobian"',
    "lens": 'probe.lens with "tuned"',
    "neutral": "evaluate.neutral_text",
    "probe": "probe.enabled",
    "tasks": "evaluate.tasks",
}
_VARIABLES = {
    ATTRIBUTION: "probe.attribution",
    HEAD_ATTRIBUTION: "probe.attribution_per_head",
    "head_entropy": "probe.heads",
    "js_against": "probe.against",
    "kl_against": "probe.against",
    "router_entropy": "probe.routers",
    "majority_correct": "evaluate.sampling",
}
_VARIABLES |= {name: f'{key} with "{entry}"' if entry else key for name, (key, entry) in OUTCOME_KEYS.items()}


def made_by_stage(stage: str) -> str:
    """Return the end of a message about a stage that is not there: what makes it."""
    return f"; {_STAGES[stage]} makes it" if stage in _STAGES else ""


def made_by(variable: str) -> str:
    """Return the end of a message about a variable that is not there: what records it; "" elsewhere."""
    key = _VARIABLES.get(variable, "")
    measure = variable.removesuffix("_against")
    if measure in GEOMETRY or measure in SIMILARITIES or measure == GRAM:
        key = f'probe.geometry with "{measure}"'
    elif variable.startswith(STREAM):
        key = "probe.streams"
    return f"; {key} records it" if key else ""
