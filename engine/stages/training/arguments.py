"""The Trainer's arguments for a spec's settings, on one device."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from engine.planning.passes import Passes
from engine.stages.training.tracker_runs import TrackerRun
from specs.tables.experiment import Train

# Releases of transformers 5 differ in what they call it.
_CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in TrainingArguments.__dataclass_fields__
)


class OneDevice(TrainingArguments):
    """Arguments of a training on the device where its model is, however many there are beside it.

    By itself the Trainer takes all visible GPUs, and `batch_size` on each.
    """

    def __init__(self, device: torch.device, **options: Any) -> None:
        self._own_device = device
        super().__init__(use_cpu=device.type == "cpu", **options)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # accelerate takes the current one

    @property
    def n_gpu(self) -> int:
        """Give the number of devices that share a batch."""
        return 1

    @property
    def recomputes(self) -> bool:
        """Tell whether activations are computed anew in the backward pass."""
        return bool(getattr(self, _CHECKPOINTING))

    @property
    def device(self) -> torch.device:
        """Give the model's device."""
        _ = super().device  # sets accelerate up
        return self._own_device


def arguments(
    settings: Train,
    passes: Passes,
    seed: int,
    checkpoints: Path,
    trackers: Sequence[str],
    device: torch.device,
    run: TrackerRun | None = None,
) -> OneDevice:
    """Give the Trainer's arguments for the spec's settings.

    Precision, orders of the examples and validations are not among them: `CompletionTrainer` sees to these.
    """
    return OneDevice(
        device,
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.steps if settings.steps is not None else -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        **{_CHECKPOINTING: passes.checkpointing},
        seed=global_seed(seed),
        dataloader_pin_memory=device.type != "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if settings.checkpoint_every else "no",
        save_steps=settings.checkpoint_every or 0,
        save_total_limit=2,
        report_to=list(trackers) or "none",
        **({"run_name": run.name, "project": run.experiment} if run else {}),
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )


def global_seed(seed: int) -> int:
    """Give the seed of the libraries' own generators (the adapter's start, dropout): 32 bits, drawn anew."""
    return random.Random(f"training {seed}").getrandbits(32)
