"""From an example to token ids: what the model reads (the prompt) and what it is to write (the target)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from engine.errors import UsageError
from specs.model import Prompt, Target

Example = Mapping[str, str]


@frozen
class Encoded:
    """One example as token ids; the loss counts `completion` alone."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@frozen
class Writer:
    """Turns examples into text and token ids, for one tokenizer and one cell's settings."""

    tokenizer: Any
    prompt: Prompt
    target: Target
    labels: list[str]
    dimension: str
    seed: int

    def prompt_text(self, example: Example) -> str:
        """Give the text before the target, with the chat template applied where the spec asks for it."""
        fields = {
            "context": example["context"],
            "response": example["response"],
            "dimension": self.dimension,
            "labels": ", ".join(self.labels),
        }
        try:
            message = self.prompt.template.format_map(fields)
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(
                f"prompt.template: found the field {error}; expected only {', '.join(fields)} in braces"
            ) from error
        if not self.prompt.chat_template:
            return f"{self.prompt.system}\n{message}" if self.prompt.system else message
        if not self.tokenizer.chat_template:
            raise UsageError(
                "prompt.chat_template: found true, but this model's tokenizer has no chat template; "
                "expected chat_template = false"
            )
        messages = [{"role": "system", "content": self.prompt.system}] if self.prompt.system else []
        messages.append({"role": "user", "content": message})
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @property
    def prefix(self) -> str:
        """Give the text between prompt and label."""
        if self.target.prefix is not None:
            return self.target.prefix
        return "" if self.prompt.chat_template else " "

    def target_text(self, example: Example) -> str:
        """Give the text of the target, from the label on, without the prefix."""
        if self.target.content == "label":
            return example["label"]
        explanation = example["explanation"]
        if self.target.content == "label+shuffled":
            explanation = shuffle_words(explanation, f"{self.seed} {example['id']}")
        return f"{example['label']}{self.target.separator}{explanation}"

    def encode(self, example: Example) -> Encoded:
        """Tokenize prompt and target; the completion ends with the end-of-sequence token."""
        stemmed, _ = self.encode_labels(example)
        ids, completion = self._split(self.prompt_text(example), self.prefix + self.target_text(example))
        whole = ids + completion
        if whole[: len(stemmed)] == stemmed:
            ids, completion = stemmed, whole[len(stemmed) :]
        return Encoded(ids, [*completion, self.tokenizer.eos_token_id])

    def encode_labels(self, example: Example) -> tuple[list[int], list[list[int]]]:
        """Tokenize the prompt, and every label as it would follow that prompt.

        Tokens with which all labels begin (a space of its own, say) say nothing about the label; they are
        given to the prompt, whose last position then is the one that predicts the label. Where the tokens
        of one label begin another label ("1" and "10"), the text that follows a label in the target is
        added to each, so that the two are told apart.
        """
        prompt = self.prompt_text(example)
        texts = [self.prefix + label for label in self.labels]
        parts = [self._split(prompt, text) for text in texts]
        labels = [completion for _, completion in parts]
        if _one_begins_another(labels):
            if self.target.content == "label":
                labels = [[*label, self.tokenizer.eos_token_id] for label in labels]
            else:
                labels = [self._split(prompt, text + self.target.separator)[1] for text in texts]
        differs = (column for column, ids in enumerate(zip(*labels, strict=False)) if len(set(ids)) > 1)
        stem = next(differs, 0)
        return parts[0][0] + labels[0][:stem], [label[stem:] for label in labels]

    def _split(self, prompt: str, completion: str) -> tuple[list[int], list[int]]:
        """Tokenize the two texts as one, so that a space between them falls where the model saw it.

        Where a token spans the border, the two are tokenized apart: the prompt must not depend on the
        target, or label scores of one example would not share their condition.
        """
        ids = self._ids(prompt, special=not self.prompt.chat_template)
        joint = self._ids(prompt + completion, special=not self.prompt.chat_template)
        if len(joint) > len(ids) and joint[: len(ids)] == ids:
            return ids, joint[len(ids) :]
        return ids, self._ids(completion, special=False)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        # A chat template writes the special tokens itself; adding them again would double the first.
        ids = list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        eos = self.tokenizer.eos_token_id
        # Some tokenizers close every text with the end token, which would end the prompt here.
        closed = special and ids[-1:] == [eos] and not text.endswith(str(self.tokenizer.eos_token))
        return ids[:-1] if closed else ids


def shuffle_words(text: str, seed: str) -> str:
    """Permute the words of a text; the same seed gives the same order on every machine."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def parse_label(text: str, labels: Sequence[str]) -> str:
    """Give the label that a generated text begins with, or `""` if it begins with none.

    The longest fitting label wins ("10" before "1"), and a label ends where its word ends.
    """
    text = text.strip()
    for label in sorted(labels, key=len, reverse=True):
        rest = text[len(label) :]
        if text.casefold().startswith(label.casefold()) and not rest[:1].isalnum():
            return label
    return ""


def _one_begins_another(labels: Sequence[Sequence[int]]) -> bool:
    return any(
        list(other[: len(label)]) == list(label)
        for i, label in enumerate(labels)
        for j, other in enumerate(labels)
        if i != j
    )
