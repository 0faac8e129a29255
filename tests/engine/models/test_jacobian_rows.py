"""Rows of Jacobians against torch's own derivative of whole streams, in float64, of many architectures."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import tiny_models
import torch
from jacobian_oracle import jacobian_of
from torch import Tensor, nn

from engine.models import jacobian_rows as rows_module
from engine.models.jacobian_rows import jacobian_rows
from engine.models.lens import Lens, find_lens

SKIP = 2
# In float64 some norms still compute in float32, and results are kept in it.
TOLERANCE = {"rtol": 0, "atol": 2e-6}


def model_of(name: str) -> Any:
    """A tiny model in float64 whose layers do something; routed tokens one expert after another."""
    kind, options = tiny_models.MODELS[name]
    experts = {"experts_implementation": "eager"} if "moe" in name or name == "mixtral" else {}
    return tiny_models.build(kind, options | {"initializer_range": 0.2}, **experts).double()


def drawn(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(3, 90, (length,), generator=generator).tolist() for length in lengths]


def whole(lens: Lens, texts: list[list[int]], skip: int = SKIP) -> Tensor:
    """All rows: [L, B, D, D]."""
    parts = [part for _, part in jacobian_rows(lens, texts, skip, 0)]
    return torch.cat(parts, dim=2).double()


def assert_near(found: Tensor, truth: Tensor) -> None:
    torch.testing.assert_close(found / truth.abs().max(), truth / truth.abs().max(), **TOLERANCE)


@pytest.mark.parametrize(
    "name",
    [
        "llama", "mistral", "qwen3", "gemma 2, soft-capped", "gemma 3", "gpt2", "gpt-neox",
        "phi, biased head", "opt, projected, normed after", "falcon", "mixtral", "qwen2-moe", "falcon-h1",
        "recurrent gemma", "minicpm3", "bart",
    ],
)  # fmt: skip
def test_rows_are_those_of_the_whole_derivative(name: str) -> None:
    if name not in tiny_models.MODELS:
        pytest.skip("this release of transformers has no such model")
    lens, texts = find_lens(model_of(name)), drawn(6, 8)
    found = whole(lens, texts)
    assert found.shape == (len(lens.layers), 2, lens.width, lens.width)
    for layer in range(len(lens.layers)):
        assert_near(found[layer, 0], jacobian_of(lens, texts[0], layer, SKIP))
    assert_near(found[0, 1], jacobian_of(lens, texts[1], 0, SKIP))


@pytest.mark.parametrize("skip", [0, 1, 5])
def test_positions_that_do_not_count_have_no_part(skip: int) -> None:
    lens, (ids,) = find_lens(model_of("llama")), drawn(8)
    assert_near(whole(lens, [ids], skip)[1, 0], jacobian_of(lens, ids, 1, skip))


def test_neither_the_batch_nor_rows_at_once_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, texts = find_lens(model_of("qwen2")), drawn(12, 5, 9)
    together = whole(lens, texts)
    for number, ids in enumerate(texts):
        assert_near(whole(lens, [ids])[:, 0], together[:, number])
    for tokens in (1, 100):
        monkeypatch.setattr(rows_module, "TOKENS", tokens)
        assert_near(whole(lens, texts), together)


def test_an_adapted_model_is_differentiated_and_left_alone() -> None:
    model = tiny_models.adapt(model_of("llama")).double()
    before = {name: (p.clone(), p.requires_grad) for name, p in model.named_parameters()}
    assert any(trained for _, trained in before.values())
    lens, (ids,) = find_lens(model), drawn(7)
    found = whole(lens, [ids])
    assert_near(found[1, 0], jacobian_of(lens, ids, 1, SKIP))
    with model.disable_adapter():
        assert (whole(lens, [ids]) - found).abs().max() > 1e-3
    for name, parameter in model.named_parameters():
        value, trained = before[name]
        assert torch.equal(parameter, value) and parameter.requires_grad == trained
        assert parameter.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lens.layers)


class Unbatched(torch.autograd.Function):
    """An operation as of quantised weights: torch cannot batch what its gradient does."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.from_numpy(gradient.numpy() * 1)


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, value: Tensor) -> Tensor:
        return Unbatched.apply(self.inner(value))


def test_operations_that_torch_cannot_batch_are_differentiated_one_by_one() -> None:
    model = model_of("llama")
    lens, texts = find_lens(model), drawn(7, 9)
    expected = whole(lens, texts)
    layer = model.model.layers[1]
    layer.mlp = Wrapped(layer.mlp)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_near(whole(lens, texts), expected)


def test_half_precision_gives_finite_rows_near_the_others() -> None:
    exact, texts = find_lens(model_of("gemma 3").float()), drawn(8, 8)
    expected = whole(exact, texts)
    found = whole(find_lens(model_of("gemma 3").bfloat16()), texts)
    assert found.isfinite().all()
    assert (found - expected).norm() < 0.05 * expected.norm()
