"""Which trainings go side by side: a group has one base model, batches of one shape, and the same steps.

None of it changes a result beyond rounding, so nothing of it is part of a key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from engine.planning.cards import Cards
from engine.planning.estimate import training_cost
from engine.planning.passes import FILLED
from engine.planning.plan import Plan, PlannedCell, by_training, grouped
from engine.quantities import count
from specs.tables.executor import Executor

Training = list[PlannedCell]  # the cells that share one
BESIDE_OTHERS = ("tensorboard",)  # trackers that follow several trainings of one process


def most_together(settings: Executor, trainings: int) -> int:
    """Give how many trainings go together at most, where so many are to be done.

    "auto" is one: it is more only on devices where that was measured to pay, of which there is none yet. No
    worker is left without work for it.
    """
    if settings.together == "auto" or settings.ranks > 1:
        return 1
    workers = settings.workers or 1 if settings.kind == "local" else 1
    return max(1, min(settings.together, -(-trainings // workers)))


def why_alone(plan: Plan, cell: PlannedCell) -> str | None:
    """Say which setting of a training lets it not go beside others; None where all can.

    What only the model itself tells is found out where it is loaded.
    """
    train, lora = plan.matrix.table("train", cell.choice), plan.matrix.table("lora", cell.choice)
    if lora.dora:
        return "lora.dora"
    if lora.modules_to_save:
        return "lora.modules_to_save"
    if train.compile:
        return "train.compile"
    others = [name for name in train.report_to if name not in BESIDE_OTHERS]
    return f'train.report_to = ["{others[0]}"], which follows one training of a process' if others else None


def training_groups(plan: Plan, cells: Iterable[PlannedCell], most: int) -> list[list[Training]]:
    """Part the trainings of cells into groups of at most so many that go together.

    In a group examples are of similar length, for all batches are as wide as the widest. Groups keep the
    order of `by_training`, each in the place of its first training.
    """
    trainings = list(by_training(plan, cells))
    if most < 2:
        return [[training] for training in trainings]
    places = {training[0].keys["train"]: place for place, training in enumerate(trainings)}
    first = [training[0] for training in trainings]
    lengths = _lengths(plan, first)
    groups: list[list[PlannedCell]] = []
    for alike in grouped(first, lambda cell: _shape(plan, cell)):
        ordered = sorted(alike, key=lambda cell: lengths[cell.index])
        size = -(-len(ordered) // -(-len(ordered) // most))
        groups += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    found = [sorted(places[cell.keys["train"]] for cell in group) for group in groups]
    return [[trainings[place] for place in group] for group in sorted(found)]


def _shape(plan: Plan, cell: PlannedCell) -> Hashable:
    """Give what trainings have in common that go together; of one that goes alone what no other has."""
    train, data = plan.matrix.table("train", cell.choice), plan.matrix.table("data", cell.choice)
    if train.steps == 0 or why_alone(plan, cell):
        return cell.keys["train"]
    passes = train.batch_size, train.accumulation, train.micro_batch, train.gradient_checkpointing
    length = train.steps or (train.epochs, train.tokens, train.label_tokens, data.train)
    return plan.model(cell), train.precision, passes, length, bool(cell.donors)


def _lengths(plan: Plan, cells: Sequence[PlannedCell]) -> dict[int, float]:
    """Estimate the tokens of each training's longest example; 0 where that is unknown."""
    cards, found = Cards(), {}
    for cell in cells:
        cost = training_cost(plan, cell, None, cards=cards)
        found[cell.index] = cost.training.batch.length if cost and cost.training else 0.0
    return found


def groups_memory(plan: Plan, cells: Iterable[PlannedCell], most: int) -> float:
    """Estimate the bytes that the largest group of these trainings takes; 0 where none is known."""
    groups = [group for group in training_groups(plan, cells, most) if len(group) > 1] if most > 1 else []
    sizes = [group_memory(plan, [training[0] for training in group]) for group in groups]
    return max((size for size in sizes if size is not None), default=0.0)


def group_memory(plan: Plan, cells: Sequence[PlannedCell], room: float | None = None) -> float | None:
    """Estimate the bytes that trainings take together: the model once, all else of each.

    All batches are as wide as the widest. None where that is unknown.
    """
    cards = Cards()
    costs = [training_cost(plan, cell, room, cards=cards) for cell in cells]
    known = [cost.training for cost in costs if cost and cost.training]
    if not known or len(known) < len(costs):
        return None
    longest = max(memory.batch.length for memory in known)
    total = known[0].weights
    for cell, memory in zip(cells, known, strict=True):
        widest = (longest, memory.batch.completion)
        cost = training_cost(plan, cell, room, longest=widest, cards=cards)
        assert cost is not None
        total += cost.memory - memory.weights
    return total


def fitting(plan: Plan, cells: Sequence[PlannedCell], room: float | None) -> int:
    """Give how many of these trainings, from the first on, fit into so many bytes together; at least one."""
    if room is None:
        return len(cells)
    for size in range(len(cells), 1, -1):
        need = group_memory(plan, cells[:size], room)
        if need is None or need <= FILLED * room:
            return size
    return 1


def told_alone(plan: Plan, cells: Iterable[PlannedCell], settings: Executor) -> list[str]:
    """Say which trainings cannot go together where that is asked for, in a line for each reason."""
    if settings.together in ("auto", 1):
        return []
    if settings.ranks > 1:
        return [
            f"executor.together: found {settings.together} with executor.ranks = {settings.ranks}; trainings "
            "that several processes share go one by one"
        ]
    reasons = Counter(why_alone(plan, training[0]) for training in by_training(plan, cells))
    return [
        f"executor.together: found {settings.together}, but {count(number, 'training')} cannot go beside "
        f"others: {reason}"
        for reason, number in reasons.items()
        if reason
    ]
