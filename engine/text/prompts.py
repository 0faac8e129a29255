"""What the model reads before it answers, as text in which the data is told from what the spec writes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from string import Formatter
from typing import Any

from attrs import frozen

from engine.data.chats import messages_of
from engine.data.prompt_fields import prompt_fields
from engine.errors import UsageError
from engine.models.tokenizer import Tokenizer
from engine.text.encoding import Span, Text
from specs.tables.target import Prompt

Message = Mapping[str, str]


def prompt_text(
    prompt: Prompt, tokenizer: Tokenizer, example: Mapping[str, str], study: Mapping[str, str]
) -> Text:
    """Write an example's prompt. `study`: the fields of templates that the spec fills in.

    In a plain prompt the fields are data, in a chat the whole messages are: the chat template alone writes
    control tokens.
    """
    texts = prompt_fields(example)
    marks = Marks.absent_from([prompt.template, prompt.system or "", *texts.values(), *study.values()])
    message = _filled("prompt.template", prompt.template, {**texts, **study}, marks)
    system = _filled("prompt.system", prompt.system or "", study, marks)
    if not prompt.chat_template:
        return system + Text("\n") + message if system.text else message
    if not tokenizer.chat_template:
        raise UsageError(
            "prompt.chat_template: found true, but this model's tokenizer has no chat template; "
            "expected chat_template = false"
        )
    if not prompt.messages:
        return chat_text(tokenizer, _around([], system.text, message.text))
    chat = messages_of(example)
    try:
        return _written(tokenizer, _around(chat, system.text, message.text))
    except _RefusedError as refusal:
        raise UsageError(
            f"data.columns.messages: example {example.get('id', '?')}: {refusal}; expected "
            f"{_instead_of_chat(tokenizer, chat, system.text, message.text)}"
        ) from refusal


def _around(chat: Sequence[Message], system: str, message: str) -> list[Message]:
    """Give a chat with the spec's system message in the place of its own, and the spec's message behind."""
    others = [each for each in chat if not system or each["role"] != "system"]
    before = [{"role": "system", "content": system}] if system else []
    behind = [{"role": "user", "content": message}] if message or not others else []
    return [*before, *others, *behind]


def chat_text(tokenizer: Tokenizer, messages: Sequence[Message]) -> Text:
    """Write messages by the tokenizer's chat template, up to where the answer begins; they are data.

    UsageError, with the template's own words, where it refuses them or leaves the system message out.
    """
    try:
        return _written(tokenizer, messages)
    except _RefusedError as refusal:
        raise UsageError(f"{refusal.key}: {refusal}; expected {_instead(messages)}") from refusal


class _RefusedError(Exception):
    """What a chat template makes of messages that it does not write; `key`: of a spec's own messages."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"the chat template of this model's tokenizer {message}")
        self.key = key


def _written(tokenizer: Tokenizer, messages: Sequence[Message]) -> Text:
    marks = Marks.absent_from([message["content"] for message in messages])
    marked = [{**message, "content": marks.around(message["content"])} for message in messages]
    text = marks.read(_rendered(tokenizer, marked))
    if len(text.data) >= sum(bool(message["content"].strip()) for message in messages):
        return text
    plain = _rendered(tokenizer, messages)
    return Text(plain, list(_found(plain, messages)))


def _rendered(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except (TemplateError, TypeError) as error:
        system = any(message["role"] == "system" for message in messages)
        key = f"{'prompt.system, ' if system else ''}prompt.chat_template"
        raise _RefusedError(key, f'refuses the messages: "{error}"') from error


def _found(text: str, messages: Sequence[Message]) -> Iterator[Span]:
    """Give where each message stands in a text, for a template that takes messages apart."""
    place = 0
    for message in messages:
        content = message["content"].strip()
        start = text.find(content, place)
        if start < 0:
            key = f"prompt.{'system' if message['role'] == 'system' else 'chat_template'}"
            raise _RefusedError(key, f"leaves out or alters the {message['role']} message {content[:40]!r} …")
        place = start + len(content)
        yield start, place


def _instead(messages: Sequence[Message]) -> str:
    system = any(message["role"] == "system" for message in messages)
    without = "no prompt.system (prompt.template can hold its text), or " if system else ""
    return f"{without}prompt.chat_template = false"


def _instead_of_chat(tokenizer: Tokenizer, chat: Sequence[Message], system: str, message: str) -> str:
    """Say what the template takes: the chat without what the spec adds, where that helps, or as text."""

    def fits(messages: Sequence[Message]) -> bool:
        try:
            _written(tokenizer, messages)
        except _RefusedError:
            return False
        return True

    without = {
        'prompt.template = ""': (system, ""),
        "no prompt.system": ("", message),
        'prompt.template = "" and no prompt.system': ("", ""),
    }
    fitting = next((words for words, added in without.items() if fits(_around(chat, *added))), None)
    alone = "" if fits(_around([], system, "text")) or not system else ", no prompt.system"
    text = (
        f"prompt.messages = false{alone} and a prompt.template with {{context}} and {{response}}, which "
        "shows chats as text"
    )
    return f"{fitting}, or {text}" if fitting else text


@frozen
class Marks:
    """Two characters that stand before and behind data while a template is filled in."""

    before: str
    behind: str

    @staticmethod
    def absent_from(texts: Collection[str]) -> Marks:
        """Give marks that occur in none of the texts."""
        # Unicode's noncharacters, which are for uses like this one; then private characters.
        marks = map(chr, chain(range(0xFDD0, 0xFDF0), range(0xE000, 0xF900)))
        free = (mark for mark in marks if not any(mark in text for text in texts))
        return Marks(next(free), next(free))

    def around(self, text: str) -> str:
        """Mark a text, but not the space around it, which templates strip."""
        core = text.strip()
        start = text.find(core)
        return f"{text[:start]}{self.before}{core}{self.behind}{text[start + len(core) :]}" if core else text

    def read(self, marked: str) -> Text:
        """Give the text without the marks, and what was between them."""
        texts, data, size, start = [], [], 0, 0
        for part in re.split(f"([{self.before}{self.behind}])", marked):
            if part == self.before:
                start = size
            elif part == self.behind:
                data.append((start, size))
            else:
                texts.append(part)
                size += len(part)
        return Text("".join(texts), data)


class _Marking(Formatter):
    """Fills fields in with marks around them."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def format_field(self, value: Any, format_spec: str) -> str:
        return f"{self._marks.before}{super().format_field(value, format_spec)}{self._marks.behind}"


def _filled(key: str, template: str, fields: Mapping[str, str], marks: Marks) -> Text:
    try:
        return marks.read(_Marking(marks).vformat(template, (), fields))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{key}: found the field {error}; expected only {', '.join(fields)} in braces"
        ) from error
