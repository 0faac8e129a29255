"""From an example to token ids: what the model reads (the prompt) and what it is to write (the target)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any

from attrs import evolve, field, frozen

from engine.errors import DataError, UsageError
from engine.plan import Plan, PlannedCell
from engine.pseudo import Corpus, Word, bag_of_words, filler, permuted, random_tokens, shuffled
from specs.data import Data
from specs.model import Prompt, Target

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

    `spellings`: further texts that mean a label. `examples` are those that pseudo-explanations are drawn
    from.
    """

    tokenizer: Any
    prompt: Prompt
    target: Target
    labels: list[str]
    dimension: str
    seed: int
    spellings: Mapping[str, Sequence[str]] = field(factory=dict)
    examples: Callable[[], Iterable[Example]] = list
    _memory: dict[str, Corpus] = field(factory=dict, repr=False)

    def prompt_text(self, example: Example) -> str:
        """Give the text before the target, with the chat template applied where the spec asks for it."""
        study = {"dimension": self.dimension, "labels": ", ".join(self.labels)}
        texts = {"context": example["context"], "response": example["response"]}
        message = _filled("prompt.template", self.prompt.template, {**texts, **study})
        system = _filled("prompt.system", self.prompt.system or "", study)
        if not self.prompt.chat_template:
            return f"{system}\n{message}" if system else message
        if not self.tokenizer.chat_template:
            raise UsageError(
                "prompt.chat_template: found true, but this model's tokenizer has no chat template; "
                "expected chat_template = false"
            )
        messages = [{"role": "system", "content": system}] if system else []
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

    def encode_prompt(self, example: Example) -> tuple[list[int], str]:
        """Tokenize what the model goes on from when it writes by itself; give what it has of a label, too."""
        bare, _ = self._ids(self.prompt_text(example), special=not self.prompt.chat_template)
        prompt = bare if self.target.explains_first else self.encode_spellings(example)[0]
        begun = str(self.tokenizer.decode(prompt[len(bare) :])).lstrip()
        return prompt, begun.removeprefix(self.prefix.lstrip())

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
        prompt, labels = self._encode_texts(example, explanation, [[label] for label in self.labels])
        return prompt, [ids for (ids,) in labels]

    def encode_spellings(
        self, example: Example, explanation: str | None = None
    ) -> tuple[list[int], list[list[list[int]]]]:
        """Tokenize the prompt, and every spelling of each label, its own text first.

        As `encode_labels`, with the spellings of all labels in the labels' place. Of one label's spellings
        that begin each other the shortest alone is kept: an answer that begins with "5/5" begins with "5".
        So no token sequence begins another, over all labels: the answers that begin with each are disjoint
        events, and their probabilities add up.
        """
        return self._encode_texts(example, explanation, list(self.spelled.values()))

    @property
    def spelled(self) -> dict[str, list[str]]:
        """Give every label's spellings, its own text first."""
        return {label: [label, *self.spellings.get(label, ())] for label in self.labels}

    def _encode_texts(
        self, example: Example, explanation: str | None, groups: Sequence[Sequence[str]]
    ) -> tuple[list[int], list[list[list[int]]]]:
        """Tokenize the prompt, and the texts of each group (one per label) as they would follow it."""
        prompt, before = self.prompt_text(example), self.prefix
        if self.target.explains_first:
            layout = self._layout(example)
            stem = layout.text[: layout.label] if explanation is None else self.stem(explanation)
            prompt, before = prompt + stem, ""

        def encoded(behind: str, end: Sequence[int] = ()) -> list[list[list[int]]]:
            return [
                _shortest([*self._split(prompt, before + text + behind)[1], *end] for text in texts)
                for texts in groups
            ]

        found = encoded("")
        if _clash(found):
            if self.target.content == "label" or self.target.placement == "before":
                found = encoded("", [self.tokenizer.eos_token_id])
            else:  # without the space that belongs to the word behind it
                found = encoded(self.behind_label.rstrip(" ") or self.behind_label)
        if clash := _clash(found):
            one, other = (self.labels[place] for place in clash)
            raise UsageError(
                f'evaluate.labels: the tokens of "{one}", or of a spelling of it, begin "{other}" as well, '
                "and what follows them in the target; expected labels that can be told apart"
            )
        sequences = [ids for group in found for ids in group]
        differs = (column for column, ids in enumerate(zip(*sequences, strict=False)) if len(set(ids)) > 1)
        shared = next(differs, 0)
        ids, _ = self._ids(prompt, special=not self.prompt.chat_template)
        return ids + sequences[0][:shared], [[own[shared:] for own in group] for group in found]

    def _layout(self, example: Example) -> _Layout:
        """Lay the genuine target out: pseudo-explanations take the places of its words."""
        label = example["label"]
        if self.target.content == "label":
            return _Layout(self.prefix + label, len(self.prefix), [])
        words = example["explanation"].split()
        half = {"after": 0, "before": len(words), "interleaved": (len(words) + 1) // 2}[self.target.placement]
        first, second = " ".join(words[:half]), " ".join(words[half:])
        before = self.stem(first) if self.target.explains_first else self.prefix
        text = before + label + (self.behind_label + second if second else "")
        spans, position = [], len(self.prefix)
        for index, word in enumerate(words):
            if index == half:
                position = len(text) - len(second)
            space = text[:position].endswith(" ")
            spans.append((position - space, position + len(word)))
            position += len(word) + 1
        return _Layout(text, len(before), spans)

    @property
    def behind_label(self) -> str:
        """Give the text between the label and the words behind it."""
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
        spellings=tables["evaluate"].spellings,
        dimension=data.dimension,
        seed=plan.matrix.seed(cell.choice),
        examples=examples,
    )


def _filled(key: str, template: str, fields: Mapping[str, str]) -> str:
    try:
        return template.format_map(fields)
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(
            f"{key}: found the field {error}; expected only {', '.join(fields)} in braces"
        ) from error


def _words(ends: list[int], spans: list[tuple[int, int]]) -> list[list[int]]:
    """Give, for each word's span of characters, the tokens that end in it."""
    return [[i for i, end in enumerate(ends) if start < end <= stop] for start, stop in spans]


def _shortest(sequences: Iterable[list[int]]) -> list[list[int]]:
    """Give the distinct sequences that begin with no other one."""
    distinct = [list(ids) for ids in dict.fromkeys(map(tuple, sequences))]
    return [
        own
        for own in distinct
        if not any(own[: len(other)] == other for other in distinct if other is not own)
    ]


def _clash(groups: Sequence[Sequence[list[int]]]) -> tuple[int, int] | None:
    """Give the places of two groups of which one holds a sequence that begins one of the other's."""
    for (i, ours), (j, theirs) in permutations(enumerate(groups), 2):
        if any(other[: len(own)] == own for own in ours for other in theirs):
            return i, j
    return None
