"""Telling labels apart by their tokens: no sequence of one label may begin one of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

Sequences = list[list[int]]  # token ids of the texts that mean one label


def shortest(sequences: Iterable[list[int]]) -> Sequences:
    """Give the distinct sequences that begin with no other one."""
    distinct = [list(ids) for ids in dict.fromkeys(map(tuple, sequences))]
    return [
        ids
        for ids in distinct
        if not any(ids[: len(other)] == other for other in distinct if other is not ids)
    ]


def clash(labels: Sequence[Sequences]) -> tuple[int, int] | None:
    """Give the places of two labels of which one has a sequence that begins one of the other's."""
    for (i, ours), (j, theirs) in permutations(enumerate(labels), 2):
        if any(other[: len(ids)] == ids for ids in ours for other in theirs):
            return i, j
    return None


def parted(labels: Sequence[Sequences]) -> tuple[list[int], list[Sequences]]:
    """Give the tokens with which all sequences begin, and what each has behind them."""
    sequences = [ids for label in labels for ids in label]
    differs = (column for column, ids in enumerate(zip(*sequences, strict=False)) if len(set(ids)) > 1)
    shared = next(differs, 0)
    return sequences[0][:shared], [[ids[shared:] for ids in label] for label in labels]
