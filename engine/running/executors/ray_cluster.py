"""A Ray cluster: a task per unit. Results are a few numbers; nothing else goes through Ray's object store."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from typing import Any, NoReturn
from urllib.parse import urlsplit

import ray
from attrs import define, field

from engine.errors import EngineError, Interrupted, UsageError
from engine.progress import StopRequest
from engine.running.executors.base import Finished, Job, Resources, Work
from engine.running.executors.imports import ROOT, same_packages
from engine.running.executors.remote import run_remotely
from specs.tables.executor import Executor as Settings

_TICK = 0.5  # seconds between looks at a stop request
_WITHIN = 2.0  # seconds that killed tasks have to be gone
_RELEASE = 3.0  # seconds that an interrupted task has to give back its claims
_CONNECT = 5.0  # seconds in which a cluster's port has to answer


@define
class RayExecutor:
    """Runs units as tasks of a cluster, at most `workers` at a time."""

    job: bytes
    settings: Settings
    stop: StopRequest
    _queue: deque[tuple[Work, Resources]] = field(factory=deque)
    _running: dict[Any, Work] = field(factory=dict)  # reference → unit

    @classmethod
    def of(cls, job: Job, settings: Settings, stop: StopRequest, most: Resources) -> RayExecutor:
        """Join the cluster, or start one on this machine; UsageError where no node holds the largest unit."""
        join(settings.address)
        executor = cls(pickle.dumps(job), settings, stop)
        try:
            executor.check_room(most)
        except UsageError:
            executor.cancel()
            raise
        return executor

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
        # A task that is still importing, or computes outside of Python, hears of nothing: it is killed then.
        # Ranks, which save a checkpoint first, have the grace for it.
        grace = self.settings.grace if self.settings.ranks > 1 else min(_RELEASE, self.settings.grace)
        try:
            if not self.stop.insisted:
                self._end(grace)
        finally:
            self._end(_WITHIN, force=True)
            self._running.clear()
            if self.settings.address is None:
                ray.shutdown()

    def check_room(self, most: Resources) -> None:
        """Raise UsageError where no node could ever take such a unit, which would wait for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, memory = self._gpus(), self._memory(most)
        known = any(node.get("GPU") for node in nodes)

        def best(name: str) -> float:
            return max((node.get(name, 0) for node in nodes), default=0)

        if best("CPU") < 1:
            raise UsageError("executor.address: found a Ray cluster without a CPU for tasks; expected one")
        if gpus > best("GPU") and known:
            raise UsageError(
                f"executor.ranks: found {self.settings.ranks}, a GPU for each, but no node of the Ray "
                f"cluster has more than {best('GPU'):g}; expected at most that"
            )
        if memory > best("memory"):
            self._refuse_memory(memory, best("memory"))
        if not any(
            node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus and node.get("memory", 0) >= memory
            for node in nodes
        ):
            raise UsageError(
                f"executor.memory: a unit of work needs 1 CPU, {gpus:g} GPUs and {memory / 2**30:.1f} GiB on "
                "one node, and no node of the Ray cluster has all of them; expected less memory or ranks"
            )

    def _begin(self, work: Work, resources: Resources) -> None:
        memory = self._memory(resources)
        self._check_memory(memory)
        options = {"num_gpus": self._gpus(), "memory": int(memory) or None}
        self._running[_run.options(**options).remote(self.job, work)] = work

    def _end(self, within: float, *, force: bool = False) -> None:
        """Interrupt all tasks, or (`force`) end their processes, and wait for that."""
        for reference in self._running:
            ray.cancel(reference, force=force)
        if self._running:
            running = list(self._running)
            _, left = ray.wait(running, num_returns=len(running), timeout=within)
            self._running = {reference: self._running[reference] for reference in left}

    def _gpus(self) -> float:
        share = self.settings.ranks / self.settings.workers_per_gpu
        return share if ray.cluster_resources().get("GPU") else 0

    def _memory(self, resources: Resources) -> float:
        return self.settings.memory * 2**30 if self.settings.memory else resources.memory or 0

    def _take(self, reference: Any) -> Finished:
        work = self._running.pop(reference)
        try:
            return Finished(work, ray.get(reference))
        except ray.exceptions.WorkerCrashedError:  # Ray does not tell the signal
            return Finished(work, None, "the Ray worker died, by a signal or with its node", memory=None)
        except ray.exceptions.RayError as error:
            full = isinstance(error, ray.exceptions.OutOfMemoryError)
            return Finished(work, None, str(error), memory=full)

    def _check_memory(self, memory: float) -> None:
        """Raise UsageError where no node that is left has so much."""
        alive = (node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"])
        if memory > (largest := max(alive, default=0)):
            self._refuse_memory(memory, largest)

    @staticmethod
    def _refuse_memory(memory: float, largest: float) -> NoReturn:
        raise UsageError(
            f"executor.memory: a unit of work needs {memory / 2**30:.1f} GiB, but the largest node of "
            f"the Ray cluster offers {largest / 2**30:.1f} GiB; expected at most that"
        )


def join(address: str | None) -> None:
    """Join a cluster, or start one on this machine; EngineError where that fails."""
    _check_port(address or os.environ.get("RAY_ADDRESS"))
    terminated = signal.getsignal(signal.SIGTERM)
    printed = ""
    try:
        # Ray puts the folder that it is joined from first on its workers' path: one of the packages' own.
        # The variables are for a cluster of one's own; another has its environment already.
        with same_packages(), chdir(ROOT), _kept_quiet() as log:
            try:
                ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
            except BaseException:
                printed = log()
                raise
    except Exception as error:  # of many types, and of Ray's releases
        raise EngineError(_why(address, error, printed)) from error
    finally:
        signal.signal(signal.SIGTERM, terminated)  # Ray's own would end this process without a word


def _why(address: str | None, error: Exception, log: str) -> str:
    """Say why a cluster could not be joined, of what Ray raises and what it says beside that."""
    told = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split()).rstrip(".")
    where = f"executor.address: the Ray cluster at {address}" if address else "a Ray cluster on this machine"
    if "Unauthenticated" in log + str(error) or "AuthToken" in log or "uthentication" in str(error):
        return (
            f"{where} refuses this process's token; expected the cluster's own in RAY_AUTH_TOKEN, or in "
            "the file of RAY_AUTH_TOKEN_PATH, and the same RAY_AUTH_MODE (token or disabled) on both sides"
        )
    if address is None:
        return f"{where} could not be started: {told}"
    if address == "auto" and "Could not find any running Ray instance" in str(error):
        return "executor.address: no Ray cluster runs here; expected `ray start --head`, or an address"
    return (
        f"{where} cannot be joined: {told}; expected HOST:PORT of one that runs, with the same Ray and Python"
    )


