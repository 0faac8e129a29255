"""TOML text to plain data, within limits: no text a person writes comes near them, and none costs minutes."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from specs.toml.keys import join

MAX_BYTES = 2**20  # of a file, which who reads it checks
MAX_PARTS = 32  # of a dotted key, whose prefixes the parser visits one by one, each from its beginning
MAX_INTEGER = 2**63 - 1

_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_TUPLE = re.compile(r"\(('[^']*'(?:, ?'[^']*')*),?\)")  # a key as tomllib's messages spell it
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


def words(error: tomllib.TOMLDecodeError) -> str:
    """Give what is wrong with a text, with keys as TOML spells them, and without the place."""
    message = str(error).rpartition(" (at ")[0] or str(error)
    if message == "Cannot overwrite a value":
        return "a key that has a value already; expected each key and table once"
    said = _TUPLE.sub(_key, message)
    if match := re.fullmatch(r"Cannot declare (.*) twice", said):
        return f"the table {match[1]} stands twice; expected each table once"
    if match := re.fullmatch(r"Cannot mutate immutable namespace (.*)", said):
        return f"{match[1]} has its value already, to which nothing can be added; expected each key once"
    return said


def _key(spelled: re.Match[str]) -> str:
    return "`" + join(tuple(re.findall("'([^']*)'", spelled[1]))) + "`"
