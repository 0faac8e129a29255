"""Is there room for what an execution will write? Asked before it begins, for a full disk ends it midway."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from engine.errors import UsageError
from engine.estimate import Cost, estimate
from engine.plan import Plan, PlannedCell
from engine.render import si


def check_space(plan: Plan, cells: Iterable[PlannedCell], workers: int) -> None:
    """Raise UsageError where the store's disk has less room than the cells' results and checkpoints need.

    Both are estimates; where the model is not on this machine yet there is none, and nothing is checked.
    """
    costs = estimate(plan, cells)
    if costs is None:
        return
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
