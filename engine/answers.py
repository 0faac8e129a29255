"""What a generated text says: its label, and the explanation around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from engine.text import Writer


@frozen
class Answer:
    """A generated text in its parts; `label` is "" where it names none."""

    label: str
    before: str  # the part of the explanation that comes before the label
    explanation: str  # all of it


def read_answer(generated: str, writer: Writer) -> Answer:
    """Read a text that was written in the place of the writer's target.

    The explanation is what stands where the target has one, words joined by single spaces: the whole text
    if it names no label. Behind a label that is the whole target it is whatever the model goes on with.
    """
    target, before = writer.target, ""
    if target.explains_first:
        before, _, generated = generated.partition(writer.separator)
    label, rest = split_label(generated, writer.spelled)
    rest = rest.strip().removeprefix(writer.behind_label.strip())
    behind = "" if target.explains_first and target.placement == "before" else rest
    return Answer(label, _words(before), _words(f"{before} {behind}"))


def split_label(text: str, spelled: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Give the label that a text begins with, or "", and the rest of the text; case does not matter.

    spelled: the spellings of every label. The longest fitting one wins ("10" before "1"), and a spelling
    ends where its word ends.
    """
    text = text.strip()
    pairs = [(spelling, label) for label, spellings in spelled.items() for spelling in spellings]
    for spelling, label in sorted(pairs, key=lambda pair: len(pair[0]), reverse=True):
        start, rest = text[: len(spelling)], text[len(spelling) :]
        if start.casefold() == spelling.casefold() and not rest[:1].isalnum():
            return label, rest
    return "", text


def _words(text: str) -> str:
    return " ".join(text.split())
