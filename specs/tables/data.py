"""`[data]` and `[data.columns]`: where the examples come from and how many of them each split gives."""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import field, frozen
from msgspec import Meta

from specs.registry import PUBLIC_SETS, Named
from specs.tables.fields import EXECUTION_ONLY, LATER, WORDS_OF_FIELD, PositiveInt, read_by


@frozen(kw_only=True)
class Columns:
    """`[data.columns]`: which column of the source holds what."""

    context: Annotated[
        str, Meta(description='What the rated answer replies to; "" where there is nothing of the kind.')
    ] = "context"
    response: Annotated[str, Meta(description="The text that is rated.")] = "response"
    label: Annotated[str, Meta(description="The true label; `{dimension}` is filled in.")] = "label"
    explanation: Annotated[
        str,
        Meta(
            description="The reason for the label; `{dimension}` is filled in. A source may be without the "
            "column of this name, but not without one that is named otherwise."
        ),
    ] = "explanation"
    further_explanations: Annotated[
        list[str],
        Meta(
            description="Columns of further explanations of the same labels; `{dimension}` is filled in. A "
            "training draws one of an example's explanations anew in every epoch, by the run seed; all else "
            "takes the first. So it is where the column of explanations holds lists of texts."
        ),
    ] = field(factory=list, metadata=LATER)
    fields: Annotated[
        list[Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", extra=WORDS_OF_FIELD)]],
        Meta(
            description='Further columns that a prompt shows: `fields = ["title"]` makes `{title}` a field '
            "of `prompt.template`. Their values may be empty."
        ),
    ] = field(factory=list, metadata=LATER)
    messages: Annotated[
        str | None,
        Meta(
            description="The column of a chat, a list of messages with `role` and `content`, in place of "
            "`context` and `response`: the context then is a script of all messages but the last, which is "
            "the response. If a row has no label, the assistant's answer at the end is its label. "
            "`prompt.messages` shows a chat message by message."
        ),
    ] = field(default=None, metadata=LATER)
    group: Annotated[
        str | None,
        Meta(
            description="Rows of one group are never divided between train and test. Default: the "
            "context, or the response where there is none; of a chat, its first message that is none of "
            "the system."
        ),
    ] = None


@frozen(kw_only=True)
class Data:
    """`[data]`: the examples, and how many of them each split gives."""

    source: Annotated[
        str | Annotated[list[str], Meta(min_length=1)],
        Meta(
            description="A file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet` or `.arrow`, packed (`.gz`) "
            "or not), or a folder of them, relative to the file in which it stands. "
            "Or a hub id. Or `graded-dialogues` (built "
            "in), a part of it (`graded-dialogues/machines`, `…/people`, `…/world`), or all of its ratings "
            "(`graded-dialogues/all-ratings`). Or a public set by name: `chatbot-arena`, `hh-rlhf-chosen`, "
            "`hh-rlhf-rejected`, `amazon-qa`, `coqa`, `cornell-movie-dialogs`, `ag-news`, "
            "`medical-abstracts`, or one of a plug-in. A list puts several together."
        ),
    ]
    adapter: Annotated[
        str,
        Named(PUBLIC_SETS, plain=("none",)),
        Meta(
            description="The source is a copy or a mirror of this public set, in its own schema; `columns` "
            "is not used then."
        ),
    ] = "none"
    dimension: Annotated[str, Meta(description="The quality that is rated.")] = "naturalness"
    config: Annotated[str | None, Meta(description="Configuration (subset) of a hub data set.")] = None
    revision: Annotated[
        str | None, Meta(description="Hub commit of the data set; pin it. Default: a public set's own.")
    ] = None
    streaming: Annotated[
        bool,
        Meta(
            description="Read hub data as they come, without a copy in the cache of `datasets`; files are "
            "always read so."
        ),
    ] = field(default=False, metadata=EXECUTION_ONLY)
    train_split: Annotated[str, Meta(description="Split of a hub data set to train on.")] = "train"
    test_split: Annotated[
        str | None,
        Meta(description="Split of a hub data set to test on; default: hold groups of `train_split` out."),
    ] = None
    columns: Annotated[Columns, Meta(description="Column mapping for files and hub data sets.")] = field(
        factory=Columns
    )
    filter: Annotated[
        dict[str, str | int | bool | list[str]],
        Meta(
            description="Keep the rows whose column of this name holds the value, or one of the values; an "
            'empty list keeps all. `filter = { language = "English" }`.'
        ),
    ] = field(factory=dict)
    max_characters: Annotated[
        PositiveInt | None,
        Meta(
            description="Longest context, response and further fields together; longer rows are left out and "
            "counted; default: no limit."
        ),
    ] = None
    rows: Annotated[
        PositiveInt | None,
        Meta(
            description="At most so many rows of each source, drawn by `seed` whatever their order; "
            "default: all."
        ),
    ] = None
    invalid: Annotated[
        Literal["error", "drop"],
        Meta(
            description="Rows with an empty value or a label that is none of `evaluate.labels`: an error "
            "that lists them, or left out and counted."
        ),
    ] = "error"
    empty_explanations: Annotated[
        Literal["error", "drop", "label"],
        Meta(
            description="Rows whose explanation is empty or spaces alone: an error where `target.content` "
            "needs one; left out and counted, under every condition alike; or, where one is needed, trained "
            "on the label alone and counted."
        ),
    ] = "error"
    holdout: Annotated[float, Meta(gt=0, lt=1, description="Share of the groups held out for testing.")] = (
        0.25
    )
    validation_share: Annotated[
        float, Meta(gt=0, lt=1, description="Share of the remaining groups kept for validation.")
    ] = 0.1
    seed: Annotated[int, Meta(ge=0, description="Seed of split and order; independent of the run seeds.")] = 0
    train: Annotated[PositiveInt | None, Meta(description="Training examples; default: all.")] = field(
        default=None, metadata=read_by("train", "lens", "jacobian")
    )
    validation: Annotated[
        PositiveInt | None, Meta(description="Validation examples (early stopping); default: all.")
    ] = field(default=None, metadata=read_by("train"))
    test: Annotated[PositiveInt | None, Meta(description="Test examples; default: all.")] = field(
        default=None, metadata=read_by("evaluate", "probe", "along", "differences", "intervene")
    )
    fingerprint: Annotated[
        str | None,
        Meta(description="Expected fingerprint of the source; another one is an error, never a surprise."),
    ] = field(default=None, metadata=EXECUTION_ONLY)
