"""`[probe]`: what is recorded of every layer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import evolve, field, frozen
from msgspec import Meta

from specs.common.names import ACTIVATION_ENTROPY, LENS_STATISTICS
from specs.registry import STATISTICS, Named
from specs.tables.fields import EXECUTION_ONLY, LATER, PositiveInt, read_by
from specs.tables.tuned import Tuned

Statistic = Annotated[str, Named(STATISTICS)]


@frozen(kw_only=True)
class Probe:
    """`[probe]`: what is recorded of every layer."""

    enabled: Annotated[bool, Meta(description="Probe at all.")] = field(default=True, metadata=EXECUTION_ONLY)
    lens: Annotated[
        Literal["logit", "tuned"],
        Meta(
            description="`logit`: final norm, then unembedding, of each layer's residual stream; `tuned`: "
            "the same behind an affine translator per layer, trained once per trained model to come near "
            "the final layer (arXiv 2303.08112)."
        ),
    ] = "logit"
    tuned: Annotated[Tuned, Meta(description="The training of the tuned lens.")] = field(
        factory=Tuned, metadata=read_by("lens")
    )
    layers: Annotated[
        Literal["all"] | list[int],
        Meta(description="Layers to probe; 0 is the embedding, L the last block; negative from the end."),
    ] = "all"
    positions: Annotated[
        list[Literal["prompt_end", "label", "completion_end"] | int],
        Meta(
            min_length=1,
            description="Watch positions. `prompt_end` predicts the first token of the answer. `label` "
            "predicts the true label's first token: it is `prompt_end` unless an explanation comes before "
            "the label. `completion_end` is the last token of the true answer. n < 0 counts from the "
            "prompt's end (-1 is `prompt_end`), n >= 0 from the answer's first token.",
        ),
    ] = field(factory=lambda: ["prompt_end"])
    watch: Annotated[
        Literal["labels"] | list[str],
        Meta(description="Watched tokens: first tokens of the labels, or of these texts."),
    ] = "labels"
    statistics: Annotated[
        list[Statistic],
        Meta(min_length=1, description="Statistics per layer and position, also those of plug-ins."),
    ] = field(factory=lambda: [*LENS_STATISTICS])
    heads: Annotated[
        bool, Meta(description="Also the entropy of every attention head's weights at the watch positions.")
    ] = field(default=False, metadata=LATER)
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
            "has these levels and equals this one in all else, seed included. For the logit lens; in "
            "`[probe]` alone, not in a level."
        ),
    ] = field(factory=list, metadata=LATER | read_by("probe"))
    top_k: Annotated[int, Meta(ge=0, le=1024, description="Most likely tokens kept per position.")] = 5
    examples: Annotated[
        PositiveInt | None,
        Meta(description="Test examples to probe and to intervene on; default: all."),
    ] = field(default=None, metadata=read_by("probe", "intervene"))
    batch_size: Annotated[int, Meta(ge=1, description="Examples per forward pass.")] = field(
        default=16, metadata=EXECUTION_ONLY
    )
    backend: Annotated[
        Literal["auto", "reference", "torch", "c", "triton"],
        Meta(description="Probe kernels; `auto` takes the fastest."),
    ] = field(default="auto", metadata=EXECUTION_ONLY)

    @property
    def recorded(self) -> list[str]:
        """The statistics of layers that are recorded, each once, however they are asked for."""
        asked = dict.fromkeys(name for name in self.statistics if name != ACTIVATION_ENTROPY)
        return [*asked, *([ACTIVATION_ENTROPY] if self.records_activation else [])]

    @property
    def records_activation(self) -> bool:
        """Whether the activation entropy is recorded: by `activation`, or as one of `statistics`."""
        return self.activation or ACTIVATION_ENTROPY in self.statistics

    def in_one_spelling(self) -> Probe:
        """Give the same settings with the activation entropy asked for by `activation` alone."""
        others = [name for name in self.statistics if name != ACTIVATION_ENTROPY]
        return evolve(self, activation=self.records_activation, statistics=others)
