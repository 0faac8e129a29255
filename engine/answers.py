"""What a generated text says: its label, and the explanation around it."""

from __future__ import annotations

import re
import unicodedata
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
    form, before = writer.form, ""
    if form.target.explains_first:
        before, _, generated = generated.partition(form.separator)
        before = _words(before).removeprefix(_words(form.prefix))
    label, rest = split_label(generated, writer.spelled, form.behind_label if form.may_go_on else "")
    rest = rest.strip().removeprefix(form.behind_label.strip())
    behind = "" if form.target.explains_first and not form.may_go_on else rest
    return Answer(label, _words(before), _words(f"{before} {behind}"))


def split_label(text: str, spelled: Mapping[str, Sequence[str]], behind: str = "") -> tuple[str, str]:
    """Give the label that a text begins with, or "", and the rest of the text; case does not matter.

    spelled: the spellings of every label. The longest fitting one wins ("10" before "1"), and a spelling
    ends where its word or number ends: "4.5", "4,5", "1,000", "3-4", "4/5" and "4%" are not 4, 1 or 3, and
    "good-natured" is not good; "4.", "4, because" and "4: good" are. behind: what a target has behind its
    label, which ends the label in any case. Letters are compared and given composed (NFC), however a
    tokenizer writes their accents.
    """
    text = _composed(text.strip())
    pairs = [(_composed(spelling), label) for label, spellings in spelled.items() for spelling in spellings]
    for spelling, label in sorted(pairs, key=lambda pair: len(pair[0]), reverse=True):
        start, rest = text[: len(spelling)], text[len(spelling) :]
        if start.casefold() != spelling.casefold():
            continue
        if (behind.strip() and rest.startswith(behind)) or not _goes_on(spelling, rest):
            return label, rest
    return "", text


# What a word or number goes on with: letters and digits, also behind a hyphen or an apostrophe, and a grade's
# plus or minus. A double hyphen is a dash. Joiners stand within words of Persian and of Indian languages.
_WORD = re.compile(r"\w|\+|[-\u2010\u2011](?!-)|['\u2019\u200c\u200d]\w")
# What a number goes on with: digits behind a sign that joins them, for ranges and fractions also with spaces
# around it, or behind a space that groups them; a fraction behind a space; and the sign of a percentage.
_NUMBER = re.compile(
    r"[.,:/\u00b7\u2044\u2215'\u2019*\u00d7^~\u2026-]+\d"
    r"|[^\S\n]*[-\u2010-\u2015\u2212/\u2044\u2215~][^\S\n]*\d"
    r"|[\u00a0\u2009\u202f]\d"
    r"| \d{3}(?!\d)"
    r"|[^\S\n](?:[\u00bc-\u00be\u2150-\u215e]|\d+[/\u2044\u2215]\d)"
    r"|[^\S\n]?[%\u2030]"
)


def _goes_on(spelling: str, rest: str) -> bool:
    """Tell whether a word, number or row of signs that begins with a spelling is longer than that."""
    last = spelling[-1]
    if _is_mark(rest[:1]):
        return True
    if last.isnumeric() and _NUMBER.match(rest):
        return True
    if last.isalnum() or _is_mark(last):
        return _WORD.match(rest) is not None
    signs = not any(letter.isalnum() for letter in spelling)
    return rest[:1].isalnum() or (signs and rest[:1] in set(spelling))


def _is_mark(letter: str) -> bool:
    """Tell whether a letter is an accent or vowel sign of the one before it; those of emoji are none."""
    emoji = "\ufe00" <= letter <= "\ufe0f" or letter == "\u20e3"
    return bool(letter) and unicodedata.category(letter).startswith("M") and not emoji


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _words(text: str) -> str:
    return " ".join(text.split())
