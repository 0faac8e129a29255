"""What stands below a plan's table of costs: hours on a named device, and where sizes come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from engine.models.loading import local_path
from engine.planning.common_tasks import ASSUMED
from engine.planning.cost import Cost
from engine.planning.devices import BANDWIDTH_UTILISATION, DEVICES, UTILISATION
from engine.planning.estimate import stage_costs
from engine.planning.executor_settings import executor_settings
from engine.planning.known_models import known_model
from engine.planning.own_machine import UTILISATION as OWN_UTILISATION
from engine.planning.own_machine import rates_file
from engine.planning.passes import Passes
from engine.planning.plan import Plan
from engine.planning.sizes import model_card
from engine.planning.task_costs import uncounted_tasks
from engine.planning.task_documents import WRITTEN
from engine.planning.training_groups import groups_memory, most_together, training_groups
from engine.quantities import count, si
from specs.tables.experiment import Model


def hours(seconds: float) -> str:
    """Give a time in hours, or in minutes or seconds below one."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.2g} s"


def cost_lines(plan: Plan, costs: Mapping[str, Cost] | None) -> Iterator[str]:
    """Yield what the estimates rest on, and the hours that they come to."""
    if costs is None:
        yield _no_estimate(plan)
    elif from_table := sizes_from_table(plan):
        yield f"sizes from a table, for files that are not on this machine yet: {', '.join(from_table)}"
    if costs is not None:
        yield from _task_lines(plan)
        yield from _recurrent(plan, costs)
    yield from _side_by_side(plan)
    times = _times(plan, costs)
    if times is None:
        return
    if times["measured"]:
        yield (
            f"this machine: {hours(3600 * times['hours'])}, by the rates that `engine doctor --measure` has "
            f"kept in {rates_file()}; assumed: {OWN_UTILISATION:.0%} of them, without loading and encoding"
        )
        return
    yield from (_passes_line(times["device"], count, passes) for count, passes in _passes(plan))
    gpus = times["gpus"]
    spread = f", {hours(3600 * times['hours'])} on {gpus} of them" if gpus > 1 else ""
    time = hours(3600 * times["gpu_hours"])
    yield (
        f"{times['device']}: {time} of GPU time{spread}; assumed: {UTILISATION:.0%} of its peak in products, "
        f"{BANDWIDTH_UTILISATION:.0%} of its memory's bandwidth while it generates; without loading and "
        "encoding"
    )


def _side_by_side(plan: Plan) -> Iterator[str]:
    """Say how many trainings will go side by side, where any will, and what the largest group takes."""
    pending = [cell for cell in plan.cells if plan.states["train"][cell.keys["train"]] != "cached"]
    settings = executor_settings(plan.matrix.spec, {})
    most = most_together(settings, len({cell.keys["train"] for cell in pending}))
    sizes = [len(group) for group in training_groups(plan, pending, most)]
    if max(sizes, default=1) > 1:
        memory = groups_memory(plan, pending, most)
        need = f"; estimate {si(memory, 'B')} of memory" if memory else ""
        many = count(sum(size for size in sizes if size > 1), "training")
        asked = f"executor.together = {settings.together}"
        yield f"side by side ({asked}): {many}, at most {max(sizes)} at a time{need}"


def costs_json(plan: Plan, costs: Mapping[str, Cost] | None) -> dict[str, Any]:
    """Give the same as JSON values."""
    estimates = {
        stage: {
            "tokens": cost.tokens,
            "flops": cost.flops,
            "peak_memory_bytes": cost.memory,
            "store_bytes": cost.stored,
            "gpu_seconds": cost.seconds,
        }
        for stage, cost in (costs or {}).items()
    }
    return {
        "estimate": None if costs is None else estimates,
        "passes": [{"trainings": count, **passes.as_json()} for count, passes in _passes(plan)],
        "sizes_from_table": sizes_from_table(plan) if costs else [],
        "task_sizes": task_sizes(plan),
        "time": _times(plan, costs),
    }


