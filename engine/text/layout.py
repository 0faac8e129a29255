"""The text of a target, in the pieces that are tokenized one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from engine.data.visible import visible
from engine.text.encoding import Span, Tokens
from specs.tables.target import Target


@frozen
class Layout:
    """What stands before the label (the stem), and what stands behind it.

    `stem_words`, `rest_words`: the explanation's words in either, each with the space before it.
    """

    stem: str
    closer: str  # what follows the label wherever the target goes on, whatever the explanation says
    rest: str
    stem_words: list[Span]
    rest_words: list[Span]

    @property
    def fixed(self) -> int:
        """The number of words, the first ones, without a space: they would glue to any other neighbour."""
        starts = [self.stem[start] for start, _ in self.stem_words] + [
            self.rest[s] for s, _ in self.rest_words
        ]
        return sum(letter != " " for letter in starts)


@frozen
class Form:
    """The parts of a target that the spec writes: `prefix` before all, `separator` beside the explanation."""

    target: Target
    prefix: str
    separator: str

    @staticmethod
    def of(target: Target, *, chat: bool) -> Form:
        """Fill in the defaults of a target behind a plain prompt or a chat's."""
        prefix = target.prefix
        if prefix is None:
            prefix = "" if chat else " "
        return Form(target, prefix, target.parting)

    @property
    def behind_label(self) -> str:
        """Give the text between the label and the words behind it."""
        return self.separator if self.target.placement == "after" else ". "

    @property
    def closer(self) -> str:
        """Give what of it belongs to no word: a word takes the space before it."""
        return self.behind_label.rstrip(" ")

    @property
    def may_go_on(self) -> bool:
        """Whether an explanation follows the label, where an example has one."""
        return self.target.content != "label" and self.target.placement != "before"

    def stem(self, explanation: str) -> str:
        """Give the text between the prompt and the label, where this explanation comes first."""
        return f"{self.prefix}{explanation}{self.separator}"

    def lay_out(self, example: Mapping[str, str]) -> Layout:
        """Lay the genuine target out: pseudo-explanations take the places of its words."""
        explanation = example["explanation"] if self.target.content != "label" else ""
        words = explanation.split() if visible(explanation) else []
        half = words_before(self.target, len(words))
        first, second = words[:half], words[half:]
        stem = self.stem(" ".join(first)) if self.target.explains_first else self.prefix
        if not second:
            return Layout(stem, "", "", _spans(stem, len(self.prefix), first), [])
        space = self.behind_label[len(self.closer) :]
        rest = space + " ".join(second)
        words_of_rest = _spans(rest, len(space), second)
        return Layout(stem, self.closer, rest, _spans(stem, len(self.prefix), first), words_of_rest)


def words_before(target: Target, count: int) -> int:
    """Give how many of an explanation's words stand before the label."""
    return {"after": 0, "before": count, "interleaved": (count + 1) // 2}[target.placement]


def _spans(text: str, place: int, words: Sequence[str]) -> list[Span]:
    """Give where words that begin at a place of a text stand, each with the space before it."""
    spans = []
    for word in words:
        spans.append((place - text[:place].endswith(" "), place + len(word)))
        place += len(word) + 1
    return spans


def word_tokens(tokens: Tokens, spans: Sequence[Span]) -> list[list[int]]:
    """Give, for each word's span of characters, the tokens that end in it."""
    return [[i for i, end in enumerate(tokens.ends) if start < end <= stop] for start, stop in spans]
