"""Labels scored behind explanations in the place of the model's own (`evaluate.counterfactuals`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engine.models.batching import padding_id
from engine.models.lens import Lens
from engine.models.scoring import predictions, score_spellings
from engine.text.counterfactuals import Counterfactual
from engine.text.lengths import question_behind
from engine.text.targets import Example, TargetEncoder
from specs.tables.evaluate import Evaluate
from store import Coordinate, Variable

AXES = ("example", "counterfactual")
Drawn = Mapping[str, Mapping[str, Counterfactual | None]]  # by example and kind


def counterfactual_coordinates(kinds: Sequence[str]) -> tuple[Coordinate, ...]:
    """Give the kinds as a coordinate, where there are any."""
    if not kinds:
        return ()
    return (
        Coordinate(
            "counterfactual",
            "counterfactual",
            list(kinds),
            long_name="in the place of the model's explanation",
        ),
    )


def counterfactual_variables(kinds: Sequence[str]) -> tuple[Variable, ...]:
    """Give what is stored of them, by example and kind."""
    if not kinds:
        return ()
    return (
        Variable("counterfactual_explanation", AXES, "string", "", "explanation put before the label"),
        Variable("argued_label", AXES, "string", "", "label of the example that the explanation is of"),
        Variable(
            "counterfactual_prediction", AXES, "string", "", "label of the highest log-likelihood behind it"
        ),
        Variable(
            "counterfactual_logprob",
            (*AXES, "label"),
            "float32",
            "nat",
            "log-likelihood of the label behind it",
        ),
    )


def score_counterfactuals(
    lens: Lens,
    writer: TargetEncoder,
    batch: Sequence[Example],
    settings: Evaluate,
    drawn: Drawn,
    positions: int | None,
) -> dict[str, np.ndarray]:
    """Give the variables for a batch; "" and NaN where an example has no explanation of a kind.

    Labels are scored as behind the model's own explanation. positions: those that the model has.
    """
    padding = padding_id(writer.tokenizer)
    shape = len(batch), len(settings.counterfactuals)
    texts, argued, predicted = (np.full(shape, "", object) for _ in range(3))
    logprobs = np.full((*shape, len(settings.labels)), np.nan, np.float32)
    for column, kind in enumerate(settings.counterfactuals):
        known = [
            (place, one) for place, row in enumerate(batch) if (one := drawn[row["id"]][kind]) is not None
        ]
        if not known:
            continue
        questions = [question_behind(writer, batch[place], one.text, positions) for place, one in known]
        labels, scores = predictions(
            score_spellings(lens, questions, padding),
            settings.labels,
            length_normalized=settings.length_normalized,
        )
        for (place, one), label, by_label in zip(known, labels, scores, strict=True):
            texts[place, column], argued[place, column] = one.text, one.argues_for
            predicted[place, column], logprobs[place, column] = label, by_label
    return {
        "counterfactual_explanation": texts,
        "argued_label": argued,
        "counterfactual_prediction": predicted,
        "counterfactual_logprob": logprobs,
    }
