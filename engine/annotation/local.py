"""A causal language model of `transformers` as annotator: greedy answers in batches, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine.annotation.answers import Answer
from engine.errors import UsageError
from specs.annotate import Annotator
from specs.model import Model


class LocalModel:
    """A loaded annotator."""

    def __init__(self, annotator: Annotator) -> None:
        from engine import models

        self._annotator = annotator
        self._model, self._tokenizer = models.load(
            Model(
                id=annotator.model,
                revision=annotator.revision,
                dtype=annotator.dtype,
                quantization=annotator.quantization,
            )
        )
        if not self._tokenizer.chat_template:
            raise UsageError(
                f'annotator "{annotator.name}": the tokenizer of "{annotator.model}" has no chat template; '
                "expected a model that was tuned on chats"
            )

    def ask(self, bodies: Sequence[dict[str, Any]]) -> list[Answer]:
        """Answer some requests as one batch; one that leaves no room for an answer is refused."""
        prompts = [self._encode(body["messages"]) for body in bodies]
        room = getattr(self._model.config, "max_position_embeddings", None) or 1 << 30
        fits = [len(prompt) + self._annotator.max_tokens <= room for prompt in prompts]
        generated = iter(self._generate([prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]))
        too_long = (
            f"the prompt and {self._annotator.max_tokens} tokens of answer exceed the model's {room} tokens"
        )
        return [next(generated) if fit else Answer(too_long, status=413) for fit in fits]

    def _encode(self, messages: list[dict[str, str]]) -> list[int]:
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, prompts: list[list[int]]) -> Iterator[Answer]:
        import torch

        from engine.train import padding_id

        if not prompts:
            return
        length, padding = max(map(len, prompts)), padding_id(self._tokenizer)
        # Generation appends on the right, so prompts are padded on the left.
        ids = torch.tensor([[padding] * (length - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=self._annotator.max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=padding,
                eos_token_id=self._tokenizer.eos_token_id,
            )
        for prompt, row in zip(prompts, output[:, length:].tolist(), strict=True):
            ended = self._tokenizer.eos_token_id in row
            tokens = row[: row.index(self._tokenizer.eos_token_id)] if ended else row
            text = self._tokenizer.decode(tokens, skip_special_tokens=True)
            text = text.encode("utf-8", "replace").decode()
            yield Answer(text, "stop" if ended else "length", len(prompt), len(tokens))
