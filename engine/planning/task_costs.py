"""What tasks of benchmarks cost: as they have been counted where they ran, else by their documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.planning.cost import Cost
from engine.planning.plan import Plan, PlannedCell
from engine.planning.sizes import ModelCard
from engine.planning.task_documents import Documents, harness_documents, inspect_documents
from specs.tables.evaluate import Evaluate
from store import Ledger

TASKS = {"base_tasks": "tasks", "tasks": "tasks", "base_inspect": "inspect", "inspect": "inspect"}
"""Stages that ask tasks → the one of the two harnesses."""


def task_cost(plan: Plan, cell: PlannedCell, stage: str, model: ModelCard, weights: float) -> Cost:
    """Estimate one run of a stage that asks tasks."""
    evaluate = plan.matrix.table("evaluate", cell.choice)
    if work := _counted(plan, cell, stage):
        return _cost(work["tokens"], work["steps"], work["tokens"] / max(1, work["passes"]), model, weights)
    documents = _documents(evaluate, stage).values()
    batch = task_batch(evaluate, stage)
    read = sum(part.count * part.tokens for part in documents)
    written = sum(part.count * part.written for part in documents)
    longest = max(part.tokens / part.passes + part.written for part in documents)
    return _cost(read + written, written / batch, longest * batch, model, weights)


def task_batch(evaluate: Evaluate, stage: str) -> int:
    """Give how many documents a stage asks at once, where no estimate of memory says more."""
    if TASKS[stage] == "inspect" and evaluate.generation_batch != "auto":
        return evaluate.generation_batch
    return evaluate.batch_size


def uncounted_tasks(plan: Plan) -> Iterator[tuple[str, Documents]]:
    """Yield the tasks of runs to do that no finished run tells the cost of, with what is taken of each."""
    choose, seen = plan.matrix.chooser("evaluate"), set()
    for stage in TASKS:
        for cell in plan.cells:
            key, choice = cell.keys.get(stage), (TASKS[stage], choose(cell.choice))
            if choice in seen or key is None or plan.states[stage][key] == "cached":
                continue
            seen.add(choice)
            if not _counted(plan, cell, stage):
                yield from _documents(plan.matrix.table("evaluate", cell.choice), stage).items()


def _documents(evaluate: Evaluate, stage: str) -> dict[str, Documents]:
    return (harness_documents if TASKS[stage] == "tasks" else inspect_documents)(evaluate)


def _cost(tokens: float, steps: float, at_once: float, model: ModelCard, weights: float) -> Cost:
    """Give the cost of so many tokens; steps: passes that read all weights for one token of each row."""
    return Cost(
        tokens=tokens,
        flops=2 * (model.parameters + model.unembedding) * tokens,
        memory=weights + at_once * (model.hidden * 4 * 8 + 2 * 4 * model.vocabulary),
        streamed=weights * steps,
    )


def _counted(plan: Plan, cell: PlannedCell, stage: str) -> Mapping[str, Any] | None:
    """Give what a run of the same tasks was counted to take, of the same model if there is one."""
    table, choice = plan.matrix.table, plan.matrix.chooser("model")
    asked = _asked(table("evaluate", cell.choice), stage)
    done: dict[bool, tuple[str, str]] = {}
    for other in plan.cells:
        for name in (name for name, harness in TASKS.items() if harness == TASKS[stage]):
            key = other.keys.get(name)
            if (
                key
                and plan.states[name][key] == "cached"
                and _asked(table("evaluate", other.choice), stage) == asked
            ):
                done.setdefault(choice(other.choice) == choice(cell.choice), (name, key))
        if True in done:
            break
    if not done:
        return None
    name, key = done.get(True) or done[False]
    work = Ledger(plan.root).record(name, key).get("work")
    return work if isinstance(work, dict) else None


def _asked(evaluate: Evaluate, stage: str) -> Any:
    """Give what of an evaluation's settings says which tasks are asked, and how much of them."""
    if TASKS[stage] == "inspect":
        return evaluate.inspect
    return sorted(evaluate.tasks), evaluate.task_examples, evaluate.task_shots, evaluate.task_folder
