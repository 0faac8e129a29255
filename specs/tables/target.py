"""`[prompt]` and `[target]`: what the model reads, and what it is trained to write."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from attrs import evolve, field, frozen
from msgspec import Meta

from specs.registry import PSEUDO_EXPLANATIONS, Named
from specs.tables.fields import LATER, read_by
from specs.tables.loss import SEGMENTS, Loss

CONTENT = Named(PSEUDO_EXPLANATIONS, "label+", ("label", "label+explanation"))
TRAIN_LATER = {**read_by("train"), **LATER}
STUDY_FIELDS = ("dimension", "labels")  # of a template, which are the same for every example


@frozen(kw_only=True)
class Prompt:
    """`[prompt]`: what the model reads before it answers."""

    template: Annotated[
        str,
        Meta(description="The user's message; fields {context}, {response}, {dimension}, {labels}."),
    ] = (
        "Message: {context}\nReply: {response}\n"
        "Rate the {dimension} of the reply. Answer with one of {labels}."
    )
    system: Annotated[
        str | None,
        Meta(description="System instruction; fields {dimension}, {labels}; none if left out or empty."),
    ] = None
    chat_template: Annotated[
        bool, Meta(description="Wrap messages in the tokenizer's chat template; else plain text.")
    ] = True
    messages: Annotated[
        bool,
        Meta(
            description="Show the chat of `data.columns.messages` message by message, each in its role. The "
            "template then is one more message of the user behind it, without {context} and {response}, or "
            '"" for none; `system` takes the place of the chat\'s own.'
        ),
    ] = field(default=False, metadata=LATER)

    def shows(self, field: str) -> bool:
        """Tell whether what the model reads has a field filled in."""
        texts = (self.template, self.system or "")
        return any(name == field for text in texts for _, name, _, _ in Formatter().parse(text))

    @property
    def head(self) -> str:
        """The text that stands before anything of an example, fields of the study by their names."""
        written = [self.system or ""]
        for text, name, _, _ in [] if self.messages else Formatter().parse(self.template):
            written.append(text)
            if name is not None and name not in STUDY_FIELDS:
                break
            written.append(name or "")
        return "".join(written)


@frozen(kw_only=True)
class Target:
    """`[target]`: the text that the model is trained to produce."""

    content: Annotated[
        str,
        CONTENT,
        Meta(
            description="The label alone, with its explanation, or with a pseudo-explanation of equally many "
            "tokens. Pseudo-explanations are drawn from the run seed. In this order: its own words in random "
            "order; words of the training split's explanations, by frequency; tokens of these, uniformly; a "
            "repeated filler; the explanation of another example of the training split, of one with another "
            "label; the label over and over; tokens of the explanations, by frequency; tokens of the whole "
            "vocabulary, uniformly; that of a plug-in."
        ),
    ] = "label"
    placement: Annotated[
        Literal["after", "before", "interleaved"],
        Meta(
            description="Where the explanation stands: after the label, before it, or half of its words on "
            "either side."
        ),
    ] = "after"
    permuted: Annotated[
        float,
        Meta(
            ge=0, le=1,
            description="Share of the words of `label+explanation` that change places: a gradient from "
            "genuine (0) to without order (1).",
        ),
    ] = 0.0  # fmt: skip
    filler: Annotated[str, Meta(min_length=1, description="What `label+filler` repeats.")] = " ..."
    prefix: Annotated[
        str | None,
        Meta(description="Text before the label; default: a space after plain prompts, none in a chat."),
    ] = None
    separator: Annotated[
        str | None,
        Meta(
            description='Text between label and explanation; default: ": " after the label, '
            '"\\nRating: " before it. What comes before the label must not contain it.'
        ),
    ] = None

    loss: Annotated[
        Loss,
        Meta(description="Weights of the target's tokens in the loss by segment; their ratios count alone."),
    ] = field(factory=Loss, metadata=TRAIN_LATER)
    loss_balance: Annotated[
        Literal["tokens", "segments"],
        Meta(
            description="`tokens`: the mean over all tokens of a step, so that a longer explanation takes a "
            "larger share of the loss from the label; `segments`: the mean over the segments of each "
            "segment's mean."
        ),
    ] = field(default="tokens", metadata=TRAIN_LATER)

    @property
    def segments(self) -> list[str]:
        """The segments of the loss that the target has."""
        return [name for name in SEGMENTS if self.content != "label" or name != "explanation"]

    def in_one_spelling(self) -> Target:
        """Give the same target with what its content does not read at the defaults, a default separator too.

        A plug-in may read all of its target.
        """
        if self.content not in CONTENT.built_in:
            return self
        default = Target()
        same = evolve(
            self,
            separator=None if self.separator == evolve(self, separator=None).parting else self.separator,
            filler=self.filler if self.content == "label+filler" else default.filler,
            permuted=self.permuted if self.content == "label+explanation" else default.permuted,
        )
        if self.content != "label":
            return same
        loss = evolve(self.loss, explanation=default.loss.explanation)
        return evolve(same, loss=loss, placement=default.placement, separator=default.separator)

    @property
    def explains_first(self) -> bool:
        """Whether some of the explanation comes before the label."""
        return self.content != "label" and self.placement != "after"

    @property
    def parting(self) -> str:
        """Give the separator, the default one if the spec names none."""
        if self.separator is not None:
            return self.separator
        return ": " if self.placement == "after" else "\nRating: "
