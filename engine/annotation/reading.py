"""Reading answers: a small JSON object, with or without text around it; anything else is a named fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from engine.annotation.answers import LoggedAnswer
from engine.data.visible import visible

REFUSED = "the request was refused"
EMPTY = "it is empty"
NO_JSON = "it holds no JSON object with a rating and an explanation"
TRUNCATED = "it breaks off"
AMBIGUOUS = "it holds several different ratings"
NOT_INTEGER = "the rating is no integer"
OUT_OF_SCALE = "the rating is outside the scale"
NO_EXPLANATION = "the explanation is missing or empty"
FAULTS = (REFUSED, EMPTY, NO_JSON, TRUNCATED, AMBIGUOUS, NOT_INTEGER, OUT_OF_SCALE, NO_EXPLANATION)


MOST_STARTS = 200  # braces that may begin an object


@frozen
class Reading:
    """A valid answer; `rating` is on the strategy's own scale, None where none was asked for."""

    rating: int | None
    explanation: str


def read_answer(answer: LoggedAnswer, scale: tuple[int, int] | None) -> Reading | str:
    """Give what a valid answer says, or which of `FAULTS` it has. Nothing is guessed or corrected."""
    if answer.refused:
        return REFUSED
    if not answer.text.strip():
        return EMPTY
    wanted = "explanation" if scale is None else "rating"
    objects = [value for value in _objects(answer.text) if value is None or wanted in value]
    complete = [value for value in objects if value is not None]
    if not complete:
        return TRUNCATED if objects or answer.finish == "length" else NO_JSON
    if any(value != complete[0] for value in complete):
        return AMBIGUOUS
    return _checked(complete[0], scale)


def _checked(value: dict[str, Any], scale: tuple[int, int] | None) -> Reading | str:
    rating = value.get("rating") if scale is not None else None
    if scale is not None:
        if type(rating) is not int:
            return NOT_INTEGER
        if not scale[0] <= rating <= scale[1]:
            return OUT_OF_SCALE
    explanation = value.get("explanation")
    if not isinstance(explanation, str) or not visible(explanation):
        return NO_EXPLANATION
    return Reading(rating, explanation.strip())


def _objects(text: str) -> Iterator[dict[str, Any] | None]:
    """Yield the outermost JSON objects in a text, and None for one that the end of the text cuts off.

    After MOST_STARTS braces the rest counts as cut off: the time would grow with the square of their number.
    """
    decoder = json.JSONDecoder(strict=False)  # models write line breaks into strings
    start = text.find("{")
    for _ in range(MOST_STARTS):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if error.msg.startswith("Unterminated string") or not text[error.pos :].strip():
                yield None
            end = start + 1
        except (ValueError, RecursionError):  # a number of more digits than Python reads, say
            end = start + 1
        else:
            yield value
        start = text.find("{", end)
    if start >= 0:
        yield None
