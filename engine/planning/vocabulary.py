"""The tokens of a model's tokenizer, read from its files without transformers or torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from engine.planning.sizes import model_files
from specs.common.spelling import nearest
from specs.tables.experiment import Model

# Where a folder may name tokens beside `tokenizer.json`.
_FURTHER = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")


@frozen
class Vocabulary:
    """The names of tokens, which of the added ones are their texts."""

    added: frozenset[str]
    """Also every text of the tokenizer's settings, some of which may be no token."""
    others: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.added or name in self.others

    def nearest(self, name: str) -> str:
        """Give the token spelled most like a name, an added one if one comes near; "" where none does."""
        return nearest(name, sorted(self.added)) or nearest(name, sorted(self.others))


def vocabulary(model: Model) -> Vocabulary | None:
    """Read the tokens of a model; None where its files are not here, or do not list them all."""
    folder = model_files(model)
    if folder is None or not folder.is_dir() or model.trust_remote_code:
        return None
    whole = _read(folder / "tokenizer.json")
    if not isinstance(whole, dict) or not isinstance(whole.get("model"), dict):
        return None
    listed = whole["model"].get("vocab")
    if isinstance(listed, dict):
        others = frozenset(listed)
    elif isinstance(listed, list):  # pairs of a token and its score
        others = frozenset(str(entry[0]) for entry in listed if isinstance(entry, list) and entry)
    else:
        return None
    further = [whole.get("added_tokens"), *(_read(folder / name) for name in _FURTHER)]
    return Vocabulary(frozenset(_texts(further)), others)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """Yield all texts in some values of JSON, keys of objects too."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts([*value.keys(), *value.values()])
        elif isinstance(value, list):
            yield from _texts(value)
