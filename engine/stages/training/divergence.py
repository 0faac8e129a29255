"""A training that has gone astray is said to have, at the step where it did."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from engine.errors import EngineError
from engine.stages.training.history import LOSS, VALIDATION_LOSS, TrainingLog
from specs.tables.experiment import Train

NAMES = {
    LOSS: "loss", VALIDATION_LOSS: "validation loss", "grad_norm": "norm of the gradient",
}  # fmt: skip
SHOWN = 3  # names of weights in a message


def check_entry(history: TrainingLog, model: nn.Module, settings: Train, *, skipped: bool = False) -> None:
    """Raise EngineError where a number of the log's last entry is not finite.

    `skipped`: the gradient alone has overflowed float16, and the step was left out for it.
    """
    last = history.entries[-1]
    for key, name in NAMES.items():
        value = last.get(key, 0.0)
        if not math.isfinite(value) and not (skipped and key == "grad_norm"):
            raise EngineError(_diverged(f"the {name} is {value}", history, model, settings))


def check_weights(history: TrainingLog, model: nn.Module, settings: Train) -> None:
    """Raise EngineError where a trained weight is not finite."""
    if names := _not_finite(model, trained=True):
        raise EngineError(
            _diverged(f"trained weights are not finite ({_listed(names)})", history, model, settings)
        )


def _diverged(what: str, history: TrainingLog, model: nn.Module, settings: Train) -> str:
    step = int(history.entries[-1]["step"])
    if names := _not_finite(model, trained=False):
        return (
            f"model.id: {what} at step {step}, for weights of the model itself are not finite: "
            f"{_listed(names)}; expected a checkpoint whose weights are numbers"
        )
    rate = history.steps[-1].get("learning_rate", math.nan)
    finite = [(int(entry["step"]), entry[LOSS]) for entry in history.steps if math.isfinite(entry[LOSS])]
    known = f"the last finite loss was {finite[-1][1]:.4g}, at step {finite[-1][0]}" if finite else (
        "there was no finite loss before, so the model's own output is not finite"
    )  # fmt: skip
    lower = f"a lower train.lr (found {settings.lr:g}), a longer train.warmup, a lower train.max_grad_norm"
    wider = ' or train.precision = "bfloat16"' if settings.precision == "float16" else ""
    return (
        f"train: the training has diverged: {what} at step {step}, at the learning rate {rate:.3g}; {known}; "
        f"expected {lower}{wider}"
    )


@torch.no_grad()
def _not_finite(model: nn.Module, *, trained: bool) -> list[str]:
    """Give the names of the weights that are not finite, of those that are trained or of the others."""
    finiteness: list[tuple[str, Any]] = [
        (name, torch.isfinite(parameter).all())
        for name, parameter in model.named_parameters()
        if parameter.requires_grad == trained and parameter.is_floating_point()
    ]
    return [name.removeprefix("base_model.model.") for name, finite in finiteness if not finite]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
