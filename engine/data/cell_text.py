"""The text of one value of a table, whatever its type there."""

from __future__ import annotations

import datetime
import math
import re
from decimal import Decimal
from typing import Any

from engine.errors import DataError


def cell_text(value: Any, where: str, column: str) -> str | None:
    """Give a value as text, None where there is none; DataError for what is no single value.

    A whole float is written without its point (4.0 is "4": tables keep whole numbers with gaps so), a NaN is
    no value, a truth value is `true` or `false`, a date or time is ISO 8601, a decimal keeps its places.
    """
    if value is None or isinstance(value, str):
        return _encodable(value, where, column)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, (int, Decimal)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise DataError(
        f'{where}: column "{column}" holds {_kind(value)}; expected text, a number, true or false, or a date'
    )


def whole_number(text: str) -> str:
    """Give a number without zeros alone behind its point ("4.0" → "4"), any other text as it is."""
    digits = re.fullmatch(r"([+-]?\d+)\.0+", text)
    return digits[1] if digits else text


def _encodable(text: str | None, where: str, column: str) -> str | None:
    try:
        if text is not None:
            text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(
            f'{where}: column "{column}" holds {half!a}, one half of a character (a lone surrogate); '
            "expected whole characters"
        ) from error
    return text


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes"
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"
