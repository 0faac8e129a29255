"""`[target.loss]`: how much each segment of a target counts in the loss."""

from __future__ import annotations

from typing import Annotated, Any

import attrs
from attrs import field, frozen
from msgspec import Meta

from specs.tables.fields import read_by

SEGMENTS = ("label", "explanation", "end")  # of a target, as its tokens are numbered

BY_TRAIN = read_by("train")
SMALLEST, LARGEST = 1e-6, 1e6  # weights above 0: beyond, a ratio may be too small for float32
Weight = Annotated[float, Meta(ge=0, le=LARGEST)]


@frozen(kw_only=True)
class Loss:
    """`[target.loss]`: the weights of a target's tokens by segment, 1e-6 to 1e6; 0 leaves a segment out."""

    label: Annotated[
        Weight,
        Meta(
            description='The label\'s tokens. Where the tokens of one label begin another ("1" and "10"), '
            "what follows them counts as well: it tells the two apart."
        ),
    ] = field(default=1.0, metadata=BY_TRAIN)
    explanation: Annotated[
        Weight,
        Meta(
            description="All other tokens before the end: the explanation, genuine or not, and the text "
            "that joins it to the label."
        ),
    ] = field(default=1.0, metadata=BY_TRAIN)
    end: Annotated[Weight, Meta(description="The end token.")] = field(default=1.0, metadata=BY_TRAIN)

    @property
    def weights(self) -> dict[str, float]:
        """Give the weight of each segment."""
        weights: dict[str, Any] = attrs.asdict(self)
        return {segment: float(weights[segment]) for segment in SEGMENTS}
