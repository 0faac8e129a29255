"""What this machine lacks of what cells ask for, told before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.errors import UsageError
from engine.planning.checks import check_devices
from engine.planning.plan import Plan, PlannedCell
from specs import Problem, SpecError


def check_machine(plan: Plan, cells: Sequence[PlannedCell]) -> None:
    """Raise SpecError where this process cannot compute what one of these cells still needs."""
    check_devices(plan, cells)
    problems = dict.fromkeys([*_backends(plan, cells), *_trackers(plan, cells)])
    if problems:
        raise SpecError(map(plan.matrix.spec.place, problems))


def _backends(plan: Plan, cells: Sequence[PlannedCell]) -> Iterator[Problem]:
    """Yield probe backends that cannot serve on a CPU; on a GPU to know takes a compilation."""
    from engine.models.devices import choose_device
    from kernels.backends import choose_backend

    for cell in cells:
        probe = plan.matrix.table("probe", cell.choice)
        due = "probe" in cell.keys and plan.states["probe"][cell.keys["probe"]] != "cached"
        if not due or probe.backend == "auto":
            continue
        device = choose_device(plan.matrix.table("model", cell.choice).device)
        if device.type == "cpu":
            try:
                choose_backend(device, probe.backend)
            except ValueError as error:
                message = str(error).removeprefix("backend: ")
                yield Problem(None, plan.matrix.written("probe.backend", cell.choice), message)


def _trackers(plan: Plan, cells: Sequence[PlannedCell]) -> Iterator[Problem]:
    """Yield trackers that are not installed."""
    from engine.stages.training.trackers import check_trackers

    for cell in cells:
        train = plan.matrix.table("train", cell.choice)
        if train.report_to and plan.states["train"][cell.keys["train"]] != "cached" and train.steps != 0:
            try:
                check_trackers(train.report_to)
            except UsageError as error:
                message = str(error).removeprefix("train.report_to: ")
                yield Problem(None, plan.matrix.written("train.report_to", cell.choice), message)
