"""`[evaluate.sampling]`: answers that are drawn beside the greedy one."""

from __future__ import annotations

from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from specs.tables.fields import read_by

BY_EVALUATE = read_by("evaluate")


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
    ] = field(default=0, metadata=BY_EVALUATE)
    temperature: Annotated[
        float, Meta(gt=0, description="Logits are divided by it; 1: the model's own distribution.")
    ] = field(default=1.0, metadata=BY_EVALUATE)
    top_p: Annotated[
        float,
        Meta(
            gt=0, le=1,
            description="Draw from the likeliest tokens that together have this probability (nucleus "
            "sampling: Holtzman et al., arXiv 1904.09751); 1: from all.",
        ),
    ] = field(default=1.0, metadata=BY_EVALUATE)  # fmt: skip
    constrained: Annotated[
        bool,
        Meta(
            description="Draw the label among the labels' spellings, at its place; the explanation beside it "
            "is free."
        ),
    ] = field(default=False, metadata=BY_EVALUATE)
