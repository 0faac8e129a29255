"""`[analysis]`: what is asked of the results, and how, said before they are there."""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import field, frozen
from msgspec import Meta

from specs.common.names import (
    DERIVED_OUTCOMES,
    EXAMPLE_OUTCOMES,
    GEOMETRY,
    NEUTRAL_OUTCOMES,
    TASK_STAGES,
    CorrectionFamily,
)
from specs.registry import STATISTICS, Named

# Outcomes of test examples, numbers of tasks, and statistics of layers, derived ones and those of plug-ins
# too. Plans are judged by those whose variation docs/power.md knows, or `[analysis.assumed]` tells.
OUTCOMES = Named(
    STATISTICS,
    plain=(*EXAMPLE_OUTCOMES, *NEUTRAL_OUTCOMES, *DERIVED_OUTCOMES, *GEOMETRY),
    starts=(*TASK_STAGES,),
)
Outcome = Annotated[str, OUTCOMES]

SD = "Standard deviation of differences "
NotNegative = Annotated[float, Meta(ge=0)]
Correlation = Annotated[float, Meta(ge=0, lt=1)]


@frozen(kw_only=True)
class Assumed:
    """`[analysis.assumed.OUTCOME]`: how differences of an outcome vary, in its units; docs/power.md."""

    seed: Annotated[
        NotNegative | None, Meta(description=SD + "between seeds, of the mean over all examples.")
    ] = None
    example: Annotated[
        NotNegative | None, Meta(description=SD + "between examples, of the mean over all seeds.")
    ] = None
    rest: Annotated[
        NotNegative | None,
        Meta(
            description=SD
            + "of a single example beyond these two; default for accuracies: what `discordant` "
            "leaves."
        ),
    ] = None
    discordant: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Of accuracies: share of examples that one of the two models alone gets right."),
    ] = None
    within_group: Annotated[
        Correlation | None, Meta(description="Correlation of two examples of one group.")
    ] = None
    between_layers: Annotated[Correlation | None, Meta(description="Correlation of neighbouring layers.")] = (
        None
    )


@frozen(kw_only=True)
class Analysis:
    """`[analysis]`: what is asked of the results, and how; the report and `engine plan` go by it."""

    primary: Annotated[
        Outcome | None,
        Meta(
            description="The outcome that decides: the contrasts in it are confirmatory, where they were "
            "declared before there were results; all others are exploratory."
        ),
    ] = None
    family: Annotated[
        CorrectionFamily,
        Meta(
            description="What p values and simultaneous intervals are corrected over, besides layers. "
            "`contrast`: the levels and positions of one contrast in one outcome. `outcome`: all contrasts "
            "in one outcome. `spec`: all contrasts in all outcomes."
        ),
    ] = "contrast"
    smallest_difference_of_interest: Annotated[
        dict[Outcome, Annotated[float, Meta(gt=0)]],
        Meta(
            description="Outcome → the smallest difference that matters, in its units: `{ correct = 0.02 }` "
            "is two points of accuracy. Results say where no difference is larger (TOST), and `engine plan` "
            "how likely one of this size is found."
        ),
    ] = field(factory=dict)
    monitoring: Annotated[
        Literal["fixed", "spending", "anytime"],
        Meta(
            description="How often results are looked at while seeds are added. `fixed`: once, with all "
            "seeds; `spending`: with the numbers of seeds in `looks`, which share the error rate; "
            "`anytime`: at any number of seeds, by intervals that hold at all of them together, and are "
            "wider."
        ),
    ] = "fixed"
    looks: Annotated[
        list[Annotated[int, Meta(ge=2)]],
        Meta(description='Numbers of seeds, rising, at which results are looked at: for `"spending"`.'),
    ] = field(factory=list)
    assumed: Annotated[
        dict[Outcome, Assumed],
        Meta(
            description="Outcome → how its differences vary, for `engine plan` and `engine power` where "
            "there is no pilot; what is left out is as in docs/power.md."
        ),
    ] = field(factory=dict)
