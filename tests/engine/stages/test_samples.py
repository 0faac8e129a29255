"""Sampled answers: drawn by the model's distribution, by numbers of their own, labels held where asked."""

from __future__ import annotations

from itertools import islice
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from analysis_data import cells
from commands import engine
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from small_study import log_likelihood, small_spec, writer
from transformers import AutoModelForCausalLM

import store
from engine.models.generation import generate
from engine.models.generation_batches import GenerationBatches
from engine.models.sampling import drawn_places, numbers, probabilities
from engine.progress import StopRequest, silent
from engine.stages.evaluate import evaluate, evaluation_family, summarise
from engine.stages.samples import majority_label
from specs.tables.evaluate import Evaluate
from specs.tables.sampling import Sampling
from specs.tables.target import Target
from store import StoreError
from store.analysis import means
from store.sampling import pass_at_k

ROWS = [
    {
        "id": str(i), "context": "a reply", "response": "good " * i, "label": str(1 + i % 3),
        "explanation": "so it is",
    }
    for i in range(5)
]  # fmt: skip
FIRST = Target(content="label+explanation", placement="before", separator="; ")
AFTER = Target(content="label+explanation")
BETWEEN = Target(content="label+explanation", placement="interleaved", separator="; ")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).requires_grad_(False).eval()


def run(model: Any, tokenizer: Any, rows: list[Any] | None = None, **options: Any) -> dict[str, np.ndarray]:
    target, seed = options.pop("target", Target()), options.pop("seed", 0)
    settings = Evaluate(labels=["1", "2", "3"], **{"max_new_tokens": 6, **options})
    own = writer(tokenizer, target=target, seed=seed)
    return evaluate(model, own, rows or ROWS, settings, GenerationBatches(4), silent, StopRequest())


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(
        (one[name] == other[name]).all() for name in ("sampled_text", "sampled_label", "majority_label")
    )


@given(
    logits=st.lists(st.floats(-20, 20), min_size=2, max_size=12),
    temperature=st.floats(0.1, 5),
    top_p=st.floats(0.05, 1),
)
def test_probabilities_are_those_of_the_nucleus(
    logits: list[float], temperature: float, top_p: float
) -> None:
    x = np.array(logits) / temperature
    p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    kept, total = [], 0.0
    for i in order:
        kept.append(i)
        total += p[i]
        if total >= top_p:
            break
    expected = np.zeros(len(p))
    expected[kept] = p[kept] / p[kept].sum()
    settings = Sampling(temperature=temperature, top_p=top_p)
    found = probabilities(torch.tensor([logits], dtype=torch.float64), settings)
    if min(abs(total - top_p), abs(total - p[kept[-1]] - top_p)) > 1e-9:  # else rounding decides
        np.testing.assert_allclose(found[0], expected, atol=1e-9)
    assert found.sum().item() == pytest.approx(1)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    chances = torch.tensor([[0.5, 0.0, 0.3, 0.2, 0.0]], dtype=torch.float64).expand(20000, 5)
    drawn = torch.tensor(list(islice(numbers(0, "a", 0), 20000)), dtype=torch.float64)[:, None]
    shares = np.bincount(drawn_places(chances, drawn)[:, 0].numpy(), minlength=5) / 20000
    np.testing.assert_allclose(shares, [0.5, 0, 0.3, 0.2, 0], atol=0.015)
    edges = torch.tensor([[0.0], [0.5], [1 - 1e-17], [1.0]], dtype=torch.float64)
    assert drawn_places(chances[:4], edges)[:, 0].tolist() == [0, 2, 3, 3]


def test_first_tokens_follow_the_models_distribution(model: Any, tokenizer: Any) -> None:
    """Chi-squared over many samples of one example, at a temperature of its own."""
    sampling = Sampling(samples=400, temperature=0.5)
    values = run(model, tokenizer, ROWS[:1], sampling=sampling, max_new_tokens=1)
    prompt, _ = writer(tokenizer, labels=["1", "2", "3"]).encode_prompt(ROWS[0])
    logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    p = probabilities(logits[None], sampling)[0].numpy()
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in range(len(p))]
    chances: dict[str, float] = {}
    for text, chance in zip(texts, p, strict=True):
        chances[text.strip()] = chances.get(text.strip(), 0.0) + chance
    found = [text.strip() for text in values["sampled_text"][0]]
    likely = [text for text, chance in chances.items() if chance * 400 >= 2]
    observed = np.array([found.count(text) for text in likely])
    expected = np.array([400 * chances[text] for text in likely])
    assert len(likely) > 1 and ((observed - expected) ** 2 / expected).sum() < 2 * len(likely) + 20


