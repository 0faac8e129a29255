"""Pseudo-explanations: token sequences as long as an explanation, with some or all of its sense taken out.

They are made from the tokens of words as these stand in the genuine target, so lengths match to the token.
The same seed draws the same sequence on every machine.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, cycle, islice
from math import inf

from attrs import evolve, frozen

from engine.errors import DataError
from engine.models.tokenizer import Tokenizer
from specs.errors import PluginError
from specs.registry import PSEUDO_EXPLANATIONS
from specs.tables.target import CONTENT, Target

Word = tuple[int, ...]  # the token ids of one word, with the space before it
NEAREST = 8  # explanations of other examples, by length, of which one is drawn


@frozen
class Explanation:
    """The explanation of one example, as tokens."""

    example: Mapping[str, str]
    tokens: tuple[int, ...]

    @property
    def place(self) -> tuple[int, float]:
        """Where it stands among others: by its length, in random order where lengths are equal."""
        return len(self.tokens), random.Random(f"{self.example['id']}").random()


@frozen
class Corpus:
    """What pseudo-explanations are drawn from: the words and the tokens of many explanations."""

    words: tuple[Word, ...]  # one entry per occurrence, so that drawing one follows the frequencies
    tokens: tuple[int, ...]  # each token once, ascending
    explanations: tuple[Explanation, ...] = ()  # in the order of their places

    @staticmethod
    def of(explanations: Iterable[Sequence[Word]]) -> Corpus:
        """Gather the words of these explanations.

        Args:
            explanations: of each training example the words of its explanation, as token ids.

        Returns:
            their words and tokens, to draw from.
        """
        words = tuple(word for explanation in explanations for word in explanation)
        return Corpus(words, tuple(sorted({token for word in words for token in word})))

    @staticmethod
    def of_examples(examples: Iterable[tuple[Mapping[str, str], Sequence[Word]]]) -> Corpus:
        """Gather explanations, with the examples that they are of.

        Args:
            examples: pairs of an example and the words of its explanation; those without words are left out.
        """
        rows = [(example, words) for example, words in examples if words]
        explanations = [
            Explanation(example, tuple(t for word in words for t in word)) for example, words in rows
        ]
        corpus = Corpus.of(words for _, words in rows)
        return evolve(
            corpus, explanations=tuple(sorted(explanations, key=lambda explanation: explanation.place))
        )


@frozen
class Draw:
    """What the pseudo-explanation of one example is made from."""

    words: Sequence[Word]  # of the genuine explanation, as they stand in the target
    fixed: int  # so many words from the start should keep their places, where words do at all
    target: Target
    example: Mapping[str, str]
    tokenizer: Tokenizer
    rng: random.Random  # of the run seed and the example
    corpus: Callable[[], Corpus]  # of the training examples; DataError where these have no explanation
    filling: Callable[[], Sequence[int]]  # the tokens of `target.filler`
    label: Callable[[], Sequence[int]] = tuple  # the tokens of the example's label behind a space
    vocabulary: Callable[[], Sequence[int]] = tuple  # all tokens that no text of the data is kept from

    @property
    def count(self) -> int:
        """The tokens of the genuine explanation: a pseudo-explanation has as many."""
        return sum(map(len, self.words))


@frozen
class PseudoExplanation:
    """One `target.content = "label+NAME"`."""

    tokens: Callable[[Draw], Sequence[int]]
    seeded: bool = True  # whether it draws from `rng`, so that the run seed is part of what is probed
    version: str = "1"  # of a plug-in: part of stage keys, to be raised when it draws other tokens


def drawn(draw: Draw) -> Sequence[int]:
    """Give the tokens that a target has in the places of its explanation's words: as many as these."""
    if draw.target.content == "label+explanation":
        return _moved(draw, permuted(draw.words[draw.fixed :], draw.target.permuted, draw.rng))
    name = CONTENT.name(draw.target.content)
    assert name is not None
    tokens = PSEUDO_EXPLANATIONS.get(name, PseudoExplanation).tokens(draw)
    if len(tokens) != draw.count:
        raise PluginError(
            f"{PSEUDO_EXPLANATIONS.plugin(name) or draw.target.content}: expected as many tokens as the "
            f"genuine explanation of example {draw.example.get('id')} has, {draw.count}; found {len(tokens)}"
        )
    return tokens


