"""What a generated text says: its label, and the explanation around it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from attrs import frozen

from engine.text.targets import TargetEncoder


@frozen
class ParsedAnswer:
    """A generated text in its parts; `label` is "" where it names none."""

    label: str
    before: str  # the part of the explanation that comes before the label
    explanation: str  # all of it


def read_answer(generated: str, writer: TargetEncoder) -> ParsedAnswer:
    """Read a text that was written in the place of the writer's target.

    The explanation is what stands where the target has one, words joined by single spaces: the whole text
    if it names no label. Behind a label that is the whole target it is whatever the model goes on with. What
    the spec writes (prefix, separator) is looked for as the tokenizer gives it back: in lower case, say.
    """
    form, before, behind_label = writer.form, "", writer.as_written(writer.form.behind_label)
    if form.target.explains_first:
        before, _, generated = generated.partition(writer.as_written(form.separator))
        before = _words(before).removeprefix(_words(writer.as_written(form.prefix)))
    label, rest = split_label(generated, writer.spelled, behind_label if form.may_go_on else "")
    return answer_of(label, before, rest, writer)


def answer_of(label: str, before: str, rest: str, writer: TargetEncoder) -> ParsedAnswer:
    """Give an answer by its label and what stands before and behind that."""
    form = writer.form
    rest = rest.strip().removeprefix(writer.as_written(form.behind_label).strip())
    behind = "" if form.target.explains_first and not form.may_go_on else rest
    return ParsedAnswer(label, _words(before), _words(f"{before} {behind}"))


def split_label(text: str, spelled: Mapping[str, Sequence[str]], behind: str = "") -> tuple[str, str]:
    """Give the label that a text begins with, or "", and the rest of the text; case does not matter.

    spelled: the spellings of every label. The longest fitting one wins ("10" before "1"), and a spelling
    ends where its word or number ends: "4.5", "4,5", "1,000", "3-4", "4/5" and "4%" are not 4, 1 or 3, and
    "good-natured" is not good; "4.", "4, because" and "4: good" are. A label that others stand beside ("4 or
    5", "yes/no", "1, 2, 3") is none. behind: what a target has behind its label, which ends the label in any
    case. Letters are compared and given composed (NFC), however a tokenizer writes their accents.
    """
    text = _composed(text.strip())
    pairs = [(_composed(spelling), label) for label, spellings in spelled.items() for spelling in spellings]
    pairs.sort(key=lambda pair: len(pair[0]), reverse=True)
    spelling, label = _begun(text, pairs, behind)
    rest = text[len(spelling) :]
    ended = bool(behind.strip()) and rest.startswith(behind)
    if not label or (not ended and _names_others(spelling, label, rest, pairs)):
        return "", text
    return label, rest


# Spellings with their labels, the longest first.
Pairs = Sequence[tuple[str, str]]


def _begun(text: str, pairs: Pairs, behind: str = "") -> tuple[str, str]:
    """Give the spelling that a text begins with and its label; ("", "") if there is none."""
    for spelling, label in pairs:
        start, rest = text[: len(spelling)], text[len(spelling) :]
        if start.casefold() != spelling.casefold():
            continue
        if (behind.strip() and rest.startswith(behind)) or not _goes_on(spelling, rest):
            return spelling, label
    return "", ""


# What a word or number goes on with: letters and digits, also behind a hyphen, an apostrophe or a sign that
# joins words, and a grade's signs. A double hyphen is a dash. Joiners stand within words of Persian and of
# Indian languages.
_GRADE = r"[+#]|[-\u2010\u2011](?!-\s*\w)"
_WORD = re.compile(rf"\w|{_GRADE}|['&@/\\\u2013\u2019\u200c\u200d]\w")
# What a number goes on with: digits behind a sign that joins them, for ranges, sums and fractions also with
# spaces around it, or behind a space that groups them; a fraction behind a space; and a unit.
_NUMBER = re.compile(
    r"[.,:/\u00b7\u066b\u066c\u2044\u2215\uff0c\uff0e'\u2019*\u00d7^~\u2026-]+\d"
    r"|[^\S\n]*[-\u2010-\u2015\u2212/\u2044\u2215~+\u00d7][^\S\n]*\d"
    r"|[\u00a0\u2009\u202f]\d"
    r"| \d{3}(?!\d)"
    r"|[^\S\n](?:[\u00bc-\u00be\u2150-\u215e]|\d+[/\u2044\u2215]\d)"
    r"|[^\S\n]?[%\u2030\u066a\u00b0$\u00a2-\u00a5\u20a0-\u20cf]"
    r"|[^\S\n](?:per ?cent|hundred|thousand|million|billion|and a half)\b",
    re.IGNORECASE,
)
# What a label of signs goes on with, beside its own signs.
_SIGN = re.compile(rf"{_GRADE}|[*/%&@=<>^~|\\\u00b1\u2212]")
_SENTENCE = frozenset(".,;:!?\u2026\u3002\uff01\uff1f")  # may be doubled behind a label that ends in one


def _goes_on(spelling: str, rest: str) -> bool:
    """Tell whether a word, number or row of signs that begins with a spelling is longer than that."""
    last = spelling[-1]
    if _is_mark(rest[:1]):
        return True
    if last.isnumeric() and _NUMBER.match(rest):
        return True
    if last.isalnum() or _is_mark(last):
        return _WORD.match(rest) is not None
    endings = {last} - _SENTENCE if any(letter.isalnum() for letter in spelling) else set(spelling)
    return rest[:1].isalnum() or rest[:1] in endings or (last not in _SENTENCE and bool(_SIGN.match(rest)))


# What stands between labels that are named side by side, on one line: a word or sign that joins them says
# so by itself; a comma, a dash or spaces alone may as well begin an explanation.
_GAP = r"(?:[^\S\n]|[\"'*_`()\[\]\u00ab\u00bb\u2018-\u201f])"
_JOINING = (
    "or|and|to|through|till|until|vs|versus|oder|und|bis|ou|et|\u00e0|o|y|e"
    "|\u0438\u043b\u0438|\u0438|\u0434\u043e"  # Russian: or, and, to
)
_JOINED = re.compile(
    rf"{_GAP}*(?:[,;]?{_GAP}+(?:{_JOINING})\b\.?{_GAP}+(?:(?:an?|maybe|perhaps|possibly|even) )?"
    rf"|[/\\|&\uff0f]{_GAP}*)",
    re.IGNORECASE,
)
_BESIDE = re.compile(rf"{_GAP}*[,;\u3001\uff0c\uff1b\u30fb~\u2010-\u2015-]*{_GAP}*")
_CLOSED = re.compile(rf"{_GAP}*(?:[.!?\u2026\u3002\uff01\uff1f]|$)", re.MULTILINE)


def _names_others(spelling: str, label: str, rest: str, pairs: Pairs) -> bool:
    """Tell whether an answer names further labels beside the one that it begins with.

    They are joined to it by a word or sign, or the line says no more than these labels, which all are
    numbers or none of them is. Joined to a number every other number counts, though it is no label.
    """
    for between, sure in ((_JOINED, True), (_BESIDE, False)):
        if (gap := between.match(rest)) is None:
            continue
        for place in range(gap.end() + 1):  # a label may begin with a sign that labels stand between
            if not between.fullmatch(rest, 0, place):
                continue
            other, name = _begun(rest[place:], pairs)
            further = rest[place + len(other) :]
            if sure and not name and spelling[-1].isnumeric() and rest[place : place + 1].isnumeric():
                return True
            if name and (sure or other[-1].isnumeric() == spelling[-1].isnumeric()):
                if name != label and (sure or _CLOSED.match(further) or _JOINED.match(further)):
                    return True
                return _names_others(other, label, further, pairs)
    return False


def _is_mark(letter: str) -> bool:
    """Tell whether a letter is an accent or vowel sign of the one before it; those of emoji are none."""
    emoji = "\ufe00" <= letter <= "\ufe0f" or letter == "\u20e3"
    return bool(letter) and unicodedata.category(letter).startswith("M") and not emoji


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _words(text: str) -> str:
    return " ".join(text.split())
