"""How many test examples a cell's model writes answers to at once, by the memory of its device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.models.causal_lm import CausalLm
from engine.models.devices import memory_room
from engine.models.generation_batches import GenerationBatches
from engine.models.lens import find_lens
from engine.planning.cards import Cards
from engine.planning.generation_rows import generation_rows, row_bytes
from engine.planning.passes import FILLED
from engine.planning.plan import PlannedCell
from engine.planning.training_memory import BYTES
from engine.stages.context import Context
from engine.text.targets import Example, TargetEncoder


def generation_batches(
    context: Context, cell: PlannedCell, model: CausalLm, writer: TargetEncoder, rows: Sequence[Example]
) -> GenerationBatches:
    """Choose the batches of the generations of some test examples; the model is loaded."""
    settings, loaded = context.settings("evaluate", cell), context.settings("model", cell)
    device = find_lens(model).device
    card = Cards().model(loaded) if device.type == "cuda" and context.ranks.size == 1 else None
    room = memory_room(device, context.sharing) if card else None
    if card is None or room is None:
        return GenerationBatches(generation_rows(settings, 0, None))
    longest = max(rows, key=lambda row: len(writer.prompt_text(row)))
    tokens = len(writer.encode_prompt(longest)[0]) + settings.new_tokens(writer.target)
    free = FILLED * room - torch.cuda.memory_allocated(device)
    return GenerationBatches(generation_rows(settings, row_bytes(card, tokens, BYTES[loaded.dtype]), free))
