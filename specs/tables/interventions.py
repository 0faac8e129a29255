"""`[[interventions]]`: changes to trained models, to find which layers carry an effect."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import field, frozen
from msgspec import Meta

from specs.tables.fields import PositiveInt

# Keys that one kind alone, or some kinds, can use.
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "alpha": ("mask",),
    "modules": ("mask", "graft"),
    "donor": ("patch", "graft"),
    "positions": ("patch",),
    "heads": ("heads",),
    "ablation": ("heads",),
}


@frozen(kw_only=True)
class Intervention:
    """`[[interventions]]`: a sweep of changes to a trained model, each evaluated and probed."""

    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$", description="Its name in the results.")
    ]
    kind: Annotated[
        Literal["mask", "patch", "graft", "heads"],
        Meta(
            description="`mask`: the adapter's deltas are scaled by `alpha` in a set of layers. `graft`: "
            "the donor's adapter works there in its stead. `patch`: the donor's residual stream on the same "
            "input is put in behind each of these layers. `heads`: attention heads of theirs are ablated."
        ),
    ]
    cells: Annotated[
        dict[str, Any],
        Meta(description="Factor → level or levels: the cells that it is done to; default: all."),
    ] = field(factory=dict)
    layers: Annotated[
        Literal["all"] | Annotated[list[int], Meta(min_length=1)],
        Meta(description="Layers to choose from: 1 is the first block, L the last; negative from the end."),
    ] = "all"
    sweep: Annotated[
        Literal["window", "below", "above", "together"],
        Meta(
            description="Sets of layers: every run of `width` successive ones; the lowest 1, 2, … of them; "
            "the highest L, L - 1, … of them; or all at once."
        ),
    ] = "window"
    width: Annotated[
        list[PositiveInt], Meta(min_length=1, description="Layers per set of a `window` sweep; several: all.")
    ] = field(factory=lambda: [1])
    stride: Annotated[int, Meta(ge=1, description="Layers from one set to the next.")] = 1
    alpha: Annotated[
        float, Meta(ge=0, description="`mask`: factor on the deltas; 0 switches the adapter off.")
    ] = 0.0
    modules: Annotated[
        list[Literal["attention", "mlp"]],
        Meta(min_length=1, description="`mask`, `graft`: the parts of each layer that it reaches."),
    ] = field(factory=lambda: ["attention", "mlp"])
    donor: Annotated[
        Literal["base"] | dict[str, Any],
        Meta(
            description="`patch`, `graft`: the model without adapter, or factor → level: the cell that has "
            "these levels and equals this one in all else, seed included."
        ),
    ] = "base"
    positions: Annotated[
        Literal["all"] | Annotated[list[Literal["prompt_end"] | int], Meta(min_length=1)],
        Meta(
            description="`patch`: the token positions; `prompt_end` predicts the label, n < 0 counts from "
            "there (-1 is `prompt_end`)."
        ),
    ] = "all"
    heads: Annotated[
        Literal["each", "all"] | Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)],
        Meta(description="`heads`: each head by itself, or all, or these at once, in each set of layers."),
    ] = "each"
    ablation: Annotated[
        Literal["zero", "mean"],
        Meta(description="`heads`: what replaces a head's output: nothing, or its mean over all tokens."),
    ] = "zero"
