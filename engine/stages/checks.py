"""What a stage would fail of, found out before the training that it comes behind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from engine.errors import UsageError
from engine.models.attention_heads import check_heads
from engine.models.base_model import BaseModel, as_it_was
from engine.models.block_streams import check_blocks
from engine.models.jacobians import published
from engine.models.lens import find_lens
from engine.planning.plan import PlannedCell
from engine.stages.adapter_layout import adapted_sites
from engine.stages.attribution import check_attribution
from engine.stages.context import Context
from engine.stages.inspect_tasks import check_inspect
from engine.stages.interventions import stage as interventions
from engine.stages.probe import watched_tokens
from engine.stages.probe_layout import layer_numbers
from engine.stages.tasks import check_tasks
from engine.stages.training.adapter import attach_adapter
from engine.text.token_checks import check_generated, check_tokens, check_watched, token_count
from kernels import choose_backend
from specs.tables.probe import Probe

Checked = Literal["evaluate", "probe", "intervene", "tasks", "inspect"]
"""The stages that can fail of what is known before a training."""


def check(context: Context, cell: PlannedCell, stage: Checked, base: BaseModel) -> None:
    """Raise what a stage would fail of.

    That is a backend, layers, heads, streams or a fitted lens that are not here, an adapter outside the
    layers by which interventions take it apart, or layers that these cannot take apart, long examples, and
    labels that cannot be scored, watched, or read once they are written. Of tasks, that there are none of
    their names.
    """
    if stage == "tasks":
        check_tasks(context.settings("evaluate", cell))
        return
    if stage == "inspect":
        check_inspect(context.settings("evaluate", cell).inspect, context.ranks)
        return
    if stage == "probe":
        _check_probe(context.settings("probe", cell), base)
    asking = {"intervene": "interventions", "probe": "probe.against" if cell.references else ""}.get(stage)
    if asking and context.settings("train", cell).steps != 0:
        with as_it_was(base.model):
            adapted_sites(attach_adapter(base.model, context.settings("lora", cell), context.ranks), asking)
    text = context.text(cell, base.tokenizer, test=True)
    rows = context.measured(cell, stage, base.model, text).rows
    check_tokens(text, rows, token_count(base.model))
    if stage == "intervene":
        interventions.check(context, cell, base, text, rows)
    if stage == "evaluate" and context.settings("evaluate", cell).generates(text.target):
        check_generated(text, rows[0])
    if stage == "probe":
        watched_tokens(base.tokenizer, text, rows[0], context.settings("probe", cell))
        if context.settings("probe", cell).watch == "labels":
            check_watched(text, rows)


def _check_probe(settings: Probe, base: BaseModel) -> None:
    lens = find_lens(base.model)
    try:
        choose_backend(lens.device, settings.backend)  # warns where a slower one has to serve
    except ValueError as error:
        raise UsageError(f"probe.{error}") from error
    layer_numbers(settings, len(lens.layers))
    if "jacobian" in settings.lenses and settings.jacobian.path is not None:
        published(Path(settings.jacobian.path), len(lens.layers), lens.width, torch.device("cpu"))
    if settings.heads:
        check_heads(lens)
    if settings.streams or settings.attribution:
        check_blocks(lens, settings.streams)
    if settings.attribution:
        check_attribution(lens, per_head=settings.attribution_per_head)
