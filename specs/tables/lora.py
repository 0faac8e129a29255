"""The typed settings of `[lora]`."""

from __future__ import annotations

from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from specs.tables.fields import LATER


@frozen(kw_only=True)
class Lora:
    """`[lora]`: the adapter, as in peft's LoraConfig (LoRA: arXiv 2106.09685)."""

    r: Annotated[int, Meta(ge=1, description="Rank.")] = 16
    alpha: Annotated[float, Meta(gt=0, description="Scale numerator: deltas are scaled by alpha / r.")] = 32.0
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Dropout on the adapter's input.")] = 0.0
    target_modules: Annotated[
        str | list[str],
        Meta(description="Module names to adapt, a regular expression, or `all-linear`."),
    ] = "all-linear"
    modules_to_save: Annotated[
        list[str],
        Meta(
            description="Modules trained in full and saved with the adapter, in float32: all whose names end "
            "so. In a Llama `norm` is each `input_layernorm`, too; `.norm` is the final norm alone.",
        ),
    ] = field(factory=list)
    trained_tokens: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            description="Learned tokens: of the embeddings among `modules_to_save`, only the rows of these "
            "tokens are trained. With one of them as `target.filler`, `label+filler` is a label with learned "
            "pause tokens (arXiv 2310.02226)."
        ),
    ] = field(factory=list, metadata=LATER)
    rslora: Annotated[bool, Meta(description="Scale by alpha / sqrt(r) (arXiv 2312.03732).")] = False
    dora: Annotated[bool, Meta(description="Weight-decomposed LoRA (arXiv 2402.09353).")] = False
