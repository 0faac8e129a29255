"""A training of so many tokens takes the fewest steps that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from spec_problems import problems_of
from trainings import EOS, load, many, train

from engine.planning.stage_keys import Keys
from engine.stages.training.budget import within_budget
from engine.text.targets import Encoded
from specs import load_spec, resolve
from specs.tables.experiment import Train

EXAMPLES = many(7)
FAST = Train(batch_size=2, accumulation=2, precision="float32", lr=1e-2)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 200), st.integers(1, 3),
    st.integers(1, 3), st.booleans(), st.integers(0, 9),
)  # fmt: skip
def test_the_steps_are_those_that_have_the_tokens(
    sizes: list[int], budget: int, rows: int, batches: int, whole: bool, seed: int
) -> None:
    examples = [Encoded([10] * size, [20] * (size % 3 + 1) + [EOS], size, size % 3 + 1) for size in sizes]
    asked = {"tokens": budget} if whole else {"label_tokens": budget}
    chosen = within_budget(Train(batch_size=rows, accumulation=batches, **asked), examples, seed)  # type: ignore[arg-type]
    assert chosen.tokens is None and chosen.label_tokens is None
    per_epoch = sum(len(own) if whole else own.label_size for own in examples)
    steps = -(-len(examples) // (rows * batches))  # of an epoch
    assert chosen.steps is not None
    assert chosen.steps // steps * per_epoch <= budget + per_epoch
    assert -(-chosen.steps // steps) * per_epoch >= budget


@pytest.mark.parametrize("budget", [1, 20, 57, 130])
def test_a_training_takes_in_its_tokens_and_no_step_more(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, budget: int
) -> None:
    base = load(tiny_model)
    found = train(base, tokenizer, tmp_path / "a", EXAMPLES, settings=evolve(FAST, tokens=budget))
    steps = int(found.summary["train_steps"])
    assert found.summary["train_tokens"] >= budget
    fewer = train(base, tokenizer, tmp_path / "b", EXAMPLES, settings=evolve(FAST, steps=steps - 1 or 1))
    assert steps == 1 or fewer.summary["train_tokens"] < budget


def test_one_length_of_a_training_is_expected_and_part_of_its_key(tmp_path: Path) -> None:
    base = 'name = "demo"\nmodel.id = "m"\ndata.source = "s"\n'
    (problem,) = problems_of(tmp_path, "[train]\nsteps = 3\nlabel_tokens = 4\n", base)
    assert problem.key == "train.label_tokens" and "train.steps" in problem.message
    keys = set()
    for text in ("", "tokens = 40", "label_tokens = 40"):
        path = tmp_path / "demo.toml"
        path.write_text(f"{base}[train]\n{text}\n")
        matrix = resolve(load_spec(path))
        keys.add(Keys(matrix).of(matrix.cells[0])["train"])
    assert len(keys) == 3
