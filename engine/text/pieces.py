"""A prompt and a target as token ids, piece by piece: stem, label, and what stands behind the label."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import field, frozen

from engine.errors import DataError, UsageError
from engine.models.tokenizer import Tokenizer
from engine.text.encoding import Encoder, Text, Tokens, Trail
from engine.text.layout import Form, word_tokens
from engine.text.prompts import prompt_text
from engine.text.pseudo_explanations import Corpus, Draw, Word, drawn
from specs.tables.target import Prompt, Target

Example = Mapping[str, str]
PLACEMENT = "target.placement"  # which asks for a text of its own where words stand on either side


@frozen
class Begun:
    """A prompt and the stem behind it, as tokens."""

    prompt: list[int]
    stem: Tokens
    trail: Trail  # prompt and stem
    spaces: str  # before the label, whose first token may take them in
    _labels: dict[str, tuple[Trail, list[int]]] = field(init=False, factory=dict, eq=False, repr=False)

    def label(self, text: str) -> tuple[Trail, list[int]]:
        """Go on with a label; give its tokens, too."""
        if text not in self._labels:
            trail, tokens = self.trail.add(Text.of_data(self.spaces + text))
            self._labels[text] = trail, tokens.ids
        return self._labels[text]


@frozen
class Pieces:
    """Tokenizes the prompts and targets of one cell.

    `study`: the fields of a prompt that the spec fills in. `examples`: those that pseudo-explanations are
    drawn from.
    """

    tokenizer: Tokenizer
    settings: Prompt
    target: Target
    study: Mapping[str, str]
    seed: int
    examples: Callable[[], Iterable[Example]]
    form: Form = field(init=False)
    encoder: Encoder = field(init=False)
    _memory: dict[str, Corpus] = field(factory=dict)

    @form.default
    def _form_of_target(self) -> Form:
        return Form.of(self.target.in_one_spelling(), chat=self.settings.chat_template)  # as keys know it

    @encoder.default
    def _encoder_of_tokenizer(self) -> Encoder:
        return Encoder.of(self.tokenizer)

    def prompt(self, example: Example) -> Text:
        """Write the text before the target."""
        return prompt_text(self.settings, self.tokenizer, example, self.study)

    def begin(self, example: Example, explanation: str | None = None) -> Begun:
        """Tokenize the prompt and, behind it, the stem of the example or of an explanation that comes first.

        Spaces go to what follows them, with which many tokenizers merge them.
        """
        prompt = self.prompt(example)
        explained = explanation is not None and self.target.explains_first
        stem = self.form.stem(str(explanation)) if explained else self.form.lay_out(example).stem
        prompt, spaces = prompt.parted(len(prompt.text.rstrip(" ")))
        text = spaces.text + stem
        body = text.rstrip(" ")
        # A chat template writes the special tokens itself; adding them again would double the first.
        before = self.encoder.prompt(prompt, opens=not self.settings.chat_template)
        trail, tokens = before.add(Text.of_data(body))
        return Begun(before.ids, tokens.parted(0, len(spaces.text)), trail, text[len(body) :])

    def completion(self, example: Example, begun: Begun) -> list[int]:
        """Give the target's tokens, in the places of its words those of a pseudo-explanation."""
        completion, words = self._genuine(example, begun)
        if not self.draws:
            return completion
        tokens = drawn(
            Draw(
                [tuple(completion[place] for place in word) for word in words],
                self.form.lay_out(example).fixed,
                self.target,
                example,
                self.tokenizer,
                random.Random(f"{self.seed} {example['id']}"),
                self._corpus,
                self._filling,
                lambda: self._repeated_text(Text.of_data(" " + example["label"])),
                lambda: self.encoder.vocabulary,
            )
        )
        for place, token in zip((place for word in words for place in word), tokens, strict=True):
            completion[place] = token
        return completion

    def fixed_texts(self) -> Iterator[tuple[str, str, list[int]]]:
        """Yield what the spec writes into every target: its key, the text, and that text's tokens.

        The spaces behind a text belong to what follows it. A filler with the name of the token for what is
        unknown asks for that token, and is left out.
        """
        target = self.target
        texts = {"target.prefix": self.form.prefix}
        if target.content != "label" and target.placement == "interleaved":
            texts[PLACEMENT] = self.form.behind_label
        if target.content != "label":
            texts["target.separator"] = self.form.separator
        for key, text in texts.items():
            if written := text.rstrip(" "):
                yield key, text, self._repeated_text(Text.of_data(written))
        unknown = self.tokenizer.unk_token
        asked = unknown is not None and unknown in target.filler
        if target.content == "label+filler" and not asked:
            yield "target.filler", target.filler, self._filling()

    @property
    def draws(self) -> bool:
        """Whether the target has other words than the example's explanation, or these in another order."""
        if self.target.content == "label+explanation":
            return self.target.permuted > 0
        return self.target.content != "label"

    def explanation_words(self, example: Example) -> list[Word]:
        """Give the tokens of each word of the genuine explanation, as they stand in the target."""
        completion, words = self._genuine(example, self.begin(example))
        return [tuple(completion[place] for place in word) for word in words if word]

    def explanation_places(self, example: Example) -> list[int]:
        """Give the places of the tokens of the explanation's words in prompt and target."""
        begun = self.begin(example)
        _, words = self._genuine(example, begun)
        return [len(begun.prompt) + place for word in words for place in word]

    def _genuine(self, example: Example, begun: Begun) -> tuple[list[int], list[list[int]]]:
        """Give the tokens of the genuine target, and the places of each of its explanation's words."""
        layout = self.form.lay_out(example)
        trail, label = begun.label(example["label"])
        trail, closer = trail.add(Text.of_data(layout.closer))
        _, rest = trail.add(Text.of_data(layout.rest))
        head = [*begun.stem.ids, *label, *closer.ids]
        behind = [[len(head) + place for place in word] for word in word_tokens(rest, layout.rest_words)]
        return head + rest.ids, word_tokens(begun.stem, layout.stem_words) + behind

    def _filling(self) -> list[int]:
        tokens = self._repeated_text(Text(self.target.filler))
        if not tokens:
            raise UsageError(
                f"target.filler: found {self.target.filler!r}, which has no token; expected a text"
            )
        return tokens

    def _repeated_text(self, text: Text) -> list[int]:
        """Tokenize a text as it stands behind others."""
        _, tokens, skipped = self.encoder.behind(text)
        return tokens.ids[skipped:]

    def _corpus(self) -> Corpus:
        if "corpus" not in self._memory:
            rows = ((row, self.explanation_words(row)) for row in self.examples())
            self._memory["corpus"] = Corpus.of_examples(rows)
        if not self._memory["corpus"].words:
            raise DataError(
                f'target.content: found "{self.target.content}", which is drawn from explanations, but the '
                "training examples have none"
            )
        return self._memory["corpus"]
