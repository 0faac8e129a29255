"""Units that wait for a worker, and which of them a free one takes."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from itertools import count

from attrs import define, field

from engine.executors.base import Work


@define
class Queue:
    """Units by their ranks: one that is given again has the place that it had."""

    _waiting: dict[Hashable, list[tuple[int, int, Work]]] = field(factory=dict)  # heaps, by model
    _numbers: Iterator[int] = field(factory=count)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, work: Work) -> None:
        """Put a unit at its place; behind those that came before, if they have the same."""
        heapq.heappush(self._waiting.setdefault(work.model, []), (work.rank, next(self._numbers), work))

    def take(self, model: Hashable) -> Work:
        """Give the first unit of the model that the worker has loaded, or else the first of all."""
        units = self._waiting.get(model) or min(self._waiting.values(), key=lambda units: units[0][:2])
        _, _, work = heapq.heappop(units)
        if not units:
            del self._waiting[work.model]
        return work

    def clear(self) -> None:
        """Drop all units."""
        self._waiting.clear()
