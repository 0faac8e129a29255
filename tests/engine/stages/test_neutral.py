"""Neutral text: cross-entropy and divergence are those of whole logits, and a study stores them by chunk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import engine
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from trainings import load, train

import store
from engine.data.neutral_text import NEUTRAL_TEXT, neutral_documents
from engine.errors import DataError
from engine.models.base_model import as_it_was
from engine.progress import StopRequest, silent
from engine.stages.neutral import chunks, measure, summarise
from engine.stages.training.files import load_adapter
from specs.tables.experiment import Lora
from store.backend.locate import place_of

TEXTS = ["a reply is good because words are in order", "bad words", "the model rates a reply on topic " * 5]


class Words:
    """A tokenizer of characters, with a token that begins a text or none."""

    def __init__(self, start: int | None) -> None:
        self.bos_token_id = start

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


@given(
    texts=st.lists(st.text("ab ", max_size=30), min_size=1, max_size=4),
    start=st.sampled_from([None, 1]),
    longest=st.integers(2, 12),
)
def test_chunks_hold_each_token_of_a_document_once_and_in_order(
    texts: list[str], start: int | None, longest: int
) -> None:
    lead = [] if start is None else [start]
    kept = [text for text in texts if len(text) + len(lead) > 1]
    if not kept:
        with pytest.raises(DataError, match=f"{NEUTRAL_TEXT}.*two tokens"):
            chunks(Words(start), texts, longest, NEUTRAL_TEXT)
        return
    parts = chunks(Words(start), texts, longest, NEUTRAL_TEXT)
    for document, text in enumerate(texts):
        own = [part.ids for part in parts if part.document == document]
        assert all(ids[: len(lead)] == lead and 1 < len(ids) <= longest for ids in own)
        read = [token for ids in own for token in ids[len(lead) :]]
        written = [ord(letter) for letter in text]
        assert read in (written, written[:-1])  # one token alone at the end has nothing before it


def by_hand(model: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [tokens, V] of what follows each token, from the model's whole logits, in float64."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_measures_are_those_of_whole_logits(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, backend: str
) -> None:
    base = load(tiny_model)
    train(base, tokenizer, tmp_path, lora=Lora(r=2))
    parts = chunks(tokenizer, TEXTS, 24, NEUTRAL_TEXT)
    assert {part.document for part in parts} == {0, 1, 2} and len(parts) > 3
    bare = [by_hand(base, part.ids) for part in parts]
    with as_it_was(base):
        model = load_adapter(base, place_of(tmp_path))
        values = measure(model, parts, 3, 2, silent, StopRequest(), backend)
        adapted = [by_hand(model, part.ids) for part in parts]
    for number, part in enumerate(parts):
        wanted = torch.tensor(part.ids[1:])[:, None]
        for name, logs in (("cross_entropy", adapted), ("base_cross_entropy", bare)):
            expected = -logs[number].gather(1, wanted).mean()
            assert values[name][number] == pytest.approx(expected.item(), rel=1e-5)
        p, q = bare[number], adapted[number]
        divergence = (p.exp() * (p - q)).sum(-1).mean().item()
        assert values["kl_base"][number] == pytest.approx(divergence, rel=1e-3, abs=1e-6)
        assert divergence > 1e-5
    assert values["tokens"].tolist() == [len(part.ids) - 1 for part in parts]
    per_token = zip(adapted, parts, strict=True)
    losses = torch.cat([-logs.gather(1, torch.tensor(part.ids[1:])[:, None]) for logs, part in per_token])
    assert summarise(values)["neutral_perplexity"] == pytest.approx(losses.mean().exp().item(), rel=1e-5)


def test_a_model_without_adapter_is_nothing_from_itself(tiny_model: Path, tokenizer: Any) -> None:
    values = measure(
        load(tiny_model), chunks(tokenizer, TEXTS, 24, NEUTRAL_TEXT), 3, 2, silent, StopRequest()
    )
    np.testing.assert_array_equal(values["kl_base"], 0)
    np.testing.assert_array_equal(values["cross_entropy"], values["base_cross_entropy"])


def test_the_built_in_text_is_the_one_that_keys_know() -> None:
    documents = neutral_documents("builtin")
    assert len(documents) == len(set(documents)) == 20
    assert all(90 < len(document.split()) < 130 and document.isascii() for document in documents)


def test_a_study_stores_and_shows_it(write_spec, tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in (*TEXTS, "")]
    (tmp_path / "neutral.jsonl").write_text("\n".join(lines))
    more = '[analysis]\nprimary = "kl_base"\n[[contrasts]]\nfactor = "target"\nbaseline = "label"\n'
    spec = write_spec(more, train="steps = 4\nlr = 0.02")
    output = engine("execute", spec, "--set", "evaluate.neutral_text=neutral.jsonl").output
    assert "4 neutral" in output and "perplexity" in output and "KL to base" in output
    tree = store.open_store(tmp_path / "store")["small"]
    node, summary = tree["neutral"].to_dataset(), tree["summary"].to_dataset()
    assert node["cross_entropy"].dims == ("cell", "example") and set(node["group"].values) == {0, 1, 2}
    weights = node["tokens"].isel(cell=0)
    for name, total in (("cross_entropy", "neutral_cross_entropy"), ("kl_base", "neutral_kl")):
        means = (node[name] * weights).sum("example") / weights.sum()
        np.testing.assert_allclose(means.values, summary[total].values, rtol=1e-5)
    assert len(set(summary["neutral_base_perplexity"].values)) == 1
    assert (summary["neutral_kl"] > 0).all()
    untrained = tree.ablation.references()["neutral_perplexity"].sel(reference="untrained model")
    assert untrained.item() == summary["neutral_base_perplexity"].values[0]
    change = tree.ablation.change("cross_entropy", "target", "label")
    assert change["groups"].item() == 3 and np.isfinite(change["low"]).all()
    declared = tree.ablation.contrasts()["target/kl_base"]
    assert np.isfinite(declared["difference"]).all()
    engine("report", spec)
    assert "perplexity on neutral text" in (tmp_path / "store" / "report.html").read_text()


def test_cells_that_share_a_training_share_it(write_spec, tmp_path: Path) -> None:
    factor = '[factors.asked.levels]\nsame = {}\nother = { evaluate.prompt.template = "{response}:" }\n'
    flags = ("--set", "evaluate.neutral_text=builtin", "--only", "seed=0", "--only", "target=label")
    output = engine("execute", write_spec(factor, train="steps = 0"), *flags).output
    assert "1 neutral" in output and "2 evaluate" in output
    summary = store.open_store(tmp_path / "store")["small/summary"].to_dataset()
    assert set(summary["neutral_kl"].values) == {0}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.txt", None, ("evaluate.neutral_text", "missing.txt")),
        ("empty.txt", b" \n", ("evaluate.neutral_text", "empty.txt", "no text", "expected a text")),
        (
            "empty.jsonl",
            b'{"text": ""}',
            ("evaluate.neutral_text", "no text", 'expected a line like {"text":'),
        ),
        ("bytes.txt", b"\xff\xfe\x00", ("evaluate.neutral_text", "bytes.txt", "UTF-8")),
        (
            "bad.jsonl",
            b'{"text": "a"}\n{"words": 1}\n',
            ("evaluate.neutral_text", "bad.jsonl", "line 2", "text"),
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    write_spec, tmp_path: Path, name: str, content: bytes | None, told: tuple[str, ...]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = engine("plan", write_spec(), "--set", f"evaluate.neutral_text=./{name}", code=2)
    assert re.search(facts(*told), " ".join(result.output.split())), result.output


def test_an_adapter_outside_the_layers_is_refused(write_spec) -> None:
    sets = ("evaluate.neutral_text=builtin", 'lora.modules_to_save=["lm_head"]')
    flags = [word for each in sets for word in ("--set", each)]
    result = engine("execute", write_spec(), "--only", "seed=0", "--only", "target=label", *flags, code=2)
    assert re.search(
        facts("lora.modules_to_save", "lm_head", "evaluate.neutral_text"), " ".join(result.output.split())
    )
