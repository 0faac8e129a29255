"""The neutral text of `evaluate.neutral_text`: documents of this package, or of a person's file."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from engine.data.neutral_documents import DOCUMENTS
from engine.errors import DataError
from specs.toml.paths import no_such

BUILT_IN = "builtin"
CHUNK = 256  # tokens that are measured together, at most


def neutral_documents(source: str) -> list[str]:
    """Give the documents of a neutral text.

    A file whose name ends in `.jsonl` has one in the column `text` of each line; any other is one document.
    Raises DataError for a file that is missing, no text, or empty.
    """
    if source == BUILT_IN:
        return list(DOCUMENTS)
    path = Path(source)
    try:
        content = path.read_text("utf-8")
    except FileNotFoundError:
        told = no_such(path, f'file, nor "{BUILT_IN}"')
        raise DataError(f"evaluate.neutral_text: {told}") from None
    except (OSError, UnicodeDecodeError) as error:
        message = f'evaluate.neutral_text: "{source}" cannot be read ({error}); expected a text in UTF-8'
        raise DataError(message) from error
    texts = _columns(content, source) if path.suffix == ".jsonl" else [content]
    if not (documents := [text.strip() for text in texts if text.strip()]):
        expected = 'a line like {"text": "…"} or more' if path.suffix == ".jsonl" else "a text in UTF-8"
        raise DataError(f'evaluate.neutral_text: "{source}" holds no text; expected {expected}')
    return documents


def _columns(content: str, source: str) -> list[str]:
    texts = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            message = f'evaluate.neutral_text: "{source}", line {number}: expected {{"text": "…"}}'
            raise DataError(f"{message}, found {line.strip()[:60]}")
        texts.append(text)
    return texts


def text_identity(source: str) -> str:
    """Hash the documents of a neutral text: 32 hex digits, the same wherever they lie."""
    whole = json.dumps(neutral_documents(source), ensure_ascii=False)
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
