"""The train stage: LoRA fine-tuning of one cell, through transformers' Trainer and peft."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from transformers import set_seed

from engine.data.prepare import no_validation
from engine.errors import DataError, Interrupted, UsageError
from engine.models.base_model import as_it_was
from engine.models.batching import padding_id
from engine.models.causal_lm import CausalLm
from engine.models.lens import find_lens
from engine.models.tokenizer import Tokenizer
from engine.planning.passes import Passes, without_estimate
from engine.process_group.alone import ALONE, IGNORED, ProcessGroup
from engine.progress import Report, StopRequest
from engine.stages.training.adapter import attach_adapter, quiet
from engine.stages.training.arguments import arguments, global_seed
from engine.stages.training.budget import within_budget
from engine.stages.training.callbacks import Reporter, Saver
from engine.stages.training.files import (
    Trained,
    checkpoint_folder,
    newest_checkpoint,
    publish_kept,
    save_adapter,
    saved_training,
)
from engine.stages.training.history import curves_family
from engine.stages.training.kept import Keep, Keeper, nothing
from engine.stages.training.loss import PLAIN, Collator, Objective, completion_loss
from engine.stages.training.modules import trained_modules
from engine.stages.training.orders import variants_of
from engine.stages.training.together.side_by_side import Beside
from engine.stages.training.tracker_runs import TrackerRun
from engine.stages.training.trackers import LOGS, logging_to
from engine.stages.training.trained_tokens import train_rows_alone
from engine.stages.training.trainer import CompletionTrainer
from engine.stages.training.validation import EarlyStopping
from engine.text.lengths import Limit, limit_of
from engine.text.targets import Encoded
from specs.tables.experiment import Lora, Train
from store.backend.location import Place

__all__ = [
    "IGNORED", "Collator", "attach_adapter", "completion_loss", "curves_family", "padding_id",
    "short_enough", "train_adapter",
]  # fmt: skip


def train_adapter(
    base: CausalLm,
    tokenizer: Tokenizer,
    examples: Sequence[Encoded],
    validation: Sequence[Encoded],
    *,
    lora: Lora,
    settings: Train,
    objective: Objective = PLAIN,
    seed: int,
    home: Place,
    report: Report,
    stop: StopRequest,
    fenced: bool = False,
    ranks: ProcessGroup = ALONE,
    passes: Callable[[Sequence[Encoded]], Passes] | None = None,
    run: TrackerRun | None = None,
    keep: Keep = nothing,
    until: int | None = None,
    beside: Beside | None = None,
) -> Trained:
    """Fine-tune an adapter on `base` and save it as `adapter` of `home`; give what is saved with it.

    Goes on from the newest whole checkpoint on this machine, to the same result; when `fenced`, its own
    checkpoints go to a folder that no earlier owner of the training knows. Raises Interrupted, with a
    checkpoint saved, when a stop is requested. Whatever happens, the base model is as it was. `passes`
    chooses, by the examples, how batches go through the model where the settings leave it to "auto". `run` is
    what trackers call the training. `keep` names the steps whose adapters are saved, too. With `until`, a
    training that was done before is done again up to that step, for these alone. `beside` is its place beside
    others on the same base model, with which it does its passes together: the result is that of training
    alone, up to rounding.
    """
    started = beside.clock() if beside else time.perf_counter()
    if settings.compile and ranks.size > 1:
        raise UsageError(f"train.compile: found true, expected false with executor.ranks = {ranks.size}")
    base = beside.own(base) if beside else base
    limit = limit_of(base, settings.max_length)
    kept = short_enough(examples, limit)
    settings = within_budget(settings, kept, seed)
    validated = _validated(validation, settings, limit) if settings.early_stopping else []
    chosen = passes(kept) if passes else without_estimate(settings)
    set_seed(global_seed(seed))
    trackers = settings.report_to if ranks.rank == 0 else []
    with quiet(), as_it_was(base), logging_to(home.scratch() / LOGS, trackers, run):
        model = attach_adapter(base, lora, ranks)
        untrained = train_rows_alone(model, tokenizer, lora.trained_tokens)
        stopping = EarlyStopping(settings.validate_every, settings.early_stopping) if validated else None
        seconds = None if settings.checkpoint_every else 60 * settings.checkpoint_minutes
        checkpoints = checkpoint_folder(home.scratch(), fenced=fenced)
        trainer = CompletionTrainer(
            lens=find_lens(model),
            ranks=ranks,
            settings=settings,
            seed=seed,
            validation=validated,
            stopping=stopping,
            started=started,
            rows=chosen.rows,
            objective=objective,
            beside=beside,
            model=model,
            args=arguments(
                settings, chosen, seed, checkpoints, trackers, next(base.parameters()).device, run
            ),
            train_dataset=kept,
            data_collator=Collator(padding_id(tokenizer)),
            callbacks=[
                Reporter(report),
                *([stopping] if stopping else []),
                Keeper(keep, ranks, until),
                Saver(stop, ranks, seconds),
            ],
        )
        trainer.go_on(newest_checkpoint(home.scratch()) if settings.resume else None)
        if until is not None and trainer.state.global_step >= until:
            ranks.lead(lambda: publish_kept(home, last=True))
            return Trained({}, trainer.history.curves())
        if not trainer.is_over:
            raise Interrupted
        if stopping:
            stopping.restore(model)
        summary = trainer.history.summary() | {
            "train_examples": float(len(variants_of(kept))),
            "train_examples_too_long": float(len(variants_of(examples)) - len(variants_of(kept))),
            "train_seconds": trainer.seconds,
            "trained_parameters": float(
                sum(p.numel() for p in model.parameters() if p.requires_grad) - untrained
            ),
        }
        if stopping:
            summary |= {
                "validation_examples": float(len(validated)),
                "validation_examples_too_long": float(len(validation) - len(validated)),
            }
        passes_done = chosen.as_json() | {"out_of_memory": trainer.history.halvings}
        passes_done |= {"compiled": True} if settings.compile else {}
        passes_done |= {"together": beside.count} if beside else {}
        trained = Trained(
            summary, trainer.history.curves(), trained_modules(model), passes_done,
            trainer.state.max_steps,
        )  # fmt: skip
        saved = ranks.lead(lambda: save_adapter(model, trained, home))
    return trained if saved else saved_training(home) or trained


def short_enough(examples: Sequence[Encoded], limit: Limit, kind: str = "training") -> list[Encoded]:
    """Give the examples within the limit; DataError where there is none."""
    kept = [example for example in examples if len(example) <= limit.tokens]
    if not kept:
        raise DataError(
            f"{limit.reason}, shorter than every {kind} example (shortest: {min(map(len, examples))} tokens)"
        )
    return kept


def _validated(validation: Sequence[Encoded], settings: Train, limit: Limit) -> list[Encoded]:
    """Give the examples that early stopping goes by; DataError where there are none."""
    if not validation:
        raise DataError(no_validation(settings.early_stopping))
    return short_enough(validation, limit, "validation")
