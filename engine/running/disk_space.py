"""Is there room for what an execution will write, and hold? Asked before it begins, not midway."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from engine.errors import UsageError
from engine.full_memory import limit
from engine.models.gpus import all_hidden, nvidia_gpu
from engine.planning.cost import Cost
from engine.planning.estimate import estimate
from engine.planning.memory_fit import advice
from engine.planning.plan import Plan, PlannedCell
from engine.quantities import si


def check_space(plan: Plan, costs: Mapping[str, Cost], workers: int) -> None:
    """Raise UsageError where the store's disk has less room than the estimated results and checkpoints."""
    total = sum(costs.values(), Cost())
    checkpoints = total.scratch * workers
    root = plan.root.scratch().absolute()
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    if total.stored + checkpoints > free:
        raise UsageError(
            f"{plan.root}: {si(free, 'B')} are free on its disk, but the cells to run need about "
            f"{si(total.stored + checkpoints, 'B')} ({si(total.stored, 'B')} of results, "
            f"{si(checkpoints, 'B')} of checkpoints while they train); expected more room, another --store, "
            "fewer cells (--only, --max-cells), or --ignore-space"
        )


def memory_warning(
    plan: Plan, cells: Sequence[PlannedCell], costs: Mapping[str, Cost], processes: int
) -> str | None:
    """Say that the cells may need more memory than their processes get here; None where that is not known.

    On a GPU, its memory counts, which no cgroup limits.
    """
    devices = {plan.matrix.table("model", cell.choice).device for cell in cells}
    if devices - {"cpu", "auto"} or ("auto" in devices and not all_hidden() and nvidia_gpu()):
        return None
    if not costs:
        return None
    allowed = limit()
    if max(cost.memory for cost in costs.values()) * processes <= allowed.size:
        return None
    suited = estimate(plan, cells, allowed.size / processes) or costs
    stage, cost = max(suited.items(), key=lambda item: item[1].memory)
    need = cost.memory * processes
    if need <= allowed.size:
        return None
    many = f"{processes} processes need" if processes > 1 else "the run needs"
    return (
        f"{many} about {si(need, 'B')} of memory ({stage}), but the limit is {si(allowed.size, 'B')} "
        f"({allowed.source}); try {advice(plan, cells[0], stage)}"
    )
