"""A Ray cluster: a task per unit. Results are a few numbers; nothing else goes through Ray's object store."""

from __future__ import annotations

import pickle
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import chdir
from typing import Any

import ray
from attrs import define, field

from engine.errors import Interrupted, UsageError
from engine.executors.base import Finished, Job, Resources, Work
from engine.executors.imports import ROOT, same_packages
from engine.executors.worker import run_remotely
from engine.progress import StopRequest
from specs.executor import Executor as Settings

_TICK = 0.5  # seconds between looks at a stop request
_WITHIN = 2.0  # seconds that tasks have to end when the person insists


@define
class RayExecutor:
    """Runs units as tasks of a cluster, at most `workers` at a time."""

    job: bytes
    settings: Settings
    stop: StopRequest
    _queue: deque[tuple[Work, Resources]] = field(factory=deque)
    _running: dict[Any, Work] = field(factory=dict)  # reference → unit

    @classmethod
    def of(cls, job: Job, settings: Settings, stop: StopRequest) -> RayExecutor:
        """Join the cluster, or start one on this machine."""
        terminated = signal.getsignal(signal.SIGTERM)
        # Ray puts the folder that it is joined from first on its workers' path: one of the packages' own.
        # The variables are for a cluster of one's own; another has its environment already.
        with same_packages(), chdir(ROOT):
            ray.init(address=settings.address, ignore_reinit_error=True, log_to_driver=False)
        signal.signal(signal.SIGTERM, terminated)  # Ray's own would end this process without a word
        return cls(pickle.dumps(job), settings, stop)

    def submit(self, work: Work, resources: Resources) -> None:
        """Take a unit."""
        self._queue.append((work, resources))

    def as_completed(self) -> Iterator[Finished | None]:
        """Run the units wherever the cluster has room."""
        while self._queue or self._running:
            if self.stop.requested:
                self.cancel()
                raise Interrupted
            while self._queue and len(self._running) < (self.settings.workers or len(self._queue) + 1):
                self._begin(*self._queue.popleft())
            ready, _ = ray.wait(list(self._running), timeout=_TICK)
            for reference in ready:
                yield self._take(reference)
            yield None

    def cancel(self) -> None:
        """Interrupt what runs; its claims are released, and its last checkpoints stay."""
        self._queue.clear()
        try:
            if not self.stop.insisted:
                self._end(self.settings.grace)
        finally:
            if self.stop.insisted:
                self._end(_WITHIN, force=True)
            self._running.clear()
            if self.settings.address is None:
                ray.shutdown()

    def _begin(self, work: Work, resources: Resources) -> None:
        share = self.settings.ranks / self.settings.workers_per_gpu
        gpus = share if ray.cluster_resources().get("GPU") else 0
        memory = self.settings.memory * 2**30 if self.settings.memory else resources.memory or 0
        self._check_room(memory)
        options = {"num_gpus": gpus, "memory": int(memory) or None}
        self._running[_run.options(**options).remote(self.job, work)] = work

    def _end(self, within: float, *, force: bool = False) -> None:
        """Interrupt all tasks, or (`force`) end their processes, and wait for that."""
        for reference in self._running:
            ray.cancel(reference, force=force)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=within)

    def _take(self, reference: Any) -> Finished:
        work = self._running.pop(reference)
        try:
            return Finished(work, ray.get(reference))
        except ray.exceptions.RayError as error:
            return Finished(work, None, str(error))

    @staticmethod
    def _check_room(memory: float) -> None:
        """Raise UsageError where no node could ever take the unit, which would wait for ever."""
        largest = max(
            (node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]), default=0
        )
        if memory > largest:
            raise UsageError(
                f"executor.memory: a unit of work needs {memory / 2**30:.1f} GiB, but the largest node of "
                f"the Ray cluster offers {largest / 2**30:.1f} GiB; expected at most that"
            )


# A worker process serves task after task, and so keeps its model. A task that died is submitted again by
# whoever counts the attempts, not by Ray.
_run: Any = ray.remote(max_calls=0, max_retries=0)(run_remotely)
