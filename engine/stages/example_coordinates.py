"""What the store keeps along `example`: which one it is, its true label, and the group it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from engine.text.pieces import Example
from store import Coordinate


def example_coordinates(rows: Sequence[Example]) -> tuple[Coordinate, ...]:
    """Give the coordinates of these examples.

    `group` numbers the groups of `data.columns.group` (a story, a conversation), by their first example: the
    examples of one group are no independent draws, so analyses take groups for their units.
    """
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(row.get("group", row["id"]), len(numbers)) for row in rows]
    return (
        Coordinate("example", "example", [row["id"] for row in rows], long_name="test example"),
        Coordinate("gold", "example", [row["label"] for row in rows], long_name="true label"),
        Coordinate("group", "example", groups, long_name="group of examples, by number"),
    )
