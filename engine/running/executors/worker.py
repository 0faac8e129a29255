"""What a worker process does with a unit of work, whichever executor it belongs to."""

from __future__ import annotations

import pickle
from functools import lru_cache

from attrs import frozen

from engine.planning.plan import Plan
from engine.process_group.alone import ALONE, Ranks
from engine.progress import StopRequest
from engine.running.cell_runner import Display, Execution, Outcome
from engine.running.executors.base import Job, Work
from engine.running.executors.launch import Launcher
from engine.running.provenance import provenance
from engine.stages.cell_stages import Stages
from specs import resolve
from specs.tables.experiment import STAGES
from store import Ledger, StoreWriter


@frozen
class Worker:
    """Runs units of one job, keeping the model that the last one used."""

    execution: Execution

    @classmethod
    def of(cls, job: Job, stop: StopRequest, ranks: Ranks = ALONE) -> Worker:
        """Make a worker; the cells and their keys come with the units."""
        plan = Plan(resolve(job.spec), job.root, [], {stage: {} for stage in STAGES})
        ledger = ranks.led(Ledger, lambda: Ledger(job.root, job.lease))
        writer = ranks.led(StoreWriter, lambda: StoreWriter(job.root))
        stages = Stages(plan, ledger, writer, provenance(), stop, ranks)
        return cls(Execution(plan, stages, job.options, Display(), stop))

    def run(self, work: Work) -> Outcome:
        """Run a unit."""
        self.execution.stages.ledger.claims.believe(work.silent)
        return self.execution.run(work.cells)


def worker_of(job: Job, stop: StopRequest) -> Worker | Launcher:
    """Give what runs the units of a job in this process, or below it."""
    return Worker.of(job, stop) if job.ranks == 1 else Launcher(job, stop)


def run_remotely(job: bytes, work: Work) -> Outcome:
    """Run a unit of a pickled job in a process that may serve several, one after another."""
    return _worker(job).run(work)


@lru_cache(maxsize=1)
def _worker(job: bytes) -> Worker | Launcher:
    return worker_of(pickle.loads(job), StopRequest())
