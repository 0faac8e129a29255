"""The power of a plan's contrasts for a person and for a program."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
from rich.text import Text

from engine.cli.grids import Column, Grid
from engine.cli.output import FORMAT
from engine.errors import UsageError
from engine.planning.plan import Plan
from engine.planning.power import PowerAnswer, PowerQuestion, answers
from engine.planning.power_designs import MOST_SEEDS, MOST_TIMES, Costs, Sized, cheapest, curve
from engine.quantities import count, si
from engine.terminal import joined, styled
from specs.common.names import DERIVED_STATISTICS, EXAMPLE_OUTCOMES, GEOMETRY, STEP
from specs.common.thresholds import POWER
from specs.registry import STATISTICS
from specs.tables.analysis import Outcome
from store.backend.location import Root


def amount(value: float, outcome: str) -> str:
    """Give a difference in words: 3.2 points, 0.12 nat."""
    share = outcome.endswith("correct")
    if not math.isfinite(value) or (share and value > 1):
        return "none"
    if share:
        return f"{100 * value:.3g} points"
    return f"{value:.3g} {_units(outcome)}".rstrip()


def _units(outcome: str) -> str:
    """Give the units of an outcome that is no share, "" for a number without."""
    from engine.stages.statistics import Statistic

    if outcome in EXAMPLE_OUTCOMES:
        return "nat" if outcome == "nll" else ""
    name = outcome.removesuffix(STEP)
    if name in (known := DERIVED_STATISTICS | GEOMETRY):
        return known[name][0].removeprefix("1")
    return STATISTICS.get(name, Statistic).units.removeprefix("1")


def rows(plan: Plan, pilot: Root | None = None, power: float = POWER) -> list[dict[str, Any]]:
    """Give as JSON values what each contrast of a plan would find."""
    return [_row(plan, answer, power) for answer in answers(plan, pilot)]


def _row(plan: Plan, answer: PowerAnswer, power: float) -> dict[str, Any]:
    question = answer.question
    design = question.design
    power_of = answer.power(design)
    interest = plan.matrix.experiment.analysis.smallest_difference_of_interest.get(question.outcome)
    return {
        "contrast": question.factor,
        "levels": list(question.levels),
        "baseline": question.baseline,
        "outcome": question.outcome,
        "seeds": design.seeds,
        "examples": design.examples,
        "groups": design.groups and round(design.groups, 1),
        "pairs": design.pairs,
        "layers": design.layers if question.layered else None,
        "tests": design.tests,
        "looks": list(design.looks) if isinstance(design.looks, tuple) else design.looks,
        "test_sets": question.sets,
        "detectable": _finite(power_of.detectable(power)),
        "detectable_range": answer.range
        and [_finite(answer.power(design, variation).detectable(power)) for variation in answer.range],
        "detectable_alone": _finite(answer.power(design, alone=True).detectable(power)),
        "difference_of_interest": interest,
        "power": None if interest is None else power_of.of(interest),
        "variances": {
            name: variance
            for name, variance in attrs.asdict(answer.variation).items()
            if variance is not None
        },
        "source": answer.source,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plan_lines(rows: list[dict[str, Any]], power: float = POWER) -> Iterator[Grid | Text | str]:
    """Yield a table of what the contrasts would find, where the variances come from, and warnings."""
    if not rows:
        return
    wished = any(row["power"] is not None for row in rows)
    columns = [
        Column("contrast", "name"), Column("outcome", "name"), Column("measured"), Column("finds"),
        Column("alone"), *[Column("of interest: power")] * wished,
    ]  # fmt: skip
    table = Grid(f"true differences that would be found with {power:.0%} power (p < 0.05)", columns)
    for row in rows:
        outcome, seeds = row["outcome"], row["seeds"]
        measured = [f"{seeds} seed{'s' * (seeds > 1)}", f"{row['examples']:,} examples"]
        if row["groups"]:
            measured.append(f"{row['groups']:.0f} groups")
        interest = row["difference_of_interest"]
        table.add(
            _contrast(row),
            outcome,
            joined(measured, "\n"),
            _finds(row),
            _amount(row["detectable_alone"], outcome),
            *["" if interest is None else f"{amount(interest, outcome)}: {row['power']:.0%}"] * wished,
        )
    yield table
    for source in dict.fromkeys(row["source"] for row in rows):
        outcomes = dict.fromkeys(row["outcome"] for row in rows if row["source"] == source)
        yield f"variances of {', '.join(outcomes)}: {source}"
    yield from notes(rows)
    told = warnings(rows, power)
    for warning in told:
        yield styled(f"warning: {warning}", "yellow")
    if told:
        yield "`engine power` says what more seeds and examples would find, and what they cost."


def _contrast(row: dict[str, Any]) -> str:
    levels = ", ".join(map(str, row["levels"]))
    sets = f" (each of {row['test_sets']} test sets)" if row["test_sets"] > 1 else ""
    return f"{row['contrast']}: {levels} vs {row['baseline']}{sets}"


def _finds(row: dict[str, Any]) -> Text:
    lines = [_amount(row["detectable"], row["outcome"])]
    if row["detectable_range"]:
        low, high = (_amount(bound, row["outcome"]) for bound in row["detectable_range"])
        lines.append(f"({low} to {high})")
    return joined([*lines, *[f"of {row['tests']:,} tests"] * (row["tests"] > 1)], "\n")


def _amount(value: float | None, outcome: str) -> str:
    return amount(math.inf if value is None else value, outcome)


def notes(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield what no number of the table says: what one and two seeds can tell."""
    seeds = {row["seeds"] for row in rows}
    if 1 in seeds:
        yield (
            "One seed: these are differences between these very models; whether training again gives the "
            "same cannot be told."
        )
    for looks, number in dict.fromkeys((_looks(row["looks"]), row["seeds"]) for row in rows if row["looks"]):
        yield f"{looks}: what is told is found at the look with {number} seeds; some of it is before."
    if any(row["seeds"] == 2 and row["layers"] for row in rows):
        yield (
            "Two seeds: in a single layer nothing can be found but a huge difference, for two seeds hardly "
            "tell how much trainings differ; three are the least for layers."
        )


