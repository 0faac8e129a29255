"""Pseudo-explanations keep what they promise: words, tokens, length, and the seed."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.text.pseudo_explanations import Corpus, bag_of_words, filler, permuted, random_tokens, shuffled

words = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple), max_size=20)
corpora = st.lists(words, min_size=1, max_size=4).filter(any).map(Corpus.of)
seeds = st.integers(0, 999)


@given(own=words, seed=seeds)
def test_shuffling_keeps_the_words(own: list[tuple[int, ...]], seed: int) -> None:
    assert Counter(shuffled(own, random.Random(seed))) == Counter(own)
    assert shuffled(own, random.Random(seed)) == shuffled(own, random.Random(seed))


@given(own=words, share=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), seed=seeds)
def test_permuting_moves_a_share_of_the_words(own: list[tuple[int, ...]], share: float, seed: int) -> None:
    moved = permuted(own, share, random.Random(seed))
    assert Counter(moved) == Counter(own)
    drawn = round(share * len(own))
    changed = sum(a != b for a, b in zip(own, moved, strict=True))
    assert changed <= drawn
    if share == 0:
        assert moved == own
    if share == 1 and own:
        most = Counter(own).most_common(1)[0][1]
        # Fewest places that must keep an equal word: those of the commonest one beyond all others' number.
        assert len(own) - changed == max(0, 2 * most - len(own))


def test_distinct_words_all_move_and_every_move_occurs() -> None:
    own = [(i,) for i in range(4)]
    seen = {tuple(permuted(own, 1.0, random.Random(seed))) for seed in range(400)}
    assert len(seen) == 6  # the cycles through all four
    assert all(all(a != b for a, b in zip(own, moved, strict=True)) for moved in seen)


@given(corpus=corpora, count=st.integers(0, 40), seed=seeds)
def test_drawn_sequences_have_the_length_and_the_tokens_of_the_corpus(
    corpus: Corpus, count: int, seed: int
) -> None:
    for draw in (bag_of_words, random_tokens):
        tokens = draw(count, corpus, random.Random(seed))
        assert len(tokens) == count and set(tokens) <= set(corpus.tokens)
        assert tokens == draw(count, corpus, random.Random(seed))


def test_a_bag_of_words_follows_frequencies_and_random_tokens_do_not() -> None:
    corpus = Corpus.of([[(1,)] * 9 + [(2,)]])
    bag = Counter(bag_of_words(10_000, corpus, random.Random(0)))
    tokens = Counter(random_tokens(10_000, corpus, random.Random(0)))
    assert abs(bag[2] / 10_000 - 0.1) < 0.02 and abs(tokens[2] / 10_000 - 0.5) < 0.02


def test_a_bag_of_words_keeps_words_whole() -> None:
    corpus = Corpus.of([[(1, 2), (3,)]])
    tokens = bag_of_words(99, corpus, random.Random(1))
    assert all(after == 2 for before, after in pairwise(tokens) if before == 1)


def test_filler_is_repeated_and_cut() -> None:
    assert filler(5, [7, 8]) == [7, 8, 7, 8, 7] and filler(0, [7]) == []
