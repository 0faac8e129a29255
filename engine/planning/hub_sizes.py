"""A model's sizes from the hub: its configuration and the headers of its weights, without the weights."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from engine.models.loading import local_path
from engine.planning.sizes import ModelCard, card_file, card_of, read_card
from specs.common.whole_files import whole_file
from specs.tables.experiment import Model

SECONDS = 3.0  # in which the hub has to answer; a plan without it is a plan without these numbers


def hub_card(model: Model) -> ModelCard | None:
    """Ask the hub for a model's sizes; None where it is not to be reached, or says too little.

    A few kilobytes for each file of weights are read, once for each commit. With `HF_HUB_OFFLINE` nobody is
    asked.
    """
    if model.gguf_file or local_path(model.id) is not None or _offline():
        return None
    return _asked(model.id, model.revision)


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")


@cache
def _asked(name: str, revision: str | None) -> ModelCard | None:
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        info = api.model_info(name, revision=revision, timeout=SECONDS)
        memory = card_file(f"hub-{info.sha}")
        if memory.is_file():
            return read_card(json.loads(memory.read_text()))
        card = _card(api, name, str(info.sha), {file.rfilename for file in info.siblings or ()})
    except Exception:  # whatever the network, the hub or what it holds: a plan does without
        return None
    if card is not None:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(memory) as partial:
            Path(partial).write_text(json.dumps(attrs.asdict(card)))
    return card


def _card(api: Any, name: str, commit: str, files: set[str]) -> ModelCard | None:
    file = api.hf_hub_download(name, "config.json", revision=commit, etag_timeout=SECONDS)
    config = json.loads(Path(file).read_text("utf-8"))
    metadata = api.get_safetensors_metadata(name, revision=commit)
    shapes = {
        tensor: list(facts.shape)
        for weights in metadata.files_metadata.values()
        for tensor, facts in weights.tensors.items()
    }
    templates = {"chat_template.jinja", "chat_template.json"}
    return card_of(config.get("text_config", config), shapes, chat_template=bool(templates & files) or None)
