"""What the engine asks of a fast tokenizer of transformers, whose own types mypy does not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """A fast tokenizer."""

    is_fast: bool
    chat_template: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    all_special_ids: Sequence[int]
    all_special_tokens: Sequence[str]
    added_tokens_decoder: Mapping[int, Any]
    backend_tokenizer: Any  # of the package tokenizers, which has no types

    def __call__(self, text: str | Sequence[str], **options: Any) -> Mapping[str, Any]:
        """Encode a text, or several."""

    def __hash__(self) -> int:
        """A tokenizer is itself alone."""

    def __len__(self) -> int:
        """Count the tokens, added ones included."""

    def get_vocab(self) -> dict[str, int]:
        """Give the id of each token's name."""

    def get_added_vocab(self) -> dict[str, int]:
        """Give the id of each added token, special ones included, which are their own names."""

    def decode(
        self, token_ids: int | Iterable[int], *, skip_special_tokens: bool = False, **options: Any
    ) -> str:
        """Give the text of token ids."""

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Give the tokens' names, which differ from their texts."""

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Give the text of tokens by their names."""

    def apply_chat_template(self, conversation: Sequence[Any], **options: Any) -> Any:
        """Give messages as the model's chat template writes them."""
