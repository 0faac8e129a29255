"""Labels scored behind explanations in the place of the model's own (`evaluate.counterfactuals`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engine.models.scoring import predictions
from engine.stages.written_answers import Answers
from engine.text.counterfactuals import Counterfactual
from engine.text.lengths import position_limit, question_behind
from engine.text.targets import Example
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


def score_counterfactuals(answers: Answers, rows: Sequence[Example], drawn: Drawn) -> dict[str, np.ndarray]:
    """Give the variables for some examples; "" and NaN where one has no explanation of a kind.

    Labels are scored as behind the model's own explanation.
    """
    settings, writer, positions = answers.settings, answers.writer, position_limit(answers.model.config)
    shape = len(rows), len(settings.counterfactuals)
    texts, argued, predicted = (np.full(shape, "", object) for _ in range(3))
    logprobs = np.full((*shape, len(settings.labels)), np.nan, np.float32)
    for column, kind in enumerate(settings.counterfactuals):
        known = [
            (place, one) for place, row in enumerate(rows) if (one := drawn[row["id"]][kind]) is not None
        ]
        if not known:
            continue
        questions = [question_behind(writer, rows[place], one.text, positions) for place, one in known]
        labels, scores = predictions(
            answers.scored(questions), settings.labels, length_normalized=settings.length_normalized
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
