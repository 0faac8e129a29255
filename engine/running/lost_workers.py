"""Why a worker was lost: by a signal, or because memory was full."""

from __future__ import annotations

from engine.full_memory import limit
from engine.planning.plan import Plan, PlannedCell
from engine.running.executors.base import Finished
from engine.running.memory import needed, out_of_memory


def loss(plan: Plan, processes: int, finished: Finished, cell: PlannedCell, stage: str) -> str:
    """Say why the worker was lost at a stage.

    Where nobody tells who killed it, memory is taken to be the cause if less is allowed than the processes,
    which share it, need at this stage.
    """
    most = limit() if finished.here else None
    full = finished.memory
    if full is None:
        need = needed(plan, cell, stage, most.size / processes if most else None)
        full = most is not None and need is not None and need * processes > most.size
    if not full:
        return finished.error
    return f"{finished.error}: {out_of_memory(plan, cell, stage, most, processes if finished.here else 1)}"
