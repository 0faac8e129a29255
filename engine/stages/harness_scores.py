"""The results of lm-evaluation-harness as numbers by name, and by document where they are means."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from typing import Any

from engine.stages.task_scores import TaskScores, add_number, is_mean
from specs.common.names import TASK_PREFIX
from specs.common.task_names import number_name

KEY = "evaluate.tasks"
Results = Mapping[str, Any]
"""What the harness gives: `results` by task and metric, `group_subtasks` by group, `samples` by task."""


def harness_scores(results: Results, asked: Collection[str]) -> TaskScores:
    """Give the numbers of tasks as `task_NAME_METRIC`, each with its standard error as `…_stderr`.

    Of a group that has numbers of its own, those of its tasks are left out unless they were asked for. A
    metric that is taken of filtered answers has the filter's name behind its own. Raises DataError where two
    numbers have one name.
    """
    tables = {
        task: {metric: float(value) for metric, value in table.items() if _is_number(metric, value)}
        for task, table in results["results"].items()
    }
    groups = results.get("group_subtasks", {})
    inner = {task for group, tasks in groups.items() if tables.get(group) for task in tasks} - set(asked)
    numbers: dict[str, float] = {}
    documents: dict[str, dict[str, float]] = {}
    for task, table in tables.items():
        for metric, value in table.items() if task not in inner else ():
            name = _name(task, *metric.split(",", 1))
            add_number(numbers, name, value, KEY)
            values = dict(_by_document(results, task, *metric.split(",", 1)))
            if is_mean(values, value):
                documents[name] = values
    return TaskScores(numbers, documents)


def _is_number(metric: str, value: Any) -> bool:
    """Tell numbers of `metric,filter` from names and counts beside them."""
    return "," in metric and isinstance(value, Real) and math.isfinite(value)


def _name(task: str, metric: str, filtered: str) -> str:
    plain = metric.removesuffix("_stderr")
    filter_words = [filtered] * (filtered != "none")
    return number_name(TASK_PREFIX, task, plain, *filter_words, *["stderr"] * (plain != metric))


def _by_document(results: Results, task: str, metric: str, filtered: str) -> Iterator[tuple[str, float]]:
    """Yield the values of a task's documents, of a group's those of all its tasks."""
    for inner in results.get("group_subtasks", {}).get(task, ()):
        yield from _by_document(results, inner, metric, filtered)
    for sample in results.get("samples", {}).get(task, ()):
        value = sample.get(metric)
        if sample["filter"] == filtered and isinstance(value, Real):
            yield f"{task}/{sample['doc_id']}", float(value)
