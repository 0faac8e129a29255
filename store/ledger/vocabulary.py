"""Texts of token ids: one file per tokenizer, named by its content, which many probes share."""

from collections.abc import Sequence
from hashlib import blake2b

from store.backend.locate import place_of
from store.backend.location import Root
from store.backend.records import plain, read_json, write_json
from store.errors import MEND, DamagedError


def write_vocabulary(root: Root, texts: Sequence[str]) -> str:
    """Keep the text of every token id (the place in `texts`); return the key to read it by."""
    key = blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    if not (place := place_of(root)).exists(vocabulary_name(key)):
        write_json(place, vocabulary_name(key), {"texts": list(texts)})
    return key


def read_vocabulary(root: Root, key: str) -> list[str] | None:
    """Return the texts by token id; None where there is none, DamagedError for a torn one."""
    try:
        record = read_json(place_of(root), vocabulary_name(key))
    except FileNotFoundError:
        return None
    texts: list[str] = record["texts"]
    return texts


def probed_vocabularies(root: Root, named: str) -> list[list[str]]:
    """Return the vocabularies that a probe's attribute names, none where it is empty.

    DamagedError where one is missing or torn.
    """
    texts_by_key = {key: read_vocabulary(root, key) for key in named.split(", ") if key}
    if missing := [key for key, texts in texts_by_key.items() if texts is None]:
        raise DamagedError(f"{place_of(root)}/{vocabulary_name(missing[0])}: missing; {MEND}")
    return [texts for texts in texts_by_key.values() if texts is not None]


def vocabulary_name(key: str) -> str:
    """Return the file of a vocabulary in the store."""
    return f"vocabulary/{plain(key)}.json"
