"""The evaluate stage: label accuracy by log-likelihood and by parsed generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from engine.lens import Lens, find_lens
from engine.metrics import calibration_error, label_metrics
from engine.progress import Report, StopRequest
from engine.text import Example, Writer, parse_label
from engine.train import padding_id
from specs.model import Evaluate, Target
from store import Coordinate, Family, Variable


def evaluation_family(rows: Sequence[Example], settings: Evaluate, target: Target) -> Family:
    """Give the store's layout of the predictions for these examples."""
    generated = (
        Variable("generated_label", ("example",), "string", "", "label parsed from the generated text"),
        Variable("generated_text", ("example",), "string", "", "greedily generated text"),
    )
    scored = (
        Variable("prediction", ("example",), "string", "", "label of the highest log-likelihood"),
        Variable(
            "label_logprob", ("example", "label"), "float32", "nat", "log-likelihood of the label's tokens"
        ),
    )
    return Family(
        stage="evaluate",
        coordinates=(
            Coordinate("example", "example", [row["id"] for row in rows], long_name="test example"),
            Coordinate("gold", "example", [row["label"] for row in rows], long_name="true label"),
            Coordinate("label", "label", list(settings.labels), long_name="label"),
        ),
        variables=(
            *(scored if "loglikelihood" in settings.scoring else ()),
            *(generated if settings.generates(target) else ()),
        ),
    )


@torch.inference_mode()
def evaluate(
    model: Any,
    tokenizer: Any,
    writer: Writer,
    rows: Sequence[Example],
    settings: Evaluate,
    report: Report,
    stop: StopRequest,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the family's variables batch by batch, each with a leading axis [examples of the batch]."""
    lens = find_lens(model)
    for start in range(0, len(rows), settings.batch_size):
        stop.check()
        batch = rows[start : start + settings.batch_size]
        values: dict[str, np.ndarray] = {}
        if settings.generates(writer.target):
            values |= _generate(model, tokenizer, writer, batch, settings)
        if "loglikelihood" in settings.scoring:
            values |= _score(lens, tokenizer, writer, batch, settings, values.get("generated_text"))
        report(start + len(batch), len(rows), "")
        yield values


def _score(
    lens: Lens,
    tokenizer: Any,
    writer: Writer,
    batch: Sequence[Example],
    settings: Evaluate,
    generated: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Score every label; where an explanation comes first, behind the one that the model has written."""
    if writer.target.explains_first and generated is not None:
        explanations = [writer.cut(text)[0] for text in generated]
        pairs = [writer.encode_labels(row, e) for row, e in zip(batch, explanations, strict=True)]
    else:
        pairs = [writer.encode_labels(row) for row in batch]
    scores = label_scores(lens, pairs, padding_id(tokenizer))
    ranked = scores
    if settings.length_normalized:
        ranked = scores / np.array([[len(label) for label in labels] for _, labels in pairs])
    best = np.argmax(ranked, axis=1)
    return {
        "prediction": np.array([settings.labels[index] for index in best], dtype=object),
        "label_logprob": scores.astype(np.float32),
    }


def label_scores(lens: Lens, pairs: Sequence[tuple[list[int], list[list[int]]]], padding: int) -> np.ndarray:
    """Give the log-likelihood, in nats, of every label after its prompt: [examples, labels].

    `pairs`: (prompt ids, ids of each label). Labels that differ in their last token alone share one forward
    pass, so single-token labels cost one pass for all of them.
    """
    stems = [
        (row, stem)
        for row, (_, labels) in enumerate(pairs)
        for stem in dict.fromkeys(tuple(label[:-1]) for label in labels)
    ]
    scores = np.empty((len(pairs), len(pairs[0][1])))
    for start in range(0, len(stems), len(pairs)):  # never more sequences at once than examples
        chunk = stems[start : start + len(pairs)]
        sequences = [pairs[row][0] + list(stem) for row, stem in chunk]
        hidden = lens.last_hidden(*pad_right(sequences, padding, lens.device))
        for place, (row, stem) in enumerate(chunk):
            first = len(pairs[row][0]) - 1
            logits = lens.logits(hidden[place, first : first + len(stem) + 1])
            logprobs = torch.log_softmax(logits, dim=-1).double()
            for column, label in enumerate(pairs[row][1]):
                if tuple(label[:-1]) == stem:
                    scores[row, column] = sum(logprobs[i, token].item() for i, token in enumerate(label))
    return scores


def pad_right(
    sequences: Sequence[Sequence[int]], padding: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give (input_ids, attention_mask), int64 [B, T]. Causal attention never looks at right padding."""
    length = max(map(len, sequences))
    ids = torch.full((len(sequences), length), padding)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


def _generate(
    model: Any, tokenizer: Any, writer: Writer, batch: Sequence[Example], settings: Evaluate
) -> dict[str, np.ndarray]:
    prompts = [writer.encode_prompt(row) for row in batch]
    length = max(map(len, prompts))
    padding = padding_id(tokenizer)
    device = next(model.parameters()).device
    # Generation appends on the right, so prompts are padded on the left.
    ids = torch.tensor([[padding] * (length - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=settings.new_tokens(writer.target),
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=padding,
        eos_token_id=tokenizer.eos_token_id,
    )
    texts = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
    labels = [parse_label(writer.cut(text)[1], settings.labels) for text in texts]
    return {"generated_text": np.array(texts, object), "generated_label": np.array(labels, object)}


def summarise(
    rows: Sequence[Example], values: Mapping[str, np.ndarray], labels: Sequence[str]
) -> dict[str, float]:
    """Give the metrics of the scored labels, of the generated ones (`generated_…`), and calibration."""
    gold = [row["label"] for row in rows]
    summary: dict[str, float] = {"test_examples": float(len(rows))}
    if "prediction" in values:
        summary |= label_metrics(gold, values["prediction"], labels)
        summary["ece"] = calibration_error(gold, values["label_logprob"], labels)
    if "generated_label" in values:
        generated = label_metrics(gold, values["generated_label"], labels)
        summary |= {f"generated_{name}": value for name, value in generated.items()}
        summary["unparsed_share"] = float(np.mean(values["generated_label"] == ""))
    return summary
