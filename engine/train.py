"""The train stage: LoRA fine-tuning of one cell, through transformers' Trainer and peft."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import define, frozen
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from engine.errors import DataError, Interrupted, UsageError
from engine.lens import Lens, find_lens
from engine.progress import Report, StopRequest
from engine.ranks import ALONE, Ranks
from engine.text import Encoded
from engine.trained import (
    Trained,
    checkpoint_folder,
    load_adapter,
    newest_checkpoint,
    save_adapter,
    saved_training,
)
from specs.model import Lora, Train
from store import Coordinate, Family, Variable
from store.places import Place

# peft asks transformers for checkpointing by its former name, at every adapter.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

IGNORED = -100  # a label that takes no part in the loss


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
) -> tuple[Any, Trained]:
    """Fine-tune an adapter on `base` and save it as `adapter` of `home`; give (peft model, Trained).

    Goes on from the newest whole checkpoint on this machine, to the same result; when `fenced`, its own
    checkpoints go to a folder that no earlier owner of the training knows. Raises Interrupted, with a
    checkpoint saved, when a stop is requested; whatever is raised, the base model is as it was.
    """
    started = time.perf_counter()
    kept = short_enough(examples, settings.max_length)
    set_seed(seed)
    model = attach_adapter(base, lora, ranks)
    try:
        seconds = None if _save_steps(settings) else 60 * settings.checkpoint_minutes
        tokens = sum(map(len, kept)) / len(kept)
        trainer = _Trainer(
            lens=find_lens(model),
            ranks=ranks,
            model=model,
            args=_arguments(
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
                _Reporter(report, tokens),
                _Saver(stop, ranks, seconds),
                *_early_stopping(settings),
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=newest_checkpoint(home.scratch()) if settings.resume else None)
        if stop.requested and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted
    except BaseException:
        base_model_of(model)
        raise
    model.eval()
    curves = _curves(trainer.state.log_history)
    summary = {
        "train_loss": float(np.mean(curves["loss"][-max(1, len(curves["loss"]) // 10) :])),
        "train_steps": float(trainer.state.global_step),
        "train_examples": float(len(kept)),
        "train_examples_too_long": float(len(examples) - len(kept)),
        "train_tokens": float(sum(map(len, kept))),
        "completion_tokens": float(sum(len(example.completion) for example in kept)),
        "train_seconds": time.perf_counter() - started,
    }
    trained = Trained(summary, curves)
    if not ranks.lead(lambda: save_adapter(model, trained, home)) and (first := saved_training(home)):
        return load_adapter(base_model_of(model), home), first
    return model, trained


def short_enough(examples: Sequence[Encoded], max_length: int) -> list[Encoded]:
    """Give the examples of at most so many tokens; DataError where there is none."""
    kept = [example for example in examples if len(example) <= max_length]
    if not kept:
        raise DataError(
            f"train.max_length: found {max_length}, shorter than every training example "
            f"(shortest: {min(map(len, examples))} tokens)"
        )
    return kept


def attach_adapter(base: Any, lora: Lora, ranks: Ranks = ALONE) -> Any:
    """Put a fresh LoRA adapter on a base model (LoRA: arXiv 2106.09685); the base stays frozen."""
    from peft import LoraConfig, get_peft_model

    if lora.dora and ranks.size > 1:
        raise UsageError(
            f"lora.dora: found true, which needs whole weights to begin with; expected false with "
            f"executor.ranks = {ranks.size}"
        )
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=list(lora.modules_to_save) or None,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(base, config)
    except ValueError as error:
        raise UsageError(f"lora.target_modules: found {lora.target_modules!r}: {error}") from error
    if isinstance(base.get_output_embeddings(), BaseTunerLayer):
        base_model_of(model)
        raise UsageError(
            f"lora.target_modules: found {lora.target_modules!r}, which takes in the unembedding; the lens "
            'needs its whole matrix: train it in full by modules_to_save = ["lm_head"]'
        )
    try:
        ranks.check_adapter(model)
    except UsageError:
        base_model_of(model)
        raise
    return model


def base_model_of(model: Any) -> Any:
    """Take the adapter off again and give the base model, as it was before."""
    if hasattr(model, "unload"):
        for module in list(model.modules()):
            if isinstance(module, ModulesToSaveWrapper):  # unload would leave the trained copy in the base
                module.modules_to_save[module.active_adapter] = module.original_module
        base = model.unload()
    else:
        base = model
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base.requires_grad_(False).eval()


def padding_id(tokenizer: Any) -> int:
    """Give the id to pad with. It never matters which: padding is masked by length, not by value."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


