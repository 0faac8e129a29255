"""Label scores against brute force, generation, and the summary of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from engine.errors import Interrupted
from engine.evaluate import evaluate, evaluation_family, label_scores, pad_right, summarise
from engine.lens import find_lens
from engine.progress import StopRequest, silent
from engine.text import parse_label
from specs.model import Evaluate, Target

ROWS = [
    {"id": str(i), "context": "a reply", "response": "good " * i, "label": str(1 + i % 3), "explanation": ""}
    for i in range(5)
]
tokens = st.integers(3, 319)
labels = st.lists(st.lists(tokens, min_size=1, max_size=3), min_size=2, max_size=4)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).requires_grad_(False).eval()


def run(model: Any, tokenizer: Any, settings: Evaluate, **options: Any) -> dict[str, np.ndarray]:
    own = writer(tokenizer, labels=list(settings.labels), **options)
    batches = list(evaluate(model, tokenizer, own, ROWS, settings, silent, StopRequest()))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_scores_are_the_sums_of_each_labels_token_log_probabilities(model: Any, data: st.DataObject) -> None:
    shared = data.draw(labels)  # as many labels for every prompt
    prompts = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=4))
    scores = label_scores(find_lens(model), [(prompt, shared) for prompt in prompts], padding=1)
    for row, prompt in enumerate(prompts):
        for column, label in enumerate(shared):
            logprobs = model(input_ids=torch.tensor([prompt + label])).logits[0].double().log_softmax(-1)
            truth = sum(logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(label))
            assert scores[row, column] == pytest.approx(truth, rel=1e-4, abs=1e-4)


def test_batches_do_not_change_predictions(model: Any, tokenizer: Any) -> None:
    options = {"labels": ["1", "2", "3"], "scoring": ["loglikelihood", "generation"]}
    whole = run(model, tokenizer, Evaluate(**options, batch_size=16))
    single = run(model, tokenizer, Evaluate(**options, batch_size=1))
    assert whole["prediction"].tolist() == single["prediction"].tolist()
    assert whole["generated_text"].tolist() == single["generated_text"].tolist()
    np.testing.assert_allclose(whole["label_logprob"], single["label_logprob"], rtol=1e-4)


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
    cut = [own.cut(text) for text in values["generated_text"]]
    pairs = [own.encode_labels(row, explanation) for row, (explanation, _) in zip(ROWS, cut, strict=True)]
    for (prompt, _), (explanation, _) in zip(pairs, cut, strict=True):
        assert tokenizer.decode(prompt).endswith(f": {explanation}d")
    scores = label_scores(find_lens(model), pairs, padding=1)
    np.testing.assert_allclose(values["label_logprob"], scores, rtol=1e-4)
    assert values["generated_label"].tolist() == [parse_label(rest, ["1", "2", "3"]) for _, rest in cut]


def test_generation_is_greedy_and_starts_behind_the_prompt(model: Any, tokenizer: Any) -> None:
    values = run(model, tokenizer, Evaluate(labels=["1", "2"], scoring=["generation"], max_new_tokens=3))
    prompt, _ = writer(tokenizer, labels=["1", "2"]).encode_labels(ROWS[2])
    ids = list(prompt)
    for _ in range(3):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    assert values["generated_text"][2] == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


def test_the_family_names_what_is_asked_for() -> None:
    both = evaluation_family(ROWS, Evaluate(scoring=["loglikelihood", "generation"]), Target())
    assert [v.name for v in both.variables] == [
        "prediction", "label_logprob", "generated_label", "generated_text",
    ]  # fmt: skip
    assert both.sizes == {"example": 5, "label": 5}


def test_the_summary() -> None:
    chosen = ["1", "2", "2", "1", "2"]
    scores = np.array([[np.log(0.8 if label == own else 0.1) for label in "123"] for own in chosen])
    values = {
        "prediction": np.array(chosen, object),
        "label_logprob": scores,
        "generated_label": np.array(["1", "", "3", "1", "1"], object),
    }
    summary = summarise(ROWS, values, ["1", "2", "3"])
    assert summary["test_examples"] == 5 and summary["accuracy"] == 0.8 and summary["mae"] == 0.2
    assert summary["ece"] == pytest.approx(0)  # four of five are right at a confidence of 0.8
    assert summary["generated_accuracy"] == 0.6 and summary["generated_mae"] == 0.25
    assert summary["unparsed_share"] == 0.2
    assert set(summary) == {"test_examples", "ece", "unparsed_share"} | {
        f"{kind}{name}" for kind in ("", "generated_") for name in ("accuracy", "macro_f1", "mae", "qwk")
    }


def test_padding_is_on_the_right() -> None:
    ids, mask = pad_right([[1, 2, 3], [4]], 9, torch.device("cpu"))
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_stop_is_heeded_between_batches(model: Any, tokenizer: Any) -> None:
    stop = StopRequest()
    batches = evaluate(
        model,
        tokenizer,
        writer(tokenizer),
        ROWS,
        Evaluate(labels=["1", "2", "3"], batch_size=2),
        silent,
        stop,
    )
    next(batches)
    stop.requested = True
    with pytest.raises(Interrupted):
        next(batches)
