"""Where texts are cut, a text that grows has the tokens that it has when it is tokenized as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from drawn_tokenizers import byte_bpe, sentencepiece_bpe, tokenizers, unigram, wordpiece
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import writer
from tokenizers import AddedToken

from engine.text import encoding
from engine.text.cuts import Cuts
from engine.text.encoding import Encoder, Text, Tokens, Trail
from specs.tables.target import Prompt, Target

WORDS = [
    "good", "words", "in", "order", "of", "the", "a", "1", "10", "it's", "don't.", "é", "straße", "naïve",
    "日本", "<eos>", "<|im_end|>", "<unk>", "(10)", "A.", "\n", "  ", "\t", "very", "long", "reply", "…",
    "e\u0301", "ﬁ", "New York", "x_y",
]  # fmt: skip
MERGED = [
    "good words in order of the a 1 10 it's don't. <eos> (10) A.\n   very long",
    "in the order of the words",
]
texts = st.lists(st.sampled_from(WORDS), min_size=20, max_size=90).map(" ".join)
pieces = st.lists(st.sampled_from([*WORDS, " good", " 1", ": ", "."]), max_size=4).map("".join)


def grown(encoder: Encoder, parts: list[Text]) -> tuple[list[Tokens], list[int], list[Trail]]:
    trail, found, trails = Trail(encoder, []), [], []
    for part in parts:
        trail, tokens = trail.add(part)
        found.append(tokens)
        trails.append(trail)
    return found, trail.ids, trails


@settings(max_examples=300)
@given(data=st.data())
def test_a_text_that_grows_has_the_tokens_of_the_whole(data: st.DataObject) -> None:
    tokenizer = data.draw(tokenizers(MERGED))
    control = data.draw(st.sampled_from(["", "<|im_start|>assistant\n", "<|im_end|>"]))
    first = Text.of_data(data.draw(texts)) + Text(control)
    parts = [first, *(Text.of_data(data.draw(pieces)) for _ in range(4)), Text.of_data(data.draw(texts))]
    cutting = Encoder(tokenizer)
    plain = evolve(cutting)
    object.__setattr__(plain, "cuts", Cuts({}, False, 32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "SHORT", data.draw(st.sampled_from([0, 60, 200])))
        found, ids, _ = grown(cutting, parts)
        expected, all_ids, _ = grown(plain, parts)
    assert ids == all_ids
    assert found == expected


def test_long_prompts_are_cut_by_every_usual_tokenizer() -> None:
    """A chat before its last control token, plain text between words; what is tokenized again stays short."""
    plain = Text.of_data("It is very good that all of the words are in order here. " * 20)
    chat = plain + Text("<|im_end|>\n<|im_start|>assistant\n")
    usual = [
        byte_bpe(["Ġgood", "Ġin"]), byte_bpe(["Ġgood"], pattern="llama3"), wordpiece(["good"]),
        unigram(["▁good"]), sentencepiece_bpe(["▁good"]), sentencepiece_bpe(["▁good"], scheme="normalizer"),
    ]  # fmt: skip
    for tokenizer in usual:
        for prompt in (plain, chat):
            _, _, (trail,) = grown(Encoder(tokenizer), [prompt])
            assert len(trail.text.text) < 150 < len(trail.closed), tokenizer.backend_tokenizer.model


def test_tokenizers_that_join_words_are_not_cut_between_them() -> None:
    assert not Cuts.of(byte_bpe(["ofĠthe"], pattern="none").backend_tokenizer).words
    assert not Cuts.of(sentencepiece_bpe(["of▁the"], scheme="normalizer").backend_tokenizer).words
    spaced = byte_bpe([])
    spaced.add_tokens([AddedToken("New York", special=True)])
    assert not Cuts.of(spaced.backend_tokenizer).words
    whole = byte_bpe([])
    whole.add_tokens([AddedToken("<|im_start|>assistant", special=True)])
    cuts = Cuts.of(whole.backend_tokenizer)
    assert whole.convert_tokens_to_ids("<|im_start|>") not in cuts.controls
    assert whole.convert_tokens_to_ids("<|im_end|>") in cuts.controls


class Counting:
    """Counts the characters that a tokenizer is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("tokenizer", "characters"):
            object.__setattr__(self, name, value)
        else:
            setattr(self.tokenizer, name, value)

    def encode(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self.tokenizer.encode(text, **options)


@pytest.mark.parametrize("chat", [False, True])
def test_a_long_example_is_tokenized_once(chat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its target and twenty spellings cost a few short texts; another cell over it no prompt at all."""
    tokenizer = byte_bpe(["Ġgood", "Ġwords", "Ġorder"])
    counting = Counting(tokenizer.backend_tokenizer)
    monkeypatch.setattr(type(tokenizer), "backend_tokenizer", counting)
    labels = ["1", "2", "3", "4", "5"]
    options: dict[str, Any] = {
        "prompt": Prompt(template="{context} {response}:", chat_template=chat), "labels": labels,
        "spellings": {label: [f"{label} stars", f"{label} of 5", f"[{label}]"] for label in labels},
    }  # fmt: skip
    row = {
        "id": "1", "context": "all of the good words are in order here " * 100, "label": "1",
        "response": "and these are the good words again " * 100, "explanation": "it is in order",
    }  # fmt: skip
    size = len(row["context"]) + len(row["response"])
    for content, most in (("label+explanation", 2.2), ("label", 0.9)):
        counting.characters = 0
        own = writer(tokenizer, target=Target(content=content), **options)
        own.encode(row)
        own.encode_spellings(row)
        assert counting.characters < most * size
