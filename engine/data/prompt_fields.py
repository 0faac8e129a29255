"""Which texts of an example a prompt may show: all but what would tell the answer, or where it comes from."""

from __future__ import annotations

from collections.abc import Mapping

from engine.data.chats import MESSAGES
from engine.data.explanations import FURTHER

# The chat is in context and response, too; a prompt shows it as a whole (`prompt.messages`).
HIDDEN = frozenset({"id", "label", "explanation", "group", "split", "source", MESSAGES, FURTHER})


def prompt_fields(example: Mapping[str, str]) -> dict[str, str]:
    """Give the fields of an example that the template of a prompt can name: context, response, and others."""
    return {name: text for name, text in example.items() if name not in HIDDEN}


def prompt_characters(example: Mapping[str, str]) -> int:
    """Count the characters of these fields."""
    return sum(map(len, prompt_fields(example).values()))
