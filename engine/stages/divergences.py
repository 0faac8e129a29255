"""How far a model's lens distributions are from those of other models on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens
from engine.planning.plan import PlannedCell
from engine.stages.adapter_layout import arrangement
from engine.stages.context import Context
from engine.stages.lens_values import LensValues, normed_layers
from kernels import lens_statistics

# Lets another model run inside a `with` block; None: the model itself.
Reference = Callable[[], AbstractContextManager[None]] | None


@contextmanager
def reference_models(
    context: Context, cell: PlannedCell, model: CausalLm
) -> Iterator[tuple[Any, dict[str, Reference]]]:
    """Put the adapters that `probe.against` names beside the cell's own inside the `with` block.

    Yields the model and, by name, its references. Raises UsageError where an adapter reaches outside the
    layers: norm and unembedding would not be the same for both.
    """
    if not cell.references:
        yield model, {}
        return
    donors = {key: context.adapter(key) for key in sorted(cell.donors_of("probe"))}
    with arrangement(model, donors, "probe.against") as arranged:
        own_names = {cell.keys["train"]} if arranged.trained else {cell.keys["train"], ""}
        yield (
            arranged.model,
            {
                name: None if source in own_names else partial(arranged.using, source)
                for name, source in cell.references.items()
            },
        )


def divergences(
    lenses: Sequence[Lens],
    read: Sequence[LensValues],
    references: Mapping[str, Reference],
    run: Callable[[str], Sequence[Tensor]],
    layers: Sequence[int],
    backend: str,
) -> dict[str, Tensor]:
    """Compare lens distributions with those of A references, layer by layer.

    Args:
        lenses: through which both models are read.
        read: what each of the Q lenses made of this model's L layers at N positions.
        references: by name, in the order of the result; the model itself is 0 from itself.
        run: gives the streams of the model that runs now, a reference by this name: [N, D] of each layer.
        layers: their numbers.
        backend: of the probe kernel.

    Returns:
        kl_against, KL(reference ‖ model), and js_against, Jensen-Shannon divergences: [L, N, A] of a single
            lens, [L, N, Q, A] of several; in nats.
    """
    normed = read[0].normed
    kl = torch.zeros(*normed.shape[:2], len(lenses), len(references), device=normed.device)
    js = torch.zeros_like(kl)
    for place, (name, reference) in enumerate(references.items()):
        if reference is None:
            continue
        with reference():
            hidden = run(name)
        for number, (lens, own) in enumerate(zip(lenses, read, strict=True)):
            rows = torch.cat([own.normed, normed_layers(lens, hidden, layers)]).flatten(0, 1)
            count = len(rows) // 2
            opposite = torch.arange(count, 2 * count, device=rows.device).repeat(2)
            result = lens_statistics(rows, lens.unembedding, top_k=0, final_rows=opposite, backend=backend)
            assert result.kl_final is not None and result.js_final is not None
            kl[..., number, place] = result.kl_final[:count].view(kl.shape[:2])
            js[..., number, place] = result.js_final[:count].view(js.shape[:2])
    values = {"kl_against": kl, "js_against": js}
    return {name: found.squeeze(2) if len(lenses) == 1 else found for name, found in values.items()}
