"""An executor: this process, one unit of work after another."""

from typing import Any

from engine.plugins import ExecutorKind


def one_by_one(job: Any, settings: Any, stop: Any, most: Any) -> Any:
    """Give an executor; what it needs is imported here, for a plan does not need it."""
    from engine.running.executors.in_process import InProcess
    from engine.running.executors.worker import Worker

    return InProcess(Worker.of(job, stop).execution)


ONE_BY_ONE = ExecutorKind(one_by_one)
