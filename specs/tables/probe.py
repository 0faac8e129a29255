"""`[probe]`: what is recorded of every layer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import evolve, field, frozen
from msgspec import Meta

from specs.common.names import ACTIVATION_ENTROPY, LENS_STATISTICS, STEP, FitStage, Lens
from specs.registry import STATISTICS, Named
from specs.tables.fields import EXECUTION_ONLY, LATER, PositiveInt, read_by
from specs.tables.jacobian import Jacobian
from specs.tables.tuned import Tuned

Statistic = Annotated[str, Named(STATISTICS)]


@frozen(kw_only=True)
class PositionRange:
    """`[probe.positions]`: several watch positions, on the tokens of a part of the text."""

    range: Annotated[
        Literal["explanation", "prompt"],
        Meta(
            description="`explanation`: the tokens of the explanation's words in the true answer, or of the "
            "pseudo-explanation in their place. `prompt`: those before the answer."
        ),
    ]
    every: Annotated[int, Meta(ge=1, description="Tokens from one watch position to the next.")] = 1
    most: Annotated[
        int,
        Meta(
            ge=1,
            description="Watch positions of the range. Examples with fewer tokens lack the last ones: their "
            "values are NaN, and -1 where they are whole numbers.",
        ),
    ] = 32

    @property
    def names(self) -> list[str]:
        """Name each position after its place in the range: explanation[0], explanation[4], …."""
        return [f"{self.range}[{place * self.every}]" for place in range(self.most)]


Geometry = Literal[
    "matrix_entropy", "matrix_entropy_2", "effective_rank", "stable_rank", "participation_ratio",
    "anisotropy", "intrinsic_dimension", "curvature", "cka", "procrustes", "gram",
]  # fmt: skip
Stream = Literal["attention", "mlp", "before_attention", "after_attention"]
_STREAMS = ("probe", "along", "differences")  # the stages that read residual streams at watch positions
Position = Literal["prompt_end", "label", "completion_end", "explanation", "prompt"] | int | PositionRange


@frozen(kw_only=True)
class Probe:
    """`[probe]`: what is recorded of every layer."""

    enabled: Annotated[bool, Meta(description="Probe at all.")] = field(default=True, metadata=EXECUTION_ONLY)
    lens: Annotated[
        Lens | Annotated[list[Lens], Meta(min_length=1)],
        Meta(
            description="`logit`: final norm, then unembedding, of each layer's residual stream; `tuned`: "
            "the same behind an affine translator per layer, trained once per trained model to come near "
            "the final layer (arXiv 2303.08112); `jacobian`: the same behind a matrix per layer, the mean "
            "derivative of the final layer's stream by the layer's (Gurnee et al. 2026). A list reads the "
            "same streams through each of them, along the dim `lens`; where one is read alone (contrasts, "
            "figures, the report), it is the first."
        ),
    ] = "logit"
    tuned: Annotated[Tuned, Meta(description="The training of the tuned lens.")] = field(
        factory=Tuned, metadata=read_by("lens")
    )
    jacobian: Annotated[Jacobian, Meta(description="The matrices of the Jacobian lens.")] = field(
        factory=Jacobian, metadata=LATER | read_by("jacobian")
    )
    layers: Annotated[
        Literal["all"] | list[int],
        Meta(description="Layers to probe; 0 is the embedding, L the last block; negative from the end."),
    ] = field(default="all", metadata=read_by(*_STREAMS))
    positions: Annotated[
        list[Position],
        Meta(
            min_length=1,
            description="Watch positions. `prompt_end` predicts the first token of the answer. `label` "
            "predicts the true label's first token: it is `prompt_end` unless an explanation comes before "
            "the label. `completion_end` is the last token of the true answer. n < 0 counts from the "
            "prompt's end (-1 is `prompt_end`), n >= 0 from the answer's first token. A table is a range of "
            'positions (`[probe.positions]`): `{ range = "explanation", every = 4, most = 16 }`; '
            '`"explanation"` and `"prompt"` are ranges with its defaults.',
        ),
    ] = field(factory=lambda: ["prompt_end"], metadata=read_by(*_STREAMS))
    watch: Annotated[
        Literal["labels", "next"] | list[str],
        Meta(
            description="Watched tokens: first tokens of the labels, or of these texts; `next`: the text's "
            "own next token, another one at each position, whose negative log-probability is its "
            "cross-entropy."
        ),
    ] = "labels"
    statistics: Annotated[
        list[Statistic],
        Meta(min_length=1, description="Statistics per layer and position, also those of plug-ins."),
    ] = field(factory=lambda: [*LENS_STATISTICS])
    heads: Annotated[
        bool, Meta(description="Also the entropy of every attention head's weights at the watch positions.")
    ] = field(default=False, metadata=LATER)
    routers: Annotated[
        bool,
        Meta(
            description="Also, in models with experts, the entropy of each layer's router at the watch "
            "positions, its top expert and all probabilities; nothing in other models."
        ),
    ] = field(default=False, metadata=LATER | read_by("probe"))
    streams: Annotated[
        list[Stream],
        Meta(
            description="Also the statistics of streams within each block, through final norm and "
            "unembedding like the residual stream behind it: what attention and MLP add to it, and the "
            "residual stream before attention and after it (between attention and MLP). `stream_entropy` "
            "and others, with the dim `stream`."
        ),
    ] = field(factory=list, metadata=LATER | read_by("probe"))
    attribution: Annotated[
        bool,
        Meta(
            description="Also what the embedding, and each block's attention and MLP, add to the logits "
            "of the watched tokens, with the final norm's scale held as it is (direct logit attribution)."
        ),
    ] = field(default=False, metadata=LATER | read_by("probe"))
    attribution_per_head: Annotated[
        bool, Meta(description="With `attribution`, also what each attention head adds.")
    ] = field(default=False, metadata=LATER | read_by("probe"))
    activation: Annotated[
        bool,
        Meta(
            description="Also the activation entropy: how the residual stream's energy is spread over its "
            'coordinates. `"activation_entropy"` among `statistics` says the same.'
        ),
    ] = field(default=False, metadata=LATER)
    against: Annotated[
        list[Literal["base"] | dict[str, Any]],
        Meta(
            description="Also how far each layer's lens distribution is from that of another model on the "
            'same input (KL and JS): `"base"`, the model without adapter, or factor → level: the cell that '
            "has these levels and equals this one in all else, seed included. For lenses that both models "
            "share (`fitted_on`); in `[probe]` alone, not in a level."
        ),
    ] = field(factory=list, metadata=LATER | read_by("probe"))
    at: Annotated[
        list[Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0, le=1)]],
        Meta(
            description="Also evaluate and probe the adapters along the training, after these shares of its "
            "planned steps (`[0, 0.1, 0.5, 1.0]`: 0 is the untrained model, 1.0 the final adapter) or after "
            "these steps (`[0, 10, 50]`). The result is the node `along`, with the dim `step`. A training "
            "that has ended earlier stays at its final adapter. For lenses that all adapters share "
            "(`fitted_on`)."
        ),
    ] = field(factory=list, metadata=LATER | read_by("along"))
    geometry: Annotated[
        list[Geometry],
        Meta(
            description="Also how the residual streams of a layer lie to each other, over the probed "
            "examples at each watch position (probe.md): entropies and ranks of their Gram matrix, mean "
            "cosine, intrinsic dimension; `curvature` over the positions of a range. `cka` and `procrustes` "
            "compare with the models of `against`. `gram` keeps the inner products, from which the "
            "similarity of any two cells follows: examples² numbers per layer and position."
        ),
    ] = field(factory=list, metadata=LATER | read_by("probe"))
    differences: Annotated[
        bool,
        Meta(
            description="Also the mean difference of each layer's residual streams from those of the models "
            "of `against`, over the probed examples at each watch position, and the tokens that it promotes "
            "(probe.md): the node `differences`, of passes of its own."
        ),
    ] = field(default=False, metadata=LATER | read_by("differences"))
    top_k: Annotated[int, Meta(ge=0, le=1024, description="Most likely tokens kept per position.")] = field(
        default=5, metadata=read_by(*_STREAMS)
    )
    examples: Annotated[
        PositiveInt | None,
        Meta(description="Test examples to probe and to intervene on; default: all."),
    ] = field(default=None, metadata=read_by("probe", "along", "differences", "intervene"))
    batch_size: Annotated[int, Meta(ge=1, description="Examples per forward pass.")] = field(
        default=16, metadata=EXECUTION_ONLY
    )
    backend: Annotated[
        Literal["auto", "reference", "torch", "c", "triton"],
        Meta(description="Probe kernels; `auto` takes the fastest."),
    ] = field(default="auto", metadata=EXECUTION_ONLY)

    @property
    def lenses(self) -> list[Lens]:
        """The lenses through which layers are read, in the spec's order."""
        return self.lens if isinstance(self.lens, list) else [self.lens]

    def fitted(self, on: Literal["trained", "base"]) -> list[FitStage]:
        """Give the stages that fit this probe's lenses on a cell's trained model, or on the base model."""
        stages: list[FitStage] = []
        if "tuned" in self.lenses and self.tuned.fitted_on == on:
            stages.append("lens")
        if "jacobian" in self.lenses and self.jacobian.path is None and self.jacobian.fitted_on == on:
            stages.append("jacobian")
        return stages

    @property
    def places(self) -> list[Position]:
        """The watch positions, each range as a table."""
        return [
            PositionRange(range=place) if place == "explanation" or place == "prompt" else place
            for place in self.positions
        ]

    @property
    def position_names(self) -> list[str]:
        """The name of every watch position, ranges taken apart."""
        names = (place.names if isinstance(place, PositionRange) else [str(place)] for place in self.places)
        return [name for several in names for name in several]

    def watches_range(self, name: str) -> bool:
        """Whether some watch positions are a range of this name."""
        return any(isinstance(place, PositionRange) and place.range == name for place in self.places)

    @property
    def kept_along(self) -> list[float]:
        """The entries of `at` for which a training keeps an adapter beside its final one."""
        return [step for step in self.at if step and (isinstance(step, int) or step < 1)]

    @property
    def recorded(self) -> list[str]:
        """The statistics of layers that are recorded, each once, however they are asked for."""
        asked = dict.fromkeys(name for name in self.statistics if name != ACTIVATION_ENTROPY)
        return [*asked, *([ACTIVATION_ENTROPY] if self.records_activation else [])]

    def measures(self, outcome: str) -> bool:
        """Whether a statistic of layers is recorded, or can be derived from what is."""
        name = outcome.removesuffix(STEP)
        return name in (*self.recorded, *self.geometry) or {
            "renyi_inf": self.top_k > 0 or "max_prob" in self.statistics,
            "top_mass": self.top_k > 0,
            "top_entropy": self.top_k > 0,
            "label_surprisal": self.watch == "labels",
            "next_surprisal": self.watch == "next",
        }.get(name, False)

    @property
    def records_activation(self) -> bool:
        """Whether the activation entropy is recorded: by `activation`, or as one of `statistics`."""
        return self.activation or ACTIVATION_ENTROPY in self.statistics

    def alone(self) -> Probe:
        """Give the same settings without what `along` leaves to the probe of the final adapter."""
        return evolve(
            self,
            against=[],
            geometry=[],
            routers=False,
            streams=[],
            attribution=False,
            attribution_per_head=False,
            differences=False,
        )

    def residual(self) -> Probe:
        """Give the same settings for a model whose residual streams alone are read, to compare with."""
        return evolve(self.alone(), heads=False)

    def in_one_spelling(self) -> Probe:
        """Give the same settings in one spelling.

        Ranges as tables, one lens without a list, the activation entropy by `activation`, step 0 whole.
        """
        return evolve(
            self,
            lens=self.lens if len(self.lenses) > 1 else self.lenses[0],
            positions=self.places,
            activation=self.records_activation,
            statistics=[name for name in self.statistics if name != ACTIVATION_ENTROPY],
            at=[step or 0 for step in self.at],
        )
