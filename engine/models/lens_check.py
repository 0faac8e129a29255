"""The lens compared with the model itself when it is loaded, in one short run.

What is trained, scored and probed goes through the lens and not through the model's own `forward`. A model
that does more to its hidden states or logits than is known here would give wrong numbers without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define, frozen
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens, find_lens
from engine.models.load_errors import ATTENTION

TOKENS = 8
SHARED = 4  # tokens with which both rows begin
# The logits of one of two rows are brought to this size (root mean square), for a soft-cap bends large ones
# alone: published caps lie between 15 and 50.
LOUD = 64.0
# Largest relative difference (root mean square), by the type of the weights: what a model rounds its own
# logits to, several times in a row.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def check_lens(model: CausalLm) -> Lens:
    """Run a model over a few drawn tokens and compare its lens with its own logits; give the lens.

    The last hidden states, and the last layer's residual stream behind the final norm, have to unembed to the
    model's own logits. Each layer has to run once, over one stream. No token may see later ones. Else
    EngineError, which names the model's class and by how much the logits differ.
    """
    name, lens = type(model).__name__, find_lens(model)
    ids = _draw(model.config, lens.unembedding.vocab_size).to(lens.device)
    run = _run(model, lens, ids)
    if not run.logits.isfinite().all():
        raise EngineError(
            f"model.id: {name} gives logits that are not finite; expected weights without NaN or infinity, "
            "and a model.dtype that holds what the model computes"
        )
    if run.logits.shape[-1] < lens.unembedding.vocab_size:
        raise EngineError(
            f"model.id: {name} gives {run.logits.shape[-1]} logits, its configuration names "
            f"{lens.unembedding.vocab_size} tokens; expected one logit per token"
        )
    tolerance = max(TOLERANCES.get(kind, 1e-2) for kind in (lens.unembedding.weight.dtype, run.logits.dtype))
    truth = run.logits[..., : lens.unembedding.vocab_size]
    _compare(name, "the last hidden states", lens.logits(run.hidden * run.factors), truth, tolerance)
    stream = run.streams[-1]
    try:
        through = lens.logits(lens.normed(stream, len(lens.layers)) * run.factors)
    except RuntimeError as error:  # shapes that do not fit
        raise EngineError(
            f"model.id: the last layer's residual stream of {name} does not fit its final norm ({error})"
        ) from error
    _compare(name, "the last layer's residual stream", through, truth, tolerance)
    early = stream[:, :SHARED]
    if _difference(early[0], early[1]) > tolerance:
        raise EngineError(f"model.id: in {name} tokens see later ones; expected a model that reads in order")
    return lens


@frozen(eq=False)
class _CheckedRun:
    """What a model gives for two rows of tokens, the second with its logits made large."""

    logits: Tensor  # [2, T, V']
    hidden: Tensor  # [2, T, D] from the decoder alone, as it is used for training
    streams: list[Tensor]  # of each layer, [2, T, D]
    factors: Tensor  # [2, 1, 1] on the hidden states that the unembedding read


def _run(model: CausalLm, lens: Lens, ids: Tensor) -> _CheckedRun:
    mask, positions = torch.ones_like(ids), torch.arange(TOKENS, device=ids.device).expand(2, -1)
    numbers = list(range(len(lens.layers) + 1))
    try:
        with torch.no_grad(), lens.watching(numbers, positions) as streams, _loud(model, lens) as loudness:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        with torch.no_grad():
            hidden = lens.last_hidden(ids, mask)
    except (EngineError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if ATTENTION.search(str(error)):  # the key for that is another
            raise
        first_line = str(error).partition("\n")[0]
        raise EngineError(
            f"model.id: {type(model).__name__} cannot run as a causal decoder here "
            f"({type(error).__name__}: {first_line}); expected a model that reads token ids alone"
        ) from error
    shapes = {tuple(stream.shape) for stream in streams}
    if len(streams) != len(numbers) or shapes != {(*ids.shape, lens.width)}:
        raise EngineError(
            f"model.id: {type(model).__name__} does not run each of its {len(lens.layers)} layers once over "
            f"one residual stream of width {lens.width}, so that no layer can be probed"
        )
    width = lens.unembedding.width
    if hidden.shape[:2] != ids.shape or hidden.shape[2:] != (width,):
        raise EngineError(
            f"model.id: {type(model).__name__} has hidden states of shape {tuple(hidden.shape)}, its "
            f"unembedding reads {(*ids.shape, width)}; what stands between is not known here"
        )
    if loudness.factors is None:
        raise EngineError(
            f"model.id: {type(model).__name__} makes its logits without its own output embeddings, "
            "so that they cannot be followed"
        )
    return _CheckedRun(logits, hidden, streams, loudness.factors)


@define
class _Loudness:
    factors: Tensor | None = None


@contextmanager
def _loud(model: CausalLm, lens: Lens) -> Iterator[_Loudness]:
    """Make the second row's logits large, by hidden states times a power of two, which rounds nothing."""
    loudness = _Loudness()

    def amplify(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0].reshape(2, -1, args[0].shape[-1])
        logits = nn.functional.linear(hidden[1], lens.unembedding.weight.to(hidden.dtype))
        size = float(logits.float().square().mean().sqrt())
        usable = math.isfinite(size) and size > 0
        factor = 2.0 ** round(math.log2(LOUD / size)) if usable else 1.0
        loudness.factors = hidden.new_tensor([1.0, factor]).reshape(2, 1, 1)
        return ((hidden * loudness.factors).reshape(args[0].shape), *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(amplify)
    try:
        yield loudness
    finally:
        hook.remove()


def _compare(name: str, what: str, ours: Tensor, truth: Tensor, tolerance: float) -> None:
    if _difference(ours, truth) <= tolerance:
        return
    ours, truth = ours.double(), truth.double()
    ratio = float((ours * truth).sum() / truth.square().sum())
    if _difference(ours, ratio * truth) <= tolerance:
        how = f"are {ratio:.4g} times the model's own"
    else:
        how = f"differ from the model's own by up to {float((ours - truth).abs().max()):.3g}"
    raise EngineError(
        f"model.id: the logits that {what} of {name} unembed to {how}; it does something to them that is not "
        "known here, so what is trained and measured would be wrong; expected another architecture"
    )


def _difference(ours: Tensor, truth: Tensor) -> float:
    """Give the root mean square of a difference, relative to that of the truth."""
    ours, truth = ours.double(), truth.double()
    return float((ours - truth).norm() / truth.norm().clamp_min(1e-30))


def _draw(config: Any, vocabulary: int) -> Tensor:
    """Draw two rows of token ids that begin alike; none of those to which a configuration gives a meaning."""
    special: set[int] = set()
    parts = [config.to_dict()]
    while parts:
        for key, value in parts.pop().items():
            if isinstance(value, dict):
                parts.append(value)
            elif re.search(r"token_(id|index)s?$", str(key)):
                special.update(value if isinstance(value, list) else [value])
    usable = torch.tensor([token for token in range(vocabulary) if token not in special] or [0])
    generator = torch.Generator().manual_seed(0)
    ids = usable[torch.randint(len(usable), (2, TOKENS), generator=generator)]
    ids[1, :SHARED] = ids[0, :SHARED]
    return ids
