"""The configuration of SmolLM2-135M, for models of its shape with random weights."""

from transformers import LlamaConfig


def smollm2_config(layers: int = 30) -> LlamaConfig:
    """Give the configuration, with another number of layers where that is asked for."""
    return LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
