"""Documents as chunks of token ids, each of a length that a model reads at once."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from engine.errors import DataError
from engine.models.tokenizer import Tokenizer


@frozen
class Chunk:
    """A piece of a document, as token ids, the one that begins a text among them."""

    document: int
    number: int
    ids: list[int]


def chunks(tokenizer: Tokenizer, documents: Sequence[str], longest: int, key: str) -> list[Chunk]:
    """Part documents into chunks of so many tokens at most; of each, all tokens but the first are predicted.

    Every chunk begins with the token that begins a text, where the tokenizer has one. What is left at a
    document's end counts if it has a token to predict. key: of the spec, for errors. Raises DataError where
    nothing has.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    room = longest - len(start)
    parts = []
    for document, text in enumerate(documents):
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        pieces = [[*start, *ids[place : place + room]] for place in range(0, len(ids), room)]
        parts += [Chunk(document, number, piece) for number, piece in enumerate(pieces) if len(piece) > 1]
    if not parts:
        raise DataError(f"{key}: found no text of two tokens")
    return parts
