"""What commands print for programs: JSON, as `output_schemas` says, or CSV of one row per entry."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import click

from engine.errors import UsageError
from engine.terminal import say
from specs.common.spreadsheets import no_formula
from store.ledger.levels import level_text

FORMAT = 1
"""Of the JSON: raised when a key changes its meaning or goes away; a new key leaves it as it is."""

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
CSV = click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a row per entry.")


def check_one(*, as_json: bool, as_csv: bool) -> None:
    """UsageError where both forms are asked for."""
    if as_json and as_csv:
        raise UsageError("--json and --csv: expected one of the two")


def say_json(content: Any) -> None:
    """Print a value as JSON; numbers that are none (NaN, infinity) are null."""
    say(json.dumps(plain(content), indent=2, ensure_ascii=False), lines=True)


def say_csv(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows under the names of all their keys, in the order in which they come; what lacks is empty."""
    listed = list(rows)
    names = list(dict.fromkeys(name for row in listed for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_field, names))
    writer.writerows([_field(plain(row.get(name))) for name in names] for row in listed)
    say(text.getvalue().removesuffix("\n"), lines=True)


def plain(value: Any) -> Any:
    """Give a value in the types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):  # a scalar of numpy
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _field(value: Any) -> str:
    """Give a field of CSV; text that a spreadsheet would run as a formula has an apostrophe before it."""
    if isinstance(value, str):
        return str(no_formula(value))
    return "" if value is None else level_text(value)
