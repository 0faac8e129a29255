"""What a plan says that is no mistake by itself: data without explanations, schedules, devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.data.prepare import SPLITS
from engine.models.gpus import missing_gpu
from engine.planning.checks import known_sizes
from engine.planning.plan import Plan, PlannedCell, grouped
from engine.planning.schedule import schedule_warnings
from specs.tables.data import Data
from store import Ledger

_FATE = {"error": "a stage that reads them will fail", "label": "the label alone stands for them"}


def plan_warnings(plan: Plan) -> list[str]:
    """Give what a person should know before the plan is executed, a sentence each."""
    return [*_unexplained(plan), *schedule_warnings(plan), *_devices(plan)]


def _devices(plan: Plan) -> Iterator[str]:
    """Yield a sentence per device that this machine has not; another one may execute the plan."""
    if plan.matrix.experiment.executor.kind != "local":
        return
    models = (plan.matrix.table("model", cell).device for cell in plan.matrix.distinct("model"))
    for device in dict.fromkeys(models):
        if lacking := missing_gpu(device):
            yield f'{lacking}; expected a machine that has it for `engine execute`, or "auto", or "cpu"'


def _unexplained(plan: Plan) -> Iterator[str]:
    """Yield a sentence per data set that lacks explanations where targets need them, as far as is known."""
    needing = [cell for cell in plan.cells if plan.matrix.table("target", cell.choice).content != "label"]
    for cells in grouped(needing, lambda cell: cell.keys["data"]):
        data = plan.matrix.table("data", cells[0].choice)
        counts = _counts(plan, cells[0], data)
        if dropped := int(counts.get("dropped_unexplained", 0)):
            yield f'data.empty_explanations = "drop": {dropped:,} rows without explanation are left out'
        found = {split: int(counts.get(f"{split}_examples_without_explanation", 0)) for split in SPLITS}
        if any(found.values()):
            numbers = ", ".join(f"{number:,} {split}" for split, number in found.items() if number)
            contents = dict.fromkeys(plan.matrix.table("target", cell.choice).content for cell in cells)
            lacking = f"{numbers} examples have no explanation, which {', '.join(contents)} needs"
            policy = data.empty_explanations
            yield f'data.empty_explanations = "{policy}": {lacking}; {_FATE.get(policy, "")}'


def _counts(plan: Plan, cell: PlannedCell, data: Data) -> Mapping[str, float]:
    """Give what is known of a data set: from the store, else from files that are read at once."""
    key = cell.keys["data"]
    if plan.states["data"][key] == "cached":
        return dict(Ledger(plan.root).record("data", key)["summary"])
    return known_sizes(data, plan.matrix.table("evaluate", cell.choice).labels) or {}
