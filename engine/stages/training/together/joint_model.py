"""One model that computes for several trainings at once, on the weights of the base model that all share."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import define, field
from peft.tuners.lora import LoraLayer
from peft.tuners.lora import layer as lora_layers
from torch import Tensor, nn

from engine.models.causal_lm import AdaptedLm, CausalLm, recompute_activations
from engine.models.lens import Lens, find_lens
from engine.stages.training.frozen_linear import multiply_faster
from engine.stages.training.loss import sent
from engine.stages.training.together.grouped_lora import NAME, Adapter, GroupedLora, RowLayout, Stack

_QUANTISED = ("Linear4bit", "Linear8bitLt")  # peft's modules over those of bitsandbytes
_SIZE = (2, 3)  # rows and tokens of a training in the trial
_NEAR = 0.02  # of the largest number, what batches of other content may round differently in half precision


def structure_of(model: CausalLm) -> CausalLm:
    """Give a model with modules, hooks and configs of its own on the same weights and buffers."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    own: CausalLm = copy.deepcopy(model, tensors)
    return own


def why_alone(model: AdaptedLm, *, checkpointing: bool) -> str | None:
    """Say what of a training's model cannot be computed beside others; None where all can."""
    if checkpointing and any(Adapter.of(layer).dropout for _, layer in _layers(model) if _is_plain(layer)):
        return "activations are computed anew, for which dropout would be drawn anew"
    grouped = {
        id(parameter)
        for _, layer in _layers(model)
        if _is_plain(layer)
        for parameter in (layer.lora_A[NAME].weight, layer.lora_B[NAME].weight)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in grouped:
            return f"{name.removeprefix('base_model.model.')} is no matrix of a plain LoRA adapter"
    return _drawing(model)


def _drawing(model: AdaptedLm) -> str | None:
    """Say which setting lets the model itself draw numbers while it is trained."""
    config = model.get_base_model().config.get_text_config(decoder=True).to_dict()
    for name, value in config.items():
        if ("drop" in name or "jitter" in name) and isinstance(value, int | float) and value > 0:
            return f"the model draws numbers of its own, by {name} = {value} of its configuration"
    return None


def _layers(model: AdaptedLm) -> Iterator[tuple[str, LoraLayer]]:
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _is_plain(layer: LoraLayer) -> bool:
    """Tell whether a module's output is its base's with the two products of an adapter added."""
    kind = type(layer)
    return (
        (kind is lora_layers.Linear or kind.__name__ in _QUANTISED)
        and NAME in layer.lora_A
        and not getattr(layer, "lora_variant", None)
        and layer.lora_B[NAME].bias is None
    )


@define(eq=False)
class JointModel:
    """The base model with the adapters of those trainings that take part in a pass."""

    model: CausalLm
    lens: Lens
    _grouped: dict[str, GroupedLora] = field(factory=dict, init=False)
    _models: list[AdaptedLm] = field(factory=list, init=False)  # of the trainings that are stacked
    _matrices: list[Tensor] = field(factory=list, init=False)
    _places: list[Tensor] = field(factory=list, init=False)  # of the matrices in the stacks
    _checkpointing: bool = field(default=False, init=False)

    @classmethod
    def of(cls, base: CausalLm) -> JointModel:
        """Make one over the weights of a base model, which stays as it is."""
        model = structure_of(base)
        multiply_faster(model)
        return cls(model, find_lens(model))

    def seat(self, models: Sequence[AdaptedLm]) -> None:
        """Take the adapters of these trainings in, in this order, as they are now."""
        if len(models) != len(self._models) or any(
            new is not old for new, old in zip(models, self._models, strict=True)
        ):
            self._stack(models)
        with torch.no_grad():
            torch._foreach_copy_(self._places, self._matrices)

    def _stack(self, models: Sequence[AdaptedLm]) -> None:
        adapters: dict[str, dict[int, Adapter]] = {}
        for number, model in enumerate(models):
            for name, layer in _layers(model):
                adapters.setdefault(name, {})[number] = Adapter.of(layer)
        for name in adapters.keys() - self._grouped.keys():
            self._grouped[name] = self._replace(name)
        for name, grouped in self._grouped.items():
            grouped.stack = Stack(adapters[name]) if name in adapters else None
        pairs = [pair for stack in self._stacks() for pair in stack.pairs()]
        self._models, self._matrices = list(models), [matrix for matrix, _ in pairs]
        self._places = [place for _, place in pairs]

    def _replace(self, name: str) -> GroupedLora:
        parent, _, leaf = name.rpartition(".")
        grouped = GroupedLora(self.model.get_submodule(name))
        setattr(self.model.get_submodule(parent), leaf, grouped)
        return grouped

    def _stacks(self) -> Iterator[Stack]:
        return (grouped.stack for grouped in self._grouped.values() if grouped.stack is not None)

    @property
    def modules(self) -> frozenset[str]:
        """The names of the modules with an adapter of any of these trainings."""
        return frozenset(name for name, grouped in self._grouped.items() if grouped.stack is not None)

    def prepare(self, *, checkpointing: bool) -> None:
        """Get ready for a pass that is trained by, with activations computed anew or not."""
        self.model.train()
        if checkpointing != self._checkpointing:
            recompute_activations(self.model, anew=checkpointing)
            self._checkpointing = checkpointing

    def hidden(self, ids: Tensor, mask: Tensor, layout: RowLayout) -> Tensor:
        """Give normed hidden states [n R, T, D] of all rows; ids and mask of padding are [n R, T]."""
        for grouped in self._grouped.values():
            grouped.layout = layout
        needed, device = self.lens.needed(mask), self.lens.device
        return self.lens.last_hidden(sent(ids, device), None if needed is None else sent(needed, device))

    def gradients(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Give each training's matrices with their gradients of the last backward pass, and forget these."""
        found = [pair for stack in self._stacks() for pair in stack.gradients()]
        self.forget()
        return found

    def forget(self) -> None:
        """Forget what a pass that was not finished has left."""
        for stack in self._stacks():
            stack.clear()

    @torch.no_grad()
    def trial(self) -> str | None:
        """Say which module does not read the rows of a pass in their order; None where all do.

        Two passes that differ in the first training's tokens alone have to differ in its rows alone.
        """
        count, (rows, tokens) = len(self._models), _SIZE
        layout = RowLayout([_SIZE] * count, self.lens.device)
        generator = torch.Generator().manual_seed(0)
        highest = self.model.config.get_text_config(decoder=True).vocab_size
        first, other = (torch.randint(highest, (count * rows, tokens), generator=generator) for _ in range(2))
        other[rows:] = first[rows:]
        self.model.eval()
        seen = []
        for ids in (first, other):
            with _inputs_of(self._grouped) as inputs:
                try:
                    self.hidden(ids, torch.ones_like(ids), layout)
                except ValueError as error:
                    return str(error)
            seen.append(inputs)
        for name, before in seen[0].items():
            one, two = (layout.by_training(x)[1:].float() for x in (before, seen[1][name]))
            if not torch.allclose(one, two, atol=_NEAR * float(one.abs().max()), rtol=0.0):
                return f"{name} reads tokens in another order than that of a batch's rows"
        return None


@contextlib.contextmanager
def _inputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect the last input of each module that runs inside the `with` block."""
    inputs: dict[str, Tensor] = {}

    def note(name: str, arguments: Any) -> None:
        inputs[name] = arguments[0]

    hooks = [
        module.register_forward_pre_hook(lambda _, arguments, name=name: note(name, arguments))
        for name, module in modules.items()
    ]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()
