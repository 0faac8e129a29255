"""Units that wait for a worker, and which of them a free one takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from itertools import count

from attrs import define, field

from engine.executors.base import Work


@define
class Queue:
    """Units in the order in which they came; adding and taking one costs the same however many wait."""

    _waiting: dict[Hashable, deque[tuple[int, Work]]] = field(factory=dict)  # by model
    _numbers: Iterator[int] = field(factory=count)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, work: Work) -> None:
        """Put a unit behind all others."""
        self._waiting.setdefault(work.model, deque()).append((next(self._numbers), work))

    def take(self, model: Hashable) -> Work:
        """Give the first unit of the model that the worker has loaded, or else the first of all."""
        units = self._waiting.get(model) or min(self._waiting.values(), key=lambda units: units[0][0])
        _, work = units.popleft()
        if not units:
            del self._waiting[work.model]
        return work

    def clear(self) -> None:
        """Drop all units."""
        self._waiting.clear()
