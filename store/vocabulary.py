"""Texts of token ids: one file per tokenizer, named by its content, which many probes share."""

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from store.files import read_json, write_json


def write_vocabulary(root: str | os.PathLike[str], texts: Sequence[str]) -> str:
    """Keep the text of every token id (the place in `texts`); return the key to read it by."""
    key = blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    if not (path := _path(root, key)).exists():
        write_json(path, {"texts": list(texts)})
    return key


def read_vocabulary(root: str | os.PathLike[str], key: str) -> list[str] | None:
    """Return the texts by token id; None where the store has no such vocabulary."""
    try:
        texts: list[str] = read_json(_path(root, key))["texts"]
    except FileNotFoundError:
        return None
    return texts


def _path(root: str | os.PathLike[str], key: str) -> Path:
    return Path(root) / "vocabulary" / f"{key}.json"
