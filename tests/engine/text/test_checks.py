"""Tokenizers, labels and targets that cannot be right are refused before anything is trained."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from commands import engine
from drawn_tokenizers import SPECIAL, byte_bpe, fast, sentencepiece_bpe, unigram, wordpiece
from facts import facts
from small_study import make_llama, small_spec, writer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaForCausalLM

from engine.errors import DataError, EngineError, UsageError
from engine.models import loading
from engine.models.batching import padding_id
from engine.models.generation import written
from engine.text.answers import read_answer
from engine.text.token_checks import (
    check_generated,
    check_separators,
    check_tokens,
    check_watched,
    check_weighted,
)
from specs.tables.experiment import Model
from specs.tables.loss import SEGMENTS, Loss
from specs.tables.target import Prompt, Target

ROW = {"id": "1", "context": "a", "response": "reply", "label": "bad", "explanation": "it is"}
LABELS = ["good", "bad"]


def test_a_tokenizer_that_reads_one_text_in_two_ways_is_named() -> None:
    tokenizer = byte_bpe(["Ġgood", "Ġbad"])
    tokenizer.backend_tokenizer.model.dropout = 0.9
    own = writer(tokenizer, labels=LABELS, target=Target(content="label+explanation", placement="before"))
    with pytest.raises(
        EngineError, match=r'TokenizersBackend reads "bad" as \[.*\] where it is scored, but as'
    ):
        check_tokens(own, [ROW] * 64, 999)


def test_labels_that_are_unknown_or_alike_are_named() -> None:
    with pytest.raises(UsageError, match=facts("labels")):
        check_tokens(writer(wordpiece([]), labels=["Good", "good"]), [ROW | {"label": "good"}], 999)
    words = {word: number for number, word in enumerate([*SPECIAL, "good", ":"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UsageError, match=facts('"bad"', "['<unk>']")):
        check_tokens(writer(fast(tokenizer), labels=LABELS), [ROW], 999)


def words_alone(*words: str) -> Any:
    """A tokenizer that knows these words, letters of labels and signs, and reads all else as <unk>."""
    known = {word: number for number, word in enumerate([*SPECIAL, "good", "bad", "it", "is", *words])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(tokenizer)


@pytest.mark.parametrize(
    ("words", "target", "said"),
    [
        ([":"], Target(content="label+filler"), ("target.filler", "' ...'", "['<unk>'")),
        ([":", "."], Target(content="label+filler", filler=" ★"), ("target.filler", "★", "['<unk>']")),
        ([], Target(content="label+explanation"), ("target.separator", "': '", "['<unk>']")),
        (
            [":"],
            Target(content="label+words", placement="before"),
            ("target.separator", r"\nRating: '", "['<unk>', ':']"),
        ),
        (
            ["Rating", ":"],
            Target(content="label+explanation", placement="interleaved"),
            ("target.placement", "'. '", "['<unk>']", '"after" or "before"'),
        ),
        ([], Target(prefix="Answer: "), ("target.prefix", "'Answer: '", "['<unk>', '<unk>']")),
    ],
)
def test_texts_of_the_spec_that_a_tokenizer_does_not_know_are_named(
    words: list[str], target: Target, said: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=facts(*said)):
        check_tokens(writer(words_alone(*words), labels=LABELS, target=target), [ROW], 999)


def test_an_unknown_filler_that_is_asked_for_by_name_stays() -> None:
    target = Target(content="label+filler", filler=" <unk>")
    check_tokens(writer(words_alone(":"), labels=LABELS, target=target), [ROW], 999)
    check_tokens(
        writer(words_alone(), labels=LABELS, target=Target(filler=" ★")), [ROW], 999
    )  # that none reads
    apart = Target(content="label+explanation", placement="interleaved")
    check_tokens(writer(words_alone("Rating", ":", "."), labels=LABELS, target=apart), [ROW], 999)


def test_a_spelling_that_a_tokenizer_does_not_know_is_named() -> None:
    def own(*texts: str) -> Any:
        return writer(words_alone("fine"), labels=LABELS, spellings={"good": texts})

    check_tokens(own("fine"), [ROW], 999)
    with pytest.raises(UsageError, match=facts("evaluate.spellings", '"good"', "['<unk>']")):
        check_tokens(own("fine", "great"), [ROW], 999)


@pytest.mark.parametrize("seed", range(3))
def test_an_example_without_a_weight_is_named_before_the_training(seed: int) -> None:
    """By the definition: the weights of an example's tokens, by what its target consists of, are all 0."""
    labels, drawn = ["1", "10", "2"], random.Random(seed)
    tokenizer = byte_bpe([], pattern="digits")  # "10" begins with "1": the label reaches over the end token
    for content, weights in product(("label", "label+explanation"), product((0.0, 1.0), repeat=3)):
        target = Target(content=content, loss=Loss(**dict(zip(SEGMENTS, weights, strict=True))))
        own = writer(tokenizer, labels=labels, target=target)
        texts = ["it is", "", "a b"] if content != "label" else ["it is"] * 3
        rows = [
            ROW | {"id": f"{place}", "label": drawn.choice(labels), "explanation": text}
            for place, text in enumerate(texts)
        ]
        encoded = [own.encode(row) for row in rows]
        explained = [content != "label" and bool(text) for text in texts]
        # Without an explanation the end token belongs to the label.
        idle = [
            row["id"]
            for row, more in zip(rows, explained, strict=True)
            if not weights[0] and not (more and (weights[1] or weights[2]))
        ]
        if idle:
            said = ("target.loss", f"{len(idle)} of 3 train examples", ", ".join(idle), "target.loss.label")
            with pytest.raises(UsageError, match=facts(*said)):
                check_weighted(own, rows, encoded, "train")
        else:
            check_weighted(own, rows, encoded, "train")


