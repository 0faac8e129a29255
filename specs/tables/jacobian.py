"""`[probe.jacobian]`: how a Jacobian lens is fitted, or the file that has one."""

from __future__ import annotations

from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from specs.common.names import TRAINED_TEXTS
from specs.tables.fields import LATER, Corpus, FittedOn, PositiveInt, read_by

_BY_JACOBIAN = read_by("jacobian")


@frozen(kw_only=True)
class Jacobian:
    """`[probe.jacobian]`: the matrices of the Jacobian lens, where `probe.lens` has `jacobian`."""

    corpus: Corpus = field(default=TRAINED_TEXTS, metadata=_BY_JACOBIAN)
    prompts: Annotated[
        PositiveInt, Meta(description="Texts, the first of the corpus; at most as many as there are.")
    ] = field(default=100, metadata=_BY_JACOBIAN)
    max_tokens: Annotated[
        int, Meta(ge=2, description="Tokens of a text; what is longer is cut. Documents are parted so.")
    ] = field(default=128, metadata=_BY_JACOBIAN)
    skip: Annotated[
        int,
        Meta(
            ge=0,
            description="Leading tokens of each text that are neither differentiated nor differentiated by: "
            "attention rests on the first ones. Texts without others, beside the last token, are left out.",
        ),
    ] = field(default=16, metadata=_BY_JACOBIAN)
    fitted_on: FittedOn = field(default="trained", metadata=_BY_JACOBIAN)
    path: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="A file with a fitted lens, in place of fitting one: `.safetensors`, or weights that "
            "torch saved (`.pt`), as they are published; pickled code in it is refused. Nothing else of this "
            "table is read then.",
        ),
    ] = field(default=None, metadata=LATER | _BY_JACOBIAN)
