"""Text in CSV files that a spreadsheet would run."""

from __future__ import annotations

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}")
"""How texts begin that spreadsheets may run (OWASP, CSV injection)."""


def no_formula(value: Any) -> Any:
    """Return a text with an apostrophe before it where it could be a formula; a number is none."""
    if not isinstance(value, str) or not value.lstrip(" ").startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
