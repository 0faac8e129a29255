"""Labels behind explanations in the place of the model's own: what is drawn, and how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import engine
from facts import facts
from small_study import WORDS, log_likelihood, small_spec, writer
from transformers import AutoModelForCausalLM

import store
from engine.errors import DataError
from engine.models.generation_batches import GenerationBatches
from engine.progress import StopRequest, silent
from engine.stages.evaluate import evaluate, evaluation_family
from engine.text.counterfactuals import counterfactuals
from specs.tables.evaluate import Evaluate
from specs.tables.target import Target

KINDS = ["reference", "other", "agreeing", "contradicting", "empty"]
FIRST = Target(content="label+explanation", placement="before", separator="; ")
SETTINGS = Evaluate(labels=["1", "2", "3"], counterfactuals=KINDS, max_new_tokens=4)
ROWS = [
    {
        "id": f"e{i}", "context": "a reply", "response": "good " * i, "label": str(1 + i % 3),
        "group": f"g{i // 2}", "explanation": " ".join(WORDS[i : i + 3 + i % 4]),
    }
    for i in range(12)
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).requires_grad_(False).eval()


def drawn(rows: list[dict[str, str]], seed: int = 0) -> dict[str, dict[str, tuple[str, str]]]:
    found = counterfactuals(rows, KINDS, FIRST, seed)
    return {
        name: {kind: (one.text, one.argues_for) for kind, one in of.items()} for name, of in found.items()
    }


def test_what_is_drawn_is_of_another_group_and_of_the_label_that_is_asked_for() -> None:
    sources = {row["explanation"]: row for row in ROWS}
    assert len(sources) == len(ROWS)
    for row in ROWS:
        found = drawn(ROWS)[row["id"]]
        assert found["reference"] == (row["explanation"], row["label"]) and found["empty"] == ("", "")
        for kind in ("other", "agreeing", "contradicting"):
            text, label = found[kind]
            assert sources[text]["group"] != row["group"] and sources[text]["label"] == label
        assert found["agreeing"][1] == row["label"] != found["contradicting"][1]


def test_draws_hang_on_the_seed_and_on_the_example_alone() -> None:
    assert drawn(ROWS) == drawn(ROWS) != drawn(ROWS, seed=1)
    shuffled = drawn(ROWS[::-1])
    for kind in ("reference", "empty"):
        assert all(shuffled[row["id"]][kind] == drawn(ROWS)[row["id"]][kind] for row in ROWS)


def test_explanations_near_in_length_are_drawn() -> None:
    rows = [
        {"id": str(i), "label": str(i % 2), "group": str(i), "explanation": " ".join(["word"] * i + [str(i)])}
        for i in range(60)
    ]
    found = counterfactuals(rows, ["other"], FIRST, 0)
    for row in rows[8:50]:
        words = found[row["id"]]["other"].text.split()
        assert abs(len(words) - len(row["explanation"].split())) <= 4


@pytest.mark.parametrize("placement", ["before", "interleaved"])
def test_labels_are_scored_behind_what_stands_there(model: Any, tokenizer: Any, placement: str) -> None:
    target = Target(content="label+explanation", placement=placement, separator="; ")
    own = writer(tokenizer, target=target)
    values = evaluate(model, own, ROWS, SETTINGS, GenerationBatches(4), silent, StopRequest())
    assert values["counterfactual_logprob"].shape == (12, 5, 3)
    for place, row in enumerate(ROWS):
        for column, kind in enumerate(KINDS):
            text = values["counterfactual_explanation"][place, column]
            prompt, labels = own.encode_labels(row, text)
            scores = [log_likelihood(model, prompt, ids) for ids in labels]
            np.testing.assert_allclose(values["counterfactual_logprob"][place, column], scores, rtol=1e-4)
            assert values["counterfactual_prediction"][place, column] == "123"[int(np.argmax(scores))]
            if kind == "reference":  # as it is trained: the very tokens
                encoded = own.encode(row)
                assert (encoded.prompt + encoded.completion)[: len(prompt)] == prompt
    words = ROWS[3]["explanation"].split()
    half = len(words) if placement == "before" else (len(words) + 1) // 2
    assert values["counterfactual_explanation"][3, 0] == " ".join(words[:half])


def test_batches_change_nothing_and_all_else_stays_to_the_bit(model: Any, tokenizer: Any) -> None:
    own = writer(tokenizer, target=FIRST)
    options = {"labels": ["1", "2", "3"], "max_new_tokens": 4}
    plain = evaluate(model, own, ROWS, Evaluate(**options), GenerationBatches(4), silent, StopRequest())
    whole = evaluate(model, own, ROWS, SETTINGS, GenerationBatches(4), silent, StopRequest())
    for name, values in plain.items():
        np.testing.assert_array_equal(values, whole[name])
    single = Evaluate(**options, counterfactuals=KINDS, batch_size=1)
    again = evaluate(model, own, ROWS, single, GenerationBatches(4), silent, StopRequest())
    np.testing.assert_array_equal(again["counterfactual_explanation"], whole["counterfactual_explanation"])
    np.testing.assert_allclose(again["counterfactual_logprob"], whole["counterfactual_logprob"], rtol=1e-4)


def test_examples_without_explanation_have_no_value_and_without_any_it_is_an_error(
    model: Any, tokenizer: Any
) -> None:
    own = writer(tokenizer, target=FIRST)
    rows = [row | {"explanation": " " if place < 2 else row["explanation"]} for place, row in enumerate(ROWS)]
    values = evaluate(model, own, rows, SETTINGS, GenerationBatches(4), silent, StopRequest())
    missing = np.isnan(values["counterfactual_logprob"]).all(axis=2)
    assert missing[:2, 0].all() and missing.sum() == 2
    assert (values["counterfactual_prediction"][:2, 0] == "").all()
    assert (values["counterfactual_prediction"][~missing] != "").all()
    none = [row | {"explanation": ""} for row in ROWS]
    with pytest.raises(DataError, match=facts("evaluate.counterfactuals", "reference", "empty")):
        counterfactuals(none, KINDS, FIRST, 0)
    assert counterfactuals(none, ["empty"], FIRST, 0)["e0"]["empty"].text == ""


def test_targets_without_an_explanation_before_the_label_have_none(model: Any, tokenizer: Any) -> None:
    for target in (Target(), Target(content="label+explanation")):
        family = evaluation_family(ROWS, SETTINGS, target)
        assert "counterfactual" not in family.sizes
        values = evaluate(
            model,
            writer(tokenizer, target=target),
            ROWS,
            SETTINGS,
            GenerationBatches(4),
            silent,
            StopRequest(),
        )
        assert set(values) == {variable.name for variable in family.variables}
    asked = evaluation_family(ROWS, SETTINGS, FIRST)
    assert asked.sizes == {"example": 12, "label": 3, "counterfactual": 5}


def test_they_are_in_the_store_beside_what_they_are_held_against(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file, '[target]\nplacement = "before"\nseparator = "; "\n')
    asked = 'counterfactuals = ["reference", "contradicting"]\nmax_new_tokens = 2\n'
    spec.write_text(spec.read_text().replace("[evaluate]\n", f"[evaluate]\n{asked}"))
    engine("execute", spec)
    node = store.open_store(tmp_path / "store")["small"]["evaluate"]
    datasets = [part.to_dataset() for part in node.subtree if "counterfactual_logprob" in part]
    (explained,) = datasets
    assert set(explained["target"].values) == {"label+explanation"}
    assert explained["counterfactual_logprob"].dims == ("cell", "example", "counterfactual", "label")
    assert np.isfinite(explained["counterfactual_logprob"].values).all()
    np.testing.assert_array_equal(
        explained["argued_label"].sel(counterfactual="reference").values,
        np.broadcast_to(explained["gold"].values, explained["prediction"].shape),
    )
    draws = explained["counterfactual_explanation"].sel(counterfactual="contradicting").values
    assert (draws[0] != draws[1]).any()  # by the seed
