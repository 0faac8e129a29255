"""The logs of Inspect as numbers by name, and by sample where they are means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from engine.planning.inspect_files import KEY
from engine.stages.task_scores import TaskScores, add_number, is_mean
from specs.common.names import INSPECT_PREFIX
from specs.common.task_names import number_name

STDERR = "stderr"
MEANS = ("accuracy", "mean")  # metrics of which Inspect's `stderr` beside them is the standard error


def inspect_scores(logs: Sequence[Any]) -> TaskScores:
    """Give the numbers of tasks as `inspect_TASK_METRIC`.

    Where a task has several scorers, or several ways to take the epochs of a sample together, these stand
    behind the metric. The standard error of a mean is called after it, as `…_stderr`. Raises DataError where
    two numbers have one name.
    """
    numbers: dict[str, float] = {}
    samples: dict[str, dict[str, float]] = {}
    for log in logs:
        task = log.eval.task.rpartition("/")[2]
        several = [
            len({getattr(score, part) for score in log.results.scores}) > 1 for part in ("name", "reducer")
        ]
        for score in log.results.scores:
            words = [
                word for word, told in zip((score.name, score.reducer), several, strict=True) if told and word
            ]
            values = dict(_by_sample(log, task, score))
            for metric, value in _numbers(score):
                name = number_name(INSPECT_PREFIX, task, *_called(metric, score.metrics, words))
                add_number(numbers, name, value, KEY)
                if metric != STDERR and is_mean(values, value):
                    samples[name] = values
    return TaskScores(numbers, samples)


def _numbers(score: Any) -> Iterator[tuple[str, float]]:
    """Yield a scorer's metrics that are finite numbers."""
    for metric, found in score.metrics.items():
        if isinstance(found.value, Real) and math.isfinite(found.value):
            yield metric, float(found.value)


def _called(metric: str, beside: Mapping[str, Any], words: list[str]) -> list[str]:
    """Give what a number is called after its task."""
    of_mean = next((name for name in MEANS if name in beside), None) if metric == STDERR else None
    return [of_mean, *words, STDERR] if of_mean else [metric, *words]


def _by_sample(log: Any, task: str, score: Any) -> Iterator[tuple[str, float]]:
    """Yield a scorer's values by sample, the epochs of each taken together."""
    for reduced in log.reductions or ():
        if reduced.scorer not in (score.scorer, score.name) or reduced.reducer != score.reducer:
            continue
        for sample in reduced.samples:
            value = sample.value
            if isinstance(value, Mapping):  # a score of several parts, of which this one is called so
                value = value.get(score.name)
            if isinstance(value, Real):
                yield f"{task}/{sample.sample_id}", float(value)
