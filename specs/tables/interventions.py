"""`[[interventions]]`: changes to trained models, to find which layers carry an effect."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import field, frozen
from msgspec import Meta

from specs.tables.fields import LATER, WORDS_OF_NAME, PositiveInt
from specs.tables.probe import PositionRange

KINDS = ("mask", "patch", "graft", "heads", "ablate", "path", "steer")
# Keys that one kind alone, or some kinds, can use.
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "alpha": ("mask",),
    "modules": ("mask", "graft"),
    "donor": ("patch", "graft", "path", "steer"),
    "input": ("patch", "path"),
    "stream": ("patch", "ablate"),
    "positions": ("patch", "ablate", "path", "steer"),
    "grid": ("patch", "ablate", "path", "steer"),
    "heads": ("heads", "path"),
    "ablation": ("heads", "ablate"),
    "sender": ("path",),
    "receiver": ("path",),
    "receiver_layers": ("path",),
    "receiver_heads": ("path",),
    "onto": ("steer",),
    "strength": ("steer",),
    "from_layer": ("steer",),
    "from_positions": ("steer",),
    "random_directions": ("steer",),
}
# Keys that, beside these kinds, go with some values of another key alone.
ONLY_BESIDE: tuple[tuple[str, tuple[str, ...], str, tuple[str, ...]], ...] = (
    ("width", KINDS, "sweep", ("window",)),
    ("heads", ("path",), "sender", ("heads",)),
    ("receiver_layers", ("path",), "receiver", ("attention", "mlp", "heads")),
    ("receiver_heads", ("path",), "receiver", ("heads",)),
)
Heads = Literal["each", "all"] | Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]


@frozen(kw_only=True)
class Intervention:
    """`[[interventions]]`: a sweep of changes to a trained model, each evaluated and probed."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$",
            extra={"words": WORDS_OF_NAME["words"].replace("dots", "spaces, dots")},
            description="Its name in the results.",
        ),
    ]
    kind: Annotated[
        Literal["mask", "patch", "graft", "heads", "ablate", "path", "steer"],
        Meta(
            description="`mask`: the adapter's deltas are scaled by `alpha` in a set of layers. `graft`: "
            "the donor's adapter works there in its stead. `patch`: the donor's residual stream, or what its "
            "attention or MLP writes, is put in at each of these layers. `heads`: attention heads of theirs "
            "are ablated. `ablate`: the stream, or what attention or MLP writes, is. `path`: what the donor "
            "writes in these layers is put in where one later part reads it, and nowhere else. `steer`: the "
            "mean difference of the residual streams from the donor's is added behind each of these layers."
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
        Literal["base", "own"] | dict[str, Any],
        Meta(
            description="`patch`, `graft`, `path`, `steer`: the model without adapter, or factor → level: "
            "the cell that has these levels and equals this one in all else, seed included. `own`: the "
            "changed model itself, on another `input`."
        ),
    ] = "base"
    input: Annotated[
        Literal["same", "other example", "other label", "donor"],
        Meta(
            description="`patch`, `path`: what the donor reads. `same`: what the changed model reads. `other "
            "example`: another test example, drawn by the seed, of another group where examples have "
            "groups. `other label`: such a one whose true label is another. `donor`: the same example, as "
            "the prompt of the donor's cell asks."
        ),
    ] = field(default="same", metadata=LATER)
    stream: Annotated[
        Literal["residual", "attention", "mlp"],
        Meta(
            description="`patch`, `ablate`: the residual stream behind a layer, or what the layer's "
            "attention or MLP adds to it."
        ),
    ] = field(default="residual", metadata=LATER)
    positions: Annotated[
        Literal["all"]
        | Annotated[
            list[Literal["prompt_end", "prompt", "explanation"] | int | PositionRange], Meta(min_length=1)
        ],
        Meta(
            description="`patch`, `ablate`, `path`, `steer`: the token positions; `prompt_end` predicts the "
            "label, n < 0 counts from there (-1 is `prompt_end`). `prompt` and `explanation` are all tokens "
            "of that part of the text that come before the label; a table as in `[probe.positions]` is some "
            "of them."
        ),
    ] = "all"
    grid: Annotated[
        bool,
        Meta(
            description="Each of `positions` by itself, in every set of layers: a grid of layers × positions."
        ),
    ] = field(default=False, metadata=LATER)
    heads: Annotated[
        Heads,
        Meta(
            description="`heads`, and `path` from heads: each head by itself, or all, or these at once, in "
            "each set of layers."
        ),
    ] = "each"
    ablation: Annotated[
        Literal["zero", "mean", "resample"],
        Meta(
            description="`heads`, `ablate`: what replaces an output: nothing, its mean over all tokens, or "
            "what it is for another test example, drawn by the seed (as `input` = `other example`)."
        ),
    ] = "zero"
    sender: Annotated[
        Literal["attention", "mlp", "heads"],
        Meta(description="`path`: what writes, in each set of layers."),
    ] = field(default="attention", metadata=LATER)
    receiver: Annotated[
        Literal["final", "attention", "mlp", "heads"],
        Meta(
            description="`path`: what reads: the final norm and unembedding, or the attention, MLP or heads "
            "of a later layer. The MLP of the sender's own layer is one where it reads behind the attention."
        ),
    ] = field(default="final", metadata=LATER)
    receiver_layers: Annotated[
        Literal["all"] | Annotated[list[int], Meta(min_length=1)],
        Meta(description="`path`: the layers of the receivers, each by itself."),
    ] = field(default="all", metadata=LATER)
    receiver_heads: Annotated[
        Heads,
        Meta(description="`path` into heads: each by itself, or all, or these at once, in each such layer."),
    ] = field(default="each", metadata=LATER)

    onto: Annotated[
        Literal["donor", "own"],
        Meta(
            description="`steer`: the model to whose streams the difference is added: the `donor`, from "
            "which it leads to the changed cell's model, or that `own` model."
        ),
    ] = field(default="donor", metadata=LATER)
    strength: Annotated[
        list[float],
        Meta(
            min_length=1,
            description="`steer`: multiples of the difference that are added, each by itself; below 0 it is "
            "taken away.",
        ),
    ] = field(factory=lambda: [1.0], metadata=LATER)
    from_layer: Annotated[
        Literal["same"] | int,
        Meta(
            description="`steer`: the layer whose difference is added: that at which it is added, or one for "
            "all; 0 is the embedding, negative from the end."
        ),
    ] = field(default="same", metadata=LATER)
    from_positions: Annotated[
        list[str],
        Meta(
            min_length=1,
            description="`steer`: the watch positions whose difference is added, by their names in the node "
            "`differences`; of several, the mean over all examples at all of them.",
        ),
    ] = field(factory=lambda: ["prompt_end"], metadata=LATER)
    random_directions: Annotated[
        int,
        Meta(
            ge=0,
            description="`steer`: random directions as long as the difference, drawn by the seed, that are "
            "added in its place, each by itself, for comparison.",
        ),
    ] = field(default=4, metadata=LATER)

    @property
    def within_explanation(self) -> bool:
        """Whether some positions are tokens of the explanation."""
        named = self.positions if isinstance(self.positions, list) else []
        return any("explanation" in (place, getattr(place, "range", None)) for place in named)

    @property
    def takes_own(self) -> bool:
        """Whether the model itself is what is taken from."""
        return self.donor == "own" or self._resamples

    @property
    def writes_heads(self) -> bool:
        """Whether heads are what is changed, or what paths begin at."""
        return self.kind == "heads" or (self.kind == "path" and self.sender == "heads")

    @property
    def takes(self) -> bool:
        """Whether another model, or another input's run, is taken from."""
        return self.kind in ("mask", "graft", "patch", "path", "steer") or self._resamples

    @property
    def reads(self) -> str:
        """What the run reads that is taken from: one of the values of `input`."""
        return "other example" if self._resamples else self.input

    @property
    def _resamples(self) -> bool:
        return self.kind in ("heads", "ablate") and self.ablation == "resample"
