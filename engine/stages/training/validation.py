"""Early stopping: when to validate, when to stop, and the weights of the best adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from engine.stages.training.history import TrainingLog

BEST = "best.safetensors"  # its name in a checkpoint


@define
class EarlyStopping(TrainerCallback):
    """Validates every so many steps and at the end, and stops behind `patience` validations without a better.

    All that it goes by is in the training's log, which checkpoints hold, and so are the best weights.
    """

    every: int
    patience: int
    _best: dict[str, Tensor] = field(factory=dict)  # by parameter

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: D102
        control.should_evaluate = state.global_step % self.every == 0 or state.global_step >= state.max_steps

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: D102
        history = TrainingLog(state.log_history)
        if history.kept == state.global_step:
            self._best = {name: p.detach().cpu().clone() for name, p in _trained(model).items()}
        if self.is_over(history):
            control.should_training_stop = True

    def is_over(self, history: TrainingLog) -> bool:
        """Tell whether there were enough validations without a better one."""
        return history.since_best >= self.patience

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Give the model its best weights."""
        for name, parameter in _trained(model).items():
            parameter.copy_(self._best[name])

    def save(self, checkpoint: Path) -> None:
        """Save the best weights into a checkpoint."""
        if self._best:
            save_file(self._best, checkpoint / BEST)

    def read(self, checkpoint: Path) -> None:
        """Take the best weights from a checkpoint, which has none before the first validation."""
        if (file := checkpoint / BEST).is_file():
            self._best = load_file(file)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
