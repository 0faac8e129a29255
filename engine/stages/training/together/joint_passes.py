"""Passes of several trainings as one: their rows in one batch, and each one's loss and gradients back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor, nn

from engine.full_memory import memory_error
from engine.models.causal_lm import AdaptedLm, CausalLm
from engine.models.devices import free_memory
from engine.quantities import count
from engine.stages.training.loss import Tally, TrainingRows, row_losses
from engine.stages.training.together.grouped_lora import RowLayout
from engine.stages.training.together.joint_model import JointModel, why_alone
from engine.stages.training.together.own_state import OwnState


@frozen(eq=False)
class Pass:
    """What a training asks for: that rows go through its model, and gradients back."""

    model: AdaptedLm
    rows: TrainingRows
    scaled: Callable[[Tensor], Tensor]  # the loss as it goes backward, for gradients in float16's range
    autocast: Callable[[], AbstractContextManager[Any]]
    checkpointing: bool


@frozen(eq=False)
class Asked:
    """A pass, and the state of the training that asks for it."""

    wanted: Pass
    state: OwnState


@define(eq=False)
class JointPasses:
    """Does passes of trainings on one base model together, as many at once as memory has room for."""

    base: CausalLm
    most: int
    """Trainings at once; fewer once memory was full."""
    _joint: JointModel | None = None
    _alone: WeakKeyDictionary[AdaptedLm, bool] = field(factory=WeakKeyDictionary)
    _tried: set[frozenset[str]] = field(factory=set)  # modules that were found to read rows in order
    _failed: set[frozenset[int]] = field(
        factory=set
    )  # trainings, by their models, whose pass has failed once

    def losses(self, asked: Sequence[Asked]) -> list[Tensor | None]:
        """Do these passes; give each training's loss, in nats, or None where it has to do its own by itself.

        Gradients are added to those of a training's own weights once the whole pass has succeeded.
        """
        found: dict[int, Tensor] = {}
        waiting = [place for place, each in enumerate(asked) if not self._goes_alone(each.wanted)]
        while len(waiting) > 1 and self.most > 1:
            passes = -(-len(waiting) // self.most)
            chosen = waiting[: -(-len(waiting) // passes)]
            losses = self._tried_together([asked[place] for place in chosen])
            if losses is not None:
                found |= dict(zip(chosen, losses, strict=True))
                waiting = waiting[len(chosen) :]
            elif len(chosen) <= self.most:  # it was not for memory
                waiting = waiting[len(chosen) :]
        return [found.get(place) for place in range(len(asked))]

    def _goes_alone(self, wanted: Pass) -> bool:
        if (model := wanted.model) not in self._alone:
            reason = why_alone(model, checkpointing=wanted.checkpointing)
            self._alone[model] = reason is not None
            if reason is not None:
                _tell_alone([model], reason)
        return self._alone[model]

    def _tried_together(self, asked: Sequence[Asked]) -> list[Tensor] | None:
        """Do passes together; None where that fails, with nothing of any training changed."""
        models = [each.wanted.model for each in asked]
        try:
            joint = self._seated(models)
            return None if joint is None else _together(joint, asked)
        except (RuntimeError, MemoryError, ValueError, IndexError) as error:
            self._fewer(models, error)
        if self._joint is not None:  # behind the `except`, where the error no longer holds the pass's tensors
            self._joint.forget()
        free_memory()
        return None

    def _seated(self, models: Sequence[AdaptedLm]) -> JointModel | None:
        """Give the model that computes for these trainings; None where it cannot."""
        joint = self._joint = self._joint or JointModel.of(self.base)
        joint.seat(models)
        if joint.modules not in self._tried:
            if reason := joint.trial():
                self._part(models, reason)
                return None
            self._tried.add(joint.modules)
        return joint

    def _fewer(self, models: Sequence[AdaptedLm], error: Exception) -> None:
        """Let fewer go together from now on where memory was full; none of these where they fail again.

        At first an error may be that of one training, which then has it by itself, and ends.
        """
        if memory_error(error) is not None:
            self.most = len(models) // 2
            rest = f"{self.most} at once" if self.most > 1 else "one by one"
            _warn(f"memory was full with {count(len(models), 'training')} at once; they go on {rest}")
            return
        these = frozenset(map(id, models))
        if these in self._failed:
            self._part(models, f"{type(error).__name__}: {error}".partition("\n")[0])
        self._failed.add(these)

    def _part(self, models: Sequence[AdaptedLm], reason: str) -> None:
        for model in models:
            self._alone[model] = True
        _tell_alone(models, reason)


def _tell_alone(models: Sequence[AdaptedLm], reason: str) -> None:
    _warn(f"{count(len(models), 'training')} cannot go beside others: {reason}; they go on one by one")


def _warn(text: str) -> None:
    warnings.warn(f"executor.together: {text}, to the same result up to rounding", stacklevel=2)


def _together(joint: JointModel, asked: Sequence[Asked]) -> list[Tensor]:
    """Let the rows of all go through the model and back; give the loss of each."""
    passes, device = [each.wanted for each in asked], joint.lens.device
    batches = [each.rows.inputs for each in passes]
    sizes = [tuple(batch["input_ids"].shape) for batch in batches]
    layout = RowLayout(
        [(rows, tokens) for rows, tokens in sizes], device, [each.state.draws for each in asked]
    )
    rows = [
        evolve(each.rows, first=number * layout.rows, tally=Tally.none(device))
        for number, each in enumerate(passes)
    ]
    joint.prepare(checkpointing=any(each.checkpointing for each in passes))
    with passes[0].autocast():
        hidden = joint.hidden(*_joined(batches, layout), layout)
        losses = row_losses(joint.lens, hidden, rows)
    total = torch.stack([each.scaled(loss) for each, loss in zip(passes, losses, strict=True)]).sum()
    torch.autograd.backward(total)
    _accumulate(joint.gradients())
    for each, own, draws in zip(asked, rows, layout.draws, strict=True):
        each.state.drawn(draws)
        if each.wanted.rows.tally is not None and own.tally is not None:
            each.wanted.rows.tally.sums.add_(own.tally.sums)
    return [loss.detach() for loss in losses]


def _joined(batches: Sequence[Mapping[str, Tensor]], layout: RowLayout) -> tuple[Tensor, Tensor]:
    """Give ids and mask [n R, T] of all batches, of which smaller ones have their last row several times."""
    joined = []
    for name in ("input_ids", "attention_mask"):
        parts = []
        for batch in batches:
            values = batch[name]
            lacking = layout.rows - len(values)
            values = torch.cat([values, values[-1:].expand(lacking, -1)]) if lacking else values
            parts.append(nn.functional.pad(values, (0, layout.tokens - values.shape[1])))
        joined.append(torch.cat(parts))
    return joined[0], joined[1]


def _accumulate(gradients: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    """Add gradients to those that weights have."""
    sums, added = list[Tensor](), list[Tensor]()
    for weight, gradient in gradients:
        if weight.grad is None:
            weight.grad = gradient
        else:
            sums.append(weight.grad)
            added.append(gradient)
    if sums:
        torch._foreach_add_(sums, added)
