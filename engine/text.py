"""From an example to token ids: what the model reads (the prompt) and what it is to write (the target)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from engine.errors import DataError, UsageError
from engine.plan import Plan, PlannedCell
from engine.pseudo import Corpus, Word, bag_of_words, filler, permuted, random_tokens, shuffled
from specs.model import Data, Prompt, Target

Example = Mapping[str, str]


@frozen
class Encoded:
    """One example as token ids; the loss counts `completion` alone."""

    prompt: list[int]
    completion: list[int]
    label: int  # place of the label's first token in prompt + completion

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@frozen
class _Layout:
    """The text of a target after its prompt: where the label begins, and the words with the spaces before."""

    text: str
    label: int
    words: list[tuple[int, int]]


@frozen
class Writer:
    """Turns examples into text and token ids, for one tokenizer and one cell's settings.

    `examples` are those that pseudo-explanations are drawn from.
    """

    tokenizer: Any
    prompt: Prompt
    target: Target
    labels: list[str]
    dimension: str
    seed: int
    examples: Callable[[], Iterable[Example]] = list
    _memory: dict[str, Corpus] = field(factory=dict, repr=False)

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

    @property
    def separator(self) -> str:
        """Give the text between label and explanation."""
        if self.target.separator is not None:
            return self.target.separator
        return ": " if self.target.placement == "after" else "\nRating: "

    def encode(self, example: Example) -> Encoded:
        """Tokenize prompt and target; the completion ends with the end-of-sequence token."""
        layout = self._layout(example)
        ids, completion, ends = self._split(self.prompt_text(example), layout.text)
        label = len(ids) + sum(end <= layout.label for end in ends)
        if self.target.content not in ("label", "label+explanation") or self.target.permuted:
            # A first word without the space before it would glue to its neighbour anywhere else: it stays.
            fixed = sum(layout.text[start] != " " for start, _ in layout.words)
            completion = self._replaced(example, completion, _words(ends, layout.words), fixed)
        whole = ids + completion
        if not self.target.explains_first:
            stemmed, _ = self.encode_labels(example)
            if whole[: len(stemmed)] == stemmed:
                ids, label = stemmed, len(stemmed)
        return Encoded(ids, [*whole[len(ids) :], self.tokenizer.eos_token_id], label)

    def stem(self, explanation: str) -> str:
        """Give the text between the prompt and the label, where this explanation comes first."""
        return f"{self.prefix}{explanation}{self.separator}"

    def encode_prompt(self, example: Example) -> list[int]:
        """Tokenize what the model goes on from when it writes by itself."""
        if self.target.explains_first:
            return self._split(self.prompt_text(example), self.prefix)[0]
        return self.encode_labels(example)[0]

    def cut(self, generated: str) -> tuple[str, str]:
        """Cut a generated text in two: the explanation before its label, "" if none is due, and the rest."""
        if not self.target.explains_first:
            return "", generated
        explanation, _, rest = generated.partition(self.separator)
        return " ".join(explanation.split()), rest

    def encode_labels(
        self, example: Example, explanation: str | None = None
    ) -> tuple[list[int], list[list[int]]]:
        """Tokenize the prompt, and every label as it would follow that prompt.

        Where the explanation comes first it belongs to the prompt: the given one, or the example's own.

        Tokens with which all labels begin (a space of its own, say) say nothing about the label; they are
        given to the prompt, whose last position then is the one that predicts the label. Where the tokens
        of one label begin another label ("1" and "10"), the text that follows a label in the target is
        added to each, so that the two are told apart.
        """
        prompt, before = self.prompt_text(example), self.prefix
        if self.target.explains_first:
            if explanation is None:
                layout = self._layout(example)
                prompt, before = prompt + layout.text[: layout.label], ""
            else:
                prompt, before = prompt + self.stem(explanation), ""
        parts = [self._split(prompt, before + label) for label in self.labels]
        labels = [completion for _, completion, _ in parts]
        if _one_begins_another(labels):
            if self.target.content == "label" or self.target.placement == "before":
                labels = [[*label, self.tokenizer.eos_token_id] for label in labels]
            else:
                # Without the space that belongs to the word behind it.
                after = self._behind_label.rstrip(" ") or self._behind_label
                labels = [self._split(prompt, before + label + after)[1] for label in self.labels]
        differs = (column for column, ids in enumerate(zip(*labels, strict=False)) if len(set(ids)) > 1)
        stem = next(differs, 0)
        return parts[0][0] + labels[0][:stem], [label[stem:] for label in labels]

    def _layout(self, example: Example) -> _Layout:
        """Lay the genuine target out: pseudo-explanations take the places of its words."""
        label = example["label"]
        if self.target.content == "label":
            return _Layout(self.prefix + label, len(self.prefix), [])
        words = example["explanation"].split()
        half = {"after": 0, "before": len(words), "interleaved": (len(words) + 1) // 2}[self.target.placement]
        first, second = " ".join(words[:half]), " ".join(words[half:])
        before = self.stem(first) if self.target.explains_first else self.prefix
        text = before + label + (self._behind_label + second if second else "")
        spans, position = [], len(self.prefix)
        for index, word in enumerate(words):
            if index == half:
                position = len(text) - len(second)
            space = text[:position].endswith(" ")
            spans.append((position - space, position + len(word)))
            position += len(word) + 1
        return _Layout(text, len(before), spans)

    @property
    def _behind_label(self) -> str:
        return self.separator if self.target.placement == "after" else ". "

    def _replaced(
        self, example: Example, completion: list[int], places: list[list[int]], fixed: int
    ) -> list[int]:
        """Give the completion with other tokens where the explanation's words stand; `places`: by word."""
        rng = random.Random(f"{self.seed} {example['id']}")
        words = [tuple(completion[place] for place in word) for word in places]
        flat = [place for word in places for place in word]
        content = self.target.content
        if content == "label+explanation":
            moved = permuted(words[fixed:], self.target.permuted, rng)
            drawn = [token for word in (*words[:fixed], *moved) for token in word]
        elif content == "label+shuffled":
            drawn = [token for word in (*words[:fixed], *shuffled(words[fixed:], rng)) for token in word]
        elif content == "label+bag_of_words":
            drawn = bag_of_words(len(flat), self._corpus(), rng)
        elif content == "label+random_tokens":
            drawn = random_tokens(len(flat), self._corpus(), rng)
        else:
            drawn = filler(len(flat), self._ids(self.target.filler, special=False)[0])
        replaced = list(completion)
        for place, token in zip(flat, drawn, strict=True):
            replaced[place] = token
        return replaced

    def _corpus(self) -> Corpus:
        if "corpus" not in self._memory:
            genuine = evolve(self, target=evolve(self.target, content="label+explanation", permuted=0.0))
            self._memory["corpus"] = Corpus.of(genuine.explanation_words(row) for row in self.examples())
        if not self._memory["corpus"].words:
            raise DataError(
                f'target.content: found "{self.target.content}", which is drawn from explanations, but the '
                "training examples have none"
            )
        return self._memory["corpus"]

    def explanation_words(self, example: Example) -> list[Word]:
        """Give the tokens of each word of the genuine explanation, as they stand in the target."""
        layout = self._layout(example)
        _, completion, ends = self._split(self.prompt_text(example), layout.text)
        return [tuple(completion[i] for i in word) for word in _words(ends, layout.words) if word]

    def _split(self, prompt: str, completion: str) -> tuple[list[int], list[int], list[int]]:
        """Tokenize the two texts as one, so that a space between them falls where the model saw it.

        Give the ids of both, and where each token of the completion ends in its text. Where a token spans
        the border, the two are tokenized apart: the prompt must not depend on the target, or label scores of
        one example would not share their condition.
        """
        special = not self.prompt.chat_template
        ids, _ = self._ids(prompt, special=special)
        joint, ends = self._ids(prompt + completion, special=special)
        if len(joint) > len(ids) and joint[: len(ids)] == ids:
            return ids, joint[len(ids) :], [end - len(prompt) for end in ends[len(ids) :]]
        return ids, *self._ids(completion, special=False)

    def _ids(self, text: str, *, special: bool) -> tuple[list[int], list[int]]:
        # A chat template writes the special tokens itself; adding them again would double the first.
        encoded = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        ids, ends = list(encoded["input_ids"]), [end for _, end in encoded["offset_mapping"]]
        eos = self.tokenizer.eos_token_id
        # Some tokenizers close every text with the end token, which would end the prompt here.
        closed = special and ids[-1:] == [eos] and not text.endswith(str(self.tokenizer.eos_token))
        return (ids[:-1], ends[:-1]) if closed else (ids, ends)


def cell_writer(
    plan: Plan, cell: PlannedCell, tokenizer: Any, data: Data, examples: Callable[[], Iterable[Example]]
) -> Writer:
    """Give the writer of a cell's training or test data; `examples`: those of the training split."""
    tables = {name: plan.matrix.table(name, cell.choice) for name in ("prompt", "target", "evaluate")}
    return Writer(
        tokenizer=tokenizer,
        prompt=tables["prompt"],
        target=tables["target"],
        labels=list(tables["evaluate"].labels),
        dimension=data.dimension,
        seed=plan.matrix.seed(cell.choice),
        examples=examples,
    )


def _words(ends: list[int], spans: list[tuple[int, int]]) -> list[list[int]]:
    """Give, for each word's span of characters, the tokens that end in it."""
    return [[i for i, end in enumerate(ends) if start < end <= stop] for start, stop in spans]


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
