"""One pass of several trainings gives each the loss and gradient that its own rows give by themselves."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from joint_gradients import Cell, adapted, alone, together
from tiny_models import TRAINABLE, build, without_dropout

from engine.stages.training.loss import Objective
from engine.text.targets import Encoded
from specs.tables.experiment import Lora

# These are trained one by one, and why.
ALONE = {
    "mixtral": "is no matrix of a plain LoRA adapter",  # of experts, and of what chooses them
    "phimoe": "router_jitter_noise = 0.01",
    "qwen3-moe": "is no matrix of a plain LoRA adapter",
}


def examples(*sizes: tuple[int, int], start: int = 10) -> list[Encoded]:
    """Rows of prompts and completions of these lengths."""
    return [
        Encoded(
            [start + (7 * number + place) % 40 for place in range(prompt)],
            [50 + (5 * number + place) % 40 for place in range(completion)],
            prompt,
        )
        for number, (prompt, completion) in enumerate(sizes)
    ]


# Different ranks, scales, modules, lengths, rows and objectives.
CELLS = [
    Cell(Lora(r=2, alpha=3.0), examples((6, 1), (3, 1))),
    Cell(Lora(r=4, alpha=32.0, rslora=True), examples((5, 9), (2, 3), start=17)),
    Cell(Lora(r=3), examples((4, 2), (8, 1), (1, 6), start=23), Objective((2.0, 0.5, 1.0), "segments")),
    Cell(Lora(r=1, alpha=0.5), examples((11, 2))),
]


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """The largest difference by the largest number."""
    return float((left - right).abs().max() / right.abs().max().clamp(min=1e-30))


def check(base: Any, cells: Sequence[Cell], within: float, dtype: torch.dtype | None = None) -> None:
    """All go along, and each one's loss and gradients are near those by itself."""
    models = [adapted(base, cell, seed, dtype) for seed, cell in enumerate(cells)]
    expected = [alone(model, cell) for model, cell in zip(models, cells, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = together(base, models, cells)
    for (loss, gradient), (own_loss, own) in zip(found, expected, strict=True):
        assert loss is not None
        assert difference(loss, own_loss) < within
        assert gradient.keys() == own.keys() and len(own) > 0
        largest = max(float(value.abs().max()) for value in own.values())
        assert largest > 0
        for name, value in own.items():
            assert float((gradient[name] - value).abs().max()) < within * largest, name


@pytest.mark.parametrize("kind", ["gpt2", "gpt-neox", "opt"])
def test_in_float64_each_gradient_is_the_trainings_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of models that do nothing in less, with logits in float64 as well."""
    monkeypatch.setattr(
        "engine.models.lens.lens_logits", lambda hidden, head: torch.nn.functional.linear(hidden, head.tokens)
    )
    name, options = TRAINABLE[kind]
    base = build(name, without_dropout(name, options)).double()
    layers = {"gpt2": ["c_attn"], "gpt-neox": ["query_key_value"], "opt": ["v_proj", "fc1"]}[kind]
    some = Cell(Lora(r=2, target_modules=layers), examples((7, 2), (2, 2), start=31))
    check(base, [*CELLS, some], 1e-12, torch.float64)


@pytest.mark.parametrize("name", [name for name in TRAINABLE if name not in ALONE])
def test_of_every_architecture(name: str) -> None:
    kind, options = TRAINABLE[name]
    check(build(kind, without_dropout(kind, options)), CELLS, 2e-5)


@pytest.mark.parametrize("name", [name for name in TRAINABLE if name in ALONE])
def test_what_cannot_go_along_is_left_alone_and_told_why(name: str) -> None:
    kind, options = TRAINABLE[name]
    base = build(kind, without_dropout(kind, options))
    models = [adapted(base, cell, seed) for seed, cell in enumerate(CELLS)]
    with pytest.warns(UserWarning, match=ALONE[name]):
        found = together(base, models, CELLS)
    assert found == [(None, {})] * len(CELLS)
