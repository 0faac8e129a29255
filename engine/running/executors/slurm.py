"""SLURM through submitit: one array of jobs for all units that were submitted together."""

from __future__ import annotations

import math
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import submitit
from attrs import define, field, frozen
from submitit.core.utils import UncompletedJobError

from engine.errors import Interrupted, UsageError
from engine.progress import StopRequest
from engine.running.executors.base import Finished, Job, Resources, Work
from engine.running.executors.imports import same_packages
from engine.running.executors.remote import worker_of
from engine.running.executors.tree import end, tree
from engine.running.outcome import Outcome
from specs.tables.executor import Executor as Settings

_Pair: TypeAlias = "tuple[submitit.Job[Outcome], Work]"

_WARNING = signal.SIGUSR2  # of the time limit, as submitit asks for it
_WITHIN = 5.0  # seconds that submitit's local jobs have to end; it ends them itself after one
_KILLED_WITHIN = 3600.0  # seconds after SIGTERM; sites give less


@frozen
class _Task:
    """A unit as submitit runs it. On pre-emption or time-out the job is queued again and goes on."""

    job: bytes
    work: Work

    def __call__(self) -> Outcome:
        """Run the unit; after a warning, save at the next step and let the job be queued again."""
        stop, warnings, queue_again = StopRequest(), [], signal.getsignal(_WARNING)

        def warned(number: int, _frame: Any) -> None:
            warnings.append(number)
            stop.requested = True

        for number in (_WARNING, signal.SIGTERM):
            signal.signal(number, warned)
        try:
            return worker_of(pickle.loads(self.job), stop).run(self.work)
        except Interrupted:
            if _WARNING in warnings and callable(queue_again):
                queue_again(_WARNING, None)
            # Pre-empted or cancelled. Only a job that SLURM has to kill is queued again by it.
            time.sleep(_KILLED_WITHIN)
            sys.exit(128 + signal.SIGTERM)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Give what to run when the job comes back; the store knows how far it came."""
        return submitit.helpers.DelayedSubmission(self)


@define
class SlurmExecutor:
    """Runs units as jobs of a SLURM cluster, or of submitit's local stand-in."""

    job: bytes
    settings: Settings
    stop: StopRequest
    _executor: submitit.AutoExecutor
    _queue: list[tuple[Work, Resources]] = field(factory=list)
    _running: list[_Pair] = field(factory=list)

    @classmethod
    def of(cls, job: Job, settings: Settings, stop: StopRequest) -> SlurmExecutor:
        """Make ready to submit; jobs log to the folder `slurm` of the store."""
        if settings.cluster == "slurm":
            _check_cluster()
        limits = {
            f"{settings.cluster}_max_num_timeout": 10**6
        }  # a unit that comes further each time may go on
        executor = submitit.AutoExecutor(job.root.scratch() / "slurm", cluster=settings.cluster, **limits)
        return cls(pickle.dumps(job), settings, stop, executor)

    def submit(self, work: Work, resources: Resources) -> None:
        """Take a unit."""
        self._queue.append((work, resources))

    def as_completed(self) -> Iterator[Finished | None]:
        """Submit the units as one array, and look after its jobs."""
        tick = 0.2 if self.settings.cluster == "local" else 10.0
        while self._queue or self._running:
            if self.stop.requested:
                self.cancel()
                raise Interrupted
            if self._queue:
                self._begin()
            ended, running = list[_Pair](), list[_Pair]()
            for job, work in self._running:
                (ended if job.done() else running).append((job, work))
            self._running = running
            for job, work in ended:
                yield self._end(job, work)
            if not ended:
                yield None
                time.sleep(tick)

    def cancel(self) -> None:
        """Cancel the jobs."""
        self._queue.clear()
        controllers = [pid for job, _ in self._running if (pid := _pid(job))]
        members = [member for pid in controllers for member in tree(pid)]
        for job, _ in self._running:
            job.cancel()
        end(members, 0.0 if self.stop.insisted else _WITHIN)
        self._running.clear()

    def _begin(self) -> None:
        self._executor.update_parameters(**self._parameters())
        with same_packages(), self._executor.batch():
            jobs = [self._executor.submit(_Task(self.job, work)) for work, _ in self._queue]
        self._running += zip(jobs, (work for work, _ in self._queue), strict=True)
        self._queue.clear()

    def _parameters(self) -> dict[str, Any]:
        settings = self.settings
        memory = settings.memory or max((r.memory or 0 for _, r in self._queue), default=0) / 2**30
        parameters: dict[str, Any] = {"name": "ablation", "timeout_min": settings.minutes}
        parameters["gpus_per_node"] = settings.gpus and max(settings.gpus, settings.ranks)
        if memory:
            parameters["mem_gb"] = math.ceil(memory)
        if settings.cluster == "slurm":
            parameters["slurm_partition"] = settings.partition
            parameters["slurm_array_parallelism"] = settings.workers or 256
            parameters["slurm_additional_parameters"] = dict(settings.sbatch)
        return parameters

    @staticmethod
    def _end(job: submitit.Job[Outcome], work: Work) -> Finished:
        try:
            return Finished(work, job.result())
        except UncompletedJobError:
            how = f"job {job.job_id} ended without a result, state {job.state}; its log is {job.paths.stderr}"
            return Finished(work, None, how, memory=job.state.startswith("OUT_OF_ME"))
        except Exception as error:  # the job's own
            return Finished(work, None, f"job {job.job_id}: {error}")


def _pid(job: submitit.Job[Outcome]) -> int | None:
    """Give the process of a job of submitit's local stand-in."""
    process = getattr(job, "_process", None)
    return None if process is None else int(process.pid)


def _check_cluster() -> None:
    """Raise UsageError where no job can be submitted, or nobody would learn how one that was killed ended."""
    expected = 'expected: a machine of a SLURM cluster, or executor.cluster = "local" to try a set-up'
    if shutil.which("sbatch") is None:
        raise UsageError(f'executor.kind: found "slurm", but there is no sbatch here; {expected}')
    asked = subprocess.run(["sacct", "--jobs=0"], capture_output=True, text=True)
    if asked.returncode != 0:
        line = asked.stderr.strip().partition("\n")[0]
        raise UsageError(
            f'executor.kind: found "slurm", but sacct fails here: {line}; expected: a cluster with accounting'
        )
