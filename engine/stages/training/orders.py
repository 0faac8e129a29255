"""The orders in which a training takes its examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from attrs import frozen
from torch.utils.data import Sampler


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Give the places of `count` examples in the order of an epoch, drawn from a hash of seed and epoch.

    A sum of both would make one seed's second epoch the next one's first.
    """
    order = list(range(count))
    random.Random(f"epoch {epoch} of seed {seed}").shuffle(order)
    return order


@frozen
class Orders(Sampler[int]):
    """Gives the examples of each epoch in an order of its own; `epoch` tells which one begins."""

    count: int
    seed: int
    epoch: Callable[[], int]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.count, self.seed, self.epoch()))
