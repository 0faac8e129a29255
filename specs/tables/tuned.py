"""`[probe.tuned]`: how the translators of a tuned lens are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import field, frozen
from msgspec import Meta

from specs.common.names import TRAINED_TEXTS
from specs.tables.fields import LATER, Corpus, FittedOn, read_by

_BY_LENS = read_by("lens")


@frozen(kw_only=True)
class Tuned:
    """`[probe.tuned]`: the training of the tuned lens's translators, where `probe.lens` is `tuned`."""

    steps: Annotated[int, Meta(ge=1, description="Optimiser steps.")] = field(default=250, metadata=_BY_LENS)
    tokens: Annotated[
        int,
        Meta(ge=1, description="Tokens per step, in whole training examples; at most as many as there are."),
    ] = field(default=8192, metadata=_BY_LENS)
    lr: Annotated[
        float,
        Meta(
            gt=0, description="Learning rate at the first step, falling linearly to 0; SGD's times 1 - 0.9."
        ),
    ] = field(default=1.0, metadata=_BY_LENS)
    weight_decay: Annotated[
        float, Meta(ge=0, description="Pull towards the identity, and so towards the logit lens.")
    ] = field(default=1e-3, metadata=_BY_LENS)
    seed: Annotated[int, Meta(ge=0, description="Seed of the examples' order.")] = field(
        default=0, metadata=_BY_LENS
    )
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Meta(
            description="Products with the translators, and of the loss's slopes with a head in half "
            "precision. `bfloat16`: operands rounded to it, or to the head's type; the translators, their "
            "gradients' sums, the logits and KL stay in float32."
        ),
    ] = field(default="float32", metadata={**_BY_LENS, **LATER})
    corpus: Corpus = field(default=TRAINED_TEXTS, metadata={**_BY_LENS, **LATER})
    fitted_on: FittedOn = field(default="trained", metadata={**_BY_LENS, **LATER})
