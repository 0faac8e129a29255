"""Which adapter works where: a model whose layers take their LoRA deltas from several trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import frozen
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from engine.errors import UsageError
from engine.models.base_model import as_it_was
from engine.models.block_parts import attention_modules
from engine.models.causal_lm import CausalLm
from engine.models.lens import find_lens
from engine.planning.changes import OWN
from engine.planning.run_order import Adapter, Step
from engine.stages.training.files import load_adapter
from store.backend.location import Place


@frozen
class Arrangement:
    """A model with the adapters of several trainings, of which each part of each layer uses one."""

    model: CausalLm
    trained: str  # name of the cell's trained adapter, "" where it has none
    sites: tuple[tuple[int, str, BaseTunerLayer], ...]  # layer, attention or mlp, adapted module

    @contextmanager
    def using(self, source: str) -> Iterator[None]:
        """Run the model of another training, "" without any adapter, inside the `with` block."""
        with self._set(lambda _layer, _part: (source, 1.0)):
            yield

    @contextmanager
    def changed(self, steps: Sequence[Step], above: int = 0) -> Iterator[None]:
        """Run the model with what each layer's step names, in those `above` one, inside the `with` block."""

        def arranged(layer: int, part: str) -> Adapter:
            if layer <= above:
                return self.trained, 1.0
            step = steps[layer - 1]
            return step.attention if part == "attention" else step.mlp

        with self._set(arranged):
            yield

    @contextmanager
    def _set(self, arranged: Callable[[int, str], Adapter]) -> Iterator[None]:
        """Give each adapted module its adapter and the factor on its deltas; afterwards the own one again."""
        switched, scaled = [], []
        try:
            for layer, part, module in self.sites:
                name, factor = arranged(layer, part)
                if name != self.trained:
                    switched.append(module)
                    _switch(module, name)
                if factor != 1 and name in module.scaling:
                    scaled.append((module, name, module.scaling[name]))
                    module.scaling[name] *= factor
            yield
        finally:
            for module, name, scale in scaled:
                module.scaling[name] = scale
            for module in switched:
                _switch(module, self.trained)


@contextmanager
def arrangement(
    model: CausalLm, donors: Mapping[str, Place], asking: str = "interventions"
) -> Iterator[Arrangement]:
    """Put the donors' adapters (train key → home) beside the model's own inside the `with` block.

    asking: the key of the spec that takes adapters apart, for messages.

    Raises UsageError where an adapter reaches outside the layers, so that no layer would account for it.
    """
    own_adapter = OWN if hasattr(model, "peft_config") else ""
    adapted = model
    with as_it_was(model):
        for key, home in donors.items():
            adapted = load_adapter(adapted, home, name=key)
        sites = adapted_sites(adapted, asking)
        for _, _, module in sites:
            _switch(module, own_adapter)
        yield Arrangement(adapted, own_adapter, sites)


def _switch(module: BaseTunerLayer, name: str) -> None:
    """Let a module work with one adapter, "" with none."""
    module.set_adapter([name] if name else [], inference_mode=True)


def adapted_sites(
    model: CausalLm, asking: str = "interventions"
) -> tuple[tuple[int, str, BaseTunerLayer], ...]:
    """Give what an adapter is on: layer, attention or mlp, module.

    Raises UsageError where it reaches outside the layers, or trains modules in full.
    """
    if not isinstance(model, PeftModel):
        return ()
    sites: list[tuple[int, str, BaseTunerLayer]] = []
    for number, layer in enumerate(find_lens(model).layers, start=1):
        attention = {id(inner) for part in attention_modules(layer) for inner in part.modules()}
        adapted = (module for module in layer.modules() if isinstance(module, BaseTunerLayer))
        sites += [(number, "attention" if id(module) in attention else "mlp", module) for module in adapted]
    inside = {id(module) for _, _, module in sites}
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper | BaseTunerLayer) and id(module) not in inside:
            raise UsageError(
                f"{asking}: the adapter trains {name.removeprefix('base_model.model.')}, which is "
                "no LoRA delta of a layer; expected lora.target_modules that keep to layers, and "
                "lora.modules_to_save = []"
            )
    return tuple(sites)
