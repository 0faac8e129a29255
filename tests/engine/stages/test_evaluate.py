"""Label scores against brute force, generation, and the summary of both."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import facts
from small_study import log_likelihood, writer
from transformers import AutoModelForCausalLM

from engine.errors import EngineError, Interrupted
from engine.models.generation_batches import GenerationBatches
from engine.progress import StopRequest, silent
from engine.stages.evaluate import evaluate, evaluation_family, summarise
from engine.text.answers import read_answer
from specs.tables.evaluate import Evaluate
from specs.tables.target import Target

ROWS = [
    {"id": str(i), "context": "a reply", "response": "good " * i, "label": str(1 + i % 3), "explanation": ""}
    for i in range(5)
]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).requires_grad_(False).eval()


def run(model: Any, tokenizer: Any, settings: Evaluate, **options: Any) -> dict[str, np.ndarray]:
    own = writer(tokenizer, labels=list(settings.labels), spellings=settings.spellings, **options)
    return evaluate(model, own, ROWS, settings, GenerationBatches(4), silent, StopRequest())


def test_batches_do_not_change_predictions(model: Any, tokenizer: Any) -> None:
    options = {"labels": ["1", "2", "3"], "scoring": ["loglikelihood", "generation"]}
    whole = run(model, tokenizer, Evaluate(**options, batch_size=16))
    single = run(model, tokenizer, Evaluate(**options, batch_size=1))
    assert whole["prediction"].tolist() == single["prediction"].tolist()
    assert whole["generated_text"].tolist() == single["generated_text"].tolist()
    np.testing.assert_allclose(whole["label_logprob"], single["label_logprob"], rtol=1e-4)


SPELLINGS = {"1": ["order", "one word"], "2": ["good", "good reply", "2/3"], "3": ["bad", "BAD"]}


def test_a_label_is_as_likely_as_all_its_spellings_together(model: Any, tokenizer: Any) -> None:
    values = run(model, tokenizer, Evaluate(labels=["1", "2", "3"], spellings=SPELLINGS))
    own = writer(tokenizer, spellings=SPELLINGS)
    for place, row in enumerate(ROWS):
        prompt, labels = own.encode_spellings(row)
        truth = [sum(np.exp(log_likelihood(model, prompt, ids)) for ids in texts) for texts in labels]
        np.testing.assert_allclose(values["label_logprob"][place], np.log(truth), rtol=1e-4)
        assert values["prediction"][place] == "123"[int(np.argmax(truth))]
    assert sum(truth) < 1
    plain = run(model, tokenizer, Evaluate(labels=["1", "2", "3"]))
    assert not np.allclose(values["label_logprob"], plain["label_logprob"])


@pytest.mark.parametrize("choices", [["1", "2", "3"], ["1", "10", "good reply", "good"]])
def test_spellings_that_say_nothing_new_change_no_bit(model: Any, tokenizer: Any, choices: list[str]) -> None:
    scoring = ["loglikelihood", "constrained", "generation"]
    plain = run(model, tokenizer, Evaluate(labels=choices, scoring=scoring))
    same = {label: [label, label] for label in choices}
    again = run(model, tokenizer, Evaluate(labels=choices, scoring=scoring, spellings=same))
    for name, values in plain.items():
        np.testing.assert_array_equal(values, again[name])


@pytest.mark.parametrize(
    "choices", [["1", "2", "3"], ["1", "10", "100"], ["good reply", "good", "bad topic"]]
)
@pytest.mark.parametrize("spellings", [{}, {0: ["order", "words are in"], 2: ["on topic", "on"]}])
@pytest.mark.parametrize("content", ["label", "label+explanation"])
def test_constrained_decoding_is_greedy_among_the_spellings(
    model: Any, tokenizer: Any, choices: list[str], spellings: dict[int, list[str]], content: str
) -> None:
    further = {choices[place]: texts for place, texts in spellings.items()}
    target = Target(content=content)
    settings = Evaluate(labels=choices, spellings=further, scoring=["constrained"])
    values = run(model, tokenizer, settings, target=target)
    assert set(values) == {"constrained_label"}
    own = writer(tokenizer, labels=choices, spellings=further, target=target)
    for place, row in enumerate(ROWS):
        prompt, labels = own.encode_spellings(row)
        complete = {tuple(ids): choices[i] for i, texts in enumerate(labels) for ids in texts}
        written: tuple[int, ...] = ()
        while written not in complete:
            logits = model(input_ids=torch.tensor([[*prompt, *written]])).logits[0, -1]
            allowed = {ids[len(written)] for ids in complete if ids[: len(written)] == written}
            masked = torch.full_like(logits, -torch.inf)
            masked[list(allowed)] = logits[list(allowed)]
            written += (int(masked.argmax()),)
        assert values["constrained_label"][place] == complete[written]


def test_length_normalisation_takes_the_best_spelling(model: Any, tokenizer: Any) -> None:
    options = {"labels": ["1", "2", "3"], "spellings": SPELLINGS}
    plain = run(model, tokenizer, Evaluate(**options))
    normal = run(model, tokenizer, Evaluate(**options, length_normalized=True))
    np.testing.assert_array_equal(plain["label_logprob"], normal["label_logprob"])
    for place, row in enumerate(ROWS):
        prompt, labels = writer(tokenizer, spellings=SPELLINGS).encode_spellings(row)
        means = [max(log_likelihood(model, prompt, ids) / len(ids) for ids in texts) for texts in labels]
        assert normal["prediction"][place] == "123"[int(np.argmax(means))]


def test_length_normalisation_weighs_by_the_number_of_tokens(model: Any, tokenizer: Any) -> None:
    choices = ["order", "good reply", "words are in", "bad topic because on"]
    plain = run(model, tokenizer, Evaluate(labels=choices))
    normal = run(model, tokenizer, Evaluate(labels=choices, length_normalized=True))
    np.testing.assert_array_equal(plain["label_logprob"], normal["label_logprob"])
    _, ids = writer(tokenizer, labels=choices).encode_labels(ROWS[0])
    assert len({len(label) for label in ids}) > 1
    means = plain["label_logprob"] / np.array([len(label) for label in ids])
    assert plain["prediction"].tolist() == [choices[i] for i in plain["label_logprob"].argmax(1)]
    assert normal["prediction"].tolist() == [choices[i] for i in means.argmax(1)]
    assert plain["prediction"].tolist() != normal["prediction"].tolist()


@pytest.mark.parametrize("placement", ["before", "interleaved"])
def test_labels_behind_an_explanation_are_scored_behind_the_models_own(
    model: Any, tokenizer: Any, placement: str
) -> None:
    target = Target(
        content="label+explanation", placement=placement, separator="d"
    )  # the model does write a "d"
    values = run(model, tokenizer, Evaluate(labels=["1", "2", "3"]), target=target)
    own = writer(tokenizer, target=target)
    for place, row in enumerate(ROWS):
        answer = read_answer(values["generated_text"][place], own)
        prompt, labels = own.encode_labels(row, answer.before)
        assert tokenizer.decode(prompt).endswith(f": {answer.before}d")
        scores = [log_likelihood(model, prompt, ids) for ids in labels]
        np.testing.assert_allclose(values["label_logprob"][place], scores, rtol=1e-4)
        assert values["generated_label"][place] == answer.label
        assert values["generated_explanation"][place] == answer.explanation


def test_generation_is_greedy_and_starts_behind_the_prompt(model: Any, tokenizer: Any) -> None:
    values = run(model, tokenizer, Evaluate(labels=["1", "2"], scoring=["generation"], max_new_tokens=3))
    prompt, _ = writer(tokenizer, labels=["1", "2"]).encode_prompt(ROWS[2])
    ids = list(prompt)
    for _ in range(3):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    assert values["generated_text"][2] == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize("scoring", ["loglikelihood", "constrained", "generation"])
@pytest.mark.parametrize("first", ["label", "explanation"])
def test_logits_that_are_no_numbers_are_an_error_here(
    model: Any, tokenizer: Any, scoring: str, first: str
) -> None:
    """Not predictions of the first label, nor an error of some array function."""
    target = Target() if first == "label" else Target(content="label+explanation", placement="before")
    broken = copy.deepcopy(model)
    broken.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    settings = Evaluate(labels=["1", "2", "3"], scoring=[scoring], max_new_tokens=3)
    with pytest.raises(EngineError, match=facts("NaN", "finite")):
        run(broken, tokenizer, settings, target=target)


def test_the_family_names_what_is_asked_for() -> None:
    every = Evaluate(scoring=["loglikelihood", "constrained", "generation"])
    both = evaluation_family(ROWS, every, Target())
    assert [v.name for v in both.variables] == [
        "prediction", "label_logprob", "constrained_label", "generated_label", "generated_text",
        "generated_explanation",
    ]  # fmt: skip
    assert both.sizes == {"example": 5, "label": 5}


def test_the_summary() -> None:
    chosen = ["1", "2", "2", "1", "2"]
    scores = np.array([[np.log(0.8 if label == own else 0.1) for label in "123"] for own in chosen])
    values = {
        "prediction": np.array(chosen, object),
        "label_logprob": scores,
        "constrained_label": np.array(["1", "2", "3", "1", "1"], object),
        "generated_label": np.array(["1", "", "3", "1", "1"], object),
    }
    summary = summarise(ROWS, values, ["1", "2", "3"])
    assert summary["test_examples"] == 5 and summary["accuracy"] == 0.8 and summary["mae"] == 0.2
    assert summary["ece"] == pytest.approx(0)  # four of five are right at a confidence of 0.8
    assert summary["constrained_accuracy"] == 0.8 and summary["constrained_mae"] == 0.2
    assert summary["generated_accuracy"] == 0.6 and summary["generated_mae"] == 0.25
    assert summary["unparsed_share"] == 0.2
    assert set(summary) == {"test_examples", "ece", "unparsed_share"} | {
        f"{kind}{name}"
        for kind in ("", "constrained_", "generated_")
        for name in ("accuracy", "macro_f1", "mae", "qwk")
    }


def test_a_stop_is_heeded_between_batches(model: Any, tokenizer: Any) -> None:
    stop, done = StopRequest(), []

    def report(number: int, _total: int, _text: str) -> None:
        done.append(number)
        stop.requested = True

    with pytest.raises(Interrupted):
        evaluate(model, writer(tokenizer), ROWS, Evaluate(batch_size=2), GenerationBatches(4), report, stop)
    assert done == [2]
