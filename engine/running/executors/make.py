"""The executor that the settings ask for."""

from __future__ import annotations

from importlib import util

from engine.errors import UsageError
from engine.progress import StopRequest
from engine.running.executors.base import Job, Resources, UnitExecutor
from specs.tables.executor import Executor as Settings

_PACKAGES = {"ray": "ray", "slurm": "submitit"}


def make_executor(job: Job, settings: Settings, stop: StopRequest, most: Resources) -> UnitExecutor:
    """Give an executor of other processes; UsageError where its package is missing, or no room for `most`.

    most: what a unit needs at most.
    """
    package = _PACKAGES.get(settings.kind)
    if package is not None and util.find_spec(package) is None:
        raise UsageError(
            f'executor.kind: found "{settings.kind}", which needs the package {package}; '
            f"expected: pip install 'ablation-engine[{settings.kind}]'"
        )
    if settings.kind == "ray":
        from engine.running.executors.ray_cluster import RayExecutor

        return RayExecutor.of(job, settings, stop, most)
    if settings.kind == "slurm":
        from engine.running.executors.slurm import SlurmExecutor

        return SlurmExecutor.of(job, settings, stop)
    from engine.running.executors.local import LocalExecutor, slots

    places = slots(settings.workers or 1, settings.workers_per_gpu, settings.ranks)
    return LocalExecutor(job, stop, settings.grace, places)
