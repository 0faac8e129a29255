"""Tokens of a data set's examples, by their characters: before any tokenizer has read them."""

from __future__ import annotations

from attrs import frozen

from engine.planning.sizes import DataCard
from specs.tables.experiment import Train
from specs.tables.target import Prompt, Target

CHARACTERS_PER_TOKEN = 4


@frozen
class Lengths:
    """Tokens of an example's parts: their means, and those of the longest example."""

    prompt: float
    completion: float
    longest_prompt: float
    longest_completion: float
    head: float = 0.0  # of the prompt: what stands before anything of the example

    @staticmethod
    def of(train: Train, prompt: Prompt, target: Target, texts: DataCard | None) -> Lengths:
        """Give the lengths of texts in a cell's prompt and target."""
        if texts is None:  # unknown texts: nothing is longer than what training admits
            return Lengths(train.max_length, 0, train.max_length, 0)
        around = len(prompt.template) + len(prompt.system or "")
        explains = target.content != "label"
        return Lengths(
            (around + texts.prompt) / CHARACTERS_PER_TOKEN,
            2 + texts.explanation * explains / CHARACTERS_PER_TOKEN,
            (around + texts.longest_prompt) / CHARACTERS_PER_TOKEN,
            2 + texts.longest_explanation * explains / CHARACTERS_PER_TOKEN,
            len(prompt.head) / CHARACTERS_PER_TOKEN,
        )

    def longest(self, train: Train) -> tuple[float, float]:
        """Give the tokens of a training's longest example, and those of its completion."""
        longest = min(train.max_length, self.longest_prompt + self.longest_completion)
        return longest, min(longest, self.longest_completion)
