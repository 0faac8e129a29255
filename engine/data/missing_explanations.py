"""Examples without an explanation, where a target has one or takes its words or its length from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.data.visible import visible
from engine.errors import DataError
from specs.tables.data import Data
from specs.tables.probe import Probe
from specs.tables.target import Target

LISTED = 5  # examples that an error names


def explained(example: Mapping[str, str | None]) -> bool:
    """Tell whether an example has an explanation; a text without a visible character is none."""
    return visible(example.get("explanation") or "")


def label_alone(examples: Sequence[Mapping[str, str]], target: Target) -> int:
    """Count the examples whose target is the label alone, though the spec's is more."""
    return 0 if target.content == "label" else sum(not explained(example) for example in examples)


def read_behind(stage: str, target: Target, probe: Probe) -> bool:
    """Tell whether a stage reads a test example's own explanation, or what stands in its place.

    A label is predicted behind it where it comes first; a watch position may lie behind it or within it.
    """
    if target.content == "label" or stage == "evaluate":  # there the model writes its own
        return False
    if stage == "intervene":
        return target.explains_first
    within = any(
        place == "completion_end" or (isinstance(place, int) and place >= 0) for place in probe.positions
    )
    within = within or probe.watches_range("explanation")
    return within or (target.explains_first and "label" in probe.positions)


def check_explanations(examples: Sequence[Mapping[str, str]], split: str, data: Data, target: Target) -> None:
    """Raise DataError for examples without an explanation, where the target needs one and none may lack."""
    if data.empty_explanations == "error" and label_alone(examples, target):
        raise DataError(
            missing_explanations(
                [e for e in examples if not explained(e)], len(examples), split, data, target
            )
        )


def missing_explanations(
    examples: Sequence[Mapping[str, str]], total: int, split: str, data: Data, target: Target
) -> str:
    """Say which examples of a split lack an explanation, and what can be done."""
    names = ", ".join(example["id"] for example in examples[:LISTED])
    more = ", …" if len(examples) > LISTED else ""
    column = data.columns.explanation.replace("{dimension}", data.dimension)
    count = f"{len(examples):,} of {total:,} {split} examples have no explanation ({names}{more})"
    return (
        f'data.empty_explanations: {count}, which target.content = "{target.content}" needs; expected one in '
        f'every row (column "{column}"), or "drop" (leave these rows out, under every condition alike), or '
        '"label" (their target is the label alone)'
    )
