"""`engine plan --exact`: memory of trainings by tensors that are counted, beside the plan's rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from engine.planning.estimate import stage_costs
from engine.planning.known_models import known_model
from engine.planning.plan import Plan
from engine.planning.sizes import model_card
from engine.planning.training_memory import TrainingMemory
from engine.quantities import si
from specs.tables.experiment import Model

if TYPE_CHECKING:
    from engine.planning.cost import Cost
    from engine.planning.plan import PlannedCell


@frozen
class ExactMemory:
    """The memory of trainings with equal settings, in bytes: by the rule, and with what was counted."""

    trainings: int
    model: str
    rows: int
    tokens: int  # of the longest text
    rule: float
    counted: float | None  # None where tensors without content do not get through the model
    reason: str = ""

    def line(self) -> str:
        """Say it in one line."""
        many = f"{self.trainings} trainings" if self.trainings > 1 else "one training"
        counted = self.reason if self.counted is None else f"{si(self.counted, 'B')} counted"
        return (
            f"memory of {many} of {self.model}, {self.rows} × {self.tokens} tokens: "
            f"{si(self.rule, 'B')} by the rule, {counted}"
        )

    def as_json(self) -> dict[str, Any]:
        """Give the same as JSON values."""
        return asdict(self)


def exact_memory(plan: Plan) -> Iterator[ExactMemory]:
    """Count, for each kind of training that is to be done, what it keeps for its backward pass."""
    for _, cells, cost in stage_costs(plan):
        if cost is not None and cost.training is not None:
            yield _counted(plan, cells, cost, cost.training)


def _counted(plan: Plan, cells: list[PlannedCell], cost: Cost, memory: TrainingMemory) -> ExactMemory:
    from engine.stages.training.saved_tensors import count_saved

    table, choice = plan.matrix.table, cells[0].choice
    model, lora, train = table("model", choice), table("lora", choice), table("train", choice)
    train = train if cost.passes is None else cost.passes.applied(train)
    rows, tokens = memory.batch.rows, round(memory.batch.length)
    counted, reason = None, ""
    try:
        saved = count_saved(_config(model), model, lora, train, rows, tokens, round(memory.batch.completion))
        counted = cost.memory - memory.kept + saved.peak
    except RuntimeError as error:  # where the way through a model depends on the content of tensors
        reason = f"not countable: {str(error).partition(chr(10))[0][:200]}"
    return ExactMemory(len(cells), model.id, rows, tokens, cost.memory, counted, reason)


def _config(model: Model) -> Any:
    known = known_model(model)
    if known is not None and model_card(model) is None:
        from transformers import AutoConfig

        return AutoConfig.for_model(known.type, **known.config)
    from engine.models.loading import load_config

    return load_config(model)
