"""What runs read that changes take from: the example itself, another one, or it as another prompt asks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from engine.errors import DataError
from engine.planning.changes import SAME, Entry
from engine.planning.key_parts import Cell
from engine.text.targets import Example, TargetEncoder

_TRIES = 64  # draws before the examples that fit are counted


@frozen
class Input:
    """Examples that stand for those that a changed model reads, one for each, and how they are written."""

    rows: Sequence[Example]
    writer: TargetEncoder


def inputs_of(
    entries: Iterable[Entry],
    rows: Sequence[Example],
    writer: TargetEncoder,
    prompted: Callable[[Cell], TargetEncoder],
) -> dict[str, Input]:
    """Give, by name, what runs read that interventions take from, for these examples.

    prompted: gives the writer of another cell's test examples.

    Raises DataError where an example has no other that could stand for it.
    """
    found: dict[str, Input] = {}
    for entry in entries:
        if entry.input == SAME or entry.input in found:
            continue
        if entry.prompted is not None:
            found[entry.input] = Input(rows, prompted(entry.prompted))
        else:
            found[entry.input] = Input(others(rows, entry.input, writer.seed), writer)
    return found


def others(rows: Sequence[Example], read: str, seed: int) -> list[Example]:
    """Draw another example for each: of another group, and of another label where `read` is "other label".

    A draw hangs on the seed, the example's id and the examples that there are, so it is the same in every
    batch and after a kill.

    Raises DataError where there is none.
    """

    def fits(one: Example, other: Example) -> bool:
        apart = one.get("group", one["id"]) != other.get("group", other["id"])
        return apart and (read != "other label" or one["label"] != other["label"])

    drawn = []
    for row in rows:
        generator = random.Random(f"{seed} {read} {row['id']}")
        tried = (rows[generator.randrange(len(rows))] for _ in range(_TRIES))
        other = next((one for one in tried if fits(row, one)), None)
        if other is None:
            fitting = [one for one in rows if fits(row, one)]
            if not fitting:
                label = f" and another label than {row['label']!r}" if read == "other label" else ""
                raise DataError(
                    f"interventions: test example {row['id']!r} is to be held against another, but none of "
                    f"the {len(rows):,} has another group{label}; expected more examples (probe.examples, "
                    "data.test)"
                )
            other = generator.choice(fitting)
        drawn.append(other)
    return drawn