def _check_port(address: str | None) -> None:
    """Raise EngineError where nothing answers at an address: Ray would try for minutes, line by line."""
    if address in (None, "auto", "local"):
        return
    assert address is not None
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else None)
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise UsageError(
            f'executor.address: found "{address}"; expected "auto", HOST:PORT or ray://HOST:PORT'
        )
    try:
        socket.create_connection((host, port), timeout=_CONNECT).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise EngineError(
            f"executor.address: no Ray cluster answers at {address} ({why}); expected a head node's HOST:PORT"
        ) from error


@contextmanager
def _kept_quiet() -> Iterator[Callable[[], str]]:
    """Keep what Ray's threads write to standard error off the terminal; give a function that tells it."""
    with tempfile.TemporaryFile() as kept:
        try:
            before = os.dup(2)
        except OSError:  # it is closed
            yield str
            return
        os.dup2(kept.fileno(), 2)

        def told() -> str:
            kept.seek(0)
            return kept.read().decode(errors="replace")

        try:
            yield told
        finally:
            os.dup2(before, 2)
            os.close(before)


# A worker process serves task after task, and so keeps its model. A task that died is submitted again by
# whoever counts the attempts, not by Ray.
_run: Any = ray.remote(max_calls=0, max_retries=0)(run_remotely)
