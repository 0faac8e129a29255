"""The LoRA adapter of a training, as it begins; `engine.models.base_model` takes it off again."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils import recursively_apply
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from engine.errors import UsageError
from engine.models.causal_lm import AdaptedLm, CausalLm
from engine.process_group.alone import ALONE, ProcessGroup
from engine.stages.training.modules import check_named, check_trained, unseen_modules
from specs.tables.experiment import Lora

# What peft says of its own work with every adapter: names of transformers that it uses, that GPT-2's Conv1D
# keeps its weights transposed, which it sees by itself, and that an adapter of tied embeddings unties them or
# is saved with them, which is meant here: each module that a spec names is trained and saved by itself.
NOISE = (
    "`is_gradient_checkpointing` is deprecated",
    "fan_in_fan_out is set to False but the target module",
    "Model (has|with) `tie_word_embeddings=True`",
    "Setting `save_embedding_layers` to `True` as embedding layers found",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out, inside the `with` block, warnings of peft that tell nobody anything."""
    with warnings.catch_warnings():
        for text in NOISE:
            warnings.filterwarnings("ignore", message=text)
        yield


def attach_adapter(base: CausalLm, lora: Lora, ranks: ProcessGroup = ALONE) -> AdaptedLm:
    """Put a fresh LoRA adapter on a base model (LoRA: arXiv 2106.09685); the base stays frozen.

    To be used within `as_it_was`, also where it raises.
    """
    from peft import LoraConfig, get_peft_model

    if lora.dora and ranks.size > 1:
        raise UsageError(
            f"lora.dora: found true, which needs whole weights to begin with; expected false with "
            f"executor.ranks = {ranks.size}"
        )
    check_named(base, lora)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=unseen_modules(base, lora) or None,
        modules_to_save=list(lora.modules_to_save) or None,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    try:
        with quiet():
            model: AdaptedLm = get_peft_model(base, config)
    except ValueError as error:
        raise UsageError(f"lora.target_modules: found {lora.target_modules!r}: {error}") from error
    keep_float32(model)
    if isinstance(base.get_output_embeddings(), BaseTunerLayer):
        raise UsageError(
            f"lora.target_modules: found {lora.target_modules!r}, which takes in the unembedding; the lens "
            'needs its whole matrix: train it in full by modules_to_save = ["lm_head"]'
        )
    check_trained(model, base)
    ranks.check_adapter(model)
    return model


def keep_float32(model: AdaptedLm, name: str = "default") -> bool:
    """Keep the modules that an adapter trains in full in float32, as peft keeps the rest of it.

    Steps of a fine-tuning are smaller than half precision resolves. Around such a module nothing changes: its
    inputs are converted, and its outputs, but for logits, have the type of the original module's. Tells
    whether any had another type; weights that were read into it before that are rounded.
    """
    changed, head = False, model.get_base_model().get_output_embeddings()
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper) and name in module.modules_to_save:
            trained = module.modules_to_save[name]
            own_dtype = next((p.dtype for p in trained.parameters() if p.is_floating_point()), torch.float32)
            if own_dtype != torch.float32:
                trained.float()
                trained.register_forward_pre_hook(_taking(torch.float32), with_kwargs=True)
                if module is not head:
                    trained.register_forward_hook(_giving(own_dtype))
                changed = True
    return changed


def _taking(dtype: torch.dtype) -> Callable[..., Any]:
    def convert(_module: Any, arguments: Any, options: Any) -> Any:
        return _converted(arguments, dtype), _converted(options, dtype)

    return convert


def _giving(dtype: torch.dtype) -> Callable[..., Any]:
    def convert(_module: Any, _arguments: Any, output: Any) -> Any:
        return _converted(output, dtype)

    return convert


def _converted(data: Any, dtype: torch.dtype) -> Any:
    """Give tensors, or what holds some, with all floating-point ones of one type."""

    def floating(part: Any) -> bool:
        return isinstance(part, torch.Tensor) and part.is_floating_point()

    return recursively_apply(lambda tensor: tensor.to(dtype), data, test_type=floating)
