"""Right padding needs no mask: without one the loss and its gradient are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import MODELS, TRAINABLE, adapt, build

from engine.models.lens import Lens, find_lens
from engine.stages.training.loss import Collator, completion_loss
from engine.text.targets import Encoded

EXAMPLES = [
    Encoded([10 + place for place in range(prompt)], [40 + number, *range(50, 50 + completion)], prompt)
    for number, (prompt, completion) in enumerate([(20, 3), (3, 1), (9, 8), (1, 2)])
]


def gradients(model: Any, *, masked: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[float, torch.Tensor]:
    """The loss of the examples, and its gradient by all that an adapter trains."""
    with monkeypatch.context() as patch:
        if masked:
            patch.setattr(Lens, "needed", lambda _, mask: mask)
        model.zero_grad()
        loss = completion_loss(find_lens(model), Collator(padding=0)(EXAMPLES))
        loss.backward()
    found = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return loss.item(), torch.cat(found)


def test_what_is_compared_has_padding_and_no_mask() -> None:
    lens, batch = find_lens(build(*MODELS["llama"])), Collator(padding=0)(EXAMPLES)
    assert batch["attention_mask"].sum() < batch["attention_mask"].numel()
    assert lens.needed(batch["attention_mask"]) is None


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", TRAINABLE)
def test_without_a_mask_the_gradient_is_the_same(
    name: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        model = adapt(build(*TRAINABLE[name], attn_implementation=attention))
    except ValueError as error:
        pytest.skip(str(error))
    model.float()
    (with_mask, theirs), (without, ours) = (
        gradients(model, masked=masked, monkeypatch=monkeypatch) for masked in (True, False)
    )
    assert theirs.abs().max() > 0
    assert without == pytest.approx(with_mask, rel=1e-5)
    assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max()
