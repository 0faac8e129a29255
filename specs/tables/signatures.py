"""`[signatures]`: from where on a measure counts as a failure of fine-tuning, and which factors it needs."""

from __future__ import annotations

from typing import Annotated

from attrs import frozen
from msgspec import Meta

from specs.common import thresholds as defaults


@frozen(kw_only=True)
class Signatures:
    """`[signatures]`: thresholds of the failure signatures that `engine status` and the report look for."""

    mismatch: Annotated[
        float,
        Meta(
            ge=0, le=1,
            description="Share of generated explanations that name other labels than the predicted one, and "
            "not that one.",
        ),
    ] = defaults.MISMATCH  # fmt: skip
    train_gap: Annotated[
        float,
        Meta(
            ge=-1, le=1,
            description="Accuracy on training examples (`evaluate.train_examples`) less that on test ones.",
        ),
    ] = defaults.TRAIN_GAP  # fmt: skip
    set_gap: Annotated[
        float,
        Meta(ge=-1, le=1, description="Accuracy on the set trained on less the mean of that on the others."),
    ] = defaults.SET_GAP
    confusion: Annotated[
        float,
        Meta(ge=0, le=2, description="Correlation of two dimensions' predictions less that of their labels."),
    ] = defaults.CONFUSION
    collapse: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of examples whose final entropy is at most `collapsed_entropy`."),
    ] = defaults.COLLAPSE
    collapsed_entropy: Annotated[float, Meta(ge=0, description="Entropy, in nat.")] = (
        defaults.COLLAPSED_ENTROPY
    )
    templates: Annotated[
        float,
        Meta(
            ge=0, le=1,
            description="Share of generated explanations that open alike, or that repeat an earlier one.",
        ),
    ] = defaults.TEMPLATES  # fmt: skip
    train: Annotated[
        str | None, Meta(description="Factor of the set trained on, for `set_gap`, as in a transfer study.")
    ] = None
    test: Annotated[str | None, Meta(description="Factor of the set tested on.")] = None
    dimension: Annotated[
        str | None, Meta(description="Factor of the dimension tested on, for `confusion`.")
    ] = None
