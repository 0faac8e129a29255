"""A training side by side with others is the training alone: same adapter, log, checkpoints and stops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file
from tiny_models import build, without_dropout
from trainings import FAST, interrupted, load, many, saved_weights, together, train

from engine.errors import EngineError, Interrupted
from engine.progress import StopRequest, silent
from engine.stages.training.files import Trained
from engine.stages.training.loss import Objective
from engine.stages.training.together import joint_passes
from specs.tables.experiment import Lora, Train

ROWS = many(14)
BASE = Train(steps=20, batch_size=2, precision="float32", lr=3e-3)
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"examples": ROWS[:9], "lora": Lora(r=2), "settings": BASE},
    "dropout": {
        "examples": ROWS[2:],
        "lora": Lora(r=4, alpha=5.0, dropout=0.3),
        "settings": evolve(BASE, lr=1e-2, schedule="cosine", warmup=0.2, weight_decay=0.1),
        "seed": 3,
    },
    "accumulated": {
        "examples": ROWS[5:12],
        "lora": Lora(r=3, rslora=True),
        "settings": evolve(BASE, accumulation=2, max_grad_norm=0.1),
        "objective": Objective((2.0, 0.5, 1.0), "segments"),
    },
    "in epochs": {"examples": ROWS[:5], "lora": Lora(r=1), "settings": evolve(BASE, steps=None, epochs=2.0)},
    "stopped early": {
        "examples": ROWS[:5],
        "validation": ROWS[5:12],
        "lora": Lora(r=2, dropout=0.1),
        "settings": evolve(BASE, lr=0.05, schedule="constant", early_stopping=1, validate_every=2),
        "seed": 1,
    },
    "micro batches": {
        "examples": ROWS,
        "lora": Lora(r=2, dropout=0.2),
        "settings": evolve(BASE, batch_size=3, micro_batch=1),
    },
    "kept along": {
        "examples": ROWS[3:11],
        "lora": Lora(r=2, alpha=1.0),
        "settings": evolve(BASE, tokens=150, steps=None),
        "keep": lambda planned: (2, planned - 1),
    },
}


@pytest.fixture(scope="module")
def base() -> Any:
    """A model that does all in float64."""
    options = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return build("GPT2Config", without_dropout("GPT2Config", options)).double()


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits in float64 as well, so that rounding hides nothing."""
    monkeypatch.setattr(
        "engine.models.lens.lens_logits", lambda hidden, head: torch.nn.functional.linear(hidden, head.tokens)
    )


@pytest.fixture(scope="module")
def llama(tiny_model: Path) -> Any:
    return load(tiny_model)


def each_alone(
    base: Any, tokenizer: Any, folder: Path, trainings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Trained]:
    return {name: train(base, tokenizer, folder / name, **options) for name, options in trainings.items()}


def difference(left: Path, right: Path, name: str = "adapter/adapter_model.safetensors") -> float:
    """The largest difference of two adapters' weights, by the largest weight."""
    one, other = load_file(left / name), load_file(right / name)
    assert one.keys() == other.keys()
    size = max(weight.abs().max().item() for weight in other.values())
    return max((one[name] - other[name]).abs().max().item() for name in one) / size


def assert_same(found: Trained | Exception, expected: Trained, within: float) -> None:
    """All that is told of a training, but for the time that it took."""
    assert isinstance(found, Trained), found
    for name, curve in expected.curves.items():
        np.testing.assert_allclose(found.curves[name], curve, rtol=within, atol=1e-6, err_msg=name)
    assert found.summary.keys() == expected.summary.keys()
    for name in expected.summary.keys() - {"train_seconds"}:
        assert found.summary[name] == pytest.approx(expected.summary[name], rel=within), name
    assert (found.modules, found.planned) == (expected.modules, expected.planned)


def test_each_adapter_is_that_of_training_alone(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    expected = each_alone(base, tokenizer, tmp_path / "alone", TRAININGS)
    assert {int(trained.summary["train_steps"]) for trained in expected.values()} >= {6, 20}
    found = together(base, tokenizer, tmp_path / "together", TRAININGS)
    for name, trained in expected.items():
        assert_same(found[name], trained, 1e-6)
        assert difference(tmp_path / "together" / name, tmp_path / "alone" / name) < 1e-9, name
    assert found["plain"].passes["together"] == len(TRAININGS)
    for file in ("adapter-2.safetensors",):
        folders = (tmp_path / side / "kept along" for side in ("together", "alone"))
        assert difference(*folders, file) < 1e-9
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert not any(parameter.requires_grad for parameter in base.parameters())
