"""Sizes of models and data sets, read from file headers without torch, for the plan's estimates."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs
from attrs import frozen

from engine.data.data_sets import data_set_rows
from engine.data.prompt_fields import prompt_characters
from engine.data.reading import column_names, row_texts
from engine.data.sources import DataSource, sources
from engine.data.table_files import read_file
from engine.fingerprints import cache_folder, fingerprint_path
from engine.models.loading import is_gguf, local_path
from engine.models.weight_files import check_files, safetensors_shapes
from engine.planning.layer_facts import Facts, Layer, Linear, facts_of, is_block
from specs.tables.data import Data
from specs.tables.experiment import Model

SAMPLED_ROWS = 256


@frozen
class ModelCard:
    """What a model's cost depends on."""

    layers: int
    hidden: int
    vocabulary: int
    heads: int  # attention heads of a layer; 0 where that is not known
    parameters: int  # of the decoder layers
    outside: int  # parameters that are neither the layers' nor the unembedding's: embeddings of tokens, norms
    facts: Facts
    chat_template: bool | None = None  # whether the tokenizer has one; None where its files do not say

    @property
    def unembedding(self) -> int:
        """Parameters of the unembedding."""
        return self.hidden * self.vocabulary

    @property
    def cached_numbers(self) -> int:
        """Numbers that a generation keeps of each token: keys and values of every layer."""
        return 2 * self.layers * (self.facts.layer.keys or self.hidden)


@frozen
class DataCard:
    """Characters of an example's parts: their means, and those of the longest example."""

    prompt: float
    explanation: float
    longest_prompt: int
    longest_explanation: int


def model_card(model: Model) -> ModelCard | None:
    """Read a model's sizes; None if its files are not on this machine, or say too little.

    EngineError where a file that is there cannot be what it says.
    """
    path = model_files(model)
    if path is None:
        return None
    memory = card_file(fingerprint_path(path))
    if memory.is_file():
        return read_card(json.loads(memory.read_text()))
    check_files(path, whole=local_path(model.id) is not None)
    card = _from_gguf(path) if is_gguf(path) else _from_folder(path)
    if card is not None:
        memory.parent.mkdir(exist_ok=True)
        memory.write_text(json.dumps(attrs.asdict(card)))
    return card


def model_files(model: Model) -> Path | None:
    """Find the folder or file of a model on this machine, in the hub's cache too; None where it is not."""
    path = local_path(model.id)
    if path is None:
        path = _hub_folder(model.id, model.revision)
    if path is not None and model.gguf_file:
        path = path / model.gguf_file
    return path if path is not None and path.exists() else None


def _hub_folder(model_id: str, revision: str | None) -> Path | None:
    """Find a hub model's snapshot in the local cache, without importing the hub's client."""
    home = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    repository = Path(home).expanduser() / f"models--{model_id.replace('/', '--')}"
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision or ""
    folder = repository / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def _from_folder(folder: Path) -> ModelCard | None:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        shapes = dict(
            item for file in folder.glob("*.safetensors") for item in safetensors_shapes(file).items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(config, dict):
        return None
    config = config.get("text_config", config)
    if not shapes:
        return None
    return card_of(config, shapes, chat_template=_has_chat_template(folder))


def card_of(
    config: Mapping[str, Any], shapes: Mapping[str, list[int]], *, chat_template: bool | None = None
) -> ModelCard | None:
    """Give the card for a configuration and its weights' shapes by name; None where they say too little."""
    layers = config.get("num_hidden_layers") or config.get("n_layer")
    hidden = config.get("hidden_size") or config.get("n_embd")
    if not (layers and hidden):
        return None
    heads = config.get("num_attention_heads") or config.get("n_head") or 0
    heads = heads if isinstance(heads, int) else 0  # some architectures give one number for each layer
    vocabulary = config.get("vocab_size", 0)
    body = sum(math.prod(shape) for name, shape in shapes.items() if is_block(name))
    others = {name: math.prod(shape) for name, shape in shapes.items() if not is_block(name)}
    twice = config.get("tie_word_embeddings") is True and any("lm_head" in name for name in others)
    outside = max(0, sum(others.values()) - hidden * vocabulary * (1 + twice))
    facts = facts_of(config, shapes)
    return ModelCard(layers, hidden, vocabulary, heads, body, outside, facts, chat_template)


def card_file(name: str) -> Path:
    """Give the file in which a card is remembered; nothing need be there yet."""
    return cache_folder() / "cards-7" / f"{name}.json"


def read_card(data: dict[str, Any]) -> ModelCard:
    """Give a card that was kept as JSON."""
    facts = data.pop("facts")
    layer, linear = Layer(**facts.pop("layer")), [Linear(**module) for module in facts.pop("linear")]
    return ModelCard(**data, facts=Facts(layer, linear, **facts))


# Where transformers looks for the chat template of a folder, beside the tokenizer's own settings.
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def _has_chat_template(folder: Path) -> bool | None:
    if any((folder / name).exists() for name in _CHAT_TEMPLATES):
        return True
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return bool(settings.get("chat_template"))


_GGUF_KEYS = {
    "num_attention_heads": ".attention.head_count",
    "num_key_value_heads": ".attention.head_count_kv",
    "head_dim": ".attention.key_length",
    "intermediate_size": ".feed_forward_length",
    "num_experts": ".expert_count",
    "num_experts_per_tok": ".expert_used_count",
    "model_type": "general.architecture",
    "use_parallel_residual": ".use_parallel_residual",
}


def _from_gguf(file: Path) -> ModelCard | None:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        # A file of GGUF gives a matrix's inputs first.
        shapes = {tensor.name: [int(size) for size in reversed(tensor.shape)] for tensor in reader.tensors}
        layers = 1 + max(int(name.split(".")[1]) for name in shapes if is_block(name))
        vocabulary, hidden = shapes["token_embd.weight"]
        values = {
            key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")
        }
    except (OSError, ValueError, LookupError):
        return None
    config = {
        name: value
        for name, ending in _GGUF_KEYS.items()
        for key, value in values.items()
        if key.endswith(ending)
    }
    config |= {"num_hidden_layers": layers, "hidden_size": hidden, "vocab_size": vocabulary}
    return card_of(config, shapes, chat_template="tokenizer.chat_template" in reader.fields)


def data_card(data: Data) -> DataCard | None:
    """Sample the sources' text lengths; None if none of them can be read at once."""
    cards = [card for source in sources(data) if (card := _source_card(source, data)) is not None]
    if not cards:
        return None
    return DataCard(
        fmean(card.prompt for card in cards),
        fmean(card.explanation for card in cards),
        max(card.longest_prompt for card in cards),
        max(card.longest_explanation for card in cards),
    )


def _source_card(source: DataSource, data: Data) -> DataCard | None:
    rows = list(islice(_rows(source, data), SAMPLED_ROWS))
    if not rows:
        return None
    prompts = [prompt_characters(row) for row in rows]
    explanations = [len(row["explanation"]) for row in rows]
    return DataCard(fmean(prompts), fmean(explanations), max(prompts), max(explanations))


def _rows(source: DataSource, data: Data) -> Iterator[dict[str, str]]:
    if source.data_set is not None:
        rows = data_set_rows(source.data_set, data.dimension)
        yield from ({"explanation": "", **row} for row in rows)
        return
    if source.path is None or source.missing or source.adapter or source.path.is_dir():
        return
    columns = column_names(data)
    for place, row in read_file(source.path, set(columns.values())).rows:
        texts = row_texts(row, place, columns, labelled=True)
        yield {name: text or "" for name, text in texts.items() if name not in ("group", "label")}
