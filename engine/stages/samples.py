"""Answers that are drawn beside the greedy one (`evaluate.sampling`), their majority and their agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from attrs import evolve

from engine.stages.metrics import Predictions, metrics
from engine.stages.written_answers import Answers
from engine.text.targets import Example
from specs.tables.sampling import Sampling
from store import Coordinate, Variable
from store.sampling import pass_at_k

AXES = ("example", "sample")


def sample_coordinates(sampling: Sampling) -> tuple[Coordinate, ...]:
    """Give the samples as a coordinate, where there are any."""
    if not sampling.samples:
        return ()
    return (Coordinate("sample", "sample", list(range(sampling.samples)), long_name="sample"),)


def sample_variables(sampling: Sampling) -> tuple[Variable, ...]:
    """Give what is stored of them."""
    if not sampling.samples:
        return ()
    return (
        Variable("sampled_text", AXES, "string", "", "drawn text"),
        Variable("sampled_label", AXES, "string", "", "label of the drawn text"),
        Variable("majority_label", ("example",), "string", "", "label that most drawn texts have"),
    )


def draw_answers(answers: Answers, rows: Sequence[Example]) -> dict[str, np.ndarray]:
    """Give the variables for some examples: as many samples of each as the settings ask for."""
    count = answers.settings.sampling.samples
    texts, labels = (np.full((len(rows), count), "", object) for _ in range(2))
    for sample in range(count):
        drawing = evolve(answers, sample=sample)
        if answers.settings.sampling.constrained:
            made = drawing.constrained(rows)
        else:
            free = drawing.free(rows)
            made = list(zip(free, drawing.read(free), strict=True))
        texts[:, sample] = [text for text, _ in made]
        labels[:, sample] = [answer.label for _, answer in made]
    majority = np.array([majority_label(row) for row in labels.tolist()], object)
    return {"sampled_text": texts, "sampled_label": labels, "majority_label": majority}


def majority_label(labels: Sequence[str]) -> str:
    """Give the label that most samples have, of equally frequent ones the first drawn; "" where none has one.

    Self-consistency: Wang et al., arXiv 2203.11171.
    """
    counted = Counter(label for label in labels if label)
    return max(counted, key=lambda label: counted[label], default="")


def sample_summary(
    gold: Sequence[str], values: Mapping[str, np.ndarray], labels: Sequence[str], further: Sequence[str]
) -> dict[str, float]:
    """Give accuracies of single samples, of their majority and of any of them, and how far they agree."""
    sampled, majority = values["sampled_label"], values["majority_label"]
    right = (sampled == np.array(gold, object)[:, None]).sum(axis=1)
    count = sampled.shape[1]
    agreeing = (sampled == majority[:, None]) & (sampled != "")
    named = metrics(Predictions(gold, majority, labels), further)
    return {
        **{f"majority_{name}": value for name, value in named.items()},
        "sampled_accuracy": float(pass_at_k(right, count, 1).mean()),
        "pass_at_n": float(pass_at_k(right, count, count).mean()),
        "self_consistency": float(agreeing.mean()),
        "sampled_unparsed_share": float((sampled == "").mean()),
    }