def _moved(draw: Draw, words: Sequence[Word]) -> list[int]:
    """Give the tokens of words behind those that keep their places."""
    return [token for word in [*draw.words[: draw.fixed], *words] for token in word]


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


def unigram_tokens(count: int, corpus: Corpus, rng: random.Random) -> list[int]:
    """Draw so many tokens by their frequency in the corpus, each by itself."""
    return rng.choices([token for word in corpus.words for token in word], k=count)


def explanation_of_another(draw: Draw, *, contradicting: bool = False) -> list[int]:
    """Give the explanation of another example, cut to the length, or with a further one behind it.

    It is drawn from those that are nearest in length, so that little is cut. contradicting: of an example
    with another label.
    """
    mine, count = draw.example, draw.count
    own_words = mine["explanation"].split()

    def serves(example: Mapping[str, str]) -> bool:
        alike = example["id"] == mine["id"] or (example.get("group") or 0) == (mine.get("group") or 1)
        labels = not contradicting or example["label"] != mine["label"]
        return not alike and labels and example["explanation"].split() != own_words

    others = [other.tokens for other in islice(_by_distance(draw, serves), NEAREST)]
    if not others:
        what = "another label, in another group" if contradicting else "another group"
        raise DataError(
            f'target.content: found "{draw.target.content}", but no training example of {what} has an '
            f"explanation that example {mine['id']} could have in place of its own"
        )
    draw.rng.shuffle(others)
    return list(islice(chain.from_iterable(cycle(others)), count))


def _by_distance(draw: Draw, serves: Callable[[Mapping[str, str]], bool]) -> Iterator[Explanation]:
    """Yield the explanations that serve, those nearest in length first."""
    explanations, count = draw.corpus().explanations, draw.count
    above = bisect(explanations, (count, draw.rng.random()), key=lambda explanation: explanation.place)
    below = above - 1
    while below >= 0 or above < len(explanations):
        under = count - len(explanations[below].tokens) if below >= 0 else inf
        over = len(explanations[above].tokens) - count if above < len(explanations) else inf
        chosen = explanations[above] if over <= under else explanations[below]
        above, below = (above + 1, below) if over <= under else (above, below - 1)
        if serves(chosen.example):
            yield chosen


def filler(count: int, tokens: Sequence[int]) -> list[int]:
    """Repeat the tokens up to a length."""
    return list(islice(cycle(tokens), count))


for _name, _built_in in {
    "shuffled": PseudoExplanation(lambda draw: _moved(draw, shuffled(draw.words[draw.fixed :], draw.rng))),
    "bag_of_words": PseudoExplanation(lambda draw: bag_of_words(draw.count, draw.corpus(), draw.rng)),
    "random_tokens": PseudoExplanation(lambda draw: random_tokens(draw.count, draw.corpus(), draw.rng)),
    "filler": PseudoExplanation(lambda draw: filler(draw.count, draw.filling()), seeded=False),
    "other_explanation": PseudoExplanation(explanation_of_another),
    "contradicting_explanation": PseudoExplanation(
        lambda draw: explanation_of_another(draw, contradicting=True)
    ),
    "repeated_label": PseudoExplanation(lambda draw: filler(draw.count, draw.label()), seeded=False),
    "unigram_tokens": PseudoExplanation(lambda draw: unigram_tokens(draw.count, draw.corpus(), draw.rng)),
    "vocabulary_tokens": PseudoExplanation(
        lambda draw: draw.rng.choices(draw.vocabulary(), k=draw.count) if draw.count else []
    ),
}.items():
    PSEUDO_EXPLANATIONS.add(_name, _built_in)
