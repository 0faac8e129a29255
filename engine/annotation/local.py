"""A causal language model of `transformers` as annotator: greedy answers in batches, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine.annotation.answers import LoggedAnswer
from engine.errors import UsageError
from engine.text.encoding import Encoder
from engine.text.prompts import chat_text
from specs.tables.annotate import Annotator
from specs.tables.experiment import Model


class LocalModel:
    """A loaded annotator."""

    def __init__(self, annotator: Annotator) -> None:
        from engine.models import loading as models

        self._annotator = annotator
        self._model, self._tokenizer = models.load(
            Model(
                id=annotator.model,
                revision=annotator.revision,
                dtype=annotator.dtype,
                quantization=annotator.quantization,
            ),
            lens=False,
        )
        self._encoder = Encoder(self._tokenizer)
        if not self._tokenizer.chat_template:
            raise UsageError(
                f'annotator "{annotator.name}": the tokenizer of "{annotator.model}" has no chat template; '
                "expected a model that was tuned on chats"
            )

    def ask(self, bodies: Sequence[dict[str, Any]]) -> list[LoggedAnswer]:
        """Answer some requests as one batch; one that leaves no room for an answer is refused."""
        prompts = [self._encode(body["messages"]) for body in bodies]
        room = getattr(self._model.config, "max_position_embeddings", None) or 1 << 30
        fits = [len(prompt) + self._annotator.max_tokens <= room for prompt in prompts]
        generated = iter(self._generate([prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]))
        too_long = (
            f"the prompt and {self._annotator.max_tokens} tokens of answer exceed the model's {room} tokens"
        )
        return [next(generated) if fit else LoggedAnswer(too_long, status=413) for fit in fits]

    def _encode(self, messages: list[dict[str, str]]) -> list[int]:
        try:
            text = chat_text(self._tokenizer, messages)
        except UsageError as error:
            raise UsageError(f'annotator "{self._annotator.name}": {error}') from error
        return self._encoder.tokens(text).ids

    def _generate(self, prompts: list[list[int]]) -> Iterator[LoggedAnswer]:
        from engine.models.generation import generate, own_ends

        if not prompts:
            return
        ends = own_ends(self._model, self._tokenizer)
        rows = generate(self._model, self._tokenizer, prompts, self._annotator.max_tokens, ends)
        for prompt, tokens in zip(prompts, rows, strict=True):
            text = self._tokenizer.decode(tokens, skip_special_tokens=True)
            finish = "stop" if tokens and tokens[-1] in ends else "length"
            yield LoggedAnswer(text.encode("utf-8", "replace").decode(), finish, len(prompt), len(tokens))
