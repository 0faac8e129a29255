"""The train stage: a cell's adapter, trained, or taken from the store where a training has ended."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from engine.data.missing_explanations import label_alone
from engine.errors import DamagedAdapterError
from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.devices import memory_room
from engine.models.lens import find_lens
from engine.planning.estimate import training_passes
from engine.planning.passes import Passes
from engine.planning.plan import PlannedCell
from engine.progress import Report
from engine.stages.context import Context
from engine.stages.records import checked
from engine.stages.training.files import ADAPTER, Trained, check_adapter, load_adapter, saved_training
from engine.stages.training.history import UNITS, curves_family
from engine.stages.training.loss import Objective
from engine.stages.training.tracker_runs import TrackerRun
from engine.stages.training.trackers import check_trackers
from engine.stages.training.train import train_adapter
from engine.text.targets import Encoded
from engine.text.token_checks import check_tokens, encoded_split, encoded_variants, token_count


def run(context: Context, cell: PlannedCell, base: BaseModel, report: Report) -> None:
    """Train the cell's adapter; the base model is left as it was."""
    settings, key = context.settings("train", cell), cell.keys["train"]
    with context.committing("train", key, base) as record:
        if settings.steps == 0:
            record["summary"] = {}
            return
        text = context.text(cell, base.tokenizer, test=False)
        rows = context.trained_rows(cell)
        encode = {"train": encoded_variants, "validation": encoded_split}
        encoded = {split: encode[split](text, part, split) for split, part in rows.items()}
        check_tokens(text, rows["train"], token_count(base.model))
        claim = context.claim("train", key)
        trained = _saved(context, cell) or train_adapter(
            base.model,
            base.tokenizer,
            encoded["train"],
            encoded.get("validation", []),
            lora=context.settings("lora", cell),
            settings=settings,
            objective=Objective.of(text.target),
            seed=context.plan.matrix.seed(cell.choice),
            home=context.home("train", key),
            fenced=claim.fenced,
            report=checked(report, claim),
            stop=context.stop,
            ranks=context.ranks,
            passes=partial(_passes, context, cell, base),
            run=TrackerRun.of(context.plan, cell),
        )
        family = curves_family(len(trained.curves["loss"]))
        with context.sink(family, key, resume=False) as sink:
            sink.append(trained.curves)
        alone = {
            f"{split}_examples_label_alone": float(label_alone(part, text.target))
            for split, part in rows.items()
        }
        record |= {
            **sink.placement,
            "summary": trained.summary | alone,
            "units": UNITS,
            "modules": trained.modules,
            "passes": trained.passes,
        }


def _passes(context: Context, cell: PlannedCell, base: BaseModel, examples: Sequence[Encoded]) -> Passes:
    """Choose how batches of these examples go through the model, by the memory of its device."""
    longest = max(map(len, examples)), max(len(example.completion) for example in examples)
    room = context.ranks.lead(lambda: memory_room(find_lens(base.model).device, context.sharing))
    return training_passes(context.plan, cell, longest, room, context.ranks.size)


def load(context: Context, cell: PlannedCell, base: BaseModel) -> CausalLm:
    """Give the base model with the cell's trained adapter; as it is where the training has no steps."""
    if context.settings("train", cell).steps == 0:
        return base.model
    return load_adapter(base.model, context.adapter(cell.keys["train"]))


def check(context: Context, cell: PlannedCell) -> None:
    """Raise what a training would fail of before a model is loaded for it.

    That is examples that lack, or whose explanation does, and trackers that are not here.
    """
    settings = context.settings("train", cell)
    if settings.steps != 0:
        check_trackers(settings.report_to)
        context.trained_rows(cell)


def _saved(context: Context, cell: PlannedCell) -> Trained | None:
    """Give what is saved of a training that has ended, but was never committed."""
    home = context.home("train", cell.keys["train"])
    trained = saved_training(home)
    if trained is None:
        return None
    try:
        check_adapter(home, {})
    except DamagedAdapterError:
        context.put_aside(home, ADAPTER)
        return None
    return trained
