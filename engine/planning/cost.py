"""What some work costs: tokens, FLOPs, memory, bytes and seconds."""

from __future__ import annotations

from attrs import frozen

from engine.planning.passes import Passes
from engine.planning.training_memory import TrainingMemory


@frozen
class Cost:
    """An estimate. Costs add up, but for memory, of which the largest counts."""

    tokens: float = 0
    flops: float = 0
    memory: float = 0  # bytes, peak
    stored: float = 0  # bytes
    scratch: float = 0  # bytes of checkpoints while a training runs
    streamed: float = 0  # bytes of weights that are read anew for each token of a generation
    seconds: float = 0  # on one device of `executor.device`, else on this machine; 0 where unknown
    training: TrainingMemory | None = None  # of one training, what its memory consists of
    passes: Passes | None = None  # of one training

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.tokens + other.tokens,
            self.flops + other.flops,
            max(self.memory, other.memory),
            self.stored + other.stored,
            max(self.scratch, other.scratch),
            self.streamed + other.streamed,
            self.seconds + other.seconds,
        )

    def times(self, count: int) -> Cost:
        """Give the cost of doing this so many times."""
        return Cost(
            self.tokens * count,
            self.flops * count,
            self.memory,
            self.stored * count,
            self.scratch,
            self.streamed * count,
            self.seconds * count,
        )
