"""The command `power`: what other numbers of seeds and examples would find, and what they would cost."""

from __future__ import annotations

from pathlib import Path

import click

from engine.cli.output import CSV, JSON, check_one, say_csv, say_json
from engine.cli.parameters import SET, SPEC, STORE, FiniteRange
from engine.errors import UsageError
from engine.terminal import Terminal
from specs.common.thresholds import POWER
from specs.tables.analysis import OUTCOMES, Outcome
from specs.toml.describe import expected
from store.backend.location import Root


@click.command()
@SPEC
@SET
@click.option(
    "--store", "--pilot", "pilot", type=STORE,
    help="Store that tells how results vary; by default the spec's own.",
)  # fmt: skip
@click.option(
    "--contrast", metavar="FACTOR",
    help="A factor of [[contrasts]], or `FACTOR against BASELINE`; by default the first.",
)  # fmt: skip
@click.option("--outcome", metavar="NAME", help="By default the first that plan shows.")
@click.option(
    "--difference", type=FiniteRange(min=0, min_open=True),
    help="The difference to be found, in the outcome's units (0.03: 3 points); default: that of [analysis].",
)  # fmt: skip
@click.option(
    "--power", "wished", type=FiniteRange(0, 1, min_open=True, max_open=True), default=POWER,
    show_default=True, help="How often it is to be found.",
)  # fmt: skip
@JSON
@CSV
def power(
    spec: Path,
    overrides: tuple[str, ...],
    pilot: Root | None,
    contrast: str | None,
    outcome: Outcome | None,
    difference: float | None,
    wished: float,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show what more or fewer seeds and examples would find and cost, and the cheapest design that does."""
    from engine import api
    from engine.cli.power_tables import curve_json, curve_lines, one_answer
    from store.analysis.value_ranges import change_range

    check_one(as_json=as_json, as_csv=as_csv)
    if outcome is not None and outcome not in OUTCOMES:
        raise UsageError(f"--outcome: found {outcome}; expected {expected(Outcome)}")
    plan = api.plan(spec, overrides)
    answer = one_answer(plan, pilot, contrast, outcome)
    if difference is None:
        interest = plan.matrix.experiment.analysis.smallest_difference_of_interest
        difference = interest.get(answer.question.outcome)
    elif difference > (most := change_range(answer.question.outcome)[1]):
        points = f"; {difference:g} points are {difference / 100:g}" * answer.question.share
        raise UsageError(
            f"--difference: found {difference:g}; expected at most {most:g}, by which means of "
            f"{answer.question.outcome} can differ{points}"
        )
    if as_json:
        say_json(curve_json(plan, answer, difference, wished))
    elif as_csv:
        say_csv(curve_json(plan, answer, difference, wished)["designs"])
    else:
        for part in curve_lines(plan, answer, difference, wished):
            Terminal().print(part)
