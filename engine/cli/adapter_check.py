"""A small adapter, saved and loaded again: what `engine doctor` asks of the packages that training needs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from engine.models.causal_lm import CausalLm


def adapter_trouble() -> str:
    """Say in a sentence why an adapter cannot be saved, or loaded as saved, here; "" where it can."""
    doing = "made"
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from engine.stages.training.adapter import attach_adapter
        from engine.stages.training.files import Trained, load_adapter, save_adapter, saved_training
        from specs.tables.experiment import Lora
        from store.backend.locate import place_of

        config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=16,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            base: CausalLm = LlamaForCausalLM(config).eval()
            weights = {name: value.clone() for name, value in base.state_dict().items()}
            model = attach_adapter(base, Lora(r=2)).eval()
            with torch.no_grad():
                for parameter in (trained for trained in model.parameters() if trained.requires_grad):
                    parameter.normal_()
        ids = torch.arange(8)[None]
        with TemporaryDirectory(prefix="ablation-engine-doctor-") as folder, torch.no_grad():
            expected, plain = model(ids).logits, LlamaForCausalLM(config)
            plain.load_state_dict(weights)
            doing, home = "saved", place_of(Path(folder))
            save_adapter(model, Trained({"loss": 1.0}, {"loss": np.zeros(1, np.float32)}), home)
            doing = "loaded"
            logits = load_adapter(plain.eval(), home)(ids).logits
            if saved_training(home) is None or not torch.equal(logits, expected):
                return "a small adapter was saved, but came back as another one"
    except Exception as error:  # whatever a package may raise that has changed, a person shall read of it
        return f"a small adapter cannot be {doing}: {type(error).__name__}: {error}"
    return ""
