"""One execution of a plan: its cells are handed to an executor, and what it did is one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import field, frozen

from engine.full_memory import Sharing
from engine.planning.estimate import estimate
from engine.planning.executor_settings import executor_settings
from engine.planning.places import older_store
from engine.planning.plan import Plan, PlannedCell, check_donors
from engine.planning.training_groups import groups_memory, most_together, told_alone
from engine.planning.warnings import changed_files
from engine.progress import StopRequest
from engine.running.at_work import at_work, events_of, run_name
from engine.running.disk_space import check_space, memory_warning
from engine.running.display import Display, Waits
from engine.running.garbage import only_of_this_run
from engine.running.kernels_owner import check_kernels
from engine.running.machine_checks import check_machine
from engine.running.manifest import Registration
from engine.running.outcome import Options, Outcome
from engine.running.provenance import provenance
from engine.running.run_log import logged
from engine.running.tracker_summaries import tracked
from specs.tables.executor import Executor
from store import Ledger, StoreError, StoreWriter
from store.backend.locate import place_of


@frozen
class ExecutionRequest:
    """How a plan is to be executed."""

    fail_fast: bool = False
    retry_failed: bool = False
    wait: bool = True
    executor: Executor = field(factory=Executor)


def request_for(
    plan: Plan,
    cells: Sequence[PlannedCell],
    *,
    executor: str | None,
    workers: int | None,
    fail_fast: bool,
    retry_failed: bool,
    wait: bool,
    ignore_space: bool,
) -> tuple[ExecutionRequest, list[str]]:
    """Give the request to execute cells, checked against what they take; and what to warn of."""
    settings = executor_settings(plan.matrix.spec, {"kind": executor, "workers": workers})
    request = ExecutionRequest(fail_fast, retry_failed, wait, settings)
    if not cells:
        return request, []
    check_donors(plan, cells)
    changed = [*older_store(plan), *changed_files(plan), *told_alone(plan, cells, settings)]
    costs = estimate(plan, cells)
    if costs is None:  # the model is not on this machine yet
        return request, changed
    workers = settings.workers or 1
    if not ignore_space:
        check_space(plan, costs, workers * most_together(settings, len(cells)))
    if settings.kind == "local" and (lacking := memory_warning(plan, cells, costs, workers * settings.ranks)):
        changed.append(lacking)
    return request, changed


def run_plan(
    plan: Plan, cells: Sequence[PlannedCell], request: ExecutionRequest, display: Display, stop: StopRequest
) -> Outcome:
    """Execute cells of a plan into its store. Raises Interrupted where a stop was requested."""
    check_kernels()
    if request.executor.kind == "local":  # others compute elsewhere
        check_machine(plan, cells)
    where = provenance()
    registration = Registration.of(plan, where)
    run, ledger = run_name(), Ledger(plan.root, request.executor.lease)
    with (
        at_work(ledger, run),
        registration.unless_idle(),
        logged(plan, tracked(plan, display), run) as shown,
    ):
        outcome = _run(plan, cells, request, shown, stop, where, run)
    outcome.put_back = registration.put_back
    return outcome


def _run(
    plan: Plan,
    cells: Sequence[PlannedCell],
    request: ExecutionRequest,
    display: Display,
    stop: StopRequest,
    where: dict[str, Any],
    run: str,
) -> Outcome:
    from engine.planning.estimate import estimator
    from engine.running import cell_runner as execute
    from engine.running.executors.base import Job, Resources
    from engine.running.executors.in_process import InProcess
    from engine.running.executors.make import make_executor
    from engine.running.lost_workers import loss
    from engine.running.resume_progress import progress_on_disk
    from engine.running.scheduler import Policy, Scheduler
    from engine.running.worker_events import WorkerEvents
    from engine.stages.cell_stages import Stages

    settings = request.executor
    pending = {cell.keys["train"] for cell in cells if plan.states["train"][cell.keys["train"]] != "cached"}
    together = most_together(settings, len(pending))
    options = Options(request.fail_fast, request.retry_failed, together)
    policy = Policy(request.wait, min(1.0, settings.lease / 10), settings.retries, request.fail_fast)
    ledger = Ledger(plan.root, settings.lease)
    stages = Stages(plan, ledger, StoreWriter(plan.root), where, stop)
    execution = execute.CellRunner(plan, stages, options, display, stop)
    if settings.kind == "local" and settings.workers is None and settings.ranks == 1:
        own, waits = InProcess(execution), Waits(display)
        with only_of_this_run():
            return Scheduler(plan, ledger, own, policy, waits, stop, together=together).run(cells)
    root = plan.root.absolute()
    here = settings.kind == "local"
    home, name = place_of(root.scratch()) if here else root, events_of(run)
    processes = (settings.workers or 1) * settings.ranks
    sharing = Sharing(processes=processes if here else 1, on_gpu=settings.workers_per_gpu)
    spec = plan.matrix.spec.anchored()
    job = Job(spec, root, options, settings.lease, settings.ranks, settings.grace, sharing, home.under(name))
    whole = estimator(plan)(cells)
    # First of all, for what it refuses should not wait for data.
    most = max(whole.memory, groups_memory(plan, cells, together)) if whole else None
    executor = make_executor(job, settings, stop, Resources(most))
    try:
        # Every unit needs its data: made here, it keeps no worker waiting.
        prepared = execution.prepare_data(cells)
    except BaseException:
        executor.cancel()
        raise
    failed = {key for key, state in plan.states["data"].items() if state == "failed"}
    ready = [cell for cell in cells if not failed & {cell.keys["data"], cell.keys["test_data"]}]
    if not ready or (request.fail_fast and prepared.failed):
        executor.cancel()
        return prepared
    lives_on = settings.kind == "local" and settings.ranks == 1  # a worker, from unit to unit
    batch = 1 if lives_on else settings.batch
    coordinator = Scheduler(
        plan,
        ledger,
        executor,
        policy,
        display,
        stop,
        estimator(plan),
        partial(progress_on_disk, plan.root),
        partial(loss, plan, processes),
        WorkerEvents(plan, home.under(name), display),
        together=together,
    )
    display.waits("waiting for workers to start")
    try:
        outcome = coordinator.run(ready, batch)
    finally:
        with suppress(StoreError, OSError):
            home.remove_all(name)
    outcome.add(prepared)
    return outcome