@pytest.mark.parametrize("target", [Target(), FIRST, AFTER, BETWEEN])
@pytest.mark.parametrize("constrained", [False, True])
def test_samples_hang_on_seed_example_and_number_alone(
    model: Any, tokenizer: Any, target: Target, constrained: bool
) -> None:
    options = {"target": target, "sampling": Sampling(samples=3, temperature=2.0, constrained=constrained)}
    whole = run(model, tokenizer, **options)
    assert same(whole, run(model, tokenizer, batch_size=1, **options))
    assert same({n: v[2:4] for n, v in whole.items()}, run(model, tokenizer, ROWS[2:4], **options))
    more = run(
        model,
        tokenizer,
        target=target,
        sampling=Sampling(samples=5, temperature=2.0, constrained=constrained),
    )
    assert (more["sampled_text"][:, :3] == whole["sampled_text"]).all()
    assert not same(whole, run(model, tokenizer, seed=1, **options))
    assert len(set(whole["sampled_text"].ravel())) >= 3


def test_greedy_results_stay_to_the_bit(model: Any, tokenizer: Any) -> None:
    options = {"target": FIRST, "scoring": ["loglikelihood", "constrained", "generation"]}
    plain = run(model, tokenizer, **options)
    beside = run(model, tokenizer, sampling=Sampling(samples=2), **options)
    assert {*beside} - {*plain} == {"sampled_text", "sampled_label", "majority_label"}
    for name, values in plain.items():
        np.testing.assert_array_equal(values, beside[name])


def test_a_low_temperature_is_greedy(model: Any, tokenizer: Any) -> None:
    values = run(model, tokenizer, scoring=["generation"], sampling=Sampling(samples=2, temperature=1e-4))
    for sample in range(2):
        assert values["sampled_text"][:, sample].tolist() == values["generated_text"].tolist()
    held = run(model, tokenizer, target=BETWEEN, scoring=["constrained_generation"],
               sampling=Sampling(samples=1, temperature=1e-4, constrained=True))  # fmt: skip
    assert held["sampled_text"][:, 0].tolist() == held["constrained_text"].tolist()


@pytest.mark.parametrize("target", [Target(), FIRST, AFTER, BETWEEN])
def test_constrained_texts_have_a_label_at_its_place_and_a_free_explanation(
    model: Any, tokenizer: Any, target: Target
) -> None:
    scoring = ["constrained", "constrained_generation", "loglikelihood"]
    values = run(model, tokenizer, target=target, scoring=scoring, max_new_tokens=5)
    own = writer(tokenizer, target=target)
    for place, row in enumerate(ROWS):
        label, text = values["constrained_label"][place], values["constrained_text"][place]
        assert label in "123"
        explanation = values["constrained_explanation"][place]
        if target.explains_first:
            before, parting, behind = text.partition("; ")
            assert parting and behind.strip().startswith(label)
            assert explanation.startswith(" ".join(before.split()))
        else:
            assert text.strip().startswith(label)
        if target is AFTER:  # what follows is what the model writes behind that label
            prompt, labels = own.encode_labels(row)
            ids = [*prompt, *labels["123".index(label)]]
            (rest,) = generate(model, tokenizer, [ids], 5)
            assert text.endswith(tokenizer.decode(rest, skip_special_tokens=True))
        if not own.form.may_go_on:
            assert text.strip().endswith(label)
        assert target.content != "label" or explanation == ""


