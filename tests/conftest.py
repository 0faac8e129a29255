"""What every test may ask for: a tiny model, a data file, a finished store; shared modules: `support`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no test looks anything up on a hub

from typing import Any

import pytest
from commands import engine
from hypothesis import HealthCheck, settings
from small_study import WORDS, make_llama, make_tokenizer, small_spec

# Drawing is slow on a busy machine, and that is no failure of the code under test.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fingerprints and converted models out of the person's own cache, but shared by the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small tokenizer, without padding token."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random-weight Llama: 3 layers, D = 32, V = 320."""
    import torch

    torch.manual_seed(0)
    return make_llama(
        tmp_path_factory.mktemp("tiny-llama"),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )


@pytest.fixture(scope="session")
def rated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 60 rated replies."""
    file = tmp_path_factory.mktemp("data") / "rated.jsonl"
    rows = [
        {
            "context": f"message {number}",
            "response": " ".join(WORDS[number % 7 : number % 7 + 4]),
            "rating": str(1 + number % 3),
            "why": f"because {WORDS[number % 5]} is {WORDS[number % 11]}",
        }
        for number in range(60)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def write_spec(tmp_path: Path, tiny_model: Path, rated_file: Path):
    """Give a function that writes a small spec over the tiny model, with further TOML appended."""
    return partial(small_spec, tmp_path, tiny_model, rated_file)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """The store of a small spec, probed at two positions, for tests that only read it."""
    folder = tmp_path_factory.mktemp("small")
    more = '[probe]\npositions = ["prompt_end", "completion_end"]\n'
    engine("execute", small_spec(folder, tiny_model, rated_file, more))
    return folder / "store"
