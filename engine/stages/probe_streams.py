"""`probe.streams` and `probe.attribution`: what is stored of the streams within blocks, of one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from attrs import evolve
from torch import Tensor

from engine.models.block_parts import ATTENTION
from engine.models.block_streams import BlockKinds
from engine.models.lens import Lens
from engine.stages.attribution import Attribution, head_parts
from engine.stages.lens_values import lens_values
from engine.stages.stream_layout import BIAS, EMBEDDING, components, lens_names, stream_variables
from engine.stages.watched_passes import Streams, streams_within
from specs.common.names import ATTRIBUTION, HEAD_ATTRIBUTION, STREAM
from specs.tables.probe import Probe

# The ids of watched tokens by a number of layers: [J] for all rows, or [layers N, J].
WatchIds = Callable[[int], Sequence[int] | Tensor]


def stream_values(
    lens: Lens, streams: Streams, layers: Sequence[int], watch_ids: WatchIds, probe: Probe
) -> dict[str, Tensor]:
    """Give the lens statistics of the streams within blocks, by variable: [L, N, S, …].

    Args:
        lens: the logit lens, which KL and JS of the final layer refer to as well.
        streams: of one pass, [N, …] of each of L layers.
        layers: their numbers, the final one last.
        watch_ids: of the watched tokens.
        probe: what is asked for.
    """
    if not probe.streams:
        return {}
    names, asked = streams_within(probe), evolve(probe, statistics=lens_names(probe), activation=False)
    stored = [v.name for v in stream_variables(probe, bool(len(watch_ids(1)))) if v.name.startswith(STREAM)]
    numbers, ids = [*layers, layers[-1]], watch_ids(len(layers) + 1)
    parts: dict[str, list[Tensor]] = {name: [] for name in stored}
    for stream in probe.streams:
        hidden = [within[:, names.index(stream)] for within in streams.within]
        values = lens_values(lens, [*hidden, streams.hidden[-1]], numbers, ids, asked).values
        for name in stored:
            parts[name].append(values[name.removeprefix(STREAM)][: len(layers)])
    return {name: torch.stack(values, dim=2) for name, values in parts.items()}


def attribution_values(
    lens: Lens,
    streams: Streams,
    layers: Sequence[int],
    blocks: BlockKinds,
    watch_ids: WatchIds,
    probe: Probe,
) -> dict[str, Tensor]:
    """Give what each part of the final residual stream adds to the logits of J tokens, before any soft-cap.

    Args:
        lens: the logit lens.
        streams: of one pass, [N, …] of each of L layers.
        layers: their numbers, the final one last.
        blocks: what the model's blocks add.
        watch_ids: of the watched tokens.
        probe: what is asked for.

    Returns:
        `attribution` [L, N, C, J], and on demand `head_attribution` [L, N, H, J].
    """
    if not probe.attribution:
        return {}
    ids = torch.as_tensor(watch_ids(1), device=lens.device)
    found = Attribution.of(lens, streams.hidden[-1], ids)
    names, within = components(layers, blocks.kinds), streams_within(probe)
    nothing = torch.full_like(found.bias, math.nan)
    by_layer, by_head = [], []
    for place, layer in enumerate(layers):
        reaching, inner = blocks.reaching(layer), streams.within[place]
        if layer == 0:
            parts = {EMBEDDING: reaching * found.apply(streams.hidden[place]), BIAS: found.bias}
        else:
            parts = {kind: reaching * found.apply(inner[:, within.index(kind)]) for kind in blocks.kinds}
        by_layer.append(torch.stack([parts.get(name, nothing) for name in names], dim=1))
        if probe.attribution_per_head:
            heads = [nothing] * lens.heads
            if layer:
                added = inner[:, within.index(ATTENTION)]
                by_itself = head_parts(lens, layer, streams.head_outputs[place], added)
                heads = [reaching * found.apply(part) for part in by_itself]
            by_head.append(torch.stack(heads, dim=1))
    values = {ATTRIBUTION: torch.stack(by_layer)}
    return values | ({HEAD_ATTRIBUTION: torch.stack(by_head)} if by_head else {})
