"""`[data]` and `[data.columns]`: where the examples come from and how many of them each split gives."""

from __future__ import annotations

from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from specs.fields import EXECUTION_ONLY, PositiveInt, read_by


@frozen(kw_only=True)
class Columns:
    """`[data.columns]`: which column of the source holds what."""

    context: Annotated[str, Meta(description="What the rated answer replies to.")] = "context"
    response: Annotated[str, Meta(description="The text that is rated.")] = "response"
    label: Annotated[str, Meta(description="The true label; `{dimension}` is filled in.")] = "label"
    explanation: Annotated[
        str | None, Meta(description="The reason for the label; `{dimension}` is filled in.")
    ] = None
    group: Annotated[
        str | None,
        Meta(description="Rows of one group never part between train and test; default: the context."),
    ] = None


@frozen(kw_only=True)
class Data:
    """`[data]`: the examples, and how many of them each split gives."""

    source: Annotated[
        str,
        Meta(
            description="`graded-dialogues` (built in), a `.jsonl`, `.csv` or `.parquet` file "
            "(relative to the spec), or a hub id."
        ),
    ]
    dimension: Annotated[str, Meta(description="The quality that is rated.")] = "naturalness"
    config: Annotated[str | None, Meta(description="Configuration (subset) of a hub data set.")] = None
    revision: Annotated[str | None, Meta(description="Hub commit of the data set; pin it.")] = None
    train_split: Annotated[str, Meta(description="Split of a hub data set to train on.")] = "train"
    test_split: Annotated[
        str | None,
        Meta(description="Split of a hub data set to test on; default: hold groups of `train_split` out."),
    ] = None
    columns: Annotated[Columns, Meta(description="Column mapping for files and hub data sets.")] = field(
        factory=Columns
    )
    holdout: Annotated[float, Meta(gt=0, lt=1, description="Share of the groups held out for testing.")] = (
        0.25
    )
    validation_share: Annotated[
        float, Meta(gt=0, lt=1, description="Share of the remaining groups kept for validation.")
    ] = 0.1
    seed: Annotated[int, Meta(ge=0, description="Seed of split and order; independent of the run seeds.")] = 0
    train: Annotated[PositiveInt | None, Meta(description="Training examples; default: all.")] = field(
        default=None, metadata=read_by("train")
    )
    validation: Annotated[
        PositiveInt | None, Meta(description="Validation examples (early stopping); default: all.")
    ] = field(default=None, metadata=read_by("train"))
    test: Annotated[PositiveInt | None, Meta(description="Test examples; default: all.")] = field(
        default=None, metadata=read_by("evaluate", "probe")
    )
    fingerprint: Annotated[
        str | None,
        Meta(description="Expected fingerprint of the source; another one is an error, never a surprise."),
    ] = field(default=None, metadata=EXECUTION_ONLY)
