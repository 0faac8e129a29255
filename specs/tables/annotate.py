"""`[annotate]`: ratings and explanations for unrated conversations, from annotators × prompting strategies.

No stage of a cell reads this table, so it is part of no stage key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import field, frozen
from msgspec import Meta

from specs.tables.fields import WORDS_OF_NAME, FloatType, Quantization

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

TEMPLATE = """\
Rate the {dimension} of a reply on a scale from {low} (worst) to {high} (best). {definition}
{examples}
Message: {context}
Reply: {response}

Answer with one JSON object and nothing else, of this form:
{{"rating": <integer from {low} to {high}>, "explanation": "<one or two sentences>"}}"""

MERGE_TEMPLATE = """\
Several people rated the {dimension} of a reply and explained their ratings. {definition}
Together they gave it {rating} on a scale from {low} (worst) to {high} (best).

Message: {context}
Reply: {response}

Their explanations:
{explanations}

Write one explanation of the rating {rating} that keeps what they agree on and does not mention the people.
Answer with one JSON object and nothing else, of this form:
{{"explanation": "<one or two sentences>"}}"""

# What the output holds of a conversation, beside its ratings.
COLUMNS = ("id", "context", "response", "group", "source", "split")

FIELDS = ("context", "response", "dimension", "definition", "low", "high", "examples")
MERGE_FIELDS = ("context", "response", "dimension", "definition", "low", "high", "rating", "explanations")


@frozen(kw_only=True)
class Annotator:
    """`[[annotate.annotators]]`: a language model that is asked, behind an API or loaded here."""

    name: Annotated[str, Meta(pattern=NAME, extra=WORDS_OF_NAME, description="Its name in logs and tables.")]
    model: Annotated[
        str,
        Meta(
            description="Name of the model at the endpoint; without `endpoint`, a model to load here, as "
            "`model.id`."
        ),
    ]
    endpoint: Annotated[
        str | None,
        Meta(
            description="Base URL of an OpenAI-compatible API, as in `http://localhost:8000/v1`; requests go "
            "to `{endpoint}/chat/completions`."
        ),
    ] = None
    key_env: Annotated[
        str | None,
        Meta(description="NAME of the environment variable that holds the API key; never the key itself."),
    ] = None
    revision: Annotated[str | None, Meta(description="As `model.revision`, for a model loaded here.")] = None
    dtype: Annotated[FloatType, Meta(description="As `model.dtype`.")] = "bfloat16"
    quantization: Annotated[Quantization, Meta(description="As `model.quantization`.")] = "none"
    temperature: Annotated[
        float, Meta(ge=0, description="Sampling temperature; a model loaded here decodes greedily (0).")
    ] = 0.0
    max_tokens: Annotated[int, Meta(ge=1, description="Longest answer, in tokens.")] = 256
    parameters: Annotated[
        dict[str, Any],
        Meta(description="Further keys of the request, as in `{ top_p = 0.9, seed = 1 }`."),
    ] = field(factory=dict)
    concurrency: Annotated[
        int, Meta(ge=1, description="Most requests at the same time; the batch size of a model loaded here.")
    ] = 8
    requests_per_minute: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Most requests per minute, retries included; default: no limit."),
    ] = None
    timeout: Annotated[float, Meta(gt=0, description="Seconds that one request may take.")] = 120.0
    retries: Annotated[
        int,
        Meta(
            ge=0,
            description="Further tries after a timeout, a lost connection or a status 408, 409, 429, 5xx.",
        ),
    ] = 5
    backoff: Annotated[
        float,
        Meta(gt=0, description="Seconds before the first retry; each further one waits twice as long."),
    ] = 1.0
    prompt_price: Annotated[float, Meta(ge=0, description="Price of a million prompt tokens.")] = 0.0
    completion_price: Annotated[float, Meta(ge=0, description="Price of a million generated tokens.")] = 0.0


@frozen(kw_only=True)
class RatedExample:
    """`[[annotate.strategies.examples]]`: a rated conversation shown before the question."""

    context: str
    response: Annotated[str, Meta(description="The text that is rated.")]
    rating: Annotated[int, Meta(description="On the strategy's own scale.")]
    explanation: Annotated[str, Meta(min_length=1)]
    dimension: Annotated[
        str | None, Meta(description="Shown for this dimension alone; default: for every one.")
    ] = None


@frozen(kw_only=True)
class Strategy:
    """`[[annotate.strategies]]`: a way to ask; every annotator is asked in every way."""

    name: Annotated[str, Meta(pattern=NAME, extra=WORDS_OF_NAME, description="Its name in logs and tables.")]
    low: Annotated[int, Meta(description="The worst rating of its scale.")] = 1
    high: Annotated[int, Meta(description="The best rating of its scale.")] = 5
    template: Annotated[
        str,
        Meta(
            description="The question; fields {context}, {response}, {dimension}, {definition}, {low}, "
            "{high}, {examples}."
        ),
    ] = TEMPLATE
    system: Annotated[str | None, Meta(description="System instruction; none if left out.")] = None
    examples: Annotated[
        list[RatedExample], Meta(description="Rated conversations (few-shot); they fill {examples}.")
    ] = field(factory=list)


@frozen(kw_only=True)
class Annotate:
    """`[annotate]`: what `engine annotate` asks about `[data]`, whom, and how the answers become one."""

    output: Annotated[
        str,
        Meta(
            description="JSONL file to write, relative to the file in which it stands; "
            "`{NAME}` is the level of the factor "
            "NAME, where factors vary the source. The answers are kept beside it, in `OUTPUT.answers.jsonl`."
        ),
    ]
    dimensions: Annotated[list[str], Meta(min_length=1, description="The qualities that are rated.")]
    annotators: Annotated[list[Annotator], Meta(min_length=1, description="The models that are asked.")]
    strategies: Annotated[list[Strategy], Meta(min_length=1, description="The ways they are asked.")]
    definitions: Annotated[
        dict[str, str], Meta(description="Dimension → what {definition} says of it; default: nothing.")
    ] = field(factory=dict)
    low: Annotated[int, Meta(description="The lowest label.")] = 1
    high: Annotated[
        int,
        Meta(
            description="The highest label. A rating x on a scale a to b becomes "
            "low + (x - a) * (high - low) / (b - a)."
        ),
    ] = 5
    merge: Annotated[
        Literal["mean", "median", "majority", "best"],
        Meta(
            description="How ratings become one, which is then rounded half up; `best`: the one of the three "
            "with the least mean absolute error on the golden set, then the least mean squared error."
        ),
    ] = "mean"
    golden: Annotated[
        str | None,
        Meta(
            description="A `.jsonl` or `.csv` file of true ratings, relative to the file in which it stands: "
            "`id`, or `context` "
            "and `response`, and a column per dimension."
        ),
    ] = None
    explanations: Annotated[
        Literal["model", "nearest", "longest", "first"],
        Meta(
            description="How explanations become one: written by a model from all of them, or the one whose "
            "rating is nearest the merged one, the longest, the first."
        ),
    ] = "model"
    merger: Annotated[
        str | None, Meta(description="The annotator that writes the merged explanations; default: the first.")
    ] = None
    merge_template: Annotated[
        str,
        Meta(
            description="What it is asked; fields {context}, {response}, {dimension}, {definition}, {low}, "
            "{high}, {rating}, {explanations}."
        ),
    ] = MERGE_TEMPLATE
    attempts: Annotated[
        int, Meta(ge=1, description="How often a question is asked until its answer is well-formed.")
    ] = 3
    min_answers: Annotated[
        int,
        Meta(ge=1, description="Fewest valid answers per conversation and dimension; else it is left out."),
    ] = 1
