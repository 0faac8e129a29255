"""Designs of more or fewer seeds and examples: what they would find, beside what they cost."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from attrs import frozen

from engine.planning.cost import Cost
from engine.planning.estimate import estimator
from engine.planning.plan import Plan, make_plan
from engine.planning.power import PowerAnswer, PowerQuestion
from specs import SpecError, resolve

SEEDS = (2, 3, 5, 8, 12)
FACTORS = (1 / 4, 1 / 2, 1, 2, 4)  # of the planned examples
FEWEST_EXAMPLES = 8
MOST_SEEDS = 40
MOST_TIMES = 16  # the planned examples, where it is not known how many there are


@frozen
class Sized:
    """One design, and what it finds."""

    seeds: int
    examples: int
    cells: int
    flops: float | None
    """Of the whole design, what is done included; None where the model is not on this machine."""
    detectable: float
    power: float | None
    """Of the difference that was asked about; None without one."""


class Costs:
    """What a plan's cells cost with other numbers of seeds and test examples, by the plan's estimates."""

    def __init__(self, plan: Plan) -> None:
        self._plan = _with_two_seeds(plan)
        seeds = list(dict.fromkeys(self._plan.matrix.seed(cell.choice) for cell in self._plan.cells))
        self._sides = [
            [cell for cell in self._plan.cells if self._plan.matrix.seed(cell.choice) in seeds[:count]]
            for count in (1, 2)
        ]
        self._known: dict[tuple[tuple[str, int], ...], list[float] | None] = {}

    def cells(self, seeds: int) -> int:
        """Give the number of cells."""
        one, two = map(len, self._sides)
        return one + (two - one) * (seeds - 1)

    def flops(self, question: PowerQuestion, seeds: int, examples: int) -> float | None:
        """Give the FLOPs of all stages: those of one seed, and for each further one what a second adds."""
        probed = {stage: _probed(self._plan, question, examples) for stage in ("probe", "intervene")}
        tested = max(question.test, examples) if question.layered else examples
        key = tuple(sorted({"evaluate": tested, **probed}.items()))
        if key not in self._known:
            cost_of = estimator(self._plan, dict(key))
            costs: list[Cost | None] = [cost_of(cells) for cells in self._sides]
            self._known[key] = [cost.flops for cost in costs if cost] if all(costs) else None
        cost_parts = self._known[key]
        return None if cost_parts is None else cost_parts[0] + (cost_parts[1] - cost_parts[0]) * (seeds - 1)


def _probed(plan: Plan, question: PowerQuestion, examples: int) -> int:
    if question.layered:
        return examples
    limits = [plan.matrix.table("probe", cell).examples for cell in plan.matrix.distinct("probe")]
    return min(examples, max((limit for limit in limits if limit), default=examples))


def _with_two_seeds(plan: Plan) -> Plan:
    """Give a plan of at least two seeds, to see what a further one costs."""
    spec = plan.matrix.spec
    if len(seeds := spec.experiment.seeds) > 1:
        return plan
    more = [*seeds, seeds[0] + 1]
    experiment = attrs.evolve(spec.experiment, seeds=more)
    try:
        return make_plan(
            resolve(attrs.evolve(spec, raw={**spec.raw, "seeds": more}, experiment=experiment)), plan.root
        )
    except SpecError:  # rules that name the seed
        return plan


def curve(answer: PowerAnswer, costs: Costs, difference: float | None, power: float) -> Iterator[Sized]:
    """Yield designs around the planned one, by seeds and examples."""
    question = answer.question
    planned = question.design
    sizes = {max(FEWEST_EXAMPLES, round(factor * planned.examples)) for factor in FACTORS}
    if question.most is not None:
        sizes = {min(size, question.most) for size in sizes}
    looks = planned.looks if isinstance(planned.looks, tuple) else ()
    for seeds in sorted({*SEEDS, planned.seeds, *looks}):
        for examples in sorted(sizes):
            yield sized(answer, costs, seeds, examples, difference, power)


def sized(
    answer: PowerAnswer, costs: Costs, seeds: int, examples: int, difference: float | None, power: float
) -> Sized:
    """Give what one design finds and costs."""
    question = answer.question
    power_of = answer.power(question.sized(seeds, examples))
    return Sized(
        seeds,
        examples,
        costs.cells(seeds),
        costs.flops(question, seeds, examples),
        power_of.detectable(power),
        None if difference is None else power_of.of(difference),
    )


def cheapest(answer: PowerAnswer, costs: Costs, difference: float, power: float) -> Sized | None:
    """Find the design of fewest FLOPs, or cells, that finds a difference often enough; None where none does.

    Of each number of seeds the fewest examples that do, up to those that there are.
    """
    question = answer.question
    most = question.most or MOST_TIMES * question.design.examples
    best: tuple[tuple[float, ...], int, int] | None = None
    for seeds in range(2, MOST_SEEDS + 1):
        if best and _price(costs, question, seeds, min(FEWEST_EXAMPLES, most)) >= best[0]:
            break  # any design of so many seeds costs more
        enough = _enough(answer, seeds, most, difference, power)
        if enough is not None:
            price = _price(costs, question, seeds, enough)
            if best is None or price < best[0]:
                best = price, seeds, enough
    return best and sized(answer, costs, best[1], best[2], difference, power)


def _price(costs: Costs, question: PowerQuestion, seeds: int, examples: int) -> tuple[float, ...]:
    flops = costs.flops(question, seeds, examples)
    cells = costs.cells(seeds)
    return (cells, examples) if flops is None else (flops, cells)


def _enough(answer: PowerAnswer, seeds: int, most: int, difference: float, power: float) -> int | None:
    """Give the fewest examples, to 5 %, with which so many seeds find a difference; None where none do."""

    def finds(examples: int) -> bool:
        return answer.power(answer.question.sized(seeds, examples)).of(difference) >= power

    low, high = min(FEWEST_EXAMPLES, most), most
    if not finds(high):
        return None
    if finds(low):
        return low
    while high > 1.05 * low and high > low + 1:
        middle = round((low * high) ** 0.5)
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high