def test_constrained_samples_draw_labels_by_their_chances(model: Any, tokenizer: Any) -> None:
    sampling = Sampling(samples=300, constrained=True)
    values = run(model, tokenizer, ROWS[:2], sampling=sampling)
    assert set(values["sampled_label"].ravel()) <= {"1", "2", "3"}
    own = writer(tokenizer)
    for place, row in enumerate(ROWS[:2]):
        prompt, labels = own.encode_labels(row)
        p = np.exp([log_likelihood(model, prompt, ids) for ids in labels])
        shares = [(values["sampled_label"][place] == label).mean() for label in "123"]
        np.testing.assert_allclose(shares, p / p.sum(), atol=0.11)


@given(n=st.integers(1, 12), data=st.data())
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(n: int, data: Any) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(np.array([c]), n, k)[0] == pytest.approx(1 - comb(n - c, k) / comb(n, k))


def test_majorities_and_the_summary() -> None:
    assert majority_label(["", "b", "a", "b", "a"]) == "b"  # the first drawn of two
    assert majority_label(["", ""]) == ""
    sampled = np.array([["1", "1", "2"], ["2", "", "1"], ["", "", ""]], object)
    majority = np.array([majority_label(row) for row in sampled.tolist()], object)
    values = {"sampled_label": sampled, "majority_label": majority}
    summary = summarise([{"label": "1"}, {"label": "1"}, {"label": "3"}], values, ["1", "2", "3"])
    assert summary["majority_accuracy"] == pytest.approx(1 / 3) and summary[
        "sampled_accuracy"
    ] == pytest.approx(1 / 3)
    assert summary["pass_at_n"] == pytest.approx(2 / 3) and summary["self_consistency"] == pytest.approx(
        1 / 3
    )
    assert summary["sampled_unparsed_share"] == pytest.approx(4 / 9)


def test_cells_of_fewer_samples_than_asked_for_stay_missing() -> None:
    rng, shapes = np.random.default_rng(0), {}
    for level, samples in (("few", 2), ("many", 4)):
        labels = rng.choice(["1", "2"], size=(1, 2, 6, samples)).astype(object)
        shape = cells(labels, "sampled_label", {"target": [level]}, ("example", "sample"))
        shapes[f"/evaluate/{level}"] = shape.assign_coords(gold=("example", ["1"] * 6))
    study = xr.DataTree.from_dict(shapes)
    result = means(study, "pass_at_3", "target")["mean"]
    assert np.isnan(result.sel(level="few")) and np.isfinite(result.sel(level="many"))
    with pytest.raises(StoreError, match=facts("pass_at_5", "expected K from 1 to 4")):
        means(study, "pass_at_5", "target")


def test_the_store_has_them_and_the_analysis_reads_them(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    spec = small_spec(
        tmp_path, tiny_model, rated_file, "[evaluate.sampling]\nsamples = 3\n[probe]\nenabled = false\n"
    )
    spec.write_text(spec.read_text().replace("[evaluate]\n", "[evaluate]\nmax_new_tokens = 3\n"))
    engine("execute", spec)
    study = store.open_store(tmp_path / "store")["small"]
    sampled = study["evaluate"].to_dataset()
    assert sampled["sampled_label"].dims == ("cell", "example", "sample")
    right = (sampled["sampled_label"] == sampled["gold"]).sum("sample").transpose("cell", "example").values
    for name, k in (("pass_at_1", 1), ("pass_at_2", 2)):
        means = study.ablation.means(name, "target")["mean"].values
        expected = pass_at_k(right, 3, k).reshape(2, 2, -1).mean(axis=(1, 2))
        np.testing.assert_allclose(sorted(means), sorted(expected))
    for name in ("pass_at_0", "pass_at_4"):
        for read in (study.ablation.means, lambda name: study.ablation.change(name, "target", "label")):
            with pytest.raises(StoreError, match=facts(name, "expected K from 1 to 3")):
                read(name)
    assert "majority_accuracy" in study["summary"] and "sampled_accuracy" in study["summary"]
    assert "base_majority_accuracy" not in study["summary"]
    assert study.ablation.change("majority_correct", "target", "label")["difference"].sizes == {"level": 1}
    assert study.ablation.means("self_consistency")["mean"].notnull().all()
    assert "sample" in evaluation_family(ROWS, Evaluate(sampling=Sampling(samples=2)), Target()).sizes
