"""Prompts are gone on from in batches of any size, to one result; in smaller ones where memory is full."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import MODELS, build
from transformers import AutoModelForCausalLM

from engine.errors import EngineError
from engine.models.generation import generate
from engine.models.generation_batches import GenerationBatches
from engine.models.sampling import Draws, numbers
from engine.planning.generation_rows import generation_rows, row_bytes
from engine.planning.sizes import card_of
from specs.tables.evaluate import Evaluate
from specs.tables.sampling import Sampling

NEW = 9


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).requires_grad_(False).eval()


@pytest.fixture
def prompts() -> list[list[int]]:
    drawn = random.Random(7)
    return [[drawn.randrange(3, 90) for _ in range(drawn.randrange(1, 12))] for _ in range(11)]


def full_from(model: torch.nn.Module, rows: int) -> list[int]:
    """Let a model's memory be full with so many rows; give the list of the passes that were run."""
    passes: list[int] = []

    def check(_module: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = options.get("input_ids", arguments[0] if arguments else None)
        passes.append(len(ids))
        if len(ids) >= rows:
            raise torch.OutOfMemoryError("out of memory")

    model.register_forward_pre_hook(check, with_kwargs=True)
    return passes


@pytest.mark.parametrize("rows", [1, 2, 5, 11, 64])
def test_batches_of_any_size_write_the_same_in_the_order_of_the_prompts(
    model: Any, tokenizer: Any, prompts: list[list[int]], rows: int
) -> None:
    alone = [generate(model, tokenizer, [prompt], NEW)[0] for prompt in prompts]
    counted: list[int] = []
    batches = GenerationBatches(rows)
    assert batches.generate(model, tokenizer, prompts, NEW, done=counted.append) == alone
    assert counted == [min(rows, 11 - start) for start in range(0, 11, rows)]


def test_each_prompt_is_drawn_by_its_own_numbers_in_any_batch(
    model: Any, tokenizer: Any, prompts: list[list[int]]
) -> None:
    settings = Sampling(samples=1, temperature=2.0)

    def draws(places: Any) -> Draws:
        return Draws(settings, [numbers(3, f"e{place}", 0) for place in places])

    alone = [generate(model, tokenizer, [prompts[i]], NEW, draws=draws([i]))[0] for i in range(11)]
    assert len({tuple(text) for text in alone}) > 8
    assert GenerationBatches(4).generate(model, tokenizer, prompts, NEW, draws) == alone
    full_from(model, 3)
    with pytest.warns(UserWarning, match="memory was full with 4 examples at once; from here on 2"):
        assert GenerationBatches(4).generate(model, tokenizer, prompts, NEW, draws) == alone


def test_half_as_many_go_on_where_memory_is_full(
    model: Any, tokenizer: Any, prompts: list[list[int]]
) -> None:
    whole = GenerationBatches(11).generate(model, tokenizer, prompts, NEW)
    passes, batches = full_from(model, 4), GenerationBatches(11)
    with pytest.warns(UserWarning, match="at once; from here on") as told:
        assert batches.generate(model, tokenizer, prompts, NEW) == whole
    assert [size for number, size in enumerate(passes) if size not in passes[:number]][:3] == [11, 5, 2]
    assert len(told) == 2 and batches.rows == 2


def test_memory_that_is_full_with_one_example_is_told(
    model: Any, tokenizer: Any, prompts: list[list[int]]
) -> None:
    full_from(model, 1)
    with (
        pytest.raises(EngineError, match=r"memory is full with one example, of up to \d+ tokens"),
        pytest.warns(UserWarning),
    ):
        GenerationBatches(3).generate(model, tokenizer, prompts, NEW)


def test_other_errors_are_not_taken_for_full_memory(model: Any, tokenizer: Any) -> None:
    with pytest.raises(IndexError):
        GenerationBatches(3).generate(model, tokenizer, [[10**9]], NEW)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "mixtral"])
def test_rows_fill_what_is_free_and_no_more(name: str) -> None:
    model = build(*MODELS[name])
    card = card_of(model.config.to_dict(), {k: list(v.shape) for k, v in model.state_dict().items()})
    assert card is not None
    row = row_bytes(card, 300, 4)
    for free in (0.0, row, 7.3 * row, 1e15):
        rows = generation_rows(Evaluate(batch_size=2), row, free)
        assert rows == 1 or rows * row <= free
        assert rows == min(32, max(1, int(free / row)))
    assert generation_rows(Evaluate(batch_size=2), row, None) == 2
    assert generation_rows(Evaluate(generation_batch=50), row, row) == 50
