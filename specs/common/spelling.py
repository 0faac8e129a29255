"""Names as a person may have meant them, for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str], least: float = 0.6) -> str:
    """The choice that goes on from `word`, or is spelled most like it, whatever its case, or "" if none.

    least: how like it has to be, from 0 to 1, as difflib has it.
    """
    from difflib import get_close_matches

    by_folded = {choice.lower(): choice for choice in choices}
    longer = [choice for choice in by_folded if re.match(rf"{re.escape(word.lower())}[\W_]", choice)]
    if word and longer and word.lower() not in by_folded:
        return by_folded[min(longer, key=len)]
    matches = get_close_matches(word.lower(), by_folded, n=1, cutoff=least)
    return by_folded[matches[0]] if matches else ""


def least_far(word: str, choices: Iterable[str]) -> str:
    """The choice spelled most like `word`, however far that is, or "" where there are none."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(choices), n=1, cutoff=0.0)
    return matches[0] if matches else ""


LEAST = 0.4  # of 1, as difflib has it: a choice that is less like a word than this is no help
LISTED = 8  # choices, where none is like the word


def alike(word: str, choices: Iterable[str]) -> str:
    """The end of a message that lists all choices for an unknown `word`: "; the nearest is …", or ""."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(choices), n=1, cutoff=LEAST)
    return f"; the nearest is {matches[0]!r}" if matches else ""


def hint(word: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown `word`: "; the nearest is …", else what there is, if anything."""
    known = list(choices)
    if not known or (near := alike(word, known)):
        return near if known else ""
    shown = ", ".join(map(repr, known[:LISTED])) + ", …" * (len(known) > LISTED)
    return f"; expected one of {shown}"


def one_of(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
