"""GPUs that fail, on a clock of events: an executor of units whose stages take simulated time.

A worker's real code runs in a greenlet of its own. Where a stage would compute, the greenlet waits on the
clock; where its GPU fails meanwhile, `Died` is raised there, as a kill ends a process at whatever it does.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator

from attrs import define, field, frozen
from greenlet import getcurrent, greenlet

from engine.running.executors.base import Finished, Resources, Work
from engine.running.executors.queue import Queue
from engine.running.executors.worker import Worker

HOUR = 3600.0
TICK = 10.0  # seconds between looks of an executor that watches others


class Died(BaseException):
    """The process that runs this code is no more."""


@define
class Clock:
    """Simulated time, in seconds: events in their order."""

    now: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _numbers: Iterator[int] = field(factory=itertools.count)
    _hub: greenlet = field(factory=getcurrent)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something once so much time has passed."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), action))

    def step(self) -> None:
        """Go on to the next event."""
        self.now, _, action = heapq.heappop(self._events)
        action()

    def sleep(self, seconds: float) -> None:
        """Let time pass: for a greenlet its own, for the main one everybody's."""
        current = getcurrent()
        if current is not self._hub:
            self.after(seconds, lambda: current.switch() if current else None)  # false once it has died
            self._hub.switch()
            return
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.step()
        self.now = until


@frozen
class Faults:
    """What goes wrong on the pool, and what it costs; None: never."""

    gpu_hours: float | None = None  # mean time between failures of one GPU, which end its worker
    node_hours: float | None = None  # of one node, which end all its workers
    repair_hours: float = 1.0  # that a failed node is away
    limit_hours: float | None = None  # after which a GPU is taken from its worker, again and again
    slow_share: float = 0.0  # of the GPUs, which take `slow_factor` times as long
    slow_factor: float = 2.0
    broken: int = 0  # GPUs that end every worker within `broken_seconds`
    broken_seconds: float = 60.0


@define(eq=False)
class Process:
    """A worker process as others know it: by its node, and by whether it still lives."""

    node: int | None = None
    alive: bool = True
    known_dead: bool = False  # to the processes of its node, which a reboot makes new ones
    number: int = field(factory=itertools.count().__next__)


@define(eq=False)
class Gpu:
    """One GPU: what runs there, and what its seconds went to."""

    node: int
    slowness: float
    clock: Clock
    spent: Counter[str]
    process: Process = field(factory=Process)
    worker: Worker | None = None
    model: Hashable = None
    work: Work | None = None
    run: greenlet | None = None
    since: float = 0.0  # when it last became idle
    away: bool = False

    def spend(self, seconds: float, split: Callable[[float], dict[str, float]]) -> None:
        """Let time pass here, in seconds of a quick GPU; `split` says what those that did pass served."""
        began = self.clock.now
        try:
            self.clock.sleep(seconds * self.slowness)
        finally:
            passed = (self.clock.now - began) / self.slowness
            self.spent.update({**split(passed), "slow": passed * (self.slowness - 1)})

    def rest(self, kind: str) -> None:
        """Book the time since the last unit."""
        self.spent[kind] += self.clock.now - self.since
        self.since = self.clock.now


