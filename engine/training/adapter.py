"""The LoRA adapter of a training, as it begins; `engine.base_model` takes it off again."""

from __future__ import annotations

import warnings
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer

from engine.errors import UsageError
from engine.ranks import ALONE, Ranks
from engine.training.modules import check_trained, unseen_modules
from specs.model import Lora

# peft asks transformers for checkpointing by its former name, at every adapter.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def attach_adapter(base: Any, lora: Lora, ranks: Ranks = ALONE) -> Any:
    """Put a fresh LoRA adapter on a base model (LoRA: arXiv 2106.09685); the base stays frozen.

    To be used within `as_it_was`, also where it raises.
    """
    from peft import LoraConfig, get_peft_model

    if lora.dora and ranks.size > 1:
        raise UsageError(
            f"lora.dora: found true, which needs whole weights to begin with; expected false with "
            f"executor.ranks = {ranks.size}"
        )
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
        model = get_peft_model(base, config)
    except ValueError as error:
        raise UsageError(f"lora.target_modules: found {lora.target_modules!r}: {error}") from error
    if isinstance(base.get_output_embeddings(), BaseTunerLayer):
        raise UsageError(
            f"lora.target_modules: found {lora.target_modules!r}, which takes in the unembedding; the lens "
            'needs its whole matrix: train it in full by modules_to_save = ["lm_head"]'
        )
    check_trained(model, base)
    ranks.check_adapter(model)
    return model
