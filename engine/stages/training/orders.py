"""The orders in which a training takes its examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen
from torch.utils.data import Sampler

from engine.text.targets import Encoded

Variants = Sequence[Sequence[int]]  # for each example, the places of its targets, by explanation


def variants_of(examples: Sequence[Encoded]) -> Variants:
    """Group the places of encoded examples: those of one example, with its several explanations, together."""
    places: dict[tuple[str, int], list[int]] = {}
    for place, example in enumerate(examples):
        key = ("place", place) if example.example is None else ("example", example.example)
        places.setdefault(key, []).append(place)
    return list(places.values())


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Give the places of `count` examples in the order of an epoch, drawn from a hash of seed and epoch.

    A sum of both would make one seed's second epoch the next one's first.
    """
    order = list(range(count))
    random.Random(f"epoch {epoch} of seed {seed}").shuffle(order)
    return order


def epoch_places(variants: Variants, seed: int, epoch: int) -> list[int]:
    """Give an epoch's places in their order: of each example one, drawn for the epoch."""
    drawn = []
    for example in epoch_order(len(variants), seed, epoch):
        places = variants[example]
        if len(places) > 1:
            text = f"explanation of example {example} in epoch {epoch} of seed {seed}"
            places = [random.Random(text).choice(places)]
        drawn.append(places[0])
    return drawn


@frozen
class Orders(Sampler[int]):
    """Gives the examples of each epoch in an order of its own; `epoch` tells which one begins."""

    variants: Variants
    seed: int
    epoch: Callable[[], int]

    def __len__(self) -> int:
        return len(self.variants)

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_places(self.variants, self.seed, self.epoch()))
