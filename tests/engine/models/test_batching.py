"""Batches of similar length within windows."""

from __future__ import annotations

from engine.models.batching import by_length
from engine.models.windows import window_size


def test_batches_are_of_similar_length_the_longest_first() -> None:
    assert by_length([3, 9, 1, 9, 4], 2) == [[1, 3], [4, 0], [2]]
    assert by_length([], 2) == []


def test_windows_do_not_hang_on_how_many_examples_there_are() -> None:
    lengths = [(7 * place) % 11 for place in range(3 * window_size(2))]

    def batches(count: int) -> list[list[int]]:
        size = window_size(2)
        windows = [range(count)[first : first + size] for first in range(0, count, size)]
        return [
            [window[place] for place in batch]
            for window in windows
            for batch in by_length([lengths[place] for place in window], 2)
        ]

    short, long = batches(2 * window_size(2)), batches(len(lengths))
    assert long[: len(short)] == short