def _task_lines(plan: Plan) -> Iterator[str]:
    """Say which tasks' sizes come from a table, and which are assumed."""
    sizes = task_sizes(plan)
    if names := sizes["from_table"]:
        yield f"documents of tasks counted by a table, until they have run once: {', '.join(names)}"
    if names := sizes["assumed"]:
        yield (
            f"assumed, until they have run once: {ASSUMED.documents:,} documents, of {ASSUMED.passes} × "
            f"{ASSUMED.context + ASSUMED.answer:.0f} tokens each, of {', '.join(names)}"
        )
    if names := sizes["assumed_answers"]:
        without = "assumed, without evaluate.inspect.max_tokens"
        yield f"{without}: answers of {WRITTEN} tokens of {', '.join(names)}"


def task_sizes(plan: Plan) -> dict[str, list[str]]:
    """Name the tasks whose sizes come from a table, or are assumed, and those whose answers' length is."""
    tasks = dict(uncounted_tasks(plan))
    return {
        "from_table": [name for name, documents in tasks.items() if documents.told_by == "table"],
        "assumed": [name for name, documents in tasks.items() if documents.told_by == "nothing"],
        "assumed_answers": [name for name, documents in tasks.items() if documents.answer_assumed],
    }


def _passes(plan: Plan) -> list[tuple[int, Passes]]:
    """Give how batches will go through the models on the named device: numbers of trainings, and the dearest.

    Trainings whose batches are parted alike stand together.
    """
    by_kind: dict[tuple[int, int, bool], tuple[int, Passes]] = {}
    for _, cells, cost in stage_costs(plan):
        if cost is not None and (passes := cost.passes) is not None:
            kind = passes.rows, passes.batch, passes.checkpointing
            count, dearest = by_kind.get(kind, (0, passes))
            by_kind[kind] = count + len(cells), max(dearest, passes, key=lambda passes: passes.need or 0)
    return list(by_kind.values())


def _passes_line(device: str, count: int, passes: Passes) -> str:
    """Say how the batches of some trainings go through the model, and why."""
    need, whole, room = (si(size or 0, "B") for size in (passes.need, passes.whole, passes.room))
    many = f"{count} trainings take" if count > 1 else "one training takes"
    why = "" if passes.need == passes.whole else f"; the whole batch at once would need {whole}"
    return f"{device}: {many} {passes}: estimate {need} of {room}{why}"


def _models(plan: Plan) -> list[Model]:
    return [plan.matrix.table("model", choice) for choice in plan.matrix.distinct("model")]


def _no_estimate(plan: Plan) -> str:
    here = [model.id for model in _models(plan) if local_path(model.id) and model_card(model) is None]
    if here:
        return f"No estimate: {here[0]} has no weights whose headers tell the model's sizes."
    return (
        "No estimate: the model's files are not on this machine yet; its sizes are known after "
        "the first download."
    )


def _recurrent(plan: Plan, costs: Mapping[str, Cost]) -> Iterator[str]:
    """Name the models with layers whose states the rule of a training's memory leaves out."""
    cards = {model.id: model_card(model) for model in _models(plan)} if "train" in costs else {}
    for name, card in cards.items():
        if card is not None and card.facts.recurrent:
            yield (
                f"{name}: memory of trainings is estimated without the states of its recurrent layers; "
                "without fused kernels it can be several times as much (`engine plan --exact` counts it)"
            )


def sizes_from_table(plan: Plan) -> list[str]:
    """Name the models whose sizes a table gives, for their files are not on this machine."""
    names = [model.id for model in _models(plan) if model_card(model) is None and known_model(model)]
    return list(dict.fromkeys(names))


def _times(plan: Plan, costs: Mapping[str, Cost] | None) -> dict[str, Any] | None:
    """Give the GPU-hours of what is left, and the hours on the GPUs that work at a time."""
    settings = executor_settings(plan.matrix.spec, {})
    seconds = sum(cost.seconds for cost in (costs or {}).values())
    if not seconds:
        return None
    gpus = math.ceil((settings.workers or 1) / settings.workers_per_gpu) * settings.ranks
    memory = None if settings.device is None else DEVICES[settings.device].memory * 1e9
    return {
        "device": settings.device or "this machine",
        "measured": settings.device is None,
        "memory_bytes": memory,
        "gpus": gpus,
        "gpu_hours": seconds / 3600,
        "hours": seconds / 3600 / gpus,
        "utilisation": UTILISATION if settings.device else OWN_UTILISATION,
    }
