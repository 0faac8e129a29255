"""Texts of token ids: one file per tokenizer, named by its content, which many probes share."""

from collections.abc import Sequence
from hashlib import blake2b

from store.files import read_json, write_json
from store.places import Root, place_of


def write_vocabulary(root: Root, texts: Sequence[str]) -> str:
    """Keep the text of every token id (the place in `texts`); return the key to read it by."""
    key = blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    if not (place := place_of(root)).exists(_name(key)):
        write_json(place, _name(key), {"texts": list(texts)})
    return key


def read_vocabulary(root: Root, key: str) -> list[str] | None:
    """Return the texts by token id; None where the store has no such vocabulary."""
    try:
        texts: list[str] = read_json(place_of(root), _name(key))["texts"]
    except FileNotFoundError:
        return None
    return texts


def _name(key: str) -> str:
    return f"vocabulary/{key}.json"
