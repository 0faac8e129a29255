"""What an evaluation costs by what it asks of the model."""

from __future__ import annotations

import pytest

import engine
from engine.planning.estimate import estimate

FIRST = 'target.placement="before"'


@pytest.fixture
def tokens(write_spec):
    """Give a function from overrides to the tokens of one cell's evaluation, with an explanation first."""
    spec = write_spec()

    def of(*overrides: str) -> float:
        plan = engine.plan(spec, (FIRST, "seeds=[0]", *overrides))
        cell = next(cell for cell in plan.cells if "label+explanation" in str(plan.levels(cell)))
        costs = estimate(plan, [cell])
        assert costs is not None
        return costs["evaluate"].tokens

    return of


def test_each_explanation_in_anothers_place_is_a_pass(tokens) -> None:
    plain, one, two = (
        tokens(*more)
        for more in (
            (),
            ('evaluate.counterfactuals=["empty"]',),
            ('evaluate.counterfactuals=["empty", "other"]',),
        )
    )
    assert plain < one and two - one == pytest.approx(one - plain)


def test_each_sample_is_a_generation_with_its_prompt(tokens) -> None:
    plain, one, three = (tokens(f"evaluate.sampling.samples={count}") for count in (0, 1, 3))
    assert one > plain and three - plain == pytest.approx(3 * (one - plain))
    held = tokens("evaluate.sampling.samples=1", "evaluate.sampling.constrained=true")
    assert held > one
