"""The tokens that are scored and watched for a label are those that it is trained with, for any tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from drawn_tokenizers import byte_bpe, sentencepiece_bpe, tokenizers, unigram
from facts import told
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import writer

from engine.errors import UsageError
from engine.text.targets import Encoded
from specs.tables.target import Prompt, Target

LABELS = ["good", "bad", "goodbye", "1", "10", "2", "3", "+", "++", "A.", "A", "yes!", "very good", "-1", "é"]
WORDS = ["good", "bad", "1", "order", "it.", "+", "words", "<eos>", "(10)", "A.", "a:b", "<|im_end|>"]
PREFIXES = [None, "", " ", " = ", "Rating:", "\n", "It is "]
SEPARATORS = [None, ": ", "+: ", "\n", ". ", "", " ", ":", "\nRating: ", " because ", "\n\n", ".\n", " 1"]
CONTENTS = [
    "label", "label+explanation", "label+shuffled", "label+bag_of_words", "label+random_tokens",
    "label+filler",
]  # fmt: skip
TEMPLATES = ["{context} {response}:", "{response}", "{context}{response}: ", "Rate {response}\n", "is it +"]
TEXTS = [
    " bad good very 10 1 2 3 + ++ A. yes!: +: it. order\nRating: good bad", ": good. because 1:",
    ".\n\n= 2 -1", " it.\nRating: A.+: 10 words", "(10) a:b good+: bad: 1. yes!. It is good é",
]  # fmt: skip


def whole(encoded: Encoded) -> list[int]:
    return encoded.prompt + encoded.completion


@settings(max_examples=200)
@given(data=st.data())
def test_what_is_scored_and_watched_is_what_is_trained(data: st.DataObject) -> None:
    tokenizer = data.draw(tokenizers(TEXTS))
    words = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
    labels = data.draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=5, unique=True))
    further = data.draw(st.lists(st.sampled_from(LABELS), max_size=2, unique=True).map(set)) - set(labels)
    target = Target(
        content=data.draw(st.sampled_from(CONTENTS)),
        placement=data.draw(st.sampled_from(["after", "before", "interleaved"])),
        permuted=data.draw(st.sampled_from([0.0, 0.7])),
        prefix=data.draw(st.sampled_from(PREFIXES)),
        separator=data.draw(st.sampled_from(SEPARATORS)),
    )
    chat = data.draw(st.booleans())
    row = {
        "id": "1", "context": data.draw(words), "response": data.draw(words), "label": labels[0],
        "explanation": data.draw(words),
    }  # fmt: skip
    options: dict[str, Any] = {
        "prompt": Prompt(template=data.draw(st.sampled_from(TEMPLATES)), chat_template=chat),
        "labels": labels,
        "spellings": {labels[0]: sorted(further)},
        "examples": lambda: [row | {"explanation": "good words in order"}],
    }
    own = writer(tokenizer, target=target, **options)
    try:
        prompt, ids = own.encode_labels(row)
        spelled_prompt, spelled = own.encode_spellings(row)
        trained = [own.encode(row | {"label": label}) for label in labels]
    except UsageError as error:  # labels that this tokenizer cannot tell apart
        assert told(str(error), "labels")
        assert type(tokenizer).__name__ in str(error)
        return

    for label, sequence, spellings, encoded in zip(labels, ids, spelled, trained, strict=True):
        assert sequence and whole(encoded)[: len(prompt) + len(sequence)] == prompt + sequence, label
        assert encoded.label == len(prompt)
        begun = [spelled_prompt + found for found in spellings]
        assert sum(whole(encoded)[: len(found)] == found for found in begun) == 1, label
        assert encoded.completion[-1] == tokenizer.eos_token_id
    generated, _ = own.encode_prompt(row)
    assert whole(trained[0])[: len(generated)] == generated
    if not target.explains_first:
        plain = writer(tokenizer, target=Target(prefix=target.prefix), **options).encode(row)
        assert trained[0].prompt == plain.prompt == prompt
    # Data is text: there is no control token but the template's, the first and the last.
    empty = own.encode(row | {"context": "", "response": "", "explanation": ""})
    control = set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    for token in control - {tokenizer.unk_token_id}:
        assert whole(trained[0]).count(token) == whole(empty).count(token)


def names(tokenizer: Any, ids: list[int]) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(ids))


ROW = {"id": "1", "context": "a", "response": "reply", "label": "bad", "explanation": "it is"}


@pytest.mark.parametrize("placement", ["after", "before", "interleaved"])
def test_a_word_that_merges_with_the_space_before_it(placement: str) -> None:
    tokenizer = byte_bpe(["Ġgood", "Ġbad", "Ġ3", "Ġ2"])
    target = Target(content="label+explanation", placement=placement)
    for labels, first in ((["good", "bad"], ["Ġgood", "Ġbad"]), (["2", "3"], ["Ġ2", "Ġ3"])):
        own = writer(tokenizer, labels=labels, target=target)
        prompt, ids = own.encode_labels(ROW | {"label": labels[1]})
        assert [names(tokenizer, label) for label in ids] == [[name] for name in first]
        assert names(tokenizer, prompt)[-1] == ":"
        encoded = own.encode(ROW | {"label": labels[1]})
        assert names(tokenizer, whole(encoded))[encoded.label] == first[1]


@pytest.mark.parametrize(
    ("label", "tokens"), [("+", ["Ġ+", ":"]), ("++", ["Ġ+", "+", ":"]), ("A.", ["Ġ", "A", ".", ":"])]
)
def test_a_label_that_would_merge_with_what_stands_behind_it(label: str, tokens: list[str]) -> None:
    tokenizer = byte_bpe(["Ġ+:", "+:", ".:", "++:"])
    own = writer(tokenizer, labels=[label, "B"], target=Target(content="label+explanation"))
    encoded = own.encode(ROW | {"label": label})
    text = names(tokenizer, whole(encoded))
    assert text[-len(tokens) - 7 : -7] == tokens or "".join(tokens) in "".join(text)
    prompt, ids = own.encode_labels(ROW)
    assert whole(encoded)[: len(prompt) + len(ids[0])] == prompt + ids[0]
    assert tokenizer.decode(whole(encoded), skip_special_tokens=True) == f"a reply: {label}: it is"


@pytest.mark.parametrize("tokenizer", [
    byte_bpe(["Ġgood", "Ġbad", ":Ċ", ".ĊĊ"], pattern="llama3"), byte_bpe(["Ġgood"], prefix_space=True),
    *(sentencepiece_bpe(["▁good", "▁bad", ":▁", ":▁b"], scheme=scheme, split=split)
      for scheme in ("always", "first", "never", "normalizer") for split in (True, False)),
    unigram(["▁good", "▁bad"]), unigram(["▁good", ":▁b"], scheme="first"),
])  # fmt: skip
@pytest.mark.parametrize("placement", ["after", "before", "interleaved"])
@pytest.mark.parametrize("chat", [False, True])
def test_pieces_read_as_the_whole_text(tokenizer: Any, placement: str, chat: bool) -> None:
    target = Target(content="label+explanation", placement=placement)
    prompt = Prompt(template="{context} {response}:", chat_template=chat)
    own = writer(tokenizer, labels=["good", "bad"], target=target, prompt=prompt)
    encoded = own.encode(ROW | {"explanation": "words are. in order."})
    text = tokenizer.decode(whole(encoded), skip_special_tokens=True)
    space = "" if chat else " "
    expected = {
        "after": f"{space}bad: words are. in order.",
        "before": f"{space}words are. in order.\nRating: bad",
        "interleaved": f"{space}words are.\nRating: bad. in order.",
    }[placement]
    assert text.endswith((":" if not chat else "assistant\n") + expected)
