"""Chats: a column's list of messages, as data sets spell them, as roles and texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.data.cell_text import cell_text
from engine.errors import DataError

MESSAGES = "messages"  # the field of an example that holds its chat
# Names of the roles: those of chat templates, and those of ShareGPT's files.
ROLES = {
    "system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant",
}  # fmt: skip
LONGEST = 60  # characters of a value that an error shows
_NUMBER = re.compile(r"-?\d[\d.]*([eE][+-]?\d+)?")
EXPECTED = 'a list of messages like {"role": "user", "content": "…"}'

Message = dict[str, str]


def chat_fields(value: Any, where: str, column: str, *, answered: bool) -> dict[str, str | None]:
    """Give the fields of an example whose texts are a chat's; those of an empty cell are None.

    `context` is all messages but the last, written as a script, `response` the last one, `group` the first
    that is no system message, and `messages` the chat itself, as `messages_of` reads it.

    Args:
        value: The cell: a list of messages, or the JSON of one.
        where: The row, for errors.
        column: The source's column.
        answered: Whether the chat's last message is the answer to be learned: it is the `label` then, and no
            part of the others.

    Raises:
        DataError: If the cell holds no chat.
    """
    if value is None or value == "":
        return dict.fromkeys(("context", "response", MESSAGES))
    messages = _read(value, f'{where}: column "{column}"')
    fields: dict[str, str | None] = {}
    if answered:
        if messages[-1]["role"] != "assistant":
            raise DataError(
                f'{where}: column "{column}" ends with a message of the {messages[-1]["role"]}; expected the '
                "assistant's answer, which is learned, or a column of labels (data.columns.label)"
            )
        fields["label"] = messages.pop()["content"]
    asked = [message for message in messages if message["role"] != "system"]
    if not asked:
        raise DataError(f'{where}: column "{column}" holds no message of the user; expected one')
    *earlier, last = [(message["role"], message["content"]) for message in messages]
    context = earlier[0][1] if len(earlier) == 1 else script(earlier)
    fields |= {"context": context, "response": last[1], "group": asked[0]["content"]}
    return fields | {MESSAGES: json.dumps(messages, ensure_ascii=False)}


def messages_of(example: Mapping[str, str]) -> list[Message]:
    """Give the messages of an example, each with `role` and `content`."""
    messages: list[Message] = json.loads(example[MESSAGES])
    return messages


def script(turns: Sequence[tuple[str, str | None]]) -> str:
    """Write (role, text) turns as a script: a line for each, with the role before the text."""
    return "\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


def _read(value: Any, place: str) -> list[Message]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"{place} holds text that is no JSON; expected {EXPECTED}") from error
    if hasattr(value, "tolist"):  # of Parquet files, by way of numpy
        value = value.tolist()
    if not isinstance(value, list) or not value:
        raise DataError(f"{place} holds {_kind(value)}; expected {EXPECTED}")
    return [_message(entry, f"{place}, message {number}") for number, entry in enumerate(value, start=1)]


def _message(entry: Any, place: str) -> Message:
    if not isinstance(entry, Mapping):
        found = _shown(entry) if isinstance(entry, str) else _kind(entry)
        raise DataError(f"{place}: found {found}; expected {EXPECTED}")
    role, content = entry.get("role", entry.get("from")), entry.get("content", entry.get("value"))
    if role not in ROLES:
        known = ", ".join(ROLES)
        raise DataError(f"{place}: found the role {_shown(role)}; expected one of {known}")
    if isinstance(content, list):  # parts, as of models that also read images
        content = "".join(_part(part, place) for part in content)
    text = cell_text(content, place, "content")
    if text is None:
        raise DataError(f"{place}: holds no content; expected text")
    return {"role": ROLES[role], "content": text}


def _part(part: Any, place: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise DataError(f"{place}: holds a part that is no text; expected text alone")


def _shown(value: Any) -> str:
    """Spell a value; a text that is a number without marks, for JSON's numbers are read as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return value[:LONGEST]
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    names = {dict: "an object", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "another value")
