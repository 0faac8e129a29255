"""What one process does with a unit of work, whichever executor it belongs to."""

from __future__ import annotations

from attrs import frozen

from engine.planning.plan import Plan
from engine.process_group.alone import ALONE, ProcessGroup
from engine.progress import StopRequest
from engine.running.cell_runner import CellRunner
from engine.running.display import Display
from engine.running.executors.base import Job, Work
from engine.running.garbage import leave_out_what_is_here
from engine.running.outcome import Outcome
from engine.running.provenance import provenance
from engine.running.run_log import lines_to
from engine.running.worker_events import WorkerDisplay, worker_file
from engine.stages.cell_stages import Stages
from specs import resolve
from specs.tables.experiment import STAGES
from store import Ledger, StoreWriter


@frozen
class Worker:
    """Runs units of one job, keeping the model that the last one used."""

    execution: CellRunner

    @classmethod
    def of(cls, job: Job, stop: StopRequest, ranks: ProcessGroup = ALONE) -> Worker:
        """Make a worker; the cells and their keys come with the units."""
        plan = Plan(resolve(job.spec), job.root, [], {stage: {} for stage in STAGES})
        ledger = ranks.led(Ledger, lambda: Ledger(job.root, job.lease))
        writer = ranks.led(StoreWriter, lambda: StoreWriter(job.root))
        stages = Stages(plan, ledger, writer, provenance(), stop, ranks, job.sharing)
        runner = CellRunner(plan, stages, job.options, _display(job, ranks), stop)
        leave_out_what_is_here()
        return cls(runner)

    def run(self, work: Work) -> Outcome:
        """Run a unit."""
        self.execution.stages.ledger.claims.believe(work.silent)
        self.execution.plan.cells[:] = work.cells
        self.execution.donated = work.donated
        return self.execution.run(work.cells, together=work.together)


def _display(job: Job, ranks: ProcessGroup) -> Display:
    """Give what tells the execution's process of this one's work; of several ranks the first does."""
    if job.events is None or ranks.rank != 0:
        return Display()
    return WorkerDisplay(lines_to(job.events, worker_file()))
