"""Where a text can be cut: what stands behind the cut has the same tokens without what stands before it.

So a text that grows at its end is not tokenized anew as a whole. There are two kinds of cuts. Before a
control token: tokenizers part a text at these first, and tokenize what is between them apart. And between
two words, if the tokenizer tokenizes word by word, or has no token with a letter and the space behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from attrs import frozen

# A cut is as far from the end of a text at least: what is added there changes nothing before it.
MARGIN = 32
WORDS = 40  # that are tried from the end on
# Words of many languages' commonest pairs: a tokenizer that joins words has a token for some of them.
SAMPLE = (
    "one of the words in the middle of a text and for the first time it is to be on the other side as well "
    "by the way at the end of the day in order to see that there is a lot of it in der auf die bei dem "
    "de la en el que se a la por lo du monde et il y a dans le"
)
_BORDER = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


@frozen
class Cut:
    """A place of a text, and the anchor before it that is tokenized together with what stands behind it."""

    anchor: int
    place: int


@frozen
class Cuts:
    """Finds where texts can be cut for one tokenizer, of the package tokenizers.

    `controls`: id → text of tokens that part a text whatever stands around them. `words`: whether texts can
    be cut between words. `margin`: characters.
    """

    controls: Mapping[int, str]
    words: bool
    margin: int

    @staticmethod
    def of(backend: Any) -> Cuts:
        """Find out what kind of cuts a tokenizer allows."""
        added = backend.get_added_tokens_decoder()
        texts = [token.content for token in added.values()]
        controls = {
            number: token.content
            for number, token in added.items()
            if token.special
            and not (token.normalized or token.single_word or token.lstrip or token.rstrip)
            and sum(token.content in text for text in texts) == 1
        }
        spaced = any(" " in text.strip() or text[:1].isalpha() or text[-1:].isalpha() for text in texts)
        by_words = not spaced and (_word_by_word(backend) or _no_token_joins_words(backend))
        return Cuts(controls, by_words, max([MARGIN, *(2 * len(text) for text in texts)]))

    def candidates(self, text: str, ids: list[int], ends: list[int]) -> Iterator[Cut]:
        """Yield places at which a text with these tokens may be cut, the last ones first."""
        controlled = not self.controls.keys().isdisjoint(ids)
        for token, end in zip(reversed(ids), reversed(ends), strict=True) if controlled else ():
            if token in self.controls:
                start = end - len(self.controls[token])
                if start > 0 and text[start:end] == self.controls[token]:
                    yield Cut(start, start)
                    break
        if self.words:
            last = len(text) - self.margin
            places = [match.start() for match in _BORDER.finditer(text, max(0, last - 8 * self.margin), last)]
            for anchor, place in list(pairwise(places))[: -WORDS - 1 : -1]:
                yield Cut(anchor + 1, place)


def _word_by_word(backend: Any) -> bool:
    """Tell whether every word of a sample, with the space before it, is tokenized apart."""
    encoding = backend.encode(SAMPLE, add_special_tokens=False)
    words, ends = encoding.word_ids, [end for _, end in encoding.offsets]
    borders = {end for word, then, end in zip(words, words[1:], ends, strict=False) if word != then}
    return all(match.start() in borders for match in _BORDER.finditer(SAMPLE))


def _no_token_joins_words(backend: Any) -> bool:
    """Tell whether no token holds a letter and a space behind it; for texts that are tokenized as a whole."""
    return backend.pre_tokenizer is None and not any(
        re.search("[^▁ ][▁ ]", token) for token in backend.get_vocab(with_added_tokens=False)
    )
