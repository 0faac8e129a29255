"""From examples to token ids: what is prompt, what is target, and where a label's tokens begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import make_tokenizer, writer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AutoTokenizer

from engine.errors import UsageError
from engine.text import parse_label, shuffle_words
from specs.model import Prompt, Target

ROW = {
    "id": "7", "context": "a reply", "response": "is good", "label": "2", "explanation": "words are in order",
}  # fmt: skip
PLAIN = Prompt(template="{context} {response}:", chat_template=False)


def test_prompt_and_completion_are_the_whole_text_and_the_end_token(tokenizer: Any) -> None:
    target = Target(content="label+explanation", separator=" because ")
    encoded = writer(tokenizer, target=target).encode(ROW)
    # The space is a token of its own here, the same for every label: it is given, not asked for.
    assert tokenizer.decode(encoded.prompt) == "a reply is good: "
    assert tokenizer.decode(encoded.completion[:-1]) == "2 because words are in order"
    assert encoded.completion[-1] == tokenizer.eos_token_id
    assert len(encoded) == len(encoded.prompt) + len(encoded.completion)


@pytest.mark.parametrize("content", ["label", "label+explanation", "label+shuffled"])
def test_all_conditions_share_prompt_and_label(tokenizer: Any, content: str) -> None:
    own = writer(tokenizer, target=Target(content=content))
    label_only = writer(tokenizer)
    assert own.encode(ROW).prompt == label_only.encode(ROW).prompt
    size = len(label_only.encode(ROW).completion) - 1
    assert own.encode(ROW).completion[:size] == label_only.encode(ROW).completion[:size]
    prompt, labels = own.encode_labels(ROW)
    whole = own.encode(ROW)
    assert (whole.prompt + whole.completion)[: len(prompt) + len(labels[1])] == prompt + labels[1]


@pytest.mark.parametrize(("prefix", "text"), [(None, ": 2"), ("", ":2"), (" = ", ": = 2")])
def test_the_text_before_the_label(tokenizer: Any, prefix: str | None, text: str) -> None:
    encoded = writer(tokenizer, target=Target(prefix=prefix)).encode(ROW)
    assert tokenizer.decode(encoded.prompt + encoded.completion[:-1]) == f"a reply is good{text}"
    assert tokenizer.decode(encoded.completion[:-1]) == "2"


def test_what_all_labels_begin_with_belongs_to_the_prompt(tokenizer: Any) -> None:
    prompt, labels = writer(tokenizer, labels=["good1", "good2"]).encode_labels(ROW)
    assert tokenizer.decode(prompt).startswith("a reply is good: g")
    assert labels[0][0] != labels[1][0]
    assert [tokenizer.decode(prompt + label) for label in labels] == [
        "a reply is good: good1", "a reply is good: good2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "follows"), [("label", "<eos>"), ("label+explanation", "\n"), ("label+shuffled", "\n")]
)
def test_labels_that_begin_each_other_are_told_apart_by_what_follows(
    tokenizer: Any, content: str, follows: str
) -> None:
    _, labels = writer(tokenizer, labels=["1", "10"], target=Target(content=content)).encode_labels(ROW)
    assert [tokenizer.decode(ids).endswith(follows) for ids in labels] == [True, True]
    assert labels[1][: len(labels[0])] != labels[0]


def test_a_chat_template_wraps_the_message_and_leaves_no_space(tokenizer: Any) -> None:
    prompt = Prompt(template="{response}", system="Be strict.")
    encoded = writer(tokenizer, prompt=prompt).encode(ROW)
    assert tokenizer.decode(encoded.prompt) == "<system>Be strict.\n<user>is good\n<assistant>"
    assert tokenizer.decode(encoded.completion[:-1]) == "2"
    plain = Prompt(template="{response}", system="Be strict.", chat_template=False)
    assert writer(tokenizer, prompt=plain).prompt_text(ROW) == "Be strict.\nis good"


@pytest.mark.parametrize("closing", [False, True])
def test_special_tokens_open_the_prompt_once_and_never_close_it(
    tmp_path: Path, tokenizer: Any, closing: bool
) -> None:
    make_tokenizer(tmp_path)
    special = AutoTokenizer.from_pretrained(tmp_path)
    special.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>" if closing else "<bos> $A", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    encoded, plain = writer(special).encode(ROW), writer(tokenizer).encode(ROW)
    assert encoded.prompt == [0, *plain.prompt]
    assert encoded.completion == plain.completion
    # A chat template writes the special tokens itself.
    chat = writer(special, prompt=Prompt(template="{response}")).encode(ROW)
    assert chat.prompt == writer(tokenizer, prompt=Prompt(template="{response}")).encode(ROW).prompt


@given(words=st.lists(st.text("abc", min_size=1), max_size=12), seed=st.integers(0, 9))
def test_shuffling_keeps_the_words_and_follows_the_seed(words: list[str], seed: int) -> None:
    text = " ".join(words)
    shuffled = shuffle_words(text, f"{seed}")
    assert sorted(shuffled.split()) == sorted(words)
    assert shuffle_words(text, f"{seed}") == shuffled


def test_shuffling_is_the_same_on_every_machine(tokenizer: Any) -> None:
    target = Target(content="label+shuffled")
    texts = [writer(tokenizer, target=target, seed=seed).target_text(ROW) for seed in (0, 3)]
    assert texts == ["2\norder are in words", "2\nwords order are in"]
    assert writer(tokenizer, target=target).target_text(ROW | {"id": "8"}) == "2\norder in are words"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" 2\nbecause", "2"),
        ("10.", "10"),
        ("1", "1"),
        ("100", ""),
        ("GOOD, since", "good"),
        ("goods", ""),
        ("", ""),
        ("it is 2", ""),
    ],
)
def test_parsing_a_generated_label(text: str, label: str) -> None:
    assert parse_label(text, ["1", "2", "10", "good"]) == label


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(template="{context} {respons}"), "prompt.template: found the field 'respons'"),
        (Prompt(template="{context"), "prompt.template"),
        (Prompt(template="{0}"), "prompt.template"),
    ],
)
def test_a_wrong_template_is_named(tokenizer: Any, prompt: Prompt, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        writer(tokenizer, prompt=prompt).encode(ROW)


def test_a_tokenizer_without_chat_template_says_so(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    bare = AutoTokenizer.from_pretrained(tmp_path)
    bare.chat_template = None
    with pytest.raises(UsageError, match=r"prompt\.chat_template: found true"):
        writer(bare, prompt=Prompt(template="x")).encode(ROW)
