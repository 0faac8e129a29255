"""The loss and gradients of several adapters on one model: of each by itself, and of all in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from attrs import frozen

from engine.models.lens import find_lens
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.loss import PLAIN, Collator, Objective, TrainingRows, completion_loss
from engine.stages.training.together.joint_model import structure_of
from engine.stages.training.together.joint_passes import Asked, JointPasses, Pass
from engine.stages.training.together.own_state import OwnState
from engine.text.targets import Encoded
from specs.tables.experiment import Lora


@frozen
class Cell:
    """One training's adapter and examples."""

    lora: Lora
    examples: Sequence[Encoded]
    objective: Objective = PLAIN


def adapted(base: Any, cell: Cell, seed: int, dtype: torch.dtype | None = None) -> Any:
    """The model under the cell's adapter, which is not that of the start: neither of its matrices is zero."""
    torch.manual_seed(seed)
    model = attach_adapter(structure_of(base), cell.lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter, dtype=dtype) * 0.1
    return model


def gradients(model: Any) -> Mapping[str, torch.Tensor]:
    """By name, of all that is trained and takes part; they are forgotten."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    found = {name: p.grad.clone() for name, p in named.items()}
    model.zero_grad()
    return found


def alone(model: Any, cell: Cell) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """Loss and gradients by peft's own modules."""
    model.train()
    loss = completion_loss(find_lens(model), Collator(padding=0)(cell.examples), objective=cell.objective)
    loss.backward()
    return loss.detach(), gradients(model)


def asked(model: Any, cell: Cell) -> Asked:
    """What a training asks for: a pass of its examples."""
    state = OwnState(next(model.parameters()).device)
    state.enter()
    state.leave()
    rows = TrainingRows(Collator(padding=0)(cell.examples), objective=cell.objective)
    return Asked(Pass(model, rows, lambda loss: loss, nullcontext, False), state)


def together(
    base: Any, models: Sequence[Any], cells: Sequence[Cell]
) -> list[tuple[torch.Tensor | None, Mapping[str, torch.Tensor]]]:
    """Loss and gradients of all in one pass; no loss of those that cannot go along."""
    wanted = [asked(model, cell) for model, cell in zip(models, cells, strict=True)]
    losses = JointPasses(base, most=len(cells)).losses(wanted)
    return [(loss, gradients(model)) for loss, model in zip(losses, models, strict=True)]
