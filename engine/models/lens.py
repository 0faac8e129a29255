"""The lens of any causal model: its decoder layers, final norm and unembedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.batching import pad_right
from engine.models.block_parts import stream_in, stream_out
from engine.models.causal_lm import CausalLm, without_adapter
from engine.models.jacobians import Jacobians
from engine.models.packing import nothing_packed
from engine.models.translators import Translators
from engine.models.unembedding import unembedding_of
from kernels import Unembedding, lens_logits

# The names under which the decoders of transformers keep the norm before the unembedding, the last layer's
# own stream being what it reads; without any, layers end with a norm of their own.
FINAL_NORMS = (
    "norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "layer_norm", "ln_out",
    "out_norm", "embedding_norm", "output_layernorm", "layernorm",
)  # fmt: skip
PROJECTIONS = ("project_out",)  # from the layers' width to the unembedding's, behind the norm
DEPTHS = ("decoder_layers", "num_decoder_layers", "num_hidden_layers", "num_layers")

Maps = Translators | Jacobians


@frozen
class Lens:
    """Final norm, then unembedding, of a model (logit lens: nostalgebraist, 2020).

    With maps before them it is a tuned lens, or a Jacobian lens.
    """

    decoder: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    unembedding: Unembedding
    width: int  # D of the residual streams; OPT projects some of its models' to another for the unembedding
    heads: int  # of each layer, as the config says; 0 where it names no one number
    maps: Maps | None = None  # of each layer's stream to what the final norm is to read

    def normed(self, hidden: Tensor, layer: int) -> Tensor:
        """Give a layer's residual stream [..., D] as the unembedding is to read it."""
        mapped = hidden if self.maps is None else self.maps.translate(hidden, layer)
        normed: Tensor = self.norm(mapped)
        return normed

    @property
    def lacking(self) -> frozenset[int]:
        """The layers that this lens cannot read."""
        return self.maps.lacking if isinstance(self.maps, Jacobians) else frozenset()

    def last_hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Run the decoder alone: normed hidden states [B, T, D] of the last layer, without logits.

        No mask: every sequence begins with the first column. `pad` gives ids and mask of any batch.
        """
        with nothing_packed() if attention_mask is None else nullcontext():
            output = self.decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def pad(self, sequences: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor | None]:
        """Give the ids [B, T] of sequences, padded on the right, and the mask that the decoder needs."""
        ids, mask = pad_right(sequences, padding, self.device)
        return ids, self.needed(mask)

    def needed(self, mask: Tensor) -> Tensor | None:
        """Give the mask of right padding [B, T] where the decoder needs it, else None.

        No token sees later ones (`models.lens_check`), so a mask over right padding changes nothing, and
        without one attention takes its fastest kernel. Decoders that are not of transformers keep it: their
        code may ask for one.
        """
        return None if type(self.decoder).__module__.startswith("transformers.models.") else mask

    def logits(self, normed: Tensor) -> Tensor:
        """Unembed normed hidden states [..., D] into logits [..., V], as the model itself would, in float32.

        Products of half-precision operands are summed and kept in float32, where the model's own head rounds
        each logit to the weight's type; differentiable (`kernels.lens_logits`).
        """
        return lens_logits(normed, self.unembedding)

    @property
    def device(self) -> torch.device:
        """Where the unembedding is, and hidden states have to be."""
        return self.unembedding.weight.device

    @contextmanager
    def watching(self, numbers: list[int], positions: Tensor) -> Iterator[list[Tensor]]:
        """Collect residual streams while the model runs inside the `with` block.

        `numbers`: layers, 0 = the embedding, l = output of block l, ascending. `positions`: [B, P] token
        positions. The yielded list holds, after one forward pass, one tensor [B, P, D] per layer; all
        other positions are dropped as soon as a layer has run.
        """
        caught: list[Tensor] = []
        rows = torch.arange(len(positions), device=positions.device)[:, None]

        def keep(hidden: Any) -> None:
            if not torch.is_tensor(hidden) or hidden.ndim != 3 or len(hidden) != len(positions):
                raise EngineError(
                    f"model.id: the layers of {type(self.decoder).__name__} do not hand on one residual "
                    "stream [batch, tokens, width], so that none can be probed"
                )
            caught.append(hidden[rows, positions])

        hooks = []
        for number in numbers:
            if number == 0:
                hooks.append(
                    self.layers[0].register_forward_pre_hook(
                        lambda _, args, kwargs: keep(stream_in(args, kwargs)), with_kwargs=True
                    )
                )
            else:
                hooks.append(
                    self.layers[number - 1].register_forward_hook(
                        lambda _, _args, output: keep(stream_out(output))
                    )
                )
        try:
            yield caught
        finally:
            for hook in hooks:
                hook.remove()


def find_lens(model: CausalLm) -> Lens:
    """Find the lens of a transformers causal model, with or without a peft adapter around it.

    EngineError where the model has no such parts. `models.lens_check` shows that they are the right ones.
    """
    base = without_adapter(model)
    config = base.config.get_text_config(decoder=True)
    heads, width = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", None)
    decoder = _decoder(base)
    layers, owner = _layers(decoder, config)
    unembedding = unembedding_of(base)
    return Lens(
        decoder=decoder,
        layers=layers,
        norm=_final_norm(owner),
        unembedding=unembedding,
        width=width if isinstance(width, int) else unembedding.width,
        heads=heads if isinstance(heads, int) else 0,
    )


def _decoder(base: CausalLm) -> Any:
    """Give the part of a model that reads ids and gives hidden states."""
    from transformers import PreTrainedModel

    decoder_part = base.get_decoder()
    if decoder_part is base or not isinstance(decoder_part, PreTrainedModel):
        return next((part for part in base.children() if isinstance(part, PreTrainedModel)), decoder_part)
    return decoder_part


def _layers(decoder: nn.Module, config: Any) -> tuple[nn.ModuleList, nn.Module]:
    """Give the decoder's list of layers, and the module that holds it."""
    depths = [depth for name in DEPTHS if isinstance(depth := getattr(config, name, None), int)]
    for depth in depths:
        lists = [
            (child, module)
            for module in _own_modules(decoder)
            for child in module.children()
            if isinstance(child, nn.ModuleList) and len(child) == depth
        ]
        if lists:
            return lists[0]
    raise EngineError(
        f"model.id: {type(decoder).__name__} has no list of decoder layers of a length that its "
        f"configuration names ({', '.join(map(str, depths)) or 'none is named'})"
    )


def _own_modules(part: nn.Module) -> Iterator[nn.Module]:
    """Give a part of a model and what it consists of, without models within it: towers for pictures or sound.

    Such a model is looked into only where nothing else follows.
    """
    from transformers import PreTrainedModel

    inner: list[nn.Module] = []
    waiting = [part]
    while waiting:
        module = waiting.pop(0)
        yield module
        for child in module.children():
            (inner if isinstance(child, PreTrainedModel) else waiting).append(child)
    for model in inner:
        yield from _own_modules(model)


def _final_norm(owner: nn.Module) -> nn.Module:
    """Give what stands between the last layer's residual stream and the unembedding."""
    norms = [
        next((part for name in names if isinstance(part := getattr(owner, name, None), nn.Module)), None)
        for names in (FINAL_NORMS, PROJECTIONS)
    ]
    parts = [part for part in norms if part is not None]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
