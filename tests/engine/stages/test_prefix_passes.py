"""A probe's pass behind the tokens that all its texts begin with: what whole texts give, and fewer tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import MODELS, TRAINABLE, build

from engine.errors import EngineError
from engine.models import shared_prefix as prefixes
from engine.models.attention_heads import check_heads
from engine.models.block_streams import check_blocks
from engine.models.lens import Lens, find_lens
from engine.models.prefix_rule import LEAST_TOKENS
from engine.stages.watched_passes import Streams, watched_pass
from specs.tables.probe import Probe

HEAD = [(7 * place + 5) % 60 + 3 for place in range(LEAST_TOKENS + 3)]


def texts(count: int = 4) -> list[list[int]]:
    rng = random.Random(1)
    return [[*HEAD, 91 - row, *(rng.randrange(3, 90) for _ in range(2 * row))] for row in range(count)]


def probe_of(lens: Lens) -> Probe:
    """Ask all that can be read of a model."""
    asked: dict[str, Any] = {"routers": True}
    try:
        check_heads(lens)
        asked["heads"] = True
    except EngineError:
        pass
    try:
        check_blocks(lens)
        asked |= {"streams": ["attention", "mlp"], "attribution": True}
    except EngineError:
        pass
    return Probe(**asked)


def watched(lens: Lens, probe: Probe, places: Sequence[Sequence[int]]) -> tuple[Streams, int]:
    """Run a pass, and count the tokens that the model reads."""
    read = list[int]()
    hook = lens.decoder.register_forward_pre_hook(
        lambda _, _arguments, options: read.append(options["input_ids"].numel()), with_kwargs=True
    )
    streams = watched_pass(lens, range(len(lens.layers) + 1), probe, 0, texts(), places)
    hook.remove()
    return streams, sum(read)


def assert_near(found: Streams, expected: Streams) -> None:
    for mine, other in zip(found.parts, expected.parts, strict=True):
        for one, two in zip(mine, other, strict=True):
            scale = float(two.nan_to_num().abs().max()) if two.numel() else 1.0
            torch.testing.assert_close(one, two, rtol=0.0, atol=3e-5 * max(scale, 1e-3), equal_nan=True)


@pytest.mark.parametrize("name", MODELS | TRAINABLE)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.inference_mode()
def test_all_that_is_watched_is_that_of_whole_texts(name: str, attention: str) -> None:
    """Streams, attention entropies, routers, and what blocks add, at the ends and between."""
    model = build(*(MODELS | TRAINABLE)[name])
    try:
        model.set_attn_implementation(attention)
    except ValueError:
        pytest.skip("has no such attention")
    lens = find_lens(model)
    probe = probe_of(lens)
    ends = [[len(ids) - 1, max(len(HEAD), len(ids) - 3)] for ids in texts()]
    found, read = watched(lens, probe, ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "pays", lambda *_: False)
        expected, whole = watched(lens, probe, ends)
    assert_near(found, expected)
    if prefixes._able[lens.decoder]:
        assert read < 0.6 * whole + 50  # a few tokens were tried


@torch.inference_mode()
def test_no_token_is_read_once_for_all_at_which_something_is_watched() -> None:
    lens = find_lens(build(*MODELS["llama"]))
    ends = [[len(ids) - 1] for ids in texts()]
    watched(lens, Probe(), ends)  # is tried
    behind = watched(lens, Probe(), ends)[1]
    inside = [[len(HEAD) - 2, *own] for own in ends]
    streams, read = watched(lens, Probe(), inside)
    rows = len(ends)
    assert read - behind == 2 * rows - 2
    first = [[5, *own] for own in ends]
    whole, all_read = watched(lens, Probe(), first)
    assert all_read == rows * max(map(len, texts()))
    for one, two in zip(streams.hidden, whole.hidden, strict=True):
        torch.testing.assert_close(one[:, 1], two[:, 1], rtol=1e-4, atol=1e-5)
