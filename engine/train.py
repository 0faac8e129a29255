"""The train stage: LoRA fine-tuning of one cell, through transformers' Trainer and peft."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PrinterCallback, set_seed

from engine.base_model import as_it_was
from engine.errors import DataError, Interrupted
from engine.lengths import Limit, limit_of
from engine.lens import find_lens
from engine.progress import Report, StopRequest
from engine.ranks import ALONE, Ranks
from engine.text import Encoded
from engine.trained import Trained, checkpoint_folder, newest_checkpoint, save_adapter, saved_training
from engine.training.adapter import attach_adapter
from engine.training.callbacks import Reporter, Saver
from engine.training.history import curves, curves_family
from engine.training.loss import IGNORED, Collator, completion_loss, padding_id
from engine.training.trainer import CompletionTrainer, arguments, early_stopping, save_steps
from specs.model import Lora, Train
from store.places import Place

__all__ = [
    "IGNORED", "Collator", "attach_adapter", "completion_loss", "curves_family", "padding_id",
    "short_enough", "train_adapter",
]  # fmt: skip


def train_adapter(
    base: Any,
    tokenizer: Any,
    examples: Sequence[Encoded],
    validation: Sequence[Encoded],
    *,
    lora: Lora,
    settings: Train,
    seed: int,
    home: Place,
    report: Report,
    stop: StopRequest,
    fenced: bool = False,
    ranks: Ranks = ALONE,
) -> Trained:
    """Fine-tune an adapter on `base` and save it as `adapter` of `home`; give what is saved with it.

    Goes on from the newest whole checkpoint on this machine, to the same result; when `fenced`, its own
    checkpoints go to a folder that no earlier owner of the training knows. Raises Interrupted, with a
    checkpoint saved, when a stop is requested. Whatever happens, the base model is as it was.
    """
    started = time.perf_counter()
    kept = short_enough(examples, limit_of(base, settings.max_length))
    set_seed(seed)
    with as_it_was(base):
        model = attach_adapter(base, lora, ranks)
        seconds = None if save_steps(settings) else 60 * settings.checkpoint_minutes
        tokens = sum(map(len, kept)) / len(kept)
        trainer = CompletionTrainer(
            lens=find_lens(model),
            ranks=ranks,
            model=model,
            args=arguments(
                settings,
                seed,
                checkpoint_folder(home.scratch(), fenced=fenced),
                next(base.parameters()).device,
                bool(validation),
            ),
            train_dataset=list(kept),
            eval_dataset=list(validation) or None,
            data_collator=Collator(padding_id(tokenizer)),
            callbacks=[
                Reporter(report, tokens),
                Saver(stop, ranks, seconds),
                *early_stopping(settings),
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=newest_checkpoint(home.scratch()) if settings.resume else None)
        if stop.requested and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted
        drawn = curves(trainer.state.log_history)
        summary = {
            "train_loss": float(np.mean(drawn["loss"][-max(1, len(drawn["loss"]) // 10) :])),
            "train_steps": float(trainer.state.global_step),
            "train_examples": float(len(kept)),
            "train_examples_too_long": float(len(examples) - len(kept)),
            "train_tokens": float(sum(map(len, kept))),
            "completion_tokens": float(sum(len(example.completion) for example in kept)),
            "train_seconds": time.perf_counter() - started,
        }
        trained = Trained(summary, drawn)
        saved = ranks.lead(lambda: save_adapter(model, trained, home))
    return trained if saved else saved_training(home) or trained


def short_enough(examples: Sequence[Encoded], limit: Limit) -> list[Encoded]:
    """Give the examples within the limit; DataError where there is none."""
    kept = [example for example in examples if len(example) <= limit.tokens]
    if not kept:
        raise DataError(
            f"{limit.reason}, shorter than every training example "
            f"(shortest: {min(map(len, examples))} tokens)"
        )
    return kept