def test_a_token_that_the_model_does_not_know_is_named() -> None:
    own = writer(byte_bpe(["Ġgood", "Ġbad"]), labels=LABELS)
    size = len(own.tokenizer)
    check_tokens(own, [ROW] * 200, size)
    with pytest.raises(EngineError, match=facts("']", str(size - 1), str(size - 1))):
        check_tokens(own, [ROW], size - 1)


def test_a_label_that_begins_differently_behind_another_prompt_cannot_be_watched() -> None:
    merged = ["xg", "\ng", ".g", "ag", "0g"]  # the label stands apart only where nothing stands before it
    own = writer(
        sentencepiece_bpe(merged, split=False),
        labels=LABELS,
        prompt=Prompt(template="{response}", chat_template=False),
        target=Target(prefix=""),
    )
    rows = [ROW | {"response": "so y"}, ROW | {"response": "so x", "id": "8"}]
    check_watched(own, rows[:1])
    with pytest.raises(UsageError, match=facts('"good"', "['g']", "['▁']", "8")):
        check_watched(own, rows)


@pytest.mark.parametrize("placement", ["after", "before", "interleaved"])
@pytest.mark.parametrize("content", ["label", "label+explanation", "label+random_tokens"])
def test_a_target_that_is_not_read_back_is_named(placement: str, content: str) -> None:
    target = Target(content=content, placement=placement)
    check_generated(writer(byte_bpe(["Ġbad"]), labels=LABELS, target=target), ROW)
    check_generated(
        writer(wordpiece(["bad"]), labels=LABELS, target=target), ROW
    )  # in lower case, no line end
    lossy = writer(wordpiece(["bad"]), labels=LABELS, target=evolve(target, separator="\n"))
    if target.explains_first:  # nothing is left of the line end but a space
        with pytest.raises(UsageError, match=facts('"good"')):
            check_generated(lossy, ROW)
    else:
        check_generated(lossy, ROW)


CASED = [byte_bpe(["Ġbad"]), sentencepiece_bpe(["▁bad"]), wordpiece(["bad"], lowercase=False)]


