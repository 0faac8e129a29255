"""The texts on which a lens is fitted: training examples, or documents."""

from __future__ import annotations

from engine.data.neutral_text import CHUNK, neutral_documents
from engine.models.causal_lm import CausalLm
from engine.models.tokenizer import Tokenizer
from engine.planning.lens_keys import corpus_key, fit_settings
from engine.planning.plan import PlannedCell
from engine.stages.context import Context
from engine.stages.training.train import short_enough
from engine.text.chunks import chunks
from engine.text.lengths import position_limit
from engine.text.targets import Encoded, cell_writer
from engine.text.token_checks import encoded_split
from specs.common.names import TRAINED_TEXTS, FitStage
from specs.tables.target import Target


def fitting_texts(
    context: Context,
    cell: PlannedCell,
    model: CausalLm,
    tokenizer: Tokenizer,
    stage: FitStage,
    longest: int = CHUNK,
) -> list[Encoded]:
    """Give the texts on which a stage fits a lens of a cell.

    Training examples are those that a training would read. longest: tokens of a part of a document. Raises
    DataError where there is none, or none short enough.
    """
    settings = fit_settings(context.settings("probe", cell), stage)
    if settings.corpus != TRAINED_TEXTS:
        at_most = min(longest, position_limit(model.config) or longest)
        key = corpus_key(stage)
        parts = chunks(tokenizer, neutral_documents(settings.corpus, key), at_most, key)
        return [Encoded(prompt=part.ids, completion=[], label=0) for part in parts]
    if settings.fitted_on == "base":
        asked = Target(prefix=context.settings("target", cell).prefix)
        text = cell_writer(context.plan, cell, tokenizer, list, asked, test=False)
        rows = context.rows(cell, "data", "train", context.data(cell, test=False).train)
    else:
        text = context.text(cell, tokenizer, test=False)
        rows = context.trained_rows(cell)["train"]
    return short_enough(encoded_split(text, rows, "train"), context.limit(cell, model))
