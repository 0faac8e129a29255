"""Whether a plan fits a device's memory, and which settings take less."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.planning.executor_settings import executor_settings
from engine.planning.plan import Plan, PlannedCell
from engine.planning.task_costs import TASKS
from engine.quantities import si

# The key that a stage's memory grows with.
_SIZES = {
    "base": "evaluate.batch_size",
    "train": "train.max_length",
    "evaluate": "evaluate.batch_size",
    "neutral": "evaluate.batch_size",
    **dict.fromkeys(TASKS, "evaluate.batch_size"),
    "lens": "probe.tuned.tokens",
    "jacobian": "probe.batch_size",
    "probe": "probe.batch_size",
    "along": "probe.batch_size",
    "differences": "probe.batch_size",
    "intervene": "probe.batch_size",
}


def fit_warnings(plan: Plan) -> Iterator[str]:
    """Yield a sentence per stage that needs more memory than `executor.device` has."""
    from engine.planning.estimate import device_room, stage_costs

    settings = executor_settings(plan.matrix.spec, {})
    if settings.device is None:
        return
    room = device_room(settings) or 0.0
    largest: dict[str, tuple[float, PlannedCell]] = {}
    batches: dict[str, str] = {}
    runs: dict[str, int] = {}
    for stage, cells, cost in stage_costs(plan):
        if cost is not None and cost.memory > room:
            runs[stage] = runs.get(stage, 0) + len(cells)
            known = largest.get(stage)
            if known is None or cost.memory > known[0]:
                largest[stage] = cost.memory, cells[0]
                if cost.training is not None:
                    batch = cost.training.batch
                    batches[stage] = f" for a batch of {batch.rows} × {batch.length:,.0f} tokens"
    many = f" for each of {settings.workers_per_gpu} workers" * (settings.workers_per_gpu > 1)
    for stage, (need, cell) in largest.items():
        yield (
            f"executor.device: {stage} needs about {si(need, 'B')}{batches.get(stage, '')} in {runs[stage]} "
            f"of its runs, but {settings.device} has {si(room, 'B')}{many}; try {advice(plan, cell, stage)}"
        )


def advice(plan: Plan, cell: PlannedCell, stage: str) -> str:
    """Name the settings by which a stage would take less memory."""
    tried = []
    if stage == "train":
        train = plan.matrix.table("train", cell.choice)
        if train.micro_batch != "auto" and min(train.micro_batch, train.batch_size) > 1:
            tried.append('train.micro_batch = "auto"')
        if train.gradient_checkpointing is False:
            tried.append('train.gradient_checkpointing = "auto"')
    if key := _SIZES.get(stage):
        name, *rest = key.split(".")
        value: Any = plan.matrix.table(name, cell.choice)
        for part in rest:
            value = getattr(value, part)
        if value > 1:
            tried.append(f"{key} below {value}")
    model = plan.matrix.table("model", cell.choice)
    if model.dtype == "float32":
        tried.append('model.dtype = "bfloat16"')
    if model.quantization == "none":
        tried.append("model.quantization")
    return ", ".join([*tried, "fewer workers, or more memory"])
