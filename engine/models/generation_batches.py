"""Generations of many prompts: in batches as large as the memory takes, the longest prompts first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from attrs import define
from transformers import LogitsProcessor

from engine.errors import EngineError
from engine.full_memory import memory_error
from engine.models.causal_lm import CausalLm
from engine.models.devices import free_memory
from engine.models.generation import generate
from engine.models.tokenizer import Tokenizer


@define
class GenerationBatches:
    """How many prompts are gone on from at once; from where memory was full, half as many."""

    rows: int

    def generate(
        self,
        model: CausalLm,
        tokenizer: Tokenizer,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        draws: Callable[[Sequence[int]], LogitsProcessor | None] = lambda _places: None,
        done: Callable[[int], None] = lambda _count: None,
        ends: Sequence[int] | None = None,
        stops: Sequence[str] = (),
    ) -> list[list[int]]:
        """Give what `engine.models.generation.generate` gives, in the order of the prompts.

        draws: makes what draws the tokens of the prompts at some places. done: called with the size of each
        batch that is written. EngineError where memory is full with one prompt.
        """
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        texts: list[list[int]] = [[] for _ in prompts]
        start = 0
        while start < len(order):
            places = order[start : start + self.rows]
            batch = [prompts[place] for place in places]
            try:
                written: list[list[int]] | None = generate(
                    model, tokenizer, batch, max_new_tokens, ends, draws(places), stops
                )
            except (RuntimeError, MemoryError) as error:
                self._take_fewer(len(places), len(batch[0]) + max_new_tokens, error)
                written = None
            if written is None:  # behind the `except`, where the error no longer holds the batch's tensors
                free_memory()
                continue
            for place, tokens in zip(places, written, strict=True):
                texts[place] = tokens
            start += len(places)
            done(len(places))
        return texts

    def _take_fewer(self, tried: int, longest: int, error: Exception) -> None:
        """Halve the rows where memory was full; else raise what was the matter."""
        if memory_error(error) is None:
            raise error
        if tried == 1:
            raise EngineError(
                f"generation: memory is full with one example, of up to {longest:,} tokens"
            ) from error
        self.rows = tried // 2
        warnings.warn(
            f"generation: memory was full with {tried} examples at once; from here on {self.rows} are "
            "written at a time, to the same result up to rounding",
            stacklevel=3,
        )
