"""Which outcomes the results of a plan's cells will hold."""

from __future__ import annotations

from engine.planning.inspect_tasks import Reference
from engine.planning.plan import Plan, PlannedCell
from specs.common.names import (
    EXAMPLE_OUTCOMES,
    INSPECT_PREFIX,
    NEUTRAL_OUTCOMES,
    TASK_PREFIX,
    TASK_STAGES,
)
from specs.common.task_names import number_name
from specs.tables.analysis import Outcome


def holds(plan: Plan, cell: PlannedCell, outcome: Outcome) -> bool:
    """Tell whether a cell's results hold an outcome; of tasks as far as their names tell."""
    evaluate, probe = plan.matrix.table("evaluate", cell.choice), plan.matrix.table("probe", cell.choice)
    if outcome.startswith(TASK_PREFIX):
        return _is_of(outcome, TASK_PREFIX, evaluate.tasks)
    if outcome.startswith(INSPECT_PREFIX):
        names = [name for task in evaluate.inspect.tasks for name in Reference.of(task).names]
        return _is_of(outcome, INSPECT_PREFIX, names)
    if outcome in NEUTRAL_OUTCOMES:
        return evaluate.neutral_text is not None
    if outcome not in EXAMPLE_OUTCOMES:
        return probe.enabled and probe.measures(outcome)
    if outcome == "generated_correct":
        return evaluate.generates(plan.matrix.table("target", cell.choice))
    numbers = all(label.strip().lstrip("+-").replace(".", "", 1).isdigit() for label in evaluate.labels)
    return "loglikelihood" in evaluate.scoring and (outcome != "absolute_error" or numbers)


def is_counted(outcome: Outcome) -> bool:
    """Tell whether a plan knows how many examples an outcome is measured on.

    Chunks of neutral text hang on the tokenizer, documents of tasks on data that only the tasks know.
    """
    return outcome not in NEUTRAL_OUTCOMES and not outcome.startswith((*TASK_STAGES,))


def _is_of(outcome: str, prefix: str, tasks: list[str]) -> bool:
    """Tell whether a number of a task is called after one of these."""
    return outcome.startswith(tuple(number_name(prefix, task, "") for task in tasks))
