"""What an executor is given, of a spec and a store."""

from __future__ import annotations

from pathlib import Path

from engine.planning.plan import make_plan
from engine.running.executors.base import Job, Work
from engine.running.outcome import Options
from engine.running.scheduler import units
from specs import load_spec, resolve


def job_of(spec: Path, root: Path) -> tuple[Job, list[Work]]:
    plan = make_plan(resolve(load_spec(spec)), root)
    return Job(plan.matrix.spec.anchored(), plan.root, Options(), 60.0), units(plan, plan.cells, 1)
