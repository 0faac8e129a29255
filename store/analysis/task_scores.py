"""Which numbers of a summary are those of tasks of lm-evaluation-harness, and how they are called."""

from collections.abc import Iterable

from specs.common.names import TASK_PREFIX

_LOWER = ("perplexity", "bits_per_byte", "brier_score", "_ter")


def task_scores(names: Iterable[object]) -> dict[str, str]:
    """Return the numbers by their names, each with its title; standard errors are none of them."""
    scores = (str(name) for name in names if str(name).startswith(TASK_PREFIX))
    return {name: name.removeprefix(TASK_PREFIX) for name in scores if not name.endswith("_stderr")}


def lower_is_better(name: str) -> bool:
    """Return whether a task's number is better where it is lower."""
    return name.startswith(TASK_PREFIX) and name.endswith(_LOWER)