@frozen
class Collator:
    """Pads examples on the right; the loss counts the completion's tokens alone.

    Lengths, not token values, say what is padding, so an end-of-sequence token that is also the padding
    token still takes part in the loss.
    """

    padding: int

    def __call__(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """Give input_ids, attention_mask, labels: int64 [B, T]."""
        length = max(map(len, examples))
        ids = torch.full((len(examples), length), self.padding)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            size, border = len(example), len(example.prompt)
            ids[row, :size] = torch.tensor(example.prompt + example.completion)
            mask[row, :size] = 1
            labels[row, border:size] = ids[row, border:size]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class _Trainer(Trainer):
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


def completion_loss(lens: Lens, inputs: dict[str, Tensor], items: Tensor | int | None = None) -> Tensor:
    """Give the mean cross-entropy, in nats, of the labelled tokens: the causal model's own loss.

    Logits are made for the labelled positions alone, not [B, T, V] of them. `items` replaces the number of
    tokens to divide by, when one optimiser step gathers several batches.
    """
    hidden = lens.last_hidden(inputs["input_ids"], inputs["attention_mask"])[:, :-1]
    labels = inputs["labels"][:, 1:]
    counted = labels != IGNORED
    total = nn.functional.cross_entropy(lens.logits(hidden[counted]), labels[counted], reduction="sum")
    return total / (counted.sum() if items is None else items)


def _arguments(
    settings: Train, seed: int, checkpoints: Path, device: torch.device, validate: bool
) -> TrainingArguments:
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
        activation_checkpointing=settings.gradient_checkpointing,
        seed=seed,
        data_seed=seed,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if _save_steps(settings) else "no",
        save_steps=_save_steps(settings) or 0,
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


def _save_steps(settings: Train) -> int | None:
    """Give the steps between checkpoints, None where time decides; the best validation is one of them."""
    return settings.validate_every if settings.early_stopping else settings.checkpoint_every


def _early_stopping(settings: Train) -> list[TrainerCallback]:
    return [EarlyStoppingCallback(settings.early_stopping)] if settings.early_stopping else []


@define
class _Reporter(TrainerCallback):
    """Reports each step's loss and speed."""

    report: Report
    tokens: float  # mean per example
    started: float = 0.0
    first_step: int = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started, self.first_step = time.perf_counter(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        examples = (state.global_step - self.first_step) * args.train_batch_size
        examples *= args.gradient_accumulation_steps
        speed = self.tokens * examples / (time.perf_counter() - self.started)
        loss = logs["loss"]
        self.report(state.global_step, state.max_steps, f"loss {loss:.3f}, {speed:.0f} tokens/s")


@define
class _Saver(TrainerCallback):
    """Saves when it is time to, and saves and stops when asked to."""

    stop: StopRequest
    ranks: Ranks
    seconds: float | None  # from one checkpoint to the next, None where the Trainer counts steps
    last: float = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stop.requested:
            control.should_save = True
            control.should_training_stop = True
        elif (seconds := self.seconds) is not None:
            control.should_save = self.ranks.lead(lambda: time.monotonic() - self.last >= seconds)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.last = time.monotonic()


def _curves(history: list[dict[str, float]]) -> dict[str, np.ndarray]:
    steps = [entry for entry in history if "loss" in entry]
    names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
    return {
        name: np.array([entry.get(key, math.nan) for entry in steps], np.float32)
        for name, key in names.items()
    }


def curves_family(steps: int) -> Family:
    """Give the store's layout of the training curves of a run of so many steps."""
    return Family(
        stage="train",
        coordinates=(Coordinate("step", "step", list(range(1, steps + 1)), long_name="optimiser step"),),
        variables=(
            Variable("loss", ("step",), "float32", "nat", "mean cross-entropy of the completion's tokens"),
            Variable("learning_rate", ("step",), "float32", "1", "learning rate"),
            Variable("grad_norm", ("step",), "float32", "1", "norm of the gradient before clipping"),
        ),
    )
