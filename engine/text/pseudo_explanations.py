"""Pseudo-explanations: token sequences as long as an explanation, with some or all of its sense taken out.

They are made from the tokens of words as these stand in the genuine target, so lengths match to the token.
The same seed draws the same sequence on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice

from attrs import frozen

from specs.tables.experiment import Target

Word = tuple[int, ...]  # the token ids of one word, with the space before it


@frozen
class Corpus:
    """What pseudo-explanations are drawn from: the words and the tokens of many explanations."""

    words: tuple[Word, ...]  # one entry per occurrence, so that drawing one follows the frequencies
    tokens: tuple[int, ...]  # each token once, ascending

    @staticmethod
    def of(explanations: Iterable[Sequence[Word]]) -> Corpus:
        """Gather the words of these explanations."""
        words = tuple(word for explanation in explanations for word in explanation)
        return Corpus(words, tuple(sorted({token for word in words for token in word})))


def drawn(
    target: Target,
    words: Sequence[Word],
    fixed: int,
    corpus: Callable[[], Corpus],
    filling: Callable[[], Sequence[int]],
    rng: random.Random,
) -> list[int]:
    """Give the tokens that a target has in the places of its explanation's words: as many as these.

    The first `fixed` words keep their places. `corpus`: of the training examples; `filling`: of a filler.
    """
    count = sum(map(len, words))
    if target.content == "label+bag_of_words":
        return bag_of_words(count, corpus(), rng)
    if target.content == "label+random_tokens":
        return random_tokens(count, corpus(), rng)
    if target.content == "label+filler":
        return filler(count, filling())
    kept, others = list(words[:fixed]), words[fixed:]
    moved = (
        shuffled(others, rng)
        if target.content == "label+shuffled"
        else permuted(others, target.permuted, rng)
    )
    return [token for word in [*kept, *moved] for token in word]


def shuffled(words: Sequence[Word], rng: random.Random) -> list[Word]:
    """Give the words in random order."""
    order = list(words)
    rng.shuffle(order)
    return order


def permuted(words: Sequence[Word], share: float, rng: random.Random) -> list[Word]:
    """Give the words with a share of them, drawn at random, moved among their places.

    No drawn place keeps its word, but where more than half of the drawn words are the same one.
    """
    places = rng.sample(range(len(words)), round(share * len(words)))
    by_word: dict[Word, list[int]] = {}
    for place in places:
        by_word.setdefault(words[place], []).append(place)
    groups = list(by_word.values())
    rng.shuffle(groups)
    order = [place for group in groups for place in group]
    # Equal words stand together, so a shift by the largest group's size takes every word out of its group.
    shift = max(map(len, groups), default=0)
    moved = list(words)
    for index, place in enumerate(order):
        moved[order[(index + shift) % len(order)]] = words[place]
    return moved


def bag_of_words(count: int, corpus: Corpus, rng: random.Random) -> list[int]:
    """Draw words by their frequency until they make exactly so many tokens."""
    tokens: list[int] = []
    while len(tokens) < count:
        word = rng.choice(corpus.words)
        if len(word) > count - len(tokens):
            fitting = [word for word in corpus.words if len(word) <= count - len(tokens)]
            word = rng.choice(fitting or [word])[: count - len(tokens)]
        tokens += word
    return tokens


def random_tokens(count: int, corpus: Corpus, rng: random.Random) -> list[int]:
    """Draw so many tokens, each uniformly from all that occur in the corpus."""
    return rng.choices(corpus.tokens, k=count)


def filler(count: int, tokens: Sequence[int]) -> list[int]:
    """Repeat the tokens up to a length."""
    return list(islice(cycle(tokens), count))
