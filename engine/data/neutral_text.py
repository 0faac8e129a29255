"""Plain texts that a spec names: documents of this package, or of a person's file."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from engine.data.neutral_documents import DOCUMENTS
from engine.errors import DataError
from specs.common.names import BUILT_IN_TEXT, TRAINED_TEXTS
from specs.toml.paths import no_such

NEUTRAL_TEXT = "evaluate.neutral_text"
CHUNK = 256  # tokens that are measured together, at most


def neutral_documents(source: str, key: str = NEUTRAL_TEXT) -> list[str]:
    """Give the documents of a text. key: of the spec, for errors.

    A file whose name ends in `.jsonl` has one in the column `text` of each line; any other is one document.
    Raises DataError for a file that is missing, no text, or empty.
    """
    if source == BUILT_IN_TEXT:
        return list(DOCUMENTS)
    path = Path(source)
    try:
        content = path.read_text("utf-8")
    except FileNotFoundError:
        words = [BUILT_IN_TEXT] if key == NEUTRAL_TEXT else [TRAINED_TEXTS, BUILT_IN_TEXT]
        raise DataError(f"{key}: {no_such(path, 'file', words=words)}") from None
    except (OSError, UnicodeDecodeError) as error:
        message = f'{key}: "{source}" cannot be read ({error}); expected a text in UTF-8'
        raise DataError(message) from error
    texts = _columns(content, source, key) if path.suffix == ".jsonl" else [content]
    if not (documents := [text.strip() for text in texts if text.strip()]):
        expected = 'a line like {"text": "…"} or more' if path.suffix == ".jsonl" else "a text in UTF-8"
        raise DataError(f'{key}: "{source}" holds no text; expected {expected}')
    return documents


def _columns(content: str, source: str, key: str) -> list[str]:
    texts = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            message = f'{key}: "{source}", line {number}: expected {{"text": "…"}}'
            raise DataError(f"{message}, found {line.strip()[:60]}")
        texts.append(text)
    return texts


def text_identity(source: str, key: str = NEUTRAL_TEXT) -> str:
    """Hash the documents of a text: 32 hex digits, the same wherever they lie.

    key: of the spec, for errors.
    """
    whole = json.dumps(neutral_documents(source, key), ensure_ascii=False)
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
