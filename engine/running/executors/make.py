"""The executors by name, and the one that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from typing import TYPE_CHECKING

from attrs import frozen

from engine.errors import UsageError
from specs.registry import EXECUTORS
from specs.tables.executor import Executor as Settings

if TYPE_CHECKING:
    from engine.progress import StopRequest
    from engine.running.executors.base import Job, Resources, UnitExecutor


@frozen
class ExecutorKind:
    """One name of `executor.kind`. No part of any key: executors have no say in results."""

    # Of the job, the settings, the stop request and what a unit needs at most; UsageError where it cannot be.
    make: Callable[[Job, Settings, StopRequest, Resources], UnitExecutor]
    package: str = ""  # that it needs, of the extra of its name


def make_executor(job: Job, settings: Settings, stop: StopRequest, most: Resources) -> UnitExecutor:
    """Give an executor of other processes; UsageError where its package is missing, or no room for `most`.

    most: what a unit needs at most.
    """
    kind = EXECUTORS.get(settings.kind, ExecutorKind)
    if kind.package and util.find_spec(kind.package) is None:
        raise UsageError(
            f'executor.kind: found "{settings.kind}", which needs the package {kind.package}; '
            f"expected: pip install 'ablation-engine[{settings.kind}]'"
        )
    return kind.make(job, settings, stop, most)


def _local(job: Job, settings: Settings, stop: StopRequest, most: Resources) -> UnitExecutor:
    from engine.running.executors.local import LocalExecutor, slots

    places = slots(settings.workers or 1, settings.workers_per_gpu, settings.ranks)
    return LocalExecutor(job, stop, settings.grace, places)


def _ray(job: Job, settings: Settings, stop: StopRequest, most: Resources) -> UnitExecutor:
    from engine.running.executors.ray_cluster import RayExecutor

    return RayExecutor.of(job, settings, stop, most)


def _slurm(job: Job, settings: Settings, stop: StopRequest, most: Resources) -> UnitExecutor:
    from engine.running.executors.slurm import SlurmExecutor

    return SlurmExecutor.of(job, settings, stop)


EXECUTORS.add("local", ExecutorKind(_local))
EXECUTORS.add("ray", ExecutorKind(_ray, "ray"))
EXECUTORS.add("slurm", ExecutorKind(_slurm, "submitit"))
