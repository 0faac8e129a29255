"""The tokens with which all prompts of a batch begin: they go through the model once for all of them.

A system message and the head of a template stand before every example. Their keys and values are those of
one row, from which the rest of every row goes on: to the same states, up to rounding (attention over a shared
prefix: arXiv 2402.05099). A model has to keep keys and values of all tokens in every layer for that; one with
a sliding window, a recurrent state or positions that hang on a text's length reads every row from its begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from attrs import frozen
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.models.lens import Lens
from engine.models.packing import nothing_packed
from engine.models.prefix_rule import pays

_BY_LENGTH = ("dynamic", "longrope")  # rotations of positions that differ for longer texts
_NEAR = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest number
_NEAR_HALF = 0.05

Sequences = Sequence[Sequence[int]]

_able: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # decoders that were tried


@frozen(eq=False)
class Prefix:
    """Tokens that a model has read: keys and values [1, H, length, head width] of each layer."""

    length: int
    _lens: Lens
    _read: list[tuple[Tensor, Tensor]]

    def last_hidden(self, sequences: Sequences, padding: int) -> Tensor:
        """Give the normed hidden states [B, T - length, D] of the last layer behind the prefix.

        sequences: token ids that begin with it, each with at least one more.
        """
        ids, mask = self._lens.pad([sequence[self.length :] for sequence in sequences], padding)
        assert mask is None
        rows = [tuple(tensor.expand(len(ids), -1, -1, -1) for tensor in pair) for pair in self._read]
        with nothing_packed():
            output = self._lens.decoder(input_ids=ids, past_key_values=DynamicCache(rows), use_cache=True)
        hidden: Tensor = output.last_hidden_state
        return hidden


def shared_prefix(lens: Lens, sequences: Sequences, most: int | None = None) -> Prefix | None:
    """Read the tokens with which all sequences begin; None where that does not pay, or cannot be.

    At least one token of each is left. most: so many tokens at most, the next of some sequence being watched.
    """
    length = shared_length(sequences, most)
    tokens = sum(map(len, sequences)) / len(sequences)
    if len(sequences) < 2 or not pays(length, tokens) or not _is_able(lens):
        return None
    return _read(lens, sequences[0][:length])


def last_hidden(lens: Lens, prefix: Prefix | None, sequences: Sequences, padding: int) -> Tensor:
    """Give the last normed hidden states behind a prefix [B, T - length, D], or of whole sequences."""
    if prefix is None:
        return lens.last_hidden(*lens.pad(sequences, padding))
    return prefix.last_hidden(sequences, padding)


def shared_length(sequences: Sequences, most: int | None = None) -> int:
    """Give how many tokens all begin with, but for the last one of each, and at most so many."""
    first, least = sequences[0], min(map(len, sequences)) - 1
    if most is not None:
        least = min(least, most)
    others = sequences[1:]
    return next((n for n in range(least) if any(row[n] != first[n] for row in others)), max(least, 0))


def _read(lens: Lens, ids: Sequence[int]) -> Prefix | None:
    """Run the model over tokens; None where it does not keep keys and values of all."""
    with nothing_packed():
        output = lens.decoder(input_ids=torch.tensor([list(ids)], device=lens.device), use_cache=True)
    cache = getattr(output, "past_key_values", None)
    if (
        cache is None
        or type(cache) is not DynamicCache
        or any(type(layer) is not DynamicLayer for layer in cache.layers)
    ):
        return None
    read = [(layer.keys, layer.values) for layer in cache.layers]
    whole = all(
        isinstance(tensor, Tensor) and tensor.ndim == 4 and tensor.shape[-2] == len(ids)
        for pair in read
        for tensor in pair
    )
    return Prefix(len(ids), lens, read) if whole and len(read) == len(lens.layers) else None


def _is_able(lens: Lens) -> bool:
    """Tell whether a model gives behind a prefix what it gives of whole rows; tried once, on a few tokens."""
    if lens.decoder not in _able:
        _able[lens.decoder] = _can_go_on(lens)
    return _able[lens.decoder]


@torch.no_grad()
def _can_go_on(lens: Lens) -> bool:
    config = getattr(lens.decoder, "config", None)
    ids = torch.ones(1, 1, dtype=torch.int64)
    if config is None or lens.needed(ids) is not None or _hangs_on_length(config):
        return False
    highest = lens.unembedding.weight.shape[0]
    rows = [[(7 * place + 11 * row * (place > 4) + 3) % highest for place in range(9)] for row in range(3)]
    rows[1] = rows[1][:7]
    try:
        prefix = _read(lens, rows[0][:5])
        found = None if prefix is None else prefix.last_hidden(rows, 0)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError):
        return False
    if found is None:
        return False
    whole = lens.last_hidden(*lens.pad(rows, 0))[:, 5:].float()
    near = _NEAR.get(found.dtype, _NEAR_HALF) * float(whole.abs().max().nan_to_num())
    pairs = [(found[row, : len(ids) - 5].float(), whole[row, : len(ids) - 5]) for row, ids in enumerate(rows)]
    return all(torch.allclose(*pair, rtol=0.0, atol=near, equal_nan=True) for pair in pairs)


def _hangs_on_length(config: Any) -> bool:
    """Tell whether positions are encoded in another way in longer texts."""
    settings = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    return any(kind in _BY_LENGTH for kind in _kinds(settings))


def _kinds(settings: Iterable[Any]) -> Iterable[str]:
    """Yield what is called a type of rotations in settings, which may be those of kinds of layers."""
    for value in settings:
        if isinstance(value, dict):
            yield from (str(value[name]) for name in ("rope_type", "type") if name in value)
            yield from _kinds(value.values())
