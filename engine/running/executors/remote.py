"""What a process that serves a job runs: its units, here or in ranks below it."""

from __future__ import annotations

import pickle
from functools import lru_cache

from engine.progress import StopRequest
from engine.running.executors.base import Job, Work
from engine.running.executors.launch import Launcher
from engine.running.executors.worker import Worker
from engine.running.outcome import Outcome


def worker_of(job: Job, stop: StopRequest) -> Worker | Launcher:
    """Give what runs the units of a job in this process, or below it."""
    return Worker.of(job, stop) if job.ranks == 1 else Launcher(job, stop)


def run_remotely(job: bytes, work: Work) -> Outcome:
    """Run a unit of a pickled job in a process that may serve several, one after another."""
    return _worker(job).run(work)


@lru_cache(maxsize=1)
def _worker(job: bytes) -> Worker | Launcher:
    return worker_of(pickle.loads(job), StopRequest())
