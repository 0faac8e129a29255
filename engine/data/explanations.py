"""Several explanations of one example: the first stands for all, a training draws among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.data.cell_text import cell_text
from engine.data.visible import visible

FURTHER = "further_explanations"  # the field of an example that holds all but the first


def explanation_fields(cells: Sequence[tuple[Any, str]], where: str) -> dict[str, str | None]:
    """Give the fields of an example that hold its explanations.

    Args:
        cells: Values and the names of their columns; a value may be a list of texts.
        where: The row, for errors.

    Raises:
        DataError: If a value is neither text nor a list of texts.
    """
    texts = [cell_text(value, where, column) for cell, column in cells for value in _values(cell)]
    explanations = list(dict.fromkeys(text for text in texts if text is not None and visible(text)))
    if not explanations:  # as it stands there: spaces, say
        return {"explanation": texts[0] if texts else None}
    fields: dict[str, str | None] = {"explanation": explanations[0]}
    if further := explanations[1:]:
        fields[FURTHER] = json.dumps(further, ensure_ascii=False)
    return fields


def further_explanations(example: Mapping[str, str]) -> list[str]:
    """Give an example's explanations but for the first."""
    texts: list[str] = json.loads(example.get(FURTHER, "[]"))
    return texts


def _values(cell: Any) -> Sequence[Any]:
    return cell if isinstance(cell, list) else [cell]