@define
class Pool:
    """Runs units on simulated GPUs, each in a worker that lives on from unit to unit, or for one alone."""

    clock: Clock
    gpus: list[Gpu]
    faults: Faults
    make_worker: Callable[[Gpu], Worker]
    start: float  # seconds from asking for a worker until it takes a unit
    lasting: bool = True
    draw: random.Random = field(factory=random.Random)
    deaths: Counter[str] = field(factory=Counter)
    heard: float = 0.0  # when the caller began, by the processor's clock
    coordinating: float = 0.0  # processor seconds that the caller took before and between units
    _queue: Queue = field(factory=Queue)
    _free: deque[Gpu] = field(factory=deque)
    _ended: deque[Finished] = field(factory=deque)
    _running: int = 0
    _tick: float = 0.0  # when the caller was last heard

    def __attrs_post_init__(self) -> None:
        self._free.extend(self.gpus)
        faults, nodes = self.faults, sorted({gpu.node for gpu in self.gpus})
        limit = (faults.limit_hours or 0) * HOUR
        for number, gpu in enumerate(self.gpus):
            if number < faults.broken:
                self._repeat(lambda: faults.broken_seconds, "broken GPU", [gpu])
            if faults.gpu_hours is not None:
                self._repeat(self._exponential(faults.gpu_hours), "GPU", [gpu])
            if limit:
                self._repeat(lambda: limit, "time limit", [gpu], first=self.draw.uniform(0, limit))
        for node in nodes if faults.node_hours is not None else ():
            together = [gpu for gpu in self.gpus if gpu.node == node]
            self._repeat(self._exponential(faults.node_hours or 0), "node", together)

    def submit(self, work: Work, resources: Resources) -> None:
        """Take a unit."""
        self._queue.add(work)

    def as_completed(self) -> Iterator[Finished | None]:
        """Let time pass, and yield each unit as it ends."""
        if not self.coordinating:
            self.coordinating = time.process_time() - self.heard
        while self._queue or self._running or self._ended:
            while self._queue and self._free:
                gpu = self._free.popleft()
                self._begin(gpu, self._queue.take(gpu.model, gpu))
            if not self._ended:
                self.clock.step()
            if self._ended or self.clock.now >= self._tick + TICK:
                self._tick, began = self.clock.now, time.process_time()
                yield self._ended.popleft() if self._ended else None
                self.coordinating += time.process_time() - began

    def cancel(self) -> None:
        """Drop what is not finished."""
        self._queue.clear()

    def close(self) -> None:
        """Book what the GPUs did last."""
        for gpu in self.gpus:
            gpu.rest("away" if gpu.away else "idle")

    def _begin(self, gpu: Gpu, work: Work) -> None:
        gpu.rest("idle")
        gpu.work, gpu.model, gpu.run = work, work.model, greenlet(self._serve)
        self._running += 1
        gpu.run.switch(gpu, work)

    def _serve(self, gpu: Gpu, work: Work) -> None:
        """Do what a worker process does with a unit."""
        try:
            if gpu.worker is None:
                gpu.process = Process(gpu.node)
                gpu.worker = self.make_worker(gpu)
                gpu.spend(self.start, lambda seconds: {"start": seconds})
            finished = Finished(work, gpu.worker.run(work))
        except Died as death:
            finished = Finished(work, None, f"the worker died: {death}")
        if finished.outcome is None or not self.lasting:
            gpu.worker = gpu.model = None
        gpu.work, gpu.since = None, self.clock.now
        self._running -= 1
        self._ended.append(finished)
        if not gpu.away:
            self._free.append(gpu)

    def _exponential(self, hours: float) -> Callable[[], float]:
        return lambda: self.draw.expovariate(1 / (hours * HOUR))

    def _repeat(
        self, pause: Callable[[], float], cause: str, gpus: list[Gpu], first: float | None = None
    ) -> None:
        """Let these GPUs fail together, time and again."""

        def strike() -> None:
            for gpu in gpus:
                self._strike(gpu, cause)
            self.clock.after(pause(), strike)

        self.clock.after(pause() if first is None else first, strike)

    def _strike(self, gpu: Gpu, cause: str) -> None:
        """End what runs on a GPU, and take it away for repair where its node has failed."""
        if gpu.away:
            return
        gpu.process.alive, gpu.process.known_dead = False, cause != "node"
        if cause == "node":
            if gpu.work is None:
                gpu.rest("idle")
                self._free.remove(gpu)
            gpu.away = True
            self.clock.after(self.faults.repair_hours * HOUR, lambda: self._repaired(gpu))
        if gpu.work is not None and gpu.run is not None:
            self.deaths[cause] += 1
            gpu.run.throw(Died(cause))
        gpu.worker = gpu.model = None

    def _repaired(self, gpu: Gpu) -> None:
        gpu.rest("away")
        gpu.away = False
        self._free.append(gpu)