def _looks(looks: list[int] | str) -> str:
    """Give in words over which looks the error rate holds."""
    if isinstance(looks, str):
        return "Looks at every number of seeds from 2 on share the error rate"
    *first, last = map(str, looks)
    return f"Looks at {', '.join(first)}{' and ' * bool(first)}{last} seeds share the error rate"


def warnings(rows: Iterable[dict[str, Any]], power: float = POWER) -> list[str]:
    """Give a sentence for each contrast whose smallest difference of interest would hardly be found."""
    return [
        f"{_contrast(row)}: {amount(row['difference_of_interest'], row['outcome'])} in {row['outcome']}, the "
        f"smallest difference of interest, would be found with {row['power']:.0%} power"
        for row in rows
        if row["power"] is not None and row["power"] < power
    ]


def one_answer(plan: Plan, pilot: Root | None, contrast: str | None, outcome: Outcome | None) -> PowerAnswer:
    """Give the first contrast and outcome that are asked for; of its levels the one that is hardest to find.

    UsageError where the spec declares no contrast.
    """
    known = answers(plan, pilot, contrast=contrast, outcome=outcome)
    if not known:
        file = plan.matrix.spec.path
        raise UsageError(f"{file}: expected [[contrasts]] in an outcome that its cells measure, found none")
    first = known[0].question
    asked = first.contrast, first.outcome
    same = [answer for answer in known if (answer.question.contrast, answer.question.outcome) == asked]
    return max(same, key=lambda answer: answer.power(answer.question.design).detectable())


def designs(
    plan: Plan, answer: PowerAnswer, difference: float | None, power: float
) -> tuple[list[Sized], Sized | None]:
    """Give the designs around the planned one, and the cheapest that finds a difference."""
    costs = Costs(plan)
    best = None if difference is None else cheapest(answer, costs, difference, power)
    return list(curve(answer, costs, difference, power)), best


def curve_lines(
    plan: Plan, answer: PowerAnswer, difference: float | None, power: float
) -> Iterator[Grid | str]:
    """Yield the designs as a table, and the cheapest one in a sentence."""
    numbers = _row(plan, answer, power)
    outcome, planned = answer.question.outcome, answer.question.design
    listed, best = designs(plan, answer, difference, power)
    layers = f", in one layer of {numbers['layers']}" if numbers["layers"] else ""
    layers += f", after correction for {numbers['tests']:,} tests" if numbers["tests"] > 1 else ""
    wished = [] if difference is None else [f"power at {amount(difference, outcome)}"]
    titles = ("seeds", "examples", "cells", "FLOPs", f"finds with {power:.0%}", *wished)
    table = Grid(f"{_contrast(numbers)}: {outcome}{layers}", [*map(Column, titles)])
    seeds = 0
    for row in listed:
        if row.seeds != seeds and seeds:
            table.part()
        seeds = row.seeds
        marked = (row.seeds, row.examples) == (planned.seeds, planned.examples)
        cells = [str(row.seeds), f"{row.examples:,}", f"{row.cells:,}", si(row.flops) if row.flops else ""]
        cells.append(amount(row.detectable, outcome))
        table.add(*cells, *([] if row.power is None else [f"{row.power:.0%}"]), bold=marked)
    yield table
    yield "cells and FLOPs: of the whole study, what is done included; bold: as planned"
    yield f"variances: {answer.source}"
    if numbers["looks"]:
        yield f"{_looks(numbers['looks'])}; another number of seeds is taken for the last look."
    if difference is not None:
        yield _cheapest(answer.question, best, difference, power)


def _cheapest(question: PowerQuestion, best: Sized | None, difference: float, power: float) -> str:
    wish = f"{amount(difference, question.outcome)} with {power:.0%} power"
    if best is None:
        most = question.most or MOST_TIMES * question.design.examples
        held = ", all that there are" if question.most else ""
        return f"No design of up to {MOST_SEEDS} seeds × {most:,} examples{held}, finds {wish}."
    flops = f", {si(best.flops)}FLOPs" if best.flops else ""
    return (
        f"The cheapest design that finds {wish}: {best.seeds} seeds × {best.examples:,} examples "
        f"({count(best.cells, 'cell')}{flops})."
    )


def curve_json(plan: Plan, answer: PowerAnswer, difference: float | None, power: float) -> dict[str, Any]:
    """Give the same as JSON values."""
    listed, best = designs(plan, answer, difference, power)
    return {
        "format": FORMAT,
        **_row(plan, answer, power),
        "wished_difference": difference,
        "wished_power": power,
        "designs": [_sized(design) for design in listed],
        "cheapest": best and _sized(best),
    }


def _sized(design: Sized) -> dict[str, Any]:
    return attrs.asdict(design) | {"detectable": _finite(design.detectable)}
