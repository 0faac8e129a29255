"""From examples to token ids: what is prompt, what is target, and where a label's tokens begin."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from small_study import WORDS, make_tokenizer, writer
from tokenizers import processors
from transformers import AutoTokenizer

from engine.errors import DataError, UsageError
from engine.text.answers import read_answer
from specs.tables.target import Prompt, Target

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
    ("content", "follows"), [("label", "<eos>"), ("label+explanation", ":"), ("label+shuffled", ":")]
)
def test_labels_that_begin_each_other_are_told_apart_by_what_follows(
    tokenizer: Any, content: str, follows: str
) -> None:
    _, labels = writer(tokenizer, labels=["1", "10"], target=Target(content=content)).encode_labels(ROW)
    assert [tokenizer.decode(ids).endswith(follows) for ids in labels] == [True, True]
    assert labels[1][: len(labels[0])] != labels[0]


def begins(one: list[int], other: list[int]) -> bool:
    return other[: len(one)] == one


TEXTS = st.text("1 05/goodwrd", min_size=1, max_size=6).map(str.strip).filter(bool)


@given(texts=st.lists(TEXTS, min_size=2, max_size=8, unique=True), cut=st.integers(1, 7), data=st.data())
def test_no_spelling_begins_another_and_every_one_is_covered(
    tokenizer: Any, texts: list[str], cut: int, data: st.DataObject
) -> None:
    labels, further = texts[: max(2, cut)], texts[max(2, cut) :]
    spellings: dict[str, list[str]] = {}
    for text in further:
        spellings.setdefault(data.draw(st.sampled_from(labels)), []).append(text)
    own = writer(tokenizer, labels=labels, spellings=spellings)
    prompt, groups = own.encode_spellings(ROW)
    flat = [ids for group in groups for ids in group]
    assert not any(begins(one, other) for one, other in permutations(flat, 2))
    assert all(ids for ids in flat)
    ended = flat[0][-1] == tokenizer.eos_token_id
    for group, (label, spelled) in zip(groups, own.spelled.items(), strict=True):
        for text in spelled:  # each is there itself, or a shorter spelling of the same label stands for it
            ids = writer(tokenizer, labels=[text, "#"]).encode(ROW | {"label": text})
            whole = (ids.prompt + ids.completion)[: None if ended else -1]
            assert any(begins(prompt + one, whole) for one in group), (label, text)
    if not spellings:
        assert own.encode_labels(ROW) == (prompt, [ids for (ids,) in groups])


def test_training_and_probe_know_nothing_of_spellings(tokenizer: Any) -> None:
    plain, own = writer(tokenizer), writer(tokenizer, spellings={"1": ["good"], "2": ["10"]})
    assert own.encode(ROW) == plain.encode(ROW)
    assert own.encode_labels(ROW) == plain.encode_labels(ROW)
    assert own.encode_spellings(ROW) != plain.encode_spellings(ROW)


@pytest.mark.parametrize(("spellings", "ended"), [({"1": ["1/3"]}, False), ({"2": ["1/3"]}, True)])
def test_a_label_is_closed_where_a_spelling_of_another_goes_on(
    tokenizer: Any, spellings: dict[str, list[str]], ended: bool
) -> None:
    _, groups = writer(tokenizer, spellings=spellings).encode_spellings(ROW)
    assert [[ids[-1] == tokenizer.eos_token_id for ids in group] for group in groups] == [
        [ended] * len(group) for group in groups
    ]
    assert [len(group) for group in groups] == ([1, 2, 1] if ended else [1, 1, 1])


def test_labels_that_nothing_tells_apart_are_an_error(tokenizer: Any) -> None:
    target = Target(content="label+explanation", separator=": ")
    own = writer(tokenizer, labels=["1", "2"], spellings={"2": ["1: no"]}, target=target)
    with pytest.raises(UsageError, match=facts("evaluate.labels", '"1"', '"2"')):
        own.encode_spellings(ROW)
    assert own.encode_labels(ROW) == writer(tokenizer, labels=["1", "2"], target=target).encode_labels(ROW)


@pytest.mark.parametrize(("prefix", "labels", "begun"), [(None, ["1", "2"], ""), (" = ", ["1", "2"], ""),
    (None, ["good1", "good2"], " good"), (" = ", ["good 1", "good 2"], " good ")])  # fmt: skip
def test_what_generation_finds_begun_of_the_label(
    tokenizer: Any, prefix: str | None, labels: list[str], begun: str
) -> None:
    own = writer(tokenizer, labels=labels, target=Target(prefix=prefix))
    prompt, found = own.encode_prompt(ROW)
    assert tokenizer.decode(found).strip() == begun.strip() and prompt[len(prompt) - len(found) :] == found
    assert tokenizer.decode(prompt).endswith((prefix or "").rstrip() + (begun or " "))


def test_a_chat_template_wraps_the_message_and_leaves_no_space(tokenizer: Any) -> None:
    prompt = Prompt(template="{response}", system="Be strict.")
    encoded = writer(tokenizer, prompt=prompt).encode(ROW)
    assert tokenizer.decode(encoded.prompt) == "<system>Be strict.\n<user>is good\n<assistant>"
    assert tokenizer.decode(encoded.completion[:-1]) == "2"
    plain = Prompt(template="{response}", system="Be strict on {dimension}.", chat_template=False)
    assert writer(tokenizer, prompt=plain).prompt_text(ROW) == "Be strict on naturalness.\nis good"
    silent = Prompt(template="{response}", system="", chat_template=False)
    assert writer(tokenizer, prompt=silent).prompt_text(ROW) == "is good"


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


ROWS = [
    ROW | {"id": str(n), "explanation": " ".join(WORDS[n : n + 3 + n % 4] + WORDS[: n % 3])} for n in range(9)
]
PSEUDO = ["label+shuffled", "label+bag_of_words", "label+random_tokens", "label+filler"]
PLACEMENTS = ["after", "before", "interleaved"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_placement(tokenizer: Any, placement: str) -> None:
    own = writer(tokenizer, target=Target(content="label+explanation", placement=placement))
    encoded = own.encode(ROW)
    text = {
        "after": "2: words are in order",
        "before": " words are in order\nRating: 2",
        "interleaved": " words are\nRating: 2. in order",
    }[placement]
    assert tokenizer.decode(encoded.completion[:-1]) == text
    whole = encoded.prompt + encoded.completion
    assert tokenizer.decode(whole[encoded.label]) == "2"
    prompt, labels = own.encode_labels(ROW)
    assert whole[: len(prompt)] == prompt and encoded.label == len(prompt)
    assert [tokenizer.decode(ids) for ids in labels] == ["1", "2", "3"]
    if placement != "after":  # the same from the model's own words as from the true ones
        before = read_answer(tokenizer.decode(encoded.completion[:-1]), own).before
        assert own.encode_labels(ROW, before) == (prompt, labels)
        assert tokenizer.decode(own.encode_prompt(ROW)[0]) == "a reply is good:"


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("content", PSEUDO)
def test_pseudo_explanations_match_in_length_and_leave_the_rest_alone(
    tokenizer: Any, content: str, placement: str
) -> None:
    genuine = writer(tokenizer, target=Target(content="label+explanation", placement=placement))
    own = writer(tokenizer, target=Target(content=content, placement=placement), examples=lambda: ROWS)
    differs = False
    for row in ROWS:
        true, pseudo = genuine.encode(row), own.encode(row)
        assert (pseudo.prompt, pseudo.label, len(pseudo)) == (true.prompt, true.label, len(true))
        words = {token for word in genuine.explanation_words(row) for token in word}
        for theirs, ours in zip(true.completion, pseudo.completion, strict=True):
            assert theirs == ours or theirs in words
        differs |= true != pseudo
        assert own.encode(row) == pseudo
        if content == "label+shuffled":
            assert sorted(true.completion) == sorted(pseudo.completion)
            shown, said = tokenizer.decode(pseudo.completion[:-1]), tokenizer.decode(true.completion[:-1])
            assert sorted(shown.split()) == sorted(said.split())
    assert differs


def test_another_seed_or_example_draws_another_order(tokenizer: Any) -> None:
    target = Target(content="label+shuffled")
    row = ROW | {"explanation": "the model rates a reply as good or bad"}

    def text(seed: int, number: str) -> str:
        encoded = writer(tokenizer, target=target, seed=seed).encode(row | {"id": number})
        return str(tokenizer.decode(encoded.completion[:-1]))

    texts = [text(0, "7"), text(1, "7"), text(0, "8")]
    assert len(set(texts)) == 3
    # The same on every machine: a change here changes what all stored results were trained on.
    assert texts[0] == "2: rates a bad good or model reply as the"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_gradient_from_genuine_to_without_order(tokenizer: Any, share: float) -> None:
    row = ROW | {"explanation": "the model rates a reply as good or bad because"}
    genuine = writer(tokenizer, target=Target(content="label+explanation")).encode(row)
    encoded = writer(tokenizer, target=Target(content="label+explanation", permuted=share)).encode(row)
    said, shown = (tokenizer.decode(e.completion[:-1]).split()[1:] for e in (genuine, encoded))
    assert sum(a != b for a, b in zip(said, shown, strict=True)) == share * 10
    assert sorted(said) == sorted(shown) and len(encoded) == len(genuine)


def test_a_first_word_without_space_keeps_its_place(tokenizer: Any) -> None:
    """Elsewhere its token would glue to the word before it."""
    target = Target(content="label+explanation", permuted=1.0, separator="\n")
    text = tokenizer.decode(writer(tokenizer, target=target).encode(ROW).completion[:-1])
    assert text.startswith("2\nwords ") and sorted(text.split()) == ["2", "are", "in", "order", "words"]


def test_filler_is_the_text_that_the_spec_names(tokenizer: Any) -> None:
    target = Target(content="label+filler", filler=" good")
    text = tokenizer.decode(writer(tokenizer, target=target).encode(ROW).completion[:-1])
    assert set(text.removeprefix("2: ").split()) == {"good"}


def test_drawing_from_explanations_that_are_not_there_is_an_error(tokenizer: Any) -> None:
    own = writer(tokenizer, target=Target(content="label+bag_of_words"), examples=list)
    with pytest.raises(DataError, match=facts("training", "none")):
        own.encode(ROW)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(template="{context} {respons}"), r"prompt\.template.*'respons'"),
        (Prompt(template="{context}", system="{context}"), r"prompt\.system.*'context'"),
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
    with pytest.raises(UsageError, match=facts("prompt.chat_template", "true")):
        writer(bare, prompt=Prompt(template="x")).encode(ROW)
