"""The train stage: a cell's adapter, trained, or taken from the store where a training has ended."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np
from attrs import evolve

from engine.data.missing_explanations import label_alone
from engine.errors import DamagedAdapterError
from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.devices import memory_room
from engine.models.lens import find_lens
from engine.planning import training_groups
from engine.planning.estimate import training_passes
from engine.planning.passes import Passes
from engine.planning.plan import STATES, Plan, PlannedCell
from engine.progress import Report
from engine.stages.context import Context
from engine.stages.records import checked
from engine.stages.training.files import ADAPTER, Trained, check_adapter, load_adapter, saved_training
from engine.stages.training.history import UNITS, curves_family
from engine.stages.training.kept import Keep, kept_steps, lacking, measured_adapters
from engine.stages.training.loss import Objective
from engine.stages.training.together.side_by_side import Beside
from engine.stages.training.tracker_runs import TrackerRun
from engine.stages.training.trackers import check_trackers
from engine.stages.training.train import train_adapter
from engine.text.targets import Encoded, Example, TargetEncoder
from engine.text.token_checks import (
    check_tokens,
    check_weighted,
    encoded_split,
    encoded_variants,
    token_count,
)


def run(
    context: Context, cell: PlannedCell, base: BaseModel, report: Report, beside: Beside | None = None
) -> None:
    """Train the cell's adapter; the base model is left as it was.

    beside: its place beside other trainings, whose time is not counted as its own.
    """
    settings, key = context.settings("train", cell), cell.keys["train"]
    with context.committing("train", key, base) as record:
        if settings.steps == 0:
            record["summary"] = {}
            return
        text, rows = context.text(cell, base.tokenizer, test=False), context.trained_rows(cell)
        encoded = _encoded(text, rows, base)
        trained = _saved(context, cell) or _trained(context, cell, base, encoded, report, beside=beside)
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
        if beside is not None:
            record["seconds"] = beside.clock()


def _encoded(
    text: TargetEncoder, rows: Mapping[str, Sequence[Example]], base: BaseModel
) -> dict[str, list[Encoded]]:
    """Give the examples of a training as tokens, by split."""
    encode = {"train": encoded_variants, "validation": encoded_split}
    encoded = {split: encode[split](text, part, split) for split, part in rows.items()}
    for split, part in rows.items():
        check_weighted(text, part, encoded[split], split)
    check_tokens(text, rows["train"], token_count(base.model))
    return encoded


def _trained(
    context: Context,
    cell: PlannedCell,
    base: BaseModel,
    encoded: Mapping[str, Sequence[Encoded]],
    report: Report,
    again: Collection[int] = (),
    beside: Beside | None = None,
) -> Trained:
    """Train the cell's adapter; `again`: do it up to these steps only, to keep their adapters."""
    settings, key = context.settings("train", cell), cell.keys["train"]
    claim, asked = context.claim("train", key), asked_steps(context.plan, key)
    keep: Keep = partial(kept_steps, asked, early_stopping=settings.early_stopping > 0)
    return train_adapter(
        base.model,
        base.tokenizer,
        encoded["train"],
        encoded.get("validation", []),
        lora=context.settings("lora", cell),
        settings=evolve(settings, report_to=[]) if again else settings,
        objective=Objective.of(context.settings("target", cell)),
        seed=context.plan.matrix.seed(cell.choice),
        home=context.home("train", key),
        fenced=claim.fenced,
        report=checked(report, claim),
        stop=context.stop,
        ranks=context.ranks,
        passes=partial(_passes, context, cell, base),
        run=TrackerRun.of(context.plan, cell),
        keep=(lambda _planned: again) if again else keep,
        until=max(again, default=None),
        beside=beside,
    )


def asked_steps(plan: Plan, key: str, states: Collection[str] = STATES) -> set[float]:
    """Give what `probe.at` names in the cells of a training whose stage `along` is in one of these states."""
    sharing = [cell for cell in plan.cells if cell.keys["train"] == key and "along" in cell.keys]
    tables = [
        plan.matrix.table("probe", cell.choice)
        for cell in sharing
        if plan.states["along"][cell.keys["along"]] in states
    ]
    return {step for probe in tables for step in probe.at}


def lacking_steps(context: Context, cell: PlannedCell) -> set[int]:
    """Give the steps whose adapters a pending stage `along` needs, and that were not kept."""
    key, settings = cell.keys["train"], context.settings("train", cell)
    asked = asked_steps(context.plan, key, ("pending", "running"))
    trained = saved_training(context.home("train", key)) if asked else None
    if trained is None:
        return set()
    measured = measured_adapters(sorted(asked), trained, early_stopping=settings.early_stopping > 0)
    steps = {adapter.step for adapter in measured if adapter.kept}
    recorded = context.ledger.record("train", key).get("files", {})
    return context.ranks.lead(lambda: lacking(context.home("train", key), steps, recorded))


def keep_again(
    context: Context, cell: PlannedCell, base: BaseModel, steps: Collection[int], report: Report
) -> None:
    """Do a training again that has ended, up to the last of some steps, to keep the adapters after these."""
    key = cell.keys["train"]
    context.claim("train", key)
    try:
        text, rows = context.text(cell, base.tokenizer, test=False), context.trained_rows(cell)
        again = _trained(context, cell, base, _encoded(text, rows, base), report, steps).curves["loss"]
        before = saved_training(context.home("train", key))
        if before is not None and not np.array_equal(again, before.curves["loss"][: len(again)]):
            warnings.warn(
                f"train {key}: it was done again up to step {max(steps)} for probe.at, and its losses differ "
                "from those of the first time, by the arithmetic of another machine or release, or of "
                "trainings side by side: the adapters along it are near those that it went through, not the "
                "same",
                stacklevel=2,
            )
    finally:
        context.ledger.release("train", key)


def _passes(context: Context, cell: PlannedCell, base: BaseModel, examples: Sequence[Encoded]) -> Passes:
    """Choose how batches of these examples go through the model, by the memory of its device."""
    longest = max(map(len, examples)), max(len(example.completion) for example in examples)
    room = context.ranks.lead(lambda: memory_room(find_lens(base.model).device, context.sharing))
    return training_passes(context.plan, cell, longest, room, context.ranks.size)


def fitting(context: Context, cells: Sequence[PlannedCell], base: BaseModel) -> int:
    """Give how many of these cells' trainings, from the first on, memory has room for at once."""
    return training_groups.fitting(
        context.plan, cells, memory_room(find_lens(base.model).device, context.sharing)
    )


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
