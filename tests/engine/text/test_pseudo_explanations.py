"""Pseudo-explanations keep what they promise: words, tokens, length, and the seed."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from attrs import evolve
from drawn_tokenizers import byte_bpe
from hypothesis import given
from hypothesis import strategies as st
from small_study import writer

from engine.errors import DataError
from engine.text.pseudo_explanations import (
    Corpus,
    bag_of_words,
    filler,
    permuted,
    random_tokens,
    shuffled,
    unigram_tokens,
)
from specs.tables.target import Prompt, Target

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


def example(number: int, label: str, explanation: str, group: str = "") -> dict[str, str]:
    return {
        "id": str(number), "context": "a", "response": "b", "label": label, "explanation": explanation,
        "group": group or str(number),
    }  # fmt: skip


ROWS = [
    example(
        number, "good" if number % 3 else "bad", " ".join(f"w{number}x{i}" for i in range(1 + number % 7))
    )
    for number in range(30)
]


def drawn_words(content: str, row: dict[str, str], rows: list[dict[str, str]], seed: int = 0) -> str:
    """The text in the place of an explanation, cut at the words of a tokenizer that has one for each."""
    vocabulary = {"good": 0, "bad": 1, **{word: 0 for r in [row, *rows] for word in r["explanation"].split()}}
    tokenizer = byte_bpe([f"Ġ{word}" for word in vocabulary], pattern="none")
    own = writer(
        tokenizer, labels=["good", "bad"], target=Target(content=content), examples=lambda: rows, seed=seed,
        prompt=Prompt(template="{context} {response}:", chat_template=False),
    )  # fmt: skip
    encoded, genuine = own.encode(row), evolve(own, target=Target(content="label+explanation")).encode(row)
    assert len(encoded) == len(genuine) and encoded.segments == genuine.segments
    text: str = tokenizer.decode(encoded.completion[:-1]).strip()
    assert text.startswith(f"{row['label']}: ") or not row["explanation"]
    return text.partition(": ")[2]


@given(number=st.integers(0, 29), seed=seeds, contradicting=st.booleans())
def test_another_examples_explanation_is_anothers(number: int, seed: int, contradicting: bool) -> None:
    content = "label+contradicting_explanation" if contradicting else "label+other_explanation"
    words = drawn_words(content, ROWS[number], ROWS, seed).split()
    first = words[0].removeprefix("w").partition("x")[0]
    source = ROWS[int(first)]
    assert source["id"] != str(number)
    assert source["explanation"].split()[: len(words)] == words[: len(source["explanation"].split())]
    distances = sorted(
        abs(len(row["explanation"].split()) - len(ROWS[number]["explanation"].split()))
        for row in ROWS
        if row["id"] != str(number) and (not contradicting or row["label"] != ROWS[number]["label"])
    )
    assert abs(len(source["explanation"].split()) - len(ROWS[number]["explanation"].split())) <= distances[7]
    if contradicting:
        assert source["label"] != ROWS[number]["label"]
    assert words == drawn_words(content, ROWS[number], ROWS, seed).split()


def test_no_explanation_is_of_the_same_group_or_has_the_same_words() -> None:
    rows = [
        example(0, "good", "one two", "g"), example(1, "bad", "three four", "g"),
        example(2, "bad", "one two"), example(3, "good", "five six"), example(4, "bad", "seven"),
    ]  # fmt: skip
    seen = {drawn_words("label+other_explanation", rows[0], rows, seed) for seed in range(40)}
    assert seen == {"five six", "seven five", "seven seven"} or seen == {"five six", "seven five"}
    assert drawn_words("label+contradicting_explanation", rows[0], rows) == "seven seven"
    with pytest.raises(DataError, match=r"label\+contradicting_explanation.* example 0 "):
        drawn_words("label+contradicting_explanation", rows[0], [rows[0], rows[3]])


def test_a_repeated_label_is_the_label_over_and_over() -> None:
    assert drawn_words("label+repeated_label", example(0, "bad", "one two three"), ROWS) == "bad bad bad"


@given(corpus=corpora, count=st.integers(0, 40), seed=seeds)
def test_unigram_tokens_are_drawn_from_the_corpus(corpus: Corpus, count: int, seed: int) -> None:
    tokens = unigram_tokens(count, corpus, random.Random(seed))
    assert len(tokens) == count and set(tokens) <= set(corpus.tokens)


def test_unigram_tokens_follow_the_frequency_of_tokens() -> None:
    corpus = Corpus.of([[(1, 1, 1), (2,)]])
    assert abs(Counter(unigram_tokens(10_000, corpus, random.Random(0)))[1] / 10_000 - 0.75) < 0.02


def test_the_vocabulary_is_all_but_control_tokens() -> None:
    tokenizer = byte_bpe(["Ġone"])
    own = writer(tokenizer, labels=["good", "bad"], target=Target(content="label+vocabulary_tokens"))
    row = example(0, "good", "one " * 3000)
    encoded = own.encode(row)
    drawn = {t for t, kind in zip(encoded.completion, encoded.segments, strict=True) if kind == 1}
    words = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    chat = set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    assert not drawn & (set(tokenizer.all_special_ids) | chat)
    assert len(drawn & words) > 0.9 * len(words - chat)
