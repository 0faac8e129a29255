"""transformers' Trainer with the loss of completions alone, under one autocast, and a log of its work."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer
from transformers.trainer import TRAINER_STATE_NAME, TrainerState

from engine.errors import EngineError, UsageError
from engine.full_memory import memory_error
from engine.models.devices import free_memory
from engine.models.lens import Lens
from engine.process_group.alone import ProcessGroup
from engine.stages.training.compiled import compiled
from engine.stages.training.divergence import check_entry, check_weights
from engine.stages.training.frozen_linear import faster_products
from engine.stages.training.history import (
    COMPLETION_TOKENS,
    LOSS,
    ROWS,
    SECONDS,
    TOKENS,
    VALIDATION_LOSS,
    TrainingLog,
)
from engine.stages.training.loss import PLAIN, Objective, Tally, TrainingRows, completion_loss, counted
from engine.stages.training.micro_batches import Draws, parted
from engine.stages.training.orders import Orders, variants_of
from engine.stages.training.together.joint_passes import Pass
from engine.stages.training.together.side_by_side import Beside
from engine.stages.training.validation import EarlyStopping
from engine.text.targets import Encoded
from specs.tables.experiment import Train
from specs.tables.loss import SEGMENTS

SEGMENT_TOKENS = [f"{segment}_tokens" for segment in SEGMENTS]
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class CompletionTrainer(Trainer):
    """Trainer whose loss unembeds only the positions that predict a completion token.

    `train.precision` below float32 is an autocast over the whole loss, decoder and head; what is trained
    stays in float32, and so does the cross-entropy. `started`: when this process began, by `perf_counter` or
    the clock of `beside`: the training's place beside others, with which it does its passes together.
    `rows`: most examples of a batch that go through the model at once, of all ranks together; fewer once
    memory was full.
    """

    def __init__(
        self,
        *,
        lens: Lens,
        ranks: ProcessGroup,
        settings: Train,
        seed: int,
        validation: Sequence[Encoded],
        stopping: EarlyStopping | None,
        started: float,
        rows: int,
        objective: Objective = PLAIN,
        beside: Beside | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.remove_callback(PrinterCallback)
        self._lens, self._ranks, self._settings, self._seed = lens, ranks, settings, seed
        self._validation, self._stopping = validation, stopping
        self._started, self.rows, self._objective = started, rows, objective
        self._beside, self._clock = beside, beside.clock if beside else time.perf_counter
        self._former: float | None = None  # seconds of the processes before this one
        self._batches: list[dict[str, Tensor]] = []  # of the optimiser step under way
        self._passes = 0  # of that step
        self._tokens = 0  # its prompts' too
        self._tally = Tally.none(self.args.device)  # of its completions
        # compute_loss below divides by the tokens of the whole optimiser step itself.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True
        # Batches stay on the CPU, where their lengths and labels are read; `completion_loss` sends them on.
        self.accelerator.device_placement = False
        if settings.precision == "float16":  # accelerate has a scaler for GPUs alone
            self.accelerator.scaler = torch.amp.GradScaler(self.args.device.type)

    @property
    def history(self) -> TrainingLog:
        """Give the log so far."""
        return TrainingLog(self.state.log_history)

    @property
    def seconds(self) -> float:
        """Give the seconds since the training began, without those between its processes."""
        if self._former is None:
            self._former = self.history.seconds
        return self._former + self._clock() - self._started

    @property
    def is_over(self) -> bool:
        """Tell whether all is done that there is to do, by the log alone."""
        done = self.state.global_step >= self.state.max_steps
        return done or (self._stopping is not None and self._stopping.is_over(self.history))

    def go_on(self, checkpoint: str | None) -> None:
        """Train to the end, or until asked to stop, from a checkpoint where there is one."""
        if checkpoint is not None:
            if self._stopping is not None:
                self._stopping.read(Path(checkpoint))
            self.state = TrainerState.load_from_json(f"{checkpoint}/{TRAINER_STATE_NAME}")
            self.rows = min([self.rows, *(rows for _, rows in self.history.halvings)])
            if self.is_over:  # the Trainer would do one step more
                self._load_from_checkpoint(checkpoint)
                return
        self._check_arithmetic()
        self.train(resume_from_checkpoint=checkpoint)

    @torch.inference_mode()
    def _check_arithmetic(self) -> None:
        """Raise UsageError where the model cannot compute with weights of one half precision in another.

        Layer norms on a CPU are such. One example is run for it, without dropout.
        """
        precision = self._settings.precision
        frozen = {p.dtype for p in self.model.parameters() if not p.requires_grad}
        others = frozen & set(AUTOCAST.values()) - {AUTOCAST.get(precision)}
        if precision not in AUTOCAST or not others:
            return
        batch = self._prepare_inputs(self.data_collator(self.train_dataset[:1]))
        self.model.eval()
        try:
            with self.compute_loss_context_manager():
                completion_loss(self._lens, batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            name = str(others.pop()).removeprefix("torch.")
            device = "CPU" if self.args.device.type == "cpu" else "GPU"
            raise UsageError(
                f'train.precision: found "{precision}" with model.dtype = "{name}", which this model '
                f'cannot compute with on a {device} ({error}); expected "{name}" or "float32", or another '
                "model.dtype"
            ) from error

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train; where autocast casts, peft's own casts of inputs to the adapter's type would be undone."""
        with (
            disable_input_dtype_casting(self.model, active=self._settings.precision in AUTOCAST),
            faster_products(self.model),
            compiled(self._lens.layers) if self._settings.compile else nullcontext(),
        ):
            output = super().train(*arguments, **options)
        check_weights(self.history, self.model, self._settings)
        return output

    def autocast_smart_context_manager(self, *_: Any, **__: Any) -> AbstractContextManager[Any]:
        """Give the autocast of the spec's precision."""
        dtype = AUTOCAST.get(self._settings.precision)
        return torch.autocast(self.args.device.type, dtype, enabled=dtype is not None)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Give the batches of an optimiser step, and their tokens by segment [S] as its number of items."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, torch.device("cpu"))
        counts = [counted(batch) for batch in batches]
        return batches, torch.stack(counts).sum(0) if counts else None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Give the objective over the completions' tokens."""
        loss = completion_loss(self._lens, inputs, num_items_in_batch, self._objective, self._tally)
        return (loss, {"loss": loss}) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *items: Any) -> Tensor:
        """Do a rank's part of a batch; loss and, after a step's last batch, gradients are the whole's."""
        self._tokens += int(inputs["attention_mask"].sum())
        if not self._batches:
            self._draws = Draws.now(self.args.device)
        self._batches.append(inputs)
        due, loss = [inputs], None
        while loss is None:
            try:
                for batch in due:
                    loss = self._passed(model, batch, *items)
            except (RuntimeError, MemoryError) as error:
                self._take_fewer(inputs, self.state.global_step + 1, error)
                loss = None
            if loss is None:  # behind the `except`, where the error no longer holds the pass's tensors
                due = self._begin_again(model)
        if self.accelerator.sync_gradients:
            self._batches, self._passes = [], 0
            self._ranks.add_gradients(model.parameters())
            if self.accelerator.scaler is not None:  # before the gradients are clipped
                self.accelerator.scaler.unscale_(self.optimizer.optimizer)
        return self._ranks.total(loss)

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs

    def _passed(self, model: nn.Module, batch: dict[str, Tensor], *items: Any) -> Tensor:
        """Let a batch go through the model in parts, and back; give this rank's part of its loss."""
        losses = []
        for part in parted(batch, self.rows):
            with self._ranks.drawing(self.args.seed, self.state.global_step, self._passes):
                losses.append(self._pass(model, self._ranks.share(part), *items))
            self._passes += 1
        return torch.stack(losses).sum()

    def _pass(self, model: nn.Module, part: Mapping[str, Tensor], items: Tensor | None = None) -> Tensor:
        """Let rows go through the model and back, beside those of other trainings where they can."""
        if self._beside is not None:
            rows = TrainingRows(part, items, self._objective, self._tally)
            autocast, anew = self.compute_loss_context_manager, self.args.recomputes
            loss = self._beside.passed(Pass(self.model, rows, self._scaled, autocast, anew))
            if loss is not None:
                return loss
        with self._whole_team():
            return super().training_step(model, part, items)

    def _whole_team(self) -> AbstractContextManager[object]:
        return nullcontext() if self._beside is None else self._beside.whole_team()

    def _scaled(self, loss: Tensor) -> Tensor:
        """Give a loss as it goes backward: float16's gradients are scaled."""
        scaler = self.accelerator.scaler
        return loss if scaler is None else scaler.scale(loss)

    def _take_fewer(self, batch: Mapping[str, Tensor], step: int, error: Exception) -> None:
        """Halve the rows of a pass where memory was full; else raise what was the matter.

        Ranks cannot: one may find its memory full while the others wait for it in an exchange.
        """
        if memory_error(error) is None or self._ranks.size > 1:
            raise error
        tried = min(self.rows, len(batch["labels"]))
        if tried == 1:
            longest = int(batch["attention_mask"].sum(1).max())
            raise EngineError(
                f"memory is full with one example at a time, of up to {longest:,} tokens"
            ) from error
        self.rows = tried // 2
        self.state.log_history.append({"step": step, ROWS: self.rows})
        warnings.warn(
            f"train: memory was full at step {step} with {tried} examples at once; from here on batches go "
            f"through the model {self.rows} at a time, to the same result up to rounding",
            stacklevel=2,
        )

    def _begin_again(self, model: nn.Module) -> list[dict[str, Tensor]]:
        """Forget what is done of a step, whose gradients may be those of a part; give its batches."""
        for parameter in model.parameters():
            parameter.grad = None
        free_memory()
        self._draws.restore(self.args.device)
        self._passes = 0
        self._tally.sums.zero_()
        return self._batches

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Give the validation loss: the objective, in nats, over the tokens of all completions."""
        self.model.eval()
        tally, done = Tally.none(self.args.device), 0
        while done < len(self._validation):
            batch = self._prepare_inputs(self.data_collator(self._validation[done : done + self.rows]))
            try:
                part = Tally.none(self.args.device)
                with self._whole_team(), self.compute_loss_context_manager():
                    completion_loss(self._lens, dict(self._ranks.share(batch)), tally=part)
                tally.sums.add_(part.sums)
                done += len(batch["labels"])
            except (RuntimeError, MemoryError) as error:
                self._take_fewer(batch, self.state.global_step, error)
                free_memory()
        self._ranks.total(tally.sums)
        metrics = {VALIDATION_LOSS: self._objective.value(tally)}
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        """Log numbers; with a step's loss come its tokens, and the seconds until then."""
        if LOSS in logs:
            self._ranks.total(self._tally.sums)
            means = self._tally.means()
            counts = {
                TOKENS: self._tokens,
                COMPLETION_TOKENS: int(sum(means[name] for name in SEGMENT_TOKENS)),
            }
            logs |= counts | means | {SECONDS: self.seconds}
            self._tokens = 0
            self._tally.sums.zero_()
        super().log(logs, *arguments)
        check_entry(self.history, self.model, self._settings, skipped=self._step_was_skipped)

    @property
    def _step_was_skipped(self) -> bool:
        """Whether float16's range may be all that the gradient has left: its scale can still be lowered."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a checkpoint's adapters: the one that is trained, and the best one."""
        super().save_model(output_dir, _internal_call)
        if self._stopping is not None and output_dir is not None:
            self._stopping.save(Path(output_dir))

    def _get_train_sampler(self, *_: Any) -> Orders:
        return Orders(variants_of(self.train_dataset), self._seed, lambda: int(self.state.epoch or 0))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        save = super()._save_checkpoint
        self._ranks.lead(lambda: save(model, trial))