@pytest.mark.parametrize("placement", ["before", "interleaved"])
@pytest.mark.parametrize(
    ("tokenizer", "separator", "explanation", "fits"),
    [
        (wordpiece(["bad"]), " rating: ", "My Rating: it is b c d e f g", False),
        (wordpiece(["bad"]), "\nRating: ", "my RATING: it is b c d e f g", False),
        (wordpiece(["bad"]), "\nRating: ", "my ratings: it is b c d e f g", True),
        (unigram(["▁bad"], folding=True), " Rating: ", "my Ｒating: it is b c d e f g", False),
        *[(cased, " rating: ", "my Rating: it is b c d e f g", True) for cased in CASED],
        *[(cased, " rating: ", "my rating: it is b c d e f g", False) for cased in CASED],
    ],
)
def test_a_separator_in_an_explanation_is_found_as_the_tokenizer_writes_it(
    tokenizer: Any, separator: str, explanation: str, fits: bool, placement: str
) -> None:
    target = Target(content="label+explanation", placement=placement, separator=separator)
    own = writer(tokenizer, labels=LABELS, target=target)
    rows = [ROW, {**ROW, "id": "early", "explanation": explanation}]
    encoded = [own.encode(row) for row in rows]
    for one in encoded[: 1 + fits]:
        answer = read_answer(written(tokenizer, one.prompt, one.completion), own)
        assert answer.label == "bad" and answer.before
    if fits:
        check_separators(own, rows, encoded, "train")
    else:
        with pytest.raises(DataError, match=facts("1 of 2", "train", "early")):
            check_separators(own, rows, encoded, "train")


def test_a_filler_or_drawn_words_that_hold_the_separator() -> None:
    target = Target(content="label+filler", placement="before", filler=" Rating: ", separator=" rating: ")
    for tokenizer, fits in ((wordpiece(["bad"]), False), (byte_bpe(["Ġbad"]), True)):
        own = writer(tokenizer, labels=LABELS, target=target)
        rows = [{**ROW, "explanation": "a b c d e f g h i j k l m n o p"}]
        encoded = [own.encode(row) for row in rows]
        if fits:
            check_separators(own, rows, encoded, "train")
        else:
            with pytest.raises(DataError, match=facts("target.separator", "' rating: '")):
                check_separators(own, rows, encoded, "train")


@pytest.mark.parametrize("prefix", [None, "", "Answer: ", "\n"])
@pytest.mark.parametrize("content", ["label", "label+explanation"])
@pytest.mark.parametrize(
    "labels", [["\U0001f44d", "\U0001f44e"], ["\u062c\u064a\u062f", "\u0633\u064a\u0626"]]
)
def test_labels_that_share_half_a_letter_are_read_back(labels: list[str], content: str, prefix: str) -> None:
    own = writer(byte_bpe([]), labels=labels, target=Target(content=content, prefix=prefix))
    row = ROW | {"label": labels[1]}
    _, begun = own.encode_prompt(row)
    assert own.tokenizer.decode(begun).endswith("\ufffd")
    check_generated(own, row)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokenizer has neither an end token nor one to pad with."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = make_llama(tmp_path_factory.mktemp("endless"), **sizes)
    tokenizer = AutoTokenizer.from_pretrained(found)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(found)
    return found


def test_a_tokenizer_without_an_end_token_says_which_key_sets_one(
    folder: Path, tmp_path: Path, rated_file: Path
) -> None:
    assert padding_id(loading.load_tokenizer(Model(id=str(folder)))) == 0
    spec = small_spec(tmp_path, folder, rated_file)
    ended = engine("execute", spec, code=1)
    assert "model.end_token: the tokenizer, " in ended.output and "has no end token" in ended.output
    other = small_spec(tmp_path, folder, rated_file, name="ended")
    other.write_text(other.read_text().replace("[model]", '[model]\nend_token = "<eos>"'))
    engine("execute", other)
    tokenizer = loading.load_tokenizer(Model(id=str(folder), end_token="<eos>"))
    assert writer(tokenizer).encode(ROW | {"label": "2"}).completion[-1] == 1
    with pytest.raises(UsageError, match=facts("model.end_token", "'<eoss>'", "'<eos>'")):
        loading.load_tokenizer(Model(id=str(folder), end_token="<eoss>"))


@pytest.mark.parametrize("role", ["pad", "eos"])
def test_a_padding_or_end_token_outside_the_embedding(tiny_model: Path, tmp_path: Path, role: str) -> None:
    LlamaForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<{number}>" for number in range(len(tokenizer), 320)])
    tokenizer.add_special_tokens({f"{role}_token": "<new>"})
    tokenizer.save_pretrained(tmp_path)
    model = Model(id=str(tmp_path), dtype="float32")
    if role == "eos":
        with pytest.raises(EngineError, match=facts("end_token", "'<new>'", "320")):
            loading.load(model)
    else:
        _, found = loading.load(model)
        assert padding_id(found) == found.eos_token_id
