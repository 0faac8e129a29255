"""Units that wait for a worker, and which of them a free one takes."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from itertools import count

from attrs import define, field

from engine.running.executors.base import Work

_Entry = tuple[int, int, Work]


@define
class Queue:
    """Units by their ranks: one that is given again has the place that it had, but for who had it last."""

    _waiting: dict[Hashable, list[_Entry]] = field(factory=dict)  # heaps, by model
    _numbers: Iterator[int] = field(factory=count)
    _takers: dict[int, Hashable] = field(factory=dict)  # by rank, who took the unit last

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, work: Work) -> None:
        """Put a unit at its place; behind those that came before, if they have the same."""
        self._put((work.rank, next(self._numbers), work))

    def take(self, model: Hashable, taker: Hashable) -> Work:
        """Give the first unit of the model that the taker has loaded, or else the first of all.

        One that it has lost before goes to somebody else, as long as there are others: its GPU may be broken.
        """
        passed: list[_Entry] = []
        while self._waiting:
            entry = self._first(model)
            if self._takers.get(entry[0]) != taker:
                break
            passed.append(entry)
        else:
            entry = passed.pop(0)
        for other in passed:
            self._put(other)
        work = entry[2]
        self._takers[work.rank] = taker
        return work

    def clear(self) -> None:
        """Drop all units."""
        self._waiting.clear()

    def _put(self, entry: _Entry) -> None:
        heapq.heappush(self._waiting.setdefault(entry[2].model, []), entry)

    def _first(self, model: Hashable) -> _Entry:
        units = self._waiting.get(model) or min(self._waiting.values(), key=lambda units: units[0][:2])
        entry = heapq.heappop(units)
        if not units:
            del self._waiting[entry[2].model]
        return entry
