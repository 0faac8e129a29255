"""The stages of a cell by name: each module's `run`, on the model that the cell needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from attrs import frozen

from engine.models import loading
from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.planning.plan import PlannedCell
from engine.progress import Report
from engine.stages import (
    along,
    checks,
    data,
    differences,
    evaluate,
    inspect_tasks,
    jacobian_lens,
    neutral,
    probe,
    tasks,
    tuned_lens,
    untrained,
)
from engine.stages.checks import Checked
from engine.stages.context import Context
from engine.stages.interventions import stage as interventions
from engine.stages.training import stage as training
from engine.stages.training.together.side_by_side import Beside

MEASURES: Mapping[str, Callable[[Context, PlannedCell, CausalLm, BaseModel, Report], None]] = {
    "base": untrained.run,
    "base_tasks": tasks.run_untrained,
    "base_inspect": inspect_tasks.run_untrained,
    "evaluate": evaluate.run,
    "neutral": neutral.run,
    "tasks": tasks.run,
    "inspect": inspect_tasks.run,
    "lens": tuned_lens.run,
    "jacobian": jacobian_lens.run,
    "probe": probe.run,
    "along": along.run,
    "differences": differences.run,
    "intervene": interventions.run,
}
"""The stages of a model, trained or not, in the order in which they run."""


@frozen
class Stages(Context):
    """Runs single stages of a plan's cells."""

    def prepare_data(self, cell: PlannedCell, _report: Report, *, test: bool) -> None:
        """Run the data stage of a cell's training or test data."""
        data.run(self, cell, test=test)

    def base(self, cell: PlannedCell) -> BaseModel:
        """Load the model that the cell starts from, and its tokenizer."""
        return BaseModel(*loading.load(self.settings("model", cell), self.ranks))

    def check_training(self, cell: PlannedCell) -> None:
        """Raise what a training would fail of before a model is loaded for it."""
        training.check(self, cell)

    def check(self, cell: PlannedCell, stage: Checked, base: BaseModel) -> None:
        """Raise what a stage behind the training would fail of."""
        checks.check(self, cell, stage, base)

    def train(
        self, cell: PlannedCell, base: BaseModel, report: Report, *, beside: Beside | None = None
    ) -> None:
        """Train the cell's adapter, beside others where it has a place; the base model is left as it was."""
        training.run(self, cell, base, report, beside)

    def fitting(self, cells: Sequence[PlannedCell], base: BaseModel) -> int:
        """Give how many of these cells' trainings, from the first on, memory has room for at once."""
        return training.fitting(self, cells, base)

    def lacking(self, cell: PlannedCell) -> set[int]:
        """Give the steps whose adapters stages along the cell's training need, and that were not kept."""
        return training.lacking_steps(self, cell)

    def keep(self, cell: PlannedCell, base: BaseModel, steps: Collection[int], report: Report) -> None:
        """Do the cell's training again for the adapters after some steps; the base model stays as it was."""
        training.keep_again(self, cell, base, steps, report)

    def load(self, cell: PlannedCell, base: BaseModel) -> Any:
        """Give the base model with the cell's trained adapter."""
        return training.load(self, cell, base)

    def measure(
        self, stage: str, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report
    ) -> None:
        """Run a stage of MEASURES on the cell's model."""
        MEASURES[stage](self, cell, model, base, report)
