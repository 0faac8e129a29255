"""transformers' Trainer with the loss of completions alone, and its arguments from a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from engine.lens import Lens
from engine.ranks import Ranks
from engine.training.loss import completion_loss
from specs.model import Train

# Releases of transformers 5 differ in what they call it.
_CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in TrainingArguments.__dataclass_fields__
)


class CompletionTrainer(Trainer):
    """Trainer whose loss unembeds only the positions that predict a completion token."""

    def __init__(self, *, lens: Lens, ranks: Ranks, **options: Any) -> None:
        super().__init__(**options)
        self._lens, self._ranks = lens, ranks
        self._batches = 0  # of the optimiser step under way
        # compute_loss below divides by the tokens of the whole accumulated batch itself.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Give the loss of the completions' tokens."""
        loss = completion_loss(self._lens, inputs, num_items_in_batch)
        return (loss, {"loss": loss}) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *items: Any) -> Tensor:
        """Do a rank's part of a batch; loss and, after a step's last batch, gradients are the whole's."""
        with self._ranks.drawing(self.args.seed, self.state.global_step, self._batches):
            loss = super().training_step(model, self._ranks.share(inputs), *items)
        self._batches += 1
        if self.accelerator.sync_gradients:
            self._batches = 0
            self._ranks.add_gradients(model.parameters())
        return self._ranks.total(loss)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        save = super()._save_checkpoint

        def saved() -> str | None:
            save(model, trial)
            return self.state.best_model_checkpoint

        self.state.best_model_checkpoint = self._ranks.lead(saved)


def arguments(
    settings: Train, seed: int, checkpoints: Path, device: torch.device, validate: bool
) -> TrainingArguments:
    """Give the Trainer's arguments for the spec's settings."""
    on_cpu = device.type == "cpu"
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.steps if settings.steps is not None else -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        **{_CHECKPOINTING: settings.gradient_checkpointing},
        seed=seed,
        data_seed=seed,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if save_steps(settings) else "no",
        save_steps=save_steps(settings) or 0,
        save_total_limit=2,
        eval_strategy="steps" if validate else "no",
        eval_steps=settings.validate_every,
        load_best_model_at_end=validate,
        metric_for_best_model="loss" if validate else None,
        prediction_loss_only=True,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )


def save_steps(settings: Train) -> int | None:
    """Give the steps between checkpoints, None where time decides; the best validation is one of them."""
    return settings.validate_every if settings.early_stopping else settings.checkpoint_every


def early_stopping(settings: Train) -> list[TrainerCallback]:
    """Give the callback that stops early, where the spec asks for it."""
    return [EarlyStoppingCallback(settings.early_stopping)] if settings.early_stopping else []
