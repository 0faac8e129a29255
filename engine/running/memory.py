"""What to say where memory was too little."""

from __future__ import annotations

from contextlib import suppress

from engine.errors import EngineError
from engine.full_memory import Limit, limit, memory_error
from engine.planning.memory_fit import advice
from engine.planning.plan import Plan, PlannedCell
from engine.quantities import si


def out_of_memory(plan: Plan, cell: PlannedCell, stage: str, least: Limit | None, processes: int = 1) -> str:
    """Say that a stage ran out of memory, the limit, what the plan has estimated, and what to try."""
    need = needed(plan, cell, stage, least.size / processes if least else None)
    allowed = f"limit {si(least.size, 'B')} ({least.source})" if least else "limit unknown here"
    wanted = f"estimate {si(need, 'B')} for {stage}" if need else f"no estimate for {stage}"
    wanted += f" in each of {processes} processes" * (processes > 1)
    return f"out of memory: {allowed}, {wanted}; try {advice(plan, cell, stage)}"


def needed(plan: Plan, cell: PlannedCell, stage: str, room: float | None = None) -> float | None:
    """Give a stage's peak memory by the plan's estimate; None where there is none.

    room: bytes that it may take, to which a training may suit itself.
    """
    from engine.planning.estimate import stage_memory

    with suppress(EngineError, OSError, MemoryError):
        return stage_memory(plan, cell, stage, room)
    return None


def failure(plan: Plan, cell: PlannedCell, stage: str, error: Exception) -> str:
    """Give a failure's message: one sentence with limit and estimate where memory was full."""
    message = f"{type(error).__name__}: {error}"
    where = memory_error(error)
    if where is None:
        return message
    memory_limit = _gpu_limit() if where == "gpu" else limit()
    with suppress(MemoryError):
        return f"{out_of_memory(plan, cell, stage, memory_limit)} ({message.partition(chr(10))[0][:200]})"
    return message


def _gpu_limit() -> Limit | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return Limit(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, "of the GPU")
