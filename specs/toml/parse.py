"""TOML text to plain data, within limits: no text a person writes comes near them, and none costs minutes."""

from __future__ import annotations

import re
import tomllib
from typing import Any

MAX_BYTES = 2**20  # of a file, which who reads it checks
MAX_PARTS = 32  # of a dotted key, whose prefixes the parser visits one by one, each from its beginning
MAX_INTEGER = 2**63 - 1

_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?:{_PART}[ \t]*+\.[ \t]*+){{{MAX_PARTS}}}")


class TooLargeError(ValueError):
    """A text beyond the limits, and the line where that shows."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> dict[str, Any]:
    """Parse a TOML text; tomllib.TOMLDecodeError where it is none, TooMuchError where it is too much."""
    if match := _LONG_KEY.search(text):
        raise TooLargeError(
            f"a dotted key of more than {MAX_PARTS} parts", text.count("\n", 0, match.start()) + 1
        )
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise TooLargeError("arrays or tables nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python's own limit for digits
        raise TooLargeError(f"an integer of thousands of digits; expected at most {MAX_INTEGER}") from None
