"""Worker processes on this machine, watched by their sentinels: one that dies loses its own unit alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from attrs import define, field

from engine.cpu_share import cpu_share
from engine.errors import Interrupted, LostRankError
from engine.full_memory import oom_kills
from engine.progress import StopRequest
from engine.running.executors.base import Finished, Job, Resources, Work
from engine.running.executors.imports import same_packages
from engine.running.executors.launch import visible_gpus
from engine.running.executors.parent import follow_parent
from engine.running.executors.queue import Queue
from engine.running.executors.tree import end, tree
from engine.running.outcome import Outcome

_SPAWN = multiprocessing.get_context("spawn")
_TICK = 0.5  # seconds between looks at a stop request
_AT_ONCE = signal.SIGUSR1  # interrupts a worker as a second Ctrl-C does one process
_WITHIN = 2.0  # seconds that it has for that, to end its claims
_TERMINALS = (signal.SIGINT, signal.SIGHUP)  # which a terminal sends to all; the supervisor decides


@define
class _Slot:
    """A place for one worker process, and what runs there."""

    environment: Mapping[str, str]
    threads: int
    process: SpawnProcess | None = None
    connection: Connection | None = None
    work: Work | None = None
    model: Hashable = None  # of the unit before


@define
class LocalExecutor:
    """Runs units in spawned processes, which live on from unit to unit."""

    job: Job
    stop: StopRequest
    grace: float
    slots: list[_Slot]
    _queue: Queue = field(factory=Queue)
    _kills: int | None = field(factory=oom_kills)  # for memory, those told included

    def submit(self, work: Work, resources: Resources) -> None:
        """Take a unit."""
        self._queue.add(work)

    def as_completed(self) -> Iterator[Finished | None]:
        """Run the units, each on a worker that has its model loaded where there is one."""
        while self._queue or any(slot.work for slot in self.slots):
            if self.stop.requested:
                self.cancel()
                raise Interrupted
            for slot in self.slots:
                if slot.work is None and self._queue:
                    self._begin(slot)
            signs: dict[Any, _Slot] = {}
            for slot in self.slots:
                if slot.work and slot.process and slot.connection:
                    signs |= {slot.connection: slot, slot.process.sentinel: slot}
            for slot in {id(signs[sign]): signs[sign] for sign in wait([*signs], timeout=_TICK)}.values():
                yield self._end(slot)
            yield None

    def cancel(self) -> None:
        """Ask all workers to save and end, and kill those that are not gone after the grace period.

        A second Ctrl-C, also one that comes meanwhile, interrupts them instead.
        """
        self._queue.clear()
        started = [slot.process for slot in self.slots if slot.process and slot.process.pid]
        members = [member for process in started for member in tree(cast("int", process.pid))]
        try:
            if not self.stop.insisted:
                _end(started, signal.SIGTERM, self.grace)
        finally:
            try:
                if self.stop.insisted:
                    _end(started, _AT_ONCE, _WITHIN)
            finally:
                end(members, 0.0)
                for process in started:
                    process.kill()
                    process.join()
                for slot in self.slots:
                    _close(slot)

    def _begin(self, slot: _Slot) -> None:
        slot.work = self._queue.take(slot.model, id(slot))
        slot.model = slot.work.model
        if slot.process is None:
            slot.connection, theirs = _SPAWN.Pipe()
            arguments = (self.job, theirs, slot.environment, slot.threads)
            daemon = self.job.ranks == 1  # else it has processes of its own
            slot.process = _SPAWN.Process(target=_serve, args=arguments, daemon=daemon)
            # Before it can ignore them by itself, the terminal's signals would end it with a traceback.
            resource_tracker.ensure_running()  # which would lift the block
            former = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINALS)
            try:
                with same_packages():
                    slot.process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, former)
            theirs.close()  # so that the worker's death ends the connection
        assert slot.connection is not None
        with suppress(OSError):  # it died between two units; its sentinel says so
            slot.connection.send(slot.work)

    def _end(self, slot: _Slot) -> Finished:
        """Take the result of a slot's unit, or note that its worker died."""
        work, slot.work = slot.work, None
        assert work is not None and slot.process is not None and slot.connection is not None
        try:
            outcome, error = slot.connection.recv()
        except (EOFError, OSError):
            slot.process.join()
            outcome, error = None, f"the worker {_death(slot.process.exitcode)}"
            _close(slot)
        memory = self._was_memory() if signal.SIGKILL.name in error else False
        return Finished(work, outcome, error, memory, here=True)

    def _was_memory(self) -> bool | None:
        """Tell whether the kernel has killed a process for memory; None where it does not count them."""
        now = oom_kills()
        if now is None or self._kills is None:
            return None
        killed = now > self._kills
        self._kills += killed
        return killed


def slots(workers: int, workers_per_gpu: int, ranks: int = 1) -> list[_Slot]:
    """Give places for workers: GPUs dealt out in turn, where there are any, and else the cores split."""
    gpus = visible_gpus()
    threads = max(1, cpu_share().count // workers)
    if not gpus:
        return [_Slot({}, threads) for _ in range(workers)]
    ranks = min(ranks, len(gpus))
    turns = [[n // workers_per_gpu * ranks + rank for rank in range(ranks)] for n in range(workers)]
    shown = [",".join(gpus[turn % len(gpus)] for turn in devices) for devices in turns]
    return [_Slot({"CUDA_VISIBLE_DEVICES": names}, threads) for names in shown]


def _end(processes: list[SpawnProcess], how: signal.Signals, within: float) -> None:
    """Send all a signal, and wait for them at most so many seconds."""
    for process in processes:
        if process.is_alive():
            os.kill(cast("int", process.pid), how)  # it is our child: its number is not used again
    deadline = time.monotonic() + within
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _close(slot: _Slot) -> None:
    if slot.connection is not None:
        slot.connection.close()
    slot.process = slot.connection = slot.work = slot.model = None


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _serve(job: Job, connection: Connection, environment: Mapping[str, str], threads: int) -> None:
    """Run units as they come, until the connection ends or a stop is requested."""
    os.environ.update(environment)  # before torch looks at it
    for number in _TERMINALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINALS)
    stop = StopRequest()
    signal.signal(signal.SIGTERM, lambda *_: setattr(stop, "requested", True))
    signal.signal(_AT_ONCE, signal.default_int_handler)
    threading.Thread(target=follow_parent, args=(stop,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        _serve_units(job, connection, stop, threads)


def _serve_units(job: Job, connection: Connection, stop: StopRequest, threads: int) -> None:
    import torch

    from engine.running.executors.remote import worker_of

    torch.set_num_threads(threads)
    worker = None
    while not stop.requested:
        if not connection.poll(_TICK):
            continue
        try:
            work = connection.recv()
            worker = worker or worker_of(job, stop)
            result: tuple[Outcome | None, str] = worker.run(work), ""
        except (EOFError, Interrupted):
            return
        except LostRankError as error:
            result = None, str(error)
        except Exception:
            result = None, traceback.format_exc()
        connection.send(result)
