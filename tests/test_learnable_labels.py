"""A small model learns labels that merge with the space before them, wherever the explanation stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn_tokenizers import byte_bpe
from small_study import writer
from transformers import LlamaConfig, LlamaForCausalLM

from engine.models.batching import padding_id
from engine.models.generation_batches import GenerationBatches
from engine.models.lens import find_lens
from engine.progress import StopRequest, silent
from engine.stages.evaluate import evaluate, summarise
from engine.stages.training.loss import Collator, completion_loss
from specs.tables.evaluate import Evaluate
from specs.tables.target import Prompt, Target

WORDS = {"good": "nice", "bad": "poor"}
ROWS = [
    {
        "id": str(number), "context": str(number), "response": word, "label": label,
        "explanation": f"it is {word} so",
    }
    for number in range(8)
    for label, word in WORDS.items()
]  # fmt: skip


@pytest.mark.parametrize("placement", ["after", "before", "interleaved"])
def test_all_ways_of_scoring_agree_on_what_was_learned(placement: str) -> None:
    torch.manual_seed(0)
    tokenizer: Any = byte_bpe(["Ġgood", "Ġbad", "Ġnice", "Ġpoor", "Ġit", "Ġis", "Ġso", "ĊRating"])
    own = writer(
        tokenizer,
        labels=list(WORDS),
        prompt=Prompt(template="{context} {response}:", chat_template=False),
        target=Target(content="label+explanation", placement=placement),
    )
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, tie_word_embeddings=False,
        )
    )  # fmt: skip
    batch = Collator(padding_id(tokenizer))([own.encode(row) for row in ROWS])
    optimizer, lens = torch.optim.AdamW(model.parameters(), 5e-3), find_lens(model)
    for _ in range(120):
        completion_loss(lens, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    scoring = ["loglikelihood", "constrained", "generation"]
    settings = Evaluate(labels=list(WORDS), scoring=scoring, max_new_tokens=24)
    values = evaluate(model.eval(), own, ROWS, settings, GenerationBatches(4), silent, StopRequest())
    found = summarise(ROWS, values, list(WORDS))
    names = ["accuracy", "constrained_accuracy", "generated_accuracy"]
    assert {name: found[name] for name in names} == dict.fromkeys(names, 1.0)
    assert values["generated_explanation"].tolist() == [row["explanation"] for row in ROWS]
    # The label is what the model says by itself: its log-likelihood is near that of certainty.
    assert values["label_logprob"].max(axis=1).min() > -0.1
