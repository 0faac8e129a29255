"""The output: one line per conversation, with a label and an explanation in every dimension."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.annotation.answers import LoggedAnswer
from engine.annotation.merge import Merge
from engine.annotation.questions import MergeQuestion, Row
from engine.annotation.ratings import Annotation, Ratings, annotation, outcome
from specs.common.whole_files import whole_file, write_synced
from specs.tables.annotate import Annotate

Merged = dict[int, dict[str, Annotation]]  # conversation → dimension


def merge_all(ratings: Ratings, how: Merge) -> Merged:
    """Merge the answers of every conversation that has enough of them."""
    return {
        index: {name: annotation(ratings, name, index, how) for name in ratings.settings.dimensions}
        for index in ratings.complete()
    }


def merge_questions(merged: Merged) -> list[MergeQuestion]:
    """Give what is asked of the merger about them."""
    explanations = (one.explanation for by_dimension in merged.values() for one in by_dimension.values())
    return [text for text in explanations if isinstance(text, MergeQuestion)]


def output_lines(
    ratings: Ratings, merged: Merged, answers: Mapping[str, LoggedAnswer]
) -> Iterator[dict[str, Any]]:
    """Yield the lines of the output: conversations with a label and an explanation in every dimension."""
    for index, by_dimension in merged.items():
        line = _line(ratings.rows[index], by_dimension, answers, ratings.settings)
        if line is not None:
            yield line


def _line(
    row: Row, merged: Mapping[str, Annotation], answers: Mapping[str, LoggedAnswer], settings: Annotate
) -> dict[str, Any] | None:
    """Give a line of the output; None where no valid explanation could be had."""
    line: dict[str, Any] = dict(row)
    for dimension, one in merged.items():
        text = one.explanation
        if isinstance(text, MergeQuestion):
            reading = outcome(text, answers, settings).reading
            if reading is None:
                return None
            text = reading.explanation
        line |= {
            dimension: one.label,
            f"{dimension}_mean": float(one.mean),
            f"{dimension}_explanation": text,
            f"{dimension}_answers": one.answers,
        }
    return line


def write_lines(output: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replace the output as a whole."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with whole_file(output) as temporary:
        write_synced(temporary, text.encode("utf-8"))
