"""What a probe's lenses make of the residual streams at the watch positions of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from engine.models.lens import Lens
from engine.stages.statistics import LayerStates, function_names, layer_values
from kernels import LensStatistics, collision_entropy, lens_statistics
from specs.tables.probe import Probe

# What the store calls a statistic of the kernel that has another name there.
NAMES = {"top_logprob": "top_logprobs", "top_id": "top_ids"}
OF_LENSES = (
    "logsumexp", "entropy", "max_prob", "kl_final", "js_final", "watch_mass", "watch_entropy",
    "watch_logprob", "watch_rank", *NAMES,
)  # fmt: skip


@frozen(eq=False)
class LensValues:
    """What one lens makes of L layers at N positions."""

    normed: Tensor  # [L, N, D]: the streams as the unembedding reads them
    values: dict[str, Tensor]  # by variable of the store, [L, N, …]
    lost: Tensor  # [N]: layers with a NaN or Inf, those aside that the lens cannot read
    backend: str  # that served


def normed_layers(lens: Lens, hidden: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """Give the streams of L layers, each [N, D], as the unembedding is to read them: [L, N, D]."""
    return torch.stack([lens.normed(states, layer) for states, layer in zip(hidden, layers, strict=True)])


def lens_values(
    lens: Lens, hidden: Sequence[Tensor], layers: Sequence[int], watched: Sequence[int] | Tensor, probe: Probe
) -> LensValues:
    """Read streams through a lens: all statistics that the probe asks for.

    Args:
        hidden: [N, D] of each of the L layers, the final one last.
        layers: their numbers.
        watched: token ids [J] of all rows, or [L N, J] of each.
    """
    normed = normed_layers(lens, hidden, layers)
    result, shape = _statistics(lens, normed, watched, probe), normed.shape[:2]
    values = {}
    for name in OF_LENSES:
        rows = getattr(result, NAMES.get(name, name))
        if rows is not None:
            values[name] = rows.view(*shape, *rows.shape[1:])
    for name in function_names(probe, of_lens=True):
        values[name] = of_layers(name, lens, hidden, layers, probe)
    if "renyi_2" in probe.statistics:
        rows, lse = normed.flatten(0, 1), result.logsumexp
        values["renyi_2"] = collision_entropy(rows, lens.unembedding, lse, backend=probe.backend).view(shape)
    read = [place for place, layer in enumerate(layers) if layer not in lens.lacking]
    lost = torch.isnan(result.logsumexp).view(shape)[read].sum(dim=0)
    return LensValues(normed, values, lost, result.backend)


def of_layers(name: str, lens: Lens, hidden: Sequence[Tensor], layers: Sequence[int], probe: Probe) -> Tensor:
    """Give a statistic that is a function of hidden states, [L, N]."""
    by_layer = [
        layer_values(name, LayerStates(states, layer, lens, probe.backend))
        for states, layer in zip(hidden, layers, strict=True)
    ]
    return torch.stack(by_layer)


def together(read: Sequence[LensValues]) -> dict[str, Tensor]:
    """Give the values of several lenses along a third axis, [L, N, Q, …]; of a single one as they are."""
    if len(read) == 1:
        return read[0].values
    return {name: torch.stack([one.values[name] for one in read], dim=2) for name in read[0].values}


def _statistics(lens: Lens, normed: Tensor, watched: Sequence[int] | Tensor, probe: Probe) -> LensStatistics:
    layers, per_layer, width = normed.shape
    final = torch.arange(per_layer, device=normed.device) + (layers - 1) * per_layer
    needs_final = {"kl_final", "js_final"} & set(probe.statistics)
    return lens_statistics(
        normed.reshape(-1, width),
        lens.unembedding,
        watch_ids=watched,
        top_k=probe.top_k,
        final_rows=final.repeat(layers) if needs_final else None,
        backend=probe.backend,
    )
