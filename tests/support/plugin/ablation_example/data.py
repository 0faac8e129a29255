"""A data set that the package makes itself, and one on the hub."""

from collections.abc import Iterator, Mapping
from typing import Any

from engine.plugins import DataSet, PublicSet


def parity(dimension: str) -> Iterator[dict[str, str]]:
    """Yield counts of words, to be rated 1 where they are odd, else 2."""
    for count in range(1, 41):
        yield {
            "id": str(count),
            "context": f"say {dimension} {count} times",
            "response": " ".join(["word"] * (count % 9 + 1)),
            "label": str(2 - count % 2),
            "explanation": f"the number {count} is {'odd' if count % 2 else 'even'}",
        }


def quiz(raw: Mapping[str, Any]) -> Iterator[dict[str, str | None]]:
    """Yield one example for each answer of a row."""
    for answer in raw["answers"]:
        yield {"context": raw["question"], "response": answer, "group": raw["question"]}


PARITY = DataSet(parity, version="1")
QUIZZES = PublicSet(
    hub="somebody/quizzes",
    rows=quiz,
    columns=("question", "answers"),
    splits=("train",),
    revision="0123456789abcdef0123456789abcdef01234567",
)
