"""`[evaluate.sampling]`: answers that are drawn beside the greedy one."""

from __future__ import annotations

from typing import Annotated

from attrs import frozen
from msgspec import Meta


@frozen(kw_only=True)
class Sampling:
    """`[evaluate.sampling]`: answers drawn from the model beside the greedy one. See evaluation.md."""

    samples: Annotated[
        int,
        Meta(
            ge=0,
            description="Answers drawn for each test example, by the seed, the example and the sample's "
            "number; 0: none.",
        ),
    ] = 0
    temperature: Annotated[
        float, Meta(gt=0, description="Logits are divided by it; 1: the model's own distribution.")
    ] = 1.0
    top_p: Annotated[
        float,
        Meta(
            gt=0, le=1,
            description="Draw from the likeliest tokens that together have this probability (nucleus "
            "sampling: Holtzman et al., arXiv 1904.09751); 1: from all.",
        ),
    ] = 1.0  # fmt: skip
    constrained: Annotated[
        bool,
        Meta(
            description="Draw the label among the labels' spellings, at its place; the explanation beside it "
            "is free."
        ),
    ] = False
