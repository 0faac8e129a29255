"""What a message has to say, whatever its wording: names, keys, paths and numbers, in their order."""

from __future__ import annotations

import re


def facts(*parts: str) -> str:
    """Give a pattern of messages with these parts one after another on a line, each of whole words.

    A part may hold several, as "key … number". One that ends in "…" may break off within a word.
    """
    return ".*".join(_pattern(fact) for part in parts for fact in part.split(" … "))


def told(text: object, *parts: str) -> bool:
    """Tell whether a line of a text has these facts, in this order."""
    return re.search(facts(*parts), str(text)) is not None


def _pattern(part: str) -> str:
    begin, end = r"(?<!\w)" * part[0].isalnum(), r"(?!\w)" * part[-1].isalnum()
    return begin + re.escape(part.removesuffix("…")) + end
