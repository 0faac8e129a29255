"""What the fields of several tables share."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

# The words of a pattern of names.
WORDS_OF_NAME = {"words": "of letters, digits, dots, hyphens and underscores, a letter or digit first"}
WORDS_OF_FIELD = {"words": "of letters, digits and underscores, no digit first"}

PositiveInt = Annotated[int, Meta(ge=1)]

FittedOn = Annotated[
    Literal["trained", "base"],
    Meta(
        description="The model on which the lens is fitted. `trained`: each cell's own; `base`: the model "
        "without adapter, once for all cells that start from it. Of training examples it then reads prompts "
        "and labels alone, the same whatever the target."
    ),
]
"""Which model a lens is fitted on."""

Corpus = Annotated[
    str,
    Meta(
        min_length=1,
        description="Texts on which the lens is fitted. `train`: prompts and true answers of the cell's "
        "training examples; `builtin`: plain texts of this package; or a file, as `evaluate.neutral_text`.",
    ),
]
"""What a lens is fitted on."""

FloatType = Literal["float32", "bfloat16", "float16"]
"""Types of weights and of arithmetic."""

Quantization = Literal["none", "int8", "nf4"]
"""How weights are quantised when they are loaded."""

# A key that came later than results that stand: at its default it is no part of their identity.
LATER = {"later": True}

EXECUTION_ONLY: dict[str, tuple[str, ...]] = {"stages": ()}


def read_by(*stages: str) -> dict[str, tuple[str, ...]]:
    """Metadata of a field that other stages read than its table's own."""
    return {"stages": stages}
